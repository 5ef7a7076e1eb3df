"""NiNConfig -> nn.Sequential: the network as PyTorch sees it.

The layers come from `NiNConfig.plan()`, so the module cannot differ from the table. Modules carry
the plan's names ("block1.conv", "pool1", …), which are also the keys of a checkpoint and the names
under which feature maps are asked for. ReLU is not in place: a hook on a convolution must be able
to read what the convolution gave, and autograd keeps one tensor a convolution + ReLU pair anyway.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import nn

from .config import Layer, NiNConfig

ONEDNN_BLOCK = 16  # channels, at most; 8 with AVX2


def build_nin(config: NiNConfig) -> nn.Sequential:
    """Build the network of `config` with PyTorch's default initialisation.

    Args:
        config: a validated configuration.

    Returns:
        A module that takes float32 ``[N, in_channels, image_size, image_size]`` and returns logits
        ``[N, num_classes]``. Its children are ``block1``, ``pool1``, …, ``dropout``, the last
        block, ``global_pool`` and ``flatten``.

    Source: the tutorial's `nin_block` and `net`; Lin et al., arXiv 1312.4400.
    """
    return build_layers(config.plan())


def memory_layout(config: NiNConfig) -> torch.memory_format:
    """The usual layout to train in: channels_last, 1.4 to 2.6 times as fast, if the network can."""
    return torch.channels_last if can_use_channels_last(config) else torch.contiguous_format


def can_use_channels_last(config: NiNConfig) -> bool:
    """Whether the network may be trained in the layout channels_last.

    On processors with AVX2 and no more, oneDNN's gradient of a 1×1 convolution with a stride writes
    past its memory in this layout when the input has fewer channels than one of its blocks (oneDNN
    issue 6035, in PyTorch 2.14): the process dies, or the gradient is wrong.
    """
    return not any(
        layer.kind in ("conv", "conv1x1")
        and layer.kernel_size == 1
        and layer.stride > 1
        and layer.in_channels < ONEDNN_BLOCK
        for layer in config.plan()
    )


def build_layers(layers: Iterable[Layer]) -> nn.Sequential:
    """Build any plan; a dotted name puts the layer into a nested `nn.Sequential`."""
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in layers:
        parent, _, name = layer.name.rpartition(".")
        module = _module(layer)
        if parent:
            group = children.setdefault(parent, nn.Sequential())
            group.add_module(name, module)
        else:
            children[name] = module
    return nn.Sequential(children)


def _module(layer: Layer) -> nn.Module:
    match layer.kind:
        case "conv" | "conv1x1":
            return nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                bias=layer.bias,
            )
        case "batch_norm":
            return nn.BatchNorm2d(layer.out_channels)
        case "relu":
            return nn.ReLU()
        case "sigmoid":
            return nn.Sigmoid()
        case "max_pool":
            return nn.MaxPool2d(layer.kernel_size, layer.stride, layer.padding)
        case "avg_pool":
            return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)
        case "dropout":
            return nn.Dropout(layer.rate)
        case "global_max_pool":
            return nn.AdaptiveMaxPool2d(1)
        case "global_avg_pool":
            return nn.AdaptiveAvgPool2d(1)
        case "flatten":
            return nn.Flatten()
        case "linear":
            return nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias)
