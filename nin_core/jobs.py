"""The queue: one worker process per run, as many at once as there are cores.

Choices made here:

* There is no daemon. `advance` looks at the store, settles what died and starts what may start.
  Servers every few seconds, pages, the command line and every worker that ends call it; when there
  is nothing to do it costs one read.
* The queue and the slots are rows of the store (a run with a worker on it takes a slot of its
  host), so any number of servers and scripts on one database share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from . import admission, process_memory, spare, supervisor
from .checkpoints import holds_training
from .checks import ConfigError
from .datasets import DATASETS
from .machine import accelerators, available_cores, torch_version
from .processes import this_host
from .recipes import check_batches
from .records import Run, RunNotFound, StateError
from .scoring import measure_each
from .store import RunStore, StoreError

if TYPE_CHECKING:
    from .config import NiNConfig
    from .recipes import TrainConfig

TIMED_RUNS = 20  # the newest runs from which this computer's speed is taken


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
    """Ask for a run to stop and return its state; one that trains ends within a second."""
    stop_runs(store, [run_id], outlive=outlive)
    return store.get(run_id).state


def stop_runs(store: RunStore, run_ids: Sequence[int], *, outlive: bool = False) -> None:
    """Ask for runs to stop, the last one first: none begins because another one made room.

    Whoever trains measures what it has learned. Of those that no worker is on, because they were
    paused, what was learned is measured beside, one after another, or, with `outlive`, before this
    returns. Runs that are not there any more are left out.
    """
    stopped = []
    for run_id in reversed(run_ids):
        with suppress(RunNotFound):
            if store.request(run_id, "stopped") == "stopped":
                stopped.append(run_id)
    try_advance(store, outlive=outlive)
    measure_each(store, stopped, wait=outlive)


def pause_run(store: RunStore, run_id: int, *, outlive: bool = False) -> str:
    """Ask for a run to leave its worker and return its state; it can go on with `resume_run`."""
    state = store.request(run_id, "paused")
    try_advance(store, outlive=outlive)
    return state


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


def goes_on_otherwise(store: RunStore, run_id: int) -> str | None:
    """Why a run that goes on may not become, to the bit, what it would have; None if it will."""
    kept = store.checkpoint_info(run_id).get("torch", "")
    before, here = (version.partition("+")[0] for version in (kept, torch_version()))
    if "" in (before, here) or before == here:
        return None
    return (
        f"It was trained with PyTorch {before} and would go on with {here}, so its result may "
        "differ in the last bits."
    )


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
        outlive: whether the workers go on when this process ends (see `supervisor`).

    Returns:
        the numbers of the runs for which a worker was started.
    """
    slots = slots_here() if slots is None else slots
    try:
        assigned, waiting = store.work()
    except StoreError:
        supervisor.note_outage(store)
        raise
    process_memory.KILLS.look()
    settled = {run.id for run in assigned if supervisor.settle(store, run)}
    left = [run for run in assigned if run.id not in settled and run.worker_host == this_host()]
    free = slots - len(left)
    started: list[int] = []
    tried: int | None = None
    # The counts only save pointless writes; of slots `reserve` decides, in one transaction.
    while waiting > 0 and free > 0:
        following = store.next_waiting()
        if following is None or following.id == tried:
            break
        # What another thread or server has started meanwhile takes memory, too.
        here = [run for run in store.work()[0] if run.active and run.worker_host == this_host()]
        if admission.waits_for_memory(following, here):
            break
        tried = following.id
        run_id = store.reserve(slots, this_host(), supervisor.starting_mark(), run_id=tried)
        if run_id is None:
            continue  # no slot is free, or another server was quicker: then another run is next
        waiting, free = waiting - 1, free - 1
        follow = partial(try_advance, store, outlive=outlive)
        if not supervisor.start(store, run_id, follow, outlive=outlive):
            break  # the next one would fare no better
        started.append(run_id)
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
    spare.keep(store.url, supervisor.log_path(store, 0).parent)


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
