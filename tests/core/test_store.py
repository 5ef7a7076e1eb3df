"""The run store: a run's life, incremental reading, claims, and every way a database can fail."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from nin_core import PRESETS, database, migrations, run_lifecycle, tables
from nin_core import store as store_module
from nin_core.machine import PROJECT
from nin_core.pins import Pins
from nin_core.processes import this_worker
from nin_core.recipes import RECIPES
from nin_core.records import (
    STATES,
    TRANSITIONS,
    Checkpoint,
    ClaimLost,
    MetricRow,
    RunNotFound,
    StateError,
    WorkerId,
)
from nin_core.run_rows import update_run
from nin_core.store import RunStore, StoreError
from tests.conftest import databases, on_database


@pytest.fixture(params=databases())
def store(request: pytest.FixtureRequest) -> RunStore:
    """Empty, and the default one; every test that takes it runs on each database."""
    return on_database(request.param, request)


# What only SQLite has: a file.
in_a_file = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

NETWORK = PRESETS["nin-slim-128"]
TRAIN = RECIPES["fast"].configure(NETWORK)
WORKER = WorkerId("here/1", 4711, "99")


def new_run(store: RunStore, **changes) -> int:
    return store.create(NETWORK, TRAIN, "shapes", **changes)


def running(store: RunStore) -> tuple[int, int]:
    run_id = new_run(store)
    attempt = store.claim(run_id, WORKER)
    assert attempt is not None
    return run_id, attempt


def step_row(step: int, **values) -> MetricRow:
    return MetricRow("step", 1, step, step / 10, **{"train_loss": 2.0, **values})


# --- a run's life -----------------------------------------------------------------------------


def test_a_new_run_is_queued_and_comes_back_whole(store):
    run = store.get(new_run(store))
    assert (run.state, run.desired_state, run.attempt) == ("queued", "running", 0)
    assert run.name == "nin-slim-128 · fast · seed 0"
    assert run.network == NETWORK
    assert run.train == TRAIN
    assert run.problem is None
    assert (run.progress, run.seconds_left, run.worker) == (0.0, None, None)
    assert run.created_at.tzinfo is UTC
    assert abs(datetime.now(UTC) - run.created_at) < timedelta(minutes=1)


def test_a_network_of_ones_own_is_named_by_its_widths(store):
    network = NETWORK.with_widths((8, 16, 32))
    run_id = store.create(network, RECIPES["fast"].configure(network), "shapes")
    assert store.get(run_id).name == "NiN 8-16-32 @ 128 px · fast · seed 0"


def test_runs_of_one_recipe_are_named_by_what_tells_them_apart(store):
    run_id = store.create(NETWORK, TRAIN.varied(learning_rate=10, batch_size=16, seed=3), "shapes")
    assert store.get(run_id).name == "nin-slim-128 · fast · rate 10 · batch 16 · seed 3"


def test_from_claim_to_the_end(store):
    run_id, attempt = running(store)
    run = store.get(run_id)
    assert (run.state, run.attempt, run.worker) == ("running", 1, WORKER)
    assert run.started_at is not None
    store.note(run_id, attempt, phase="training", threads=1, device="cpu", total_steps=100)
    store.add_metrics(run_id, [step_row(25)], attempt=attempt)
    run = store.get(run_id)
    assert (run.phase, run.threads, run.device, run.progress) == ("training", 1, "cpu", 0.25)
    assert run.seconds_left == pytest.approx(7.5)
    # Its 25 steps of 64 took 2.5 s, the last ones 0.02 s each: the start does not come again.
    begun = replace(run, examples_per_second=3200.0)
    assert TRAIN.batch_size == 64
    assert begun.seconds_left == pytest.approx(75 * (0.1 + 0.8 * (0.02 - 0.1)))
    settled = replace(begun, step=2500, total_steps=10_000, seconds=250.0)
    assert settled.seconds_left == pytest.approx(7500 * 0.1, rel=0.05)
    store.transition(
        run_id,
        "finished",
        attempt=attempt,
        rows=[MetricRow("epoch", 1, 100, 10.0, 0.5, 0.8, 0.6, 0.75, 1000, 0.1, 3000.0)],
        checkpoint=Checkpoint(100, 1, b"weights", {"threads": 1}),
        phase="measuring",
    )
    run = store.get(run_id)
    assert (run.state, run.phase, run.step, run.test_accuracy) == (
        "finished",
        "measuring",
        100,
        0.75,
    )
    assert run.ended_at is not None
    assert run.has_checkpoint
    assert not run.has_evaluation
    store.release(run_id, attempt, log="all went well")
    run = store.get(run_id)
    assert (run.phase, run.worker) == (None, None)
    assert store.log(run_id) == "all went well"


@pytest.mark.parametrize("source", STATES)
@pytest.mark.parametrize("target", STATES)
def test_only_the_transitions_of_the_table_happen(store, source, target):
    run_id = new_run(store)
    with store._write() as connection:
        update_run(connection, run_id, {"state": source})
    if target in TRANSITIONS[source]:
        store.transition(run_id, target)
        assert store.get(run_id).state == target
    else:
        with pytest.raises(StateError, match=f"is {source}"):
            store.transition(run_id, target)
        assert store.get(run_id).state == source


def test_a_forbidden_transition_writes_nothing_at_all(store):
    run_id, attempt = running(store)
    store.transition(run_id, "finished", attempt=attempt)
    with pytest.raises(StoreError):
        store.transition(run_id, "failed", rows=[step_row(3)], checkpoint=Checkpoint(1, 1, b"x"))
    assert store.metrics(run_id) == []
    assert store.load_checkpoint(run_id) is None


def test_stop_before_training_is_immediate_and_later_a_wish(store):
    waiting = new_run(store)
    assert store.request(waiting, "stopped") == "stopped"
    assert store.claim(waiting, WORKER) is None
    loading, attempt = running(store)
    store.note(loading, attempt, phase="loading PyTorch")
    assert store.request(loading, "stopped") == "stopped"
    with pytest.raises(ClaimLost):
        store.add_metrics(loading, [step_row(1)], attempt=attempt)
    training, attempt = running(store)
    store.note(training, attempt, phase="training")
    assert store.request(training, "stopped") == "running"
    assert store.get(training).desired_state == "stopped"
    assert store.signal(training, attempt) == ("running", "stopped", None, 2)
    asked = store.get(training).desired_at
    store.request(training, "stopped")
    assert store.get(training).desired_at == asked  # asking twice does not start the clock again
    store.transition(training, "stopped", attempt=attempt)
    assert store.request(training, "stopped") == "stopped"


def test_a_resumed_run_is_back_at_its_checkpoint(store):
    run_id = store.create(NETWORK, TRAIN, "shapes")
    attempt = store.claim(run_id, WORKER)
    rows = [
        MetricRow("step", 1, 10, 1.0, 2.0, 0.1, 2.1, 0.2, 100),
        MetricRow("step", 1, 20, 2.0, 1.5, 0.3),
        MetricRow("epoch", 1, 20, 2.5, 1.7, 0.2, 1.4, 0.4, 1000),
        MetricRow("step", 2, 30, 3.0, 1.0, 0.5),
    ]
    info = {"event_due": False, "epoch_ended": False}
    store.add_metrics(run_id, rows[:2], attempt=attempt)
    store.add_metrics(run_id, rows[2:], attempt=attempt, checkpoint=Checkpoint(20, 1, b"w", info))
    with pytest.raises(StateError, match="is running: only a run that is failed, interrupted"):
        store.resume(run_id)
    assert store.lose(store.get(run_id), "Its worker was killed.")
    store.resume(run_id)
    run = store.get(run_id)
    assert (run.state, run.desired_state, run.error) == ("queued", "running", None)
    # The checkpoint was taken before the epoch's test: that comes again.
    assert [(row.kind, row.step) for row in store.metrics(run_id)] == [("step", 10), ("step", 20)]
    assert (run.step, run.train_loss, run.test_accuracy) == (20, 1.5, 0.2)
    with pytest.raises(ClaimLost):
        store.heartbeat(run_id, attempt)
    assert store.claim(run_id, WORKER) == attempt + 1


def test_a_run_that_left_in_the_first_step_of_an_epoch_keeps_the_point_of_the_one_before(store):
    run_id, attempt = running(store)
    rows = [step_row(20), MetricRow("epoch", 1, 20, 2.5, 1.7, 0.2, 1.4, 0.4, 1000)]
    info = {"event_due": False, "epoch_ended": False}
    checkpoint = Checkpoint(20, 2, b"w", info)
    store.transition(run_id, "paused", attempt=attempt, rows=rows, checkpoint=checkpoint)
    store.release(run_id, attempt)
    store.resume(run_id)
    assert [row.kind for row in store.metrics(run_id)] == ["step", "epoch"]
    assert store.get(run_id).test_accuracy == 0.4


def test_without_a_checkpoint_a_resumed_run_begins_anew(store):
    run_id = store.create(NETWORK, TRAIN, "shapes")
    attempt = store.claim(run_id, WORKER)
    store.add_metrics(run_id, [MetricRow("step", 1, 10, 1.0, 2.0, 0.1)], attempt=attempt)
    store.transition(run_id, "failed", attempt=attempt, error="Memory ran out.")
    with pytest.raises(StateError, match="try again in a moment"):
        store.resume(run_id)  # its process has not ended
    store.release(run_id, attempt)
    store.resume(run_id)
    run = store.get(run_id)
    assert store.metrics(run_id) == []
    assert (run.step, run.train_loss, run.seconds) == (0, None, 0.0)


def test_a_sleeping_worker_takes_its_run_back_but_not_from_another(store):
    run_id, attempt = running(store)
    assert store.lose(store.get(run_id), "It was silent.")
    run = store.get(run_id)
    assert (run.state, run.error, run.worker) == ("interrupted", "It was silent.", None)
    store.add_metrics(run_id, [step_row(5)], attempt=attempt)
    run = store.get(run_id)
    assert (run.state, run.error, run.step) == ("running", None, 5)
    assert run.worker == this_worker(), "whoever takes it back is on it again"
    with store._write() as connection:  # as if claimed again meanwhile
        update_run(connection, run_id, {"attempt": attempt + 1})
    for write in (
        lambda: store.heartbeat(run_id, attempt),
        lambda: store.add_metrics(run_id, [step_row(6)], attempt=attempt),
        lambda: store.note(run_id, attempt, phase="x"),
        lambda: store.signal(run_id, attempt),
        lambda: store.transition(run_id, "finished", attempt=attempt),
        lambda: store.save_evaluation(run_id, b"", images=0, classes=2, attempt=attempt),
    ):
        with pytest.raises(ClaimLost):
            write()
    store.release(run_id, attempt)
    assert len(store.metrics(run_id)) == 1


def test_names_are_cleaned_and_bounded(store):
    run_id = new_run(store, name="  two\n\x00 words ")
    assert store.get(run_id).name == "two words"
    store.rename(run_id, "ünïcode 🎈")
    assert store.get(run_id).name == "ünïcode 🎈"
    for bad in ("", "  \n", "x" * 101):
        with pytest.raises(StoreError, match="1 to 100 characters"):
            store.rename(run_id, bad)
    with pytest.raises(RunNotFound):
        store.rename(999, "x")


def test_delete_takes_everything_and_not_a_run_at_work(store):
    run_id, attempt = running(store)
    store.add_metrics(run_id, [step_row(1)], attempt=attempt)
    store.save_checkpoint(run_id, 1, 1, b"w")
    store.save_evaluation(run_id, b"\0\0", images=1, classes=1)
    with pytest.raises(StateError, match="stop it"):
        store.delete(run_id)
    store.transition(run_id, "failed", attempt=attempt, error="x")
    store.delete(run_id)
    with pytest.raises(RunNotFound, match=f"#{run_id}"):
        store.get(run_id)
    with store.database.read() as connection:
        for table in ("metrics", "checkpoints", "evaluations"):
            assert connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) == 0
    assert new_run(store) > run_id  # its number is not given again


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.get(7),
        lambda s: s.log(7),
        lambda s: s.delete(7),
        lambda s: s.claim(7, WORKER),
        lambda s: s.request(7, "stopped"),
        lambda s: s.transition(7, "failed"),
        lambda s: s.add_metrics(7, [step_row(1)]),
        lambda s: s.add_metrics(7, []),
        lambda s: s.note(7, phase="x"),
        lambda s: s.save_checkpoint(7, 1, 1, b""),
        lambda s: s.save_evaluation(7, b"", images=0, classes=2),
    ],
)
def test_an_unknown_run_is_said_to_be_unknown(store, call):
    with pytest.raises(RunNotFound, match="no run #7"):
        call(store)


# --- metrics, weights, evaluations ------------------------------------------------------------


def test_metrics_are_read_on_from_where_one_was(store):
    first, second = new_run(store), new_run(store)
    store.add_metrics(first, [step_row(1), step_row(2, test_loss=1.0, test_accuracy=0.5)])
    store.add_metrics(second, [step_row(1)])
    rows = store.metrics(first)
    assert [row.step for row in rows] == [1, 2]
    assert rows[1].test_accuracy == 0.5
    store.add_metrics(first, [step_row(3)])
    assert [row.step for row in store.metrics(first, after_id=rows[-1].id)] == [3]
    assert store.metrics(first, after_id=10**9) == []
    assert store.metrics(999) == []
    run = store.get(first)
    assert (run.step, run.test_accuracy) == (3, 0.5)  # the latest test stays


def test_figures_that_are_not_finite_become_none(store):
    run_id = new_run(store)
    bad = MetricRow("step", 1, 1, 0.1, float("nan"), 0.1, float("inf"), 0.1, 10, 0.1, 5.0)
    store.add_metrics(run_id, [bad])
    (row,) = store.metrics(run_id)
    assert (row.train_loss, row.test_loss, row.train_accuracy) == (None, None, 0.1)
    assert store.get(run_id).train_loss is None


def test_the_latest_weights_replace_the_earlier(store):
    run_id = new_run(store)
    other = new_run(store)
    assert store.load_checkpoint(run_id) is None
    store.save_checkpoint(run_id, 10, 1, b"old")
    store.save_checkpoint(run_id, 20, 2, os.urandom(300_000), {"threads": 2})
    checkpoint = store.load_checkpoint(run_id)
    assert (checkpoint.step, checkpoint.epoch, len(checkpoint.blob)) == (20, 2, 300_000)
    assert checkpoint.info == {"threads": 2}
    assert checkpoint.created_at.tzinfo is UTC
    assert store.get(run_id).has_checkpoint
    assert not store.get(other).has_checkpoint


def test_an_evaluation_on_more_images_gives_the_runs_test_figures(store):
    run_id = new_run(store)
    store.add_metrics(run_id, [step_row(1, test_loss=1.0, test_accuracy=0.5, test_examples=100)])
    store.save_evaluation(run_id, b"few", images=50, classes=10, loss=0.9, accuracy=0.6)
    assert store.get(run_id).test_accuracy == 0.5
    store.save_evaluation(run_id, b"all", images=1000, classes=10, loss=0.8, accuracy=0.7, step=4)
    run, evaluation = store.get(run_id), store.load_evaluation(run_id)
    assert (run.test_accuracy, run.test_examples, run.has_evaluation) == (0.7, 1000, True)
    assert (evaluation.logits, evaluation.images, evaluation.step) == (b"all", 1000, 4)
    assert store.load_evaluation(new_run(store)) is None


def test_what_was_measured_stays_until_there_are_other_weights(store):
    """To press Train on, and Stop while it waits, takes no results away."""
    run_id, attempt = running(store)
    store.add_metrics(
        run_id,
        [step_row(4, test_loss=1.0, test_accuracy=0.5, test_examples=100)],
        attempt=attempt,
        checkpoint=Checkpoint(4, 1, b"w"),
    )
    store.transition(run_id, "finished", attempt=attempt, diagnosis="It sleeps.")
    store.save_evaluation(run_id, b"all", images=1000, classes=10, loss=0.8, accuracy=0.7, step=4)
    store.release(run_id, attempt)
    store.extend(run_id, 1)
    assert store.request(run_id, "stopped") == "stopped"
    run = store.get(run_id)
    assert (run.test_accuracy, run.test_examples, run.evaluated_images) == (0.7, 1000, 1000)
    assert (run.state, run.diagnosis) == ("stopped", "It sleeps.")
    store.resume(run_id)
    attempt = store.claim(run_id, WORKER)
    assert (store.get(run_id).has_evaluation, store.get(run_id).diagnosis) == (True, None)
    store.add_metrics(run_id, [step_row(5)], attempt=attempt, checkpoint=Checkpoint(5, 1, b"x"))
    assert not store.get(run_id).has_evaluation


def test_the_list_is_newest_first_and_reads_no_blobs(store):
    ids = [new_run(store) for _ in range(5)]
    store.save_checkpoint(ids[0], 1, 1, b"w")
    seen: list[str] = []
    sa.event.listen(
        store._database._engine,
        "before_cursor_execute",
        lambda conn, cursor, statement, *rest: seen.append(statement),
    )
    assert [run.id for run in store.list_runs()] == ids[::-1]
    assert [run.id for run in store.list_runs(limit=2)] == ids[:2:-1]
    assert [run.id for run in store.list_runs(states=["running"])] == []
    assert not any("blob" in s or "runs.log" in s for s in seen)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("network", "{not json"),
        ("network", "[]"),
        ("network", '{"in_channels": 1, "hologram": true}'),
        ("train", "null"),
        ("train", '{"recipe": "from the future"}'),
    ],
)
def test_a_run_of_another_version_does_not_break_the_list(store, column, text):
    strange, normal = new_run(store), new_run(store)
    with store.database.write() as connection:
        update_run(connection, strange, {column: text})
    good, bad = store.list_runs()
    assert (good.id, good.problem) == (normal, None)
    assert getattr(bad, column) is None
    assert bad.problem.startswith("This version cannot read the run's")


# --- the queue --------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 1])
def test_signs_of_life_go_by_the_databases_clock(store, monkeypatch, hours):
    """Those of two computers on one database may differ by more than a worker may be silent."""

    def wrong() -> datetime:
        return datetime.now(UTC) + timedelta(hours=hours)

    for module in (run_lifecycle, store_module):
        monkeypatch.setattr(module, "now", wrong)
    reserved = store.create_at_work(NETWORK, TRAIN, "shapes", None, WORKER, slots=1)
    imported = store.create_finished(
        NETWORK, TRAIN, "shapes", "imported", Checkpoint(0, 0, b"w"), WORKER
    )
    store.still_measuring(*imported)
    run_id, attempt = running(store)
    store.add_metrics(run_id, [MetricRow("step", 1, 1, 0.1)], attempt=attempt)
    store.note(run_id, attempt, phase="training")
    store.request(run_id, "paused")
    busy, _ = store.work()
    assert {run.id for run in busy} == {reserved, imported[0], run_id}
    assert all(abs(run.silent) < 600 for run in busy)
    run = store.get(run_id)
    assert abs((run.read_at - run.desired_at).total_seconds()) < 600


def test_a_worker_that_measures_says_so_without_waking_its_run(store):
    run_id, attempt = running(store)
    store.transition(run_id, "finished", attempt=attempt, phase="measuring the test set")
    with store.database.write() as connection:
        update_run(connection, run_id, {"heartbeat_at": datetime(2020, 1, 1, tzinfo=UTC)})
    store.still_measuring(run_id, attempt + 1)  # not its worker
    assert store.get(run_id).heartbeat_at.year == 2020
    store.still_measuring(run_id, attempt)
    run = store.get(run_id)
    assert (run.state, run.phase) == ("finished", "measuring the test set")
    assert run.heartbeat_at.year > 2020


def test_runs_are_reserved_in_order_while_there_are_slots(store):
    ids = [new_run(store) for _ in range(4)]
    assert [store.reserve(2, "h") for _ in range(3)] == [ids[0], ids[1], None]
    busy, waiting = store.work()
    assert ([run.id for run in busy], waiting) == (ids[:2], 2)
    attempt = store.claim(ids[0], WorkerId("h", 1))
    store.transition(ids[0], "finished", attempt=attempt, phase="measuring")
    assert store.reserve(2, "h") is None  # it still measures
    store.release(ids[0], attempt)
    assert store.reserve(2, "h") == ids[2]
    assert store.reserve(2, "another computer") == ids[3], "it has slots of its own"


def test_a_device_is_one_runs_until_its_worker_has_gone(store):
    first, second, third, elsewhere = (new_run(store) for _ in range(4))
    devices = ["cuda:0", "cuda:1"]

    def take(run_id: int, host: str = "h") -> str:
        attempt = store.claim(run_id, WorkerId(host, run_id))
        return store.take_device(run_id, attempt, devices)

    assert [take(first), take(second), take(elsewhere, "another")] == ["cuda:0", "cuda:1", "cuda:0"]
    with pytest.raises(ClaimLost):
        store.take_device(first, 7, devices)
    store.release(first, 1)
    assert take(third) == "cuda:0"
    assert store.get(third).device == "cuda:0"


def test_a_worker_knows_how_many_share_its_computer(store):
    ids = [new_run(store) for _ in range(3)]
    hosts = ("h", "h", "another")
    for run_id, host in zip(ids, hosts, strict=True):
        store.claim(run_id, WorkerId(host, run_id))
    assert [store.signal(run_id, 1).sharing for run_id in ids] == [2, 2, 1]
    store.transition(ids[0], "finished", attempt=1, phase="measuring")
    assert store.signal(ids[1], 1).sharing == 2  # its worker still measures
    store.release(ids[0], 1)
    assert store.signal(ids[1], 1).sharing == 1


def test_a_run_made_for_this_process_is_not_given_away(store):
    mine = store.create_at_work(NETWORK, TRAIN, "shapes", None, WORKER, slots=99)
    assert store.reserve(8, "h") is None
    assert store.claim(mine, WORKER) == 1


def test_a_worker_that_never_began_fails_its_run_or_lets_it_wait(store):
    run_id = new_run(store)
    store.reserve(1, "h")
    assert store.lose(store.get(run_id), "No luck.", retry=True)
    assert store.get(run_id).state == "queued"
    store.reserve(1, "h")
    store.assign(run_id, WorkerId("h", 5, "1"))
    run = store.get(run_id)
    assert (run.worker, run.spawns) == (WorkerId("h", 5, "1"), 2)
    assert store.lose(run, "Gone.", "the log")
    assert (store.get(run_id).state, store.log(run_id)) == ("failed", "the log")
    assert not store.lose(run, "Again.")


def test_losing_a_worker_does_not_hit_its_successor(store):
    run_id = new_run(store)
    store.reserve(1, "h")
    before = store.get(run_id)
    store.claim(run_id, WORKER)
    assert not store.lose(before, "Gone.")
    assert store.get(run_id).state == "running"


# Not multiprocessing: its children begin with the parent's main module, which Streamlit's test
# runner, earlier in the same session, has replaced by the dashboard.
_CLAIM = """
import os, sys
from nin_core.records import WorkerId
from nin_core.store import RunStore
store = RunStore()
print("ready", flush=True)
sys.stdin.readline()
print(store.claim(int(sys.argv[1]), WorkerId("h", os.getpid())))
"""


def test_of_many_claimers_one_wins(store):
    run_id = new_run(store)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CLAIM, str(run_id)],
            cwd=PROJECT,
            env={**os.environ, "NIN_DATABASE_URL": store.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    found = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert sorted(found) == ["1", "None", "None"]
    assert store.get(run_id).attempt == 1


def test_threads_write_at_once_and_nothing_is_lost(store):
    ids = [new_run(store) for _ in range(8)]

    def work(run_id: int) -> None:
        for step in range(20):
            store.add_metrics(run_id, [step_row(step)])
            store.list_runs()

    threads = [threading.Thread(target=work, args=(run_id,)) for run_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(store.metrics(run_id)) == 20 for run_id in ids)


# --- opening, and what can go wrong -----------------------------------------------------------


def fails(call, reason: str) -> str:
    """The sentence with which `call` fails for that reason."""
    with pytest.raises(StoreError) as caught:
        call()
    assert caught.value.reason == reason, str(caught.value)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_the_file_and_its_folder_are_made_in_wal_mode(tmp_path):
    store = RunStore(f"sqlite:///{tmp_path}/a b/ü?.db".replace("?", "%3F"))
    assert store.path.is_file()
    new_run(store)
    with sqlite3.connect(store.path) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert len(RunStore(store.url, create=False).list_runs()) == 1


def test_the_url_is_made_absolute_for_workers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = RunStore("sqlite:///here.db")
    assert store.url == f"sqlite:///{tmp_path}/here.db"


def test_the_default_is_the_environments(tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_DATABASE_URL", f"sqlite:///{tmp_path}/env.db")
    assert RunStore().path == tmp_path / "env.db"
    monkeypatch.delenv("NIN_DATABASE_URL")
    monkeypatch.setattr(store_module, "PROJECT", tmp_path / "project")
    assert RunStore().path == tmp_path / "project" / "runs" / "nin-explorer.db"


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite://", "sqlite:///:memory:", "mongodb://x", "sqlite+nodriver:///x"]
)
def test_an_address_that_cannot_be_is_refused(url):
    fails(lambda: RunStore(url), "refused")


def test_passwords_do_not_show():
    with pytest.raises(StoreError) as caught:
        RunStore("postgresql+psycopg://me:hush@127.0.0.1:1/nin")
    assert "hush" not in str(caught.value)


def test_a_missing_file_is_not_made_for_a_worker(tmp_path):
    url = f"sqlite:///{tmp_path}/none.db"
    assert "does not exist" in fails(lambda: RunStore(url, create=False), "missing")
    assert not (tmp_path / "none.db").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    fails(lambda: RunStore(f"sqlite:///{tmp_path}/file/runs.db"), "unreachable")
    fails(lambda: RunStore(f"sqlite:///{tmp_path}"), "unreachable")


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "runs.db"
    path.write_text("Dear diary, " * 1000)
    sentence = fails(lambda: RunStore(f"sqlite:///{path}"), "damaged")
    assert str(path) in sentence
    assert path.read_text().startswith("Dear diary")


@in_a_file
def test_a_damaged_database_says_so_while_in_use(store):
    run_id = new_run(store)
    store.save_checkpoint(run_id, 1, 1, os.urandom(400_000))
    store.close()
    size = store.path.stat().st_size
    with store.path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    fails(lambda: RunStore(store.url).list_runs(), "damaged")


@in_a_file
def test_a_database_damaged_under_an_open_connection_says_so_when_it_is_written(store):
    """The driver's own error, which is not the one of a database that is busy."""
    run_id, attempt = running(store)
    with sqlite3.connect(store.path) as raw:
        raw.execute("UPDATE runs SET name = 'other'")  # what the connection remembers is old now
        raw.commit()
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with store.path.open("r+b") as file:
        file.write(b"Dear diary, " * 400)
    fails(lambda: new_run(store), "damaged")
    fails(lambda: store.heartbeat(run_id, attempt), "damaged")


