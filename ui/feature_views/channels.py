"""What a channel does: the channels of a layer in order, and one of them in four ways.

Choices made here:

* Orders and the marks of dead channels are for the picture at once; what holds over the test images
  comes from the background, and stands beside it when it is there.
* One question at a time below the maps: what excites the channel, what is lost without it, how the
  channels rank by that, what a class asks of the layer.
* The view is no fragment, since only those may tick that stand alone: a progress bar.
* A run that trains keeps, in this view, the weights it was opened with until newer ones are asked
  for: otherwise what is worked out would be old before it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from nin_core import summarize
from nin_core.receptive_field import receptive_field, steps_to
from ui import background
from ui.components import plot, sprite
from ui.feature_subject import Subject, keep_valid, percent
from ui.feature_views import Scene, channel_figures, channel_work, computed, tables
from ui.feature_views.channel_work import ImageSample
from ui.feature_views.choices import (
    ORDER_HELP,
    ORDERS,
    channel_scores,
    choose_layer,
    choose_part,
    map_count,
)
from ui.feature_views.stages import Stage, layers_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nin_core.channels import Ablation, Exciting
    from nin_core.features import Array

MAPS_HEIGHT = 240  # pixels that few maps are enlarged to fill; more of them scroll
MOST_LISTED = 12  # channels in a sentence
MOST_CLASSES = 12  # in the chart of logits

_KEPT = "fm:ch:kept"
_ORDER = "fm:ch:order"
_QUESTION = "fm:ch:question"
_RANKED = "fm:ch:ranked"  # the ranking that was asked for


@dataclass(frozen=True)
class View:
    """What all parts of the view are about.

    Attributes:
        stage: the layer.
        maps: ``[channels, h, w]``, the picture's.
        images: the test images that are looked at; None if there are none.
        exciting: over them; None until it is there.
        answer: the class that the network says the picture is.
        importance: ``[channels]``, for that answer.
        channel: the one chosen.
    """

    scene: Scene
    stage: Stage
    maps: Array
    images: ImageSample | None
    exciting: Exciting | None
    answer: int
    importance: NDArray[np.float64]
    channel: int

    @property
    def subject(self) -> Subject:
        return self.scene.subject

    @property
    def layer(self) -> str:
        """The layer, behind its ReLU."""
        return self.stage.after

    @property
    def classes_known(self) -> bool:
        """Whether the network's classes are those of the test images."""
        return self.subject.class_names == self.subject.data.class_names


def show(scene: Scene) -> None:
    """Draw the view."""
    st.html(channel_figures.STYLE)
    st.caption(
        "A channel looks for one thing at every place. Click one to see which test images excite "
        "it most, and switch it off to see what the network loses."
    )
    scene = _steady(scene)
    stage, sample_size = _choose(scene)
    own = computed.answer(scene)
    maps = computed.maps(scene, layers_of([stage]))[stage.after]
    if not (np.isfinite(own.logits).all() and np.isfinite(maps).all()):
        st.warning("These maps are not numbers: this run diverged, so its channels say nothing.")
        return
    answer = int(own.logits.argmax())
    from nin_core.channels import importance

    images = _images(scene.subject, sample_size)
    view = View(
        scene=scene,
        stage=stage,
        maps=maps,
        images=images,
        exciting=None,
        answer=answer,
        importance=importance(maps, channel_work.map_gradients(scene, stage.after, answer)),
        channel=_channel(len(maps)),
    )
    _maps(view)
    view = replace(view, exciting=_over_the_test_images(view))
    keep_valid(_QUESTION, _QUESTIONS)
    question = st.segmented_control(
        "Look at",
        list(_QUESTIONS),
        key=_QUESTION,
        format_func=lambda name: _QUESTIONS[name][0],
        required=True,
        persist_state="session",
        label_visibility="collapsed",
        wrap=True,
    )
    _QUESTIONS[question][1](view)


# --- what is looked at ------------------------------------------------------------------------


