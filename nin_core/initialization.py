"""The weights a network starts with: the tutorial's, and one under which every class map is alive.

Why the second: `recipes` says how a class map dies, and that most do so before the first step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from .estimate import START_PART

# How far above zero every class map starts, in standard deviations of that map over a batch.
CLASS_MAP_LIFT = 5.0


def initialize_xavier(model: nn.Module) -> None:
    """The tutorial's start: PyTorch's own, then Xavier-uniform convolution weights.

    Source: `init_weights` in the tutorial's `train_ch6`. Biases keep PyTorch's default.
    """
    _reset(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)


@torch.no_grad()
def initialize_unit_variance(model: nn.Module, inputs: torch.Tensor, *, final_relu: bool) -> None:
    """Orthogonal weights, scaled and shifted so that real data leaves each convolution as N(0, 1).

    The layers are visited in the order of the forward pass; each convolution's rows and bias are
    set from its own output over `inputs`, per channel. With `final_relu` the last affine layer
    (the last batch norm if there is one) is then lifted by `CLASS_MAP_LIFT`, so that every class
    map starts alive. The images pass part by part, so that of one layer's outputs all are in
    memory, but never two layers'.

    Args:
        model: nested `nn.Sequential` of leaf layers.
        inputs: float32 [N, C, S, S], a batch as the network will be trained on.

    Source: Mishkin and Matas, "All you need is a good init", arXiv 1511.06422; mean and lift are
    this project's (see `recipes`).
    """
    _reset(model)
    leaves = [module for module in model.modules() if not list(module.children())]
    affine = [m for m in leaves if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    parts = list(inputs.split(START_PART))
    for module in leaves:
        if isinstance(module, nn.Dropout):
            continue
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(nn.init.orthogonal_(torch.empty(module.weight.shape)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            # Not through the module, which would count these images in its running averages.
            mean, variance = _moments(parts)
            settings = mean, variance, module.weight, module.bias
            _replace(parts, lambda part, s=settings: functional.batch_norm(part, *s))
        else:
            _replace(parts, module)
        if isinstance(module, nn.Conv2d):
            _normalize(module, parts)
        if final_relu and module is affine[-1]:
            module.bias.add_(CLASS_MAP_LIFT)
            _replace(parts, lambda part: part.add_(CLASS_MAP_LIFT))


def _normalize(conv: nn.Conv2d, outputs: list[torch.Tensor]) -> None:
    """Have a convolution give outputs of mean 0 and variance 1; those it gave are changed alike."""
    mean, variance = _moments(outputs)
    std = variance.sqrt()
    # A channel that is the same everywhere (a blank batch) has no scale to correct.
    scale = torch.where(std > 1e-6, 1 / std, torch.ones_like(std))
    conv.weight.mul_(scale.view(-1, 1, 1, 1))
    shift = torch.zeros_like(mean) if conv.bias is None else -mean * scale
    if conv.bias is not None:
        conv.bias.copy_(shift)
    channels = (1, -1, 1, 1)
    _replace(outputs, lambda part: part.mul_(scale.view(channels)).add_(shift.view(channels)))


def _moments(parts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance per channel over all images of all parts."""
    images = sum(len(part) for part in parts)
    weights = torch.tensor([len(part) / images for part in parts]).to(parts[0]).view(-1, 1)
    found = [torch.var_mean(part, dim=(0, 2, 3), correction=0) for part in parts]
    variances, means = (torch.stack(values) for values in zip(*found, strict=True))
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean) ** 2)).sum(0)


def _replace(parts: list[torch.Tensor], layer: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Put each part's output in its place, so that its input can go at once."""
    for number, part in enumerate(parts):
        parts[number] = layer(part)


def _reset(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
