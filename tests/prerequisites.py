"""What the tests need beyond pip: a Chromium, Fashion-MNIST, and a PostgreSQL.

Finds them, else installs them.

    python -m tests.prerequisites        (part of `make test`)

Choices made here:

* What is there is used; nothing is installed twice. A browser counts as there when it answers
  `--version`, which a binary with missing libraries or a stub that points to a store does not.
* Every attempt has a time limit and says in one line what it does and how it ended.
* Outside CI a missing piece is a sentence and exit code 0: the tests that need it are skipped
  with the reason. With `CI=true` it is a failure, here and in the tests. (But a CI without any
  way to install packages tests the store on SQLite alone: PostgreSQL is an extra.)
* The data set goes through `nin_core.data` (search, download, checksums): there is one way to
  find it, and it is the product's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.postgres import find_postgresql

PROJECT = Path(__file__).resolve().parent.parent

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

NO_CHROMIUM = (
    "No Chromium found. Install one with `.venv/bin/playwright install --with-deps chromium`, "
    "or with the system's package manager."
)
NO_FASHION_MNIST = (
    "No Fashion-MNIST found. Fetch it with `.venv/bin/python -m nin_core data fashion-mnist`, "
    "or on Debian and Ubuntu with `apt install dataset-fashion-mnist`."
)
NO_POSTGRESQL = (
    "No PostgreSQL found, on which the run store is tested beside SQLite. Install one with the "
    "system's package manager, on Debian and Ubuntu `apt install postgresql`."
)

# Seconds after which an attempt is given up. A download of about 170 MB (browser) or 31 MB
# (data) fits on a slow line; a machine that is offline fails in the first seconds by itself.
INSTALL_LIMIT = 600
DOWNLOAD_LIMIT = 300
APT_UPDATE_LIMIT = 180

# The build without windows comes first: a page takes two thirds of the processor time in it.
_DEBIAN_BROWSERS = ("chromium-headless-shell", "chromium")
_SYSTEM_BROWSERS = (
    *_DEBIAN_BROWSERS,
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


# --- finding ----------------------------------------------------------------------------------


def find_chromium() -> Path | None:
    """The first Chromium that starts: playwright's own, then the system's; None without one.

    Call it before `sync_playwright()`, not inside: playwright is asked where it keeps its own.
    """
    return next((path for path in _chromium_candidates() if _answers(path)), None)


def _chromium_candidates() -> list[Path]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        candidates = [Path(playwright.chromium.executable_path)]
    candidates += [Path(found) for name in _SYSTEM_BROWSERS if (found := shutil.which(name))]
    return candidates


def _answers(browser: Path) -> bool:
    if not browser.exists():
        return False
    try:
        answer = subprocess.run([browser, "--version"], capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.strip() != b""


def find_fashion_mnist() -> bool:
    """Whether `nin_core.data` finds a complete, verified Fashion-MNIST without a download."""
    from nin_core.data import find_dataset

    return find_dataset("fashion-mnist").available


# --- installing -------------------------------------------------------------------------------


def provide_chromium() -> bool:
    """Find a Chromium, else install one (playwright's, its libraries, the system's); success."""
    if _report_chromium():
        return True
    playwright = [sys.executable, "-m", "playwright"]
    # Ten seconds to connect: playwright's default waits half a minute for each of its mirrors.
    patience = {"PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "10000"}
    if _attempt(
        "playwright install chromium", [*playwright, "install", "chromium"], environment=patience
    ):
        if _report_chromium():
            return True
        # It is there and does not start: on a bare Linux the libraries it links are missing.
        if _apt() is not None:
            _attempt(
                "playwright install-deps chromium (its system libraries, through apt)",
                [*playwright, "install-deps", "chromium"],
            )
            if _report_chromium():
                return True
    return any(_apt_install(name) and _report_chromium() for name in _DEBIAN_BROWSERS)


def _report_chromium() -> bool:
    browser = find_chromium()
    if browser is not None:
        _say(f"browser: {browser}")
    return browser is not None


def provide_fashion_mnist() -> bool:
    """Find Fashion-MNIST, else download it, else take the system's package; success."""
    if find_fashion_mnist():
        _say("data set: Fashion-MNIST is there")
        return True
    fetch = [sys.executable, "-m", "nin_core", "data", "fashion-mnist"]
    if _attempt("download of Fashion-MNIST (31 MB)", fetch, limit=DOWNLOAD_LIMIT):
        return True
    return _apt_install("dataset-fashion-mnist") and find_fashion_mnist()


def provide_postgresql() -> bool:
    """Find a PostgreSQL server, else install the system's; False if it should be there and is not.

    A CI that cannot install packages, or cannot reach where they are, is not to blame.
    """
    if _report_postgresql():
        return True
    if _apt_install("postgresql") and _report_postgresql():
        return True
    return IN_CI and (_apt() is None or not _apt_update())


def _report_postgresql() -> bool:
    folder = find_postgresql()
    if folder is not None:
        _say(f"database: {folder / 'postgres'}")
    return folder is not None


@cache
def _apt() -> tuple[str, ...] | None:
    """The words that start apt-get with the right to install; None where there is no such right."""
    if shutil.which("apt-get") is None:
        return None
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=60")
    if os.geteuid() == 0:
        return quiet
    if shutil.which("sudo") is None:
        return None
    passwordless = subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0
    return ("sudo", "-n", *quiet) if passwordless else None


@cache
def _apt_update() -> bool:
    """Refresh apt's lists, once a process: a fresh container has none."""
    return _attempt("apt-get update", [*(_apt() or ()), "update"], limit=APT_UPDATE_LIMIT)


def _apt_install(package: str) -> bool:
    if _apt() is None:
        _say(f"apt-get install {package}: not tried (needs apt, and root or passwordless sudo)")
        return False
    _apt_update()  # even after a failed update the lists of an earlier one may do
    install = [*(_apt() or ()), "install", "-y", "--no-install-recommends", package]
    return _attempt(f"apt-get install {package}", install)


def _attempt(
    title: str,
    command: Sequence[str],
    limit: float = INSTALL_LIMIT,
    environment: dict[str, str] | None = None,
) -> bool:
    """Run one command for at most `limit` seconds, say how it ended; whether it succeeded."""
    print(f"  {title} ... ", end="", flush=True)
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that the limit also ends what the command started
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"given up after {limit:.0f} s", flush=True)
        return False
    if process.returncode == 0:
        print("done", flush=True)
        return True
    print(f"failed: {first_error(output)}", flush=True)
    return False


def first_error(output: str) -> str:
    """The line of a failed command's output that says most: its first error, else its last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["(no output)"]
    errors = [line for line in lines if line.startswith(("Error", "E:", "error:"))]
    return textwrap.shorten((errors or lines[-1:])[0], 160, placeholder=" …")


def _say(sentence: str) -> None:
    print(f"  {sentence}", flush=True)


def main() -> int:
    """Provide all; 0, or 1 in CI when one of them is not to be had."""
    print("What the tests need beyond pip:", flush=True)
    missing = []
    if not provide_chromium():
        missing.append(NO_CHROMIUM)
    if not provide_fashion_mnist():
        missing.append(NO_FASHION_MNIST)
    if not provide_postgresql():
        missing.append(NO_POSTGRESQL)
    for sentence in missing:
        print(sentence, file=sys.stderr)
    if missing and IN_CI:
        print("In CI this is a failure.", file=sys.stderr)
        return 1
    if missing:
        print("The tests that need it will be skipped.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
