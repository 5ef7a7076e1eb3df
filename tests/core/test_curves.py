"""The figures of runs: from metric rows and counts to what Plotly is given, worked out by hand."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from nin_core.evaluation import Mistake
from nin_core.records import MetricRow
from ui import theme
from ui.components.plot import plain_figure, split_long_traces
from ui.curves import (
    COMPARED_POINTS,
    MAX_COMPARED,
    MAX_ESTIMATES,
    MAX_POINTS,
    NAMED,
    Compared,
    History,
    View,
    comparison_figure,
    smoothed,
    thinned,
    training_figure,
)
from ui.results import (
    Results,
    class_figure,
    class_names,
    confusion_figure,
    mistakes_html,
    sprite_png,
)


def step(number: int, **values: object) -> MetricRow:
    return MetricRow("step", epoch=1, step=number, seconds=0.0, id=number, **values)


# Two epochs of 4 steps: a point every 2, an estimate at 2, all of the test set after each epoch.
ROWS = [
    step(2, train_loss=2.0, train_accuracy=0.2, test_accuracy=0.25, test_examples=1000),
    step(
        4,
        train_loss=1.5,
        train_accuracy=0.4,
        test_accuracy=0.45,
        test_examples=1000,
        gradient_norm=0.5,
        dead_channels='{"block1.conv": 1, "block2.conv": 4}',
    ),
    MetricRow("epoch", 1, 4, 0.0, 1.75, 0.3, None, 0.5, 10_000, id=5),
    step(6, train_loss=None, train_accuracy=0.5),
    step(8, train_loss=1.0, train_accuracy=0.6),
    MetricRow("epoch", 2, 8, 0.0, 1.1, 0.55, None, 0.7, 10_000, id=9),
]


@pytest.fixture
def history() -> History:
    return History().extended(ROWS)


def figure_of(history: History, end: float | None = 2) -> dict:
    return training_figure(history, steps_per_epoch=4, end=end, num_classes=10)


def ends_of(layout: dict) -> tuple[float, float]:
    """Where the horizontal axis begins and ends; Plotly must find something there to agree."""
    axis, line = layout["xaxis"], layout["shapes"][-1]
    assert axis["autorange"] is True and "range" not in axis
    ends = axis["autorangeoptions"]["minallowed"], axis["autorangeoptions"]["maxallowed"]
    assert (line["x0"], line["x1"], line["opacity"]) == (*ends, 0)
    return ends


def traces(figure: dict) -> dict[str, dict]:
    return {trace["name"]: trace for trace in figure["data"]}


# --- histories --------------------------------------------------------------------------------


def test_rows_in_parts_make_the_history_of_all_rows(history):
    in_parts = History()
    for row in ROWS:
        in_parts = in_parts.extended([row])
    for name in History.__slots__:
        part, whole = getattr(in_parts, name), getattr(history, name)
        if isinstance(whole, np.ndarray):
            np.testing.assert_array_equal(part, whole)
        else:
            assert part == whole
    assert in_parts.last_id == 9
    assert in_parts.extended([]) is in_parts


def test_means_over_an_epoch_are_no_points_of_the_training_curves(history):
    assert history.step.tolist() == [2, 4, 6, 8]
    assert history.train_accuracy.tolist() == [0.2, 0.4, 0.5, 0.6]


def test_the_test_after_the_end_is_added_once_and_only_if_it_says_more(history):
    assert history.tested(8, 0.7, 10_000, whole=True, seconds=4) is history
    assert history.tested(8, 0.7, 500, whole=False, seconds=4) is history
    stopped = History().extended(ROWS[:4])
    ended = stopped.tested(6, 0.55, 2500, whole=False, seconds=3)
    assert ended.test_step.tolist() == [2, 4, 4, 6]
    assert ended.test_whole.tolist() == [False, False, True, False]
    assert ended.tested(6, 0.55, 2500, whole=False, seconds=3) is ended


# --- the open run -----------------------------------------------------------------------------


def test_the_three_curves_over_epochs(history):
    curves = traces(figure_of(history))
    assert list(curves) == ["Training accuracy", "Test accuracy", "Training loss", "Best"]
    assert curves["Training accuracy"]["x"].tolist() == [0.5, 1, 1.5, 2]
    assert curves["Training accuracy"]["y"] == pytest.approx([0.2, 0.4, 0.5, 0.6])
    loss = curves["Training loss"]
    assert loss["yaxis"] == "y2"
    assert loss["y"].tolist()[:2] == [2.0, 1.5]
    assert math.isnan(loss["y"][2])  # a loss that was not finite is a gap, not a bridge
    colors = [trace["line"]["color"] for trace in figure_of(history)["data"][:3]]
    assert colors == [theme.TRAIN_ACCURACY, theme.TEST_ACCURACY, theme.TRAIN_LOSS]


def test_estimates_are_small_and_said_to_be_estimates(history):
    tests = traces(figure_of(history))["Test accuracy"]
    assert tests["x"].tolist() == [0.5, 1, 2]  # the estimate at the end of epoch 1 gives way
    assert tests["y"] == pytest.approx([0.25, 0.5, 0.7])
    assert tests["text"] == [
        "(estimate on 1,000 test images)",
        "(all 10,000 test images)",
        "(all 10,000 test images)",
    ]
    small, large, _ = tests["marker"]["size"]
    assert small < large


def test_accuracy_and_loss_have_axes_of_their_own(history):
    layout = figure_of(history)["layout"]
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1]
    assert layout["yaxis"]["range"][0] == 0
    assert layout["yaxis"]["range"][1] >= 1
    low, high = ends_of(layout)
    assert (low, 2 < high < 2.1) == (0, True)
    assert layout["shapes"][0]["y0"] == pytest.approx(math.log(10))
    assert layout["annotations"][0]["text"] == "guessing: ln 10 = 2.303"


def test_the_words_at_the_loss_of_guessing_do_not_lie_on_the_axis(history):
    def anchor(highest: float) -> str:
        high = History().extended([step(1, train_loss=highest), step(2, train_loss=None)])
        return figure_of(high)["layout"]["annotations"][0]["yanchor"]

    assert (anchor(3.0), anchor(100.0)) == ("top", "bottom")
    assert figure_of(History())["layout"]["annotations"][0]["yanchor"] == "top"


def test_a_run_that_ended_early_fills_its_picture():
    layout = figure_of(History().extended(ROWS[:2]), end=None)["layout"]
    assert 1 < ends_of(layout)[1] < 1.1


def test_a_run_without_points_has_axes():
    figure = plain_figure(figure_of(History()))
    assert all(trace["x"] == [] for trace in figure["data"])
    assert ends_of(figure["layout"])[1] > 0


def test_figures_can_be_sent(history):
    plain_figure(figure_of(history))
    plain_figure(comparison_figure([Compared("#1 a", history, 4)]))


# --- long runs --------------------------------------------------------------------------------


def steps_to(length: int) -> np.ndarray:
    return np.arange(float(length))


def test_short_curves_are_not_thinned():
    column = steps_to(10)
    assert thinned(column, column, limit=10)[1] is column


@pytest.mark.parametrize("length", [11, 100, 257, 4096, 10_000])
def test_every_peak_survives_in_its_place(length):
    y = np.random.default_rng(length).normal(size=length)
    x = steps_to(length)
    seen, kept = thinned(x, y, limit=100 if length > 100 else 10)
    assert len(kept) <= (100 if length > 100 else 10)
    assert (np.diff(seen) > 0).all()
    assert kept.tolist() == y[seen.astype(int)].tolist()
    assert (seen[0], seen[-1]) == (0, length - 1)
    size = 2
    while 2 * math.ceil(length / size) + 2 > (100 if length > 100 else 10):
        size *= 2
    for start in range(0, length, size):
        group, drawn = y[start : start + size], kept[(seen >= start) & (seen < start + size)]
        assert (drawn.min(), drawn.max()) == (group.min(), group.max())


def test_a_gap_is_never_bridged():
    random = np.random.default_rng(1)
    for _ in range(50):
        y = random.normal(size=600)
        for start in random.integers(0, 600, size=4):
            y[start : start + random.integers(1, 90)] = np.nan
        seen, kept = thinned(steps_to(600), y, limit=40)
        for left, right in zip(seen[:-1].astype(int), seen[1:].astype(int), strict=True):
            if np.isfinite(y[left]) and np.isfinite(y[right]):
                assert np.isfinite(y[left : right + 1]).all()
        assert np.nanmax(kept) == np.nanmax(y)
        assert np.nanmin(kept) == np.nanmin(y)


def test_a_curve_of_nothing_but_gaps_stays_one():
    _, kept = thinned(steps_to(100), np.full(100, np.nan), limit=10)
    assert np.isnan(kept).all()


def test_what_was_drawn_stays_until_the_next_doubling():
    column = np.random.default_rng(0).normal(size=80)
    earlier, _ = thinned(steps_to(60), column[:60], limit=44)
    later, _ = thinned(steps_to(80), column, limit=44)
    same = earlier[earlier < 56]  # the last group of four was not full
    assert later[: len(same)].tolist() == same.tolist()


def test_a_long_run_is_sent_in_parcels_that_repeat():
    rows = [step(n, train_loss=1 / n, train_accuracy=0.5) for n in range(1, 20_001)]
    history = History().extended(rows)
    curves = traces(figure_of(history))
    assert len(curves["Training loss"]["x"]) <= MAX_POINTS
    tails, blocks = split_long_traces(plain_figure(figure_of(history))["data"])
    assert blocks  # of training accuracy and loss: their points are all but the tail in parcels
    assert len(tails) == 3


def test_a_run_of_very_many_epochs_shows_whole_tests_only():
    rows = []
    for epoch in range(1, MAX_ESTIMATES + 1):
        rows.append(step(epoch * 10 - 5, test_accuracy=0.4, test_examples=1000))
        rows.append(MetricRow("epoch", epoch, epoch * 10, 0.0, test_accuracy=0.5, id=epoch))
    tests = traces(figure_of(History().extended(rows)))["Test accuracy"]
    assert len(tests["x"]) == MAX_ESTIMATES
    assert set(tests["y"].tolist()) == {0.5}


# --- comparisons ------------------------------------------------------------------------------


def test_a_comparison_has_a_colour_a_run_and_two_curves_each(history):
    figure = comparison_figure([Compared("#1 a", history, 4), Compared("#2 b", history, 8)])
    data, rings = figure["data"][:4], figure["data"][4:]
    assert [trace["name"] for trace in data] == ["#1 a", "#1 a", "#2 b", "#2 b"]
    assert [trace.get("showlegend", True) for trace in data] == [True, False] * 2
    assert [ring["legendgroup"] for ring in rings] == [
        data[0]["legendgroup"],
        data[2]["legendgroup"],
    ]
    colors = [trace["line"]["color"] for trace in data]
    assert colors == [theme.RUNS[0], theme.RUNS[0], theme.RUNS[1], theme.RUNS[1]]
    assert [trace["x"][-1] for trace in data] == [2, 2, 1, 1]
    assert ends_of(figure["layout"])[1] >= 2


def test_another_set_of_runs_starts_with_a_view_of_its_own(history):
    one = comparison_figure([Compared("#1 a", history, 4)])
    two = comparison_figure([Compared("#1 a", history, 4), Compared("#2 b", history, 4)])
    assert one["layout"]["uirevision"] != two["layout"]["uirevision"]


def test_twenty_runs_differ_in_colour_or_dash_and_cost_what_few_do(history):
    rows = [step(n, train_loss=1 / n, train_accuracy=0.5) for n in range(1, 10_001)]
    long = History().extended(rows)
    for view in (View(), View(smoothing=0.9)):
        runs = [Compared(f"#{n} a", long, 4, f"#{n}") for n in range(MAX_COMPARED + 3)]
        data = comparison_figure(runs, view)["data"]
        looks = {(t["line"]["color"], t["line"]["dash"]) for t in data}
        assert len(looks) == MAX_COMPARED == len({trace["name"] for trace in data})
        assert sum(len(trace["x"]) for trace in data) <= COMPARED_POINTS


def test_a_name_is_not_taken_for_a_template(history):
    data = comparison_figure([Compared("#1 %{y}", history, 4)])["data"]
    for trace in data:
        assert "#1" not in trace.get("hovertemplate", "")
        assert "meta" not in trace  # with it, names would be templates
    assert [trace["name"] for trace in data] == ["#1 %{y}", "#1 %{y}", "Best"]


def test_the_legend_of_many_runs_has_their_numbers_and_a_curve_says_the_name(history):
    runs = [Compared(f"#{n} %{{y}}", history, 4, f"#{n}") for n in range(NAMED + 1)]
    data = [t for t in comparison_figure(runs)["data"] if t.get("hoverinfo") != "skip"]
    assert [t["name"] for t in data[::2]] == [run.number for run in runs]
    assert [t["meta"] for t in data[1::2]] == [run.label for run in runs]
    assert all(t["hovertemplate"].endswith("<extra>%{meta}</extra>") for t in data)
    few = comparison_figure(runs[:NAMED])["data"]
    assert [t["name"] for t in few[: 2 * NAMED : 2]] == [run.label for run in runs[:NAMED]]


def test_the_best_of_all_runs_is_named_with_its_value(history):
    worse = History().extended(ROWS[:3])
    figure = comparison_figure([Compared("#1", worse, 4), Compared("#2" + 40 * "x", history, 4)])
    assert [ring["y"] for ring in figure["data"][4:]] == [[0.5], [0.7]]
    (text,) = figure["layout"]["annotations"]
    assert text["text"] == "best 70.0%: #2" + 29 * "x" + "…"


# --- how they are looked at -------------------------------------------------------------------


def viewed(history: History, **choices: object) -> dict:
    return training_figure(history, steps_per_epoch=4, end=2, num_classes=10, view=View(**choices))


def slowly_smoothed(values: list[float], weight: float) -> list[float]:
    """Each mean anew from its definition."""
    means = []
    for end in range(1, len(values) + 1):
        there = [value for value in values[:end] if not math.isnan(value)]
        weights = [weight**age for age in reversed(range(len(there)))]
        total = sum(w * v for w, v in zip(weights, there, strict=True))
        means.append(math.nan if math.isnan(values[end - 1]) else total / sum(weights))
    return means


@pytest.mark.parametrize("weight", [0.1, 0.6, 0.99])
def test_smoothing_is_the_mean_it_says_it_is(weight):
    values = np.random.default_rng(2).normal(size=60)
    values[[0, 7, 8, 30, 59]] = np.nan
    expected = slowly_smoothed(values.tolist(), weight)
    np.testing.assert_allclose(smoothed(values, weight), expected, rtol=1e-9)
    constant = smoothed(np.full(5, 3.0), weight)
    assert constant == pytest.approx([3.0] * 5)  # without bias from the first point on


def test_what_was_recorded_stays_faint_behind_the_smoothed_curves(history):
    data = viewed(history, smoothing=0.5)["data"]
    assert [trace["name"] for trace in data] == [
        "Training accuracy",
        "Test accuracy",
        "Training loss",
        "Training accuracy",
        "Training loss",
        "Best",
    ]
    assert data[3]["y"] == pytest.approx([0.2, 0.4, 0.5, 0.6])
    assert data[0]["y"][1] == pytest.approx((0.4 + 0.5 * 0.2) / 1.5)
    assert data[1]["y"] == pytest.approx([0.25, 0.5, 0.7])  # tests are as they were measured
    for faint in data[3:5]:
        assert faint["opacity"] < 0.5
        assert (faint["zorder"], faint["showlegend"], faint["hoverinfo"]) == (-1, False, "skip")


def test_the_horizontal_axis_counts_in_epochs_steps_or_seconds():
    rows = [MetricRow("step", 1, n, n / 10, 1 / n, 0.5, None, 0.6, 500, id=n) for n in (2, 4, 6)]
    history = History().extended(rows)
    expected = {"epochs": [0.5, 1, 1.5], "steps": [2, 4, 6], "seconds": [0.2, 0.4, 0.6]}
    ends = {"epochs": 2, "steps": 8, "seconds": 0.6}  # nobody knows how long it will take
    for unit, x in expected.items():
        figure = training_figure(
            history,
            steps_per_epoch=4,
            end=2,
            num_classes=10,
            rate_changes=[(4, 0.1)],
            view=View(unit),
        )
        for trace in figure["data"]:
            assert trace["x"] == pytest.approx(x)
        assert ends_of(figure["layout"])[1] == pytest.approx(1.01 * ends[unit])
        assert figure["layout"]["shapes"][1]["x0"] == pytest.approx(x[1])
        compared = comparison_figure([Compared("#1", history, 4)], View(unit))
        assert compared["data"][0]["x"] == pytest.approx(x)


def test_another_unit_or_axis_starts_with_a_view_of_its_own(history):
    def kept(**choices: object) -> tuple[str, str]:
        layout = viewed(history, **choices)["layout"]
        return layout["xaxis"]["uirevision"], layout["yaxis2"]["uirevision"]

    assert kept() == kept(smoothing=0.5)
    assert kept()[0] != kept(unit="steps")[0]
    assert kept()[1] == kept(unit="steps")[1]
    assert kept()[1] != kept(log_loss=True)[1]


def test_a_logarithmic_loss_has_its_line_of_guessing_in_place(history):
    layout = viewed(history, log_loss=True)["layout"]
    assert (layout["yaxis"].get("type"), layout["yaxis2"]["type"]) == (None, "log")
    assert layout["shapes"][0]["y0"] == pytest.approx(math.log(10))
    assert 10 ** layout["annotations"][0]["y"] == pytest.approx(math.log(10))


def test_the_best_test_is_one_on_all_test_images(history):
    best = traces(figure_of(history))["Best"]
    assert (best["x"], best["y"], best["text"]) == ([2.0], [0.7], ["best 70.0%"])
    lucky = history.tested(9, 0.99, 100, whole=False, seconds=3)
    assert traces(figure_of(lucky))["Best"] == best
    assert "Best" not in traces(figure_of(History().extended(ROWS[:2])))


# --- results ----------------------------------------------------------------------------------

COUNTS = np.array([[8, 2, 0], [1, 9, 0], [3, 0, 7]])
NAMES = ("Shirt", "Coat", "Bag")


def test_the_confusion_matrix_names_both_classes_and_the_count():
    right, wrong = confusion_figure(COUNTS, NAMES)["data"]
    assert right["customdata"][2][0] == "true Bag, predicted Shirt: 3<br>30.0% of 10"
    assert right["y"] == list(NAMES)
    assert [right["z"][i][i] for i in range(3)] == [0.8, 0.9, 0.7]
    assert wrong["z"][0][1] == 0.2
    assert math.isnan(wrong["z"][0][0])
    assert math.isnan(right["z"][0][1])
    assert wrong["zmax"] == 0.3  # mistakes have a scale of their own
    assert wrong["text"][0] == ["", "2", ""]
    plain_figure(confusion_figure(COUNTS, NAMES))


def test_a_perfect_network_has_a_confusion_matrix_too():
    figure = confusion_figure(np.diag([5, 0, 2]), NAMES)
    assert figure["data"][1]["zmax"] == 1


def test_classes_beyond_the_data_set_are_named_and_shown_only_if_they_occur():
    names = class_names(NAMES, 40)
    assert names[3] == "class 3"
    counts = np.zeros((40, 40), dtype=int)
    counts[:3, :3] = COUNTS
    counts[0, 30] = 1
    figure = confusion_figure(counts, names)
    assert figure["data"][0]["x"] == ["Shirt", "Coat", "Bag", "class 30"]
    assert class_names(NAMES, 2) == ("Shirt", "Coat")


def test_class_accuracies_are_sorted_and_leave_out_classes_without_images():
    counts = np.vstack([np.hstack([COUNTS, np.zeros((3, 1), int)]), np.zeros((1, 4), int)])
    (bars,) = class_figure(counts, (*NAMES, "Sandal"))["data"]
    assert bars["y"] == ["Bag", "Shirt", "Coat"]  # Plotly draws the last on top
    assert bars["x"] == [0.7, 0.8, 0.9]
    assert bars["text"] == ["70.0%", "80.0%", "90.0%"]
    assert bars["customdata"][0] == "7 of 10"


def test_mistakes_are_one_picture_with_a_caption_each():
    pictures = np.zeros((3, 4, 4), dtype=np.uint8)
    pictures[2] = 255
    mistakes = tuple(Mistake(index, 0, 1, 0.98) for index in range(3))
    html = mistakes_html(Results(10, COUNTS, mistakes, pictures), ("<b>Shirt", "Coat", "Bag"))
    assert html.count("data:image/png") == 1
    assert html.count("role='listitem'") == 3
    assert "<b>&lt;b&gt;Shirt</b> taken for Coat, 98%" in html
    sheet = np.asarray(Image.open(io.BytesIO(sprite_png(pictures, 2))))
    assert sheet.shape == (8, 8)
    assert sheet[4:, :4].min() == 255
    assert sheet[:4].max() == 0


def test_colour_pictures_stay_in_colour():
    pictures = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    pictures[..., 1] = 200
    sheet = np.asarray(Image.open(io.BytesIO(sprite_png(pictures, 1))))
    assert sheet.shape == (2, 2, 3)
    assert sheet[0, 0].tolist() == [0, 200, 0]


def test_a_changed_rate_is_marked_where_it_was_changed() -> None:
    figure = training_figure(
        History(), steps_per_epoch=10, end=2, num_classes=10, rate_changes=[(5, 0.01), (12, 0.002)]
    )
    *marks, ends = figure["layout"]["shapes"]
    assert ends["opacity"] == 0
    lines = [shape for shape in marks if shape["yref"] == "paper"]
    assert [(line["x0"], line["x1"]) for line in lines] == [(0.5, 0.5), (1.2, 1.2)]
    texts = {text["x"]: text["text"] for text in figure["layout"]["annotations"]}
    assert (texts[0.5], texts[1.2]) == ("rate 0.01", "rate 0.002")
