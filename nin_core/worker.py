"""The process that trains one run: `python -m nin_core.worker RUN_ID [--with PID]`.

It needs nothing but the database URL (NIN_DATABASE_URL) and the number of the run. The command
line's `train` does the same work in its own process (`work_on`).

Choices made here:

* Two threads. The main thread loads, builds and trains; it never waits for the database. The
  `Reporter` thread speaks with the store, and says when to stop.
* The claim comes first and PyTorch is imported after it, so that the page shows the run as
  running at once; a spare (see `spare`) has it already. Every stage has a phase, a few words for
  the page.
* A run that has a checkpoint goes on from it, with as many threads as it had at each step, so that
  what follows is, to the bit, what would have followed.
* With `--with` the process ends when that one, its parent, does.
* Each run looks at its own start (`preflight`), between its first point and its second.
* The state is final before the test set is measured and the diagnosis made: both take a while.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from . import admission, allocator, garbage, machine, probing, process_memory, spare, tuning
from .checks import ConfigError
from .datasets import DATASETS
from .jobs import check_dataset, try_advance
from .lanes import Lanes
from .machine import available_cores
from .processes import this_worker
from .records import PHASE_MEASURING, PHASE_TRAINING, MetricRow, Run, Start
from .reporter import INTERRUPTED, Reporter, leave_run, patiently
from .scoring import keep_diagnosis, keep_result
from .snapshots import Recorder
from .store import RunStore, StoreError
from .supervisor import NICENESS, NOT_BEGUN

if TYPE_CHECKING:
    from torch import nn

    from .config import NiNConfig
    from .data import Dataset
    from .diagnosis import Evaluation
    from .events import EpochEvent, StepEvent
    from .inputs import Inputs
    from .recipes import TrainConfig

MEMORY_RAN_OUT = "Memory ran out; a smaller batch size or narrower blocks would help."
# Images for the diagnosis: what PROBE_SECONDS suffice for, within bounds.
PROBE_SECONDS, LEAST_PROBE, MOST_PROBE = 2.0, 50, 500
PEAK_STEP = 2**20  # bytes; the most that was occupied is told when it has grown by as much
EVALUATION_SECONDS = 10.0  # a stopped run is measured on as many test images as this allows


# --- the work ---------------------------------------------------------------------------------


def work_on(
    store: RunStore,
    run_id: int,
    attempt: int,
    on_event: Callable[[StepEvent | EpochEvent], None] | None = None,
    *,
    on_start: Callable[[Start], None] | None = None,
    polite: bool = False,
    parent: int | None = None,
) -> Reporter:
    """Train the run that was claimed as `attempt`, measure it, and record everything.

    Args:
        on_event: called with every event of `fit`, in this thread.
        on_start: called, after the first one, with what was found before the first step.
        polite: leave the cores to whoever else wants them, above all the dashboard.
        parent: the process to end with; None to go on without it.

    Returns:
        the reporter, whose `state` is the final one ("failed" included).
    """
    reporter = Reporter(store, run_id, attempt, parent)
    with reporter.reporting():
        # A spare reads its data like the page that waits for it; all that takes longer gives way.
        if polite and "torch" not in sys.modules:
            _lower_priority()
        job = None
        try:
            job = _Job(store, patiently(lambda: store.get(run_id)), attempt, reporter)
            if polite:
                _lower_priority()
            job.train(on_event, on_start)
        except Exception as error:
            reporter.trouble = traceback.format_exc()
            why = sentence_of(error)
            if why == MEMORY_RAN_OUT:
                with suppress(StoreError):
                    why = admission.ran_out(store.get(run_id))
            reporter.end("failed", None, error=why, log=reporter.trouble)
        if job is not None and reporter.state != "failed":
            try:
                job.measure()
            except Exception:  # the run itself is safe; the log says why its figures are missing
                reporter.trouble = traceback.format_exc()
    return reporter


class _Job:
    """A run with its network and data in memory."""

    def __init__(self, store: RunStore, run: Run, attempt: int, reporter: Reporter) -> None:
        self._store, self._run, self._attempt, self._reporter = store, run, attempt, reporter
        if run.network is None or run.train is None:
            raise ConfigError(run.problem or "the run cannot be read.")
        self.network: NiNConfig = run.network
        self.config: TrainConfig = run.train
        check_dataset(self.network, run.dataset)
        self._peak = 0

        reporter.note(phase="loading PyTorch")
        import_all()
        import torch

        from .data import load_dataset
        from .model import build_nin, can_use_channels_last
        from .training import choose_device

        self.kept = patiently(lambda: store.load_checkpoint(run.id))
        self.device = choose_device()
        if self.device.type == "cuda":
            every = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
            taken = patiently(lambda: store.take_device(run.id, attempt, every))
            self.device = torch.device(taken)
        settings = self._kept_settings() or self._new_settings()
        self._threads_beside = None
        if self.device.type == "cpu":
            self._threads_beside = tuning.threads_beside(settings, available_cores())
        else:
            settings = replace(settings, threads=1, parts=1)
        channels_last = settings.channels_last and can_use_channels_last(self.network)
        self.settings = replace(settings, channels_last=channels_last)  # what is told is what is
        done = self.kept.step if self.kept else 0
        # Before the first operation: PyTorch's pool keeps the size it starts with. What is left to
        # do before the next step, as a test, belongs to the last one.
        torch.set_num_threads(self.settings.torch_threads(max(done - 1, 0)))
        allocator.give_back()  # what imports have freed is no part of what the run finds
        process_memory.reset_peak()
        reporter.note(
            phase="loading data",
            threads=self.settings.threads_after(done),
            settings=self.settings.to_json(),
            device=str(self.device),
            base_bytes=process_memory.resident(),
            predicted_bytes=self._predicted_bytes(),
        )
        self.dataset: Dataset = load_dataset(run.dataset, progress=self._progress)
        reporter.note(phase="initialising")
        self.model: nn.Module = build_nin(self.network)
        self.lanes = Lanes()
        self.tested: Evaluation | None = None  # the finished network's answers, if it has them

    def _kept_settings(self) -> tuning.Settings | None:
        """Those the run began with; None for one that begins."""
        kept = self._run.settings
        if kept is not None:  # images that are resized once are the same to the bit
            info, free = DATASETS[self._run.dataset], _free_bytes()
            once = tuning.can_resize_once(self.network, self.config, info, free)
            return replace(kept, resize_once=kept.resize_once and once)
        if self.kept is not None:  # of an older version, which knew no others
            return tuning.Settings(self.kept.info.get("threads", 1))
        return None

    def _new_settings(self) -> tuning.Settings:
        """What is fastest here now, with this run's share of the cores."""
        info, cores = DATASETS[self._run.dataset], available_cores()
        settings = tuning.settings_for(
            self.network, self.config, info, cores=cores, free_bytes=_free_bytes()
        )
        if self.device.type != "cpu":
            return settings
        signal = patiently(lambda: self._store.signal(self._run.id, self._attempt))
        share = tuning.threads_beside(settings, cores)(signal.sharing)
        return settings if share == settings.threads else settings.with_threads(0, share)

    def _predicted_bytes(self) -> int:
        """What training is expected to take beside the process itself."""
        step = admission.predict_bytes(self.network, self.config, self._run.dataset)
        if not self.settings.resize_once:
            return step
        info = DATASETS[self._run.dataset]
        return step + tuning.resized_bytes(self.network, self.config, info)

    def _note_peak(self) -> None:
        """Have the store know the most this process has occupied, where that has grown."""
        most = process_memory.peak()
        if most >= self._peak + PEAK_STEP:
            self._peak = most
            self._reporter.note(peak_bytes=most)

    def _progress(self, sentence: str, fraction: float) -> None:
        self._reporter.note(phase=f"{sentence} ({fraction:.0%})")

    def train(
        self,
        on_event: Callable[[StepEvent | EpochEvent], None] | None,
        on_start: Callable[[Start], None] | None,
    ) -> None:
        """Fit the network and write the final state."""
        import torch

        from .checkpoints import unpack
        from .events import EpochEvent
        from .training import Stopped, Training

        reporter, settings = self._reporter, self.settings
        test_size = len(self.dataset.test_labels)
        info = {
            "device": str(self.device),
            "dtype": "bfloat16" if settings.bfloat16 else "float32",
            "memory_format": "channels_last" if settings.channels_last else "contiguous_format",
            "torch": torch.__version__,
        }
        at_first: list[tuple[nn.Module, Inputs]] = []
        training = Training(
            self.model,
            self.dataset,
            self.config,
            network=self.network,
            device=self.device,
            should_stop=reporter.should_stop,
            state=unpack(self.kept.blob) if self.kept else None,
            on_event=lambda event: reporter.add(_row(event, test_size)),
            on_ready=lambda model, inputs: at_first.append((copy.deepcopy(model), inputs)),
            on_update=lambda: begin(),  # below: it needs the training
            on_rate=reporter.changed_rate,
            on_threads=reporter.changed_threads,
            settings=settings,
        )
        recorder = Recorder(self.model, training.total_steps, training.step)

        def begin() -> None:
            """Once, before the first step: the weights are the initial ones, or the resumed."""
            reporter.note(phase=PHASE_TRAINING)
            reporter.replay(recorder.take(training.step, max(training.epoch, 1)))

        reporter.note(total_steps=training.total_steps)
        reporter.watch(training, info, self._threads_beside)
        if self._run.desired_rate is not None:
            training.change_rate(self._run.desired_rate)  # asked for while it waited or paused
        try:
            for event in training.events():
                self._note_peak()
                reporter.replay(recorder.take(event.step, event.epoch))
                if isinstance(event, EpochEvent) or reporter.checkpoint_due():
                    reporter.keep(training.state())
                if on_event is not None:
                    on_event(event)
                if at_first:  # after the first point, which people wait for
                    self._look_at_start(*at_first.pop(), training.lanes, on_start)
        except Stopped:
            pass
        self.settings, self.lanes = training.settings, training.lanes
        if training.ended:
            reporter.end("finished", training.state(), phase=PHASE_MEASURING)
            self.tested = training.tested
        else:
            measures = reporter.ending == "stopped"
            reporter.end(
                reporter.ending, training.state(), phase=PHASE_MEASURING if measures else None
            )

    def _look_at_start(
        self,
        model: nn.Module,
        inputs: Inputs,
        lanes: Lanes,
        on_start: Callable[[Start], None] | None,
    ) -> None:
        """Store what is to be said of the weights of before the first step, which `model` has."""
        from .preflight import of_run

        # Its blocks are of other sizes than a step's: they would lie between them for good.
        lanes.give_back()
        try:
            start = of_run(model, self.dataset, self.config, self.network, inputs).start
        except Exception:  # the run itself goes on; the log says what it does not know
            self._reporter.trouble = traceback.format_exc()
            return
        finally:
            lanes.give_back()
        self._reporter.note(start=start.to_json())
        if on_start is not None:
            on_start(start)

    def measure(self) -> None:
        """Store the logits on the test set, and why the run did not learn if it did not."""
        from .diagnosis import diagnose, evaluate
        from .estimate import FORWARD_SHARE, seconds_per_image
        from .inputs import Inputs

        reporter, store, run_id = self._reporter, self._store, self._run.id
        if reporter.final is None or reporter.state in ("paused", INTERRUPTED):
            return
        self.model.load_state_dict(reporter.final.weights)
        images, labels = self.dataset.test_images, self.dataset.test_labels
        inputs = Inputs.of(
            self.network,
            self.dataset,
            self.config,
            device=self.device,
            channels_last=self.settings.channels_last,
        )
        # A finished run takes the time it needs, unless it is told to stop meanwhile.
        seconds = EVALUATION_SECONDS if reporter.state == "stopped" else math.inf
        self.lanes.give_back()
        began, signals = time.monotonic(), reporter.signals
        result = self.tested or evaluate(
            self.model,
            images,
            labels,
            inputs,
            threads=min(self.settings.parts, self.settings.threads_after(reporter.final.step)),
            lanes=self.lanes,
            should_stop=lambda: (
                time.monotonic() - began > seconds
                or reporter.signals > signals
                or reporter.orphaned
            ),
        )
        if len(result.logits):
            keep_result(store, run_id, self._attempt, result, step=reporter.final.step)
        affordable = int(PROBE_SECONDS / (seconds_per_image(self.network) * FORWARD_SHARE))
        probe = slice(max(LEAST_PROBE, min(MOST_PROBE, affordable)))
        self.lanes.give_back()
        diagnosis = diagnose(
            self.model, images[probe], labels[probe], inputs, recipe=self.config.recipe
        )
        keep_diagnosis(store, run_id, self._attempt, diagnosis, reporter.state)


