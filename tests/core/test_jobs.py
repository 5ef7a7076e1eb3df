"""The queue and its worker processes: real ones on the generated shapes, and every early end."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from nin_core import (
    PRESETS,
    ConfigError,
    admission,
    jobs,
    machine,
    process_memory,
    processes,
    scoring,
    spare,
    supervisor,
    tables,
    training,
    tuning,
    worker,
)
from nin_core import reporter as reporting
from nin_core.evaluation import confusion_matrix, read_logits
from nin_core.jobs import (
    advance,
    extend_run,
    pause_run,
    resume_run,
    start_run,
    stop_run,
)
from nin_core.machine import available_cores
from nin_core.measure import PROCESS_BYTES
from nin_core.processes import is_alive, is_orphaned, this_host, this_worker
from nin_core.recipes import RECIPES
from nin_core.records import Checkpoint, Run, StateError, WorkerId, now
from nin_core.run_lifecycle import WHY_LEFT
from nin_core.run_rows import update_run
from nin_core.store import RunStore, StoreError
from nin_core.supervisor import log_path
from tests.conftest import databases, on_database
from ui import server as ui_server

# Small enough for one thread and a few milliseconds a step.
NETWORK = replace(PRESETS["nin-28"], image_size=16).with_widths((6, 8, 8))
SHORT = RECIPES["fast"].configure(NETWORK, subset=640)
LONG = RECIPES["fast"].configure(NETWORK, epochs=500)


def wait_for(found: Callable[[], Any], what: str, seconds: float = 180) -> Any:
    """Ask until there is an answer; the limit only keeps a broken test from hanging."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain for {what}")
        time.sleep(0.02)
    return answer


def wait_state(store: RunStore, run_id: int, *states: str) -> Run:
    def found() -> Run | None:
        run = store.get(run_id)
        if run.state == "failed" and "failed" not in states:
            pytest.fail(f"{run.error}\n{store.log(run_id)}")
        return run if run.state in states else None

    return wait_for(found, f"run {run_id} to become {' or '.join(states)}")


def wait_free(store: RunStore, run_id: int) -> Run:
    """The run once no process is on it."""
    return wait_for(
        lambda: (run := store.get(run_id)).worker is None and not run.active and run,
        f"the worker of run {run_id} to end",
    )


def change(store: RunStore, run_id: int, **values: Any) -> None:
    with store._write() as connection:
        assert update_run(connection, run_id, values)


