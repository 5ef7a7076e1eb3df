"""Widths within a budget: the widest there are, and costs of many networks equal to `summarize`."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nin_core import PRESETS, BlockConfig, ConfigError, NiNConfig, estimate, summarize
from nin_core.config import MAX_CHANNELS
from nin_core.solver import (
    Budget,
    Proportions,
    channels_at,
    channels_of_block,
    costs,
    fit,
    growing,
    proportions,
    step_seconds,
    with_block_width,
    with_channels,
)
from tests.core.strategies import networks

FULL, SLIM, UNEQUAL = (PRESETS[name] for name in ("nin-224", "nin-slim-128", "nin-cifar10"))
QUANTITIES = ("parameters", "macs", "bytes", "seconds")


def chain(sought: Proportions, widest: int) -> list[NiNConfig]:
    """All networks of these proportions until one layer is `widest` wide, from all ones on.

    Found the slow way: every multiplier at which any layer rounds up, sorted.
    """
    top = max(sought.shares.values())
    ends = {Fraction(0)}
    for share in sought.shares.values():
        width = 1
        while Fraction(2 * width + 1, 2) / share <= Fraction(2 * widest - 1, 2) / top:
            ends.add(Fraction(2 * width + 1, 2) / share)
            width += 1
    return [
        with_channels(
            sought.config,
            {
                place: max(1, (2 * share * end + 1).__floor__() // 2)
                for place, share in sought.shares.items()
            },
        )
        for end in sorted(ends)
    ]


# --- maximality -------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(data=st.data(), config=networks(), quantity=st.sampled_from(QUANTITIES))
def test_the_answer_is_the_last_of_all_within_the_budget(
    data: st.DataObject, config: NiNConfig, quantity: str
) -> None:
    places = growing(config)
    if not places:
        with pytest.raises(ConfigError, match="none can be chosen"):
            proportions(config)
        return
    ratios = data.draw(
        st.none()
        | st.lists(st.integers(1, 9), min_size=len(places), max_size=len(places))
        | st.lists(
            st.floats(0.2, 5).map(lambda x: round(x, 2)),
            min_size=len(places),
            max_size=len(places),
        )
    )
    sought = proportions(config, ratios)
    networks_in_order = chain(sought, 25)
    budget = Budget(quantity, 1, batch_size=data.draw(st.integers(1, 8)))
    all_costs = [budget.cost(network) for network in networks_in_order]
    assert all_costs == sorted(all_costs)
    # A limit that meets a network's cost exactly, or lies just above or below it.
    index = data.draw(st.integers(0, len(all_costs) - 2))
    limit = all_costs[index] + data.draw(st.sampled_from([0, 0.5, -0.5, 1e-9, -1e-9]))
    if limit <= 0:
        return
    budget = replace(budget, limit=limit)
    inside = [n for n, cost in zip(networks_in_order, all_costs, strict=True) if cost <= limit]
    if not inside:
        with pytest.raises(ConfigError, match="smallest budget that works") as caught:
            fit(sought, budget)
        assert caught.value.suggestion == all_costs[0]
        assert fit(sought, replace(budget, limit=all_costs[0])).cost == all_costs[0]
        return
    if len(inside) == len(networks_in_order):
        return  # the budget reaches beyond the networks that were listed
    found = fit(sought, budget)
    assert found.config == inside[-1]
    assert found.cost == budget.cost(found.config) <= limit
    assert found.next_cost == all_costs[len(inside)] > limit
    assert sought.at(found.multiplier) == found.config


def test_half_a_million_parameters_in_the_tutorials_proportions() -> None:
    found = fit(proportions(FULL), Budget("parameters", 500_000))
    assert found.config.widths == (47, 127, 190)
    assert found.cost == summarize(found.config).total_parameters <= 500_000
    assert found.next_cost is not None
    assert found.next_cost > 500_000
    # one channel more in any single block would not be in proportion; in all it is too much
    more = FULL.with_widths([width + 1 for width in found.config.widths])
    assert summarize(more).total_parameters > 500_000


def test_unequal_widths_keep_their_proportions_and_the_classes_their_width() -> None:
    found = fit(proportions(UNEQUAL), Budget("parameters", 100_000)).config
    first, second, last = (block.channels for block in found.blocks)
    width = first[0]
    assert first[1] == pytest.approx(width * 160 / 192, abs=1)
    assert first[2] == pytest.approx(width / 2, abs=1)
    assert second == (width,) * 3
    assert last == (width, width, 10)
    tutorial = fit(proportions(SLIM), Budget("macs", 10_000_000)).config
    assert tutorial.blocks[-1].channels == (10, 10, 10)


def test_ratios_of_ones_own() -> None:
    found = fit(proportions(SLIM, (1, 2, 4)), Budget("parameters", 200_000)).config.widths
    assert found[1] == pytest.approx(2 * found[0], abs=1)
    assert found[2] == pytest.approx(4 * found[0], abs=2)
    assert fit(proportions(SLIM, (0.25, 0.5, 1)), Budget("parameters", 200_000)).config.widths == (
        found
    )


@pytest.mark.parametrize("ratios", [(1, 2), (1, 2, 3, 4), (1, 0, 2), (1, -2, 3), (1, "x", 2)])
def test_ratios_that_cannot_be(ratios: tuple) -> None:
    with pytest.raises(ConfigError, match="ratio") as caught:
        proportions(SLIM, ratios)
    assert caught.value.field == "ratios"
    assert "would work" in str(caught.value)


def test_a_budget_too_small_names_the_smallest_that_works() -> None:
    ones = SLIM.with_widths((1, 1, 1))
    least = summarize(ones).total_parameters
    with pytest.raises(ConfigError, match=f"takes {least:,} parameters; that is the smallest"):
        fit(proportions(SLIM), Budget("parameters", 5))
    with pytest.raises(ConfigError, match=r"MiB in training; that is the smallest") as caught:
        fit(proportions(SLIM), Budget("bytes", 5, batch_size=64))
    assert fit(proportions(SLIM), Budget("bytes", caught.value.suggestion, 64)).config.widths == (
        1,
        1,
        1,
    )


@pytest.mark.parametrize("limit", [0, -3, float("nan"), float("inf"), None, "many"])
def test_a_budget_that_is_none(limit: object) -> None:
    with pytest.raises(ConfigError, match="would work"):
        Budget("parameters", limit)  # type: ignore[arg-type]


def test_a_budget_beyond_the_programs_bounds_ends_at_them() -> None:
    found = fit(proportions(SLIM), Budget("parameters", 10**15))
    assert found.next_cost is None
    sought = proportions(SLIM)
    following = next(sought.steps(found.multiplier))
    with pytest.raises(ConfigError):
        sought.at(following)
    narrow = NiNConfig(1, 4, 2, (BlockConfig((3,), 1), BlockConfig((2,), 1)))
    widest = fit(proportions(narrow), Budget("parameters", 10**15))
    assert widest.config.widths == (MAX_CHANNELS,)


# --- many networks at once --------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(config=networks(), batch_size=st.integers(1, 9), seed=st.integers(0, 99))
def test_costs_of_many_networks_are_those_of_summarize(
    config: NiNConfig, batch_size: int, seed: int
) -> None:
    chance = random.Random(seed)
    places = [(b, p) for b, where in growing(config).items() for p in where]
    if not places:
        return
    chosen = [{place: chance.randint(1, 40) for place in places} for _ in range(6)]
    found = costs(
        config,
        {place: np.array([one[place] for one in chosen]) for place in places},
        batch_size=batch_size,
    )
    for index, one in enumerate(chosen):
        network = summarize(with_channels(config, one), batch_size)
        assert found.parameters[index] == network.total_parameters
        assert found.macs[index] == network.total_macs
        assert found.bytes[index] == network.training_bytes()
        assert found.seconds[index] == pytest.approx(step_seconds(network), rel=1e-12)
        assert found.possible[index]


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_a_grid_over_two_blocks_is_that_of_summarize(config: NiNConfig) -> None:
    first, second = list(growing(config))[:2]
    rows, columns = np.arange(8, 200, 61), np.arange(5, 150, 48)
    places = {
        place: values.reshape(side)
        for block, widths, side in ((first, rows, (-1, 1)), (second, columns, (1, -1)))
        for place, values in channels_of_block(config, block, widths).items()
    }
    found = costs(config, places, batch_size=64, speed=2.0)
    assert found.parameters.shape == (len(rows), len(columns))
    for i, height in enumerate(rows):
        for j, width in enumerate(columns):
            wider = with_block_width(config, first, int(height))
            network = summarize(with_block_width(wider, second, int(width)), 64)
            assert found.parameters[i, j] == network.total_parameters
            assert found.macs[i, j] == network.total_macs
            assert found.bytes[i, j] == network.training_bytes()
            assert found.seconds[i, j] == pytest.approx(step_seconds(network, 2.0))


def test_what_is_beyond_the_bounds_is_marked() -> None:
    widths = np.array([96, 2000, 4096, 5000])
    places = {(block, place): widths for block in range(3) for place in range(3)}
    found = costs(FULL, places)
    for width, possible in zip(widths, found.possible, strict=True):
        try:
            FULL.with_widths((int(width),) * 3)
        except ConfigError:
            assert not possible
        else:
            assert possible


def test_a_curve_over_multipliers_passes_through_the_network_itself() -> None:
    sought = proportions(UNEQUAL)
    multipliers = [Fraction(k, 10) for k in range(1, 25)]
    found = costs(UNEQUAL, channels_at(sought, multipliers))
    assert found.parameters[9] == summarize(UNEQUAL).total_parameters
    for index, multiplier in enumerate(multipliers):
        assert found.macs[index] == summarize(sought.at(multiplier)).total_macs


def test_seconds_are_the_estimates() -> None:
    expected = 64 * estimate.seconds_per_image(SLIM) + estimate.SECONDS_PER_STEP
    assert step_seconds(summarize(SLIM, 64)) == pytest.approx(expected)
    assert Budget("seconds", 1, 64, speed=2.0).cost(SLIM) == pytest.approx(expected / 2)
