"""Seed fans as a Plotly figure: a pure function from the points of their runs to a plain dict.

Choices made here:

* The band runs from the lowest to the highest of the runs at a step, the thick line is their
  median, and each run is a faint line of its own: where some stall and others learn, a band alone
  would show a middle in which no run is.
* Accuracy above, loss below, over epochs, as a single run's curves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nin_core import fans
from ui import theme
from ui.curves import Figure, Floats, History, guessing_mark, thinned

MAX_POINTS = 300  # of one line
_BAND, _MEMBER = 0.2, 0.4  # opacities


@dataclass(frozen=True, slots=True)
class FanCurves:
    """One fan in the figure: its label, the points of each run, how its epochs are counted.

    Attributes:
        end: epochs of its configuration.
    """

    label: str
    histories: Sequence[History]
    steps_per_epoch: float
    end: float
    num_classes: int


def fan_figure(shown: Sequence[FanCurves]) -> Figure:
    """Bands of test accuracy and training loss, one colour a fan (at most as `theme.RUNS`)."""
    data: list[dict[str, Any]] = []
    for fan, color in zip(shown, theme.RUNS, strict=False):
        tests = [(history.test_step, history.test_accuracy) for history in fan.histories]
        losses = [(history.step, history.train_loss) for history in fan.histories]
        data += _traces(fan, color, tests, "y", "test accuracy", ".1%")
        data += _traces(fan, color, losses, "y2", "training loss", ".3f")
    marks = [guessing_mark(classes, "bottom") for classes in sorted({f.num_classes for f in shown})]
    layout = {
        "xaxis": {
            "title": {"text": "epoch"},
            "anchor": "y2",
            "range": [0, max((fan.end for fan in shown), default=1.0) * 1.01],
        },
        "yaxis": {
            "title": {"text": "test accuracy"},
            "domain": [0.5, 1],
            "range": [0, 1.02],
            "tickformat": ".0%",
            "dtick": 0.2,
        },
        "yaxis2": {
            "title": {"text": "training loss"},
            "domain": [0, 0.44],
            "rangemode": "tozero",
            "nticks": 5,
        },
        "shapes": [line for line, _ in marks],
        "annotations": [text for _, text in marks],
        "hovermode": "closest",
        "hoverlabel": {"namelength": -1},
        "uirevision": " ".join(fan.label for fan in shown),
        "margin": {"l": 60, "r": 12, "t": 36, "b": 44},
    }
    return {"data": data, "layout": layout}


def _traces(
    fan: FanCurves,
    color: str,
    curves: Sequence[tuple[Floats, Floats]],
    axis: str,
    what: str,
    digits: str,
) -> list[dict[str, Any]]:
    """Band, runs and median of one figure of a fan, on one of the two vertical axes."""
    common = {"type": "scatter", "yaxis": axis, "legendgroup": fan.label, "showlegend": False}
    band = _every(fans.band(curves))
    steps = np.array([point.step for point in band]) / fan.steps_per_epoch
    lowest = [point.lowest for point in band]
    highest = [point.highest for point in band]
    x, y = _joined(map(_few, curves))
    x = x / fan.steps_per_epoch
    # The few tests of a short run are points; a line alone would hide a single one.
    mode = "lines+markers" if axis == "y" else "lines"
    return [
        {
            **common,
            "mode": "lines",
            "x": np.concatenate([steps, steps[::-1]]),
            "y": np.array(lowest + highest[::-1]),
            "fill": "toself",
            "fillcolor": _faint(color, _BAND),
            "line": {"color": _faint(color, _BAND), "width": 1},
            "hoverinfo": "skip",
            "name": fan.label,
        },
        {
            **common,
            "mode": mode,
            "x": x,
            "y": y,
            "line": {"color": _faint(color, _MEMBER), "width": 1},
            "marker": {"color": _faint(color, _MEMBER), "size": 4, "line": {"width": 0}},
            "hoverinfo": "skip",
            "name": fan.label,
        },
        {
            **common,
            "mode": mode,
            "x": steps,
            "y": np.array([point.median for point in band]),
            "text": [_hover(point, what, digits) for point in band],
            "line": {"color": color, "width": 2.5},
            "marker": {"color": color, "size": 7, "line": {"width": 0}},
            "hovertemplate": "%{text}, epoch %{x:.2f}",
            "name": fan.label,
            "showlegend": axis == "y",
        },
    ]


def _hover(point: fans.BandPoint, what: str, digits: str) -> str:
    lowest, middle, highest = (
        format(value, digits) for value in (point.lowest, point.median, point.highest)
    )
    runs = "1 run" if point.runs == 1 else f"{point.runs} runs"
    return f"{what} {middle} ({lowest} to {highest}, {runs})"


def _every(band: list[fans.BandPoint]) -> list[fans.BandPoint]:
    """Of a long band every 2nd, 4th … point, as wide as it and those before it; and the last."""
    stride = 1
    while len(band) > stride * MAX_POINTS:
        stride *= 2
    ends = [*range(0, len(band) - 1, stride), len(band) - 1] if stride > 1 else range(len(band))
    kept, start = [], 0
    for end in ends:
        part = band[start : end + 1]
        lowest, highest = min(p.lowest for p in part), max(p.highest for p in part)
        kept.append(band[end]._replace(lowest=lowest, highest=highest))
        start = end + 1
    return kept


def _few(curve: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    steps, values = thinned(*curve, limit=MAX_POINTS)
    return steps, values


def _joined(curves: Iterable[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """All curves as one with a gap between each and the next: one trace whatever their number."""
    gap = np.array([np.nan])
    x, y = [np.empty(0)], [np.empty(0)]
    for steps, values in curves:
        x += [steps, gap]
        y += [values, gap]
    return np.concatenate(x), np.concatenate(y)


def _faint(color: str, opacity: float) -> str:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