@pytest.fixture
def fake_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes every worker process run the given shell script instead."""

    def make(script: str) -> None:
        path = tmp_path / "fake-worker"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return make


@pytest.mark.parametrize(
    ("visible", "slots"), [(None, 2), ("", 0), ("-1", 0), ("1", 1), ("0,1,2", 2), ("1,-1,0", 1)]
)
def test_one_run_a_gpu_where_there_are_any(monkeypatch, visible, slots):
    monkeypatch.setattr(machine, "torch_version", lambda: "2.14.1")
    monkeypatch.setattr(sys, "platform", "linux")
    there = [Path("/dev/nvidia0"), Path("/dev/nvidia1")]
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter(there))
    monkeypatch.setattr(jobs, "available_cores", lambda: 16)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(jobs, "accelerators", machine.accelerators.__wrapped__)
    assert jobs.slots_here() == (slots or 16)


# --- real worker processes --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", databases())
def test_a_run_from_start_to_evaluation(kind, request):
    from nin_core.checkpoints import load_weights
    from nin_core.data import load_dataset
    from nin_core.diagnosis import evaluate
    from nin_core.inputs import Inputs
    from nin_core.model import build_nin

    store = on_database(kind, request)
    run_id = start_run(store, NETWORK, SHORT, "shapes")
    assert wait_for(lambda: store.get(run_id).worker_pid, "a process") > 0
    run = wait_state(store, run_id, "finished")
    assert run.step == run.total_steps == 10
    threads = tuning.usual_settings(NETWORK, SHORT.batch_size, available_cores()).threads
    assert (run.threads, run.device, run.error) == (threads, "cpu", None)
    rows = store.metrics(run_id)
    assert [row.kind for row in rows][-1] == "epoch"
    assert rows[-1].test_examples == 1000
    run = wait_free(store, run_id)
    checkpoint = store.load_checkpoint(run_id)
    assert (checkpoint.step, checkpoint.info["threads"]) == (10, threads)
    # What is stored is what was trained: the same weights give the stored figures again.
    dataset = load_dataset("shapes")
    model = build_nin(NETWORK)
    model.load_state_dict(load_weights(checkpoint.blob))
    images, labels = dataset.test_images, dataset.test_labels
    again = evaluate(model, images, labels, Inputs(NETWORK, dataset.mean, dataset.std))
    stored = store.load_evaluation(run_id)
    logits = read_logits(stored.logits, stored.images, stored.classes)
    assert (stored.images, stored.step) == (1000, 10)
    assert again.accuracy == pytest.approx(run.test_accuracy, abs=0.002)
    right = np.trace(confusion_matrix(logits, labels.numpy()))
    assert right / 1000 == pytest.approx(stored.accuracy, abs=0.002)
    wait_for(lambda: not log_path(store, run_id).exists(), "the log file to go")


@pytest.mark.slow
def test_a_killed_worker_is_interrupted_and_its_weights_stay(store):
    run_id = start_run(store, NETWORK, LONG, "shapes")
    run = wait_for(lambda: (r := store.get(run_id)).has_checkpoint and r, "a checkpoint")
    os.kill(run.worker_pid, signal.SIGKILL)
    run = wait_state(store, run_id, "interrupted")
    assert "SIGKILL" in run.error
    assert run.error.endswith(".")
    assert run.worker is None
    assert store.load_checkpoint(run_id).step > 0
    assert not Path(f"/proc/{run.worker_pid}").exists()  # reaped


@pytest.mark.slow
def test_stop_keeps_the_weights_and_measures_them(store):
    run_id = start_run(store, NETWORK, LONG, "shapes")
    wait_for(lambda: store.get(run_id).step >= 1, "the first step")
    pid = store.get(run_id).worker_pid
    assert stop_run(store, run_id) == "running"
    run = wait_state(store, run_id, "stopped")
    assert run.has_checkpoint
    assert store.load_checkpoint(run_id).step >= run.step >= 1
    run = wait_free(store, run_id)
    assert run.has_evaluation
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the process to be reaped")


@pytest.mark.slow
def test_sigterm_is_a_stop_for_a_run_of_the_command_line(store):
    run_id = start_run(store, NETWORK, LONG, "shapes", outlive=True)
    run = wait_for(lambda: (r := store.get(run_id)).step and r, "the first step")
    os.kill(run.worker_pid, signal.SIGTERM)
    assert wait_state(store, run_id, "stopped").has_checkpoint


def test_a_server_s_worker_that_is_told_to_end_leaves_its_run_to_the_next(store):
    """As when systemd ends a server: all its processes get the signal."""
    run_id = start_run(store, NETWORK, LONG, "shapes")
    run = wait_for(lambda: (r := store.get(run_id)).step and r, "the first step")
    os.kill(run.worker_pid, signal.SIGTERM)
    again = wait_for(
        lambda: (r := store.get(run_id)).attempt == 2 and r.state == "running" and r, "the next"
    )
    assert again.has_checkpoint
    assert again.error is None
    jobs.stop_run(store, run_id)
    wait_state(store, run_id, "stopped")


@pytest.mark.slow
def test_a_worker_whose_database_is_gone_ends_by_itself(store):
    run_id = start_run(store, NETWORK, LONG, "shapes")
    run = wait_for(lambda: (r := store.get(run_id)).step and r, "the first step")
    for path in store.path.parent.glob("runs.db*"):
        if path.is_file():
            path.unlink()
    process = WorkerId(run.worker_host, run.worker_pid, run.worker_mark)
    wait_for(lambda: is_alive(process) is False, "the worker to give up")


def test_a_second_worker_for_a_run_leaves_it_alone(store):
    run_id = store.create(NETWORK, SHORT, "shapes")
    assert store.claim(run_id, this_worker()) == 1
    done = subprocess.run(
        [sys.executable, "-m", "nin_core.worker", str(run_id)],
        cwd=machine.PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "does not wait for a worker" in done.stderr
    assert store.get(run_id).attempt == 1


@pytest.mark.parametrize("arguments", [[], ["x"], ["1", "2"], ["999"]])
def test_a_worker_without_a_run_says_so(store, arguments, capsys):
    assert worker.main(arguments) == 2
    assert capsys.readouterr().err.strip()


def outcome(store: RunStore, run_id: int) -> tuple[list[tuple], dict[str, bytes]]:
    """What a run has measured and learned, to the bit; not how long it took."""
    from nin_core.checkpoints import load_weights

    run = store.get(run_id)
    assert run.state == "finished", run.error
    rows = [
        replace(row, id=0, seconds=0.0, examples_per_second=None) for row in store.metrics(run_id)
    ]
    tensors = load_weights(store.load_checkpoint(run_id).blob)
    return rows, {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.slow
def test_a_killed_and_a_paused_run_end_as_if_they_had_not_been(store):
    """One run straight through; one killed twice; one paused: the same curves and weights."""
    network = replace(NETWORK, dropout=0.3)
    train = RECIPES["fast"].configure(network, epochs=4, subset=2560, use_dropout=True)
    straight = start_run(store, network, train, "shapes")
    wait_state(store, straight, "finished")
    expected = outcome(store, wait_free(store, straight).id)

    killed = start_run(store, network, train, "shapes")
    for epoch in (1, 2):
        run = wait_for(
            lambda epoch=epoch: (
                (r := store.get(killed)).epoch > epoch and r.has_checkpoint and r.worker_pid and r
            ),
            f"epoch {epoch} of run {killed}",
        )
        os.kill(run.worker_pid, signal.SIGKILL)
        assert wait_state(store, killed, "interrupted").worker is None
        resume_run(store, killed)
        assert store.get(killed).error is None
    wait_state(store, killed, "finished")
    assert outcome(store, wait_free(store, killed).id) == expected

    paused = start_run(store, network, train, "shapes")
    wait_for(lambda: store.get(paused).step > 3, "a few steps")
    pause_run(store, paused)
    run = wait_free(store, paused)
    assert (run.state, run.has_evaluation) == ("paused", False)
    resume_run(store, paused)
    wait_state(store, paused, "finished")
    assert outcome(store, wait_free(store, paused).id) == expected
    with pytest.raises(StateError, match="finished: only a run that is failed, interrupted"):
        resume_run(store, paused)
    extend_run(store, paused, 1)
    wait_state(store, paused, "finished")
    run = wait_free(store, paused)
    assert (run.epoch, run.step) == (5, run.total_steps)
    assert outcome(store, paused)[0][: len(expected[0])] == expected[0]


@pytest.mark.parametrize("go_on", [resume_run, lambda *run: extend_run(*run, 1)])
def test_weights_alone_are_no_training_that_could_go_on(store, go_on):
    """As of a run that was imported, or of a store from before the first release."""
    network, train = NETWORK, SHORT
    weights = Checkpoint(10, 1, save({"weight": torch.zeros(2)}), {})
    run_id, attempt = store.create_finished(network, train, "shapes", None, weights, this_worker())
    store.release(run_id, attempt)
    if go_on is resume_run:
        change(store, run_id, state="failed")
    before = store.get(run_id)
    with pytest.raises(StateError, match="nothing that its training could go on from"):
        go_on(store, run_id)
    assert store.get(run_id) == before


@pytest.mark.parametrize(
    ("network", "changes", "words"),
    [
        (replace(NETWORK, in_channels=2), {}, "of cifar10 have 3 channels"),
        (replace(PRESETS["nin-28-best"], in_channels=3), {"batch_size": 1}, "at least 2 images"),
    ],
    ids=["channels", "batch-norm"],
)
def test_what_could_only_fail_is_refused_before_it_starts(store, network, changes, words):
    with pytest.raises(ConfigError, match=words):
        start_run(store, network, RECIPES["fast"].configure(network, **changes), "cifar10")
    assert store.list_runs() == []


# --- the server -------------------------------------------------------------------------------


def test_a_server_looks_at_the_queue_again_and_again_without_a_page(store, monkeypatch):
    monkeypatch.setattr(ui_server, "QUEUE_SECONDS", 0.05)
    monkeypatch.setenv("NIN_DATABASE_URL", store.url)
    run_id = store.create_at_work(NETWORK, SHORT, "shapes", None, this_worker(), slots=99)
    ended = threading.Event()
    keeping = threading.Thread(target=ui_server.keep_up, args=(ended,))
    keeping.start()
    try:
        store.claim(run_id, this_worker())
        time.sleep(0.3)
        assert store.get(run_id).state == "running"
        change(store, run_id, worker_mark="1")  # its process is gone, another has the number
        wait_for(lambda: store.get(run_id).state == "interrupted", "the server to notice", 60)
    finally:
        ended.set()
        keeping.join()


# --- the spare --------------------------------------------------------------------------------


@pytest.fixture
def spare_kept(store):
    jobs.keep_spare(store)
    yield spare._kept[store.url]
    spare.dismiss()


@pytest.mark.slow
def test_a_spare_takes_the_next_run_and_another_takes_its_place(store, spare_kept, monkeypatch):
    monkeypatch.setattr(spare, "REFILL_SECONDS", 0.05)
    process, log = spare_kept
    jobs.keep_spare(store)
    assert spare._kept[store.url][0] is process  # one is enough
    run_id = start_run(store, NETWORK, SHORT, "shapes")
    assert store.get(run_id).worker_pid == process.pid
    assert not log.exists()
    assert log_path(store, run_id).exists()
    wait_state(store, run_id, "finished")
    following = wait_for(lambda: spare._kept.get(store.url), "the next spare")
    assert following[0].pid != process.pid
    wait_free(store, run_id)
    wait_for(lambda: not Path(f"/proc/{process.pid}").exists(), "the worker to be reaped")


@pytest.mark.slow
def test_a_dead_spare_is_no_loss(store, spare_kept):
    process, _ = spare_kept
    process.kill()
    process.wait()
    run_id = start_run(store, NETWORK, SHORT, "shapes")
    assert wait_for(lambda: store.get(run_id).worker_pid, "a process") != process.pid
    wait_state(store, run_id, "finished")
    wait_free(store, run_id)


def test_a_spare_ends_with_whoever_keeps_it(tmp_path):
    """Killed outright, so that it cannot do anything about it itself."""
    script = (
        "import os, signal\n"
        "from nin_core import jobs, spare\n"
        "from nin_core.store import RunStore\n"
        "store = RunStore()\n"
        "jobs.keep_spare(store)\n"
        "print(spare._kept[store.url][0].pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "NIN_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    pid = int(done.stdout)
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or is_zombie(pid), "the spare to end")
    assert not list((tmp_path / "runs.db-logs").glob("spare-*"))


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


# --- the work, in this process ----------------------------------------------------------------


WORK = "work of a test"


class Work:
    """`work_on` in a thread of this process."""

    def __init__(self, store: RunStore, train=LONG, network=NETWORK) -> None:
        self.store = store
        self.run_id = store.create_at_work(network, train, "shapes", None, this_worker(), slots=99)
        self.attempt = store.claim(self.run_id, this_worker())
        self.events: list[Any] = []
        self.reporter: reporting.Reporter | None = None
        self._thread = threading.Thread(target=self._work, name=WORK, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        self.reporter = worker.work_on(self.store, self.run_id, self.attempt, self.events.append)

    def join(self) -> Run:
        self._thread.join(180)
        assert not self._thread.is_alive()
        return self.store.get(self.run_id)


def test_a_stop_does_not_wait_for_the_step(store, monkeypatch):
    """The third step blocks; the run is stopped all the same, with the weights of the second."""
    import torch

    from nin_core import model as model_module
    from nin_core.checkpoints import load_weights
    from nin_core.optimization import Optimizer

    build = model_module.build_nin
    blocked, go = threading.Event(), threading.Event()
    built = []

    def build_blocking(network):
        model = build(network)
        forwards = 0

        def before(module, inputs):
            nonlocal forwards
            if module is model.block2 and module.training:  # no copy, that it looks at its start by
                forwards += 1
                if forwards == 3:
                    # Batch norm of the first block has seen the third batch by then.
                    blocked.set()
                    assert go.wait(120)

        model.block2.register_forward_pre_hook(before)
        built.append(model)
        return model

    monkeypatch.setattr(model_module, "build_nin", build_blocking)
    monkeypatch.setattr(tuning, "usual_settings", lambda *_: tuning.Settings())  # one forward pass
    after_second, step = {}, Optimizer.step

    def remember(optimizer, rate):
        step(optimizer, rate)
        if not blocked.is_set():
            state = built[0].state_dict()
            after_second.update({name: tensor.clone() for name, tensor in state.items()})

    monkeypatch.setattr(Optimizer, "step", remember)
    work = Work(store)
    assert blocked.wait(120)
    store.request(work.run_id, "stopped")
    run = wait_state(store, work.run_id, "stopped")
    assert not go.is_set()
    checkpoint = store.load_checkpoint(work.run_id)
    assert checkpoint.step == 2
    weights = load_weights(checkpoint.blob)
    assert weights.keys() == after_second.keys()
    assert all(torch.equal(weights[name], after_second[name]) for name in weights)
    go.set()
    run = work.join()
    assert run.has_evaluation
    assert store.load_evaluation(work.run_id).step == 2
    assert all(event.step <= 2 for event in work.events)
    assert store.load_checkpoint(work.run_id).step == 2


def test_metrics_wait_for_a_store_that_fails_for_a_while(store, monkeypatch):
    write = store.add_metrics
    failures = [True] * 2
    written = threading.Event()

    def flaky(*args, **kwargs):
        if failures:
            failures.pop()
            raise StoreError("The run store is locked.", "locked")
        write(*args, **kwargs)
        written.set()

    monkeypatch.setattr(store, "add_metrics", flaky)
    work = Work(store)
    assert written.wait(180)
    store.request(work.run_id, "stopped")
    assert work.join().state == "stopped"
    assert not failures
    rows = store.metrics(work.run_id)
    assert [(row.step, row.train_loss) for row in rows] == [
        (event.step, event.train_loss) for event in work.events
    ]


def test_points_whose_commit_was_not_answered_are_there_once(store, monkeypatch):
    """As when a connection breaks in the very moment: all is stored, and nobody is told."""
    lost = []

    def unanswered(name, times):
        write, left = getattr(store, name), [True] * times

        def written_and_lost(*args, **kwargs):
            write(*args, **kwargs)
            # The second: the first points' checkpoint has none before it.
            if left and len(store.metrics(work.run_id)) > 1:
                left.pop()
                lost.append(name)
                raise StoreError("The server closed the connection unexpectedly.")

        monkeypatch.setattr(store, name, written_and_lost)

    unanswered("add_metrics", 3)
    unanswered("transition", 1)
    monkeypatch.setattr(reporting, "FLUSH_SECONDS", 0.05)
    work = Work(store, replace(SHORT, epochs=8))
    run = work.join()
    assert lost == ["add_metrics"] * 3 + ["transition"]
    assert (run.state, run.has_evaluation) == ("finished", True)
    assert [(row.kind, row.step) for row in store.metrics(work.run_id)] == [
        (type(event).__name__.removesuffix("Event").lower(), event.step) for event in work.events
    ]


def test_a_log_that_cannot_be_written_costs_no_sign_of_life(store, monkeypatch):
    """A full disk is the log's as well as the store's."""
    failures = [True] * 2

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(*args, **kwargs):
        if failures:
            failures.pop()
            raise StoreError("Its disk is full.", "full")
        return write(*args, **kwargs)

    write = store.add_metrics
    monkeypatch.setattr(store, "add_metrics", full)
    monkeypatch.setattr(sys, "stderr", Full())
    work = Work(store)
    wait_for(lambda: not failures and store.get(work.run_id).step > 1, "points after the outage")
    store.request(work.run_id, "stopped")
    assert work.join().state == "stopped"


def test_weights_are_kept_while_a_test_takes_long(store, monkeypatch):
    """Its end is an event, for which the weights before it must not have to wait."""
    from nin_core.checkpoints import unpack

    go = threading.Event()
    evaluate = training.evaluate

    def slow(model, images, *args, **kwargs):
        if len(images) == 1000:
            assert go.wait(120)
        return evaluate(model, images, *args, **kwargs)

    monkeypatch.setattr(training, "evaluate", slow)
    monkeypatch.setattr(reporting, "CHECKPOINT_SECONDS", 0.2)
    monkeypatch.setattr(reporting, "OVERDUE_SECONDS", 0.2)
    work = Work(store, SHORT)
    steps = wait_for(lambda: store.get(work.run_id).total_steps, "the number of steps")
    kept = wait_for(lambda: store.get(work.run_id).checkpoint_step == steps, "the weights")
    assert kept and not go.is_set()
    state = unpack(store.load_checkpoint(work.run_id).blob)
    assert (state.step, state.epoch_ended) == (steps, False)
    # The step may be kept twice: before its event, and after it.
    wait_for(lambda: work.events and work.events[-1].step == steps, "the last step's event")
    time.sleep(1.0)
    written = store.load_checkpoint(work.run_id).created_at
    time.sleep(1.0)
    assert store.load_checkpoint(work.run_id).created_at == written  # the same ones, once
    go.set()
    assert work.join().state == "finished"


def test_a_snapshot_that_cannot_be_written_repeats_no_point(store, monkeypatch):
    add = reporting.Snapshots.add
    failures = [True] * 3
    written = threading.Event()

    def flaky(*args):
        if failures and store.get(work.run_id).step:
            failures.pop()
            raise StoreError("Its disk is full.", "full")
        add(*args)
        if not failures:
            written.set()

    monkeypatch.setattr(reporting.Snapshots, "add", flaky)
    work = Work(store)
    assert written.wait(180)
    store.request(work.run_id, "stopped")
    assert work.join().state == "stopped"
    rows = [(row.kind, row.step) for row in store.metrics(work.run_id)]
    assert len(rows) == len(set(rows)) == len(work.events)


@pytest.fixture
def exits(monkeypatch) -> Iterator[tuple[threading.Event, list[int]]]:
    """`os._exit` ends the threads of a worker only; says that, and with which code."""
    left, codes = threading.Event(), []
    step = training.Training.take_step

    def leave(code):
        codes.append(code)
        left.set()
        sys.exit()

    def take_step(*args):
        if left.is_set():
            sys.exit()
        step(*args)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(training.Training, "take_step", take_step)
    yield left, codes
    left.set()  # before a step is a step again, all have ended
    for thread in threading.enumerate():
        if thread.name == WORK:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # `exits`
def test_a_reporter_that_breaks_gives_the_run_up_in_a_sentence(store, monkeypatch, exits):
    left, codes = exits
    signal_of = store.signal

    def broken(*args):
        if store.get(work.run_id).step:
            raise ValueError("no such rate")
        return signal_of(*args)

    monkeypatch.setattr(store, "signal", broken)
    work = Work(store)
    assert left.wait(180)
    run = store.get(work.run_id)
    assert (run.state, run.worker, codes) == ("interrupted", None, [supervisor.GAVE_UP])
    assert run.error == "Its worker could not report any more (no such rate)."


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # `exits`
def test_an_end_that_cannot_be_written_is_given_up_though_signs_of_life_can(
    store, monkeypatch, exits
):
    left, codes = exits
    write = store.transition

    def full(run_id, state, **facts):
        if state == "finished":
            raise StoreError("Its disk is full.", "full")
        write(run_id, state, **facts)

    monkeypatch.setattr(store, "transition", full)
    monkeypatch.setattr(reporting, "PATIENCE_DEFAULT", 1.0)
    work = Work(store, SHORT)
    assert left.wait(180)
    run = store.get(work.run_id)
    assert (run.state, codes) == ("interrupted", [supervisor.GAVE_UP])
    assert run.error == "Its disk is full. This worker gives up."


def test_a_look_at_the_start_that_fails_costs_no_run(store, monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory for that")

    monkeypatch.setattr("nin_core.preflight.of_run", fail)
    work = Work(store, SHORT)
    run = work.join()
    assert (run.state, run.start, run.has_evaluation) == ("finished", None, True)
    assert "no memory for that" in work.reporter.trouble


def test_no_weights_are_kept_while_the_last_ones_are_written(store, monkeypatch):
    monkeypatch.setattr(reporting, "CHECKPOINT_SECONDS", 0.05)
    reporter = reporting.Reporter(store, 1, 1)
    assert not reporter.checkpoint_due()
    time.sleep(0.1)
    assert reporter.checkpoint_due()
    snapshot = SimpleNamespace(step=1)
    reporter.keep(snapshot)
    time.sleep(0.1)
    assert not reporter.checkpoint_due()
    reporter._written([], snapshot)
    assert reporter.checkpoint_due()
    reporter._writing_seconds = 60.0  # then there is time for the rest between two of them
    assert not reporter.checkpoint_due()


def test_a_run_that_lost_its_worker_after_its_last_step_still_finishes(store):
    run = Work(store, SHORT).join()
    assert run.state == "finished"
    assert run.start is not None and run.start.verdict == "ready"  # as it found itself
    store.release(run.id, run.attempt)
    change(store, run.id, state="interrupted")
    store.resume(run.id)
    assert store.get(run.id).has_evaluation  # its weights are what they were
    attempt = store.claim(run.id, this_worker())
    worker.work_on(store, run.id, attempt)
    again = store.get(run.id)
    assert (again.state, again.test_accuracy) == ("finished", run.test_accuracy)
    assert again.has_evaluation


def test_a_paused_run_is_measured(store, capsys):
    """By hand, whatever kept it from being measured; its weights stay as they are."""
    from nin_core.__main__ import main

    run_id = store.create(NETWORK, SHORT, "shapes")
    assert main(["runs", "measure", str(run_id)]) == 2
    assert "has no weights that could be measured" in capsys.readouterr().err
    run = Work(store, SHORT).join()
    measured = store.load_evaluation(run.id)
    change(store, run.id, state="paused")
    store.release(run.id, run.attempt)
    with store.database.write() as connection:
        connection.execute(tables.evaluations.delete())
    assert main(["runs", "measure", str(run.id)]) == 0
    again, found = store.get(run.id), store.load_evaluation(run.id)
    assert (again.state, again.worker, again.step) == ("paused", None, run.step)
    assert (found.step, found.images) == (run.checkpoint_step, measured.images)
    assert found.accuracy == pytest.approx(measured.accuracy, abs=0.002)
    assert f"test accuracy {found.accuracy:.1%}" in capsys.readouterr().out
    with store.database.write() as connection:
        connection.execute(tables.evaluations.delete())
    assert main(["runs", "stop", str(run.id)]) == 0  # nobody is on it who would measure it
    stopped = store.get(run.id)
    assert (stopped.state, stopped.worker, stopped.has_evaluation) == ("stopped", None, True)
    store.resume(run.id)
    with pytest.raises(StateError, match="can be measured"):
        scoring.measure_again(store, run.id)


def test_what_could_not_be_measured_is_said(store, capsys):
    from nin_core.__main__ import main

    run = Work(store, SHORT).join()
    store.release(run.id, run.attempt)
    with store.database.write() as connection:
        connection.execute(tables.runs.update().values(dataset="imagenet"))
    assert main(["runs", "measure", str(run.id)]) == 2
    assert f"Run #{run.id} could not be measured: " in capsys.readouterr().err
    assert store.get(run.id).worker is None


def test_a_run_is_let_go_of_however_long_the_store_fails(store, monkeypatch):
    """Nobody else frees the slot of a run that this process holds."""
    run = Work(store, SHORT).join()
    store.release(run.id, run.attempt)
    monkeypatch.setattr(reporting, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(reporting, "PATIENCE_DEFAULT", 0.0)
    attempt, release, asked = store.begin_measuring(run.id, this_worker()), store.release, []

    def failing(*what, **more):
        asked.append(what)
        if len(asked) < 20:
            raise StoreError("The disk is full.", "full")
        release(*what, **more)

    monkeypatch.setattr(store, "release", failing)
    thread = threading.Thread(target=lambda: scoring._let_go(store, run.id, attempt, ""))
    thread.start()
    thread.join(60)
    assert len(asked) == 20
    assert store.get(run.id).worker is None


def test_a_run_that_is_left_is_never_running_without_a_worker(store):
    """As by a second Ctrl-C before the first one's end is written."""
    run_id = store.create(NETWORK, SHORT, "shapes")
    attempt = store.claim(run_id, this_worker())
    store.release(run_id, attempt)
    run = store.get(run_id)
    assert (run.state, run.worker, run.error) == ("interrupted", None, WHY_LEFT)
    assert run.ended_at is not None


