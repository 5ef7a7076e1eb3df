"""Whether a run fits into this computer's memory, and where queued runs stand. No torch.

Choices made here:

* A run is refused when it can never fit: when what it is predicted to take, with PyTorch itself, is
  more than all the memory this computer (or its container) has. It waits in the queue while the
  memory that is free now, less what the running ones have still to take, is too little.
* The prediction is the largest of three phases, which give their memory back to each other: the
  steps, by the ledger's walk through one, the tests, and a start that is fitted to the data, which
  is exact (`allocator.freed_at_once`). Where every block is given back as soon as it is freed, a
  step takes what the ledger says, too. It is kept instead, since steps would be a tenth to two
  fifths slower, and what lies free between the blocks in use is half as much again, of a small step
  more. It also grows with the steps, ever more slowly: a run of some hundred steps occupies a tenth
  more than after its first six. What is predicted is a run of two dozen steps in two epochs, so a
  very short one takes a little less and a long one a little more. All this was fitted to workers of
  100 random configurations of `benchmarks/memory_model.py` with kernels for AVX2 (two cores, glibc
  2.36); of 200 others all were within 12 %. Kernels for AVX-512 keep weights in blocks of their
  own: that was fitted before, to runs of six steps.
* Predicted is a run that has all cores. One that shares them computes the parts of its batch one
  after another and takes less, but it gets the cores once the others have ended.
* The queue is first come, first served: a large run that waits for memory is not overtaken for ever
  by small ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from . import estimate, machine, process_memory, tuning
from .checks import ConfigError
from .datasets import DATASETS
from .ledger import OPTIMIZERS, step_peak
from .measure import PROCESS_BYTES
from .solver import proportions
from .summary import summarize

if TYPE_CHECKING:
    from .config import NiNConfig
    from .ledger import OptimizerName
    from .recipes import TrainConfig
    from .records import Run

# Bytes occupied for each that is alive at a phase's peak: in a step those of the ledger, the first
# ones more; in a test those of the largest layer's both sides. The difference lies free between
# blocks in use.
STEP, FIRST, FIRST_BYTES, TEST = 1.6, 2.5, 10_000_000, 5.6
WORKSPACE = 36_000_000  # that every run comes to occupy: its own, and the kernels loaded for it
# Of one entry of a database: SQLite takes 10**9 bytes, PostgreSQL little more.
MOST_KEPT = 10**9 - 2**22
STATE_COPIES = 6.0  # of weights and optimizer state, on their way to the store
AVX512_COPIES = 4.0  # of the weights, by convolutions that use such vectors


def predict_bytes(network: NiNConfig, train: TrainConfig, dataset: str) -> int:
    """Bytes a worker will occupy at most above PyTorch itself: data, weights, steps, tests."""
    info = DATASETS.get(dataset)
    data, images = 0, train.subset
    if info is not None:
        data = (info.train_size + info.test_size) * (info.channels * info.side**2 + 8)
        images = min(images or info.train_size, info.train_size)
    one = summarize(network)
    alive = step_peak(summarize(network, train.batch_size), _optimizer(train)).bytes
    step = STEP * alive + (FIRST - STEP) * min(alive, FIRST_BYTES)
    parts = tuning.usual_settings(network, train.batch_size, machine.available_cores()).parts
    test = TEST * parts * estimate.test_batch(network) * one.largest_pair_bytes
    state = state_bytes(network, train)
    working = max(step, test) + STATE_COPIES * state
    if machine.has_avx512():
        working += AVX512_COPIES * one.parameter_bytes
    if train.initialization == "unit-variance":
        # The images, and all outputs of one layer with some of the next one's.
        largest = max(layer.activation_bytes for layer in one.layers)
        images = min(images or estimate.START_IMAGES, estimate.start_images(network))
        start = images * (one.input_bytes + largest) + estimate.START_PART * largest
        working = max(working, start)
    return int(max(data + WORKSPACE + working, 2 * data))  # twice while it is read


def state_bytes(network: NiNConfig, train: TrainConfig) -> int:
    """Bytes of the weights and of what the optimizer keeps beside them: what a checkpoint holds."""
    return summarize(network).parameter_bytes * (1 + OPTIMIZERS[_optimizer(train)].slots)


def _optimizer(train: TrainConfig) -> OptimizerName:
    if train.optimizer == "adamw":
        return "adamw"
    return "momentum" if train.momentum else "sgd"


# --- does it fit ------------------------------------------------------------------------------


def require(network: NiNConfig, train: TrainConfig, dataset: str) -> None:
    """Refuse a run that cannot fit into all of this computer's memory.

    Raises:
        ConfigError: with the figure and the batch size or the widths that would fit.
    """
    found = machine.memory()
    problem = None if found is None else misfit(network, train, dataset, found.total)
    if problem is not None:
        raise problem


def require_keepable(network: NiNConfig, train: TrainConfig) -> None:
    """Refuse a run whose checkpoints no database would take.

    Raises:
        ConfigError: with the widths that would do.
    """
    needed = state_bytes(network, train)
    if needed <= MOST_KEPT:
        return
    widths = _narrower(network, lambda narrower: state_bytes(narrower, train) <= MOST_KEPT)
    advice = f"widths of {'-'.join(map(str, widths))}" if widths else "narrower blocks"
    raise ConfigError(
        f"a checkpoint of this run would be {size(needed)}, and a database takes {size(MOST_KEPT)} "
        f"at most; {advice} would work.",
        field="widths",
        suggestion=widths,
    )


def misfit(network: NiNConfig, train: TrainConfig, dataset: str, room: int) -> ConfigError | None:
    """Why a run does not fit into so many bytes, PyTorch's own included; None if it does."""
    needed = predict_bytes(network, train, dataset) + PROCESS_BYTES
    if needed <= room:
        return None
    advice, suggestion = _advice(network, train, dataset, room - PROCESS_BYTES)
    return ConfigError(
        f"this run needs about {size(needed)} of memory with PyTorch itself, but there are only "
        f"{size(room)}; {advice}.",
        field="batch_size" if isinstance(suggestion, int) else "widths",
        suggestion=suggestion,
    )


