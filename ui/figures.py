"""Plotly figures of the architecture page, as plain dicts.

A dict, because `plotly.graph_objects` validates every value on the path from a slider to the chart.
Text, grid and background colours are left out: `ui.components.plot` takes them from the theme. What
is drawn names its own colour, one for each kind of layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from nin_core import LayerSummary, NetworkSummary
from nin_core.summary import Granularity
from ui import numbers, theme

Quantity = Literal["parameters", "macs"]
QUANTITIES: dict[Quantity, str] = {"parameters": "Parameters", "macs": "MACs an image"}

# A block and the place of a weighted layer in it, from 1; 0 stands for the whole block.
Part = tuple[int, int]

LOWER: dict[Quantity, str] = {"parameters": "parameters", "macs": "MACs"}
_CONV, _POINTWISE, _DENSE = "k×k convolutions", "1×1 convolutions", "dense layers"
_CATEGORIES = {
    "autorange": "reversed",
    "type": "category",
    "showgrid": False,
    "ticklabelstandoff": 6,
}
_FRAME = 76  # pixels for legend and axis
_LEGEND = 24  # letters of another network's name


def change_figure(
    network: NetworkSummary, other: NetworkSummary, quantity: Quantity, *, log: bool
) -> tuple[dict[str, Any], int]:
    """Bars for every weighted layer of a network, with those of another one behind them as ghosts.

    Layers that only one of the two has are there, too. Returns the figure and its height in pixels.
    """
    mine, theirs = parts(network, quantity, "layer"), parts(other, quantity, "layer")
    categories = sorted(mine.keys() | theirs.keys())
    labels = [label(*category) for category in categories]
    now = [sum(mine.get(category, (0, 0))) for category in categories]
    then = [sum(theirs.get(category, (0, 0))) for category in categories]
    ghost = _bar(other.name, "rgba(125,133,144,0.28)", labels, list(map(float, then)), then)
    ghost["marker"]["line"] = {"color": theme.POOL, "width": 1}
    short = other.name if len(other.name) <= _LEGEND else f"{other.name[: _LEGEND - 1]}…"
    # Drawn first, so that it is behind; named last.
    data = [ghost | {"width": 0.86, "name": short, "legendrank": 2000}]
    for part, (name, color) in enumerate(((_CONV, theme.CONV), (_POINTWISE, theme.POINTWISE))):
        counts = [mine.get(category, (0, 0))[part] for category in categories]
        trace = _bar(name, color, labels, list(map(float, counts)), counts)
        trace["customdata"] = [
            f"{count:,} ({numbers.change(count, before)} vs {before:,})" if before else f"{count:,}"
            for count, before in zip(counts, then, strict=True)
        ]
        data.append(trace | {"width": 0.46})
    for trace in data:
        # A layer of the other kind, or one that is not there, has no bar to hover over.
        trace["x"] = [value or None for value in trace["x"]]
    layout: dict[str, Any] = {
        "barmode": "overlay",
        "margin": {"l": 8, "r": 24, "t": 36, "b": 40},
        "xaxis": {"title": {"text": QUANTITIES[quantity]}, "exponentformat": "SI"},
        "yaxis": _CATEGORIES | {"categoryorder": "array", "categoryarray": labels},
        "legend": {"traceorder": "normal"},
    }
    if log:
        layout["xaxis"] |= _decades([*now, *then])
    return {"data": data, "layout": layout}, _FRAME + 26 * max(len(labels), 3)


def reference_figure(
    networks: Sequence[NetworkSummary], quantity: Quantity, *, log: bool
) -> tuple[dict[str, Any], int]:
    """Bars for the parameters or MACs of whole networks, by kind of layer, first at the top.

    Stacked on a linear axis. On a logarithmic one lengths do not add up, so the kinds stand below
    each other. Returns the figure and its height in pixels.
    """
    labels = [network.name for network in networks]
    kinds = {
        _CONV: (theme.CONV, ("conv",)),
        _POINTWISE: (theme.POINTWISE, ("conv1x1",)),
        _DENSE: (theme.DENSE, ("linear",)),
    }
    data = []
    for name, (color, members) in kinds.items():
        counts = [_count(network.layers, quantity, members) for network in networks]
        data.append(_bar(name, color, labels, list(map(float, counts)), counts))
        if log:
            # Zero has no place on this axis; the bar is left out, its hover too.
            data[-1]["x"] = [count or None for count in counts]
            data[-1]["offsetgroup"] = name
    largest = max(total(network, quantity) for network in networks)
    layout: dict[str, Any] = {
        "barmode": "group" if log else "stack",
        "bargap": 0.3,
        "margin": {"l": 8, "r": 24, "t": 36, "b": 40},
        "xaxis": {"title": {"text": QUANTITIES[quantity]}, "exponentformat": "SI"},
        "yaxis": _CATEGORIES,
        "legend": {"traceorder": "normal"},
    }
    if log:
        layout["xaxis"] |= _decades([count for trace in data for count in trace["x"] if count])
    else:
        layout["xaxis"]["range"] = [0, largest * 1.16]  # room for the totals
        layout["annotations"] = [
            {
                "x": total(network, quantity),
                "y": network.name,
                "text": numbers.short(total(network, quantity)),
                "xanchor": "left",
                "xshift": 6,
                "showarrow": False,
            }
            for network in networks
        ]
    return {"data": data, "layout": layout}, _FRAME + (58 if log else 42) * len(networks)


def _decades(counts: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis from the decade below the smallest count, so that it, too, has a bar."""
    low, high = min(filter(None, counts)), max(counts)
    decades = [math.floor(math.log10(low) - 0.3), math.log10(high) + 0.1]
    return {"type": "log", "dtick": 1, "range": decades}


