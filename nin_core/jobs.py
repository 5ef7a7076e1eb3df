"""The queue: one worker process per run, as many at once as there are cores.

Choices made here:

* There is no daemon. `advance` looks at the store, settles what died and starts what may start.
  Servers every few seconds, pages, the command line and every worker that ends call it; when there
  is nothing to do it costs one read.
* The queue and the slots are rows of the store (a run with a worker on it takes a slot of its
  host), so any number of servers and scripts on one database share them.
* A worker is `python -m nin_core.worker RUN_ID` in a session of its own: Ctrl-C in the server's
  terminal does not hit it. A pool of forked processes breaks under Streamlit, and one killed child
  breaks the pool.
* A server's workers end with it, however it ends: each notices that its parent is gone, keeps a
  checkpoint and puts its run back into the queue, where the next server finds it. Only those that
  a command starts (`outlive`), which is over the next moment, go on without it.
* Whether a worker of this host is alive is asked of the operating system (pid and the start time
  of that pid, so a reused number does not count); heartbeats decide for other hosts. A process
  that was merely asleep with its machine keeps its run.
* One waiting thread per started worker reaps it the moment it ends, learns its exit code, and
  moves the queue on, whether or not a page is open.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import admission, process_memory, spare
from .checkpoints import holds_training
from .checks import ConfigError
from .datasets import DATASETS
from .machine import PROJECT, accelerators, available_cores
from .processes import is_alive, start_mark, this_host
from .recipes import check_batches
from .records import Run, StateError, WorkerId, now
from .store import RunStore, StoreError

if TYPE_CHECKING:
    from .config import NiNConfig
    from .recipes import TrainConfig

# A worker on another host without a heartbeat for so long is gone. Servers look every few seconds,
# so it is said within ten.
SILENT_SECONDS = 6.0
START_SECONDS = 60.0  # how long a started process may take to claim its run
STOP_SECONDS = 10.0  # a worker that has not obeyed a stop by then is hung and gets killed
MAX_SPAWNS = 3  # starts of one run that came to nothing before it counts as failed
GAVE_UP = 4  # a worker's exit code when the store failed for too long; its last line says why
WHY_ORPHANED = "The server it ran under has ended."  # of a run that waits for the next one
LOG_TAIL = 16_000  # bytes of a worker's output that are kept
NICENESS = 10

# Processes of ours for which a thread waits. (After a hot reload this is a new, empty set: then
# whoever comes first settles a dead worker, without its exit code.)
_watched: set[int] = set()


# --- what pages and scripts call --------------------------------------------------------------


def start_run(
    store: RunStore,
    network: NiNConfig,
    train: TrainConfig,
    dataset: str,
    name: str | None = None,
    *,
    outlive: bool = False,
) -> int:
    """Put a run in the queue, start it if a slot is free, and return its number.

    Args:
        outlive: as for `advance`.

    Raises:
        ConfigError: if the network does not fit the data set, or the run not into memory.
        StoreError: if the run cannot be written down.
    """
    check_dataset(network, dataset)
    check_batches(network, train, DATASETS[dataset].train_size)
    admission.require(network, train, dataset)
    run_id = store.create(network, train, dataset, name)
    advance(store, outlive=outlive)
    return run_id


def stop_run(store: RunStore, run_id: int, *, outlive: bool = False) -> str:
    """Ask for a run to stop and return its state; one that trains ends within a second."""
    return _request(store, run_id, "stopped", outlive)


def pause_run(store: RunStore, run_id: int, *, outlive: bool = False) -> str:
    """Ask for a run to leave its worker and return its state; it can go on with `resume_run`."""
    return _request(store, run_id, "paused", outlive)


def resume_run(store: RunStore, run_id: int, *, outlive: bool = False) -> None:
    """Put a run that is paused, stopped, interrupted or failed back into the queue.

    Args:
        outlive: as for `advance`.

    Raises:
        ConfigError: if it cannot fit into this computer's memory.
        StateError: if it is in another state, or its checkpoint holds weights alone.
    """
    _require_can_go_on(store, run_id)
    store.resume(run_id)
    advance(store, outlive=outlive)


def extend_run(store: RunStore, run_id: int, epochs: int, *, outlive: bool = False) -> None:
    """Let a finished run train for more epochs.

    Args:
        outlive: as for `advance`.

    Raises:
        ConfigError: if they are none or too many, or it cannot fit into this computer's memory.
        StateError: if it has not finished, or its checkpoint holds weights alone.
    """
    _require_can_go_on(store, run_id)
    store.extend(run_id, epochs)
    advance(store, outlive=outlive)


def duplicate_run(
    store: RunStore,
    run_id: int,
    name: str | None = None,
    *,
    outlive: bool = False,
    **changes: Any,
) -> int:
    """Put a twin of a run in the queue and return its number.

    Args:
        outlive: as for `advance`.
        changes: fields of `TrainConfig` by name; the others, and all else, are the run's.

    Raises:
        ConfigError: for a value out of range.
        StateError: if this version cannot read the run.
    """
    run = store.get(run_id)
    if run.network is None or run.train is None:
        raise StateError(run.problem or f"Run #{run_id} cannot be read.")
    train = run.train.varied(**changes)
    return start_run(store, run.network, train, run.dataset, name, outlive=outlive)


def _require_can_go_on(store: RunStore, run_id: int) -> None:
    run = store.get(run_id)
    if run.network is not None and run.train is not None:
        admission.require(run.network, run.train, run.dataset)
    kept = store.load_checkpoint(run_id)
    if kept is not None and not holds_training(kept.blob):
        raise StateError(
            f"Run #{run_id} has weights, but nothing that its training could go on from; a "
            "duplicate of it would train anew."
        )


def _request(
    store: RunStore, run_id: int, ending: Literal["stopped", "paused"], outlive: bool
) -> str:
    state = store.request(run_id, ending)
    advance(store, outlive=outlive)
    return state


def advance(store: RunStore, *, slots: int | None = None, outlive: bool = False) -> list[int]:
    """Settle runs whose worker is gone and start queued ones in order while slots are free.

    Args:
        slots: workers at once; by default `slots_here()`.
        outlive: whether the workers go on when this process ends (see the module).

    Returns:
        the numbers of the runs for which a worker was started.
    """
    slots = slots_here() if slots is None else slots
    assigned, waiting = store.work()
    moment = now()
    settled = {run.id for run in assigned if _settle(store, run, moment)}
    left = [run for run in assigned if run.id not in settled and run.worker_host == this_host()]
    free = slots - len(left)
    started: list[int] = []
    here = [run for run in left if run.active]
    # The counts only save pointless writes; `reserve` decides, in one transaction.
    while waiting > 0 and free > 0:
        following = store.next_waiting()
        if following is None or admission.waits_for_memory(following, here):
            break
        run_id = store.reserve(slots, this_host(), _starting_mark())
        if run_id is None:
            break
        waiting, free = waiting - 1, free - 1
        if _start_worker(store, run_id, outlive):
            started.append(run_id)
            here.append(following)
    return started


def slots_here() -> int:
    """Runs that train at once here: one a core, or one a GPU where there are any."""
    cores, devices = available_cores(), accelerators()
    return min(cores, devices) if devices else cores


def keep_spare(store: RunStore) -> None:
    """Have a worker process ready for the next run that is started from this process."""
    spare.keep(store.url, log_path(store, 0).parent)


def check_dataset(network: NiNConfig, dataset: str) -> None:
    """Refuse a data set that is unknown or has more classes than the network.

    Raises:
        ConfigError: with the data sets there are, or the number of classes that would work.
    """
    if dataset not in DATASETS:
        raise ConfigError(
            f"there is no data set {dataset!r}; there are {', '.join(DATASETS)}.",
            field="dataset",
            suggestion="fashion-mnist",
        )
    classes = len(DATASETS[dataset].class_names)
    if network.num_classes < classes:
        raise ConfigError(
            f"the network has {network.num_classes} classes, but {dataset} has {classes}; "
            f"{classes} would work.",
            field="num_classes",
            suggestion=classes,
        )
    channels = DATASETS[dataset].channels
    if channels not in (1, network.in_channels) and network.in_channels != 1:
        raise ConfigError(
            f"the images of {dataset} have {channels} channels, and the network takes "
            f"{network.in_channels}; 1 or {channels} would work.",
            field="in_channels",
            suggestion=channels,
        )


# --- what becomes of workers -------------------------------------------------------------------


def _starting_mark() -> str:
    """What stands as a reserved run's mark until its worker has one: who is to start it."""
    return f"{os.getpid()}:{start_mark(os.getpid()) or ''}"


