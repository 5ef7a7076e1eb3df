"""`summarize` against torchinfo on nin-224, alternating in one run.

    python benchmarks/summary_speed.py [--rounds 30]

torchinfo builds the real network and runs an image through it; `summarize` computes the same
figures in closed form. Both sides end in a table of every layer's shape, parameters and MACs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torchinfo

from nin_core import PRESETS, build_nin, summarize

TARGET = 30


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    config = PRESETS["nin-224"]
    model = build_nin(config)  # torchinfo is not charged for building it
    size = (1, config.in_channels, config.image_size, config.image_size)

    def ours() -> object:
        return summarize(config)

    def theirs() -> object:
        return torchinfo.summary(model, input_size=size, verbose=0)

    table, other = ours(), theirs()
    assert table.total_parameters == other.total_params, "the two count different networks"
    pairs = [(milliseconds(ours, 20), milliseconds(theirs, 1)) for _ in range(rounds)]
    mine, its = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"nin-224, {rounds} rounds, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"  summarize {mine:8.3f} ms (median)")
    print(f"  torchinfo {its:8.3f} ms (median)")
    print(f"  torchinfo takes {ratio:.0f} times as long (target: at least {TARGET})")


if __name__ == "__main__":
    main()
