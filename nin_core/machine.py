"""This computer: its memory, its cores, and how fast they multiply and copy at best.

Choices made here:

* Peak is what a program gets, not what a data sheet says: a large float32 matrix product (two
  operations a multiply-add) and a copy larger than the caches (bytes read plus bytes written), the
  best of many, since anything else that runs can only slow them down. Each takes some 10 ms, short
  enough to find a moment in which nothing else does.
* Kept in a file beside the runs, for each processor, torch version and number of threads. What was
  measured on a busy computer is too low, so the best of all measurements stands. Reading it needs
  no torch; only `measure_machine` does.
* Free memory is what the system says a new process can take, or what a container has left of its
  limit, whichever is less.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from .process_memory import group_cores, group_limit

PROJECT = Path(__file__).resolve().parent.parent
GEMM_SIDE = 768
COPY_BYTES = 64 * 2**20  # read, and as many written: several times most caches
REPEATS = 40


class Memory(NamedTuple):
    """Bytes of memory: all there is for us, and what is free now."""

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Machine:
    """The measured peaks of a computer with so many threads.

    Attributes:
        cpu: the processor's name.
        torch: version of PyTorch that was measured.
        threads: threads that PyTorch used.
        flops_per_second: of a float32 matrix product, two operations a multiply-add.
        bytes_per_second: of a copy, reading and writing together.
    """

    cpu: str
    torch: str
    threads: int
    flops_per_second: float
    bytes_per_second: float

    @property
    def ridge(self) -> float:
        """Operations a byte from which on arithmetic, not memory, is the limit."""
        return self.flops_per_second / self.bytes_per_second

    def attainable(self, intensity: float) -> float:
        """The roofline: operations a second that `intensity` operations a byte allow at best.

        Source: Williams, Waterman and Patterson, "Roofline", CACM 2009.
        """
        return min(self.flops_per_second, intensity * self.bytes_per_second)

    def seconds(self, flops: float, moved: float) -> float:
        """The least time for so many operations and bytes, if the two overlap perfectly."""
        return max(flops / self.flops_per_second, moved / self.bytes_per_second)


# --- what the system says ---------------------------------------------------------------------


def memory() -> Memory | None:
    """This computer's memory, or that of its container; None where the system does not tell."""
    try:
        found = _meminfo(Path("/proc/meminfo").read_text())
    except (OSError, ValueError, KeyError):
        try:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (OSError, ValueError, AttributeError):
            return None
        found = Memory(total, total)
    limit = _container()
    if limit is None:
        return found
    return Memory(min(found.total, limit.total), min(found.available, limit.available))


def _meminfo(text: str) -> Memory:
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in text.splitlines() if line}
    return Memory(values["MemTotal"], values["MemAvailable"])


def _container(root: Path = Path("/sys/fs/cgroup")) -> Memory | None:
    """The limit of the container (control group) that this process is in, and what is left."""
    limit = group_limit(root)
    return None if limit is None else Memory(limit.most, max(limit.most - limit.used, 0))


def available_cores() -> int:
    """Cores this process may use: those it is bound to, and no more than its container's share."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    share = _container_cores()
    return max(1, cores if share is None else min(cores, int(share)))


@lru_cache(maxsize=1)
def _container_cores() -> float | None:
    return group_cores()


@lru_cache(maxsize=1)
def accelerators() -> int:
    """GPUs on which PyTorch would train here: NVIDIA's that are visible, or Apple's; else 0."""
    if sys.platform == "darwin":
        return int(platform.machine() == "arm64")
    if "+cpu" in torch_version():
        return 0
    there = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    named = [name for name in visible.split(",") if name.strip()]
    if "-1" in named:  # hides itself and all that follow
        named = named[: named.index("-1")]
    return min(there, len(named))


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's name, as far as the system tells."""
    if name := _cpu_line("model name"):
        return name
    return os.uname().machine if hasattr(os, "uname") else "unknown processor"


@lru_cache(maxsize=1)
def has_avx512() -> bool:
    """Whether this processor has vectors of 512 bits; False where the system does not tell."""
    return "avx512f" in _cpu_line("flags").split()


def _cpu_line(key: str) -> str:
    """What Linux says of the first processor under that key; "" if nothing."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return ""


@lru_cache(maxsize=1)
def torch_version() -> str:
    """The version of PyTorch that is installed, without importing it; "" if none is."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


# --- what was measured ------------------------------------------------------------------------


def cache_path() -> Path:
    """Where the peaks are kept: beside the database of runs if that is a file, else in runs/."""
    url = os.environ.get("NIN_DATABASE_URL", "")
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return Path(url.removeprefix("sqlite:///")).expanduser().parent / "machine.json"
    return PROJECT / "runs" / "machine.json"


def known_machine(threads: int = 1) -> Machine | None:
    """This computer's peaks with so many threads if they were measured before, else None."""
    return _read(cache_path()).get(_key(threads))


def measured_machine(threads: int = 1) -> Machine:
    """This computer's peaks: measured now (1 to 4 s), or before if they were better then."""
    machine = measure_machine(threads)
    known = known_machine(threads)
    if known is not None:
        machine = replace(
            machine,
            flops_per_second=max(machine.flops_per_second, known.flops_per_second),
            bytes_per_second=max(machine.bytes_per_second, known.bytes_per_second),
        )
    path = cache_path()
    entries = {key: asdict(value) for key, value in _read(path).items()}
    entries[_key(threads)] = asdict(machine)
    remember(path, entries)
    return machine


def remember(path: Path, entries: dict[str, Any]) -> None:
    """Write what was measured; a folder that cannot be written costs the memory of it, no more."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(entries, indent=1))
        draft.replace(path)


def measure_machine(threads: int = 1) -> Machine:
    """Measure the peaks with this many threads. Imports torch and sets its threads."""
    import torch

    torch.set_num_threads(threads)
    left, right = torch.rand(2, GEMM_SIDE, GEMM_SIDE)
    product = torch.empty_like(left)
    multiply = _best(lambda: torch.mm(left, right, out=product))
    source = torch.ones(COPY_BYTES // 4)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source))
    return Machine(
        cpu_name(),
        torch_version(),
        threads,
        2 * GEMM_SIDE**3 / multiply,
        2 * COPY_BYTES / copy,
    )


def _best(action: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls, after one to warm up."""
    action()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def identity() -> str:
    """What a measurement holds for: processor, cores and PyTorch."""
    return f"{cpu_name()} · {available_cores()} cores · torch {torch_version()}"


def _key(threads: int) -> str:
    return f"{identity()} · {threads}"


def _read(path: Path) -> dict[str, Machine]:
    """The peaks in a file; a file that is missing or damaged holds none."""
    try:
        entries: Any = json.loads(path.read_text())
        machines = {key: Machine(**value) for key, value in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    # Division by zero is nobody's roofline.
    return {
        key: machine
        for key, machine in machines.items()
        if isinstance(machine.flops_per_second, float)
        and isinstance(machine.bytes_per_second, float)
        and min(machine.flops_per_second, machine.bytes_per_second) > 0
    }
