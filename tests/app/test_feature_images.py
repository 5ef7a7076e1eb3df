"""Which picture the Feature maps page looks at, and one map large over it, without a browser.

The generated shapes are the test set; `run_every` does not tick here, so the tests wait for the
background themselves and run again.
"""

from __future__ import annotations

import base64
import io
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

from nin_core import summarize
from nin_core.channels import importance, map_gradients
from nin_core.data import Dataset, DatasetStatus
from nin_core.datasets import DATASETS
from nin_core.evaluation import by_confidence, wrong_images
from nin_core.features import class_maps, extract_feature_maps, untrained_model
from nin_core.predictions import PreparedImages, predict
from nin_core.receptive_field import steps_to
from nin_core.store import RunStore
from tests.app.test_feature_maps import (
    NETWORK,
    UPLOAD,
    add_run,
    fed,
    load_once,
    opened,
    pictures,
    png,
    said,
    settled,
    shape_image,
    tables,
    widget,
)
from tests.core.test_images import hostile_files
from ui.components import closeup, draw, gallery
from ui.components.draw import MAX_BYTES, _accept
from ui.components.sprite import quantise
from ui.feature_images import PAGE, UNSURE

SHAPES = DATASETS["shapes"]


@pytest.fixture(autouse=True)
def _shapes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nin_core.data.load_dataset", load_once)


def sent(app: AppTest, component: str) -> list[dict[str, Any]]:
    """What components of a kind were told."""
    return [
        json.loads(element.proto.json)
        for element in app.main.get("bidi_component")
        if element.proto.component_name == component
    ]


def parcel_of(app: AppTest, name: str) -> dict[str, np.ndarray]:
    for element in app.main.get("bidi_component"):
        data = element.proto.bytes
        if not data:
            continue
        length = int.from_bytes(data[:4], "little")
        header = json.loads(data[4 : 4 + length])
        if header["id"] == name:
            return {
                entry["name"]: np.frombuffer(
                    data[4 + length :], f"<{entry['dtype']}", entry["length"], entry["offset"]
                )
                for entry in header["arrays"]
            }
    raise AssertionError(f"no parcel {name}")


def shown_index(app: AppTest) -> int:
    """The test image at hand, from the link."""
    name, _, number = app.query_params["picture"].rpartition("-")
    assert name == "shapes"
    return int(number)


def logits(seed: int = 1) -> np.ndarray:
    images = PreparedImages(load_once("shapes").test_images, NETWORK, SHAPES.mean, SHAPES.std)
    return predict(untrained_model(NETWORK, seed), images)


def labels() -> np.ndarray:
    return load_once("shapes").test_labels.numpy()


