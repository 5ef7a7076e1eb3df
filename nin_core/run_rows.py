"""A run's row in the database: read as a `Run`, and changed by one statement at a time.

Choices made here:

* Every function takes the caller's connection, so that what belongs together is one transaction.
* A change of state is a single UPDATE that names the states it may start from, so of two processes
  that try, one wins: `update_run` says whether it was this one.
* Configurations are JSON text, read leniently: a run of another version shows in the list with
  `Run.problem` instead of breaking it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import tables
from .checks import ConfigError
from .config import NiNConfig
from .records import Run, RunNotFound, Start, WorkerId

if TYPE_CHECKING:
    from .recipes import TrainConfig

T = TypeVar("T")

RUN_COLUMNS = [column for column in tables.runs.columns if column.name != "log"] + [
    sa.select(column).where(column.table.c.run_id == tables.runs.c.id).scalar_subquery().label(name)
    for name, column in (
        ("checkpoint_step", tables.checkpoints.c.step),
        ("evaluated_images", tables.evaluations.c.images),
        ("evaluated_accuracy", tables.evaluations.c.accuracy),
    )
]
# The moment that a run's signs of life are compared with.
RUN_COLUMNS.append(tables.Clock().label("read_at"))


# --- reading ----------------------------------------------------------------------------------


def read_run(row: sa.Row[Any]) -> Run:
    """The run in a row of `RUN_COLUMNS`."""
    from .tuning import Settings

    values = dict(row._mapping)
    problem = None
    for name, read in (("network", _network_of), ("train", train_of)):
        try:
            values[name] = read(values[name])
        except (ValueError, TypeError, KeyError) as error:  # JSON and ConfigError are ValueErrors
            why = str(error) if isinstance(error, ConfigError) else "it is damaged."
            what = "network" if name == "network" else "training settings"
            problem = f"This version cannot read the run's {what}: {why}"
            values[name] = None
    values["settings"] = _readable(values["settings"], Settings.from_json)
    values["start"] = _readable(values["start"], Start.from_json)
    return Run(**values, problem=problem)


@lru_cache(maxsize=1024)
def train_of(text: str) -> TrainConfig:
    """How a run is trained, from its row's JSON."""
    from .recipes import TrainConfig

    return TrainConfig.from_dict(json.loads(text))


def state_of(connection: Connection, run_id: int) -> str:
    """A run's state.

    Raises:
        RunNotFound: if there is no such run.
    """
    state = connection.scalar(sa.select(tables.runs.c.state).where(tables.runs.c.id == run_id))
    if state is None:
        raise RunNotFound(run_id)
    return state


@lru_cache(maxsize=1024)
def _network_of(text: str) -> NiNConfig:
    return NiNConfig.from_dict(json.loads(text))


def _readable(text: str | None, read: Callable[[str], T]) -> T | None:
    """What was written down; None if nothing was, or another version's."""
    try:
        return None if text is None else read(text)
    except ValueError:
        return None


# --- changing ---------------------------------------------------------------------------------


def update_run(
    connection: Connection, run_id: int, values: dict[str, Any], *conditions: Any
) -> bool:
    """Change a run's row if `conditions` hold; whether they did."""
    statement = tables.runs.update().where(tables.runs.c.id == run_id, *conditions).values(values)
    return connection.execute(statement).rowcount == 1


def assigned(worker: WorkerId) -> dict[str, Any]:
    """The columns of a run that say which process is on it."""
    return {
        "worker_host": worker.host,
        "worker_pid": worker.pid,
        "worker_mark": worker.mark,
        "heartbeat_at": tables.Clock(),
    }


def given(**values: Any) -> dict[str, Any]:
    """Those of `values` that are to be written: what is None stays as it is."""
    return {name: value for name, value in values.items() if value is not None}
