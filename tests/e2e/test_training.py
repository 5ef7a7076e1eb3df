"""The Training page in a real browser with real workers: start, watch, reload, stop, compare.

The first test trains one epoch on the real data; the others take the generated shapes. No test
asserts a time; what takes long on a busy machine is waited for with patience.
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from nin_core import PRESETS
from nin_core.recipes import RECIPES
from nin_core.records import MetricRow
from nin_core.store import RunStore
from tests.e2e.conftest import OpenTab, StartServer
from tests.e2e.harness import (
    CURVES,
    NARROW,
    WATCH_CHART,
    Dashboard,
    assert_no_exception,
    button,
    choose,
    expect_state,
    press,
    set_number,
    visit,
    wait_idle,
    zoom_chart,
)

if TYPE_CHECKING:
    from nin_core.data import Dataset

PATIENCE = 300_000  # ms; an epoch takes a quarter of a minute on an idle machine
# Training accuracy as the browser has it: the number of its points.
POINTS_OF = "() => document.querySelector('{}')?.data?.[0]?.x?.length ?? 0"
POINTS = POINTS_OF.format(CURVES)


def sees(page: Page, text: str | re.Pattern[str]) -> None:
    """Wait until the page shows this text."""
    expect(page.get_by_text(text)).to_be_visible(timeout=PATIENCE)


def start(page: Page) -> None:
    button(page, "Start").click()


def points(page: Page, least: int) -> int:
    page.wait_for_function(f"least => ({POINTS})() >= least", arg=least, timeout=PATIENCE)
    return int(page.evaluate(POINTS))


def start_long_run(page: Page, server: Dashboard, epochs: int = 500) -> int:
    """Start a run on the shapes that does not end by itself, and wait until it learns."""
    visit(page, server, "/training")
    choose(page, "Data set", "Shapes (generated)")
    # No Enter: what is typed as Start is pressed counts.
    page.get_by_role("spinbutton", name="Epochs", exact=True).fill(str(epochs))
    run = "new URLSearchParams(location.search).get('run')"  # other parameters change, too
    before = page.evaluate(f"() => {run}")
    start(page)
    page.wait_for_function(f"before => {run} !== before", arg=before, timeout=PATIENCE)
    run_id = int(page.evaluate(f"() => {run}"))
    sees(page, re.compile(f"^#{run_id} "))
    # In its own chart: another run's may be on the page until this one's is there.
    own = POINTS_OF.format(f".st-key-curves-of-run-{run_id} .nin-plot")
    page.wait_for_function(f"() => ({own})() >= 3", timeout=PATIENCE)
    expect(page.locator(".st-key-tr-live .nin-progress")).to_contain_text(f" of {epochs} ")
    return run_id


def stop(page: Page) -> None:
    button(page, "Stop").click()
    expect_state(page, "stopped")


def finished_run(store: RunStore, name: str, epochs: int = 1) -> int:
    """A run that ended, written as its worker would."""
    from nin_core.processes import this_worker

    train = RECIPES["fast"].configure(PRESETS["nin-slim-128"], epochs=epochs)
    run_id = store.create(PRESETS["nin-slim-128"], train, "shapes", name)
    attempt = store.claim(run_id, this_worker())
    store.note(run_id, attempt, total_steps=94 * epochs)
    rows = [
        MetricRow("step", 1, n, n / 50, 2 / n, 1 - 1 / n, None, 1 - 1.2 / n, 500)
        for n in range(2, 94 * epochs + 1, 4)
    ]
    store.add_metrics(run_id, rows, attempt=attempt)
    store.transition(run_id, "finished", attempt=attempt)
    store.release(run_id, attempt)
    return run_id


# --- the main job -----------------------------------------------------------------------------


def test_one_epoch_on_real_data_with_a_reload_in_the_middle(
    start_server: StartServer, page: Page, fashion_mnist: Dataset
) -> None:
    server = start_server()
    visit(page, server, "/training")
    sees(page, "No network has been trained here yet")
    start(page)
    expect(button(page, "Stop")).to_be_visible(timeout=PATIENCE)
    first = points(page, 2)
    assert points(page, first + 1) > first  # the curves grow by themselves
    sees(page, re.compile(r"Epoch 1 of 1 · step [\d,]+ of 938"))

    link = page.url
    assert re.search(r"[?&]run=1(&|$)", link)
    seen = int(page.evaluate(POINTS))
    page.reload()
    assert points(page, seen) >= seen
    assert page.url == link

    expect_state(page, "finished")
    sees(page, "Most confident mistakes")
    (run,) = RunStore(server.store_url).list_runs()
    assert run.test_accuracy is not None and run.test_accuracy >= 0.75
    assert run.has_checkpoint
    assert run.has_evaluation
    figures = page.locator(".nin-figures")
    expect(figures).to_contain_text(f"{run.test_accuracy:.1%}")
    expect(figures).to_contain_text("all 10,000 test images")
    expect(page.locator(".nin-mistakes [role=listitem]")).to_have_count(18)
    wait_idle(page)
    # A run that has ended does not tick.
    page.evaluate(WATCH_CHART)
    page.wait_for_timeout(2500)
    assert page.evaluate("() => window.watched.updates") == 0


# --- the live chart ---------------------------------------------------------------------------


def test_the_live_chart_is_never_blank_and_keeps_its_zoom(server: Dashboard, page: Page) -> None:
    start_long_run(page, server)
    expect(page.get_by_role("figure", name="Chart of accuracy, loss by epoch")).to_be_visible()
    page.evaluate(WATCH_CHART)
    zoom_chart(page)
    layout = f"document.querySelector('{CURVES}')._fullLayout"
    axes = f"() => ['xaxis', 'yaxis'].map(axis => {layout}[axis].range)"
    page.wait_for_function(f"() => ({axes})()[0][0] > 0")
    zoomed = page.evaluate(axes)
    before = int(page.evaluate(POINTS))
    # One update may bring several points, so it is the updates that are waited for.
    page.wait_for_function("() => window.watched.updates >= 5", timeout=PATIENCE)
    assert points(page, before + 5) >= before + 5
    assert page.evaluate(axes) == zoomed
    watched = page.evaluate("() => window.watched")
    assert (watched["blank"], watched["moved"]) == (0, 0)
    # Another unit is another view: what was zoomed in epochs means nothing in steps.
    page.locator(".st-key-tr-live").get_by_text("Steps", exact=True).click()
    page.wait_for_function(f"() => {layout}.xaxis.title.text === 'step'", timeout=PATIENCE)
    assert page.evaluate(axes)[0][0] == 0
    # Nobody knows how many seconds it will take: that axis grows with each update.
    page.locator(".st-key-tr-live").get_by_text("Seconds", exact=True).click()
    named = f"() => {layout}.xaxis.title.text === 'seconds of training'"
    page.wait_for_function(named, timeout=PATIENCE)
    zoom_chart(page)
    page.wait_for_function(f"() => ({axes})()[0][0] > 0")
    zoomed, before = page.evaluate(axes), page.evaluate("() => window.watched.updates")
    page.wait_for_function(f"() => window.watched.updates >= {before} + 3", timeout=PATIENCE)
    assert page.evaluate(axes) == zoomed
    stop(page)


def test_a_live_page_is_brought_up_to_date_without_its_script(
    server: Dashboard, page: Page
) -> None:
    start_long_run(page, server)
    bar = ".st-key-tr-live .nin-progress"
    sees(page, "See its feature maps")  # the page has nothing new to offer until the run ends
    wait_idle(page)
    page.wait_for_timeout(1000)
    # Drawn by the script it would be another element.
    page.evaluate(f"() => {{ document.querySelector('{bar}').marked = true; }}")
    page.evaluate(WATCH_CHART)
    said = page.locator(bar).inner_text()
    page.wait_for_function("() => window.watched.updates >= 4", timeout=PATIENCE)
    expect(page.locator(bar)).not_to_have_text(said, timeout=PATIENCE)
    assert page.evaluate(f"() => document.querySelector('{bar}').marked")
    shown = page.evaluate(f"() => parseFloat(document.querySelector('{bar} i').style.width)")
    assert shown == float(page.locator(bar).get_attribute("aria-valuenow"))
    stop(page)


def test_without_its_feed_a_live_page_is_drawn_by_its_script(server: Dashboard, page: Page) -> None:
    page.route("**/nin/runs/**", lambda route: route.abort())
    start_long_run(page, server)
    seen = points(page, 3)
    points(page, seen + 1)
    button(page, "Stop").click()
    expect_state(page, "stopped")


def test_a_hidden_page_asks_nothing_and_catches_up(server: Dashboard, page: Page) -> None:
    sent: list[bytes | str] = []  # over Streamlit's connection: whatever has a script run
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    start_long_run(page, server)
    hide = """(hidden) => {
        Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    sees(page, "Duplicate with changes")
    wait_idle(page)
    asked: list[str] = []
    page.evaluate(hide, True)
    page.wait_for_timeout(1500)  # an answer that was on its way
    page.on("request", lambda request: asked.append(request.url))
    seen = int(page.evaluate(POINTS))
    sent.clear()
    page.wait_for_timeout(4000)  # in which a list that is seen is drawn anew
    assert not [url for url in asked if "/nin/runs/" in url]
    assert not sent
    page.evaluate(hide, False)
    points(page, seen + 1)
    deadline = time.monotonic() + 30
    while not sent and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert sent, "the list goes on"
    stop(page)


def test_two_tabs_show_the_same_run_and_each_can_stop_it(
    server: Dashboard, page: Page, new_page: OpenTab
) -> None:
    start_long_run(page, server)
    other = new_page(NARROW, dark=True)
    other.goto(page.url)
    points(other, 3)
    stop(other)
    expect_state(page, "stopped")
    for tab in (page, other):
        sees(tab, "What it gets right and wrong")
        wait_idle(tab)
    button(page, "Resume").click()
    expect_state(other, "running")  # and followed as before
    points(other, int(other.evaluate(POINTS)) + 2)
    stop(page)


# --- starting and stopping --------------------------------------------------------------------


def test_a_double_click_starts_one_run(start_server: StartServer, page: Page) -> None:
    server = start_server()
    visit(page, server, "/training")
    choose(page, "Data set", "Shapes (generated)")
    button(page, "Start").dblclick()
    sees(page, re.compile(r"^#1 "))
    points(page, 2)
    stop(page)
    assert len(RunStore(server.store_url).list_runs()) == 1


def test_stop_keeps_what_was_learned_and_other_pages_lose_nothing(
    server: Dashboard, page: Page
) -> None:
    run_id = start_long_run(page, server)
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Architecture").click()
    expect(page.locator("h1")).to_contain_text("Architecture", timeout=PATIENCE)
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Training").click()
    before = points(page, 3)
    assert f"run={run_id}" in page.url
    points(page, before + 1)
    stop(page)
    run = RunStore(server.store_url).get(run_id)
    assert run.has_checkpoint
    assert run.step > 0
    link = page.get_by_role("link", name=re.compile("See its feature maps"))
    expect(link).to_be_visible(timeout=PATIENCE)
    sees(page, "What it gets right and wrong")
    wait_idle(page)
    link.click()
    expect(page.locator("h1")).to_contain_text("Feature maps", timeout=PATIENCE)
    assert f"run={run_id}" in page.url


def test_a_paused_run_goes_on(server: Dashboard, page: Page) -> None:
    run_id = start_long_run(page, server)
    button(page, "Pause").click()
    expect_state(page, "paused")
    store = RunStore(server.store_url)
    paused = store.get(run_id)
    assert paused.step > 0
    sees(page, f"Paused after step {paused.checkpoint_step:,} of {paused.total_steps:,}.")
    button(page, "Resume").click()
    expect_state(page, "running")
    page.wait_for_timeout(100)
    points(page, len([row for row in store.metrics(run_id) if row.kind == "step"]) + 2)
    assert store.get(run_id).step > paused.step
    stop(page)


def test_the_fastest_way_to_train_is_found_before_the_first_run(
    start_server: StartServer, page: Page
) -> None:
    visit(page, start_server(), "/training?net=nin-28")
    choose(page, "Data set", "Shapes (generated)")
    sees(page, re.compile("a first guess"))
    button(page, "Find the fastest way to train it").click()
    sees(page, re.compile(r"channels (last|first).*: [\d,]+ images/s"))
    sees(page, re.compile("by steps that were timed here"))
    assert_no_exception(page)


def test_a_new_run_never_shows_the_figures_of_the_one_before(
    start_server: StartServer, page: Page
) -> None:
    """Both are alive; what still comes for the first is not for what the page shows now."""
    visit(page, start_server(), "/training")
    choose(page, "Data set", "Shapes (generated)")
    set_number(page, "Epochs", 200)
    press(page, "Start")
    expect(page.locator(".nin-progress")).to_contain_text("Epoch 1 of 200", timeout=120_000)
    button(page, "Start").click()
    expect(page.get_by_role("heading", name=re.compile("^#2 "))).to_be_visible()
    seen = page.evaluate(
        """async () => {
            const all = () => document.querySelectorAll('.nin-figures, .nin-progress');
            const seen = new Set(), until = performance.now() + 6000;
            let drawn = false; // the page may be half drawn when its heading comes
            while (performance.now() < until) {
                const runs = [...all()].map((one) => one.dataset.run);
                drawn ||= runs.length > 0 && runs.every((run) => run === '2');
                if (drawn) runs.forEach((run) => seen.add(run));
                await new Promise(requestAnimationFrame);
            }
            return [...seen];
        }"""
    )
    assert seen == ["2"]


def test_a_killed_worker_is_shown_as_interrupted(server: Dashboard, page: Page) -> None:
    run_id = start_long_run(page, server)
    worker = RunStore(server.store_url).get(run_id).worker_pid
    assert worker in server.workers()
    os.kill(worker, signal.SIGKILL)
    expect_state(page, "interrupted")
    sees(page, "This run was interrupted.")
    assert points(page, 3)  # its curves are still there


def test_a_killed_servers_run_goes_on_under_the_next_one_by_itself(
    start_server: StartServer, page: Page
) -> None:
    """The real server, killed without a warning; nobody visits the next one until it trains."""
    server = start_server()
    run_id = start_long_run(page, server)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE / 1000
    while server.workers():
        assert time.monotonic() < deadline, "a worker outlived its server"
        time.sleep(0.1)
    store = RunStore(server.store_url)
    kept = store.get(run_id)
    assert (kept.state, kept.worker) == ("queued", None)
    assert kept.checkpoint_step == kept.step > 0
    server.start()
    while store.get(run_id).step <= kept.step:
        assert time.monotonic() < deadline, "the run did not go on"
        time.sleep(0.1)
    page.goto(f"{server.url}/training?run={run_id}")
    expect_state(page, "running")
    assert store.get(run_id).attempt == 2


def test_a_tab_that_outlives_its_server_can_be_used_with_the_next_one(
    start_server: StartServer, page: Page
) -> None:
    server = start_server()
    start_long_run(page, server)
    server.stop(workers=False)
    app = page.get_by_test_id("stApp")
    expect(app).not_to_have_attribute("data-test-connection-state", "CONNECTED")
    with page.expect_navigation(timeout=PATIENCE):  # by itself
        server.start()
    expect_state(page, "running")
    stop(page)


# --- the list ---------------------------------------------------------------------------------


@pytest.fixture
def listed(start_server: StartServer) -> tuple[Dashboard, RunStore]:
    """A server that nobody has visited, with three finished runs."""
    server = start_server()
    store = RunStore(server.store_url)
    for name in ("first", "second", "third"):
        finished_run(store, name)
    return server, store


def click_row(page: Page, row: int, *, box: bool) -> None:
    """Click a row of the list (the newest run is row 0): its box, or a cell."""
    table = page.get_by_test_id("stDataFrame")
    table.scroll_into_view_if_needed()
    place = table.bounding_box()
    assert place is not None
    page.mouse.click(place["x"] + (18 if box else 180), place["y"] + 35 * (row + 1.5))
    wait_idle(page)


def test_a_click_in_the_list_opens_a_run_and_ticks_compare(
    listed: tuple[Dashboard, RunStore], page: Page
) -> None:
    server, store = listed
    visit(page, server, "/training?run=3")
    sees(page, "#3 third")
    click_row(page, 2, box=False)
    sees(page, "#1 first")
    assert "run=1" in page.url
    click_row(page, 0, box=True)
    click_row(page, 1, box=True)
    comparison = page.locator(".nin-plot").last
    expect(comparison.locator(".legendtext")).to_have_text(
        ["#2 second", "#3 third"], timeout=PATIENCE
    )
    sees(page, "#1 first")
    # A run that comes meanwhile moves the rows, not the ticks.
    finished_run(store, "fourth")
    page.get_by_text("Rename or delete").click()
    press(page, "Rename")
    expect(comparison.locator(".legendtext")).to_have_text(
        ["#2 second", "#3 third"], timeout=PATIENCE
    )


def test_delete_asks_first_and_the_link_then_says_so(
    listed: tuple[Dashboard, RunStore], page: Page
) -> None:
    server, store = listed
    visit(page, server, "/training?run=2")
    page.get_by_text("Rename or delete").click()
    press(page, "Delete run #2")
    assert [run.id for run in store.list_runs()] == [3, 1]
    sees(page, "#3 third")
    visit(page, server, "/training?run=2")
    sees(page, "There is no run #2")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(
    listed: tuple[Dashboard, RunStore], new_page: OpenTab
) -> None:
    server, _ = listed
    page = new_page(NARROW)
    visit(page, server, "/training?run=1")
    expect(page.locator(f"{CURVES} .main-svg").first).to_be_visible(timeout=PATIENCE)
    wide = page.evaluate(
        "() => { const m = document.querySelector('[data-testid=\"stMain\"]');"
        " return m.scrollWidth - m.clientWidth; }"
    )
    assert wide <= 0
    assert_no_exception(page)
