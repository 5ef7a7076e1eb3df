"""The look before the first step: the run's own start, counted right, judged in a sentence."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from nin_core import PRESETS, RECIPES, BlockConfig, ConfigError, NiNConfig, build_nin, load_dataset
from nin_core import preflight as module
from nin_core.data import Dataset, balanced_sample, prepare
from nin_core.inputs import Inputs
from nin_core.preflight import Preflight, of_run, preflight, probe_size
from nin_core.records import Start
from nin_core.training import Training, starting_model

NETWORK = NiNConfig(
    in_channels=1,
    image_size=16,
    num_classes=10,
    blocks=(
        BlockConfig(channels=(6, 5), kernel_size=5, stride=2),
        BlockConfig(channels=(8, 10), kernel_size=3, padding=1),
    ),
    dropout=0.5,
    final_relu=True,
)


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return load_dataset("shapes")


@pytest.mark.parametrize("recipe", ["tutorial", "fast"])
def test_it_looks_at_the_weights_a_run_starts_with(recipe: str, shapes: Dataset) -> None:
    config = RECIPES[recipe].configure(NETWORK, epochs=1, subset=64, seed=3)
    model = starting_model(shapes, config, NETWORK)
    started: dict[str, torch.Tensor] = {}
    trained = build_nin(NETWORK)

    def keep() -> None:  # called before the first change
        started.update({name: p.detach().clone() for name, p in trained.named_parameters()})

    next(Training(trained, shapes, config, network=NETWORK, device="cpu", on_update=keep).events())
    assert started.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, started[name]), name
    dropout = next(m for m in model.modules() if isinstance(m, nn.Dropout))
    assert dropout.training == config.use_dropout


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("recipe", ["tutorial", "fast"])
def test_its_figures_are_those_of_the_layers(
    recipe: str, batch_norm: bool, shapes: Dataset
) -> None:
    network = replace(NETWORK, batch_norm=batch_norm, dropout=0.0)
    config = RECIPES[recipe].configure(network, seed=1)
    found = preflight(shapes, config, network, images=60)

    model = starting_model(shapes, config, network)
    chosen = balanced_sample(shapes.train_labels, 60)
    assert torch.bincount(shapes.train_labels[chosen]).tolist() == [6] * 10
    values = prepare(
        shapes.train_images[chosen],
        image_size=16,
        in_channels=1,
        mean=shapes.mean if config.standardize else None,
        std=shapes.std if config.standardize else None,
    )
    dead: dict[str, int] = {}
    latest = ""
    for name, leaf in model.named_modules():
        if list(leaf.children()):
            continue
        values = leaf(values)
        if isinstance(leaf, nn.Conv2d):
            latest = name
        elif isinstance(leaf, nn.ReLU):
            dead[latest] = sum(not values[:, channel].any() for channel in range(values.shape[1]))
    loss = functional.cross_entropy(values, shapes.train_labels[chosen])
    loss.backward()

    assert found.images == 60
    assert [layer.name for layer in found.layers] == list(dead)
    assert [layer.dead for layer in found.layers] == list(dead.values())
    assert found.dead_class_maps == dead[latest]
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    assert found.logit_spread == pytest.approx(values.std(0).max().item(), rel=1e-4)
    for layer in found.layers:
        conv = model.get_submodule(layer.name)
        assert layer.channels == conv.out_channels
        together = torch.cat([p.flatten() for p in conv.parameters()])
        gradients = torch.cat([p.grad.flatten() for p in conv.parameters()])
        assert layer.weights == pytest.approx(together.norm().item(), rel=1e-5)
        assert layer.gradient == pytest.approx(gradients.norm().item(), rel=1e-3)


def test_the_fast_recipe_is_ready_where_the_tutorials_loses_classes(shapes: Dataset) -> None:
    network = PRESETS["nin-slim-128"]
    tutorial, fast = (
        preflight(shapes, RECIPES[name].configure(network), network, images=40)
        for name in ("tutorial", "fast")
    )
    assert tutorial.verdict == "doubtful"
    assert 0 < tutorial.dead_class_maps < 10
    assert tutorial.sentence.startswith(f"{tutorial.dead_class_maps} of 10 class maps ")
    assert "the fast recipe" in tutorial.sentence
    assert fast.verdict == "ready"
    assert fast.dead_class_maps == 0
    assert fast.logit_spread > 5 * tutorial.logit_spread


def _with_weights(monkeypatch: pytest.MonkeyPatch, change) -> None:  # type: ignore[no-untyped-def]
    """A run's start whose weights were changed by hand."""

    def changed(*args: object) -> nn.Module:
        model = starting_model(*args)
        with torch.no_grad():
            change(model)
        return model

    monkeypatch.setattr(module, "starting_model", changed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda m: m.block2.conv1x1_1.bias.fill_(-1e3),
            f"All 10 class maps are zero for each of 30 training images, so no gradient passes and "
            f"the loss stays at ln(10) = {math.log(10):.3f}",
        ),
        (lambda m: m.block1.conv.weight.zero_(), "gets the same logits"),
        (lambda m: m.block2.conv.weight.fill_(math.inf), "not a finite number"),
    ],
)
def test_a_start_that_cannot_learn_is_said(
    change, said: str, shapes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_weights(monkeypatch, change)
    fast, tutorial = (
        preflight(shapes, RECIPES[recipe].configure(NETWORK), NETWORK, images=30)
        for recipe in ("fast", "tutorial")
    )
    assert fast.verdict == "stalled"
    assert tutorial.verdict != "ready"
    assert said in fast.sentence
    # What one has is no advice.
    assert "fast recipe" not in fast.sentence
    assert "fast recipe" in tutorial.sentence


def test_a_layer_that_is_mostly_dead_is_doubtful(
    shapes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_weights(monkeypatch, lambda m: m.block1.conv.bias[:4].fill_(-1e3))
    found = preflight(shapes, RECIPES["fast"].configure(NETWORK), NETWORK, images=30)
    assert found.verdict == "doubtful"
    assert found.sentence.startswith("4 of 6 channels of block1.conv are zero everywhere")


@pytest.mark.parametrize("batch_size", [1, 2, 40])
def test_a_run_finds_of_its_own_start_what_is_found_before_it(
    batch_size: int, shapes: Dataset
) -> None:
    """In several parts, and without a trace in the training that goes on."""
    config = RECIPES["tutorial"].configure(NETWORK, batch_size=batch_size, subset=80, seed=1)
    set_aside: list[tuple[nn.Module, Inputs]] = []

    def training(looks: bool) -> list[torch.Tensor]:
        def set_it_aside(model: nn.Module, inputs: Inputs) -> None:
            set_aside.append((copy.deepcopy(model), inputs))

        model = build_nin(NETWORK)
        ready = set_it_aside if looks else None
        work = Training(model, shapes, config, network=NETWORK, device="cpu", on_ready=ready)
        for event in work.events():
            if event.step == 1 and looks:
                found.append(of_run(set_aside[0][0], shapes, config, NETWORK, set_aside[0][1]))
            if event.step > 2:
                break
        return [p.detach().clone() for p in model.parameters()]

    found: list[Preflight] = []
    looked, unseen = training(True), training(False)
    assert all(map(torch.equal, looked, unseen))
    own = found[0]
    before = preflight(shapes, config, NETWORK, images=own.images)
    assert own.start == before.start
    assert own.loss == pytest.approx(before.loss, rel=1e-3)
    for layer, other in zip(own.layers, before.layers, strict=True):
        assert (layer.name, layer.dead) == (other.name, other.dead)
        assert layer.weights == pytest.approx(other.weights, rel=1e-5)


def test_a_start_that_was_kept_by_another_version_is_none() -> None:
    start = Start("stalled", "All ln(10) = 2.303: ½.")
    assert Start.from_json(start.to_json()) == start
    for text in ("", "[]", '{"verdict": "splendid", "sentence": ""}'):
        with pytest.raises(ValueError):
            Start.from_json(text)


def test_a_large_network_is_asked_about_fewer_images() -> None:
    assert probe_size(PRESETS["nin-slim-128"]) == 256
    assert 20 <= probe_size(PRESETS["nin-224"]) < 60


def test_a_data_set_with_more_classes_is_refused(shapes: Dataset) -> None:
    narrow = replace(
        NETWORK,
        num_classes=3,
        blocks=(*NETWORK.blocks[:-1], BlockConfig(channels=(8, 3), kernel_size=3, padding=1)),
    )
    with pytest.raises(ConfigError, match="3"):
        preflight(shapes, RECIPES["fast"].configure(narrow), narrow)
