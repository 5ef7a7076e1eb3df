"""The browser components in a real browser: charts that stay, pictures that tell the right number.

They are driven in an app of their own (component_demo.py), served under a base path, so that the
address of plotly.js is tested with one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests.e2e import component_demo as demo
from tests.e2e.conftest import OpenTab
from tests.e2e.harness import (
    NARROW,
    WIDE,
    Dashboard,
    cell_on_screen,
    wait_idle,
)

pytestmark = pytest.mark.e2e

CHART = ".nin-plot"
LINES = f"{CHART} .scatterlayer .js-line"
TIP = ".nin-sprite-tip"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the demo app answers."""
    folder = tmp_path_factory.mktemp("demo")
    with Dashboard(folder, script="tests/e2e/component_demo.py", base_path="a/b") as server:
        yield server.url


# --- feeds ------------------------------------------------------------------------------------


def test_what_is_drawn_rarely_is_out_of_date_only_for_seconds(new_page: OpenTab, url: str) -> None:
    """Fragments that would be drawn once an hour are drawn when their feeds say another version."""
    page = new_page()

    def feed(route: Route) -> None:
        address = route.request.url
        whole = "/run" in address and "only=version" not in address  # as the page was drawn
        picture = {"version": "1", "serial": "1", "pause": 3600}
        route.fulfill(json=picture if whole else {"version": "2"})

    page.route("**/nin-test/**", feed)
    page.goto(f"{url}/?show=watching")
    for what in ("list", "run"):
        drawn_again = page.get_by_text(re.compile(f"^{what} drawn [2-9] times$"))
        expect(drawn_again).to_be_visible(timeout=60_000)


# --- charts -----------------------------------------------------------------------------------


def points(page: Page) -> int:
    """How many points the live page says it has sent. While Streamlit lays a tick's elements
    out anew, the text of the tick before may stand beside it for a moment."""
    told = page.get_by_text(re.compile(r"^points: \d+$")).all_inner_texts()
    return max((int(text.split()[1]) for text in told), default=0)


def wait_for_points(page: Page, count: int) -> None:
    """Wait until the chart itself has `count` points or more."""
    page.wait_for_function(
        f"n => document.querySelector('{CHART}')?.data?.every(t => t.y.length >= n)", arg=count
    )


def view(page: Page) -> Any:
    """What the user has made of the chart: zoom and hidden lines."""
    return page.evaluate(
        f"""() => {{
            const node = document.querySelector('{CHART}');
            const {{ xaxis, yaxis }} = node._fullLayout;
            return [xaxis.range, yaxis.range, node._fullData.map((line) => line.visible)];
        }}"""
    )


def drawn(page: Page) -> list[list[float]]:
    """The numbers that the chart holds."""
    script = f"() => document.querySelector('{CHART}').data.map((t) => Array.from(t.y))"
    return page.evaluate(script)


def zoom_and_hide(page: Page) -> None:
    """Drag over the chart, then hide the second line, as a person does."""
    plane = page.locator(f"{CHART} .nsewdrag").first
    box = plane.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 180, steps=6)
    page.mouse.up()
    page.locator(f"{CHART} .legendtoggle").nth(1).click()
    page.wait_for_function(
        f"() => document.querySelector('{CHART}')._fullData[1].visible === 'legendonly'"
    )


def test_a_live_chart_is_never_blank_and_keeps_zoom_and_legend(page: Page, url: str) -> None:
    page.goto(f"{url}/?show=live")
    expect(page.locator(LINES)).to_have_count(3)
    zoom_and_hide(page)
    expect(page.locator(LINES)).to_have_count(2)
    mine = view(page)
    page.evaluate(
        f"""() => {{
            const watch = (window.watch = {{ blank: 0, frames: 0, nodes: new Set() }});
            const look = () => {{
                watch.frames += 1;
                const node = document.querySelector('{CHART}');
                if (node) watch.nodes.add(node);
                if (document.querySelectorAll('{LINES}').length < 2) watch.blank += 1;
                requestAnimationFrame(look);
            }};
            look();
        }}"""
    )
    wait_for_points(page, points(page) + 20 * demo.PER_TICK)
    assert view(page) == mine
    seen = page.evaluate("() => ({ ...watch, nodes: watch.nodes.size })")
    assert seen["frames"] > 20
    assert (seen["blank"], seen["nodes"]) == (0, 1)

    # For an element inserted above, Streamlit takes the chart off the page and mounts it anew.
    for _ in range(2):
        page.get_by_test_id("stCheckbox").get_by_text("Something above").click()
        wait_for_points(page, points(page) + 4 * demo.PER_TICK)
        assert view(page) == mine
    assert page.evaluate("() => watch.nodes.size") == 1


