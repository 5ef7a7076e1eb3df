"""NiNConfig -> shapes, parameters, MACs, memory and receptive field of every layer, in closed form.

No tensor is allocated and torch is not imported: a slider moves and the whole table follows in
less than a millisecond. The formulas, per layer with input C_in×n×n and output C_out×m×m:

* shape            m = ⌊(n − k + 2p)/s⌋ + 1
* parameters       C_out·(C_in·k² + 1), without the 1 where there is no bias; batch norm 2·C
* MACs             m²·C_out·C_in·k² multiply-accumulates an image; the bias is not counted, nor are
                   pooling, ReLU and batch norm, which multiply no weights with inputs
* receptive field  r ← r + (k − 1)·j, then effective stride j ← j·s, from r = j = 1 at the image
* memory           float32, 4 bytes a value

What autograd keeps for the backward pass (`saved_bytes`) follows PyTorch's rules: a convolution
keeps its input, ReLU its output (the same tensor as the next layer's input, so it counts once),
max pooling its input and 8-byte indices, dropout its scaled mask, batch norm its input and two
statistics a channel, global average pooling nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

from .checks import ConfigError, choice, whole
from .config import Layer, NiNConfig, output_size, preset_name

if TYPE_CHECKING:
    import pandas as pd

BYTES = 4  # a float32 value
INDEX_BYTES = 8  # max pooling keeps the place of each maximum as an int64
MAX_BATCH_SIZE = 65_536

# Kinds that make autograd keep their input. (Dropout multiplies by a mask and keeps that.)
KEEPS_INPUT = {
    "conv",
    "conv1x1",
    "batch_norm",
    "max_pool",
    "avg_pool",
    "global_max_pool",
    "linear",
}

Granularity = Literal["layer", "block"]


class LayerSummary(NamedTuple):
    """One row of the table.

    Shapes are ``(C, H, W)``, or ``(features,)`` once flattened, without the batch dimension.
    `parameters` counts learned values, `macs` multiply-accumulates for one image, both with their
    share of the network's total (0 to 1). `activation_bytes` is the size of the output and
    `saved_bytes` what autograd keeps of it for the backward pass, both for the whole batch.
    `receptive_field` and `effective_stride` are in image pixels; the receptive field is not
    clipped, so it can exceed the image. `kernel_size` 0 means that the layer has no window.
    """

    name: str
    kind: str
    block: int
    kernel_size: int
    stride: int
    padding: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    parameter_share: float
    macs: int
    mac_share: float
    activation_bytes: int
    saved_bytes: int
    receptive_field: int
    effective_stride: int


@dataclass(frozen=True)
class NetworkSummary:
    """The table of a network, its totals and its memory.

    Attributes:
        name: the preset's name, a reference network's, or "custom".
        layers: one row a module, in the order of the forward pass.
        batch_size: the number of images that all byte figures are for.
        input_shape: ``(C, H, W)`` of one image.
    """

    name: str
    layers: tuple[LayerSummary, ...]
    batch_size: int
    input_shape: tuple[int, int, int]

    @property
    def total_parameters(self) -> int:
        """Learned values of the whole network."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates of one image's forward pass."""
        return sum(layer.macs for layer in self.layers)

    @property
    def total_activation_bytes(self) -> int:
        """Bytes of all outputs together, ReLU's included, for the whole batch."""
        return sum(layer.activation_bytes for layer in self.layers)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of the weights in float32."""
        return self.total_parameters * BYTES

    @property
    def input_bytes(self) -> int:
        """Bytes of the input batch in float32."""
        channels, height, width = self.input_shape
        return self.batch_size * channels * height * width * BYTES

    @property
    def saved_bytes(self) -> int:
        """Bytes autograd keeps for the backward pass of the batch, the input included."""
        keeps_input = self.layers[0].kind in KEEPS_INPUT
        return keeps_input * self.input_bytes + sum(layer.saved_bytes for layer in self.layers)

    def training_bytes(self, optimizer_slots: int = 1) -> int:
        """Memory of a training step: weights, gradients, optimizer, saved activations, transients.

        Args:
            optimizer_slots: values the optimizer keeps a parameter: plain SGD 0, with momentum 1,
                Adam 2.
        """
        state = self.parameter_bytes * (2 + optimizer_slots)
        # While a layer's gradient is computed, those of its output and input exist together.
        return state + self.saved_bytes + self.largest_pair_bytes

    @property
    def largest_pair_bytes(self) -> int:
        """Bytes of the largest pair of one layer's input and output, for the batch."""
        before = [self.input_bytes, *(layer.activation_bytes for layer in self.layers)]
        return max(a + b.activation_bytes for a, b in zip(before, self.layers, strict=False))

    @property
    def blocks(self) -> tuple[LayerSummary, ...]:
        """One row a NiN block; layers outside the blocks keep their own rows.

        A block's row has its k×k convolution's window, its last layer's output, receptive field
        and stride, and the sums of everything countable.
        """
        rows: list[LayerSummary] = []
        for block, group in groupby(self.layers, key=lambda layer: layer.block):
            members = list(group)
            if block == 0:
                rows += members
                continue
            first, last = members[0], members[-1]
            rows.append(
                last._replace(
                    name=f"block{block}",
                    kind="block",
                    kernel_size=first.kernel_size,
                    stride=first.stride,
                    padding=first.padding,
                    input_shape=first.input_shape,
                    parameters=sum(m.parameters for m in members),
                    parameter_share=sum(m.parameter_share for m in members),
                    macs=sum(m.macs for m in members),
                    mac_share=sum(m.mac_share for m in members),
                    activation_bytes=sum(m.activation_bytes for m in members),
                    saved_bytes=sum(m.saved_bytes for m in members),
                )
            )
        return tuple(rows)

    def rows(self, granularity: Granularity = "layer") -> tuple[LayerSummary, ...]:
        """`layers` or `blocks`.

        Raises:
            ConfigError: for another granularity.
        """
        choice(granularity, "granularity", ("layer", "block"), field="granularity")
        return self.layers if granularity == "layer" else self.blocks

    def to_frame(self, granularity: Granularity = "layer") -> pd.DataFrame:
        """The table as pandas: one row a layer or block, one column a field of `LayerSummary`.

        Raises:
            ConfigError: for another granularity.
        """
        import pandas as pd  # costs 0.3 s, which a command-line summary need not pay

        return pd.DataFrame(self.rows(granularity), columns=list(LayerSummary._fields))


