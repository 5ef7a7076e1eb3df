"""The 1×1 lens and the answer in a real browser: pixels clicked at known places, keys, fields.

The network is untrained and the pictures are the generated shapes: everything that is shown can be
computed here, and nothing has to be downloaded or trained.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect

from nin_core import PRESETS, NiNConfig
from nin_core.data import load_dataset
from nin_core.datasets import DATASETS
from nin_core.features import PixelTrace, class_maps, pixel_trace, untrained_model
from nin_core.images import to_network_input
from nin_core.lens import output_sum
from tests.e2e.conftest import OpenTab
from tests.e2e.harness import (
    NARROW,
    Dashboard,
    cell_on_screen,
    choose,
    pick,
    press,
    set_number,
    visit,
    wait_idle,
)

SHAPES = DATASETS["shapes"]
NETWORK = PRESETS["nin-28"]
TraceAt = Callable[[int, int], PixelTrace]
LAYER = "Block 1 · 1×1 convolution 1"


def first_shape(network: NiNConfig) -> torch.Tensor:
    """The picture that the page shows first, as it enters the network."""
    shapes = load_dataset("shapes")
    index = int(np.flatnonzero(shapes.test_labels.numpy() == 0)[0])
    return to_network_input(
        shapes.test_images[index].numpy(),
        channels=1,
        side=SHAPES.side,
        network=network,
        mean=SHAPES.mean,
        std=SHAPES.std,
    ).network_input


@pytest.fixture(scope="module")
def trace_at() -> TraceAt:
    """(row, column) -> the trace through block 1 that the page should show."""
    model, image = untrained_model(NETWORK), first_shape(NETWORK)
    return lambda row, column: pixel_trace(model, image, 1, row, column)


def opened(page: Page, server: Dashboard, view: str, net: str = "nin-28") -> None:
    visit(page, server, f"/feature_maps?net={net}&run=untrained&view={view}")
    choose(page, "Pictures", SHAPES.title)
    expect(page.locator(".nin-sprite-grid").first).to_be_visible()
    wait_idle(page)


def at_pixel(page: Page, row: int, column: int, block: int = 1) -> None:
    """Heading, fields and the mark in the maps all say this pixel."""
    heading = page.get_by_role("heading", name=f"Pixel ({row}, {column}) through block {block}'s")
    expect(heading).to_be_visible()
    for label, value in (("Row", row), ("Column", column)):
        field = page.get_by_role("spinbutton", name=label, exact=True)
        expect(field).to_have_value(str(value))
    page.wait_for_function(
        "(pixel) => String(window.ninSprites.get('fm-lens').pixel) === pixel",
        arg=f"{row},{column}",
    )


def strips(page: Page) -> list[list[float | None]]:
    """The numbers of the pixel's strips, as the chart in the browser has them."""
    wait_idle(page)
    return page.evaluate(
        "() => window.ninPlots.get('fm-lens-strips').node.data[0].z.map((row) => Array.from(row))"
    )


def shows(page: Page, trace: PixelTrace) -> None:
    expected = [trace.inputs]
    for step in trace.steps:
        expected += [step.linear, step.normalized, step.outputs]
    for row, values in zip(strips(page), expected, strict=True):
        assert row == pytest.approx(values.tolist(), rel=1e-4, abs=1e-5)


def total(page: Page) -> float:
    row = page.get_by_role("table", name="Terms of the sum").get_by_role("row", name="W·x + b")
    text = row.get_by_role("cell").first.inner_text()
    return float(text.replace("−", "-"))


def test_a_clicked_pixel_is_followed_number_by_number(
    server: Dashboard, page: Page, trace_at: TraceAt
) -> None:
    opened(page, server, "lens")
    choose(page, "Maps to click in", LAYER)
    for channel, row, column in ((0, 0, 0), (3, 11, 17), (2, 27, 5)):
        page.mouse.click(*cell_on_screen(page, channel, row, column, "fm-lens"))
        at_pixel(page, row, column)
        trace = trace_at(row, column)
        shows(page, trace)
        field = page.get_by_role("spinbutton", name="Output channel")
        expect(field).to_have_value(str(channel))
        terms = output_sum(trace.steps[0], channel)
        assert total(page) == pytest.approx(terms.total, abs=2e-4)
        first = page.get_by_role("table", name="Terms of the sum").get_by_role("rowheader").nth(0)
        expect(first).to_have_text(str(terms.order[0]))


def test_the_mark_is_on_the_pixel_in_every_map(server: Dashboard, page: Page) -> None:
    opened(page, server, "lens")
    page.mouse.click(*cell_on_screen(page, 1, 9, 20, "fm-lens"))
    at_pixel(page, 9, 20)
    drawn = page.evaluate(
        """() => {
            const { pixels, layout, data } = window.ninSprites.get('fm-lens');
            const context = pixels.getContext('2d');
            const tile = layout.top + layout.tileHeight + layout.bottom + layout.gap;
            const alpha = (channel, row, column) => {
                const x = (channel % layout.columns) * (layout.tileWidth + layout.gap);
                const y = Math.floor(channel / layout.columns) * tile + layout.top;
                const [side, around] = [layout.cell, layout.cell + 8];
                const found = context.getImageData(
                    x + column * side - 4, y + row * side - 4, around, around).data;
                return found.some((value, i) => i % 4 === 3 && value > 0);
            };
            const channels = [...Array(data.shape[0]).keys()];
            return [channels.every((c) => alpha(c, 9, 20)), channels.some((c) => alpha(c, 20, 9))];
        }"""
    )
    assert drawn == [True, False]


