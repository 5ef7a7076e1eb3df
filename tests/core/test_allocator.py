"""Freed memory is kept between steps and given back between phases, on glibc."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from nin_core import allocator
from nin_core.machine import PROJECT

BLOCK = 2**20
BLOCKS = 64
on_glibc = pytest.mark.skipif(allocator._c_library() is None, reason="this C library is not glibc")

_SCRIPT = f"""
import ctypes
from nin_core import allocator, process_memory
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def freed():
    "Megabytes that this process still occupies of what it has had and freed."
    before = process_memory.resident()
    blocks = [library.malloc({BLOCK}) for _ in range({BLOCKS})]
    for block in blocks:
        ctypes.memset(block, 1, {BLOCK})
    for block in blocks:
        library.free(block)
    return (process_memory.resident() - before) / 2**20

with allocator.freed_at_once():
    at_once = freed()
allocator.keep_freed()
kept = freed()
before = process_memory.resident()
allocator.give_back()
print(at_once, kept, (before - process_memory.resident()) / 2**20)
"""


@on_glibc
def test_freed_memory_is_kept_or_given_back_as_told() -> None:
    """In a process of its own, whose memory nobody else uses."""
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    at_once, kept, given_back = map(float, run.stdout.split())
    assert at_once < 0.1 * BLOCKS
    assert kept > 0.9 * BLOCKS
    assert given_back > 0.9 * BLOCKS


def test_huge_pages_are_asked_for_beside_what_else_is_set() -> None:
    told = allocator.with_huge_pages({"A": "b", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0:x=1"})
    assert told == {"A": "b", "GLIBC_TUNABLES": "x=1:glibc.malloc.hugetlb=1"}
    assert allocator.with_huge_pages({})["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    process = subprocess.run(
        [sys.executable, "-c", "pass"],
        env=allocator.with_huge_pages(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stderr == "", "the C library takes it without a word"


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # it has no malloc_trim
    allocator.keep_freed()
    allocator.give_back()
    with allocator.freed_at_once():
        pass
