"""Fixtures of the browser tests: one Chromium for all of them, a server for each module.

When a test fails, its report carries the end of the server's log and what the browser's console
said, and `screenshots/failed/` gets a picture of the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Error,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.conftest import missing
from tests.e2e.harness import (
    PAGE_LIMIT_MS,
    PROJECT,
    WIDE,
    Dashboard,
    assert_no_exception,
    launch_chromium,
    new_context,
    open_tab,
    screenshot,
)
from tests.prerequisites import NO_CHROMIUM, find_chromium

OpenTab = Callable[..., Page]
StartServer = Callable[..., Dashboard]

# Patience with a busy machine: no test asserts a time.
expect.set_options(timeout=PAGE_LIMIT_MS)

LONGEST = "test_training.py"

_failed = pytest.StashKey[bool]()
_pages = pytest.StashKey[list[Page]]()
_console = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, so that `-m "not e2e"` leaves them out."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)
    # The longest file begins first of these, so that no process is left alone with it at the end.
    items.sort(key=lambda item: item.path.is_relative_to(here) and item.path.name != LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach to a failed test what its servers and its browser said."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
        for name, server in getattr(item, "funcargs", {}).items():
            if isinstance(server, Dashboard):
                report.sections.append((f"log of {name}", server.log_tail()))
        console = item.stash.get(_console, [])
        if console:
            report.sections.append(("browser console", "\n".join(console[-30:])))
    return report


# --- the browser ------------------------------------------------------------------------------


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One headless Chromium for all browser tests; without one they are skipped, in CI failed.

    It lives as long as this package, not the session: playwright keeps an event loop running in
    the thread, which other tests may not expect.
    """
    executable = find_chromium()
    if executable is None:
        missing(NO_CHROMIUM)
    with sync_playwright() as playwright:
        chromium = launch_chromium(playwright, executable)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def context(browser: Browser) -> BrowserContext:
    """The browser's cache for all tests: to load the dashboard without it costs twice the time."""
    return new_context(browser)


@pytest.fixture
def new_page(request: pytest.FixtureRequest, context: BrowserContext) -> Iterator[OpenTab]:
    """Opens tabs: `new_page(NARROW, dark=True)`. They find nothing that other tests have stored.

    At the end of a test that passed so far, none of its tabs may show an exception box, have
    had an uncaught error in its scripts, or have asked a host other than this machine.
    """
    pages: list[Page] = []
    console: list[str] = []
    errors: list[str] = []
    strangers: list[str] = []
    request.node.stash[_console] = console

    def note_stranger(asked: Request) -> None:
        address = urlsplit(asked.url)
        if address.scheme.startswith(("http", "ws")) and address.hostname != "127.0.0.1":
            strangers.append(asked.url)

    def open_one(size: tuple[int, int] = WIDE, *, dark: bool = False) -> Page:
        page = open_tab(context, size, dark=dark)
        page.on("console", lambda message: console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", note_stranger)
        pages.append(page)
        return page

    yield open_one

    try:
        if request.node.stash.get(_failed, False):
            for number, page in enumerate(pages, start=1):
                name = re.sub(r"\W+", "-", f"{request.node.nodeid}-{number}").strip("-")
                screenshot(page, PROJECT / "screenshots" / "failed" / f"{name}.png")
        else:
            for page in pages:
                assert_no_exception(page)
            if errors:
                pytest.fail("uncaught in the browser:\n" + "\n".join(errors), pytrace=False)
            if strangers:
                pytest.fail("asked another host:\n" + "\n".join(strangers), pytrace=False)
    finally:
        # Not by a script of the page's: it may hang.
        for page in pages:
            address = urlsplit(page.url)
            stored = {
                "origin": f"{address.scheme}://{address.netloc}",
                "storageTypes": "local_storage",
            }
            with suppress(Error):  # it is closed, or has crashed
                context.new_cdp_session(page).send("Storage.clearDataForOrigin", stored)
            with suppress(Error):
                page.close()
        context.clear_cookies()


@pytest.fixture
def page(new_page: OpenTab) -> Page:
    """A tab, 1440 × 900, light."""
    return new_page()


# --- the server -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """The dashboard on a free port with an empty run store, one for each module of tests."""
    with Dashboard(tmp_path_factory.mktemp("server")) as dashboard:
        yield dashboard


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Starts further servers that nobody has visited: `start_server({"NIN_DATA": …})`."""
    with ExitStack() as servers:

        def start(environment: Mapping[str, str] | None = None) -> Dashboard:
            folder = tmp_path_factory.mktemp("server")
            return servers.enter_context(Dashboard(folder, environment))

        yield start


@pytest.fixture
def fresh_server(start_server: StartServer) -> Dashboard:
    """A server that nobody has visited yet."""
    return start_server()
