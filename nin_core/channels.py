"""What a channel does: what excites it most, what is lost without it, what a class asks of it.

Choices made here:

* One pass over the images answers for all channels of a layer at once, in batches whose largest
  map is bounded; nothing is kept of a batch but the best of each channel.
* Of each image only its strongest position counts, so the images that excite a channel most are
  different images.
* A channel is switched off behind its layer: what follows receives zeros, as if the next layer's
  weights for it were zero. The layers are shared, never changed, so that other threads may use
  them meanwhile.
* Accuracy without a channel needs the network up to the layer once per batch and only the rest
  once per channel, and that only for the images in which the channel is not zero anyway.
* Gradients are of a class's logit, not of its probability, which other classes move too. They are
  taken without touching the parameters' own `.grad`.

Sources: Zeiler and Fergus, arXiv 1311.2901, for the patches that excite a channel most; Simonyan,
Vedaldi, Zisserman, arXiv 1312.6034, for the input gradient.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from .checks import ConfigError, whole
from .features import Array, evaluating, leaf_modules, to_array, to_tensor
from .predictions import Images, Progress, batch, batch_size, count

# --- what excites a channel -------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Exciting:
    """For every channel of a layer, the images that excite it most, and its habits.

    Attributes:
        images: how many were looked at.
        index, row, column: int64 ``[channels, top]``: image, and the position in its map, the most
            exciting first. Equal ones come in the order of the images; of equal positions in one
            map, the first in reading order.
        value: ``[channels, top]``, what the channel said there.
        mean, maximum: ``[channels]``, over all images and positions.
        active: ``[channels]``, the share of positions with a value above 0.
        dead: bool ``[channels]``: zero everywhere in every image.
    """

    images: int
    index: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    value: Array
    mean: NDArray[np.float64]
    maximum: Array
    active: NDArray[np.float64]
    dead: NDArray[np.bool_]


def most_exciting(
    model: nn.Sequential,
    images: Images,
    layer: str,
    top: int = 9,
    *,
    progress: Progress | None = None,
) -> Exciting:
    """The images and positions that excite each channel of a layer most, in one pass.

    Args:
        model: a network of `build_nin`.
        images: prepared as for training; at least one.
        layer: whose output is meant, a name as in `NiNConfig.plan()`.
        top: how many images a channel; fewer come back if there are fewer.
        progress: called after each batch with the images done and all.

    Raises:
        ConfigError: for a layer the network does not have, and for no images.
    """
    head, _ = _split(model, layer)
    whole(top, "top", 1, 1000, field="top")
    total = count(images)
    best_values = best_places = None
    with torch.no_grad(), evaluating(model):
        size = batch_size(model, images)
        for start in range(0, total, size):
            maps = _maps(_run(head, batch(model, images, start, size)))
            flat = maps.flatten(2)  # [B, channels, positions]
            values, positions = flat.max(dim=2)
            values = values.masked_fill(values.isnan(), -torch.inf)  # never the best of anything
            numbers = torch.arange(start, start + len(maps)).unsqueeze(1).expand_as(positions)
            places = torch.stack([numbers, positions])
            if best_values is None or best_places is None:
                channels, cells, width = flat.shape[1], flat.shape[2], maps.shape[3]
                best_values, best_places = values[:0], places[:, :0]
                sums = torch.zeros(channels, dtype=torch.float64)
                active, other = torch.zeros_like(sums), torch.zeros_like(sums)
            sums += flat.sum(dim=(0, 2), dtype=torch.float64)
            active += (flat > 0).sum(dim=(0, 2))
            other += (flat != 0).sum(dim=(0, 2))
            candidates = torch.cat([best_values, values])
            # Stable, and earlier images stand first: of equal ones the earlier stays.
            best_values, order = candidates.sort(dim=0, descending=True, stable=True)
            best_values, order = best_values[:top], order[:top]
            best_places = torch.cat([best_places, places], dim=1)
            best_places = best_places.gather(1, order.expand(2, *order.shape))
            if progress is not None:
                progress(min(start + size, total), total)
    index, position = best_places.numpy()
    value = best_values.T.contiguous().numpy()
    return Exciting(
        images=total,
        index=index.T.copy(),
        row=position.T // width,
        column=position.T % width,
        value=value,
        mean=(sums / (total * cells)).numpy(),
        maximum=value[:, 0].copy(),
        active=(active / (total * cells)).numpy(),
        dead=(other == 0).numpy(),
    )


# --- without a channel ------------------------------------------------------------------------


class _SwitchedOff(nn.Module):
    """Passes maps on with some channels zero."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = list(channels)

    def forward(self, maps: Tensor) -> Tensor:
        left = maps.clone()
        left[:, self.channels] = 0
        return left