def _steady(scene: Scene) -> Scene:
    """The scene with the weights that this view was opened with, while a run trains on."""
    kept: Subject | None = st.session_state.get(_KEPT)
    subject = scene.subject
    same_run = kept is not None and kept.key[:3] == subject.key[:3]
    if kept is not None and same_run and kept.key != subject.key:
        st.caption(
            ":material/info: This run has trained on; what is shown here stays with the weights "
            "that it began with, so that it can be worked out."
        )
        st.button("Take its newer weights", icon=":material/refresh:", on_click=_let_go)
        return Scene(kept, scene.picture)
    st.session_state[_KEPT] = subject
    return scene


def _let_go() -> None:
    st.session_state.pop(_KEPT, None)


def _choose(scene: Scene) -> tuple[Stage, int]:
    """The layer, the order and how many test images."""
    network = scene.subject.network
    with st.container(horizontal=True, vertical_alignment="bottom"):
        stage = choose_layer(network, width=290)
        keep_valid(_ORDER, _ORDERS)
        st.selectbox(
            "Order of the channels",
            list(_ORDERS),
            key=_ORDER,
            format_func=lambda name: _ORDERS[name],
            persist_state="session",
            width=190,
            help=ORDER_HELP,
        )
        sizes, default = channel_work.sample_sizes(scene.subject.data, network)
        key = f"fm:ch:images:{sizes[-1]}:{default}"
        if st.session_state.get(key) not in sizes:
            st.session_state[key] = default
        size = st.selectbox(
            "Test images",
            sizes,
            key=key,
            format_func=lambda size: f"all {size:,}" if size == sizes[-1] else f"{size:,}",
            persist_state="session",
            width=130,
            help="Fewer than all are a sample with equally many of each class; large networks "
            "begin with fewer, because each image costs them more.",
        )
    return stage, size


def _images(subject: Subject, size: int) -> ImageSample | None:
    from nin_core.data import find_dataset

    info = subject.data
    if not find_dataset(info.name).available:
        st.info(
            f"{info.title} is not on this computer, so there are no test images to look at; what "
            "concerns the picture alone is shown."
        )
        return None
    return channel_work.sample(info, size)


def _channel_key(count: int) -> str:
    return f"fm:ch:channel:{count}"


def _channel(count: int) -> int:
    """The chosen channel; its field stands below the maps."""
    return int(st.session_state.setdefault(_channel_key(count), 0))


def _order(view: View) -> NDArray[np.int64]:
    """The channels in the order that is chosen."""
    chosen = st.session_state[_ORDER]
    if chosen == "importance":
        found = np.abs(view.importance)
    else:
        found = _lost(view) if chosen == "lost" else channel_scores(view.maps, chosen)
    if found is None:
        return np.arange(len(view.maps))
    return np.argsort(-found, kind="stable")


def _lost(view: View) -> NDArray[np.float64] | None:
    """Accuracy lost without each channel; None, and a sentence, if they are not ranked yet."""
    found = _ranking(view)
    if found is None:
        st.caption(
            ":material/info: By number until these channels are ranked by accuracy lost, under "
            "“Ranking” below."
        )
        return None
    return found.lost


def _ranking(view: View) -> Ablation | None:
    if view.images is None:
        return None
    return background.finished(channel_work.ranking_name(view.subject, view.images, view.layer))


_ORDERS = {**ORDERS, "lost": "Accuracy lost without"}


# --- the maps ---------------------------------------------------------------------------------


def _maps(view: View) -> None:
    """All channels in their order, to click in; and how many are zero."""
    order = _order(view)
    start, part = choose_part(view.maps[order], f"fm:ch:part:{view.layer}", "Maps")
    shown = order[start : start + len(part)]
    where = np.flatnonzero(shown == view.channel)

    def take(click: dict[str, Any]) -> None:
        st.session_state[_channel_key(len(view.maps))] = int(shown[click["channel"]])

    with st.container(key="fm-ch-maps"):
        sprite(
            part,
            key="fm-channels",
            title=map_count(view.maps),
            labels=[str(channel) for channel in shown],
            selected=int(where[0]) if len(where) else None,
            height=MAPS_HEIGHT,
            on_click=take,
        )
    silent = np.flatnonzero(~view.maps.any(axis=(1, 2)))
    if len(silent):
        st.caption(
            f"{len(silent)} of {len(view.maps)} channels are zero everywhere for this picture, "
            f"marked with a cross: {_listed(silent)}."
        )


