"""What a network computes inside: feature maps, one pixel's way through the 1×1 layers, class maps.

Choices made here:

* The forward pass is walked leaf by leaf, in the order of `NiNConfig.plan()`, and ends at the last
  layer asked for: the first block's maps do not pay for the rest of the network. The modules
  themselves are called, so every map is what a forward hook on that layer would see.
* Everything is computed in eval mode without gradients; the modules' own modes are put back.
* A 1×1 convolution is a small dense network applied at every pixel. `pixel_trace` says so in
  numbers: it takes one pixel's channel vector and computes W·x + b with `F.linear`, the very
  operation of `nn.Linear`, with the convolution's own weights.
* Results are float32 numpy arrays, since they are drawn and sent, never differentiated. They do
  not share memory with the model.

Sources: the tutorial's NiN section ("a fully-connected layer acting independently on each pixel
location"); Lin, Chen, Yan, "Network In Network", arXiv 1312.4400, sections 3.1 and 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from .checkpoints import load_weights
from .checks import ConfigError
from .config import GlobalPool, NiNConfig
from .model import build_nin

Array = NDArray[np.float32]


# --- models -----------------------------------------------------------------------------------


def load_model(network: NiNConfig, checkpoint: bytes) -> nn.Sequential:
    """The network of `network` with the weights of a checkpoint, in eval mode on the CPU.

    Args:
        network: the configuration that the checkpoint was trained with.
        checkpoint: safetensors bytes whose keys are the module's own ("block1.conv.weight", …);
            half-precision weights become float32.

    Raises:
        ConfigError: if the bytes are not safetensors, or a tensor is missing, unknown or has
            another shape than the network's.
    """
    try:
        tensors = load_weights(checkpoint)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            "the checkpoint cannot be read as safetensors, so it is damaged; train the run again.",
            field="checkpoint",
        ) from error
    with torch.device("meta"):  # shapes only: the weights come from the checkpoint
        model = build_nin(network)
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise ConfigError(
                f"the checkpoint has no {name!r}, so it belongs to another network; choose the "
                "network that it was trained with.",
                field="checkpoint",
            )
        if tensors[name].shape != tensor.shape:
            raise ConfigError(
                f"the checkpoint's {name!r} is {_shape(tensors[name])}, but this network's is "
                f"{_shape(tensor)}; choose the network that it was trained with.",
                field="checkpoint",
            )
    if unknown := sorted(set(tensors) - set(expected)):
        raise ConfigError(
            f"the checkpoint has {unknown[0]!r}, which this network does not have; choose the "
            "network that it was trained with.",
            field="checkpoint",
        )
    weights = {name: tensors[name].to(tensor.dtype) for name, tensor in expected.items()}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def untrained_model(network: NiNConfig, seed: int = 0) -> nn.Sequential:
    """The network as PyTorch initialises it, in eval mode.

    Bit for bit what ``torch.manual_seed(seed); build_nin(network)`` gives, but from a generator of
    its own: the global one is shared by all threads of a server.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = build_nin(network)
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d):
            # nn.Conv2d.reset_parameters, which takes no generator
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    return model.eval()


# --- maps -------------------------------------------------------------------------------------


def extract_feature_maps(
    model: nn.Sequential, image: Tensor | ArrayLike, layers: Sequence[str] | None = None
) -> dict[str, Array]:
    """The outputs of layers for one image.

    Args:
        model: a network of `build_nin`.
        image: float32 ``[in_channels, image_size, image_size]``, prepared as for training.
        layers: names as in `NiNConfig.plan()`, in any order; None for all of them. Only the part
            of the network up to the last of them is computed.

    Returns:
        For each name, in the order of the forward pass, float32 ``[channels, height, width]``;
        the output of "flatten" as ``[classes, 1, 1]``.

    Raises:
        ConfigError: for a name the network does not have, and for an image of the wrong shape.
    """
    names = [name for name, _ in leaf_modules(model)]
    wanted = set(names if layers is None else layers)
    if unknown := sorted(wanted - set(names)):
        raise ConfigError(
            f"this network has no layer {unknown[0]!r}; its layers are {', '.join(names)}.",
            field="layers",
            suggestion=names[0],
        )
    maps: dict[str, Array] = {}
    if not wanted:
        return maps
    for name, output in _forward(model, image):
        if name in wanted:
            maps[name] = to_array(output).reshape(output.shape[1], *output.shape[2:] or (1, 1))
            if len(maps) == len(wanted):
                break
    return maps


