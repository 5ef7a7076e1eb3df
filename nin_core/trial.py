"""One step of a training, timed on random images, for `tuning` to choose by."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from . import allocator
from .config import NiNConfig
from .data import Dataset
from .datasets import DatasetInfo
from .model import build_nin
from .recipes import MIN_RATE, TrainConfig
from .training import Training
from .tuning import Settings

TIMED_BATCHES = 16  # of random images that a timed step takes in turn


def step_timer(
    network: NiNConfig, train: TrainConfig, info: DatasetInfo, batch_size: int, settings: Settings
) -> Callable[[], float]:
    """A function that takes one step of a training on random images and returns its seconds.

    On the CPU, at a rate that changes next to nothing. Sets PyTorch's threads and seeds its global
    generator.

    Args:
        info: the data set whose images are imitated, in size and channels.
        batch_size: images in a step, whatever `train` says.
    """
    torch.set_num_threads(settings.torch_threads(0))
    config = train.varied(
        batch_size=batch_size,
        subset=None,
        epochs=1,
        learning_rate=MIN_RATE,
        schedule="constant",
    )
    torch.manual_seed(config.seed)
    images = torch.randint(
        256, (TIMED_BATCHES * batch_size, info.channels, info.side, info.side), dtype=torch.uint8
    )
    labels = torch.arange(len(images)) % info.num_classes
    dataset = Dataset(
        name=info.name,
        title=info.title,
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        class_names=info.class_names,
        mean=info.mean,
        std=info.std,
        generated=True,
        source="",
    )
    training = Training(
        build_nin(network), dataset, config, network=network, device="cpu", settings=settings
    )
    allocator.keep_freed()
    training.prepare(initialize=False)
    batches = training.epoch_batches()

    def step() -> float:
        nonlocal batches
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            batches = training.epoch_batches()
            batch = next(batches)
        training.take_step(*batch)
        return time.perf_counter() - began

    return step
