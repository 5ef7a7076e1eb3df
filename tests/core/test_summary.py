"""The closed-form table against the tutorial's figures and against real PyTorch modules."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nin_core import PRESETS, ConfigError, NiNConfig, build_nin, summarize
from nin_core.model import build_layers

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
    """What the real module does: per leaf its shapes and costs; bytes that autograd keeps.

    What autograd keeps counts for the layer that made it: its output, or a by-product like indices
    and masks. The images were made by none.
    """
    model = build_nin(config).train()
    found: dict[str, dict[str, Any]] = {}
    running: list[str] = []
    made_by: dict[int, str] = {}
    alive: list[torch.Tensor] = []  # held, so that no address is used twice

    def record(name: str, module: nn.Module) -> None:
        def begin(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            running.append(name)

        def end(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            running.pop()
            alive.append(output)
            made_by.setdefault(output.untyped_storage().data_ptr(), name)
            macs = 0
            if isinstance(module, nn.Conv2d):
                macs = output[0].numel() * module.weight[0].numel()
            found[name] = {
                "input": tuple(inputs[0].shape[1:]),
                "output": tuple(output.shape[1:]),
                "parameters": sum(p.numel() for p in module.parameters()),
                "macs": macs,
                "bytes": output.numel() * output.element_size(),
                "kept": 0,
            }

        module.register_forward_pre_hook(begin)
        module.register_forward_hook(end)

    for name, module in model.named_modules():
        if not list(module.children()):
            record(name, module)

    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, tuple[torch.UntypedStorage, str]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.nbytes():
            kept.setdefault(storage.data_ptr(), (storage, running[-1]))
        return tensor

    images = torch.rand(batch_size, config.in_channels, config.image_size, config.image_size)
    made_by[images.untyped_storage().data_ptr()] = "images"
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images)
    for address, (storage, layer) in kept.items():
        maker = made_by.get(address, layer)
        if maker != "images":
            found[maker]["kept"] += storage.nbytes()
    return found, sum(storage.nbytes() for storage, _ in kept.values())


@settings(max_examples=1000, deadline=None)
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
        assert layer.saved_bytes == real["kept"]
    assert summary.saved_bytes == kept


_LARGEST = 96  # pixels: of the images whose gradients are looked at


def reach(value: torch.Tensor, image: torch.Tensor) -> tuple[int, int]:
    """The first and last image column that a value depends on; rows are checked to be the same."""
    (gradient,) = torch.autograd.grad(value, image, retain_graph=True)
    columns, rows = (gradient[0].abs().sum(axes).nonzero().flatten() for axes in ((0, 1), (0, 2)))
    assert columns.tolist() == rows.tolist()
    return int(columns[0]), int(columns[-1])


@settings(max_examples=200, deadline=None)
@given(config=networks())
def test_receptive_fields_agree_with_gradients(config: NiNConfig) -> None:
    """The image pixels that reach a value of the real modules, for every layer.

    All weights are positive and all pooling averages, so that no path cancels another or loses
    against it. The image is as large as the deepest layer's field (and its neighbour's) needs.
    """
    config = replace(
        config,
        global_pool="avg",
        blocks=tuple(
            replace(block, pool=block.pool and replace(block.pool, mode="avg"))
            for block in config.blocks
        ),
    )
    # Where the field of each layer's first value begins; padding moves it out of the image.
    layers, begins, begin, stride, size = [], [], 0, 1, 1
    for layer in summarize(config).layers:
        begin -= layer.padding * stride
        field, stride = layer.receptive_field, layer.effective_stride
        needed = field + 3 * stride - 2 * begin
        if layer.kind == "global_avg_pool" or needed > _LARGEST:
            break
        size = max(size, needed)
        layers.append(layer)
        begins.append(begin)
    model = build_layers(config.plan()[: len(layers)]).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(0 if "bias" in name else 1 / parameter[0].numel())
    image = torch.ones(1, config.in_channels, size, size, dtype=torch.float64, requires_grad=True)
    outputs: list[torch.Tensor] = []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    model(image)
    for layer, begin, output in zip(layers, begins, outputs, strict=True):
        if layer.kind == "relu":
            continue  # sees what the layer before it sees
        inside = -(begin // layer.effective_stride)  # the first cell that sees no padding
        first, last = reach(output[0, 0, inside, inside], image)
        assert first == begin + inside * layer.effective_stride
        assert last - first + 1 == layer.receptive_field
        following = reach(output[0, 0, inside + 1, inside + 1], image)
        assert following[0] - first == layer.effective_stride


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