# --- one pixel through the 1×1 layers ---------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class TraceStep:
    """One 1×1 convolution at one pixel: ``linear = weight @ inputs + bias``, then `outputs`.

    Attributes:
        layer: the convolution's name, e.g. "block1.conv1x1_1".
        inputs: ``[in]``, the channel vector that enters.
        weight, bias: ``[out, in]`` and ``[out]`` (zeros where batch norm has the bias).
        linear: ``[out]``, W·x + b, by `F.linear`.
        normalized: ``[out]``, after batch norm; None without it.
        outputs: ``[out]``, what leaves: after ReLU where `activated`.
        activated: whether a ReLU follows (the last convolution may have none).
    """

    layer: str
    inputs: Array
    weight: Array
    bias: Array
    linear: Array
    normalized: Array | None
    outputs: Array
    activated: bool


@dataclass(frozen=True, eq=False, slots=True)
class PixelTrace:
    """One pixel's way through a block's 1×1 layers.

    Attributes:
        block, row, col: the block (from 1) and the position in its maps, from 0.
        inputs: the channel vector after the block's k×k convolution (and its ReLU).
        steps: one for each 1×1 convolution; each begins with what the one before it left.
    """

    block: int
    row: int
    col: int
    inputs: Array
    steps: tuple[TraceStep, ...]

    @property
    def outputs(self) -> Array:
        """The channel vector that leaves the block (before any pooling)."""
        return self.steps[-1].outputs if self.steps else self.inputs


def pixel_trace(
    model: nn.Sequential, image: Tensor | ArrayLike, block: int, row: int, col: int
) -> PixelTrace:
    """Follow one pixel's channel vector through the 1×1 convolutions of a block.

    Args:
        model, image: as for `extract_feature_maps`.
        block: from 1.
        row, col: position in the block's maps, from 0. (1×1 convolutions keep the positions, so it
            is the same pixel in all of them.)

    Raises:
        ConfigError: for a block the network does not have and a position outside its maps.
    """
    before = block_input(model, block)
    maps = extract_feature_maps(model, image, [before])[before]
    _, height, width = maps.shape
    if not (0 <= row < height and 0 <= col < width):
        good = (min(max(row, 0), height - 1), min(max(col, 0), width - 1))
        raise ConfigError(
            f"block {block}'s maps are {height}×{width}, so they have no pixel ({row}, {col}); "
            f"{good} would work.",
            field="row",
            suggestion=good,
        )
    return trace_vector(model, maps[:, row, col], block, row, col)


def trace_vector(
    model: nn.Sequential, vector: ArrayLike, block: int, row: int = 0, col: int = 0
) -> PixelTrace:
    """The 1×1 part of `pixel_trace`, for a channel vector already at hand.

    Args:
        vector: ``[channels]``, the values of the layer `block_input(model, block)` at one pixel.
        row, col: where it was taken; only recorded.

    Raises:
        ConfigError: for a block the network does not have, and a vector of another length.
    """
    layers = block_modules(model, block)
    first = layers[0][1]
    values = to_tensor(model, vector)
    if values.shape != (first.out_channels,):
        raise ConfigError(
            f"block {block}'s k×k convolution gives {first.out_channels} channels, but the vector "
            f"has the shape {_shape(values)}.",
            field="vector",
        )
    inputs = to_array(values[None])
    steps: list[TraceStep] = []
    # A 1×1 convolution opens a step; the batch norm and the ReLU behind it belong to it.
    pointwise = [i for i, (_, layer) in enumerate(layers) if i and isinstance(layer, nn.Conv2d)]
    with torch.no_grad(), evaluating(model):
        for start, end in pairwise([*pointwise, len(layers)]):
            name, conv = layers[start]
            weight = conv.weight.flatten(1)
            linear = F.linear(values, weight, conv.bias)
            outputs, normalized, activated = linear, None, False
            for _, layer in layers[start + 1 : end]:
                outputs = layer(outputs[None, :, None, None])[0, :, 0, 0]
                if isinstance(layer, nn.BatchNorm2d):
                    normalized = to_array(outputs[None])
                activated = activated or isinstance(layer, nn.ReLU)
            bias = torch.zeros_like(linear) if conv.bias is None else conv.bias
            steps.append(
                TraceStep(
                    layer=name,
                    inputs=to_array(values[None]),
                    weight=to_array(weight[None]),
                    bias=to_array(bias[None]),
                    linear=to_array(linear[None]),
                    normalized=normalized,
                    outputs=to_array(outputs[None]),
                    activated=activated,
                )
            )
            values = outputs
    return PixelTrace(block, row, col, inputs, tuple(steps))


def block_input(model: nn.Sequential, block: int) -> str:
    """Name of the layer whose maps enter a block's first 1×1 convolution ("block1.relu", …).

    Raises:
        ConfigError: for a block the network does not have.
    """
    layers = block_modules(model, block)
    pointwise = (i for i, (_, layer) in enumerate(layers) if i and isinstance(layer, nn.Conv2d))
    return layers[next(pointwise, len(layers)) - 1][0]


