"""The run store's tables, as the newest of `migrations` makes them; other modules query them.

Numbers of runs, metrics and pins are never given twice (AUTOINCREMENT): a bookmark of a deleted
run must not show another one, and a reader that asks for rows after the last it saw must miss
none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

SCHEMA = "0005"  # the newest of `migrations`, which has a step for every change of the tables below

MAX_NAME = 100  # characters of a run's name
MAX_PIN_NAME = 60


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """Aware UTC on the Python side, whatever the database keeps."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Clock(FunctionElement[datetime]):
    """The present moment by the database's own clock, the one that all its computers share.

    What is measured from one computer's sign to another's glance uses it: clocks of two computers
    may differ by more than a worker may be silent.
    """

    name = "clock"
    type = UtcDateTime()
    inherit_cache = True


@compiles(Clock, "sqlite")
def _sqlite_clock(element: Clock, compiler: Any, **kw: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"  # as SQLAlchemy writes a moment there


@compiles(Clock, "postgresql")
def _postgresql_clock(element: Clock, compiler: Any, **kw: Any) -> str:
    return "clock_timestamp()"


METADATA = sa.MetaData()
runs = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(MAX_NAME), nullable=False),
    sa.Column("state", sa.String(20), nullable=False, index=True),
    sa.Column("desired_state", sa.String(20), nullable=False),
    sa.Column("desired_at", UtcDateTime),
    sa.Column("phase", sa.String(200)),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("heartbeat_at", UtcDateTime),
    sa.Column("dataset", sa.String(50), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    # Set while a process is on the run, from the moment it is about to be started until it has
    # ended: the rows that have it are the slots in use.
    sa.Column("worker_host", sa.String(200), index=True),
    sa.Column("worker_pid", sa.Integer),
    sa.Column("worker_mark", sa.String(50), nullable=False, default=""),
    sa.Column("spawns", sa.Integer, nullable=False, default=0),
    sa.Column("threads", sa.Integer),
    sa.Column("device", sa.String(50)),
    sa.Column("error", sa.Text),
    sa.Column("diagnosis", sa.Text),
    sa.Column("epoch", sa.Integer, nullable=False, default=0),
    sa.Column("step", sa.Integer, nullable=False, default=0),
    sa.Column("total_steps", sa.Integer),
    sa.Column("seconds", sa.Float, nullable=False, default=0.0),
    sa.Column("learning_rate", sa.Float),
    sa.Column("examples_per_second", sa.Float),
    sa.Column("train_loss", sa.Float),
    sa.Column("train_accuracy", sa.Float),
    sa.Column("test_loss", sa.Float),
    sa.Column("test_accuracy", sa.Float),
    sa.Column("test_examples", sa.Integer),
    sa.Column("network", sa.Text, nullable=False),
    sa.Column("train", sa.Text, nullable=False),
    sa.Column("log", sa.Text),  # late: reading those before it skips its overflow pages
    sa.Column("desired_rate", sa.Float),
    # Runs of one seed fan have this in common.
    sa.Column("fan", sa.String(40), index=True),
    # What a step was predicted to take beside the process itself, and what the process took.
    sa.Column("predicted_bytes", sa.BigInteger),
    sa.Column("base_bytes", sa.BigInteger),
    sa.Column("peak_bytes", sa.BigInteger),
    sa.Column("settings", sa.Text),  # JSON of `tuning.Settings`
    sa.Column("start", sa.Text),  # JSON of `records.Start`
    sqlite_autoincrement=True,
)
metrics = sa.Table(
    "metrics",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("train_loss", sa.Float),
    sa.Column("train_accuracy", sa.Float),
    sa.Column("test_loss", sa.Float),
    sa.Column("test_accuracy", sa.Float),
    sa.Column("test_examples", sa.Integer),
    sa.Column("learning_rate", sa.Float),
    sa.Column("examples_per_second", sa.Float),
    sa.Column("gradient_norm", sa.Float),
    sa.Column("update_norm", sa.Float),
    sa.Column("dead_channels", sa.Text),  # JSON: layer -> how many
    sa.Index("metrics_of_run", "run_id", "id"),
    sqlite_autoincrement=True,
)
checkpoints = sa.Table(
    "checkpoints",
    METADATA,
    sa.Column("run_id", sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("info", sa.Text, nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)
evaluations = sa.Table(
    "evaluations",
    METADATA,
    sa.Column("run_id", sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("images", sa.Integer, nullable=False),
    sa.Column("classes", sa.Integer, nullable=False),
    sa.Column("loss", sa.Float),
    sa.Column("accuracy", sa.Float),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("logits", sa.LargeBinary, nullable=False),
)
pins = sa.Table(
    "pins",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(MAX_PIN_NAME), nullable=False),
    sa.Column("folded", sa.String(3 * MAX_PIN_NAME), nullable=False, unique=True),
    sa.Column("network", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
snapshots = sa.Table(
    "snapshots",
    METADATA,
    sa.Column("run_id", sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)
