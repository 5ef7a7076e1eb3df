"""Pictures of the Feature maps page in a real browser: drawn, uploaded, listed; a map made large.

Untrained networks and the generated shapes: nothing here needs training, and every number can be
computed again. One has its last layer's weights enlarged, so that it has opinions.
"""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, expect
from safetensors.torch import save

from nin_core import PRESETS, NiNConfig, summarize
from nin_core.data import load_dataset
from nin_core.datasets import DATASETS
from nin_core.evaluation import by_confidence, wrong_images
from nin_core.features import class_maps, extract_feature_maps, untrained_model
from nin_core.images import Pixels, read_image, to_network_input
from nin_core.predictions import PreparedImages, predict
from nin_core.receptive_field import receptive_field, steps_to
from nin_core.recipes import RECIPES
from nin_core.records import WorkerId
from nin_core.store import RunStore
from tests.e2e.conftest import OpenTab
from tests.e2e.harness import (
    NARROW,
    Dashboard,
    cell_on_screen,
    choose,
    pick,
    press,
    upload,
    visit,
    wait_idle,
)

SHAPES = DATASETS["shapes"]
NETWORK = PRESETS["nin-28"]
SLIM = PRESETS["nin-slim-128"]
UPLOAD = "PNG, JPEG or WebP, at most 5 MB and 4 megapixels"
CANVAS = ".nin-draw canvas"
FACTS = ".nin-closeup dl"


def opinionated() -> torch.nn.Sequential:
    model = untrained_model(NETWORK)
    state = model.state_dict()
    state["block4.conv.weight"] *= 40
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module")
def run_id(server: Dashboard) -> int:
    """A run with the opinionated weights, as a worker would have left it."""
    store = RunStore(server.store_url)
    run = store.create(NETWORK, RECIPES["fast"].configure(NETWORK), "shapes")
    attempt = store.claim(run, WorkerId("elsewhere", 1))
    store.save_checkpoint(run, 7, 1, save(opinionated().state_dict()))
    store.transition(run, "finished", attempt=attempt)
    return run


def opened(page: Page, server: Dashboard, **query: str | int) -> None:
    asked = {"picture": "shapes-0", **query}
    words = "&".join(f"{name}={value}" for name, value in asked.items())
    visit(page, server, f"/feature_maps?{words}")


def opened_large(page: Page, server: Dashboard, layer: str) -> None:
    opened(page, server, run="untrained", net="nin-slim-128", layer=layer)


def fed(network: NiNConfig, pixels: Pixels) -> torch.Tensor:
    return to_network_input(
        pixels, channels=1, side=28, network=network, mean=SHAPES.mean, std=SHAPES.std
    ).network_input


def shape(index: int) -> Pixels:
    return load_dataset("shapes").test_images[index].numpy()


def probabilities(page: Page) -> dict[str, str]:
    """The table beside the picture."""
    rows = page.locator(".nin-beside tbody tr")
    expect(rows).to_have_count(len(SHAPES.class_names))
    return {
        row.locator("th").inner_text(): row.locator("td").first.inner_text() for row in rows.all()
    }


def says(page: Page, pixels: Pixels) -> None:
    """The page shows all probabilities of this picture."""
    answer = class_maps(opinionated(), fed(NETWORK, pixels))
    shown = probabilities(page)
    for name, share in zip(SHAPES.class_names, answer.probabilities, strict=True):
        figure = shown[name].split()[0].removeprefix("<")  # "<0.1 %"
        assert float(figure) == pytest.approx(100 * share, abs=0.1), name


def canvas_pixels(page: Page) -> Pixels:
    url = page.locator(CANVAS).evaluate("(canvas) => canvas.toDataURL('image/png')")
    return read_image(base64.b64decode(url.partition(",")[2]))


