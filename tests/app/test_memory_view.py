"""The view "Memory and time" without a browser: its terms, charts, comparison and controls."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, summarize
from nin_core import measurements as processes
from nin_core.ledger import (
    OPTIMIZERS,
    backward_work,
    inference_ledger,
    step_peak,
    training_ledger,
)
from nin_core.machine import Machine, Memory
from nin_core.measure import LayerTimes, MeasureRequest, MeasureResult
from tests.conftest import dashboard, head_figure
from ui import memory_figures as figures
from ui import numbers
from ui.laboratory import memory

pytestmark = pytest.mark.usefixtures("store")

SLIM, FULL = PRESETS["nin-slim-128"], PRESETS["nin-224"]
ROOF = Machine("cpu", "2.0", 1, 1e11, 2e10)


def page(**query: str) -> AppTest:
    app = dashboard("architecture", view="memory", **query).run()
    assert not app.exception, app.exception
    return app


def text(app: AppTest) -> str:
    return " ".join(element.value for element in [*app.main.markdown, *app.main.caption])


def table(app: AppTest, label: str) -> list[list[str]]:
    html = next(
        h.proto.body for h in app.main.get("html") if f'aria-label="{label}"' in h.proto.body
    )
    return cells(html)


def cells(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [
        [
            unescape(re.sub("<.*?>", "", cell))
            for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)
        ]
        for row in rows
    ]


def chart(app: AppTest, key: str) -> dict[str, Any]:
    for element in app.get("bidi_component"):
        if key in element.proto.id:
            return json.loads(element.proto.json)["figure"]
    raise AssertionError(f"no chart {key}")


def slider(app: AppTest) -> Any:
    return app.main.select_slider(key="memory:batch")


def result_of(request: MeasureRequest, **changes: Any) -> MeasureResult:
    """As if it had been measured: half of the roof in every layer."""
    network = summarize(request.network, request.batch_size)
    layers = tuple(LayerTimes(row.name, 0.001, 0.002) for row in network.layers)
    values = {
        "saved_bytes": network.saved_bytes,
        "peak_bytes": step_peak(network, request.optimizer).bytes + 2**20,
        "peak_method": "a guess",
        "inference_bytes": inference_ledger(network).total(request.batch_size),
        "forward": 0.02,
        "backward": 0.04,
        "update": 0.001,
        "step": 0.061,
        "timed_steps": 5,
        "warmup_steps": 7,
        "layers": layers,
        "hooked_step": 0.07,
        "threads": 1,
        "load": 0.2,
        "machine": ROOF,
    }
    return MeasureResult(**(values | changes))


class Pretended(processes.Measurement):
    """A measurement without a process."""

    def __init__(self, request: MeasureRequest) -> None:
        self.request = request
        self.state = "running"
        self.stage, self.done = "Warming up", 0.2
        self.result = None
        self.problem = ""

    def look(self) -> processes.State:
        return self.state

    def cancel(self) -> None:
        self.state = "cancelled"

    def end(self, **changes: Any) -> None:
        self.result = result_of(self.request, **changes)
        self.state = "done"


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Measurement", Pretended)


# --- the ledger -------------------------------------------------------------------------------


def test_exercise_3_in_one_glance() -> None:
    """Bars and table hold the ledgers' terms, and the totals are the head's."""
    app = page(net="nin-224")
    network = summarize(FULL, 64)
    training, inference = training_ledger(network), inference_ledger(network)
    head = head_figure(app, "Training memory")
    rows = {row[0]: row for row in table(app, "Memory by term")}
    assert rows["Total"][1:3] == [numbers.size(inference.total(64)), head.value]
    for term in training.terms:
        assert rows[term.title][2] == numbers.size(term.bytes(64))
        assert rows[term.title][3] == term.sentence
    bars = chart(app, "memory:bars")["data"]
    added = [sum(bar["x"][row] or 0 for bar in bars) for row in (0, 1)]
    assert added == pytest.approx([inference.total(64) / 2**20, training.total(64) / 2**20])
    assert numbers.size(step_peak(network).bytes) in text(app)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizer_decides_its_state(optimizer: str) -> None:
    app = page(net="nin-224")
    app.main.selectbox(key="memory:optimizer").set_value(optimizer).run()
    rows = {row[0]: row for row in table(app, "Memory by term")}
    state = OPTIMIZERS[optimizer].slots * 4 * 1_992_166  # type: ignore[index]
    assert rows["Optimizer state"][2] == (numbers.size(state) if state else "–")


def test_slider_and_field_of_the_batch_stay_in_step() -> None:
    app = page(net="nin-224")
    field = next(n for n in app.main.number_input if n.label == "Batch size")
    assert (field.value, slider(app).value) == (64, 64)
    slider(app).set_value(16).run()
    assert not app.exception
    field = next(n for n in app.main.number_input if n.label == "Batch size")
    assert (field.value, slider(app).value) == (16, 16)
    assert not app.main.warning
    total = training_ledger(summarize(FULL, 16)).total(16)
    assert numbers.size(total) in text(app)
    field.set_value(100).run()
    assert slider(app).value == 64  # the power of two below
    assert "Answering for 100 images" in text(app)
    slider(app).set_value(128).run()
    field = next(n for n in app.main.number_input if n.label == "Batch size")
    assert field.value == 128


def test_the_largest_batch_is_said_and_lies_on_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory", lambda: Memory(8 * 2**30, 5 * 2**30))
    app = page(net="nin-224")
    training = training_ledger(summarize(FULL))
    fits = training.largest_batch(4 * 2**30)
    assert f"At most **{fits:,}** images fit into the 4 GiB" in text(app)
    figure = chart(app, "memory:scaling")
    line = next(t for t in figure["data"] if t["name"] == "free memory")
    assert line["y"] == [4 * 2**30] * 2
    app.main.toggle(key="memory:log").set_value(False).run()
    linear = chart(app, "memory:scaling")
    assert linear["layout"]["xaxis"]["range"][1] >= fits
    monkeypatch.setattr(memory, "memory", lambda: Memory(2**30, 2**30))
    assert "Not even one image fits" in text(page(net="nin-224"))
    monkeypatch.setattr(memory, "memory", lambda: None)
    assert "does not tell" in text(page(net="nin-224"))


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_stack_is_the_total_at_every_batch(log: bool, optimizer: Any) -> None:
    training = training_ledger(summarize(SLIM, 5), optimizer)
    figure, _ = figures.scaling_figure(training, 5, 2**34, log=log)
    stacked = [t for t in figure["data"] if t.get("stackgroup")]
    batches = stacked[0]["x"]
    assert batches == sorted(set(batches))
    for index, batch in enumerate(batches):
        assert sum(t["y"][index] for t in stacked) == training.total(batch)
    here = figure["data"][-1]
    assert (here["x"][1], here["y"][1]) == (5, training.total(5))
    ticks = figure["layout"]["yaxis"]
    assert 3 <= len(ticks["tickvals"]) <= 9
    assert ticks["ticktext"] == [numbers.size(tick) for tick in ticks["tickvals"]]


def test_terms_that_stand_in_one_bar_have_different_colours() -> None:
    network = summarize(SLIM)
    for ledger in (training_ledger(network), inference_ledger(network)):
        colors = [figures.COLORS[term.name] for term in ledger.terms]
        assert len(set(colors)) == len(colors)


# --- measured ---------------------------------------------------------------------------------


def test_without_a_measurement_the_predictions_stand_alone() -> None:
    app = page(net="nin-slim-128")
    rows = {row[0]: row for row in table(app, "Predicted and measured")}
    network = summarize(SLIM, 64)
    assert rows["Saved activations"][1:4] == [numbers.size(network.saved_bytes), "–", "–"]
    assert rows["Peak of a training step"][1] == numbers.size(step_peak(network).bytes)
    assert rows["Time of a step"][1].startswith("about ")
    assert "another computer's single thread" in rows["Time of a step"][4]
    assert [b.label for b in app.main.button if "Measure" in b.label] == ["Measure now"]


@pytest.mark.usefixtures("pretended")
def test_a_measurement_runs_is_shown_and_remembered() -> None:
    app = page(net="nin-slim-128")
    next(b for b in app.main.button if b.label == "Measure now").click().run()
    running = memory.measurements().running()
    assert running is not None
    assert running.request == MeasureRequest(SLIM, 64)
    app.run()
    assert [b.label for b in app.main.button if b.label in ("Measure now", "Cancel")] == ["Cancel"]
    running.end()  # type: ignore[attr-defined]
    app.run()
    assert not app.exception, app.exception
    rows = {row[0]: row for row in table(app, "Predicted and measured")}
    saved = numbers.size(summarize(SLIM, 64).saved_bytes)
    assert rows["Saved activations"][1:4] == [saved, saved, "none, to the byte"]
    assert rows["Peak of a training step"][3].startswith("+1 MiB (+")
    assert rows["Time of a step"][2] == "61.0 ms"
    assert (
        "100 GFLOP/s in a matrix product, 20 GB/s in a copy" in rows["The least it could take"][4]
    )
    assert "Medians of 5 steps after 7 to warm up, 1 thread" in text(app)
    assert "was busy" not in text(app)
    assert len(table(app, "Time of each layer")) == len(summarize(SLIM).layers) + 2
    assert chart(app, "memory:roofline")["data"][0]["name"] == "this machine's roof"
    # Another batch has not been measured; this one still has.
    slider(app).set_value(32).run()
    assert table(app, "Predicted and measured")[1][2] == "–"
    slider(app).set_value(64).run()
    assert table(app, "Predicted and measured")[1][2] == saved


@pytest.mark.usefixtures("pretended")
def test_a_busy_computer_a_cancelled_and_a_failed_measurement_are_said() -> None:
    app = page(net="nin-slim-128")
    next(b for b in app.main.button if b.label == "Measure now").click().run()
    app.run()
    next(b for b in app.main.button if b.label == "Cancel").click().run()
    app.run()
    assert "was cancelled" in app.main.info[0].value
    next(b for b in app.main.button if b.label == "Measure now").click().run()
    running: Any = memory.measurements().running()
    running.end(load=50.0)
    app.run()
    assert "The computer was busy (50.0 processes" in text(app)
    next(b for b in app.main.button if b.label == "Measure again").click().run()
    running = memory.measurements().running()
    running.state, running.problem = "failed", "It broke."
    app.run()
    assert [e.value for e in app.main.error] == ["It broke."]


def test_what_does_not_fit_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nin_core.measure.memory", lambda: Memory(2**31, 2**30 + 10**7))
    app = page(net="nin-slim-128")
    next(b for b in app.main.button if b.label == "Measure now").click().run()
    (error,) = app.main.error
    assert "of memory are free; a batch of" in error.value
    assert memory.measurements().running() is None


def test_batch_norm_with_one_image_is_said_where_it_matters() -> None:
    app = page(net="nin-28")
    slider(app).set_value(1).run()
    assert not app.exception
    assert "Batch norm cannot train on one image; a batch of 2 would work." in text(app)


def test_points_lie_where_work_and_time_put_them() -> None:
    request = MeasureRequest(SLIM, 8)
    network = summarize(SLIM, 8)
    speeds = figures.layer_speeds(network, result_of(request))
    first = next(s for s in speeds if (s.name, s.direction) == ("block1.conv", "backward"))
    work = backward_work(network.layers[0], 8, first=True)
    assert first.flops_per_second == pytest.approx(work.flops / 0.002)
    assert first.share(ROOF) == pytest.approx(ROOF.seconds(*work) / 0.002)
    figure, _ = figures.roofline_figure(speeds, ROOF)
    roof, *points = figure["data"]
    assert roof["y"][-1] == pytest.approx(100)
    assert sum(len(trace["x"]) for trace in points) == 2 * 12  # every convolution, both ways
    assert all(low <= high for low, high in [figure["layout"]["yaxis"]["range"]])
