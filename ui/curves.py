"""The curves of runs as Plotly figures: pure functions from metric rows to plain dicts.

Choices made here:

* Two panels over one axis: accuracy (0 to 100 %) above, loss below. One panel for both, as in the
  tutorial, squeezes accuracy into the lower half of a loss axis.
* A `View` says over what curves are drawn and how smooth. Smoothing is for the training curves,
  with what was recorded faint behind them; tests stay as they were measured. Zoom is kept while a
  run grows and starts afresh with another unit, since 3 epochs are not 3 seconds.
* A `History` is immutable and is extended by the rows that came since. Pages of all sessions can
  share one and a tick of a live chart costs only what is new.
* Test accuracy comes as estimates on part of the test set (small points) and, after every epoch,
  on all of it (large points); hovering says on how many images.
* A long curve is thinned to the least and the greatest of 4, 8, 16 … neighbouring points, so that
  every peak stays; since groups are counted from the first point, what is drawn once stays as it
  is until the next doubling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ui import theme

if TYPE_CHECKING:
    from nin_core.records import MetricRow

Figure = dict[str, Any]
Floats = NDArray[np.float64]
Unit = Literal["epochs", "steps", "seconds"]

MAX_POINTS = 3000  # of one curve
COMPARED_POINTS = 12_000  # of all curves of a comparison together
COMPARED_TESTS = 4000  # of all its test points together, which are costlier to draw
MAX_COMPARED = 20
NAMED = 8  # runs up to which the legend has their names
LONGEST_NAME = 32  # of the best run, within the chart
RATE_ROWS = 3  # of the figures at changes of the rate, so that neighbours do not overlap
LARGE_LOSS = 6  # times that of guessing, whose line is at the foot of such losses
MAX_ESTIMATES = 1000  # test points up to which the estimates within epochs are shown, too

DASHES = ("solid", "dash", "dot")  # a round of `theme.RUNS` each
FAINT = 0.25  # opacity of what was recorded, behind its smoothed curve

_SMALL, _LARGE, _RING = 5, 10, 16  # diameters of test points and of the mark around the best


class _Unit(NamedTuple):
    """A horizontal axis: its title, and how a place on it is said when pointed at."""

    title: str
    place: str


_UNITS: dict[Unit, _Unit] = {
    "epochs": _Unit("epoch", "epoch %{x:.2f}"),
    "steps": _Unit("step", "step %{x:,.0f}"),
    "seconds": _Unit("seconds of training", "%{x:,.1f} s"),
}


class View(NamedTuple):
    """How curves are looked at.

    Attributes:
        unit: of the horizontal axis.
        smoothing: weight of the past in the moving mean of `smoothed`, 0 (none) to below 1.
        log_loss: whether the axis of the loss is logarithmic.
    """

    unit: Unit = "epochs"
    smoothing: float = 0.0
    log_loss: bool = False

    def axis(self) -> dict[str, Any]:
        """Plotly's settings for this horizontal axis, but for its range."""
        unit = _UNITS[self.unit]
        return {
            "title": {"text": unit.title},
            "unifiedhovertitle": {"text": unit.place},
            "uirevision": self.unit,
        }


def _empty() -> Floats:
    return np.empty(0)


