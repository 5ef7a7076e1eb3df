"""Training images a second: against a plain PyTorch loop, this machine's peak, and two at once.

    python -m benchmarks.training_speed [--quick]

1. Each of nin-slim-128, nin-28 and nin-224 with the recipe `fast` on Fashion-MNIST, one thread,
   ours and the plain loop in turn; the best of either side counts, since whatever else runs can
   only slow them down. The plain loop is what one writes first: a DataLoader over tensors,
   `F.interpolate`, the usual memory layout, the loss read after each step; same network,
   optimizer, batches and rate.
2. What share of this machine's own float32 matrix product (`nin_core.machine`) a step reaches. The
   backward pass costs two forward passes, but for the first convolution's input gradient.
3. Two processes at once, one thread each, together against one alone with one thread, and against
   one alone that has both cores (its batches in two parts), in turn; nin-slim-128 and nin-28.

Run it alone: another process on the cores changes every figure.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from nin_core import PRESETS, RECIPES, NiNConfig, build_nin, fit, summarize
from nin_core.data import Dataset, load_dataset
from nin_core.events import StepEvent
from nin_core.machine import PROJECT, measured_machine
from nin_core.recipes import TrainConfig
from nin_core.tuning import Settings

IMAGES = {"nin-slim-128": 6400, "nin-28": 2560, "nin-224": 64}
BATCH = {"nin-224": 8}  # steps of a few tenths of a second; the others have the recipe's
PAIR_TARGET = 1.8
PAIRS = ("nin-slim-128", "nin-28")
TESTS = 100


def ours(network: NiNConfig, config: TrainConfig, dataset: Dataset) -> float:
    """Images a second of `fit`, the best of its events after the first, which warms up."""
    events = fit(build_nin(network), dataset, config, network=network, device="cpu")
    steps = [event for event in events if isinstance(event, StepEvent)]
    return max(event.examples_per_second for event in steps[1:] or steps)


def plain(network: NiNConfig, config: TrainConfig, dataset: Dataset) -> float:
    """Images a second of the plain loop, the best of stretches as long as ours."""
    images = dataset.train_images[: config.subset].float() / 255
    images = (images - dataset.mean[0]) / dataset.std[0]
    data = TensorDataset(images, dataset.train_labels[: config.subset])
    net = build_nin(network)
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
    )
    rates = []
    began = time.perf_counter()
    for inputs, labels in DataLoader(data, config.batch_size, shuffle=True, drop_last=True):
        side = network.image_size
        if inputs.shape[-1] != side:
            inputs = functional.interpolate(inputs, (side, side), mode="bilinear")
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(inputs), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip_norm or float("inf"))
        optimizer.step()
        loss.item()
        ended = time.perf_counter()
        rates.append(len(labels) / (ended - began))
        began = ended
    return max(rates[1:] or rates)


def with_few_tests(dataset: Dataset) -> Dataset:
    """The same with the first TESTS test images: nobody waits for the test of nin-224 here."""
    images, labels = dataset.test_images[:TESTS], dataset.test_labels[:TESTS]
    return replace(dataset, test_images=images, test_labels=labels)


def setting(name: str, share: float) -> tuple[NiNConfig, TrainConfig]:
    network = PRESETS[name]
    usual = RECIPES["fast"].configure(network)
    batch = BATCH.get(name, usual.batch_size)
    images = max(2 * batch, int(IMAGES[name] * share))
    config = RECIPES["fast"].configure(network, epochs=1, batch_size=batch, subset=images)
    return network, config


def flops_per_image(network: NiNConfig) -> int:
    """Operations of training on one image, two a multiply-add."""
    macs = [layer.macs for layer in summarize(network).layers if layer.macs]
    return 2 * (3 * sum(macs) - macs[0])


def compare(name: str, dataset: Dataset, rounds: int, share: float, peak: float) -> None:
    network, config = setting(name, share)
    sides: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(rounds):
        sides["ours"].append(ours(network, config, dataset))
        sides["plain"].append(plain(network, config, dataset))
    mine, theirs = max(sides["ours"]), max(sides["plain"])
    reached = mine * flops_per_image(network) / peak
    print(
        f"  {name:13} batch {config.batch_size:3}: ours {mine:7,.1f}, plain loop {theirs:7,.1f} "
        f"images/s: {mine / theirs:.2f} times; {reached:.0%} of the matrix product's peak",
        flush=True,
    )


def at_once(name: str, count: int, share: float, parts: int = 1) -> float:
    """Images a second of so many processes together, each with a thread for every part."""
    command = [sys.executable, "-m", "benchmarks.training_speed", "--alone", str(share)]
    command += ["--network", name, "--parts", str(parts)]
    processes = [
        subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    return sum(float(process.communicate()[0]) for process in processes)


def alone(name: str, share: float, parts: int, dataset: Dataset) -> float:
    """Images a second of a busy stretch, not of the luckiest moment."""
    network, config = setting(name, share)
    how = {"network": network, "device": "cpu", "settings": Settings(parts, parts=parts)}
    events = fit(build_nin(network), dataset, config, **how)
    rates = [event.examples_per_second for event in events if isinstance(event, StepEvent)]
    return statistics.median(rates)


def compare_at_once(name: str, rounds: int, share: float) -> None:
    """Each pair beside the lone runs before and after it."""
    ones = [at_once(name, 1, share)]
    halves, together = [], []
    for _ in range(rounds):
        both = at_once(name, 1, share, parts=2)
        two = at_once(name, 2, share)
        ones.append(at_once(name, 1, share))
        together.append(2 * two / (ones[-2] + ones[-1]))
        halves.append(2 * both / (ones[-2] + ones[-1]))
    print(
        f"  {name}, one run with one thread {statistics.median(ones):,.0f} images/s; two at once "
        f"together {statistics.median(together):.2f} times as many, from {min(together):.2f} to "
        f"{max(together):.2f} (target: at least {PAIR_TARGET}); one run with both cores "
        f"{statistics.median(halves):.2f} times, from {min(halves):.2f} to {max(halves):.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    # One process of a pair.
    parser.add_argument("--alone", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--network", help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = with_few_tests(load_dataset("fashion-mnist"))
    if args.alone:
        print(alone(args.network, args.alone, args.parts, dataset))
        return
    rounds, share = (1, 0.3) if args.quick else (5, 1.0)
    peak = measured_machine(threads=1).flops_per_second
    print(f"one thread, torch {torch.__version__}; matrix product {peak / 1e9:.0f} GFLOP/s")
    for name in IMAGES:
        compare(name, dataset, rounds, share, peak)
    for name in PAIRS:
        compare_at_once(name, rounds, share)


if __name__ == "__main__":
    main()
