"""Background work: one at a time, shared, and none that nobody wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from nin_core import background
from nin_core.background import Background, Name, Report


@pytest.fixture
def server() -> Iterator[Background]:
    found = Background()
    yield found
    found.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Gate:
    """Work that reports until it is let through."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.started = threading.Event()
        self.calls = 0

    def __call__(self, report: Report) -> str:
        self.calls += 1
        self.started.set()
        while not self.open.wait(0.005):
            report(0.5)
        return "result"


def name(key: object, kind: str = "kind") -> Name:
    return Name(kind, key)


def test_a_result_is_worked_out_once_for_all_who_ask(server: Background) -> None:
    work = Gate()
    assert server.ask(name(1), "a", work).state in ("waiting", "running")
    assert server.ask(name(1), "b", work).result is None
    work.started.wait(10)
    until(lambda: server.ask(name(1), "a", work).done == 0.5)
    work.open.set()
    until(lambda: server.ask(name(1), "b", work).state == "done")
    assert server.find(name(1), "c").result == "result"
    assert work.calls == 1
    server.forget(name(1))
    assert server.find(name(1), "a") is None


def test_one_at_a_time_and_first_come_first_served(server: Background) -> None:
    first, second = Gate(), Gate()
    server.ask(name(1), "a", first)
    first.started.wait(10)
    assert server.ask(name(2), "b", second).before == 1
    time.sleep(0.05)
    assert not second.started.is_set()
    first.open.set()
    assert second.started.wait(10)
    second.open.set()
    until(lambda: server.find(name(2), "b").state == "done")


def test_work_that_nobody_asks_after_ends_and_what_waits_is_dropped(
    server: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, waiting = Gate(), Gate()
    server.ask(name(1), "a", running)
    server.ask(name(2), "b", waiting)
    running.started.wait(10)
    monkeypatch.setattr(background, "UNWANTED_SECONDS", 0.0)
    until(lambda: server.find(name(2), "b") is None and server.find(name(1), "a") is None)
    assert not waiting.started.is_set()
    monkeypatch.undo()
    running.open.set()
    server.ask(name(1), "a", running)  # wanted again: it begins anew
    until(lambda: server.find(name(1), "a").state == "done")


def test_other_work_of_the_same_kind_replaces_what_its_owner_wanted(server: Background) -> None:
    former, shared, latest = Gate(), Gate(), Gate()
    latest.open.set()
    server.ask(name(1), "a", former)
    former.started.wait(10)
    server.ask(name(2), "a", shared)
    server.ask(name(2), "b", shared)
    server.ask(name(3), "a", latest)  # "a" wants neither of the others now, "b" its own still
    assert shared.started.wait(10)  # so the first has ended
    assert server.find(name(1), "c") is None
    shared.open.set()
    until(lambda: server.find(name(3), "a").state == "done")
    assert server.find(name(2), "b").state == "done"


def test_a_failure_is_told_and_can_be_tried_again(server: Background) -> None:
    def fail(report: Report) -> None:
        raise ValueError("no such thing")

    server.ask(name(1), "a", fail)
    until(lambda: server.find(name(1), "a").state == "failed")
    assert str(server.find(name(1), "a").problem) == "no such thing"
    server.forget(name(1))
    server.ask(name(1), "a", lambda report: 3)
    until(lambda: server.find(name(1), "a").result == 3)


def test_results_are_kept_in_bounds_and_the_thread_ends(
    server: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "MAX_KEPT", 2)
    for key in range(4):
        server.ask(name(key), str(key), lambda report, key=key: key)
        until(lambda key=key: server.find(name(key), "x").state == "done")
    assert [server.find(name(key), "x") is None for key in range(4)] == [True, True, False, False]
    until(lambda: not any(t.name == "background" for t in threading.enumerate()))


def test_closing_ends_what_runs() -> None:
    server, work = Background(), Gate()
    server.ask(name(1), "a", work)
    work.started.wait(10)
    server.close()
    assert server.find(name(1), "a") is None
