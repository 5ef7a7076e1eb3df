"""The processes that train: started, waited for, and settled when they are gone.

Choices made here:

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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from . import admission, process_memory, spare
from .machine import PROJECT
from .processes import is_alive, start_mark, this_host
from .records import Run, RunNotFound, WorkerId
from .store import RunStore, StoreError

# A worker on another host without a heartbeat for so long is gone. Servers look every few seconds,
# so it is said within ten.
SILENT_SECONDS = 6.0
BACK_SECONDS = 12.0  # after an outage, in which workers ask again less and less often
START_SECONDS = 60.0  # how long a started process may take to claim its run
# A worker that has not obeyed a stop by then is hung and gets killed; one that has something to
# keep tries that for a minute.
STOP_SECONDS, KEEPING_SECONDS = 10.0, 75.0
MAX_SPAWNS = 3  # starts of one run that came to nothing before it counts as failed
# A worker's exit code when the store failed for too long; the last line of its log says why, and
# ends so.
GAVE_UP, GIVES_UP = 4, "This worker gives up."
NOT_BEGUN = 5  # and when it could not even claim its run
WHY_ORPHANED = "The server it ran under has ended."  # of a run that waits for the next one
KILL_SECONDS = 1.0  # before a death is known, within which it has been counted
LOG_TAIL = 16_000  # bytes of a worker's output that are kept
NICENESS = 10

# Processes of ours for which a thread waits. (After a hot reload this is a new, empty set: then
# whoever comes first settles a dead worker, without its exit code.)
_watched: set[int] = set()
# How those ended whose end could not be recorded: the exit code, and whether memory ran out.
_ended: dict[int, tuple[int, bool]] = {}
_failed_at: dict[str, float] = {}  # by the store's URL, when it did not answer last


# --- starting ---------------------------------------------------------------------------------


def starting_mark() -> str:
    """What stands as a reserved run's mark until its worker has one: who is to start it."""
    return f"{os.getpid()}:{start_mark(os.getpid()) or ''}"


def start(
    store: RunStore, run_id: int, follow: Callable[[], object], *, outlive: bool = False
) -> bool:
    """Start the process for a reserved run, and a thread that waits for its end.

    Args:
        follow: called when the process has ended and its run is settled.
        outlive: whether it goes on when this process ends.

    Returns:
        whether a process could be started; the run waits again, or has failed, if not.
    """
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
    _ended.pop(process.pid, None)
    _watched.add(process.pid)
    try:
        store.assign(run_id, worker)
    finally:  # whatever happens, the process is reaped
        threading.Thread(
            target=_wait,
            args=(store, run_id, process, follow),
            name=f"wait-for-run-{run_id}",
            daemon=True,
        ).start()
    return True


def _wait(
    store: RunStore, run_id: int, process: subprocess.Popen[bytes], follow: Callable[[], object]
) -> None:
    """Reap a worker; if it left its run behind, say so; then move the queue on.

    A store that cannot be reached now is asked again by the next `advance`.
    """
    code = process.wait()
    ran_out = process_memory.KILLS.risen(KILL_SECONDS)
    try:
        run = store.get(run_id)
        if run.worker is not None and run.worker.pid == process.pid:
            _bury(store, run, code, memory_ran_out=ran_out)
        elif run.worker is None:  # or the log is the next one's
            with suppress(OSError):
                log_path(store, run_id).unlink(missing_ok=True)
    except RunNotFound:
        pass
    except StoreError:
        _ended[process.pid] = code, ran_out
    finally:
        _watched.discard(process.pid)
    follow()


# --- what becomes of them ---------------------------------------------------------------------


def note_outage(store: RunStore) -> None:
    """That the store did not answer just now."""
    _failed_at[store.url] = time.monotonic()


def _was_away(store: RunStore) -> bool:
    """Whether the store did not answer a moment ago: then no worker gave a sign of life either."""
    failed = _failed_at.get(store.url)
    return failed is not None and time.monotonic() - failed < BACK_SECONDS


def _starter_died(worker: WorkerId) -> bool:
    """Whether the process that reserved a run for a worker is gone without having started it."""
    pid, found, mark = worker.mark.partition(":")
    return bool(found) and is_alive(WorkerId(worker.host, int(pid), mark)) is False


def settle(store: RunStore, run: Run) -> bool:
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
    if ended := _ended.get(worker.pid or 0):
        code, ran_out = ended
        changed = _bury(store, run, code, memory_ran_out=ran_out)
        _ended.pop(worker.pid or 0, None)  # it is recorded now
        return changed
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
    last = last_line(log)
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
    elif code == GAVE_UP or last.endswith(GIVES_UP):
        why = last or "The run store failed for too long, and its worker gave up"
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


# --- their logs -------------------------------------------------------------------------------


def log_path(store: RunStore, run_id: int) -> Path:
    """Where the output of a run's worker goes while it lives; the store keeps the end of it."""
    if store.path is not None:
        folder = store.path.with_name(store.path.name + "-logs")
    else:
        folder = PROJECT / "runs" / hashlib.sha256(store.url.encode()).hexdigest()[:12]
    return folder / f"run-{run_id}.log"


def last_line(log: str) -> str:
    """The last line of a log that says anything; "" if none does."""
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")


def read_tail(path: Path) -> str:
    """The end of a log file, "" if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - LOG_TAIL, 0))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