@dataclass(frozen=True, slots=True)
class History:
    """The points of one run's curves as columns; NaN where something was not measured.

    Attributes:
        last_id: number of the newest row in it; the store is asked for what comes after.
        step, seconds, train_loss, train_accuracy, learning_rate, gradient_norm, update_norm: after
            every reported interval.
        test_step, test_seconds, test_accuracy, test_examples: after every test; `test_whole` marks
            those on the whole test set.
        dead_step, dead_seconds, dead: after every count of dead channels; `dead` is
            [counts, layers] with `dead_layers` as its layers.
    """

    last_id: int = 0
    step: Floats = field(default_factory=_empty)
    seconds: Floats = field(default_factory=_empty)
    train_loss: Floats = field(default_factory=_empty)
    train_accuracy: Floats = field(default_factory=_empty)
    learning_rate: Floats = field(default_factory=_empty)
    gradient_norm: Floats = field(default_factory=_empty)
    update_norm: Floats = field(default_factory=_empty)
    test_step: Floats = field(default_factory=_empty)
    test_seconds: Floats = field(default_factory=_empty)
    test_accuracy: Floats = field(default_factory=_empty)
    test_examples: Floats = field(default_factory=_empty)
    test_whole: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    dead_layers: tuple[str, ...] = ()
    dead_step: Floats = field(default_factory=_empty)
    dead_seconds: Floats = field(default_factory=_empty)
    dead: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def extended(self, rows: Sequence[MetricRow]) -> History:
        """This history with `rows`, which come after it, added."""
        if not rows:
            return self
        # An epoch's row repeats the step before it with means over the epoch: only its test counts.
        steps = [row for row in rows if row.kind != "epoch"]
        tests = [row for row in rows if row.test_accuracy is not None]
        counted = [(row, row.dead) for row in rows if row.dead_channels is not None]
        layers = self.dead_layers or (tuple(counted[0][1]) if counted else ())
        counts = [[dead.get(layer, math.nan) for layer in layers] for _, dead in counted]
        return History(
            last_id=rows[-1].id,
            step=_joined(self.step, [row.step for row in steps]),
            seconds=_joined(self.seconds, [row.seconds for row in steps]),
            train_loss=_joined(self.train_loss, [row.train_loss for row in steps]),
            train_accuracy=_joined(self.train_accuracy, [row.train_accuracy for row in steps]),
            learning_rate=_joined(self.learning_rate, [row.learning_rate for row in steps]),
            gradient_norm=_joined(self.gradient_norm, [row.gradient_norm for row in steps]),
            update_norm=_joined(self.update_norm, [row.update_norm for row in steps]),
            test_step=_joined(self.test_step, [row.step for row in tests]),
            test_seconds=_joined(self.test_seconds, [row.seconds for row in tests]),
            test_accuracy=_joined(self.test_accuracy, [row.test_accuracy for row in tests]),
            test_examples=_joined(self.test_examples, [row.test_examples for row in tests]),
            test_whole=np.append(self.test_whole, [row.kind == "epoch" for row in tests]).astype(
                bool
            ),
            dead_layers=layers,
            dead_step=_joined(self.dead_step, [row.step for row, _ in counted]),
            dead_seconds=_joined(self.dead_seconds, [row.seconds for row, _ in counted]),
            dead=np.concatenate(
                [
                    self.dead if self.dead_layers else np.empty((0, len(layers))),
                    np.array(counts, dtype=float).reshape(len(counts), len(layers)),
                ]
            ),
        )

    def tested(
        self, step: int, accuracy: float, examples: int, *, whole: bool, seconds: float
    ) -> History:
        """This history with the test that follows the end of a run, unless it has a better one."""
        there = self.test_step >= step
        if (there & (self.test_whole | (self.test_examples >= examples))).any():
            return self
        return replace(
            self,
            test_step=_joined(self.test_step, [step]),
            test_seconds=_joined(self.test_seconds, [seconds]),
            test_accuracy=_joined(self.test_accuracy, [accuracy]),
            test_examples=_joined(self.test_examples, [examples]),
            test_whole=np.append(self.test_whole, whole),
        )

    def best(self) -> int | None:
        """Number of the best test on the whole test set, the first of equals; None before one."""
        accuracy = np.where(self.test_whole, self.test_accuracy, np.nan)
        return int(np.nanargmax(accuracy)) if np.isfinite(accuracy).any() else None


