"""Pinned networks and widths that fit, as a person meets them in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from nin_core import PRESETS, solver, summarize
from nin_core.solver import Budget
from tests.e2e.conftest import OpenTab
from tests.e2e.harness import (
    NARROW,
    WIDE,
    Dashboard,
    choose,
    press,
    set_number,
    set_slider,
    slider,
    visit,
    wait_idle,
)

SLIM, FULL = PRESETS["nin-slim-128"], PRESETS["nin-224"]


def metric(page: Page, label: str) -> Locator:
    return page.locator(".nin-head > div").filter(has=page.get_by_text(label, exact=True))


def pin(page: Page, name: str) -> None:
    page.get_by_test_id("stPopover").get_by_role("button", name="Pin this network").click()
    field = page.get_by_label("Name", exact=True)
    field.fill(name)
    page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Pin", exact=True).click()
    wait_idle(page)


def test_a_pinned_network_is_compared_with_and_outlives_the_server(
    page: Page, new_page: OpenTab, tmp_path: Path
) -> None:
    with Dashboard(tmp_path) as server:
        visit(page, server, "architecture?view=compare&net=nin-slim-128")
        pin(page, "as it was")
        expect(page.get_by_text("Pinned as “as it was”")).to_be_visible()
        page.get_by_label("Name", exact=True).fill("As it was")
        page.get_by_label("Name", exact=True).press("Enter")
        wait_idle(page)
        expect(page.get_by_text("There is a pinned network “as it was” already")).to_be_visible()
        page.keyboard.press("Escape")
        set_slider(page, "Block 3 channels", 30)
        expect(metric(page, "Parameters")).to_contain_text("vs as it was")
        expect(
            page.locator(".st-key-architecture-change-parameters .bars .point").first
        ).to_be_visible()
        server.stop()
        server.start()
        again = new_page()
        visit(again, server, "architecture?view=compare&net=nin-slim-128&widths=6-16-30")
        choose(again, "Compare with", "as it was · pinned")
        expect(metric(again, "Parameters")).to_contain_text("vs as it was")
        press(again, "Delete")
        expect(again.get_by_text("“as it was” is deleted.")).to_be_visible()
        expect(metric(again, "Parameters")).to_contain_text("vs nin-slim-128")


def test_a_ready_made_comparison_goes_into_the_sidebar(page: Page, server: Dashboard) -> None:
    visit(page, server, "architecture?view=compare&net=nin-slim-128")
    page.get_by_role("button", name="Put into the sidebar").first.click()
    wait_idle(page)
    fewer = summarize(SLIM).total_parameters - sum(w * (w + 1) for w in (6, 16, 24, 10))
    expect(metric(page, "Parameters")).to_contain_text(f"{fewer:,}")
    assert "blocks=" in page.url
    assert "view=compare" in page.url


def test_the_widths_of_a_budget_and_of_a_clicked_cell(page: Page, server: Dashboard) -> None:
    visit(page, server, "architecture?view=widths&net=nin-224")
    set_number(page, "At most", 300_000)
    found = solver.fit(solver.proportions(FULL), Budget("parameters", 300_000))
    press(page, "Use these widths")
    expect(metric(page, "Parameters")).to_contain_text(f"{found.cost:,}")
    assert slider(page, "Block 1 channels").input_value() == str(found.config.widths[0])

    heat_map = page.locator(".st-key-architecture-width-map .nin-plot")
    heat_map.scroll_into_view_if_needed()
    expect(heat_map.locator(".heatmaplayer image").first).to_be_visible()
    # A click on a map that is being drawn anew, for the widths chosen last, is one on nothing.
    at_rest = "() => [...ninPlots.values()].every((it) => !it.busy && it.drawn?.data === it.data)"
    for across, down in ((0.3, 0.4), (0.71, 0.82), (0.05, 0.1)):
        page.wait_for_function(at_rest)
        box = heat_map.locator(".nsewdrag").first.bounding_box()
        assert box is not None
        x, y = box["x"] + across * box["width"], box["y"] + (1 - down) * box["height"]
        page.mouse.move(x, y)
        label = heat_map.locator(".hoverlayer .hovertext")
        expect(label).to_contain_text("block 1:")
        first_line = label.locator("tspan.line").first.text_content() or ""
        said = re.findall(r"block (\d): (\d+)", first_line)
        assert [block for block, _ in said] == ["1", "3"]
        page.mouse.click(x, y)
        wait_idle(page)
        for block, width in said:
            expect(slider(page, f"Block {block} channels")).to_have_value(width)
        widths = [int(slider(page, f"Block {n} channels").input_value()) for n in (1, 2, 3)]
        expect(metric(page, "Parameters")).to_contain_text(
            f"{summarize(FULL.with_widths(widths)).total_parameters:,}"
        )


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("view", ["compare", "widths"])
def test_nothing_is_wider_than_the_window(
    new_page: OpenTab, server: Dashboard, size: tuple[int, int], view: str
) -> None:
    page = new_page(size)
    visit(page, server, f"architecture?view={view}&net=nin-224&widths=96-200-300")
    widths = page.evaluate(
        "() => ['stMain', 'stApp'].map((id) => document.querySelector(`[data-testid=${id}]`))"
        ".map((node) => node.scrollWidth - node.clientWidth)"
    )
    assert widths == [0, 0]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= size[0]
