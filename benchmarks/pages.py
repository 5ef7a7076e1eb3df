"""What a person waits for, measured in Chromium against the real server.

    python -m benchmarks.pages [--quick]

1. A slider moved → the per-layer table and the sidebar's totals updated: idle, then while two runs
   train. From the key press to the frame in which both show the new total; and, idle, to the one
   in which the diagram and the bars are new, too.
2. The live chart over a minute of training: frames in which it was blank, whether its node was
   replaced, whether a zoom held, and the main thread's time per update.
3. One layer's 96 maps of nin-224: from choosing the layer to the frame that shows them.
4. A cold server: from its start to a usable Architecture page, and what of torch it has loaded.
5. Start pressed → the first point of the curves, with a spare worker waiting.
6. A comparison of 20 runs of 10,000 points: from its address to its curves, in a server that has
   not read them; then from another horizontal axis to the curves drawn anew.

Needs what the tests need (a Chromium, Fashion-MNIST). Timings depend on the machine; run it alone.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from nin_core import PRESETS, summarize
from nin_core.jobs import start_run, stop_run
from nin_core.processes import this_worker
from nin_core.recipes import RECIPES
from nin_core.records import MetricRow
from nin_core.store import RunStore
from tests.e2e.harness import (
    CURVES,
    WATCH_CHART,
    Dashboard,
    button,
    choose,
    launch_chromium,
    open_tab,
    slider,
    visit,
    wait_idle,
    zoom_chart,
)
from tests.prerequisites import NO_CHROMIUM, find_chromium

# Resolves with two times in milliseconds from the next key press: to the first frame that shows
# `expected` in the sidebar's totals and in the per-layer table, and to the first in which the
# diagram names the new `shape` as well and the bars are shares of the new total.
TIME_TO_TOTAL = """
([expected, shape]) => new Promise((resolve, reject) => {
    const hosts = [...document.querySelectorAll('*')].filter((e) => e.shadowRoot);
    const drawing = () => hosts.map((e) => e.shadowRoot.textContent).join();
    document.addEventListener('keydown', () => {
        const start = performance.now();
        let table_shown = null;
        const look = () => {
            const totals = document.querySelector('.nin-totals')?.textContent ?? '';
            const table = document.querySelector('.nin-layers')?.textContent ?? '';
            if (totals.includes(expected) && table.includes(expected)) {
                table_shown ??= performance.now() - start;
            }
            const bars = document.querySelector('.nin-bars')?.innerHTML ?? '';
            if (table_shown && bars.includes(`of ${expected}`) && drawing().includes(shape)) {
                resolve([table_shown, performance.now() - start]);
            } else if (performance.now() - start > 30000) {
                reject(new Error(`After 30 s the table shows ${expected}: ${!!table_shown}; the `
                    + `diagram ${shape}: ${drawing().includes(shape)}; the bars ${expected}: `
                    + `${bars.includes(`of ${expected}`)}.`));
            } else {
                requestAnimationFrame(look);
            }
        };
        requestAnimationFrame(look);
    }, {once: true, capture: true});
})
"""


def report(title: str, values: Sequence[float], target: float, unit: str = "ms") -> None:
    median, worst = statistics.median(values), max(values)
    late = statistics.quantiles(values, n=20, method="inclusive")[-1]
    print(
        f"  {title}: median {median:.0f} {unit}, 95 % within {late:.0f} {unit}, "
        f"worst {worst:.0f} {unit} of {len(values)} "
        f"(target: median at most {target:.0f} {unit})",
        flush=True,
    )


def slider_latency(page: Page, server: Dashboard, moves: int) -> tuple[list[float], list[float]]:
    """Milliseconds from each of `moves` key presses to the new total, and to the whole new page."""
    visit(page, server, "/architecture?net=nin-slim-128")
    page.wait_for_selector(".nin-bars")
    handle = slider(page, "Block 2 channels")
    handle.focus()
    width = int(handle.input_value())
    totals, everything = [], []
    for move in range(moves):
        width += 1 if move < moves / 2 else -1
        config = PRESETS["nin-slim-128"].with_widths((6, width, 24))
        expected = [f"{summarize(config).total_parameters:,}", f"{width}×14×14"]
        page.evaluate(f"(expected) => {{ window.timed = ({TIME_TO_TOTAL})(expected); }}", expected)
        page.keyboard.press("ArrowRight" if move < moves / 2 else "ArrowLeft")
        table, page_shown = page.evaluate("() => window.timed")
        totals.append(table)
        everything.append(page_shown)
        wait_idle(page)
    return totals, everything


def with_training(server: Dashboard, work: Callable[[], None]) -> None:
    """Do `work` while two runs of nin-slim-128 train on the real data."""
    store = RunStore(server.store_url)
    network = PRESETS["nin-slim-128"]
    runs = [
        start_run(
            store,
            network,
            RECIPES["fast"].configure(network, epochs=20, seed=seed),
            "fashion-mnist",
        )
        for seed in range(2)
    ]
    try:
        while any(store.get(run_id).step == 0 for run_id in runs):
            time.sleep(0.1)
        work()
    finally:
        for run_id in runs:
            stop_run(store, run_id)
        while any(store.get(run_id).worker is not None for run_id in runs):
            time.sleep(0.1)


def live_chart(page: Page, server: Dashboard, seconds: int) -> None:
    visit(page, server, "/training")
    page.wait_for_function(f"() => document.querySelectorAll('{CURVES} .js-line').length >= 2")
    zoom_chart(page)
    axes = f"() => ['xaxis', 'yaxis'].map(a => document.querySelector('{CURVES}')._fullLayout[a])"
    ranges = f"() => ({axes})().map(axis => axis.range)"
    page.wait_for_function(f"() => ({ranges})()[0][0] > 0")
    zoomed = page.evaluate(ranges)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(m["value"] for m in metrics if m["name"] == "TaskDuration")

    page.evaluate(WATCH_CHART)
    before = busy()
    page.wait_for_timeout(seconds * 1000)
    spent = busy() - before
    seen = page.evaluate("() => window.watched")
    held = page.evaluate(ranges) == zoomed
    print(
        f"  live chart over {seconds} s: {seen['blank']} of {seen['frames']} frames blank, node "
        f"replaced {seen['moved']} times, zoom {'held' if held else 'LOST'}, {seen['updates']} "
        f"updates, {spent / max(seen['updates'], 1):.0f} ms of main thread each "
        "(target: 0 blank, zoom held)",
        flush=True,
    )


# Resolves with the milliseconds from the click on an option to the frame that shows these maps.
TIME_TO_MAPS = """
(size) => new Promise((resolve) => {
    document.addEventListener('pointerdown', () => {
        const start = performance.now();
        const look = () => {
            const titles = [...document.querySelectorAll('.nin-sprite-title')];
            if (titles.some((title) => title.textContent.includes(size))) {
                resolve(performance.now() - start);
            } else {
                requestAnimationFrame(look);
            }
        };
        requestAnimationFrame(look);
    }, {once: true, capture: true});
})
"""


def maps_latency(page: Page, server: Dashboard, rounds: int) -> None:
    """Choose nin-224's first convolution `rounds` times, pooled maps of it in between."""
    visit(page, server, "/feature_maps?net=nin-224&run=untrained")
    times = []
    for _ in range(rounds):
        choose(page, "Layer", "Pooling 1 · maximum of 3×3, stride 2")
        layer = page.get_by_test_id("stSelectbox").filter(has_text="Layer").first
        layer.get_by_role("combobox").click()
        option = page.get_by_role("option", name="Block 1 · 11×11 convolution + ReLU", exact=True)
        option.wait_for()
        page.evaluate(f"(size) => {{ window.timed = ({TIME_TO_MAPS})(size); }}", "96 maps of 54×54")
        option.click()
        times.append(float(page.evaluate("() => window.timed")))
        wait_idle(page)
    report("layer chosen to its 96 maps shown", times, 1000)


