"""What processes occupy, what a container lets them, and whether the system has killed for memory.

Choices made here:

* Linux tells all of it in /proc and in the control groups' files; elsewhere a figure that is not to
  be had is 0 or None, and nobody is told anything that was not measured.
* The most a process has occupied is the system's own high-water mark, which misses nothing between
  two looks. It can be set back, so that what importing took does not count.
* Whether memory ran out is asked of the counters of kills: those of the control groups this process
  is in (version 1 and 2), and the system's own. A counter that rose in the seconds around a
  worker's death, of which nobody here knows another cause, is taken as the reason.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_GROUPS = Path("/sys/fs/cgroup")
LOOK_SECONDS, MOST_LOOKS = 0.5, 120  # from one look of `KillWatch` to the next; how many are kept
_NO_LIMIT = 2**60  # version 1 writes a number near 2**63 where there is no limit


def status(field: str, pid: int | str = "self") -> int:
    """A size from /proc/<pid>/status in bytes, e.g. "VmRSS"; 0 if it is not there."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def resident(pid: int | str = "self") -> int:
    """Bytes a process occupies; of another one, 0 where the system does not tell."""
    found = status("VmRSS", pid)
    return found if found or pid != "self" else _most_by_resource()


def peak() -> int:
    """The most this process has occupied since it began, or since `reset_peak`."""
    return status("VmHWM") or _most_by_resource()


def reset_peak() -> bool:
    """Have Linux count the peak from now on; False where that cannot be."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return status("VmHWM") <= status("VmRSS") + 2**20


def _most_by_resource() -> int:
    with suppress(ImportError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return 0


# --- containers -------------------------------------------------------------------------------


class Limit(NamedTuple):
    """A control group's limit of memory in bytes, and what is in use of it, files apart."""

    most: int
    used: int


def group_limit(root: Path = _GROUPS, groups: str | None = None) -> Limit | None:
    """The tightest limit of the control groups this process is in; None if there is none.

    Args:
        root: where the control groups are mounted.
        groups: the text of /proc/self/cgroup, by default this process's.
    """
    limits = []
    for folder in _folders(root, groups):
        for most_file, used_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with suppress(OSError, ValueError):  # "max" is no number: no limit
                most = int((folder / most_file).read_text())
                if most < _NO_LIMIT:
                    used = int((folder / used_file).read_text())
                    limits.append(Limit(most, max(used - _reclaimable(folder), 0)))
    return min(limits, key=lambda limit: limit.most - limit.used, default=None)


def group_cores(root: Path = _GROUPS, groups: str | None = None) -> float | None:
    """The fewest cores that a control group this process is in may use; None without a limit.

    Args:
        root, groups: as for `group_limit`.
    """
    shares = []
    for folder in _folders(root, groups, "cpu"):
        for quota_file, period_file in (
            ("cpu.max", "cpu.max"),
            ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
        ):
            with suppress(OSError, ValueError):  # "max" is no number: no limit
                quota = int((folder / quota_file).read_text().split()[0])
                if quota > 0:
                    shares.append(quota / int((folder / period_file).read_text().split()[-1]))
    return min(shares, default=None)


def memory_kills(root: Path = _GROUPS, groups: str | None = None) -> int:
    """How often the system has killed for memory, in our control groups or altogether.

    Only that it rises means something; 0 where the system does not tell.

    Args:
        root, groups: as for `group_limit`.
    """
    kills = 0
    for folder in _folders(root, groups):
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError):
                kills = max(kills, _counted((folder / name).read_text()))
    with suppress(OSError):
        kills += _counted(Path("/proc/vmstat").read_text())
    return kills


class KillWatch:
    """What `memory_kills` was at the looks of the last minute, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, int]] = deque(maxlen=MOST_LOOKS)

    def look(self) -> None:
        """Note how many there are now, unless that was done a moment ago."""
        moment = time.monotonic()
        with self._lock:
            if not self._seen or moment - self._seen[-1][0] >= LOOK_SECONDS:
                self._seen.append((moment, memory_kills()))

    def risen(self, seconds: float) -> bool:
        """Whether there are more now than so many seconds ago; False if nobody looked then."""
        then = time.monotonic() - seconds
        with self._lock:
            before = [count for moment, count in self._seen if moment <= then]
        return bool(before) and memory_kills() > before[-1]


#: Looked through by whoever settles runs, see `jobs.advance`.
KILLS = KillWatch()


def _reclaimable(folder: Path) -> int:
    """Bytes of files in a group's memory that the system drops when someone needs the room."""
    with suppress(OSError):
        text = (folder / "memory.stat").read_text()
        return _counted(text, "total_inactive_file") or _counted(text, "inactive_file")
    return 0


def _counted(text: str, wanted: str = "oom_kill") -> int:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == wanted and value.strip().isdecimal():
            return int(value)
    return 0


def _folders(root: Path, groups: str | None, controller: str = "memory") -> list[Path]:
    """The folders of the groups this process is in, and those above, of a controller."""
    if groups is None:
        try:
            groups = Path("/proc/self/cgroup").read_text()
        except OSError:
            return []
    folders: list[Path] = []
    for line in groups.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        # A container sees its own group as the root of the mount, whatever the path says.
        place = base / path.strip("/")
        while place != base and base in place.parents:
            folders.append(place)
            place = place.parent
        folders.append(base)
    return folders
