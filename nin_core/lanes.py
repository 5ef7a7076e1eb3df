"""Threads that compute at once: the calling one and others, which stay the same. No torch.

glibc keeps memory for each thread, and what a thread that has ended has freed is of no use to the
next. So all that a training computes at once, steps and tests, is done by the same threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

from . import allocator

T = TypeVar("T")
U = TypeVar("U")


class Lanes:
    """As many threads as are asked for; they begin with the first work that needs them."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._others = 0

    def map(self, work: Callable[[U], T], items: Iterable[U], *, threads: int) -> list[T]:
        """What `work` makes of each item, in order.

        Args:
            work: called from several threads at once.
            threads: at most so many at once, this one included.
        """
        waiting = deque(enumerate(items))
        results: list[T | None] = [None] * len(waiting)

        def lane() -> None:
            # Whoever is done takes the next item: a thread that others hold up takes fewer.
            while True:
                try:
                    number, item = waiting.popleft()
                except IndexError:
                    return
                try:
                    results[number] = work(item)
                except BaseException:
                    waiting.clear()  # nobody begins another one
                    raise

        others = self._start(min(threads, len(waiting)) - 1, lane)
        try:
            lane()
        finally:
            others()
        return cast("list[T]", results)

    def give_back(self) -> None:
        """Return to the system what is free in the memory of all these threads."""
        allocator.give_back(self._in_others if self._others else None)

    def _in_others(self, work: Callable[[], None]) -> None:
        """Have every other thread do that."""
        # Whoever is done waits for the others, so that none does it twice.
        gate = threading.Barrier(self._others)

        def once() -> None:
            work()
            gate.wait()

        self._start(self._others, once)()

    def _start(self, count: int, work: Callable[[], None]) -> Callable[[], None]:
        """Have so many other threads do that; returns what waits for them."""
        if count <= 0:
            return lambda: None
        if self._pool is None or self._others < count:
            if self._pool is not None:
                self.give_back()
                self._pool.shutdown()
            # No more threads than are needed: the C library keeps memory for each of them.
            self._pool, self._others = ThreadPoolExecutor(count, "lane"), count
        futures = [self._pool.submit(work) for _ in range(count)]

        def wait() -> None:
            for future in futures:
                future.result()

        return wait
