"""Runs, metrics, checkpoints and evaluations in one database: the only thing processes share.

Choices made here:

* One database URL is all that a page, a worker or a script needs: SQLite's (the default) or
  PostgreSQL's. The statements are SQLAlchemy Core, the same for both. `database.py` says how it
  is opened and what can go wrong, `migrations` how an older one is brought up.
* `RunStore` is the one thing that others need, and each of its methods is one transaction. How
  runs wait, are claimed and change their state it has from `run_lifecycle`; what a transaction
  does is in `run_rows` (a run's row) and `run_history` (points, weights, logits).
* A run row carries the latest figures, so a list of runs never touches the metrics or blobs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import tables
from .config import NiNConfig, preset_name
from .database import Database, StoreError
from .machine import PROJECT
from .recipes import RECIPES
from .records import (
    ACTIVE,
    PHASE_MEASURING,
    Checkpoint,
    ClaimLost,
    MetricRow,
    Run,
    RunNotFound,
    StateError,
    StoredEvaluation,
    WorkerId,
    now,
)
from .run_history import (
    add_points,
    checkpoint_info,
    checkpoint_of,
    evaluation_of,
    finite,
    latest_figures,
    points_after,
    put_checkpoint,
    put_evaluation,
)
from .run_lifecycle import RunLifecycle, sign_of_life
from .run_rows import RUN_COLUMNS, assigned, given, read_run, state_of, update_run

if TYPE_CHECKING:
    from .recipes import TrainConfig


class RunStore(RunLifecycle):
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
        super().__init__(
            Database(chosen, set(tables.METADATA.tables), tables.SCHEMA, create=create)
        )
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
        fan: str | None = None,
    ) -> int:
        """Add a queued run and return its number. `fan` is the seed fan that it belongs to."""
        values = _new_run(network, train, dataset, name) | {"state": "queued", "fan": fan}
        with self._write() as connection:
            return _insert(connection, values)

    def create_fan(
        self, network: NiNConfig, plans: Sequence[TrainConfig], dataset: str, fan: str
    ) -> None:
        """Add a queued run for each of `plans`, all of the seed fan `fan`, or none."""
        with self._write() as connection:
            for train in plans:
                values = _new_run(network, train, dataset, None)
                _insert(connection, values | {"state": "queued", "fan": fan})

    def create_at_work(
        self,
        network: NiNConfig,
        train: TrainConfig,
        dataset: str,
        name: str | None,
        worker: WorkerId,
        slots: int,
    ) -> int | None:
        """Add a run that waits for the process `worker` and no other, if there is a slot for it.

        Returns:
            its number; None if `slots` processes of its host are on runs already.
        """
        values = _new_run(network, train, dataset, name) | {"state": "queued"} | assigned(worker)
        with self._write() as connection:
            if not self._has_slot(connection, worker.host, slots):
                return None
            return _insert(connection, values)

    def create_finished(
        self,
        network: NiNConfig,
        train: TrainConfig,
        dataset: str,
        name: str | None,
        checkpoint: Checkpoint,
        worker: WorkerId,
    ) -> tuple[int, int]:
        """Add a run that has its weights already and is to be measured by `worker`, in one commit.

        Returns:
            its number, and that of the attempt under which the worker writes.
        """
        moment = now()
        values = _new_run(network, train, dataset, name) | {
            "state": "finished",
            "attempt": 1,
            "started_at": moment,
            "ended_at": moment,
            "phase": PHASE_MEASURING,
        }
        with self._write() as connection:
            run_id = _insert(connection, values | assigned(worker))
            put_checkpoint(connection, run_id, checkpoint, moment)
        return run_id, 1

    def rename(self, run_id: int, name: str) -> None:
        """Give a run another name (1 to 100 characters)."""
        cleaned = _clean_name(name)
        with self._write() as connection:
            if not update_run(connection, run_id, {"name": cleaned}):
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
                state = state_of(connection, run_id)
                raise StateError(f"Run #{run_id} is {state}; stop it before you delete it.")

    # -- reading --

    def get(self, run_id: int) -> Run:
        """The run of that number, or `RunNotFound`."""
        with self._read() as connection:
            row = connection.execute(
                sa.select(*RUN_COLUMNS).where(tables.runs.c.id == run_id)
            ).one_or_none()
        if row is None:
            raise RunNotFound(run_id)
        return read_run(row)

    def list_runs(
        self,
        limit: int | None = 200,
        *,
        states: Iterable[str] | None = None,
        fan: str | None = None,
    ) -> list[Run]:
        """The newest runs first, without logs, metrics or weights; of a `fan` only its own.

        Args:
            limit: at most so many; None for all.
        """
        query = sa.select(*RUN_COLUMNS).order_by(tables.runs.c.id.desc()).limit(limit)
        if states is not None:
            query = query.where(tables.runs.c.state.in_(tuple(states)))
        if fan is not None:
            query = query.where(tables.runs.c.fan == fan)
        with self._read() as connection:
            return [read_run(row) for row in connection.execute(query)]

    def states(self, limit: int) -> list[tuple[int, str]]:
        """Numbers and states of the newest runs: what to ask often, and little to read."""
        runs = tables.runs.c
        query = sa.select(runs.id, runs.state).order_by(runs.id.desc()).limit(limit)
        with self._read() as connection:
            return [(row.id, row.state) for row in connection.execute(query)]

    def metrics(self, run_id: int, after_id: int = 0) -> list[MetricRow]:
        """The points of a run's curves with a number above `after_id`, in order.

        Empty for an unknown run: a chart of a run deleted meanwhile simply gets no more points.
        """
        with self._read() as connection:
            return points_after(connection, run_id, after_id)

    def load_checkpoint(self, run_id: int) -> Checkpoint | None:
        """The latest weights of a run, None if it has none."""
        with self._read() as connection:
            return checkpoint_of(connection, run_id)

    def checkpoint_info(self, run_id: int) -> dict[str, Any]:
        """`Checkpoint.info` of the latest weights, {} if there are none; cheap, unlike them."""
        with self._read() as connection:
            return checkpoint_info(connection, run_id)

    def load_evaluation(self, run_id: int) -> StoredEvaluation | None:
        """A run's logits on the test set, None if they were not measured."""
        with self._read() as connection:
            return evaluation_of(connection, run_id)

    def log(self, run_id: int) -> str:
        """The end of the worker's log ("" if it wrote none): why a run failed, in detail."""
        with self._read() as connection:
            row = connection.execute(
                sa.select(tables.runs.c.log).where(tables.runs.c.id == run_id)
            ).one_or_none()
        if row is None:
            raise RunNotFound(run_id)
        return row.log or ""

    # -- what a worker reports --

    def add_metrics(
        self,
        run_id: int,
        rows: Sequence[MetricRow],
        *,
        attempt: int | None = None,
        checkpoint: Checkpoint | None = None,
        again: bool = False,
    ) -> None:
        """Append points to the curves, with the weights of that moment if given, in one commit.

        The run's latest figures follow; under an `attempt` it is a sign of life too.

        Args:
            again: the last attempt to write these was not answered: they may be there already.
        """
        with self._write() as connection:
            if attempt is not None:
                sign_of_life(connection, run_id, attempt, rows)
            elif not update_run(connection, run_id, latest_figures(rows) or {"id": run_id}):
                raise RunNotFound(run_id)
            add_points(connection, run_id, rows, again=again)
            if checkpoint is not None:
                put_checkpoint(connection, run_id, checkpoint, now())

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
        start: str | None = None,
    ) -> None:
        """Write down facts about a run; what is None stays as it is."""
        values = given(
            phase=phase and phase[:200],
            threads=threads,
            device=device,
            total_steps=total_steps,
            diagnosis=diagnosis,
            predicted_bytes=predicted_bytes,
            base_bytes=base_bytes,
            peak_bytes=peak_bytes,
            settings=settings,
            start=start,
        )
        owned = [] if attempt is None else [tables.runs.c.attempt == attempt]
        with self._write() as connection:
            if values and not update_run(connection, run_id, values, *owned):
                state_of(connection, run_id)
                raise ClaimLost(run_id, attempt)

    def save_checkpoint(
        self, run_id: int, step: int, epoch: int, blob: bytes, info: dict[str, Any] | None = None
    ) -> None:
        """Keep these weights (safetensors bytes) in place of the run's earlier ones."""
        with self._write() as connection:
            state_of(connection, run_id)
            put_checkpoint(connection, run_id, Checkpoint(step, epoch, blob, info or {}), now())

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
        loss, accuracy = finite(loss), finite(accuracy)
        with self._write() as connection:
            owned = [] if attempt is None else [tables.runs.c.attempt == attempt]
            fewer = sa.func.coalesce(tables.runs.c.test_examples, 0) <= images
            test = {"test_loss": loss, "test_accuracy": accuracy, "test_examples": images}
            if accuracy is None or not update_run(connection, run_id, test, fewer, *owned):
                state_of(connection, run_id)
                known = sa.select(tables.runs.c.id).where(tables.runs.c.id == run_id, *owned)
                if connection.scalar(known) is None:
                    raise ClaimLost(run_id, attempt)
            evaluation = StoredEvaluation(step, images, classes, loss, accuracy, logits, now())
            put_evaluation(connection, run_id, evaluation)