def test_a_stop_outdoes_a_pause_that_has_not_come_to_its_end(store):
    reporter = reporting.Reporter(store, 1, 1)
    reporter._stop("paused")
    reporter._stop("stopped")
    reporter._stop("paused")
    assert reporter.ending == "stopped"


def test_what_a_store_refuses_for_the_moment_is_asked_again(monkeypatch):
    monkeypatch.setattr(reporting, "RETRY_SECONDS", 0.0)
    answers = iter([StoreError("locked", "locked"), StoreError("away", "unreachable"), 7])

    def ask():
        answer = next(answers)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    assert reporting.patiently(ask) == 7
    for reason in ("refused", "schema"):
        asked = []

        def refuse(reason=reason, asked=asked):
            asked.append(reason)
            raise StoreError("no", reason)

        with pytest.raises(StoreError):
            reporting.patiently(refuse)
        assert len(asked) == 1


def test_after_an_outage_workers_elsewhere_get_time_to_report(store, monkeypatch):
    run_id = store.create(NETWORK, SHORT, "shapes")
    store.claim(run_id, WorkerId("elsewhere/1", 1))
    change(store, run_id, heartbeat_at=now() - timedelta(seconds=supervisor.SILENT_SECONDS + 1))
    with monkeypatch.context() as away:
        away.setattr(store, "work", lambda: (_ for _ in ()).throw(StoreError("away")))
        with pytest.raises(StoreError):
            advance(store, slots=0)
    advance(store, slots=0)
    assert store.get(run_id).state == "running"
    monkeypatch.setattr(supervisor, "BACK_SECONDS", 0.0)
    advance(store, slots=0)
    assert store.get(run_id).state == "interrupted"


