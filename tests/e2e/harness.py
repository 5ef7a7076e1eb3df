"""Drive the real dashboard: a server of its own, and what a person does in a browser.

Shared by the browser tests, `docs/screenshots.py` and the benchmarks that measure pages.

Choices made here:

* A `Dashboard` has its own port, run store and log in a folder of the caller's, so nothing it
  does meets a developer's own runs, and two of them can run side by side.
* Stopping it leaves no process behind: the server's group first, then its workers. Those live
  in sessions of their own (a run outlives its server, that is the point), so they are found by
  the store's URL in their environment.
* A page is idle when Streamlit's script has not run for a moment *and* shows no exception box.
  The moment covers the slider's own delay before it reports a move (0.2 s).
* Helpers use the accessible names a person reads, never generated ids or CSS classes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright, expect

PROJECT = Path(__file__).resolve().parents[2]

WIDE = (1440, 900)
NARROW = (390, 844)

# A cold start imports Streamlit and the home page; the rest is patience with a busy machine.
START_LIMIT = 60.0
PAGE_LIMIT_MS = 30_000
IDLE_LIMIT = 60.0  # the first page that needs PyTorch waits for its import

BROWSER_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# --- the server -------------------------------------------------------------------------------


class Dashboard:
    """`streamlit run dashboard.py` on a free port, with its own run store and log.

    A context manager; `stop()` and `start()` again on the same store is a server restart.

    Attributes:
        url: where the home page is, without a slash at the end; the same after a restart.
        store_url: NIN_DATABASE_URL of the server and its workers.
        log: file with everything the server printed.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        script: str = "dashboard.py",
        base_path: str = "",
    ) -> None:
        """Prepare a server whose files go into `folder`.

        Args:
            environment: adds to the caller's.
            script: another Streamlit script of the project, e.g. a demo of one component.
            base_path: serve under this path instead of "/", as behind a proxy.
        """
        self._script, self._base_path = script, base_path
        self.log = folder / "server.log"
        self.store_url = f"sqlite:///{folder / 'runs.db'}"
        self.url = ""
        self._port: int | None = None
        self._environment = {**(environment or {}), "NIN_DATABASE_URL": self.store_url}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: if it does not, with the end of its log.
        """
        port = self._port = self._port or _free_port()
        command = [sys.executable, "-m", "streamlit", "run", self._script]
        options = {"port": port, "headless": "true"}
        options |= {"baseUrlPath": self._base_path} if self._base_path else {}
        command += [f"--server.{name}={value}" for name, value in options.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=PROJECT,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.url = f"http://127.0.0.1:{port}/{self._base_path}".rstrip("/")
        deadline = time.monotonic() + START_LIMIT
        while not _answers(f"{self.url}/_stcore/health"):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop()
                what = "ended at once" if ended else f"did not answer within {START_LIMIT:.0f} s"
                raise RuntimeError(f"the server {what}; its log ends:\n{self.log_tail()}")
            time.sleep(0.05)
        return self

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it does not run."""
        return self._process.pid if self._process is not None else None

    def stop(self, *, workers: bool = True) -> None:
        """End the server and, unless `workers` is false, the runs it started. Never raises."""
        if self._process is not None:
            _end_group(self._process)
            self._process = None
        if workers:
            self.end_workers()

    def workers(self) -> list[int]:
        """Process ids of the training workers of this server's store that are alive."""
        return [pid for pid in _processes_of(self.store_url) if pid != self.pid]

    def end_workers(self) -> None:
        """Kill this store's workers and wait until they are gone (at most 5 s)."""
        deadline = time.monotonic() + 5
        while (pids := self.workers()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def log_tail(self, lines: int = 60) -> str:
        """The last lines the server printed."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) or "(empty)"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask a process group to end, then make it (5 s)."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        try:
            process.wait(timeout=5)
            return
        except subprocess.TimeoutExpired:
            continue


def _processes_of(store_url: str) -> list[int]:
    """Processes that were started with this store's URL in their environment.

    Linux tells the environment of every process of ours. Elsewhere the store itself knows the
    workers of its running runs; one that has not claimed its run yet is missed.
    """
    if Path("/proc/self/environ").exists():
        variable = f"NIN_DATABASE_URL={store_url}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if variable in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
            except OSError:  # ended meanwhile, or somebody else's
                continue
        return found
    from nin_core.store import RunStore

    runs = RunStore(store_url).list_runs()
    return [run.worker_pid for run in runs if run.state == "running" and run.worker_pid]


# --- the browser ------------------------------------------------------------------------------


def launch_chromium(playwright: Playwright, executable: Path) -> Browser:
    """A headless Chromium that opens no connection of its own."""
    return playwright.chromium.launch(executable_path=executable, args=list(BROWSER_OPTIONS))


def new_context(browser: Browser) -> BrowserContext:
    """What tabs have in common: cookies, cache and stored choices."""
    context = browser.new_context(locale="en-US")
    context.set_default_timeout(PAGE_LIMIT_MS)
    return context


def open_tab(
    browser: Browser | BrowserContext, size: tuple[int, int] = WIDE, *, dark: bool = False
) -> Page:
    """A tab in that context, or in a new one of its own."""
    width, height = size
    context = new_context(browser) if isinstance(browser, Browser) else browser
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if dark else "light", reduced_motion="reduce")
    return page


def visit(page: Page, server: Dashboard, path: str = "/") -> None:
    """Open a page of the dashboard by its path (with query, if any) and wait until it is idle."""
    page.goto(f"{server.url}/{path.lstrip('/')}")
    wait_idle(page)


_IDLE = """
(quietMs) => {
    const app = document.querySelector('[data-testid="stApp"]');
    const now = performance.now();
    const busy = !app
        || app.dataset.testScriptState !== 'notRunning'
        || app.dataset.testConnectionState !== 'CONNECTED'
        || document.querySelector('[data-testid="stAppSkeleton"], [data-testid="stSkeleton"]');
    if (busy) window.__ninBusyAt = now;
    return now - window.__ninBusyAt >= quietMs;
}
"""


def wait_idle(page: Page, quiet: float = 0.4, timeout: float = IDLE_LIMIT) -> None:
    """Wait until the script has been idle for `quiet` seconds; fail on an exception box.

    Raises:
        AssertionError: if the page shows one, with its text.
        playwright.sync_api.TimeoutError: if the page is not idle within `timeout` seconds.
    """
    page.evaluate("() => { window.__ninBusyAt = performance.now(); }")
    page.wait_for_function(_IDLE, arg=quiet * 1000, polling=50, timeout=timeout * 1000)
    assert_no_exception(page)


def assert_no_exception(page: Page) -> None:
    """Fail with its text if the page shows one of Streamlit's exception boxes."""
    texts = page.get_by_test_id("stException").all_inner_texts()
    assert not texts, f"{page.url} shows an exception:\n" + "\n".join(texts)


def screenshot(page: Page, path: Path, *, whole_page: bool = False) -> Path:
    """Write a PNG of what is visible, or of the whole page (as if the window were that tall)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not whole_page:
        page.screenshot(path=path, animations="disabled")
        return path
    size = page.viewport_size
    assert size is not None
    # Streamlit scrolls a container inside the page, so the browser's own full-page picture
    # would show no more than the window.
    height = page.evaluate("() => document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], int(height))})
    page.wait_for_timeout(300)  # charts follow their container with a short delay
    page.screenshot(path=path, animations="disabled")
    page.set_viewport_size(size)
    return path


# --- what a person does -----------------------------------------------------------------------


def _widget(page: Page, kind: str, label: str) -> Locator:
    """The widget of one kind with exactly this visible label."""
    text = page.get_by_test_id("stWidgetLabel").get_by_text(label, exact=True)
    return page.get_by_test_id(kind).filter(has=text)


def slider(page: Page, label: str) -> Locator:
    """A slider's handle: an input of type range; its value is `input_value()`."""
    return _widget(page, "stSlider", label).locator("input[type=range]")


def set_slider(page: Page, label: str, value: float) -> None:
    """Move a slider with the arrow keys, as from the keyboard, and wait until the page is idle.

    Raises:
        AssertionError: if the value is outside the slider's range or off its step.
    """
    handle = slider(page, label)
    low, high, step = (float(handle.get_attribute(name) or 1) for name in ("min", "max", "step"))
    steps = round((value - float(handle.input_value())) / step)
    assert low <= value <= high, f"{label}: {value} is not within {low} to {high}"
    handle.focus()
    for _ in range(abs(steps)):
        page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")
    reached = float(handle.input_value())
    assert abs(reached - value) < step / 2, f"{label}: reached {reached}, not {value}"
    wait_idle(page)


def expect_state(page: Page, text: str, timeout: float = 300_000) -> None:
    """Wait, so many ms at most, until the badge of the Training page's open run says so."""
    badge = page.get_by_test_id("stMarkdownContainer").locator(".stMarkdownBadge")
    expect(badge.filter(has_text=text)).to_have_count(1, timeout=timeout)


def set_number(page: Page, label: str, value: float) -> None:
    """Type into a number field, press Enter and wait until the page is idle."""
    field = _widget(page, "stNumberInput", label).locator("input")
    field.fill(str(value))
    field.press("Enter")
    wait_idle(page)


def choose(page: Page, label: str, option: str) -> None:
    """Pick an option of a select box by its text and wait until the page is idle."""
    _widget(page, "stSelectbox", label).get_by_role("combobox").click()
    page.get_by_role("option", name=option, exact=True).click()
    wait_idle(page)


def pick(page: Page, label: str, option: str) -> None:
    """Pick a radio button or a segment by its text and wait until the page is idle."""
    group = page.get_by_role("radiogroup", name=label, exact=True)
    group.get_by_text(option, exact=True).click()
    wait_idle(page)


def switch(page: Page, label: str) -> None:
    """Flip a toggle or a check box and wait until the page is idle."""
    page.get_by_test_id("stCheckbox").get_by_text(label, exact=True).click()
    wait_idle(page)


def press(page: Page, name: str) -> None:
    """Press the button with this text and wait until the page is idle."""
    button(page, name).click()
    wait_idle(page)


def button(page: Page, name: str) -> Locator:
    """The button with exactly this text (its icon does not count)."""
    return page.get_by_test_id("stButton").get_by_role("button", name=name, exact=True)


def expand(page: Page, title: str) -> None:
    """Open an expander, if it is not open."""
    details = page.get_by_test_id("stExpander").filter(has=page.get_by_text(title, exact=True))
    details = details.locator("details")
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    expect(details).to_have_attribute("open", "")


def upload(page: Page, label: str, name: str, data: bytes, mime_type: str = "image/png") -> None:
    """Hand a file to an uploader and wait until the page is idle."""
    uploader = _widget(page, "stFileUploader", label)
    uploader.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": mime_type, "buffer": data}
    )
    wait_idle(page)


