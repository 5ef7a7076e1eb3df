"""Which runs memory admits, when the queue waits, when runs are expected to start, who ran out."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from nin_core import (
    PRESETS,
    ConfigError,
    admission,
    jobs,
    machine,
    process_memory,
    processes,
    summarize,
    supervisor,
)
from nin_core.measure import PROCESS_BYTES
from nin_core.recipes import RECIPES
from nin_core.records import Run, WorkerId
from nin_core.store import RunStore

NETWORK = PRESETS["nin-28"]
TRAIN = RECIPES["fast"].configure(NETWORK)
NEEDED = admission.predict_bytes(NETWORK, TRAIN, "shapes") + PROCESS_BYTES


def memory_is(monkeypatch: pytest.MonkeyPatch, total: int, available: int | None = None) -> None:
    found = machine.Memory(total, total if available is None else available)
    monkeypatch.setattr(machine, "memory", lambda: found)


@pytest.mark.parametrize("batch", [128, 512, 4096])
def test_what_is_said_to_fit_does_fit(batch: int) -> None:
    train = replace(TRAIN, batch_size=batch)
    assert admission.misfit(NETWORK, TRAIN, "shapes", NEEDED) is None
    problem = admission.misfit(NETWORK, train, "shapes", NEEDED)
    assert problem is not None
    assert isinstance(problem.suggestion, int)
    fitting = replace(train, batch_size=problem.suggestion)
    assert admission.misfit(NETWORK, fitting, "shapes", NEEDED) is None


def test_widths_are_offered_where_no_batch_helps() -> None:
    wide = NETWORK.with_widths((600, 600, 600))
    train = replace(TRAIN, batch_size=2)
    room = NEEDED + 30_000_000
    problem = admission.misfit(wide, train, "shapes", room)
    assert problem is not None
    assert isinstance(problem.suggestion, tuple)
    narrower = wide.with_widths(problem.suggestion)
    assert admission.misfit(narrower, train, "shapes", room) is None


def test_a_run_that_cannot_fit_is_refused_however_it_is_to_start(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "available_cores", lambda: 0)
    run_id = jobs.start_run(store, NETWORK, TRAIN, "shapes")
    jobs.pause_run(store, run_id)
    memory_is(monkeypatch, NEEDED - 1)
    for act in (
        lambda: jobs.start_run(store, NETWORK, TRAIN, "shapes"),
        lambda: jobs.duplicate_run(store, run_id, seed=3),
        lambda: jobs.resume_run(store, run_id),
        lambda: jobs.extend_run(store, run_id, 1),
    ):
        with pytest.raises(ConfigError, match="would fit"):
            act()
    assert [run.state for run in store.list_runs()] == ["paused"]


def test_wide_vectors_take_memory_for_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted = []
    for wide in (False, True):
        monkeypatch.setattr(machine, "has_avx512", lambda wide=wide: wide)
        predicted.append(admission.predict_bytes(NETWORK, TRAIN, "shapes"))
    narrow, wide = predicted
    assert wide - narrow == admission.AVX512_COPIES * summarize(NETWORK).parameter_bytes


def test_what_no_database_could_keep_is_refused(store: RunStore) -> None:
    wide = NETWORK.with_widths(tuple(2048 for _ in NETWORK.widths))
    assert admission.state_bytes(wide, TRAIN) > admission.MOST_KEPT
    with pytest.raises(ConfigError, match=r"a database takes .* would work") as caught:
        admission.require_keepable(wide, TRAIN)
    narrower = wide.with_widths(caught.value.suggestion)
    admission.require_keepable(narrower, TRAIN)
    assert admission.state_bytes(narrower, TRAIN) > admission.MOST_KEPT / 4


def test_a_rise_of_kills_counts_only_around_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    count, clock = 3, 100.0
    monkeypatch.setattr(process_memory, "memory_kills", lambda: count)
    monkeypatch.setattr(process_memory.time, "monotonic", lambda: clock)
    watch = process_memory.KillWatch()
    assert not watch.risen(1.0)  # nobody looked
    watch.look()
    clock, count = 103.0, 4
    assert watch.risen(1.0)
    watch.look()
    clock = 110.0
    assert not watch.risen(1.0), "that one was of another process, long ago"
    assert watch.risen(8.0)


def test_a_worker_that_nobody_watched_was_killed_for_memory(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its starter is gone, so that its exit code is not known."""
    monkeypatch.setattr(process_memory.KillWatch, "risen", lambda *_: True)
    run_id = store.create(NETWORK, TRAIN, "shapes")
    attempt = store.claim(run_id, WorkerId(processes.this_host(), 2**22))
    store.note(run_id, attempt, phase="training", peak_bytes=3 * 2**30)
    jobs.advance(store, slots=0)
    assert "Memory ran out: it had taken 3.0 GiB" in (store.get(run_id).error or "")


