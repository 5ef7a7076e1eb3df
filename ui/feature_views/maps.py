"""All channels of a layer at once; for a 1×1 convolution also what goes in.

The view is a fragment, so that choosing a layer redraws only it. A click names a pixel, which the
lens can follow.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from ui.components import sprite
from ui.feature_subject import keep_valid
from ui.feature_views import Scene, computed, lens
from ui.feature_views.choices import choose_part, map_count
from ui.feature_views.stages import Stage, layers_of, stages

if TYPE_CHECKING:
    from nin_core.features import Array

_CLICKED = "fm:clicked"


@st.fragment
def show(scene: Scene) -> None:
    """Draw the view."""
    choices = {stage.after: stage for stage in stages(scene.subject.network)}
    keep_valid("fm:layer", choices)
    chosen = st.selectbox(
        "Layer",
        list(choices),
        key="fm:layer",
        format_func=lambda name: choices[name].title,
        persist_state="session",
    )
    stage = choices[chosen]
    # The whole block, so that its other layers and its pixels are there at once afterwards.
    block = [other for other in choices.values() if stage.block and other.block == stage.block]
    maps = computed.maps(scene, layers_of(block or [stage]))
    st.caption(_explanation(stage))
    shown = stage.after
    if stage.before != stage.after:
        shown = stage.after if _choose_side() == "after" else stage.before
    if stage.kind == "conv1x1" and stage.entering:
        left, right = st.columns(2)
        with left:
            _picture(stage, maps[stage.entering], "before", "What goes in")
        with right:
            _picture(stage, maps[shown], "after", "What comes out")
    else:
        _picture(stage, maps[shown], "after", "")
    if len(block) > 1:
        _way_to_the_lens(stage, block, maps)


def _choose_side() -> str:
    """Whether maps are shown "after" or "before" the ReLU."""
    keep_valid("fm:side", ["after", "before"])
    return st.segmented_control(
        "What comes out",
        ["after", "before"],
        key="fm:side",
        format_func={"after": "After ReLU", "before": "Before ReLU"}.get,
        required=True,
        persist_state="session",
    )


def _explanation(stage: Stage) -> str:
    if stage.kind == "conv1x1":
        return (
            "A 1×1 convolution is a small dense layer applied at every pixel: it mixes the "
            "channels and looks at no neighbour. So each map that comes out is a weighted sum "
            "of all that go in, and every shape stays where it is."
        )
    if stage.kind == "conv":
        return (
            "Each channel slides its own kernel over all the maps (or the picture) before it and "
            "answers where they match. Only these layers and the poolings look at neighbours."
        )
    return (
        "Pooling keeps one value per window, channel by channel: the maps get smaller and each "
        "value speaks for a larger part of the picture."
    )


def _picture(stage: Stage, maps: Array, side: str, heading: str) -> None:
    """One picture of maps under its heading, in parts if there are too many values."""
    start, part = choose_part(maps, f"fm:part:{stage.after}:{side}", heading or "Maps")
    size = map_count(maps)
    sprite(
        part,
        key=f"fm-{side}",
        title=f"{heading}: {size}" if heading else size,
        labels=[str(number) for number in range(start, start + len(part))] if start else None,
        on_click=partial(_take_click, stage, side, start) if stage.block else None,
    )


def _take_click(stage: Stage, side: str, start: int, click: dict[str, Any]) -> None:
    """Keep what was clicked: a channel that comes out, or (side "before") one that goes in."""
    layer = stage.after if side == "after" else stage.entering
    st.session_state[_CLICKED] = (layer, start + click["channel"], click["row"], click["column"])


def _way_to_the_lens(stage: Stage, block: list[Stage], maps: dict[str, Array]) -> None:
    """The way from a pixel that was clicked to the lens."""
    layer, channel, row, column = st.session_state.get(_CLICKED, (None, 0, 0, 0))
    clicked = next((other for other in block if other.after == layer), None)
    if clicked is None or layer not in (stage.after, stage.entering):
        st.caption("Click a pixel in a map to follow it through the block's 1×1 layers.")
        return
    if st.button(
        f"Follow pixel ({row}, {column}) through the 1×1 lens",
        icon=":material/center_focus_strong:",
        on_click=_to_the_lens,
        args=(clicked, len(maps[clicked.after]), channel, row, column),
    ):
        st.rerun()  # the page, not the fragment: it shows another view


def _to_the_lens(stage: Stage, width: int, channel: int, row: int, column: int) -> None:
    st.session_state["fm:view"] = "lens"
    lens.look_at(stage, width, channel, row, column)