def summarize(config: NiNConfig, batch_size: int = 1) -> NetworkSummary:
    """Shapes, costs, memory and receptive fields of every layer, without building the network.

    Args:
        config: the network.
        batch_size: images a batch, for the figures in bytes (parameters and MACs do not depend
            on it).

    Raises:
        ConfigError: if batch_size is not a whole number from 1 to 65,536.
    """
    return summarize_plan(
        preset_name(config) or "custom",
        config.plan(),
        in_channels=config.in_channels,
        image_size=config.image_size,
        batch_size=batch_size,
    )


def summarize_plan(
    name: str, plan: Sequence[Layer], *, in_channels: int, image_size: int, batch_size: int = 1
) -> NetworkSummary:
    """`summarize` for any plan of layers, e.g. a reference network's with dense layers.

    Raises:
        ConfigError: if batch_size is out of range, or a map shrinks below 1×1.
    """
    whole(batch_size, "batch_size", 1, MAX_BATCH_SIZE, field="batch_size")
    shapes = tuple(_walk(plan, in_channels, image_size))
    costs = [_costs(layer, shape.output) for layer, shape in zip(plan, shapes, strict=True)]
    all_parameters = sum(parameters for parameters, _ in costs) or 1
    all_macs = sum(macs for _, macs in costs) or 1
    value = BYTES * batch_size
    rows = []
    for index, (layer, shape, (parameters, macs)) in enumerate(
        zip(plan, shapes, costs, strict=True)
    ):
        following = plan[index + 1].kind if index + 1 < len(plan) else ""
        values = volume(shape.output)
        saved = _saved_bytes(layer, following, values, batch_size)
        if index == 0 and layer.kind == "dropout":
            saved -= values * BYTES * batch_size  # images need no gradient, so no mask is kept
        rows.append(
            LayerSummary(
                layer.name,
                layer.kind,
                layer.block,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                shape.input,
                shape.output,
                parameters,
                parameters / all_parameters,
                macs,
                macs / all_macs,
                values * value,
                saved,
                shape.receptive_field,
                shape.effective_stride,
            )
        )
    return NetworkSummary(name, tuple(rows), batch_size, (in_channels, image_size, image_size))


class _Shape(NamedTuple):
    input: tuple[int, ...]
    output: tuple[int, ...]
    receptive_field: int
    effective_stride: int


def volume(shape: tuple[int, ...]) -> int:
    """How many values a shape holds."""
    values = 1
    for side in shape:
        values *= side
    return values


def _walk(plan: Iterable[Layer], channels: int, size: int) -> Iterable[_Shape]:
    """Shapes and receptive fields from the image on."""
    shape: tuple[int, ...] = (channels, size, size)
    field, stride = 1, 1
    for layer in plan:
        before = shape
        if layer.kernel_size:
            size = output_size(size, layer.kernel_size, layer.stride, layer.padding)
            if size < 1:
                raise ConfigError(
                    f"{layer.name} with its {layer.kernel_size}×{layer.kernel_size} window leaves "
                    f"nothing of a {before[1]}×{before[2]} map; a larger image would work.",
                    field="image_size",
                )
            field += (layer.kernel_size - 1) * stride
            stride *= layer.stride
            shape = (layer.out_channels, size, size)
        elif layer.kind in ("global_max_pool", "global_avg_pool"):
            field += (size - 1) * stride
            size = 1
            shape = (layer.out_channels, 1, 1)
        elif layer.kind == "flatten":
            # From here every value sees the whole map, as a global pooling's does.
            field += (size - 1) * stride
            size = 1
            shape = (volume(shape),)
        elif layer.kind == "linear":
            shape = (layer.out_channels,)
        yield _Shape(before, shape, field, stride)


def _costs(layer: Layer, output: tuple[int, ...]) -> tuple[int, int]:
    """(parameters, MACs an image) of one layer."""
    match layer.kind:
        case "conv" | "conv1x1":
            weights = layer.out_channels * layer.in_channels * layer.kernel_size**2
            return weights + layer.bias * layer.out_channels, weights * output[1] * output[2]
        case "linear":
            weights = layer.out_channels * layer.in_channels
            return weights + layer.bias * layer.out_channels, weights
        case "batch_norm":
            return 2 * layer.out_channels, 0
        case _:
            return 0, 0


def _saved_bytes(layer: Layer, following: str, values: int, batch_size: int) -> int:
    """Bytes of this layer's output and side products that the backward pass needs."""
    saved = 0
    # Flatten is a view: it shares its input's memory, so nothing of its own is kept here, and a
    # linear layer after it keeps that shared memory.
    if layer.kind in ("relu", "sigmoid") or following in KEEPS_INPUT:
        saved += values * BYTES * batch_size
    if layer.kind in ("max_pool", "global_max_pool"):
        saved += values * INDEX_BYTES * batch_size
    elif layer.kind == "dropout":
        saved += values * BYTES * batch_size
    elif layer.kind == "batch_norm":
        saved += 2 * layer.out_channels * BYTES
    return saved
