"""How much open pages slow a training: 0, 1 and 10 tabs on the run's page, in turn.

    python -m benchmarks.open_pages [--seconds 15] [--rounds 3]

One run of nin-slim-128 trains on Fashion-MNIST under the real server, while Chromium shows its page
in so many tabs. Its speed over each stretch is taken from the steps that the store has been told
of, from one event to another. Targets: at most 3 % slower with one page open, 10 % with ten. The
browser takes its share of the same cores, as on a laptop; a class brings its own. Run it alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, Page, sync_playwright

from nin_core import PRESETS, RECIPES
from nin_core.store import RunStore
from tests.e2e.harness import Dashboard, launch_chromium, open_tab
from tests.prerequisites import find_chromium

TARGETS = {1: 0.03, 10: 0.10}
LOADING_SECONDS = 180  # for a page, behind nine others and a training on the same cores
NETWORK = PRESETS["nin-slim-128"]


def images_per_second(store: RunStore, run_id: int, seconds: float) -> float:
    """The run's speed over about so many seconds, from one event to another."""
    begun = _next_event(store, run_id)
    deadline = begun[0] + seconds
    while True:
        ended = _next_event(store, run_id)
        if ended[0] >= deadline:
            return (ended[1] - begun[1]) / (ended[0] - begun[0])


def _next_event(store: RunStore, run_id: int) -> tuple[float, int]:
    """Seconds of training and images so far, when the next event has come."""
    known = store.get(run_id)
    assert known.train is not None
    while True:
        run = store.get(run_id)
        assert run.state in ("queued", "running"), f"the run is {run.state}"
        if run.step > known.step:
            return run.seconds, run.step * known.train.batch_size
        time.sleep(0.05)


def _show(browser: Browser, url: str, count: int) -> list[Page]:
    pages = [open_tab(browser) for _ in range(count)]
    for page in pages:
        page.goto(url)
        page.locator(".js-plotly-plot").first.wait_for(timeout=LOADING_SECONDS * 1000)
    time.sleep(3)  # whatever a page does once
    return pages


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of a stretch (15)")
    parser.add_argument("--rounds", type=int, default=3, help="of 0, 1 and 10 pages (3)")
    args = parser.parse_args()
    chromium = find_chromium()
    speeds: dict[int, list[float]] = {count: [] for count in (0, *TARGETS)}
    with (
        sync_playwright() as playwright,
        tempfile.TemporaryDirectory() as folder,
        Dashboard(Path(folder)) as server,
    ):
        browser = launch_chromium(playwright, chromium)
        store = RunStore(server.store_url)
        config = RECIPES["fast"].configure(NETWORK, epochs=200)
        run_id = store.create(NETWORK, config, "fashion-mnist")
        url = f"{server.url}/training?run={run_id}"
        for page in _show(browser, url, 1):  # the visit starts the run
            page.context.close()
        for _ in range(args.rounds):
            for count, found in speeds.items():
                pages = _show(browser, url, count)
                found.append(images_per_second(store, run_id, args.seconds))
                print(f"{count} open: {found[-1]:,.0f} images/s", flush=True)
                for page in pages:
                    page.context.close()
        browser.close()
    alone = median(speeds[0])
    print(f"no page open: {alone:,.0f} images/s")
    for count, most in TARGETS.items():
        speed = median(speeds[count])
        print(
            f"{count} open: {speed:,.0f} images/s, "
            f"{1 - speed / alone:.1%} slower (target: at most {most:.0%})"
        )


if __name__ == "__main__":
    main()