class TestTheTestSet:
    @pytest.fixture
    def app(self, store: RunStore) -> AppTest:
        add_run(store)
        return opened()

    def test_all_classes_are_browsed_by_their_index(self, app: AppTest) -> None:
        widget(app, "selectbox", "Class").set_value(-1).run()
        widget(app, "number_input", "Number (0–999)").set_value(321).run()
        assert not app.exception
        assert shown_index(app) == 321
        told = sent(app, "nin_gallery")[0]
        first = 321 // PAGE * PAGE
        assert told["selected"] == 321 - first
        assert told["labels"][0] == (f"{SHAPES.class_names[labels()[first]]}, test image {first:,}")
        assert len(told["labels"]) == PAGE

    def test_a_class_that_is_chosen_keeps_the_picture_if_it_is_in_it(self, app: AppTest) -> None:
        widget(app, "selectbox", "Class").set_value(-1).run()
        widget(app, "number_input", "Number (0–999)").set_value(500).run()
        widget(app, "selectbox", "Class").set_value(int(labels()[500])).run()
        assert shown_index(app) == 500
        other = int(labels()[500] + 1) % 10
        widget(app, "selectbox", "Class").set_value(other).run()
        assert shown_index(app) == np.flatnonzero(labels() == other)[0]

    def test_at_random_means_another_one_of_the_list(self, app: AppTest) -> None:
        members = np.flatnonzero(labels() == 0)
        seen = {shown_index(app)}
        for _ in range(4):
            before = shown_index(app)
            widget(app, "button", "Random").click().run()
            assert shown_index(app) != before
            assert shown_index(app) in members
            seen.add(shown_index(app))
        assert len(seen) > 2

    def test_a_click_in_the_gallery_chooses(self, app: AppTest) -> None:
        app.session_state["fm:number"] = 3  # what its callback does
        app.run()
        assert shown_index(app) == np.flatnonzero(labels() == 0)[3]
        assert sent(app, "nin_gallery")[0]["selected"] == 3

    def test_only_what_it_gets_wrong(self, app: AppTest) -> None:
        widget(app, "selectbox", "Class").set_value(-1).run()
        widget(app, "selectbox", "Show").set_value("wrong").run()
        settled(app)
        wrong = wrong_images(logits(), labels())
        number = widget(app, "number_input", f"Number (0–{len(wrong) - 1})")
        for place in (0, len(wrong) // 2, len(wrong) - 1):
            number.set_value(place).run()
            assert shown_index(app) == wrong[place]
            assert "; it is " in said(app, "markdown")
            number = widget(app, "number_input", f"Number (0–{len(wrong) - 1})")
        tip = sent(app, "nin_gallery")[0]["labels"][-1]
        taken = SHAPES.class_names[logits()[wrong[-1]].argmax()]
        assert tip.endswith(f"test image {wrong[-1]}, taken for {taken}")

    def test_only_what_it_gets_wrong_of_a_class(self, app: AppTest) -> None:
        widget(app, "selectbox", "Show").set_value("wrong").run()
        settled(app)
        for label in range(10):
            widget(app, "selectbox", "Class").set_value(label).run()
            assert not app.exception
            wrong = wrong_images(logits(), labels())
            wrong = wrong[labels()[wrong] == label]
            if len(wrong):
                assert shown_index(app) == wrong[0]
                assert widget(app, "number_input", f"Number (0–{len(wrong) - 1})").value == 0
            else:
                assert "the network gets no such image wrong" in said(app, "info")

    def test_only_what_it_is_least_sure_of(self, app: AppTest) -> None:
        widget(app, "selectbox", "Class").set_value(-1).run()
        widget(app, "selectbox", "Show").set_value("unsure").run()
        settled(app)
        order = by_confidence(logits())[:UNSURE]
        for place in (0, 1, UNSURE - 1):
            widget(app, "number_input", f"Number (0–{UNSURE - 1})").set_value(place).run()
            assert shown_index(app) == order[place]

    def test_the_page_goes_on_while_it_is_asked(
        self, app: AppTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def slow(*args: Any, progress: Any = None, **rest: Any) -> np.ndarray:
            for done in range(100):
                time.sleep(0.05)
                progress(done, 100)
            return logits()

        monkeypatch.setattr("nin_core.predictions.predict", slow)
        before = shown_index(app)
        widget(app, "selectbox", "Show").set_value("wrong").run()
        assert not app.exception
        assert app.main.get("progress")
        assert shown_index(app) == before
        assert "fm-after" in pictures(app)
        widget(app, "selectbox", "Show").set_value("all").run()
        assert not app.main.get("progress")

    def test_a_run_that_trains_on_is_asked_anew_only_on_request(self, store: RunStore) -> None:
        run = add_run(store, running=True)
        app = opened(run=str(run))
        widget(app, "selectbox", "Class").set_value(-1).run()
        widget(app, "selectbox", "Show").set_value("wrong").run()
        settled(app)
        before = len(wrong_images(logits(run), labels()))
        store.save_checkpoint(run, 20, 2, save(untrained_model(NETWORK, 99).state_dict()))
        app.run()
        assert "has trained on since" in said(app, "caption")
        assert widget(app, "number_input", f"Number (0–{before - 1})")
        widget(app, "button", "Ask it anew").click().run()
        settled(app)
        after = len(wrong_images(logits(99), labels()))
        assert widget(app, "number_input", f"Number (0–{after - 1})")

    def test_classes_of_its_own_are_neither_right_nor_wrong(self, store: RunStore) -> None:
        blocks = (NETWORK.blocks[0], replace(NETWORK.blocks[1], channels=(6, 7)))
        add_run(store, replace(NETWORK, num_classes=7, blocks=blocks))
        app = opened()
        widget(app, "selectbox", "Show").set_value("wrong").run()
        assert not app.exception
        assert "none of its answers is right or wrong" in said(app, "caption")

    def test_a_diverged_run_has_no_doubts_to_list(self, store: RunStore) -> None:
        state = untrained_model(NETWORK).state_dict()
        state["block1.conv.weight"] = torch.full_like(state["block1.conv.weight"], torch.nan)
        add_run(store, weights=save(state))
        app = opened()
        widget(app, "selectbox", "Show").set_value("unsure").run()
        settled(app)
        assert "its answers are not numbers" in said(app, "info")

    def test_every_class_has_its_probability_beside_the_picture(self, app: AppTest) -> None:
        answer = class_maps(untrained_model(NETWORK, 1), fed(NETWORK, shape_image()))
        beside = next(table for table in tables(app) if "nin-beside" in table)
        assert "data:image/png" in beside
        for name, share in zip(SHAPES.class_names, answer.probabilities, strict=True):
            row = beside.partition(f"<th>{name}</th>")[2].partition("</tr>")[0]
            assert f">{share * 100:.1f}\u00a0%<" in row or share < 0.001


class TestTheLink:
    def test_it_names_picture_and_layer_and_shows_the_same(self, store: RunStore) -> None:
        add_run(store)
        app = opened(picture="shapes-777", layer="block2.relu")
        assert shown_index(app) == 777
        assert widget(app, "selectbox", "Class").value == labels()[777]
        assert widget(app, "selectbox", "Layer").value == "block2.relu"
        pixels = load_once("shapes").test_images[777].numpy()
        maps = extract_feature_maps(untrained_model(NETWORK, 1), fed(NETWORK, pixels))
        np.testing.assert_array_equal(
            pictures(app)["fm-after"][1], quantise(maps["block2.relu"])[0]
        )
        widget(app, "selectbox", "Layer").set_value("pool1").run()
        widget(app, "button", "Next").click().run()
        assert app.query_params["layer"] == "pool1"
        members = np.flatnonzero(labels() == labels()[777])
        assert shown_index(app) == members[(members.tolist().index(777) + 1) % len(members)]

    def test_for_the_untrained_network_it_names_the_data_set_too(self, store: RunStore) -> None:
        app = opened(picture="shapes-5")
        assert widget(app, "selectbox", "Pictures").value == "shapes"
        assert shown_index(app) == 5

    def test_for_the_untrained_network_it_names_the_seed(self, store: RunStore) -> None:
        app = opened(picture="shapes-5", seed="3")
        assert widget(app, "number_input", "Seed").value == 3
        widget(app, "number_input", "Seed").set_value(7).run()
        assert app.query_params["seed"] == "7"
        widget(app, "number_input", "Seed").set_value(0).run()
        assert "seed" not in app.query_params

    @pytest.mark.parametrize(
        ("link", "sentence"),
        [
            ("shapes-1000", "no test image 1,000; the last is 999"),
            ("attic", "picture 'attic' is not known"),
            ("shapes-x", "fashion-mnist-12 would work"),
            ("cifar10-3", "picture is of CIFAR-10; shown are those of Shapes"),
        ],
    )
    def test_what_it_cannot_name_is_said(self, store: RunStore, link: str, sentence: str) -> None:
        add_run(store)
        app = opened(picture=link)
        assert sentence in said(app, "info")
        assert shown_index(app) == np.flatnonzero(labels() == 0)[0]

    def test_a_layer_that_is_not_there_is_said(self, store: RunStore) -> None:
        add_run(store)
        app = opened(layer="block9.relu")
        assert "no layer 'block9.relu'" in said(app, "info")
        assert app.query_params["layer"] == "block1.relu"

    def test_an_upload_and_a_drawing_have_their_place(self, store: RunStore) -> None:
        add_run(store)
        assert widget(opened(picture="upload"), "file_uploader", UPLOAD)
        app = opened(picture="draw")
        assert sent(app, "nin_draw")
        assert app.query_params["picture"] == "draw"


class TestUploads:
    @pytest.fixture
    def app(self, store: RunStore) -> AppTest:
        add_run(store)
        return opened(picture="upload")

    def give(self, app: AppTest, data: bytes, name: str = "picture.png") -> AppTest:
        widget(app, "file_uploader", UPLOAD).set_value((name, data, "image/png")).run()
        assert not app.exception
        return app

    def strip(self, app: AppTest) -> str:
        return next(h.proto.body for h in app.main.get("html") if "nin-steps" in h.proto.body)

    def test_webp_in_colour_with_every_step_on_the_way(self, app: AppTest) -> None:
        picture = Image.new("RGB", (90, 60), "white")
        picture.paste((200, 30, 30), (30, 10, 60, 50))
        file = io.BytesIO()
        picture.save(file, "WEBP", lossless=True)
        self.give(app, file.getvalue(), "red.webp")
        strip = self.strip(app)
        for step in ("read<br>90×60", "middle cut out<br>60×60", "in grey<br>60×60",
                     "resized<br>28×28", "inverted<br>28×28"):  # fmt: skip
            assert step in strip
        pixels = np.moveaxis(np.asarray(picture), 2, 0)
        expected = extract_feature_maps(
            untrained_model(NETWORK, 1), fed(NETWORK, pixels, invert=True), ["block1.relu"]
        )["block1.relu"]
        np.testing.assert_array_equal(pictures(app)["fm-after"][1], quantise(expected)[0])

    def test_all_of_it_can_be_fitted(self, app: AppTest) -> None:
        pixels = np.zeros((1, 40, 100), np.uint8)
        pixels[:, 5:30, 10:90] = 180
        self.give(app, png(Image.fromarray(pixels[0])))
        widget(app, "button_group", "Make it square").set_value("fit").run()
        assert not app.exception
        assert "fitted<br>100×100" in self.strip(app)
        expected = extract_feature_maps(
            untrained_model(NETWORK, 1), fed(NETWORK, pixels, square="fit"), ["block1.relu"]
        )["block1.relu"]
        np.testing.assert_array_equal(pictures(app)["fm-after"][1], quantise(expected)[0])

    def test_a_square_needs_no_choice(self, app: AppTest) -> None:
        self.give(app, png(Image.fromarray(shape_image()[0])))
        assert not [w for w in app.main.get("button_group") if w.label == "Make it square"]

    def test_it_is_kept_while_other_pictures_are_looked_at(self, app: AppTest) -> None:
        self.give(app, png(Image.fromarray(shape_image()[0])), "mine.png")
        before = pictures(app)["fm-after"][1]
        for source in ("test", "upload"):
            widget(app, "button_group", "Picture").set_value(source).run()
        assert "mine.png, uploaded before" in said(app, "caption")
        np.testing.assert_array_equal(pictures(app)["fm-after"][1], before)

    def test_hostile_files_get_a_picture_or_a_sentence(self, app: AppTest) -> None:
        files = list(hostile_files().items())
        answered = 0
        for name, data in files[::9]:
            self.give(app, data, "upload.png")
            if "fm-after" in pictures(app):
                answered += 1
            else:
                assert said(app, "error").endswith("."), name
        assert 0 < answered < len(files[::9])


class TestDrawings:
    def drawn(self, app: AppTest, pixels: np.ndarray) -> AppTest:
        """What the canvas's callback keeps after a stroke."""
        app.session_state["last click: fm-draw-grey"] = png(Image.fromarray(pixels))
        app.run()
        assert not app.exception
        return app

    def test_the_network_answers_to_what_is_drawn(self, store: RunStore) -> None:
        add_run(store)
        app = opened(picture="draw")
        assert "the network answers after each stroke" in said(app, "info")
        assert not pictures(app)
        told = sent(app, "nin_draw")[0]
        assert (told["side"], told["pixels"], told["paper"]) == (28, 280, "#000000")
        pixels = np.zeros((280, 280), np.uint8)
        for shade in (255, 120):
            pixels[60:100, 40:200] = shade
            self.drawn(app, pixels)
            expected = extract_feature_maps(
                untrained_model(NETWORK, 1), fed(NETWORK, pixels[None]), ["block1.relu"]
            )["block1.relu"]
            np.testing.assert_array_equal(pictures(app)["fm-after"][1], quantise(expected)[0])
        app.session_state["last click: fm-draw-grey"] = b""  # rubbed out
        app.run()
        assert not pictures(app)

    def test_a_canvas_that_sends_no_picture_gets_a_sentence(self, store: RunStore) -> None:
        add_run(store)
        app = opened(picture="draw")
        app.session_state["last click: fm-draw-grey"] = b"\x89PNG\r\n\x1a\nnothing"
        app.run()
        assert not app.exception
        assert "damaged or cut off" in said(app, "error")

    def test_only_a_png_is_taken_from_the_browser(self) -> None:
        assert _accept("data:image/png;base64,AAEC") == b"\x00\x01\x02"
        assert _accept("") == b""
        for bad in (None, 7, ["x"], "data:image/svg+xml;base64,AAEC", "data:image/png;base64,A!",
                    "data:image/png;base64," + "A" * (2 * MAX_BYTES)):  # fmt: skip
            assert _accept(bad) is None


class TestColour:
    """A data set in colour: CIFAR-10's shape, with pixels of our own."""

    NETWORK = replace(NETWORK, in_channels=3, image_size=32)

    @pytest.fixture
    def app(self, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> AppTest:
        def load(name: str) -> Dataset:
            return self.data() if name == "cifar10" else load_once(name)

        def find(name: str) -> DatasetStatus:
            return DatasetStatus(name, DATASETS[name].title, True, "", "")

        monkeypatch.setattr("nin_core.data.load_dataset", load)
        monkeypatch.setattr("nin_core.data.find_dataset", find)
        add_run(store, self.NETWORK, "cifar10")
        return opened()

    @staticmethod
    def data() -> Dataset:
        info = DATASETS["cifar10"]
        generator = torch.Generator().manual_seed(0)
        size = (40, 3, 32, 32)
        pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        classes = torch.arange(40) % 10
        return Dataset(
            info.name, info.title, pixels, classes, pixels, classes, info.class_names, info.mean,
            info.std, False, "",
        )  # fmt: skip

    def expected(self, pixels: np.ndarray) -> np.ndarray:
        image = fed(self.NETWORK, pixels, "cifar10")
        maps = extract_feature_maps(untrained_model(self.NETWORK, 1), image, ["block1.relu"])
        return quantise(maps["block1.relu"])[0]

    def test_its_images_are_browsed_in_colour(self, app: AppTest) -> None:
        widget(app, "number_input", "Number (0–3)").set_value(2).run()
        assert not app.exception
        strip = sent(app, "nin_gallery")[0]["strip"].partition(",")[2]
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(strip))))
        assert image.shape == (32, 4 * 32, 3)
        pixels = self.data().test_images[20].numpy()
        np.testing.assert_array_equal(image[:, 64:96], pixels.transpose(1, 2, 0))
        np.testing.assert_array_equal(pictures(app)["fm-after"][1], self.expected(pixels))

    def test_drawings_have_colours_on_white(self, app: AppTest) -> None:
        widget(app, "button_group", "Picture").set_value("draw").run()
        told = sent(app, "nin_draw")[0]
        assert told["paper"] == "#ffffff"
        assert len(told["colors"]) > 5
        pixels = np.full((320, 320, 3), 255, np.uint8)
        pixels[50:200, 90:140] = (200, 40, 40)
        app.session_state["last click: fm-draw-colour"] = png(Image.fromarray(pixels))
        app.run()
        assert not app.exception
        shown = pictures(app)["fm-after"][1]
        np.testing.assert_array_equal(shown, self.expected(pixels.transpose(2, 0, 1)))

    def test_a_grey_upload_gets_its_three_channels(self, app: AppTest) -> None:
        widget(app, "button_group", "Picture").set_value("upload").run()
        grey = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
        file = ("grey.png", png(Image.fromarray(grey)), "image/png")
        widget(app, "file_uploader", UPLOAD).set_value(file).run()
        assert not app.exception
        assert not widget(app, "toggle", "Invert").value
        strip = next(h.proto.body for h in app.main.get("html") if "nin-steps" in h.proto.body)
        assert "in colour<br>64×64" in strip
        np.testing.assert_array_equal(pictures(app)["fm-after"][1], self.expected(grey[None]))