def ablate(model: nn.Sequential, layer: str, channels: Sequence[int]) -> nn.Sequential:
    """The network with channels of a layer switched off: what follows receives zeros for them.

    It shares the layers of `model`, which stays as it is, and can be used in its place everywhere
    (`class_maps`, `extract_feature_maps`, …). Its output is, to the bit, that of a network whose
    next convolution has zero weights for these channels.

    Args:
        layer: whose output is meant, the ReLU's for what is usually called a channel.
        channels: from 0; none is allowed.

    Raises:
        ConfigError: for a layer or a channel that the network does not have.
    """
    _check_channels(model, layer, channels)
    parent, _, own = layer.rpartition(".")

    def rebuilt(children: nn.Sequential, here: bool) -> nn.Sequential:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for name, child in children.named_children():
            nested = isinstance(child, nn.Sequential)
            parts[name] = rebuilt(child, name == parent) if nested else child
            if here and name == own:
                parts[f"{name}_switched_off"] = _SwitchedOff(channels)
        network = nn.Sequential(parts)
        network.training = children.training
        return network

    return rebuilt(model, not parent)


class Ablation(NamedTuple):
    """How many images are classified right with a layer whole and with channels switched off.

    Attributes:
        done, total: images so far, and in the end.
        correct: of those done, with all channels.
        correct_without: int64 ``[groups]``, with the channels of each group switched off.
    """

    done: int
    total: int
    correct: int
    correct_without: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """With all channels, 0 to 1."""
        return self.correct / self.done

    @property
    def accuracy_without(self) -> NDArray[np.float64]:
        """With the channels of each group switched off, 0 to 1."""
        return self.correct_without / self.done

    @property
    def lost(self) -> NDArray[np.float64]:
        """Accuracy lost without each group; negative where the network is better without it."""
        return (self.correct - self.correct_without) / self.done

    @property
    def order(self) -> NDArray[np.int64]:
        """The groups, those whose loss costs most first; equal ones by number."""
        return np.argsort(self.correct_without, kind="stable")


def ablation_accuracy(
    model: nn.Sequential,
    images: Images,
    labels: ArrayLike,
    layer: str,
    groups: Sequence[Sequence[int]],
) -> Iterator[Ablation]:
    """The accuracy with each group of channels switched off, growing batch by batch.

    Args:
        model, images: as for `most_exciting`.
        labels: int ``[N]``, the images' classes.
        layer, groups: the channels of each group are switched off together, as by `ablate`.

    Yields:
        After each batch what holds for the images so far; the last one is the result.

    Raises:
        ConfigError: for a layer or channel the network does not have, for no images, and for
            another number of labels. At once, not when the first item is asked for.
    """
    for group in groups:
        _check_channels(model, layer, group)
    total = count(images)
    truth = torch.as_tensor(labels)
    if truth.shape != (total,):
        raise ConfigError(
            f"{total} images need {total} labels, not {tuple(truth.shape)}.", field="labels"
        )
    return _ablations(model, images, truth, layer, [list(group) for group in groups])


def _ablations(
    model: nn.Sequential, images: Images, truth: Tensor, layer: str, groups: list[list[int]]
) -> Iterator[Ablation]:
    head, tail = _split(model, layer)
    total = len(images)
    correct, without = 0, np.zeros(len(groups), np.int64)
    with (
        torch.no_grad(),
        evaluating(model),
    ):  # never around the yield
        size = batch_size(model, images)
    for start in range(0, total, size):
        with torch.no_grad(), evaluating(model):
            maps = _run(head, batch(model, images, start, size))
            labels = truth[start : start + size]
            right = _run(tail, maps).argmax(dim=1) == labels
            count = int(right.sum())
            correct += count
            filled = (maps.flatten(2) if maps.ndim > 2 else maps[..., None]).any(dim=2)
            for number, group in enumerate(groups):
                rows = filled[:, group].any(dim=1)
                if not rows.any():  # zero anyway: nothing changes
                    without[number] += count
                    continue
                saved = maps[:, group]  # a copy, as the index is a list
                maps[:, group] = 0
                everything = bool(rows.all())
                changed = maps if everything else _same_layout(maps[rows], maps)
                found = _run(tail, changed).argmax(dim=1) == labels[rows]
                maps[:, group] = saved
                without[number] += int(found.sum()) + int(right[~rows].sum())
        yield Ablation(min(start + size, total), total, correct, without.copy())