def test_a_live_chart_has_every_point_and_so_has_a_reloaded_one(page: Page, url: str) -> None:
    page.goto(f"{url}/?show=live")
    for _ in range(2):
        wait_for_points(page, demo.START + 8 * demo.PER_TICK)
        for number, line in enumerate(drawn(page)):
            assert line == demo.line(len(line), number).tolist()
        page.reload()


def test_a_long_live_chart_sends_its_old_points_once(page: Page, url: str) -> None:
    received: list[int] = []

    def count(socket: Any) -> None:
        socket.on("framereceived", lambda frame: received.append(len(frame)))

    page.on("websocket", count)
    page.goto(f"{url}/?show=live")
    wait_for_points(page, demo.START + 20 * demo.PER_TICK)
    # 3 lines × 1000 points × 8 bytes are in parcels by now; each came once or twice.
    assert sum(size > 12_000 and size < 60_000 for size in received) >= 1
    per_tick = [size for size in received[-30:] if size > 1000]
    assert max(per_tick) < 40_000


def test_lost_messages_lose_no_points(new_page: OpenTab, url: str) -> None:
    """Every message that carries a parcel is dropped at first; the chart must come by itself."""
    page = new_page()
    dropped: list[int] = []

    def relay(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            raw = message if isinstance(message, bytes) else message.encode()
            if b"nin_parcel" in raw and len(dropped) < 3:
                dropped.append(len(raw))
            else:
                route.send(message)

        server.on_message(pass_on)

    page.route_web_socket("**/_stcore/stream", relay)
    page.goto(f"{url}/?show=live")
    wait_for_points(page, demo.START + 12 * demo.PER_TICK)
    assert len(dropped) == 3
    for number, line in enumerate(drawn(page)):
        assert line == demo.line(len(line), number).tolist()


def test_a_click_on_a_live_line_names_line_and_point(page: Page, url: str) -> None:
    page.goto(f"{url}/?show=live")
    expect(page.locator(LINES)).to_have_count(3)
    # Zoom in on a few points, so that the chart stands still under the pointer.
    page.evaluate(
        f"""() => Plotly.relayout(document.querySelector('{CHART}'),
            {{ 'xaxis.range': [95, 105], 'yaxis.range': [0, 4] }})"""
    )
    x, y = page.evaluate(
        f"""() => {{
            const node = document.querySelector('{CHART}');
            const {{ left, top }} = node.getBoundingClientRect();
            const {{ xaxis, yaxis }} = node._fullLayout;
            return [left + xaxis._offset + xaxis.l2p(101),
                    top + yaxis._offset + yaxis.l2p(node.data[2].y[101])];
        }}"""
    )
    page.mouse.move(x, y)
    expect(page.locator(f"{CHART} .hoverlayer .hovertext").first).to_be_visible()
    page.mouse.click(x, y)
    expect(page.get_by_text("clicked: ('run 2', 101)")).to_be_visible()


def test_a_heat_map_tells_row_and_column(page: Page, url: str) -> None:
    page.goto(f"{url}/?show=figures")
    expect(page.locator(f"{CHART} .heatmaplayer image")).to_have_count(1)
    x, y = page.evaluate(
        f"""() => {{
            const node = document.querySelector('{CHART}');
            const {{ left, top }} = node.getBoundingClientRect();
            const {{ xaxis, yaxis }} = node._fullLayout;
            return [left + xaxis._offset + xaxis.l2p(17), top + yaxis._offset + yaxis.l2p(30)];
        }}"""
    )
    page.mouse.move(x, y)
    expect(page.locator(f"{CHART} .hoverlayer .hovertext").first).to_be_visible()
    page.mouse.click(x, y)
    expect(page.get_by_text("heat: [30, 17]")).to_be_visible()


def test_charts_follow_width_and_theme_and_offer_no_cloud(page: Page, url: str) -> None:
    page.goto(f"{url}/?show=figures")
    bars = page.locator(CHART).nth(1)
    bar = bars.locator(".bars path").first
    expect(bar).to_be_visible()
    expect(bars).to_have_attribute("aria-label", "Two bars")
    buttons = page.locator(f"{CHART} .modebar-btn").evaluate_all("all => all.map(b => b.dataset)")
    titles = page.locator(f"{CHART} .modebar-btn").evaluate_all(
        "all => all.map(b => b.dataset.title || b.getAttribute('aria-label') || '')"
    )
    assert buttons
    assert not any("hare" in title or "loud" in title for title in titles)

    def fill() -> str:
        return bar.evaluate("path => getComputedStyle(path).fill")

    light = fill()
    node = page.locator(CHART).first.element_handle()
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "([path, old]) => getComputedStyle(path).fill !== old", arg=[bar.element_handle(), light]
    )
    page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
    page.wait_for_function(
        "node => node.querySelector('.main-svg').clientWidth === node.clientWidth"
        " && node.clientWidth < 390",
        arg=node,
    )
    assert page.evaluate("node => node === document.querySelector('.nin-plot')", node)
    assert_no_sideways_scrolling(page)


