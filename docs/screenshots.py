"""Make the pictures in docs/screenshots/: `python -m docs.screenshots` (or `make screenshots`).

A real server on a temporary run store, a real Chromium: two runs are started from the Training
page and trained to their end on Fashion-MNIST (1 to 3 minutes), then every page, and every view of
a page that has views, is photographed, light and dark, wide and narrow. The README shows some of
them; all are there to look at after a change to a page.

    PAGE-THEME-SIZE.png         what a visitor sees first, 1440 × 900 or 390 × 844
    PAGE-VIEW-THEME-SIZE.png    the same of a page's view
    PAGE-….-whole.png           the whole page, light and wide, down to its end
    training-live-….png         the Training page while a run learns
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from nin_core.store import RunStore
from tests.e2e.harness import (
    NARROW,
    PROJECT,
    WIDE,
    Dashboard,
    choose,
    launch_chromium,
    open_tab,
    pick,
    press,
    screenshot,
    set_number,
    visit,
    wait_idle,
)
from tests.prerequisites import NO_CHROMIUM, NO_FASHION_MNIST, find_chromium, find_fashion_mnist
from ui import architecture_page, feature_maps

FOLDER = PROJECT / "docs" / "screenshots"

# Name of the picture -> address; every view of the two laboratories has one.
PAGES = {
    "home": "",
    **{
        f"architecture-{view}": f"architecture?view={view}&layer=block2.conv1x1_1"
        for view in architecture_page.VIEWS
    },
    "training": "training",
    **{f"feature-maps-{view}": f"feature_maps?view={view}" for view in feature_maps.VIEWS},
}
SIZES = {"wide": WIDE, "narrow": NARROW}
THEMES = ("light", "dark")

RUN_LIMIT = 600.0  # seconds for both runs together
LIVE_AT = 0.6  # part of a run that is done when it is photographed while it learns


def main() -> int:
    """Write all pictures; 1 with a sentence if the browser or the data set is missing."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server ends with us
    executable = find_chromium()
    missing = [NO_CHROMIUM] * (executable is None) + [NO_FASHION_MNIST] * (not find_fashion_mnist())
    if executable is None or missing:
        print("\n".join(missing), file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory() as folder,
        Dashboard(Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        browser = launch_chromium(playwright, executable)
        train(browser, server)
        for name in PAGES:
            for theme in THEMES:
                for size in SIZES:
                    take(browser, server, name, theme, size)
        browser.close()
    return 0


def train(browser: Browser, server: Dashboard) -> None:
    """Train one epoch with each recipe, photographed on the way, and wait until both have ended."""
    store = RunStore(server.store_url)
    page = open_tab(browser)
    visit(page, server, PAGES["training"])
    for recipe in ("Tutorial", "Fast"):
        pick(page, "Recipe", recipe)
        set_number(page, "Epochs", 1)
        press(page, "Start")
    newest = store.list_runs()[0].id
    deadline = time.monotonic() + RUN_LIMIT
    live = False
    while any(run.active or run.worker is not None for run in store.list_runs()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the runs did not end within {RUN_LIMIT:.0f} s")
        if not live and store.get(newest).progress >= LIVE_AT:
            live = True
            write(page, "training-live-light-wide")
        time.sleep(0.2)
    page.context.close()
    failed = [run for run in store.list_runs() if run.state != "finished"]
    if failed:
        raise RuntimeError(f"run {failed[0].id} ended {failed[0].state}: {failed[0].error}")


def take(browser: Browser, server: Dashboard, name: str, theme: str, size: str) -> None:
    """Photograph one page in one theme and size."""
    page = open_tab(browser, SIZES[size], dark=theme == "dark")
    visit(page, server, PAGES[name])
    if name.startswith("feature-maps"):
        choose(page, "Class", "Ankle boot")
    write(page, f"{name}-{theme}-{size}")
    if (theme, size) == ("light", "wide"):
        write(page, f"{name}-whole", whole_page=True)
    page.context.close()


def write(page: Page, name: str, *, whole_page: bool = False) -> None:
    """Write one picture, once what the browser draws by itself has settled."""
    page.evaluate("() => document.querySelector('[data-testid=\"stMain\"]').scrollTo(0, 0)")
    page.mouse.move((page.viewport_size or {"width": 1440})["width"] - 4, 120)  # hovers nothing
    page.evaluate("() => document.activeElement.blur()")
    page.wait_for_timeout(1000)
    wait_idle(page, quiet=0)  # not in the middle of a run's tick, which shows as a paler page
    path = screenshot(page, FOLDER / f"{name}.png", whole_page=whole_page)
    print(path.relative_to(PROJECT), f"{path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