def test_an_end_is_written_as_soon_as_the_store_can(store, monkeypatch):
    write = store.transition
    failures = iter([True] * 2)

    def flaky(*args, **kwargs):
        if next(failures, False):
            raise StoreError("The run store is locked.", "locked")
        return write(*args, **kwargs)

    monkeypatch.setattr(store, "transition", flaky)
    work = Work(store, SHORT)
    assert work.join().state == "finished"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("boom\n  twice"), "RuntimeError: boom twice"),
        (MemoryError(), "Memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Memory ran out"),
        (ConfigError("momentum is 2; 0.9 would work."), "Momentum is 2; 0.9 would work."),
    ],
)
def test_a_failure_is_a_sentence_and_a_log(store, monkeypatch, error, sentence):
    from nin_core import training

    def events(self):
        raise error
        yield

    monkeypatch.setattr(training.Training, "events", events)
    run = Work(store, SHORT).join()
    assert run.state == "failed"
    assert run.error.startswith(sentence)
    assert "Traceback" in store.log(run.id)
    assert not run.has_checkpoint


def test_a_run_that_does_not_learn_gets_a_diagnosis(store):
    network = replace(NETWORK, batch_norm=False, final_relu=True)
    train = RECIPES["fast"].configure(network, subset=64, learning_rate=1e-6)
    run = Work(store, train, network).join()
    assert run.state == "finished"
    assert "ln(10)" in run.diagnosis


