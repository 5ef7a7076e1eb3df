"""What goes wrong while a run trains, told from its curve alone, and the twin that would do better.

No torch here: pages ask at every tick.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .config import NiNConfig
from .recipes import MAX_EPOCHS, MIN_RATE, RECIPES, TrainConfig

DIVERGED = "The loss is no longer a finite number"  # how `training.DivergedError` begins
ALL_ALIVE = "No class map is dead"  # how a diagnosis begins of a network that may only need longer
LOWER_RATE, LONGER = 10, 3  # by which a rate that is too high is divided, and epochs are multiplied

# A loss this close to ln(classes), relatively, is that of guessing. A tutorial run that has died
# stays within 0.1 %; one that learns passes through the band within a few points.
GUESSING_BAND = 0.02
MIN_POINTS, MIN_STEPS = 8, 100  # before it is said
AWAKE_POINTS = 3  # at the end, below the band, of a run that has learned since it was in it


class Twin(NamedTuple):
    """A run like another one with one thing changed; `change` says which, for a button."""

    train: TrainConfig
    change: str


def plateau(steps: Sequence[float], losses: Sequence[float], num_classes: int) -> int | None:
    """For how many steps up to now the loss has been that of guessing; None if it is not.

    Args:
        steps, losses: the points of the training curve, in order; a loss that was not finite is
            NaN. Losses in nats.
    """
    guessing = math.log(num_classes)
    count = 0
    for loss in reversed(losses):
        if not abs(loss - guessing) <= GUESSING_BAND * guessing:  # NaN is not close to anything
            break
        count += 1
    if count < MIN_POINTS:
        return None
    since = steps[-count - 1] if count < len(steps) else 0
    length = int(steps[-1] - since)
    return length if length >= MIN_STEPS else None


def woke(
    steps: Sequence[float], losses: Sequence[float], num_classes: int
) -> tuple[int, int] | None:
    """From which step to which the loss was that of guessing, in a run that has learned since.

    Args:
        steps, losses: as for `plateau`.

    Returns:
        the last such stretch, if it was long enough for `plateau`; None if there was none.
    """
    guessing = math.log(num_classes)
    end = len(losses) - AWAKE_POINTS
    if end < MIN_POINTS or not all(loss < guessing * (1 - GUESSING_BAND) for loss in losses[end:]):
        return None
    inside = [abs(loss - guessing) <= GUESSING_BAND * guessing for loss in losses[:end]]
    while True in inside:
        last = len(inside) - inside[::-1].index(True)
        length = plateau(steps[:last], losses[:last], num_classes)
        if length is not None:
            return int(steps[last - 1]) - length, int(steps[last - 1])
        del inside[last - 1 :]
    return None


def twin(
    train: TrainConfig, network: NiNConfig, train_size: int, *, too_short: bool = False
) -> Twin:
    """The same run in the way in which it would learn.

    That is the fast recipe; where that is its own, the recipe's rate, or a lower one.

    Args:
        train: of the run that does not learn.
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
