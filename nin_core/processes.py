"""Which process is on a run: how it is named, and whether it still lives."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from .records import WorkerId

HOST = "NIN_WORKER_HOST"  # an environment variable of workers: the host's name


@lru_cache(maxsize=1)
def this_host() -> str:
    """A name for this boot of this machine (or container): pids mean something only within it.

    A worker has it from whoever started it: a laptop's own name may change with its network.
    """
    if given := os.environ.get(HOST):
        return given
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    digest = hashlib.sha256("".join(parts).encode()).hexdigest()[:8]
    return f"{socket.gethostname()[:150]}/{digest}"


def this_worker() -> WorkerId:
    """This very process, as the one that works on a run."""
    return WorkerId(this_host(), os.getpid(), start_mark(os.getpid()) or "")


def start_mark(pid: int) -> str | None:
    """When that process started, in clock ticks since boot; None if it is gone or a zombie.

    "" where the system does not tell (only Linux has /proc).
    """
    if not Path("/proc/self/stat").exists():
        return ""
    try:
        # The name, in parentheses, may hold anything; the fields after it are fixed.
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    values = text.rpartition(")")[2].split()
    return None if values[0] in "ZX" else values[19]


def is_alive(worker: WorkerId) -> bool | None:
    """Whether that process of this host still runs; None if it cannot be known from here.

    That is so for other hosts, and where a system does not tell when a process started: one of
    that number may then be another.
    """
    if worker.host != this_host() or worker.pid is None:
        return None
    mark = start_mark(worker.pid)
    if mark is None:
        return False
    if mark:
        return not worker.mark or mark == worker.mark
    if worker.pid == os.getpid():
        return True
    if os.name != "posix":
        return None  # os.kill would end the process there
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return None


def is_orphaned(parent: int) -> bool:
    """Whether the process that started this one has ended: then the system gives it another parent.

    Never on Windows, where there may be a launcher between the two and nobody else is given.
    """
    return os.name == "posix" and os.getppid() != parent