MAP, PICTURE = np.zeros((3, 4), np.int16), np.zeros((8, 8), np.uint8)
LARGE: dict[str, Any] = {
    "decimals": 2,
    "reach": 5,
    "steps": [(3, 2, 1, 4)],
    "key": "large",
    "name": "0",
    "pixel": (0, 0),
}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: gallery(PICTURE[None] / 1.0, labels=["a"], key="g"), "must be uint8"),
        (lambda: gallery(PICTURE[None], labels=[], key="g"), "1 pictures but 0 labels"),
        (lambda: draw(key="d", side=28, colors=[], paper="#000000"), "at least one colour"),
        (lambda: closeup(MAP / 1.0, PICTURE, **LARGE), "must be int16"),
        (lambda: closeup(MAP, PICTURE / 1.0, **LARGE), "picture must be uint8"),
        (lambda: closeup(MAP, PICTURE, **{**LARGE, "pixel": (3, 0)}), "3×4, so it has no pixel"),
    ],
)
def test_components_say_what_they_cannot_show(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


class TestOneMapLarge:
    @pytest.fixture
    def app(self, store: RunStore) -> AppTest:
        add_run(store)
        return opened(layer="block1.relu_1")

    def click(self, app: AppTest, layer: str, channel: int, row: int, column: int) -> None:
        app.session_state["fm:clicked"] = (layer, channel, row, column)
        app.run()
        assert not app.exception

    def maps(self) -> dict[str, np.ndarray]:
        return extract_feature_maps(untrained_model(NETWORK, 1), fed(NETWORK, shape_image()))

    def test_nothing_is_large_before_a_click(self, app: AppTest) -> None:
        assert not sent(app, "nin_closeup")
        assert "Click a map to see it large over the picture" in said(app, "caption")

    @pytest.mark.parametrize("layer", ["block1.relu_1", "block1.relu"])
    def test_it_has_the_maps_values_and_the_way_to_its_pixels(
        self, app: AppTest, layer: str
    ) -> None:
        self.click(app, layer, 3, 12, 1)
        told = sent(app, "nin_closeup")[0]
        numbers, decimals = quantise(self.maps()[layer])
        shown = parcel_of(app, told["values"])["values"].reshape(told["shape"])
        np.testing.assert_array_equal(shown, numbers[3])
        assert told["decimals"] == decimals
        assert told["reach"] == np.abs(numbers).max()
        assert told["pixel"] == [12, 1]
        assert told["name"] == "3"
        steps = steps_to(summarize(NETWORK), layer)
        assert [tuple(step) for step in told["steps"]] == list(steps)
        image = parcel_of(app, told["image"])["image"].reshape(told["imageShape"])
        np.testing.assert_array_equal(image, shape_image()[0])
        grid, other = ("fm-after", "fm-before")[:: 1 if layer == "block1.relu_1" else -1]
        assert pictures(app)[grid][0]["selected"] == 3
        assert pictures(app)[other][0]["selected"] is None
        assert pictures(app)[grid][0]["pixel"] == [12, 1]

    def test_each_maps_own_colours(self, app: AppTest) -> None:
        widget(app, "button_group", "Colours").set_value("map").run()
        self.click(app, "block1.relu_1", 3, 12, 1)
        numbers, _ = quantise(self.maps()["block1.relu_1"])
        assert sent(app, "nin_closeup")[0]["reach"] == numbers[3].max()
        assert pictures(app)["fm-after"][0]["ownScales"]

    def test_before_its_relu(self, app: AppTest) -> None:
        self.click(app, "block1.relu_1", 3, 12, 1)
        widget(app, "button_group", "What comes out").set_value("before").run()
        told = sent(app, "nin_closeup")[0]
        shown = parcel_of(app, told["values"])["values"].reshape(told["shape"])
        expected = quantise(self.maps()["block1.conv1x1_1"])[0]
        np.testing.assert_array_equal(shown, expected[3])
        assert shown.min() < 0

    def test_a_pooling_map_too(self, app: AppTest) -> None:
        widget(app, "selectbox", "Layer").set_value("pool1").run()
        self.click(app, "pool1", 2, 4, 4)
        told = sent(app, "nin_closeup")[0]
        shown = parcel_of(app, told["values"])["values"].reshape(told["shape"])
        np.testing.assert_array_equal(shown, quantise(self.maps()["pool1"])[0][2])
        assert not [b for b in app.main.button if b.label.startswith("Follow pixel")]

    def test_it_closes_and_goes_with_its_layer(self, app: AppTest) -> None:
        self.click(app, "block1.relu_1", 3, 12, 1)
        widget(app, "selectbox", "Layer").set_value("block2.relu").run()
        assert not sent(app, "nin_closeup")
        widget(app, "selectbox", "Layer").set_value("block1.relu_1").run()
        assert sent(app, "nin_closeup")
        widget(app, "button", "Close").click().run()
        assert not sent(app, "nin_closeup")

    def test_a_pixel_that_a_smaller_network_does_not_have(self, app: AppTest) -> None:
        self.click(app, "block1.relu_1", 6, 40, 1)
        assert not sent(app, "nin_closeup")

    def test_the_channels_stand_in_the_order_that_is_chosen(self, app: AppTest) -> None:
        model, image = untrained_model(NETWORK, 1), fed(NETWORK, shape_image())
        answer = int(class_maps(model, image).logits.argmax())
        for order, score in {
            "mean": lambda maps, _: maps.mean(axis=(1, 2)),
            "maximum": lambda maps, _: maps.max(axis=(1, 2)),
            "active": lambda maps, _: (maps > 0).mean(axis=(1, 2)),
            "importance": lambda maps, layer: np.abs(
                importance(maps, map_gradients(model, image, layer, answer))
            ),
        }.items():
            widget(app, "selectbox", "Order of the channels").set_value(order).run()
            assert not app.exception
            for key, layer in (("fm-after", "block1.relu_1"), ("fm-before", "block1.relu")):
                maps = self.maps()[layer]
                ranked = np.argsort(-score(maps, layer), kind="stable")
                data, numbers = pictures(app)[key]
                labelled = data["labels"] or list(map(str, range(len(maps))))
                assert labelled == [str(channel) for channel in ranked]
                np.testing.assert_array_equal(numbers, quantise(maps)[0][ranked])

    def test_a_dead_channel_is_marked_wherever_it_stands(self, store: RunStore) -> None:
        network = replace(NETWORK, batch_norm=False)
        state = untrained_model(network).state_dict()
        state["block1.conv1x1_1.bias"][2] = -1e3
        run = add_run(store, network, weights=save(state))
        app = opened(run=str(run), layer="block1.relu_1")
        data, numbers = pictures(app)["fm-after"]
        dead = np.flatnonzero((numbers == 0).all(axis=(1, 2))).tolist()
        assert data["dead"] == dead
        assert 2 in dead
        assert len(dead) < len(numbers)
        widget(app, "selectbox", "Order of the channels").set_value("maximum").run()
        data, _ = pictures(app)["fm-after"]
        assert [data["labels"][place] for place in data["dead"]] == list(map(str, dead))
