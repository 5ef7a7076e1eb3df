"""Widths that fit a budget: the widest network of given proportions, and costs over many widths.

Choices made here:

* `Proportions` say how wide each layer is at multiplier 1. A layer's width at multiplier m is its
  share times m, rounded half up, at least 1. All widths grow with m in steps of one channel, so the
  networks form a chain, each at least as dear as the one before; the answer to a budget is the last
  one within it. Exact means just this: at the next step, where the next width (or widths, where
  several round up together) grows by a single channel, the budget is exceeded.
* Widths equal to the number of classes in the last block stay: the tutorial's is "as wide as the
  classes". All others of that block grow along.
* Shares are fractions, not floats: where a width rounds up is exact, and no step is missed.
* The search asks `summarize`. Charts ask `costs`, which works out the same sums for a thousand
  networks at once in arrays, since only channels differ; the tests hold the two equal.

Training memory is that of SGD with momentum, as everywhere on the Architecture page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, log10
from typing import Any, Literal, NamedTuple

import numpy as np

from . import estimate
from .checks import ConfigError, real
from .config import (
    MAX_ACTIVATIONS,
    MAX_CHANNELS,
    MAX_PARAMETERS,
    NiNConfig,
    output_size,
)
from .summary import BYTES, INDEX_BYTES, KEEPS_INPUT, NetworkSummary, summarize

Quantity = Literal["parameters", "macs", "bytes", "seconds"]
HALF = Fraction(1, 2)
Place = tuple[int, int]  # block and position in it, both from 0


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so much of something.

    Attributes:
        quantity: "parameters"; "macs", of one image; "bytes", of a training step; "seconds", of a
            training step, predicted.
        limit: the most that is allowed, above 0.
        batch_size: images in a training step.
        speed: this computer against `estimate`'s reference thread.

    Raises:
        ConfigError: if the limit is not a number above 0.
    """

    quantity: Quantity
    limit: float
    batch_size: int = 1
    speed: float = 1.0

    def __post_init__(self) -> None:
        real(self.limit, "the budget", 1e-9, 1e18, field="limit", good=500_000)

    def cost(self, config: NiNConfig) -> float:
        """What `config` takes of the quantity."""
        network = summarize(config, self.batch_size)
        match self.quantity:
            case "parameters":
                return network.total_parameters
            case "macs":
                return network.total_macs
            case "bytes":
                return network.training_bytes()
            case "seconds":
                return step_seconds(network, self.speed)


def step_seconds(network: NetworkSummary, speed: float = 1.0) -> float:
    """Seconds of a training step of the summary's batch, as `estimate` predicts them."""
    values = network.total_activation_bytes / BYTES
    macs = network.batch_size * network.total_macs
    return _seconds(values, macs, speed)


def _seconds(values: Any, macs: Any, speed: float) -> Any:
    """For a number, or for an array of them."""
    work = values * estimate.SECONDS_PER_VALUE + macs * estimate.SECONDS_PER_MAC
    return (work + estimate.SECONDS_PER_STEP) / speed


# --- proportions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proportions:
    """A network whose widths all follow one multiplier.

    Attributes:
        config: everything but the widths.
        shares: the width of every layer that grows at multiplier 1, by (block, position in it).
    """

    config: NiNConfig
    shares: Mapping[Place, Fraction]

    def at(self, multiplier: Fraction) -> NiNConfig:
        """The network at a multiplier.

        Raises:
            ConfigError: if it is beyond the bounds of `config.py`.
        """
        return with_channels(
            self.config,
            {place: rounded(share, multiplier) for place, share in self.shares.items()},
        )

    def steps(self, start: Fraction) -> Iterator[Fraction]:
        """The multipliers above `start` at which a width grows, in order."""
        slopes = set(self.shares.values())
        while True:
            start = min((rounded(share, start) + HALF) / share for share in slopes)
            yield start


def growing(config: NiNConfig) -> dict[int, tuple[int, ...]]:
    """The positions in each block whose widths can change, by block (from 0).

    All but, in the last block, those as wide as the classes; a block without any is left out.
    """
    last = len(config.blocks) - 1
    found = {
        index: tuple(
            position
            for position, width in enumerate(block.channels)
            if index < last or width != config.num_classes
        )
        for index, block in enumerate(config.blocks)
    }
    return {index: positions for index, positions in found.items() if positions}