def test_the_queue_waits_while_too_little_is_free(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "start", lambda *_, **__: True)
    memory_is(monkeypatch, 10 * NEEDED, NEEDED - 1)
    run_id = jobs.start_run(store, NETWORK, TRAIN, "shapes")
    assert "waits for memory" in (admission.waits_for_memory(store.get(run_id), []) or "")
    assert store.get(run_id).worker is None
    memory_is(monkeypatch, 10 * NEEDED, 2 * NEEDED - 1)
    second = jobs.start_run(store, NETWORK, TRAIN, "shapes")
    assert store.get(run_id).worker is not None
    assert store.get(second).worker is None, "the first has still to take its memory"


def test_places_and_expected_starts(store: RunStore) -> None:
    ids = [store.create(NETWORK, TRAIN, "shapes") for _ in range(5)]
    for run_id in ids[:2]:
        store.claim(run_id, WorkerId("here", 1))
    places = admission.places(store.list_runs(), 2)
    assert [places[run_id].ahead for run_id in ids[2:]] == [0, 1, 2]
    first, second, third = (places[run_id].seconds or 0.0 for run_id in ids[2:])
    assert 0 < first == second < third
    assert third == pytest.approx(2 * first)
    assert admission.places(store.list_runs(), 3)[ids[2]].seconds == 0
    assert admission.places(store.list_runs(), 0)[ids[2]].seconds is None


def test_what_another_thread_has_just_started_takes_memory_too(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "start", lambda *_, **__: True)
    monkeypatch.setattr(jobs, "try_advance", lambda *_, **__: None)
    memory_is(monkeypatch, 10 * NEEDED, 2 * NEEDED - 1)
    first, second = (jobs.start_run(store, NETWORK, TRAIN, "shapes") for _ in range(2))
    following = store.next_waiting

    def overtaken() -> Run | None:
        if store.get(first).worker is None:
            assert store.reserve(9, processes.this_host()) == first
        return following()

    monkeypatch.setattr(store, "next_waiting", overtaken)
    jobs.advance(store, slots=2)
    assert store.get(second).worker is None


@pytest.mark.parametrize("ran_out", [True, False])
def test_a_worker_killed_for_memory_is_told_from_one_that_was_killed(
    store: RunStore, ran_out: bool
) -> None:
    run_id = store.create(NETWORK, TRAIN, "shapes")
    attempt = store.claim(run_id, WorkerId(processes.this_host(), 2**22))
    store.note(run_id, attempt, peak_bytes=3 * 2**30)
    supervisor._bury(store, store.get(run_id), -signal.SIGKILL, memory_ran_out=ran_out)
    run = store.get(run_id)
    assert run.state == "interrupted"
    said = "Memory ran out: it had taken 3.0 GiB" if ran_out else "by someone or because memory"
    assert said in (run.error or "")


def test_limits_and_kills_of_both_kinds_of_control_groups(tmp_path: Path) -> None:
    for folder, names in (
        (tmp_path / "memory" / "box", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
        (tmp_path / "box", ("memory.max", "memory.current")),
    ):
        folder.mkdir(parents=True)
        for name, value in zip(names, (1000, 400), strict=True):
            (folder / name).write_text(f"{value}\n")
        (folder / "memory.stat").write_text("inactive_file 100\n")
    for groups in ("4:memory:/box\n", "0::/box\n"):
        assert process_memory.group_limit(tmp_path, groups) == (1000, 300)
    (tmp_path / "cpu" / "box").mkdir(parents=True)
    (tmp_path / "cpu" / "box" / "cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu" / "box" / "cpu.cfs_period_us").write_text("100000\n")
    assert process_memory.group_cores(tmp_path, "5:cpu,cpuacct:/box\n") == 1.5
    (tmp_path / "cpu" / "box" / "cpu.cfs_quota_us").write_text("-1\n")
    assert process_memory.group_cores(tmp_path, "5:cpu,cpuacct:/box\n") is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert process_memory.group_cores(tmp_path, "0::/box\n") is None
    (tmp_path / "box" / "cpu.max").write_text("200000 100000\n")
    assert process_memory.group_cores(tmp_path, "0::/box\n") == 2
    before = process_memory.memory_kills(tmp_path, "0::/box\n")
    (tmp_path / "box" / "memory.events").write_text("oom 3\noom_kill 2\n")
    assert process_memory.memory_kills(tmp_path, "0::/box\n") >= before + 2
