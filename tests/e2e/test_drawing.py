"""The drawing of the network in a browser: choosing layers, receptive fields, downloads."""

from __future__ import annotations

import random
import re
from pathlib import Path
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from nin_core import PRESETS, BlockConfig, NiNConfig, PoolConfig, summarize
from nin_core.receptive_field import receptive_field, steps_to
from tests.e2e.conftest import OpenTab
from tests.e2e.harness import NARROW, WIDE, Dashboard, set_slider, visit, wait_idle
from ui import diagram, link

SVG = "{http://www.w3.org/2000/svg}"
DRAWING = ".nin-svg svg"
MAP = ".nin-field-map"
IMAGE = ".nin-field-image"

# Every kind of cut: padding, lost pixels, gaps, a field beyond the image.
CUT = NiNConfig(
    1,
    30,
    4,
    (
        BlockConfig((3, 3), 3, stride=2, pool=PoolConfig(3, 2, 1)),
        BlockConfig((3,), 1, stride=2, padding=0),
        BlockConfig((3, 4), 3, padding=2),
    ),
)


def choose_layer(page: Page, name: str) -> None:
    page.get_by_label("Layer", exact=True).select_option(name)
    expect(page.locator(f'.nin-svg [data-id="{name}"]')).to_have_class(re.compile("selected"))
    wait_idle(page)


def told(page: Page) -> dict[str, str]:
    """The figures beside the picture."""
    terms = page.locator(".nin-field-told dt").all_inner_texts()
    return dict(zip(terms, page.locator(".nin-field-told dd").all_inner_texts(), strict=True))


def rectangle(page: Page, name: str) -> tuple[int, int, int, int]:
    """(first row, last row, first column, last column) of a rectangle drawn on the picture."""
    script = """(node) => ['x', 'y', 'width', 'height'].map((n) => Number(node.getAttribute(n)))"""
    x, y, width, height = page.locator(f"{IMAGE} .{name}").evaluate(script)
    return y, y + height - 1, x, x + width - 1


def point_at(page: Page, row: int, column: int, cells: int) -> tuple[float, float]:
    """Where the middle of a cell of the map is on the screen."""
    page.locator(MAP).scroll_into_view_if_needed()
    box = page.locator(MAP).bounding_box()
    assert box is not None
    return (
        box["x"] + box["width"] * (column + 0.5) / cells,
        box["y"] + box["height"] * (row + 0.5) / cells,
    )


def cell(page: Page) -> tuple[int, int]:
    return tuple(int(page.get_by_label(n, exact=True).input_value()) for n in ("Row", "Column"))  # type: ignore[return-value]


# --- choosing a layer -------------------------------------------------------------------------


def test_a_click_on_a_volume_chooses_the_layer_and_another_lets_go(
    page: Page, server: Dashboard
) -> None:
    visit(page, server, "/architecture?net=nin-224")
    layer = page.locator('.nin-svg [data-id="block2.conv"]')
    box = layer.locator("rect.f").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page).to_have_url(re.compile(r"[?&]layer=block2\.conv(&|$)"))
    expect(layer).to_have_class(re.compile("selected"))
    expect(layer).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Layer", exact=True)).to_have_value("block2.conv")
    assert layer.locator(".hit").evaluate("(node) => getComputedStyle(node).stroke") != "none"

    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(layer).not_to_have_class(re.compile("selected"))
    wait_idle(page)
    assert "layer=" not in page.url


def test_the_choice_stays_while_a_slider_moves(page: Page, server: Dashboard) -> None:
    visit(page, server, "/architecture?net=nin-224&layer=block3.conv1x1_1")
    layer = page.locator('.nin-svg [data-id="block3.conv1x1_1"]')
    expect(layer).to_have_class(re.compile("selected"))
    page.get_by_label("Row", exact=True).fill("3")
    set_slider(page, "Block 3 channels", 380)
    expect(layer).to_have_class(re.compile("selected"))
    expect(layer.locator("text").last).to_have_text("380×12×12")
    assert cell(page)[0] == 3
    expect(page.get_by_label("Layer", exact=True)).to_have_value("block3.conv1x1_1")


def test_only_the_widest_drawing_that_fits_is_on_the_page(
    new_page: OpenTab, server: Dashboard
) -> None:
    config = PRESETS["nin-224"]
    for size, width in ((WIDE, 960), (NARROW, 358)):
        page = new_page(size)
        visit(page, server, "/architecture?net=nin-224")
        root = ElementTree.fromstring(diagram.network_svg(config, width))
        expect(page.locator(DRAWING)).to_have_count(1)
        expect(page.locator(DRAWING)).to_have_attribute("viewBox", root.get("viewBox", ""))
        sideways = "() => document.querySelector('[data-testid=stMain]')"
        assert page.evaluate(f"{sideways}.scrollWidth") <= size[0]
    # The window grows: another drawing, without a word to Python.
    page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
    wide = ElementTree.fromstring(diagram.network_svg(config, 960)).get("viewBox", "")
    expect(page.locator(DRAWING)).to_have_attribute("viewBox", wide)


# --- receptive fields -------------------------------------------------------------------------


def test_pointing_at_a_cell_of_the_class_maps(page: Page, server: Dashboard) -> None:
    visit(page, server, "/architecture?net=nin-224")
    page.mouse.move(*point_at(page, 0, 4, 5))
    assert cell(page) == (0, 4)
    assert rectangle(page, "seen") == (0, 130, 64, 218)
    assert rectangle(page, "whole") == (-64, 130, 64, 258)
    figures = told(page)
    assert figures["Image rows"] == "0 to 130 (of 224)"
    assert figures["Image columns"] == "64 to 218 (of 224)"
    assert figures["Receptive field"] == "195 × 195"


