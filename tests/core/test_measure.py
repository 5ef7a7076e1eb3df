"""A measurement in a process of its own: what it finds, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from nin_core import PRESETS, ConfigError, summarize
from nin_core import machine as machines
from nin_core import measure as measuring
from nin_core.ledger import OPTIMIZERS, inference_ledger, step_peak, training_ledger
from nin_core.machine import Machine
from nin_core.measure import PROCESS_BYTES, MeasureRequest, MeasureResult, refusal
from nin_core.measurements import Measurement, Measurements

SLIM = PRESETS["nin-slim-128"]
REQUEST = MeasureRequest(SLIM, 8)
LONG = MeasureRequest(PRESETS["nin-224"], 64)  # runs until it is ended
PATIENCE = 120


def run(request: str, *, as_argument: bool = True) -> tuple[int, list[dict[str, Any]]]:
    """The process's exit code and what it printed, line by line."""
    command = [sys.executable, "-m", "nin_core.measure", *([request] if as_argument else [])]
    done = subprocess.run(
        command,
        input=None if as_argument else request,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=machines.PROJECT,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def becomes_true(condition: Any, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


# --- what it finds ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """nin-slim-128, batch 8, as a script would ask for it on stdin."""
    code, printed = run('{"network": "nin-slim-128", "batch_size": 8}', as_argument=False)
    assert code == 0, printed
    return printed


def test_saved_bytes_are_the_prediction_to_the_byte(lines: list[dict[str, Any]]) -> None:
    result = MeasureResult.from_dict({k: v for k, v in lines[-1].items() if k != "event"})
    assert result.saved_bytes == summarize(SLIM, 8).saved_bytes == 1_611_648


def test_the_lines_are_progress_then_one_result(lines: list[dict[str, Any]]) -> None:
    *progress, last = lines
    assert {line["event"] for line in progress} == {"progress"}
    assert all(set(line) == {"event", "stage", "done"} for line in progress)
    done = [line["done"] for line in progress]
    assert done == sorted(done)
    assert done[0] == 0.0
    assert done[-1] == pytest.approx(1.0)
    assert last.pop("event") == "result"
    result = MeasureResult.from_dict(last)
    assert json.loads(json.dumps(asdict(result))) == last


def test_every_layer_has_times_that_make_up_the_step(lines: list[dict[str, Any]]) -> None:
    result = MeasureResult.from_dict({k: v for k, v in lines[-1].items() if k != "event"})
    assert [layer.name for layer in result.layers] == [r.name for r in summarize(SLIM).layers]
    assert all(layer.forward > 0 and layer.backward > 0 for layer in result.layers)
    inside = sum(layer.forward + layer.backward for layer in result.layers)
    assert inside <= 1.5 * result.hooked_step  # medians of parts and whole are of different steps
    assert result.threads == 1
    assert result.timed_steps >= measuring.MIN_STEPS
    assert min(result.forward, result.backward, result.update) > 0
    assert result.machine.flops_per_second > result.machine.bytes_per_second / 100 > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak")
def test_peaks_are_near_the_prediction() -> None:
    """nin-28, batch 64: 68 MB, large enough for a process's size to tell."""
    code, printed = run('{"network": "nin-28", "batch_size": 64, "optimizer": "adamw"}')
    assert code == 0, printed
    result = MeasureResult.from_dict({k: v for k, v in printed[-1].items() if k != "event"})
    summary = summarize(PRESETS["nin-28"], 64)
    assert result.saved_bytes == summary.saved_bytes
    assert "high-water mark" in result.peak_method
    assert result.peak_bytes == pytest.approx(step_peak(summary, "adamw").bytes, rel=0.1)
    predicted = inference_ledger(summary).total(64)
    assert result.inference_bytes == pytest.approx(predicted, rel=0.25)


# --- what it refuses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "object with named fields"),
        ("{}", "needs network, batch_size"),
        ('{"network": "nin-9", "batch_size": 1}', "there is no preset 'nin-9'"),
        ('{"network": "nin-28", "batch_size": 0}', "between 1 and 65,536"),
        ('{"network": "nin-28", "batch_size": 1}', "a batch of 2 would work"),
        ('{"network": "nin-28", "batch_size": 8, "optimizer": "lion"}', "one of 'sgd'"),
        ('{"network": "nin-28", "batch_size": 8, "speed": 1}', "no field 'speed'"),
    ],
)
def test_a_wrong_request_gets_one_sentence(request_text: str, said: str) -> None:
    code, (line,) = run(request_text)
    assert code == measuring.REFUSED
    assert line["event"] == "error"
    assert said in line["message"]


