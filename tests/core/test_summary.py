"""The closed-form table against the tutorial's figures and against real PyTorch modules."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nin_core import PRESETS, ConfigError, NiNConfig, build_nin, summarize

from .strategies import networks

# name, output, parameters of the block rows, receptive field, effective stride: the tutorial's.
NIN_224 = [
    ("block1", (96, 54, 54), 30_336, 11, 4),
    ("pool1", (96, 26, 26), 0, 19, 8),
    ("block2", (256, 26, 26), 746_240, 51, 8),
    ("pool2", (256, 12, 12), 0, 67, 16),
    ("block3", (384, 12, 12), 1_180_800, 99, 16),
    ("pool3", (384, 5, 5), 0, 131, 32),
    ("dropout", (384, 5, 5), 0, 131, 32),
    ("block4", (10, 5, 5), 34_790, 195, 32),
    ("global_pool", (10, 1, 1), 0, 323, 32),
    ("flatten", (10,), 0, 323, 32),
]
NIN_SLIM_128 = [
    ("block1", (6, 30, 30), 816),
    ("pool1", (6, 14, 14), 0),
    ("block2", (16, 14, 14), 2_960),
    ("pool2", (16, 6, 6), 0),
    ("block3", (24, 6, 6), 4_680),
    ("pool3", (24, 2, 2), 0),
    ("dropout", (24, 2, 2), 0),
    ("block4", (10, 2, 2), 2_390),
    ("global_pool", (10, 1, 1), 0),
    ("flatten", (10,), 0),
]


def test_nin_224_row_by_row() -> None:
    summary = summarize(PRESETS["nin-224"])
    rows = [
        (r.name, r.output_shape, r.parameters, r.receptive_field, r.effective_stride)
        for r in summary.blocks
    ]
    assert rows == NIN_224
    assert summary.total_parameters == 1_992_166
    assert summary.total_macs == 762_297_352
    pointwise = [layer for layer in summary.layers if layer.kind == "conv1x1"]
    assert sum(layer.parameter_share for layer in pointwise) == pytest.approx(0.224, abs=5e-4)
    assert sum(layer.mac_share for layer in pointwise) == pytest.approx(0.242, abs=5e-4)


def test_nin_slim_128_row_by_row() -> None:
    summary = summarize(PRESETS["nin-slim-128"])
    assert [(r.name, r.output_shape, r.parameters) for r in summary.blocks] == NIN_SLIM_128
    assert summary.total_parameters == 10_846
    assert summary.total_macs == 1_464_280


def measure(config: NiNConfig, batch_size: int) -> tuple[dict[str, dict[str, Any]], int]:
    """What the real module does: per leaf its shapes, parameters and MACs; bytes autograd keeps."""
    model = build_nin(config).train()
    found: dict[str, dict[str, Any]] = {}

    def record(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            macs = 0
            if isinstance(module, nn.Conv2d):
                macs = output[0].numel() * module.weight[0].numel()
            found[name] = {
                "input": tuple(inputs[0].shape[1:]),
                "output": tuple(output.shape[1:]),
                "parameters": sum(p.numel() for p in module.parameters()),
                "macs": macs,
                "bytes": output.numel() * output.element_size(),
            }

        module.register_forward_hook(hook)

    for name, module in model.named_modules():
        if not list(module.children()):
            record(name, module)

    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.nbytes():
            kept[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    images = torch.rand(batch_size, config.in_channels, config.image_size, config.image_size)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images)
    return found, sum(storage.nbytes() for storage in kept.values())


@settings(max_examples=400, deadline=None)
@given(config=networks(), batch_size=st.integers(2, 4))
def test_agrees_with_the_real_module(config: NiNConfig, batch_size: int) -> None:
    summary = summarize(config, batch_size)
    found, kept = measure(config, batch_size)
    assert [layer.name for layer in summary.layers] == list(found)
    for layer in summary.layers:
        real = found[layer.name]
        assert layer.input_shape == real["input"]
        assert layer.output_shape == real["output"]
        assert layer.parameters == real["parameters"]
        assert layer.macs == real["macs"]
        assert layer.activation_bytes == real["bytes"]
    assert summary.saved_bytes == kept


@settings(max_examples=60, deadline=None)
@given(config=networks())
def test_receptive_field_agrees_with_gradients(config: NiNConfig) -> None:
    """The span of input pixels that reach one value, in a copy large enough not to be clipped.

    Weights are set to one and activations left out, so that no path cancels another.
    """
    layers = [layer for layer in summarize(config).layers if layer.kernel_size]
    last = layers[-1]
    size = last.receptive_field + 4 * last.effective_stride
    image = torch.ones(1, config.in_channels, size, size, dtype=torch.float64, requires_grad=True)
    value = image
    for layer in layers:
        window = (layer.kernel_size, layer.stride, 0)
        if layer.kind.startswith("conv"):
            weight = torch.ones(1, value.shape[1], layer.kernel_size, layer.kernel_size).double()
            value = nn.functional.conv2d(value, weight, None, layer.stride)
        else:
            value = nn.functional.avg_pool2d(value, *window)
    assert value.shape[-1] >= 2
    here, right = value[0, 0, 0, 0], value[0, 0, 0, 1]
    (gradient,) = torch.autograd.grad(here, image, retain_graph=True)
    (shifted,) = torch.autograd.grad(right, image)
    columns = gradient[0, 0].abs().sum(0).nonzero().flatten()
    moved = shifted[0, 0].abs().sum(0).nonzero().flatten()
    assert int(columns[-1] - columns[0]) + 1 == last.receptive_field
    assert int(moved[0] - columns[0]) == last.effective_stride


@settings(max_examples=100, deadline=None)
@given(config=networks())
def test_blocks_and_shares_add_up(config: NiNConfig) -> None:
    summary = summarize(config)
    for field in ("parameters", "macs", "activation_bytes", "saved_bytes"):
        blocks = sum(getattr(row, field) for row in summary.blocks)
        assert blocks == sum(getattr(row, field) for row in summary.layers)
    assert sum(layer.parameter_share for layer in summary.layers) == pytest.approx(1)
    assert sum(layer.mac_share for layer in summary.layers) == pytest.approx(1)
    assert len(summary.blocks) - sum(layer.block == 0 for layer in summary.layers) == len(
        config.blocks
    )


def test_memory_grows_with_the_batch_but_weights_do_not() -> None:
    config = PRESETS["nin-224"]
    one, many = summarize(config, 1), summarize(config, 8)
    assert many.saved_bytes == 8 * one.saved_bytes
    assert many.parameter_bytes == one.parameter_bytes == 4 * 1_992_166
    assert many.training_bytes(2) - many.training_bytes(1) == many.parameter_bytes
    with pytest.raises(ConfigError, match="batch_size"):
        summarize(config, 0)


def test_frame_has_a_row_a_layer_and_the_totals() -> None:
    summary = summarize(PRESETS["nin-224"])
    frame = summary.to_frame()
    assert list(frame["name"]) == [layer.name for layer in summary.layers]
    assert frame["parameters"].sum() == summary.total_parameters
    assert len(summary.to_frame("block")) == len(NIN_224)
    with pytest.raises(ConfigError, match="granularity"):
        summary.to_frame("module")  # type: ignore[arg-type]


def test_summarize_needs_no_torch_and_no_screen() -> None:
    code = (
        "import sys; from nin_core import PRESETS, summarize; summarize(PRESETS['nin-224'])\n"
        "print([m for m in ('torch', 'pandas', 'streamlit', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
