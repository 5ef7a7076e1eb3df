"""A worker process in reserve: PyTorch imported, nothing loaded, so that a run starts at once.

Choices made here:

* One spare a store and process. It waits at its standard input for the number of a run; when the
  process that keeps it ends, however it ends, the pipe closes and the spare ends too.
* Importing is done at low priority, and the next spare is made only some seconds after one was
  taken, when the run it went to has had its start.
* A spare is never relied on: without one, or if it died meanwhile, a worker is started cold.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from . import allocator
from .machine import PROJECT
from .processes import HOST, this_host

REFILL_SECONDS = 8.0
WAIT = "--wait"  # what tells a worker that it is a spare; its log's path follows
WITH = "--with"  # what tells a worker to end with a process, whose number follows

_lock = threading.Lock()
_kept: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
_refilled: dict[str, Path] = {}  # stores for which spares are wanted, and where logs go


def environment(url: str) -> dict[str, str]:
    """The environment of a worker of that store."""
    own = {"NIN_DATABASE_URL": url, "PYTHONUNBUFFERED": "1", HOST: this_host()}
    return allocator.with_huge_pages(os.environ) | own


def keep(url: str, folder: Path) -> None:
    """See to it that a spare for the store at `url` is there now and after each that is taken.

    Quick, and silent where no process can be made: a spare only saves time.

    Args:
        folder: where the logs of this store's workers are.
    """
    with _lock:
        _refilled[url] = folder
        _make(url, folder)


def take(url: str, run_id: int, log: Path) -> subprocess.Popen[bytes] | None:
    """Give the run to the spare, whose output goes to `log` from now on; None if there is none."""
    with _lock:
        process, own_log = _kept.pop(url, (None, None))
        if url in _refilled:
            refill = threading.Timer(REFILL_SECONDS, keep, [url, _refilled[url]])
            refill.daemon = True
            refill.start()
    if process is None or own_log is None or process.poll() is not None:
        return None
    assert process.stdin is not None
    try:
        own_log.replace(log)
        process.stdin.write(f"{run_id}\n".encode())
        process.stdin.close()
    except OSError:
        process.kill()
        process.wait()
        return None
    return process


def dismiss() -> None:
    """End all spares of this process, and keep none any more."""
    with _lock:
        _refilled.clear()
        for process, log in _kept.values():
            process.kill()
            process.wait()
            log.unlink(missing_ok=True)
        _kept.clear()


def _make(url: str, folder: Path) -> None:
    process, log = _kept.get(url, (None, None))
    if process is not None and process.poll() is None:
        return
    if log is not None:
        log.unlink(missing_ok=True)
    log = folder / f"spare-{uuid.uuid4().hex[:12]}.log"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "nin_core.worker", WAIT, str(log), WITH, str(os.getpid())],
                cwd=PROJECT,
                env=environment(url),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _kept[url] = process, log