def _advice(
    network: NiNConfig, train: TrainConfig, dataset: str, room: int
) -> tuple[str, int | tuple[int, ...] | None]:
    batch = train.batch_size
    while batch > 2:
        batch //= 2
        if predict_bytes(network, replace(train, batch_size=batch), dataset) <= room:
            return f"a batch size of {batch} would fit", batch
    widths = _narrower(network, lambda other: predict_bytes(other, train, dataset) <= room)
    if widths:
        return f"widths of {'-'.join(map(str, widths))} would fit", widths
    return "narrower blocks or a smaller image would help", None


def _narrower(network: NiNConfig, fits: Callable[[NiNConfig], bool]) -> tuple[int, ...] | None:
    """The widest widths in this network's proportions, by eighths, that fit; None if none do."""
    sought = proportions(network)
    for eighths in range(7, 0, -1):
        with suppress(ConfigError):
            narrower = sought.at(Fraction(eighths, 8))
            if fits(narrower):
                return narrower.widths
    return None


def waits_for_memory(run: Run, running: Sequence[Run]) -> str | None:
    """Why a queued run cannot start yet for want of memory; None if it can.

    Args:
        running: the runs with a worker on this computer.
    """
    if run.network is None or run.train is None:
        return None
    return lacks_memory(run.network, run.train, run.dataset, running)


def lacks_memory(
    network: NiNConfig, train: TrainConfig, dataset: str, running: Sequence[Run]
) -> str | None:
    """Why such a run would have to wait for memory now, beside the `running` ones; None if not."""
    found = machine.memory()
    if found is None:
        return None
    needed = predict_bytes(network, train, dataset) + PROCESS_BYTES
    free = found.available - sum(_still_to_take(other) for other in running)
    if needed <= free:
        return None
    return (
        f"it waits for memory: it needs about {size(needed)}, and {size(max(free, 0))} are free"
        + (" beside what the running ones will take" if running else "")
    )


def _still_to_take(run: Run) -> int:
    """Bytes a running run is predicted to take beyond what its process occupies by now."""
    if run.network is None or run.train is None:
        return 0
    needed = predict_bytes(run.network, run.train, run.dataset) + PROCESS_BYTES
    return max(0, needed - process_memory.resident(run.worker_pid or 0))


def ran_out(run: Run) -> str:
    """A sentence for a run whose process ended because memory ran out, with the figures."""
    if run.network is None or run.train is None:
        return "Memory ran out; a smaller batch size would help."
    needed = predict_bytes(run.network, run.train, run.dataset) + PROCESS_BYTES
    took = f"it had taken {size(run.peak_bytes)} and" if run.peak_bytes else "it"
    found = machine.memory()
    room = min(needed, found.total if found else needed) * 3 // 4
    advice, _ = _advice(run.network, run.train, run.dataset, room - PROCESS_BYTES)
    return f"Memory ran out: {took} was predicted to need about {size(needed)}; {advice}."


def size(count: int) -> str:
    """Bytes for people, e.g. "1.4 GiB"."""
    if count < 2**30:
        return f"{count / 2**20:,.0f} MiB"
    return f"{count / 2**30:,.1f} GiB"


# --- the queue --------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a queued run stands: the runs before it, and seconds until it starts, if known."""

    ahead: int
    seconds: float | None


def places(runs: Sequence[Run], slots: int, speed: float = 1.0) -> dict[int, Place]:
    """Where every queued run stands, by its number.

    A start is expected when a slot is free after those before it; memory may delay it further.

    Args:
        runs: at least all that are queued or running.
        slots: workers at once.
        speed: this computer against `estimate`'s reference thread.
    """
    free = [0.0] * slots
    for run in runs:
        if run.state == "running" or (run.state == "queued" and run.worker is not None):
            left = run.seconds_left
            heapq.heappushpop(free, _seconds(run, speed) if left is None else left)
    found: dict[int, Place] = {}
    queued = (run for run in runs if run.state == "queued" and run.worker is None)
    for ahead, run in enumerate(sorted(queued, key=lambda run: run.id)):
        if not free:
            found[run.id] = Place(ahead, None)
            continue
        start = free[0]
        found[run.id] = Place(ahead, start)
        heapq.heapreplace(free, start + _seconds(run, speed))
    return found


def _seconds(run: Run, speed: float) -> float:
    """Seconds a run has still to train, by the prediction."""
    info = DATASETS.get(run.dataset)
    if run.network is None or run.train is None or info is None:
        return 0.0
    whole = estimate.predict_seconds(
        run.network, run.train, train_size=info.train_size, test_size=info.test_size, speed=speed
    )
    return whole * (1 - run.progress)


def speed_of(runs: Sequence[Run]) -> float:
    """This computer's speed by its runs, against `estimate`'s reference thread; 1 without one."""
    timed = [
        (run.network, run.examples_per_second)
        for run in runs
        if run.network is not None and run.examples_per_second
    ]
    return estimate.measured_speed(timed) or 1.0
