"""The curves of runs as Plotly figures: pure functions from metric rows to plain dicts.

Choices made here:

* Two panels over one axis of epochs: accuracy (0 to 100 %) above, loss below. One panel for both,
  as in the tutorial, squeezes accuracy into the lower half of a loss axis.
* A `History` is immutable and is extended by the rows that came since. Pages of all sessions can
  share one and a tick of a live chart costs only what is new.
* Test accuracy comes as estimates on part of the test set (small points) and, after every epoch,
  on all of it (large points); hovering says on how many images.
* A long run is thinned to the mean of 2, 4, 8 … neighbouring points. A point is a mean over the
  images since the one before, so that is the same figure over longer stretches; and since groups
  are counted from the first point, what is drawn once stays as it is until the next doubling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ui import theme

if TYPE_CHECKING:
    from nin_core.store import MetricRow

Figure = dict[str, Any]
Floats = NDArray[np.float64]

MAX_POINTS = 3000  # of one curve
RATE_ROWS = 3  # of the figures at changes of the rate, so that neighbours do not overlap
MAX_ESTIMATES = 1000  # test points up to which the estimates within epochs are shown, too

_SMALL, _LARGE = 5, 10  # diameters of test points, pixels


def _empty() -> Floats:
    return np.empty(0)


@dataclass(frozen=True, slots=True)
class History:
    """The points of one run's curves as columns; NaN where something was not measured.

    Attributes:
        last_id: number of the newest row in it; the store is asked for what comes after.
        step, train_loss, train_accuracy: after every reported interval.
        test_step, test_accuracy, test_examples: after every test; `test_whole` marks those on the
            whole test set.
    """

    last_id: int = 0
    step: Floats = field(default_factory=_empty)
    train_loss: Floats = field(default_factory=_empty)
    train_accuracy: Floats = field(default_factory=_empty)
    test_step: Floats = field(default_factory=_empty)
    test_accuracy: Floats = field(default_factory=_empty)
    test_examples: Floats = field(default_factory=_empty)
    test_whole: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))

    def extended(self, rows: Sequence[MetricRow]) -> History:
        """This history with `rows`, which come after it, added."""
        if not rows:
            return self
        # An epoch's row repeats the step before it with means over the epoch: only its test counts.
        steps = [row for row in rows if row.kind != "epoch"]
        tests = [row for row in rows if row.test_accuracy is not None]
        return History(
            last_id=rows[-1].id,
            step=_joined(self.step, [row.step for row in steps]),
            train_loss=_joined(self.train_loss, [row.train_loss for row in steps]),
            train_accuracy=_joined(self.train_accuracy, [row.train_accuracy for row in steps]),
            test_step=_joined(self.test_step, [row.step for row in tests]),
            test_accuracy=_joined(self.test_accuracy, [row.test_accuracy for row in tests]),
            test_examples=_joined(self.test_examples, [row.test_examples for row in tests]),
            test_whole=np.append(self.test_whole, [row.kind == "epoch" for row in tests]).astype(
                bool
            ),
        )

    def tested(self, step: int, accuracy: float, examples: int, *, whole: bool) -> History:
        """This history with the test that follows the end of a run, unless it has a better one."""
        there = self.test_step >= step
        if (there & (self.test_whole | (self.test_examples >= examples))).any():
            return self
        return replace(
            self,
            test_step=_joined(self.test_step, [step]),
            test_accuracy=_joined(self.test_accuracy, [accuracy]),
            test_examples=_joined(self.test_examples, [examples]),
            test_whole=np.append(self.test_whole, whole),
        )


def _joined(column: Floats, values: Sequence[float | None]) -> Floats:
    return np.append(column, np.array([np.nan if v is None else v for v in values], dtype=float))


# --- figures ----------------------------------------------------------------------------------


def training_figure(
    history: History,
    *,
    steps_per_epoch: float,
    end: float | None,
    num_classes: int,
    rate_changes: Sequence[tuple[int, float]] = (),
) -> Figure:
    """The tutorial's three curves of one run: training loss, training and test accuracy.

    Args:
        steps_per_epoch: by which steps become epochs, the horizontal axis.
        end: epochs at the right edge, so that a run grows into its picture; None: where it stands.
        num_classes: for the line at ln(classes), the loss of guessing.
        rate_changes: steps after which the learning rate was changed, and to what.
    """
    epochs, loss, accuracy = thinned(history.step, history.train_loss, history.train_accuracy)
    epochs = epochs / steps_per_epoch
    tests = _tests(history, steps_per_epoch)
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Training accuracy",
            "x": _sent(epochs),
            "y": _sent(accuracy),
            "line": {"color": theme.TRAIN_ACCURACY, "width": 1.5},
            "hovertemplate": "%{y:.1%}",
        },
        {
            **tests,
            "name": "Test accuracy",
            "line": {"color": theme.TEST_ACCURACY, "width": 2.5},
            "marker": {**tests["marker"], "color": theme.TEST_ACCURACY},
            "hovertemplate": "%{y:.1%} %{text}",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Training loss",
            "x": _sent(epochs),
            "y": _sent(loss),
            "yaxis": "y2",
            "line": {"color": theme.TRAIN_LOSS, "width": 1.5},
            "hovertemplate": "%{y:.3f}",
        },
    ]
    layout = _layout(end if end is not None else _last(epochs, tests["x"]))
    layout["hovermode"] = "x unified"
    layout["hoversubplots"] = "axis"
    layout["xaxis"]["unifiedhovertitle"] = {"text": "epoch %{x:.2f}"}
    guessing = math.log(num_classes)
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "yref": "y2",
            "y0": guessing,
            "y1": guessing,
            "line": {"dash": "dot"},
        }
    ]
    layout["annotations"] = [
        {
            "text": f"guessing: ln {num_classes} = {guessing:.3f}",
            "xref": "paper",
            "x": 1,
            "xanchor": "right",
            "yref": "y2",
            "y": guessing,
            "yanchor": "top",
            "showarrow": False,
        }
    ]
    for number, (step, rate) in enumerate(rate_changes):
        line, text = _rate_mark(step / steps_per_epoch, rate, row=number % RATE_ROWS)
        layout["shapes"].append(line)
        layout["annotations"].append(text)
    return {"data": data, "layout": layout}


def _rate_mark(epoch: float, rate: float, row: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A line through both panels where the rate was changed, and the rate at its foot."""
    place = {"xref": "x", "yref": "paper"}
    line = {"type": "line", "x0": epoch, "x1": epoch, "y0": 0, "y1": 1, "line": {"dash": "dash"}}
    text = {
        "text": f"rate {rate:g}",
        "x": epoch,
        "xanchor": "left",
        "y": 0.44 + 0.05 * row,
        "yanchor": "bottom",
        "showarrow": False,
    }
    return place | line, place | text


