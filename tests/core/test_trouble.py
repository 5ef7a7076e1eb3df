"""When a curve says that nothing is learned, and what the twin of such a run has changed."""

from __future__ import annotations

import math

import pytest

from nin_core import PRESETS, RECIPES
from nin_core.trouble import LONGER, LOWER_RATE, MIN_POINTS, MIN_STEPS, plateau, twin, woke

NETWORK = PRESETS["nin-slim-128"]
LN10 = math.log(10)


def steps(count: int, each: int = 20) -> list[float]:
    return [float(each * (number + 1)) for number in range(count)]


def chance(losses: list[float]) -> list[float]:
    """As many right answers as by chance, at each point; what is unknown to begin with is NaN."""
    return [math.nan if math.isnan(loss) else 0.1 for loss in losses]


@pytest.mark.parametrize("before", [[], [2.9, 2.5, 2.4], [1.9], [math.nan]])
def test_a_loss_of_guessing_is_a_plateau_of_its_length(before: list[float]) -> None:
    stuck = [LN10 * (1 + 0.01 * (-1) ** number) for number in range(12)]
    losses = [*before, *stuck]
    assert plateau(steps(len(losses)), losses, 10, chance(losses)) == 12 * 20


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [LN10] * (MIN_POINTS - 1),
        [LN10] * 30 + [2.0],  # it has begun to learn
        [LN10] * 30 + [math.nan],
        [math.log(3)] * 30,  # guessing of three classes
        [2.6 - 0.05 * number for number in range(30)],  # passes through
        [2.49 - 0.006 * number for number in range(32)],  # slowly, and is in the band now
    ],
)
def test_anything_else_is_none(losses: list[float]) -> None:
    assert plateau(steps(len(losses)), losses, 10, chance(losses)) is None


@pytest.mark.parametrize(("accuracy", "expected"), [(0.11, 12 * 20), (0.2, None)])
def test_a_run_with_more_right_answers_than_by_chance_does_not_guess(
    accuracy: float, expected: int | None
) -> None:
    assert plateau(steps(12), [LN10] * 12, 10, [accuracy] * 12) == expected
    woken = woke(steps(15), [LN10] * 12 + [2.0] * 3, 10, [accuracy] * 12 + [0.3] * 3)
    assert (woken is None) == (expected is None)


def test_a_few_steps_are_no_plateau() -> None:
    each = MIN_STEPS // 20
    assert plateau(steps(12, each), [LN10] * 12, 10, [0.1] * 12) is None
    assert plateau(steps(20, each), [LN10] * 20, 10, [0.1] * 20) == MIN_STEPS


@pytest.mark.parametrize("before", [[], [2.9, 2.5]])
def test_a_run_that_has_left_guessing_woke_at_the_end_of_the_stretch(before: list[float]) -> None:
    losses = [*before, *[LN10] * 12, 2.2, LN10, 2.2, 2.0, 1.8]
    since = 20 * len(before)
    assert woke(steps(len(losses)), losses, 10, chance(losses)) == (since, since + 12 * 20)
    losses.append(LN10)  # it is not taken back for a noisy point
    assert woke(steps(len(losses)), losses, 10, chance(losses)) == (since, since + 12 * 20)


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [LN10] * 30,  # still asleep
        [LN10] * 30 + [2.0, 1.9],  # too early to say
        [LN10] * 30 + [2.0, LN10, 2.0],
        [LN10] * 30 + [4.0, 5.0, math.nan],  # diverges
        [LN10] * (MIN_POINTS - 1) + [2.0] * 9,  # passed through
        [2.6 - 0.05 * number for number in range(30)],
        [2.49 - 0.006 * number for number in range(60)],  # it moved all the time
    ],
)
def test_any_other_run_did_not_wake(losses: list[float]) -> None:
    assert woke(steps(len(losses)), losses, 10, chance(losses)) is None


def test_the_twin_of_a_tutorial_run_takes_the_fast_recipe() -> None:
    train = RECIPES["tutorial"].configure(NETWORK, seed=7, subset=5_000)
    found = twin(train, NETWORK, 60_000)
    assert found.train == RECIPES["fast"].configure(NETWORK, seed=7, subset=5_000)
    assert found.change == "with the fast recipe"


def test_a_fast_run_at_too_high_a_rate_goes_back_to_the_recipes() -> None:
    """To its rate only: what else it was told stays as it is."""
    train = RECIPES["fast"].configure(NETWORK, learning_rate=3.0, epochs=5, batch_size=256)
    rate = RECIPES["fast"].configure(NETWORK).learning_rate
    found = twin(train, NETWORK, 60_000)
    assert found.train == train.varied(learning_rate=rate)
    assert found.change == f"at the recipe's learning rate, {rate:g}"


def test_the_rate_that_counts_is_the_one_it_was_changed_to() -> None:
    train = RECIPES["fast"].configure(NETWORK).with_rate(10, 5.0)
    rate = train.learning_rate
    assert twin(train, NETWORK, 60_000).change == f"at the recipe's learning rate, {rate:g}"
    low = RECIPES["fast"].configure(NETWORK).with_rate(10, rate / 2)
    found = twin(low, NETWORK, 60_000).train
    assert found.learning_rate == pytest.approx(rate / 2 / LOWER_RATE, rel=0.05)
    assert found.rate_changes == ()


def test_a_run_that_is_only_too_short_gets_more_epochs() -> None:
    train = RECIPES["fast"].configure(NETWORK, subset=500, epochs=2)
    found = twin(train, NETWORK, 60_000, too_short=True)
    assert found == (train.varied(epochs=2 * LONGER), f"of {2 * LONGER} epochs")
    tutorial = RECIPES["tutorial"].configure(NETWORK)
    assert twin(tutorial, NETWORK, 60_000, too_short=True).change == "with the fast recipe"


def test_a_fast_run_takes_a_lower_rate() -> None:
    train = RECIPES["fast"].configure(NETWORK, epochs=3)
    found = twin(train, NETWORK, 60_000)
    assert found.train.learning_rate == pytest.approx(train.learning_rate / LOWER_RATE, rel=0.05)
    assert found.train.epochs == 3
    assert f"{found.train.learning_rate:g}" in found.change
