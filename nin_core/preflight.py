"""A look at a network before its first step: is this a start from which it can learn?

One forward and one backward pass over some training images, with exactly the weights that a run of
this configuration starts with. People ask for it before a run (`preflight`); each run looks at its
own start as well, at fewer images, and says what was found (`of_run`). What is looked for is what
stops a NiN before it has begun (see `recipes`): class maps and channels that are zero for every
image, logits that do not tell one image from another, layers that no gradient reaches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from .config import NiNConfig
from .data import balanced_sample
from .estimate import seconds_per_image
from .inputs import Inputs
from .recipes import TrainConfig
from .records import Start, Verdict
from .training import starting_model
from .training_state import random_states, restore_random_states
from .trouble import fast_or
from .vitals import norm, watched

if TYPE_CHECKING:
    from .data import Dataset

PROBE_SECONDS = 0.8  # what both passes may take on the reference thread, as estimated
RUN_SECONDS = 0.2  # and of each run's look at itself
MAX_PROBE, MIN_PROBE = 256, 20  # images
# What part of a run's batch passes at once in its look at itself, so that this takes no more memory
# than a step; at least two images, for batch norm.
SHARE = 4
# Below this share of the weights' own norm a gradient moves nothing at any usual rate.
VANISHED = 1e-7
# Logits closer together than this, in nats, are one answer for all images.
SAME_LOGITS = 1e-6


@dataclass(frozen=True, slots=True)
class LayerStart:
    """How one convolution starts.

    Attributes:
        name: as in `NiNConfig.plan`.
        channels: its output channels; `dead`, how many of them are zero after the ReLU at every
            place of every image. 0 where no ReLU follows.
        gradient: L2 norm of the loss's gradient by its weights and biases.
        weights: L2 norm of these.
    """

    name: str
    channels: int
    dead: int
    gradient: float
    weights: float


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a run would start from.

    Attributes:
        images: how many training images were looked at.
        layers: the convolutions, in network order.
        logit_spread: largest standard deviation of a logit between the images.
        loss: cross-entropy in nats; guessing costs ln(classes).
        verdict: "ready"; "doubtful": it may learn, but part of the network is lost; "stalled": it
            cannot learn.
        sentence: the verdict for people, and what to change.
    """

    images: int
    layers: tuple[LayerStart, ...]
    logit_spread: float
    loss: float
    verdict: Verdict
    sentence: str

    @property
    def dead_class_maps(self) -> int:
        """How many class maps are zero for every image: the last convolution's dead channels."""
        return self.layers[-1].dead

    @property
    def start(self) -> Start:
        """What of it a run keeps."""
        return Start(self.verdict, self.sentence)


def probe_size(network: NiNConfig, seconds: float = PROBE_SECONDS) -> int:
    """As many images as may be looked at in so many seconds, 20 to 256."""
    return max(MIN_PROBE, min(MAX_PROBE, int(seconds / seconds_per_image(network))))


def preflight(
    dataset: Dataset, config: TrainConfig, network: NiNConfig, *, images: int | None = None
) -> Preflight:
    """Look at the weights a run would start with, over a balanced batch of training images.

    PyTorch's global random generator is seeded, as a run does.

    Args:
        images: how many to look at; default `probe_size(network)`.

    Raises:
        ConfigError: if data set, network and configuration do not go together.
    """
    model = starting_model(dataset, config, network)
    chosen = balanced_sample(dataset.train_labels, images or probe_size(network))
    inputs = Inputs.of(network, dataset, config)
    return _examine(model, dataset, chosen, inputs, len(chosen), config)


