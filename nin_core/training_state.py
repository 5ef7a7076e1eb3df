"""What a training is between two steps: all that it needs to go on as if it had never ended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .optimization import Optimizer


@dataclass(frozen=True, eq=False)
class TrainingState:
    """All that a training needs to go on as if it had never ended. Tensors are on the CPU.

    Attributes:
        step: steps done since the start.
        epoch: the current one, from 1, and `position`, how many of its steps are done.
        epoch_ended: whether that epoch's event has been made.
        event_due: whether the last step's event has not been made yet.
        seconds: spent so far.
        weights: the network's parameters and buffers, by name.
        rest: the optimizer's tensors (``optimizer/<parameter>/<slot>``), the generators' states
            (``random/…``, uint8), the sums of the unfinished interval and epoch (``sums/…``) and
            the last step's lengths (``norms``).
    """

    step: int
    epoch: int
    position: int
    epoch_ended: bool
    event_due: bool
    seconds: float
    weights: dict[str, torch.Tensor]
    rest: dict[str, torch.Tensor]


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of PyTorch's own generators from which a step on `device` draws, by name."""
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(device: torch.device, states: dict[str, torch.Tensor]) -> None:
    """Set those generators to states of `random_states`.

    Raises:
        KeyError: if the states are of another kind of device.
    """
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:  # older versions kept none
        torch.mps.set_rng_state(states["mps"])


class Totals:
    """Sums over images, kept on the device until they are read."""

    def __init__(self, device: torch.device, saved: torch.Tensor | None = None) -> None:
        # MPS has no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(2, dtype=dtype, device=device)
        self.images = 0
        self._seconds = 0.0
        if saved is not None:
            loss, right, images, self._seconds = saved.tolist()
            self._sums += torch.tensor([loss, right], dtype=dtype, device=device)
            self.images = int(images)

    def saved(self) -> torch.Tensor:
        """float64 [4]: loss times images, right answers, images, seconds."""
        return torch.tensor([*self._sums.tolist(), self.images, self._seconds], dtype=torch.float64)

    def add(self, loss: torch.Tensor, right: torch.Tensor, count: int, seconds: float) -> None:
        self._sums[0] += loss * count
        self._sums[1] += right
        self.images += count
        self._seconds += seconds

    def include(self, other: Totals) -> None:
        self._sums += other._sums
        self.images += other.images
        self._seconds += other._seconds

    def figures(self) -> dict[str, float]:
        loss, right = self._sums.tolist()
        return {
            "train_loss": loss / self.images,
            "train_accuracy": right / self.images,
            "examples_per_second": self.images / max(self._seconds, 1e-9),
        }


def copied(value: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU that the training changes no more."""
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Copies of what an optimizer keeps, as ``optimizer/<parameter>/<slot>``."""
    return {
        f"optimizer/{name}/{slot}": copied(value)
        for name, parameter in model.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    model: nn.Module, optimizer: Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    """Give an optimizer what `optimizer_tensors` took; tensors of other names are left alone.

    Raises:
        RuntimeError: if a tensor is not of this network.
    """
    for name, parameter in model.named_parameters():
        prefix = f"optimizer/{name}/"
        slots = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        if slots:
            # As the optimizer would have made them: on the weight's device, in its layout.
            optimizer.state[parameter] = {
                slot: torch.empty_like(parameter).copy_(value)
                if value.shape == parameter.shape
                else value.clone()
                for slot, value in slots.items()
            }
