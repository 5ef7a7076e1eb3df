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
  of that pid, so a reused number does not count); heartbeats decide for other hosts, and where the
  system tells no start time. They go by the database's clock: those of two computers may differ. A
  process that was merely asleep with its machine keeps its run.
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
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import admission, process_memory, spare
from .checkpoints import holds_training
from .checks import ConfigError
from .datasets import DATASETS
from .machine import PROJECT, accelerators, available_cores
from .processes import is_alive, start_mark, this_host
from .recipes import check_batches
from .records import Run, StateError, WorkerId
from .store import RunStore, StoreError

if TYPE_CHECKING:
    from .config import NiNConfig
    from .recipes import TrainConfig

# A worker on another host without a heartbeat for so long is gone. Servers look every few seconds,
# so it is said within ten.
SILENT_SECONDS = 6.0
BACK_SECONDS = 12.0  # after an outage, in which workers ask again less and less often
START_SECONDS = 60.0  # how long a started process may take to claim its run
# A worker that has not obeyed a stop by then is hung and gets killed; one that has something to
# keep tries that for a minute.
STOP_SECONDS, KEEPING_SECONDS = 10.0, 75.0
MAX_SPAWNS = 3  # starts of one run that came to nothing before it counts as failed
GAVE_UP = 4  # a worker's exit code when the store failed for too long; its last line says why
NOT_BEGUN = 5  # and when it could not even claim its run
WHY_ORPHANED = "The server it ran under has ended."  # of a run that waits for the next one
TIMED_RUNS = 20  # the newest runs from which this computer's speed is taken
KILL_SECONDS = 1.0  # before a death is known, within which it has been counted
LOG_TAIL = 16_000  # bytes of a worker's output that are kept
NICENESS = 10

# Processes of ours for which a thread waits. (After a hot reload this is a new, empty set: then
# whoever comes first settles a dead worker, without its exit code.)
_watched: set[int] = set()
_failed_at: dict[str, float] = {}  # by the store's URL, when it did not answer last


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
    require(network, train, dataset)
    run_id = store.create(network, train, dataset, name)
    try_advance(store, outlive=outlive)
    return run_id


def require(network: NiNConfig, train: TrainConfig, dataset: str) -> None:
    """Refuse a run that could only fail, before it is written down.

    Raises:
        ConfigError: if the network does not fit the data set or the batches, or the run not into
            memory.
    """
    check_dataset(network, dataset)
    check_batches(network, train, DATASETS[dataset].train_size)
    admission.require(network, train, dataset)
    admission.require_keepable(network, train)


def stop_run(store: RunStore, run_id: int, *, outlive: bool = False) -> str:
    """Ask for a run to stop and return its state; one that trains ends within a second.

    Its worker measures what it has learned. A paused one has none, so it is measured beside, or,
    with `outlive`, before this returns.
    """
    before = store.get(run_id)
    state = _request(store, run_id, "stopped", outlive)
    if before.state == "paused" and before.has_checkpoint and not before.has_evaluation:
        from .scoring import measure_again  # which builds on this module

        with suppress(ConfigError, StoreError):  # it is stopped; it can be measured at any time
            measure_again(store, run_id, wait=outlive)
    return state


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
    try_advance(store, outlive=outlive)


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
    try_advance(store, outlive=outlive)


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
    try_advance(store, outlive=outlive)
    return state


def try_advance(store: RunStore, *, slots: int | None = None, outlive: bool = False) -> str | None:
    """`advance` beside something else, which has been done or can be done all the same.

    A store that can be read but not written (full, locked) must not hide its runs, and a run that
    is queued has not been refused. The queue is looked at again soon, by whoever does next.

    Returns:
        what is wrong with the store, in a sentence; None if nothing is.
    """
    try:
        advance(store, slots=slots, outlive=outlive)
    except StoreError as error:
        return str(error)
    return None


def advance(store: RunStore, *, slots: int | None = None, outlive: bool = False) -> list[int]:
    """Settle runs whose worker is gone and start queued ones in order while slots are free.

    Args:
        slots: workers at once; by default `slots_here()`.
        outlive: whether the workers go on when this process ends (see the module).

    Returns:
        the numbers of the runs for which a worker was started.
    """
    slots = slots_here() if slots is None else slots
    try:
        assigned, waiting = store.work()
    except StoreError:
        _failed_at[store.url] = time.monotonic()
        raise
    process_memory.KILLS.look()
    settled = {run.id for run in assigned if _settle(store, run)}
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
        if not _start_worker(store, run_id, outlive):
            break  # the next one would fare no better
        started.append(run_id)
        here.append(following)
    return started


def slots_here() -> int:
    """Runs that train at once here: one a core, or one a GPU where there are any."""
    cores, devices = available_cores(), accelerators()
    return min(cores, devices) if devices else cores


def place_of(
    store: RunStore, run: Run, speed: float | None = None
) -> tuple[admission.Place | None, str | None]:
    """Where a queued run stands here, and why it does not start although it is its turn.

    Other computers on the database have slots and memory of their own.

    Args:
        speed: this computer's, against `estimate`'s reference thread; by default by earlier runs.
    """
    if speed is None:
        speed = speed_here(store)
    active = store.list_runs(None, states=("queued", "running"))
    active = [other for other in active if other.worker_host in (None, this_host())]
    place = admission.places(active, slots_here(), speed).get(run.id)
    training = [other for other in active if other.worker is not None]
    if place is None or place.ahead or len(training) >= slots_here():
        return place, None
    return place, admission.waits_for_memory(run, training)


