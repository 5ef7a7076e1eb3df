"""How this computer trains a network fastest: threads, layout, number format, resizing. No torch.

`probe` times real training steps, one choice changed at a time, and keeps what it found in a file
beside the runs; `settings_for` says what a new run gets.

Choices made here:

* The fastest of a trial's steps counts, since whatever else runs can only slow steps down.
* Kept for each computer, PyTorch and size of network: networks whose multiply-accumulates, values
  and batch are the same to the next power of two share what was found.
* The usual settings are as many parts of a batch as there are cores (`parts`), each computed by a
  thread of its own, channels_last where the network can (`model.memory_layout`), float32, and
  images resized batch by batch. Another choice must be clearly faster, by a tenth.
* The other way to use several cores is to have PyTorch's own threads share each operation. It is
  tried, and so is one thread.
* Runs that train at once share the cores: of nin-slim-128 one with two threads beside one with one
  trained half as many images together as two with one each (1,739 against 3,216 a second, two AVX2
  cores). So a run's threads change while it goes, when others come and go. In parts that changes no
  bit; a step that PyTorch's threads share has other bits with another number of them, so
  `Settings.thread_changes` says after which steps that was.
* bfloat16 is computed by autocast: weights, gradients and updates stay float32, and so do tests.
  Where the processor has no instructions for it a step takes ten times as long, which the second
  step tells; then the trial ends.
* Resizing once keeps every training image in float32 as the network takes it: the same bits sooner.
  It pays over several epochs of images that are not changed at random, if they fit into an eighth
  of the memory that is free.
* The other settings change the bits of a run, though not what it learns: a run keeps those it began
  with, and its changes of threads at their steps, also when it begins anew because it was killed
  before its first checkpoint.
* A probe is a guest. It measures when a run has ended and nobody waits, and stops when someone
  does. Without one, a run gets the usual settings.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from . import machine
from .config import NiNConfig
from .datasets import DatasetInfo
from .estimate import EVENT_SECONDS, seconds_per_image
from .recipes import TrainConfig
from .summary import BYTES, summarize

CLEARLY = 1.1  # times as fast; less is noise, or not worth other bits
# Images of a part in the usual settings, at least: smaller ones cost a network of short steps more.
SHORT_PART, LONG_PART = 32, 16
LEAST_PART = 8  # images; a batch that has fewer for each part has fewer parts
HOPELESS = 2.0  # times as slow as the best so far, after which a trial need not go on
TRIAL_SECONDS = 0.6
STEP_SECONDS = 0.25  # of a trial's step, by the estimate: a wide network gets a smaller batch
LEAST_BATCH, LEAST_STEPS = 4, 3
MEMORY_SHARE = 8  # resized images may take the n-th part of what is free
METHOD = 2  # what another version has found by other trials is not known to this one
SWITCH = "NIN_PROBE"  # "0" in the environment: no run is followed by a probe


@dataclass(frozen=True, slots=True)
class Settings:
    """How the steps of a run are computed.

    Attributes:
        threads: that compute at once, where no other run has a share of the cores.
        channels_last: the layout of images and maps, where the network can; otherwise channels
            come first.
        bfloat16: whether products are computed in bfloat16, by autocast.
        resize_once: whether images are brought to the network's size once, not in every batch.
        thread_changes: ``(steps, threads)``, rising: after so many steps it was so many threads;
            after none, if the run began beside others.
        parts: in which a batch is computed (see `parts`); with one, PyTorch's threads share it.
    """

    threads: int = 1
    channels_last: bool = True
    bfloat16: bool = False
    resize_once: bool = False
    thread_changes: tuple[tuple[int, int], ...] = ()
    parts: int = 1

    def __post_init__(self) -> None:
        changes = tuple((step, threads) for step, threads in self.thread_changes)
        object.__setattr__(self, "thread_changes", changes)  # JSON has lists

    def threads_after(self, step: int) -> int:
        """The threads of the step that follows `step` steps."""
        return [self.threads, *(n for since, n in self.thread_changes if since <= step)][-1]

    def torch_threads(self, step: int) -> int:
        """The threads that PyTorch is to share each operation of that step among."""
        return 1 if self.parts > 1 else self.threads_after(step)

    def with_threads(self, step: int, threads: int) -> Self:
        """These settings with other threads after `step` steps, whatever was to come there."""
        earlier = [change for change in self.thread_changes if change[0] < step]
        return replace(self, thread_changes=(*earlier, (step, threads)))

    def words(self) -> str:
        """For people, e.g. "2 threads, batch in 2 parts, bfloat16, channels last"."""
        threads, since = self.threads, ""
        if self.thread_changes:
            step, threads = self.thread_changes[-1]
            since = f" since step {step + 1:,}" if step else ""
        return ", ".join(
            [
                f"{threads} thread{'s' if threads > 1 else ''}{since}",
                *([f"batch in {self.parts} parts"] if self.parts > 1 else []),
                "bfloat16" if self.bfloat16 else "float32",
                "channels last" if self.channels_last else "channels first",
                *(["resized once"] if self.resize_once else []),
            ]
        )

    def to_json(self) -> str:
        """For the store; `from_json` reads it back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` gives.

        Raises:
            ValueError: if it is something else.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ValueError(f"no settings of a run: {text[:100]}") from error


@dataclass(frozen=True, slots=True)
class Trial:
    """What a probe found for some settings.

    Attributes:
        settings: the ones that were tried.
        images_per_second: training images, the fastest step's; of a trial that was broken off
            because it was hopeless, the second step's.
    """

    settings: Settings
    images_per_second: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was found for networks of one size on one computer.

    Attributes:
        trials: in the order in which they were made; the first has the usual settings.
        chosen: what a run that has the computer to itself gets.
    """

    trials: tuple[Trial, ...]
    chosen: Settings

    @property
    def images_per_second(self) -> float:
        """Of the chosen settings, or of the nearest that were tried."""
        return max(
            (trial.images_per_second for trial in self.trials if trial.settings == self.chosen),
            default=self.trials[0].images_per_second,
        )


# --- what a run gets --------------------------------------------------------------------------


def settings_for(
    network: NiNConfig,
    train: TrainConfig,
    dataset: DatasetInfo,
    *,
    cores: int,
    free_bytes: int | None = None,
) -> Settings:
    """The settings of a new run that has the computer to itself (see `threads_beside`).

    Args:
        cores: of this computer.
        free_bytes: memory that is free; None where the system does not tell.
    """
    found = known(network, train.batch_size)
    chosen = usual_settings(network, train.batch_size, cores) if found is None else found.chosen
    once = chosen.resize_once and can_resize_once(network, train, dataset, free_bytes)
    return replace(chosen, resize_once=once)


def usual_settings(network: NiNConfig, batch_size: int, cores: int) -> Settings:
    """Those of a run that has a computer with so many cores to itself, before any was measured.

    A batch too small for parts is for PyTorch's own threads, if its steps are long.
    """
    short = seconds_per_image(network) * batch_size < EVENT_SECONDS / 3
    parts = max(1, min(cores, batch_size // (SHORT_PART if short else LONG_PART)))
    return Settings(threads=parts if parts > 1 or short else cores, parts=parts)


def threads_beside(settings: Settings, cores: int) -> Callable[[int], int]:
    """A run's threads by how many runs share a computer with so many cores, itself included.

    Args:
        settings: the run's; its parts, or the threads that it has alone, are the most it can use.

    Two processes with two threads each on two cores collapse to a tenth of their speed, so shares
    never overlap.
    """
    most = max(settings.parts, settings.threads, *(n for _, n in settings.thread_changes), 1)
    return lambda running: max(1, min(most, cores // max(1, running)))


def can_resize_once(
    network: NiNConfig, train: TrainConfig, dataset: DatasetInfo, free_bytes: int | None
) -> bool:
    """Whether every training image, as the network takes it, may be kept (see the module)."""
    if network.image_size == dataset.side or train.flip or train.shift:
        return False
    if train.total_epochs < 2 or free_bytes is None:
        return False
    return resized_bytes(network, train, dataset) * MEMORY_SHARE <= free_bytes


def resized_bytes(network: NiNConfig, train: TrainConfig, dataset: DatasetInfo) -> int:
    """Memory that all training images take as the network takes them."""
    images = min(train.subset or dataset.train_size, dataset.train_size)
    return BYTES * images * network.in_channels * network.image_size**2


# --- the probe --------------------------------------------------------------------------------


class _Stopped(Exception):
    """Ends a probe that is in somebody's way."""


def probe(
    network: NiNConfig,
    train: TrainConfig,
    dataset: DatasetInfo,
    *,
    cores: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[float], None] = lambda done: None,
) -> Tuning | None:
    """Time training steps of random images, keep what was found, and return it.

    Imports torch, leaves it with another number of threads, and takes a few seconds.

    Args:
        dataset: whose images are imitated, in size and channels.
        cores: threads that may be tried; default: those of this computer.
        should_stop: asked between steps; once true nothing is kept and None is returned.
        progress: called after every trial with the share of them that is done, 0 to 1.
    """
    from .model import can_use_channels_last
    from .trial import step_timer

    cores = cores or machine.available_cores()
    affordable = int(STEP_SECONDS / seconds_per_image(network))
    chosen = usual_settings(network, train.batch_size, cores)
    least = max(LEAST_BATCH, LEAST_PART * chosen.parts)
    batch = max(min(least, train.batch_size), min(train.batch_size, affordable))
    trials: list[Trial] = []

    def speed_of(settings: Settings) -> float:
        best = max((trial.images_per_second for trial in trials), default=0.0)
        step = step_timer(network, train, dataset, batch, settings)
        step()  # also prepares kernels, memory and, where they are resized once, the images
        fastest = step()
        if HOPELESS * batch / fastest > best:
            count, began = 0, time.perf_counter()
            while count < LEAST_STEPS or time.perf_counter() - began < TRIAL_SECONDS:
                if should_stop():
                    raise _Stopped
                fastest = min(fastest, step())
                count += 1
        return batch / fastest

    def attempt(settings: Settings) -> float:
        trial = Trial(settings, speed_of(settings))
        trials.append(trial)
        progress(len(trials) / (1 + len(changes)))
        return trial.images_per_second

    changes: list[dict[str, Any]] = [{"bfloat16": True}]
    if can_use_channels_last(network):
        changes.insert(0, {"channels_last": False})
    changes += [{"threads": cores, "parts": 1}, {"threads": 1, "parts": 1}]
    if network.image_size != dataset.side:
        changes.append({"resize_once": True})
    try:
        speed = attempt(chosen)
        for change in changes:
            settings = replace(chosen, **change)
            if settings == chosen:
                continue
            found = attempt(settings)
            # What seems faster may only have had a quieter moment: the other one gets a second.
            if found > CLEARLY * speed and found > CLEARLY * max(speed, speed_of(chosen)):
                chosen, speed = settings, found
    except _Stopped:
        return None
    tuning = Tuning(tuple(trials), chosen)
    _keep(network, train.batch_size, tuning)
    return tuning


def is_wanted(network: NiNConfig, batch_size: int) -> bool:
    """Whether a run of this network, once it has ended, is to be followed by a probe."""
    on = os.environ.get(SWITCH) != "0" and not machine.accelerators()
    return on and known(network, batch_size) is None


# --- what was found ---------------------------------------------------------------------------


def path() -> Path:
    """The file in which it is kept."""
    return machine.cache_path().with_name("tuning.json")


def known(network: NiNConfig, batch_size: int) -> Tuning | None:
    """What was found on this computer for networks of this size; None if nothing was."""
    return _read().get(_key(network, batch_size))


def _keep(network: NiNConfig, batch_size: int, tuning: Tuning) -> None:
    entries = {key: asdict(value) for key, value in _read().items()}
    entries[_key(network, batch_size)] = asdict(tuning)
    machine.remember(path(), entries)


def _key(network: NiNConfig, batch_size: int) -> str:
    summary = summarize(network)
    macs, values = summary.total_macs, summary.total_activation_bytes // BYTES
    size = "-".join(str(count.bit_length()) for count in (macs, values, batch_size))
    return f"{machine.identity()} · {size} · {METHOD}"


def _read() -> dict[str, Tuning]:
    """What the file holds; one that is missing or damaged holds nothing."""
    try:
        entries: Any = json.loads(path().read_text())
        return {key: _tuning(value) for key, value in entries.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _tuning(entry: dict[str, Any]) -> Tuning:
    trials = tuple(
        Trial(Settings(**trial["settings"]), float(trial["images_per_second"]))
        for trial in entry["trials"]
    )
    if not trials:
        raise ValueError("no trials")
    return Tuning(trials, Settings(**entry["chosen"]))