@dataclass(frozen=True, slots=True)
class Compared:
    """One run among others in a figure: its label, its points, and its steps per epoch."""

    label: str
    history: History
    steps_per_epoch: float


def comparison_figure(runs: Sequence[Compared]) -> Figure:
    """Test accuracy and training loss of several runs, one colour a run (at most as `theme.RUNS`).

    Epochs are the common axis: with other batch sizes, equal epochs are not equal steps.
    """
    data: list[dict[str, Any]] = []
    end = 0.0
    for run, color in zip(runs, theme.RUNS, strict=False):
        epochs, loss = thinned(run.history.step, run.history.train_loss)
        epochs = epochs / run.steps_per_epoch
        tests = _tests(run.history, run.steps_per_epoch)
        end = max(end, _last(epochs, tests["x"]))
        common = {"name": run.label, "legendgroup": run.label}
        data.append(
            {
                **tests,
                **common,
                "line": {"color": color, "width": 2},
                "marker": {**tests["marker"], "color": color},
                "hovertemplate": "test accuracy %{y:.1%} %{text}, epoch %{x:.2f}",
            }
        )
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                **common,
                "showlegend": False,
                "x": _sent(epochs),
                "y": _sent(loss),
                "yaxis": "y2",
                "line": {"color": color, "width": 1.5},
                "hovertemplate": "training loss %{y:.3f}, epoch %{x:.2f}",
            }
        )
    layout = _layout(end)
    layout["yaxis"]["title"] = {"text": "test accuracy"}
    layout["yaxis2"]["title"] = {"text": "training loss"}
    layout["hovermode"] = "closest"
    layout["hoverlabel"] = {"namelength": -1}
    layout["uirevision"] = " ".join(run.label for run in runs)
    return {"data": data, "layout": layout}


def thinned(*columns: Floats, limit: int = MAX_POINTS) -> tuple[Floats, ...]:
    """Columns of equal length with at most `limit` entries each: means of 2^k neighbours.

    The last, incomplete group stays in, so that the end of a curve is where its run is. A group
    that lacks a value (NaN: a loss that was not finite) is NaN: a gap is never papered over.
    """
    length = len(columns[0])
    size = 1
    while length > size * limit:
        size *= 2
    if size == 1:
        return columns
    starts = np.arange(0, length, size)
    counts = np.minimum(size, length - starts)
    return tuple(np.add.reduceat(column, starts) / counts for column in columns)


def _tests(history: History, steps_per_epoch: float) -> dict[str, Any]:
    """The trace of test accuracy without its colours and name."""
    whole = history.test_whole
    keep = np.ones(len(whole), dtype=bool)
    if len(whole) > MAX_ESTIMATES:
        keep = whole.copy()
    # Where an estimate and the whole test set meet, the latter says more.
    keep &= whole | ~np.isin(history.test_step, history.test_step[whole])
    examples = history.test_examples[keep]
    whole = whole[keep]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": _sent(history.test_step[keep] / steps_per_epoch),
        "y": _sent(history.test_accuracy[keep]),
        "text": [_how(count, is_whole) for count, is_whole in zip(examples, whole, strict=True)],
        "marker": {
            "size": [_LARGE if is_whole else _SMALL for is_whole in whole],
            "opacity": 1,
            "line": {"width": 0},
        },
    }


def _how(examples: float, whole: bool) -> str:
    if math.isnan(examples):
        return "" if whole else "(estimate)"
    images = f"{examples:,.0f} test images"
    return f"(all {images})" if whole else f"(estimate on {images})"


def _layout(end: float) -> dict[str, Any]:
    """Accuracy above, loss below, over `end` epochs."""
    return {
        "xaxis": {"title": {"text": "epoch"}, "anchor": "y2", "range": [0, (end or 1) * 1.01]},
        "yaxis": {
            "title": {"text": "accuracy"},
            "domain": [0.44, 1],
            "range": [0, 1.02],
            "tickformat": ".0%",
            "dtick": 0.2,
        },
        "yaxis2": {
            "title": {"text": "loss"},
            "domain": [0, 0.38],
            "rangemode": "tozero",
            "nticks": 5,
        },
        "margin": {"l": 60, "r": 12, "t": 36, "b": 44},
    }


def _last(*columns: Floats) -> float:
    return max((float(column[-1]) for column in columns if len(column)), default=1.0)


def _sent(column: Floats) -> NDArray[np.float32]:
    """Seven digits are more than a curve shows, at half the size."""
    return column.astype(np.float32)
