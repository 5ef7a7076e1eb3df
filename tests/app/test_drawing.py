"""The drawing's part of the Architecture page: what is sent to the browser, without a browser."""

from __future__ import annotations

import base64
import gzip
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, NiNConfig, sample_image, summarize
from nin_core.receptive_field import Step, steps_to
from tests.app.test_architecture import component, page, text
from tests.core.test_diagram import ODD
from ui import diagram, theme
from ui.components import field, svg
from ui.components.diagram import _checked
from ui.laboratory import drawing

pytestmark = pytest.mark.usefixtures("store")


def shown(app: AppTest) -> dict[str, Any]:
    return component(app, "architecture:diagram")


def explored(app: AppTest) -> dict[str, Any]:
    return component(app, "architecture:field")


def test_one_drawing_for_each_width_in_one_component() -> None:
    data = shown(page(net="nin-224"))
    assert [width for width, _ in data["drawings"]] == list(diagram.WIDTHS)
    assert data["download"] == "nin-224-diagram"
    assert data["clicks"]
    assert data["selected"] is None


def test_the_chosen_layer_is_lit_up_and_looked_through() -> None:
    app = page(net="nin-224", layer="pool2")
    assert shown(app)["selected"] == "pool2"
    assert explored(app)["layer"] == "pool2"
    # A ReLU has no volume: the convolution in front of it has the same one.
    app = page(net="nin-224", layer="block2.relu_1")
    assert shown(app)["selected"] == explored(app)["layer"] == "block2.conv1x1_1"


def test_without_a_choice_or_with_one_that_is_not_there_the_class_maps_are_looked_through() -> None:
    for query in ({}, {"layer": "block9.conv"}):
        app = page(net="nin-224", **query)
        assert shown(app)["selected"] is None
        assert explored(app)["layer"] == "block4.conv1x1_2"


def test_both_warnings_are_said_where_they_apply() -> None:
    words = text(page(net="nin-28"))
    assert ":orange[:material/warning:] One value of a class map could see 35×35" in words
    assert "no window reaches" in text(page(net="nin-224"))
    assert ":orange[:material/warning:]" not in text(page(net="nin-224", view="compare"))


NETWORKS = [(name, config) for name, config in (PRESETS | ODD).items()]


@pytest.mark.parametrize(("name", "config"), NETWORKS)
def test_the_browser_gets_the_steps_that_the_library_computes_with(
    name: str, config: NiNConfig
) -> None:
    network = summarize(config)
    layers = drawing.field_layers(network)
    assert [layer.name for layer in layers] == [
        layer.name for layer in network.layers if diagram.is_drawn(layer)
    ]
    for index, layer in enumerate(layers):
        steps = tuple(Step(*entry.step) for entry in layers[: index + 1] if entry.step)
        assert steps == steps_to(network, layer.name)
        assert layer.color in theme.LAYER_COLORS.values()


def test_the_picture_is_what_its_caption_says() -> None:
    data = explored(page(net="nin-28"))
    head, _, encoded = data["picture"].partition(",")
    assert head == "data:image/png;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    sample = sample_image.sample_image()
    assert (pixels == sample.pixels).all()
    assert data["caption"] == f"{sample.title}, 28×28."
    assert not data["smooth"]
    data = explored(page(net="nin-224"))
    assert data["smooth"]
    assert data["caption"].endswith("28×28 resized to 224×224, as the network gets it.")


def test_a_field_needs_a_layer_that_is_there_and_a_grey_picture() -> None:
    network = summarize(PRESETS["nin-28"])
    layers = drawing.field_layers(network)
    grey = np.zeros((28, 28), np.uint8)
    with pytest.raises(ValueError, match="There is no layer 'block9'; there are block1"):
        field(layers, grey, image_size=28, key="k", layer="block9")
    with pytest.raises(ValueError, match=r"not float64 \[28, 28\]"):
        field(layers, grey.astype(float), image_size=28, key="k", layer="pool1")


# --- the sample picture -----------------------------------------------------------------------


@pytest.fixture
def empty_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No data set anywhere; returns the data folder."""
    place = sample_image._place
    monkeypatch.setenv("NIN_DATA", str(tmp_path))
    monkeypatch.setattr(
        sample_image,
        "_place",
        lambda packing, file: place(replace(packing, system_folders=()), file),
    )
    return tmp_path


def test_without_a_data_set_a_generated_picture_says_so(empty_folders: Path) -> None:
    sample = sample_image.sample_image()
    assert sample.title.startswith("a generated picture (")
    assert sample.pixels.shape == (28, 28)
    assert sample.pixels.dtype == np.uint8


def test_files_that_are_not_the_published_ones_are_not_shown(empty_folders: Path) -> None:
    folder = empty_folders / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "t10k-images-idx3-ubyte").write_bytes(bytes(7_840_016))
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz", "wb") as stream:
        stream.write(bytes(10_008))
    assert sample_image.sample_image().title.startswith("a generated picture (")
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no archive")
    assert sample_image.sample_image().title.startswith("a generated picture (")


def test_the_real_picture_is_the_data_sets_first(fashion_mnist: Any) -> None:
    sample = sample_image.sample_image()
    assert sample.title == "Fashion-MNIST, first test image (Ankle boot)"
    assert (sample.pixels == fashion_mnist.test_images[0, 0].numpy()).all()


# --- the drawing component --------------------------------------------------------------------

MARKUP = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 4">{}</svg>'


@pytest.mark.parametrize(
    ("inside", "sentence"),
    [
        ("<style>a{fill:URL(//x.y/z)}</style>", "must not load"),
        (r"<style>a{fill:\75rl(//x.y/z)}</style>", "must not load"),
        ('<rect fill="&#117;rl(//x.y/z)"/>', "must not load"),
        ("<style>@&#105;mport 'x'</style>", "must not load"),
        ('<g ONCLICK="x"/>', "attribute onclick"),
        ('<g xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="//x.y"/>', "attribute href"),
        ("<foreignObject/>", "must not hold <foreignObject>"),
    ],
)
def test_a_drawing_that_loads_or_runs_something_is_refused(inside: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        svg(MARKUP.format(inside), key="k")
    with pytest.raises(ValueError, match=sentence):
        svg({0: MARKUP.format(""), 500: MARKUP.format(inside)}, key="k")


def test_harmless_drawings_are_not_refused() -> None:
    inside = r'<rect fill="url(#hatch)"/><text>C:\curl &amp; @home &#8594;</text><g data-id="a"/>'
    assert _checked(MARKUP.format(inside)) == {"a"}


def test_there_must_be_a_drawing() -> None:
    with pytest.raises(ValueError, match="at least one drawing"):
        svg({}, key="k")
