"""Figures of the view “Widths that fit”: costs against a width multiplier, and over two widths.

Plain dicts, as in `figures`. What is the budget's is red and dashed, what is the present network's
is grey and dotted in the curves, and a diamond in the heat map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nin_core.solver import Quantity
from ui import numbers, theme

BUDGET = theme.TRAIN_LOSS
TITLES: dict[Quantity, str] = {
    "parameters": "Parameters",
    "macs": "MACs an image",
    "bytes": "Training memory",
    "seconds": "Seconds a step",
}


def words(quantity: Quantity, value: float) -> str:
    """A cost as it is written: counts exact up to a million, then in three digits."""
    match quantity:
        case "parameters":
            return f"{value:,.0f}"
        case "macs":
            return numbers.short(value)
        case "bytes":
            return numbers.size(value)
        case "seconds":
            return f"{value:.3g} s"


def curve_figure(
    multipliers: Sequence[float],
    values: Sequence[float | None],
    quantity: Quantity,
    *,
    of: str,
    now: float,
    budget: float | None,
    answer: tuple[float, float] | None,
) -> dict[str, Any]:
    """A cost against the width multiplier.

    Args:
        values: the cost at each multiplier; None beyond what can be built.
        of: whose widths multiplier 1 stands for.
        now: the present network's cost, a line, since it need not have these proportions.
        budget: the limit, if it is one of this quantity.
        answer: (multiplier, cost) of the widest network within the budget.
    """
    ends = [multipliers[0], multipliers[-1]]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "in proportion",
            "x": list(multipliers),
            "y": list(values),
            "customdata": ["" if v is None else words(quantity, v) for v in values],
            "hovertemplate": "×%{x:.2f}: %{customdata}<extra></extra>",
            "line": {"color": theme.CONV, "width": 2.5},
        },
        _level("this network", ends, now, quantity, theme.POOL, "dot"),
    ]
    if budget is not None:
        data.append(_level("budget", ends, budget, quantity, BUDGET, "dash"))
    if answer is not None:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "widest that fits",
                "x": [answer[0]],
                "y": [answer[1]],
                "customdata": [words(quantity, answer[1])],
                "hovertemplate": "×%{x:.3f}: %{customdata}<extra></extra>",
                "marker": {"color": theme.POINTWISE, "size": 11, "symbol": "circle"},
            }
        )
    layout = {
        "margin": {"l": 8, "r": 16, "t": 36, "b": 44},
        "xaxis": {"title": {"text": f"width multiplier (1: {of} widths)"}, "rangemode": "tozero"},
        "yaxis": {
            "title": {"text": TITLES[quantity]},
            "rangemode": "tozero",
            "exponentformat": "SI",
            "automargin": True,
        },
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "uirevision": f"{of} {multipliers[-1]:g}",
    }
    return {"data": data, "layout": layout}


def _level(
    name: str, ends: list[float], value: float, quantity: Quantity, color: str, dash: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": ends,
        "y": [value, value],
        "customdata": [words(quantity, value)] * 2,
        "hovertemplate": f"{name}: %{{customdata}}<extra></extra>",
        "line": {"color": color, "width": 1.8, "dash": dash},
    }


def crosses(values: np.ndarray, budget: float) -> bool:
    """Whether some of the networks that can be built cost less than the budget and some more."""
    return bool((values < budget).any() and (values > budget).any())


def heat_figure(
    across: tuple[str, Sequence[int]],
    down: tuple[str, Sequence[int]],
    values: np.ndarray,
    quantity: Quantity,
    *,
    now: tuple[int, int],
    budget: float,
) -> dict[str, Any]:
    """A cost over two widths, with the budget as a line and the present network as a diamond.

    Args:
        across, down: each a block's name and the widths of the cells.
        values: [down, across]; NaN for what cannot be built.
        now: the present network's widths, (across, down).
    """
    with np.errstate(invalid="ignore"):
        z = np.log10(values.astype(np.float64))
    finite = z[np.isfinite(z)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    ticks = np.linspace(low, high, 6)
    axes = {"x": list(across[1]), "y": list(down[1])}
    data: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            **axes,
            "z": z.astype(np.float32),
            "zmin": low,
            "zmax": high,
            "colorscale": _SCALE,
            "text": [
                ["" if np.isnan(value) else words(quantity, value) for value in row]
                for row in values.astype(float).tolist()
            ],
            "hovertemplate": f"{across[0]}: %{{x}}, {down[0]}: %{{y}}<br>%{{text}}<extra></extra>",
            "hoverongaps": False,
            "colorbar": {
                "tickvals": ticks.tolist(),
                "ticktext": [_tick(quantity, 10**tick) for tick in ticks],
                "thickness": 12,
                "title": {"text": TITLES[quantity], "side": "right"},
            },
        }
    ]
    limit = float(np.log10(budget))
    if crosses(values, budget):
        data.append(
            {
                "type": "contour",
                **axes,
                "z": z.astype(np.float32),
                "autocontour": False,
                "contours": {
                    "start": limit,
                    "end": limit,
                    "size": 1,
                    "coloring": "none",
                    "showlabels": False,
                },
                "line": {"color": BUDGET, "width": 3, "dash": "dash"},
                "showscale": False,
                "hoverinfo": "skip",
                "name": "budget",
                "showlegend": True,
            }
        )
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": [now[0]],
            "y": [now[1]],
            "name": "this network",
            "showlegend": True,
            "hoverinfo": "skip",
            "marker": {
                "symbol": "diamond",
                "size": 13,
                "color": "#ffffff",
                "line": {"color": "#14171c", "width": 2},
            },
        }
    )
    layout = {
        "margin": {"l": 8, "r": 8, "t": 36, "b": 44},
        "xaxis": _width_axis(*across),
        "yaxis": _width_axis(*down) | {"automargin": True},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "uirevision": f"{across} {down}",
    }
    return {"data": data, "layout": layout}


# Light where cheap, dark where dear, in both themes; the red line and the white diamond stand out.
_SCALE = [[0.0, "#dceaf7"], [0.35, "#8fbbe3"], [0.7, "#3b7dbf"], [1.0, "#123a66"]]


def _width_axis(name: str, widths: Sequence[int]) -> dict[str, Any]:
    half = (widths[1] - widths[0]) / 2
    return {
        "title": {"text": f"channels of {name}"},
        "range": [widths[0] - half, widths[-1] + half],
        "showgrid": False,
        "zeroline": False,
    }


def _tick(quantity: Quantity, value: float) -> str:
    two = float(f"{value:.2g}")
    return numbers.short(two) if quantity == "parameters" else words(quantity, two)