def _starter_died(worker: WorkerId) -> bool:
    """Whether the process that reserved a run for a worker is gone without having started it."""
    pid, found, mark = worker.mark.partition(":")
    return bool(found) and is_alive(WorkerId(worker.host, int(pid), mark)) is False


def _settle(store: RunStore, run: Run, moment: datetime) -> bool:
    """Free the slot of a run whose worker is gone. Returns whether it was."""
    worker = run.worker
    if worker is None:
        return False
    alive = is_alive(worker)
    silent = (moment - run.heartbeat_at).total_seconds() if run.heartbeat_at else 0.0
    if alive is None and run.state == "queued":
        # Reserved, but whoever was to start the process died, or it starts on another host.
        if silent < START_SECONDS and not _starter_died(worker):
            return False
        again = run.spawns < MAX_SPAWNS
        return store.lose(run, "No worker process could be started for it.", retry=again)
    if alive is None:
        if silent < SILENT_SECONDS:
            return False
        return store.lose(run, f"Its worker has not reported for {silent:.0f} seconds.")
    if alive:
        _kill_if_hung(run, worker, moment)
        return False
    if worker.pid in _watched:
        return False  # its thread is about to, and knows how it ended
    return _bury(store, run)


def _kill_if_hung(run: Run, worker: WorkerId, moment: datetime) -> None:
    """End a worker that does not obey a stop: hung, or deep in loading with nothing to keep."""
    if run.desired_state == "running" or run.desired_at is None:
        return
    if worker.pid is None or worker.pid == os.getpid():
        return
    waited = (moment - run.desired_at).total_seconds()
    loading = run.state == run.desired_state and run.step == 0 and not run.has_checkpoint
    if (loading and waited > 1) or (run.state == "running" and waited > STOP_SECONDS):
        with suppress(OSError):
            os.kill(worker.pid, signal.SIGKILL)