def test_a_run_of_another_version_fails_in_a_sentence(store):
    run_id = store.create_at_work(NETWORK, SHORT, "shapes", None, this_worker(), slots=99)
    attempt = store.claim(run_id, this_worker())
    change(store, run_id, train='{"recipe": "from the future"}')
    worker.work_on(store, run_id, attempt)
    run = store.get(run_id)
    assert run.state == "failed"
    assert "cannot read" in run.error


def test_the_rate_is_changed_while_a_run_goes_and_the_step_is_written_down(store):
    """The rows say it: up to the recorded step the old rate, after it the new one."""
    train = RECIPES["tutorial"].configure(NETWORK, epochs=500, learning_rate=0.02)
    work = Work(store, train)
    wait_for(lambda: store.get(work.run_id).step >= 1, "the first step")
    with pytest.raises(ConfigError, match="learning_rate"):
        store.change_rate(work.run_id, 50.0)
    store.change_rate(work.run_id, 0.005)
    run = wait_for(lambda: (r := store.get(work.run_id)).train.rate_changes and r, "the change")
    assert run.desired_rate is None
    ((step, rate),) = run.train.rate_changes
    assert rate == 0.005
    wait_for(lambda: store.get(work.run_id).step > step + 1, "a step after it")
    store.request(work.run_id, "stopped")
    work.join()
    rows = store.metrics(work.run_id)
    rates = {row.learning_rate for row in rows if row.step <= step}
    assert (rates, rows[-1].learning_rate) == ({0.02}, 0.005)
    assert {row.learning_rate for row in rows if row.step > step} == {0.005}
    store.change_rate(work.run_id, 0.01)
    assert store.get(work.run_id).desired_rate == 0.01  # for when it goes on
    waiting = start_run_of(store, train)
    store.transition(waiting, "running")
    store.transition(waiting, "finished")
    with pytest.raises(StateError, match="is finished: its learning rate is not used again"):
        store.change_rate(waiting, 0.01)


