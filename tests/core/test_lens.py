"""The lens against torch: sums against `F.linear` and `F.conv2d`, dense twins against hooks."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nin_core import PRESETS, BlockConfig, ConfigError, NiNConfig
from nin_core.features import (
    block_input,
    class_maps,
    pixel_trace,
    pooled_as,
    strongest_activations,
    trace_vector,
    untrained_model,
)
from nin_core.lens import (
    MAX_SPECTRUM_SIDE,
    batch_norm_line,
    collapse,
    collapse_totals,
    compare_collapsed,
    compare_with_dense,
    dense_network,
    output_sum,
    patch_sum,
    pointwise_layers,
    spectrum,
)

from .strategies import networks
from .test_features import close, hooked, image_for, lively

CASES = settings(max_examples=60, deadline=None)


def entering(model: nn.Sequential, image: torch.Tensor, block: int) -> np.ndarray:
    """What a forward hook on the block's k×k convolution sees come in."""
    seen = []
    conv = model.get_submodule(f"block{block}.conv")
    handle = conv.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0][0]))
    with torch.no_grad():
        model(image[None])
    handle.remove()
    return seen[0].numpy().copy()


def place(data: st.DataObject, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(data.draw(st.integers(0, side - 1)) for side in shape)


@CASES
@given(networks(), st.integers(0, 99), st.data())
def test_the_terms_of_an_output_sum_to_what_the_convolution_gives(
    network: NiNConfig, seed: int, data: st.DataObject
) -> None:
    model, image = lively(network, seed), image_for(network, seed)
    maps = hooked(model, image)
    block = data.draw(st.integers(1, len(network.blocks)))
    row, col = place(data, maps[block_input(model, block)].shape[1:])
    trace = pixel_trace(model, image, block, row, col)
    for step in trace.steps:
        channel = data.draw(st.integers(0, len(step.linear) - 1))
        terms = output_sum(step, channel)
        conv = model.get_submodule(step.layer)
        np.testing.assert_array_equal(terms.weights, conv.weight[channel, :, 0, 0].detach())
        np.testing.assert_array_equal(terms.inputs, step.inputs)
        # the products are exact, so the sum is exact in any order
        assert terms.total == math.fsum([*terms.products[::-1], terms.bias])
        exact = F.linear(
            torch.from_numpy(terms.inputs), conv.weight[channel, :, 0, 0].double()[None]
        )
        bias = 0.0 if conv.bias is None else conv.bias[channel].item()
        assert terms.total == pytest.approx(exact.item() + bias, rel=1e-12, abs=1e-12)
        close(np.float32(terms.total), step.linear[channel])
        close(np.float32(terms.total), maps[step.layer][channel, row, col])
        sizes = np.abs(terms.products[terms.order])
        assert (np.diff(sizes) <= 0).all()
        assert sorted(terms.order) == list(range(len(step.inputs)))


@CASES
@given(networks(), st.integers(0, 99), st.data())
def test_a_patch_times_its_kernel_is_what_the_convolution_gives(
    network: NiNConfig, seed: int, data: st.DataObject
) -> None:
    model, image = lively(network, seed), image_for(network, seed)
    block = data.draw(st.integers(1, len(network.blocks)))
    conv = model.get_submodule(f"block{block}.conv")
    source = entering(model, image, block)
    expected = hooked(model, image)[f"block{block}.conv"]
    channel, row, col = place(data, expected.shape)

    patch = patch_sum(model, source, block, channel, row, col)

    close(np.float32(patch.total), expected[channel, row, col])
    side, padding = conv.kernel_size[0], conv.padding[0]
    padded = np.pad(source, ((0, 0), (padding, padding), (padding, padding)))
    top, left = row * conv.stride[0], col * conv.stride[0]
    assert (patch.top, patch.left) == (top - padding, left - padding)
    np.testing.assert_array_equal(patch.patch, padded[:, top : top + side, left : left + side])
    real = np.pad(np.ones(source.shape[1:], bool), padding)
    np.testing.assert_array_equal(patch.inside, real[top : top + side, left : left + side])
    np.testing.assert_array_equal(patch.kernel, conv.weight[channel].detach())
    one = F.conv2d(
        torch.from_numpy(patch.patch)[None],
        conv.weight[channel : channel + 1].double(),
        None if conv.bias is None else conv.bias[channel : channel + 1].double(),
    )
    scale = 1 + float(np.abs(patch.products).sum())
    assert patch.total == pytest.approx(one.item(), abs=1e-12 * scale)
    assert patch.total == pytest.approx(patch.by_input.sum() + patch.bias, abs=1e-12 * scale)


@CASES
@given(networks(), st.integers(0, 99))
def test_the_dense_network_gives_the_blocks_maps_at_every_pixel(
    network: NiNConfig, seed: int
) -> None:
    model, image = lively(network, seed), image_for(network, seed)
    maps = hooked(model, image)
    for block in range(1, len(network.blocks) + 1):
        source = maps[block_input(model, block)]
        dense = dense_network(model, block)
        assert not any(isinstance(layer, nn.Conv2d) for layer in dense)
        values = torch.from_numpy(source.reshape(len(source), -1).T.copy())
        for name, layer in dense.named_children():
            with torch.no_grad():
                values = layer(values)
            expected = maps[f"block{block}.{name}"]
            close(values.T.numpy().reshape(expected.shape), expected)

        found = compare_with_dense(model, block, maps)
        widths = network.blocks[block - 1].channels
        assert len(found) == len(widths) - 1
        for number, item in enumerate(found, start=1):
            assert item.layer == f"block{block}.conv1x1_{number}"
            assert item.difference.shape == maps[item.layer].shape
            assert item.reach == np.abs(maps[item.layer]).max()
            assert item.largest <= 1e-5 * max(1.0, item.reach)
            assert abs(item.difference[item.where]) == item.largest


def test_a_difference_is_found_where_it_is() -> None:
    network = PRESETS["nin-28"]
    model, image = lively(network, 1), image_for(network, 1)
    maps = hooked(model, image)
    maps["block2.conv1x1_2"][5, 3, 7] += 1
    first, second = compare_with_dense(model, 2, maps)
    assert first.largest < 1e-4
    assert second.where == (5, 3, 7)
    assert second.largest == pytest.approx(1, rel=1e-4)


def test_the_dense_network_is_a_copy() -> None:
    model = untrained_model(PRESETS["nin-28"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dense = dense_network(model, 1)
    assert not dense.training
    with torch.no_grad():
        for tensor in dense.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@CASES
@given(networks(), st.integers(0, 99))
def test_batch_norm_is_a_line_that_folds_into_the_weights(network: NiNConfig, seed: int) -> None:
    model, image = lively(network, seed), image_for(network, seed)
    maps = hooked(model, image)
    for block in range(1, len(network.blocks) + 1):
        layers = pointwise_layers(model, block)
        values = maps[block_input(model, block)]
        for layer in layers:
            normed = layer.layer.replace("conv1x1", "bn")
            assert (layer.scale is not None) == (normed in maps)
            weight, bias = layer.folded()
            flat = values.reshape(len(values), -1).astype(np.float64)
            before_relu = (weight @ flat + bias[:, None]).reshape(-1, *values.shape[1:])
            close(before_relu.astype(np.float32), maps[normed if normed in maps else layer.layer])
            rectified = layer.layer.replace("conv1x1", "relu")
            assert layer.activated == (rectified in maps)
            values = maps.get(rectified, maps[layer.layer])


def test_the_line_of_a_batch_norm() -> None:
    layer = lively(PRESETS["nin-28"], 2).block1.bn
    scale, shift = batch_norm_line(layer)
    values = torch.linspace(-3, 3, 32)
    with torch.no_grad():
        expected = layer(values[None, :, None, None])[0, :, 0, 0]
    np.testing.assert_allclose(scale * values.numpy() + shift, expected, rtol=1e-5, atol=1e-6)


@CASES
@given(networks(), st.integers(0, 99))
def test_without_the_relu_two_layers_are_one(network: NiNConfig, seed: int) -> None:
    model, image = lively(network, seed), image_for(network, seed)
    maps = hooked(model, image)
    for block in range(1, len(network.blocks) + 1):
        layers = pointwise_layers(model, block)
        values = maps[block_input(model, block)]
        for first, second in pairwise(layers):
            one = collapse(first, second)
            weight, bias = first.folded()
            np.testing.assert_allclose(one.weight, second.weight @ weight)
            np.testing.assert_allclose(one.bias, second.weight @ bias + second.bias)
            compared = compare_collapsed(one, first, second, values)
            size = max(1.0, float(np.abs(compared.stepwise).max()))
            assert compared.error <= 1e-12 * size
            close(compared.real.astype(np.float32), maps[second.layer])
            # torch's own layers, without the ReLU between them
            with torch.no_grad():
                linear = torch.from_numpy(values[None])
                linear = model.get_submodule(first.layer)(linear)
                if first.scale is not None:
                    linear = model.get_submodule(first.layer.replace("conv1x1", "bn"))(linear)
                linear = model.get_submodule(second.layer)(linear)[0].numpy()
            close(compared.collapsed.astype(np.float32), linear)
            if compared.clipped == 0:
                assert compared.distance == compared.error
            pixel = compare_collapsed(one, first, second, values[:, 0, 0])
            np.testing.assert_allclose(pixel.real, compared.real[:, 0, 0], atol=1e-12 * size)
            totals = collapse_totals(one, first, second, values)
            assert totals.error <= 1e-12 * size
            assert totals[1:] == pytest.approx(
                (compared.distance, compared.relative, compared.clipped), rel=1e-9, abs=1e-12 * size
            )
            values = maps.get(first.layer.replace("conv1x1", "relu"), maps[first.layer])


def test_totals_of_many_pixels_are_those_of_all_at_once() -> None:
    first, second = pointwise_layers(untrained_model(PRESETS["nin-28"]), 1)
    one = collapse(first, second)
    maps = np.random.default_rng(0).normal(size=(32, 90, 91)).astype(np.float32)
    whole = compare_collapsed(one, first, second, maps)
    totals = collapse_totals(one, first, second, maps)
    expected = (whole.distance, whole.relative, whole.clipped)
    assert totals[1:] == pytest.approx(expected, rel=1e-9)


class TestSpectrum:
    def test_a_product_of_narrow_matrices_has_their_rank(self) -> None:
        generator = np.random.default_rng(0)
        narrow = generator.normal(size=(40, 3)) @ generator.normal(size=(3, 25))
        found = spectrum(narrow.astype(np.float32))
        assert found.rank == 3
        assert len(found.values) == 25
        assert found.count_for(0.999) <= 3

    def test_it_is_torchs(self) -> None:
        weight = untrained_model(PRESETS["nin-28"]).block2.conv1x1_1.weight[:, :, 0, 0]
        found = spectrum(weight.detach().numpy())
        np.testing.assert_allclose(found.values, torch.linalg.svdvals(weight).detach(), rtol=1e-4)
        assert found.rank == 64
        energy = found.values**2
        half = found.count_for(0.5)
        assert energy[:half].sum() >= 0.5 * energy.sum() > energy[: half - 1].sum()

    def test_zeros(self) -> None:
        found = spectrum(np.zeros((3, 4)))
        assert (found.rank, found.count_for(0.9)) == (0, 0)

    def test_what_cannot_be_decomposed(self) -> None:
        with pytest.raises(ConfigError, match="too long for a page") as error:
            spectrum(np.zeros((2000, 1500), np.float32))
        assert error.value.suggestion == MAX_SPECTRUM_SIDE
        with pytest.raises(ConfigError, match="diverged"):
            spectrum(np.full((2, 2), np.nan))


class TestErrors:
    network = PRESETS["nin-slim-128"]
    model = untrained_model(network)

    def test_channels(self) -> None:
        step = trace_vector(self.model, np.zeros(6, np.float32), 1).steps[0]
        with pytest.raises(ConfigError, match="no output channel 6; 0 to 5 would work"):
            output_sum(step, 6)
        with pytest.raises(ConfigError, match=r"block1\.conv has no output channel -1") as error:
            patch_sum(self.model, image_for(self.network, 0), 1, -1, 0, 0)
        assert error.value.suggestion == 0

    def test_places(self) -> None:
        image = image_for(self.network, 0)
        with pytest.raises(ConfigError, match="have no row 30; 0 to 29 would work"):
            patch_sum(self.model, image, 1, 0, 30, 0)
        with pytest.raises(ConfigError, match="have no column -1"):
            patch_sum(self.model, image, 1, 0, 0, -1)
        with pytest.raises(ConfigError, match=r"takes maps \[1, height, width\]"):
            patch_sum(self.model, np.zeros((2, 9, 9)), 1, 0, 0, 0)

    def test_blocks(self) -> None:
        for call in (dense_network, pointwise_layers):
            with pytest.raises(ConfigError, match="no block 5; 1 to 4 would work"):
                call(self.model, 5)

    def test_layers_that_do_not_follow_each_other(self) -> None:
        first = pointwise_layers(self.model, 1)[0]
        other = pointwise_layers(self.model, 2)[0]
        with pytest.raises(ConfigError, match="takes 16 channels, but"):
            collapse(first, other)


def test_a_block_without_1x1_layers() -> None:
    network = NiNConfig(1, 8, 2, (BlockConfig((2,), kernel_size=3),), dropout=0.0)
    model = untrained_model(network)
    assert len(dense_network(model, 1)) == 0
    assert pointwise_layers(model, 1) == ()
    maps = hooked(model, image_for(network, 0))
    assert compare_with_dense(model, 1, maps) == ()


class TestAnswer:
    @CASES
    @given(networks(), st.integers(0, 99))
    def test_pooled_the_other_way(self, network: NiNConfig, seed: int) -> None:
        answer = class_maps(lively(network, seed), image_for(network, seed))
        assert pooled_as(answer, network.global_pool) is answer
        maps = torch.from_numpy(answer.maps)[None]
        for how, head in (("max", nn.AdaptiveMaxPool2d(1)), ("avg", nn.AdaptiveAvgPool2d(1))):
            other = pooled_as(answer, how)
            assert other.global_pool == how
            close(other.logits, head(maps).flatten().numpy())
            close(other.probabilities, torch.from_numpy(other.logits).softmax(0).numpy())
            np.testing.assert_array_equal(other.peaks, answer.peaks)

    def test_the_strongest_tenth_stays(self) -> None:
        maps = np.random.default_rng(1).normal(size=(10, 5, 5)).astype(np.float32)
        left = strongest_activations(maps)
        assert (left != 0).sum() == 25
        np.testing.assert_array_equal(left[left != 0], maps[left != 0])
        assert np.sort(maps, axis=None)[-25] == left[left != 0].min()

    def test_equal_values_and_tiny_maps(self) -> None:
        assert strongest_activations(np.ones((2, 1, 1), np.float32)).tolist() == [[[1]], [[0]]]
        assert not strongest_activations(np.zeros((3, 2, 2), np.float32)).any()
        whole = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
        np.testing.assert_array_equal(strongest_activations(whole, 1.0), whole)
