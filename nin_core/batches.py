"""The batches of a training, in the same order whenever it is repeated.

Choices made here:

* Images stay uint8 until a step takes them: 28×28 pixels of the whole of Fashion-MNIST are 47 MB.
  Where `tuning` has found it faster, all are brought to the network's size once instead.
* Subset, order and what happens to each image are drawn from a generator of their own: dropout
  draws from PyTorch's global one, and must not change the order.
* The generator is kept as it was when the epoch began; a training that goes on draws that epoch
  again and leaves out what is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from .augmentation import Augmentation
from .data import Dataset
from .estimate import steps_per_epoch
from .inputs import Inputs
from .recipes import TrainConfig

RESIZE_PART = 500  # images that are resized at a time where all of them are


class Batches:
    """The images and labels of one training's steps.

    Args:
        inputs: how the network takes images.
        resize_once: keep all images as the network takes them, from the first batch on.

    Attributes:
        steps: of an epoch.
        epoch_began: the generator's state when the current epoch began, uint8.
    """

    def __init__(
        self, dataset: Dataset, config: TrainConfig, inputs: Inputs, *, resize_once: bool
    ) -> None:
        self._images, self._labels = dataset.train_images, dataset.train_labels
        self._config, self._inputs = config, inputs
        self._generator = torch.Generator().manual_seed(config.seed)
        chosen = torch.randperm(len(self._images), generator=self._generator)
        self._chosen = chosen[: config.subset]
        self._resizes_once = resize_once
        self._resized: torch.Tensor | None = None
        self.steps = steps_per_epoch(config, len(self._images))
        self.epoch_began = self._generator.get_state()

    def begin_epoch(self) -> None:
        """The next `from_step` is of a new epoch."""
        self.epoch_began = self._generator.get_state()

    def go_on(self, epoch_began: torch.Tensor, *, ended: bool) -> None:
        """Go on in the epoch that began with this state, or after it if it has ended."""
        self._generator.set_state(epoch_began)
        self.epoch_began = epoch_began
        if ended:
            self._draw()

    def from_step(self, position: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        """An epoch's batches from one of its steps on: images, labels, when their making began.

        Images are uint8, or float32 as the network takes them where they are resized once; labels
        are int64.
        """
        order, augmentation = self._draw()
        size = self._config.batch_size
        for number in range(position, self.steps):
            began = time.perf_counter()
            end = (number + 1) * size if number + 1 < self.steps else len(order)
            indices = order[number * size : end]
            if self._resizes_once:
                yield self._resized_ones(indices), self._labels[indices], began
                continue
            images = self._images[indices]
            if self._config.flip or self._config.shift:
                part = augmentation.part(number * size, end)
                images = part.apply(images.to(self._inputs.device))
            yield images, self._labels[indices], began

    def first(self, count: int) -> torch.Tensor:
        """So many of the training's images as the network takes them, the same each time."""
        return self._inputs(self._images[self._chosen[:count]])

    def _draw(self) -> tuple[torch.Tensor, Augmentation]:
        """An epoch's order of the images, int64, and what happens to each of them."""
        order = self._chosen[torch.randperm(len(self._chosen), generator=self._generator)]
        return order, Augmentation.draw(
            len(order), self._generator, flip=self._config.flip, shift=self._config.shift
        )

    def _resized_ones(self, indices: torch.Tensor) -> torch.Tensor:
        """These training images as the network takes them; all are made at the first call."""
        if self._resized is None:
            network = self._inputs.network
            side, channels = network.image_size, network.in_channels
            # Filled part by part: there is never a second copy of them all.
            device = self._inputs.device
            resized = torch.empty(len(self._chosen), channels, side, side, device=device)
            for first in range(0, len(self._chosen), RESIZE_PART):
                part = slice(first, first + RESIZE_PART)
                resized[part] = self._inputs(self._images[self._chosen[part]])
            self._resized = resized
            self._places = torch.empty(len(self._images), dtype=torch.int64)
            self._places[self._chosen] = torch.arange(len(self._chosen))
        chosen = self._resized[self._places[indices]]
        return chosen.contiguous(memory_format=self._inputs.layout)