def test_a_rate_asked_for_while_a_run_waits_holds_from_its_first_step(store):
    run_id = store.create_at_work(NETWORK, SHORT, "shapes", None, this_worker(), slots=99)
    store.change_rate(run_id, 0.003)
    attempt = store.claim(run_id, this_worker())
    worker.work_on(store, run_id, attempt)
    run = store.get(run_id)
    assert (run.state, run.desired_rate) == ("finished", None)
    assert run.train.rate_changes == ((0, 0.003),)


def start_run_of(store: RunStore, train) -> int:
    return store.create(NETWORK, train, "shapes")


def test_a_twin_has_the_runs_settings_but_for_the_changes(store, monkeypatch):
    monkeypatch.setattr(jobs, "available_cores", lambda: 0)
    changed = replace(SHORT, rate_changes=((5, 0.001),), more_epochs=(2,))
    run_id = store.create(NETWORK, changed, "shapes", "mine")
    twin = store.get(jobs.duplicate_run(store, run_id, seed=7))
    assert (twin.network, twin.dataset, twin.state) == (NETWORK, "shapes", "queued")
    assert twin.train == replace(changed, seed=7)
    other = store.get(jobs.duplicate_run(store, run_id, "other", learning_rate=0.01, epochs=3))
    assert other.name == "other"
    assert other.train == replace(SHORT, learning_rate=0.01, epochs=3)
    with pytest.raises(ConfigError, match="epochs"):
        jobs.duplicate_run(store, run_id, epochs=0)


# --- a server's end -----------------------------------------------------------------------------

_SERVER = """
import sys, time
from nin_core import jobs
from nin_core.store import RunStore
store = RunStore()
jobs.advance(store, slots=1)
print("ready", flush=True)
time.sleep(600)
"""


def serve(store: RunStore) -> subprocess.Popen[str]:
    """A process that has started what waits, as a server does."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        cwd=machine.PROJECT,
        env={**os.environ, "NIN_DATABASE_URL": store.url},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_a_killed_servers_worker_keeps_a_checkpoint_and_the_next_server_goes_on(store):
    """To the bit, with a rate that was changed before: nothing of the run is lost or different."""
    network = replace(NETWORK, dropout=0.3)
    train = RECIPES["fast"].configure(network, epochs=3, subset=1280, use_dropout=True)
    train = train.with_rate(25, 0.002)
    straight = Work(store, train, network)
    expected = outcome(store, straight.join().id)
    store.release(straight.run_id, straight.attempt)
    run_id = store.create(network, train, "shapes")
    server = serve(store)
    run = wait_for(lambda: (r := store.get(run_id)).step >= 1 and r, "the first step")
    process = run.worker
    server.kill()
    server.wait()
    run = wait_for(lambda: (r := store.get(run_id)).worker is None and r, "the worker to leave")
    wait_for(lambda: is_alive(process) is False, "the worker to end")
    assert (run.state, run.error) == ("queued", None)
    assert run.has_checkpoint
    assert store.load_checkpoint(run_id).step == run.step >= 1
    assert not list(log_path(store, run_id).parent.glob("*.log"))
    assert advance(store, slots=1) == [run_id]
    wait_state(store, run_id, "finished")
    run = wait_free(store, run_id)
    assert outcome(store, run_id) == expected
    assert (run.attempt, run.train) == (2, train)


def test_an_orphan_that_came_no_further_than_its_checkpoint_waits_again(store):
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    run_id = store.create(NETWORK, LONG, "shapes")
    attempt = store.claim(run_id, WorkerId(this_host(), dead.pid, "1"))
    store.transition(run_id, "interrupted", attempt=attempt, error=supervisor.WHY_ORPHANED)
    advance(store, slots=0)
    run = store.get(run_id)
    assert (run.state, run.worker, run.error) == ("queued", None, None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # `exits`
def test_an_orphan_without_a_step_only_leaves_its_place(store, exits):
    """Its parent is gone before it has loaded anything: the run waits again, as it did."""
    left, codes = exits
    run_id = store.create_at_work(NETWORK, LONG, "shapes", None, this_worker(), slots=99)
    attempt = store.claim(run_id, this_worker())
    reporter = reporting.Reporter(store, run_id, attempt, parent=1_000_000_000)
    reporter._thread.start()
    assert left.wait(60)
    run = store.get(run_id)
    assert (run.state, run.worker, run.desired_state, codes) == ("queued", None, "running", [0])


def test_a_worker_killed_before_it_began_is_started_again_but_not_for_ever(store, fake_worker):
    fake_worker("kill -9 $$")
    run_id = start_run(store, NETWORK, SHORT, "shapes")
    run = wait_state(store, run_id, "failed")
    assert (run.spawns, run.worker) == (supervisor.MAX_SPAWNS, None)
    assert "SIGKILL" in run.error


def test_a_reservation_of_a_server_that_died_is_free_at_once(store):
    run_id = store.create(NETWORK, SHORT, "shapes")
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    assert store.reserve(1, this_host(), f"{dead.pid}:1") == run_id
    advance(store, slots=0)
    assert (store.get(run_id).state, store.get(run_id).worker) == ("queued", None)
    assert store.reserve(1, this_host(), supervisor.starting_mark()) == run_id
    advance(store, slots=0)
    assert store.get(run_id).worker is not None  # we are about to


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_last_weights_stay(store, fake_worker):
    """A limit on the size of its files is a worker's full disk."""
    fake_worker(
        f"exec {sys.executable} -c '"
        "import resource, sys; from nin_core import reporter, worker; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY)); "
        "reporter.PATIENCE_DEFAULT = 1.0; reporter.CHECKPOINT_SECONDS = 0.2; "
        'sys.exit(worker.main([sys.argv[1]]))\' "$3"'
    )
    run_id = start_run(store, NETWORK, LONG, "shapes")
    run = wait_state(store, run_id, "interrupted")
    assert "its disk is full; free some space or delete runs" in run.error
    from nin_core.checkpoints import unpack

    checkpoint = store.load_checkpoint(run_id)
    assert unpack(checkpoint.blob).step == checkpoint.step >= 1