def test_without_plotly_js_a_sentence_stands_in_its_place(new_page: OpenTab, url: str) -> None:
    page = new_page()
    page.route("**/plotly.min.js*", lambda route: route.abort())
    page.goto(f"{url}/?show=figures")
    note = page.locator(CHART).first.get_by_role("status")
    expect(note).to_have_text("Charts cannot be shown because plotly.js could not be loaded.")
    page.unroute("**/plotly.min.js*")
    expect(page.locator(f"{CHART} .main-svg").first).to_be_visible()  # it tries again
    expect(note).to_have_count(0)


def test_a_chart_is_kept_for_a_moment_and_then_let_go(page: Page, url: str) -> None:
    page.goto(f"{url}/?show=figures")
    expect(page.locator(f"{CHART} .main-svg").first).to_be_visible()
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Other").click()
    expect(page.get_by_text("another page")).to_be_visible()
    page.wait_for_function("() => window.ninPlots.size === 0")


# --- maps -------------------------------------------------------------------------------------


def assert_no_sideways_scrolling(page: Page) -> None:
    widths = page.evaluate(
        """() => [document.documentElement, document.querySelector('[data-testid="stMain"]')]
            .map((node) => node.scrollWidth - node.clientWidth)"""
    )
    assert widths == [0, 0]


def open_picture(page: Page, url: str, kind: str) -> None:
    page.goto(f"{url}/?show={kind}")
    page.wait_for_function("() => [...(window.ninSprites?.values() ?? [])].some((s) => s.drawn)")
    wait_idle(page)


def shown(values: np.ndarray, value: float) -> str:
    """A value as the tooltip must print it: with the decimals that give the largest four digits."""
    decimals = 3 - math.floor(math.log10(np.abs(values).max()))
    return f"{value:.{decimals}f}".replace("-", "−")


@pytest.mark.parametrize("kind", ["wide", "kernels", "pooled"])
@pytest.mark.parametrize(("size", "dark"), [(WIDE, False), (NARROW, True)])
def test_hover_and_click_tell_the_right_cell(
    kind: str, size: tuple[int, int], dark: bool, new_page: OpenTab, url: str
) -> None:
    page = new_page(size, dark=dark)
    open_picture(page, url, kind)
    assert_no_sideways_scrolling(page)
    values = demo.maps(kind).astype(np.float64)
    channels, height, width = values.shape
    random = np.random.default_rng(3)
    spots = [(0, 0, 0), (channels - 1, height - 1, width - 1)]
    spots += [tuple(int(random.integers(n)) for n in values.shape) for _ in range(4)]
    if kind == "wide":
        spots.append((5, 2, 3))
    for channel, row, column in spots:
        x, y = cell_on_screen(page, channel, row, column)
        page.mouse.move(x, y)
        place = f" · row {row}, column {column}" if height * width > 1 else ""
        dead = " · all zero" if not values[channel].any() else ""
        number = shown(values, values[channel, row, column])
        expect(page.locator(TIP)).to_have_text(f"channel {channel}{place} · {number}{dead}")
        assert_no_sideways_scrolling(page)
        page.mouse.click(x, y)
        expect(page.get_by_text(f"spot: ({channel}, {row}, {column})")).to_be_visible()
    expect(page.locator(".nin-sprite-mark")).to_be_visible()


def test_every_cell_is_at_least_a_screen_pixel_and_a_whole_number_of_them(
    page: Page, url: str
) -> None:
    open_picture(page, url, "wide")
    cell, width, canvas = page.evaluate(
        """() => { const { layout, canvas } = [...window.ninSprites.values()][0];
                   return [layout.cell, layout.width / layout.ratio,
                           canvas.getBoundingClientRect().width]; }"""
    )
    assert cell >= 1
    assert cell == int(cell)
    assert canvas == width