def of_run(
    model: nn.Module, dataset: Dataset, config: TrainConfig, network: NiNConfig, inputs: Inputs
) -> Preflight:
    """What a run finds of its own start; PyTorch's generators are left as they were.

    Args:
        model: a copy of its network before the first step, of which the gradients change.
        inputs: what makes the network's inputs of its images.
    """
    size = probe_size(network, RUN_SECONDS)
    part = min(size, config.batch_size, max(2, config.batch_size // SHARE))
    chosen = balanced_sample(dataset.train_labels, size // part * part)
    device = next(model.parameters()).device
    drawn = random_states(device)
    try:
        return _examine(model, dataset, chosen, inputs, part, config)
    finally:
        restore_random_states(device, drawn)


def _examine(
    model: nn.Module,
    dataset: Dataset,
    chosen: torch.Tensor,
    inputs: Inputs,
    part: int,
    config: TrainConfig,
) -> Preflight:
    """Pass the chosen training images through, so many at once, and back."""
    outputs, loss = [], 0.0
    with watched(model) as dead:
        for some in chosen.split(part):
            logits = model(inputs(dataset.train_images[some]))
            labels = dataset.train_labels[some].to(logits.device)
            lost = functional.cross_entropy(logits, labels, reduction="sum") / len(chosen)
            lost.backward()
            loss += lost.item()
            outputs.append(logits.detach())
    logits = torch.cat(outputs)
    counts = dead.counts()
    layers = [
        LayerStart(
            name,
            module.out_channels,
            counts.get(name, 0),
            norm(p.grad for p in module.parameters() if p.grad is not None).item(),
            norm(module.parameters()).item(),
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    spread = logits.std(0).max().item() if len(chosen) > 1 else 0.0
    verdict, sentence = _judge(layers, len(chosen), spread, loss, config)
    return Preflight(len(chosen), tuple(layers), spread, loss, verdict, sentence)


def _judge(
    layers: Sequence[LayerStart], images: int, spread: float, loss: float, config: TrainConfig
) -> tuple[Verdict, str]:
    """What is to be said of a start, and what would help: not a recipe that starts the same way."""
    classes, dead = layers[-1].channels, layers[-1].dead
    taken = config.initialization == "unit-variance"
    cure = "take the fast recipe, under which every map starts alive, or switch the final ReLU off."
    if taken:
        cure = "switch the final ReLU off, or try another seed."
    if not math.isfinite(loss):
        return "stalled", (
            "The first loss is not a finite number: the weights start too large; "
            f"{fast_or('batch norm', taken=taken)} would work."
        )
    if dead == classes:
        return "stalled", (
            f"All {classes} class maps are zero for each of {images} training images, so no "
            f"gradient passes and the loss stays at ln({classes}) = {math.log(classes):.3f}: {cure}"
        )
    if spread < SAME_LOGITS:
        return "stalled", (
            f"Each of {images} training images gets the same logits, so nothing tells them apart; "
            f"{fast_or('batch norm', taken=taken)} would keep them apart."
        )
    unreached = [layer.name for layer in layers if layer.gradient <= VANISHED * layer.weights]
    if unreached:
        return "stalled", (
            f"No gradient reaches {unreached[0]}"
            f"{f' and {len(unreached) - 1} more' if len(unreached) > 1 else ''}, so these weights "
            f"never change; {fast_or('fewer layers', taken=taken)} would work."
        )
    if dead:
        return "doubtful", (
            f"{dead} of {classes} class maps {'is' if dead == 1 else 'are'} zero for each of "
            f"{images} training images; a zero map passes no gradient, so "
            f"{'that class is' if dead == 1 else 'those classes are'} never learned unless "
            f"another layer's changes revive {'it' if dead == 1 else 'them'}: {cure}"
        )
    worst = max(layers, key=lambda layer: layer.dead / layer.channels)
    if worst.dead * 2 > worst.channels:
        return "doubtful", (
            f"{worst.dead} of {worst.channels} channels of {worst.name} are zero everywhere, so "
            f"most of this layer is lost; {fast_or('batch norm', taken=taken)} would revive them."
        )
    return "ready", (
        f"Every class map is alive, {images} training images get different logits, and a gradient "
        "reaches every layer."
    )
