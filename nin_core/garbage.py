"""What the garbage collector takes of a process that imports PyTorch: seconds, and for nothing.

A million objects come with the import and stay to the end. The collector looks through them again
and again while they are made, whenever it is due later, and once more when the interpreter ends:
0.4 and 1.3 s of the 4.3 s that a process took which only imported PyTorch (two AVX2 cores).
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """While the block imports, nothing is collected; what is there at its end stays for good."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def exit_quickly() -> None:
    """Have this process end without a last look for garbage."""
    atexit.register(gc.freeze)
