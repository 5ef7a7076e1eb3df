"""The command line: what it prints, what it refuses, and that a training run is a run like any."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from nin_core import admission, jobs, worker
from nin_core.__main__ import main
from nin_core.cli import training as training_commands
from nin_core.config import PRESETS
from nin_core.machine import PROJECT
from nin_core.processes import this_worker
from nin_core.recipes import RECIPES
from nin_core.records import WorkerId
from nin_core.store import RunStore
from nin_core.summary import summarize

EVENT_KEYS = {
    "event",
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "examples_per_second",
    "seconds",
}
SMALL = ("nin-28", "--widths", "6,8,8", "--dataset", "shapes")


@pytest.fixture(autouse=True)
def _no_lower_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` lowers its process's; here that would be the other tests'."""
    monkeypatch.setattr(worker, "_lower_priority", lambda: None)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "nin_core", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=PROJECT, capture_output=True, text=True)


def lines(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


# --- summary ----------------------------------------------------------------------------------


def test_summary_as_json(capsys):
    assert main(["summary", "nin-224", "--json"]) == 0
    (summary,) = lines(capsys.readouterr().out)
    assert list(summary) == ["name", "total_parameters", "total_macs", "layers"]
    assert summary["name"] == "nin-224"
    assert summary["total_parameters"] == 1_992_166
    assert summary["total_macs"] == 762_297_352
    assert summary["layers"][0] == {
        "name": "block1.conv",
        "kind": "conv",
        "output_shape": [96, 54, 54],
        "parameters": 11_712,
        "macs": 33_872_256,
        "receptive_field": 11,
    }
    assert len(summary["layers"]) == len(PRESETS["nin-224"].plan())


def test_summary_for_people_is_aligned_and_complete(capsys):
    assert main(["summary", "nin-slim-128"]) == 0
    out = capsys.readouterr().out
    assert "10,846" in out
    assert "1,464,280" in out
    table = out.splitlines()[2:]
    column = table[0].index("kernel") + len("kernel")
    assert table[2][:column].endswith("11×11")
    assert all(layer.name in out for layer in summarize(PRESETS["nin-slim-128"]).layers)


def test_summary_of_a_changed_network(capsys):
    options = ["--widths", "8,16,32", "--global-pool", "avg", "--no-final-relu", "--batch-norm"]
    assert main(["summary", "nin-slim-128", "--json", *options]) == 0
    (summary,) = lines(capsys.readouterr().out)
    kinds = [layer["kind"] for layer in summary["layers"]]
    assert "global_avg_pool" in kinds
    assert "batch_norm" in kinds
    assert kinds[-3:] == ["conv1x1", "global_avg_pool", "flatten"]
    assert summary["layers"][0]["output_shape"] == [8, 30, 30]


def test_summary_imports_neither_torch_nor_the_store():
    code = (
        "import sys; from nin_core.__main__ import main; main(['summary', 'nin-224', '--json']);"
        "print([m for m in ('torch', 'sqlalchemy', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["summary", "nin-9"], "nin-slim-128"),
        (["summary", "nin-224", "--widths", "96,x"], "96,256,384 would work"),
        (["summary", "nin-224", "--widths", "96"], "3 would work"),
        (["summary", "nin-224", "--widths", "96,0,384"], "block 2"),
        (["summary", "nin-224", "--image-size", "20"], "would work"),
        (["summary", "nin-224", "--global-pool", "min"], "'max', 'avg'"),
        (["summary", "nin-224", "--batch-size", "0"], "1 would work"),
        (["train", "nin-28", "--recipe", "slow"], "tutorial"),
        (["train", "nin-28", "--epochs", "0"], "1 would work"),
        (["train", "nin-28", "--epochs", "many"], "--epochs"),
        (["train", "nin-28", "--dataset", "imagenet"], "fashion-mnist"),
        (["data", "imagenet"], "fashion-mnist"),
        (["fly"], "summary"),
        ([], "required"),
    ],
)
def test_an_error_is_one_sentence_on_stderr(arguments, words, capsys, store):
    try:
        code = main(arguments)
    except SystemExit as end:  # argparse's way
        code = end.code
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert words in printed.err
    assert printed.err.strip().endswith(".")
    assert store.list_runs() == []


def test_a_store_that_cannot_be_used(tmp_path, monkeypatch, capsys):
    path = tmp_path / "diary.db"
    path.write_text("Dear diary, " * 1000)
    monkeypatch.setenv("NIN_DATABASE_URL", f"sqlite:///{path}")
    for arguments in (["runs"], ["train", "nin-28"]):
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "damaged" in printed.err


# --- train and runs ---------------------------------------------------------------------------


