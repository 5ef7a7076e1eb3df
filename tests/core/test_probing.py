"""A probe in a process of its own: it finds, it is a guest, and it ends with whoever asked."""

from __future__ import annotations

import os
import subprocess

import pytest

from nin_core import PRESETS, jobs, probing, tuning
from nin_core.recipes import RECIPES
from nin_core.store import RunStore

NETWORK = PRESETS["nin-28"].with_widths((6, 8, 8))
TRAIN = RECIPES["fast"].configure(NETWORK, subset=640)


def test_a_process_finds_what_runs_of_this_size_get(store: RunStore) -> None:
    shares: list[float] = []
    probing.probe_apart(store, NETWORK, TRAIN, "shapes", shares.append)
    found = tuning.known(NETWORK, TRAIN.batch_size)
    assert found is not None
    assert shares == [(number + 1) / len(found.trials) for number in range(len(found.trials))]
    assert all(trial.images_per_second > 0 for trial in found.trials)


def test_it_does_not_measure_beside_a_run(store: RunStore) -> None:
    store.create(NETWORK, TRAIN, "shapes")
    with pytest.raises(probing.DisturbedError, match="when nothing trains, it works"):
        probing.probe_apart(store, NETWORK, TRAIN, "shapes", lambda done: None)
    assert tuning.known(NETWORK, TRAIN.batch_size) is None


def test_it_ends_when_nobody_wants_it_any_more(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def start(*args: object, **options: object) -> subprocess.Popen[str]:
        started.append(popen(*args, **options))
        return started[-1]

    def unwanted(done: float) -> None:
        raise InterruptedError

    monkeypatch.setattr(probing.subprocess, "Popen", start)
    with pytest.raises(InterruptedError):
        probing.probe_apart(store, NETWORK, TRAIN, "shapes", unwanted)
    assert started[0].poll() is not None
    assert tuning.known(NETWORK, TRAIN.batch_size) is None


def test_what_a_guest_looks_for(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ASK_SECONDS", 0.0)
    look = probing.in_the_way(store, os.getppid())
    assert not look()
    run_id = store.create(NETWORK, TRAIN, "shapes")
    assert look()
    jobs.stop_run(store, run_id)
    assert not look()
    assert probing.in_the_way(store, os.getpid())(), "its parent is another process"


def test_a_store_that_is_gone_is_said_in_a_sentence(store: RunStore) -> None:
    store.close()
    store.path.unlink()
    with pytest.raises(RuntimeError, match=r"runs\.db"):
        probing.probe_apart(store, NETWORK, TRAIN, "shapes", lambda done: None)
