"""How often does a recipe stall? nin-slim-128 on Fashion-MNIST, both heads, many seeds.

    python benchmarks/seeds.py [--seeds 10] [--epochs 1] [--recipe fast] [--jobs 2] [--subset N]

One process a core with one thread each. A run counts as stalled if its accuracy on the whole test
set ends below 20 % (guessing is 10 %) or its loss is no number. The target for `fast` after one
epoch: none stalled, none below 75 %. Exit code 1 if it is missed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from nin_core import PRESETS, RECIPES, build_nin, fit
from nin_core.data import Dataset, load_dataset
from nin_core.training import DivergedError, EpochEvent, diagnose

STALLED = 0.20
TARGET = 0.75


@dataclass(frozen=True)
class Outcome:
    """One run: its last test accuracy (0 if it diverged), dead class maps, seconds with tests."""

    head: str
    seed: int
    accuracy: float
    dead: int
    seconds: float


@cache
def fashion_mnist() -> Dataset:
    return load_dataset("fashion-mnist")


def train(head: str, seed: int, recipe: str, epochs: int, subset: int | None) -> Outcome:
    """Train one network in this process, on one thread."""
    torch.set_num_threads(1)
    dataset = fashion_mnist()
    network = replace(PRESETS["nin-slim-128"], global_pool=head)
    config = RECIPES[recipe].configure(network, epochs=epochs, subset=subset, seed=seed)
    model = build_nin(network)
    accuracy, seconds = 0.0, 0.0
    try:
        for event in fit(model, dataset, config, network=network, device="cpu"):
            seconds = event.seconds
            if isinstance(event, EpochEvent):
                accuracy = event.test_accuracy
    except DivergedError:
        return Outcome(head, seed, 0.0, 0, seconds)
    found = diagnose(
        model,
        dataset.test_images[:500],
        dataset.test_labels[:500],
        network=network,
        mean=dataset.mean if config.standardize else None,
        std=dataset.std if config.standardize else None,
    )
    return Outcome(head, seed, accuracy, found.dead_class_maps if found else 0, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0, 1, … for each head")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--recipe", choices=list(RECIPES), default="fast")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--subset", type=int, help="training images; default all")
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.seeds)
    heads = ("max", "avg")
    print(f"nin-slim-128, Fashion-MNIST, recipe {args.recipe}, {args.epochs} epoch(s)", flush=True)
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        futures = [
            pool.submit(train, head, seed, args.recipe, args.epochs, args.subset)
            for seed in seeds
            for head in heads
        ]
        for future in as_completed(futures):
            done = future.result()
            outcomes.append(done)
            print(
                f"  {done.head} pooling, seed {done.seed:2d}: {done.accuracy:6.1%}, "
                f"{done.dead} dead class maps, {done.seconds:.0f} s",
                flush=True,
            )
    for head in heads:
        found = [outcome.accuracy for outcome in outcomes if outcome.head == head]
        stalled = sum(accuracy < STALLED for accuracy in found)
        below = sum(accuracy < TARGET for accuracy in found)
        print(
            f"{head} pooling, {len(found)} seeds: mean {statistics.mean(found):.1%}, "
            f"lowest {min(found):.1%}, highest {max(found):.1%}; "
            f"{stalled} stalled, {below} below {TARGET:.0%}"
        )
    return int(any(outcome.accuracy < TARGET for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
