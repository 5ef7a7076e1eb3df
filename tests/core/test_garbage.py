"""The collector keeps away from imports, and from the end of a process."""

from __future__ import annotations

import subprocess
import sys

from nin_core.machine import PROJECT

_SCRIPT = """
import atexit, gc
from nin_core import garbage
with garbage.uncollected():
    print(gc.isenabled())
print(gc.isenabled(), gc.get_freeze_count() > 0)
gc.unfreeze()
try:
    with garbage.uncollected():
        raise ImportError
except ImportError:
    print(gc.isenabled(), gc.get_freeze_count())
atexit.register(lambda: print(gc.get_freeze_count() > 0))  # the last one registered is the first
garbage.exit_quickly()
"""


def test_nothing_is_collected_during_imports_and_at_the_end() -> None:
    # In a process of its own: what is frozen stays.
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["False", "True True", "True 0", "True"]
