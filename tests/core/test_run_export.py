"""A run's curves as files, each read back by another program's reader."""

from __future__ import annotations

import csv
import io
import json

import pytest

from nin_core import PRESETS, run_export
from nin_core.__main__ import main
from nin_core.recipes import RECIPES
from nin_core.records import MetricRow
from nin_core.store import RunStore

NETWORK = PRESETS["nin-slim-128"]
ROWS = (
    MetricRow("step", 1, 1, 0.5, 2.25, 0.125, None, None, None, 0.05, 4000.0),
    MetricRow("step", 1, 2, 1.0, 2.0, 0.25, 1.75, 0.5, 100, 0.04, 4100.0, 0.5, 0.25, '{"a": 3}'),
    MetricRow("epoch", 1, 2, 1.5, 2.125, 0.1875, 1.5, 0.625, 1000, 0.04, 4100.0),
)

INSIDE = ("norm/gradient", "norm/update", "dead_channels/a")


@pytest.fixture
def run_id(store: RunStore) -> int:
    made = store.create(NETWORK, RECIPES["fast"].configure(NETWORK), "shapes", 'a, "b"')
    store.add_metrics(made, ROWS)
    return made


def test_csv_has_every_point_and_leaves_out_what_was_not_measured(store, run_id) -> None:
    lines = list(csv.DictReader(io.StringIO(run_export.as_csv(store.metrics(run_id)))))
    assert [line["step"] for line in lines] == ["1", "2", "2"]
    assert lines[0]["test_accuracy"] == ""
    assert [float(line["train_loss"]) for line in lines] == [2.25, 2.0, 2.125]


def test_json_has_the_run_with_its_points(store, run_id) -> None:
    read = json.loads(run_export.as_json(store.get(run_id), store.metrics(run_id)))
    assert (read["id"], read["name"], read["dataset"]) == (run_id, 'a, "b"', "shapes")
    assert read["network"] == json.loads(json.dumps(NETWORK.to_dict()))
    assert [point["test_examples"] for point in read["metrics"]] == [None, 100, 1000]
    assert "id" not in read["metrics"][0]


def test_tensorboards_own_reader_finds_the_curves(store, run_id, tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, rows = store.get(run_id), store.metrics(run_id)
    file = tmp_path / run_export.events_name(run)
    file.write_bytes(run_export.as_tensorboard(run, rows))
    found = EventAccumulator(str(tmp_path)).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("loss/train")]
    assert losses == [(1, 2.25), (2, 2.0)]
    inside = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in INSIDE}
    assert inside == {INSIDE[0]: [(2, 0.5)], INSIDE[1]: [(2, 0.25)], INSIDE[2]: [(2, 3)]}
    tests = [(event.step, event.value) for event in found.Scalars("accuracy/test")]
    assert tests == [(2, 0.5), (2, 0.625)]
    assert found.Scalars("loss/train")[1].wall_time == pytest.approx(
        run.created_at.timestamp() + 1.0, abs=0.01
    )


def test_without_tensorboard_it_is_said_how_to_get_it(store, run_id, monkeypatch) -> None:
    monkeypatch.setattr(run_export, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-tensorboard\.txt"):
        run_export.as_tensorboard(store.get(run_id), [])


def test_the_command_line_writes_them(store, run_id, tmp_path, capsys) -> None:
    number = str(run_id)
    assert main(["runs", "export", number]) == 0
    assert capsys.readouterr().out == run_export.as_csv(store.metrics(run_id))
    file = tmp_path / "run.json"
    assert main(["runs", "export", number, "--format", "json", "--output", str(file)]) == 0
    assert json.loads(file.read_text())["id"] == run_id
    assert main(["runs", "export", number, "--format", "tensorboard"]) == 2
    assert "--output events.out.tfevents." in capsys.readouterr().err
    assert main(["runs", "export", number, "--format", "xls"]) == 2
    assert "'csv', 'json'" in capsys.readouterr().err
    weights = ["--format", "safetensors", "--output", str(tmp_path / "w")]
    assert main(["runs", "export", number, *weights]) == 2
    assert capsys.readouterr().err == f"Run #{number} has no weights.\n"
