"""Predicted memory of runs beside what their workers really took, over random configurations.

    python -m benchmarks.memory_model [--count 200] [--seed 0] [--largest 1500]

Each configuration (a preset with widths between half and double, another batch size, recipe and
head) trains a few steps and is tested on the whole test set of "shapes" in a worker process of its
own, as from the page. Measured is the most the process occupied above what it occupied with
PyTorch imported. Also checks that each is refused where it would not fit. About six seconds a
configuration; what else the computer does does not matter.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

from nin_core import PRESETS, ConfigError, NiNConfig, admission
from nin_core.jobs import start_run
from nin_core.measure import PROCESS_BYTES
from nin_core.recipes import RECIPES, TrainConfig
from nin_core.store import Run, RunStore

TARGET = 0.15
STEPS = 6
LONGEST = 20.0  # seconds a configuration may be predicted to take


def random_configuration(draw: random.Random) -> tuple[NiNConfig, TrainConfig]:
    network = PRESETS[draw.choice(sorted(PRESETS))]
    scale = 2 ** draw.uniform(-1, 1)
    widths = tuple(max(2, round(width * scale)) for width in network.widths)
    network = network.with_widths(widths)
    batch = draw.choice((16, 32, 64, 128, 256))
    recipe = RECIPES[draw.choice(sorted(RECIPES))]
    train = recipe.configure(network, batch_size=batch, subset=STEPS * batch, epochs=1)
    return network, train


def trained(store: RunStore, network: NiNConfig, train: TrainConfig) -> Run:
    run_id = start_run(store, network, train, "shapes")
    while store.get(run_id).active or store.get(run_id).worker is not None:
        time.sleep(0.1)
    return store.get(run_id)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", type=float, default=1500, help="MB predicted at most")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    ratios: list[float] = []
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(f"sqlite:///{Path(folder) / 'memory.db'}")
        while len(ratios) < args.count:
            network, train = random_configuration(draw)
            predicted = admission.predict_bytes(network, train, "shapes")
            if predicted > args.largest * 1e6 or _seconds(network, train) > LONGEST:
                continue
            problem = admission.misfit(network, train, "shapes", predicted + PROCESS_BYTES - 1)
            refused += isinstance(problem, ConfigError)
            run = trained(store, network, train)
            if run.state != "finished" or not run.peak_bytes or not run.base_bytes:
                print(f"  run {run.id} {run.state}: {run.error}")
                continue
            measured = run.peak_bytes - run.base_bytes
            ratios.append(predicted / measured)
            widths = "-".join(map(str, network.widths))
            print(
                f"  {network.image_size:4d} px {widths:14s} batch {train.batch_size:3d} "
                f"{train.recipe:8s} predicted {predicted / 1e6:7.0f} MB, "
                f"measured {measured / 1e6:7.0f} MB, ratio {ratios[-1]:.2f}",
                flush=True,
            )
    within = sum(abs(ratio - 1) <= TARGET for ratio in ratios)
    print(
        f"{within} of {len(ratios)} within {TARGET:.0%} (median ratio "
        f"{statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}); "
        f"{refused} of {len(ratios)} refused where they would not fit by a byte"
    )
    return int(within < len(ratios) or refused < len(ratios))


def _seconds(network: NiNConfig, train: TrainConfig) -> float:
    from nin_core import estimate
    from nin_core.datasets import DATASETS

    info = DATASETS["shapes"]
    return estimate.predict_seconds(
        network, train, train_size=info.train_size, test_size=info.test_size
    )


if __name__ == "__main__":
    raise SystemExit(main())
