"""The Feature maps page without a browser: every state it can be in, and that its numbers hold.

The generated shapes stand in for a data set where the pictures do not matter: they are always
there.
"""

from __future__ import annotations

import io
import json
import struct
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, BlockConfig, NiNConfig, PoolConfig
from nin_core.data import Dataset, DatasetStatus, load_dataset
from nin_core.datasets import DATASETS
from nin_core.features import (
    class_maps,
    extract_feature_maps,
    pooled_as,
    strongest_activations,
    untrained_model,
)
from nin_core.images import to_network_input
from nin_core.recipes import RECIPES
from nin_core.records import MetricRow, WorkerId
from nin_core.store import RunStore
from tests.conftest import dashboard
from ui.components.sprite import quantise
from ui.feature_views.stages import stages

UPLOAD = "PNG, JPEG or WebP, at most 5 MB and 4 megapixels"
NETWORK = NiNConfig(
    in_channels=1,
    image_size=28,
    num_classes=10,
    blocks=(
        BlockConfig((5, 7, 4), kernel_size=5, stride=2, padding=2, pool=PoolConfig(3, 2)),
        BlockConfig((6, 10), kernel_size=3, padding=1),
    ),
    global_pool="avg",
    final_relu=False,
    batch_norm=True,
)


@pytest.fixture(autouse=True)
def _shapes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are drawn once for all tests, though each test empties the server's caches."""
    monkeypatch.setattr("nin_core.data.load_dataset", load_once)


@cache
def load_once(name: str) -> Dataset:
    return load_dataset(name)


def add_run(
    store: RunStore,
    network: NiNConfig = NETWORK,
    dataset: str = "shapes",
    weights: bytes | str | None = "untrained",
    *,
    running: bool = False,
    step: int = 7,
) -> int:
    """A run as a worker would have left it (or is leaving it)."""
    train = RECIPES["fast"].configure(network)
    run_id = store.create(network, train, dataset)
    attempt = store.claim(run_id, WorkerId("elsewhere", 1))
    if weights == "untrained":
        weights = save(untrained_model(network, seed=run_id).state_dict())
    if weights is not None:
        assert isinstance(weights, bytes)
        store.save_checkpoint(run_id, step, 1, weights)
        store.add_metrics(run_id, [MetricRow("step", 1, step, 1.0)], attempt=attempt)
    if not running:
        store.transition(run_id, "finished", attempt=attempt)
    return run_id


def opened(**query: str) -> AppTest:
    app = dashboard("feature_maps", **query).run()
    assert not app.exception
    return app


def settled(app: AppTest) -> AppTest:
    """Run until the background has nothing left to show."""
    deadline = time.monotonic() + 60
    while app.run() and app.main.get("progress"):
        assert not app.exception
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not app.exception
    return app


def show(app: AppTest, view: str) -> AppTest:
    app.main.segmented_control(key="fm:view").set_value(view).run()
    assert not app.exception
    return app


def widget(app: AppTest, kind: str, label: str) -> Any:
    found = [w for w in app.main.get(kind) if w.label == label]
    assert len(found) == 1, f"{len(found)} {kind} with the label {label}"
    return found[0]


def said(app: AppTest, kind: str) -> str:
    return "\n".join(element.value for element in app.main.get(kind))


def tables(app: AppTest) -> list[str]:
    return [html.proto.body for html in app.main.get("html") if "<table" in html.proto.body]


def pooling_table(app: AppTest) -> str:
    return next(table for table in tables(app) if "Logits and probabilities" in table)


def pictures(app: AppTest) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
    """Key of each picture of maps -> what its component was told, and the numbers it was sent."""
    parcels: dict[str, bytes] = {}
    told: dict[str, dict[str, Any]] = {}
    for component in app.main.get("bidi_component"):
        if component.proto.component_name == "nin_parcel":
            data = component.proto.bytes
            length = struct.unpack("<I", data[:4])[0]
            header = json.loads(data[4 : 4 + length])
            parcels[header["id"]] = data[4 + length :]
            sizes = {entry["name"]: entry for entry in header["arrays"]}
            assert next(iter(sizes.values()))["offset"] == 0
        elif component.proto.component_name == "nin_sprite":
            data = json.loads(component.proto.json)
            told[data["key"]] = data
    found = {}
    for key, data in told.items():
        count = int(np.prod(data["shape"]))
        numbers = np.frombuffer(parcels[data["parcel"]], "<i2", count).reshape(data["shape"])
        found[key] = (data, numbers)
    return found


