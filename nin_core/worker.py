"""The process that trains one run: `python -m nin_core.worker RUN_ID [--with PID]`.

It needs nothing but the database URL (NIN_DATABASE_URL) and the number of the run. The command
line's `train` does the same work in its own process (`work_on`).

Choices made here:

* Two threads. The main thread loads, builds and trains; it never waits for the database. The
  `Reporter` thread writes metrics and the sign of life every half second, and asks several times a
  second whether the run is to stop.
* The claim comes first and PyTorch is imported after it, so that the page shows the run as
  running at once; a spare (see `spare`) has it already. Every stage has a phase, a few words for
  the page.
* Stop or pause within a second, however long a step takes: the training's state can be taken as of
  the last finished step (`Training.state`). The reporter gives the training loop a moment to come
  round by itself; if that is still busy, it writes weights and final state without it.
* A run that has a checkpoint goes on from it, with as many threads as it had at each step, so that
  what follows is, to the bit, what would have followed.
* SIGTERM and Ctrl-C mean stop. They arrive through a wake-up socket, since Python would deliver
  them to the main thread only after its step.
* With `--with` the process ends when that one, its parent, does: it keeps a checkpoint and puts the
  run back into the queue. A process that has lost its parent gets another one from the system.
* Another learning rate, asked for while the run goes, holds from the next step on. That step is
  written down before any point that comes after it, so that a run that has to go back to its last
  checkpoint does the same again. So with threads: a run gives them up at once when another one
  joins it on its computer, and takes them back when that has been gone for some seconds.
* A database that does not answer costs nothing for a while: the curves wait in memory and
  training goes on. When it stays away the process ends by itself, with a line in its log.
* The state is final before the test set is measured and the diagnosis made: both take a while.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import admission, machine, process_memory, spare, tuning
from .checks import ConfigError
from .datasets import DATASETS
from .jobs import (
    GAVE_UP,
    NICENESS,
    advance,
    available_cores,
    check_dataset,
    log_path,
    read_tail,
    this_worker,
)
from .records import PHASE_TRAINING, Checkpoint, ClaimLost, MetricRow, Run, RunNotFound
from .snapshots import Recorder, Snapshots, Taken, halved
from .store import RunStore, StoreError

if TYPE_CHECKING:
    from torch import nn

    from .config import NiNConfig
    from .data import Dataset
    from .recipes import TrainConfig
    from .training import EpochEvent, Evaluation, StepEvent, Training, TrainingState

ENDINGS = ("stopped", "paused")  # what a running run can be wanted to become
# What it becomes when the process it belongs to has ended, or when its store has failed too long.
INTERRUPTED = "interrupted"
WHY_ORPHANED = "The server it ran under has ended."
MEMORY_RAN_OUT = "Memory ran out; a smaller batch size or narrower blocks would help."
PHASE_MEASURING = "measuring the test set"
POLL_SECONDS = 0.15
FLUSH_SECONDS = 0.5
CHECKPOINT_SECONDS = 10.0
CHECKPOINT_SHARE = 0.05  # of the time may go into writing checkpoints; large ones come less often
GRACE_SECONDS = 0.15  # for the training loop to come round after a stop, before it is done for it
# Images for the diagnosis: what PROBE_SECONDS suffice for, within bounds.
PROBE_SECONDS, LEAST_PROBE, MOST_PROBE = 2.0, 50, 500
EVALUATION_SECONDS = 10.0  # a stopped run is measured on as many test images as this allows
STUCK_SECONDS = 30.0  # how long the last step of a stopped run may take; then no evaluation
# How long the database may fail before the worker gives up; one that is gone will not come back.
PATIENCE_SECONDS = {"missing": 5.0, "damaged": 5.0, "schema": 0.0}
PATIENCE_DEFAULT = 60.0
PATIENCE_ORPHANED = 5.0  # nobody is left who would notice this process
LONGEST_PAUSE = 5.0  # between two attempts to reach the database
GROWING_SECONDS = (
    5.0  # for which cores must have been free before a run takes them: not between two
)


# --- the reporter -----------------------------------------------------------------------------


class Reporter:
    """Tells the store about the run, and the run about the store, from a thread of its own.

    The training thread calls `note`, `add`, `keep` and `should_stop`, which never wait for the
    database, and in the end `end`, which does.
    """

    def __init__(
        self, store: RunStore, run_id: int, attempt: int, parent: int | None = None
    ) -> None:
        self._store, self._run_id, self._attempt = store, run_id, attempt
        self._parent = parent
        self._snapshots = Snapshots(store.database)
        # Signals and the training thread wake the reporter through this pair.
        self._ear, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._thread = threading.Thread(target=self._loop, name="reporter", daemon=True)
        self._closing = False
        # What is to be written, and the lock under which it changes hands.
        self._pending = threading.Lock()
        self._rows: list[MetricRow] = []
        self._first = True
        self._notes: dict[str, Any] = {}
        self._snapshot: TrainingState | None = None
        self._taken: list[Taken] = []
        self._rates: list[tuple[int, float]] = []
        self._asked_rate: float | None = None
        # The store: one thread at a time, and how it went.
        self._turn = threading.RLock()
        self._flushed_at = -math.inf
        self._kept_at = time.monotonic()
        self._writing_seconds = 0.0
        self._failing_since: float | None = None
        self._pause = POLL_SECONDS
        # Sharing the cores.
        self._threads_beside: Callable[[int], int] | None = None
        self._threads = 0
        self._more_since: float | None = None
        # Stopping.
        self._training: Training | None = None
        self._info: dict[str, Any] = {}
        self._stop_since: float | None = None
        #: What the run becomes when its training ends before its last step.
        self.ending = "stopped"
        self._forced_at: float | None = None
        self.signals = 0
        #: The final state and the weights written with it, once there is one.
        self.state: str | None = None
        self.final: TrainingState | None = None
        #: The traceback of what went wrong in training or measuring, for the log.
        self.trouble = ""

    # -- for the training thread --

    def note(self, **facts: Any) -> None:
        """Facts for `RunStore.note`, e.g. the phase; written at once."""
        with self._pending:
            self._notes |= facts
            self._flushed_at = -math.inf
        self._ring()

    def watch(
        self,
        training: Training,
        info: dict[str, Any],
        threads_beside: Callable[[int], int] | None = None,
    ) -> None:
        """The training whose state to keep when the run is stopped, and how it comes about.

        Args:
            threads_beside: its threads by how many runs share this computer; None: they stay.
        """
        self._threads = training.settings.threads_after(training.step)
        self._info, self._threads_beside = info, threads_beside
        self._training = training

    def add(self, row: MetricRow) -> None:
        """A point of the curves; the first one is written at once."""
        with self._pending:
            self._rows.append(row)
            first, self._first = self._first, False
            if first:
                self._flushed_at = -math.inf
        if first:
            self._ring()

    def changed_rate(self, step: int, rate: float) -> None:
        """That the learning rate was changed after so many steps; written at once."""
        with self._pending:
            self._rates.append((step, rate))
            self._flushed_at = -math.inf
        self._ring()

    def changed_threads(self, settings: tuning.Settings) -> None:
        """That the run has other threads from now on; written before the points that follow."""
        threads = settings.thread_changes[-1][1]
        self.note(settings=settings.to_json(), threads=threads)

    def keep(self, snapshot: TrainingState | None) -> None:
        """Weights to write with the next metrics."""
        with self._pending:
            self._snapshot = snapshot
            self._kept_at = time.monotonic()

    def replay(self, taken: Taken | None) -> None:
        """Weights for the replay of the run, written with the next metrics; None: none are due."""
        if taken is not None:
            with self._pending:
                self._taken.append(taken)

    def checkpoint_due(self) -> bool:
        """Whether the last kept weights are old enough to be replaced."""
        pause = max(CHECKPOINT_SECONDS, self._writing_seconds / CHECKPOINT_SHARE)
        return time.monotonic() - self._kept_at > pause

    @property
    def orphaned(self) -> bool:
        """Whether the process that this one is to end with has ended."""
        return self._parent is not None and os.getppid() != self._parent

    def should_stop(self) -> bool:
        """Whether training is to end before its next step."""
        return self._stop_since is not None

    def end(self, state: str, snapshot: TrainingState | None, **facts: Any) -> None:
        """Write the final state with all that is left, unless a stop has done so already."""
        while True:
            with self._turn:
                self._forced_at = None  # the loop has come round
                if self.state is not None:
                    return
                try:
                    self._finish(state, snapshot, **facts)
                    return
                except StoreError as error:
                    self._failed(error)
            time.sleep(self._pause)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Report, and take signals as a stop, while the block runs."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        listens = threading.current_thread() is threading.main_thread()
        if listens:
            # Handlers that do nothing: only with one does the wake-up byte come.
            old = [signal.signal(number, lambda *_: None) for number in numbers]
            old_fd = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        self._thread.start()
        try:
            yield
        finally:
            self._closing = True
            self._ring()
            self._thread.join()
            if listens:
                signal.set_wakeup_fd(old_fd)
                for number, handler in zip(numbers, old, strict=True):
                    signal.signal(number, handler)

    # -- the thread --

    def _ring(self) -> None:
        with suppress(OSError):  # full: it will wake anyway
            self._bell.send(b"\0")

    def _listen(self) -> None:
        """Sleep until something is due or someone rings."""
        seconds = self._pause
        if self._stop_since is not None and self.state is None:
            left = self._stop_since + GRACE_SECONDS - time.monotonic()
            seconds = min(seconds, max(left, 0.01))
        if not select.select([self._ear], [], [], seconds)[0]:
            return
        heard = [byte for byte in self._ear.recv(4096) if byte]
        self.signals += len(heard)
        if heard:
            self._stop()
        if self.signals > 1 and signal.SIGINT in heard:
            self._leave("Interrupted twice.", 130)

    def _loop(self) -> None:
        while not self._closing:
            self._listen()
            if self.state is not None:
                if self._forced_at and time.monotonic() - self._forced_at > STUCK_SECONDS:
                    self._leave("The last step takes too long; the test set is not measured.", 0)
                continue
            with self._turn:
                if self.state is None and not self._closing:
                    try:
                        self._report()
                    except StoreError as error:
                        self._failed(error)

    def _report(self) -> None:
        """One turn: ask, write what is due, and stop for a training loop that does not."""
        state, desired, rate, sharing = self._store.signal(self._run_id, self._attempt)
        if state not in ("running", "interrupted"):
            self._leave(f"Run #{self._run_id} is {state}; there is nothing to do.", 0)
        if desired in ENDINGS:
            self._stop(desired)
        elif self.orphaned:
            self._stop(INTERRUPTED)
        if rate != self._asked_rate and self._training is not None:
            self._asked_rate = rate
            if rate is not None:
                self._training.change_rate(rate)
        self._share_cores(sharing)
        moment = time.monotonic()
        if self._stop_since is not None and moment - self._stop_since >= GRACE_SECONDS:
            snapshot = self._training.state(close=True) if self._training else None
            self._forced_at = moment
            measures = snapshot is not None and self.ending == "stopped"
            self._finish(self.ending, snapshot, phase=PHASE_MEASURING if measures else None)
            if snapshot is None:
                begun = self._training is not None and self._training.step
                how = "in a step that did not end" if begun else "before its first step"
                self._leave(f"Run #{self._run_id} is {self.ending} {how}.", 0)
            if self.ending == INTERRUPTED:
                self._leave(WHY_ORPHANED, 0)
        elif moment - self._flushed_at >= FLUSH_SECONDS:
            self._flush()
        self._failing_since, self._pause = None, POLL_SECONDS

    def _share_cores(self, sharing: int) -> None:
        if self._training is None or self._threads_beside is None:
            return
        wanted, moment = self._threads_beside(sharing), time.monotonic()
        if wanted <= self._threads:
            self._more_since = None
        elif self._more_since is None:
            self._more_since = moment
        if wanted < self._threads or moment - (self._more_since or moment) > GROWING_SECONDS:
            self._threads, self._more_since = wanted, None
            self._training.change_threads(wanted)

    def _stop(self, ending: str = "stopped") -> None:
        if self._stop_since is None:
            self._stop_since = time.monotonic()
            self.ending = ending

    def _flush(self) -> None:
        moment = time.monotonic()
        with self._pending:
            rows, notes, snapshot = list(self._rows), dict(self._notes), self._snapshot
            rates = list(self._rates)
        self._write_rates(rates)
        if notes:
            self._store.note(self._run_id, self._attempt, **notes)
        if rows or snapshot:
            checkpoint = self._checkpoint(snapshot)
            self._store.add_metrics(
                self._run_id, rows, attempt=self._attempt, checkpoint=checkpoint
            )
            if checkpoint is not None:
                self._writing_seconds = time.monotonic() - moment
        else:
            self._store.heartbeat(self._run_id, self._attempt)
        self._write_taken()
        with self._pending:
            self._written(rows, snapshot)
            if self._notes == notes:
                self._notes, self._flushed_at = {}, moment

    def _finish(self, state: str, snapshot: TrainingState | None, **facts: Any) -> None:
        with self._pending:
            rows, notes, rates = list(self._rows), dict(self._notes), list(self._rates)
            snapshot = snapshot or self._snapshot
        if state == INTERRUPTED:
            facts["error"] = WHY_ORPHANED
        self._write_rates(rates)
        notes.pop("phase", None)
        if notes:
            self._store.note(self._run_id, self._attempt, **notes)
        if snapshot is not None and all(t.step != snapshot.step for t in self._taken):
            self.replay(Taken(snapshot.step, snapshot.epoch, halved(snapshot.weights)))
        self._write_taken()
        self._store.transition(
            self._run_id,
            state,
            attempt=self._attempt,
            rows=rows,
            checkpoint=self._checkpoint(snapshot),
            **facts,
        )
        self.state, self.final = state, snapshot
        with self._pending:
            self._written(rows, snapshot)

    def _write_rates(self, rates: list[tuple[int, float]]) -> None:
        """Before the points that came with them; to write one twice does no harm."""
        for step, rate in rates:
            self._store.record_rate(self._run_id, self._attempt, step, rate)
        with self._pending:
            del self._rates[: len(rates)]

    def _write_taken(self) -> None:
        while self._taken:
            self._snapshots.add(self._run_id, self._attempt, self._taken[0])
            with self._pending:
                del self._taken[0]

    def _written(self, rows: list[MetricRow], snapshot: TrainingState | None) -> None:
        del self._rows[: len(rows)]
        if self._snapshot is snapshot:
            self._snapshot = None

    def _checkpoint(self, snapshot: TrainingState | None) -> Checkpoint | None:
        if snapshot is None:
            return None
        from .checkpoints import pack

        assert self._training is not None
        info = self._info | {
            "threads": self._training.settings.threads_after(snapshot.step - 1),
            "event_due": snapshot.event_due,
            "epoch_ended": snapshot.epoch_ended,
        }
        return Checkpoint(snapshot.step, snapshot.epoch, pack(snapshot), info)

    def _failed(self, error: StoreError) -> None:
        """Wait longer for the store the longer it fails; in the end give up."""
        if isinstance(error, ClaimLost | RunNotFound):
            self._leave(f"{error} Nothing more is written.", 0)
        moment = time.monotonic()
        if self._failing_since is None:
            self._failing_since = moment
            print(f"{error} The metrics wait in memory.", file=sys.stderr, flush=True)
        patience = PATIENCE_SECONDS.get(error.reason, PATIENCE_DEFAULT)
        if self.orphaned:
            patience = min(patience, PATIENCE_ORPHANED)
        if moment - self._failing_since > patience:
            self._give_up(f"{error} This worker gives up.")
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _give_up(self, why: str) -> NoReturn:
        """End the process because the store has failed for too long."""
        if self.state is None:
            try:  # a few bytes may still be written where a checkpoint may not
                self._store.transition(self._run_id, INTERRUPTED, attempt=self._attempt, error=why)
            except StoreError:
                print(why, file=sys.stderr, flush=True)
                os._exit(GAVE_UP)  # still on its run, so that whoever finds it gone says so
        self._leave(why, GAVE_UP)

    def _leave(self, why: str, code: int) -> NoReturn:
        """End the process from here: the training thread may be deep in a step."""
        print(why, file=sys.stderr, flush=True)
        leave_run(self._store, self._run_id, self._attempt, requeue=self.ending == INTERRUPTED)
        sys.stdout.flush()
        os._exit(code)


# --- the work ---------------------------------------------------------------------------------


def work_on(
    store: RunStore,
    run_id: int,
    attempt: int,
    on_event: Callable[[StepEvent | EpochEvent], None] | None = None,
    *,
    polite: bool = False,
    parent: int | None = None,
) -> Reporter:
    """Train the run that was claimed as `attempt`, measure it, and record everything.

    Args:
        on_event: called with every event of `fit`, in this thread.
        polite: leave the cores to whoever else wants them, above all the dashboard.
        parent: the process to end with; None to go on without it.

    Returns:
        the reporter, whose `state` is the final one ("failed" included).
    """
    reporter = Reporter(store, run_id, attempt, parent)
    with reporter.reporting():
        if polite:
            _lower_priority()
        job = None
        try:
            job = _Job(store, store.get(run_id), attempt, reporter)
            job.train(on_event)
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

        self.kept = store.load_checkpoint(run.id)
        settings = self._settings()
        channels_last = settings.channels_last and can_use_channels_last(self.network)
        self.settings = replace(settings, channels_last=channels_last)  # what is told is what is
        # Before the first operation: PyTorch's pool keeps the size it starts with.
        threads = self.settings.threads_after(self.kept.step if self.kept else 0)
        torch.set_num_threads(threads)
        self.device = choose_device()
        if self.device.type == "cuda":
            every = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
            self.device = torch.device(store.take_device(run.id, attempt, every))
        process_memory.reset_peak()
        reporter.note(
            phase="loading data",
            threads=threads,
            settings=self.settings.to_json(),
            device=str(self.device),
            base_bytes=process_memory.resident(),
            predicted_bytes=self._predicted_bytes(),
        )
        self.dataset: Dataset = load_dataset(run.dataset, progress=self._progress)
        reporter.note(phase="initialising")
        self.model: nn.Module = build_nin(self.network)
        self.tested: Evaluation | None = None  # the finished network's answers, if it has them

    def _settings(self) -> tuning.Settings:
        """Those the run began with; for one that begins, what is fastest here now."""
        info, memory = DATASETS[self._run.dataset], machine.memory()
        free = memory and memory.available
        kept = self._run.settings
        if kept is not None:  # images that are resized once are the same to the bit
            once = tuning.can_resize_once(self.network, self.config, info, free)
            return replace(kept, resize_once=kept.resize_once and once)
        settings = tuning.settings_for(
            self.network,
            self.config,
            info,
            cores=available_cores(),
            running=self._store.signal(self._run.id, self._attempt).sharing,
            free_bytes=free,
        )
        if self.kept is not None:  # of an older version, which knew no others
            settings = tuning.Settings(self.kept.info.get("threads", settings.threads))
        return settings

    def _threads_beside(self) -> Callable[[int], int] | None:
        """The run's threads by how many share this computer; None where a GPU does the work."""
        if self.device.type != "cpu":
            return None
        batch, cores = self.config.batch_size, available_cores()
        return tuning.threads_beside(self.network, batch, cores=cores)

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
        if most > 1.01 * self._peak:
            self._peak = most
            self._reporter.note(peak_bytes=most)

    def _progress(self, sentence: str, fraction: float) -> None:
        self._reporter.note(phase=f"{sentence} ({fraction:.0%})")

    def train(self, on_event: Callable[[StepEvent | EpochEvent], None] | None) -> None:
        """Fit the network and write the final state."""
        import torch

        from .checkpoints import unpack
        from .training import EpochEvent, Stopped, Training

        reporter, settings = self._reporter, self.settings
        info = {
            "device": str(self.device),
            "dtype": "bfloat16" if settings.bfloat16 else "float32",
            "memory_format": "channels_last" if settings.channels_last else "contiguous_format",
            "torch": torch.__version__,
        }
        training = Training(
            self.model,
            self.dataset,
            self.config,
            network=self.network,
            device=self.device,
            should_stop=reporter.should_stop,
            state=unpack(self.kept.blob) if self.kept else None,
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
        reporter.watch(training, info, self._threads_beside())
        test_size = len(self.dataset.test_labels)
        try:
            for event in training.events():
                reporter.add(_row(event, test_size))
                self._note_peak()
                reporter.replay(recorder.take(event.step, event.epoch))
                if isinstance(event, EpochEvent) or reporter.checkpoint_due():
                    reporter.keep(training.state())
                if on_event is not None:
                    on_event(event)
        except Stopped:
            pass
        if training.tested and training.tested[0] == training.total_steps:
            reporter.end("finished", training.state(), phase=PHASE_MEASURING)
            self.tested = training.tested[1]
        else:
            measures = reporter.ending == "stopped"
            reporter.end(
                reporter.ending, training.state(), phase=PHASE_MEASURING if measures else None
            )

    def measure(self) -> None:
        """Store the logits on the test set, and why the run did not learn if it did not."""
        from .estimate import FORWARD_SHARE, seconds_per_image
        from .evaluation import pack_logits
        from .training import diagnose, evaluate

        reporter, store, run_id = self._reporter, self._store, self._run.id
        if reporter.final is None or reporter.state in ("paused", INTERRUPTED):
            return
        self.model.load_state_dict(reporter.final.weights)
        images, labels = self.dataset.test_images, self.dataset.test_labels
        how: dict[str, Any] = {
            "network": self.network,
            "mean": self.dataset.mean if self.config.standardize else None,
            "std": self.dataset.std if self.config.standardize else None,
            "device": self.device,
        }
        # A finished run takes the time it needs, unless it is told to stop meanwhile.
        seconds = EVALUATION_SECONDS if reporter.state == "stopped" else math.inf
        began, signals = time.monotonic(), reporter.signals
        result = self.tested or evaluate(
            self.model,
            images,
            labels,
            **how,
            should_stop=lambda: (
                time.monotonic() - began > seconds
                or reporter.signals > signals
                or reporter.orphaned
            ),
        )
        measured = len(result.logits)
        if measured:
            store.save_evaluation(
                run_id,
                pack_logits(result.logits.numpy()),
                images=measured,
                classes=self.network.num_classes,
                step=reporter.final.step,
                loss=result.loss,
                accuracy=result.accuracy,
                attempt=self._attempt,
            )
        affordable = int(PROBE_SECONDS / (seconds_per_image(self.network) * FORWARD_SHARE))
        probe = slice(max(LEAST_PROBE, min(MOST_PROBE, affordable)))
        diagnosis = diagnose(self.model, images[probe], labels[probe], **how)
        # That a few steps were not enough to learn is no news; that maps are dead is.
        if diagnosis and (reporter.state == "finished" or diagnosis.dead_class_maps):
            store.note(run_id, self._attempt, diagnosis=diagnosis.sentence)


def _row(event: StepEvent | EpochEvent, test_size: int) -> MetricRow:
    """A point of the curves from an event; an epoch's test figures are of the whole test set."""
    from .training import EpochEvent

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


def _lower_priority() -> None:
    """Let others go first from here on.

    On Linux this is the calling thread and the threads that it starts, PyTorch's among them; the
    reporter, which runs already, keeps its priority and answers quickly.
    """
    if hasattr(os, "setpriority") and os.getpriority(os.PRIO_PROCESS, 0) < NICENESS:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


# --- the process ------------------------------------------------------------------------------


def leave_run(
    store: RunStore, run_id: int, attempt: int, log: str = "", *, requeue: bool = False
) -> None:
    """Free the run's slot, and keep this process's log file (or `log` without one) in the store.

    With `requeue`, a run that was interrupted waits for another worker.
    """
    path = log_path(store, run_id)
    with suppress(StoreError):
        store.release(run_id, attempt, log=read_tail(path) or log or None, requeue=requeue)
        with suppress(OSError):
            path.unlink(missing_ok=True)


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


def import_all() -> None:
    """Import what every run needs: PyTorch above all, with what it puts off until a first step."""
    import torch._dynamo  # noqa: F401  an optimizer's first step would, for a second or two

    from . import checkpoints, data, evaluation, model, training  # noqa: F401


def find_settings(store: RunStore, run_id: int, parent: int | None) -> None:
    """Find out how this computer trains such networks fastest, while nothing else trains on it.

    The run has been left: whatever is started or comes into the queue ends this within a step.
    """
    with suppress(StoreError):
        run = store.get(run_id)
        if run.network is None or run.train is None:
            return
        if not tuning.is_wanted(run.network, run.train.batch_size):
            return
        asked = 0.0

        def in_the_way() -> bool:
            nonlocal asked
            if time.monotonic() - asked < POLL_SECONDS:
                return False
            asked = time.monotonic()
            gone = parent is not None and os.getppid() != parent
            assigned, waiting = store.work()
            return gone or waiting > 0 or bool(assigned)

        tuning.probe(run.network, run.train, DATASETS[run.dataset], should_stop=in_the_way)


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
        attempt = store.claim(run_id, this_worker())
    except StoreError as error:
        print(error, file=sys.stderr)
        return 2
    if attempt is None:
        print(f"Run #{run_id} does not wait for a worker (any more).", file=sys.stderr)
        return 0
    faulthandler.enable()  # a crash inside PyTorch leaves its trace in the log
    reporter = work_on(store, run_id, attempt, polite=True, parent=parent)
    print(reporter.trouble, end="", file=sys.stderr, flush=True)
    leave_run(store, run_id, attempt, reporter.trouble, requeue=reporter.state == INTERRUPTED)
    # A parent that this one ends with moves the queue on; one that it outlives is gone by now.
    if parent is None:
        with suppress(StoreError):
            advance(store, outlive=True)
    if reporter.state == "finished":
        find_settings(store, run_id, parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
