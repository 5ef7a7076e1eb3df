"""Threads that compute at once: the same ones each time, and their memory given back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from nin_core import allocator
from nin_core.lanes import Lanes
from nin_core.machine import PROJECT

THREADS = 3
MEGABYTES = 40  # less than glibc's largest heap of a thread

_SCRIPT = f"""
import ctypes, threading
from nin_core import allocator, process_memory
from nin_core.lanes import Lanes
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
allocator.keep_freed()
lanes, together = Lanes(), threading.Barrier({THREADS})

def work(number):
    together.wait()
    blocks = [library.malloc(2**20) for _ in range({MEGABYTES})]
    for block in blocks:
        ctypes.memset(block, 1, 2**20)
    together.wait()
    for block in blocks:
        library.free(block)

before = process_memory.resident()
lanes.map(work, range({THREADS}), threads={THREADS})
kept = process_memory.resident()
lanes.give_back()
print((kept - before) / 2**20, (process_memory.resident() - before) / 2**20)
"""


def test_all_items_are_done_in_order_by_threads_that_stay() -> None:
    lanes, seen = Lanes(), set[int]()

    def work(number: int) -> int:
        seen.add(threading.get_ident())
        return number**2

    for _ in range(20):
        assert lanes.map(work, range(7), threads=THREADS) == [n**2 for n in range(7)]
    assert threading.get_ident() in seen
    assert len(seen) <= THREADS


def test_one_thread_is_the_calling_one() -> None:
    seen = Lanes().map(lambda _: threading.get_ident(), range(3), threads=1)
    assert seen == [threading.get_ident()] * 3
    assert Lanes().map(lambda _: 0, [], threads=THREADS) == []


@pytest.mark.parametrize("main", [True, False], ids=["this-thread", "another"])
def test_after_an_error_in_any_thread_nothing_more_is_begun(main: bool) -> None:
    begun, failed = list[int](), threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if (threading.current_thread() is threading.main_thread()) is main:
            failed.set()
            raise ValueError(f"item {number}")
        failed.wait(10)
        time.sleep(0.1)

    with pytest.raises(ValueError, match="item"):
        Lanes().map(work, range(100), threads=2)
    assert len(begun) <= 4


def test_more_threads_take_the_place_of_fewer() -> None:
    before, lanes = set(threading.enumerate()), Lanes()
    for threads in (2, THREADS, 2, THREADS + 2):
        assert lanes.map(abs, range(-9, 0), threads=threads) == [*range(9, 0, -1)]
        lanes.give_back()
    assert len(set(threading.enumerate()) - before) == THREADS + 1


@pytest.mark.skipif(allocator._c_library() is None, reason="this C library is not glibc")
def test_what_every_thread_has_freed_is_given_back() -> None:
    """In a process of its own, whose memory nobody else uses."""
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    kept, left = map(float, run.stdout.split())
    assert kept > 0.9 * THREADS * MEGABYTES
    assert left < 0.1 * THREADS * MEGABYTES
