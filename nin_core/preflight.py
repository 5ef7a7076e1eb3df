"""A look at a network before its first step: is this a start from which it can learn?

One forward and one backward pass over a batch of training images, with exactly the weights that a
run of this configuration starts with. What is looked for is what stops a NiN before it has begun
(see `recipes`): class maps and channels that are zero for every image, logits that do not tell one
image from another, layers that no gradient reaches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import nn
from torch.nn import functional

from .config import NiNConfig
from .data import balanced_sample
from .estimate import seconds_per_image
from .inputs import Inputs
from .recipes import TrainConfig
from .training import starting_model
from .vitals import norm, watched

if TYPE_CHECKING:
    from .data import Dataset

PROBE_SECONDS = 0.8  # what both passes may take on the reference thread, as estimated
MAX_PROBE, MIN_PROBE = 256, 20  # images
# Below this share of the weights' own norm a gradient moves nothing at any usual rate.
VANISHED = 1e-7
# Logits closer together than this, in nats, are one answer for all images.
SAME_LOGITS = 1e-6

Verdict = Literal["ready", "doubtful", "stalled"]


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


def probe_size(network: NiNConfig) -> int:
    """How many images `preflight` looks at: as many as take about a second, 20 to 256."""
    return max(MIN_PROBE, min(MAX_PROBE, int(PROBE_SECONDS / seconds_per_image(network))))


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
    inputs = Inputs.of(network, dataset, config)(dataset.train_images[chosen])
    labels = dataset.train_labels[chosen]

    with watched(model) as dead:
        logits = model(inputs)
    loss = functional.cross_entropy(logits, labels)
    loss.backward()

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
    spread = logits.detach().std(0).max().item() if len(chosen) > 1 else 0.0
    verdict, sentence = _judge(layers, len(chosen), spread, loss.item())
    return Preflight(len(chosen), tuple(layers), spread, loss.item(), verdict, sentence)


def _judge(
    layers: Sequence[LayerStart], images: int, spread: float, loss: float
) -> tuple[Verdict, str]:
    classes, dead = layers[-1].channels, layers[-1].dead
    cure = "take the fast recipe, under which every map starts alive, or switch the final ReLU off."
    if not math.isfinite(loss):
        return "stalled", (
            "The first loss is not a finite number: the weights start too large; "
            "the fast recipe would work."
        )
    if dead == classes:
        return "stalled", (
            f"All {classes} class maps are zero for each of {images} training images, so no "
            f"gradient passes and the loss stays at ln({classes}) = {math.log(classes):.3f}: {cure}"
        )
    if spread < SAME_LOGITS:
        return "stalled", (
            f"Each of {images} training images gets the same logits, so nothing tells them apart; "
            "the fast recipe, which scales every layer to its inputs, would work."
        )
    unreached = [layer.name for layer in layers if layer.gradient <= VANISHED * layer.weights]
    if unreached:
        return "stalled", (
            f"No gradient reaches {unreached[0]}"
            f"{f' and {len(unreached) - 1} more' if len(unreached) > 1 else ''}, so these weights "
            "never change; the fast recipe, or fewer layers, would work."
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
            "most of this layer is lost; the fast recipe, or batch norm, would revive them."
        )
    return "ready", (
        f"Every class map is alive, {images} training images get different logits, and a gradient "
        "reaches every layer."
    )
