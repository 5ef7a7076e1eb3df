"""The 1×1 lens: the arithmetic of one pixel, and the dense network that 1×1 convolutions are.

Choices made here:

* A sum is shown with every term, so it has to add up. The product of two float32 numbers is exact
  in float64, and `math.fsum` rounds a sum once, at its end: `total` is the true value of W·x + b
  for the network's weights. What float32 arithmetic makes of it differs by rounding, and each
  class keeps both apart.
* In eval mode a batch norm is one factor and one summand a channel (`scale`, `shift`). It changes
  neither which inputs enter an output nor that the layer is linear, so it is folded into the
  weights wherever layers are put together, and shown as a line of its own in a pixel's sum.
* `dense_network` is the claim "a 1×1 convolution is a dense layer at every pixel" as a module:
  `nn.Linear` (and `nn.BatchNorm1d`) with the very weights of the convolutions.
* Results are numpy arrays that share no memory with the model.

Sources: Lin, Chen, Yan, "Network In Network", arXiv 1312.4400, section 3.1 (cascaded cross channel
pooling); the tutorial's NiN section.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from .checks import ConfigError
from .features import Array, TraceStep, block_input, block_modules

Exact = NDArray[np.float64]

MAX_SPECTRUM_SIDE = 1024  # a decomposition costs the cube of it: about a second at this size
_PART = 4096  # pixels run at once


# --- one output as a sum ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class OutputSum:
    """One output of a 1×1 convolution at one pixel: ``total = Σ weights·inputs + bias``.

    Attributes:
        channel: the output.
        weights, inputs: ``[in]``, the weight row and the pixel's channel vector.
        products: ``[in]``, their products, exact.
        bias: of this output; 0 where a batch norm has it.
        total: the sum, rounded once.
        order: ``[in]``, input channels by the size of their product, largest first.
    """

    channel: int
    weights: Exact
    inputs: Exact
    products: Exact
    bias: float
    total: float
    order: NDArray[np.int64]


def output_sum(step: TraceStep, channel: int) -> OutputSum:
    """One output of a traced step, term by term.

    Args:
        step: of `pixel_trace` or `trace_vector`.
        channel: from 0.

    Raises:
        ConfigError: for a channel the layer does not have.
    """
    _check_channel(step.layer, channel, len(step.weight))
    weights, inputs = step.weight[channel].astype(np.float64), step.inputs.astype(np.float64)
    products = weights * inputs
    bias = float(step.bias[channel])
    return OutputSum(
        channel=channel,
        weights=weights,
        inputs=inputs,
        products=products,
        bias=bias,
        total=math.fsum([*products, bias]),
        order=np.argsort(-np.abs(products), kind="stable"),
    )


@dataclass(frozen=True, eq=False, slots=True)
class PatchSum:
    """One output of a block's k×k convolution at one place: ``total = Σ patch·kernel + bias``.

    Attributes:
        layer: the convolution's name.
        channel, row, col: the output and its place in the convolution's map.
        top, left: where the patch begins in the maps (or image) it is cut from; negative where it
            reaches into the padding.
        patch, kernel, products: ``[in, k, k]``, the products exact. Padding is 0.
        inside: ``[k, k]``, False where the patch is padding.
        by_input: ``[in]``, each input channel's part of the sum.
        bias, total: as in `OutputSum`.
    """

    layer: str
    channel: int
    row: int
    col: int
    top: int
    left: int
    patch: Exact
    kernel: Exact
    products: Exact
    inside: NDArray[np.bool_]
    by_input: Exact
    bias: float
    total: float


def patch_sum(
    model: nn.Sequential, entering: ArrayLike, block: int, channel: int, row: int, col: int
) -> PatchSum:
    """One output of a block's k×k convolution, product by product.

    Args:
        entering: ``[in, h, w]``, what enters the block: the network's input, or the maps of the
            pooling (or layer) before it.
        block: from 1.
        channel, row, col: of the convolution's output, from 0.

    Raises:
        ConfigError: for a block, channel or position the network does not have.
    """
    name, conv = block_modules(model, block)[0]
    assert isinstance(conv, nn.Conv2d)
    maps = np.asarray(entering, np.float64)
    if maps.ndim != 3 or len(maps) != conv.in_channels:
        raise ConfigError(
            f"{name} takes maps [{conv.in_channels}, height, width], not {list(maps.shape)}.",
            field="entering",
        )
    _check_channel(name, channel, conv.out_channels)
    side, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    for what, value, size in (("row", row, maps.shape[1]), ("column", col, maps.shape[2])):
        last = (size - side + 2 * padding) // stride
        if not 0 <= value <= last:
            raise ConfigError(
                f"{name}'s maps have no {what} {value}; 0 to {last} would work.",
                field=what,
                suggestion=min(max(value, 0), last),
            )
    top, left = row * stride - padding, col * stride - padding
    rows, cols = np.arange(top, top + side), np.arange(left, left + side)
    inside = np.logical_and.outer(
        (rows >= 0) & (rows < maps.shape[1]), (cols >= 0) & (cols < maps.shape[2])
    )
    patch = np.zeros((len(maps), side, side))
    patch[:, inside] = maps[
        :, rows[:, None].clip(0, maps.shape[1] - 1), cols[None].clip(0, maps.shape[2] - 1)
    ][:, inside]
    kernel = _exact(conv.weight[channel])
    products = patch * kernel
    bias = 0.0 if conv.bias is None else conv.bias[channel].item()
    return PatchSum(
        layer=name,
        channel=channel,
        row=row,
        col=col,
        top=top,
        left=left,
        patch=patch,
        kernel=kernel,
        products=products,
        inside=inside,
        by_input=np.array([math.fsum(part.ravel()) for part in products]),
        bias=bias,
        total=math.fsum([*products.ravel(), bias]),
    )


def _check_channel(layer: str, channel: int, count: int) -> None:
    if not 0 <= channel < count:
        raise ConfigError(
            f"{layer} has no output channel {channel}; 0 to {count - 1} would work.",
            field="channel",
            suggestion=min(max(channel, 0), count - 1),
        )


# --- the same, as a dense network -------------------------------------------------------------


def dense_network(model: nn.Sequential, block: int) -> nn.Sequential:
    """A block's 1×1 part as a dense network: what is applied at every pixel, as one module.

    Returns:
        `nn.Linear`, `nn.BatchNorm1d` and `nn.ReLU` with the names, weights and statistics of the
        block's layers, in eval mode; it takes ``[pixels, channels]``. Empty for a block without
        1×1 convolutions.

    Raises:
        ConfigError: for a block the network does not have.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in _pointwise_part(model, block):
        layers[name.rpartition(".")[2]] = _dense_twin(layer)
    return nn.Sequential(layers).eval()