def stroke(page: Page, *points: tuple[float, float]) -> None:
    """Draw with the mouse; points are shares of the canvas."""
    page.locator(CANVAS).scroll_into_view_if_needed()
    box = page.locator(CANVAS).bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()
    wait_idle(page)


# --- drawing ----------------------------------------------------------------------------------


def test_drawing_with_the_mouse_changes_the_prediction(
    server: Dashboard, page: Page, run_id: int
) -> None:
    opened(page, server, run=run_id)
    pick(page, "Picture", "Draw")
    expect(page.get_by_text("the network answers after each stroke")).to_be_visible()
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    first = probabilities(page)
    says(page, canvas_pixels(page))
    stroke(page, (0.5, 0.1), (0.5, 0.9), (0.9, 0.9))
    assert probabilities(page) != first
    says(page, canvas_pixels(page))
    page.get_by_role("button", name="Undo", exact=True).click()
    wait_idle(page)
    assert probabilities(page) == first
    pick(page, "Picture", "Test images")
    pick(page, "Picture", "Draw")
    says(page, canvas_pixels(page))  # the drawing has stayed
    assert canvas_pixels(page).any()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_text("the network answers after each stroke")).to_be_visible()
    assert not canvas_pixels(page).any()


def test_drawing_with_the_keyboard(server: Dashboard, page: Page, run_id: int) -> None:
    opened(page, server, run=run_id, picture="draw")
    page.locator(CANVAS).focus()
    page.keyboard.press("ArrowLeft")
    assert not canvas_pixels(page).any()  # the pen is up
    page.keyboard.press("Space")
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    wait_idle(page)
    drawn = canvas_pixels(page)
    assert drawn[0, 140:190, 130].all()
    assert not drawn[0, :120].any()
    says(page, drawn)
    page.keyboard.press("ArrowRight")
    np.testing.assert_array_equal(canvas_pixels(page), drawn)
    page.keyboard.press("Control+z")
    expect(page.get_by_text("the network answers after each stroke")).to_be_visible()
    page.locator(CANVAS).focus()
    page.keyboard.press("Tab")  # the canvas lets go
    assert page.locator(CANVAS).evaluate("(c) => c.getRootNode().activeElement !== c")


def test_pens_and_the_eraser(server: Dashboard, page: Page, run_id: int) -> None:
    opened(page, server, run=run_id, picture="draw")
    tools = page.locator(".nin-draw-tools")
    tools.get_by_role("button", name="thick").click()
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    thick = canvas_pixels(page)
    assert thick[0, 120:160, 140].all()
    tools.get_by_role("button", name="thin").click()
    tools.get_by_role("button", name="eraser").click()
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    drawn = canvas_pixels(page)
    assert not drawn[0, 140, 60:220].any()
    assert drawn[0, 120, 140] == 255
    says(page, drawn)


# --- uploads and lists ------------------------------------------------------------------------


def test_an_upload_in_colour_is_fitted_and_answered(
    server: Dashboard, page: Page, run_id: int
) -> None:
    opened(page, server, run=run_id, picture="upload")
    picture = Image.new("RGB", (200, 100), "black")
    picture.paste((90, 200, 40), (40, 20, 190, 90))
    data = io.BytesIO()
    picture.save(data, "WEBP", lossless=True)
    upload(page, UPLOAD, "leaf.webp", data.getvalue(), "image/webp")
    pixels = np.moveaxis(np.asarray(picture), 2, 0)
    says(page, pixels)
    steps = page.get_by_role("list", name="Steps into the network")
    expect(steps).to_contain_text("middle cut out")
    pick(page, "Make it square", "Fit")
    expect(steps).to_contain_text("fitted")
    square = np.zeros((3, 200, 200), np.uint8)
    square[:, 50:150] = pixels
    says(page, square)


