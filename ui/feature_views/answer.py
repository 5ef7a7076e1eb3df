"""From the class maps to the answer: the maps over the picture, pooling, softmax.

The view is a fragment; a click on a class map, or the list of classes, chooses the class whose
arithmetic is written out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from ui.components import class_maps as class_maps_picture
from ui.feature_subject import keep_valid, percent
from ui.feature_views import Scene, computed, tables

if TYPE_CHECKING:
    from nin_core.features import ClassMaps

MAX_CLASS_MAPS = 12
SHARE = 0.1  # of all activations, as in the paper's figure

_POOLING = {"max": "maximum", "avg": "mean"}


@st.fragment
def show(scene: Scene) -> None:
    """Draw the view."""
    from nin_core.features import pooled_as, strongest_activations

    own = computed.answer(scene)
    if not np.isfinite(own.logits).all():
        st.warning("The class maps are not numbers: this run diverged, so they say nothing.")
        return
    names = scene.subject.class_names
    st.caption(
        "The last layer has one map per class, here laid over the picture; no dense layer "
        "follows. Global pooling makes one number of each map, its class's logit, and softmax "
        "turns the logits into probabilities."
    )
    fields = st.container(horizontal=True, vertical_alignment="bottom")
    with fields:
        pooling = _choose_pooling(own)
        only_strongest = st.toggle(
            "Top 10 % only",
            key="fm:strongest",
            persist_state="session",
            help="As in the paper's figure 4: of all values in all class maps, only the largest "
            "tenth is drawn. In a network that has learned, most of them lie in the true class's "
            "map.",
        )
    answer = pooled_as(own, pooling)
    shown = np.arange(len(names))
    if len(names) > MAX_CLASS_MAPS:
        shown = np.argsort(-answer.logits, kind="stable")[:MAX_CLASS_MAPS]
    best = int(answer.logits.argmax())
    with fields:
        chosen = _choose_class(answer, names, [int(i) for i in shown], best)
    if pooling != own.global_pool:
        st.caption(
            f":material/info: This network was built with the {_POOLING[own.global_pool]}; the "
            f"{_POOLING[pooling]} of its maps is an experiment, which it did not learn for."
        )
    if len(names) > MAX_CLASS_MAPS:
        st.caption(
            f"Of {len(names)} classes, these are the {MAX_CLASS_MAPS} with the largest logits."
        )
    drawn = strongest_activations(own.maps, SHARE)[shown] if only_strongest else None

    def take(click: dict[str, Any]) -> None:
        st.session_state[_class_key(len(names))] = int(shown[click["channel"]])

    class_maps_picture(
        own.maps[shown],
        scene.picture.shown,
        drawn=drawn,
        labels=[names[i] for i in shown],
        values=[float(answer.logits[i]) for i in shown],
        key="fm-classes",
        selected=int(np.flatnonzero(shown == chosen)[0]),
        on_click=take,
    )
    if only_strongest:
        st.caption(_where_they_are(own, names, scene.picture.truth))
    st.html(tables.pooling_table(names, answer, [int(i) for i in shown], chosen))
    _arithmetic(names[chosen], chosen, answer)


def _choose_pooling(own: ClassMaps) -> str:
    """How the maps are pooled: the network's own way first."""
    options = [own.global_pool, "avg" if own.global_pool == "max" else "max"]
    key = f"fm:pooling:{own.global_pool}"
    keep_valid(key, options)
    return st.segmented_control(
        "Pool by",
        options,
        key=key,
        format_func=lambda how: _POOLING[how].capitalize(),
        required=True,
        persist_state="session",
    )


def _class_key(count: int) -> str:
    return f"fm:answer:class:{count}"


def _choose_class(answer: ClassMaps, names: tuple[str, ...], shown: list[int], best: int) -> int:
    """The class whose arithmetic is written out; at first the answer."""
    key = _class_key(len(names))
    ranked = sorted(shown, key=lambda i: -answer.logits[i])
    if st.session_state.get(key) not in ranked:
        st.session_state[key] = best
    return st.selectbox(
        "Class to follow",
        ranked,
        key=key,
        format_func=lambda i: f"{names[i]} · logit {tables.value(answer.logits[i])}",
        persist_state="session",
        width=250,
    )


def _where_they_are(answer: ClassMaps, names: tuple[str, ...], truth: str | None) -> str:
    """How many of the strongest activations each of the leading classes has."""
    from nin_core.features import strongest_activations

    counts = (strongest_activations(answer.maps, SHARE) != 0).sum(axis=(1, 2))
    total = int(counts.sum())
    if not total:
        return "All class maps are zero, so there are no strongest activations."
    leading = [int(i) for i in np.argsort(-counts, kind="stable")[:3] if counts[i]]
    parts = ", ".join(f"{names[i]} {counts[i]}" for i in leading)
    own = ""
    if truth in names:
        own = f" The true class, {truth}, has {percent(counts[names.index(truth)] / total)}."
    return f"Of the {total} strongest activations: {parts}.{own}"


def _arithmetic(name: str, index: int, answer: ClassMaps) -> None:
    """One class from its map's values to its probability."""
    values = answer.maps[index]
    row, column = answer.peaks[index]
    logit, best = float(answer.logits[index]), float(answer.logits.max())
    size = f"{values.shape[0]}×{values.shape[1]}"
    cells = tables.map_cells(values)
    if cells:
        st.caption(f"{name}'s map, its largest value framed:")
        st.html(cells)
    if answer.global_pool == "max":
        how = (
            f"{name}'s logit is the largest of its {size} values, {tables.value(values.max())}, "
            f"at row {row}, column {column}."
        )
    else:
        how = (
            f"{name}'s logit is the sum of its {size} values divided by {values.size}: "
            f"{tables.value(values.sum(dtype=np.float64))} ÷ {values.size} = "
            f"{tables.value(logit)}."
        )
    powers = np.exp(answer.logits.astype(np.float64) - best)
    st.caption(
        f"{how} Softmax: e^({tables.value(logit)} − {tables.value(best)}) = "
        f"{tables.value(powers[index])}, divided by the sum over all classes, "
        f"{tables.value(powers.sum())}: {percent(answer.probabilities[index])}."
    )
