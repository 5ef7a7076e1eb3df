"""How often live pictures are drawn: as often as they change, with room for a class."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import streamlit as st

from nin_core.records import Run
from ui import pace


def running(seconds: float, share: float = 0.5) -> Run:
    """A run that has so much of its `seconds` behind it."""
    empty = dict.fromkeys(field.name for field in fields(Run))
    step = round(1000 * share)
    changes = {"state": "running", "desired_state": "running", "step": step, "total_steps": 1000}
    return Run(**(empty | changes | {"seconds": seconds * share}))


@pytest.mark.parametrize(("seconds", "expected"), [(30, 0.5), (250, 0.5), (400, 0.8), (9000, 4)])
def test_a_longer_run_is_drawn_less_often(seconds: float, expected: float) -> None:
    assert pace.of_run(running(seconds), 0.0) == expected


def test_a_run_of_hours_that_has_just_begun_is_drawn_like_a_short_one() -> None:
    paces = [pace.of_run(running(2000, share), 0.0) for share in (0.001, 0.002, 0.008, 0.1)]
    assert paces == pytest.approx([pace.SHORTEST, pace.SHORTEST, 2.0, pace.LONGEST_ALONE])


@pytest.mark.parametrize(
    "run",
    [
        replace(running(9000), step=0),
        replace(running(9000), desired_state="paused"),
        running(9000, share=0.9998),
    ],
    ids=["begins", "pauses", "ends"],
)
def test_what_one_waits_for_is_shown_at_once(run: Run) -> None:
    assert pace.of_run(run, 0.0) < pace.of_run(running(30), 0.0)


def test_a_first_point_is_looked_for_more_often_than_anything_else() -> None:
    begins = replace(running(9000), step=0, worker_host="host", worker_pid=1)
    assert pace.of_run(begins, 0.0) == pace.BEGINNING_SECONDS
    assert pace.of_run(begins, 30 * pace.REMOTE_SECONDS) <= 1
    assert pace.of_run(replace(running(9000), state="queued", step=0), 0.0) == pace.QUEUED_SECONDS


def test_pages_that_watch_together_move_their_drawings_apart() -> None:
    paces = [pace.of_run(running(30), pace.REMOTE_SECONDS * pages) for pages in (1, 10, 30)]
    assert paces == pytest.approx([pace.SHORTEST, 1.0, 3.0])
    assert pace.of_run(running(30), pace.LOCAL_SECONDS * 30**2) == pace.LONGEST


def test_the_list_follows_the_run_that_changes_most() -> None:
    assert pace.of_list([running(9000), running(20)], 0.0) == 3.0
    assert pace.of_list([running(9000)], 0.0) == 24.0
    assert pace.of_list([replace(running(9000), state="queued")], 0.0) == 3.0
    assert pace.of_list([running(20)], 3.0) == 18.0
    assert pace.of_list([running(20)], 30.0) == pace.LONGEST_LIST


def test_fans_are_drawn_once_a_second_and_make_room_for_a_class() -> None:
    assert pace.of_fan(0.0) == 1.0
    assert pace.of_fan(30 * pace.REMOTE_SECONDS) == 6.0
    assert pace.of_fan(1000.0) == pace.LONGEST_FAN


def test_pages_are_counted_while_they_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(pace.time, "monotonic", lambda: now)
    watchers = pace.Watchers()
    here, elsewhere = pace.LOCAL_SECONDS, pace.REMOTE_SECONDS
    assert watchers.note("a", here=True) == 0.0
    assert watchers.note("b", here=False) == pytest.approx(here + elsewhere)
    assert watchers.note("c", here=True) == pytest.approx(4 * here + elsewhere)
    now += pace.FORGOTTEN_SECONDS + 1
    assert watchers.note("a", here=True) == 0.0


def test_a_closed_page_holds_nobody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = {"session a", "session b"}
    runtime = SimpleNamespace(is_active_session=lambda session: session in connected)
    monkeypatch.setattr(st.runtime, "exists", lambda: True)
    monkeypatch.setattr(st.runtime, "get_instance", lambda: runtime)
    watchers = pace.Watchers()
    for name in ("a", "b"):
        watchers.join(name, f"session {name}")
        watchers.note(name, here=True)
    assert watchers.note("a", here=True) == pytest.approx(4 * pace.LOCAL_SECONDS)
    connected.remove("session b")  # its browser has left
    assert watchers.note("a", here=True) == 0.0
    watchers.note("c", here=True)  # whose it is nobody has said
    assert watchers.note("a", here=True) == pytest.approx(4 * pace.LOCAL_SECONDS)
