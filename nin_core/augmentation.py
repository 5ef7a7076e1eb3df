"""Training images as they might also have been taken: mirrored, and moved by a few pixels.

Choices made here:

* Both are exact rearrangements of pixels of uint8 batches, made on the device in one gather, so
  they cost next to nothing beside a step and no value is interpolated. What is moved in from
  outside the image is zero, the background of all data sets here but photographs.
* What happens to each image of an epoch is drawn once, at its start, from the generator that also
  shuffles them. A checkpoint holds that generator as the epoch began, so a run that goes on draws
  the same again; nothing else needs to be kept.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch.nn import functional


class Augmentation(NamedTuple):
    """What happens to each of N images.

    Attributes:
        mirrored: bool [N], left and right exchanged; before the move.
        down, right: int64 [N], pixels by which the image moves.
        shift: the largest move that there can be.
    """

    mirrored: torch.Tensor
    down: torch.Tensor
    right: torch.Tensor
    shift: int

    @classmethod
    def draw(cls, images: int, generator: torch.Generator, *, flip: bool, shift: int) -> Self:
        """Draw it for so many images, each on its own.

        Args:
            generator: of the CPU; it is not touched if nothing is to happen.
            flip: mirror every image with a chance of one half.
            shift: move by -shift to shift pixels in each direction, all equally likely.
        """
        mirrored = torch.zeros(images, dtype=torch.bool)
        down = right = torch.zeros(images, dtype=torch.int64)
        if flip:
            mirrored = torch.rand(images, generator=generator) < 0.5
        if shift:
            down, right = torch.randint(-shift, shift + 1, (2, images), generator=generator)
        return cls(mirrored, down, right, shift)

    def part(self, start: int, end: int) -> Self:
        """That of the images from `start` to before `end`."""
        chosen = slice(start, end)
        return self._replace(
            mirrored=self.mirrored[chosen], down=self.down[chosen], right=self.right[chosen]
        )

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """The images after it.

        Args:
            images: any dtype, [N, C, H, W], on any device.

        Returns:
            the same dtype, shape and device; pixels from outside the image are zero.
        """
        height, width = images.shape[-2:]
        mirrored, down, right = (
            values.to(images.device)[:, None] for values in (self.mirrored, self.down, self.right)
        )
        rows = torch.arange(height, device=images.device) - down
        columns = torch.arange(width, device=images.device) - right
        columns = torch.where(mirrored, width - 1 - columns, columns)
        padded = functional.pad(images, (self.shift,) * 4)
        number = torch.arange(len(images), device=images.device)[:, None, None]
        # The indexed directions come first, so the channels are the last one.
        moved = padded[number, :, rows[:, :, None] + self.shift, columns[:, None, :] + self.shift]
        return moved.permute(0, 3, 1, 2)
