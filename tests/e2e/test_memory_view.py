"""Memory and time in a real browser: dragging the batch, and a measurement from press to result."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from nin_core import PRESETS, summarize
from nin_core.ledger import step_peak, training_ledger
from tests.e2e.conftest import OpenTab
from tests.e2e.harness import (
    NARROW,
    Dashboard,
    button,
    set_number,
    set_slider,
    visit,
    wait_idle,
)
from ui import numbers

pytestmark = pytest.mark.e2e

SLIM, FULL = PRESETS["nin-slim-128"], PRESETS["nin-224"]
MEASURING_MS = 180_000  # PyTorch is loaded and a busy machine takes its time


def row(page: Page, table: str, name: str) -> list[str]:
    """The cells of a table's row, by the row's name."""
    found = (
        page.get_by_role("table", name=table)
        .locator("tr")
        .filter(has=page.get_by_role("rowheader", name=name, exact=True))
    )
    expect(found).to_have_count(1)
    return found.locator("th, td").all_inner_texts()


def measuring_processes(server: Dashboard) -> list[int]:
    """Measuring processes of this server, by the store's URL in their environment."""
    found = []
    for pid in server.workers():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"nin_core.measure" in command:
            found.append(pid)
    return found


def test_measure_now_confirms_the_prediction_to_the_byte(server: Dashboard, page: Page) -> None:
    visit(page, server, "/architecture?net=nin-slim-128&view=memory")
    set_number(page, "Batch size", 8)
    network = summarize(SLIM, 8)
    saved = numbers.size(network.saved_bytes)
    assert row(page, "Predicted and measured", "Saved activations")[1:4] == [saved, "–", "–"]
    button(page, "Measure now").click()
    expect(button(page, "Cancel")).to_be_visible()
    expect(button(page, "Measure again")).to_be_visible(timeout=MEASURING_MS)
    assert row(page, "Predicted and measured", "Saved activations")[1:4] == [
        saved,
        saved,
        "none, to the byte",
    ]
    predicted = numbers.size(step_peak(network).bytes)
    peak = row(page, "Predicted and measured", "Peak of a training step")
    assert peak[1] == predicted
    assert peak[2] != "–"
    # Every convolution has a point for each direction under the roof.
    expect(page.locator(".nin-plot").last.locator(".scatterlayer .point")).to_have_count(24)
    # The peaks are kept beside the runs, for the next server too.
    folder = Path(server.store_url.removeprefix("sqlite:///")).parent
    assert len(json.loads((folder / "machine.json").read_text())) == 1
    # A reload and another batch's detour find the result again.
    page.reload()
    expect(page.get_by_text("Predicted and measured")).to_be_visible()
    set_number(page, "Batch size", 8)
    expect(button(page, "Measure again")).to_be_visible()


def test_cancel_ends_the_process(server: Dashboard, page: Page) -> None:
    visit(page, server, "/architecture?net=nin-224&view=memory")
    button(page, "Measure now").click()
    expect(button(page, "Cancel")).to_be_visible()
    assert len(measuring_processes(server)) == 1
    wait_idle(page, quiet=0.2)  # the page is drawn once more as it begins to follow
    button(page, "Cancel").click()
    expect(page.get_by_text("The measurement was cancelled.")).to_be_visible()
    deadline = time.monotonic() + 20
    while measuring_processes(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert measuring_processes(server) == []


def test_dragging_the_batch_moves_everything_and_the_field(server: Dashboard, page: Page) -> None:
    visit(page, server, "/architecture?net=nin-224&view=memory")
    handle = page.get_by_role("slider", name="Drag the batch size")
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    total = numbers.size(training_ledger(summarize(FULL, 512)).total(512))
    expect(page.get_by_role("table", name="Memory by term").locator("tfoot")).to_contain_text(total)
    expect(page.get_by_role("spinbutton", name="Batch size")).to_have_value("512")
    set_slider(page, "Block 1 channels", 97)
    widths = FULL.with_widths((97, 256, 384))
    total = numbers.size(training_ledger(summarize(widths, 512)).total(512))
    expect(page.get_by_role("table", name="Memory by term").locator("tfoot")).to_contain_text(total)


def test_a_telephone_scrolls_down_only(server: Dashboard, new_page: OpenTab) -> None:
    page = new_page(NARROW)
    visit(page, server, "/architecture?net=nin-224&view=memory")
    main = page.get_by_test_id("stMain")
    assert main.evaluate("node => node.scrollWidth <= node.clientWidth")
    for name in ("Memory by term", "Predicted and measured"):
        box = page.get_by_role("table", name=name).locator("..")
        assert box.evaluate("node => node.scrollWidth <= node.clientWidth")
