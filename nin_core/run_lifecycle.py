"""The lives of runs: they wait, a process takes one, its state changes, it goes on.

Choices made here:

* `records.TRANSITIONS` is the one table of allowed changes of state. Each change is a single UPDATE
  that names the states it may start from, so of two processes that try, one wins. Nothing is read
  in one transaction and written in another.
* The rows with a process on them are the slots in use: a run takes its slot before its process is
  started, and frees it when that has ended.
* A worker owns a run through its attempt number. Every write of a worker names it; a worker that
  lost its run (marked interrupted and claimed again, stopped before it began, deleted) gets
  `ClaimLost` and can write nothing more. One that was merely asleep takes its run back.
* What people ask of a run that trains is written down for its worker, which asks for it often
  (`RunLifecycle.signal`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import tables
from .database import Database
from .processes import this_worker
from .records import (
    ACTIVE,
    PHASE_MEASURING,
    PHASE_TRAINING,
    RESUMABLE,
    STATES,
    TRANSITIONS,
    Checkpoint,
    ClaimLost,
    MetricRow,
    Run,
    RunNotFound,
    Signal,
    StateError,
    WorkerId,
    now,
)
from .run_history import add_points, latest_figures, put_checkpoint, rewind
from .run_rows import RUN_COLUMNS, assigned, given, read_run, state_of, train_of, update_run

WHY_LEFT = "Its worker ended before it did."
MAX_LOG = 64_000  # characters; the end of a log says why a run failed
_WAITING = (tables.runs.c.state == "queued", tables.runs.c.worker_host.is_(None))
# A run that has ended waits for a worker again.
_AGAIN = {
    "state": "queued",
    "desired_state": "running",
    "desired_at": None,
    "ended_at": None,
    "error": None,
    "spawns": 0,
}
_UNASSIGNED = {"worker_host": None, "worker_pid": None, "worker_mark": "", "phase": None}


class RunLifecycle:
    """How the runs of one database begin, change hands, change state and end.

    `store.RunStore` is this and what is kept for a run. Every method raises the database's
    `StoreError`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read, self._write = database.read, database.write

    # -- which process is on which run (used by jobs and workers) --

    def work(self) -> tuple[list[Run], int]:
        """The runs with a process on them, and how many wait for one."""
        query = sa.select(*RUN_COLUMNS).where(tables.runs.c.worker_host.is_not(None))
        waiting = sa.select(sa.func.count()).select_from(tables.runs).where(*_WAITING)
        with self._read() as connection:
            busy = [read_run(row) for row in connection.execute(query)]
            return busy, connection.scalar(waiting) or 0

    def next_waiting(self) -> Run | None:
        """The oldest queued run without a process on it."""
        query = sa.select(*RUN_COLUMNS).where(*_WAITING).order_by(tables.runs.c.id).limit(1)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else read_run(row)

    def reserve(
        self, slots: int, host: str, mark: str = "", *, run_id: int | None = None
    ) -> int | None:
        """Take the oldest waiting run for a worker about to be started on `host`.

        Args:
            mark: who is about to start it, until its process has a number and a mark of its own.
            run_id: take this one, if it is the oldest.

        Returns:
            its number; None if nothing waits, if another run is the oldest, or if `slots` processes
            there are on runs already.
        """
        first = sa.select(sa.func.min(tables.runs.c.id)).where(*_WAITING)
        with self._write() as connection:
            if not self._has_slot(connection, host, slots):
                return None
            oldest = connection.scalar(first)
            if oldest is None or run_id not in (None, oldest):
                return None
            values = assigned(WorkerId(host, mark=mark)) | {"spawns": tables.runs.c.spawns + 1}
            won = update_run(connection, oldest, values, *_WAITING)
        return int(oldest) if won else None

    def _has_slot(self, connection: Connection, host: str, slots: int) -> bool:
        """Whether fewer than `slots` processes of `host` are on runs, until the commit."""
        self._database.alone(connection)  # or two would each see the last slot free
        here = tables.runs.c.worker_host == host
        taken = connection.scalar(sa.select(sa.func.count()).select_from(tables.runs).where(here))
        return (taken or 0) < slots

    def take_device(self, run_id: int, attempt: int, devices: Sequence[str]) -> str:
        """The first of a host's devices that no other run with a worker there has; now it is taken.

        If all are taken, the first.
        """
        runs, own = tables.runs, tables.runs.alias()
        with self._write() as connection:
            self._database.alone(connection)  # or two workers would each see the same one free
            used = connection.scalars(
                sa.select(runs.c.device)
                .join(own, own.c.worker_host == runs.c.worker_host)
                .where(own.c.id == run_id, runs.c.id != run_id, runs.c.device.is_not(None))
            ).all()
            device = next((name for name in devices if name not in used), devices[0])
            owned = runs.c.attempt == attempt
            if not update_run(connection, run_id, {"device": device}, owned):
                raise ClaimLost(run_id, attempt)
        return device

    def assign(self, run_id: int, worker: WorkerId) -> None:
        """Say which process was started for a reserved run, unless it has claimed it already."""
        with self._write() as connection:
            update_run(
                connection,
                run_id,
                assigned(worker),
                tables.runs.c.state == "queued",
                tables.runs.c.worker_host == worker.host,
                tables.runs.c.worker_pid.is_(None),
            )

    def lose(self, run: Run, error: str, log: str = "", *, retry: bool = False) -> bool:
        """Record that the process on `run` is gone, if it is still that process.

        A run that trained becomes interrupted, one that had not begun failed (with `retry` it
        waits again); a final state stays, only the slot is free.

        Returns:
            whether anything was changed.
        """
        values: dict[str, Any] = dict(_UNASSIGNED)
        if run.active and not (retry and run.state == "queued"):
            state = "interrupted" if run.state == "running" else "failed"
            values |= {"state": state, "error": error, "ended_at": now()}
        if log:
            values["log"] = _text(log, MAX_LOG)
        same_pid = (
            tables.runs.c.worker_pid.is_(None)
            if run.worker_pid is None
            else tables.runs.c.worker_pid == run.worker_pid
        )
        with self._write() as connection:
            return update_run(
                connection,
                run.id,
                values,
                tables.runs.c.state == run.state,
                tables.runs.c.attempt == run.attempt,
                tables.runs.c.worker_host == run.worker_host,
                same_pid,
            )

    # -- a worker's run --

    def claim(self, run_id: int, worker: WorkerId) -> int | None:
        """Make `worker` the one that trains this run.

        Returns:
            the attempt number to name in every further write; None if the run is not queued (any
            more), because another worker was first or someone stopped it.
        """
        moment = now()
        values = assigned(worker) | {
            "state": "running",
            "attempt": tables.runs.c.attempt + 1,
            "started_at": sa.func.coalesce(tables.runs.c.started_at, moment),
            "phase": "starting",
            "diagnosis": None,
        }
        with self._write() as connection:
            if update_run(connection, run_id, values, tables.runs.c.state == "queued"):
                return connection.scalar(
                    sa.select(tables.runs.c.attempt).where(tables.runs.c.id == run_id)
                )
            state_of(connection, run_id)  # raises RunNotFound
            # It was claimed before, by this very process, and the answer was lost.
            own = tables.runs.c.worker_host == worker.host, tables.runs.c.worker_pid == worker.pid
            return connection.scalar(
                sa.select(tables.runs.c.attempt).where(
                    tables.runs.c.id == run_id,
                    tables.runs.c.state == "running",
                    tables.runs.c.worker_mark == worker.mark,
                    *own,
                )
            )

    def signal(self, run_id: int, attempt: int) -> Signal:
        """What is wanted of a worker's run and who is beside it; `ClaimLost` if not its own."""
        runs, others = tables.runs, tables.runs.alias()
        sharing = (
            sa.select(sa.func.count())
            .select_from(others)
            .where(others.c.worker_host == runs.c.worker_host)
            .scalar_subquery()
        )
        with self._read() as connection:
            row = connection.execute(
                sa.select(runs.c.state, runs.c.desired_state, runs.c.desired_rate, sharing).where(
                    runs.c.id == run_id, runs.c.attempt == attempt
                )
            ).one_or_none()
        if row is None:
            raise ClaimLost(run_id, attempt)
        return Signal(*row)

    def heartbeat(self, run_id: int, attempt: int) -> None:
        """A worker's sign of life; takes an interrupted run of the same attempt back."""
        with self._write() as connection:
            sign_of_life(connection, run_id, attempt)

    def begin_measuring(self, run_id: int, worker: WorkerId) -> int:
        """Have `worker` measure the weights of a run that has ended; returns the attempt it is.

        Raises:
            StateError: while it waits or trains, or a process is on it.
        """
        values = assigned(worker) | {
            "attempt": tables.runs.c.attempt + 1,
            "phase": PHASE_MEASURING,
        }
        ended = tables.runs.c.state.not_in(ACTIVE), tables.runs.c.worker_host.is_(None)
        with self._write() as connection:
            if not update_run(connection, run_id, values, *ended):
                state = state_of(connection, run_id)
                raise _cannot_go_on(run_id, state, set(STATES) - ACTIVE, "be measured")
            attempt = connection.scalar(
                sa.select(tables.runs.c.attempt).where(tables.runs.c.id == run_id)
            )
        assert attempt is not None
        return attempt

    def still_measuring(self, run_id: int, attempt: int) -> bool:
        """A sign of life of who measures a run that has ended; False if the run is not its own."""
        ended = tables.runs.c.state.not_in(ACTIVE), tables.runs.c.worker_host.is_not(None)
        with self._write() as connection:
            values = {"heartbeat_at": tables.Clock()}
            own = tables.runs.c.attempt == attempt
            return update_run(connection, run_id, values, own, *ended)

    def record_rate(self, run_id: int, attempt: int, step: int, rate: float) -> None:
        """Write into a run's configuration that its rate was changed after `step` steps."""
        with self._write() as connection:
            text = connection.scalar(
                sa.select(tables.runs.c.train)
                .where(tables.runs.c.id == run_id, tables.runs.c.attempt == attempt)
                .with_for_update()
            )
            if text is None:
                raise ClaimLost(run_id, attempt)
            train = json.dumps(train_of(text).with_rate(step, rate).to_dict())
            update_run(connection, run_id, {"train": train})
            # Unless yet another one is wanted by now.
            done = {"desired_rate": None}
            update_run(connection, run_id, done, tables.runs.c.desired_rate == rate)

    def transition(
        self,
        run_id: int,
        to_state: str,
        *,
        attempt: int | None = None,
        rows: Sequence[MetricRow] = (),
        checkpoint: Checkpoint | None = None,
        error: str | None = None,
        diagnosis: str | None = None,
        log: str | None = None,
        phase: str | None = None,
        again: bool = False,
    ) -> None:
        """Change a run's state, together with its last metrics and weights, in one commit.

        Args:
            attempt: the claim under which a worker does so; None for anyone else.
            phase: what its worker goes on to do in the new state.
            again: the last attempt to do so was not answered: it may have been done.

        Raises:
            StateError: if `TRANSITIONS` does not allow it.
            ClaimLost: if the run is not this attempt's any more.
        """
        moment = now()
        values: dict[str, Any] = {"state": to_state, "phase": phase}
        if to_state not in ACTIVE:
            values["ended_at"] = moment
        if to_state == "finished":
            values["desired_rate"] = None  # asked for in the last test: no step comes any more
        values |= given(error=_text(error), diagnosis=diagnosis, log=_text(log, MAX_LOG))
        sources = [state for state in STATES if to_state in TRANSITIONS[state]]
        with self._write() as connection:
            # Others interrupt a run, too, without its last points and weights.
            if again and to_state != "interrupted":
                done = tables.runs.c.attempt == attempt, tables.runs.c.state == to_state
                if update_run(connection, run_id, {"phase": phase}, *done):
                    return
            if attempt is not None:
                sign_of_life(connection, run_id, attempt, rows)
            elif rows:
                update_run(connection, run_id, latest_figures(rows))
            if not update_run(connection, run_id, values, tables.runs.c.state.in_(sources)):
                state = state_of(connection, run_id)
                raise StateError(f"Run #{run_id} is {state} and cannot become {to_state}.")
            add_points(connection, run_id, rows, again=again)
            if checkpoint is not None:
                put_checkpoint(connection, run_id, checkpoint, moment)

    def release(
        self, run_id: int, attempt: int, *, log: str | None = None, requeue: bool = False
    ) -> None:
        """A worker's last word: its process is about to end and its slot is free.

        A run that still trained is interrupted by that.

        Args:
            requeue: let the run wait for a worker again if it was interrupted.
        """
        own = tables.runs.c.attempt == attempt
        with self._write() as connection:
            left = {"state": "interrupted", "error": WHY_LEFT, "ended_at": now()}
            update_run(connection, run_id, left, own, tables.runs.c.state == "running")
            update_run(connection, run_id, _UNASSIGNED | given(log=_text(log, MAX_LOG)), own)
            interrupted = tables.runs.c.state == "interrupted"
            if requeue and update_run(connection, run_id, _AGAIN, own, interrupted):
                rewind(connection, run_id)

    # -- what people ask for --

    def request(self, run_id: int, ending: Literal["stopped", "paused"]) -> str:
        """Ask for a run to stop or to pause, and return the state it has now.

        A run that waits, or whose worker has not come to training, is so on the spot, as is a
        paused one that is to stop: what it has learned is kept already. One that trains is stopped
        by its worker; a stop outdoes a pause. For a run that has ended, nothing happens.
        """
        moment = now()
        idle = sa.or_(
            tables.runs.c.state == "queued",
            sa.and_(
                tables.runs.c.state == "running",
                sa.func.coalesce(tables.runs.c.phase, "") != PHASE_TRAINING,
                tables.runs.c.step == 0,
            ),
        )
        if ending == "stopped":
            idle |= tables.runs.c.state == "paused"
        wanted = {"desired_state": ending, "desired_at": tables.Clock()}
        with self._write() as connection:
            if not update_run(
                connection, run_id, wanted | {"state": ending, "ended_at": moment}, idle
            ):
                update_run(
                    connection,
                    run_id,
                    wanted,
                    tables.runs.c.state == "running",
                    tables.runs.c.desired_state != "stopped",
                    tables.runs.c.desired_state != ending,
                )
            return state_of(connection, run_id)

    def change_rate(self, run_id: int, rate: float) -> None:
        """Ask for a run to go on with another learning rate (under "one-cycle" its peak).

        Its worker writes down when it did (`record_rate`), or the next one that goes on with it.

        Raises:
            ConfigError: for a rate out of range.
            StateError: for a run that has finished: it has no more steps.
        """
        from .recipes import check_rate

        check_rate(rate)
        with self._write() as connection:
            goes_on = tables.runs.c.state.in_(ACTIVE | RESUMABLE)
            if not update_run(connection, run_id, {"desired_rate": rate}, goes_on):
                state = state_of(connection, run_id)
                raise StateError(f"Run #{run_id} is {state}: its learning rate is not used again.")

    def resume(self, run_id: int) -> None:
        """Let a run that has ended early wait for a worker again.

        It goes on from its checkpoint, or from the start if it has none. Points of its curves that
        came after the checkpoint are taken away: they will come again.

        Raises:
            StateError: if `TRANSITIONS` does not allow it, or a worker is still on the run.
        """
        with self._write() as connection:
            if not update_run(
                connection,
                run_id,
                _AGAIN,
                tables.runs.c.state.in_(RESUMABLE),
                tables.runs.c.worker_host.is_(None),
            ):
                state = state_of(connection, run_id)
                raise _cannot_go_on(run_id, state, RESUMABLE, "go on")
            rewind(connection, run_id)

    def extend(self, run_id: int, epochs: int) -> None:
        """Let a finished run wait for a worker again, with so many epochs added.

        Raises:
            ConfigError: if they are none or too many.
            StateError: if it has not finished, or a worker is still on it.
        """
        with self._write() as connection:
            row = connection.execute(
                sa.select(tables.runs.c.state, tables.runs.c.train, tables.runs.c.total_steps)
                .where(tables.runs.c.id == run_id)
                .with_for_update()
            ).one_or_none()
            if row is None:
                raise RunNotFound(run_id)
            old = train_of(row.train)
            new = old.extended(epochs)
            values = _AGAIN | {
                "train": json.dumps(new.to_dict()),
                "total_steps": (row.total_steps or 0) // old.total_epochs * new.total_epochs,
            }
            finished = tables.runs.c.state == "finished", tables.runs.c.worker_host.is_(None)
            if not update_run(connection, run_id, values, *finished):
                raise _cannot_go_on(run_id, row.state, {"finished"}, "get more epochs")
            rewind(connection, run_id)


def sign_of_life(
    connection: Connection,
    run_id: int,
    attempt: int,
    rows: Sequence[MetricRow] = (),
) -> None:
    """Write a worker's sign of life and figures if the run is its own, else ClaimLost."""
    values = latest_figures(rows) | {"heartbeat_at": tables.Clock()}
    own = tables.runs.c.attempt == attempt
    if update_run(connection, run_id, values, own, tables.runs.c.state == "running"):
        return
    # Whoever gave it up for dead has freed its place.
    back = values | {"state": "running", "ended_at": None, "error": None} | assigned(this_worker())
    if not update_run(connection, run_id, back, own, tables.runs.c.state == "interrupted"):
        raise ClaimLost(run_id, attempt)


def _cannot_go_on(run_id: int, state: str, allowed: Iterable[str], what: str) -> StateError:
    if state in allowed:
        why = "its process has not quite ended; try again in a moment"
    else:
        why = f"only a run that is {', '.join(sorted(allowed))} can {what}"
    return StateError(f"Run #{run_id} is {state}: {why}.")


def _text(text: str | None, most: int = 0) -> str | None:
    """The end of a text from outside, without the NUL that PostgreSQL takes in none."""
    return text and text.replace("\0", "")[-most:]
