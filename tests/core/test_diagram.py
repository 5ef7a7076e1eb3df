"""The drawing of a network: well formed, complete, to scale, and no text over anything else."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings

from nin_core import PRESETS, BlockConfig, NiNConfig, PoolConfig, summarize
from nin_core.operations import lost_pixels, pixels_seen
from tests.core.strategies import networks
from ui import diagram, diagram_shapes, home_picture
from ui.components.diagram import _checked

SVG = "{http://www.w3.org/2000/svg}"
POOL = PoolConfig(3, 2)

ODD = {
    "no 1×1 layers": NiNConfig(
        1, 28, 10, (BlockConfig((8,), 3, padding=1, pool=POOL), BlockConfig((10,), 3, padding=1))
    ),
    "four 1×1 layers": NiNConfig(
        3, 32, 10, (BlockConfig((64,) * 5, 5, padding=2), BlockConfig((64, 64, 64, 64, 10), 3))
    ),
    "one block": NiNConfig(1, 28, 10, (BlockConfig((10,), 28),), dropout=0.0),
    "twelve blocks": NiNConfig(
        1,
        64,
        100,
        (*[BlockConfig((16, 16, 16), 3, padding=1)] * 11, BlockConfig((16, 100), 3, padding=1)),
    ),
    "widest": NiNConfig(
        1, 32, 1000, (BlockConfig((4096, 64), 3, pool=POOL), BlockConfig((1000,), 1))
    ),
    "larger maps than the image": NiNConfig(1, 5, 2, (BlockConfig((4, 2), 9, padding=8),)),
}
CASES = [(name, config) for name, config in (PRESETS | ODD).items()]
WIDTHS = diagram.WIDTHS


@dataclass(frozen=True)
class Box:
    """Something drawn, in the drawing's pixels."""

    what: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        slack = 0.5
        return (
            self.left < other.right - slack
            and other.left < self.right - slack
            and self.top < other.bottom - slack
            and other.top < self.bottom - slack
        )


def boxes(svg: str) -> tuple[list[Box], list[Box]]:
    """(texts, shapes) of a drawing, with the groups' translations applied."""
    texts: list[Box] = []
    shapes: list[Box] = []

    def visit(element: ElementTree.Element, x: float, y: float) -> None:
        if move := re.fullmatch(r"translate\((\S+) (\S+)\)", element.get("transform", "")):
            x, y = x + float(move[1]), y + float(move[2])
        name = element.tag.removeprefix(SVG)
        get = lambda key: float(element.get(key, "0"))  # noqa: E731
        if name == "text":
            words = element.text or ""
            width = diagram.text_width(words)
            left = x + get("x") - (width / 2 if element.get("text-anchor") == "middle" else 0)
            base = y + get("y")
            texts.append(Box(words, left, base - 9.5, left + width, base + 3))
        elif name == "rect" and element.get("class") not in ("card", "hit"):
            left, top = x + get("x"), y + get("y")
            shapes.append(Box("rect", left, top, left + get("width"), top + get("height")))
        elif name == "circle":
            cx, cy, r = x + get("cx"), y + get("cy"), get("r")
            shapes.append(Box("circle", cx - r, cy - r, cx + r, cy + r))
        elif name == "polygon":
            points = [tuple(map(float, p.split(","))) for p in element.get("points", "").split()]
            xs, ys = [x + p[0] for p in points], [y + p[1] for p in points]
            shapes.append(Box("polygon", min(xs), min(ys), max(xs), max(ys)))
        for child in element:
            visit(child, x, y)

    visit(ElementTree.fromstring(svg), 0.0, 0.0)
    return texts, shapes


def check_layout(svg: str, width: int) -> None:
    root = ElementTree.fromstring(svg)
    _, _, right, bottom = map(float, root.get("viewBox", "").split())
    assert right <= width
    texts, shapes = boxes(svg)
    for box in texts + shapes:
        assert box.left >= -1 and box.top >= -1, box
        assert box.right <= right + 1 and box.bottom <= bottom + 1, box
    for index, text in enumerate(texts):
        for other in texts[index + 1 :] + shapes:
            assert not text.meets(other), f"{text} lies over {other}"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("name", "config"), CASES)
def test_no_text_lies_over_anything_and_all_is_inside(
    name: str, config: NiNConfig, width: int
) -> None:
    check_layout(diagram.network_svg(config, width), width)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_any_network_can_be_drawn(config: NiNConfig) -> None:
    for width in WIDTHS:
        check_layout(diagram.network_svg(config, width), width)


