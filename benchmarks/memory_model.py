"""Predicted memory of runs beside what their workers really took, over random configurations.

    python -m benchmarks.memory_model [--count 200] [--seed 0] [--largest 1500] [--longest 20]

Each configuration (a preset with widths between half and double, another batch size, recipe and
head) trains two epochs of a few steps and is tested on the whole test set of "shapes" after each,
in a process of its own, by the worker's own code. Each has a store of its own, too: runs of one
store would share the cores and compute the parts of a batch one after another, which takes less.
They come one at a time: two that take the cores from each other leave more parts to the same
thread. Measured is the most the process occupied above what it occupied before its run, with
PyTorch imported. Also checks that each is refused where it would not fit. 200 that are predicted to
take at most 5 s took half an hour on two slow cores; longer ones take longer.
The slow tests do the same with fewer and smaller configurations.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nin_core import PRESETS, ConfigError, NiNConfig, admission, allocator, estimate, worker
from nin_core.datasets import DATASETS
from nin_core.measure import PROCESS_BYTES
from nin_core.processes import this_worker
from nin_core.recipes import RECIPES, TrainConfig
from nin_core.store import RunStore

TARGET = 0.15
EPOCHS, STEPS = 2, 12  # steps of an epoch
DATASET = "shapes"
JOBS = 1  # configurations at once


@dataclass(frozen=True)
class Compared:
    """One configuration: bytes predicted and measured, both above PyTorch's own."""

    network: NiNConfig
    train: TrainConfig
    predicted: int
    measured: int
    refused: bool  # where there is a byte too little for it

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured

    def __str__(self) -> str:
        widths = "-".join(map(str, self.network.widths))
        return (
            f"{self.network.image_size:4d} px {widths:14s} {self.network.global_pool:3s} "
            f"batch {self.train.batch_size:3d} {self.train.recipe:8s} "
            f"predicted {self.predicted / 1e6:7.0f} MB, measured {self.measured / 1e6:7.0f} MB, "
            f"ratio {self.ratio:.2f}"
        )


def random_configuration(draw: random.Random) -> tuple[NiNConfig, TrainConfig]:
    network = PRESETS[draw.choice(sorted(PRESETS))]
    scale = 2 ** draw.uniform(-1, 1)
    widths = tuple(max(2, round(width * scale)) for width in network.widths)
    network = network.with_widths(widths)
    batch = draw.choice((16, 32, 64, 128, 256))
    recipe = RECIPES[draw.choice(sorted(RECIPES))]
    train = recipe.configure(network, batch_size=batch, subset=STEPS * batch, epochs=EPOCHS)
    return network, train


def drawn(seed: int, *, largest: float, longest: float) -> Iterator[tuple[NiNConfig, TrainConfig]]:
    """Random configurations for ever: predicted to take at most so many bytes and seconds."""
    draw = random.Random(seed)
    info = DATASETS[DATASET]
    while True:
        network, train = random_configuration(draw)
        seconds = estimate.predict_seconds(
            network, train, train_size=info.train_size, test_size=info.test_size
        )
        if seconds <= longest and admission.predict_bytes(network, train, DATASET) <= largest:
            yield network, train


def compared(
    count: int, seed: int, *, largest: float = 1.5e9, longest: float = 20.0
) -> Iterator[Compared]:
    """Train so many random configurations and compare, in the order in which they are drawn.

    Raises:
        AssertionError: if a run fails.
    """
    configurations = drawn(seed, largest=largest, longest=longest)
    chosen = [next(configurations) for _ in range(count)]
    with (
        tempfile.TemporaryDirectory() as folder,
        _workers_environment(),
        # Not forked: that would have the pages of PyTorch's code counted anew. One task a process:
        # the next configuration must not find the memory of this one.
        ProcessPoolExecutor(
            JOBS, multiprocessing.get_context("spawn"), max_tasks_per_child=1
        ) as pool,
    ):
        stores = [
            RunStore(f"sqlite:///{Path(folder) / f'memory-{number}.db'}") for number in range(count)
        ]
        ids = [
            store.create(network, train, DATASET)
            for store, (network, train) in zip(stores, chosen, strict=True)
        ]
        done = pool.map(_train, [store.url for store in stores], ids)
        for store, run_id, _ in zip(stores, ids, done, strict=True):
            run = store.get(run_id)
            assert run.state == "finished", run.error
            assert run.network and run.train and run.peak_bytes and run.base_bytes
            predicted = admission.predict_bytes(run.network, run.train, DATASET)
            room = predicted + PROCESS_BYTES - 1
            problem = admission.misfit(run.network, run.train, DATASET, room)
            measured = run.peak_bytes - run.base_bytes
            refused = isinstance(problem, ConfigError)
            yield Compared(run.network, run.train, predicted, measured, refused)


@contextmanager
def _workers_environment() -> Iterator[None]:
    before = dict(os.environ)
    # Runs at once have all cores each: their threads must not wait for each other busily.
    os.environ.update(allocator.with_huge_pages(before) | {"OMP_WAIT_POLICY": "passive"})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _train(url: str, run_id: int) -> None:
    """In a process of its own: what a worker does with a run."""
    store = RunStore(url)
    attempt = store.claim(run_id, this_worker())
    assert attempt is not None
    worker.work_on(store, run_id, attempt)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", type=float, default=1500, help="MB predicted at most")
    parser.add_argument("--longest", type=float, default=20, help="seconds predicted at most")
    args = parser.parse_args()
    found = []
    for one in compared(args.count, args.seed, largest=args.largest * 1e6, longest=args.longest):
        found.append(one)
        print(f"  {one}", flush=True)
    ratios = [one.ratio for one in found]
    within = sum(abs(ratio - 1) <= TARGET for ratio in ratios)
    refused = sum(one.refused for one in found)
    print(
        f"{within} of {len(ratios)} within {TARGET:.0%} (median ratio "
        f"{statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}); "
        f"{refused} of {len(ratios)} refused where they would not fit by a byte"
    )
    return int(within < len(ratios) or refused < len(ratios))


if __name__ == "__main__":
    raise SystemExit(main())