def default_name(network: NiNConfig, train: TrainConfig) -> str:
    """A readable name: network, recipe, what was changed of it, seed.

    For example "nin-slim-128 · fast · rate 0.1 · seed 0".
    """
    what = preset_name(network)
    if what is None:
        what = f"NiN {'-'.join(map(str, network.widths))} @ {network.image_size} px"
    parts = [what, train.recipe]
    if train.recipe in RECIPES:
        usual = RECIPES[train.recipe].configure(network)
        if train.learning_rate != usual.learning_rate:
            parts.append(f"rate {train.learning_rate:g}")
        if train.batch_size != usual.batch_size:
            parts.append(f"batch {train.batch_size}")
    return _clean_name(" · ".join([*parts, f"seed {train.seed}"])[: tables.MAX_NAME])


def _new_run(
    network: NiNConfig, train: TrainConfig, dataset: str, name: str | None
) -> dict[str, Any]:
    return {
        "name": _clean_name(name) if name else default_name(network, train),
        "desired_state": "running",
        "created_at": now(),
        "dataset": dataset,
        "network": json.dumps(network.to_dict()),
        "train": json.dumps(train.to_dict()),
    }


def _insert(connection: Connection, values: dict[str, Any]) -> int:
    key = connection.execute(tables.runs.insert().values(values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _clean_name(name: str) -> str:
    cleaned = " ".join("".join(c if c.isprintable() else " " for c in str(name)).split())
    if not 1 <= len(cleaned) <= tables.MAX_NAME:
        raise StoreError(f"A run's name needs 1 to {tables.MAX_NAME} characters.", "refused")
    return cleaned
