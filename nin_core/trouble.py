"""What goes wrong while a run trains, told from its curve alone, and the twin that would do better.

No torch here: pages ask at every tick.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .config import NiNConfig
from .recipes import MAX_EPOCHS, MIN_RATE, RECIPES, TrainConfig

DIVERGED = "The loss is no longer a finite number"  # how `training.DivergedError` begins
ALL_ALIVE = "No class map is dead"  # how a diagnosis begins of a network that may only need longer
AT_GUESSING = "so the loss sits at ln("  # in that of one whose class maps are dead
LOWER_RATE, LONGER = 10, 3  # by which a rate that is too high is divided, and epochs are multiplied

# A loss this close to ln(classes), relatively, is that of guessing. A tutorial run that has died
# stays within 0.1 %; one that learns passes through the band. Of many epochs it may take its time,
# since its rate rises slowly: then it moves from the first half of its points there to the second.
GUESSING_BAND = 0.02
STILL = 0.005  # the most, relatively, by which the halves' medians of a loss that stays differ
MIN_POINTS, MIN_STEPS = 8, 100  # before it is said
# Right answers, against guessing's, above which images do not get the same logits. Of ten classes a
# share of the 6,400 images of a hundred usual batches is by chance between 9 and 11 %.
KNOWING = 1.5
AWAKE_POINTS = 3  # below the band, one after another, of a run that learns after all


class Twin(NamedTuple):
    """A run like another one with one thing changed; `change` says which, for a button."""

    train: TrainConfig
    change: str


def plateau(
    steps: Sequence[float],
    losses: Sequence[float],
    num_classes: int,
    accuracies: Sequence[float],
) -> int | None:
    """For how many steps up to now the loss has been that of guessing; None if it is not.

    Args:
        steps, losses: the points of the training curve, in order; a loss that was not finite is
            NaN. Losses in nats.
        accuracies: the share of right answers at each of them; NaN where it is not known.
    """
    found = _long_stretches(steps, losses, num_classes, accuracies)
    if not found or found[-1].end < len(losses):
        return None
    return found[-1].until - found[-1].since


def woke(
    steps: Sequence[float],
    losses: Sequence[float],
    num_classes: int,
    accuracies: Sequence[float],
) -> tuple[int, int] | None:
    """From which step to which the loss was that of guessing, in a run that has learned since.

    One point outside the band ends a stretch; of several, the last is told.

    Args:
        steps, losses, accuracies: as for `plateau`.
    """
    found = _long_stretches(steps, losses, num_classes, accuracies)
    if not found:
        return None
    last = found[-1]
    below = np.asarray(losses[last.end :]) < math.log(num_classes) * (1 - GUESSING_BAND)
    if len(below) < AWAKE_POINTS:
        return None
    awake = np.lib.stride_tricks.sliding_window_view(below, AWAKE_POINTS).all(axis=1).any()
    return (last.since, last.until) if awake else None


class _Stretch(NamedTuple):
    """Points at the loss of guessing: after the step `since` up to `until`, before point `end`."""

    since: int
    until: int
    end: int


def _long_stretches(
    steps: Sequence[float],
    losses: Sequence[float],
    num_classes: int,
    accuracies: Sequence[float],
) -> list[_Stretch]:
    """Where the loss stays at that of guessing, and does not move, for long enough to be said."""
    guessing = math.log(num_classes)
    # NaN is not close to anything.
    values = np.asarray(losses)
    inside = np.abs(values - guessing) <= GUESSING_BAND * guessing
    edges = np.flatnonzero(np.diff(inside.astype(np.int8), prepend=0, append=0)).tolist()
    stretches = []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        since, until = int(steps[begin - 1]) if begin else 0, int(steps[end - 1])
        if end - begin < MIN_POINTS or until - since < MIN_STEPS:
            continue
        middle = (begin + end) // 2
        moved = np.median(values[middle:end]) - np.median(values[begin:middle])
        knows = np.mean(accuracies[begin:end]) > KNOWING / num_classes
        if abs(moved) <= STILL * guessing and not knows:
            stretches.append(_Stretch(since, until, end))
    return stretches


def fast_or(otherwise: str, *, taken: bool) -> str:
    """Advice for a run: the fast recipe or something else; only that if fast was `taken`."""
    return otherwise if taken else f"the fast recipe, or {otherwise},"


def says_guessing(diagnosis: str) -> bool:
    """Whether a run's diagnosis is that it learned nothing."""
    return diagnosis.startswith(ALL_ALIVE) or AT_GUESSING in diagnosis


def twin(
    train: TrainConfig, network: NiNConfig, train_size: int, *, too_short: bool = False
) -> Twin:
    """The same run in the way in which it would learn.

    That is the fast recipe; where that is its own, the recipe's rate, or a lower one.

    Args:
        train: of the run that does not learn, or did so late.
        train_size: training images of its data set.
        too_short: whether nothing is wrong with it, as far as can be seen, but its length.
    """
    rate = train.rate_changes[-1][1] if train.rate_changes else train.learning_rate
    fast = RECIPES["fast"].configure(
        network, train_size=train_size, subset=train.subset, seed=train.seed
    )
    if train.recipe != "fast":
        return Twin(fast, "with the fast recipe")
    if rate > fast.learning_rate:
        rate = fast.learning_rate
        return Twin(train.varied(learning_rate=rate), f"at the recipe's learning rate, {rate:g}")
    if too_short:
        epochs = min(MAX_EPOCHS, LONGER * train.total_epochs)
        return Twin(train.varied(epochs=epochs), f"of {epochs} epochs")
    rate = max(MIN_RATE, float(f"{rate / LOWER_RATE:.2g}"))
    return Twin(train.varied(learning_rate=rate), f"at a learning rate of {rate:g}")
