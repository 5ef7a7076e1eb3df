"""Sentences about a network, each computed from its figures; None where there is nothing to say."""

from __future__ import annotations

import math
from itertools import pairwise

from nin_core import LayerSummary, NetworkSummary
from nin_core.operations import lost_pixels, pixels_seen
from ui import numbers

ALEXNET_DENSE = (4096, 4096)


def last_convolution(summary: NetworkSummary) -> LayerSummary:
    """The layer that makes the class maps; its receptive field is what one of their values sees."""
    return next(row for row in reversed(summary.layers) if row.kind in ("conv", "conv1x1"))


def field_note(summary: NetworkSummary) -> str | None:
    """A class map's values that could see further than the image reaches."""
    size = summary.input_shape[1]
    row = last_convolution(summary)
    if row.receptive_field <= size:
        return None
    return (
        f"One value of a class map could see {row.receptive_field}×{row.receptive_field} pixels, "
        f"but the image has only {size}×{size}: beyond the border it sees padding."
    )


def flooring_note(summary: NetworkSummary) -> str | None:
    """The pixels that no window reaches, because the map's side does not divide evenly."""
    lost = [
        (row.name, pixels_seen(row), row.input_shape[1])
        for row in summary.layers
        if lost_pixels(row)
    ]
    if not lost:
        return None
    listed = ", ".join(f"{name} sees {seen} of {size}" for name, seen, size in lost)
    return f"Pixels no window reaches, along each side: {listed}."


def dense_parameters(summary: NetworkSummary) -> int:
    """Parameters of the dense layers."""
    return sum(row.parameters for row in summary.layers if row.kind == "linear")


def saving_note(summary: NetworkSummary, other: NetworkSummary) -> str:
    """Where the other network's parameters sit, against this one's, which has no dense layers."""
    mine, theirs = summary.total_parameters, other.total_parameters
    more = theirs > mine
    times = (theirs / mine) if more else (mine / theirs)
    return (
        f"On {numbers.shape(summary.input_shape)}, {_percent(dense_parameters(other) / theirs)} of "
        f"{other.name}'s {numbers.short(theirs)} parameters sit in its dense layers. This network "
        f"has no dense layer, and {numbers.short(mine)} parameters: {_times(times)} times "
        f"{'fewer' if more else 'as many'}."
    )


def head_note(summary: NetworkSummary) -> str:
    """What this very network would have if it ended like AlexNet, and what its own end saves.

    AlexNet's end: the maps flattened into dense layers of 4,096, 4,096 and the classes, in place
    of the last block and the global pooling.
    """
    number = max(row.block for row in summary.layers)
    block = [row for row in summary.layers if row.block == number]
    features = math.prod(block[0].input_shape)
    classes = block[-1].output_shape[0]
    widths = (features, *ALEXNET_DENSE, classes)
    dense = sum(n * (m + 1) for m, n in pairwise(widths))
    now = summary.total_parameters
    then = now - sum(row.parameters for row in block) + dense
    if then <= now:
        return ""
    return (
        f"Were its block {number} and global pooling replaced by AlexNet's dense layers "
        f"(4,096, 4,096, {classes}), it would have {numbers.short(then)} parameters: ending in "
        f"class maps saves {_percent((then - now) / then)}."
    )


def _times(ratio: float) -> str:
    """A ratio in three significant digits, never with an exponent: 1.37, 23.5, 2,280."""
    value = float(f"{ratio:.3g}")
    return f"{value:,.0f}" if value >= 100 else f"{value:g}"


def _percent(share: float) -> str:
    """92 %, but 99.4 % where rounding would say 99 or 100."""
    return f"{100 * share:.{1 if 0.985 < share < 1 else 0}f} %"
