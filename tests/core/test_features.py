"""Maps against module hooks, traces against `F.linear`, class maps against the logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from nin_core import PRESETS, BlockConfig, ConfigError, NiNConfig, build_nin
from nin_core.features import (
    block_input,
    class_maps,
    extract_feature_maps,
    load_model,
    pixel_trace,
    trace_vector,
    untrained_model,
)

from .strategies import networks


def lively(network: NiNConfig, seed: int) -> nn.Sequential:
    """A network whose batch norms have seen something, so that skipping one would show."""
    model = untrained_model(network, seed)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model


def image_for(network: NiNConfig, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (network.in_channels, network.image_size, network.image_size)
    return torch.randn(shape, generator=generator)


def hooked(model: nn.Sequential, image: torch.Tensor) -> dict[str, np.ndarray]:
    """Every leaf's output, by torch's own forward hooks."""
    seen: dict[str, np.ndarray] = {}

    def remember(name: str):
        return lambda module, inputs, output: seen.__setitem__(name, output[0].numpy().copy())

    handles = [
        module.register_forward_hook(remember(name))
        for name, module in model.named_modules()
        if not isinstance(module, nn.Sequential)
    ]
    with torch.no_grad():
        model(image[None])
    for handle in handles:
        handle.remove()
    return seen


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * scale)


CASES = settings(max_examples=80, deadline=None)


@CASES
@given(networks(), st.integers(0, 99))
def test_maps_are_what_hooks_see(network: NiNConfig, seed: int) -> None:
    model, image = lively(network, seed), image_for(network, seed)
    expected = hooked(model, image)
    maps = extract_feature_maps(model, image)
    assert list(maps) == [layer.name for layer in network.plan()] == list(expected)
    for name, array in maps.items():
        assert array.dtype == np.float32
        assert array.ndim == 3
        close(array.reshape(expected[name].shape), expected[name])


@CASES
@given(networks(), st.integers(0, 99), st.data())
def test_trace_is_a_dense_layer_and_agrees_with_the_maps(
    network: NiNConfig, seed: int, data: st.DataObject
) -> None:
    model, image = lively(network, seed), image_for(network, seed)
    maps = extract_feature_maps(model, image)
    block = data.draw(st.integers(1, len(network.blocks)))
    before = maps[block_input(model, block)]
    row = data.draw(st.integers(0, before.shape[1] - 1))
    col = data.draw(st.integers(0, before.shape[2] - 1))

    trace = pixel_trace(model, image, block, row, col)

    assert (trace.block, trace.row, trace.col) == (block, row, col)
    assert len(trace.steps) == len(network.blocks[block - 1].channels) - 1
    np.testing.assert_array_equal(trace.inputs, before[:, row, col])
    entering = trace.inputs
    for number, step in enumerate(trace.steps, start=1):
        assert step.layer == f"block{block}.conv1x1_{number}"
        conv = model.get_submodule(step.layer)
        np.testing.assert_array_equal(step.inputs, entering)
        dense = F.linear(torch.from_numpy(step.inputs), conv.weight[:, :, 0, 0], conv.bias)
        np.testing.assert_array_equal(step.linear, dense.detach().numpy())
        close(step.weight @ step.inputs + step.bias, step.linear)
        close(step.linear, maps[step.layer][:, row, col])
        normed, rectified = f"block{block}.bn_{number}", f"block{block}.relu_{number}"
        after = step.linear
        if normed in maps:
            assert step.normalized is not None
            after = step.normalized
            close(after, maps[normed][:, row, col])
        else:
            assert step.normalized is None
        assert step.activated == (rectified in maps)
        if step.activated:
            after = np.maximum(after, 0)
            close(step.outputs, maps[rectified][:, row, col])
        np.testing.assert_array_equal(step.outputs, after)
        entering = step.outputs
    np.testing.assert_array_equal(trace.outputs, entering)


@CASES
@given(networks(), st.integers(0, 99))
def test_pooled_class_maps_are_the_logits(network: NiNConfig, seed: int) -> None:
    model, image = lively(network, seed), image_for(network, seed)
    with torch.no_grad():
        logits = model(image[None])[0]
    result = class_maps(model, image)
    assert result.global_pool == network.global_pool
    close(result.logits, logits.numpy())
    close(result.probabilities, logits.softmax(0).numpy())
    rows, cols = result.peaks.T
    largest = result.maps[np.arange(network.num_classes), rows, cols]
    np.testing.assert_array_equal(largest, result.maps.max(axis=(1, 2)))
    if network.global_pool == "max":
        np.testing.assert_array_equal(result.logits, largest)
    else:
        close(result.logits, result.maps.mean(axis=(1, 2)))


@pytest.mark.parametrize("name", ["nin-slim-128", "nin-28", "nin-cifar10"])
def test_presets(name: str) -> None:
    network = PRESETS[name]
    model, image = untrained_model(network, 3), image_for(network, 3)
    expected = hooked(model, image)
    for layer, array in extract_feature_maps(model, image).items():
        close(array.reshape(expected[layer].shape), expected[layer])


def test_only_the_layers_asked_for_are_computed() -> None:
    network = PRESETS["nin-slim-128"]
    model, image = untrained_model(network), image_for(network, 0)
    later = []
    model.pool1.register_forward_hook(lambda *_: later.append("pool1"))
    maps = extract_feature_maps(model, image, ["block1.relu_1", "block1.conv1x1_1"])
    assert list(maps) == ["block1.conv1x1_1", "block1.relu_1"]
    assert later == []
    assert maps["block1.relu_1"].shape == (6, 30, 30)
    np.testing.assert_array_equal(maps["block1.relu_1"], np.maximum(maps["block1.conv1x1_1"], 0))
    assert extract_feature_maps(model, image, []) == {}
    assert later == []


def test_a_training_model_is_read_in_eval_mode_and_left_as_it_was() -> None:
    network = PRESETS["nin-28"]  # has dropout and batch norm
    model, image = untrained_model(network), image_for(network, 0)
    expected = extract_feature_maps(model, image)
    model.train()
    model.block1.eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    maps = extract_feature_maps(model, image)
    for name, array in expected.items():
        np.testing.assert_array_equal(maps[name], array)
    trace = pixel_trace(model, image, 4, 1, 1)
    np.testing.assert_allclose(trace.outputs, expected["block4.conv1x1_2"][:, 1, 1], atol=1e-5)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_maps_do_not_share_memory_with_the_next_forward_pass() -> None:
    network = PRESETS["nin-28"]
    model = untrained_model(network)
    first = extract_feature_maps(model, image_for(network, 0), ["dropout"])["dropout"]
    kept = first.copy()
    extract_feature_maps(model, image_for(network, 1), ["dropout"])
    np.testing.assert_array_equal(first, kept)
    assert first.flags.c_contiguous


def test_numpy_images_are_accepted() -> None:
    network = PRESETS["nin-28"]
    model, image = untrained_model(network), image_for(network, 0)
    np.testing.assert_array_equal(
        class_maps(model, image.numpy()).logits, class_maps(model, image).logits
    )


@pytest.mark.parametrize("name", ["nin-slim-128", "nin-28"])
def test_untrained_model_is_torch_own_initialisation(name: str) -> None:
    torch.manual_seed(7)
    expected = build_nin(PRESETS[name]).state_dict()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    actual = untrained_model(PRESETS[name], seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert not actual.training
    assert list(actual.state_dict()) == list(expected)
    for key, tensor in actual.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


class TestCheckpoints:
    network = PRESETS["nin-28"]

    def test_round_trip(self) -> None:
        model = lively(self.network, 5)
        loaded = load_model(self.network, save(model.state_dict()))
        assert not loaded.training
        image = image_for(self.network, 5)
        np.testing.assert_array_equal(
            class_maps(loaded, image).logits, class_maps(model, image).logits
        )

    def test_half_precision_becomes_single(self) -> None:
        state = {
            k: v.half() if v.is_floating_point() else v
            for k, v in untrained_model(self.network).state_dict().items()
        }
        loaded = load_model(self.network, save(state))
        assert loaded.block1.conv.weight.dtype == torch.float32
        assert torch.equal(loaded.block1.conv.weight, state["block1.conv.weight"].float())

    @pytest.mark.parametrize("blob", [b"", b"\x00" * 8, b"not a checkpoint", b"\xff" * 4096])
    def test_garbage_is_refused(self, blob: bytes) -> None:
        with pytest.raises(ConfigError, match="cannot be read as safetensors"):
            load_model(self.network, blob)

    def test_a_truncated_one_is_refused(self) -> None:
        blob = save(untrained_model(self.network).state_dict())
        with pytest.raises(ConfigError, match="cannot be read as safetensors"):
            load_model(self.network, blob[: len(blob) // 2])

    def test_another_network_is_named(self) -> None:
        state = untrained_model(self.network).state_dict()
        narrower = self.network.with_widths((8, 64, 64))
        with pytest.raises(ConfigError, match=r"'block1\.conv\.weight' is \[32, 1, 5, 5\]"):
            load_model(narrower, save(state))
        missing = {k: v for k, v in state.items() if k != "block2.conv.weight"}
        with pytest.raises(ConfigError, match=r"has no 'block2\.conv\.weight'"):
            load_model(self.network, save(missing))
        with pytest.raises(ConfigError, match="has 'extra'"):
            load_model(self.network, save(state | {"extra": torch.zeros(1)}))


class TestErrors:
    network = PRESETS["nin-slim-128"]
    model = untrained_model(network)
    image = image_for(network, 0)

    def test_unknown_layer(self) -> None:
        with pytest.raises(ConfigError, match=r"no layer 'block9\.conv'; its layers are block1"):
            extract_feature_maps(self.model, self.image, ["block9.conv"])

    @pytest.mark.parametrize("shape", [(3, 128, 128), (128, 128), (1, 1, 128, 128)])
    def test_wrong_image(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ConfigError, match=r"takes one image \[1, height, width\]"):
            extract_feature_maps(self.model, torch.zeros(shape))

    def test_unknown_block(self) -> None:
        with pytest.raises(ConfigError, match="no block 5; 1 to 4 would work"):
            pixel_trace(self.model, self.image, 5, 0, 0)

    @pytest.mark.parametrize("position", [(30, 0), (0, 30), (-1, 0), (0, -1)])
    def test_position_outside(self, position: tuple[int, int]) -> None:
        with pytest.raises(ConfigError, match="maps are 30×30") as error:
            pixel_trace(self.model, self.image, 1, *position)
        row, col = error.value.suggestion
        pixel_trace(self.model, self.image, 1, row, col)

    def test_wrong_vector(self) -> None:
        with pytest.raises(ConfigError, match="gives 6 channels"):
            trace_vector(self.model, np.zeros(7, np.float32), 1)


def test_a_block_without_1x1_layers_has_an_empty_trace() -> None:
    network = NiNConfig(1, 8, 2, (BlockConfig((2,), kernel_size=3),), dropout=0.0)
    model, image = untrained_model(network), image_for(network, 0)
    trace = pixel_trace(model, image, 1, 2, 3)
    assert trace.steps == ()
    maps = extract_feature_maps(model, image, ["block1.relu"])["block1.relu"]
    np.testing.assert_array_equal(trace.outputs, maps[:, 2, 3])