def shape_image(number_in_class: int = 0, label: int = 0) -> np.ndarray:
    shapes = load_once("shapes")
    index = np.flatnonzero(shapes.test_labels.numpy() == label)[number_in_class]
    return shapes.test_images[int(index)].numpy()


def fed(network: NiNConfig, pixels: np.ndarray, data: str = "shapes", **changes: Any) -> Any:
    info = DATASETS[data]
    return to_network_input(
        pixels,
        channels=info.channels,
        side=info.side,
        network=network,
        mean=info.mean,
        std=info.std,
        **changes,
    ).network_input


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class TestFirstStart:
    @pytest.fixture(autouse=True)
    def _empty(self, store: RunStore) -> None:
        pass

    def test_the_untrained_network_is_shown(self) -> None:
        app = opened()
        assert "No run has weights yet" in said(app, "caption")
        assert widget(app, "selectbox", "Network").value == "untrained"
        assert "Untrained, it would say" in said(app, "markdown")
        assert pictures(app)["fm-after"][0]["shape"] == [6, 30, 30]
        assert pictures(show(app, "lens"))["fm-lens"][0]["shape"] == [6, 30, 30]
        assert pictures(show(app, "answer"))["fm-classes"][0]["shape"] == [10, 2, 2]

    def test_the_sidebars_network_and_the_seed_decide(self) -> None:
        app = opened(net="nin-28")
        before = pictures(app)["fm-after"][1]
        assert before.shape == (32, 28, 28)
        widget(app, "number_input", "Seed").set_value(1).run()
        assert not app.exception
        after = pictures(app)["fm-after"][1]
        assert not np.array_equal(before, after)

    def test_shapes_serve_where_no_other_data_set_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        only_shapes(monkeypatch)
        app = opened()
        assert widget(app, "selectbox", "Pictures").options == ["Shapes (generated)"]
        assert widget(app, "selectbox", "Class").options[1] == "Circle"

    def test_a_link_to_a_run_that_is_not_there(self) -> None:
        app = opened(run="41")
        assert "run #41 does not exist" in said(app, "info")
        assert widget(app, "selectbox", "Network").value == "untrained"

    @pytest.mark.parametrize("query", [{"net": "nin-cifar10"}, {"net": "nin-28", "in": "4"}])
    def test_other_numbers_of_input_channels(self, query: dict[str, str]) -> None:
        assert "fm-classes" in pictures(opened(**query, view="answer"))

    def test_other_numbers_of_classes(self) -> None:
        app = opened(net="nin-28", classes="7", blocks="8-8_k5s2p2~8-7_k3s1p1", view="answer")
        assert "Class 6" in pooling_table(app)
        assert pictures(app)["fm-classes"][0]["labels"] == [f"Class {i}" for i in range(7)]

    def test_of_many_classes_the_strongest_are_shown(self) -> None:
        query = {"net": "nin-28", "classes": "100", "blocks": "8-8_k5s2p2~8-100_k3s1p1"}
        app = opened(**query, view="answer")
        assert pictures(app)["fm-classes"][0]["shape"][0] == 12
        assert "Of 100 classes" in said(app, "caption")

    def test_a_layer_with_too_many_values_comes_in_parts(self) -> None:
        app = opened(net="nin-28", blocks="1500-10_k5s1p2~10_k3s1p1", relu="1")
        data, numbers = pictures(app)["fm-after"]
        assert numbers.shape == (1275, 28, 28)
        widget(app, "selectbox", "Maps: channels").set_value(1275).run()
        data, numbers = pictures(app)["fm-after"]
        assert numbers.shape == (225, 28, 28)
        assert data["labels"][0] == "1275"

    def test_a_network_too_large_for_a_page_is_refused_in_a_sentence(self) -> None:
        app = opened(net="nin-224", image="1024", widths="96-512-1024")
        assert "choose smaller widths or a smaller image" in said(app, "warning")

    def test_a_block_without_1x1_layers_and_a_network_of_one_block(self) -> None:
        app = opened(net="nin-28", blocks="10_k28s1p0")
        assert pictures(app)["fm-after"][0]["shape"] == [10, 1, 1]
        assert "no 1×1 convolutions" in said(show(app, "lens"), "info")


