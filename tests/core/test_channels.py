"""What a channel does, against plain hooks, zeroed weights and autograd on random networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nin_core import BlockConfig, ConfigError, NiNConfig, PoolConfig
from nin_core.channels import (
    ablate,
    ablation_accuracy,
    ablation_ranking,
    channel_count,
    importance,
    input_gradient,
    map_gradients,
    most_exciting,
)
from nin_core.data import prepare
from nin_core.features import class_maps, extract_feature_maps, untrained_model
from nin_core.predictions import PreparedImages

LAYERS = ("block1.relu", "block1.relu_1", "pool1", "block2.relu")


def network(seed: int, *, batch_norm: bool = False, final_relu: bool = True) -> NiNConfig:
    rng = np.random.default_rng(seed)
    width = [int(n) for n in rng.integers(2, 7, 3)]
    return NiNConfig(
        in_channels=int(rng.choice([1, 3])),
        image_size=int(rng.integers(12, 20)),
        num_classes=4,
        blocks=(
            BlockConfig((width[0], width[1]), kernel_size=3, padding=1, pool=PoolConfig(2, 2)),
            BlockConfig((width[2], 4), kernel_size=3, padding=1),
        ),
        global_pool="avg",
        final_relu=final_relu,
        batch_norm=batch_norm,
    )


def some_images(config: NiNConfig, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, config.in_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=generator)


def hooked(model: nn.Sequential, layer: str, images: torch.Tensor) -> np.ndarray:
    """A layer's output for all images, by a forward hook."""
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: kept.append(output)
    )
    with torch.no_grad():
        model(images.contiguous(memory_format=torch.channels_last))
    handle.remove()
    return kept[0].numpy()


# --- most exciting ----------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), layer=st.sampled_from(LAYERS), batch_norm=st.booleans())
def test_the_best_images_and_positions_are_those_of_all_maps(
    seed: int, layer: str, batch_norm: bool
) -> None:
    config = network(seed, batch_norm=batch_norm)
    model, images = untrained_model(config, seed), some_images(config, 150, seed)
    found = most_exciting(model, images, layer, top=5)
    maps = hooked(model, layer, images)
    flat = maps.reshape(*maps.shape[:2], -1)
    assert found.images == 150
    for channel in range(maps.shape[1]):
        best = flat[:, channel].max(axis=1)
        assert found.value[channel] == pytest.approx(np.sort(best)[::-1][:5], abs=1e-5)
        assert len(set(found.index[channel])) == 5  # different images
        for index, row, column, value in zip(
            found.index[channel],
            found.row[channel],
            found.column[channel],
            found.value[channel],
            strict=True,
        ):
            assert maps[index, channel, row, column] == pytest.approx(value, abs=1e-5)
    assert found.mean == pytest.approx(maps.mean(axis=(0, 2, 3), dtype=np.float64), abs=1e-5)
    assert found.maximum == pytest.approx(maps.max(axis=(0, 2, 3)), abs=1e-5)
    assert found.active == pytest.approx((maps > 0).mean(axis=(0, 2, 3)), abs=1e-3)
    assert (found.dead == ~maps.any(axis=(0, 2, 3))).all()


def test_dead_channels_are_known_and_equal_values_come_in_the_order_of_the_images() -> None:
    config = network(1)
    model = untrained_model(config)
    with torch.no_grad():
        model.block1.conv.bias[0] = -1e6
    images = some_images(config, 1).expand(140, -1, -1, -1)  # more than a batch of the same image
    found = most_exciting(model, images, "block1.relu", top=3)
    assert found.dead[0] and not found.dead[1:].all()
    assert found.active[0] == found.maximum[0] == 0
    alive = int(np.flatnonzero(~found.dead)[0])
    assert found.index[alive].tolist() == [0, 1, 2]


def test_progress_is_reported_to_the_end_and_fewer_images_than_asked_for_are_no_error() -> None:
    config = network(2)
    reports: list[tuple[int, int]] = []
    found = most_exciting(
        untrained_model(config),
        some_images(config, 300),
        "pool1",
        progress=lambda done, total: reports.append((done, total)),
    )
    assert reports[-1] == (300, 300) and len(reports) > 1
    assert found.value.shape[1] == 9
    assert (
        most_exciting(untrained_model(config), some_images(config, 2), "pool1").index.shape[1] == 2
    )


def test_prepared_images_are_what_training_prepares() -> None:
    config = network(3)
    pixels = torch.randint(0, 256, (7, 1, 9, 9), dtype=torch.uint8)
    images = PreparedImages(pixels, config, (0.3,), (0.2,))
    assert len(images) == 7
    expected = prepare(
        pixels[2:5],
        image_size=config.image_size,
        in_channels=config.in_channels,
        mean=(0.3,),
        std=(0.2,),
    )
    assert torch.equal(images[2:5], expected)


# --- switched off -----------------------------------------------------------------------------


