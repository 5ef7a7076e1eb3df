"""A run's weights as they were during its training: the table `snapshots` in the run store.

Choices made here:

* Half precision, weights and batch norm's figures only: enough to see filters form, at a sixth of
  a checkpoint. What does not fit into float16 stays as it is.
* At most `MOST` snapshots and `MAX_BYTES` a run. `planned` spreads them over the run: half of
  them at steps that grow geometrically, since most happens early, the others evenly. A run that
  gets more epochs than it was planned with has every other one dropped when it is full.
* A snapshot belongs to its run: the database deletes it with that.
* Copying is left to the thread that trains, between two steps (`Recorder.take`, a few dozen times
  a run); packing and writing are not.
* Only the attempt that owns a run adds to it, and whoever rewinds a run calls `forget_after`.

This module imports no PyTorch: the store needs it before anyone needs that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .database import Database
from .tables import runs, snapshots

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST = 40  # snapshots a run
MAX_BYTES = 64_000_000  # a run
FEWEST = 4  # what a replay is worth having for; a network that allows fewer keeps none


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which snapshot: of the weights after `step` steps, in the `epoch`-th epoch.

    Attributes:
        made_at: seconds since 1970; with run and step it names the weights to the last bit.
        size: of its bytes.
    """

    step: int
    epoch: int
    made_at: float
    size: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot on its way to the store: copies of the tensors, in half precision."""

    step: int
    epoch: int
    tensors: Mapping[str, torch.Tensor] = field(repr=False)


class Snapshots:
    """The snapshots of all runs of one database; every method raises its `StoreError`s."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, run_id: int) -> list[Snapshot]:
        """A run's snapshots by step; none for an unknown run."""
        columns = [snapshots.c[name] for name in ("step", "epoch", "made_at", "size")]
        query = sa.select(*columns).where(snapshots.c.run_id == run_id)
        with self._database.read() as connection:
            return [Snapshot(*row) for row in connection.execute(query.order_by(snapshots.c.step))]

    def load(self, run_id: int, step: int) -> bytes | None:
        """The weights as safetensors bytes (for `features.load_model`); None if they are gone."""
        query = sa.select(snapshots.c.blob).where(
            snapshots.c.run_id == run_id, snapshots.c.step == step
        )
        with self._database.read() as connection:
            return connection.scalar(query)

    def add(self, run_id: int, attempt: int, taken: Taken) -> bool:
        """Keep a snapshot, in place of one of the same step; thin the run's if they are too many.

        Returns:
            whether it was kept: not if the run is not this attempt's (any more), nor if snapshots
            of this size are not worth having (see `room_for`).
        """
        from safetensors.torch import save

        blob = save(dict(taken.tensors))
        if not room_for(len(blob)):
            return False
        owner = sa.select(runs.c.attempt).where(runs.c.id == run_id)
        with self._database.write() as connection:
            if connection.scalar(owner) != attempt:
                return False
            _drop(connection, run_id, snapshots.c.step == taken.step)
            row = {"run_id": run_id, "step": taken.step, "epoch": taken.epoch, "blob": blob}
            row |= {"made_at": time.time(), "size": len(blob)}
            connection.execute(snapshots.insert().values(row))
            _thin(connection, run_id)
        return True


def forget_after(connection: Connection, run_id: int, step: int) -> None:
    """Drop a run's snapshots beyond `step`, in the transaction that takes the run back to it."""
    _drop(connection, run_id, snapshots.c.step > step)


def _drop(connection: Connection, run_id: int, which: sa.ColumnElement[bool]) -> None:
    connection.execute(snapshots.delete().where(snapshots.c.run_id == run_id, which))


def _thin(connection: Connection, run_id: int) -> None:
    """Drop every other snapshot, but neither the first nor the last, until the run's fit."""
    query = sa.select(snapshots.c.step, snapshots.c.size).where(snapshots.c.run_id == run_id)
    kept = list(connection.execute(query.order_by(snapshots.c.step)))
    while len(kept) > MOST or (sum(row.size for row in kept) > MAX_BYTES and len(kept) > 2):
        dropped = [row.step for row in kept[1:-1:2]]
        _drop(connection, run_id, snapshots.c.step.in_(dropped))
        kept = [row for row in kept if row.step not in dropped]


# --- when, and of what ------------------------------------------------------------------------


def room_for(size: int) -> int:
    """How many snapshots of `size` bytes a run may keep; 0 where it would be fewer than four."""
    count = min(MOST, MAX_BYTES // max(size, 1))
    return count if count >= FEWEST else 0


def planned(total_steps: int, count: int) -> list[int]:
    """At most `count` steps of a run at which to take snapshots, rising, the last step among them.

    The first half grows geometrically to where the other half, evenly spaced, begins.
    """
    if count < 2 or total_steps < 1:
        return []
    half = count // 2
    spacing = total_steps / half
    growing = {round(spacing ** (n / half)) for n in range(half)}
    even = {round(spacing * n) for n in range(1, half + 1)}
    return sorted(step for step in growing | even if 1 <= step <= total_steps)


class Recorder:
    """Decides for one training when a snapshot is due, and copies the weights then.

    Args:
        model: the network that trains.
        total_steps: of the whole run.
        since: the step a resumed run goes on from; what was due before it has been taken.
    """

    def __init__(self, model: nn.Module, total_steps: int, since: int = 0) -> None:
        self._model = model
        parts = model.state_dict().values()
        room = room_for(sum(2 * part.numel() for part in parts))
        # One place is the initial weights'. Latest last, so that what has been taken is popped.
        self._due = [step for step in planned(total_steps, room - 1) if step > since][::-1]
        if since == 0 and room:
            self._due.append(0)

    def take(self, step: int, epoch: int) -> Taken | None:
        """The weights after `step` steps if a snapshot has become due since the last call.

        To be called between two steps, by the thread that makes them.
        """
        due = False
        while self._due and self._due[-1] <= step:
            self._due.pop()
            due = True
        return Taken(step, epoch, halved(self._model.state_dict())) if due else None


def halved(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU in float16; whole numbers, and what float16 cannot hold, as they are."""
    copies: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        half = value.half().contiguous() if value.is_floating_point() else None
        fits = half is not None and bool((half.isfinite() | ~value.isfinite()).all())
        copies[name] = half if half is not None and fits else value.clone().contiguous()
    return copies