def test_what_does_not_fit_is_refused_with_a_batch_that_does() -> None:
    ledger = training_ledger(summarize(SLIM))
    available = PROCESS_BYTES + ledger.total(100)
    assert refusal(replace(REQUEST, batch_size=100), available) is None
    error = refusal(replace(REQUEST, batch_size=101), available)
    assert error is not None
    assert "a batch of 100 would fit" in str(error)
    assert error.suggestion == 100
    hopeless = refusal(REQUEST, 10_000)
    assert hopeless is not None
    assert "narrower blocks" in str(hopeless)


def test_the_process_refuses_before_it_loads_torch() -> None:
    """65,536 images of nin-224 are hundreds of gigabytes."""
    code, (line,) = run('{"network": "nin-224", "batch_size": 65536}')
    assert code == measuring.REFUSED
    assert "of memory are free" in line["message"]
    assert 1 <= line["suggestion"] < 65_536
    with pytest.raises(ConfigError, match="would fit"):
        Measurements().start(replace(LONG, batch_size=65_536))


# --- how it ends ------------------------------------------------------------------------------


def test_a_cancelled_measurement_is_gone_and_can_be_started_again() -> None:
    all_of_them = Measurements()
    measurement = all_of_them.start(LONG)
    assert all_of_them.running() is measurement
    assert all_of_them.start(LONG) is measurement
    with pytest.raises(ConfigError, match="another measurement is running"):
        all_of_them.start(REQUEST)
    measurement.cancel()
    assert becomes_true(lambda: is_gone(measurement.pid))
    assert measurement.look() == "cancelled"
    assert all_of_them.running() is None
    again = all_of_them.start(REQUEST)
    assert again.wait(PATIENCE) == "done", again.problem
    assert all_of_them.find(REQUEST) is again
    assert again.result is not None
    assert again.result.saved_bytes == summarize(SLIM, 8).saved_bytes


def test_a_killed_process_is_said_to_be() -> None:
    measurement = Measurement(LONG)
    os.kill(measurement.pid, signal.SIGKILL)
    assert measurement.wait(30) == "failed"
    assert "was killed" in measurement.problem


def test_it_ends_when_its_time_is_up() -> None:
    measurement = Measurement(replace(LONG, time_limit=3))
    assert measurement.wait(60) == "failed"
    assert "not done after 3 seconds" in measurement.problem
    assert "a batch of 16" in measurement.problem


def test_it_ends_when_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nin_core.measurements.UNWATCHED_SECONDS", 1.0)
    measurement = Measurement(LONG)
    assert becomes_true(lambda: is_gone(measurement.pid))


def test_it_ends_with_its_parent() -> None:
    """A server that is killed leaves nothing behind."""
    code = (
        "import os, signal, sys\n"
        "from nin_core import PRESETS\n"
        "from nin_core.measure import MeasureRequest\n"
        "from nin_core.measurements import Measurement\n"
        "print(Measurement(MeasureRequest(PRESETS['nin-224'], 64)).pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=machines.PROJECT
    )
    pid = int(done.stdout)
    assert becomes_true(lambda: is_gone(pid))


# --- this computer ----------------------------------------------------------------------------

ROOF = Machine("cpu", "2.0", 1, 1e11, 2e10)


def test_the_roof_has_its_corner_where_memory_and_arithmetic_meet() -> None:
    assert ROOF.ridge == 5
    assert ROOF.attainable(5) == ROOF.attainable(50) == 1e11
    assert ROOF.attainable(1) == 2e10
    assert ROOF.seconds(1e11, 0) == ROOF.seconds(0, 2e10) == 1


def test_the_best_peaks_stand_and_are_read_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIN_DATABASE_URL", f"sqlite:///{tmp_path / 'runs.db'}")
    found = [ROOF, replace(ROOF, flops_per_second=2e11, bytes_per_second=1e10)]
    monkeypatch.setattr(
        machines, "measure_machine", lambda threads: replace(found.pop(0), threads=threads)
    )
    assert machines.known_machine() is None
    assert machines.measured_machine() == machines.known_machine() == ROOF
    best = replace(ROOF, flops_per_second=2e11)
    assert machines.measured_machine() == machines.known_machine() == best
    assert machines.known_machine(2) is None
    (tmp_path / "machine.json").write_text('{"x": 1}')
    assert machines.known_machine() is None


def test_free_memory_heeds_a_containers_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machines.memory()
    assert found is not None
    assert 0 < found.available <= found.total
    (tmp_path / "memory.max").write_text("max\n")
    assert machines._container(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    limit = machines._container(tmp_path)
    assert limit == (1_000_000, 600_000)
    monkeypatch.setattr(machines, "_container", lambda: limit)
    assert machines.memory() == limit


def test_requests_travel_as_json() -> None:
    for name in OPTIMIZERS:
        request = MeasureRequest(PRESETS["nin-cifar10"], 3, name)
        assert MeasureRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request
