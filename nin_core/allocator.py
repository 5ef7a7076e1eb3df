"""What the C library does with memory that a program has freed. No torch.

glibc gives large blocks back to the system as soon as they are freed, and where it puts the next
ones depends on what was freed before. A training step allocates the same large blocks again and
again: every page of them is fetched and cleared anew each time, a quarter of a small network's
step on a laptop, and where the border between large and small lies is left to chance.

`keep_freed` has freed memory kept for the next step; `give_back` returns it between two phases that
need blocks of other sizes; `freed_at_once` returns every block, so that what a process occupies is
what is alive in it. Elsewhere than on glibc they do nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # from glibc's malloc.h
_SMALL, _LARGE = 64 * 1024, 2**30
_LARGEST_BEFORE = 32 * 2**20  # above which a glibc before 2.35 leaves the border where it is
_AHEAD = 64 * 2**20  # bytes that are asked of the system at a time
_HUGE_PAGES = "glibc.malloc.hugetlb=1"


def keep_freed() -> None:
    """Keep what is freed from here on, in this process, for what is allocated next."""
    library = _c_library()
    if library is not None:
        if not library.mallopt(_MMAP_THRESHOLD, _LARGE):
            library.mallopt(_MMAP_THRESHOLD, _LARGEST_BEFORE)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGE - 1)
        library.mallopt(_TOP_PAD, _AHEAD)


def give_back(in_others: Callable[[Callable[[], None]], None] | None = None) -> None:
    """Return to the system whatever is free.

    Args:
        in_others: calls what it is given in each of the other threads that compute, and waits for
            them: the free end of a thread's memory is returned by that thread alone. Freed memory
            is kept afterwards.
    """
    library = _c_library()
    if library is None:
        return
    if in_others is not None:
        library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
        library.mallopt(_TRIM_THRESHOLD, _SMALL)
        library.mallopt(_TOP_PAD, _SMALL)
        # The end is looked at when a block of this size is freed.
        in_others(lambda: library.free(library.malloc(2 * _SMALL)))
        keep_freed()
    library.malloc_trim(0)


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Have every block over 64 KiB mapped by itself, so that freeing it gives it back.

    Afterwards freed memory is kept, as in a process that trains.
    """
    library = _c_library()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, _SMALL)
        library.mallopt(_TRIM_THRESHOLD, _SMALL)
        library.mallopt(_TOP_PAD, _SMALL)
    try:
        yield
    finally:
        keep_freed()


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that trains: its memory comes in pages of 2 MiB.

    glibc reads this only when a process starts; other systems do not read it.
    """
    others = [
        setting
        for setting in environment.get("GLIBC_TUNABLES", "").split(":")
        if setting and not setting.startswith("glibc.malloc.hugetlb=")
    ]
    return {**environment, "GLIBC_TUNABLES": ":".join([*others, _HUGE_PAGES])}


def _c_library() -> Any:
    """glibc, or None."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "malloc_trim") else None
    except (OSError, TypeError):
        return None
