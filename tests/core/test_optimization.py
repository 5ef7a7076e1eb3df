"""Our optimizers against PyTorch's, to the bit; and what they are there for."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from nin_core import PRESETS, RECIPES, build_nin
from nin_core.machine import PROJECT
from nin_core.optimization import ADAMW_SECOND_BETA, build_optimizer
from nin_core.recipes import TrainConfig

STEPS = 6
CONFIG = RECIPES["fast"].configure(PRESETS["nin-slim-128"])


def reference(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """PyTorch's optimizer of such a configuration."""
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if config.weight_decay and not config.decay_biases:
        groups = [
            {"params": [p for p in model.parameters() if p.ndim > 1]},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            groups,
            betas=(config.momentum, ADAMW_SECOND_BETA),
            weight_decay=config.weight_decay,
            foreach=True,
        )
    return torch.optim.SGD(
        groups,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        foreach=True,
    )


@pytest.mark.parametrize("decays", [(0.0, True), (5e-4, True), (5e-4, False)])
@pytest.mark.parametrize(
    "kind", [("sgd", 0.0, False), ("sgd", 0.9, False), ("sgd", 0.9, True), ("adamw", 0.9, False)]
)
def test_steps_are_pytorchs(kind: tuple[str, float, bool], decays: tuple[float, bool]) -> None:
    optimizer, momentum, nesterov = kind
    config = replace(
        CONFIG,
        optimizer=optimizer,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=decays[0],
        decay_biases=decays[1],
    )
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 3, 1))
    ours = ours.to(memory_format=torch.channels_last)
    theirs = copy.deepcopy(ours)
    own, other = build_optimizer(ours, config), reference(theirs, config)
    assert own.state == {}
    for step in range(STEPS):
        images = torch.randn(4, 2, 8, 8).to(memory_format=torch.channels_last)
        rate = 0.1 / (1 + step)
        for model in (ours, theirs):
            model.zero_grad()
            model(images).square().mean().backward()
        own.step(rate)
        for group in other.param_groups:
            group["lr"] = rate
        other.step()
        assert all(map(torch.equal, ours.parameters(), theirs.parameters())), step
    for weight, twin in zip(ours.parameters(), theirs.parameters(), strict=True):
        kept = {k: v for k, v in other.state[twin].items() if isinstance(v, torch.Tensor)}
        assert own.state.get(weight, {}).keys() == kept.keys()
        assert all(torch.equal(own.state[weight][slot], kept[slot]) for slot in kept)


def test_the_decay_spares_biases_and_batch_norm() -> None:
    network = replace(PRESETS["nin-28"], batch_norm=True)
    model = build_nin(network)
    config = RECIPES["best"].configure(network)
    assert config.weight_decay
    before = [weight.detach().clone() for weight in model.parameters()]
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    build_optimizer(model, config).step(0.1)
    convolutions = {m.weight for m in model.modules() if isinstance(m, nn.Conv2d)}
    for weight, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(weight, old) == (weight not in convolutions)


def test_a_training_does_without_pytorchs_compiler() -> None:
    code = """
import sys
from nin_core import PRESETS, RECIPES, build_nin, fit, load_dataset
network = PRESETS["nin-slim-128"]
for recipe in RECIPES.values():
    config = recipe.configure(network, epochs=1, subset=64)
    steps = [event.step for event in fit(build_nin(network), load_dataset("shapes"), config,
                                         network=network)]
    assert steps
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
