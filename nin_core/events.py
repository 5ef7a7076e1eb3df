"""What a training says while it goes: progress within an epoch, and its end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Progress within an epoch.

    Attributes:
        epoch: the current one, from 1.
        step, total_steps: steps done since the start, and of the whole run.
        train_loss, train_accuracy: means over the images since the previous event (accuracy 0..1).
        learning_rate: of the last step.
        examples_per_second: training images, without time spent on tests, since the previous event.
        seconds: since `fit` was started.
        test_loss, test_accuracy, test_examples: an interim estimate on the first images of each
            class of the test set, a few times an epoch; None otherwise.
        dead_channels: convolution -> channels that were zero for every one of these images; with
            the interim estimate only.
        gradient_norm, update_norm: of all weights in the last step, see `vitals`; None if a run of
            an older version goes on.
    """

    epoch: int
    step: int
    total_steps: int
    train_loss: float
    train_accuracy: float
    learning_rate: float
    examples_per_second: float
    seconds: float
    test_loss: float | None = None
    test_accuracy: float | None = None
    test_examples: int | None = None
    dead_channels: dict[str, int] | None = None
    gradient_norm: float | None = None
    update_norm: float | None = None


@dataclass(frozen=True, slots=True)
class EpochEvent:
    """The end of an epoch: training means over the epoch, test figures over the whole test set.

    Units as in `StepEvent`; `dead_channels` over the images of the interim test.
    """

    epoch: int
    step: int
    total_steps: int
    train_loss: float
    train_accuracy: float
    learning_rate: float
    examples_per_second: float
    seconds: float
    test_loss: float
    test_accuracy: float
    dead_channels: dict[str, int]
