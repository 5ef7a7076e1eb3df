"""Runs, metrics, checkpoints and evaluations in one database: the only thing processes share.

Choices made here:

* One database URL is all that a page, a worker or a script needs: SQLite's (the default) or
  PostgreSQL's. The statements are SQLAlchemy Core, the same for both. `database.py` says how it
  is opened and what can go wrong, `migrations` how an older one is brought up.
* `records.TRANSITIONS` is the one table of allowed changes of state. Each change is a single UPDATE
  that names the states it may start from, so of two processes that try, one wins. Nothing is read
  in one transaction and written in another.
* A worker owns a run through its attempt number. Every write of a worker names it; a worker that
  lost its run (marked interrupted and claimed again, stopped before it began, deleted) gets
  `ClaimLost` and can write nothing more. One that was merely asleep takes its run back.
* A run row carries the latest figures, so a list of runs never touches the metrics or blobs.
* Configurations are JSON text, read leniently: a run of another version shows in the list with
  `Run.problem` instead of breaking it. Weights are safetensors bytes; no pickle anywhere.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import tables
from .checks import ConfigError
from .config import NiNConfig, preset_name
from .database import Database, StoreError
from .machine import PROJECT
from .records import (
    ACTIVE,
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
    StoredEvaluation,
    WorkerId,
    now,
)
from .snapshots import forget_after

if TYPE_CHECKING:
    from .recipes import TrainConfig
    from .tuning import Settings

MAX_LOG = 64_000  # characters; the end of a log says why a run failed


_RUN_COLUMNS = [column for column in tables.runs.columns if column.name != "log"] + [
    sa.exists().where(tables.checkpoints.c.run_id == tables.runs.c.id).label("has_checkpoint"),
    sa.exists().where(tables.evaluations.c.run_id == tables.runs.c.id).label("has_evaluation"),
]
_METRIC_FIELDS = tuple(f.name for f in fields(MetricRow) if f.name != "id")
_METRIC_COLUMNS = [tables.metrics.c[f.name] for f in fields(MetricRow)]
# A run that has ended waits for a worker again.
_AGAIN = {
    "state": "queued",
    "desired_state": "running",
    "desired_at": None,
    "ended_at": None,
    "error": None,
    "diagnosis": None,
    "spawns": 0,
}
_UNASSIGNED = {"worker_host": None, "worker_pid": None, "worker_mark": "", "phase": None}


# --- the store --------------------------------------------------------------------------------


class RunStore:
    """All runs of one database. Safe to share between the threads of a process.

    Args:
        url: an SQLAlchemy database URL; by default ``NIN_DATABASE_URL``, else
            ``runs/nin-explorer.db`` in the project folder.
        create: make the SQLite file (and its folder) if it is missing. A worker says False: its
            run is in the database or nowhere.

    Raises:
        StoreError: from the constructor and every method, when the database cannot be used.
    """

    def __init__(self, url: str | None = None, *, create: bool = True) -> None:
        chosen = url or os.environ.get("NIN_DATABASE_URL")
        if not chosen:
            chosen = f"sqlite:///{(PROJECT / 'runs' / 'nin-explorer.db').as_posix()}"
        self._database = Database(chosen, set(tables.METADATA.tables), tables.SCHEMA, create=create)
        self._read, self._write = self._database.read, self._database.write
        #: The URL for another process; a relative SQLite path has become absolute.
        self.url = self._database.url
        #: The file, for SQLite.
        self.path = self._database.path

    @property
    def database(self) -> Database:
        """The database itself, for what else is kept in it (`pins`)."""
        return self._database

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        self._database.close()

    # -- making, naming, deleting --

    def create(
        self,
        network: NiNConfig,
        train: TrainConfig,
        dataset: str,
        name: str | None = None,
        *,
        worker: WorkerId | None = None,
        fan: str | None = None,
    ) -> int:
        """Add a queued run and return its number.

        With `worker`, the run is reserved for that process and no other is started for it. `fan`
        is the seed fan that it belongs to.
        """
        values: dict[str, Any] = {
            "name": _clean_name(name) if name else default_name(network, train),
            "state": "queued",
            "desired_state": "running",
            "created_at": now(),
            "dataset": dataset,
            "fan": fan,
            "network": json.dumps(network.to_dict()),
            "train": json.dumps(train.to_dict()),
        }
        if worker is not None:
            values |= _assigned(worker)
        with self._write() as connection:
            key = connection.execute(tables.runs.insert().values(values)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def rename(self, run_id: int, name: str) -> None:
        """Give a run another name (1 to 100 characters)."""
        cleaned = _clean_name(name)
        with self._write() as connection:
            if not self._update(connection, run_id, {"name": cleaned}):
                raise RunNotFound(run_id)

    def delete(self, run_id: int) -> None:
        """Delete a run with all that belongs to it.

        Raises:
            StateError: while it waits or trains.
        """
        with self._write() as connection:
            gone = connection.execute(
                tables.runs.delete().where(
                    tables.runs.c.id == run_id, tables.runs.c.state.not_in(ACTIVE)
                )
            ).rowcount
            if not gone:
                state = self._state(connection, run_id)
                raise StateError(f"Run #{run_id} is {state}; stop it before you delete it.")

    # -- reading --

    def get(self, run_id: int) -> Run:
        """The run of that number, or `RunNotFound`."""
        with self._read() as connection:
            row = connection.execute(
                sa.select(*_RUN_COLUMNS).where(tables.runs.c.id == run_id)
            ).one_or_none()
        if row is None:
            raise RunNotFound(run_id)
        return _run(row)

    def list_runs(
        self, limit: int = 200, *, states: Iterable[str] | None = None, fan: str | None = None
    ) -> list[Run]:
        """The newest runs first, without logs, metrics or weights; of a `fan` only its own."""
        query = sa.select(*_RUN_COLUMNS).order_by(tables.runs.c.id.desc()).limit(limit)
        if states is not None:
            query = query.where(tables.runs.c.state.in_(tuple(states)))
        if fan is not None:
            query = query.where(tables.runs.c.fan == fan)
        with self._read() as connection:
            return [_run(row) for row in connection.execute(query)]

    def metrics(self, run_id: int, after_id: int = 0) -> list[MetricRow]:
        """The points of a run's curves with a number above `after_id`, in order.

        Empty for an unknown run: a chart of a run deleted meanwhile simply gets no more points.
        """
        query = (
            sa.select(*_METRIC_COLUMNS)
            .where(tables.metrics.c.run_id == run_id, tables.metrics.c.id > after_id)
            .order_by(tables.metrics.c.id)
        )
        with self._read() as connection:
            return [MetricRow(*row) for row in connection.execute(query)]

    def load_checkpoint(self, run_id: int) -> Checkpoint | None:
        """The latest weights of a run, None if it has none."""
        with self._read() as connection:
            row = connection.execute(
                sa.select(tables.checkpoints).where(tables.checkpoints.c.run_id == run_id)
            ).one_or_none()
        if row is None:
            return None
        return Checkpoint(row.step, row.epoch, row.blob, json.loads(row.info), row.created_at)

    def load_evaluation(self, run_id: int) -> StoredEvaluation | None:
        """A run's logits on the test set, None if they were not measured."""
        columns = [tables.evaluations.c[f.name] for f in fields(StoredEvaluation)]
        with self._read() as connection:
            row = connection.execute(
                sa.select(*columns).where(tables.evaluations.c.run_id == run_id)
            ).one_or_none()
        return None if row is None else StoredEvaluation(*row)

    def log(self, run_id: int) -> str:
        """The end of the worker's log ("" if it wrote none): why a run failed, in detail."""
        with self._read() as connection:
            row = connection.execute(
                sa.select(tables.runs.c.log).where(tables.runs.c.id == run_id)
            ).one_or_none()
        if row is None:
            raise RunNotFound(run_id)
        return row.log or ""

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

    def desired_state(self, run_id: int) -> str:
        """ "running", or "stopped" or "paused" once someone asked for it."""
        with self._read() as connection:
            row = connection.execute(
                sa.select(tables.runs.c.desired_state).where(tables.runs.c.id == run_id)
            ).one_or_none()
        if row is None:
            raise RunNotFound(run_id)
        return row.desired_state

    # -- the queue (used by jobs) --

    def work(self) -> tuple[list[Run], int]:
        """The runs with a process on them, and how many wait for one."""
        query = sa.select(*_RUN_COLUMNS).where(tables.runs.c.worker_host.is_not(None))
        waiting = (
            sa.select(sa.func.count())
            .select_from(tables.runs)
            .where(tables.runs.c.state == "queued", tables.runs.c.worker_host.is_(None))
        )
        with self._read() as connection:
            return [_run(row) for row in connection.execute(query)], connection.scalar(waiting) or 0

    def next_waiting(self) -> Run | None:
        """The oldest queued run without a process on it."""
        query = (
            sa.select(*_RUN_COLUMNS)
            .where(tables.runs.c.state == "queued", tables.runs.c.worker_host.is_(None))
            .order_by(tables.runs.c.id)
            .limit(1)
        )
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _run(row)

    def reserve(self, slots: int, host: str, mark: str = "") -> int | None:
        """Take the oldest waiting run for a worker about to be started on `host`.

        Args:
            mark: who is about to start it, until its process has a number and a mark of its own.

        Returns:
            its number; None if nothing waits or `slots` processes are on runs already.
        """
        taken = (
            sa.select(sa.func.count())
            .select_from(tables.runs)
            .where(tables.runs.c.worker_host.is_not(None))
            .scalar_subquery()
        )
        first = (
            sa.select(sa.func.min(tables.runs.c.id))
            .where(tables.runs.c.state == "queued", tables.runs.c.worker_host.is_(None))
            .scalar_subquery()
        )
        with self._write() as connection:
            self._database.alone(connection)  # or two servers would each see the last slot free
            run_id = connection.scalar(sa.select(first).where(taken < slots))
            if run_id is None:
                return None
            values = _assigned(WorkerId(host, mark=mark)) | {"spawns": tables.runs.c.spawns + 1}
            won = self._update(
                connection,
                run_id,
                values,
                tables.runs.c.state == "queued",
                tables.runs.c.worker_host.is_(None),
            )
        return int(run_id) if won else None

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
            if not self._update(connection, run_id, {"device": device}, owned):
                raise ClaimLost(run_id, attempt)
        return device

    def assign(self, run_id: int, worker: WorkerId) -> None:
        """Say which process was started for a reserved run, unless it has claimed it already."""
        with self._write() as connection:
            self._update(
                connection,
                run_id,
                _assigned(worker),
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
            return self._update(
                connection,
                run.id,
                values,
                tables.runs.c.state == run.state,
                tables.runs.c.attempt == run.attempt,
                tables.runs.c.worker_host == run.worker_host,
                same_pid,
            )

    # -- a run's life --

    def claim(self, run_id: int, worker: WorkerId) -> int | None:
        """Make `worker` the one that trains this run.

        Returns:
            the attempt number to name in every further write; None if the run is not queued (any
            more), because another worker was first or someone stopped it.
        """
        moment = now()
        values = _assigned(worker) | {
            "state": "running",
            "attempt": tables.runs.c.attempt + 1,
            "started_at": sa.func.coalesce(tables.runs.c.started_at, moment),
            "phase": "starting",
        }
        with self._write() as connection:
            if self._update(connection, run_id, values, tables.runs.c.state == "queued"):
                return connection.scalar(
                    sa.select(tables.runs.c.attempt).where(tables.runs.c.id == run_id)
                )
            self._state(connection, run_id)  # raises RunNotFound
        return None

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
    ) -> None:
        """Change a run's state, together with its last metrics and weights, in one commit.

        Args:
            attempt: the claim under which a worker does so; None for anyone else.
            phase: what its worker goes on to do in the new state.

        Raises:
            StateError: if `TRANSITIONS` does not allow it.
            ClaimLost: if the run is not this attempt's any more.
        """
        moment = now()
        values: dict[str, Any] = {"state": to_state, "phase": phase}
        if to_state not in ACTIVE:
            values["ended_at"] = moment
        values |= _given(error=_text(error), diagnosis=diagnosis, log=_text(log, MAX_LOG))
        sources = [state for state in STATES if to_state in TRANSITIONS[state]]
        with self._write() as connection:
            if attempt is not None:
                self._own(connection, run_id, attempt, rows, moment)
            elif rows:
                self._update(connection, run_id, _latest(rows))
            if not self._update(connection, run_id, values, tables.runs.c.state.in_(sources)):
                state = self._state(connection, run_id)
                raise StateError(f"Run #{run_id} is {state} and cannot become {to_state}.")
            self._add_rows(connection, run_id, rows)
            if checkpoint is not None:
                self._put_checkpoint(connection, run_id, checkpoint, moment)

    def request(self, run_id: int, ending: Literal["stopped", "paused"]) -> str:
        """Ask for a run to stop or to pause, and return the state it has now.

        A run that waits, or whose worker has not come to training, is so on the spot: there is
        nothing to keep. One that trains is stopped by its worker; a stop outdoes a pause. For a
        run that has ended, nothing happens.
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
        wanted = {"desired_state": ending, "desired_at": moment}
        with self._write() as connection:
            if not self._update(
                connection, run_id, wanted | {"state": ending, "ended_at": moment}, idle
            ):
                self._update(
                    connection,
                    run_id,
                    wanted,
                    tables.runs.c.state == "running",
                    tables.runs.c.desired_state != "stopped",
                    tables.runs.c.desired_state != ending,
                )
            return self._state(connection, run_id)

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
            if not self._update(connection, run_id, {"desired_rate": rate}, goes_on):
                state = self._state(connection, run_id)
                raise StateError(f"Run #{run_id} is {state}: its learning rate is not used again.")

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
            train = json.dumps(_train_of(text).with_rate(step, rate).to_dict())
            self._update(connection, run_id, {"train": train})
            # Unless yet another one is wanted by now.
            done = {"desired_rate": None}
            self._update(connection, run_id, done, tables.runs.c.desired_rate == rate)

    def resume(self, run_id: int) -> None:
        """Let a run that has ended early wait for a worker again.

        It goes on from its checkpoint, or from the start if it has none. Points of its curves that
        came after the checkpoint are taken away: they will come again.

        Raises:
            StateError: if `TRANSITIONS` does not allow it, or a worker is still on the run.
        """
        with self._write() as connection:
            if not self._update(
                connection,
                run_id,
                _AGAIN,
                tables.runs.c.state.in_(RESUMABLE),
                tables.runs.c.worker_host.is_(None),
            ):
                state = self._state(connection, run_id)
                raise _cannot_go_on(run_id, state, RESUMABLE, "go on")
            self._rewind(connection, run_id)

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
            old = _train_of(row.train)
            new = old.extended(epochs)
            values = _AGAIN | {
                "train": json.dumps(new.to_dict()),
                "total_steps": (row.total_steps or 0) // old.total_epochs * new.total_epochs,
            }
            finished = tables.runs.c.state == "finished", tables.runs.c.worker_host.is_(None)
            if not self._update(connection, run_id, values, *finished):
                raise _cannot_go_on(run_id, row.state, {"finished"}, "get more epochs")
            self._rewind(connection, run_id)

    @staticmethod
    def _rewind(connection: Connection, run_id: int) -> None:
        """Bring a run's points and latest figures back to its checkpoint."""
        kept = connection.execute(
            sa.select(tables.checkpoints.c.step, tables.checkpoints.c.info).where(
                tables.checkpoints.c.run_id == run_id
            )
        ).one_or_none()
        step = kept.step if kept else 0
        info = json.loads(kept.info) if kept else {}
        repeated = tables.metrics.c.step > step
        for kind, again in (
            ("step", info.get("event_due", False)),
            ("epoch", not info.get("epoch_ended", True)),
        ):
            if again:
                repeated = sa.or_(
                    repeated, sa.and_(tables.metrics.c.step == step, tables.metrics.c.kind == kind)
                )
        connection.execute(
            tables.metrics.delete().where(tables.metrics.c.run_id == run_id, repeated)
        )
        rows = connection.execute(
            sa.select(*_METRIC_COLUMNS)
            .where(tables.metrics.c.run_id == run_id)
            .order_by(tables.metrics.c.id)
        )
        empty = dict.fromkeys(
            ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "test_examples")
        )
        values = empty | {"epoch": 0, "step": 0, "seconds": 0.0}
        values |= _latest([MetricRow(*row) for row in rows]) | {"step": step}
        connection.execute(tables.runs.update().where(tables.runs.c.id == run_id).values(values))
        connection.execute(tables.evaluations.delete().where(tables.evaluations.c.run_id == run_id))
        forget_after(connection, run_id, step)

    def release(
        self, run_id: int, attempt: int, *, log: str | None = None, requeue: bool = False
    ) -> None:
        """A worker's last word: its process is about to end and its slot is free.

        Args:
            requeue: let the run wait for a worker again if it was interrupted.
        """
        own = tables.runs.c.attempt == attempt
        with self._write() as connection:
            self._update(connection, run_id, _UNASSIGNED | _given(log=_text(log, MAX_LOG)), own)
            interrupted = tables.runs.c.state == "interrupted"
            if requeue and self._update(connection, run_id, _AGAIN, own, interrupted):
                self._rewind(connection, run_id)

    # -- what a worker reports --

    def heartbeat(self, run_id: int, attempt: int) -> None:
        """A worker's sign of life; takes an interrupted run of the same attempt back."""
        with self._write() as connection:
            self._own(connection, run_id, attempt, (), now())

    def add_metrics(
        self,
        run_id: int,
        rows: Sequence[MetricRow],
        *,
        attempt: int | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Append points to the curves, with the weights of that moment if given, in one commit.

        The run's latest figures follow; under an `attempt` it is a sign of life too.
        """
        moment = now()
        with self._write() as connection:
            if attempt is not None:
                self._own(connection, run_id, attempt, rows, moment)
            elif not self._update(connection, run_id, _latest(rows) or {"id": run_id}):
                raise RunNotFound(run_id)
            self._add_rows(connection, run_id, rows)
            if checkpoint is not None:
                self._put_checkpoint(connection, run_id, checkpoint, moment)

    def note(
        self,
        run_id: int,
        attempt: int | None = None,
        *,
        phase: str | None = None,
        threads: int | None = None,
        device: str | None = None,
        total_steps: int | None = None,
        diagnosis: str | None = None,
        predicted_bytes: int | None = None,
        base_bytes: int | None = None,
        peak_bytes: int | None = None,
        settings: str | None = None,
    ) -> None:
        """Write down facts about a run; what is None stays as it is."""
        values = _given(
            phase=phase and phase[:200],
            threads=threads,
            device=device,
            total_steps=total_steps,
            diagnosis=diagnosis,
            predicted_bytes=predicted_bytes,
            base_bytes=base_bytes,
            peak_bytes=peak_bytes,
            settings=settings,
        )
        owned = [] if attempt is None else [tables.runs.c.attempt == attempt]
        with self._write() as connection:
            if values and not self._update(connection, run_id, values, *owned):
                self._state(connection, run_id)
                raise ClaimLost(run_id, attempt)

    def save_checkpoint(
        self, run_id: int, step: int, epoch: int, blob: bytes, info: dict[str, Any] | None = None
    ) -> None:
        """Keep these weights (safetensors bytes) in place of the run's earlier ones."""
        with self._write() as connection:
            self._state(connection, run_id)
            self._put_checkpoint(
                connection, run_id, Checkpoint(step, epoch, blob, info or {}), now()
            )

    def save_evaluation(
        self,
        run_id: int,
        logits: bytes,
        *,
        images: int,
        classes: int,
        step: int = 0,
        loss: float | None = None,
        accuracy: float | None = None,
        attempt: int | None = None,
    ) -> None:
        """Keep the logits of the first `images` test images (`evaluation.pack_logits`).

        The run's test figures become these, unless they come from more images.
        """
        loss, accuracy = _finite(loss), _finite(accuracy)
        with self._write() as connection:
            owned = [] if attempt is None else [tables.runs.c.attempt == attempt]
            fewer = sa.func.coalesce(tables.runs.c.test_examples, 0) <= images
            test = {"test_loss": loss, "test_accuracy": accuracy, "test_examples": images}
            if accuracy is None or not self._update(connection, run_id, test, fewer, *owned):
                self._state(connection, run_id)
                known = sa.select(tables.runs.c.id).where(tables.runs.c.id == run_id, *owned)
                if connection.scalar(known) is None:
                    raise ClaimLost(run_id, attempt)
            connection.execute(
                tables.evaluations.delete().where(tables.evaluations.c.run_id == run_id)
            )
            connection.execute(
                tables.evaluations.insert().values(
                    run_id=run_id,
                    step=step,
                    images=images,
                    classes=classes,
                    loss=loss,
                    accuracy=accuracy,
                    created_at=now(),
                    logits=logits,
                )
            )

    # -- statements --

    @staticmethod
    def _update(
        connection: Connection, run_id: int, values: dict[str, Any], *conditions: Any
    ) -> bool:
        statement = (
            tables.runs.update().where(tables.runs.c.id == run_id, *conditions).values(values)
        )
        return connection.execute(statement).rowcount == 1

    @staticmethod
    def _state(connection: Connection, run_id: int) -> str:
        state = connection.scalar(sa.select(tables.runs.c.state).where(tables.runs.c.id == run_id))
        if state is None:
            raise RunNotFound(run_id)
        return state

    def _own(
        self,
        connection: Connection,
        run_id: int,
        attempt: int,
        rows: Sequence[MetricRow],
        moment: datetime,
    ) -> None:
        """Write a worker's sign of life and figures if the run is its own, else ClaimLost."""
        values = _latest(rows) | {"heartbeat_at": moment}
        own = tables.runs.c.attempt == attempt
        if self._update(connection, run_id, values, own, tables.runs.c.state == "running"):
            return
        back = values | {"state": "running", "ended_at": None, "error": None}
        if not self._update(connection, run_id, back, own, tables.runs.c.state == "interrupted"):
            raise ClaimLost(run_id, attempt)

    @staticmethod
    def _add_rows(connection: Connection, run_id: int, rows: Sequence[MetricRow]) -> None:
        if rows:
            connection.execute(
                tables.metrics.insert(),
                [
                    {"run_id": run_id}
                    | {name: _finite(getattr(row, name)) for name in _METRIC_FIELDS}
                    for row in rows
                ],
            )

    @staticmethod
    def _put_checkpoint(
        connection: Connection, run_id: int, checkpoint: Checkpoint, moment: datetime
    ) -> None:
        connection.execute(tables.checkpoints.delete().where(tables.checkpoints.c.run_id == run_id))
        connection.execute(
            tables.checkpoints.insert().values(
                run_id=run_id,
                step=checkpoint.step,
                epoch=checkpoint.epoch,
                created_at=moment,
                info=json.dumps(checkpoint.info),
                blob=checkpoint.blob,
            )
        )


# --- values -----------------------------------------------------------------------------------


def _cannot_go_on(run_id: int, state: str, allowed: Iterable[str], what: str) -> StateError:
    if state in allowed:
        why = "its last measurements are still being made; try again in a moment"
    else:
        why = f"only a run that is {', '.join(sorted(allowed))} can {what}"
    return StateError(f"Run #{run_id} is {state}: {why}.")


def default_name(network: NiNConfig, train: TrainConfig) -> str:
    """A readable name: network, recipe, seed, e.g. "nin-slim-128 · fast · seed 0"."""
    what = preset_name(network)
    if what is None:
        what = f"NiN {'-'.join(map(str, network.widths))} @ {network.image_size} px"
    return _clean_name(f"{what} · {train.recipe} · seed {train.seed}"[: tables.MAX_NAME])


def _clean_name(name: str) -> str:
    cleaned = " ".join("".join(c if c.isprintable() else " " for c in str(name)).split())
    if not 1 <= len(cleaned) <= tables.MAX_NAME:
        raise StoreError(f"A run's name needs 1 to {tables.MAX_NAME} characters.", "refused")
    return cleaned


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _assigned(worker: WorkerId) -> dict[str, Any]:
    return {
        "worker_host": worker.host,
        "worker_pid": worker.pid,
        "worker_mark": worker.mark,
        "heartbeat_at": now(),
    }


def _text(text: str | None, most: int = 0) -> str | None:
    """The end of a text from outside, without the NUL that PostgreSQL takes in none."""
    return text and text.replace("\0", "")[-most:]


def _finite(value: Any) -> Any:
    """None for NaN and infinities, which databases keep each in its own way."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _latest(rows: Sequence[MetricRow]) -> dict[str, Any]:
    """The run columns after these points: the last one's, and the last test that was made."""
    if not rows:
        return {}
    last = rows[-1]
    latest = {
        name: _finite(getattr(last, name))
        for name in ("epoch", "step", "seconds", "learning_rate", "train_loss", "train_accuracy")
    }
    speed = _finite(last.examples_per_second)
    if speed is not None:
        latest["examples_per_second"] = speed
    tested = next((row for row in reversed(rows) if row.test_accuracy is not None), None)
    if tested is not None:
        for name in ("test_loss", "test_accuracy", "test_examples"):
            latest[name] = _finite(getattr(tested, name))
    return latest


@lru_cache(maxsize=1024)
def _network_of(text: str) -> NiNConfig:
    return NiNConfig.from_dict(json.loads(text))


@lru_cache(maxsize=1024)
def _train_of(text: str) -> TrainConfig:
    from .recipes import TrainConfig

    return TrainConfig.from_dict(json.loads(text))


def _settings_of(text: str | None) -> Settings | None:
    """The settings that were written down; None if there are none, or another version's."""
    from .tuning import Settings

    try:
        return None if text is None else Settings.from_json(text)
    except ValueError:
        return None


def _run(row: sa.Row[Any]) -> Run:
    values = dict(row._mapping)
    problem = None
    for name, read in (("network", _network_of), ("train", _train_of)):
        try:
            values[name] = read(values[name])
        except (ValueError, TypeError, KeyError) as error:  # JSON and ConfigError are ValueErrors
            why = str(error) if isinstance(error, ConfigError) else "it is damaged."
            what = "network" if name == "network" else "training settings"
            problem = f"This version cannot read the run's {what}: {why}"
            values[name] = None
    values["settings"] = _settings_of(values["settings"])
    values["has_checkpoint"] = bool(values["has_checkpoint"])
    values["has_evaluation"] = bool(values["has_evaluation"])
    return Run(**values, problem=problem)
