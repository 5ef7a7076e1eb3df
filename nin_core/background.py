"""Work of some seconds that pages want: one thread a server, and no more than is still wanted.

Choices made here:

* One thing at a time, first come, first served, however many pages ask: a class of thirty takes one
  core from the pages and the runs, not all.
* Work is named by a key; whoever asks for the same key shares it, and finds the result afterwards.
  The last results are kept.
* A page asks again while it waits. Work that nobody has asked after for a while is dropped before
  it starts and ends at its next report of progress, so closed pages leave nothing behind. Who asks
  for other work of the same kind no longer wants the former.
* A thread, not a process: the work is tensors, during which other threads run, and a process would
  need seconds to import PyTorch first. The thread ends when there is nothing to do.
* No torch here.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

MAX_KEPT = 64  # results
UNWANTED_SECONDS = 20.0  # more than a busy server needs from one question of a page to the next
EXIT_SECONDS = 5.0

State = Literal["waiting", "running", "done", "failed"]
Report = Callable[[float], None]  # how much is done, 0 to 1; may raise, and must be let through
Work = Callable[[Report], Any]


class Name(NamedTuple):
    """What work is called: `kind` for people and tests, `key` says which exactly."""

    kind: str
    key: Hashable


class Look(NamedTuple):
    """How work stands.

    Attributes:
        done: how much of it, 0 to 1.
        before: how many others come first.
        result: once it is done.
        problem: why it failed: the exception.
    """

    state: State
    done: float
    before: int
    result: Any = None
    problem: Exception | None = None


class _NotWantedError(Exception):
    """Ends work that nobody waits for."""


@dataclass(eq=False)
class _Job:
    work: Work
    wanted: dict[str, float]  # by whom, and when they last asked
    state: State = "waiting"
    done: float = 0.0
    result: Any = None
    problem: Exception | None = None


class Background:
    """The work of a server: at most one runs, the others wait, the last results are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: OrderedDict[Name, _Job] = OrderedDict()  # the first is the one that runs
        self._ended: OrderedDict[Name, _Job] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._closed = False
        # A thread that computes while Python is taken down would end in a crash.
        atexit.register(self.close)

    def ask(self, name: Name, owner: str, work: Work) -> Look:
        """Find how work stands; have it done if nobody has yet. To be asked again while waiting.

        Args:
            name: equal names are the same work.
            owner: who asks, for as long as it asks; it wants one work of each kind at a time.
            work: is called in another thread. It must report its progress now and then.
        """
        with self._lock:
            for other, job in self._pending.items():
                if other.kind == name.kind and other != name:
                    job.wanted.pop(owner, None)
            if name in self._ended:
                self._ended.move_to_end(name)
                return self._look(name)
            job = self._pending.setdefault(name, _Job(work, {}))
            job.wanted[owner] = time.monotonic()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="background", daemon=True)
                self._thread.start()
            return self._look(name)

    def find(self, name: Name, owner: str) -> Look | None:
        """How work stands that was asked for before; None if it was dropped, or never asked for."""
        with self._lock:
            if name in self._pending:
                self._pending[name].wanted[owner] = time.monotonic()
            elif name not in self._ended:
                return None
            return self._look(name)

    def forget(self, name: Name) -> None:
        """Drop a result, so that it is worked out anew when it is asked for."""
        with self._lock:
            self._ended.pop(name, None)

    def close(self) -> None:
        """End everything; waits for the work that runs to notice."""
        with self._lock:
            self._closed = True
            self._pending = OrderedDict(list(self._pending.items())[:1])
            for job in self._pending.values():
                job.wanted.clear()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(EXIT_SECONDS)

    def _look(self, name: Name) -> Look:
        if name in self._ended:
            job, before = self._ended[name], 0
        else:
            job, before = self._pending[name], list(self._pending).index(name)
        return Look(job.state, job.done, before, job.result, job.problem)

    def _run(self) -> None:
        while (found := self._next()) is not None:
            name, job = found

            def report(done: float, job: _Job = job) -> None:
                job.done = done
                with self._lock:
                    if not _is_wanted(job):
                        raise _NotWantedError

            try:
                job.result = job.work(report)
                state: State | None = "done"
            except _NotWantedError:
                state = None
            except Exception as problem:  # whatever it is, the page that wanted it must hear of it
                job.problem, state = problem, "failed"
            with self._lock:
                self._pending.pop(name, None)
                if state is not None:
                    job.state, job.work = state, _nothing  # what the work held is let go
                    self._ended[name] = job
                    while len(self._ended) > MAX_KEPT:
                        self._ended.popitem(last=False)

    def _next(self) -> tuple[Name, _Job] | None:
        """The next work that is still wanted; None, and the thread is over, if there is none."""
        with self._lock:
            while self._pending:
                name, job = next(iter(self._pending.items()))
                if _is_wanted(job):
                    job.state = "running"
                    return name, job
                del self._pending[name]
            self._thread = None
            return None


def _is_wanted(job: _Job) -> bool:
    asked = max(job.wanted.values(), default=-float("inf"))
    return time.monotonic() - asked < UNWANTED_SECONDS


def _nothing(report: Report) -> None:
    return None
