"""How a recipe changes weights: its optimizer, and the learning rate of every step.

The optimizers are our own. Those of `torch.optim` do the same arithmetic, to the bit, but the first
of a process imports PyTorch's compiler: 1.3 of the 3 seconds in which a worker comes to its first
step, for nothing that is used here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .recipes import TrainConfig

ADAMW_SECOND_BETA = 0.95
ADAMW_EPSILON = 1e-8

Weights = list[nn.Parameter]
Tensors = list[torch.Tensor]
Groups = Sequence[tuple[Weights, float]]  # weights, and by how much of themselves they decay


class Optimizer:
    """Changes weights by their gradients, all tensors of a kind in one call.

    Args:
        groups: all weights; those that decay differently in different ones.

    Attributes:
        state: what is kept from step to step, by weight and slot; empty before the first.
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = [(weights, decay) for weights, decay in groups if weights]
        self.state: dict[nn.Parameter, dict[str, torch.Tensor]] = {}

    def step(self, rate: float) -> None:
        """Take a step of this learning rate. Gradients are worth nothing afterwards."""
        with torch.no_grad():
            for weights, decay in self._groups:
                gradients = [weight.grad for weight in weights if weight.grad is not None]
                assert len(gradients) == len(weights)
                self._change(weights, gradients, rate, decay)

    def _change(self, weights: Weights, gradients: Tensors, rate: float, decay: float) -> None:
        raise NotImplementedError

    def _slot(self, weights: Weights, name: str) -> Tensors:
        return [self.state[weight][name] for weight in weights]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, of Nesterov's kind if asked for.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning",
    ICML 2013, in the form in which the rate multiplies the whole step.
    """

    def __init__(self, groups: Groups, *, momentum: float, nesterov: bool) -> None:
        super().__init__(groups)
        self._momentum, self._nesterov = momentum, nesterov

    def _change(self, weights: Weights, gradients: Tensors, rate: float, decay: float) -> None:
        if decay:
            gradients = list(torch._foreach_add(gradients, weights, alpha=decay))
        if self._momentum:
            if weights[0] in self.state:
                buffers = self._slot(weights, "momentum_buffer")
                torch._foreach_mul_(buffers, self._momentum)
                torch._foreach_add_(buffers, gradients)
            else:
                buffers = [gradient.clone() for gradient in gradients]
                for weight, buffer in zip(weights, buffers, strict=True):
                    self.state[weight] = {"momentum_buffer": buffer}
            if self._nesterov:
                torch._foreach_add_(gradients, buffers, alpha=self._momentum)
            else:
                gradients = buffers
        torch._foreach_add_(weights, gradients, alpha=-rate)


class AdamW(Optimizer):
    """Adam with weight decay beside it.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", arXiv 1711.05101.
    """

    def __init__(self, groups: Groups, *, betas: tuple[float, float]) -> None:
        super().__init__(groups)
        self._betas = betas

    def _change(self, weights: Weights, gradients: Tensors, rate: float, decay: float) -> None:
        first, second = self._betas
        if weights[0] not in self.state:
            for weight in weights:
                self.state[weight] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        means, squares = self._slot(weights, "exp_avg"), self._slot(weights, "exp_avg_sq")
        counts = self._slot(weights, "step")
        torch._foreach_add_(counts, 1)
        count = counts[0].item()
        if decay:
            torch._foreach_mul_(weights, 1 - rate * decay)
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        lengths = torch._foreach_sqrt(squares)
        torch._foreach_div_(lengths, (1 - second**count) ** 0.5)
        torch._foreach_add_(lengths, ADAMW_EPSILON)
        torch._foreach_addcdiv_(weights, means, lengths, -(rate / (1 - first**count)))


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimizer of all weights."""
    parameters, decay = list(model.parameters()), config.weight_decay
    groups = [(parameters, decay)]
    if decay and not config.decay_biases:
        # Biases and batch norm have one direction; convolutions have four.
        groups = [
            ([p for p in parameters if p.ndim > 1], decay),
            ([p for p in parameters if p.ndim == 1], 0.0),
        ]
    if config.optimizer == "adamw":
        return AdamW(groups, betas=(config.momentum, ADAMW_SECOND_BETA))
    return SGD(groups, momentum=config.momentum, nesterov=config.nesterov)


def rate_of_step(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate of the step after `step` steps."""
    peak = config.rate_after(step)
    if config.schedule == "constant":
        return peak
    for epochs in (config.epochs, *config.more_epochs):
        length = epochs * steps_per_epoch
        if step < length:
            break
        step -= length
    rise = config.warmup * length
    if step + 1 < rise:
        return peak * (step + 1) / rise
    # The step after the last would have a rate of zero.
    return peak * (length - step) / max(1.0, length - rise)