def _row(event: StepEvent | EpochEvent, test_size: int) -> MetricRow:
    """A point of the curves from an event; an epoch's test figures are of the whole test set."""
    from .events import EpochEvent

    epoch = isinstance(event, EpochEvent)
    return MetricRow(
        kind="epoch" if epoch else "step",
        epoch=event.epoch,
        step=event.step,
        seconds=event.seconds,
        train_loss=event.train_loss,
        train_accuracy=event.train_accuracy,
        test_loss=event.test_loss,
        test_accuracy=event.test_accuracy,
        test_examples=test_size if epoch else event.test_examples,
        learning_rate=event.learning_rate,
        examples_per_second=event.examples_per_second,
        gradient_norm=None if epoch else event.gradient_norm,
        update_norm=None if epoch else event.update_norm,
        dead_channels=json.dumps(event.dead_channels) if event.dead_channels else None,
    )


def sentence_of(error: BaseException) -> str:
    """One sentence for what went wrong in a run; the traceback is for its log."""
    text = " ".join(str(error).split())
    # PyTorch's allocators raise plain RuntimeErrors on the CPU.
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        return MEMORY_RAN_OUT
    if isinstance(error, ValueError | StoreError) or type(error).__name__ == "DivergedError":
        return text[:1].upper() + text[1:]
    return f"{type(error).__name__}: {text[:300] or 'no message'}"


