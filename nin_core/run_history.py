"""What a run leaves behind as it trains: the points of its curves, its weights, its logits.

Choices made here:

* Every function takes the caller's connection: weights are written in one transaction with the
  points up to them, and a run that goes on is brought back to its weights in the one that lets it.
* Only the latest weights and the latest evaluation are kept (`snapshots` has the earlier weights).
  Weights are safetensors bytes; no pickle anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import tables
from .records import Checkpoint, MetricRow, StoredEvaluation
from .run_rows import update_run
from .snapshots import forget_after

_METRIC_FIELDS = tuple(f.name for f in fields(MetricRow) if f.name != "id")
_METRIC_COLUMNS = [tables.metrics.c[f.name] for f in fields(MetricRow)]
_EVALUATION_COLUMNS = [tables.evaluations.c[f.name] for f in fields(StoredEvaluation)]


# --- the points of its curves -----------------------------------------------------------------


def points_after(connection: Connection, run_id: int, after_id: int = 0) -> list[MetricRow]:
    """A run's points with a number above `after_id`, in order."""
    rows = connection.execute(
        sa.select(*_METRIC_COLUMNS)
        .where(tables.metrics.c.run_id == run_id, tables.metrics.c.id > after_id)
        .order_by(tables.metrics.c.id)
    )
    return [MetricRow(*row) for row in rows]


def add_points(
    connection: Connection, run_id: int, rows: Sequence[MetricRow], *, again: bool = False
) -> None:
    """Append points to a run's curves.

    Args:
        again: they may be there already, from a commit whose answer was lost.
    """
    if again:
        points = tables.metrics.c
        for kind in {row.kind for row in rows}:
            first = min(row.step for row in rows if row.kind == kind)
            connection.execute(
                tables.metrics.delete().where(
                    points.run_id == run_id, points.kind == kind, points.step >= first
                )
            )
    if rows:
        connection.execute(
            tables.metrics.insert(),
            [
                {"run_id": run_id} | {name: finite(getattr(row, name)) for name in _METRIC_FIELDS}
                for row in rows
            ],
        )


def latest_figures(rows: Sequence[MetricRow]) -> dict[str, Any]:
    """The run columns after these points: the last one's, and the last test that was made."""
    if not rows:
        return {}
    last = rows[-1]
    latest = {
        name: finite(getattr(last, name))
        for name in ("epoch", "step", "seconds", "learning_rate", "train_loss", "train_accuracy")
    }
    speed = finite(last.examples_per_second)
    if speed is not None:
        latest["examples_per_second"] = speed
    tested = next((row for row in reversed(rows) if row.test_accuracy is not None), None)
    if tested is not None:
        for name in ("test_loss", "test_accuracy", "test_examples"):
            latest[name] = finite(getattr(tested, name))
    return latest


def finite(value: Any) -> Any:
    """None for NaN and infinities, which databases keep each in its own way."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- its weights ------------------------------------------------------------------------------


def checkpoint_of(connection: Connection, run_id: int) -> Checkpoint | None:
    """A run's weights, None if it has none."""
    row = connection.execute(
        sa.select(tables.checkpoints).where(tables.checkpoints.c.run_id == run_id)
    ).one_or_none()
    if row is None:
        return None
    return Checkpoint(row.step, row.epoch, row.blob, json.loads(row.info), row.created_at)


def checkpoint_info(connection: Connection, run_id: int) -> dict[str, Any]:
    """How a run's weights came about, {} if it has none; the weights are not read."""
    info = connection.scalar(
        sa.select(tables.checkpoints.c.info).where(tables.checkpoints.c.run_id == run_id)
    )
    return json.loads(info) if info else {}


def put_checkpoint(
    connection: Connection, run_id: int, checkpoint: Checkpoint, moment: datetime
) -> None:
    """Keep these weights in place of the run's earlier ones, whose logits go with them."""
    logits = tables.evaluations
    connection.execute(
        logits.delete().where(logits.c.run_id == run_id, logits.c.step != checkpoint.step)
    )
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


def rewind(connection: Connection, run_id: int) -> None:
    """Bring a run back to its checkpoint, or to its start if it has none.

    What came after that will come again: points, figures and snapshots. Logits of these very
    weights stay until there are others, as does what was measured with them.
    """
    kept = connection.execute(
        sa.select(
            tables.checkpoints.c.step, tables.checkpoints.c.epoch, tables.checkpoints.c.info
        ).where(tables.checkpoints.c.run_id == run_id)
    ).one_or_none()
    step = kept.step if kept else 0
    info = json.loads(kept.info) if kept else {}
    repeated = tables.metrics.c.step > step
    if kept:
        # The epoch that the checkpoint is in: at its first step, the one before has ended.
        same = tables.metrics.c.step == step, tables.metrics.c.epoch == kept.epoch
        for kind, again in (
            ("step", info.get("event_due", False)),
            ("epoch", not info.get("epoch_ended", True)),
        ):
            if again:
                repeated = sa.or_(repeated, sa.and_(*same, tables.metrics.c.kind == kind))
    connection.execute(tables.metrics.delete().where(tables.metrics.c.run_id == run_id, repeated))
    empty = dict.fromkeys(
        ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "test_examples")
    )
    values = empty | {"epoch": 0, "step": 0, "seconds": 0.0}
    values |= latest_figures(points_after(connection, run_id)) | {"step": step}
    logits = tables.evaluations
    connection.execute(logits.delete().where(logits.c.run_id == run_id, logits.c.step != step))
    measured = evaluation_of(connection, run_id)
    if (
        measured is not None
        and measured.accuracy is not None
        and measured.images >= (values["test_examples"] or 0)
    ):
        values |= {
            "test_loss": measured.loss,
            "test_accuracy": measured.accuracy,
            "test_examples": measured.images,
        }
    update_run(connection, run_id, values)
    forget_after(connection, run_id, step)


# --- its logits -------------------------------------------------------------------------------


def evaluation_of(connection: Connection, run_id: int) -> StoredEvaluation | None:
    """A run's logits on the test set, None if they were not measured."""
    row = connection.execute(
        sa.select(*_EVALUATION_COLUMNS).where(tables.evaluations.c.run_id == run_id)
    ).one_or_none()
    return None if row is None else StoredEvaluation(*row)


def put_evaluation(connection: Connection, run_id: int, evaluation: StoredEvaluation) -> None:
    """Keep these logits in place of the run's earlier ones."""
    connection.execute(tables.evaluations.delete().where(tables.evaluations.c.run_id == run_id))
    values = {column.name: getattr(evaluation, column.name) for column in _EVALUATION_COLUMNS}
    connection.execute(tables.evaluations.insert().values(run_id=run_id, **values))