# --- charts and pictures ----------------------------------------------------------------------

CURVES = ".st-key-tr-live .nin-plot"
# The live chart of the Training page, and what looks at the chart in every
# frame from now on: is its node the same, does it show its curves?
WATCH_CHART = f"""
() => {{
    const node = document.querySelector('{CURVES}');
    window.watched = {{frames: 0, blank: 0, moved: 0, updates: 0}};
    node.on('plotly_afterplot', () => window.watched.updates++);
    const look = () => {{
        const now = document.querySelector('{CURVES}');
        window.watched.frames++;
        if (now !== node) window.watched.moved++;
        const lines = node.isConnected ? node.querySelectorAll('.scatterlayer .js-line') : [];
        const shown = [...lines].filter((line) => (line.getAttribute('d') ?? '').length > 10);
        let solid = true;
        for (let e = node; e; e = e.parentElement) {{
            const style = getComputedStyle(e);
            if (style.opacity < 1 || style.visibility === 'hidden') solid = false;
        }}
        if (shown.length < 2 || !node.clientHeight || !solid) window.watched.blank++;
        requestAnimationFrame(look);
    }};
    requestAnimationFrame(look);
}}
"""


def cell_on_screen(
    page: Page, channel: int, row: int, column: int, key: str = ""
) -> tuple[float, float]:
    """Scroll a cell of a picture of maps into view and return where its middle is on the screen.

    `key` is the sprite's; by default the page's only one is meant.
    """
    script = """([channel, row, column, key]) => {
        const sprites = [...window.ninSprites.values()];
        const { layout, canvas } = sprites.find((s) => !key || s.key === key);
        const down = Math.floor(channel / layout.columns), across = channel % layout.columns;
        const tile = layout.top + layout.tileHeight + layout.bottom + layout.gap;
        const x = across * (layout.tileWidth + layout.gap) + (column + 0.5) * layout.cell;
        const y = down * tile + layout.top + (row + 0.5) * layout.cell;
        const box = () => canvas.getBoundingClientRect();
        const top = () => box().top + y / layout.ratio;
        document.querySelector('[data-testid="stMain"]').scrollBy(0, top() - innerHeight / 2);
        return [box().left + x / layout.ratio, top()];
    }"""
    x, y = page.evaluate(script, [channel, row, column, key])
    return x, y


def zoom_chart(page: Page) -> None:
    """Zoom the live chart as a person does: by dragging the mouse over a part of it."""
    box = page.locator(f"{CURVES} .nsewdrag").first.bounding_box()
    assert box is not None
    left, top = box["x"] + box["width"] * 0.02, box["y"] + box["height"] * 0.2
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + box["width"] * 0.3, top + box["height"] * 0.4, steps=8)
    page.mouse.up()
