"""Seed fans: runs that belong together, their band, their stalls, and the end of all at once."""

from __future__ import annotations

import math
import threading

import pytest

from nin_core import PRESETS, RECIPES, ConfigError, fans, jobs, processes, scoring
from nin_core.records import MetricRow, StateError
from nin_core.store import RunStore
from nin_core.trouble import DIVERGED

NETWORK = PRESETS["nin-slim-128"]
TRAIN = RECIPES["tutorial"].configure(NETWORK, epochs=1, subset=fans.EXAMPLE_IMAGES)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "available_cores", lambda: 0)
    opened = RunStore(f"sqlite:///{tmp_path / 'fans.db'}")
    yield opened
    opened.close()


def points(*losses: float | None) -> list[MetricRow]:
    return [MetricRow("step", 1, 10 * n, n, loss) for n, loss in enumerate(losses, 1)]


def test_a_fan_is_a_run_a_seed(store):
    other = store.create(NETWORK, TRAIN, "shapes")
    fan = fans.start(store, NETWORK, TRAIN, "shapes", 3)
    members = fans.runs(store, fan)
    assert [run.train.seed for run in members] == [0, 1, 2]
    assert {run.fan for run in members} == {fan}
    assert store.get(other).fan is None
    assert fans.runs(store, "none") == []


@pytest.mark.parametrize("seeds", [0, fans.MAX_SEEDS + 1])
def test_a_number_of_seeds_out_of_range_makes_no_run(store, seeds):
    with pytest.raises(ConfigError, match="would work"):
        fans.start(store, NETWORK, TRAIN, "shapes", seeds)
    assert store.list_runs() == []


def test_a_fan_is_stopped_and_deleted_as_one(store, monkeypatch):
    other = store.create(NETWORK, TRAIN, "shapes")
    fan = fans.start(store, NETWORK, TRAIN, "shapes", 3)
    with pytest.raises(StateError):
        fans.delete(store, fan)
    for run in fans.runs(store, fan)[1:]:
        store.request(run.id, "paused")
        store.save_checkpoint(run.id, 2, 1, b"weights")
    measured = []

    def measure(store: RunStore, run_id: int, *, wait: bool) -> None:
        measured.append((run_id, wait))
        raise StateError("its process has not quite ended")  # no reason not to stop the others

    monkeypatch.setattr(scoring, "measure_again", measure)
    fans.stop(store, fan, outlive=True)
    assert measured == [(run.id, True) for run in fans.runs(store, fan)[:0:-1]]
    measured.clear()
    paused = [run.id for run in fans.runs(store, fan)[1:]]
    scoring.measure_each(store, paused, wait=False)  # in a thread, but one after another
    for thread in threading.enumerate():
        if thread.name == "measure-runs":
            thread.join(60)
    assert measured == [(run_id, True) for run_id in paused]
    assert {run.state for run in fans.runs(store, fan)} == {"stopped"}
    fans.delete(store, fan)
    assert [run.id for run in store.list_runs()] == [other]


def test_stalls_are_told_with_their_reason(store):
    fan = fans.start(store, NETWORK, TRAIN, "shapes", 4)
    learns, guesses, dead, diverged = (run.id for run in fans.runs(store, fan))
    store.add_metrics(learns, points(*(2.3 / n for n in range(1, 21))))
    store.note(learns, diagnosis="1 of 10 class maps is zero.")
    store.add_metrics(guesses, points(*[math.log(10)] * 20))
    store.add_metrics(dead, points(math.log(10), math.log(10)))
    store.note(dead, diagnosis="10 of 10 class maps are zero.")
    worker = processes.this_worker()
    attempt = store.claim(diverged, worker)
    store.transition(diverged, "failed", attempt=attempt, error=f"{DIVERGED} after step 3.")
    found = fans.stalled(store, fans.runs(store, fan))
    assert [stall.run.id for stall in found] == [guesses, dead, diverged]
    assert "ln(10) = 2.303" in found[0].why
    assert found[1].why == "10 of 10 class maps are zero."
    assert found[2].why.startswith(DIVERGED)


def test_a_band_is_over_the_runs_that_have_the_point():
    curves = [
        ([10, 20, 30], [3.0, 1.0, math.nan]),
        ([10, 20], [1.0, 2.0]),
        ([10, 20, 30], [2.0, 9.0, 3.0]),
    ]
    assert fans.band(curves) == [
        (10, 1.0, 2.0, 3.0, 3),
        (20, 1.0, 2.0, 9.0, 3),
        (30, 3.0, 3.0, 3.0, 1),
    ]
    assert fans.band([]) == []


def test_of_two_values_at_one_step_the_later_counts():
    assert fans.band([([10, 10], [0.3, 0.4])]) == [(10, 0.4, 0.4, 0.4, 1)]