def test_the_keyboard_moves_the_pixel_and_chooses_the_channel(
    server: Dashboard, page: Page, trace_at: TraceAt
) -> None:
    opened(page, server, "lens")
    page.mouse.click(*cell_on_screen(page, 4, 9, 20, "fm-lens"))
    at_pixel(page, 9, 20)
    page.locator(".st-key-fm-lens-maps .nin-sprite-grid").focus()
    page.keyboard.press("Shift+ArrowDown")
    at_pixel(page, 10, 20)
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Shift+ArrowLeft")
    at_pixel(page, 10, 18)
    shows(page, trace_at(10, 18))
    page.keyboard.press("ArrowRight")  # the next map, at the same pixel
    pick(page, "Look at", "Where x comes from")
    expect(page.get_by_role("spinbutton", name="Channel of x")).to_have_value("5")
    at_pixel(page, 10, 18)


def test_the_fields_do_the_same(server: Dashboard, page: Page, trace_at: TraceAt) -> None:
    opened(page, server, "lens")
    set_number(page, "Row", 14)
    set_number(page, "Column", 3)
    at_pixel(page, 14, 3)
    shows(page, trace_at(14, 3))
    pick(page, "1×1 convolution", "2")
    set_number(page, "Output channel", 30)
    assert total(page) == pytest.approx(output_sum(trace_at(14, 3).steps[1], 30).total, abs=2e-4)


def test_a_click_on_a_strip_chooses_that_output(
    server: Dashboard, page: Page, trace_at: TraceAt
) -> None:
    opened(page, server, "lens")
    set_number(page, "Row", 14)
    set_number(page, "Column", 3)
    node = page.locator(".nin-plot").first
    node.scroll_into_view_if_needed()
    x, y = page.evaluate(
        """() => {
            const { node } = window.ninPlots.get('fm-lens-strips');
            const { xaxis, yaxis } = node._fullLayout;
            const box = node.querySelector('.nsewdrag').getBoundingClientRect();
            return [box.left + xaxis.d2p(21), box.top + yaxis.d2p('2: W·x + b')];
        }"""
    )
    page.mouse.click(x, y)
    expect(page.get_by_role("spinbutton", name="Output channel")).to_have_value("21")
    wait_idle(page)
    assert total(page) == pytest.approx(output_sum(trace_at(14, 3).steps[1], 21).total, abs=2e-4)


def test_from_all_channels_to_the_lens(server: Dashboard, page: Page) -> None:
    opened(page, server, "maps")
    choose(page, "Layer", "Block 2 · 1×1 convolution 2 + batch norm + ReLU")
    page.mouse.click(*cell_on_screen(page, 7, 2, 10, "fm-after"))
    press(page, "Follow pixel (2, 10) through the 1×1 lens")
    at_pixel(page, 2, 10, block=2)
    assert "view=lens" in page.url
    expect(page.get_by_role("spinbutton", name="Output channel")).to_have_value("7")


def test_every_question_is_answered_for_the_full_network(server: Dashboard, page: Page) -> None:
    opened(page, server, "lens", net="nin-224")
    # a map further down: the maps scroll by themselves
    page.locator(".st-key-fm-lens-maps").evaluate("(box) => box.scrollTo(0, 180)")
    page.mouse.click(*cell_on_screen(page, 45, 30, 12, "fm-lens"))
    at_pixel(page, 30, 12)
    for question, text in (
        ("Where x comes from", "is the 11×11 patch of the picture"),
        ("As nn.Linear", "The same numbers from torch.nn.Linear"),
        ("The weights", "Its rank is"),
        ("Without the ReLU", "9,312 parameters instead of 18,624"),
        ("Term by term", "the column adds up to the last digit shown"),
    ):
        pick(page, "Look at", question)
        expect(page.get_by_text(text)).to_be_visible()
        at_pixel(page, 30, 12)


def test_a_class_map_that_is_clicked_is_followed(server: Dashboard, page: Page) -> None:
    opened(page, server, "answer")
    answer = class_maps(untrained_model(NETWORK), first_shape(NETWORK))
    weakest = int(answer.logits.argmin())
    name = SHAPES.class_names[weakest]
    page.mouse.click(*cell_on_screen(page, weakest, 2, 2, "fm-classes"))
    size = answer.maps[0].size
    sentence = page.get_by_text(re.compile(rf"^{re.escape(name)}'s logit is the sum of its"))
    logit = f"{answer.logits[weakest]:.4g}".replace("-", "−")
    expect(sentence).to_contain_text(f" ÷ {size} = {logit}.")


@pytest.mark.parametrize("view", ["maps", "lens", "answer"])
def test_a_narrow_page_does_not_scroll_sideways(
    server: Dashboard, new_page: OpenTab, view: str
) -> None:
    page = new_page(NARROW, dark=True)
    opened(page, server, view)
    wide = page.evaluate(
        "() => { const m = document.querySelector('[data-testid=\"stMain\"]');"
        " return m.scrollWidth - m.clientWidth; }"
    )
    assert wide <= 0
