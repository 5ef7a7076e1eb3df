"""What all 24 channels of a nin-slim-128 layer do, over all 10,000 test images.

    python -m benchmarks.channels_speed [--quick] [--threads 1]

1. The images and positions that excite each channel most, in one pass; then once more as the page
   asks for it, which keeps the result.
2. The accuracy without each single channel: the network up to the layer once, the rest 25 times.

For a layer early in block 3, where most of the network is behind, and the block's last. The
network has learned from a few hundred batches first: in an untrained one some channels are zero
everywhere, and those cost nothing. Needs Fashion-MNIST. The server computes with one thread, and so
does this by default; --threads 2 says what a second core would add.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from nin_core import PRESETS
from nin_core.background import Background, Name
from nin_core.channels import ablation_ranking, channel_count, most_exciting
from nin_core.data import DataError, Dataset, load_dataset
from nin_core.model import build_nin
from nin_core.predictions import PreparedImages
from nin_core.recipes import RECIPES
from nin_core.training import fit

NETWORK = PRESETS["nin-slim-128"]
LAYERS = ("block3.relu", "block3.relu_2")
EXCITING_TARGET, RANKING_TARGET = 6.0, 20.0  # seconds
WAIT_LIMIT = 300.0  # seconds

T = TypeVar("T")


def seconds(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def trained(data: Dataset) -> torch.nn.Sequential:
    """nin-slim-128 after one short epoch of the fast recipe."""
    model = build_nin(NETWORK)
    config = RECIPES["fast"].configure(NETWORK, epochs=1, subset=12_800)
    for _ in fit(model, data, config, network=NETWORK):
        pass
    return model.eval()


def asked_twice(model: torch.nn.Sequential, images: PreparedImages, layer: str) -> list[float]:
    """Seconds until the page's background has the most exciting images: first, and again."""
    background = Background()
    name = Name("exciting", layer)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        while True:
            look = background.ask(name, "benchmark", lambda _: most_exciting(model, images, layer))
            if look.state == "failed":
                raise SystemExit(f"It failed: {look.problem}")
            if look.state == "done":
                break
            if time.perf_counter() - start > WAIT_LIMIT:
                raise SystemExit(f"It was not there after {WAIT_LIMIT:.0f} s.")
            time.sleep(0.01)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1,000 images instead of 10,000")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(max(1, options.threads))
    try:
        data = load_dataset("fashion-mnist", download=False)
    except DataError as error:
        raise SystemExit(str(error)) from error
    count = 1_000 if options.quick else len(data.test_labels)
    model = trained(data)
    images = PreparedImages(data.test_images[:count], NETWORK, data.mean, data.std)
    labels = data.test_labels[:count]
    print(f"{count:,} test images, {torch.get_num_threads()} thread(s)")
    for layer in LAYERS:
        taken, found = seconds(lambda layer=layer: most_exciting(model, images, layer))
        first, again = asked_twice(model, images, layer)
        print(
            f"  {layer}, most exciting images of {len(found.value)} channels: {taken:.1f} s, "
            f"in the background {first:.1f} s, asked again {again * 1000:.1f} ms "
            f"(target: {EXCITING_TARGET:.0f} s for 10,000)",
            flush=True,
        )
        taken, steps = seconds(
            lambda layer=layer: list(ablation_ranking(model, images, labels, layer))
        )
        print(
            f"  {layer}, ranking of {channel_count(model, layer)} channels: {taken:.1f} s in "
            f"{len(steps)} steps of progress, from {steps[-1].accuracy:.1%} down to "
            f"{steps[-1].accuracy_without.min():.1%} "
            f"(target: {RANKING_TARGET:.0f} s for 10,000 on two cores)",
            flush=True,
        )


if __name__ == "__main__":
    main()