def memory_group(folder: Path = Path("/sys/fs/cgroup")) -> tuple[Path, str] | None:
    """Where a control group of memory can be made here, and its file of the limit; else None."""
    with suppress(OSError):
        if "memory" in (folder / "cgroup.subtree_control").read_text().split():
            return (folder, "memory.max") if os.access(folder, os.W_OK) else None
    old = folder / "memory"
    return (old, "memory.limit_in_bytes") if os.access(old, os.W_OK) else None


if memory_group() is not None:  # for root, where the system lets it; elsewhere it cannot be tested

    @pytest.mark.slow
    def test_a_worker_that_the_system_kills_for_memory_is_said_to_have_run_out(store):
        """A real kill: the worker's own control group is too small for PyTorch."""
        folder, limit = memory_group()
        group = folder / f"nin-test-{os.getpid()}"
        group.mkdir()
        process_memory.KILLS.look()  # as a server has, before it starts anything
        time.sleep(supervisor.KILL_SECONDS)
        try:
            (group / limit).write_text("50000000")
            run_id = start_run(store, NETWORK, LONG, "shapes")
            pid = wait_for(lambda: store.get(run_id).worker_pid, "a process")
            (group / "cgroup.procs").write_text(str(pid))
            run = wait_state(store, run_id, "interrupted")
        finally:
            wait_for(lambda: not (group / "cgroup.procs").read_text(), "the group to be empty")
            group.rmdir()
        needed = admission.size(admission.predict_bytes(NETWORK, LONG, "shapes") + PROCESS_BYTES)
        assert run.error.startswith(f"Memory ran out: it was predicted to need about {needed};")
        assert "would" in run.error


# --- settling and starting, without training --------------------------------------------------


def test_a_worker_that_ends_before_it_begins_fails_its_run_once(store, fake_worker):
    fake_worker("echo 'Traceback:'; echo 'ModuleNotFoundError: No module named torch'; exit 3")
    ids = [store.create(NETWORK, SHORT, "shapes") for _ in range(4)]
    advance(store, slots=1)
    # The queue moves on by itself, without anyone asking again.
    for run_id in ids:
        run = wait_state(store, run_id, "failed")
        assert "exit code 3" in run.error
        assert "No module named torch." in run.error
        assert (run.spawns, run.worker) == (1, None)
        assert "Traceback:" in store.log(run_id)
    assert not list(log_path(store, 1).parent.iterdir())


def test_a_program_that_cannot_be_started(store, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/does/not/exist")
    run_id = start_run(store, NETWORK, SHORT, "shapes")
    for _ in range(supervisor.MAX_SPAWNS - 1):
        assert store.get(run_id).state == "queued"  # the computer may be busy for a moment
        advance(store)
    run = store.get(run_id)
    assert run.state == "failed"
    assert "could be started" in run.error


def test_two_servers_start_no_run_twice(store, monkeypatch):
    ids = [store.create(NETWORK, SHORT, "shapes") for _ in range(6)]
    started: list[int] = []
    monkeypatch.setattr(
        supervisor, "start", lambda _, run_id, *a, **k: started.append(run_id) or True
    )
    servers = [
        threading.Thread(target=advance, args=(RunStore(store.url),), kwargs={"slots": 4})
        for _ in range(5)
    ]
    for server in servers:
        server.start()
    for server in servers:
        server.join()
    assert sorted(started) == ids[:4]


def test_a_living_worker_keeps_its_run_however_silent(store):
    run_id = store.create(NETWORK, SHORT, "shapes")
    store.claim(run_id, this_worker())
    change(store, run_id, heartbeat_at=now() - timedelta(hours=1))
    advance(store, slots=0)
    assert store.get(run_id).state == "running"


@pytest.mark.parametrize(("seconds", "state"), [(1, "running"), (11, "interrupted")])
def test_another_hosts_worker_is_judged_by_its_heartbeat(store, seconds, state):
    run_id = store.create(NETWORK, SHORT, "shapes")
    store.claim(run_id, WorkerId("elsewhere/1", os.getpid(), ""))
    change(store, run_id, heartbeat_at=now() - timedelta(seconds=seconds))
    advance(store, slots=0)
    assert store.get(run_id).state == state


def test_a_reused_pid_is_not_the_worker(store):
    me = this_worker()
    assert is_alive(me) is True
    assert is_alive(replace(me, mark="1")) is False
    assert is_alive(replace(me, host="elsewhere/1")) is None
    run_id = store.create(NETWORK, SHORT, "shapes")
    store.claim(run_id, replace(me, mark="1"))
    advance(store, slots=0)
    assert store.get(run_id).state == "interrupted"


def test_a_zombie_is_dead():
    child = subprocess.Popen(["/bin/true"])
    try:
        wait_for(
            lambda: is_alive(WorkerId(this_host(), child.pid)) is False, "the child to be a zombie"
        )
        assert Path(f"/proc/{child.pid}").exists()
    finally:
        child.wait()


def test_where_the_system_tells_no_start_time_a_silent_process_may_be_another(store, monkeypatch):
    """As on macOS, where after a restart any process may have the worker's number."""
    monkeypatch.setattr(processes, "start_mark", lambda pid: "")
    assert is_alive(this_worker()) is True
    child = subprocess.Popen(["/bin/sleep", "600"])
    try:
        worker = WorkerId(this_host(), child.pid)
        assert is_alive(worker) is None
        run_id = store.create(NETWORK, SHORT, "shapes")
        store.note(run_id, store.claim(run_id, worker), phase="training")
        store.request(run_id, "stopped")
        advance(store, slots=0)
        assert store.get(run_id).state == "running"
        change(store, run_id, desired_at=now() - timedelta(seconds=supervisor.STOP_SECONDS + 1))
        advance(store, slots=0)  # it reports, so it is the worker, and it hangs
        assert child.wait(timeout=60) == -signal.SIGKILL
        assert is_alive(worker) is False
    finally:
        child.kill()
        child.wait()
    silent = store.create(NETWORK, SHORT, "shapes")
    store.claim(silent, WorkerId(this_host(), os.getppid()))
    change(store, silent, heartbeat_at=now() - timedelta(seconds=supervisor.SILENT_SECONDS + 1))
    advance(store, slots=0)
    assert store.get(silent).state == "interrupted"


def test_a_process_knows_whether_its_parent_has_ended():
    assert not is_orphaned(os.getppid())
    assert is_orphaned(os.getpid())


def test_a_reservation_nobody_followed_up_waits_again_but_not_for_ever(store):
    run_id = store.create(NETWORK, SHORT, "shapes")
    for spawn in range(1, supervisor.MAX_SPAWNS + 1):
        assert store.reserve(1, this_host()) == run_id
        advance(store, slots=0)
        assert store.get(run_id).worker is not None  # it may still come
        change(store, run_id, heartbeat_at=now() - timedelta(seconds=supervisor.START_SECONDS + 1))
        advance(store, slots=0)
        expected = "queued" if spawn < supervisor.MAX_SPAWNS else "failed"
        assert (store.get(run_id).state, store.get(run_id).worker) == (expected, None)


@pytest.mark.parametrize("loading", [True, False])
def test_a_worker_that_ignores_a_stop_is_killed(store, fake_worker, loading):
    fake_worker("exec sleep 600")
    run_id = start_run(store, NETWORK, SHORT, "shapes")
    pid = wait_for(lambda: store.get(run_id).worker_pid, "a process")
    attempt = store.claim(run_id, store.get(run_id).worker)
    store.note(run_id, attempt, phase="loading PyTorch" if loading else "training")
    assert stop_run(store, run_id) == ("stopped" if loading else "running")
    assert Path(f"/proc/{pid}").exists()
    change(store, run_id, desired_at=now() - timedelta(seconds=supervisor.STOP_SECONDS + 1))
    advance(store, slots=0)
    run = wait_for(lambda: (r := store.get(run_id)).worker is None and r, "its end")
    assert run.state == ("stopped" if loading else "interrupted")


def test_no_process_kills_itself_as_a_worker_that_hangs(store, monkeypatch):
    """One that measures imported weights is on a run without being its worker."""
    run_id = store.create_at_work(NETWORK, SHORT, "shapes", None, this_worker(), slots=99)
    store.claim(run_id, this_worker())
    stop_run(store, run_id)
    change(store, run_id, desired_at=now() - timedelta(seconds=supervisor.STOP_SECONDS + 1))
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("it killed itself"))
    advance(store, slots=0)
    assert store.get(run_id).worker == this_worker()


