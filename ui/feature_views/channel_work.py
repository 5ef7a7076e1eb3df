"""What the view "What a channel does" computes: at once for one picture, in turn for the test set.

Choices made here:

* What takes many test images runs in the server's one background thread (`ui.background`), shared
  by all sessions, under the weights, images and layer it is for.
* How many test images are looked at by default follows from what they cost in this network, so that
  a large network answers after seconds too. Fewer than all are a balanced sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from nin_core import NiNConfig, summarize
from nin_core.background import Look, Name, Report, Work
from nin_core.datasets import DatasetInfo
from nin_core.estimate import FORWARD_SHARE, SECONDS_PER_MAC, SECONDS_PER_VALUE
from nin_core.summary import BYTES, LayerSummary
from ui import resources
from ui.background import ask
from ui.feature_subject import Picture, Subject, model_of
from ui.feature_views import Scene

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from nin_core.channels import Ablation, Exciting
    from nin_core.features import Array, ClassMaps
    from nin_core.predictions import PreparedImages

PATIENCE_SECONDS = 10.0  # what looking at the test images may take unasked, as estimated
SAMPLES = (500, 2_000)


# --- the test images --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ImageSample:
    """Test images of a data set, all or a balanced sample.

    Attributes:
        info: the set.
        numbers: int64 ``[N]``, their numbers in the test set, ascending.
        pixels, labels: of these.
        every: whether these are all.
    """

    info: DatasetInfo
    numbers: NDArray[np.int64]
    pixels: Tensor
    labels: Tensor
    every: bool

    def __len__(self) -> int:
        return len(self.numbers)

    def prepared(self, subject: Subject) -> PreparedImages:
        """As the network takes them."""
        from nin_core.predictions import PreparedImages

        mean, std = (self.info.mean, self.info.std) if subject.standardize else (None, None)
        return PreparedImages(self.pixels, subject.network, mean, std)

    def picture(self, subject: Subject, index: int) -> NDArray[np.uint8]:
        """The index-th as a picture in the network's input size, uint8 ``[S, S]`` or ``[S, S, 3]``.

        What its first channel shows where the network takes neither one nor three.
        """
        import torch

        from nin_core.predictions import PreparedImages

        part = PreparedImages(self.pixels, subject.network, None, None)[index : index + 1][0]
        shown = (part * 255).round().to(torch.uint8).numpy()
        return np.moveaxis(shown, 0, 2).copy() if len(shown) == 3 else shown[0]


def sample(info: DatasetInfo, count: int) -> ImageSample:
    """So many test images of a set; all if there are no more."""
    from nin_core.data import balanced_sample

    data = resources.dataset(info.name)
    total = len(data.test_labels)
    if count >= total:
        return ImageSample(info, np.arange(total), data.test_images, data.test_labels, True)
    chosen = balanced_sample(data.test_labels, count)
    return ImageSample(
        info, chosen.numpy(), data.test_images[chosen], data.test_labels[chosen], False
    )


def sample_sizes(info: DatasetInfo, network: NiNConfig) -> tuple[list[int], int]:
    """How many test images can be chosen, ascending, and how many are looked at by default."""
    sizes = [*(size for size in SAMPLES if size < info.test_size), info.test_size]
    each = forward_seconds(network, 1)
    affordable = [size for size in sizes if size * each <= PATIENCE_SECONDS]
    return sizes, max(affordable, default=sizes[0])


def ranking_seconds(network: NiNConfig, layer: str, images: int) -> float:
    """About what ranking a layer's channels takes on the reference thread."""
    rows = summarize(network).layers
    behind = next(number for number, row in enumerate(rows, 1) if row.name == layer)
    channels = rows[behind - 1].output_shape[0]
    head, tail = (sum(map(_row_seconds, part)) for part in (rows[:behind], rows[behind:]))
    return images * (head + tail * (channels + 1))


def forward_seconds(network: NiNConfig, images: int) -> float:
    """About what asking a network about so many images takes on the reference thread."""
    return images * sum(map(_row_seconds, summarize(network).layers))


def _row_seconds(row: LayerSummary) -> float:
    values = row.activation_bytes / BYTES
    return FORWARD_SHARE * (values * SECONDS_PER_VALUE + row.macs * SECONDS_PER_MAC)


# --- in the background ------------------------------------------------------------------------


