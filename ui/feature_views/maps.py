"""All channels of a layer at once; for a 1×1 convolution also what goes in.

Choices made here:

* The view is a fragment, so that choosing a layer or clicking a map redraws only it.
* A click opens the map large over the picture, above the others and staying in sight while they
  scroll, so that one map after the other can be looked at. It names a pixel, which is marked in all
  maps and which the lens can follow.
* An order of the channels is each picture's own: what goes in is sorted by itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import streamlit as st

from nin_core import summarize
from nin_core.receptive_field import steps_to
from ui import theme
from ui.components import closeup, sprite
from ui.components.sprite import quantise
from ui.feature_subject import keep_valid
from ui.feature_views import Scene, channel_work, computed, lens, take_along
from ui.feature_views.choices import (
    ORDER_HELP,
    ORDERS,
    VIEW,
    channel_scores,
    choose_layer,
    choose_part,
    map_count,
)
from ui.feature_views.stages import Stage, layers_of, stages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nin_core.features import Array

_CLICKED = "fm:clicked"
_ORDER = "fm:order"
_SCALE = "fm:scale"

# The close-up stays below Streamlit's header while the maps scroll under it, where there is room.
_STYLE = f"""
<style>
@media (min-width: 900px) and (min-height: 760px) {{
  div:has(> .st-key-fm-closeup) {{ position: sticky; top: 3.75rem; z-index: 20; }}
}}
.st-key-fm-closeup {{ padding-bottom: .6rem; border-bottom: 1px solid rgba(128, 128, 128, .3);
  background: light-dark({theme.LIGHT_BACKGROUND}, {theme.DARK_BACKGROUND}); }}
</style>
"""


class Clicked(NamedTuple):
    """A pixel that was clicked: in which layer's map of which channel."""

    layer: str
    channel: int
    row: int
    column: int


@st.fragment
def show(scene: Scene) -> None:
    """Draw the view."""
    stage = choose_layer(scene.subject.network)
    # The whole block, so that its other layers and its pixels are there at once afterwards.
    every = stages(scene.subject.network)
    block = [other for other in every if stage.block and other.block == stage.block]
    maps = computed.maps(scene, layers_of(block or [stage]))
    st.caption(_explanation(stage))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        shown = stage.after
        if stage.before != stage.after and _choose_side() == "before":
            shown = stage.before
        order = _choose_order()
        own_scales = _choose_scale() == "map"
    clicked = _clicked(stage, maps[shown], maps.get(stage.entering or ""))
    if clicked is None:
        st.caption("Click a map to see it large over the picture, with what the pixel sees.")
    else:
        values = maps[shown if clicked.layer == stage.after else clicked.layer]
        _large(scene, stage, block, clicked, values, own_scales=own_scales)

    groups: dict[str, take_along.Group] = {}

    def picture(layer: str, side: str, heading: str) -> None:
        values = maps[layer]
        ranked = _ranked(scene, layer, values, order)
        channels = _picture(stage, values, side, heading, ranked, clicked, own_scales=own_scales)
        title = f"{heading or stage.title}: {map_count(values)}"
        scale = None if own_scales else take_along.shared_scale(values)
        groups[layer] = take_along.group(title, scene, values, channels, scale)

    if stage.kind == "conv1x1" and stage.entering:
        left, right = st.columns(2)
        with left:
            picture(stage.entering, "before", "What goes in")
        with right:
            picture(shown, "after", "What comes out")
    else:
        picture(shown, "after", "")
    take_along.show(
        [
            take_along.Shown(
                name="",
                title=f"{take_along.whose(scene.subject)}; {scene.picture.title}",
                scene=scene,
                maps={layer: maps[layer] for layer in groups},
                groups=list(groups.values()),
            )
        ],
        stem=take_along.stem_of(scene, shown),
        title=f"{stage.title}: {take_along.whose(scene.subject)}",
        key="fm:maps",
    )


# --- what is looked at ------------------------------------------------------------------------


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


def _choose_order() -> str:
    keep_valid(_ORDER, ORDERS)
    return st.selectbox(
        "Order of the channels",
        list(ORDERS),
        key=_ORDER,
        format_func=lambda name: ORDERS[name],
        persist_state="session",
        width=190,
        help=ORDER_HELP,
    )


def _choose_scale() -> str:
    """Whether the maps' colours share the layer's scale or each map has its own."""
    keep_valid(_SCALE, ["layer", "map"])
    return st.segmented_control(
        "Colours",
        ["layer", "map"],
        key=_SCALE,
        format_func={"layer": "One scale", "map": "Each map's own"}.get,
        required=True,
        persist_state="session",
        help="One scale compares the maps; each map's own shows what a quiet one looks like.",
    )


