"""How a training fares inside: lengths of gradient and update, channels that have died.

Choices made here:

* The gradient's norm is that of all weights together, before it is clipped; the update's is the
  length of the step all weights took, whatever the optimizer made of the gradient. Both are of the
  one step an event is due after, stay on the device and are read with its loss: no step waits.
* A channel is dead when its ReLU gives zero at every place of every image of the interim test, a
  fixed balanced sample. ReLU gives nothing below zero, so a sum of zero says so; over few channels
  a sum is ten times as quick as a maximum.
* Nothing here draws a random number or writes a weight: a run is the same, to the bit.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Norms:
    """Lengths of the gradient and of the update of one step, on the device until they are read.

    Args:
        saved: what `saved` gave, to go on from.
    """

    def __init__(self, saved: torch.Tensor | None = None) -> None:
        self._gradient: torch.Tensor | None = None
        self._update: torch.Tensor | None = None
        self._before: list[torch.Tensor] = []
        if saved is not None:
            self._gradient, self._update = saved

    def begin(self, parameters: Iterable[nn.Parameter], gradient: torch.Tensor | None) -> None:
        """Before the weights change.

        Args:
            gradient: its norm, where clipping has computed it; None after which it is done here.
        """
        parameters = list(parameters)
        if gradient is None:
            gradient = norm(p.grad for p in parameters if p.grad is not None)
        self._gradient = gradient.detach()
        self._before = [p.detach().clone() for p in parameters]

    def end(self, parameters: Iterable[nn.Parameter]) -> None:
        """After the weights have changed."""
        now = [p.detach() for p in parameters]
        self._update = norm(new - old for new, old in zip(now, self._before, strict=True))
        self._before = []

    def saved(self) -> torch.Tensor:
        """float64 [2]: gradient and update, NaN for what was not measured."""
        both = (self._gradient, self._update)
        return torch.tensor(
            [math.nan if value is None else value.item() for value in both], dtype=torch.float64
        )

    def figures(self) -> dict[str, float | None]:
        """`gradient_norm` and `update_norm`; None for what was not measured."""
        gradient, update = (None if math.isnan(value) else value for value in self.saved().tolist())
        return {"gradient_norm": gradient, "update_norm": update}


def norm(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """L2 norm of all values of these tensors (at least one) together, a tensor on their device."""
    norms = [torch.linalg.vector_norm(tensor.detach()) for tensor in tensors]
    return torch.linalg.vector_norm(torch.stack(norms))


class DeadChannels:
    """Counts, while a network looks at images, the channels that are zero for all of them."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()  # batches may pass at once

    def counts(self) -> dict[str, int]:
        """Convolution -> how many of its channels were dead, in network order."""
        return {name: int((sums == 0).sum()) for name, sums in self._sums.items()}

    def _add(self, name: str, output: torch.Tensor) -> None:
        sums = output.detach().sum((0, 2, 3))
        with self._lock:
            before = self._sums.get(name)
            self._sums[name] = sums if before is None else before + sums


@contextmanager
def watched(model: nn.Module) -> Iterator[DeadChannels]:
    """Count dead channels in every forward pass within the block.

    A ReLU counts for the convolution before it, under that one's name ("block1.conv"); a
    convolution without a ReLU after it is not counted.
    """
    dead = DeadChannels()
    hooks = []
    convolution = ""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, nn.ReLU):
            hooks.append(
                module.register_forward_hook(
                    lambda _module, _inputs, output, name=convolution: dead._add(name, output)
                )
            )
    try:
        yield dead
    finally:
        for hook in hooks:
            hook.remove()