def exciting(subject: Subject, images: ImageSample, layer: str) -> tuple[Name, Look]:
    """What excites each channel of a layer: how the work stands, which begins if need be."""
    model, prepared = model_of(subject), images.prepared(subject)

    def work(report: Report) -> Exciting:
        from nin_core.channels import most_exciting

        return most_exciting(
            model, prepared, layer, progress=lambda done, total: report(done / total)
        )

    return ask("exciting", (subject.computed_key, len(images), layer), work)


def predictions(subject: Subject, images: ImageSample) -> tuple[Name, Look]:
    """What the network says to test images: logits ``[N, classes]``."""
    model, prepared = model_of(subject), images.prepared(subject)

    def work(report: Report) -> NDArray[np.float32]:
        from nin_core.predictions import predict

        return predict(model, prepared, progress=lambda done, total: report(done / total))

    return ask("predictions", (subject.computed_key, images.info.name, len(images)), work)


def without(
    subject: Subject, images: ImageSample, layer: str, off: Sequence[int]
) -> tuple[Name, Look]:
    """The accuracy with channels of a layer switched off together."""
    key = (subject.computed_key, len(images), layer, tuple(sorted(off)))
    return ask("without", key, _ablations(subject, images, layer, [off]))


def ranking(subject: Subject, images: ImageSample, layer: str) -> tuple[Name, Look]:
    """The accuracy without each single channel of a layer."""
    name = ranking_name(subject, images, layer)
    return ask(*name, _ablations(subject, images, layer, None))


def ranking_name(subject: Subject, images: ImageSample, layer: str) -> Name:
    return Name("ranking", (subject.computed_key, len(images), layer))


def _ablations(
    subject: Subject, images: ImageSample, layer: str, groups: list[Sequence[int]] | None
) -> Work:
    """Work that ends in an `Ablation`; without groups each channel is one."""
    model, prepared, labels = model_of(subject), images.prepared(subject), images.labels

    def work(report: Report) -> Ablation:
        from nin_core.channels import ablation_accuracy, ablation_ranking

        steps = (
            ablation_ranking(model, prepared, labels, layer)
            if groups is None
            else ablation_accuracy(model, prepared, labels, layer, groups)
        )
        for step in steps:
            report(step.done / step.total)
        return step

    return work


# --- for the picture --------------------------------------------------------------------------


def map_gradients(scene: Scene, layer: str, class_index: int) -> Array:
    """The gradients of a class's logit by a layer's maps."""
    subject, picture = scene.subject, scene.picture
    return _map_gradients(
        subject.computed_key, picture.key, layer, class_index, model_of(subject), picture
    )


@st.cache_resource(show_spinner=False, max_entries=16)
def _map_gradients(
    weights: tuple[Any, ...],
    pixels: tuple[Any, ...],
    layer: str,
    class_index: int,
    _network: nn.Sequential,
    _picture: Picture,
) -> Array:
    from nin_core.channels import map_gradients

    return map_gradients(_network, _picture.steps.network_input, layer, class_index)


def input_gradient(scene: Scene, class_index: int) -> Array:
    """The gradient of a class's logit by the picture."""
    subject, picture = scene.subject, scene.picture
    return _input_gradient(
        subject.computed_key, picture.key, class_index, model_of(subject), picture
    )


@st.cache_resource(show_spinner=False, max_entries=16)
def _input_gradient(
    weights: tuple[Any, ...],
    pixels: tuple[Any, ...],
    class_index: int,
    _network: nn.Sequential,
    _picture: Picture,
) -> Array:
    from nin_core.channels import input_gradient

    return input_gradient(_network, _picture.steps.network_input, class_index)


def answer_without(scene: Scene, layer: str, off: tuple[int, ...]) -> ClassMaps:
    """The answer for the picture with channels of a layer switched off."""
    subject, picture = scene.subject, scene.picture
    return _answer_without(
        subject.computed_key, picture.key, layer, off, model_of(subject), picture
    )


@st.cache_resource(show_spinner=False, max_entries=32)
def _answer_without(
    weights: tuple[Any, ...],
    pixels: tuple[Any, ...],
    layer: str,
    off: tuple[int, ...],
    _network: nn.Sequential,
    _picture: Picture,
) -> ClassMaps:
    from nin_core.channels import ablate
    from nin_core.features import class_maps

    return class_maps(ablate(_network, layer, off), _picture.steps.network_input)