def _ranked(scene: Scene, layer: str, maps: Array, order: str) -> NDArray[np.int64]:
    """The channels in the order that is chosen."""
    scores = channel_scores(maps, order)
    if order == "importance":
        from nin_core.channels import importance

        answer = int(computed.answer(scene).logits.argmax())
        gradients = channel_work.map_gradients(scene, layer, answer)
        scores = np.abs(importance(maps, gradients))
    if scores is None:
        return np.arange(len(maps))
    return np.argsort(-scores, kind="stable")


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


# --- all maps ---------------------------------------------------------------------------------


def _picture(
    stage: Stage,
    maps: Array,
    side: str,
    heading: str,
    order: NDArray[np.int64],
    clicked: Clicked | None,
    *,
    own_scales: bool,
) -> NDArray[np.int64]:
    """One picture of maps under its heading, in parts if there are too many values.

    Returns:
        The channels that are in it.
    """
    key = f"fm:part:{stage.after}:{side}"
    start, part = choose_part(maps[order], key, heading or "Maps")
    shown = order[start : start + len(part)]
    in_order = (shown == np.arange(len(shown))).all()
    size = map_count(maps)
    layer = stage.after if side == "after" else stage.entering
    where = np.flatnonzero(shown == clicked.channel) if clicked and clicked.layer == layer else []
    sprite(
        part,
        key=f"fm-{side}",
        title=f"{heading}: {size}" if heading else size,
        labels=None if in_order else [str(channel) for channel in shown],
        selected=int(where[0]) if len(where) else None,
        pixel=None if clicked is None else (clicked.row, clicked.column),
        own_scales=own_scales,
        on_click=partial(_take_click, layer, shown),
    )
    return shown


def _take_click(layer: str, shown: NDArray[np.int64], click: dict[str, Any]) -> None:
    """Keep what was clicked: a channel of the layer that comes out, or of the one that goes in."""
    channel = int(shown[click["channel"]])
    st.session_state[_CLICKED] = Clicked(layer, channel, click["row"], click["column"])


# --- one map ----------------------------------------------------------------------------------


def _clicked(stage: Stage, leaving: Array, entering: Array | None) -> Clicked | None:
    """The pixel that was clicked, if it is one of these maps'."""
    if _CLICKED not in st.session_state:
        return None
    clicked = Clicked(*st.session_state[_CLICKED])
    maps = leaving if clicked.layer == stage.after else None
    if clicked.layer == stage.entering and stage.kind == "conv1x1":
        maps = entering
    place = (clicked.channel, clicked.row, clicked.column)
    if maps is None or any(at >= size for at, size in zip(place, maps.shape, strict=True)):
        return None
    return clicked


def _large(
    scene: Scene,
    stage: Stage,
    block: list[Stage],
    clicked: Clicked,
    maps: Array,
    *,
    own_scales: bool,
) -> None:
    """The map that was clicked, large over the picture, and the ways on from its pixel."""
    numbers, decimals = quantise(maps)
    one = numbers[clicked.channel]
    finite = np.isfinite(maps[clicked.channel])
    of = np.abs((one if own_scales else numbers).astype(np.int32))
    reach = int(of.max(where=finite if own_scales else np.isfinite(maps), initial=0))
    network = scene.subject.network

    def take(pixel: tuple[int, int]) -> None:
        st.session_state[_CLICKED] = Clicked(clicked.layer, clicked.channel, *pixel)

    st.html(_STYLE)
    with st.container(key="fm-closeup"):
        closeup(
            one,
            scene.picture.shown,
            decimals=decimals,
            reach=reach,
            steps=steps_to(summarize(network), clicked.layer),
            key="fm-large",
            name=str(clicked.channel),
            pixel=(clicked.row, clicked.column),
            on_click=take,
        )
        with st.container(horizontal=True):
            source = next((other for other in block if other.after == clicked.layer), None)
            if source is not None and len(block) > 1:
                place = (clicked.row, clicked.column)
                if st.button(
                    f"Follow pixel {place} through the 1×1 lens",
                    icon=":material/center_focus_strong:",
                    on_click=_to_the_lens,
                    args=(source, len(maps), clicked.channel, *place),
                ):
                    st.rerun()  # the page, not the fragment: it shows another view
            st.button("Close", icon=":material/close:", on_click=_close)


def _close() -> None:
    st.session_state.pop(_CLICKED, None)


def _to_the_lens(stage: Stage, width: int, channel: int, row: int, column: int) -> None:
    st.session_state[VIEW] = "lens"
    lens.look_at(stage, width, channel, row, column)
