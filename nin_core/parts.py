"""A batch in parts that are computed at once: how a small network uses more than one core.

Choices made here:

* PyTorch's own threads share each operation. Those of a network of a few channels take a fraction
  of a millisecond, and threads that meet after each of them gain next to nothing: of nin-28 two had
  a step 1.2 times as fast, two halves of the batch 1.6 times (two AVX2 cores, in turn).
* Each part has a network of its own: the same weights, but buffers of its own, so that no part
  waits for another, and a generator of its own for dropout. The gradients are added in the order of
  the parts. So how many threads there are, and which part is ready first, changes no bit.
* Batch norm takes its mean and variance from the images of a part ("ghost batch norm"); after the
  step all parts get the mean of their running averages.
* A batch too small for all parts has fewer.

Source: Hoffer et al., "Train longer, generalize better", arXiv 1705.08741, for batch norm in parts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn

from .lanes import Lanes
from .tuning import LEAST_PART

T = TypeVar("T")


class _Dropout(nn.Dropout):
    """Dropout that draws from a generator of its own."""

    generator: torch.Generator

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p:
            return input
        kept = torch.empty_like(input).bernoulli_(1 - self.p, generator=self.generator)
        return input * kept.div_(1 - self.p)


class Parts:
    """A network as many times as a batch has parts.

    Args:
        model: the network itself; it computes the first part.
        count: parts, at least 1.
        seed: of the other parts' dropout.

    Attributes:
        lanes: the threads that compute.
    """

    def __init__(self, model: nn.Module, count: int, seed: int) -> None:
        self._models = [model]
        self._generators: list[torch.Generator] = []
        self.lanes = Lanes()
        weights = {id(parameter): parameter for parameter in model.parameters()}
        for number in range(1, count):
            twin = copy.deepcopy(model, dict(weights))  # these are not copied
            generator = torch.Generator().manual_seed(seed + number)
            for module in twin.modules():
                if isinstance(module, nn.Dropout):
                    module.__class__ = _Dropout
                    module.generator = generator
            self._models.append(twin)
            self._generators.append(generator)
        self._buffers = list(zip(*(model.buffers() for model in self._models), strict=True))

    def __len__(self) -> int:
        return len(self._models)

    def train(self, *, use_dropout: bool) -> None:
        """Put all into the mode in which they are trained."""
        for model in self._models:
            model.train()
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.train(use_dropout)

    def each(
        self,
        work: Callable[[nn.Module, torch.Tensor, torch.Tensor], T],
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        threads: int,
    ) -> list[T]:
        """What `work` makes of each part of a batch, in order.

        Args:
            work: is given a network, images and labels; called from several threads at once.
            threads: at most so many at once, this one included.
        """
        count = self._count(labels)
        parts = list(
            zip(
                self._models[:count],
                images.tensor_split(count),
                labels.tensor_split(count),
                strict=True,
            )
        )
        return self.lanes.map(lambda part: work(*part), parts, threads=threads)

    def _count(self, labels: torch.Tensor) -> int:
        """How many parts a batch with these labels has."""
        return max(1, min(len(self), len(labels) // LEAST_PART))

    def agree(self, labels: torch.Tensor) -> None:
        """After a step on a batch with these labels: give all networks the parts' mean buffers."""
        used = self._count(labels)
        for buffers in self._buffers:
            first = buffers[0]
            if used > 1 and first.is_floating_point():
                first.copy_(torch.stack(buffers[:used]).mean(0))
            for other in buffers[1:]:
                other.copy_(first)

    def follow(self) -> None:
        """Give all networks the first one's buffers, when those have been set from outside."""
        for first, *others in self._buffers:
            for other in others:
                other.copy_(first)

    def random_states(self) -> dict[str, torch.Tensor]:
        """The states of the dropout's generators, uint8, by name."""
        return {
            f"part-{number}": generator.get_state()
            for number, generator in enumerate(self._generators, 1)
        }

    def restore(self, states: Mapping[str, torch.Tensor]) -> None:
        """Set the generators to what `random_states` gave.

        Raises:
            KeyError: if one is missing.
        """
        for number, generator in enumerate(self._generators, 1):
            generator.set_state(states[f"part-{number}"])