def speed_here(store: RunStore) -> float:
    """This computer's speed by the newest runs, against `estimate`'s reference thread."""
    return admission.speed_of(store.list_runs(states=("finished", "stopped"), limit=TIMED_RUNS))


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


def _was_away(store: RunStore) -> bool:
    """Whether the store did not answer a moment ago: then no worker gave a sign of life either."""
    failed = _failed_at.get(store.url)
    return failed is not None and time.monotonic() - failed < BACK_SECONDS


def _starting_mark() -> str:
    """What stands as a reserved run's mark until its worker has one: who is to start it."""
    return f"{os.getpid()}:{start_mark(os.getpid()) or ''}"


def _starter_died(worker: WorkerId) -> bool:
    """Whether the process that reserved a run for a worker is gone without having started it."""
    pid, found, mark = worker.mark.partition(":")
    return bool(found) and is_alive(WorkerId(worker.host, int(pid), mark)) is False


def _settle(store: RunStore, run: Run) -> bool:
    """Free the slot of a run whose worker is gone. Returns whether it was."""
    worker = run.worker
    if worker is None:
        return False
    alive = is_alive(worker)
    if alive is None and worker.host == this_host() and worker.pid in _watched:
        alive = True  # a child of this process; nobody else has its number until it is reaped
    if alive is None and run.state == "queued":
        # Reserved, but whoever was to start the process died, or it starts on another host.
        if run.silent < START_SECONDS and not _starter_died(worker):
            return False
        again = run.spawns < MAX_SPAWNS
        return store.lose(run, "No worker process could be started for it.", retry=again)
    if alive is None:
        if run.silent < SILENT_SECONDS or _was_away(store):
            if worker.host == this_host():
                _kill_if_hung(run, worker)
            return False
        return store.lose(run, f"Its worker has not reported for {run.silent:.0f} seconds.")
    if alive:
        _kill_if_hung(run, worker)
        return False
    if worker.pid in _watched:
        return False  # its thread is about to, and knows how it ended
    # Another process started it, or it outlived the one that did: nobody knows its exit code.
    ran_out = process_memory.KILLS.risen(run.silent + KILL_SECONDS)
    return _bury(store, run, memory_ran_out=ran_out and run.desired_state == "running")


def _kill_if_hung(run: Run, worker: WorkerId) -> None:
    """End a worker that does not obey a stop: hung, or deep in loading with nothing to keep."""
    if run.desired_state == "running" or run.desired_at is None:
        return
    if worker.pid is None or worker.pid == os.getpid():
        return
    waited = (run.read_at - run.desired_at).total_seconds()
    loading = run.state == run.desired_state and run.step == 0 and not run.has_checkpoint
    # One that has trained may be waiting for the store, to keep what it has learned.
    limit = KEEPING_SECONDS if run.step else STOP_SECONDS
    if (loading and waited > 1) or (run.state == "running" and waited > limit):
        with suppress(OSError):
            os.kill(worker.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def _bury(
    store: RunStore, run: Run, code: int | None = None, *, memory_ran_out: bool = False
) -> bool:
    """Record that the process on `run` has ended without a last word; say why, keep its log.

    Args:
        code: the process's exit code, if it is known.
        memory_ran_out: whether the system killed for memory when it died.
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
            if run.desired_state != "running":
                wanted = "pause" if run.desired_state == "paused" else "stop"
                why = f"It was told to {wanted}, and its worker process was killed before it had"
            elif memory_ran_out:
                why = admission.ran_out(run)
            else:
                why += ", by someone or because memory ran out"
    elif code is None and memory_ran_out and run.state == "running":
        why = admission.ran_out(run)
    elif code == GAVE_UP and last:
        why = last
    elif run.state == "queued":
        why = "Its worker process ended before it began"
        why += f" (exit code {code})" if code is not None else ""
        why += f": {last[:300]}" if last else ""
    else:
        why = "Its worker process ended unexpectedly"
    # One that was killed before it began has lost nothing; one that crashed would do so again.
    again = code is None or code < 0 or code == NOT_BEGUN
    retry = again and run.state == "queued" and run.spawns < MAX_SPAWNS
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
        run = store.get(run_id)
        store.lose(run, why, retry=run.spawns < MAX_SPAWNS)
        return False
    worker = WorkerId(this_host(), process.pid, start_mark(process.pid) or "")
    _watched.add(process.pid)
    try:
        store.assign(run_id, worker)
    finally:  # whatever happens, the process is reaped
        threading.Thread(
            target=_wait,
            args=(store, run_id, process, outlive),
            name=f"wait-for-run-{run_id}",
            daemon=True,
        ).start()
    return True


def _wait(store: RunStore, run_id: int, process: subprocess.Popen[bytes], outlive: bool) -> None:
    """Reap a worker; if it left its run behind, say so; then move the queue on.

    A store that cannot be reached now is asked again by the next `advance`.
    """
    code = process.wait()
    try:
        with suppress(StoreError):
            run = store.get(run_id)
            if run.worker is not None and run.worker.pid == process.pid:
                _bury(store, run, code, memory_ran_out=process_memory.KILLS.risen(KILL_SECONDS))
            elif run.worker is None:  # or the log is the next one's
                with suppress(OSError):
                    log_path(store, run_id).unlink(missing_ok=True)
    finally:
        _watched.discard(process.pid)
    try_advance(store, outlive=outlive)