def test_the_log_of_the_next_worker_outlives_the_last_one(store):
    """The last one found settings for a while after it had left its run."""
    run_id = store.create_at_work(NETWORK, SHORT, "shapes", None, this_worker(), slots=99)
    store.claim(run_id, this_worker())
    log = log_path(store, run_id)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("of the next one")
    supervisor._wait(store, run_id, subprocess.Popen(["/bin/true"]), lambda: None)
    assert log.read_text() == "of the next one"
    assert store.get(run_id).state == "running"


@pytest.mark.parametrize("answers", [False, True])
def test_a_worker_that_gave_up_while_the_store_was_away_is_not_said_to_have_crashed(
    store, monkeypatch, answers
):
    """Its server could not record its end either; the next look does, by code or by the log."""
    # What the system killed for memory in an earlier test tells nothing of this one.
    monkeypatch.setattr(process_memory, "KILLS", process_memory.KillWatch())
    run_id = store.create(NETWORK, SHORT, "shapes")
    process = subprocess.Popen(["/bin/sh", "-c", f"exit {supervisor.GAVE_UP}"])
    store.claim(run_id, WorkerId(this_host(), process.pid, "1"))
    log = log_path(store, run_id)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("" if answers else f"Its disk is full. {supervisor.GIVES_UP}\n")

    def away(*_):
        raise StoreError("Its disk is full.", "full")

    with monkeypatch.context() as outage:
        outage.setattr(store, "get", away)
        supervisor._wait(store, run_id, process, lambda: None)
    if not answers:  # another server, which did not start it
        supervisor._ended.clear()
    advance(store, slots=0)
    run = store.get(run_id)
    assert (run.state, run.worker) == ("interrupted", None)
    wanted = "The run store failed for too long" if answers else "Its disk is full. This worker"
    assert run.error.startswith(wanted)
    assert process.pid not in supervisor._ended


def test_a_run_that_must_wait_for_memory_is_not_started_in_anothers_place(store, monkeypatch):
    """Between the look at the oldest run and its reservation, another server takes that run."""
    small, large = (store.create(NETWORK, SHORT, "shapes") for _ in range(2))
    following = store.next_waiting

    def overtaken():
        run = following()
        if run is not None and run.id == small:
            assert store.reserve(9, "another computer") == small
        return run

    monkeypatch.setattr(store, "next_waiting", overtaken)
    monkeypatch.setattr(
        admission, "waits_for_memory", lambda run, _: "it waits" if run.id == large else None
    )
    monkeypatch.setattr(supervisor, "start", lambda *_, **__: pytest.fail("it was started"))
    assert advance(store, slots=2) == []
    assert store.get(large).worker is None


def test_threads_follow_what_the_training_has_not_what_it_had(store):
    """Changes that a run has yet to repeat come to it without the reporter."""
    asked = []
    training = SimpleNamespace(threads=1, change_threads=asked.append)
    reporter = reporting.Reporter(store, 1, 1)
    reporter.watch(training, {}, lambda sharing: 2 // sharing)
    reporter._share_cores(2)
    assert asked == []
    training.threads = 2  # as it was then, beside nobody
    reporter._share_cores(2)
    assert asked == [1]


def test_a_run_that_cannot_work_is_refused_before_it_is_made(store):
    with pytest.raises(ConfigError, match="no data set 'imagenet'"):
        start_run(store, NETWORK, SHORT, "imagenet")
    last = replace(NETWORK.blocks[-1], channels=(8, 8, 5))
    five = replace(NETWORK, num_classes=5, blocks=(*NETWORK.blocks[:-1], last))
    with pytest.raises(ConfigError, match="10 would work"):
        start_run(store, five, RECIPES["fast"].configure(five), "shapes")
    assert store.list_runs() == []


def test_nothing_to_do_writes_nothing(store, monkeypatch):
    run_id = store.create(NETWORK, SHORT, "shapes")
    store.claim(run_id, this_worker())
    monkeypatch.setattr(store, "_write", lambda: pytest.fail("it wrote"))
    assert advance(store) == []
