"""Take it with you: what the view shows is what is saved, and what is brought back is checked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import safetensors.torch
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, ConfigError, NiNConfig, export
from nin_core.features import load_model
from nin_core.store import RunStore
from nin_core.weights import CONVERT, weights_file
from tests.conftest import dashboard
from tests.core.test_export import HOSTILE, PICKLES, numbered, raw, saved, tensor, trained_like
from ui import link
from ui.laboratory import export as view
from ui.runs import run_frame

pytestmark = pytest.mark.usefixtures("store")

NARROW = PRESETS["nin-28"].with_widths((4, 5, 6))
QUERY = {"net": "nin-28", "widths": "4-5-6"}


def page(**query: str) -> AppTest:
    app = dashboard("architecture", view="export", **(query or QUERY)).run()
    assert not app.exception, app.exception
    return app


def upload(app: AppTest, key: str, name: str, data: bytes) -> AppTest:
    app.file_uploader(key=key).set_value((name, data, "application/octet-stream")).run()
    assert not app.exception, app.exception
    return app


def shown(app: AppTest) -> NiNConfig:
    return app.session_state["nin_config"]


def sentences(app: AppTest, kind: str) -> list[str]:
    """What a reader sees: Markdown's backslashes are not shown."""
    return [re.sub(r"\\(.)", r"\1", element.value) for element in getattr(app.main, kind)]


@pytest.mark.parametrize(
    ("label", "make"),
    [
        ("pytorch", export.pytorch_code),
        ("pytest", lambda config: export.pytest_code(config, 64)),
        ("json", export.to_json),
    ],
)
def test_each_format_is_shown_as_it_is_saved(label: str, make: Any) -> None:
    app = page()
    app.segmented_control(key="export:format").set_value(label).run()
    assert not app.exception
    assert app.main.code[0].value == make(NARROW).strip("\n") or app.main.code[0].value == make(
        NARROW
    )


def test_the_files_have_names_that_fit_together() -> None:
    labels = [b.proto.label for b in page(net="nin-224").main.get("download_button")]
    assert labels[:4] == ["nin_224.py", "test_nin_224.py", "nin-224.json", "ONNX"]
    assert "from nin_224 import nin" in export.pytest_code(PRESETS["nin-224"])
    labels = [b.proto.label for b in page().main.get("download_button")]
    assert labels[:3] == ["nin_custom.py", "test_nin_custom.py", "nin-custom.json"]


def test_the_link_reproduces_the_network() -> None:
    url = page().main.code[1].value
    base, config = link.from_query(dict(parse_qsl(urlsplit(url).query)))
    assert (base, config) == ("nin-28", NARROW)


def test_without_the_onnx_packages_the_page_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    app = page()
    assert any(export.ONNX_INSTALL in text for text in sentences(app, "caption"))
    onnx = next(b for b in app.main.get("download_button") if b.proto.label == "ONNX")
    assert onnx.proto.disabled


def test_showing_the_view_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom tests.conftest import dashboard\n"
        "app = dashboard('architecture', view='export').run()\n"
        "assert not app.exception\n"
        "assert len(app.main.code) == 2\n"
        "print([m for m in ('torch', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr[-2000:]


# --- a configuration --------------------------------------------------------------------------


def test_a_saved_configuration_comes_back_by_upload_and_by_paste() -> None:
    app = page()
    odd = replace(NARROW, image_size=31, global_pool="max", dropout=0.25)
    upload(app, "export:file", "net.json", export.to_json(odd).encode())
    assert shown(app) == odd
    assert "The sidebar shows it now" in sentences(app, "success")[0]
    assert app.query_params["image"] in ("31", ["31"])
    app.text_area(key="export:text").set_value(export.to_json(PRESETS["nin-cifar10"]))
    next(b for b in app.main.button if b.label == "Use this text").click().run()
    assert not app.exception
    assert shown(app) == PRESETS["nin-cifar10"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        (json.dumps({**NARROW.to_dict(), "image_size": "28"}), "image_size"),
        (json.dumps({**NARROW.to_dict(), "blocks": []}), "blocks"),
    ],
)
def test_a_bad_configuration_is_one_sentence_and_changes_nothing(text: str, named: str) -> None:
    app = page()
    app.text_area(key="export:text").set_value(text)
    next(b for b in app.main.button if b.label == "Use this text").click().run()
    assert not app.exception
    assert shown(app) == NARROW
    (sentence,) = sentences(app, "error")
    assert named.lower() in sentence.lower()


# --- weights ----------------------------------------------------------------------------------


