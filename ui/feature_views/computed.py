"""What the views compute: cached for all sessions, bounded, under the keys of weights and picture.

A layer is computed when it is chosen, and no further than to the end of its block. What only the
weights decide is kept apart from what the picture decides too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from ui.feature_subject import Picture, Subject, model_of
from ui.feature_views import Scene

if TYPE_CHECKING:
    from torch import nn

    from nin_core.features import Array, ClassMaps
    from nin_core.lens import (
        Collapsed,
        CollapseTotals,
        DenseDifference,
        PointwiseLayer,
        Spectrum,
    )


def answer(scene: Scene) -> ClassMaps:
    """The class maps, logits and probabilities."""
    subject, picture = scene.subject, scene.picture
    return _answer(subject.computed_key, picture.key, model_of(subject), picture)


@st.cache_resource(show_spinner=False, max_entries=64)
def _answer(
    weights: tuple[Any, ...], pixels: tuple[Any, ...], _network: nn.Sequential, _picture: Picture
) -> ClassMaps:
    from nin_core.features import class_maps

    return class_maps(_network, _picture.steps.network_input)


def maps(scene: Scene, layers: tuple[str, ...]) -> dict[str, Array]:
    """The outputs of these layers."""
    subject, picture = scene.subject, scene.picture
    return _maps(subject.computed_key, picture.key, layers, model_of(subject), picture)


@st.cache_resource(show_spinner=False, max_entries=8)
def _maps(
    weights: tuple[Any, ...],
    pixels: tuple[Any, ...],
    layers: tuple[str, ...],
    _network: nn.Sequential,
    _picture: Picture,
) -> dict[str, Array]:
    from nin_core.features import extract_feature_maps

    return extract_feature_maps(_network, _picture.steps.network_input, layers)


def dense_differences(
    scene: Scene, block: int, block_maps: dict[str, Array]
) -> tuple[DenseDifference, ...]:
    """How far the block's 1×1 layers are from a dense network, at all pixels of this picture."""
    subject, picture = scene.subject, scene.picture
    return _dense(subject.computed_key, picture.key, block, model_of(subject), block_maps)


@st.cache_resource(show_spinner=False, max_entries=4)
def _dense(
    weights: tuple[Any, ...],
    pixels: tuple[Any, ...],
    block: int,
    _network: nn.Sequential,
    _maps: dict[str, Array],
) -> tuple[DenseDifference, ...]:
    from nin_core.lens import compare_with_dense

    return compare_with_dense(_network, block, _maps)


def matrices(subject: Subject, block: int) -> tuple[PointwiseLayer, ...]:
    """The block's 1×1 layers as matrices."""
    return _matrices(subject.key, block, model_of(subject))


@st.cache_resource(show_spinner=False, max_entries=4)
def _matrices(
    weights: tuple[Any, ...], block: int, _network: nn.Sequential
) -> tuple[PointwiseLayer, ...]:
    from nin_core.lens import pointwise_layers

    return pointwise_layers(_network, block)


def spectrum(subject: Subject, layer: PointwiseLayer) -> Spectrum:
    """The singular values of a 1×1 layer's weights.

    Raises:
        ConfigError: where they cannot be had.
    """
    return _spectrum(subject.key, layer.layer, layer)


@st.cache_resource(show_spinner=False, max_entries=16)
def _spectrum(weights: tuple[Any, ...], name: str, _layer: PointwiseLayer) -> Spectrum:
    from nin_core.lens import spectrum

    return spectrum(_layer.weight)


def collapsed(subject: Subject, first: PointwiseLayer, second: PointwiseLayer) -> Collapsed:
    """The one matrix of two consecutive 1×1 layers without the ReLU between them."""
    return _collapsed(subject.key, first.layer, first, second)


@st.cache_resource(show_spinner=False, max_entries=4)
def _collapsed(
    weights: tuple[Any, ...], name: str, _first: PointwiseLayer, _second: PointwiseLayer
) -> Collapsed:
    from nin_core.lens import collapse

    return collapse(_first, _second)


def collapse_totals(
    scene: Scene, first: PointwiseLayer, second: PointwiseLayer, entering: Array
) -> CollapseTotals:
    """What taking the ReLU between two 1×1 layers away does, over all pixels of this picture."""
    subject, picture = scene.subject, scene.picture
    one = collapsed(subject, first, second)
    return _totals(subject.computed_key, picture.key, first.layer, one, first, second, entering)


@st.cache_resource(show_spinner=False, max_entries=64)
def _totals(
    weights: tuple[Any, ...],
    pixels: tuple[Any, ...],
    name: str,
    _one: Collapsed,
    _first: PointwiseLayer,
    _second: PointwiseLayer,
    _entering: Array,
) -> CollapseTotals:
    from nin_core.lens import collapse_totals

    return collapse_totals(_one, _first, _second, _entering)
