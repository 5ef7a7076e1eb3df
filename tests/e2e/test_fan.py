"""A seed fan in a real browser with real workers: started, watched, opened, deleted."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect

from nin_core import fans
from nin_core.store import RunStore
from tests.e2e.harness import (
    Dashboard,
    assert_no_exception,
    button,
    choose,
    press,
    set_number,
    visit,
    wait_idle,
)

PATIENCE = 300_000  # ms
SEEDS = 2
CHART = ".st-key-tr-fan .nin-plot"


def test_a_fan_is_watched_to_its_end_opened_and_deleted(page: Page, server: Dashboard) -> None:
    visit(page, server, "/training")
    choose(page, "Data set", "Shapes (generated)")
    set_number(page, "Epochs", 1)
    set_number(page, "Training images", 640)
    page.get_by_text("Start from several seeds").click()
    set_number(page, "Number of seeds", SEEDS)
    button(page, f"Start {SEEDS} runs").click()
    # The section opens by itself, and its chart is one node from the first to the last tick.
    expect(page.locator(CHART)).to_be_visible(timeout=PATIENCE)
    page.evaluate(f"window.chart = document.querySelector('{CHART}')")
    delete = page.get_by_text("Delete all of them")
    expect(delete).to_be_visible(timeout=PATIENCE)
    wait_idle(page)
    assert page.evaluate(f"window.chart === document.querySelector('{CHART}')")

    store = RunStore(server.store_url)
    first, *others = store.list_runs()
    members = fans.runs(store, first.fan)
    assert len(members) == len(others) + 1 == SEEDS
    assert {run.state for run in members} == {"finished"}
    expect(page.locator(".nin-fan")).to_contain_text(re.compile(f"[0-{SEEDS}] of {SEEDS} ended"))
    # Band, runs and median of the loss are drawn.
    lines = page.locator(f"{CHART} .scatterlayer .js-line")
    assert sum(len(line.get_attribute("d") or "") > 10 for line in lines.all()) >= 3

    page.get_by_role("button", name=re.compile("^(horizontal_rule |show_chart )?seed 1")).click()
    wait_idle(page)
    query = parse_qs(urlsplit(page.url).query)
    assert (query["run"], query["fan"]) == ([str(members[1].id)], [str(members[0].id)])
    delete.click()
    press(page, f"Delete {SEEDS} runs for good")
    expect(page.locator(CHART)).to_have_count(0)
    assert store.list_runs() == []
    assert_no_exception(page)
    store.close()
