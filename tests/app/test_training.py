"""The Training page without a browser: the panel, every state of a run, the list, and the results.

No worker is started here (the slots are none); runs are brought into their states through the
store, as a worker would. The generated shapes stand in for a data set.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, NiNConfig, admission, jobs, processes, scoring, summarize, tuning
from nin_core.data import Dataset, load_dataset
from nin_core.datasets import DATASETS
from nin_core.evaluation import pack_logits
from nin_core.measure import PROCESS_BYTES
from nin_core.recipes import RECIPES
from nin_core.records import PHASE_MEASURING, Checkpoint, MetricRow, Run, Start
from nin_core.store import RunStore, StoreError
from nin_core.trouble import ALL_ALIVE, DIVERGED, LONGER, LOWER_RATE
from tests.conftest import dashboard
from ui import draft_link, run_heading, run_picture, run_points, runs, start_panel
from ui.architecture import link

NETWORK = PRESETS["nin-slim-128"]
# The bytes of a checkpoint from which a training can go on, as far as its header tells.
_HEADER = json.dumps({"__metadata__": {"training": json.dumps({"step": 30})}}).encode()
A_TRAINING = len(_HEADER).to_bytes(8, "little") + _HEADER
WORKER = processes.this_worker()  # alive for as long as the tests are


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "available_cores", lambda: 0)
    monkeypatch.setattr("nin_core.data.load_dataset", load_once)


@cache
def load_once(name: str) -> Dataset:
    return load_dataset(name)


def open_page(**query: Any) -> AppTest:
    return dashboard("training", **{key: str(value) for key, value in query.items()}).run()


def texts(page: AppTest) -> str:
    """Everything the page says, in one string."""
    kinds = ("markdown", "caption", "subheader", "error", "warning", "info", "success")
    return "\n".join(element.value for kind in kinds for element in getattr(page.main, kind))


def button(page: AppTest, label: str) -> Any:
    found = [button for button in page.main.button if button.label == label]
    assert len(found) == 1, f"{len(found)} buttons {label!r}"
    return found[0]


def labels(page: AppTest) -> list[str]:
    return [button.label for button in page.main.button]


def field(page: AppTest, label: str, which: int | None = None) -> Any:
    """The widget with this label; where there are several, number `which` of them."""
    found = [
        widget
        for kind in (page.number_input, page.selectbox, page.text_input, page.button_group)
        for widget in kind
        if widget.label == label
    ]
    assert which is not None or len(found) == 1, f"{len(found)} fields {label!r}"
    return found[which or 0]


def charts(page: AppTest) -> dict[str, Any]:
    """The figures on the page by their keys."""
    sent = [element.proto.json for element in page.get("bidi_component") if element.proto.json]
    data = [json.loads(message) for message in sent]
    return {item["key"]: item["figure"] for item in data if "figure" in item}


def progress(page: AppTest) -> tuple[str, float]:
    """What the open run's progress bar says, and how far it is, 0 to 100."""
    html = "".join(element.proto.body for element in page.get("html"))
    text, share = re.findall(r"<span>([^<]*)</span><div><i style='width:([\d.]+)%'></i>", html)[0]
    return text, float(share)


def run_of(
    store: RunStore,
    *,
    recipe: str = "fast",
    epochs: int = 1,
    dataset: str = "shapes",
    steps: int = 0,
    name: str | None = None,
    **note: Any,
) -> tuple[int, int]:
    """A running run after so many of its steps, and its attempt."""
    train = RECIPES[recipe].configure(NETWORK, epochs=epochs)
    run_id = store.create(NETWORK, train, dataset, name)
    attempt = store.claim(run_id, WORKER)
    assert attempt is not None
    store.note(run_id, attempt, total_steps=94 * epochs, **note)
    rows = [
        MetricRow("step", 1, n, n / 10, 2 / n, 1 - 1 / n, None, 0.6, 500, 0.05, 4000.0)
        for n in range(2, steps + 1, 2)
    ]
    if rows:
        store.add_metrics(run_id, rows, attempt=attempt)
    return run_id, attempt


def ended(store: RunStore, state: str, **facts: Any) -> int:
    run_id, attempt = run_of(store, steps=facts.pop("steps", 40), name=facts.pop("name", None))
    store.transition(run_id, state, attempt=attempt, **facts)
    store.release(run_id, attempt)
    return run_id


def measured(store: RunStore, images: int = 1000, state: str = "finished") -> int:
    """A run whose logits on the first test images are stored: class 3 is taken for class 4."""
    run_id, attempt = run_of(store, steps=94)
    store.transition(run_id, state, attempt=attempt)
    truth = load_once("shapes").test_labels.numpy()[:images]
    logits = np.zeros((images, 10), dtype=np.float32)
    logits[np.arange(images), np.where(truth == 3, 4, truth)] = 5
    accuracy = float((truth != 3).mean())
    store.save_evaluation(
        run_id, pack_logits(logits), images=images, classes=10, step=94, loss=0.5,
        accuracy=accuracy, attempt=attempt,
    )  # fmt: skip
    store.release(run_id, attempt)
    return run_id


# --- first start ------------------------------------------------------------------------------


def test_an_empty_store_says_what_to_do_and_start_works_at_once(store: RunStore) -> None:
    page = open_page()
    assert not page.exception
    assert not page.error
    assert "No network has been trained here yet" in texts(page)
    assert "nin-slim-128" in texts(page)
    assert charts(page)["curves of no run"]["layout"]["yaxis"]["title"]["text"] == "accuracy"
    assert not page.get("arrow_data_frame")
    button(page, "Start").click().run()
    assert not page.exception
    (run,) = store.list_runs()
    assert (run.state, run.dataset) == ("queued", "fashion-mnist")
    assert run.network == NETWORK
    assert run.train == RECIPES["fast"].configure(NETWORK)
    assert page.query_params["run"] == str(run.id)
    assert any("#1" in heading.value for heading in page.subheader)
    assert button(page, "Stop")