def _over_the_test_images(view: View) -> Exciting | None:
    """What all channels do over the test images, and how the chosen one compares."""
    found: Exciting | None = None
    if view.images is not None:
        name, look = channel_work.exciting(view.subject, view.images, view.layer)
        found = look.result
        if found is None:
            background.wait(name, look, f"Looking at {_these(view.images)}")
        else:
            st.caption(_dead(found, view))
    last = len(view.maps) - 1
    with st.container(horizontal=True, vertical_alignment="bottom", key="fm-ch-row"):
        st.number_input(
            f"Channel (0 to {last})",
            0,
            last,
            key=_channel_key(len(view.maps)),
            persist_state="session",
            width=150,
        )
        off = _off(view)
        is_off = view.channel in off
        st.button(
            f"Switch channel {view.channel} {'on' if is_off else 'off'}",
            icon=":material/toggle_off:" if is_off else ":material/toggle_on:",
            on_click=_flip,
            args=(_off_key(view), view.channel),
        )
    st.html(_habits(view, found))
    return found


def _dead(found: Exciting, view: View) -> str:
    dead = np.flatnonzero(found.dead)
    these = _these(view.images)
    if not len(dead):
        return f"None is dead in {these}: every channel responds to at least one."
    return (
        f"{len(dead)} of {len(view.maps)} channels {'are' if len(dead) > 1 else 'is'} dead, "
        f"zero everywhere in {these}: {_listed(dead)}."
    )


def _habits(view: View, found: Exciting | None) -> str:
    """The chosen channel's mean, maximum, active pixels, for the picture and over test images."""
    own = view.maps[view.channel]
    name = view.subject.class_names[view.answer]
    rows = [
        (
            "this picture",
            tables.value(own.mean()),
            tables.value(own.max()),
            percent((own > 0).mean()),
            tables.value(view.importance[view.channel]),
        )
    ]
    if found is not None:
        rows.append(
            (
                _these(view.images),
                tables.value(found.mean[view.channel]),
                tables.value(found.maximum[view.channel]),
                percent(found.active[view.channel]),
                "",
            )
        )
    return tables.comparison_table(
        f"Channel {view.channel}",
        ("mean", "maximum", "active pixels", f"importance for {name}"),
        rows,
    )


def _these(images: ImageSample | None) -> str:
    assert images is not None
    return f"all {len(images):,} test images" if images.every else f"{len(images):,} test images"


def _listed(channels: NDArray[np.int64]) -> str:
    first = ", ".join(str(channel) for channel in channels[:MOST_LISTED])
    more = len(channels) - MOST_LISTED
    return f"{first} and {more} more" if more > 0 else first


# --- what excites it --------------------------------------------------------------------------


def _excites(view: View) -> None:
    if view.images is None:
        return
    found = view.exciting
    if found is None:
        st.caption("The test images that excite this channel most appear here in a moment.")
        return
    channel = view.channel
    if found.dead[channel]:
        st.info(f"Channel {channel} is dead: no test image excites it. Choose another one.")
        return
    steps = steps_to(summarize(view.subject.network), view.layer)
    side = view.subject.network.image_size
    names = view.images.info.class_names
    places = []
    for index, row, column, value in zip(
        found.index[channel],
        found.row[channel],
        found.column[channel],
        found.value[channel],
        strict=True,
    ):
        if value == 0 and len(places):  # no response: not among the most exciting
            break
        places.append(
            channel_figures.Found(
                number=int(view.images.numbers[index]),
                name=names[int(view.images.labels[index])],
                value=float(value),
                picture=view.images.picture(view.subject, int(index)),
                rows=receptive_field(steps, side, int(row)),
                columns=receptive_field(steps, side, int(column)),
            )
        )
    size = places[0].rows.whole.size
    whole = "the whole image" if size >= side else f"{size}×{size} pixels, framed in the image"
    st.caption(
        f"The {len(places)} test images that excite channel {channel} most, each cut to what the "
        f"strongest cell of its map sees: {whole}. The number is the channel's value there."
    )
    st.html(channel_figures.tiles(places))


