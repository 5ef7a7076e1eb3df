"""How often does a recipe stall? nin-slim-128 on Fashion-MNIST, both recipes and heads, many seeds.

    python benchmarks/seeds.py [--seeds 20] [--epochs 1] [--recipes fast tutorial] [--jobs 2]
                               [--subset N] [--kept FILE] [--quick]

One process a core with one thread each. A run counts as stalled if its accuracy on the whole test
set ends below 20 % (guessing is 10 %) or its loss is no number; beside it stands the explanation
that the product gives (`diagnosis.diagnose`). The target for `fast` after one epoch: none stalled,
none below 75 %. Exit code 1 if it is missed. The tutorial's own ten epochs: `--epochs 10`.

20 seeds are 80 runs of about 30 s each on one core of two with AVX2: some 25 minutes in all. Each
run is printed as it ends and written to `--kept`, from which the same command goes on. `--quick`
takes 2 seeds and 640 images, only to see that it works.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from nin_core import PRESETS, RECIPES, build_nin, fit
from nin_core.data import Dataset, load_dataset
from nin_core.diagnosis import diagnose
from nin_core.events import EpochEvent
from nin_core.inputs import Inputs
from nin_core.training import DivergedError

STALLED = 0.20
TARGET = 0.75


@dataclass(frozen=True)
class Outcome:
    """One run: its last test accuracy (0 if it diverged), the diagnosis, seconds with tests."""

    recipe: str
    epochs: int
    subset: int | None
    head: str
    seed: int
    accuracy: float
    why: str
    seconds: float

    @property
    def task(self) -> tuple[str, int, int | None, str, int]:
        return self.recipe, self.epochs, self.subset, self.head, self.seed


@cache
def fashion_mnist() -> Dataset:
    return load_dataset("fashion-mnist")


def train(recipe: str, epochs: int, subset: int | None, head: str, seed: int) -> Outcome:
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
    except DivergedError as error:
        return Outcome(recipe, epochs, subset, head, seed, 0.0, str(error), seconds)
    inputs = Inputs.of(network, dataset, config)
    found = diagnose(model, dataset.test_images[:500], dataset.test_labels[:500], inputs)
    why = found.sentence if found else ""
    return Outcome(recipe, epochs, subset, head, seed, accuracy, why, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help="seeds 0, 1, … for each head")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=["fast", "tutorial"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--subset", type=int, help="training images; default all")
    parser.add_argument("--kept", type=Path, help="file of JSON lines from which to go on")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.subset = 2, 640
    heads = ("max", "avg")
    tasks = [
        (recipe, args.epochs, args.subset, head, seed)
        for seed in range(args.first, args.first + args.seeds)
        for recipe in args.recipes
        for head in heads
    ]
    outcomes = [outcome for outcome in _kept(args.kept) if outcome.task in tasks]
    done = {outcome.task for outcome in outcomes}
    print(
        f"nin-slim-128, Fashion-MNIST, {args.epochs} epoch(s), {len(tasks)} runs, "
        f"{len(done)} of them kept",
        flush=True,
    )
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(train, *task) for task in tasks if task not in done]
        for future in as_completed(futures):
            new = future.result()
            outcomes.append(new)
            if args.kept:
                with args.kept.open("a") as file:
                    file.write(json.dumps(asdict(new)) + "\n")
            print(
                f"  {new.recipe}, {new.head} pooling, seed {new.seed:2d}: {new.accuracy:6.1%}, "
                f"{new.seconds:.0f} s. {new.why}".rstrip(),
                flush=True,
            )
    missed = False
    for recipe in args.recipes:
        for head in heads:
            of_both = [o for o in outcomes if (o.recipe, o.head) == (recipe, head)]
            missed |= _summarize(recipe, head, of_both) and recipe == "fast"
    return int(missed and not args.quick)


def _kept(path: Path | None) -> list[Outcome]:
    if path is None or not path.exists():
        return []
    return [Outcome(**json.loads(line)) for line in path.read_text().splitlines()]


def _summarize(recipe: str, head: str, outcomes: list[Outcome]) -> bool:
    """Print a line of figures; whether any run is below the target."""
    found = [outcome.accuracy for outcome in outcomes]
    stalled = [outcome for outcome in outcomes if outcome.accuracy < STALLED]
    below = sum(accuracy < TARGET for accuracy in found)
    explained = sum(bool(outcome.why) for outcome in stalled)
    print(
        f"{recipe}, {head} pooling, {len(found)} seeds: mean {statistics.mean(found):.1%}, "
        f"lowest {min(found):.1%}, highest {max(found):.1%}; {len(stalled)} stalled "
        f"({explained} explained), {below} below {TARGET:.0%}"
    )
    return bool(below)


if __name__ == "__main__":
    sys.exit(main())
