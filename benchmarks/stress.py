"""Runs survive: workers and servers killed at random moments, and many writers on one database.

    python -m benchmarks.stress                      (some minutes)
    python -m benchmarks.stress --postgresql [URL]   (as long again on PostgreSQL: the empty
                                                      database there, else a server of its own)

`kills` trains the same tiny run twice at once, while their workers and their servers are killed
(SIGKILL) at random moments. A copy that finishes meanwhile goes on for more epochs. In the end both
must have the weights and the curves of the same run left in peace, to the bit; no worker may be
left over; the database must be whole. `writers` has processes add points to runs of their own as
fast as they can: no error, and as many rows as were written.

The tests do the same with fewer kills; the GitHub workflow runs this beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa

from nin_core import PRESETS, processes
from nin_core.checkpoints import load_weights
from nin_core.machine import PROJECT
from nin_core.recipes import RECIPES
from nin_core.records import Run, WorkerId
from nin_core.store import RunStore
from tests import postgres

GONE_SECONDS = 10.0  # within which the worker of a killed server must have ended
LIMIT_SECONDS = 3600.0
LONGEST_LIFE = 4.0  # seconds from a worker's claim until it is killed: loading, training, testing
EPOCHS = 20  # of a run, and that it goes on for where it has finished before the last kill
COPIES = 2

NETWORK = replace(PRESETS["nin-28"], image_size=16).with_widths((6, 8, 8))

# What a server does for its runs, without pages. A run that lost its worker gets its one click.
_SERVER = """
import sys, time
from nin_core import jobs
from nin_core.records import RESUMABLE, StateError
from nin_core.store import RunStore
store = RunStore()
jobs.keep_spare(store)
while True:
    for run in store.list_runs(states=RESUMABLE):
        try:
            store.resume(run.id)
        except StateError:
            pass
    jobs.advance(store, slots=int(sys.argv[1]))
    time.sleep(0.1)
"""

_WRITER = """
import os, sys, time
from nin_core import PRESETS
from nin_core.recipes import RECIPES
from nin_core.records import MetricRow, WorkerId
from nin_core.store import RunStore
network = PRESETS["nin-28"]
store = RunStore()
run_id = store.create(network, RECIPES["fast"].configure(network), "shapes")
attempt = store.claim(run_id, WorkerId("stress", os.getpid()))
print("ready", flush=True)
sys.stdin.readline()
end, step, worst = time.monotonic() + float(sys.argv[1]), 0, 0.0
while time.monotonic() < end:
    began = time.monotonic()
    rows = [MetricRow("step", 1, step + n, 0.1, 2.0, 0.1) for n in (1, 2)]
    store.add_metrics(run_id, rows, attempt=attempt)
    step += 2
    worst = max(worst, time.monotonic() - began)
    time.sleep(0.01)