@pytest.mark.parametrize(("name", "config"), [("cut", CUT), *PRESETS.items()])
def test_the_browser_computes_what_the_library_computes(
    page: Page, server: Dashboard, name: str, config: NiNConfig
) -> None:
    query = link.to_query(config, "nin-28")
    visit(page, server, f"/architecture?{urlencode(query)}")
    network = summarize(config)
    drawn = [layer for layer in network.layers if diagram.is_drawn(layer)]
    chance = random.Random(name)
    for layer in chance.sample(drawn, 4):
        choose_layer(page, layer.name)
        steps = steps_to(network, layer.name)
        side = layer.output_shape[1]
        for row, column in ((0, side - 1), (chance.randrange(side), chance.randrange(side))):
            page.get_by_label("Row", exact=True).fill(str(row))
            page.get_by_label("Column", exact=True).fill(str(column))
            rows, columns = (receptive_field(steps, config.image_size, i) for i in (row, column))
            assert rectangle(page, "seen") == (*rows.seen, *columns.seen), (layer.name, row, column)
            assert rectangle(page, "whole") == (*rows.whole, *columns.whole)
            outside = [
                f"{count} {side_}"
                for count, side_ in zip(
                    (*rows.padding, *columns.padding),
                    ("above", "below", "left", "right"),
                    strict=True,
                )
                if count
            ]
            assert told(page)["In the padding"].startswith(", ".join(outside) or "nothing")
            larger = page.get_by_text(f"larger than the {config.image_size}")
            expect(larger).to_have_count(int(layer.receptive_field > config.image_size))


def test_the_keyboard_moves_through_the_map_and_fields_refuse_what_is_no_cell(
    page: Page, server: Dashboard
) -> None:
    visit(page, server, "/architecture?net=nin-224&layer=pool3")
    assert cell(page) == (2, 2)
    page.locator(MAP).focus()
    for key, place in (
        ("ArrowUp", (1, 2)),
        ("ArrowRight", (1, 3)),
        ("End", (1, 4)),
        ("ArrowRight", (1, 4)),  # the border
        ("PageDown", (4, 4)),
    ):
        page.keyboard.press(key)
        assert cell(page) == place
    row = page.get_by_label("Row", exact=True)
    row.fill("9")
    assert rectangle(page, "whole")[0] == 4 * 32 - 2 * 8 - 1 * 16  # paddings of blocks 2 and 3
    row.press("Tab")
    assert cell(page) == (4, 4)


def test_the_place_is_kept_from_layer_to_layer(page: Page, server: Dashboard) -> None:
    visit(page, server, "/architecture?net=nin-224&layer=block1.conv")
    page.mouse.move(*point_at(page, 0, 53, 54))
    assert cell(page) == (0, 53)
    choose_layer(page, "block4.conv")
    assert cell(page) == (0, 4)
    expect(page).to_have_url(re.compile(r"[?&]layer=block4\.conv(&|$)"))


def test_a_tap_points_at_a_cell(new_page: OpenTab, server: Dashboard) -> None:
    page = new_page(NARROW, dark=True)
    visit(page, server, "/architecture?net=nin-224&layer=block4.conv")
    x, y = point_at(page, 3, 1, 5)
    touch = {"pointerType": "touch", "clientX": x, "clientY": y, "bubbles": True}
    page.locator(MAP).dispatch_event("pointerdown", touch)
    assert cell(page) == (3, 1)
    steps = steps_to(summarize(PRESETS["nin-224"]), "block4.conv")
    rows, columns = (receptive_field(steps, 224, i) for i in (3, 1))
    assert rectangle(page, "seen") == (*rows.seen, *columns.seen)


# --- downloads --------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
def test_the_drawing_can_be_taken_away_as_svg_and_as_png(
    new_page: OpenTab, server: Dashboard, tmp_path: Path, dark: bool
) -> None:
    page = new_page(NARROW, dark=dark)
    visit(page, server, "/architecture?net=nin-28&layer=pool1")
    files = {}
    for kind in ("svg", "png"):
        with page.expect_download() as waiting:
            page.locator(".nin-svg-save").get_by_role("button", name=kind.upper()).click()
        assert waiting.value.suggested_filename == f"nin-28-diagram.{kind}"
        files[kind] = tmp_path / f"drawing.{kind}"
        waiting.value.save_as(files[kind])

    text = files["svg"].read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    ids = {group.get("data-id") for group in root.iter(f"{SVG}g")} - {None}
    layers = summarize(PRESETS["nin-28"]).layers
    assert ids == {layer.name for layer in layers if diagram.is_drawn(layer)}
    assert "var(" not in text
    ground = "#14171c" if dark else "#ffffff"
    assert root[0].get("fill") == ground
    # The widest drawing, whatever the page's width.
    width, height = int(root.get("width", "0")), int(root.get("height", "0"))
    widest = ElementTree.fromstring(diagram.network_svg(PRESETS["nin-28"], diagram.WIDTHS[-1]))
    margins = (width - int(widest.get("width", "0")), height - int(widest.get("height", "0")))
    assert margins[0] == margins[1] > 0

    with Image.open(files["png"]) as picture:
        assert picture.size == (2 * width, 2 * height)
        colors = picture.convert("RGB").getcolors(1 << 20) or []
        most = max(colors)[1]
        assert most == tuple(bytes.fromhex(ground[1:]))
        assert len(colors) > 50
