"""A run's curves for other programs: CSV, JSON, and TensorBoard's event files.

Choices made here:

* Every format has all points the run wrote, not what a chart thinned. What was not measured is
  empty in CSV, null in JSON, and not there at all in an event file.
* JSON has the run with it: network, recipe, figures. CSV is one table that any spreadsheet opens.
* TensorBoard's package is an optional extra (requirements-tensorboard.txt). Its own classes write
  the file, so that it is one by definition; a point's wall time is the run's start plus its
  seconds of training.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .checks import ConfigError
from .records import MetricRow

if TYPE_CHECKING:
    from .records import Run

TENSORBOARD_INSTALL = "pip install -r requirements-tensorboard.txt"
COLUMNS = tuple(f.name for f in fields(MetricRow) if f.name != "id")
#: What a run's own object has besides its network and its recipe.
FACTS = (
    "id", "name", "state", "dataset", "phase", "epoch", "step", "total_steps", "seconds",
    "train_loss", "train_accuracy", "test_loss", "test_accuracy", "test_examples",
    "examples_per_second", "error", "diagnosis", "has_checkpoint", "problem", "fan", "device",
    "threads", "predicted_bytes", "peak_bytes", "checkpoint_step", "evaluated_images",
    "evaluated_accuracy",
)  # fmt: skip
_TAGS = {
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "train_accuracy": "accuracy/train",
    "test_accuracy": "accuracy/test",
    "learning_rate": "learning_rate",
    "examples_per_second": "examples_per_second",
    "gradient_norm": "norm/gradient",
    "update_norm": "norm/update",
}
_DEAD = "dead_channels/"  # and the layer


def describe(run: Run) -> dict[str, Any]:
    """A run as plain values for JSON; times as ISO 8601."""
    values = {name: getattr(run, name) for name in FACTS}
    for name in ("created_at", "started_at", "ended_at"):
        stamp = getattr(run, name)
        values[name] = None if stamp is None else stamp.isoformat()
    values["settings"] = None if run.settings is None else asdict(run.settings)
    values["start"] = None if run.start is None else run.start._asdict()
    values["network"] = None if run.network is None else run.network.to_dict()
    values["train"] = None if run.train is None else run.train.to_dict()
    return values


def as_csv(rows: Sequence[MetricRow]) -> str:
    """A line a point, under a line of column names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([getattr(row, name) for name in COLUMNS])
    return text.getvalue()


def as_json(run: Run, rows: Sequence[MetricRow]) -> str:
    """The run (`describe`) with its points under "metrics"."""
    points = [{name: asdict(row)[name] for name in COLUMNS} for row in rows]
    return json.dumps(describe(run) | {"metrics": points}, ensure_ascii=False, indent=1) + "\n"


def can_tensorboard() -> bool:
    """Whether TensorBoard's package is there."""
    return find_spec("tensorboard") is not None


def as_tensorboard(run: Run, rows: Sequence[MetricRow]) -> bytes:
    """An event file; TensorBoard shows it once it lies in a folder as `events_name` calls it.

    Raises:
        ConfigError: where TensorBoard is not installed.
    """
    if not can_tensorboard():
        raise ConfigError(f"TensorBoard is not installed; `{TENSORBOARD_INSTALL}` would work.")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    began = (run.started_at or run.created_at).timestamp()
    writer.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())
    for row in rows:
        # An epoch's row repeats its last step with means over the epoch: only its tests are new.
        tags = [name for name in _TAGS if row.kind != "epoch" or name.startswith("test")]
        values = [
            Summary.Value(tag=_TAGS[name], simple_value=getattr(row, name))
            for name in tags
            if getattr(row, name) is not None
        ]
        values += [
            Summary.Value(tag=_DEAD + layer, simple_value=count)
            for layer, count in row.dead.items()
        ]
        if values:
            event = Event(
                wall_time=began + row.seconds, step=row.step, summary=Summary(value=values)
            )
            writer.write(event.SerializeToString())
    return file.getvalue()


def events_name(run: Run) -> str:
    """What TensorBoard expects a run's event file to be called."""
    began = (run.started_at or run.created_at).timestamp()
    return f"events.out.tfevents.{began:.0f}.nin-run-{run.id}"
