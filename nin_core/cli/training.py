"""Commands around training: `train`, `fan`, `check` and `probe`.

Choices made here:

* `train` works in this very process, but its run is in the store like any other: it takes a slot
  and waits until there is one, the dashboard shows it live and can stop it. Ctrl-C stops it and
  keeps what it has learned.
* `fan` queues its runs and waits for them; Ctrl-C stops all.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..checks import choice
from ..config import NiNConfig
from ..datasets import DATASETS
from ..recipes import FAN_SEEDS, RECIPES
from .arguments import (
    TRAINING_FLAGS,
    Commands,
    add_command,
    add_json,
    add_network,
    add_run_name,
    add_training,
    network_of,
    training_changes,
)
from .output import CommandError, json_line, print_json, print_table
from .store import opened_store

if TYPE_CHECKING:
    from ..recipes import TrainConfig
    from ..records import Run, Start, WorkerId
    from ..store import RunStore
    from ..training import EpochEvent, StepEvent

WAIT_SECONDS = 0.5  # from one look for a free slot to the next
FAN_SECONDS = 0.5  # from one look at a fan's runs to the next
EVENT_FIELDS = (
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "examples_per_second",
    "seconds",
)


def _add_plan(command: argparse.ArgumentParser) -> None:
    """What `_plan` reads, but for changes of the recipe."""
    add_network(command)
    add_json(command)
    command.add_argument("--recipe", default="fast", help=f"{' or '.join(RECIPES)} (fast)")
    command.add_argument("--dataset", help=", ".join(DATASETS))


def _plan(options: argparse.Namespace) -> tuple[NiNConfig, TrainConfig, str]:
    """The network, how it is trained and on what, from the flags.

    Raises:
        ConfigError: if they do not go together, or one is none.
    """
    network = network_of(options)
    choice(options.recipe, "--recipe", tuple(RECIPES), field="recipe")
    dataset = options.dataset or ("fashion-mnist" if network.in_channels == 1 else "cifar10")

    from ..jobs import check_dataset

    check_dataset(network, dataset)
    info = DATASETS[dataset]
    config = RECIPES[options.recipe].configure(
        network, train_size=info.train_size, mirrors=info.mirrors, **training_changes(options)
    )
    return network, config, dataset


# --- train ------------------------------------------------------------------------------------


def add_train(commands: Commands) -> None:
    """`train`: one run, in this process."""
    command = add_command(commands, "train", "train a network; the dashboard shows the run, too")
    command.set_defaults(action=_train)
    _add_plan(command)
    add_training(command)
    add_run_name(command)


def _train(options: argparse.Namespace) -> int:
    network, config, dataset = _plan(options)

    from ..jobs import require, try_advance
    from ..processes import this_worker
    from ..reporter import leave_run, patiently
    from ..worker import work_on

    require(network, config, dataset)
    printer = _Printer(options.json)
    with opened_store() as store:
        worker = this_worker()
        run_id = _run_with_a_slot(store, network, config, dataset, options.run_name, worker)
        attempt = patiently(lambda: store.claim(run_id, worker))
        if attempt is None:
            raise CommandError(f"Run #{run_id} was stopped before it began.")
        run = store.get(run_id)
        printer.start(run)
        reporter = work_on(
            store, run_id, attempt, printer.event, on_start=printer.look, polite=True
        )
        leave_run(store, run_id, attempt, reporter.trouble)
        run = store.get(run_id)
        try_advance(store, outlive=True)
    printer.end(run)
    if run.state == "failed":
        raise CommandError(run.error or f"Run #{run_id} failed.")
    return 130 if reporter.signals and run.state == "stopped" else 0


def _run_with_a_slot(
    store: RunStore,
    network: NiNConfig,
    config: TrainConfig,
    dataset: str,
    name: str | None,
    worker: WorkerId,
) -> int:
    """A new run for this process, as soon as there are a slot and the memory for it here."""
    from .. import admission, jobs

    slots, told = jobs.slots_here(), False
    while True:
        jobs.try_advance(store, slots=0)  # whose worker died has no slot any more
        here = [run for run in store.work()[0] if run.worker_host == worker.host]
        why = admission.lacks_memory(network, config, dataset, here)
        if why is None:
            run_id = store.create_at_work(network, config, dataset, name, worker, slots)
            if run_id is not None:
                return run_id
            train = "1 run trains" if slots == 1 else f"{slots} runs train"
            why = f"{train} here already; this one begins when a slot is free"
        if not told:
            told = True
            sentence = f"{why[:1].upper()}{why[1:]}. Ctrl-C gives up."
            print(sentence, file=sys.stderr, flush=True)
        time.sleep(WAIT_SECONDS)


class _Printer:
    """Shows a run on stdout: JSON lines, or a line an epoch with a moving one in a terminal."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._moving = not as_json and sys.stdout.isatty()
        self._broken = False

    def start(self, run: Run) -> None:
        if not self._json:
            self._say(f"Run #{run.id}: {run.name}, on {run.dataset}. Ctrl-C stops it.")

    def event(self, event: StepEvent | EpochEvent) -> None:
        from ..training import EpochEvent  # loaded long since

        epoch = isinstance(event, EpochEvent)
        if self._json:
            fields = {name: getattr(event, name) for name in EVENT_FIELDS}
            self._say(json_line({"event": "epoch" if epoch else "step", **fields}))
        elif epoch:
            self._say(
                f"epoch {event.epoch}: loss {event.train_loss:.3f}, "
                f"training accuracy {event.train_accuracy:.1%}, "
                f"test accuracy {event.test_accuracy:.1%}, "
                f"{event.examples_per_second:,.0f} images/s, {event.seconds:.1f} s"
            )
        elif self._moving:
            left = (event.total_steps - event.step) * event.seconds / event.step
            self._say(
                f"step {event.step:,} of {event.total_steps:,}: loss {event.train_loss:.3f}, "
                f"accuracy {event.train_accuracy:.1%}, {event.examples_per_second:,.0f} images/s, "
                f"{left:.0f} s left",
                moving=True,
            )

    def look(self, start: Start) -> None:
        """What was found before the first step."""
        if self._json:
            self._say(json_line({"event": "start", **start._asdict()}))
        elif start.verdict != "ready":
            self._say(f"Before the first step: {start.sentence}")

    def end(self, run: Run) -> None:
        if self._json:
            fields = {name: getattr(run, name) for name in EVENT_FIELDS}
            self._say(json_line({"event": "end", **fields, "state": run.state, "run_id": run.id}))
            return
        test = "" if run.test_accuracy is None else f", test accuracy {run.test_accuracy:.1%}"
        self._say(f"{run.state} after {run.step:,} steps and {run.seconds:.1f} s{test}")
        if run.diagnosis:
            self._say(run.diagnosis)

    def _say(self, line: str, *, moving: bool = False) -> None:
        if self._broken:
            return
        clear = "\r\x1b[K" if self._moving else ""
        try:
            print(f"{clear}{line}", end="" if moving else "\n", flush=True)
        except BrokenPipeError:
            # Whoever read this has gone (`| head`): end the run as Ctrl-C would.
            self._broken = True
            sys.stdout = None  # type: ignore[assignment]  # no second complaint at exit
            signal.raise_signal(signal.SIGTERM)


