"""The weights a network starts with: the tutorial's, and one under which every class map is alive.

Why the second: `recipes` says how a class map dies, and that most do so before the first step.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

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
    map starts alive.

    Args:
        model: nested `nn.Sequential` of leaf layers.
        inputs: float32 [N, C, S, S], a batch as the network will be trained on.

    Source: Mishkin and Matas, "All you need is a good init", arXiv 1511.06422; mean and lift are
    this project's (see `recipes`).
    """
    _reset(model)
    leaves = [module for module in model.modules() if not list(module.children())]
    affine = [m for m in leaves if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    values = inputs
    for module in leaves:
        if isinstance(module, nn.Dropout):
            continue
        if isinstance(module, nn.Conv2d):
            weight = nn.init.orthogonal_(torch.empty(module.weight.shape))
            module.weight.copy_(weight)
            _normalize_output(module, values)
        if final_relu and module is affine[-1]:
            module.bias.add_(CLASS_MAP_LIFT)
        if isinstance(module, nn.BatchNorm2d):
            # Not through the module, which would count this batch in its running averages.
            values = functional.batch_norm(
                values, None, None, module.weight, module.bias, training=True
            )
        else:
            values = module(values)


def _normalize_output(conv: nn.Conv2d, inputs: torch.Tensor) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    outputs = conv(inputs)
    std, mean = torch.std_mean(outputs, dim=(0, 2, 3), correction=0)
    # A channel that is the same everywhere (a blank batch) has no scale to correct.
    scale = torch.where(std > 1e-6, 1 / std, torch.ones_like(std))
    conv.weight.mul_(scale.view(-1, 1, 1, 1))
    if conv.bias is not None:
        conv.bias.copy_(-mean * scale)


def _reset(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