# Resolves with the milliseconds from the click on Start to the frame that has the first point.
TIME_TO_POINT = f"""
() => new Promise((resolve) => {{
    document.addEventListener('pointerdown', () => {{
        const before = document.querySelector('{CURVES}');
        const start = performance.now();
        const look = () => {{
            const chart = document.querySelector('{CURVES}');
            if (chart && chart !== before && chart.data?.[0]?.x?.length) {{
                resolve(performance.now() - start);
            }} else {{
                requestAnimationFrame(look);
            }}
        }};
        requestAnimationFrame(look);
    }}, {{once: true, capture: true}});
}})
"""


def first_point(page: Page, server: Dashboard, rounds: int) -> None:
    visit(page, server, "/training?net=nin-slim-128")
    store = RunStore(server.store_url)
    times = []
    for _ in range(rounds):
        page.wait_for_timeout(16_000)  # the next spare is there and has imported torch
        page.evaluate(f"() => {{ window.timed = ({TIME_TO_POINT})(); }}")
        button(page, "Start").click()
        times.append(float(page.evaluate("() => window.timed")))
        newest = store.list_runs(limit=1)[0].id
        stop_run(store, newest)
        while store.get(newest).worker is not None:
            time.sleep(0.1)
        wait_idle(page)
    report("Start to the first point", times, 1500)


