"""How a recipe changes weights: its optimizer, and the learning rate of every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .recipes import TrainConfig

ADAMW_SECOND_BETA = 0.95


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of all weights; its rate is to be set before each step (`rate_of_step`)."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if config.weight_decay and not config.decay_biases:
        # Biases and batch norm have one direction; convolutions have four.
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            betas=(config.momentum, ADAMW_SECOND_BETA),
            weight_decay=config.weight_decay,
            foreach=True,
        )
    return torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        foreach=True,
    )


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
