"""The frame in a real browser: navigation, the architecture in the sidebar, links and reloads."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from nin_core import PRESETS, RECIPES, summarize
from nin_core.store import RunStore
from tests.e2e.harness import (
    Dashboard,
    set_slider,
    slider,
    visit,
    wait_idle,
)

pytestmark = pytest.mark.e2e

PAGES = {
    "": "NiN Explorer",
    "architecture": "Architecture",
    "training": "Training",
    "feature_maps": "Feature maps",
}
TOTALS = ".nin-totals"
WIDTHS = (10, 20, 30)
QUERY = "net=nin-slim-128&widths=10-20-30"


def shows_network(page: Page) -> None:
    total = summarize(PRESETS["nin-slim-128"].with_widths(WIDTHS)).total_parameters
    expect(page.locator(TOTALS)).to_contain_text(f"{total:,}")
    assert QUERY in page.url


@pytest.mark.parametrize("path", PAGES)
def test_a_deep_link_on_a_fresh_server_shows_frame_page_and_network(
    path: str, fresh_server: Dashboard, page: Page
) -> None:
    """Each page's own URL is the first that this server is ever asked for."""
    visit(page, fresh_server, f"{path}?{QUERY}")
    expect(page.get_by_test_id("stSidebarNavLink")).to_have_count(len(PAGES))
    expect(page.locator("h1")).to_contain_text(PAGES[path])
    shows_network(page)
    page.reload()
    wait_idle(page)
    expect(page.get_by_test_id("stSidebarNavLink")).to_have_count(len(PAGES))
    shows_network(page)


def test_a_moved_slider_gives_the_new_total_everywhere_and_after_a_reload(
    server: Dashboard, page: Page
) -> None:
    visit(page, server, "/architecture")
    expect(page.locator(TOTALS)).to_contain_text("10,846")
    for index, width in enumerate(WIDTHS, start=1):
        set_slider(page, f"Block {index} channels", width)
    shows_network(page)
    for name in ("Training", "Feature maps", "Home", "Architecture"):
        page.get_by_test_id("stSidebarNav").get_by_role("link", name=name, exact=True).click()
        wait_idle(page)
        shows_network(page)
    page.reload()
    wait_idle(page)
    shows_network(page)
    assert slider(page, "Block 3 channels").input_value() == str(WIDTHS[2])


def test_going_back_leads_to_the_page_before_not_through_a_sliders_steps(
    server: Dashboard, page: Page
) -> None:
    visit(page, server, "/")
    page.get_by_test_id("stSidebarNav").get_by_role("link", name="Architecture", exact=True).click()
    wait_idle(page)
    for index, width in enumerate(WIDTHS, start=1):
        set_slider(page, f"Block {index} channels", width)
    shows_network(page)
    page.go_back()
    wait_idle(page)
    assert urlsplit(page.url).path == "/"
    shows_network(page)  # and what was chosen meanwhile is kept
    page.go_forward()
    wait_idle(page)
    assert urlsplit(page.url).path == "/architecture"
    shows_network(page)


def test_a_server_takes_up_the_queue_before_anybody_visits(tmp_path: Path) -> None:
    server = Dashboard(tmp_path)
    store = RunStore(server.store_url)
    network = PRESETS["nin-28"].with_widths((6, 8, 8))
    run_id = store.create(network, RECIPES["fast"].configure(network, subset=640), "shapes")
    with server:
        deadline = time.monotonic() + 120
        while store.get(run_id).state != "finished":
            assert time.monotonic() < deadline, store.get(run_id)
            time.sleep(0.1)