# --- fan --------------------------------------------------------------------------------------


def add_fan(commands: Commands) -> None:
    """`fan`: the same from several seeds."""
    text = "train from the seeds 0, 1, … and say how many runs stall"
    command = add_command(commands, "fan", text)
    command.set_defaults(action=_fan)
    _add_plan(command)
    command.add_argument("--seeds", type=int, default=FAN_SEEDS, help=f"how many ({FAN_SEEDS})")
    add_training(command, [name for name in TRAINING_FLAGS if name != "seed"])


def _fan(options: argparse.Namespace) -> int:
    network, config, dataset = _plan(options)

    from .. import fans
    from ..run_export import describe

    with opened_store() as store:
        fan = fans.new_name()
        try:
            fans.start(store, network, config, dataset, options.seeds, name=fan, outlive=True)
            for run in _ended_runs(store, fan, options.seeds):
                if options.json:
                    print_json(describe(run))
                else:
                    test = "" if run.test_accuracy is None else f", test {run.test_accuracy:.1%}"
                    why = run.error or run.diagnosis or ""
                    print(f"#{run.id} {run.name}: {run.state}{test}. {why}".rstrip(), flush=True)
            stalls = fans.stalled(store, fans.runs(store, fan))
        except KeyboardInterrupt:
            fans.stop(store, fan, outlive=True)
            raise
    if not options.json:
        print(f"{len(stalls)} of {options.seeds} stalled.")
    return 0


