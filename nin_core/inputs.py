"""How the images of a data set reach a network: what `data.prepare` is told, said once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from .data import prepare
from .model import can_use_channels_last

if TYPE_CHECKING:
    from .config import NiNConfig
    from .data import Dataset
    from .recipes import TrainConfig


@dataclass(frozen=True, slots=True)
class Inputs:
    """Turns uint8 images into what a network takes.

    Attributes:
        network: whose size and channels they get.
        mean, std: as for `data.prepare`; None for a network trained without standardising.
        device: where they are wanted.
        channels_last: whether in this layout; only where the network can be in it, too.
    """

    network: NiNConfig
    mean: Sequence[float] | None
    std: Sequence[float] | None
    device: torch.device | str = "cpu"
    channels_last: bool = True

    @classmethod
    def of(
        cls,
        network: NiNConfig,
        dataset: Dataset,
        config: TrainConfig,
        *,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
    ) -> Self:
        """Those of a network that is trained on this data set with this recipe."""
        mean, std = (dataset.mean, dataset.std) if config.standardize else (None, None)
        channels_last = channels_last and can_use_channels_last(network)
        return cls(network, mean, std, device, channels_last)

    @property
    def layout(self) -> torch.memory_format:
        """The layout that images, maps and weights have in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [N, C, H, W] -> float32 [N, in_channels, image_size, image_size] on the device.

        Raises:
            DataError: for a number of channels that the images cannot be turned into.
        """
        return prepare(
            images,
            image_size=self.network.image_size,
            in_channels=self.network.in_channels,
            mean=self.mean,
            std=self.std,
            device=self.device,
            channels_last=self.channels_last,
        )
