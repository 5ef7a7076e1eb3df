"""The figure of seed fans: from the points of their runs to what Plotly is given, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nin_core import fans
from nin_core.records import MetricRow
from ui import theme
from ui.components.plot import plain_figure
from ui.curves import History
from ui.fan_figures import MAX_POINTS, FanCurves, _every, fan_figure


def history(*points: tuple[int, float | None, float | None]) -> History:
    """Of (step, training loss, test accuracy)."""
    return History().extended(
        [
            MetricRow("step", 1, step, 0.0, loss, None, None, test, 100, id=number)
            for number, (step, loss, test) in enumerate(points, 1)
        ]
    )


def fan(*histories: History, label: str = "Fast", classes: int = 10) -> FanCurves:
    return FanCurves(label, histories, steps_per_epoch=10, end=2, num_classes=classes)


def traces(figure: dict) -> tuple[dict, ...]:
    return tuple(figure["data"])


def test_the_band_the_runs_and_the_median_of_one_fan() -> None:
    low = history((10, 1.0, None), (20, 0.5, 0.9))
    middle = history((10, 2.0, None), (20, 1.0, 0.5))
    high = history((10, 3.0, None), (20, 2.5, 0.1))
    tests_band, tests, test_median, band, members, middle_line = traces(
        fan_figure([fan(low, middle, high)])
    )
    assert list(band["x"]) == [1, 2, 2, 1]
    assert list(band["y"]) == [1.0, 0.5, 2.5, 3.0]
    assert list(middle_line["x"]) == [1, 2]
    assert list(middle_line["y"]) == [2.0, 1.0]
    assert middle_line["text"] == [
        "training loss 2.000 (1.000 to 3.000, 3 runs)",
        "training loss 1.000 (0.500 to 2.500, 3 runs)",
    ]
    np.testing.assert_array_equal(
        members["y"], [1.0, 0.5, math.nan, 2.0, 1.0, math.nan, 3.0, 2.5, math.nan]
    )
    assert list(tests_band["y"]) == [0.1, 0.9]
    assert list(test_median["y"]) == [0.5]
    assert "markers" in tests["mode"], "a single test is a point, no line shows it"


def test_a_colour_a_fan_and_one_legend_entry_each() -> None:
    figure = fan_figure([fan(history((10, 1.0, 0.5)), label=name) for name in ("one", "two")])
    named = [trace for trace in figure["data"] if trace["showlegend"]]
    assert [trace["name"] for trace in named] == ["one", "two"]
    assert [trace["line"]["color"] for trace in named] == list(theme.RUNS[:2])


@pytest.mark.parametrize("classes", [(10,), (10, 100), (10, 10)])
def test_a_line_for_what_guessing_costs(classes: tuple[int, ...]) -> None:
    figure = fan_figure([fan(label=str(n), classes=c) for n, c in enumerate(classes)])
    heights = [line["y0"] for line in figure["layout"]["shapes"]]
    assert heights == [math.log(number) for number in sorted(set(classes))]


def test_a_diverged_run_and_a_shorter_one_take_nothing_from_the_others() -> None:
    whole = history((10, 1.0, None), (20, 0.5, None))
    diverged = history((10, 2.0, None), (20, None, None))
    short = history((10, 3.0, None))
    *_, band, _, line = traces(fan_figure([fan(whole, diverged, short, History())]))
    assert list(band["y"]) == [1.0, 0.5, 0.5, 3.0]
    assert line["text"][-1].endswith("1 run)")


def test_no_fan_and_no_points_are_a_figure_too() -> None:
    for shown in ([], [fan()], [fan(History(), History())]):
        assert plain_figure(fan_figure(shown))["layout"]["xaxis"]["title"]["text"] == "epoch"


def test_a_long_fan_is_thinned_and_keeps_its_end() -> None:
    points = [(step, 1.0 / step, None) for step in range(1, 5 * MAX_POINTS)]
    *_, line = traces(fan_figure([fan(history(*points), history(*points))]))
    assert len(line["x"]) <= MAX_POINTS + 1
    assert line["x"][-1] == (5 * MAX_POINTS - 1) / 10


def test_a_long_band_keeps_its_extremes() -> None:
    """Where points are left out, the band is as wide as they were."""
    steps = np.arange(1.0, 2 * MAX_POINTS + 2)
    flat, peak = np.ones(len(steps)), np.ones(len(steps))
    peak[100], peak[301] = 5.0, -5.0  # between the points that stay
    band = fans.band([(steps, flat), (steps, peak)])
    few = _every(band)
    assert len(few) <= MAX_POINTS + 1
    assert (few[0].step, few[-1].step) == (band[0].step, band[-1].step)
    assert max(point.highest for point in few) == 5.0
    assert min(point.lowest for point in few) == -5.0