# --- switched off -----------------------------------------------------------------------------


def _off_key(view: View) -> str:
    return f"fm:ch:off:{view.layer}:{len(view.maps)}"


def _off(view: View) -> list[int]:
    """The channels that are switched off, ascending."""
    return sorted(st.session_state.get(_off_key(view), []))


def _flip(key: str, channel: int) -> None:
    off = set(st.session_state.get(key, []))
    st.session_state[key] = sorted(off ^ {channel})
    st.session_state[_QUESTION] = "off"


def _switched_off(view: View) -> None:
    key = _off_key(view)
    st.session_state.setdefault(key, [])
    off = tuple(
        sorted(
            st.multiselect(
                "Channels switched off",
                list(range(len(view.maps))),
                key=key,
                persist_state="session",
                placeholder="Choose one or several",
            )
        )
    )
    names = view.subject.class_names
    before = computed.answer(view.scene)
    after = channel_work.answer_without(view.scene, view.layer, off) if off else before
    strength = np.maximum(before.logits, after.logits)
    shown = np.arange(len(names))
    if len(names) > MOST_CLASSES:
        shown = np.sort(np.argsort(-strength, kind="stable")[:MOST_CLASSES])
    if off:
        st.markdown(_answers(names, before.probabilities, after.probabilities, len(off)))
    else:
        st.caption(
            "What follows a channel that is switched off receives zeros for it. Choose channels, "
            "or click a map and press its button, and compare."
        )
    _accuracy(view, off)
    plot(
        channel_figures.logits(
            [names[i] for i in shown], before.logits[shown], after.logits[shown] if off else None
        ),
        key="fm-ch-logits",
        height=channel_figures.BAR_HEIGHT,
    )


def _answers(names: tuple[str, ...], before: NDArray[Any], after: NDArray[Any], count: int) -> str:
    old, new = int(before.argmax()), int(after.argmax())
    which = "this channel" if count == 1 else f"these {count} channels"
    if np.ptp(after) == 0:
        return f"Without {which}, all logits are equal: the network has no answer left."
    stays = "stays" if old == new else "turns from"
    start = f"Without {which}, the answer {stays} **{names[old]}**"
    if old == new:
        return f"{start}: {percent(before[old])} → {percent(after[old])}."
    return f"{start} ({percent(before[old])}) to **{names[new]}** ({percent(after[new])})."


def _accuracy(view: View, off: tuple[int, ...]) -> None:
    """Test accuracy with all channels on, and with these off."""
    if view.images is None or not off:
        return
    if not view.classes_known:
        st.caption(_no_accuracy(view))
        return
    name, look = channel_work.without(view.subject, view.images, view.layer, off)
    if look.result is None:
        background.wait(name, look, f"Testing without them on {_these(view.images)}")
        return
    found: Ablation = look.result
    st.markdown(
        f"Test accuracy: {percent(found.accuracy)} → **{percent(found.accuracy_without[0])}**, "
        f"{_points(found.lost[0])}, on {_these(view.images)}."
    )


def _no_accuracy(view: View) -> str:
    return (
        f"This network has {view.subject.network.num_classes} classes and {view.subject.data.title}"
        f" has {len(view.subject.data.class_names)}, so there is no test accuracy."
    )


def _points(lost: float) -> str:
    """ "1.2 points lost"."""
    if lost == 0:
        return "nothing lost"
    return f"{abs(lost) * 100:.2f} points {'lost' if lost > 0 else 'gained'}"


# --- ranking ----------------------------------------------------------------------------------