def ablation_ranking(
    model: nn.Sequential, images: Images, labels: ArrayLike, layer: str
) -> Iterator[Ablation]:
    """The accuracy without each single channel of a layer: `ablation_accuracy`, a group a channel.

    `Ablation.order` of the last item ranks the channels.
    """
    channels = channel_count(model, layer)
    return ablation_accuracy(model, images, labels, layer, [[c] for c in range(channels)])


# --- gradients --------------------------------------------------------------------------------


def input_gradient(model: nn.Sequential, image: Tensor | ArrayLike, class_index: int) -> Array:
    """How a class's logit changes with each value of the image.

    Args:
        image: float32 ``[in_channels, image_size, image_size]``, prepared as for training.
        class_index: from 0.

    Returns:
        float32 like the image: ∂logit/∂input.

    Raises:
        ConfigError: for a class the network does not have.
    """
    return _gradient(
        model, _one(model, image), [layer for _, layer in leaf_modules(model)], class_index
    )


def map_gradients(
    model: nn.Sequential, image: Tensor | ArrayLike, layer: str, class_index: int
) -> Array:
    """How a class's logit changes with each value of a layer's maps.

    Returns:
        float32 ``[channels, height, width]``: ∂logit/∂map, as the layer's output stands for this
        image.

    Raises:
        ConfigError: for a layer or a class the network does not have.
    """
    head, tail = _split(model, layer)
    with torch.no_grad(), evaluating(model):
        maps = _run(head, _one(model, image))
    return _gradient(model, maps, tail, class_index)


def importance(maps: ArrayLike, gradients: ArrayLike) -> NDArray[np.float64]:
    """What each channel adds to a logit, to first order: the sum of map × gradient.

    About what the logit loses when the channel is switched off; exactly that where everything
    behind the layer is linear.

    Args:
        maps, gradients: ``[channels, height, width]``, of `extract_feature_maps`, `map_gradients`.
    """
    products = np.asarray(maps, np.float64) * np.asarray(gradients, np.float64)
    return products.sum(axis=(1, 2))


def _gradient(
    model: nn.Sequential, values: Tensor, tail: list[nn.Module], class_index: int
) -> Array:
    with torch.enable_grad(), evaluating(model):
        values = values.detach().requires_grad_()
        logits = _run(tail, values).flatten(1)
        whole(class_index, "class", 0, logits.shape[1] - 1, field="class")
        (gradient,) = torch.autograd.grad(logits[0, class_index], values)
    return to_array(_maps(gradient))


# --- walking the module -----------------------------------------------------------------------


def channel_count(model: nn.Sequential, layer: str) -> int:
    """Channels of a layer's output, without computing it.

    Raises:
        ConfigError: for a layer the network does not have.
    """
    head, _ = _split(model, layer)
    return next(one.out_channels for one in reversed(head) if isinstance(one, nn.Conv2d))


def _split(model: nn.Sequential, layer: str) -> tuple[list[nn.Module], list[nn.Module]]:
    """The layers up to and with `layer`, and those behind it."""
    leaves = list(leaf_modules(model))
    names = [name for name, _ in leaves]
    if layer not in names:
        raise ConfigError(
            f"this network has no layer {layer!r}; its layers are {', '.join(names)}.",
            field="layer",
            suggestion=names[0],
        )
    modules = [module for _, module in leaves]
    behind = names.index(layer) + 1
    return modules[:behind], modules[behind:]


def _check_channels(model: nn.Sequential, layer: str, channels: Sequence[int]) -> None:
    last = channel_count(model, layer) - 1
    for channel in channels:
        whole(channel, f"a channel of {layer}", 0, last, field="channels")


def _one(model: nn.Sequential, image: Tensor | ArrayLike) -> Tensor:
    return to_tensor(model, image)[None].contiguous(memory_format=torch.channels_last)


def _run(layers: Sequence[nn.Module], values: Tensor) -> Tensor:
    for layer in layers:
        values = layer(values)
    return values


def _maps(values: Tensor) -> Tensor:
    """``[B, C, h, w]`` of any layer's output; "flatten" has ``[B, C]``."""
    return values if values.ndim == 4 else values[:, :, None, None]


def _same_layout(values: Tensor, like: Tensor) -> Tensor:
    if values.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        return values.contiguous(memory_format=torch.channels_last)
    return values
