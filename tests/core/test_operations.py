"""Other operations and lost pixels against layers computed value by value."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import product

import pytest
from hypothesis import given, settings

from nin_core import PRESETS, LayerSummary, NiNConfig, summarize
from nin_core.operations import Operations, lost_pixels, operations
from nin_core.reference_nets import reference_summary

from .strategies import networks


def reached(layer: LayerSummary) -> set[int]:
    """The columns of the input that some window covers."""
    return {
        column
        for index in range(layer.output_shape[1])
        for column in range(
            index * layer.stride - layer.padding,
            index * layer.stride - layer.padding + layer.kernel_size,
        )
        if 0 <= column < layer.input_shape[1]
    }


class Counter:
    """Counts what is done to numbers."""

    def __init__(self) -> None:
        self.comparisons = self.additions = self.multiplications = 0

    def larger(self, a: float, b: float) -> float:
        self.comparisons += 1
        return max(a, b)

    def add(self, a: float, b: float) -> float:
        self.additions += 1
        return a + b

    def times(self, a: float, b: float) -> float:
        self.multiplications += 1
        return a * b


def compute(layer: LayerSummary, count: Counter) -> None:
    """One image's forward pass of a layer, value by value, but for its MACs."""
    inside = layer.kernel_size or (layer.input_shape[1] if len(layer.input_shape) == 3 else 1)
    patch = [0.5] * (inside * inside)
    of_values: dict[str, Callable[[], object]] = {
        "relu": lambda: count.larger(0.5, 0.0),
        "max_pool": lambda: reduce(count.larger, patch),
        "global_max_pool": lambda: reduce(count.larger, patch),
        "avg_pool": lambda: count.times(reduce(count.add, patch), 1 / len(patch)),
        "global_avg_pool": lambda: count.times(reduce(count.add, patch), 1 / len(patch)),
        "batch_norm": lambda: count.add(count.times(0.5, 2.0), 1.0),
        "sigmoid": lambda: count.times(1.0, 1 / count.add(1.0, 0.5)),
    }
    one = of_values.get(layer.kind)
    if layer.kind in ("conv", "conv1x1", "linear"):
        weights = layer.output_shape[0] * layer.input_shape[0] * max(layer.kernel_size, 1) ** 2
        if layer.parameters > weights:
            one = lambda: count.add(0.5, 0.1)  # noqa: E731
    for _ in product(*map(range, layer.output_shape)):
        if one is not None:
            one()


@settings(max_examples=60, deadline=None)
@given(config=networks())
def test_operations_are_those_of_a_pass_value_by_value(config: NiNConfig) -> None:
    for layer in summarize(config).layers:
        if layer.activation_bytes > 4 * 2000:
            continue
        count = Counter()
        compute(layer, count)
        assert operations(layer) == (count.comparisons, count.additions, count.multiplications)


@settings(max_examples=200, deadline=None)
@given(config=networks())
def test_lost_pixels_are_those_no_window_covers(config: NiNConfig) -> None:
    for layer in summarize(config).layers:
        if layer.kernel_size:
            assert lost_pixels(layer) == layer.input_shape[1] - len(reached(layer))
        else:
            assert lost_pixels(layer) == 0


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "lost"),
    [
        (224, 11, 4, 0, 1),
        (54, 3, 2, 0, 1),
        (28, 5, 1, 2, 0),
        (32, 3, 2, 1, 0),
        (10, 1, 3, 0, 6),  # windows with gaps between them
        (3, 2, 5, 1, 2),
    ],
)
def test_lost_pixels_by_hand(size: int, kernel: int, stride: int, padding: int, lost: int) -> None:
    windows = (size - kernel + 2 * padding) // stride + 1
    row = summarize(PRESETS["nin-28"]).layers[0]
    row = row._replace(
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        input_shape=(1, size, size),
        output_shape=(1, windows, windows),
    )
    assert lost_pixels(row) == size - len(reached(row)) == lost


def test_nin_224() -> None:
    network = summarize(PRESETS["nin-224"], 64)
    found = {layer.name: operations(layer) for layer in network.layers}
    assert found["block1.conv"] == Operations(additions=96 * 54 * 54)
    assert found["block1.relu"] == Operations(comparisons=96 * 54 * 54)
    assert found["pool1"] == Operations(comparisons=96 * 26 * 26 * 8)
    assert found["global_pool"] == Operations(comparisons=10 * 24)
    assert found["dropout"] == found["flatten"] == Operations()
    assert found["pool1"].total == 519_168
    assert operations(*network.layers).total == sum(one.total for one in found.values())
    assert operations() == Operations()


def test_dense_layers() -> None:
    found = {
        layer.name: operations(layer) for layer in reference_summary("LeNet", 1, 28, 10).layers
    }
    assert found["dense1"] == Operations(additions=120)
    assert found["pool1"] == Operations(additions=6 * 14 * 14 * 3, multiplications=6 * 14 * 14)
    assert found["sigmoid3"] == Operations(additions=120, multiplications=120)