def _ranked(view: View) -> None:
    st.caption(
        "Each channel of this layer is switched off alone, and the network tested on "
        "the test images: what it loses is what only this channel knew. Many that can be spared "
        "singly cannot be spared together."
    )
    if view.images is None:
        return
    if not view.classes_known:
        st.caption(_no_accuracy(view))
        return
    found = _ranking(view)
    count = len(view.maps)
    if found is None:
        name = channel_work.ranking_name(view.subject, view.images, view.layer)
        seconds = channel_work.ranking_seconds(view.subject.network, view.layer, len(view.images))
        if st.session_state.get(_RANKED) != name:
            st.button(
                f"Rank the {count} channels on {_these(view.images)}",
                icon=":material/leaderboard:",
                on_click=_want_ranking,
                args=(name,),
            )
            st.caption(f"{_duration(seconds)}; it goes on only while this page is open.")
            return
        name, look = channel_work.ranking(view.subject, view.images, view.layer)
        if look.result is None:
            background.wait(name, look, f"Testing without each of {count} channels")
            return
        found = look.result
    st.markdown(_verdict(found))

    def take(point: dict[str, Any]) -> None:
        channel = str(point.get("x"))
        if channel.isdigit() and int(channel) < count:
            st.session_state[_channel_key(count)] = int(channel)

    plot(
        channel_figures.ranking(found.order, found.lost, view.channel),
        key="fm-ch-ranking",
        height=channel_figures.BAR_HEIGHT,
        on_click=take,
    )


def _want_ranking(name: Any) -> None:
    st.session_state[_RANKED] = name


def _verdict(found: Ablation) -> str:
    worst = int(found.order[0])
    free = int((found.lost <= 0).sum())
    start = f"Test accuracy with all channels: {percent(found.accuracy)}. "
    if found.lost[worst] <= 0:
        return f"{start}No single channel is missed: without any one of them it is as high."
    spared = f"{free} of {len(found.lost)}" if free else "none"
    return (
        f"{start}Without channel **{worst}** it is "
        f"{percent(found.accuracy_without[worst])}, the greatest loss; {spared} can go alone "
        "without loss."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"This takes about {max(1, round(seconds))} s"
    return f"This takes about {round(seconds / 60)} minutes"


# --- gradients --------------------------------------------------------------------------------


def _gradients(view: View) -> None:
    names = view.subject.class_names
    key = f"fm:ch:class:{len(names)}"
    if st.session_state.get(key) not in range(len(names)):
        st.session_state[key] = view.answer
    st.caption(
        "The gradient says where a little more would raise (blue) or lower (orange) a class's "
        "logit; zero has no colour. Left, of every pixel; right, of every value in the layer's "
        "maps."
    )
    chosen = st.selectbox(
        "Class",
        range(len(names)),
        key=key,
        format_func=lambda i: f"{names[i]}{' · the answer' if i == view.answer else ''}",
        persist_state="session",
        width=260,
    )
    pixels = channel_work.input_gradient(view.scene, chosen)
    maps = channel_work.map_gradients(view.scene, view.layer, chosen)
    if not pixels.any() and not maps.any():
        st.info(
            f"All gradients of {names[chosen]} are zero: its class map is dead for this picture, "
            "so no small change can reach its logit."
        )
        return
    left, right = st.columns([9, 11])  # the left one holds a scale with its two numbers
    with left:
        labels = ["red", "green", "blue"] if len(pixels) == 3 else None
        sprite(
            pixels,
            key="fm-ch-input-gradient",
            title="Picture",
            labels=labels or [f"input {number}" for number in range(len(pixels))],
            height=MAPS_HEIGHT,
            on_click=None,
        )
    with right:
        start, part = choose_part(maps, f"fm:ch:gradients:{view.layer}", "Gradients")
        here = view.channel - start
        sprite(
            part,
            key="fm-ch-map-gradients",
            title=f"Gradients of {map_count(maps)}",
            labels=[str(number) for number in range(start, start + len(part))],
            selected=here if 0 <= here < len(part) else None,
            height=MAPS_HEIGHT,
            on_click=None,
        )


_QUESTIONS: dict[str, tuple[str, Callable[[View], None]]] = {
    "excites": ("What excites it", _excites),
    "off": ("Switched off", _switched_off),
    "ranking": ("Ranking", _ranked),
    "gradients": ("Gradients", _gradients),
}
