"""What a worker tells the store about its run, and the store about what is wanted of it.

Choices made here:

* A thread of its own, so that training never waits for the database. It writes metrics and the sign
  of life every half second, and asks several times a second whether the run is to stop.
* Stop or pause within a second, however long a step takes: the training's state can be taken as of
  the last finished step (`Training.state`). The training loop gets a moment to come round by
  itself; if it is still busy, weights and final state are written without it.
* SIGTERM and Ctrl-C mean stop. They arrive through a wake-up socket, since Python would deliver
  them to the main thread only after its step.
* A process that is to end with another one keeps a checkpoint when that has ended and puts the run
  back into the queue. A process that has lost its parent gets another one from the system.
* Another learning rate, asked for while the run goes, holds from the next step on. That step is
  written down before any point that comes after it, so that a run that has to go back to its last
  checkpoint does the same again. So with threads: a run gives them up after its step or its test
  when another one joins it on its computer, and takes them back when that has been gone for some
  seconds.
* A database that does not answer costs nothing for a while: the curves wait in memory and
  training goes on. When it stays away the process ends by itself, with a line in its log.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .processes import is_orphaned
from .records import PHASE_MEASURING, Checkpoint, ClaimLost, MetricRow, RunNotFound
from .snapshots import Snapshots, Taken, halved
from .store import RunStore, StoreError
from .supervisor import GAVE_UP, GIVES_UP, WHY_ORPHANED, log_path, read_tail

if TYPE_CHECKING:
    from .training import Training
    from .training_state import TrainingState
    from .tuning import Settings

ENDINGS = ("stopped", "paused")  # what a running run can be wanted to become
# What it becomes when the process it belongs to has ended, or when its store has failed too long.
INTERRUPTED = "interrupted"
POLL_SECONDS = 0.15
FLUSH_SECONDS = 0.5
MEASURING_SECONDS = 2.0  # between signs of life after the end; nothing else is written then
CHECKPOINT_SECONDS = 10.0
CHECKPOINT_SHARE = 0.5  # of the time may go into writing them; the largest come less often
OVERDUE_SECONDS = 1.0  # for the training loop to take them itself, between two of its steps
GRACE_SECONDS = 0.15  # for the training loop to come round after a stop, before it is done for it
STUCK_SECONDS = 30.0  # how long the last step of a stopped run may take; then no evaluation
# How long the database may fail before the worker gives up; one that is gone will not come back.
PATIENCE_SECONDS = {"missing": 5.0, "damaged": 5.0, "schema": 0.0}
PATIENCE_DEFAULT = 60.0
PATIENCE_ORPHANED = 5.0  # nobody is left who would notice this process
RETRY_SECONDS = 0.5  # from one attempt of `patiently` to the next
LONGEST_PAUSE = 5.0  # between two attempts to reach the database
GROWING_SECONDS = 5.0  # how long cores must have been free before a run takes them


_T = TypeVar("_T")


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
        self._kept_at, self._kept_step = time.monotonic(), 0
        self._writing_seconds = 0.0
        self._unanswered = False  # points were sent, and whether they are stored was not told
        self._failing_since: float | None = None
        self._pause = POLL_SECONDS
        self._ends = False
        # Sharing the cores.
        self._threads_beside: Callable[[int], int] | None = None
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

    def changed_threads(self, settings: Settings) -> None:
        """That the run has other threads from now on; written before the points that follow."""
        threads = settings.thread_changes[-1][1]
        self.note(settings=settings.to_json(), threads=threads)

    def keep(self, snapshot: TrainingState | None) -> None:
        """Weights to write with the next metrics."""
        with self._pending:
            self._snapshot = snapshot
            self._kept_at, self._kept_step = time.monotonic(), snapshot.step if snapshot else 0

    def replay(self, taken: Taken | None) -> None:
        """Weights for the replay of the run, written with the next metrics; None: none are due."""
        if taken is not None:
            with self._pending:
                self._taken.append(taken)

    def checkpoint_due(self, since: float = 0.0) -> bool:
        """Whether the last kept weights are written, and old enough to be replaced.

        Args:
            since: seconds for which that has been so.
        """
        pause = max(CHECKPOINT_SECONDS, self._writing_seconds / CHECKPOINT_SHARE)
        return self._snapshot is None and time.monotonic() - self._kept_at > pause + since

    @property
    def orphaned(self) -> bool:
        """Whether the process that this one is to end with has ended."""
        return self._parent is not None and is_orphaned(self._parent)

    def should_stop(self) -> bool:
        """Whether training is to end before its next step."""
        return self._stop_since is not None

    def end(self, state: str, snapshot: TrainingState | None, **facts: Any) -> None:
        """Write the final state with all that is left, unless a stop has done so already."""
        self._ends = True
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
            # Whoever ends all of a server's processes at once, as systemd does, stops no run.
            with_server = self._parent is not None and signal.SIGINT not in heard
            self._stop(INTERRUPTED if with_server else "stopped")
        if self.signals > 1 and signal.SIGINT in heard:
            self._leave("Interrupted twice.", 130)

    def _loop(self) -> None:
        while not self._closing:
            self._listen()
            if self.state is not None:
                if self._forced_at and time.monotonic() - self._forced_at > STUCK_SECONDS:
                    self._leave("The last step takes too long; the test set is not measured.", 0)
                self._say_it_measures()
                continue
            with self._turn:
                if self.state is None and not self._closing:
                    try:
                        self._report()
                    except StoreError as error:
                        self._failed(error)
                    except Exception as error:  # without this thread nobody would know of the run
                        _say(traceback.format_exc())
                        self._give_up(f"Its worker could not report any more ({error}).")

    def _say_it_measures(self) -> None:
        """The sign of life of a worker whose run has ended; other hosts know it by nothing else."""
        moment = time.monotonic()
        if moment - self._flushed_at >= MEASURING_SECONDS:
            self._flushed_at = moment
            with suppress(StoreError):
                if not self._store.still_measuring(self._run_id, self._attempt):
                    self._leave(f"Run #{self._run_id} is not measured any more.", 0)

    def _report(self) -> None:
        """One turn: ask, write what is due, and stop for a training loop that does not."""
        state, desired, rate, sharing = self._store.signal(self._run_id, self._attempt)
        if state not in ("running", "interrupted"):
            if not self._unanswered:
                self._leave(f"Run #{self._run_id} is {state}; there is nothing to do.", 0)
            if self._ends or self._stop_since is None:
                return  # written without an answer; `end` asks again
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
            if self.ending == "paused" and self._parent is not None:
                self._leave(f"Run #{self._run_id} is paused.", 0)  # its step would take a while
        elif moment - self._flushed_at >= FLUSH_SECONDS:
            self._keep_overdue()
            self._flush()
        if not self._ends:  # a sign of life may be written where an end may not
            self._failing_since, self._pause = None, POLL_SECONDS

    def _keep_overdue(self) -> None:
        """Keep the last step's weights where a test or a long step holds the training loop up."""
        if self._training is None or not self.checkpoint_due(OVERDUE_SECONDS):
            return
        if self._training.step == self._kept_step:  # as in a test that takes minutes
            return
        snapshot = self._training.state()
        if snapshot is not None and self._snapshot is None:
            self.keep(snapshot)

    def _share_cores(self, sharing: int) -> None:
        if self._training is None or self._threads_beside is None:
            return
        wanted, moment = self._threads_beside(sharing), time.monotonic()
        threads = self._training.threads
        if wanted <= threads:
            self._more_since = None
        elif self._more_since is None:
            self._more_since = moment
        if wanted < threads or moment - (self._more_since or moment) > GROWING_SECONDS:
            self._more_since = None
            self._training.change_threads(wanted)

    def _stop(self, ending: str = "stopped") -> None:
        if self._stop_since is None:
            self._stop_since = time.monotonic()
            self.ending = ending
        elif ending == "stopped" and self.ending == "paused":
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
            if snapshot is not None:
                self._store.heartbeat(self._run_id, self._attempt)  # a large one takes a while
                self._write_taken()  # what it leaves behind is never taken again
            checkpoint = self._checkpoint(snapshot)
            again, self._unanswered = self._unanswered, True
            self._store.add_metrics(
                self._run_id, rows, attempt=self._attempt, checkpoint=checkpoint, again=again
            )
            self._unanswered = False
            with self._pending:
                self._written(rows, snapshot)
            if snapshot is not None:
                self._writing_seconds = time.monotonic() - moment
        else:
            self._store.heartbeat(self._run_id, self._attempt)
        self._write_taken()
        with self._pending:
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
        again, self._unanswered = self._unanswered, True
        self._store.transition(
            self._run_id,
            state,
            attempt=self._attempt,
            rows=rows,
            checkpoint=self._checkpoint(snapshot),
            again=again,
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
            _say(f"{error} The metrics wait in memory.")
        patience = PATIENCE_SECONDS.get(error.reason, PATIENCE_DEFAULT)
        if self.orphaned:
            patience = min(patience, PATIENCE_ORPHANED)
        if moment - self._failing_since > patience:
            self._give_up(f"{error} {GIVES_UP}")
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _give_up(self, why: str) -> NoReturn:
        """End the process because the store has failed for too long."""
        if self.state is None:
            try:  # a few bytes may still be written where a checkpoint may not
                self._store.transition(self._run_id, INTERRUPTED, attempt=self._attempt, error=why)
            except Exception:  # whatever it is, this process has to end
                _say(why)
                os._exit(GAVE_UP)  # still on its run, so that whoever finds it gone says so
        self._leave(why, GAVE_UP)

    def _leave(self, why: str, code: int) -> NoReturn:
        """End the process from here: the training thread may be deep in a step."""
        _say(why)
        # Nobody asked for its end but, perhaps, the death of its server.
        unasked = self._stop_since is None and self.orphaned
        requeue = self.ending == INTERRUPTED or unasked
        leave_run(self._store, self._run_id, self._attempt, requeue=requeue)
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def _say(text: str) -> None:
    """A line for the log; on a full disk it is lost, which must end nothing else."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def patiently(
    call: Callable[[], _T], parent: int | None = None, *, seconds: float | None = None
) -> _T:
    """What `call` asks of a store, asked again for a while where the store fails for the moment.

    Args:
        parent: the process with whose end the patience ends, too.
        seconds: how long; by default `PATIENCE_SECONDS`, by what is wrong.

    Raises:
        StoreError: what it refuses, or what it still says after that.
    """
    began = time.monotonic()
    while True:
        try:
            return call()
        except StoreError as error:
            patience = seconds
            if patience is None:
                patience = PATIENCE_SECONDS.get(error.reason, PATIENCE_DEFAULT)
            alone = parent is not None and is_orphaned(parent)
            if error.reason == "refused" or alone or time.monotonic() - began > patience:
                raise
        time.sleep(RETRY_SECONDS)


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
