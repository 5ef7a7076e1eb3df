"""A seed fan: the same training from several seeds, as one thing: its band, and how many stall.

Choices made here:

* A fan is nothing but runs that share `Run.fan`: each is queued, trained, resumed and exported like
  any other.
* A run has stalled if its loss stays at ln(classes) (`trouble.plateau`, or in a run too short for
  one, its last loss together with a diagnosis), or if it diverged. In a run as short as the
  example's that says that it has not left guessing by then, not that it never will; the run's own
  diagnosis, made from its class maps, says more.
* A band's point is over the runs that have it, and says how many: one that ended early or diverged
  takes nothing from the others, and while runs train the band only grows.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from . import jobs, trouble
from .checks import whole
from .recipes import FAN_SEEDS
from .records import RunNotFound

if TYPE_CHECKING:
    from .config import NiNConfig
    from .recipes import TrainConfig
    from .records import Run
    from .store import RunStore

MAX_SEEDS = 50
# nin-slim-128: 100 steps, in which `fast` reaches 57 to 70 % and six tutorial runs of six stayed at
# 10 %; about 7 s a run on one core of two.
EXAMPLE_IMAGES = 6400


class BandPoint(NamedTuple):
    """A figure of a fan's runs after `step` steps; `runs` of them have it."""

    step: float
    lowest: float
    median: float
    highest: float
    runs: int


@dataclass(frozen=True)
class Stall:
    """A run of a fan that learns nothing, and why, in a sentence."""

    run: Run
    why: str


def new_name() -> str:
    """A name that no fan has."""
    return uuid.uuid4().hex[:12]


def start(
    store: RunStore,
    network: NiNConfig,
    train: TrainConfig,
    dataset: str,
    seeds: int,
    *,
    name: str | None = None,
    outlive: bool = False,
) -> str:
    """Put a run for each of the seeds 0, 1, … in the queue and return the fan's name.

    Args:
        name: the fan's, from `new_name`, for whoever has to know it before.
        outlive: as for `jobs.advance`.

    Raises:
        ConfigError: for a number of seeds out of range, or a run that cannot be.
        StoreError: if the runs cannot be written down.
    """
    whole(seeds, "seeds", 1, MAX_SEEDS, field="seeds", default=FAN_SEEDS)
    jobs.require(network, train, dataset)
    fan = name or new_name()
    store.create_fan(network, [replace(train, seed=seed) for seed in range(seeds)], dataset, fan)
    jobs.try_advance(store, outlive=outlive)
    return fan


def runs(store: RunStore, fan: str) -> list[Run]:
    """The fan's runs by their seeds; empty if there is no such fan."""
    return sorted(store.list_runs(limit=MAX_SEEDS, fan=fan), key=lambda run: run.id)


def stop(store: RunStore, fan: str, *, outlive: bool = False) -> None:
    """Ask all runs of a fan that wait, train or pause to stop.

    Args:
        outlive: as for `jobs.advance`.
    """
    going = [run.id for run in runs(store, fan) if run.active or run.state == "paused"]
    jobs.stop_runs(store, going, outlive=outlive)


def delete(store: RunStore, fan: str) -> None:
    """Delete a fan with all of its runs.

    Raises:
        StateError: for the first that waits or trains; stop the fan before.
    """
    for run in runs(store, fan):
        with suppress(RunNotFound):
            store.delete(run.id)


def stalled(store: RunStore, members: Iterable[Run]) -> list[Stall]:
    """Those of the runs that learn nothing, with the reason that the product gives for each."""
    found = []
    for run in members:
        rows = [row for row in store.metrics(run.id) if row.kind == "step"]
        losses = [math.nan if row.train_loss is None else row.train_loss for row in rows]
        right = [math.nan if row.train_accuracy is None else row.train_accuracy for row in rows]
        if stall := stall_of(run, [row.step for row in rows], losses, right):
            found.append(stall)
    return found


def stall_of(
    run: Run, steps: Sequence[float], losses: Sequence[float], accuracies: Sequence[float]
) -> Stall | None:
    """Why a run learns nothing; None if it does learn, or has not shown yet.

    Args:
        steps, losses, accuracies: its training curve, as for `trouble.plateau`.
    """
    if run.network is None:
        return None
    if (run.error or "").startswith(trouble.DIVERGED):
        return Stall(run, run.error or "")
    classes = run.network.num_classes
    flat = trouble.plateau(steps, losses, classes, accuracies) is not None
    # A short run has too few points for a plateau, but at its end its weights were looked at.
    guesses = len(losses) > 0 and losses[-1] >= (1 - trouble.GUESSING_BAND) * math.log(classes)
    if not (flat or (run.diagnosis and guesses)):
        return None
    why = f"The loss has stayed at ln({classes}) = {math.log(classes):.3f}."
    return Stall(run, run.diagnosis or why)


def band(curves: Iterable[tuple[Sequence[float], Sequence[float]]]) -> list[BandPoint]:
    """Lowest, median and highest of a figure at each step at which any curve has it.

    Args:
        curves: the steps and the values of each run; a value that is not finite is left out.
    """
    values: dict[float, list[float]] = {}
    for steps, figures in curves:
        # The last value of a step counts: a test on the whole set follows the estimate.
        for step, value in dict(zip(map(float, steps), map(float, figures), strict=True)).items():
            if math.isfinite(value):
                values.setdefault(step, []).append(value)
    return [
        BandPoint(step, min(here), median(here), max(here), len(here))
        for step, here in sorted(values.items())
    ]
