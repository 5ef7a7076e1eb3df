"""What a network answers to images, how good that is, and why it does not learn if it does not.

Choices made here:

* Everything is measured in eval mode (dropout off, batch norm by its running averages), on images
  as they are; every module's mode is restored afterwards.
* `diagnose` tells dead class maps (see `recipes` for how they die) from other failures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import nn
from torch.nn import functional

from .estimate import test_batch
from .inputs import Inputs
from .lanes import Lanes
from .trouble import ALL_ALIVE, AT_GUESSING, GUESSING_BAND, fast_or


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's answers to a set of images.

    Attributes:
        logits: float32 [n, classes] on the CPU; n is smaller than asked if it was stopped early.
        loss, accuracy: cross-entropy (nats) and share of right answers over these n; NaN if n = 0.
    """

    logits: torch.Tensor
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a network does not learn.

    Attributes:
        dead_class_maps: how many class maps are zero for every probe image.
        num_classes: how many there are.
        logit_spread: largest standard deviation of a logit between the probe images.
        sentence: for people: what is wrong and what to change.
    """

    dead_class_maps: int
    num_classes: int
    logit_spread: float
    sentence: str


def evaluate(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    inputs: Inputs,
    *,
    batch_size: int | None = None,
    should_stop: Callable[[], bool] | None = None,
    threads: int = 1,
    lanes: Lanes | None = None,
) -> Evaluation:
    """Logits, loss and accuracy in eval mode; every module's mode is restored afterwards.

    Args:
        images: uint8 [N, C, H, W]; labels: int64 [N].
        inputs: how the network takes images.
        batch_size: default: `estimate.test_batch`.
        should_stop: asked before each batch; once true, the figures are those of the images so far.
        threads: so many batches are under way at once.
        lanes: the threads for it; by default new ones.
    """
    if batch_size is None:
        batch_size = test_batch(inputs.network)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()

    # One block for all of them: small ones, kept between the large ones that come and go, would
    # leave holes that no large one fits into.
    logits = torch.empty(len(images), inputs.network.num_classes)

    stopped = False

    def answer(part: tuple[torch.Tensor, torch.Tensor]) -> bool:
        nonlocal stopped
        stopped = stopped or (should_stop is not None and should_stop())
        if stopped:
            return False
        batch, answered = part
        with torch.no_grad():
            answered.copy_(model(inputs(batch)))
        return True

    pairs = zip(images.split(batch_size), logits.split(batch_size), strict=True)
    try:
        answered = (lanes or Lanes()).map(answer, pairs, threads=threads)
    finally:
        for module, mode in modes:
            module.training = mode
    done = min(sum(takewhile(bool, answered)) * batch_size, len(images))
    if not done:
        return Evaluation(logits[:0], math.nan, math.nan)
    logits = logits[:done]
    known = labels[:done].cpu()
    loss = functional.cross_entropy(logits, known).item()
    accuracy = (logits.argmax(1) == known).float().mean().item()
    return Evaluation(logits, loss, accuracy)


def diagnose(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    inputs: Inputs,
    *,
    recipe: str | None = None,
) -> Diagnosis | None:
    """Say in one line why a network does not learn; None if it does.

    Args:
        images, labels: a probe batch, uint8 [N, C, H, W] and int64 [N], with some images of every
            class (a few hundred suffice).
        inputs: how the network takes images.
        recipe: what it was trained with, which is not recommended again.

    A network is taken to learn if no class map is dead and its loss is clearly below ln(classes),
    what guessing costs.
    """
    probe = evaluate(model, images, labels, inputs)
    network, taken = inputs.network, recipe == "fast"
    classes = network.num_classes
    if not torch.isfinite(probe.logits).all():
        return Diagnosis(
            0,
            classes,
            math.nan,
            "The weights are no longer finite numbers: the learning rate was too high; "
            f"{fast_or('a rate ten times lower', taken=taken)} would work.",
        )
    # The maps end in ReLU, so a pooled logit is zero exactly where its whole map is.
    dead = int((probe.logits.amax(0) <= 0).sum()) if network.final_relu else 0
    spread = probe.logits.std(0).max().item() if len(probe.logits) > 1 else 0.0
    guessing = math.log(classes)
    learned = probe.loss < 0.95 * guessing
    cure = (
        "A lower learning rate, or no final ReLU, may keep them alive."
        if taken
        else "Start again with the fast recipe, which starts with every map alive, "
        "or switch the final ReLU off."
    )
    if dead:
        are = "is" if dead == 1 else "are"
        sentence = f"{dead} of {classes} class maps {are} zero for every probe image, and "
        if learned:
            sentence += f"a dead class map passes no gradient, so {_classes(dead)} never named."
        elif probe.loss > (1 + GUESSING_BAND) * guessing:
            sentence += (
                f"the loss of {probe.loss:.3f} is above ln({classes}) = {guessing:.3f}, what "
                "guessing costs."
            )
        else:
            others = ", and the others hardly tell images apart" if dead < classes else ""
            sentence += (
                f"a dead class map passes no gradient{others}, "
                f"{AT_GUESSING}{classes}) = {guessing:.3f}."
            )
        return Diagnosis(dead, classes, spread, f"{sentence} {cure}")
    if learned:
        return None
    return Diagnosis(
        dead,
        classes,
        spread,
        f"{ALL_ALIVE}, but the loss of {probe.loss:.3f} is not clearly below "
        f"ln({classes}) = {guessing:.3f}, the loss of guessing: train for more epochs"
        + ("." if taken else ", or with the fast recipe."),
    )


def _classes(count: int) -> str:
    return "that class is" if count == 1 else "those classes are"