def test_mistakes_and_doubts_are_listed(server: Dashboard, page: Page, run_id: int) -> None:
    opened(page, server, run=run_id)
    shapes = load_dataset("shapes")
    images = PreparedImages(shapes.test_images, NETWORK, SHAPES.mean, SHAPES.std)
    logits = predict(opinionated(), images)
    every = page.get_by_role("combobox", name=re.compile("Class"))
    every.fill("All classes")
    every.press("Enter")
    wait_idle(page)
    choose(page, "Show", "Mistakes")
    wrong = wrong_images(logits, shapes.test_labels.numpy())
    expect(page.get_by_text(f"Number (0–{len(wrong) - 1})")).to_be_visible()
    page.locator(".nin-gallery button").nth(4).click()
    wait_idle(page)
    assert f"picture=shapes-{wrong[4]}" in page.url
    says(page, shape(int(wrong[4])))
    choose(page, "Show", "Least sure")
    expect(page.get_by_text("Number (0–99)")).to_be_visible()
    page.locator(".nin-gallery button").nth(0).click()
    wait_idle(page)
    press(page, "Next")
    assert f"picture=shapes-{by_confidence(logits)[1]}" in page.url


def test_a_link_shows_the_same_picture_and_layer(
    server: Dashboard, page: Page, new_page: OpenTab, run_id: int
) -> None:
    opened(page, server, run=run_id, picture="shapes-321")
    choose(page, "Layer", "Block 2 · 1×1 convolution 1 + batch norm + ReLU")
    press(page, "Next")
    other = new_page()
    other.goto(page.url)
    wait_idle(other)
    expect(other.locator(".nin-sprite-title").last).to_contain_text("64 maps of 13×13")
    assert probabilities(other) == probabilities(page)
    assert other.url == page.url


# --- one map, large ---------------------------------------------------------------------------


def facts(page: Page) -> dict[str, str]:
    terms = page.locator(f"{FACTS} dt").all_inner_texts()
    return dict(zip(terms, page.locator(f"{FACTS} dd").all_inner_texts(), strict=True))


def reads(page: Page, layer: str, channel: int, row: int, column: int) -> None:
    """The close-up names this cell, its value, and the pixels it sees."""
    expect(page.locator(FACTS)).to_contain_text(f"row {row}, column {column}")
    told = facts(page)
    assert told["Channel"] == str(channel)
    maps = extract_feature_maps(untrained_model(SLIM), fed(SLIM, shape(0)), [layer])[layer]
    value = float(told["Value"].replace("−", "-"))
    assert value == pytest.approx(
        float(maps[channel, row, column]), abs=float(np.abs(maps).max()) * 1e-3
    )
    steps = steps_to(summarize(SLIM), layer)
    rows, columns = (receptive_field(steps, SLIM.image_size, at) for at in (row, column))
    assert told["Sees"] == (
        f"{rows.seen.size}×{columns.seen.size} pixels: rows {rows.seen.first} to {rows.seen.last}, "
        f"columns {columns.seen.first} to {columns.seen.last}"
    )
    beyond = dict(
        zip(("above", "below", "left", "right"), (*rows.padding, *columns.padding), strict=True)
    )
    outside = ", ".join(f"{count} {side}" for side, count in beyond.items() if count)
    assert told.get("In the padding", "") == outside
    drawn = page.locator(".nin-closeup rect.field").last
    box = [float(drawn.get_attribute(name) or "") for name in ("x", "y", "width", "height")]
    assert box == [columns.seen.first, rows.seen.first, columns.seen.size, rows.seen.size]