@pytest.mark.parametrize(("name", "config"), CASES)
def test_every_layer_with_a_shape_of_its_own_is_there_and_explained(
    name: str, config: NiNConfig
) -> None:
    root = ElementTree.fromstring(diagram.network_svg(config, 960))
    groups = {g.get("data-id"): g for g in root.iter(f"{SVG}g") if g.get("data-id")}
    layers = [
        layer
        for layer in summarize(config).layers
        if layer.kind not in ("relu", "batch_norm", "flatten")
    ]
    assert list(groups) == [layer.name for layer in layers]
    for layer in layers:
        title = groups[layer.name].findtext(f"{SVG}title") or ""
        assert title.startswith(layer.name)
        if layer.kind == "dropout":
            continue
        assert "×".join(map(str, layer.output_shape)) in title
        assert f"field: {layer.receptive_field}×{layer.receptive_field} image pixels" in title
        if layer.parameters:
            assert f"{layer.parameters:,} parameters" in title


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("name", "config"), CASES)
def test_volumes_are_to_scale(name: str, config: NiNConfig, width: int) -> None:
    root = ElementTree.fromstring(diagram.network_svg(config, width))
    layers = {layer.name: layer.output_shape for layer in summarize(config).layers}
    sides, lengths = [], []
    for group in root.iter(f"{SVG}g"):
        front = group.find(f"{SVG}rect[@class='f']")
        if not group.get("class", "").startswith("layer") or front is None:
            continue
        image = (config.in_channels, config.image_size, config.image_size)
        channels, size, _ = layers.get(group.get("data-id", ""), image)
        height, length = float(front.get("height")), float(front.get("width"))
        if height > diagram.SMALLEST:
            sides.append((height, size))
        lengths.append((length, math.sqrt(channels)))
    assert len(lengths) >= len(config.blocks) + 1
    for pairs in (sides, lengths):
        # Drawn to a tenth of a pixel, so each leaves a range of scales; one must suit all.
        lowest = max((drawn - 0.051) / real for drawn, real in pairs)
        highest = min((drawn + 0.051) / real for drawn, real in pairs)
        assert lowest <= highest, pairs


def test_kinds_differ_in_symbol_and_in_colour() -> None:
    symbols = {role: draw(0.0) for role, draw in diagram_shapes.SYMBOLS.items()}
    assert len(set(symbols.values())) == len(symbols)
    fills = re.findall(r"\.(conv|conv1x1|pool|dropout|head) \.f\{fill:(#\w+)", diagram_shapes.STYLE)
    assert len({color for _, color in fills}) == 5


def test_a_wider_block_grows_alone() -> None:
    """Dragging a slider must not rescale the rest of the drawing."""
    config = PRESETS["nin-224"]
    size = diagram.size_for(960)
    before, after = summarize(config), summarize(config.with_widths((8, 500, 9)))
    assert diagram.scale_for(before, size) == diagram.scale_for(after, size)


def test_dropout_off_is_not_drawn() -> None:
    config = replace(PRESETS["nin-28"], dropout=0.0)
    assert 'data-id="dropout"' not in diagram.network_svg(config, 960)


def test_the_home_picture_is_well_formed_and_its_figures_are_computed() -> None:
    svg = home_picture.picture()
    texts, _ = boxes(svg)
    words = " ".join(text.what for text in texts)
    assert "43.0 M of AlexNet's 46.8 M" in words
    assert "1.99 M parameters" in words
    for index, text in enumerate(texts):
        assert text.bottom <= home_picture.HEIGHT
        for other in texts[index + 1 :]:
            assert not text.meets(other), f"{text} lies over {other}"


@pytest.mark.parametrize(("name", "config"), CASES)
def test_the_component_accepts_the_drawings_and_finds_the_layers(
    name: str, config: NiNConfig
) -> None:
    network = summarize(config)
    for width, svg in diagram.drawings(config).items():
        ids = _checked(svg)
        assert svg == diagram.network_svg(config, width)
        assert {diagram.drawn_as(network, layer) for layer in network.layers} == ids


def test_a_layer_without_a_volume_is_lit_up_as_the_one_it_follows() -> None:
    network = summarize(PRESETS["nin-28"])
    drawn = {layer.name: diagram.drawn_as(network, layer) for layer in network.layers}
    assert drawn["block1.conv"] == drawn["block1.bn"] == drawn["block1.relu"] == "block1.conv"
    assert drawn["block1.relu_2"] == "block1.conv1x1_2"
    assert drawn["pool1"] == "pool1"
    assert drawn["flatten"] == "global_pool"


@pytest.mark.parametrize(("name", "config"), CASES)
def test_warnings_stand_where_it_happens(name: str, config: NiNConfig) -> None:
    """Lost pixels at the very layer; the receptive field where it first exceeds the image."""
    root = ElementTree.fromstring(diagram.network_svg(config, 960))
    shown = {
        group.get("data-id"): [text.text for text in group.findall(f"{SVG}text[@class='warning']")]
        for group in root.iter(f"{SVG}g")
        if group.get("data-id")
    }
    network = summarize(config)
    exceeding = False
    for layer in network.layers:
        expected = []
        if layer.receptive_field > config.image_size and not exceeding:
            exceeding = True
            if layer.kernel_size:
                expected.append(f"field {layer.receptive_field} > {config.image_size} px")
        before = layer.input_shape[1] if len(layer.input_shape) == 3 else 0
        if lost_pixels(layer):
            expected.append(f"sees {pixels_seen(layer)} of {before} px")
        assert shown.get(layer.name, []) == expected
