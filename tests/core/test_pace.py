"""How often live pictures are drawn: as often as they change, with room for a class."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from nin_core.records import Run
from ui import pace


def running(seconds: float, share: float = 0.5) -> Run:
    """A run that has so much of its `seconds` behind it."""
    empty = dict.fromkeys(field.name for field in fields(Run))
    step = round(1000 * share)
    changes = {"state": "running", "desired_state": "running", "step": step, "total_steps": 1000}
    return Run(**(empty | changes | {"seconds": seconds * share}))


@pytest.mark.parametrize(("seconds", "expected"), [(30, 0.5), (250, 0.5), (400, 1), (9000, 2)])
def test_a_longer_run_is_drawn_less_often(seconds: float, expected: float) -> None:
    assert pace.of_run(running(seconds), 0.0) == expected


@pytest.mark.parametrize(
    "run",
    [
        replace(running(9000), step=0),
        replace(running(9000), desired_state="paused"),
        replace(running(9000), state="queued"),
        running(9000, share=0.9998),
    ],
    ids=["begins", "pauses", "waits", "ends"],
)
def test_what_one_waits_for_is_shown_at_once(run: Run) -> None:
    assert pace.of_run(run, 0.0) == pace.PACES[0]


def test_pages_that_watch_together_move_their_drawings_apart() -> None:
    paces = [pace.of_run(running(30), pace.REMOTE_SECONDS * pages) for pages in (1, 10, 30)]
    assert paces == [0.5, 1.0, 4.0]
    assert pace.of_run(running(30), pace.LOCAL_SECONDS * 10) == 4.0


def test_an_estimate_that_wavers_at_a_limit_does_not_change_the_pace() -> None:
    at = 0.5 * pace.DRAWINGS
    assert pace.of_run(running(at * 1.1), 0.0, 0.5) == 0.5
    assert pace.of_run(running(at * 0.9), 0.0, 1.0) == 1.0
    assert pace.of_run(running(at * 1.6), 0.0, 0.5) == 1.0
    assert pace.of_run(running(at / 2), 0.0, 1.0) == 0.5


@pytest.mark.parametrize("seconds", [0.1, 30, 240, 260, 490, 510, 990, 1010, 9000])
@pytest.mark.parametrize("others", [0.0, 0.3, 0.9, 3.0])
def test_a_pace_that_was_chosen_holds(seconds: float, others: float) -> None:
    chosen = pace.of_run(running(seconds), others)
    assert pace.of_run(running(seconds), others, chosen) == chosen


def test_the_list_follows_the_run_that_changes_most() -> None:
    assert pace.of_list([running(9000), running(20)], 0.0) == 3.0
    assert pace.of_list([running(9000)], 0.0) == 12.0
    assert pace.of_list([replace(running(9000), state="queued")], 0.0) == 3.0
    assert pace.of_list([running(20)], 3.0) == 12.0


def test_pages_are_counted_while_they_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(pace.time, "monotonic", lambda: now)
    watchers = pace.Watchers()
    assert watchers.note("a", 0.3) == 0.0
    assert watchers.note("b", 0.1) == pytest.approx(0.4)
    assert watchers.note("a", 0.3) == pytest.approx(0.4)
    now += 4 * pace.PACES[-1]
    assert watchers.note("a", 0.3) == 0.0