def _free_bytes() -> int | None:
    """Memory that is free; None where the system does not tell."""
    memory = machine.memory()
    return memory and memory.available


def _lower_priority() -> None:
    """Let others go first from here on.

    On Linux this is the calling thread and the threads that it starts, PyTorch's among them; the
    reporter, which runs already, keeps its priority and answers quickly.
    """
    if hasattr(os, "setpriority") and os.getpriority(os.PRIO_PROCESS, 0) < NICENESS:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


# --- the process ------------------------------------------------------------------------------


def wait_for_run(log: Path) -> str | None:
    """Import what every run needs, then wait for the number of one; None if none will come.

    Args:
        log: this process's output, which is worth nothing if there is no run.
    """

    def import_politely() -> None:
        _lower_priority()  # of this thread; what is imported stays for the others
        import_all()

    importing = threading.Thread(target=import_politely, daemon=True)
    importing.start()
    number = sys.stdin.readline().strip()
    if not number:
        log.unlink(missing_ok=True)
        return None
    importing.join()
    return number


@cache
def import_all() -> None:
    """Import what every run needs, PyTorch above all; once in a process."""
    with garbage.uncollected():
        from . import (  # noqa: F401
            checkpoints,
            data,
            diagnosis,
            evaluation,
            model,
            preflight,
            training,
        )


