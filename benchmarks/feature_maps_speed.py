"""What a person waits for on the Feature maps page, in Chromium against the real server.

    python -m benchmarks.feature_maps_speed [--quick]

All for the 96 maps of 54×54 of nin-224's first block, each from the key or the button pressed to
the frame that has it:

1. A layer chosen → its maps drawn, of a picture that the page has not computed yet; then again, of
   one that it has.
2. A pixel clicked in a map → its way through the 1×1 layers: heading and drawn chart.
3. The slider of “Learning, replayed” moved → the new maps drawn. Also, once: the view opened → its
   first maps, which is when all moments are computed and sent.

The run has as many snapshots as a run of nin-224 keeps, of random weights; the pictures are the
generated shapes. So it needs a Chromium, and nothing else. Timings depend on the machine; run it
alone.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from nin_core import PRESETS, summarize
from nin_core.features import untrained_model
from nin_core.recipes import RECIPES
from nin_core.records import MetricRow, WorkerId
from nin_core.snapshots import Snapshots, Taken, halved, room_for
from nin_core.store import RunStore
from tests.e2e.harness import (
    Dashboard,
    button,
    cell_on_screen,
    choose,
    launch_chromium,
    open_tab,
    visit,
    wait_idle,
)
from tests.prerequisites import NO_CHROMIUM, find_chromium

NETWORK = PRESETS["nin-224"]
LAYER = "Block 1 · 11×11 convolution + ReLU"
PAGE = "/feature_maps?run=1&layer=block1.relu"
TARGETS = {"layer": 300, "pixel": 250, "slider": 300}  # milliseconds, medians

# Resolves with the milliseconds from the next `event` to the end of the frame in which `done()`
# holds; rejects after 30 s. What `done` needs to know of the time before, `before` remembers.
TIMED = """
({ event, before, done, limit = 30000 }) => new Promise((resolve, reject) => {
    const known = new Function('return (' + before + ')()')();
    const ready = new Function('known', 'return (' + done + ')(known)');
    const sent = performance.now();
    let start = null;
    const look = () => {
        if (start !== null && ready(known)) return resolve(performance.now() - start);
        if (performance.now() - sent > limit) return reject(new Error('not shown: ' + done));
        requestAnimationFrame(look);
    };
    const note = () => { start ??= performance.now(); };
    document.addEventListener(event, note, { once: true, capture: true });
    requestAnimationFrame(look);
})
"""
# The picture of this key has been painted with 96 maps of 54×54 that it did not have before.
PAINTED = """
(known) => {{
    const sprite = window.ninSprites?.get('{key}');
    return sprite?.drawn && sprite.root.isConnected && sprite.drawn.arrays === sprite.arrays
        && String(sprite.data.shape) === '96,54,54' && sprite.data.parcel !== known;
}}
"""
PARCEL = "() => window.ninSprites?.get('{key}')?.data?.parcel"
ALL, FILM = "fm-after", "fm-replay-film"  # pictures of maps, by their keys
STRIPS = "() => String(window.ninPlots.get('fm-lens-strips').node.data[0].z)"


def report(title: str, values: Sequence[float], target: float | None) -> None:
    wanted = "" if target is None else f" (target: median at most {target:.0f} ms)"
    print(
        f"  {title}: median {statistics.median(values):.0f} ms, worst {max(values):.0f} ms "
        f"of {len(values)}{wanted}",
        flush=True,
    )


class Clock:
    """Times what happens on a page: `begin`, do it, `end`."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def begin(self, event: str, done: str, before: str) -> None:
        self._page.evaluate(
            f"(wanted) => {{ window.timed = ({TIMED})(wanted); window.timed.catch(() => 0); }}",
            {"event": event, "before": before, "done": done},
        )

    def begin_maps(self, event: str, key: str) -> None:
        """Until the picture of this key has other maps of the first block than now."""
        self.begin(event, PAINTED.format(key=key), PARCEL.format(key=key))

    def end(self) -> float:
        return float(self._page.evaluate("() => window.timed"))