print(run_id, step, worst)
"""


@dataclass(frozen=True)
class Survived:
    """What the kills came to: how many there were, and what the runs ended as.

    `attempts` and `epochs` are of all copies together.
    """

    worker_kills: int
    server_kills: int
    attempts: int
    epochs: int
    seconds: float
    same: bool
    orphans: int
    integrity: str


def outcome(store: RunStore, run_id: int) -> str:
    """A hash of all that a finished run learned and measured, not of how long it took."""
    run, checkpoint = store.get(run_id), store.load_checkpoint(run_id)
    assert run.state == "finished", f"{run.state}: {run.error}"
    assert checkpoint is not None
    rows = [
        replace(row, id=0, seconds=0.0, examples_per_second=None) for row in store.metrics(run_id)
    ]
    digest = hashlib.sha256(repr(rows).encode())
    for name, tensor in sorted(load_weights(checkpoint.blob).items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def kills(url: str, *, workers: int, servers: int, seed: int = 0) -> Survived:
    """Train the same run twice through so many kills, and once in peace.

    Raises:
        AssertionError: if a killed server's worker does not end in time, or a run fails.
    """
    chance = random.Random(seed)
    store = RunStore(url)
    train = RECIPES["fast"].configure(NETWORK, epochs=EPOCHS, subset=640)
    began = time.monotonic()
    left = {"worker": workers, "server": servers}
    seen: set[WorkerId] = set()
    copies = [store.create(NETWORK, train, "shapes") for _ in range(COPIES)]
    server = _serve(url)
    try:
        while sum(left.values()):
            worker = chance.choice(_at_work(store, copies))
            time.sleep(chance.uniform(0.0, LONGEST_LIFE))
            seen.update(_processes(map(store.get, copies)))
            if not processes.is_alive(worker):
                continue  # it ended by itself meanwhile
            victim = chance.choice([kind for kind, count in left.items() if count])
            left[victim] -= 1
            if victim == "server":
                server.kill()
                server.wait()
                started = frozenset(seen)
                _until(lambda s=started: not _left_over(s), GONE_SECONDS, "its workers to end")
                server = _serve(url)
            else:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
        _finish_alike(store, copies)
        schedule = store.get(copies[0]).train
        assert schedule is not None
        peaceful = store.create(NETWORK, schedule, "shapes")
        _finish(store, peaceful)
    finally:
        server.kill()
        server.wait()
    return Survived(
        worker_kills=workers,
        server_kills=servers,
        attempts=sum(store.get(run_id).attempt for run_id in copies),
        epochs=schedule.total_epochs * COPIES,
        seconds=time.monotonic() - began,
        same=len({outcome(store, run_id) for run_id in (*copies, peaceful)}) == 1,
        orphans=len(_left_over(seen)),
        integrity=integrity(store),
    )


def integrity(store: RunStore) -> str:
    """ "ok", or what SQLite finds wrong with its file. (PostgreSQL checks what it reads.)"""
    if store.path is None:
        return "ok"
    with store.database.read() as connection:
        return str(connection.scalar(sa.text("PRAGMA integrity_check")))


def writers(url: str, *, processes: int, seconds: float) -> tuple[int, int, float]:
    """Have so many processes add points for so long.

    Returns:
        the rows that they say they wrote, the rows that are there, and the worst commit in seconds.

    Raises:
        AssertionError: if one of them fails.
    """
    store = RunStore(url)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(seconds)],
            cwd=PROJECT,
            env={**os.environ, "NIN_DATABASE_URL": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    written, found, worst = 0, 0, 0.0
    for process in started:
        said, errors = process.communicate(timeout=seconds + 120)
        assert process.returncode == 0, errors
        run_id, steps, slowest = said.split()
        written += int(steps)
        found += len(store.metrics(int(run_id)))
        worst = max(worst, float(slowest))
    store.close()
    return written, found, worst


def _processes(runs: Iterable[Run]) -> list[WorkerId]:
    """The workers of these runs; a place that is reserved for one to come is no process yet."""
    workers = [run.worker for run in runs if run.worker is not None]
    return [worker for worker in workers if worker.pid is not None]


def _left_over(workers: Iterable[WorkerId]) -> list[WorkerId]:
    return [worker for worker in workers if processes.is_alive(worker) is not False]


def _serve(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(COPIES)],
        cwd=PROJECT,
        # What is fastest here is not looked for meanwhile.
        env={**os.environ, "NIN_DATABASE_URL": url, "NIN_PROBE": "0"},
    )


def _at_work(store: RunStore, copies: Sequence[int]) -> list[WorkerId]:
    """The live workers of these runs, at least one; a run that has finished goes on."""
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        runs = [store.get(run_id) for run_id in copies]
        for run in runs:
            assert run.state != "failed", run.error
            if run.state == "finished" and run.worker is None:
                store.extend(run.id, EPOCHS)
        working = _processes(run for run in runs if run.state == "running")
        alive = [worker for worker in working if processes.is_alive(worker)]
        if alive:
            return alive
        time.sleep(0.05)
    raise AssertionError(f"runs {', '.join(map(str, copies))} did not go on")


def _finish_alike(store: RunStore, copies: Sequence[int]) -> None:
    """Have all these runs finish after as many epochs as the longest of them has."""
    for run_id in copies:
        _finish(store, run_id)
    while True:
        epochs = {run_id: _epochs(store, run_id) for run_id in copies}
        shorter = [run_id for run_id in copies if epochs[run_id] < max(epochs.values())]
        if not shorter:
            return
        store.extend(shorter[0], EPOCHS)
        _finish(store, shorter[0])


def _epochs(store: RunStore, run_id: int) -> int:
    train = store.get(run_id).train
    assert train is not None
    return train.total_epochs


def _finish(store: RunStore, run_id: int) -> None:
    def ended() -> bool:
        run = store.get(run_id)
        return run.state == "finished" and run.worker is None

    _until(ended, LIMIT_SECONDS, f"run {run_id} to finish")


def _until(there: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def main() -> int:
    """The full counts; 1 if anything did not survive."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=50, help="workers to kill (50)")
    parser.add_argument("--servers", type=int, default=10, help="servers to kill (10)")
    parser.add_argument("--writers", type=int, default=30, help="processes that write (30)")
    parser.add_argument("--seconds", type=float, default=20.0, help="that they write for (20)")
    parser.add_argument(
        "--postgresql",
        metavar="URL",
        nargs="?",
        const="",
        help="on an empty database there, too; without URL on a server started for it",
    )
    options = parser.parse_args()
    good = True
    with ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory())
        urls = [f"sqlite:///{Path(folder) / 'runs.db'}"]
        if options.postgresql is not None:
            urls.append(options.postgresql or held.enter_context(postgres.cluster())())
        for url in urls:
            kind = sa.make_url(url).get_backend_name()
            done = kills(url, workers=options.workers, servers=options.servers)
            good &= done.same and not done.orphans and done.integrity == "ok"
            print(
                f"{kind}: {done.worker_kills} workers and {done.server_kills} servers killed, "
                f"{done.attempts} attempts at {done.epochs} epochs in {done.seconds:.0f} s: "
                f"{'the same' if done.same else 'NOT the same'} weights and curves as in peace, "
                f"{done.orphans} processes left over, database {done.integrity}",
                flush=True,
            )
            written, found, worst = writers(url, processes=options.writers, seconds=options.seconds)
            good &= written == found
            print(
                f"{kind}: {options.writers} writers for {options.seconds:g} s: {written:,} rows "
                f"written, {found:,} there, slowest commit {1000 * worst:.0f} ms",
                flush=True,
            )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