def on_closeup(page: Page, layer: str, row: int, column: int) -> tuple[float, float]:
    """Where the middle of what a cell sees lies on the screen, over the large picture."""
    page.locator(".nin-closeup-frame").scroll_into_view_if_needed()
    box = page.locator(".nin-closeup svg").bounding_box()
    assert box is not None
    steps = steps_to(summarize(SLIM), layer)
    x, y = (
        (sum(receptive_field(steps, SLIM.image_size, at).whole) + 1) / 2 / SLIM.image_size
        for at in (column, row)
    )
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def test_a_click_on_a_map_opens_it_large_with_what_the_pixel_sees(
    server: Dashboard, page: Page
) -> None:
    layer = "block2.relu"  # 16 maps of 14×14, padding 2: cells at the border see less
    opened_large(page, server, layer)
    for channel, row, column in ((5, 7, 3), (12, 0, 13)):
        page.mouse.click(*cell_on_screen(page, channel, row, column, "fm-after"))
        wait_idle(page)
        page.mouse.move(4, 400)
        reads(page, layer, channel, row, column)
    # Other cells of the map that is open: under the pointer, clicked, and with the keys.
    page.mouse.move(*on_closeup(page, layer, 9, 4))
    reads(page, layer, 12, 9, 4)
    page.mouse.move(4, 400)
    reads(page, layer, 12, 0, 13)
    page.mouse.click(*on_closeup(page, layer, 13, 0))
    wait_idle(page)
    page.mouse.move(4, 400)
    reads(page, layer, 12, 13, 0)
    page.locator(".nin-closeup-frame").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    reads(page, layer, 12, 12, 1)
    wait_idle(page)
    press(page, "Follow pixel (12, 1) through the 1×1 lens")
    expect(page.get_by_role("heading", name="Pixel (12, 1) through block 2's")).to_be_visible()


def test_the_slider_goes_from_the_picture_to_the_map(server: Dashboard, page: Page) -> None:
    opened_large(page, server, "pool1")
    page.mouse.click(*cell_on_screen(page, 2, 3, 3, "fm-after"))
    wait_idle(page)
    opacity = "(node) => Number(node.style.opacity)"
    picture, drawn = page.locator(".nin-closeup .picture"), page.locator(".nin-closeup .map")
    assert (picture.evaluate(opacity), drawn.evaluate(opacity)) == (1, 1)
    slider = page.get_by_role("slider", name="From the picture to the map")
    slider.fill("1")
    assert (picture.evaluate(opacity), drawn.evaluate(opacity)) == (0, 1)
    slider.fill("0")
    assert (picture.evaluate(opacity), drawn.evaluate(opacity)) == (1, 0)
    press(page, "Close")
    expect(page.locator(".nin-closeup")).to_have_count(0)


def test_in_another_order_a_click_still_names_the_channel(server: Dashboard, page: Page) -> None:
    layer = "block2.relu"
    opened_large(page, server, layer)
    choose(page, "Order of the channels", "Mean")
    maps = extract_feature_maps(untrained_model(SLIM), fed(SLIM, shape(0)), [layer])[layer]
    order = np.argsort(-maps.mean(axis=(1, 2)), kind="stable")
    page.mouse.move(*cell_on_screen(page, 3, 6, 6, "fm-after"))
    tip = page.locator(".st-key-fm-after .nin-sprite-tip")
    expect(tip).to_contain_text(re.compile(rf"^channel {order[3]} · row 6, column 6 · "))
    page.mouse.click(*cell_on_screen(page, 3, 6, 6, "fm-after"))
    wait_idle(page)
    page.mouse.move(4, 400)
    reads(page, layer, int(order[3]), 6, 6)


def test_a_narrow_page_does_not_scroll_sideways(server: Dashboard, new_page: OpenTab) -> None:
    page = new_page(NARROW, dark=True)
    opened_large(page, server, "block2.relu_1")
    page.mouse.click(*cell_on_screen(page, 2, 3, 3, "fm-after"))
    wait_idle(page)
    sideways = (
        "() => { const m = document.querySelector('[data-testid=\"stMain\"]');"
        " return m.scrollWidth - m.clientWidth; }"
    )
    expect(page.locator(".nin-closeup")).to_be_visible()
    assert page.evaluate(sideways) <= 0
    pick(page, "Picture", "Draw")
    stroke(page, (0.2, 0.2), (0.8, 0.8))
    assert page.evaluate(sideways) <= 0
