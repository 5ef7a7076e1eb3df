"""The layer table in a real browser: choosing, sorting, columns, files, telephones."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from nin_core import PRESETS, summarize
from tests.e2e.conftest import OpenTab
from tests.e2e.harness import NARROW, Dashboard, pick, set_slider, visit, wait_idle

pytestmark = pytest.mark.e2e

TABLE = ".nin-layers"
PANEL = ".nin-arithmetic"


def open_table(page: Page, server: Dashboard, query: str = "net=nin-224") -> None:
    visit(page, server, f"/architecture?{query}")
    expect(page.locator(f"{TABLE} tbody tr").first).to_be_visible()


def row(page: Page, name: str) -> Locator:
    return page.locator(f'{TABLE} tr[data-id="{name}"]')


def names(page: Page) -> list[str]:
    return page.locator(f"{TABLE} tbody th").all_inner_texts()


def headings(page: Page) -> list[str]:
    """The ids of the columns in the order in which they stand."""
    found = page.locator(f"{TABLE} thead button").evaluate_all(
        "nodes => nodes.map(n => [n.getBoundingClientRect().right, n.dataset.column])"
    )
    return [column for _, column in sorted(found)]


def sort_by(page: Page, column: str) -> None:
    page.locator(f'{TABLE} button[data-column="{column}"]').click()


def test_a_row_and_the_diagram_share_their_choice(page: Page, server: Dashboard) -> None:
    open_table(page, server)
    row(page, "block1.conv").click()
    expect(page.locator(PANEL)).to_contain_text("⌊(224 − 11 + 2·0)/4⌋ + 1 = 54")
    expect(page.locator(PANEL)).to_contain_text("96·(1·11·11) + 96 = 11,712")
    expect(row(page, "block1.conv")).to_have_attribute("aria-selected", "true")
    drawn = page.locator('.nin-svg [data-id="block1.conv"]:visible').first
    expect(drawn).to_have_class(re.compile(r"\bselected\b"))
    assert "layer=block1.conv" in page.url

    page.locator('.nin-svg [data-id="pool1"]:visible').first.click()
    expect(row(page, "pool1")).to_have_attribute("aria-selected", "true")
    expect(row(page, "block1.conv")).to_have_attribute("aria-selected", "false")
    expect(page.locator(PANEL)).to_contain_text("96·26·26·(3·3 − 1) = 519,168")

    # The choice is in the link, and a second click lets go of it.
    wait_idle(page)
    page.reload()
    expect(page.locator(PANEL)).to_contain_text("519,168")
    row(page, "pool1").click()
    expect(page.locator(PANEL)).to_have_count(0)
    expect(row(page, "pool1")).to_have_attribute("aria-selected", "false")


def test_blocks_are_chosen_by_their_first_layer(page: Page, server: Dashboard) -> None:
    open_table(page, server)
    pick(page, "Rows", "Blocks")
    row(page, "block2").click()
    expect(page.locator(PANEL)).to_contain_text("256·(96·5·5) + 256 = 614,656")
    expect(page.locator(PANEL)).to_contain_text("614,656 + 65,792 + 65,792 = 746,240")
    page.locator('.nin-svg [data-id="block2.conv1x1_1"]:visible').first.click()
    expect(page.locator(PANEL)).to_contain_text("256·(256·1·1) + 256 = 65,792")
    expect(row(page, "block2")).to_have_attribute("aria-selected", "true")
    row(page, "block2").click()
    expect(page.locator(PANEL)).to_have_count(0)


def test_rows_can_be_chosen_with_the_keyboard(page: Page, server: Dashboard) -> None:
    open_table(page, server)
    row(page, "block1.conv").focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(row(page, "pool1")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(PANEL)).to_contain_text("519,168")
    expect(row(page, "pool1")).to_be_focused()  # also in the table drawn anew
    page.keyboard.press("End")
    expect(row(page, "flatten")).to_be_focused()


def test_sorting_is_the_browsers_and_outlives_a_slider(page: Page, server: Dashboard) -> None:
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    open_table(page, server)
    network = summarize(PRESETS["nin-224"])
    in_order = [layer.name for layer in network.layers if layer.kind != "relu"]
    by_size = sorted(
        (layer for layer in network.layers if layer.kind != "relu"), key=lambda x: -x.parameters
    )
    assert names(page) == in_order
    before = len(sent)
    sort_by(page, "parameters")
    assert names(page) == [layer.name for layer in by_size]
    heading = page.locator(f"{TABLE} th[aria-sort]")
    expect(heading).to_have_attribute("aria-sort", "descending")
    sort_by(page, "parameters")
    assert names(page)[-1] == "block3.conv"
    expect(heading).to_have_attribute("aria-sort", "ascending")
    sort_by(page, "parameters")
    assert names(page) == in_order
    expect(heading).to_have_count(0)
    # Missing figures come last, whichever way; the totals stay where they are.
    for _ in range(2):
        sort_by(page, "lost_pixels")
        assert set(names(page)[-3:]) == {"dropout", "global_pool", "flatten"}
        assert page.locator(f"{TABLE} tfoot th").inner_text() == "Total"
    assert len(sent) == before, "sorting asked the server"

    sort_by(page, "parameters")
    set_slider(page, "Block 3 channels", 380)
    expect(row(page, "block3.conv")).to_contain_text(f"{380 * (256 * 9 + 1):,}")
    assert names(page)[:2] == ["block3.conv", "block2.conv"]


def test_files_have_the_shown_columns_and_rows(
    page: Page, server: Dashboard, tmp_path: Path
) -> None:
    open_table(page, server)
    page.get_by_role("button", name="Columns").click()
    for title in ("input", "kernel", "stride", "padding", "other operations", "pixels lost"):
        page.get_by_test_id("stPopoverBody").get_by_text(title, exact=True).click()
        wait_idle(page)
    page.keyboard.press("Escape")
    shown = headings(page)
    assert shown == [
        *("name", "output_shape", "parameters", "parameter_share", "macs", "mac_share"),
        *("activation_bytes", "saved_bytes", "receptive_field", "effective_stride"),
    ]
    pick(page, "Rows", "Blocks")
    page.get_by_role("button", name="Download", exact=True).click()
    files = {}
    for name in ("CSV", "Markdown", "LaTeX"):
        with page.expect_download() as download:
            page.get_by_test_id("stDownloadButton").get_by_text(name, exact=True).click()
        files[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[name])
    assert [path.name for path in files.values()] == [
        *("nin-224-blocks.csv", "nin-224-blocks.md", "nin-224-blocks.tex")
    ]
    rows = list(csv.DictReader(io.StringIO(files["CSV"].read_text(encoding="utf-8"))))
    assert list(rows[0]) == shown
    assert [line["name"] for line in rows] == names(page)
    assert sum(int(line["parameters"]) for line in rows) == 1_992_166
    for name in ("Markdown", "LaTeX"):
        text = files[name].read_text(encoding="utf-8")
        assert "1,992,166" in text
        assert "block3" in text


def test_a_telephone_scrolls_the_table_and_not_the_page(
    new_page: OpenTab, server: Dashboard
) -> None:
    page = new_page(NARROW)
    open_table(page, server, "net=nin-224&layer=block1.conv")
    box = page.locator(".nin-scroll")
    box.scroll_into_view_if_needed()
    name = row(page, "block1.conv").locator("th")
    left = name.bounding_box()["x"]  # type: ignore[index]
    expect(box).to_have_class("nin-scroll more")  # its right edge fades
    box.evaluate("node => node.scrollBy(400, 0)")
    assert box.evaluate("node => node.scrollLeft") == 400
    assert name.bounding_box()["x"] == pytest.approx(left, abs=1)  # type: ignore[index]
    box.evaluate("node => node.scrollBy(4000, 0)")
    expect(box).to_have_class("nin-scroll scrolled")
    expect(page.locator(PANEL)).to_contain_text("96·(1·11·11) + 96 = 11,712")
    wide = page.evaluate(
        "() => [...document.querySelectorAll('.nin-arithmetic, .nin-arithmetic td')]"
        ".filter(n => n.getBoundingClientRect().right > innerWidth).length"
    )
    assert wide == 0
    main = page.get_by_test_id("stMain")
    assert main.evaluate("node => node.scrollWidth <= node.clientWidth")
