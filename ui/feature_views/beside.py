"""Side by side: one layer twice, on one colour scale.

Choices made here:

* The left side is what the page is about: its network, its picture. The right side differs from it
  in one respect: another run, another moment of the same run, or another picture. Everything else
  is the same, so that what is seen comes from that.
* Channels stand in one order on both sides, by default by number. Those of two moments of a run
  correspond; those of two runs need not, which is said.
* Layers correspond by name. Where shapes differ, both are shown; a cell is read in both only if
  their maps are equally large.
* Moments are the run's snapshots, whose weights are in half precision, and its latest checkpoint.
* The view is a fragment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from nin_core.snapshots import Snapshot, Snapshots
from ui import frame, image_figures, numbers, resources
from ui.components import sprite
from ui.feature_images import test_image
from ui.feature_subject import (
    UNTRAINED,
    Picture,
    Subject,
    keep_valid,
    network_title,
    picture_of,
    refuse_too_large,
    run_subject,
    usable_runs,
)
from ui.feature_views import Scene, computed, tables, take_along
from ui.feature_views.choices import (
    PICTURE_VALUES,
    channel_scores,
    choose_layer,
    choose_range,
    map_count,
)
from ui.feature_views.stages import Pairs, Stage, layers_of, paired, short_title
from ui.feature_views.take_along import Shown, shared_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from streamlit.delta_generator import DeltaGenerator

    from nin_core.features import Array

LATEST = -1  # the moment of the latest checkpoint
_LISTED = 3  # layers in a sentence

_WAYS = {"run": "Run", "moment": "Moment", "picture": "Picture"}
_ORDERS = {
    "number": "Number",
    "mean": "Mean, left",
    "maximum": "Maximum, left",
    "active": "Active pixels, left",
    "difference": "Difference",
}
_WAY, _ORDER, _SIDE = "fm:be:way", "fm:be:order", "fm:be:side"
_RUN, _SEED = "fm:be:run", "fm:be:seed"
_KEPT, _NUMBER = "fm:be:kept", "fm:be:number"


# One line each, so that the pictures below stand level.
_STYLE = """
<style>
.nin-beside-title { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
</style>
"""


@dataclass(frozen=True)
class Half:
    """One side: a network and a picture, and what tells it from the other."""

    name: str
    title: str
    scene: Scene


@st.fragment
def show(scene: Scene) -> None:
    """Draw the view."""
    with frame.guarded():  # the store is asked in the fragment, too
        _show(scene)


def _show(scene: Scene) -> None:
    st.html(_STYLE)
    st.caption(
        "The same layer twice, on one colour scale: two runs, two moments of one, or two pictures. "
        "Point at a map to read the same cell in both."
    )
    keep_valid(_WAY, _WAYS)
    row = st.container(horizontal=True, vertical_alignment="bottom")
    with row:
        way = st.segmented_control(
            "Compare with another",
            list(_WAYS),
            key=_WAY,
            format_func=_WAYS.get,
            required=True,
            persist_state="session",
        )
    others = {"run": _another_run, "moment": _another_moment, "picture": _another_picture}
    found = others[way](scene, row)
    if found is None:
        return
    left, right = found
    networks = left.scene.subject.network, right.scene.subject.network
    refuse_too_large(networks[1])
    pairs = paired(*networks)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        stage = choose_layer(networks[0], width=290)
        side = _choose_side(stage)
        order = _choose_order()
    if stage.after not in pairs.both:
        st.info(
            f"The right network has no {short_title(stage)}; its layers end with "
            f"{short_title((pairs.only_right or [s for _, s in pairs.both.values()])[-1])}."
        )
        return
    layers = tuple(s.before if side == "before" else s.after for s in pairs.both[stage.after])
    maps = tuple(
        computed.maps(half.scene, layers_of([pair]))[layer]
        for half, pair, layer in zip((left, right), pairs.both[stage.after], layers, strict=True)
    )
    if not all(np.isfinite(half).any() for half in maps):
        st.warning("One side's maps are not numbers: that run diverged, so they say nothing.")
    if networks[0] != networks[1]:
        st.caption(f":material/info: {what_does_not_match(pairs, stage, maps)}")
    elif way == "run":
        st.caption(
            ":material/info: Runs number their channels each in its own way: channel 0 of one "
            "need not look for what channel 0 of the other does."
        )
    shown = _pictures(left, right, stage, maps, order)
    if maps[0].shape == maps[1].shape:
        st.caption(how_far_apart(*maps))
    _answers(left, right)
    _take_along(left, right, stage, layers, maps, shown)


# --- the right side ---------------------------------------------------------------------------


def _another_run(scene: Scene, row: DeltaGenerator) -> tuple[Half, Half] | None:
    """Another run with the same picture; or the same network untrained."""
    runs = usable_runs()
    subject = scene.subject
    own = str(subject.key[1]) if subject.key[0] == "run" else UNTRAINED
    options = [*(number for number in runs if number != own), UNTRAINED]
    keep_valid(_RUN, options)
    with row:
        chosen = st.selectbox(
            "Right: run",
            options,
            key=_RUN,
            format_func=lambda number: (
                "Untrained: the left network"
                if number == UNTRAINED
                else network_title(runs[number])
            ),
            persist_state="session",
            width=260,
        )
        other: Subject | None
        if chosen == UNTRAINED:
            seed = st.number_input(
                "Seed",
                0,
                9999,
                1 if subject.weights is None and subject.seed == 0 else 0,
                key=_SEED,
                persist_state="session",
                width=130,
                help="PyTorch's random initial weights come from it.",
            )
            other = replace(
                subject,
                key=(UNTRAINED, subject.network, int(seed), subject.standardize),
                weights=None,
                seed=int(seed),
            )
            title = f"Untrained, seed {seed}"
        else:
            other = run_subject(runs[chosen])
            title = network_title(runs[chosen])
    if other is None:
        st.warning(f"Run #{chosen}'s weights are gone; choose another one.")
        return None
    left = Half("left", _title(subject, runs), scene)
    return left, Half("right", title, Scene(other, _for_network(scene, other)))


def _for_network(scene: Scene, other: Subject) -> Picture:
    """The left picture as another network gets it."""
    picture, data = scene.picture, scene.subject.data
    known = other.class_names == scene.subject.class_names
    return picture_of(
        other,
        picture.steps.pixels,
        key=picture.key if other.data is data else (*picture.key, "of", data.name),
        title=picture.title,
        truth=picture.truth if known else None,
    )


def _title(subject: Subject, runs: dict[str, Any]) -> str:
    """What the left network is."""
    if subject.key[0] != "run":
        return f"Untrained, seed {subject.seed}"
    run = runs.get(str(subject.key[1]))
    return f"#{subject.key[1]}" if run is None else network_title(run)


def _another_moment(scene: Scene, row: DeltaGenerator) -> tuple[Half, Half] | None:
    """Two moments of the run that the page is about."""
    subject = scene.subject
    if subject.key[0] != "run":
        st.info("An untrained network has one moment only; choose a run on the left of the page.")
        return None
    run_id = int(subject.key[1])
    kept = {moment.step: moment for moment in Snapshots(resources.store().database).all(run_id)}
    if not kept:
        st.info(
            f"Run #{run_id} kept no snapshots of its weights: it was imported, was made before "
            "they were kept, or its network is too large for them."
        )
        return None
    moments = [*kept, LATEST]
    halves = []
    with row:
        for name, first in (("left", moments[0]), ("right", LATEST)):
            key = f"fm:be:{name}:{run_id}"
            if st.session_state.get(key) not in moments:
                st.session_state[key] = first
            chosen = st.select_slider(
                f"{name.capitalize()}: step",
                moments,
                key=key,
                format_func=lambda step: "latest" if step == LATEST else f"{step:,}",
                persist_state="session",
                width=180,
            )
            half = _moment(scene, run_id, kept.get(chosen))
            if half is None:
                st.warning("That snapshot is gone: the run has trained on. Choose another one.")
                return None
            halves.append(replace(half, name=name))
    return halves[0], halves[1]


def _moment(scene: Scene, run_id: int, moment: Snapshot | None) -> Half | None:
    """The run at a snapshot; None: with its latest weights."""
    subject = scene.subject
    if moment is None:
        return Half("", f"Run #{run_id}, latest (step {subject.key[3]:,})", scene)
    weights = _snapshot(run_id, moment.step, moment.made_at)
    if weights is None:
        return None
    title = f"Run #{run_id}, step {moment.step:,}" + (" (untrained)" if not moment.step else "")
    key = ("snapshot", run_id, moment.step, moment.made_at)
    return Half("", title, Scene(replace(subject, key=key, weights=weights), scene.picture))


@st.cache_resource(show_spinner=False, max_entries=8)
def _snapshot(run_id: int, step: int, made_at: float) -> bytes | None:
    return Snapshots(resources.store().database).load(run_id, step)


@dataclass(frozen=True, eq=False)
class _Kept:
    """A picture that was kept for the right side, and the data set it came by way of."""

    picture: Picture
    data: str


def _another_picture(scene: Scene, row: DeltaGenerator) -> tuple[Half, Half] | None:
    """The same network with another test image, or with a picture that was on the left."""
    from nin_core.data import find_dataset

    subject, picture = scene.subject, scene.picture
    kept: _Kept | None = st.session_state.get(_KEPT)
    there = find_dataset(subject.data.name).available
    with row:
        if kept is None and there:
            last = subject.data.test_size - 1
            if st.session_state.get(_NUMBER, last + 1) > last:
                st.session_state[_NUMBER] = _of_another_class(subject, picture)
            number = st.number_input(
                f"Right: test image (0–{last:,})",
                0,
                last,
                key=_NUMBER,
                persist_state="session",
                width=220,
            )
            other = test_image(subject, subject.data, int(number))
        st.button(
            "Keep the left one here",
            icon=":material/keep:",
            on_click=_keep,
            args=(_Kept(picture, subject.data.name),),
            help="The left picture stays on the right side; then choose another one on the left of "
            "the page: a test image, an upload or a drawing.",
        )
        if kept is not None:
            st.button("Back to test images", icon=":material/undo:", on_click=_let_go)
    if kept is not None:
        source = kept.picture
        same = kept.data == subject.data.name
        other = picture_of(
            subject,
            source.steps.pixels,
            key=source.key if same else (*source.key, "of", kept.data),
            title=source.title,
            truth=source.truth if same else None,
        )
    elif not there:
        st.info(
            f"{subject.data.title} is not on this computer, so there are no test images; keep the "
            "left picture, and choose another one there."
        )
        return None
    sides = (("left", picture), ("right", other))
    left, right = (Half(n, _picture_title(p), Scene(subject, p)) for n, p in sides)
    return left, right


def _picture_title(picture: Picture) -> str:
    return f"{picture.truth} · {picture.title}" if picture.truth else picture.title


def _of_another_class(subject: Subject, picture: Picture) -> int:
    """The first test image whose class is not the left picture's."""
    labels = resources.dataset(subject.data.name).test_labels.numpy()
    names = np.array(subject.data.class_names)
    others = np.flatnonzero(names[labels] != picture.truth)
    return int(others[0]) if len(others) else 0


def _keep(kept: _Kept) -> None:
    st.session_state[_KEPT] = kept


def _let_go() -> None:
    st.session_state.pop(_KEPT, None)


# --- the layer --------------------------------------------------------------------------------


def _choose_side(stage: Stage) -> str:
    """Whether maps are shown "after" or "before" the ReLU, where there is one."""
    if stage.before == stage.after:
        return "after"
    keep_valid(_SIDE, ["after", "before"])
    return st.segmented_control(
        "ReLU",
        ["after", "before"],
        key=_SIDE,
        format_func={"after": "After", "before": "Before"}.get,
        required=True,
        persist_state="session",
    )


def _choose_order() -> str:
    keep_valid(_ORDER, _ORDERS)
    return st.selectbox(
        "Order of the channels",
        list(_ORDERS),
        key=_ORDER,
        format_func=_ORDERS.get,
        persist_state="session",
        width=170,
        help="The same on both sides, the largest first. Difference: the mean of |left − right| "
        "over a channel's map, where both have one.",
    )


def ranked(maps: tuple[Array, Array], order: str) -> NDArray[np.int64]:
    """The channels of both sides in order; those that one side lacks stand last."""
    left, right = maps
    count = max(len(left), len(right))
    scores = np.full(count, -np.inf)
    if order == "difference":
        if left.shape[1:] == right.shape[1:]:
            common = min(len(left), len(right))
            scores[:common] = np.abs(left[:common] - right[:common]).mean(axis=(1, 2))
    else:
        own = channel_scores(left, order)
        if own is not None:
            scores[: len(left)] = own
    return np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")


def what_does_not_match(pairs: Pairs, stage: Stage, maps: tuple[Array, Array]) -> str:
    """Which layers of two different networks can be compared, and what does not fit; a sentence."""
    count = len(pairs.both) + len(pairs.only_left)
    every = "All" if not pairs.only_left else f"{len(pairs.both)} of the"
    parts = [f"{every} {count} layers of the left network can be compared"]
    if pairs.only_left:
        parts.append(f"the right one has no {_listed(pairs.only_left)}")
    if pairs.only_right:
        parts.append(f"only the right one has {_listed(pairs.only_right)}")
    left, right = (numbers.shape(half.shape) for half in maps)
    if left == right:
        parts.append(f"this layer is {left} in both")
    else:
        lacking = ""
        fewer, more = sorted(len(half) for half in maps)
        if maps[0].shape[1:] != maps[1].shape[1:]:
            lacking = ", so cells have no counterpart"
        elif fewer != more:
            which = (
                f"channel {fewer} has"
                if more == fewer + 1
                else f"channels {fewer} to {more - 1} have"
            )
            lacking = f", so {which} no counterpart"
        parts.append(
            f"{short_title(stage)} is {left} on the left and {right} on the right{lacking}"
        )
    return "; ".join(parts) + "."


def _listed(missing: list[Stage]) -> str:
    named = ", ".join(short_title(stage) for stage in missing[:_LISTED])
    more = len(missing) - _LISTED
    return f"{named} and {more} more" if more > 0 else named


def how_far_apart(left: Array, right: Array) -> str:
    """How much two sides' maps of one shape differ, in a sentence."""
    apart = np.abs(left.astype(np.float64) - right)
    if not np.isfinite(apart).all():
        return "Some values are not numbers, so the two sides have no difference."
    if not apart.any():
        return "The two sides are equal to the last bit."
    channel, row, column = (int(at) for at in np.unravel_index(apart.argmax(), apart.shape))
    return (
        f"On average |left − right| is {tables.value(apart.mean())}; it is largest in channel "
        f"{channel} at row {row}, column {column}: {tables.value(left[channel, row, column])} and "
        f"{tables.value(right[channel, row, column])}."
    )


# --- both sides -------------------------------------------------------------------------------


def _pictures(
    left: Half, right: Half, stage: Stage, maps: tuple[Array, Array], order: str
) -> NDArray[np.int64]:
    """Both sides' maps; returns the channels that are drawn, in order."""
    channels = _part(ranked(maps, order), maps, stage)
    scale = shared_scale(*maps)
    for column, half, other, values in zip(
        st.columns(2), (left, right), (right, left), maps, strict=True
    ):
        own = channels[channels < len(values)]
        with column:
            title = escape(half.title)
            st.html(
                f"<div class='nin-beside-title' title='{title}'><b>{half.name.capitalize()}</b> · "
                f"{title}</div>"
            )
            if not len(own):
                st.info("This side has none of these channels.")
                continue
            sprite(
                values[own],
                key=f"fm-beside-{half.name}",
                title=map_count(values),
                labels=[str(channel) for channel in own],
                scale=scale,
                partner={
                    "key": f"fm-beside-{other.name}",
                    "here": half.name,
                    "there": other.name,
                },
                on_click=None,
            )
    return channels


def _part(
    channels: NDArray[np.int64], maps: tuple[Array, Array], stage: Stage
) -> NDArray[np.int64]:
    """The channels of one picture: all, or a chosen part where there are too many values."""
    at_once = max(1, PICTURE_VALUES // max(half[0].size for half in maps))
    key = f"fm:be:part:{stage.after}:{at_once}"
    part = choose_range("Channels, in their order", len(channels), at_once, key, width=220)
    return channels[slice(*part)]


def _answers(left: Half, right: Half) -> None:
    """What each side's network says to its picture."""
    for column, half in zip(st.columns(2), (left, right), strict=True):
        scene = half.scene
        found = computed.answer(scene)
        with column:
            st.html(
                image_figures.beside(
                    scene.picture.shown,
                    f"{half.name.capitalize()}: {scene.picture.title}",
                    tables.probabilities_table(
                        scene.subject.class_names, found, scene.picture.truth
                    ),
                )
            )


def _take_along(
    left: Half,
    right: Half,
    stage: Stage,
    layers: tuple[str, ...],
    maps: tuple[Array, ...],
    channels: NDArray[np.int64],
) -> None:
    scale = shared_scale(*maps)
    sides = []
    for half, layer, values in zip((left, right), layers, maps, strict=True):
        own = channels[channels < len(values)]
        title = f"{half.name.capitalize()}: {half.title}"
        group = take_along.group(title, half.scene, values, own, scale)
        sides.append(
            Shown(
                name=half.name,
                title=f"{half.title}; {half.scene.picture.title}",
                scene=half.scene,
                maps={layer: values},
                groups=[group] if len(own) else [],
            )
        )
    take_along.show(
        sides,
        stem=f"beside-{take_along.stem_of(right.scene, layers[1])}",
        title=f"{short_title(stage)} side by side ({layers[0]})",
        key="fm:be",
    )