def _ended_runs(store: RunStore, fan: str, seeds: int) -> Iterator[Run]:
    """The runs of a fan, each when it has ended and its process is gone.

    Raises:
        CommandError: if one was deleted meanwhile.
    """
    from .. import fans, jobs
    from ..records import ACTIVE
    from ..reporter import patiently

    ended: set[int] = set()
    while len(ended) < seeds:
        jobs.try_advance(store, outlive=True)
        members = patiently(lambda: fans.runs(store, fan))
        if len(members) < seeds:
            raise CommandError("A run of the fan was deleted.")
        for run in members:
            ends = run.state not in (*ACTIVE, "paused") and run.worker is None
            if run.id in ended or not ends:
                continue
            ended.add(run.id)
            yield run
        time.sleep(FAN_SECONDS)


# --- check ------------------------------------------------------------------------------------


def add_check(commands: Commands) -> None:
    """`check`: what a run would start from."""
    text = "look at the weights a run would start with, and say whether it can learn"
    command = add_command(commands, "check", text)
    command.set_defaults(action=_check)
    _add_plan(command)
    add_training(command, ["seed"])


def _check(options: argparse.Namespace) -> int:
    """Dead channels and gradient of every layer, and the verdict; 1 if the run cannot learn."""
    network, config, dataset = _plan(options)

    from ..data import DataError, load_dataset
    from ..preflight import preflight

    try:
        found = preflight(load_dataset(dataset), config, network)
    except DataError as error:
        raise CommandError(str(error)) from error
    if options.json:
        print_json(asdict(found))
    else:
        rows = [
            (layer.name, f"{layer.dead} of {layer.channels}", f"{layer.gradient:.2g}")
            for layer in found.layers
        ]
        print_table(("layer", "dead", "gradient"), rows, right=(1, 2))
        print(
            f"Over {found.images} training images the logits differ by {found.logit_spread:.2g}; "
            f"the loss is {found.loss:.3f}."
        )
        print(f"{found.verdict.capitalize()}: {found.sentence}")
    return int(found.verdict == "stalled")


# --- probe ------------------------------------------------------------------------------------


def add_probe(commands: Commands) -> None:
    """`probe`: how a network is trained fastest here."""
    text = "find out how this computer trains a network fastest"
    command = add_command(commands, "probe", text)
    command.set_defaults(action=_probe)
    _add_plan(command)
    add_training(command, ["batch_size"])


def _probe(options: argparse.Namespace) -> int:
    """Time the ways to compute a training step here, and have runs of this size use the fastest."""
    network, config, dataset = _plan(options)

    from .. import probing, tuning

    with opened_store() as store:
        disturbed = probing.in_the_way(store, None)
        found = tuning.probe(network, config, DATASETS[dataset], should_stop=disturbed)
    if found is None:
        raise CommandError(probing.BESIDE_OTHERS)
    if options.json:
        print_json(asdict(found))
        return 0
    rows = [[trial.settings.words(), f"{trial.images_per_second:,.0f}"] for trial in found.trials]
    print_table(["settings", "images/s"], rows, right=[1])
    print(f"Runs of networks of this size get: {found.chosen.words()}.")
    return 0
