"""Runs as the store gives and takes them: their states, their rows, and what can be refused.

`TRANSITIONS` is the one table of allowed changes of state. Nothing here reads a database.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from .database import StoreError

if TYPE_CHECKING:
    from .config import NiNConfig
    from .recipes import TrainConfig
    from .tuning import Settings

STATES = ("queued", "running", "paused", "stopped", "finished", "failed", "interrupted")
TRANSITIONS: dict[str, frozenset[str]] = {
    # failed: its worker died before it began. stopped, paused: it was taken out of the queue.
    "queued": frozenset({"running", "paused", "stopped", "failed"}),
    "running": frozenset({"paused", "stopped", "finished", "failed", "interrupted"}),
    # running: the same attempt reports again; the worker was asleep with its machine, not dead.
    "interrupted": frozenset({"running", "queued"}),
    "paused": frozenset({"queued", "stopped"}),
    "stopped": frozenset({"queued"}),
    "failed": frozenset({"queued"}),
    "finished": frozenset({"queued"}),  # with epochs added
}
RESUMABLE = frozenset({"interrupted", "paused", "stopped", "failed"})
ACTIVE = frozenset({"queued", "running"})
ENDED = frozenset({"stopped", "finished", "failed"})  # and not merely on the way
# The phase of a running run in which weights change; before it a stop has nothing to keep.
PHASE_TRAINING = "training"
PHASE_MEASURING = "measuring the test set"
SETTLED_SECONDS = 10.0  # after which a run's speed so far counts as much as that of its last steps


# --- errors -----------------------------------------------------------------------------------


class RunNotFound(StoreError):
    """There is no run of that number (any more)."""

    def __init__(self, run_id: int) -> None:
        super().__init__(f"There is no run #{run_id}; it may have been deleted.", "refused")


class StateError(StoreError):
    """The run's state does not allow this."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "refused")


class ClaimLost(StoreError):
    """The run no longer belongs to this attempt: its worker must end without writing."""

    def __init__(self, run_id: int, attempt: int | None) -> None:
        super().__init__(f"Run #{run_id} no longer belongs to attempt {attempt}.", "refused")