MANY_RUNS, MANY_POINTS = 20, 10_000
# The chart that has a test's and a training's curve of each of them.
COMPARISON = (
    "[...document.querySelectorAll('.nin-plot')]"
    f".find((one) => (one.data?.length ?? 0) >= {2 * MANY_RUNS} && one._fullLayout)"
)
# Resolves with the milliseconds from a press to the frame in which the axis has this title.
TIME_TO_AXIS = f"""
(title) => new Promise((resolve) => {{
    document.addEventListener('pointerdown', () => {{
        const start = performance.now();
        const look = () => {{
            const layout = {COMPARISON}?._fullLayout ?? {{}};
            const titles = [layout.xaxis, layout.xaxis2].map((axis) => axis?.title?.text);
            if (titles.includes(title)) resolve(performance.now() - start);
            else requestAnimationFrame(look);
        }};
        requestAnimationFrame(look);
    }}, {{once: true, capture: true}});
}})
"""


def many_runs(store: RunStore) -> list[int]:
    """Finished runs with made-up noisy curves, since how they came about costs a page nothing."""
    network = PRESETS["nin-28"]
    chance = random.Random(0)
    ids = []
    for seed in range(MANY_RUNS):
        run_id = store.create(network, RECIPES["fast"].configure(network, seed=seed), "shapes")
        attempt = store.claim(run_id, this_worker())
        assert attempt is not None
        rows = [
            MetricRow(
                "step", 1, step, step / 20, 2 / (1 + step / 900) + chance.random() / 5, 0.5,
                None, chance.random() if step % 20 == 0 else None, 500, 0.05,
            )
            for step in range(1, MANY_POINTS + 1)
        ]  # fmt: skip
        store.add_metrics(run_id, rows, attempt=attempt)
        store.transition(run_id, "finished", attempt=attempt)
        store.release(run_id, attempt)
        ids.append(run_id)
    return ids


def comparison(browser: Browser, folder: Path, rounds: int) -> None:
    """The comparison of many long runs, in a server of its own."""
    with Dashboard(folder) as server:
        compared = ",".join(map(str, many_runs(RunStore(server.store_url))))
        page = open_tab(browser)
        visit(page, server, "/")  # what every page needs is there
        began = time.perf_counter()
        page.goto(f"{server.url}/training?compare={compared}")
        page.wait_for_function(f"() => {COMPARISON}")
        opened = time.perf_counter() - began
        wait_idle(page)
        axes = page.get_by_role("radiogroup", name="Horizontal axis").last
        times = []
        for number in range(rounds):
            unit, title = (("Steps", "step"), ("Epochs", "epoch"))[number % 2]
            page.evaluate(f"(title) => {{ window.timed = ({TIME_TO_AXIS})(title); }}", title)
            axes.get_by_text(unit, exact=True).click()
            times.append(float(page.evaluate("() => window.timed")))
            wait_idle(page)
        print(
            f"  {MANY_RUNS} runs of {MANY_POINTS:,} points: open after {opened:.1f} s, with all "
            "points to read",
            flush=True,
        )
        report("another axis for all of them", times, 1000)
        page.context.close()


def cold_start(browser: Browser, folder: Path) -> None:
    began = time.perf_counter()
    with Dashboard(folder) as server:
        answered = time.perf_counter() - began
        page = open_tab(browser)
        page.goto(f"{server.url}/architecture")
        page.wait_for_function(
            "() => (document.querySelector('.nin-layers')?.textContent ?? '').includes('10,846')"
        )
        shown = time.perf_counter() - began - answered
        maps = Path(f"/proc/{server.pid}/maps")
        torch = (
            "unknown" if not maps.exists() else "no" if "torch" not in maps.read_text() else "yes"
        )
        page.context.close()
    print(
        f"  cold server: answers after {answered:.1f} s; its first page, Architecture, usable "
        f"{shown:.1f} s later (target: at most 3 s); torch loaded: {torch}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer moves, 15 s of training")
    quick = parser.parse_args().quick
    # However it is ended, the server ends with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    executable = find_chromium()
    if executable is None:
        raise SystemExit(NO_CHROMIUM)
    moves, seconds = (10, 15) if quick else (40, 60)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        browser = launch_chromium(playwright, executable)
        (folder / "cold").mkdir()
        cold_start(browser, folder / "cold")
        with Dashboard(folder) as server:
            page = open_tab(browser)
            totals, everything = slider_latency(page, server, moves)
            report("slider to table, idle", totals, 250)
            report("slider to everything on the page, idle", everything, 200)
            maps_latency(page, server, 4 if quick else 12)

            def during() -> None:
                totals, _ = slider_latency(page, server, moves)
                report("slider to table, two runs training", totals, 300)
                live_chart(page, server, seconds)

            with_training(server, during)
            first_point(page, server, 3 if quick else 8)
        (folder / "many").mkdir()
        comparison(browser, folder / "many", 4 if quick else 12)
        browser.close()


if __name__ == "__main__":
    main()