def places(unit: Unit, step: Floats, seconds: Floats, steps_per_epoch: float) -> Floats:
    """Where points lie on a horizontal axis of this unit."""
    if unit == "seconds":
        return seconds
    return step / steps_per_epoch if unit == "epochs" else step


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
    view: View | None = None,
) -> Figure:
    """The tutorial's three curves of one run: training loss, training and test accuracy.

    Args:
        steps_per_epoch: by which steps become epochs.
        end: epochs at the right edge, so that a run grows into its picture; None: where it stands,
            as always on an axis of seconds, whose end nobody knows.
        num_classes: for the line at ln(classes), the loss of guessing.
        rate_changes: steps after which the learning rate was changed, and to what.
        view: axes and smoothing; None: epochs, as recorded.
    """
    view = view or View()
    x = places(view.unit, history.step, history.seconds, steps_per_epoch)
    tests = _tests(history, view.unit, steps_per_epoch, MAX_ESTIMATES)
    last = right_edge(view.unit, end, steps_per_epoch, x, tests["x"])
    accuracy = {
        "name": "Training accuracy",
        "line": {"color": theme.TRAIN_ACCURACY, "width": 1.5},
        "hovertemplate": "%{y:.1%}",
    }
    loss = {
        "name": "Training loss",
        "yaxis": "y2",
        "line": {"color": theme.TRAIN_LOSS, "width": 1.5},
        "hovertemplate": "%{y:.3f}",
    }
    accuracy, *raw_accuracy = curve(x, history.train_accuracy, view, MAX_POINTS, accuracy)
    loss, *raw_loss = curve(x, history.train_loss, view, MAX_POINTS, loss)
    tested = {
        **tests,
        "name": "Test accuracy",
        "line": {"color": theme.TEST_ACCURACY, "width": 2.5},
        "marker": {**tests["marker"], "color": theme.TEST_ACCURACY},
        "hovertemplate": "%{y:.1%} %{text}",
    }
    data = [accuracy, tested, loss, *raw_accuracy, *raw_loss]
    for mark in _best_mark(history, view.unit, steps_per_epoch, theme.TEST_ACCURACY):
        side = "left" if mark["x"][0] > last / 2 else "right"
        data.append(mark | {"mode": "markers+text", "textposition": f"bottom {side}"})
    layout = _layout(view, history.train_loss)
    layout["hovermode"] = "x unified"
    layout["hoversubplots"] = "axis"
    line, text = guessing_mark(num_classes, _free_side(num_classes, history), log=view.log_loss)
    layout["shapes"], layout["annotations"] = [line], [text]
    for number, (step, rate) in enumerate(rate_changes):
        (at,) = places(
            view.unit,
            np.array([step], dtype=float),
            np.interp([step], history.step, history.seconds) if len(history.step) else np.zeros(1),
            steps_per_epoch,
        )
        line, text = _rate_mark(float(at), rate, row=number % RATE_ROWS)
        layout["shapes"].append(line)
        layout["annotations"].append(text)
    return {"data": data, "layout": spanned(layout, last)}


def _free_side(num_classes: int, history: History) -> Literal["top", "bottom"]:
    """Which edge of its text is at the line of guessing: below it, unless it lies on the axis."""
    losses = history.train_loss[np.isfinite(history.train_loss)]
    lowest = len(losses) and losses.max() > LARGE_LOSS * math.log(num_classes)
    return "bottom" if lowest else "top"


