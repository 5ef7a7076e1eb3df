"""Fetching published files with torchvision's downloader, in a process of its own.

Why a process: the downloader knows neither time limits nor progress. In a child, the socket time
limit is set without touching the server's other threads, a name lookup that hangs can be ended,
and the page's process does not load torch to fetch a file. The parent watches the files grow
against their published sizes: that is the progress it reports, and no growth is how it knows that
nothing comes any more.

`python -m nin_core.download` is that child: a request as JSON on stdin, the outcome on stdout.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from .datasets import Published
from .machine import PROJECT

# Seconds for one connection or one read; until some address must have answered; and, once one has,
# without a single new byte. The last is long: torch alone takes half a minute to start on a busy
# machine, and a connection that stands still ends after SOCKET_SECONDS anyway.
SOCKET_SECONDS = 8
ANSWER_SECONDS = 20
STALL_SECONDS = 120
_POLL_SECONDS = 0.1
_ANSWERED = ".answered"  # the empty file by which the child says that an address has answered


class DownloadError(Exception):
    """A download that did not succeed; the message is the reason, without a full stop."""


def download(files: Sequence[Published], folder: Path, report: Callable[[int, int], None]) -> None:
    """Fetch `files` into the existing `folder`, MD5-checked by torchvision.

    Args:
        report: called with (bytes that have arrived, bytes in all) while the files grow.

    Raises:
        DownloadError: with the reason for each address tried.
    """
    total = sum(file.size for file in files)
    request = json.dumps(
        {
            "folder": str(folder),
            "files": [{"name": f.name, "md5": f.md5, "urls": f.urls} for f in files],
        }
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "nin_core.download"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # tqdm's bar
        text=True,
    )
    try:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(request)
        child.stdin.close()
        arrived, last_growth = 0, time.monotonic()
        report(0, total)
        while child.poll() is None:
            time.sleep(_POLL_SECONDS)
            now = sum(_size(folder / file.name) for file in files)
            if now != arrived:
                arrived, last_growth = now, time.monotonic()
                report(min(arrived, total), total)
                continue
            patience = STALL_SECONDS if (folder / _ANSWERED).exists() else ANSWER_SECONDS
            if time.monotonic() - last_growth > patience:
                raise DownloadError(f"nothing arrived for {patience} seconds")
        reason = child.stdout.read().strip()
        if child.returncode != 0:
            raise DownloadError(reason or f"the downloader ended with code {child.returncode}")
    finally:
        child.kill()
        child.wait()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def main() -> int:
    """The child: fetch every file from the first address that has it; print why one failed."""
    request = json.load(sys.stdin)
    socket.setdefaulttimeout(SOCKET_SECONDS)
    # Ask before torch is loaded: without a network the answer then comes at once.
    reasons = _first_success(request["files"][0]["urls"], lambda url: urlopen(url).close())
    if not reasons:
        (Path(request["folder"]) / _ANSWERED).touch()
        try:
            from torchvision.datasets.utils import download_url
        except ImportError as error:
            reasons = [f"torchvision cannot be loaded, {error}"]
    for file in request["files"]:
        reasons = reasons or _first_success(
            file["urls"],
            lambda url, file=file: download_url(url, request["folder"], file["name"], file["md5"]),
        )
    print("; ".join(reasons))
    return 1 if reasons else 0


def _first_success(urls: Sequence[str], action: Callable[[str], object]) -> list[str]:
    """Try one address after the other; the reasons if all fail, else nothing."""
    reasons = []
    for url in urls:
        try:
            action(url)
            return []
        except Exception as error:  # whatever one mirror does, the next is tried
            reasons.append(_sentence(url, error))
    return reasons


def _sentence(url: str, error: Exception) -> str:
    host = urlsplit(url).hostname
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, socket.gaierror):
        return f"{host} cannot be found, so there is probably no network"
    if isinstance(cause, TimeoutError):
        return f"{host} did not answer within {SOCKET_SECONDS} seconds"
    if isinstance(cause, RuntimeError):  # torchvision's for an MD5 that differs
        return f"what {host} sent for {url.rpartition('/')[2]} is not the published file"
    return f"{host}: {cause}"


if __name__ == "__main__":
    raise SystemExit(main())