def proportions(config: NiNConfig, ratios: Sequence[float] | None = None) -> Proportions:
    """The proportions of `config`, or with other ratios between its blocks.

    Args:
        ratios: for every block of `growing(config)` the width of its first growing layer, on any
            common scale; within a block the widths keep their own proportions.

    Raises:
        ConfigError: if no width can grow, or the ratios are not as many numbers above 0.
    """
    places = growing(config)
    if not places:
        raise ConfigError(
            "every width of this network is its number of classes, so none can be chosen; a "
            "network with more blocks would work.",
            field="blocks",
        )
    first = {index: config.blocks[index].channels[where[0]] for index, where in places.items()}
    if ratios is None:
        ratios = tuple(first.values())
    if len(ratios) != len(places):
        example = ":".join(map(str, first.values()))
        raise ConfigError(
            f"{len(ratios)} ratios were given, but {len(places)} blocks have widths to choose, so "
            f"{example} would work.",
            field="ratios",
            suggestion=tuple(first.values()),
        )
    shares = {}
    for (index, where), ratio in zip(places.items(), ratios, strict=True):
        real(ratio, f"the ratio of block {index + 1}", 0.001, 1e6, field="ratios", good=1)
        for position in where:
            channels = config.blocks[index].channels[position]
            # str: 0.1 is to mean a tenth, not the binary number nearest to it.
            shares[index, position] = Fraction(str(ratio)) * channels / first[index]
    return Proportions(config, shares)


def with_channels(config: NiNConfig, channels: Mapping[Place, int]) -> NiNConfig:
    """`config` with other widths at some places.

    Raises:
        ConfigError: if that is beyond the bounds of `config.py`.
    """
    blocks = tuple(
        replace(
            block,
            channels=tuple(
                channels.get((index, position), width)
                for position, width in enumerate(block.channels)
            ),
        )
        for index, block in enumerate(config.blocks)
    )
    return replace(config, blocks=blocks)


def channels_at(sought: Proportions, multipliers: Sequence[Fraction]) -> dict[Place, np.ndarray]:
    """The widths at many multipliers, for `costs`."""
    by_share = {
        share: np.array([rounded(share, multiplier) for multiplier in multipliers])
        for share in set(sought.shares.values())
    }
    return {place: by_share[share] for place, share in sought.shares.items()}