def _bury(
    store: RunStore, run: Run, code: int | None = None, *, memory_ran_out: bool = False
) -> bool:
    """Record that the process on `run` has ended without a last word; say why, keep its log.

    Args:
        code: the process's exit code, if it is known.
        memory_ran_out: whether the system killed for memory while it lived.
    """
    path = log_path(store, run.id)
    log = read_tail(path)
    if run.state == "interrupted" and run.error == WHY_ORPHANED:
        # It kept its checkpoint and came no further.
        store.release(run.id, run.attempt, log=log or None, requeue=True)
        return True
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        why = f"Its worker process was killed ({name})"
        if -code == getattr(signal, "SIGKILL", 9):
            if memory_ran_out:
                why = admission.ran_out(run)
            else:
                why += ", by someone or because memory ran out"
    elif code == GAVE_UP and last:
        why = last
    elif run.state == "queued":
        why = "Its worker process ended before it began"
        why += f" (exit code {code})" if code is not None else ""
        why += f": {last[:300]}" if last else ""
    else:
        why = "Its worker process ended unexpectedly"
    # One that was killed before it began has lost nothing; one that crashed would do so again.
    killed = code is None or code < 0
    retry = killed and run.state == "queued" and run.spawns < MAX_SPAWNS
    changed = store.lose(run, why.rstrip(".") + ".", log, retry=retry)
    if changed:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    return changed


# --- starting ---------------------------------------------------------------------------------


def log_path(store: RunStore, run_id: int) -> Path:
    """Where the output of a run's worker goes while it lives; the store keeps the end of it."""
    if store.path is not None:
        folder = store.path.with_name(store.path.name + "-logs")
    else:
        folder = PROJECT / "runs" / hashlib.sha256(store.url.encode()).hexdigest()[:12]
    return folder / f"run-{run_id}.log"


def read_tail(path: Path) -> str:
    """The end of a log file, "" if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - LOG_TAIL, 0))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _start_worker(store: RunStore, run_id: int, outlive: bool) -> bool:
    """Start the process for a reserved run, and a thread that waits for its end."""
    path = log_path(store, run_id)
    kills = process_memory.memory_kills()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        process = None if outlive else spare.take(store.url, run_id, path)
        together = [] if outlive else [spare.WITH, str(os.getpid())]
        if process is None:
            with path.open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "nin_core.worker", str(run_id), *together],
                    cwd=PROJECT,
                    env=spare.environment(store.url),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
    except OSError as error:
        why = f"No worker process could be started ({error.strerror or error})."
        store.lose(store.get(run_id), why)
        return False
    worker = WorkerId(this_host(), process.pid, start_mark(process.pid) or "")
    _watched.add(process.pid)
    try:
        store.assign(run_id, worker)
    finally:  # whatever happens, the process is reaped
        threading.Thread(
            target=_wait,
            args=(store, run_id, process, outlive, kills),
            name=f"wait-for-run-{run_id}",
            daemon=True,
        ).start()
    return True


def _wait(
    store: RunStore, run_id: int, process: subprocess.Popen[bytes], outlive: bool, kills: int
) -> None:
    """Reap a worker; if it left its run behind, say so; then move the queue on.

    A store that cannot be reached now is asked again by the next `advance`.
    """
    code = process.wait()
    try:
        with suppress(StoreError):
            run = store.get(run_id)
            if run.worker is not None and run.worker.pid == process.pid:
                obeyed = run.desired_state == "running"  # nobody here killed it as hung
                ran_out = obeyed and process_memory.memory_kills() > kills
                _bury(store, run, code, memory_ran_out=ran_out)
            elif run.worker is None:  # or the log is the next one's
                with suppress(OSError):
                    log_path(store, run_id).unlink(missing_ok=True)
    finally:
        _watched.discard(process.pid)
    with suppress(StoreError):
        advance(store, outlive=outlive)