# --- class maps -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class ClassMaps:
    """The maps that global pooling turns into the answer, one for each class.

    Attributes:
        maps: ``[classes, h, w]``.
        logits, probabilities: ``[classes]``; the pooled maps and their softmax.
        global_pool: "max": a logit is its map's largest value; "avg": its map's mean.
        peaks: int ``[classes, 2]``, row and column of each map's largest value (the first in
            reading order where several are equal).
    """

    maps: Array
    logits: Array
    probabilities: Array
    global_pool: GlobalPool
    peaks: NDArray[np.int64]


def class_maps(model: nn.Sequential, image: Tensor | ArrayLike) -> ClassMaps:
    """The class maps of one image with the logits that pooling makes of them.

    Args:
        model, image: as for `extract_feature_maps`.

    Source: Lin et al., section 3.2 and figure 4; the tutorial pools by maximum.
    """
    names = [name for name, _ in leaf_modules(model)]
    before = names[names.index("global_pool") - 1]
    outputs = extract_feature_maps(model, image, [before, names[-1]])
    is_max = isinstance(model.get_submodule("global_pool"), nn.AdaptiveMaxPool2d)
    return _class_maps(outputs[before], outputs[names[-1]][:, 0, 0], "max" if is_max else "avg")


def pooled_as(answer: ClassMaps, global_pool: GlobalPool) -> ClassMaps:
    """The same class maps under a global pooling, which need not be the network's own."""
    if global_pool == answer.global_pool:
        return answer
    maps = torch.from_numpy(answer.maps)
    logits = maps.amax(dim=(1, 2)) if global_pool == "max" else maps.mean(dim=(1, 2))
    return _class_maps(answer.maps, logits.numpy(), global_pool)


def _class_maps(maps: Array, logits: Array, global_pool: GlobalPool) -> ClassMaps:
    flat = maps.reshape(len(maps), -1).argmax(axis=1)
    return ClassMaps(
        maps=maps,
        logits=logits,
        probabilities=torch.from_numpy(logits).softmax(0).numpy(),
        global_pool=global_pool,
        peaks=np.stack(np.divmod(flat, maps.shape[2]), axis=1),
    )


def strongest_activations(maps: Array, share: float = 0.1) -> Array:
    """Maps in which only the largest values, of all maps together, are left; the others are 0.

    Args:
        maps: ``[classes, h, w]``.
        share: of all values, above 0 and at most 1; at least one value stays. Of values that are
            equal, the first in reading order stay.

    Source: Lin et al., figure 4, which shows the top 10 % of the last layer's activations.
    """
    count = max(1, round(share * maps.size))
    kept = np.argsort(-maps, axis=None, kind="stable")[:count]
    left = np.zeros_like(maps)
    left.flat[kept] = maps.flat[kept]
    return left


# --- walking the module -----------------------------------------------------------------------


def leaf_modules(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """(name, layer) of nested `nn.Sequential`s in the order of the forward pass."""
    for name, module in model.named_children():
        if isinstance(module, nn.Sequential):
            yield from leaf_modules(module, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", module


def _forward(model: nn.Sequential, image: Tensor | ArrayLike) -> Iterator[tuple[str, Tensor]]:
    """Run the layers one after another, yielding each output ``[1, C, h, w]``, then ``[1, C]``."""
    values = to_tensor(model, image)
    leaves = list(leaf_modules(model))
    channels = next(layer.in_channels for _, layer in leaves if isinstance(layer, nn.Conv2d))
    if values.ndim != 3 or values.shape[0] != channels:
        raise ConfigError(
            f"the image has the shape {_shape(values)}, but this network takes one image "
            f"[{channels}, height, width].",
            field="image",
        )
    values = values[None].contiguous(memory_format=torch.channels_last)
    with evaluating(model):
        for name, layer in leaves:
            with torch.no_grad():  # not around the yield: the caller's code is not ours to change
                values = layer(values)
            yield name, values


def block_modules(model: nn.Sequential, block: int) -> list[tuple[str, nn.Module]]:
    """(name, layer) of a block in the order of the forward pass; the k×k convolution is first.

    Raises:
        ConfigError: for a block the network does not have.
    """
    name = f"block{block}"
    children = dict(model.named_children())
    if name not in children:
        count = sum(key.startswith("block") for key in children)
        raise ConfigError(
            f"this network has no block {block}; 1 to {count} would work.",
            field="block",
            suggestion=min(max(block, 1), count),
        )
    return list(leaf_modules(children[name], f"{name}."))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode again afterwards.

    Touches nothing when the model is in eval mode already, as one that threads share must be.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def to_tensor(model: nn.Module, values: Tensor | ArrayLike) -> Tensor:
    """`values` in the type and on the device of the model's weights."""
    weight = next(model.parameters())
    return torch.as_tensor(values).to(weight.device, weight.dtype)


def to_array(batch: Tensor) -> Array:
    """The only item of a batch as a contiguous float32 array of its own."""
    return np.array(batch[0].detach().to("cpu", torch.float32).numpy(), order="C")


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"