def test_neither_the_panel_nor_a_running_run_loads_torch(store: RunStore) -> None:
    run_of(store, steps=20, phase="training")
    script = (
        "import sys\n"
        "from tests.conftest import dashboard\n"
        "page = dashboard('training').run()\n"
        "assert not page.exception, page.exception\n"
        "assert any(b.label == 'Stop' for b in page.button)\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- the panel --------------------------------------------------------------------------------


def test_what_is_typed_as_start_is_pressed_counts(store: RunStore) -> None:
    page = open_page()
    for label, value in {"Data set": "shapes", "Epochs": 3, "Seed": 7, "Name": "mine"}.items():
        field(page, label + " (optional)" * (label == "Name")).set_value(value)
    button(page, "Start").click().run()
    (run,) = store.list_runs()
    assert (run.name, run.dataset) == ("mine", "shapes")
    assert run.train == RECIPES["fast"].configure(NETWORK, epochs=3, seed=7)


def test_another_recipe_chosen_as_start_is_pressed_has_its_own_numbers(store: RunStore) -> None:
    page = open_page()
    field(page, "Epochs").set_value(3).run()
    field(page, "Recipe").set_value("tutorial")
    field(page, "Batch size").set_value(32)
    button(page, "Start").click().run()
    (run,) = store.list_runs()
    assert run.train == RECIPES["tutorial"].configure(NETWORK, batch_size=32)


def test_what_is_typed_as_start_is_pressed_may_be_refused(store: RunStore) -> None:
    page = open_page()
    field(page, "Epochs").set_value(0)
    button(page, "Start").click().run()
    assert not page.exception
    assert sum("Epochs is 0" in box.value for box in page.error) == 1
    assert field(page, "Epochs").value == 0
    assert not store.list_runs()


@pytest.mark.parametrize(("count", "said"), [(1, "1 run is active"), (2, "2 runs are active")])
def test_how_many_runs_are_before_the_next_is_said(store: RunStore, count: int, said: str) -> None:
    for _ in range(count):
        run_of(store, steps=2)
    assert f"{said}, so this one waits for its turn" in texts(open_page())


def test_a_recipe_brings_its_numbers_and_its_sentence(store: RunStore) -> None:
    page = open_page()
    assert RECIPES["fast"].description in texts(page)
    field(page, "Recipe").set_value("tutorial").run()
    assert RECIPES["tutorial"].description in texts(page)
    assert field(page, "Epochs").value == 10
    assert field(page, "Learning rate").value == 0.1


def test_what_is_changed_is_said_and_can_be_taken_back(store: RunStore) -> None:
    page = open_page()
    usual = RECIPES["fast"].configure(NETWORK)
    assert "Reset" not in labels(page)
    field(page, "Learning rate").set_value(0.5).run()
    assert f"learning rate {usual.learning_rate:g}" in texts(page)
    button(page, "Reset").click().run()
    assert field(page, "Learning rate").value == usual.learning_rate
    assert "Reset" not in labels(page)


def test_what_the_panel_says_is_what_is_started(store: RunStore) -> None:
    page = open_page()
    field(page, "Data set").set_value("shapes").run()
    for label, value in {
        "Epochs": 3,
        "Learning rate": 0.02,
        "Batch size": 32,
        "Training images": 500,
        "Seed": 7,
        "Name (optional)": "mine",
    }.items():
        field(page, label).set_value(value).run()
    assert "48 steps" in texts(page)  # 3 epochs of 16 batches
    button(page, "Start").click().run()
    (run,) = store.list_runs()
    assert (run.name, run.dataset) == ("mine", "shapes")
    assert run.train == RECIPES["fast"].configure(
        NETWORK, epochs=3, learning_rate=0.02, batch_size=32, subset=500, seed=7
    )
    assert field(page, "Name (optional)").value == ""  # the next run is another one
    assert field(page, "Epochs").value == 3


def test_the_panel_survives_another_page(store: RunStore) -> None:
    page = open_page()
    field(page, "Epochs").set_value(4).run()
    page.switch_page("pages/architecture.py").run()
    page.switch_page("pages/training.py").run()
    assert field(page, "Epochs").value == 4


def test_a_network_with_too_few_classes_cannot_be_started(store: RunStore) -> None:
    values = NETWORK.to_dict() | {"num_classes": 4}
    values["blocks"][-1]["channels"] = (10, 10, 4)
    page = open_page(**link.to_query(NiNConfig.from_dict(values), "nin-slim-128"))
    assert button(page, "Start").disabled
    assert "10 would work" in texts(page)


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("Epochs", 0, "so 1 would work"),
        ("Learning rate", 100.0, "10 would work"),
        ("Batch size", 0, "Batch size is 0; it must be between 1 and 4,096, so 1 would work"),
        ("Seed", -1, "so 0 would work"),
    ],
)
def test_a_number_that_cannot_be_is_said_and_nothing_else_is_trained(
    label: str, value: float, said: str
) -> None:
    page = open_page()
    usual = field(page, label).value
    field(page, label).set_value(value).run()
    assert field(page, label).value == value
    assert button(page, "Start").disabled
    assert any(said in box.value for box in page.error)
    field(page, label).set_value(usual).run()
    assert not button(page, "Start").disabled
    assert not page.error