@pytest.mark.slow
def test_train_as_json_is_a_run_in_the_store(store):
    done = run(
        "train",
        *SMALL,
        "--epochs",
        "1",
        "--subset",
        "640",
        "--seed",
        "3",
        "--run-name",
        "mine",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    events = lines(done.stdout)
    (start,) = (event for event in events if event["event"] == "start")
    assert start == {"event": "start", **store.get(events[-1]["run_id"]).start._asdict()}
    events.remove(start)
    assert {event["event"] for event in events[:-1]} == {"step", "epoch"}
    assert all(event.keys() == EVENT_KEYS for event in events[:-1])
    end = events[-1]
    assert end.keys() == EVENT_KEYS | {"state", "run_id"}
    assert (end["event"], end["state"], end["step"]) == ("end", "finished", 10)
    kept = store.get(end["run_id"])
    assert (kept.name, kept.state, kept.worker) == ("mine", "finished", None)
    assert (kept.train.seed, kept.train.subset, kept.network.widths) == (3, 640, (6, 8, 8))
    assert kept.has_checkpoint
    assert kept.has_evaluation
    rows = store.metrics(kept.id)
    assert [row.train_loss for row in rows] == [event["train_loss"] for event in events[:-1]]
    assert end["test_accuracy"] == kept.test_accuracy


@pytest.mark.slow
def test_ctrl_c_stops_and_keeps(store):
    process = subprocess.Popen(
        command("train", *SMALL, "--epochs", "500", "--json"),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = json.loads(process.stdout.readline())
    assert first["event"] == "step"
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=180)
    assert process.returncode == 130, errors
    end = lines(rest)[-1]
    assert (end["event"], end["state"]) == ("end", "stopped")
    assert store.load_checkpoint(end["run_id"]).step >= 1
    assert errors == ""


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_run(store):
    process = subprocess.Popen(
        command("train", *SMALL, "--epochs", "500", "--json"),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.stdout.close()
    _, errors = process.communicate(timeout=180)
    assert "Traceback" not in errors
    (kept,) = store.list_runs()
    assert (kept.state, kept.has_checkpoint, kept.worker) == ("stopped", True, None)


def test_a_failed_run_is_an_error(store, monkeypatch, capsys):
    from nin_core import training

    def events(self):
        raise RuntimeError("boom")
        yield

    monkeypatch.setattr(training.Training, "events", events)
    assert main(["train", *SMALL]) == 2
    assert capsys.readouterr().err == "RuntimeError: boom\n"
    (kept,) = store.list_runs()
    assert kept.state == "failed"
    assert "Traceback" in store.log(kept.id)


def test_runs_as_a_table_and_as_json(store, capsys):
    assert main(["runs"]) == 0
    assert "no runs yet" in capsys.readouterr().out
    network = PRESETS["nin-slim-128"]
    first = store.create(network, RECIPES["fast"].configure(network), "shapes")
    second = store.create(network, RECIPES["tutorial"].configure(network), "mnist")
    store.transition(second, "failed", error="Memory ran out.")
    assert main(["runs"]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "name", "data"]
    assert [row.split()[0] for row in rows] == [f"#{second}", f"#{first}"]
    assert "Memory ran out." in rows[0]
    assert main(["runs", "--json", "--limit", "1"]) == 0
    (object_,) = lines(capsys.readouterr().out)
    assert (object_["id"], object_["state"]) == (second, "failed")
    assert object_["train"]["recipe"] == "tutorial"


def test_a_run_is_paused_and_deleted_by_number(store, capsys):
    network = PRESETS["nin-slim-128"]
    run_id = store.create(network, RECIPES["fast"].configure(network), "shapes")
    assert main(["runs", "pause", str(run_id)]) == 0
    assert capsys.readouterr().out == f"Run #{run_id} is paused.\n"
    assert main(["runs", "delete", str(run_id)]) == 0
    assert store.list_runs() == []
    assert main(["runs", "resume", str(run_id)]) == 2
    assert f"There is no run #{run_id}" in capsys.readouterr().err
    assert main(["runs", "pause"]) == 2
    assert "`runs pause 5`" in capsys.readouterr().err


def test_a_stop_says_what_could_not_be_measured(store, capsys, monkeypatch):
    network = PRESETS["nin-slim-128"]
    run_id = store.create(network, RECIPES["fast"].configure(network), "shapes")
    store.request(run_id, "paused")
    store.save_checkpoint(run_id, 2, 1, b"weights")
    monkeypatch.setattr("nin_core.jobs.measure_each", lambda *_, **__: None)
    assert main(["runs", "stop", str(run_id)]) == 0
    said = f"Run #{run_id} is stopped, and not measured; `runs measure {run_id}` would do that.\n"
    assert capsys.readouterr().out == said


def test_what_has_ended_is_not_stopped_without_a_word(store, capsys):
    network = PRESETS["nin-slim-128"]
    run_id = store.create(network, RECIPES["fast"].configure(network), "shapes")
    store.request(run_id, "stopped")
    for action in ("pause", "stop"):
        assert main(["runs", action, str(run_id)]) == 2
        said = f"Run #{run_id} is stopped; there is nothing to {action}.\n"
        assert capsys.readouterr().err == said


def test_one_run_is_shown_with_why_it_failed_and_its_log(store, capsys, monkeypatch):
    monkeypatch.setattr("nin_core.jobs.available_cores", lambda: 1)
    network = PRESETS["nin-slim-128"]
    train = RECIPES["fast"].configure(network)
    first, failed, waiting = (store.create(network, train, "shapes") for _ in range(3))
    why = "The loss is no longer a finite number; " + "a lower rate would work. " * 4
    store.claim(first, WorkerId("elsewhere/1", 1))
    store.transition(failed, "failed", error=why, log="Traceback …\nValueError")
    assert main(["runs", "show", str(failed)]) == 0
    said = capsys.readouterr().out
    assert why in said and "  ValueError" in said
    assert main(["runs", "show", str(waiting)]) == 0
    assert "Waiting for its turn, 0 before it" in capsys.readouterr().out
    for command in (["runs", "show", str(failed), "--json"], ["runs", "--json", "show", "1"]):
        assert main(command) == 0
        (shown,) = lines(capsys.readouterr().out)
        assert {"id", "error", "log", "place", "network"} <= set(shown)


def test_the_start_of_a_run_is_looked_at(capsys):
    plan = ["nin-slim-128", "--dataset", "shapes", "--recipe"]
    assert main(["check", *plan, "fast"]) == 0
    said = capsys.readouterr().out
    assert "dead" in said and "Ready: " in said
    for seed in range(4):
        code = main(["check", *plan, "tutorial", "--seed", str(seed), "--json"])
        (found,) = lines(capsys.readouterr().out)
        assert found["verdict"] != "ready" and "class maps" in found["sentence"]
        assert code == (found["verdict"] == "stalled")


def test_train_waits_for_a_slot(store, capsys, monkeypatch):
    network = PRESETS["nin-slim-128"]
    train = RECIPES["fast"].configure(network)
    busy = store.create_at_work(network, train, "shapes", None, this_worker(), slots=1)
    monkeypatch.setattr(jobs, "slots_here", lambda: 1)
    monkeypatch.setattr(training_commands, "WAIT_SECONDS", 0.01)
    looked = []

    def advance(store, **_):
        looked.append(len(store.list_runs()))
        if len(looked) == 3:
            store.delete(busy)

    store.request(busy, "stopped")
    monkeypatch.setattr(jobs, "try_advance", advance)
    assert main(["train", *SMALL, "--subset", "640"]) == 0
    assert looked[:3] == [1, 1, 1]
    assert capsys.readouterr().err.startswith("1 run trains here already; this one begins when")


def test_train_waits_for_memory(store, capsys, monkeypatch):
    """As a queued run does; it says once why."""
    waits = iter(["it waits for memory: it needs a lot"] * 2)
    monkeypatch.setattr(admission, "lacks_memory", lambda *_: next(waits, None))
    monkeypatch.setattr(training_commands, "WAIT_SECONDS", 0.01)
    assert main(["train", *SMALL, "--subset", "640"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("It waits for memory: it needs a lot. Ctrl-C gives up.\n")
    assert said.count("waits for memory") == 1


def test_a_run_is_renamed_duplicated_continued_and_changed_by_number(store, capsys, monkeypatch):
    monkeypatch.setattr("nin_core.jobs.available_cores", lambda: 0)
    network = PRESETS["nin-slim-128"]
    run_id = store.create(network, RECIPES["fast"].configure(network), "shapes")
    number = str(run_id)
    assert main(["runs", "rename", number, "wide one"]) == 0
    assert capsys.readouterr().out == f"Run #{run_id} is queued and called wide one.\n"
    assert main(["runs", "rate", number, "0.01"]) == 0
    assert "goes on with a learning rate of 0.01" in capsys.readouterr().out
    assert store.get(run_id).desired_rate == 0.01
    assert main(["runs", "rate", number, "100"]) == 2
    assert "10 would work" in capsys.readouterr().err
    assert main(["runs", "continue", number, "2"]) == 2
    assert "only a run that is finished can get more epochs" in capsys.readouterr().err
    store.transition(run_id, "running")
    store.transition(run_id, "finished")
    assert main(["runs", "continue", number, "2"]) == 0
    assert store.get(run_id).train.more_epochs == (2,)
    assert main(["runs", "continue", number]) == 2
    assert "`runs continue 5 2`" in capsys.readouterr().err
    twin = ["runs", "duplicate", number, "--seed", "4", "--epochs", "3", "--run-name", "twin"]
    assert main(twin) == 0
    assert "queued: twin" in capsys.readouterr().out
    made = store.list_runs()[0]
    assert (made.train.seed, made.train.total_epochs, made.name) == (4, 3, "twin")


def test_runs_reads_the_store_of_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NIN_DATABASE_URL", f"sqlite:///{tmp_path}/other.db")
    network = PRESETS["nin-28"]
    RunStore().create(network, RECIPES["fast"].configure(network), "shapes", "elsewhere")
    main(["runs"])
    assert "elsewhere" in capsys.readouterr().out


def test_data_says_where_and_what(capsys):
    assert main(["data", "shapes"]) == 0
    out = capsys.readouterr().out
    assert "6,000 training and 1,000 test images, 1×28×28, 10 classes" in out
