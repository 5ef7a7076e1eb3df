"""The figure of gradients and dead channels, from rows to what Plotly is given."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nin_core import PRESETS, summarize
from nin_core.records import MetricRow
from nin_core.vitals import watched
from ui.components.plot import plain_figure
from ui.curves import History, View
from ui.vitals_figures import MAX_COLUMNS, MAX_ZEROS, has_zeros, recorded, vitals_figure

CHANNELS = {"block1.conv": 8, "block2.conv": 4}


def row(step: int, first: int, second: int, kind: str = "step") -> MetricRow:
    return MetricRow(
        kind,
        1,
        step,
        step / 10,
        2.0,
        0.1,
        learning_rate=0.05,
        gradient_norm=1 / step if kind == "step" else None,
        update_norm=0.1 if kind == "step" else None,
        dead_channels=json.dumps({"block1.conv": first, "block2.conv": second}),
        id=step,
    )


ROWS = [row(2, 0, 1), row(4, 2, 4), row(4, 3, 4, "epoch"), row(8, 8, 0)]


def figure_of(rows: list[MetricRow], **choices: object) -> dict:
    return vitals_figure(
        History().extended(rows), steps_per_epoch=4, end=2, channels=CHANNELS, view=View(**choices)
    )


def test_norms_and_rate_are_curves_and_dead_channels_a_map_of_shares():
    gradient, update, rate, dead = figure_of(ROWS)["data"]
    assert [trace["name"] for trace in (gradient, update, rate)] == [
        "Gradient norm",
        "Update norm",
        "Learning rate",
    ]
    assert gradient["x"].tolist() == [0.5, 1, 2]
    assert gradient["y"] == pytest.approx([0.5, 0.25, 0.125])
    assert rate["y"] == pytest.approx([0.05] * 3)
    assert dead["y"] == ["block1.conv", "block2.conv"]
    assert dead["x"].tolist() == [0, 0.5, 1, 2]  # edges: from the count before to this one
    # Of two counts after step 4 the later holds.
    assert dead["z"].tolist() == [[0, 0.375, 1], [0.25, 1, 0]]
    assert (dead["zmin"], dead["zmax"]) == (0, 1)


def test_norms_have_a_logarithmic_axis_and_the_first_layer_is_on_top():
    layout = figure_of(ROWS)["layout"]
    assert layout["yaxis"]["type"] == "log"
    assert layout["yaxis3"]["autorange"] == "reversed"
    assert layout["yaxis3"]["categoryarray"] == list(CHANNELS)
    plain_figure(figure_of(ROWS))


@pytest.mark.parametrize("smoothing", [0.0, 0.9])
def test_a_norm_of_zero_is_marked_and_never_smoothed_over(smoothing: float) -> None:
    """What a network whose class maps are all dead records from then on."""
    dead = [replace(row(step, 8, 4), gradient_norm=0.0) for step in (6, 8)]
    data = figure_of([*ROWS[:2], *dead], smoothing=smoothing)["data"]
    named = [trace for trace in data if trace["name"] == "Gradient norm"]
    curve = next(trace for trace in named if trace["mode"] == "lines")
    marks = next(trace for trace in named if trace["mode"] == "markers")
    assert np.isfinite(curve["y"]).tolist() == [True, True, False, False]
    assert marks["x"].tolist() == [1.5, 2]
    assert (marks["y"] < 0.1).all() and (marks["y"] > 0).all()  # below all that is on the axis
    assert marks["hovertemplate"].startswith("0:")


def test_a_run_that_is_dead_from_the_start_has_marks() -> None:
    rows = [replace(row(step, 8, 4), gradient_norm=0.0, update_norm=0.0) for step in (2, 4)]
    marks = [trace for trace in figure_of(rows)["data"] if trace.get("mode") == "markers"]
    assert [trace["y"].tolist() for trace in marks] == [[1, 1], [1, 1]]
    plain_figure(figure_of(rows))
    assert has_zeros(History().extended(rows)) and not has_zeros(History().extended(ROWS))


def test_many_norms_of_zero_are_a_few_marks() -> None:
    rows = [replace(row(step, 8, 4), gradient_norm=0.0) for step in range(1, 1000)]
    (marks,) = (trace for trace in figure_of(rows)["data"] if trace.get("mode") == "markers")
    assert MAX_ZEROS / 2 <= len(marks["x"]) <= MAX_ZEROS


def test_unit_and_smoothing_hold_for_this_picture_too():
    data = figure_of(ROWS, unit="seconds", smoothing=0.5)["data"]
    names = [trace["name"] for trace in data]
    assert names[3:] == ["Gradient norm", "Update norm", "Dead channels"]  # recorded, behind
    assert data[0]["y"][1] == pytest.approx((0.25 + 0.5 * 0.5) / 1.5)
    assert data[0]["x"] == pytest.approx([0.2, 0.4, 0.8])
    assert data[-1]["x"] == pytest.approx([0, 0.2, 0.4, 0.8])


def test_a_long_run_keeps_the_moment_at_which_all_was_dead():
    steps = 10 * MAX_COLUMNS
    rows = [row(n, 8 if n == 777 else 0, 0) for n in range(1, steps + 1)]
    dead = figure_of(rows, unit="steps")["data"][-1]
    assert dead["z"].shape == (2, len(dead["x"]) - 1)
    assert dead["z"].shape[1] <= MAX_COLUMNS
    (column,) = np.flatnonzero(dead["z"][0] == 1)
    assert dead["x"][column] < 777 <= dead["x"][column + 1]
    assert dead["x"][-1] == steps


def test_older_runs_recorded_nothing():
    older = History().extended([MetricRow("step", 1, 2, 0.1, 2.0, 0.1, id=1)])
    assert not recorded(older)
    assert recorded(History().extended(ROWS[:1]))
    figure = vitals_figure(older, steps_per_epoch=4, end=2, channels=CHANNELS)
    assert [trace["name"] for trace in figure["data"]][3:] == []
    plain_figure(figure)
    plain_figure(vitals_figure(History(), steps_per_epoch=4, end=2, channels=CHANNELS))


@pytest.mark.parametrize("name", ["nin-28", "nin-28-best"])
def test_counted_layers_are_called_as_in_the_table(name):
    import torch

    from nin_core.model import build_nin

    network = PRESETS[name]
    model = build_nin(network).eval()
    with watched(model) as dead, torch.no_grad():
        model(torch.zeros(1, network.in_channels, network.image_size, network.image_size))
    channels = {layer.name: layer.output_shape[0] for layer in summarize(network).layers}
    counts = dead.counts()
    assert counts
    assert all(count <= channels[layer] for layer, count in counts.items())