def test_a_step_that_does_not_fit_cannot_be_started(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = RECIPES["fast"].configure(NETWORK)
    needed = admission.predict_bytes(NETWORK, train, "fashion-mnist") + PROCESS_BYTES
    monkeypatch.setattr(start_panel, "total_bytes", lambda: needed)
    page = open_page()
    assert not button(page, "Start").disabled
    field(page, "Batch size").set_value(1024).run()
    assert button(page, "Start").disabled
    assert "a batch size of 64 would fit" in texts(page)


def test_no_batch_size_helps_where_the_weights_do_not_fit() -> None:
    train = RECIPES["fast"].configure(PRESETS["nin-224"])
    plan = start_panel.Plan(PRESETS["nin-224"], train, "fashion-mnist", None)
    assert "narrower blocks" in (start_panel.memory_problem(plan, 1_000_000) or "")
    assert start_panel.memory_problem(plan, 10**12) is None


def test_a_missing_data_set_is_said_and_shapes_are_offered(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NIN_DATA", str(tmp_path))
    page = open_page()
    field(page, "Data set").set_value("mnist").run()
    assert "MNIST is not on this computer yet" in texts(page)
    assert not button(page, "Start").disabled  # it is downloaded when the run starts
    button(page, "Take Shapes (generated) instead").click().run()
    assert field(page, "Data set").value == "shapes"
    assert "needs no files" in texts(page)


def test_a_run_is_read_before_its_name_is_drawn(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reading takes is no time for its name to stand over another one's figures."""
    run_id = ended(store, "finished")
    done: list[str] = []
    for module, name in ((run_picture, "look"), (run_heading, "draw")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, real=real, name=name: done.append(name) or real(*a)
        )
    assert not open_page(run=run_id).exception
    assert done == ["look", "draw"]


def test_the_panel_stands_in_the_url_and_a_link_fills_it_in(store: RunStore) -> None:
    page = open_page(net="nin-28")
    assert not set(draft_link.KEYS) & set(page.query_params)
    field(page, "Data set").set_value("shapes").run()
    field(page, "Recipe").set_value("tutorial").run()
    field(page, "Epochs").set_value(3).run()
    field(page, "Learning rate").set_value(0.05).run()
    field(page, "Training images").set_value(5000).run()
    field(page, "Seed").set_value(7).run()
    query = {key: page.query_params[key] for key in page.query_params}
    wanted = {"recipe": "tutorial", "data": "shapes", "epochs": "3", "rate": "0.05"}
    assert query == wanted | {"images": "5000", "seed": "7", "net": "nin-28"}
    again = open_page(**query)
    assert not again.exception
    shown = [field(again, name).value for name in ("Recipe", "Data set", "Epochs", "Learning rate")]
    assert shown == ["tutorial", "shapes", 3, 0.05]
    assert [field(again, name).value for name in ("Training images", "Seed")] == [5000, 7]
    button(again, "Reset").click().run()
    kept = {"recipe": "tutorial", "data": "shapes", "images": "5000", "seed": "7"}
    assert {key: again.query_params[key] for key in again.query_params} == kept | {"net": "nin-28"}


def test_a_link_that_cannot_be_is_told_until_something_is_chosen(store: RunStore) -> None:
    page = open_page(recipe="quick", epochs="0", rate="nan", batch="1e3", images="5000")
    assert not page.exception
    said = texts(page).replace("\\", "")  # without what Markdown needs
    assert f"The link's recipe=quick is none of {', '.join(RECIPES)}." in said
    assert "The link's epochs=0 is no whole number between 1 and 1,000." in said
    assert "The link's rate=nan is no number between 0.000001 and 10." in said
    assert "The link's batch=1e3 is no whole number between 1 and 4,096." in said
    assert field(page, "Training images").value == 5000
    assert "epochs" not in page.query_params  # the address says what the page shows
    field(page, "Seed").set_value(1).run()
    assert "The link's" not in texts(page)


def test_a_links_problems_are_over_when_a_run_fills_the_panel(store: RunStore) -> None:
    run_id = ended(store, "finished")
    page = open_page(run=run_id, data="letters", batch="99")
    assert "The link's data=letters is none of" in texts(page)
    assert field(page, "Batch size").value == 99
    button(page, "Use its settings").click().run()
    assert "The link's" not in texts(page)
    run = store.get(run_id)
    assert run.train is not None
    assert page.query_params["data"] == run.dataset
    assert page.query_params["batch"] == str(run.train.batch_size)


def test_seconds_are_predicted_from_earlier_runs(store: RunStore) -> None:
    assert "a first guess" in texts(open_page())
    ended(store, "finished")
    assert "by 1 earlier run" in texts(open_page())


def test_a_prediction_follows_the_speed_and_the_images(store: RunStore) -> None:
    def seconds(runs: list[Run], **changes: Any) -> float:
        train = RECIPES["fast"].configure(NETWORK, **changes)
        plan = start_panel.Plan(NETWORK, train, "fashion-mnist", None)
        return start_panel.predicted_seconds(plan, runs)[0]

    ended(store, "finished")  # at 4,000 images a second
    (at_4000,) = store.list_runs()
    at_2000 = replace(at_4000, examples_per_second=2000.0)
    data = DATASETS["fashion-mnist"]
    images = data.train_size + data.test_size / 3  # a forward pass is a third of a step
    assert seconds([at_4000]) == pytest.approx(images / 4000, rel=0.2)
    assert seconds([at_2000]) > 1.5 * seconds([at_4000])
    assert seconds([at_4000], epochs=3) == pytest.approx(3 * seconds([at_4000]))
    assert seconds([at_4000], subset=6000) < seconds([at_4000]) / 4
    assert seconds([]) > 0


def test_a_prediction_is_by_this_network_then_by_timed_steps_then_by_others(
    store: RunStore,
) -> None:
    train = RECIPES["fast"].configure(NETWORK)
    plan = start_panel.Plan(NETWORK, train, "fashion-mnist", None)
    ended(store, "finished")
    (own,) = store.list_runs()
    other = replace(own, network=PRESETS["nin-224"])

    def basis(*runs: Run) -> str:
        return start_panel.predicted_seconds(plan, list(runs))[1]

    assert basis(other, own, own) == "by 2 earlier runs"
    assert basis(other) == "by 1 earlier run of another network, so only roughly"
    usual = tuning.usual_settings(NETWORK, train.batch_size, 2)
    trial = tuning.Trial(usual, 1234.0)
    tuning._keep(NETWORK, train.batch_size, tuning.Tuning((trial,), usual))
    assert basis(other) == "by steps that were timed here"
    assert basis(other, own) == "by 1 earlier run"


# --- a run's states ---------------------------------------------------------------------------


def test_a_running_run_shows_progress_figures_and_curves(store: RunStore) -> None:
    run_id, _ = run_of(store, steps=40, phase="training")
    page = open_page(run=run_id)
    assert not page.exception
    text, share = progress(page)
    assert text.startswith("Epoch 1 of 1 · step 40 of 94 · 4,000 images/s · ")
    assert text.endswith(" left")
    assert share == pytest.approx(100 * 40 / 94, abs=0.1)
    names = [trace["name"] for trace in charts(page)[f"curves of run {run_id}"]["data"]]
    assert names == ["Training accuracy", "Test accuracy", "Training loss"]
    html = "".join(element.proto.body for element in page.get("html"))
    assert "60.0%" in html
    assert "estimate on 500 test images" in html
    assert "running" in [badge.value for badge in page.get("badge")] or "running" in texts(page)


def test_before_the_first_step_the_worker_s_phase_is_shown(store: RunStore) -> None:
    run_id, _ = run_of(store, phase="loading PyTorch")
    page = open_page(run=run_id)
    assert progress(page)[0] == "Loading PyTorch …"
    assert charts(page)[f"curves of run {run_id}"]["data"][0]["x"] == []


def test_a_queued_run_says_how_many_are_before_it(store: RunStore) -> None:
    ids = [jobs.start_run(store, NETWORK, RECIPES["fast"].configure(NETWORK), "shapes", None)
           for _ in range(3)]  # fmt: skip
    page = open_page(run=ids[0])
    assert "it is the next" in progress(page)[0]
    page = open_page(run=ids[2])
    assert "2 are before it" in progress(page)[0]
    button(page, "Stop").click().run()
    assert store.get(ids[2]).state == "stopped"
    assert "there was nothing to keep" in texts(page)


def test_stop_is_asked_once(store: RunStore) -> None:
    run_id, _ = run_of(store, steps=40, phase="training")
    page = open_page(run=run_id)
    button(page, "Stop").click().run()
    assert store.get(run_id).desired_state == "stopped"
    assert button(page, "Stop").disabled
    assert progress(page)[0] == "Stopping …"


def test_a_run_that_ended_early_can_go_on(store: RunStore) -> None:
    run_id, _ = run_of(store, steps=40, phase="training")
    page = open_page(run=run_id)
    button(page, "Pause").click().run()
    assert store.get(run_id).desired_state == "paused"
    assert progress(page)[0] == "Pausing …"
    store.save_checkpoint(run_id, 30, 1, A_TRAINING)
    assert store.lose(store.get(run_id), "Its worker process was killed (SIGKILL).")
    page = open_page(run=run_id)
    points = len(store.metrics(run_id))
    button(page, "Resume").click().run()
    run = store.get(run_id)
    assert (run.state, run.desired_state, run.step) == ("queued", "running", 30)
    assert len(store.metrics(run_id)) < points  # what came after the checkpoint comes again


def test_a_run_of_another_pytorch_says_that_it_goes_on_otherwise(store: RunStore) -> None:
    run_id, _ = run_of(store, steps=40, phase="training")
    for version, told in ((torch.__version__, False), ("1.0.1+cpu", True)):
        store.save_checkpoint(run_id, 30, 1, A_TRAINING, {"torch": version})
        store.lose(store.get(run_id), "Its worker process was killed (SIGKILL).")
        page = open_page(run=run_id)
        assert ("It was trained with PyTorch 1.0.1 and would go on with" in texts(page)) == told


def test_a_paused_run_can_be_stopped_for_good(store: RunStore) -> None:
    run_id = store.create(NETWORK, RECIPES["fast"].configure(NETWORK), "shapes")
    store.request(run_id, "paused")
    page = open_page(run=run_id)
    button(page, "Stop").click().run()
    assert store.get(run_id).state == "stopped"
    assert not page.exception and not [box for box in page.button if box.label == "Stop"]


def test_what_cannot_go_on_says_so(store: RunStore) -> None:
    run_id = ended(store, "stopped")
    page = open_page(run=run_id)
    store.resume(run_id)  # in another tab
    button(page, "Start again").click().run()
    assert any(f"Run #{run_id} is queued: only a run" in box.value for box in page.error)


def test_a_failed_run_says_why_and_keeps_its_log(store: RunStore) -> None:
    run_id = ended(store, "failed", error="Memory ran out.", log="Traceback\nMemoryError")
    page = open_page(run=run_id)
    assert "This run failed. Memory ran out." in texts(page)
    assert page.code[0].value == "Traceback\nMemoryError"
    assert "Stop" not in labels(page)


def test_an_interrupted_run_says_so(store: RunStore) -> None:
    run_id, _ = run_of(store, steps=40, phase="training")
    store.save_checkpoint(run_id, 30, 1, A_TRAINING)
    assert store.lose(store.get(run_id), "Its worker process was killed (SIGKILL).")
    page = open_page(run=run_id)
    assert "This run was interrupted. Its worker process was killed (SIGKILL)." in texts(page)
    assert "Its weights after 30 steps are kept." in texts(page)
    assert "Goes on after step 30 of" in texts(page)


def test_a_diagnosis_is_in_sight(store: RunStore) -> None:
    run_id = ended(store, "finished", diagnosis="5 of 10 class maps are zero.")
    page = open_page(run=run_id)
    assert any("5 of 10 class maps are zero." in box.value for box in page.warning)


def test_a_run_that_stays_at_guessing_says_so_and_offers_its_twin(store: RunStore) -> None:
    train = RECIPES["tutorial"].configure(NETWORK, epochs=1, seed=3)
    run_id = store.create(NETWORK, train, "shapes", None)
    attempt = store.claim(run_id, WORKER)
    assert attempt is not None
    store.note(run_id, attempt, total_steps=938)
    rows = [
        MetricRow("step", 1, n, n / 10, math.log(10) + 1e-3, 0.1, None, 0.1, 500, 0.1, 4000.0)
        for n in range(20, 401, 20)
    ]
    store.add_metrics(run_id, rows[:5], attempt=attempt)
    page = open_page(run=run_id)
    assert "what guessing costs" not in texts(page)
    store.add_metrics(run_id, rows[5:], attempt=attempt)
    page.run()
    assert "For 400 steps the loss has stayed at ln(10) = 2.303, what guessing costs" in texts(page)
    store.note(run_id, start=Start("stalled", "All 10 class maps are zero.").to_json())
    page.run()
    assert "wake up. **Before its first step:** All 10 class maps are zero." in texts(page)
    button(page, "Start a twin with the fast recipe").click().run()
    assert not page.exception
    twin = store.list_runs(limit=1)[0]
    assert twin.id != run_id
    assert (twin.network, twin.dataset) == (NETWORK, "shapes")
    size = DATASETS["shapes"].train_size
    assert twin.train == RECIPES["fast"].configure(NETWORK, train_size=size, seed=3)
    assert page.query_params["run"] == str(twin.id)
    assert store.get(run_id).state == "running"


@pytest.mark.parametrize(("recipe", "offers"), [("tutorial", True), ("fast", False)])
def test_a_run_that_woke_says_when(store: RunStore, recipe: str, offers: bool) -> None:
    """And goes on saying it when it has ended; a twin of the fast recipe would start no sooner."""
    run_id = store.create(NETWORK, RECIPES[recipe].configure(NETWORK, epochs=1), "shapes", None)
    attempt = store.claim(run_id, WORKER)
    assert attempt is not None
    losses = [math.log(10)] * 20 + [2.0, 1.8, 1.7]
    rows = [
        MetricRow("step", 1, 20 * n, n / 10, loss, 0.1, None, 0.1, 500, 0.1, 4000.0)
        for n, loss in enumerate(losses, 1)
    ]
    store.add_metrics(run_id, rows, attempt=attempt)
    page = open_page(run=run_id)
    woke = "For its first 400 steps the loss stayed at ln(10) = 2.303, what guessing costs; then"
    assert woke in texts(page)
    twins = [b.label for b in page.button if b.label.startswith("Start a twin")]
    assert bool(twins) == offers
    store.transition(run_id, "finished", attempt=attempt)
    page = open_page(run=run_id)
    assert woke in texts(page)
    assert not [b.label for b in page.button if b.label.startswith("Start a twin")]
    # Where its weights say otherwise, the curve does not speak.
    store.note(run_id, attempt, diagnosis=f"{ALL_ALIVE}, but the loss is that of guessing.")
    assert woke not in texts(open_page(run=run_id))


def test_a_run_with_a_bad_start_says_so_at_once_and_offers_its_twin(store: RunStore) -> None:
    run_id, attempt = run_of(store, recipe="tutorial", steps=2, phase="training")
    page = open_page(run=run_id)
    assert "Before its first step" not in texts(page)
    store.note(run_id, start=Start("doubtful", "4 of 10 class maps are zero.").to_json())
    page.run()
    assert "**Before its first step:** 4 of 10 class maps are zero." in texts(page)
    assert button(page, "Start a twin with the fast recipe")

    def tested(step: int, dead_maps: int) -> None:
        counts = json.dumps({"block1.conv": 1, "block3.conv1x1_2": dead_maps})
        row = MetricRow("step", 1, step, step / 10, 1.0, 0.5, 1.0, 0.6, 500, dead_channels=counts)
        store.add_metrics(run_id, [row], attempt=attempt)
        page.run()

    tested(10, 2)
    assert "Before its first step" in texts(page)
    tested(20, 0)  # what was dead has come to life
    assert "Before its first step" not in texts(page)


@pytest.mark.parametrize(("state", "said"), [("stopped", True), ("failed", False)])
def test_a_run_that_ended_early_still_says_how_it_began_unless_it_says_more(
    store: RunStore, state: str, said: bool
) -> None:
    run_id, attempt = run_of(store, recipe="tutorial", phase="training")
    store.note(run_id, start=Start("stalled", "All 10 class maps are zero.").to_json())
    store.transition(run_id, state, attempt=attempt, error=None if said else f"{DIVERGED}.")
    store.release(run_id, attempt)
    page = open_page(run=run_id)
    assert ("Before its first step" in texts(page)) == said
    assert button(page, "Start a twin with the fast recipe")


def test_a_bad_start_of_the_fast_recipe_offers_no_twin_that_starts_alike(store: RunStore) -> None:
    run_id, _ = run_of(store, phase="training")
    store.note(run_id, start=Start("stalled", "No gradient reaches block1.conv.").to_json())
    page = open_page(run=run_id)
    assert "Before its first step" in texts(page)
    assert not [box for box in page.main.button if box.label.startswith("Start a twin")]


def test_a_diverged_run_offers_a_twin_at_a_lower_rate(store: RunStore) -> None:
    run_id = ended(
        store, "failed", error=f"{DIVERGED} after step 40: the learning rate is too high."
    )
    page = open_page(run=run_id)
    rate = RECIPES["fast"].configure(NETWORK).learning_rate / LOWER_RATE
    assert button(page, f"Start a twin at a learning rate of {float(f'{rate:.2g}'):g}")


def test_a_run_that_was_too_short_offers_more_epochs_not_a_lower_rate(store: RunStore) -> None:
    run_id = ended(store, "finished", diagnosis=f"{ALL_ALIVE}, but the loss is that of guessing.")
    assert button(open_page(run=run_id), f"Start a twin of {LONGER} epochs")


def test_the_second_of_two_clicks_does_nothing() -> None:
    """It is one on the button as it was drawn before the first."""

    def script() -> None:
        import streamlit as st

        from ui import run_choice

        done: list[int] = []
        press = run_choice.presses("twin")
        run_choice._once("twin", press, done.append, 1)
        run_choice._once("twin", press, done.append, 2)
        run_choice._once("twin", run_choice.presses("twin"), done.append, 3)
        st.caption(str(done))

    assert AppTest.from_function(script).run().caption[0].value == "[1, 3]"


def test_a_run_that_learns_offers_no_twin(store: RunStore) -> None:
    run_id, _ = run_of(store, steps=400)
    assert not [label for label in labels(open_page(run=run_id)) if "twin" in label]


def test_names_are_shown_as_they_are(store: RunStore) -> None:
    name = "*a* $b$ [c](d) :smile: <b>"
    run_id = ended(store, "finished", name=name)
    page = open_page(run=run_id)
    heading = next(h.value for h in page.subheader if h.value.startswith(r"\#"))
    assert heading.replace("\\", "") == f"#{run_id} {name}"
    assert r"\*a\*" in heading


# --- which run is open ------------------------------------------------------------------------


def test_without_a_link_the_run_that_trains_is_opened(store: RunStore) -> None:
    running, _ = run_of(store, steps=10, phase="training")
    ended(store, "finished")
    page = open_page()
    assert page.query_params["run"] == str(running)


def test_a_link_to_a_deleted_run_says_so(store: RunStore) -> None:
    run_id = ended(store, "finished")
    store.delete(run_id)
    ended(store, "finished")
    page = open_page(run=run_id)
    assert f"There is no run #{run_id}" in texts(page)
    assert "No run is open" in texts(page)
    assert page.query_params["run"] == str(run_id)


@pytest.mark.parametrize("text", ["abc", "-1", "9" * 30, "1.5", ""])
def test_a_link_that_is_no_number_says_so(store: RunStore, text: str) -> None:
    page = open_page(run=text)
    assert not page.exception
    assert "is no number" in texts(page)


def test_another_page_and_back_keeps_the_open_run(store: RunStore) -> None:
    first = ended(store, "finished")
    ended(store, "finished")
    page = open_page(run=first)
    page.switch_page("pages/architecture.py").run()
    page.query_params.clear()
    page.switch_page("pages/training.py").run()
    assert page.query_params["run"] == str(first)


def test_a_run_s_settings_go_into_sidebar_and_form(store: RunStore) -> None:
    train = RECIPES["tutorial"].configure(NETWORK, epochs=3, learning_rate=0.05, seed=7)
    run_id = store.create(NETWORK, train, "shapes")
    store.request(run_id, "stopped")
    page = open_page(run=run_id, net="nin-28")
    button(page, "Use its settings").click().run()
    assert page.session_state["nin_config"] == NETWORK
    assert page.query_params["net"] == link.DEFAULT_PRESET
    assert page.query_params["run"] == str(run_id)
    fields = {field.label: field.value for field in page.main.number_input}
    assert (fields["Epochs"], fields["Learning rate"], fields["Seed"]) == (3, 0.05, 7)
    button(page, "Start").click().run()
    assert store.list_runs()[0].train == train


def test_a_finished_run_gets_more_epochs(store: RunStore) -> None:
    run_id = ended(store, "finished")
    before = store.get(run_id)
    assert "Train on" not in labels(open_page(run=run_id))  # it has no weights
    store.save_checkpoint(run_id, before.step, 1, A_TRAINING)
    page = open_page(run=run_id)
    next(n for n in page.main.number_input if n.label == "More epochs").set_value(2)
    button(page, "Train on").click().run()
    run = store.get(run_id)
    assert run.state == "queued"
    assert run.train.more_epochs == (2,)
    assert run.total_steps == before.total_steps // before.train.epochs * (before.train.epochs + 2)


# --- the list ---------------------------------------------------------------------------------


def frame_of(store: RunStore) -> list[dict[str, Any]]:
    return runs.run_frame(store.list_runs()).to_dict("records")


def test_the_list_has_a_row_a_run(store: RunStore) -> None:
    finished = measured(store)
    running, _ = run_of(store, steps=40, epochs=2, phase="training")
    page = open_page()
    assert len(page.dataframe[0].value) == 2
    second, first = frame_of(store)
    assert (first["Run"], first["State"], first["Epochs"]) == (finished, "finished", "1 of 1")
    assert first["Test accuracy"] == pytest.approx(90.0, abs=2)
    assert (second["Run"], second["State"]) == (running, "running, 21%")
    assert second["Epochs"] == "0.43 of 2"


def ticked(page: AppTest, *run_ids: int) -> AppTest:
    page.session_state["tr:ticked"] = run_ids
    return page.run()


def test_ticked_runs_are_laid_over_each_other(store: RunStore) -> None:
    ids = [ended(store, "finished", name=name) for name in ("a", "b", "c")]
    page = ticked(open_page(), ids[0], ids[2])
    data = charts(page)["comparison of runs"]["data"]
    assert [trace["name"] for trace in data] == ["#1 a", "#1 a", "#3 c", "#3 c"]
    field(page, "Loss axis", -1).set_value("Log")
    page.run()
    assert charts(page)["comparison of runs"]["layout"]["yaxis2"]["type"] == "log"
    # One looks at a run and compares several in ways of their own.
    assert charts(page)[f"curves of run {ids[2]}"]["layout"]["yaxis2"]["type"] == "linear"


def test_a_comparison_of_different_data_says_so(store: RunStore) -> None:
    ids = [ended(store, "finished") for _ in range(2)]
    other = store.create(NETWORK, RECIPES["fast"].configure(NETWORK), "mnist")
    page = ticked(open_page(), *ids)
    assert "different data sets" not in texts(page)
    page = ticked(page, *ids, other)
    shapes, mnist = DATASETS["shapes"].title, DATASETS["mnist"].title
    told = f"do not compare: #{ids[0]}, #{ids[1]} of {shapes}; #{other} of {mnist}."
    assert told in texts(page)


def test_a_link_compares_runs_and_says_which_are_gone(store: RunStore) -> None:
    ids = [ended(store, "finished") for _ in range(3)]
    page = ticked(open_page(), ids[0], ids[2])
    link = page.query_params["compare"]
    assert sorted(link.split(",")) == [str(ids[0]), str(ids[2])]
    page = open_page(compare=f"{link},99")
    assert not page.exception
    assert len(charts(page)["comparison of runs"]["data"]) == 4
    assert "compares #99, which is not in the list" in texts(page)
    assert page.query_params["compare"] == link
    page = open_page(compare="1;2")
    assert "compare=1;2 does not name runs to compare" in texts(page)
    assert "compare" not in page.query_params


def test_more_runs_than_colours_are_compared_in_part(store: RunStore) -> None:
    ids = [ended(store, "finished") for _ in range(runs.MAX_COMPARED + 2)]
    page = ticked(open_page(), *ids)
    assert len(charts(page)["comparison of runs"]["data"]) == 2 * runs.MAX_COMPARED
    assert f"The newest {runs.MAX_COMPARED} of {len(ids)}" in texts(page)


def test_ticked_runs_are_deleted(store: RunStore) -> None:
    ids = [ended(store, "finished") for _ in range(3)]
    page = ticked(open_page(run=ids[2]), ids[1], ids[2])
    button(page, "Delete 2 ticked runs for good").click().run()
    assert [run.id for run in store.list_runs()] == [ids[0]]
    assert page.query_params["run"] == str(ids[0])


def test_an_active_run_is_not_deleted(store: RunStore) -> None:
    run_id, _ = run_of(store, steps=10, phase="training")
    page = ticked(open_page(run=run_id), run_id)
    sentence = f"Run #{run_id} is running; stop it before you delete it."
    assert texts(page).count(sentence) == 2
    assert not [label for label in labels(page) if label.startswith("Delete")]


def test_rename_and_delete_of_the_open_run(store: RunStore) -> None:
    run_id = ended(store, "finished")
    page = open_page(run=run_id)
    field(page, "Name").set_value("better name").run()
    button(page, "Rename").click().run()
    assert store.get(run_id).name == "better name"
    field(page, "Name").set_value("   ").run()
    button(page, "Rename").click().run()
    assert "1 to 100 characters" in texts(page)
    button(page, f"Delete run #{run_id}").click().run()
    assert not store.list_runs()
    assert "run" not in page.query_params
    assert "No network has been trained here yet" in texts(page)


def test_a_run_deleted_in_another_tab_is_no_exception(store: RunStore) -> None:
    run_id = ended(store, "finished")
    page = open_page(run=run_id)
    store.delete(run_id)
    button(page, f"Delete run #{run_id}").click().run()
    assert not page.exception
    assert f"There is no run #{run_id}" in texts(page)


# --- results ----------------------------------------------------------------------------------


def test_results_of_a_finished_run(store: RunStore) -> None:
    run_id = measured(store)
    page = open_page(run=run_id)
    assert not page.exception
    names = DATASETS["shapes"].class_names
    truth = load_once("shapes").test_labels.numpy()
    count = int((truth == 3).sum())
    assert f"{1000 - count:,} of 1,000 test images right." in texts(page)
    assert f"{names[3]} is taken for {names[4]}: {count} times" in texts(page)
    assert f"No test image is taken for {names[3]}." in texts(page)
    figures = charts(page)
    wrong = figures[f"confusion of run {run_id}"]["data"][1]
    assert wrong["customdata"][3][4].startswith(f"true {names[3]}, predicted {names[4]}: {count}")
    bars = figures[f"classes of run {run_id}"]["data"][0]
    assert (bars["y"][0], bars["x"][0]) == (names[3], 0)
    html = "".join(element.proto.body for element in page.get("html"))
    assert f"<b>{names[3]}</b> taken for {names[4]}, 9" in html
    # The test after the end is the last, large point of the curves.
    tests = figures[f"curves of run {run_id}"]["data"][1]
    assert tests["text"][-1] == "(all 1,000 test images)"


def test_a_stopped_run_says_on_how_many_images_it_was_measured(store: RunStore) -> None:
    run_id = measured(store, images=300, state="stopped")
    page = open_page(run=run_id)
    assert "of the first 300 test images right; a stopped run" in texts(page)


def test_a_run_without_an_evaluation_says_so_and_can_get_one(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = ended(store, "stopped")
    store.save_checkpoint(run_id, 30, 1, A_TRAINING)
    page = open_page(run=run_id)
    assert "were not measured on the test set" in texts(page)
    asked = []
    monkeypatch.setattr(scoring, "measure_beside", lambda *what: asked.append(what[1:]))
    button(page, "Measure them").click().run()
    assert not page.exception
    run = store.get(run_id)
    assert asked == [(run_id, run.attempt)]
    assert (run.state, run.phase, run.worker) == ("stopped", PHASE_MEASURING, WORKER)
    assert "Measuring it on the test set" in texts(page)


# --- a store that cannot be used --------------------------------------------------------------


def test_an_unreachable_database_is_a_sentence(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NIN_DATABASE_URL", f"sqlite:///{tmp_path / 'file' / 'runs.db'}")
    page = open_page()
    assert not page.exception
    assert "The run store cannot be used" in texts(page)


def test_a_database_that_goes_away_leaves_the_curves_on_the_page(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, _ = run_of(store, steps=40, phase="training")
    page = open_page(run=run_id)
    real: Callable[..., list[MetricRow]] = RunStore.metrics

    def gone(self: RunStore, *args: Any) -> list[MetricRow]:
        raise StoreError("The run store is locked by another process.", "locked")

    monkeypatch.setattr(RunStore, "metrics", gone)
    page.run()
    assert not page.exception
    assert "The run store does not answer" in texts(page)
    assert f"curves of run {run_id}" in charts(page)
    # Whoever comes now sees no picture yet, but is kept up to date like the others.
    late = open_page(run=run_id)
    assert "The run store does not answer" in texts(late)
    for asking in (page, late):
        sent = [json.loads(element.proto.json) for element in asking.get("bidi_component")]
        (followed,) = [data for data in sent if str(data["key"]) == f"follow run {run_id}"]
        assert followed["version"] == "lost"
    monkeypatch.setattr(RunStore, "metrics", real)
    for asking in (page, late):
        asking.run()
        assert "does not answer" not in texts(asking)


def test_a_database_that_goes_away_leaves_a_run_that_can_go_on_as_it_was(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, _ = run_of(store, steps=40, phase="training")
    store.save_checkpoint(run_id, 30, 1, A_TRAINING, {"torch": "1.0.1"})
    store.lose(store.get(run_id), "Its worker process was killed (SIGKILL).")
    page = open_page(run=run_id)

    def gone(self: RunStore, *args: Any) -> Any:
        raise StoreError("The run store is locked by another process.", "locked")

    for method in ("metrics", "checkpoint_info"):
        monkeypatch.setattr(RunStore, method, gone)
    page.run()
    assert not page.exception
    assert "The run store does not answer" in texts(page)
    assert "It was trained with PyTorch 1.0.1" in texts(page)


def test_a_store_that_cannot_be_written_still_shows_its_runs_and_refuses_nothing_done(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: what only reads is there, and a run that is queued is not refused."""
    run_id, _ = run_of(store, steps=40, phase="training")
    done = ended(store, "interrupted", name="the other one")

    def full(*_: Any, **__: Any) -> Any:
        raise StoreError("Its disk is full; free some space or delete runs.", "full")

    monkeypatch.setattr(jobs, "advance", full)
    page = open_page(run=run_id)
    assert not page.exception
    said = "Nothing can start or end meanwhile: Its disk is full"
    assert texts(page).count(said) == 2, "at the open run and over the list"
    assert f"curves of run {run_id}" in charts(page)
    (listed,) = page.dataframe
    assert "the other one" in set(listed.value["Name"])
    page = open_page(run=done)
    button(page, "Start again").click().run()
    assert store.get(done).state == "queued"
    assert not page.error


def test_a_run_whose_worker_cannot_write_says_so(store: RunStore) -> None:
    from datetime import timedelta

    from nin_core.records import now
    from nin_core.run_rows import update_run

    run_id, _ = run_of(store, steps=40, phase="training")
    assert "no word from its worker" not in progress(open_page(run=run_id))[0]
    with store.database.write() as connection:
        update_run(connection, run_id, {"heartbeat_at": now() - timedelta(seconds=20)})
    assert re.search(r"no word from its worker for [2-9]\d s", progress(open_page(run=run_id))[0])


def test_a_page_comes_back_when_its_store_does(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(store, "finished")

    def panel() -> None:
        from nin_core import PRESETS
        from ui import start_panel

        start_panel.draw(PRESETS["nin-slim-128"])

    def listed() -> None:
        from ui import runs

        runs._live(None)

    def gone(self: RunStore, *args: Any, **facts: Any) -> Any:
        raise StoreError("The run store is locked by another process.", "locked")

    with monkeypatch.context() as away:
        for name in ("get", "list_runs", "work"):
            away.setattr(RunStore, name, gone)
        page = open_page()
        assert not page.exception
        assert "The run store cannot be used" in texts(page)
        # Parts of a page that are drawn by themselves say so, too.
        for script in (panel, listed):
            part = AppTest.from_function(script).run()
            assert not part.exception
            assert "The run store cannot be used" in texts(part)
    page.run()
    assert "The run store cannot be used" not in texts(page)
    assert "Runs" in [heading.value for heading in page.subheader]


def test_a_run_of_another_version_is_listed_and_explained(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = ended(store, "finished")
    real = RunStore.get

    def unreadable(self: RunStore, wanted: int) -> Run:
        return replace(
            real(self, wanted), network=None, train=None, problem="This version cannot read it."
        )

    monkeypatch.setattr(RunStore, "get", unreadable)
    page = open_page(run=run_id)
    assert not page.exception
    assert "This version cannot read it." in texts(page)


# --- how curves are looked at ----------------------------------------------------------------


def test_what_is_chosen_changes_the_curves_and_stays(store: RunStore) -> None:
    run_id, attempt = run_of(store, steps=40)
    store.add_metrics(run_id, [MetricRow("epoch", 1, 40, 4.0, 0.5, 0.8, 0.4, 0.9, 1000)])
    page = open_page(run=run_id)
    key = f"curves of run {run_id}"
    before = charts(page)[key]
    field(page, "Horizontal axis").set_value("seconds")
    field(page, "Loss axis").set_value("Log")
    page.slider(key="tr:view:smoothing").set_value(0.5)
    page.run()
    after = charts(page)[key]
    assert after["layout"]["xaxis"]["title"]["text"] == "seconds of training"
    assert after["layout"]["yaxis2"]["type"] == "log"
    assert [trace["name"] for trace in after["data"]][3:] == [
        "Training accuracy",
        "Training loss",
        "Best",
    ]
    assert after["data"][0]["y"][-1] < before["data"][0]["y"][-1]
    assert after["data"][0]["x"][0] == pytest.approx(0.2)
    assert after["data"][-1]["text"] == ["best 90.0%"]
    store.transition(run_id, "finished", attempt=attempt)
    page.run()  # as the fragment's next tick does
    assert charts(page)[key]["layout"]["yaxis2"]["type"] == "log"
    assert not page.exception


def test_gradients_and_dead_channels_are_a_second_picture(store: RunStore) -> None:
    run_id, _ = run_of(store)
    dead = json.dumps({"block1.conv": 2})
    store.add_metrics(
        run_id,
        [
            MetricRow("step", 1, n, n / 10, 2.0, 0.1, learning_rate=0.05, gradient_norm=1.0,
                      update_norm=0.5, dead_channels=dead)
            for n in (2, 4)
        ],
    )  # fmt: skip
    page = open_page(run=run_id)
    assert f"vitals of run {run_id}" not in charts(page)
    field(page, "Picture").set_value("Gradients and dead channels")
    page.run()
    figure = charts(page)[f"vitals of run {run_id}"]
    assert f"curves of run {run_id}" not in charts(page)
    widths = {row.name: row.output_shape[0] for row in summarize(NETWORK).layers}
    assert figure["data"][-1]["z"] == [pytest.approx([2 / widths["block1.conv"]] * 2)]
    assert "Healthy:" in texts(page)
    assert not page.exception


def test_a_run_of_before_says_that_it_has_no_second_picture(store: RunStore) -> None:
    run_id = ended(store, "finished")
    page = open_page(run=run_id)
    field(page, "Picture").set_value("Gradients and dead channels")
    page.run()
    assert "recorded no gradients" in texts(page)
    assert not charts(page).keys() & {f"vitals of run {run_id}", f"curves of run {run_id}"}


# --- changing and taking along ----------------------------------------------------------------


def test_the_rate_is_changed_while_a_run_goes(store: RunStore) -> None:
    run_id, attempt = run_of(store, recipe="tutorial", steps=10, phase="training")
    page = open_page(run=run_id)
    assert field(page, "Learning rate from now on").value == 0.1
    field(page, "Learning rate from now on").set_value(0.02)
    button(page, "Change").click().run()
    assert store.get(run_id).desired_rate == 0.02
    store.record_rate(run_id, attempt, 11, 0.02)  # as its worker does
    page = open_page(run=run_id)
    assert "rate 0.02 from step 11 on" in texts(page).replace("\\", "")
    marks = charts(page)[f"curves of run {run_id}"]["layout"]["annotations"]
    assert "rate 0.02" in [mark["text"] for mark in marks]
    assert not page.exception


def test_a_finished_runs_rate_is_not_offered_but_its_curves_are(store: RunStore) -> None:
    run_id = ended(store, "finished")
    store.save_checkpoint(run_id, 40, 1, b"w")
    page = open_page(run=run_id)
    assert "Change" not in labels(page)
    offered = [b.proto.label for b in page.main.get("download_button")]
    assert offered == ["CSV", "JSON", "TensorBoard events", "Weights"]


def test_a_twin_is_started_with_what_was_changed(store: RunStore) -> None:
    run_id = ended(store, "finished")
    page = open_page(run=run_id)
    assert button(page, "Start the duplicate").disabled
    page.number_input(key=f"tr:duplicate:{run_id}:seed:0").set_value(7).run()
    assert "Differs in seed 7 (not 0)" in texts(page)
    button(page, "Start the duplicate").click().run()
    twin, original = store.list_runs(limit=1)[0], store.get(run_id)
    assert original.train is not None
    assert (twin.id, twin.train) == (run_id + 1, original.train.varied(seed=7))
    assert page.query_params["run"] in (str(twin.id), [str(twin.id)])


def test_what_is_typed_as_a_twin_is_started_counts(store: RunStore) -> None:
    run_id = ended(store, "finished")
    page = open_page(run=run_id)
    field(page, "Twin's seed").set_value(1_234_567).run()
    assert "Differs in seed 1,234,567 (not 0)" in texts(page)
    field(page, "Twin's learning rate").set_value(0.01)
    button(page, "Start the duplicate").click().run()
    twin, original = store.list_runs(limit=1)[0], store.get(run_id)
    assert original.train is not None
    assert twin.train == original.train.varied(seed=1_234_567, learning_rate=0.01)


def test_a_rate_given_as_a_whole_number_is_shown(store: RunStore) -> None:
    train = RECIPES["tutorial"].configure(NETWORK, learning_rate=1)
    run_id = store.create(NETWORK, train, "shapes")
    attempt = store.claim(run_id, WORKER)
    assert attempt is not None
    page = open_page(run=run_id)
    assert not page.exception
    assert field(page, "Learning rate from now on").value == 1.0


def test_numbers_that_cannot_be_are_refused_in_a_sentence(store: RunStore) -> None:
    run_id = ended(store, "finished")
    store.save_checkpoint(run_id, store.get(run_id).step, 1, A_TRAINING)
    page = open_page(run=run_id)
    field(page, "Twin's batch size").set_value(0).run()
    assert button(page, "Start the duplicate").disabled
    assert "1 would work" in " ".join(box.value for box in page.error)
    field(page, "More epochs").set_value(0).run()
    button(page, "Train on").click().run()
    assert sum("1 would work" in box.value for box in page.error) == 2
    assert len(store.list_runs()) == 1


def test_a_twin_starts_from_what_the_run_has_by_now(store: RunStore) -> None:
    run_id = ended(store, "finished")
    page = open_page(run=run_id)
    store.release(run_id, store.get(run_id).attempt)
    store.extend(run_id, 2)
    page.run()
    assert field(page, "Twin's epochs").value == 3
    assert "Nothing is changed yet" in texts(page)


def test_the_last_test_point_is_the_last_test(store: RunStore) -> None:
    """A run that was stopped early in an epoch is measured on fewer images than the one before."""
    run_id, attempt = run_of(store, steps=40)
    rows = [
        MetricRow("epoch", 1, 40, 9.0, 1.0, 0.5, 0.9, 0.8, 10_000),
        MetricRow("step", 2, 50, 9.5, 1.0, 0.5),
    ]
    store.add_metrics(run_id, rows, attempt=attempt)
    store.transition(run_id, "stopped", attempt=attempt)
    logits = pack_logits(np.zeros((1700, 10)))
    figures = {"images": 1700, "classes": 10, "step": 50, "loss": 1.0, "accuracy": 0.75}
    store.save_evaluation(run_id, logits, **figures, attempt=attempt)
    run = store.get(run_id)
    assert (run.test_accuracy, run.test_examples) == (0.8, 10_000)  # the better known one
    history = run_points.with_final_test(run, run_points.Histories().of(store, run))
    assert history.test_accuracy[-1] == 0.75
    assert (history.test_examples[-1], history.test_step[-1]) == (1700, run.step)


def test_points_that_a_resumed_run_will_make_again_are_not_shown_meanwhile(store: RunStore) -> None:
    run_id, attempt = run_of(store, steps=40)
    kept = Checkpoint(20, 1, b"w")
    rows = [MetricRow("step", 1, step, step / 10, 1.0, 0.5) for step in (60, 80)]
    store.save_checkpoint(run_id, kept.step, kept.epoch, kept.blob)
    store.add_metrics(run_id, rows, attempt=attempt)
    store.transition(run_id, "interrupted", attempt=attempt)
    store.release(run_id, attempt)
    histories = run_points.Histories()
    assert histories.of(store, store.get(run_id)).step[-1] == 80
    store.resume(run_id)
    for _ in range(2):
        assert all(histories.of(store, store.get(run_id)).step <= kept.step)
        store.request(run_id, "paused")  # before any worker took it


def test_predicted_and_measured_memory_are_shown(store: RunStore) -> None:
    run_id = ended(store, "finished")
    store.note(run_id, predicted_bytes=200_000_000, base_bytes=10**9, peak_bytes=1_190_000_000)
    page = open_page(run=run_id)
    assert "memory 181 MiB beside PyTorch" in texts(page).replace("\\", "")