def test_weights_become_a_run_that_other_pages_show(store: RunStore) -> None:
    config = PRESETS["nin-28"].with_widths((4, 5, 6))
    model = trained_like(config)
    app = page()
    upload(app, "export:weights", "laptop.safetensors", saved(numbered(model).state_dict()))
    assert any("numbered, taken in order" in text for text in sentences(app, "caption"))
    name = next(t for t in app.main.text_input if t.label == "Name of the run")
    assert name.value == "laptop"
    name.set_value("from my laptop")
    next(s for s in app.main.selectbox if s.label == "Trained on").set_value("shapes")
    next(b for b in app.main.button if b.label == "Make it a run").click().run()
    assert not app.exception
    (sentence,) = sentences(app, "success")
    (run,) = store.list_runs()
    assert sentence.startswith(f"Run #{run.id} ")
    assert not [b for b in app.main.button if b.label == "Make it a run"]
    assert (run.name, run.state, run.dataset) == ("from my laptop", "finished", "shapes")
    assert run.train is not None and not run.train.standardize  # numbered: the tutorial's pixels
    for _ in range(600):
        if store.get(run.id).worker is None:
            break
        time.sleep(0.1)
    assert store.get(run.id).has_evaluation, store.log(run.id)
    for other in ("training", "feature_maps"):
        elsewhere = dashboard(other, run=str(run.id)).run()
        assert not elsewhere.exception, elsewhere.exception
        assert not elsewhere.error
        assert any("imported" in caption.value for caption in elsewhere.main.caption), other
    (row,) = run_frame(store.list_runs()).to_dict("records")
    assert (row["Recipe"], row["Epochs"]) == ("imported", "–")
    # It can be taken away again, with these weights.
    again = page()
    assert str(run.id) in again.selectbox(key="export:run").value
    taken = safetensors.torch.load(weights_file(store, run.id))
    assert all(taken[name].equal(tensor) for name, tensor in model.state_dict().items())


def test_an_empty_name_is_refused_and_can_be_mended(store: RunStore) -> None:
    app = page()
    upload(app, "export:weights", "w.safetensors", saved(trained_like(NARROW).state_dict()))
    next(t for t in app.main.text_input if t.label == "Name of the run").set_value("  \n ")
    next(b for b in app.main.button if b.label == "Make it a run").click().run()
    assert not app.exception
    assert "1 to 100 characters" in sentences(app, "error")[0]
    assert store.list_runs() == []
    assert [b for b in app.main.button if b.label == "Make it a run"]


def test_a_file_of_another_network_is_told_by_its_first_tensor(store: RunStore) -> None:
    app = page(net="nin-28")
    upload(app, "export:weights", "w.safetensors", saved(trained_like(NARROW).state_dict()))
    (sentence,) = sentences(app, "error")
    assert "block1.conv.weight: it is 4×1×5×5" in sentence and "32×1×5×5" in sentence
    assert not [b for b in app.main.button if b.label == "Make it a run"]
    assert store.list_runs() == []


@pytest.mark.parametrize("data", [PICKLES["torch.save"], PICKLES["pickle 5"]])
def test_a_pickle_is_refused_with_the_way_to_convert_it(data: bytes) -> None:
    app = upload(page(), "export:weights", "weights.pt", data)
    assert "can run any program" in sentences(app, "error")[0]
    assert CONVERT in [code.value for code in app.main.code]


@pytest.mark.parametrize("name", ["nothing", "cut in the data", "an HTML page", "a terrible name"])
def test_a_hostile_file_is_one_sentence(name: str) -> None:
    app = upload(page(), "export:weights", "w.safetensors", HOSTILE[name][0])
    assert len(sentences(app, "error")) == 1


def test_names_from_a_file_are_not_taken_for_markdown() -> None:
    name = "![x](http://a.host/b.png) :red[**a**] <b>"
    app = upload(page(), "export:weights", "w.safetensors", raw({name: tensor([1])}, b"\0" * 4))
    assert name in sentences(app, "error")[0]
    shown_as_markdown = app.main.error[0].value
    assert not re.search(r"(?<!\\)[\[\]*:<>]", shown_as_markdown)


def test_onnx_comes_from_another_process_with_a_runs_weights(store: RunStore) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    import numpy as np
    import torch

    from nin_core.recipes import RECIPES

    model = trained_like(NARROW)
    run_id = store.create(NARROW, RECIPES["fast"].configure(NARROW), "shapes")
    store.save_checkpoint(run_id, 1, 1, saved(model.state_dict()))
    blob = view.onnx_file(NARROW, run_id)
    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    images = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        expected = load_model(NARROW, saved(model.state_dict()))(images).numpy()
    (found,) = session.run(None, {"images": images.numpy()})
    assert np.abs(found - expected).max() <= 1e-5
    with pytest.raises(RuntimeError, match="no run #99"):
        view.onnx_file(NARROW, 99)


def test_weights_of_a_run_that_is_gone(store: RunStore) -> None:
    with pytest.raises(ConfigError, match="no weights"):
        weights_file(store, 5)