def test_the_colour_bar_says_what_the_colours_mean(page: Page, url: str) -> None:
    open_picture(page, url, "wide")
    values = demo.maps("wide")
    head = page.locator(".nin-sprite-head")
    expect(head.locator(".nin-sprite-low")).to_have_text("0")
    expect(head.locator(".nin-sprite-high")).to_have_text(shown(values, float(values.max())))
    expect(head).to_contain_text("2 of 96 channels are dead")
    open_picture(page, url, "kernels")
    values = demo.maps("kernels")
    expect(head.locator(".nin-sprite-low")).to_have_text(shown(values, float(values.min())))
    expect(head.locator(".nin-sprite-zero")).to_be_visible()


def test_maps_are_sent_once(page: Page, url: str) -> None:
    received: list[int] = []

    def count(socket: Any) -> None:
        socket.on("framereceived", lambda frame: received.append(len(frame)))

    page.on("websocket", count)
    open_picture(page, url, "wide")
    assert sum(received) > 2 * 96 * 54 * 54
    received.clear()
    x, y = cell_on_screen(page, 17, 3, 5)
    page.mouse.move(x, y)
    page.mouse.click(x, y)
    expect(page.get_by_text("spot: (17, 3, 5)")).to_be_visible()
    wait_idle(page)
    assert sum(received) < 40_000


def test_arrow_keys_select_channels_and_send_the_last(page: Page, url: str) -> None:
    open_picture(page, url, "kernels")
    page.locator(".nin-sprite-grid").focus()
    columns = page.evaluate("() => [...window.ninSprites.values()][0].layout.columns")
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    channel = 2 + columns
    values = demo.maps("kernels")
    if channel >= len(values):
        channel = 2
    row, column = np.unravel_index(np.abs(values[channel]).argmax(), values[channel].shape)
    expect(page.get_by_text(f"spot: ({channel}, {row}, {column})")).to_be_visible()
    expect(page.locator(".nin-sprite-said")).to_contain_text(f"channel {channel} ·")


def test_a_tap_selects_and_explains(browser: Any, url: str) -> None:
    context = browser.new_context(
        viewport={"width": NARROW[0], "height": NARROW[1]}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    open_picture(page, url, "kernels")
    page.touchscreen.tap(*cell_on_screen(page, 3, 4, 5))
    expect(page.get_by_text("spot: (3, 4, 5)")).to_be_visible()
    expect(page.locator(TIP)).to_contain_text("channel 3 · row 4, column 5")
    context.close()


@pytest.mark.parametrize(("size", "dark"), [(WIDE, True), (NARROW, False)])
def test_class_maps_name_class_cell_and_value(
    size: tuple[int, int], dark: bool, new_page: OpenTab, url: str
) -> None:
    page = new_page(size, dark=dark)
    open_picture(page, url, "classes")
    assert_no_sideways_scrolling(page)
    cells = demo.class_cells().astype(np.float64)
    for label, row, column in ((0, 0, 0), (2, 4, 1), (4, 2, 2)):
        page.mouse.move(*cell_on_screen(page, label, row, column))
        number = shown(cells, cells[label, row, column])
        text = f"{demo.CLASSES[label]} · row {row}, column {column} · {number}"
        expect(page.locator(TIP)).to_have_text(text)
    # The page outlines the predicted class: clicks do not move that.
    mark = page.locator(".nin-sprite-mark")
    before = mark.bounding_box()
    page.mouse.click(*cell_on_screen(page, 4, 2, 2))
    assert mark.bounding_box()["width"] == before["width"]  # type: ignore[index]
    assert page.evaluate("() => [...window.ninSprites.values()][0].selected") == 1


# --- drawings ---------------------------------------------------------------------------------


def test_a_drawing_explains_its_parts_and_tells_which_was_clicked(page: Page, url: str) -> None:
    page.goto(f"{url}/?show=drawing")
    first = page.locator('.nin-svg [data-id="block1"]')
    first.hover()
    expect(page.locator(".nin-svg-tip")).to_have_text("96 maps of 54×54")
    first.click()
    expect(page.get_by_text("chosen: block1")).to_be_visible()
    expect(first).to_have_class("selected")
    page.locator('.nin-svg [data-id="block2"]').focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("chosen: block2")).to_be_visible()
    expect(first).not_to_have_class("selected")


def test_a_drawing_keeps_its_scale_and_scrolls_inside_its_frame(
    new_page: OpenTab, url: str
) -> None:
    wide, narrow = new_page(WIDE), new_page(NARROW)
    for page in (wide, narrow):
        page.goto(f"{url}/?show=drawing")
        expect(page.locator(".nin-svg svg")).to_be_visible()
        assert_no_sideways_scrolling(page)
    assert wide.locator(".nin-svg svg").bounding_box()["width"] == 600  # type: ignore[index]
    assert narrow.locator(".nin-svg svg").bounding_box()["width"] == 500  # type: ignore[index]
