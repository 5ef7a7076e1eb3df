"""Choices that views share: the layer, which part of many maps, in which order, which channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import streamlit as st

from nin_core import ConfigError, NiNConfig
from ui.feature_subject import keep_valid
from ui.feature_views.stages import Stage, stages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nin_core.features import Array

PICTURE_VALUES = 1_000_000  # at most in one picture of maps; more come in parts

ORDERS = {
    "number": "Number",
    "mean": "Mean",
    "maximum": "Maximum",
    "active": "Active pixels",
    "importance": "Importance",
}
ORDER_HELP = (
    "Largest first. Mean, maximum and the share of active pixels (above zero) are those of this "
    "picture's maps. Importance is map × gradient, summed: about what the answer's logit would "
    "lose without the channel."
)
VIEW = "fm:view"  # key of the switch between the views
_LAYER, _LAYER_LINK = "fm:layer", "fm:layer-link"


def choose_layer(network: NiNConfig, *, width: int | Literal["stretch"] = "stretch") -> Stage:
    """The layer that is looked at; it stands in the URL as `?layer=`."""
    choices = {stage.after: stage for stage in stages(network)}
    linked = st.query_params.get("layer")
    if linked is not None and linked != st.session_state.get(_LAYER_LINK):
        st.session_state[_LAYER_LINK] = linked
        if linked in choices:
            st.session_state[_LAYER] = linked
        else:
            last = next(reversed(choices))
            st.info(f"This network has no layer {linked[:30]!r}; {last} would work.")
    keep_valid(_LAYER, choices)
    chosen = st.selectbox(
        "Layer",
        list(choices),
        key=_LAYER,
        format_func=lambda name: choices[name].title,
        persist_state="session",
        width=width,
    )
    st.session_state[_LAYER_LINK] = chosen
    if linked != chosen:
        st.query_params["layer"] = chosen
    return choices[chosen]


def channel_scores(maps: Array, order: str) -> NDArray[np.floating] | None:
    """What an order of `ORDERS` counts, of one picture's maps; None where it takes more to know."""
    if order == "mean":
        return maps.mean(axis=(1, 2))
    if order == "maximum":
        return maps.max(axis=(1, 2))
    if order == "active":
        return (maps > 0).mean(axis=(1, 2))
    return None


def choose_part(maps: Array, key: str, what: str) -> tuple[int, Array]:
    """The channels of one picture: all, or a part that is chosen; and the number of the first."""
    channels, height, width = maps.shape
    at_once = max(1, PICTURE_VALUES // (height * width))
    start, stop = choose_range(f"{what}: channels", channels, at_once, key)
    return start, maps[start:stop]


def choose_range(
    label: str, count: int, at_once: int, key: str, *, width: int | Literal["stretch"] = "stretch"
) -> tuple[int, int]:
    """The first and the end of what is shown of `count` channels: all, or a part that is chosen."""
    if count <= at_once:
        return 0, count
    starts = list(range(0, count, at_once))
    keep_valid(key, starts)
    start = st.selectbox(
        label,
        starts,
        key=key,
        format_func=lambda first: f"{first} to {min(first + at_once, count) - 1}",
        width=width,
    )
    return start, min(start + at_once, count)


def map_count(maps: Array) -> str:
    """ "96 maps of 54×54"."""
    channels, height, width = maps.shape
    return f"{channels} map{'s' if channels > 1 else ''} of {height}×{width}"


def channel_list(text: str, count: int, most: int) -> list[int]:
    """Channels from a text like "0-15, 40", in the order given, each once.

    Args:
        count: of channels there are.
        most: how many may be chosen.

    Raises:
        ConfigError: for what is not such a text, a channel that is not there, and too many.
    """
    chosen: dict[int, None] = {}
    for part in text.replace("–", "-").split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() and len(end) <= 6 for end in ends):
            raise ConfigError(
                f"{part.strip()[:20]!r} is neither a channel nor a range; 0-7, 12 would work.",
                field="channels",
                suggestion="0-7, 12",
            )
        low, high = int(ends[0]), int(ends[1])
        if low > high or high >= count:
            raise ConfigError(
                f"{part.strip()[:20]!r} is outside 0-{count - 1}; 0-{count - 1} would work.",
                field="channels",
                suggestion=f"0-{count - 1}",
            )
        chosen |= dict.fromkeys(range(low, high + 1))
    if len(chosen) > most:
        raise ConfigError(
            f"{len(chosen)} channels are too many for one picture; at most {most} would work.",
            field="channels",
            suggestion=f"0-{most - 1}",
        )
    return list(chosen)
