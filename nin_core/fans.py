"""A seed fan: the same training from several seeds, as one thing: its band, and how many stall.

Choices made here:

* A fan is nothing but runs that share `Run.fan`: each is queued, trained, resumed and exported like
  any other.
* A run has stalled if its loss stays at ln(classes) (`trouble.plateau`, or in a run too short for
  one, its last loss together with a diagnosis), or if it diverged. In a run as short as the
  example's that says that it has not left guessing by then, not that it never will; the run's own
  diagnosis, made from its class maps, says more.
* A band is drawn over the steps that all of its runs have reached, so it never changes its meaning
  along the way.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from . import admission, jobs, trouble
from .checks import whole

if TYPE_CHECKING:
    from .config import NiNConfig
    from .recipes import TrainConfig
    from .store import MetricRow, Run, RunStore

MAX_SEEDS = 50
# nin-slim-128: 100 steps, in which `fast` reaches 57 to 70 % and six tutorial runs of six stayed at
# 10 %; about 7 s a run on one core of two.
EXAMPLE_IMAGES = 6400
EXAMPLE_SEEDS = 6


class BandPoint(NamedTuple):
    """A figure of a fan's runs after `step` steps."""

    step: int
    lowest: float
    median: float
    highest: float


@dataclass(frozen=True)
class Stall:
    """A run of a fan that learns nothing, and why, in a sentence."""

    run: Run
    why: str


def start(
    store: RunStore,
    network: NiNConfig,
    train: TrainConfig,
    dataset: str,
    seeds: int,
    *,
    outlive: bool = False,
) -> str:
    """Put a run for each of the seeds 0, 1, … in the queue and return the fan's name.

    Args:
        outlive: as for `jobs.advance`.

    Raises:
        ConfigError: for a number of seeds out of range, or a run that cannot be.
        StoreError: if the runs cannot be written down.
    """
    whole(seeds, "seeds", 1, MAX_SEEDS, field="seeds", default=EXAMPLE_SEEDS)
    jobs.check_dataset(network, dataset)
    admission.require(network, train, dataset)
    fan = uuid.uuid4().hex[:12]
    for seed in range(seeds):
        store.create(network, replace(train, seed=seed), dataset, fan=fan)
    jobs.advance(store, outlive=outlive)
    return fan


def runs(store: RunStore, fan: str) -> list[Run]:
    """The fan's runs by their seeds; empty if there is no such fan."""
    return sorted(store.list_runs(limit=MAX_SEEDS, fan=fan), key=lambda run: run.id)


def stop(store: RunStore, fan: str) -> None:
    """Ask all runs of a fan that wait or train to stop."""
    # The last ones first: none of them begins because another one made room.
    for run in reversed(runs(store, fan)):
        if run.active:
            jobs.stop_run(store, run.id)


def delete(store: RunStore, fan: str) -> None:
    """Delete a fan with all of its runs.

    Raises:
        StateError: for the first that waits or trains; stop the fan before.
    """
    for run in runs(store, fan):
        store.delete(run.id)


def stalled(store: RunStore, members: Iterable[Run]) -> list[Stall]:
    """Those of the runs that learn nothing, with the reason that the product gives for each."""
    found = []
    for run in members:
        if run.network is None:
            continue
        classes = run.network.num_classes
        if (run.error or "").startswith(trouble.DIVERGED):
            found.append(Stall(run, run.error or ""))
            continue
        rows = [row for row in store.metrics(run.id) if row.kind == "step"]
        losses = [math.nan if row.train_loss is None else row.train_loss for row in rows]
        flat = trouble.plateau([row.step for row in rows], losses, classes) is not None
        # A short run has too few points for a plateau, but at its end its weights were looked at.
        guesses = bool(losses) and losses[-1] >= (1 - trouble.GUESSING_BAND) * math.log(classes)
        if flat or (run.diagnosis and guesses):
            why = f"The loss has stayed at ln({classes}) = {math.log(classes):.3f}."
            found.append(Stall(run, run.diagnosis or why))
    return found


def band(curves: Sequence[Sequence[MetricRow]], field: str) -> list[BandPoint]:
    """Lowest, median and highest of a figure at the steps at which every curve has it.

    Args:
        curves: the points of each run.
        field: of `MetricRow`, e.g. "train_loss" or "test_accuracy".
    """
    values = [
        {row.step: value for row in rows if (value := getattr(row, field)) is not None}
        for rows in curves
    ]
    common = set.intersection(*(set(known) for known in values)) if values else set()
    points = []
    for step in sorted(common):
        here = [known[step] for known in values]
        points.append(BandPoint(step, min(here), median(here), max(here)))
    return points
