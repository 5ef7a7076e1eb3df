"""Receptive fields of single cells: by hand, and against the gradients of real networks."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nin_core import PRESETS, BlockConfig, ConfigError, NiNConfig, PoolConfig, build_nin, summarize
from nin_core.receptive_field import (
    Field,
    Span,
    layer_step,
    receptive_field,
    skips_pixels,
    steps_to,
)

from .strategies import networks


def field_of(config: NiNConfig, layer: str, cell: int) -> Field:
    return receptive_field(steps_to(summarize(config), layer), config.image_size, cell)


def test_nin_224_by_hand() -> None:
    config = PRESETS["nin-224"]
    assert field_of(config, "block1.conv", 53) == Field(Span(212, 222), Span(212, 222))
    assert field_of(config, "pool1", 1) == Field(Span(8, 26), Span(8, 26))
    # block2.conv: padding 2 on a map of stride 8; its cell 0 begins two cells before the map.
    corner = field_of(config, "block2.conv", 0)
    assert corner == Field(Span(-16, 34), Span(0, 34))
    assert corner.padding == (16, 0)
    # Its last cell ends two cells behind the map, whose own last cell ends at pixel 218, not 223.
    assert field_of(config, "block2.conv", 25) == Field(Span(184, 234), Span(184, 218))
    # Class maps: 195 pixels, more than the border leaves in any corner.
    middle = field_of(config, "block4.conv", 2)
    assert middle.whole.size == 195
    assert field_of(config, "global_pool", 0).seen == Span(0, 218)


def test_the_image_itself_and_layers_that_move_nothing() -> None:
    assert receptive_field((), 28, 27) == Field(Span(27, 27), Span(27, 27))
    network = summarize(PRESETS["nin-28"])
    for layer in network.layers:
        if layer.kind in ("relu", "dropout", "batch_norm", "conv1x1"):
            assert layer_step(layer) is None


def test_cells_and_layers_that_are_not_there_are_said() -> None:
    steps = steps_to(summarize(PRESETS["nin-224"]), "block4.conv")
    with pytest.raises(ConfigError, match="cell is 5; it must be between 0 and 4"):
        receptive_field(steps, 224, 5)
    with pytest.raises(ConfigError, match="there is no layer 'block9'"):
        steps_to(summarize(PRESETS["nin-224"]), "block9")


def test_strides_wider_than_the_field_leave_gaps() -> None:
    blocks = (
        BlockConfig((4,), 1, stride=2),
        BlockConfig((4, 4), 1),
        BlockConfig((2,), 3, padding=1),
    )
    network = summarize(NiNConfig(1, 16, 2, blocks))
    assert not skips_pixels(steps_to(network, "block1.conv"))
    assert not skips_pixels(steps_to(network, "block2.conv1x1_1"))
    assert skips_pixels(steps_to(network, "block3.conv"))
    for config in PRESETS.values():
        assert not skips_pixels(steps_to(summarize(config), "global_pool"))


def linear_twin(model: nn.Module) -> nn.Module:
    """The model with weights of one and means for maxima, so that no path is cut or cancelled."""
    twin = copy.deepcopy(model).double().eval()
    for name, module in list(twin.named_modules()):
        parent = twin.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.MaxPool2d):
            setattr(parent, leaf, nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
        elif isinstance(module, nn.AdaptiveMaxPool2d):
            setattr(parent, leaf, nn.AdaptiveAvgPool2d(module.output_size))
    return twin


def pixels_of(model: nn.Module, config: NiNConfig, cell: dict[str, tuple[int, int]]) -> dict:
    """The rows and columns of the image from which a gradient comes, per layer's cell."""
    outputs: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if name in cell:
            module.register_forward_hook(
                lambda module, inputs, output, name=name: outputs.__setitem__(name, output)
            )
    image = torch.ones(
        1, config.in_channels, config.image_size, config.image_size, dtype=torch.float64
    ).requires_grad_()
    model(image)
    found = {}
    for name, (row, column) in cell.items():
        output = outputs[name]
        value = output[0, 0, row, column] if output.ndim == 4 else output[0, 0]
        (gradient,) = torch.autograd.grad(value, image, retain_graph=True)
        reached = gradient[0, 0] != 0
        found[name] = (
            reached.any(1).nonzero().flatten().tolist(),
            reached.any(0).nonzero().flatten().tolist(),
        )
    return found


def check(config: NiNConfig, cells: dict[str, tuple[int, int]]) -> None:
    network = summarize(config)
    found = pixels_of(linear_twin(build_nin(config)), config, cells)
    for name, pixels in found.items():
        steps = steps_to(network, name)
        layer = next(layer for layer in network.layers if layer.name == name)
        for cell, reached in zip(cells[name], pixels, strict=True):
            field = receptive_field(steps, config.image_size, cell)
            assert field.seen == (reached[0], reached[-1]), (name, cell)
            assert field.whole.size == layer.receptive_field
            if not skips_pixels(steps):
                assert len(reached) == field.seen.size
            elif field.seen == field.whole:
                assert len(reached) < field.seen.size


@settings(max_examples=250, deadline=None)
@given(config=networks(), data=st.data())
def test_agrees_with_the_gradients_of_the_real_network(
    config: NiNConfig, data: st.DataObject
) -> None:
    """Every layer, a random cell of each: first and last pixel, and whether there are gaps."""
    cells = {}
    for layer in summarize(config).layers:
        side = layer.output_shape[1] if len(layer.output_shape) == 3 else 1
        index = st.integers(0, side - 1)
        cells[layer.name] = (data.draw(index), data.draw(index))
    check(config, cells)


@pytest.mark.parametrize("name", ["nin-slim-128", "nin-28", "nin-cifar10"])
def test_corners_of_the_presets_agree_with_gradients(name: str) -> None:
    config = PRESETS[name].with_widths(tuple(2 for _ in PRESETS[name].blocks[:-1]))
    layers = {
        layer.name: layer.output_shape[1]
        for layer in summarize(config).layers
        if len(layer.output_shape) == 3
    }
    check(config, {layer: (0, side - 1) for layer, side in layers.items()})


@settings(max_examples=100, deadline=None)
@given(config=networks())
def test_the_whole_field_moves_by_the_effective_stride(config: NiNConfig) -> None:
    network = summarize(config)
    for layer in network.layers:
        steps = steps_to(network, layer.name)
        side = steps[-1].cells if steps else config.image_size
        fields = [receptive_field(steps, config.image_size, cell) for cell in range(side)]
        for here, there in pairwise(fields):
            assert there.whole.first - here.whole.first == layer.effective_stride
            assert there.whole.size == here.whole.size == layer.receptive_field


def test_a_pooling_with_padding() -> None:
    blocks = (BlockConfig((2,), 3, pool=PoolConfig(3, 2, 1)),)
    config = NiNConfig(1, 10, 2, blocks)
    assert field_of(config, "pool1", 0) == Field(Span(-1, 3), Span(0, 3))