def channels_of_block(
    config: NiNConfig, block: int, widths: Sequence[int]
) -> dict[Place, np.ndarray]:
    """One block (from 0) with its first growing layer of each width, for `costs`."""
    where = growing(config)[block]
    channels = config.blocks[block].channels
    first, asked = channels[where[0]], np.asarray(widths, dtype=np.int64)
    return {
        (block, position): np.maximum(1, (2 * asked * channels[position] + first) // (2 * first))
        for position in where
    }


def with_block_width(config: NiNConfig, block: int, width: int) -> NiNConfig:
    """`config` with one block (from 0) so wide: its first growing layer, the others in proportion.

    Raises:
        ConfigError: if that is beyond the bounds of `config.py`.
    """
    channels = channels_of_block(config, block, [width])
    return with_channels(config, {place: int(found[0]) for place, found in channels.items()})


def rounded(share: Fraction, multiplier: Fraction) -> int:
    """A width as whole channels: half up, at least 1. In integers, which are exact and quick."""
    above = share.numerator * multiplier.numerator
    below = share.denominator * multiplier.denominator
    return max(1, (2 * above + below) // (2 * below))


# --- the answer to a budget -------------------------------------------------------------------


class Fit(NamedTuple):
    """The widest network within a budget.

    Attributes:
        config: the network.
        cost: what it takes of the budget's quantity.
        multiplier: the smallest multiplier that gives these widths.
        next_cost: what the next step would take, above the limit; None if the next step is
            refused by the bounds of `config.py` instead.
    """

    config: NiNConfig
    cost: float
    multiplier: Fraction
    next_cost: float | None


def fit(sought: Proportions, budget: Budget) -> Fit:
    """The widest network of these proportions within the budget, exact to one channel.

    Raises:
        ConfigError: if even one channel everywhere exceeds the budget; the suggestion is the
            smallest limit that works.
    """
    top = max(sought.shares.values())

    def cost(multiplier: Fraction) -> float | None:
        """None where a bound of `config.py` is exceeded, which no budget undoes."""
        try:
            return budget.cost(sought.at(multiplier))
        except ConfigError:
            return None

    def within(found: float | None) -> bool:
        return found is not None and found <= budget.limit

    def reaches(width: int) -> Fraction:
        """Where the widest layer becomes so wide; for 1, a place where all are 1 wide."""
        return (width - HALF) / top

    low, high = 1, MAX_CHANNELS + 1
    smallest = cost(reaches(low))
    if smallest is None or not within(smallest):
        raise _too_small(sought, budget, smallest)
    while high - low > 1:
        middle = (low + high) // 2
        if within(cost(reaches(middle))):
            low = middle
        else:
            high = middle
    # Between two widths of the widest layer the others take at most one step each.
    best, found = reaches(low), cost(reaches(low))
    for step in sought.steps(best):
        following = cost(step)
        if not within(following):
            break
        best, found = step, following
    assert found is not None
    return Fit(sought.at(best), found, best, following)


def _too_small(sought: Proportions, budget: Budget, smallest: float | None) -> ConfigError:
    if smallest is None:
        return ConfigError(
            "this network is beyond the bounds of the program even with one channel a layer; a "
            "smaller image would work.",
            field="image_size",
        )
    return ConfigError(
        "even with one channel in every layer this network takes "
        f"{amount(budget.quantity, smallest)}; that is the smallest budget that works.",
        field="limit",
        suggestion=smallest,
    )


def amount(quantity: Quantity, value: float) -> str:
    """A cost in words; counts exact, bytes and seconds rounded up to three digits.

    Up, so that a budget of what is said is enough.
    """
    match quantity:
        case "parameters":
            return f"{value:,} parameters"
        case "macs":
            return f"{value:,} MACs an image"
        case "bytes":
            return f"{_three_up(value / 2**20)} MiB in training"
        case "seconds":
            return f"{_three_up(value)} s a step"


def _three_up(value: float) -> str:
    digits = max(0, 2 - floor(log10(value)))
    return f"{ceil(value * 10**digits) / 10**digits:,.{digits}f}"


# --- many networks at once --------------------------------------------------------------------


class Costs(NamedTuple):
    """What many networks take, in arrays of one shape; see `Budget` for the quantities.

    `possible` is whether a network is within the bounds of `config.py`.
    """

    parameters: np.ndarray
    macs: np.ndarray
    bytes: np.ndarray
    seconds: np.ndarray
    possible: np.ndarray

    def of(self, quantity: Quantity) -> np.ndarray:
        """The array of one quantity."""
        return getattr(self, quantity)


def costs(
    config: NiNConfig,
    channels: Mapping[Place, np.ndarray],
    *,
    batch_size: int = 1,
    speed: float = 1.0,
) -> Costs:
    """What `config` takes with many widths: the sums of `summarize`, for whole arrays.

    Args:
        channels: widths by (block, position), whole numbers from 1, in arrays whose shapes
            broadcast to one; all other widths are those of `config`.
    """
    shape = np.broadcast_shapes(*(values.shape for values in channels.values()))

    def zeros() -> np.ndarray:
        return np.zeros(shape, dtype=np.int64)

    parameters, macs, values, saved, statistics = zeros(), zeros(), zeros(), zeros(), zeros()
    bounded_parameters, bounded_values, widest = zeros(), zeros(), zeros()
    plan = config.plan()
    side, map_side = config.image_size, config.image_size
    width = zeros() + config.in_channels
    before = largest_pair = width * side**2
    if plan[0].kind in KEEPS_INPUT:
        saved += before
    position = 0
    for index, layer in enumerate(plan):
        following = plan[index + 1].kind if index + 1 < len(plan) else ""
        if layer.kernel_size:
            side = output_size(side, layer.kernel_size, layer.stride, layer.padding)
            map_side = side
        elif layer.kind in ("global_max_pool", "global_avg_pool"):
            side = 1
        if layer.kind in ("conv", "conv1x1"):
            position = position + 1 if layer.kind == "conv1x1" else 0
            chosen = channels.get((layer.block - 1, position), layer.out_channels)
            weights = width * chosen * layer.kernel_size**2
            width = zeros() + chosen
            parameters += weights + layer.bias * width
            macs += weights * side**2
            bounded_parameters += weights + width
            widest = np.maximum(widest, width)
        elif layer.kind == "batch_norm":
            parameters += 2 * width
            statistics += 2 * width
        output = width * side**2
        values += output
        bounded_values += width * map_side**2
        # As `summary._saved_bytes`, in values: indices take two each, images need no mask.
        if layer.kind == "relu" or following in KEEPS_INPUT:
            saved += output
        if layer.kind in ("max_pool", "global_max_pool"):
            saved += output * (INDEX_BYTES // BYTES)
        elif layer.kind == "dropout" and index:
            saved += output
        largest_pair = np.maximum(largest_pair, before + output)
        before = output
    slots = 3  # weights, gradients, momentum
    return Costs(
        parameters,
        macs,
        BYTES * (slots * parameters + batch_size * (saved + largest_pair) + statistics),
        _seconds(batch_size * values, batch_size * macs, speed),
        (widest <= MAX_CHANNELS)
        & (bounded_parameters <= MAX_PARAMETERS)
        & (bounded_values <= MAX_ACTIVATIONS),
    )