def zeroed(config: NiNConfig, seed: int, following: str, channels: list[int]) -> nn.Sequential:
    """The same network, whose convolution `following` has zero weights for these inputs."""
    model = untrained_model(config, seed)
    with torch.no_grad():
        model.get_submodule(following).weight[:, channels] = 0
    return model


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    place=st.sampled_from(
        [("block1.relu", "block1.conv1x1_1"), ("pool1", "block2.conv"), ("block2.relu", None)]
    ),
    data=st.data(),
)
def test_switching_off_is_a_next_layer_with_zero_weights(
    seed: int, place: tuple[str, str | None], data: st.DataObject
) -> None:
    config, (layer, following) = network(seed), place
    following = following or "block2.conv1x1_1"
    model, image = untrained_model(config, seed), some_images(config, 1, seed)[0]
    count = channel_count(model, layer)
    channels = data.draw(st.lists(st.integers(0, count - 1), unique=True))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    off = ablate(model, layer, channels)
    expected = class_maps(zeroed(config, seed, following, channels), image)
    found = class_maps(off, image)
    assert (found.logits == expected.logits).all()  # to the bit
    assert (found.maps == expected.maps).all()
    with torch.no_grad():
        direct = off(image[None])[0].numpy()  # another memory layout, other rounding
    assert direct == pytest.approx(found.logits, abs=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_network_itself_stays_on_and_only_the_layers_output_is_zero() -> None:
    config = network(5)
    model, image = untrained_model(config, 5), some_images(config, 1)[0]
    logits = class_maps(model, image).logits
    off = ablate(model, "block1.relu_1", [1])
    maps = extract_feature_maps(off, image)
    assert maps["block1.relu_1"][1].any()
    assert not maps["block1.relu_1_switched_off"][1].any()
    assert (maps["block1.relu_1_switched_off"][0] == maps["block1.relu_1"][0]).all()
    assert (class_maps(model, image).logits == logits).all()
    assert (class_maps(ablate(model, "block1.relu_1", []), image).logits == logits).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), layer=st.sampled_from(LAYERS), batch_norm=st.booleans())
def test_accuracy_without_channels_is_that_of_the_network_without_them(
    seed: int, layer: str, batch_norm: bool
) -> None:
    config = network(seed, batch_norm=batch_norm, final_relu=False)
    model, images = untrained_model(config, seed), some_images(config, 200, seed)
    count = channel_count(model, layer)
    labels = np.random.default_rng(seed).integers(0, 4, 200)
    groups = [[0], list(range(count)), [], [0, count - 1]]
    *_, found = ablation_accuracy(model, images, labels, layer, groups)

    def correct(net: nn.Module) -> int:
        with torch.no_grad():
            batch = images.contiguous(memory_format=torch.channels_last)
            return int((net(batch).argmax(1).numpy() == labels).sum())

    assert (found.done, found.total) == (200, 200)
    assert found.correct == correct(model)
    assert found.correct_without.tolist() == [
        correct(ablate(model, layer, group)) for group in groups
    ]
    assert found.lost[2] == 0


def test_the_ranking_has_every_channel_and_grows_batch_by_batch() -> None:
    config = network(8, final_relu=False)
    model, images = untrained_model(config, 8), some_images(config, 300, 8)
    with torch.no_grad():
        labels = model(images).argmax(1)  # all right, so that something can be lost
        model.block1.conv.bias[0] = -1e6  # and a dead channel, which costs nothing
        labels = model(images).argmax(1)
    steps = list(ablation_ranking(model, images, labels, "block1.relu"))
    assert [step.done for step in steps] == [128, 256, 300]
    last = steps[-1]
    assert last.accuracy == 1
    assert last.lost[0] == 0
    assert len(last.lost) == channel_count(model, "block1.relu")
    assert (np.diff(last.lost[last.order]) <= 0).all()
    for channel, lost in enumerate(last.lost):
        *_, alone = ablation_accuracy(model, images, labels, "block1.relu", [[channel]])
        assert alone.lost[0] == lost


# --- gradients --------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), layer=st.sampled_from(LAYERS), chosen=st.integers(0, 3))
def test_gradients_are_autograds_and_leave_nothing_behind(
    seed: int, layer: str, chosen: int
) -> None:
    config = network(seed)
    model, image = untrained_model(config, seed), some_images(config, 1, seed)[0]
    found = input_gradient(model, image, chosen), map_gradients(model, image, layer, chosen)
    assert all(parameter.grad is None for parameter in model.parameters())

    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = model.get_submodule(layer).register_forward_hook(keep)
    leaf = image.clone().requires_grad_()
    model(leaf[None])[0, chosen].backward()
    handle.remove()
    assert found[0] == pytest.approx(leaf.grad.numpy(), abs=1e-6)
    assert found[1] == pytest.approx(kept[0].grad[0].numpy(), abs=1e-6)


def test_importance_is_what_the_logit_loses_where_the_rest_is_linear() -> None:
    config = network(4, final_relu=False)
    model, image = untrained_model(config, 4), some_images(config, 1)[0]
    layer = "block2.relu"  # then 1×1 and mean: linear
    maps = extract_feature_maps(model, image, [layer])[layer]
    found = importance(maps, map_gradients(model, image, layer, 2))
    whole = class_maps(model, image).logits[2]
    for channel, amount in enumerate(found):
        without = class_maps(ablate(model, layer, [channel]), image).logits[2]
        assert whole - without == pytest.approx(amount, abs=1e-5)


# --- refusals ---------------------------------------------------------------------------------


def test_what_is_not_there_is_refused_with_what_would_work() -> None:
    config = network(6)
    model, images = untrained_model(config), some_images(config, 3)
    labels = [0, 1, 2]
    with pytest.raises(ConfigError, match=r"no layer 'block9\.relu'; its layers are block1\.conv"):
        most_exciting(model, images, "block9.relu")
    with pytest.raises(ConfigError, match="a channel of pool1 is 99; it must be between 0 and"):
        ablate(model, "pool1", [99])
    with pytest.raises(ConfigError, match="a channel of pool1 is -1"):
        ablation_accuracy(model, images, labels, "pool1", [[-1]])
    with pytest.raises(ConfigError, match="3 images need 3 labels"):
        ablation_accuracy(model, images, [0], "pool1", [[0]])
    with pytest.raises(ConfigError, match="there are no images"):
        most_exciting(model, images[:0], "pool1")
    with pytest.raises(ConfigError, match="class is 4; it must be between 0 and 3"):
        input_gradient(model, images[0], 4)
    with pytest.raises(ConfigError, match="no layer"):
        map_gradients(model, images[0], "nowhere", 0)