def _dense_twin(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        twin: nn.Module = nn.Linear(
            layer.in_channels, layer.out_channels, bias=layer.bias is not None, device="meta"
        )
        state = {
            name: value.flatten(1) if value.ndim == 4 else value
            for name, value in layer.state_dict().items()
        }
    elif isinstance(layer, nn.BatchNorm2d):
        twin = nn.BatchNorm1d(layer.num_features, eps=layer.eps, device="meta")
        state = layer.state_dict()
    else:
        return nn.ReLU()
    copies = {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    twin.load_state_dict(copies, assign=True)
    return twin


@dataclass(frozen=True, eq=False, slots=True)
class DenseDifference:
    """How far a 1×1 convolution's maps are from `nn.Linear` with the same weights.

    Attributes:
        layer: the 1×1 convolution.
        difference: ``[out, h, w]``, maps less dense network, at all pixels.
        reach: the largest magnitude in the maps, which the difference is small beside.
    """

    layer: str
    difference: Array
    reach: float

    @property
    def largest(self) -> float:
        """The largest magnitude of the difference, over all channels and pixels."""
        return float(np.abs(self.difference).max())

    @property
    def where(self) -> tuple[int, int, int]:
        """Channel, row and column of the largest difference."""
        place = np.unravel_index(np.abs(self.difference).argmax(), self.difference.shape)
        return int(place[0]), int(place[1]), int(place[2])


def compare_with_dense(
    model: nn.Sequential, block: int, maps: Mapping[str, Array]
) -> tuple[DenseDifference, ...]:
    """A block's maps beside the dense network, run on the channel vectors of all pixels at once.

    Args:
        block: from 1.
        maps: of `extract_feature_maps`, at least those of `block_input(model, block)` and of the
            block's 1×1 convolutions.

    Returns:
        One difference for each 1×1 convolution. The dense network starts at the block's input and
        runs to its end, so rounding adds up over the layers.
    """
    entering = maps[block_input(model, block)]
    values = torch.from_numpy(entering.reshape(len(entering), -1).T.copy())
    found = []
    with torch.no_grad():
        for name, layer in dense_network(model, block).cpu().float().named_children():
            values = layer(values)
            full = f"block{block}.{name}"
            if isinstance(layer, nn.Linear):
                convolved = maps[full]
                found.append(
                    DenseDifference(
                        layer=full,
                        difference=convolved - values.T.numpy().reshape(convolved.shape),
                        reach=float(np.abs(convolved).max()),
                    )
                )
    return tuple(found)


# --- the weights ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class PointwiseLayer:
    """A 1×1 convolution as a matrix, with the batch norm and the ReLU that follow it.

    Attributes:
        layer: the convolution's name.
        weight, bias: ``[out, in]`` and ``[out]`` (zeros where batch norm has the bias).
        scale, shift: ``[out]``, what the batch norm multiplies by and adds in eval mode; None
            without one.
        activated: whether a ReLU follows.
    """

    layer: str
    weight: Exact
    bias: Exact
    scale: Exact | None
    shift: Exact | None
    activated: bool

    def folded(self) -> tuple[Exact, Exact]:
        """Weight and bias with the batch norm multiplied in: all that happens before the ReLU."""
        if self.scale is None or self.shift is None:
            return self.weight, self.bias
        return self.scale[:, None] * self.weight, self.scale * self.bias + self.shift


def pointwise_layers(model: nn.Sequential, block: int) -> tuple[PointwiseLayer, ...]:
    """A block's 1×1 convolutions as matrices, in float64.

    Raises:
        ConfigError: for a block the network does not have.
    """
    found: list[PointwiseLayer] = []
    parts = _pointwise_part(model, block)
    for index, (name, conv) in enumerate(parts):
        if not isinstance(conv, nn.Conv2d):
            continue
        scale = shift = None
        activated = False
        for _, layer in parts[index + 1 :]:
            if isinstance(layer, nn.Conv2d):
                break
            if isinstance(layer, nn.BatchNorm2d):
                scale, shift = batch_norm_line(layer)
            activated = activated or isinstance(layer, nn.ReLU)
        weight = _exact(conv.weight)[:, :, 0, 0]
        bias = np.zeros(len(weight)) if conv.bias is None else _exact(conv.bias)
        found.append(PointwiseLayer(name, weight, bias, scale, shift, activated))
    return tuple(found)


def batch_norm_line(layer: nn.BatchNorm2d) -> tuple[Exact, Exact]:
    """What a batch norm does in eval mode, as ``scale·z + shift``: ``[channels]`` each.

    scale = γ / √(variance + ε), shift = β − scale · mean, with the running statistics.
    """
    assert layer.running_mean is not None and layer.running_var is not None
    scale = _exact(layer.weight) / np.sqrt(_exact(layer.running_var) + layer.eps)
    return scale, _exact(layer.bias) - scale * _exact(layer.running_mean)


@dataclass(frozen=True, eq=False, slots=True)
class Spectrum:
    """The singular values of a weight matrix, largest first, and its numerical rank."""

    values: Exact
    rank: int

    def count_for(self, share: float) -> int:
        """How many of the largest hold this share of the squared sum (of the matrix's energy)."""
        energy = np.cumsum(self.values**2)
        if not energy[-1]:
            return 0
        return int(np.searchsorted(energy, share * energy[-1])) + 1


def spectrum(weight: ArrayLike) -> Spectrum:
    """Singular values of a matrix ``[out, in]``.

    Raises:
        ConfigError: where both sides exceed `MAX_SPECTRUM_SIDE`, or a weight is not a number.
    """
    matrix = np.asarray(weight, np.float64)
    if min(matrix.shape) > MAX_SPECTRUM_SIDE:
        raise ConfigError(
            f"the singular values of a {matrix.shape[0]}×{matrix.shape[1]} matrix take too long "
            f"for a page; with at most {MAX_SPECTRUM_SIDE} rows or columns they would be shown.",
            field="weight",
            suggestion=MAX_SPECTRUM_SIDE,
        )
    if not np.isfinite(matrix).all():
        raise ConfigError("the weights are not all numbers: this run diverged.", field="weight")
    values = np.linalg.svd(matrix, compute_uv=False)
    # numpy's own rule for the rank, for weights that were rounded to float32
    smallest = values.max(initial=0) * max(matrix.shape) * np.finfo(np.float32).eps
    return Spectrum(values, int((values > smallest).sum()))


# --- without the ReLU -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Collapsed:
    """Two 1×1 layers without the ReLU between them: one matrix.

    Attributes:
        first, second: the convolutions' names.
        weight, bias: ``[out, in]`` and ``[out]``: W₂·W₁ and W₂·b₁ + b₂, with a batch norm between
            the two folded into W₁ and b₁.
    """

    first: str
    second: str
    weight: Exact
    bias: Exact


def collapse(first: PointwiseLayer, second: PointwiseLayer) -> Collapsed:
    """The one dense layer that two 1×1 layers are when nothing but a line stands between them.

    It ends where the second's W·x + b ends, before its own batch norm and ReLU.

    Raises:
        ConfigError: if the second does not take what the first gives.
    """
    weight, bias = first.folded()
    if second.weight.shape[1] != len(weight):
        raise ConfigError(
            f"{second.layer} takes {second.weight.shape[1]} channels, but {first.layer} gives "
            f"{len(weight)}; choose two layers that follow each other.",
            field="second",
        )
    return Collapsed(
        first.layer, second.layer, second.weight @ weight, second.weight @ bias + second.bias
    )


@dataclass(frozen=True, eq=False, slots=True)
class CollapseComparison:
    """Two 1×1 layers run three ways on the same channel vectors, in float64.

    Attributes:
        collapsed: ``[out, …]``, by the one matrix.
        stepwise: ``[out, …]``, one layer after the other without the ReLU between.
        real: ``[out, …]``, with the ReLU, as the network does it.
        clipped: share of the values between the layers that the ReLU sets to zero.
    """

    collapsed: Exact
    stepwise: Exact
    real: Exact
    clipped: float

    @property
    def error(self) -> float:
        """Largest difference between the one matrix and the two layers without ReLU: rounding."""
        return float(np.abs(self.collapsed - self.stepwise).max())

    @property
    def distance(self) -> float:
        """Largest difference between the one matrix and what the network really gives."""
        return float(np.abs(self.collapsed - self.real).max())

    @property
    def relative(self) -> float:
        """Root mean square of that difference over the root mean square of the real outputs."""
        size = float(np.sqrt(np.mean(self.real**2)))
        return float(np.sqrt(np.mean((self.collapsed - self.real) ** 2))) / size if size else 0.0


def compare_collapsed(
    one: Collapsed, first: PointwiseLayer, second: PointwiseLayer, vectors: ArrayLike
) -> CollapseComparison:
    """Run two consecutive 1×1 layers with and without the ReLU, and as one matrix.

    Args:
        one: ``collapse(first, second)``.
        vectors: ``[in]`` or ``[in, …]``: one pixel's channel vector, or whole maps.
    """
    inputs = np.asarray(vectors, np.float64)
    weight, bias = first.folded()
    between = _apply(weight, bias, inputs)
    rectified = np.maximum(between, 0) if first.activated else between
    return CollapseComparison(
        collapsed=_apply(one.weight, one.bias, inputs),
        stepwise=_apply(second.weight, second.bias, between),
        real=_apply(second.weight, second.bias, rectified),
        clipped=float((between < 0).mean()) if first.activated else 0.0,
    )


class CollapseTotals(NamedTuple):
    """The four figures of a `CollapseComparison` over all pixels of some maps."""

    error: float
    distance: float
    relative: float
    clipped: float


def collapse_totals(
    one: Collapsed, first: PointwiseLayer, second: PointwiseLayer, maps: Array
) -> CollapseTotals:
    """`compare_collapsed` over whole maps, a part at a time: the memory of a part is enough.

    Args:
        maps: ``[in, h, w]``, what enters the first layer.
    """
    pixels = maps.reshape(len(maps), -1)
    error = distance = clipped = apart = size = 0.0
    for start in range(0, pixels.shape[1], _PART):
        part = compare_collapsed(one, first, second, pixels[:, start : start + _PART])
        error, distance = max(error, part.error), max(distance, part.distance)
        clipped += part.clipped * part.real.shape[1]
        apart += float(((part.collapsed - part.real) ** 2).sum())
        size += float((part.real**2).sum())
    relative = math.sqrt(apart / size) if size else 0.0
    return CollapseTotals(error, distance, relative, clipped / pixels.shape[1])


def _apply(weight: Exact, bias: Exact, values: Exact) -> Exact:
    flat = weight @ values.reshape(len(values), -1) + bias[:, None]
    return flat.reshape(len(weight), *values.shape[1:])


# --- walking the block ------------------------------------------------------------------------


def _pointwise_part(model: nn.Sequential, block: int) -> list[tuple[str, nn.Module]]:
    """(name, layer) from a block's first 1×1 convolution on; empty without one."""
    layers = block_modules(model, block)
    start = next(
        (i for i, (_, layer) in enumerate(layers) if i and isinstance(layer, nn.Conv2d)),
        len(layers),
    )
    return layers[start:]


def _exact(tensor: Tensor) -> Exact:
    return tensor.detach().to("cpu", torch.float64).numpy().copy()