def test_a_claim_whose_answer_was_lost_is_answered_again(store):
    run_id = new_run(store)
    attempt = store.claim(run_id, WORKER)
    assert store.claim(run_id, WORKER) == attempt
    assert store.claim(run_id, replace(WORKER, mark="the same number later")) is None
    store.transition(run_id, "finished", attempt=attempt)
    assert store.claim(run_id, WORKER) is None


def test_a_rate_asked_for_in_the_last_test_is_not_used_later(store):
    run_id, attempt = running(store)
    store.change_rate(run_id, 0.01)
    store.transition(run_id, "finished", attempt=attempt)
    assert store.get(run_id).desired_rate is None


def test_a_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE runs (distance REAL)")
    assert "another program" in fails(lambda: RunStore(f"sqlite:///{path}"), "schema")
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]


def contents(store: RunStore) -> dict[str, list[tuple]]:
    """All rows of all tables."""
    with store.database.read() as connection:
        names = sa.inspect(connection).get_table_names()
        every = {n: connection.execute(sa.text(f"SELECT * FROM {n}")) for n in names}
        return {name: [tuple(row) for row in rows] for name, rows in every.items()}


def empty_url(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """Where there is a database of this kind without any tables, or can be."""
    if kind == "postgresql":
        return request.getfixturevalue("postgresql")(with_tables=False)
    return f"sqlite:///{folder}/new.db"


@pytest.mark.parametrize(("version", "word"), [("9999", "a newer"), ("0", "an older")])
def test_another_schema_is_refused_and_not_touched(store, version, word):
    new_run(store)
    with store.database.write() as connection:
        revise = f"UPDATE {migrations.VERSION_TABLE} SET version_num = '{version}'"
        connection.execute(sa.text(revise))
    before = contents(store)
    assert word in fails(lambda: RunStore(store.url), "schema")
    assert contents(store) == before


@pytest.mark.parametrize(("version", "word"), [(99, "a newer"), (0, "an older")])
def test_so_is_one_from_before_alembic_with_a_number_unknown(store, version, word):
    with store.database.write() as connection:
        connection.execute(sa.text(f"DROP TABLE {migrations.VERSION_TABLE}"))
        connection.execute(sa.text(f"UPDATE nin_schema SET version = {version}"))
    before = contents(store)
    assert word in fails(lambda: RunStore(store.url), "schema")
    assert contents(store) == before


@pytest.mark.parametrize("kind", databases())
def test_the_steps_make_the_tables_that_the_store_uses(kind, request, tmp_path):
    """Alembic's own comparison, of a store that was made by all steps with the declarations."""
    store = RunStore(empty_url(kind, request, tmp_path))
    with store.database.read() as connection:
        settings = {"version_table": migrations.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=settings)
        left = compare_metadata(context, tables.METADATA)
        found = {(change[0], change[1].name) for change in left if isinstance(change, tuple)}
        assert found == {("remove_table", migrations.NUMBERED_TABLE)}
        assert len(left) == 1
        assert context.get_current_revision() == tables.SCHEMA
    store.close()
    folder = str(Path(migrations.__file__).parent)
    assert ScriptDirectory(folder).get_current_head() == tables.SCHEMA


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A store as the version before Alembic left it: two runs, metrics, weights, a pin."""
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as raw:
        raw.executescript((Path(__file__).parent / "store-before-alembic.sql").read_text())
    raw.close()
    return path


def test_a_store_from_before_alembic_is_brought_up_and_loses_nothing(old_file):
    def rows(path: Path) -> dict[str, list[dict]]:
        with sqlite3.connect(path) as raw:
            raw.row_factory = sqlite3.Row
            names = [n for (n,) in raw.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            return {n: [dict(row) for row in raw.execute(f"SELECT * FROM {n}")] for n in names}

    before = rows(old_file)
    store = RunStore(f"sqlite:///{old_file}")
    after = rows(old_file)
    assert after.pop(migrations.VERSION_TABLE) == [{"version_num": tables.SCHEMA}]
    # A program from before Alembic reads this, and refuses.
    assert (before.pop("nin_schema"), after.pop("nin_schema")) == (
        [{"version": 1}],
        [{"version": int(tables.SCHEMA)}],
    )
    # What later versions added is empty; the pins, which not every old store has, are as they were.
    assert after.pop("snapshots") == []
    assert set(after) == set(before)
    for name, old_rows in before.items():
        for old, new in zip(old_rows, after[name], strict=True):
            assert {column: new.pop(column) for column in old} == old
            assert set(new.values()) <= {None}
    finished, waiting = store.get(1), store.get(2)
    assert (finished.state, finished.problem, finished.has_checkpoint) == ("finished", None, True)
    assert finished.network == NETWORK
    assert [row.step for row in store.metrics(1)] == [1, 2]
    assert store.load_checkpoint(1).blob == b"weights"
    assert Pins(store.database).all()[0].name == "slim"
    assert store.claim(waiting.id, WORKER) == 1
    assert new_run(store) == 3


def test_a_step_that_fails_leaves_the_store_as_it_was(old_file, monkeypatch):
    before = old_file.read_bytes()

    def broken(connection: sa.Connection, **_: object) -> None:
        connection.execute(sa.text("DROP TABLE metrics"))
        connection.execute(sa.text("SELECT nonsense"))

    monkeypatch.setattr(migrations, "upgrade", broken)
    with pytest.raises(StoreError, match="nonsense"):
        RunStore(f"sqlite:///{old_file}")
    with sqlite3.connect(old_file) as raw:
        assert raw.execute("SELECT count(*) FROM metrics").fetchone() == (2,)
        assert raw.execute("SELECT version FROM nin_schema").fetchall() == [(1,)]
    raw.close()
    assert len(old_file.read_bytes()) == len(before)


_OPEN = """
import sys
from nin_core.store import RunStore
print("ready", flush=True)
sys.stdin.readline()
print(len(RunStore(sys.argv[1]).list_runs()))
"""


def open_at_once(url: str, count: int = 3) -> list[str]:
    """What so many processes say that open the store at the same moment."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN, url],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].strip() for process in processes]


@pytest.mark.parametrize("kind", databases())
def test_processes_that_open_a_new_store_at_once_make_it_once(kind, request, tmp_path):
    url = empty_url(kind, request, tmp_path)
    assert open_at_once(url) == ["0", "0", "0"]
    store = RunStore(url)
    assert new_run(store) == 1
    store.close()


def test_processes_that_open_an_old_store_at_once_bring_it_up_once(old_file):
    assert open_at_once(f"sqlite:///{old_file}") == ["2", "2", "2"]


def test_a_database_server_that_is_not_there_or_has_no_such_database(request):
    fails(lambda: RunStore("postgresql+psycopg://me@127.0.0.1:1/nin"), "unreachable")
    if "postgresql" in databases():
        url = request.getfixturevalue("postgresql")()
        fails(lambda: RunStore(url.rpartition("/")[0] + "/nowhere"), "missing")
        fails(lambda: RunStore(url.replace("+psycopg", "")), "refused")


def test_a_run_that_another_transaction_holds(request, monkeypatch):
    """On PostgreSQL writers wait for rows, as on SQLite for the whole file."""
    if "postgresql" not in databases():
        return
    monkeypatch.setattr(database, "BUSY_SECONDS", 1.0)
    store = on_database("postgresql", request)
    run_id, other = new_run(store), RunStore(store.url)
    with other.database.write() as connection:
        update_run(connection, run_id, {"phase": "held"})
        fails(lambda: store.rename(run_id, "new"), "locked")
        assert store.get(run_id).state == "queued"  # reading goes on
    other.close()
    store.rename(run_id, "new")


@in_a_file
def test_a_locked_database(store, monkeypatch):
    run_id = new_run(store)
    store.close()
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        fails(lambda: store.rename(run_id, "new"), "locked")
        assert store.get(run_id).state == "queued"  # reading goes on
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    store.rename(run_id, "new")


@in_a_file
def test_a_store_that_may_not_be_written(store):
    run_id = new_run(store)
    with store._read() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")  # this pooled connection stays so
    fails(lambda: store.rename(run_id, "new"), "readonly")
    assert store.get(run_id).state == "queued"


FULL_DISK = """
import os, resource, sys
from nin_core.store import RunStore, StoreError
store = RunStore()
run_id = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    store.save_checkpoint(run_id, 2, 1, os.urandom(2_000_000))
except StoreError as error:
    print(error.reason)
print(store.load_checkpoint(run_id).blob.decode())
"""


@in_a_file
def test_a_full_disk_keeps_the_last_weights(store):
    """A limit on the size of files fails like a disk that is full."""
    run_id = new_run(store)
    store.save_checkpoint(run_id, 1, 1, b"kept")
    limit = store.path.stat().st_size + 200_000
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(run_id), str(limit)],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
    )
    assert done.stdout.split() == ["full", "kept"]
    assert store.load_checkpoint(run_id).blob == b"kept"
    store.save_checkpoint(run_id, 2, 1, b"space again")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@in_a_file
def test_a_deleted_file_is_noticed(store):
    run_id = new_run(store)
    worker = RunStore(store.url, create=False)
    for name in store.path.parent.glob("runs.db*"):
        name.unlink()
    assert "does not exist" in fails(lambda: worker.heartbeat(run_id, 1), "missing")
    assert store.list_runs() == []  # the page begins a new one
    fails(lambda: worker.heartbeat(run_id, 1), "refused")  # which the worker sees, too


@in_a_file
def test_a_file_put_in_its_place_is_noticed(store, tmp_path):
    new_run(store)
    other = RunStore(f"sqlite:///{tmp_path}/other.db")
    other.close()
    store.list_runs()
    Path(tmp_path / "other.db").replace(store.path)
    for left in ("runs.db-wal", "runs.db-shm"):
        (tmp_path / left).unlink(missing_ok=True)
    assert store.list_runs() == []


def test_importing_the_store_does_not_import_torch():
    code = "import sys, nin_core.store, nin_core.jobs; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=PROJECT,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