def add_run(store: RunStore) -> int:
    """A finished run of nin-224 with as many snapshots as such a run keeps; how many."""
    count = room_for(2 * summarize(NETWORK).total_parameters)
    run_id = store.create(NETWORK, RECIPES["fast"].configure(NETWORK), "shapes")
    attempt = store.claim(run_id, WorkerId("benchmark", 1))
    assert attempt is not None
    snapshots = Snapshots(store.database)
    for number in range(count):
        model = untrained_model(NETWORK, seed=number)
        snapshots.add(run_id, attempt, Taken(100 * number, 1, halved(model.state_dict())))
    kept = snapshots.all(run_id)
    last = snapshots.load(run_id, kept[-1].step)
    assert last is not None
    store.save_checkpoint(run_id, kept[-1].step, 1, last)
    store.add_metrics(run_id, [MetricRow("step", 1, kept[-1].step, 1.0)], attempt=attempt)
    store.transition(run_id, "finished", attempt=attempt)
    return len(kept)


def choose_layer(page: Page, server: Dashboard, clock: Clock, rounds: int) -> None:
    """A new picture each round, then block 1; the pooling; and block 1 once more."""
    visit(page, server, PAGE + "&view=maps")
    first, again = [], []
    for _ in range(rounds):
        choose(page, "Layer", "Pooling 1 · maximum of 3×3, stride 2")
        button(page, "Next").click()
        wait_idle(page)
        first.append(_pick_layer(page, clock))
        choose(page, "Layer", "Pooling 1 · maximum of 3×3, stride 2")
        again.append(_pick_layer(page, clock))
    report("layer chosen to its maps, computed anew", first, TARGETS["layer"])
    report("layer chosen to its maps, computed before", again, TARGETS["layer"])


def _pick_layer(page: Page, clock: Clock) -> float:
    label = page.get_by_test_id("stWidgetLabel").get_by_text("Layer", exact=True)
    layer = page.get_by_test_id("stSelectbox").filter(has=label)
    layer.scroll_into_view_if_needed()
    page.wait_for_timeout(300)  # a list that opens while the page scrolls closes again
    layer.get_by_role("combobox").click()
    option = page.get_by_role("option", name=LAYER, exact=True)
    option.wait_for()
    clock.begin_maps("pointerdown", ALL)
    option.click()
    taken = clock.end()
    wait_idle(page)
    return taken


def click_pixels(page: Page, server: Dashboard, clock: Clock, rounds: int) -> None:
    visit(page, server, PAGE + "&view=lens")
    page.wait_for_function("() => window.ninPlots?.get('fm-lens-strips')?.node?._fullLayout")
    times = []
    for number in range(rounds):
        row, column = 5 + number, 7 + 2 * number % 40
        place = cell_on_screen(page, number % 4, row, column, "fm-lens")
        # The heading names the pixel, the chart has drawn other numbers.
        page.evaluate(
            "() => { const { node } = window.ninPlots.get('fm-lens-strips'); window.drawn = 0;"
            " node.removeAllListeners?.('plotly_afterplot');"
            " node.on('plotly_afterplot', () => { window.drawn = String(node.data[0].z); }); }"
        )
        done = (
            "(known) => window.drawn && window.drawn !== known"
            f" && document.body.textContent.includes('Pixel ({row}, {column}) through')"
        )
        page.mouse.move(*place)
        clock.begin("pointerdown", done, STRIPS)
        page.mouse.click(*place)
        times.append(clock.end())
        wait_idle(page)
    report("pixel clicked to its trace", times, TARGETS["pixel"])


def move_slider(page: Page, server: Dashboard, clock: Clock, rounds: int, moments: int) -> None:
    visit(page, server, PAGE + "&view=maps")
    clock.begin_maps("pointerdown", FILM)
    page.get_by_role("radiogroup", name="View", exact=True).get_by_text(
        "Learning, replayed", exact=True
    ).click()
    report(f"replay opened to its first maps, {moments} moments", [clock.end()], None)
    wait_idle(page)
    slider = page.locator(".nin-replay-slider")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_timeout(500)
    times = []
    for number in range(rounds):
        there = number // (moments - 1) % 2 == 0
        clock.begin_maps("keydown", FILM)
        page.keyboard.press("ArrowRight" if there else "ArrowLeft")
        times.append(clock.end())
    report("slider moved to the new maps", times, TARGETS["slider"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 4 if parser.parse_args().quick else 20
    # However it is ended, the server ends with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    executable = find_chromium()
    if executable is None:
        raise SystemExit(NO_CHROMIUM)
    began = time.perf_counter()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as name:
        browser = launch_chromium(playwright, executable)
        with Dashboard(Path(name)) as server:
            moments = add_run(RunStore(server.store_url))
            page = open_tab(browser)
            clock = Clock(page)
            choose_layer(page, server, clock, rounds)
            click_pixels(page, server, clock, rounds)
            move_slider(page, server, clock, 4 * rounds, moments)
        browser.close()
    print(f"  all of it took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