def parts(
    network: NetworkSummary, quantity: Quantity, granularity: Granularity
) -> dict[Part, tuple[int, int]]:
    """Parameters or MACs as (k×k, 1×1) counts; a batch norm counts with its convolution."""
    found: dict[Part, tuple[int, int]] = {}
    block = place = 0
    pointwise = False
    for row in network.layers:
        if row.kind not in ("conv", "conv1x1", "batch_norm"):
            continue
        if row.kind != "batch_norm":
            pointwise = row.kind == "conv1x1"
            place = place + 1 if row.block == block else 0
            block = row.block
        value = row.parameters if quantity == "parameters" else row.macs
        key = (block, 0 if granularity == "block" else place + 1)
        conv, point = found.get(key, (0, 0))
        found[key] = (conv, point + value) if pointwise else (conv + value, point)
    return found


def label(block: int, place: int) -> str:
    """How a part is called: "block 2", "block 2 k×k", "block 2 1×1 (1)"."""
    if place == 0:
        return f"block {block}"
    return f"block {block} k×k" if place == 1 else f"block {block} 1×1 ({place - 1})"


def _bar(
    name: str, color: str, labels: list[str], values: list[float], counts: list[int]
) -> dict[str, Any]:
    """A trace of horizontal bars; hovering tells the exact count."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": labels,
        "x": values,
        "customdata": [f"{count:,}" for count in counts],
        "hovertemplate": "%{y}, " + name + ": %{customdata}<extra></extra>",
        "marker": {"color": color},
    }


def _count(rows: Iterable[LayerSummary], quantity: Quantity, kinds: tuple[str, ...]) -> int:
    """Sum over the rows of these kinds; a batch norm counts with the convolution before it."""
    total, counted = 0, False
    for row in rows:
        if row.kind != "batch_norm":
            counted = row.kind in kinds
        if counted:
            total += row.parameters if quantity == "parameters" else row.macs
    return total


def total(network: NetworkSummary, quantity: Quantity) -> int:
    """All parameters of a network, or its MACs for an image."""
    return network.total_parameters if quantity == "parameters" else network.total_macs
