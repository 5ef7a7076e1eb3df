"""Many images through a network: in batches whose largest map is bounded, with progress.

`diagnosis.evaluate` measures a run where it trains; this is for a page that shows how far it is,
and can give up between two batches by raising from `progress`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .checks import ConfigError
from .config import NiNConfig
from .data import prepare
from .features import evaluating, leaf_modules, to_tensor

MAX_BATCH = 128
MAX_BATCH_VALUES = 8_000_000  # in the largest map of a batch

Progress = Callable[[int, int], None]


class Images(Protocol):
    """What a network takes, in slices: a float32 tensor ``[N, C, H, W]``, or `PreparedImages`."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Tensor: ...


@dataclass(frozen=True, eq=False, slots=True)
class PreparedImages:
    """Images of a data set as a network takes them, prepared as they are asked for.

    Attributes:
        pixels: uint8 ``[N, C, H, W]``.
        network: whose input they become.
        mean, std: as for `prepare`.
    """

    pixels: Tensor
    network: NiNConfig
    mean: Sequence[float] | None
    std: Sequence[float] | None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, part: slice, /) -> Tensor:
        return prepare(
            self.pixels[part],
            image_size=self.network.image_size,
            in_channels=self.network.in_channels,
            mean=self.mean,
            std=self.std,
        )


def predict(
    model: nn.Sequential, images: Images, *, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Logits ``[N, classes]`` of the images, in eval mode.

    Args:
        model: a network of `build_nin`.
        images: prepared as for training; at least one.
        progress: called after each batch with the images done and all.

    Raises:
        ConfigError: for no images.
    """
    total = count(images)
    logits = []
    with torch.no_grad(), evaluating(model):
        size = batch_size(model, images)
        for start in range(0, total, size):
            logits.append(model(batch(model, images, start, size)))
            if progress is not None:
                progress(min(start + size, total), total)
    return torch.cat(logits).float().numpy()


def count(images: Images) -> int:
    """How many there are; a `ConfigError` for none."""
    if not len(images):
        raise ConfigError("there are no images; one or more would work.", field="images")
    return len(images)


def batch_size(model: nn.Sequential, images: Images) -> int:
    """As many images as keep the largest map of a batch within its bound."""
    values = batch(model, images, 0, 1)
    largest = values.numel()
    for _, layer in leaf_modules(model):
        values = layer(values)
        largest = max(largest, values.numel())
    return max(1, min(MAX_BATCH, MAX_BATCH_VALUES // largest))


def batch(model: nn.Module, images: Images, start: int, size: int) -> Tensor:
    """A part of the images as `model` takes it, ``[size, C, H, W]``, in channels_last layout."""
    return to_tensor(model, images[start : start + size]).contiguous(
        memory_format=torch.channels_last
    )
