"""Snapshots of a run's weights: bounded, thinned, in half precision, and gone in time."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from safetensors.torch import load
from torch import nn

from nin_core import PRESETS, snapshots, worker
from nin_core.features import load_model, untrained_model
from nin_core.recipes import RECIPES
from nin_core.records import WorkerId
from nin_core.snapshots import (
    MAX_BYTES,
    MOST,
    Recorder,
    Snapshots,
    Taken,
    halved,
    planned,
    room_for,
)
from nin_core.store import RunStore

NETWORK = PRESETS["nin-28"].with_widths((6, 8, 8))
SHORT = RECIPES["fast"].configure(NETWORK, subset=640)


def claimed(store: RunStore) -> tuple[int, int]:
    run_id = store.create(NETWORK, SHORT, dataset="shapes")
    attempt = store.claim(run_id, WorkerId("here", 1))
    assert attempt is not None
    return run_id, attempt


def taken(step: int, numbers: int = 4) -> Taken:
    return Taken(step, 1, {"w": torch.full((numbers,), float(step), dtype=torch.float16)})


def steps(kept: Snapshots, run_id: int) -> list[int]:
    return [snapshot.step for snapshot in kept.all(run_id)]


@pytest.mark.parametrize("count", [2, 3, 15, 39])
@pytest.mark.parametrize("total", [1, 7, 100, 4690, 1_000_000])
def test_the_plan_is_bounded_rises_and_ends_with_the_run(total: int, count: int) -> None:
    plan = planned(total, count)
    assert 1 <= len(plan) <= count
    assert plan == sorted(set(plan))
    assert plan[0] >= 1
    assert plan[-1] == total


def test_the_plan_is_dense_early_and_even_late() -> None:
    plan = planned(4690, 39)
    gaps = [after - before for before, after in pairwise(plan)]
    assert plan[:4] == [1, 2, 3, 4]
    assert max(gaps) - min(gaps[-15:]) <= 1
    assert sorted(gaps[:15]) == gaps[:15]


def test_half_precision_is_exact_to_its_rounding() -> None:
    values = {
        "weight": torch.randn(3, 4, 2, 2).contiguous(memory_format=torch.channels_last),
        "huge": torch.tensor([1e6, 1e-3]),
        "diverged": torch.tensor([float("nan"), float("inf"), 1.0]),
        "count": torch.tensor(100_000),
    }
    copies = halved(values)
    assert copies["weight"].dtype == torch.float16
    assert copies["weight"].is_contiguous()
    assert torch.equal(copies["weight"], values["weight"].half())
    assert torch.equal(copies["huge"], values["huge"])  # float16 ends at 65,504
    assert copies["diverged"].dtype == torch.float16
    assert int(copies["count"]) == 100_000
    values["count"] += 1
    values["huge"] += 1
    assert int(copies["count"]) == 100_000
    assert copies["huge"][0] == 1e6


def test_a_network_that_is_too_large_keeps_none() -> None:
    assert room_for(1000) == MOST
    assert room_for(MAX_BYTES // 10) == 10
    assert room_for(MAX_BYTES // 3) == 0
    model = nn.Linear(100, 100)
    assert Recorder(model, 100).take(0, 1) is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "MAX_BYTES", 30_000)
        assert Recorder(model, 100).take(0, 1) is None


def test_a_recorder_takes_each_due_step_once_and_none_from_before_a_resume() -> None:
    model = nn.Linear(2, 2)
    recorder = Recorder(model, 1000)
    assert [step for step in range(1001) if recorder.take(step, 1)] == [0, *planned(1000, 39)]
    resumed = Recorder(model, 1000, since=500)
    assert resumed.take(500, 1) is None
    later = [step for step in range(501, 1001) if resumed.take(step, 1)]
    assert later == [step for step in planned(1000, 39) if step > 500]


def test_they_are_thinned_in_number_and_in_size(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, attempt = claimed(store)
    kept = Snapshots(store.database)
    assert kept.all(run_id) == []
    for step in range(3 * MOST):
        assert kept.add(run_id, attempt, taken(step))
        assert len(kept.all(run_id)) <= MOST
    found = steps(kept, run_id)
    assert found[0] == 0
    assert found[-1] == 3 * MOST - 1
    monkeypatch.setattr(snapshots, "MAX_BYTES", 10_000)
    for step in range(200, 220):
        kept.add(run_id, attempt, taken(step, 1000))
    assert sum(snapshot.size for snapshot in kept.all(run_id)) <= 10_000
    assert steps(kept, run_id)[-1] == 219
    assert not kept.add(run_id, attempt, taken(300, 5000))  # not even four would fit


def test_one_step_has_one_snapshot_and_only_the_owner_writes(store: RunStore) -> None:
    run_id, attempt = claimed(store)
    kept = Snapshots(store.database)
    kept.add(run_id, attempt, taken(5))
    kept.add(run_id, attempt, Taken(5, 2, {"w": torch.ones(1)}))
    assert [(s.step, s.epoch) for s in kept.all(run_id)] == [(5, 2)]
    assert not kept.add(run_id, attempt + 1, taken(6))
    assert not kept.add(run_id + 1, attempt, taken(6))
    assert steps(kept, run_id) == [5]
    blob = kept.load(run_id, 5)
    assert blob is not None
    assert torch.equal(load(blob)["w"], torch.ones(1))
    assert kept.load(run_id, 6) is None


def test_they_go_with_their_run(store: RunStore) -> None:
    run_id, attempt = claimed(store)
    other, others = claimed(store)
    kept = Snapshots(store.database)
    kept.add(run_id, attempt, taken(1))
    kept.add(other, others, taken(1))
    store.transition(run_id, "stopped", attempt=attempt)
    store.delete(run_id)
    assert kept.all(run_id) == []
    assert steps(kept, other) == [1]


def test_a_resumed_run_has_none_beyond_its_checkpoint(store: RunStore) -> None:
    run_id, attempt = claimed(store)
    kept = Snapshots(store.database)
    for step in (0, 10, 20, 30):
        kept.add(run_id, attempt, taken(step))
    store.save_checkpoint(run_id, 20, 1, b"weights")
    store.transition(run_id, "interrupted", attempt=attempt)
    store.release(run_id, attempt)
    store.resume(run_id)
    assert steps(kept, run_id) == [0, 10, 20]


def test_a_store_without_the_table_still_resumes(store: RunStore) -> None:
    run_id, attempt = claimed(store)
    store.transition(run_id, "interrupted", attempt=attempt)
    store.release(run_id, attempt)
    store.resume(run_id)
    assert store.get(run_id).state == "queued"


def test_a_training_leaves_snapshots_from_its_initial_to_its_final_weights(store: RunStore) -> None:
    run_id, attempt = claimed(store)
    reporter = worker.work_on(store, run_id, attempt)
    assert reporter.state == "finished", reporter.trouble
    run, kept = store.get(run_id), Snapshots(store.database)
    found = steps(kept, run_id)
    assert found[:2] == [0, 1]
    assert found[-1] == run.step == run.total_steps
    checkpoint = store.load_checkpoint(run_id)
    assert checkpoint is not None
    last = load(kept.load(run_id, run.step) or b"")
    whole = load_model(NETWORK, checkpoint.blob).state_dict()
    assert last.keys() == whole.keys()
    assert all(torch.equal(last[name], value.half()) for name, value in whole.items())
    first = load_model(NETWORK, kept.load(run_id, 0) or b"").state_dict()
    assert first.keys() == untrained_model(NETWORK).state_dict().keys()
    assert not torch.equal(first["block1.conv.weight"], whole["block1.conv.weight"])
