"""How a run fares inside, as a Plotly figure: gradient and update, learning rate, dead channels.

Choices made here:

* Three panels over one axis. The norms are on a logarithmic axis, where a fall by half looks the
  same wherever it happens; dead channels are a map, a row a layer in the network's order, a column
  the time up to a count, so that one sees where dying begins and how far it spreads.
* A norm of 0 has no place on that axis: it is a mark at the foot of the panel, and the curve, also
  a smoothed one, has a gap there. It is what a network has whose class maps are all dead.
* The map's colour is the share of a layer's channels, from nothing to red: layers differ in width.
* A long run's columns are put together to 2, 4, 8 …, each with its highest share: a moment at which
  all was dead must not vanish.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ui import theme
from ui.curves import (
    MAX_POINTS,
    Figure,
    Floats,
    History,
    View,
    curve,
    log_axis,
    places,
    right_edge,
    spanned,
)

MAX_COLUMNS = 250  # of the map
MAX_ZEROS = 50  # marks of a norm that is 0

_RED = theme.TRAIN_LOSS


def recorded(history: History) -> bool:
    """Whether a run recorded anything of this; those of older versions did not."""
    norms = np.isfinite(history.gradient_norm).any() or np.isfinite(history.update_norm).any()
    return bool(norms or history.dead_layers)


def vitals_figure(
    history: History,
    *,
    steps_per_epoch: float,
    end: float | None,
    channels: Mapping[str, int],
    view: View | None = None,
) -> Figure:
    """Norms and learning rate as curves, dead channels as a map of layers over time.

    Args:
        steps_per_epoch, end, view: as for `curves.training_figure`.
        channels: layer -> its output channels, of which the dead ones are a share.
    """
    view = view or View()
    x = places(view.unit, history.step, history.seconds, steps_per_epoch)
    at = places(view.unit, history.dead_step, history.dead_seconds, steps_per_epoch)
    last = right_edge(view.unit, end, steps_per_epoch, x, at)
    data: list[dict[str, Any]] = []
    behind: list[dict[str, Any]] = []
    gradient, update = history.gradient_norm, history.update_norm
    floor = _floor(gradient, update)
    for name, column, color, hover, panel, zero in (
        ("Gradient norm", gradient, theme.CONV, "%{y:.3g}", "y", "0: no layer gets a gradient"),
        ("Update norm", update, theme.POINTWISE, "%{y:.3g}", "y", "0: no weight changes"),
        ("Learning rate", history.learning_rate, theme.HEAD, "%{y:.4g}", "y2", None),
    ):
        settings = {
            "name": name,
            "yaxis": panel,
            "line": {"color": color, "width": 1.5},
            "hovertemplate": hover,
        }
        if zero is None:
            # The rate is what was set, not what was measured: there is no noise to take out.
            how = view._replace(smoothing=0.0)
        else:
            how = view
            behind += _zeros(x, column, floor, settings | {"hovertemplate": zero})
            column = np.where(column > 0, column, np.nan)
        line, *faint = curve(x, column, how, MAX_POINTS, settings)
        data.append(line)
        behind += faint
    data += behind
    norms = log_axis(history.gradient_norm, history.update_norm)
    edges, dead = _columns(at, history.dead)
    if dead.size:
        widths = np.array([channels.get(layer, 0) for layer in history.dead_layers], dtype=float)
        shares = np.divide(
            dead,
            widths,
            out=np.full_like(dead, np.nan),
            where=np.broadcast_to(widths, dead.shape) > 0,
        )
        data.append(
            {
                "type": "heatmap",
                "name": "Dead channels",
                "x": edges.astype(np.float32),
                "y": list(history.dead_layers),
                "z": shares.T.astype(np.float32),
                "yaxis": "y3",
                "zmin": 0,
                "zmax": 1,
                "colorscale": [[0, _RED + "00"], [1, _RED + "ff"]],
                "hovertemplate": "%{y}: %{z:.1%} of its channels dead<extra></extra>",
                "ygap": 1,
                "colorbar": {
                    "tickformat": ".0%",
                    "tickvals": [0, 0.5, 1],
                    "thickness": 8,
                    "y": 0,
                    "yanchor": "bottom",
                    "len": _MAP[1],
                    "ypad": 0,
                    "xpad": 4,
                },
            }
        )
    return {"data": data, "layout": spanned(_layout(view, history.dead_layers, norms), last)}


def has_zeros(history: History) -> bool:
    """Whether a norm was exactly 0, so that there are marks to explain."""
    return bool((history.gradient_norm == 0).any() or (history.update_norm == 0).any())


def _floor(*norms: Floats) -> float:
    """Where a norm of 0 is marked: below all that have a place on a logarithmic axis."""
    positive = np.concatenate([column[column > 0] for column in norms])
    return float(positive.min() / 2) if len(positive) else 1.0


def _zeros(
    x: Floats, column: Floats, floor: float, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Marks where a norm was 0, as its curve otherwise; nothing where it never was."""
    at = x[column == 0]
    if not len(at):
        return []
    at = at[:: math.ceil(len(at) / MAX_ZEROS)]
    marks = {
        "type": "scatter",
        "mode": "markers",
        "x": at.astype(np.float32),
        "y": np.full(len(at), floor, dtype=np.float32),
        "marker": {"symbol": "x", "size": 6, "color": settings["line"]["color"]},
        "showlegend": False,
    }
    return [settings | marks]


_MAP, _RATE, _NORMS = (0, 0.42), (0.5, 0.63), (0.69, 1)  # where the panels are, from the bottom


def _layout(view: View, layers: tuple[str, ...], norms: dict[str, Any]) -> dict[str, Any]:
    return {
        "xaxis": view.axis() | {"anchor": "y3"},
        "yaxis": {
            "title": {"text": "norm"},
            "domain": list(_NORMS),
            **norms,
        },
        "yaxis2": {
            "title": {"text": "rate"},
            "domain": list(_RATE),
            "rangemode": "tozero",
            "nticks": 3,
        },
        "yaxis3": {
            "domain": list(_MAP),
            "type": "category",
            "categoryarray": list(layers),
            "autorange": "reversed",
            "showgrid": False,
            "tickmode": "array",
            "tickvals": list(layers),
            "tickfont": {"size": 11},
            "fixedrange": True,
        },
        "annotations": [
            {
                "text": "Dead channels: share of each layer",
                "xref": "paper",
                "x": 0,
                "xanchor": "left",
                "yref": "paper",
                "y": _MAP[1],
                "yanchor": "bottom",
                "showarrow": False,
            }
        ],
        "hovermode": "x unified",
        "margin": {"l": 60, "r": 12, "t": 36, "b": 44},
    }


def _columns(at: Floats, dead: Floats) -> tuple[Floats, Floats]:
    """The map's columns: their edges [columns + 1], and dead channels [columns, layers].

    A column reaches from the count before to its own. Of counts at one place the last one holds.
    """
    if not len(at):
        return np.zeros(1), np.empty((0, 0))
    own = np.append(at[1:] > at[:-1], True)
    at, dead = at[own], dead[own]
    size = 1
    while len(at) > size * MAX_COLUMNS:
        size *= 2
    starts = np.arange(0, len(at), size)
    ends = np.minimum(starts + size, len(at)) - 1
    return np.append(0.0, at[ends]), np.fmax.reduceat(dead, starts, axis=0)