# --- what is read and written -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerId:
    """The process that works on a run: a host (this boot of it), a pid, the pid's start mark."""

    host: str
    pid: int | None = None
    mark: str = ""


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One point of the curves: `kind` "step" (means since the point before) or "epoch".

    Losses are in nats, accuracies are fractions, `seconds` count from the start of training.
    What was not measured or is not finite (a diverged loss) is None.
    """

    kind: str
    epoch: int
    step: int
    seconds: float
    train_loss: float | None = None
    train_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    test_examples: int | None = None
    learning_rate: float | None = None
    examples_per_second: float | None = None
    gradient_norm: float | None = None  # before clipping
    update_norm: float | None = None
    dead_channels: str | None = None  # JSON: layer -> channels that are zero for every image
    id: int = 0  # given by the store, rising

    @property
    def dead(self) -> dict[str, int]:
        """`dead_channels` as numbers; empty where none were counted."""
        counts: dict[str, int] = json.loads(self.dead_channels or "{}")
        return counts


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights after `step` steps (in the `epoch`-th epoch) as safetensors bytes.

    `info` says how they came about: threads, memory layout, dtype, torch version.
    """

    step: int
    epoch: int
    blob: bytes = field(repr=False)
    info: dict[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """Logits of the first `images` test images; `evaluation.read_logits` decodes them."""

    step: int
    images: int
    classes: int
    loss: float | None
    accuracy: float | None
    logits: bytes = field(repr=False)
    created_at: datetime | None = None


Verdict = Literal["ready", "doubtful", "stalled"]


class Start(NamedTuple):
    """What a run found of its weights before its first step.

    Attributes:
        verdict: "ready"; "doubtful": it may learn, but part of the network is lost; "stalled": it
            cannot learn.
        sentence: the verdict for people, and what to change.
    """

    verdict: Verdict
    sentence: str

    def to_json(self) -> str:
        """Its text in the store."""
        return json.dumps(self._asdict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Start:
        """From such a text.

        Raises:
            ValueError: if it is none.
        """
        found = json.loads(text)
        if not isinstance(found, dict) or found.get("verdict") not in get_args(Verdict):
            raise ValueError("This is no verdict on a start.")
        return cls(found["verdict"], str(found.get("sentence", "")))


@dataclass(frozen=True, slots=True)
class Run:
    """One run as the pages show it: what it is, how it stands, its latest figures.

    `network` and `train` are None when this version cannot read them; `problem` then says so.
    `fan` is common to the runs of one seed fan. `predicted_bytes` is what training was expected to
    take beside the process itself, `base_bytes` what that took before it and `peak_bytes` the most
    it took altogether. `settings` are those its steps are computed with. `start` is what it found
    before its first step, None if it had no look. Times are UTC. `phase` says in a few words what
    the worker does at the moment. A worker may still be present after the state is final: it
    measures the test set then. `read_at` is when this was read, by the database's clock, which
    `heartbeat_at` and `desired_at` go by.
    """

    id: int
    name: str
    state: str
    desired_state: str
    phase: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    heartbeat_at: datetime | None
    desired_at: datetime | None
    desired_rate: float | None
    dataset: str
    attempt: int
    spawns: int
    worker_host: str | None
    worker_pid: int | None
    worker_mark: str
    threads: int | None
    device: str | None
    error: str | None
    diagnosis: str | None
    epoch: int
    step: int
    total_steps: int | None
    seconds: float
    learning_rate: float | None
    examples_per_second: float | None
    train_loss: float | None
    train_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    test_examples: int | None
    fan: str | None
    predicted_bytes: int | None
    base_bytes: int | None
    peak_bytes: int | None
    settings: Settings | None
    start: Start | None
    checkpoint_step: int | None
    evaluated_images: int | None
    evaluated_accuracy: float | None
    network: NiNConfig | None
    train: TrainConfig | None
    problem: str | None
    read_at: datetime = field(compare=False)

    @property
    def has_checkpoint(self) -> bool:
        """Whether its weights are kept, those after `checkpoint_step` steps."""
        return self.checkpoint_step is not None

    @property
    def has_evaluation(self) -> bool:
        """Whether it was measured after its end, on `evaluated_images` test images."""
        return self.evaluated_images is not None

    @property
    def active(self) -> bool:
        """Whether it waits or trains."""
        return self.state in ACTIVE

    @property
    def imported(self) -> bool:
        """Whether its weights came from elsewhere, so that it was finished without a step."""
        return self.state == "finished" and self.step == 0

    @property
    def progress(self) -> float:
        """Share of its steps that are done, 0 to 1."""
        return min(self.step / self.total_steps, 1.0) if self.total_steps else 0.0

    @property
    def steps_done(self) -> int:
        """Its steps so far: one that was told to pause or stop is kept after its last point."""
        return self.step if self.active else max(self.step, self.checkpoint_step or 0)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it ends; None if unknown.

        By the speed so far, tests included. In its first seconds most of them went into the start,
        which does not come again: there the speed of the last steps counts more.
        """
        if self.state != "running" or not self.step or not self.total_steps:
            return None
        per_step = self.seconds / self.step
        if self.train is not None and self.examples_per_second:
            latest = self.train.batch_size / self.examples_per_second
            begun = SETTLED_SECONDS / (SETTLED_SECONDS + self.seconds)
            # A batch has no more images than there are, so the latest may be less than that.
            per_step += begun * min(latest - per_step, 0.0)
        return max(self.total_steps - self.step, 0) * per_step

    @property
    def silent(self) -> float:
        """Seconds since the last sign of life of its worker; 0 if there never was one."""
        return (self.read_at - self.heartbeat_at).total_seconds() if self.heartbeat_at else 0.0

    @property
    def worker(self) -> WorkerId | None:
        """The process on it, None if there is none."""
        if self.worker_host is None:
            return None
        return WorkerId(self.worker_host, self.worker_pid, self.worker_mark)


class Signal(NamedTuple):
    """What a worker asks for several times a second.

    `sharing` is how many runs have a worker on its host, its own included.
    """

    state: str
    desired_state: str
    desired_rate: float | None = None
    sharing: int = 1


def now() -> datetime:
    """The present moment in UTC, as the store keeps it."""
    return datetime.now(UTC)
