"""Norms and dead channels: what is recorded is right, and recording changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from nin_core import BlockConfig, NiNConfig, PoolConfig, build_nin, fit
from nin_core.data import load_dataset
from nin_core.events import EpochEvent, StepEvent
from nin_core.recipes import RECIPES
from nin_core.records import MetricRow
from nin_core.vitals import Norms, norm, watched

NETWORK = NiNConfig(
    in_channels=1,
    image_size=28,
    num_classes=10,
    dropout=0.0,
    blocks=(
        BlockConfig((4, 4), kernel_size=5, stride=2, padding=2, pool=PoolConfig(2, 2)),
        BlockConfig((6, 10), kernel_size=3, padding=1),
    ),
)
LAYERS = ["block1.conv", "block1.conv1x1_1", "block2.conv", "block2.conv1x1_1"]


def events_of(recipe: str, network: NiNConfig = NETWORK, **changes: object):
    config = RECIPES[recipe].configure(network, **({"epochs": 1, "subset": 512} | changes))
    model = build_nin(network)
    return model, list(fit(model, load_dataset("shapes"), config, network=network, device="cpu"))


def test_a_norm_is_that_of_all_values_together() -> None:
    parts = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0], [12.0]])]
    assert norm(parts).item() == 13.0


@pytest.mark.parametrize("clip_norm", [0.0, 1e-3])
def test_the_first_step_s_norms_are_gradient_and_update(clip_norm: float) -> None:
    """Plain gradient descent: the update is the rate times the gradient, after clipping."""
    data = load_dataset("shapes")
    config = RECIPES["tutorial"].configure(NETWORK, epochs=1, subset=64, clip_norm=clip_norm)
    model = build_nin(NETWORK)
    expected = build_nin(NETWORK)
    expected.load_state_dict(model.state_dict())
    order = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(data.train_images), generator=order)[:64]
    images = data.train_images[chosen] / 255
    functional.cross_entropy(expected(images), data.train_labels[chosen]).backward()
    gradient = norm(p.grad for p in expected.parameters()).item()

    first = next(iter(fit(model, data, config, network=NETWORK, device="cpu", initialize=False)))
    assert isinstance(first, StepEvent)
    assert first.gradient_norm == pytest.approx(gradient, rel=1e-4)
    length = min(gradient, clip_norm) if clip_norm else gradient
    assert first.update_norm == pytest.approx(config.learning_rate * length, rel=1e-3)


def test_every_step_event_has_norms_and_every_test_dead_channels() -> None:
    _, events = events_of("fast", epochs=2, batch_size=4)
    for event in events:
        tested = isinstance(event, EpochEvent) or event.test_examples is not None
        assert (event.dead_channels is not None) == tested
        if event.dead_channels is not None:
            assert list(event.dead_channels) == LAYERS
        if isinstance(event, StepEvent):
            assert event.gradient_norm > 0
            assert event.update_norm > 0
    assert any(isinstance(event, StepEvent) and event.dead_channels for event in events)


def test_dead_channels_are_those_that_are_zero_for_every_image() -> None:
    model = build_nin(NETWORK).eval()
    with torch.no_grad():
        model.block1.conv.weight[:3] = 0
        model.block1.conv.bias[:3] = torch.tensor([-1.0, 0.0, 1.0])  # the last one is constant
        for layer in (model.block1.conv1x1_1, model.block2.conv, model.block2.conv1x1_1):
            layer.bias.fill_(100.0)
        images = torch.rand(6, 1, 28, 28)
        model.block1.conv.weight[3] = 0
        model.block1.conv.weight[3, 0, 2, 2] = 1
        model.block1.conv.bias[3] = -10.0
        with watched(model) as dead:
            model(images)
            assert dead.counts() == dict(zip(LAYERS, [3, 0, 0, 0], strict=True))
            images[0, 0, 4, 4] = 11.0  # one place of one image of a later batch revives it
            model(images)
        assert dead.counts() == dict(zip(LAYERS, [2, 0, 0, 0], strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_convolution_without_relu_is_not_counted() -> None:
    _, events = events_of("fast", replace(NETWORK, final_relu=False))
    assert list(events[-1].dead_channels) == LAYERS[:-1]


def test_a_relu_after_batch_norm_counts_for_its_convolution() -> None:
    _, events = events_of("fast", replace(NETWORK, batch_norm=True))
    assert list(events[-1].dead_channels) == LAYERS


def test_norms_survive_being_saved() -> None:
    weights = [nn.Parameter(torch.ones(4))]
    weights[0].grad = torch.full((4,), 0.5)
    norms = Norms()
    assert norms.figures() == {"gradient_norm": None, "update_norm": None}
    assert norms.saved().isnan().all()
    norms.begin(weights, None)
    with torch.no_grad():
        weights[0] -= 0.25
    norms.end(weights)
    assert norms.figures() == {"gradient_norm": 1.0, "update_norm": 0.5}
    assert Norms(norms.saved()).figures() == norms.figures()
    assert Norms(Norms().saved()).figures() == Norms().figures()


def test_a_row_gives_counts_as_numbers() -> None:
    assert MetricRow("step", 1, 1, 0.0).dead == {}
    assert MetricRow("step", 1, 1, 0.0, dead_channels='{"block1.conv": 3}').dead == {
        "block1.conv": 3
    }