def only_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> DatasetStatus:
        return DatasetStatus(name, DATASETS[name].title, name == "shapes", "", "")

    monkeypatch.setattr("nin_core.data.find_dataset", find)


class TestRuns:
    def test_the_newest_with_weights_is_shown(self, store: RunStore) -> None:
        first = add_run(store)
        second = add_run(store)
        waiting = add_run(store, weights=None, running=True)
        app = opened()
        choice = widget(app, "selectbox", "Network")
        assert choice.value == str(second)
        assert [text.split()[0] for text in choice.options] == [
            f"#{second}",
            f"#{first}",
            "Untrained:",
        ]
        assert f"#{waiting}" not in " ".join(choice.options)
        assert "trained to its end (epoch 1, step 7)" in said(app, "caption")
        assert app.query_params["run"] == str(second)
        choice.set_value(str(first)).run()
        assert widget(app, "selectbox", "Network").value == str(first)
        app.run()
        assert widget(app, "selectbox", "Network").value == str(first)

    def test_its_numbers_are_the_librarys(self, store: RunStore) -> None:
        run = add_run(store)
        model = untrained_model(NETWORK, seed=run)
        image = fed(NETWORK, shape_image())
        expected = extract_feature_maps(model, image)
        app = opened()
        for stage in stages(NETWORK):
            widget(app, "selectbox", "Layer").set_value(stage.after).run()
            assert not app.exception
            sides = {"after": stage.after}
            if stage.before != stage.after:
                sides["before"] = stage.before
            for side, layer in sides.items():
                if len(sides) > 1:
                    widget(app, "button_group", "What comes out").set_value(side).run()
                shown = pictures(app)
                np.testing.assert_array_equal(shown["fm-after"][1], quantise(expected[layer])[0])
                if stage.kind == "conv1x1":
                    entering = quantise(expected[stage.entering])[0]
                    np.testing.assert_array_equal(shown["fm-before"][1], entering)
                else:
                    assert "fm-before" not in shown

        answer = class_maps(model, image)
        data, numbers = pictures(show(app, "answer"))["fm-classes"]
        np.testing.assert_array_equal(numbers, quantise(answer.maps)[0])
        captions = [float(caption.replace("−", "-")) for caption in data["captions"]]
        assert captions == pytest.approx(answer.logits.tolist(), rel=5e-4)  # four digits
        assert data["selected"] == answer.logits.argmax()
        for probability in answer.probabilities:
            assert f"{probability * 100:.1f}\u00a0%" in pooling_table(app)

    def test_a_pixel_that_was_clicked_leads_to_the_lens(self, store: RunStore) -> None:
        add_run(store)
        app = opened()
        widget(app, "selectbox", "Layer").set_value("block1.relu_1").run()
        assert "Click a map to see it large over the picture" in said(app, "caption")
        app.session_state["fm:clicked"] = ("block1.relu_1", 6, 12, 1)
        app.run()
        widget(app, "button", "Follow pixel (12, 1) through the 1×1 lens").click().run()
        assert not app.exception
        assert app.query_params["view"] == "lens"
        assert "Pixel (12, 1) through block 1" in said(app, "markdown")
        assert widget(app, "selectbox", "Maps to click in").value == "block1.relu_1"
        assert widget(app, "number_input", "Output channel").value == 6

    def test_next_goes_through_the_class_and_starts_again(self, store: RunStore) -> None:
        add_run(store)
        app = opened()
        widget(app, "selectbox", "Class").set_value(3).run()
        last = widget(app, "number_input", "Number (0–99)").set_value(99)
        last.run()
        expected = extract_feature_maps(
            untrained_model(NETWORK, seed=1), fed(NETWORK, shape_image(0, 3)), ["block1.relu"]
        )["block1.relu"]
        widget(app, "button", "Next").click().run()
        assert widget(app, "number_input", "Number (0–99)").value == 0
        np.testing.assert_array_equal(pictures(app)["fm-after"][1], quantise(expected)[0])

    def test_one_that_trains_is_shown_with_its_latest_weights(self, store: RunStore) -> None:
        run = add_run(store, running=True)
        app = opened()
        assert "still training; these are its latest saved weights" in said(app, "caption")
        before = pictures(app)["fm-after"][1]
        weights = save(untrained_model(NETWORK, seed=99).state_dict())
        store.save_checkpoint(run, 20, 2, weights)
        widget(app, "button", "Show newer weights").click().run()
        assert "(epoch 2, step 20)" in said(app, "caption")
        assert not np.array_equal(before, pictures(app)["fm-after"][1])

    def test_one_without_a_checkpoint_is_announced(self, store: RunStore) -> None:
        run = add_run(store, weights=None, running=True)
        app = opened(run=str(run))
        assert f"Run #{run} has no checkpoint yet" in said(app, "info")
        assert "it appears here after" in said(app, "caption")
        store.save_checkpoint(run, 1, 1, save(untrained_model(NETWORK).state_dict()))
        app.run()
        assert widget(app, "selectbox", "Network").value == str(run)

    def test_a_damaged_checkpoint(self, store: RunStore) -> None:
        add_run(store, weights=b"not safetensors")
        assert "cannot be read as safetensors" in said(opened(), "error")

    def test_weights_of_another_network(self, store: RunStore) -> None:
        add_run(store, weights=save(untrained_model(PRESETS["nin-28"]).state_dict()))
        assert "the checkpoint's 'block1.conv.weight' is [32, 1, 5, 5]" in said(opened(), "error")

    def test_one_that_diverged(self, store: RunStore) -> None:
        state = untrained_model(NETWORK).state_dict()
        state["block1.conv.weight"] = torch.full_like(state["block1.conv.weight"], torch.nan)
        add_run(store, weights=save(state))
        app = opened()
        assert "this run diverged" in said(app, "warning")
        assert "fm-after" in pictures(app)

    def test_one_whose_class_maps_are_all_dead(self, store: RunStore) -> None:
        network = replace(NETWORK, final_relu=True, batch_norm=False)
        state = untrained_model(network).state_dict()
        state["block2.conv1x1_1.bias"] = torch.full((10,), -1e3)
        add_run(store, network, weights=save(state))
        app = opened()
        assert "All logits are equal" in said(app, "warning")
        assert pooling_table(show(app, "answer")).count("all zero") == 10

    def test_one_trained_without_standardising(self, store: RunStore) -> None:
        train = replace(RECIPES["fast"].configure(NETWORK), standardize=False)
        run = store.create(NETWORK, train, "shapes")
        store.save_checkpoint(run, 1, 1, save(untrained_model(NETWORK, 4).state_dict()))
        image = to_network_input(
            shape_image(), channels=1, side=28, network=NETWORK, mean=None, std=None
        ).network_input
        expected = extract_feature_maps(untrained_model(NETWORK, 4), image, ["block1.relu"])
        shown = pictures(opened())["fm-after"][1]
        np.testing.assert_array_equal(shown, quantise(expected["block1.relu"])[0])

    def test_its_data_set_may_be_gone(
        self, store: RunStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        only_shapes(monkeypatch)
        add_run(store, PRESETS["nin-cifar10"], "cifar10")
        app = opened()
        assert "CIFAR-10 is not on this computer" in said(app, "info")
        assert widget(app, "selectbox", "Class").options[1] == "Circle"
        labels = pictures(show(app, "answer"))["fm-classes"][0]["labels"]
        assert labels == list(DATASETS["cifar10"].class_names)
        assert ": right" not in said(app, "markdown")

    def test_its_network_may_be_one_this_version_cannot_read(self, store: RunStore) -> None:
        import sqlalchemy as sa

        run = add_run(store)
        engine = sa.create_engine(store.url)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE runs SET network = '{}'"))
        engine.dispose()
        app = opened(run=str(run))
        assert "cannot read the run's network" in said(app, "info")
        assert widget(app, "selectbox", "Network").value == "untrained"


def test_a_store_that_cannot_be_opened(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NIN_DATABASE_URL", f"sqlite:///{tmp_path}/file/runs.db")
    app = opened()
    assert "Runs cannot be shown" in said(app, "warning")
    assert "fm-after" in pictures(app)


def test_the_view_is_in_the_url_and_an_unknown_one_is_said(store: RunStore) -> None:
    app = opened(view="answer")
    assert app.query_params["view"] == "answer"
    assert show(app, "maps").query_params["view"] == "maps"
    assert "There is no view 'attic'" in said(opened(view="attic"), "warning")


class TestAnswer:
    @pytest.fixture
    def model(self, store: RunStore) -> torch.nn.Sequential:
        return untrained_model(NETWORK, seed=add_run(store))

    def test_the_other_pooling_is_an_experiment(self, model: torch.nn.Sequential) -> None:
        answer = class_maps(model, fed(NETWORK, shape_image()))
        app = opened(view="answer")
        assert "Sum ÷ n" in pooling_table(app)
        widget(app, "button_group", "Pool by").set_value("max").run()
        assert not app.exception
        assert "is an experiment" in said(app, "caption")
        assert "Largest at" in pooling_table(app)
        for logit in pooled_as(answer, "max").logits:
            assert f">{logit:.4g}<".replace("-", "−") in pooling_table(app)

    def test_only_the_strongest_tenth(self, model: torch.nn.Sequential) -> None:
        answer = class_maps(model, fed(NETWORK, shape_image()))
        app = opened(view="answer")
        widget(app, "toggle", "Top 10 % only").set_value(True).run()
        assert not app.exception
        expected = strongest_activations(answer.maps)
        data, numbers = pictures(app)["fm-classes"]
        np.testing.assert_array_equal(numbers, quantise(expected)[0])
        assert data["dead"] == []  # the maps have values; they are only not drawn
        assert f"Of the {(expected != 0).sum()} strongest activations" in said(app, "caption")

    def test_any_class_can_be_followed(self, model: torch.nn.Sequential) -> None:
        answer = class_maps(model, fed(NETWORK, shape_image()))
        app = opened(view="answer")
        chosen = widget(app, "selectbox", "Class to follow")
        assert chosen.value == answer.logits.argmax()
        chosen.set_value(int(answer.logits.argmin())).run()
        assert not app.exception
        name = DATASETS["shapes"].class_names[answer.logits.argmin()]
        n = answer.maps[0].size
        logit = f"{answer.logits.min():.4g}".replace("-", "−")
        words = said(app, "caption")
        assert f"{name}'s logit is the sum of its" in words
        assert f" ÷ {n} = {logit}." in words
        assert pictures(app)["fm-classes"][0]["selected"] == answer.logits.argmin()


class TestUploads:
    @pytest.fixture
    def app(self, store: RunStore) -> AppTest:
        add_run(store)
        app = opened()
        widget(app, "button_group", "Picture").set_value("upload").run()
        assert not app.exception
        return app

    def give(self, app: AppTest, data: bytes, name: str = "picture.png") -> None:
        widget(app, "file_uploader", UPLOAD).set_value((name, data, "image/png")).run()
        assert not app.exception

    def test_nothing_yet(self, app: AppTest) -> None:
        assert "Choose a picture" in said(app, "info")
        assert not pictures(app)

    def test_a_picture_of_the_data_set_gives_the_same_maps(self, app: AppTest) -> None:
        pixels = shape_image()
        self.give(app, png(Image.fromarray(pixels[0])))
        expected = extract_feature_maps(
            untrained_model(NETWORK, seed=1), fed(NETWORK, pixels), ["block1.relu"]
        )
        shown = pictures(app)["fm-after"][1]
        np.testing.assert_array_equal(shown, quantise(expected["block1.relu"])[0])
        assert not widget(app, "toggle", "Invert").value

    def test_a_bright_background_is_inverted_and_that_is_said(self, app: AppTest) -> None:
        pixels = shape_image()
        self.give(app, png(Image.fromarray(255 - pixels[0])))
        assert widget(app, "toggle", "Invert").value
        assert "inverting is suggested and on" in said(app, "caption")
        model = untrained_model(NETWORK, seed=1)
        expected = extract_feature_maps(model, fed(NETWORK, pixels))["block1.relu"]
        np.testing.assert_array_equal(pictures(app)["fm-after"][1], quantise(expected)[0])
        widget(app, "toggle", "Invert").set_value(False).run()
        assert "suggested, but off" in said(app, "caption")
        expected = extract_feature_maps(model, fed(NETWORK, 255 - pixels))["block1.relu"]
        np.testing.assert_array_equal(pictures(app)["fm-after"][1], quantise(expected)[0])

    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            (b"", "not a PNG, JPEG or WebP"),
            (b"GIF89a" + bytes(50), "not a PNG, JPEG or WebP"),
            (png(Image.new("RGB", (90, 90)))[:80], "damaged or cut off"),
            (png(Image.new("1", (2001, 2000))), "more than 4 megapixels"),
        ],
    )
    def test_a_broken_one_gets_a_sentence(self, app: AppTest, data: bytes, sentence: str) -> None:
        self.give(app, data)
        assert sentence in said(app, "error")
        assert not pictures(app)