def find_settings(store: RunStore, run_id: int, parent: int | None) -> None:
    """Find out how this computer trains such networks fastest, while nothing else trains on it.

    The run has been left: whatever is started or comes into the queue ends this within a step.
    """
    with suppress(StoreError):
        run = store.get(run_id)
        if run.network is None or run.train is None:
            return
        if tuning.is_wanted(run.network, run.train.batch_size):
            guest = probing.in_the_way(store, parent)
            tuning.probe(run.network, run.train, DATASETS[run.dataset], should_stop=guest)


def main(arguments: list[str]) -> int:
    """Train the run of that number, if it is still waiting for a worker."""
    parent = None
    if len(arguments) > 2 and arguments[-2] == spare.WITH:
        parent = int(arguments[-1])
        arguments = arguments[:-2]
    if len(arguments) == 2 and arguments[0] == spare.WAIT:
        number = wait_for_run(Path(arguments[1]))
        if number is None:
            return 0
        arguments = [number]
    if len(arguments) != 1 or not arguments[0].isdecimal():
        print("usage: python -m nin_core.worker RUN_ID [--with PID]", file=sys.stderr)
        return 2
    run_id = int(arguments[0])
    try:
        store = RunStore(create=False)
        attempt = patiently(lambda: store.claim(run_id, this_worker()), parent)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 2 if error.reason == "refused" else NOT_BEGUN
    if attempt is None:
        print(f"Run #{run_id} does not wait for a worker (any more).", file=sys.stderr)
        return 0
    faulthandler.enable()  # a crash inside PyTorch leaves its trace in the log
    reporter = work_on(store, run_id, attempt, polite=True, parent=parent)
    print(reporter.trouble, end="", file=sys.stderr, flush=True)
    leave_run(store, run_id, attempt, reporter.trouble, requeue=reporter.state == INTERRUPTED)
    # A parent that this one ends with moves the queue on; one that it outlives is gone by now.
    if parent is None:
        try_advance(store, outlive=True)
    if reporter.state == "finished":
        find_settings(store, run_id, parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
