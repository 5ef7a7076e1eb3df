"""Figures of the Feature maps page, as plain dicts for `ui.components.plot`. Pure: no widgets.

All signed values share one kind of scale: blue above zero, orange below, as in the pictures of
maps, and nothing at zero, where the page shows through, in light and in dark. It is equally long to
both ends, and colours small values more strongly than a straight line would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ui.feature_views.tables import DOWN, UP

_HALF = 0.3  # of the reach: where half the colour is there


def _faded(color: str, alpha: float) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


SIGNED = [
    [0, _faded(DOWN, 1)],
    [0.5 - _HALF / 2, _faded(DOWN, 0.5)],
    [0.5, _faded(DOWN, 0)],
    [0.5, _faded(UP, 0)],
    [0.5 + _HALF / 2, _faded(UP, 0.5)],
    [1, _faded(UP, 1)],
]
_STRIP = 26  # pixels a row of numbers
_FRAME = 62  # pixels for the axis


def reach_of(*values: np.ndarray) -> float:
    """The largest magnitude: where a signed scale ends. 1 where all is zero."""
    return max((float(np.abs(v).max(initial=0.0)) for v in values), default=0.0) or 1.0


def strips(
    rows: Sequence[tuple[str, np.ndarray]], marks: Sequence[tuple[int, int]] = ()
) -> tuple[dict[str, Any], int]:
    """Vectors as rows of cells, one channel a column, all on one signed scale; and the height.

    Args:
        rows: name and ``[channels]``, first at the top; they need not be equally long.
        marks: cells to frame, as (row, channel).
    """
    width = max(len(values) for _, values in rows)
    cells = np.full((len(rows), width), np.nan, np.float32)
    for number, (_, values) in enumerate(rows):
        cells[number, : len(values)] = values
    reach = reach_of(*(values for _, values in rows))
    names = [name for name, _ in rows]
    height = _FRAME + _STRIP * len(rows)
    heat = _heat(cells, reach) | {
        "y": names,
        "ygap": 3,
        "xgap": 1 if width <= 48 else 0,
        "hovertemplate": "%{y}, channel %{x}: %{z:.5g}<extra></extra>",
    }
    layout = {
        "margin": {"l": 8, "r": 8, "t": 6, "b": 40},
        "xaxis": {"title": {"text": "channel"}, "showgrid": False, "zeroline": False}
        | _whole_ticks(width),
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
        "shapes": [_frame(channel, row) for row, channel in marks],
    }
    return {"data": [heat], "layout": layout}, height


def matrix(
    weight: np.ndarray, rows: Sequence[int], columns: Sequence[int], mark: int | None = None
) -> dict[str, Any]:
    """Chosen rows and columns of a weight matrix ``[out, in]``; row `mark` is framed."""
    part = weight[np.ix_(rows, columns)].astype(np.float32)
    dense = len(rows) > 1 and list(rows) == list(range(rows[0], rows[-1] + 1))
    row_names: list[Any] = list(rows) if dense else [str(row) for row in rows]
    wide = len(columns) > 1 and list(columns) == list(range(columns[0], columns[-1] + 1))
    column_names: list[Any] = list(columns) if wide else [str(column) for column in columns]
    heat = _heat(part, reach_of(part)) | {
        "x": column_names,
        "y": row_names,
        "hovertemplate": "output %{y} ← input %{x}: %{z:.5g}<extra></extra>",
    }
    shapes = []
    if mark is not None and mark in rows:
        at = rows.index(mark) + (rows[0] if dense else 0)
        shapes.append(
            {
                "type": "rect",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": at - 0.5,
                "y1": at + 0.5,
                "line": {"color": "var(--st-text-color)", "width": 1.5},
            }
        )
    layout = {
        "margin": {"l": 8, "r": 8, "t": 6, "b": 40},
        "xaxis": {"title": {"text": "input channel"}, "showgrid": False, "zeroline": False}
        | ({} if wide else {"type": "category"}),
        "yaxis": {
            "title": {"text": "output channel"},
            "autorange": "reversed",
            "showgrid": False,
            "zeroline": False,
        }
        | ({} if dense else {"type": "category"}),
        "shapes": shapes,
    }
    return {"data": [heat], "layout": layout}


def singular_values(values: np.ndarray) -> dict[str, Any]:
    """Singular values, largest first, as bars."""
    bars = {
        "type": "bar",
        "x": list(range(1, len(values) + 1)),
        "y": values.astype(np.float32),
        "marker": {"color": UP},
        "hovertemplate": "singular value %{x}: %{y:.5g}<extra></extra>",
    }
    layout = {
        "margin": {"l": 8, "r": 8, "t": 6, "b": 40},
        "bargap": 0.15,
        "xaxis": {"title": {"text": "singular value, by size"}} | _whole_ticks(len(values), 1),
        "yaxis": {"rangemode": "tozero"},
    }
    return {"data": [bars], "layout": layout}


def patch_times_kernel(
    patch: np.ndarray, kernel: np.ndarray, products: np.ndarray
) -> dict[str, Any]:
    """Three k×k arrays side by side: patch × kernel = products, each on its own signed scale."""
    side = kernel.shape[0]
    data, layout = [], {"margin": {"l": 4, "r": 4, "t": 30, "b": 6}, "annotations": []}
    parts = (("patch", patch), ("× kernel", kernel), ("= products", products))
    for number, (name, values) in enumerate(parts):
        suffix = "" if number == 0 else str(number + 1)
        left, right = number * 0.345, number * 0.345 + 0.31
        data.append(
            _heat(values.astype(np.float32), reach_of(values))
            | {
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
                "showscale": False,
                "xgap": 1,
                "ygap": 1,
                "hovertemplate": name.strip("×= ")
                + ", row %{y}, column %{x}: %{z:.5g}<extra></extra>",
            }
            | ({"texttemplate": "%{z:.2f}", "textfont": {"size": 11}} if side <= 5 else {})
        )
        axis = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": ""}
        layout[f"xaxis{suffix}"] = axis | {"domain": [left, right], "constrain": "domain"}
        layout[f"yaxis{suffix}"] = axis | {
            "autorange": "reversed",
            "scaleanchor": f"x{suffix}",
            "constrain": "domain",
            "anchor": f"x{suffix}",
        }
        layout["annotations"].append(
            {
                "text": f"{name} (±{reach_of(values):.3g})",
                "x": (left + right) / 2,
                "y": 1,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "center",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    return {"data": data, "layout": layout}


def _heat(values: np.ndarray, reach: float) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "z": values,
        "zmin": -reach,
        "zmax": reach,
        "colorscale": SIGNED,
        "colorbar": {
            "thickness": 10,
            "outlinewidth": 1,
            "tickmode": "array",
            "tickvals": [-reach, 0, reach],
            "ticktext": [f"−{reach:.3g}", "0", f"{reach:.3g}"],
        },
    }


def _whole_ticks(count: int, first: int = 0) -> dict[str, Any]:
    """Ticks at whole numbers only, which a short axis would otherwise not have."""
    return {"tickmode": "linear", "tick0": first, "dtick": 1} if count <= 16 else {}


def _frame(x: int, y: int) -> dict[str, Any]:
    return {
        "type": "rect",
        "x0": x - 0.5,
        "x1": x + 0.5,
        "y0": y - 0.5,
        "y1": y + 0.5,
        "line": {"color": "var(--st-text-color)", "width": 1.5},
    }