def guessing_mark(
    num_classes: int, anchor: Literal["top", "bottom"], *, log: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A line through the loss's panel at ln(classes), the loss of guessing, and its text.

    Args:
        anchor: which edge of the text is at the line.
        log: whether the loss's axis is logarithmic.
    """
    guessing = math.log(num_classes)
    line = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "yref": "y2",
        "y0": guessing,
        "y1": guessing,
        "line": {"dash": "dot"},
    }
    text = {
        "text": f"guessing: ln {num_classes} = {guessing:.3f}",
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "yref": "y2",
        # On a logarithmic axis Plotly takes a text's place as an exponent, but not a line's.
        "y": math.log10(guessing) if log else guessing,
        "yanchor": anchor,
        "showarrow": False,
    }
    return line, text


def curve(
    x: Floats, y: Floats, view: View, limit: int, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """The line of a curve as a view wants it: one trace, or the smoothed and the recorded one."""
    line = {"type": "scatter", "mode": "lines"} | settings
    recorded = _sent_line(x, y, limit)
    if not view.smoothing:
        return [line | recorded]
    behind = {"opacity": FAINT, "zorder": -1, "showlegend": False, "hoverinfo": "skip"}
    return [
        line | _sent_line(x, smoothed(y, view.smoothing), limit),
        {name: value for name, value in line.items() if name != "hovertemplate"}
        | recorded
        | behind,
    ]


def _sent_line(x: Floats, y: Floats, limit: int) -> dict[str, Any]:
    x, y = thinned(x, y, limit=limit)
    return {"x": _sent(x), "y": _sent(y)}


def _best_mark(
    history: History, unit: Unit, steps_per_epoch: float, color: str
) -> list[dict[str, Any]]:
    """A ring around the best test on the whole test set, if there is one; its value as its text."""
    best = history.best()
    if best is None:
        return []
    x = float(places(unit, history.test_step, history.test_seconds, steps_per_epoch)[best])
    accuracy = float(history.test_accuracy[best])
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "Best",
            "x": [x],
            "y": [accuracy],
            "text": [f"best {accuracy:.1%}"],
            "textfont": {"color": color},
            "marker": {
                "symbol": "circle-open",
                "size": _RING,
                "color": color,
                "line": {"width": 2},
            },
            "cliponaxis": False,
            "showlegend": False,
            "hoverinfo": "skip",
        }
    ]


def _rate_mark(x: float, rate: float, row: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A line through both panels where the rate was changed, and the rate at its foot."""
    place = {"xref": "x", "yref": "paper"}
    line = {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": {"dash": "dash"}}
    text = {
        "text": f"rate {rate:g}",
        "x": x,
        "xanchor": "left",
        "y": 0.44 + 0.05 * row,
        "yanchor": "bottom",
        "showarrow": False,
    }
    return place | line, place | text


@dataclass(frozen=True, slots=True)
class Compared:
    """One run among others in a figure: its label, its points, and its steps per epoch.

    `number` is what it is called in the legend of many runs, e.g. "#5".
    """

    label: str
    history: History
    steps_per_epoch: float
    number: str = ""


def comparison_figure(runs: Sequence[Compared], view: View | None = None) -> Figure:
    """Test accuracy and training loss of up to `MAX_COMPARED` runs; colour, then dash, tells them.

    With other batch sizes, equal epochs are not equal steps: the view says what is common. The more
    runs, the fewer points each, so that a comparison costs the same to send and to draw; the legend
    of more than `NAMED` has their numbers only, and pointing at a curve says the name.
    """
    view = view or View()
    runs = runs[:MAX_COMPARED]
    drawn = [_compared(runs, number, view) for number in range(len(runs))]
    end = max((one.end for one in drawn), default=0.0)
    layout = _layout(view, *(run.history.train_loss for run in runs))
    layout["yaxis"]["title"] = {"text": "test accuracy"}
    layout["yaxis2"]["title"] = {"text": "training loss"}
    layout["hovermode"] = "closest"
    layout["hoverlabel"] = {"namelength": -1}
    layout |= _best_of(runs)
    layout["uirevision"] = " ".join(run.label for run in runs)
    layout["xaxis"]["uirevision"] += f" {layout['uirevision']}"
    layout["yaxis2"]["uirevision"] += f" {layout['uirevision']}"
    curves = [trace for one in drawn for trace in one.curves]
    rings = [ring for one in drawn for ring in one.rings]  # above all curves
    return {"data": curves + rings, "layout": spanned(layout, end)}


class _Drawn(NamedTuple):
    """One of the compared runs: its curves, the ring round its best point, where they end."""

    curves: list[dict[str, Any]]
    rings: list[dict[str, Any]]
    end: float


def _compared(runs: Sequence[Compared], number: int, view: View) -> _Drawn:
    run, history = runs[number], runs[number].history
    many = len(runs) > NAMED
    limit = min(MAX_POINTS, COMPARED_POINTS // len(runs) // (2 if view.smoothing else 1))
    estimates = min(MAX_ESTIMATES, COMPARED_TESTS // len(runs))
    sizes = (_SMALL / 2, _LARGE / 2) if many else (_SMALL, _LARGE)
    color, dash = theme.RUNS[number % len(theme.RUNS)], DASHES[number // len(theme.RUNS)]
    x = places(view.unit, history.step, history.seconds, run.steps_per_epoch)
    tests = _tests(history, view.unit, run.steps_per_epoch, estimates, sizes)
    # A name is anybody's text: Plotly fills in a "%{y}" that stands in a template, and in the
    # name of a trace with `meta`; in the name of one without, which a hover shows, it stays.
    common: dict[str, Any] = {"name": run.label, "legendgroup": str(number)}
    place = _UNITS[view.unit].place
    if many:  # what `%{meta}` stands for is not filled in once more
        common |= {"name": run.number, "meta": run.label}
        place += "<extra>%{meta}</extra>"
    accuracy = {
        **tests,
        **common,
        "line": {"color": color, "width": 2, "dash": dash},
        "marker": {**tests["marker"], "color": color},
        "hovertemplate": f"test accuracy %{{y:.1%}} %{{text}}, {place}",
    }
    loss = {
        **common,
        "showlegend": False,
        "yaxis": "y2",
        "line": {"color": color, "width": 1.5, "dash": dash},
        "hovertemplate": f"training loss %{{y:.3f}}, {place}",
    }
    rings = _best_mark(history, view.unit, run.steps_per_epoch, color)
    return _Drawn(
        [accuracy, *curve(x, history.train_loss, view, limit, loss)],
        [ring | {"legendgroup": str(number)} for ring in rings],
        right_edge(view.unit, None, run.steps_per_epoch, x, tests["x"]),
    )


def _best_of(runs: Sequence[Compared]) -> dict[str, Any]:
    """For the layout: which run had the best test accuracy; nothing before the first test."""
    bests = [
        (float(run.history.test_accuracy[best]), run.label)
        for run in runs
        if (best := run.history.best()) is not None
    ]
    if not bests:
        return {}
    accuracy, label = max(bests, key=lambda found: found[0])
    note = {
        "text": f"best {accuracy:.1%}: {_short(label)}",
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "yref": "y",
        "y": 0,
        "yanchor": "bottom",
        "showarrow": False,
    }
    return {"annotations": [note]}


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_NAME else f"{label[: LONGEST_NAME - 1]}…"


def smoothed(column: Floats, weight: float) -> Floats:
    """An exponential moving mean without the bias of its start; a gap (NaN) stays one.

    Each point's weight is `weight` times that of the next: y_t = Σ weight^i x_(t-i) / Σ weight^i,
    over the points that are there.
    """
    mean = pd.Series(column).ewm(alpha=1 - weight, adjust=True, ignore_na=True).mean().to_numpy()
    return np.where(np.isfinite(column), mean, np.nan)


def thinned(x: Floats, y: Floats, *, limit: int = MAX_POINTS) -> tuple[Floats, Floats]:
    """A curve of at most `limit` points, and one more for each gap, that keeps its extremes."""
    if len(y) <= limit:
        return x, y
    kept = extremes(y, limit)
    return x[kept], y[kept]


def extremes(y: Floats, limit: int) -> NDArray[np.intp]:
    """Which points of a long curve to keep: the least and the greatest of each 2^k neighbours.

    The first and the last point stay as well, so that a curve begins and ends where its run does.
    Where values are missing (NaN: a loss that was not finite) between two that are kept, one NaN is
    kept, too: a gap is never papered over.
    """
    length = len(y)
    if length <= limit:
        return np.arange(length)
    size = 2
    while 2 * math.ceil(length / size) + 2 > max(limit, 4):
        size *= 2
    groups = math.ceil(length / size)
    missing = np.isnan(y)
    padded = np.full(groups * size, np.nan)
    padded[:length] = y
    grouped, absent = padded.reshape(groups, size), np.isnan(padded).reshape(groups, size)
    starts = np.arange(groups) * size
    least = starts + np.where(absent, np.inf, grouped).argmin(axis=1)
    most = starts + np.where(absent, -np.inf, grouped).argmax(axis=1)
    kept = np.unique(np.concatenate([[0], least, most, [length - 1]]))
    before = np.concatenate([[0], np.cumsum(missing)])  # how many are missing before a point
    gaps = np.flatnonzero(missing)
    lost = (before[kept[1:]] > before[kept[:-1] + 1]) & ~missing[kept[1:]] & ~missing[kept[:-1]]
    return np.unique(np.concatenate([kept, gaps[before[kept[:-1][lost]]]]))


def right_edge(unit: Unit, end: float | None, steps_per_epoch: float, *columns: Floats) -> float:
    """Where the horizontal axis ends: after `end` epochs, else where the curves do."""
    if end is None or unit == "seconds":
        return max((float(column[-1]) for column in columns if len(column)), default=1.0)
    return end if unit == "epochs" else end * steps_per_epoch


def spanned(layout: dict[str, Any], end: float) -> dict[str, Any]:
    """A layout whose horizontal axis goes from 0 to `end`, and further with the next figure's.

    When a `range` changes Plotly gives up a person's zoom; bounds of its own choice it keeps apart.
    It makes none of curves that have no points or are hidden: there, an unseen line shows the ends.
    """
    edge = (end or 1.0) * 1.01
    allowed = {"autorange": True, "autorangeoptions": {"minallowed": 0, "maxallowed": edge}}
    ends = {"type": "line", "x0": 0, "x1": edge, "yref": "paper", "y0": 0, "y1": 0, "opacity": 0}
    return layout | {
        "xaxis": layout["xaxis"] | allowed,
        "shapes": [*layout.get("shapes", ()), ends],
    }


def _tests(
    history: History,
    unit: Unit,
    steps_per_epoch: float,
    limit: int,
    sizes: tuple[float, float] = (_SMALL, _LARGE),
) -> dict[str, Any]:
    """The trace of test accuracy without its colours and name; whole tests only, if too many.

    Args:
        sizes: diameters of an estimate's point and of a whole test's.
    """
    whole = history.test_whole
    # Where an estimate and the whole test set meet, the latter says more.
    keep = whole | ~np.isin(history.test_step, history.test_step[whole])
    if len(whole) > limit:
        keep = whole.copy()
    chosen = np.flatnonzero(keep)
    chosen = chosen[extremes(history.test_accuracy[chosen], limit)]
    examples = history.test_examples[chosen]
    x = places(unit, history.test_step, history.test_seconds, steps_per_epoch)
    whole = whole[chosen]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": _sent(x[chosen]),
        "y": _sent(history.test_accuracy[chosen]),
        "text": [_how(count, is_whole) for count, is_whole in zip(examples, whole, strict=True)],
        "marker": {
            "size": [sizes[int(is_whole)] for is_whole in whole],
            "opacity": 1,
            "line": {"width": 0},
        },
    }


def _how(examples: float, whole: bool) -> str:
    if math.isnan(examples):
        return "" if whole else "(estimate)"
    images = f"{examples:,.0f} test images"
    return f"(all {images})" if whole else f"(estimate on {images})"


def log_axis(*columns: Floats) -> dict[str, Any]:
    """Plotly's settings for a logarithmic axis: labels at 1 to 9, at 1, 2 and 5, or at decades."""
    positive = [column[column > 0] for column in columns]
    ends = [(part.min(), part.max()) for part in positive if len(part)]
    ratio = max(high for _, high in ends) / min(low for low, _ in ends) if ends else 1
    if ratio > 1000:
        return {"type": "log", "tickformat": "~g", "nticks": 5}
    return {"type": "log", "tickformat": "~g", "dtick": "D1" if ratio < 5 else "D2"}


def _layout(view: View, *losses: Floats) -> dict[str, Any]:
    """Accuracy above, loss below; how far they reach is for `spanned`."""
    loss = log_axis(*losses) if view.log_loss else {"type": "linear", "nticks": 5}
    return {
        "xaxis": view.axis() | {"anchor": "y2"},
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
            "uirevision": loss["type"],
            **loss,
        },
        "margin": {"l": 60, "r": 12, "t": 36, "b": 44},
    }


def _sent(column: Floats) -> NDArray[np.float32]:
    """Seven digits are more than a curve shows, at half the size."""
    return column.astype(np.float32)
