"""The Feature maps page: the picture and its answer beside the view that is open.

The switch between the views is bound to `?view=`, as on the Architecture page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from ui import image_figures, numbers
from ui.feature_subject import percent
from ui.feature_views import Scene, answer, beside, channels, computed, lens, maps, replay, tables

if TYPE_CHECKING:
    from nin_core.features import ClassMaps

VIEWS: dict[str, tuple[str, Callable[[Scene], None]]] = {
    "maps": ("All channels", maps.show),
    "lens": ("The 1×1 lens", lens.show),
    "answer": ("From maps to the answer", answer.show),
    "channels": ("What a channel does", channels.show),
    "replay": ("Learning, replayed", replay.show),
    "beside": ("Side by side", beside.show),
}


def show_answer(scene: Scene) -> None:
    """The picture in the network's input size, and what the network says it is."""
    st.html(tables.STYLE)
    subject, picture = scene.subject, scene.picture
    side = subject.network.image_size
    found = computed.answer(scene)
    names = subject.class_names
    st.html(
        image_figures.beside(
            picture.shown,
            f"{picture.title}, as the network gets it: "
            f"{numbers.shape((subject.network.in_channels, side, side))}",
            tables.probabilities_table(names, found, picture.truth),
        )
    )
    if not np.isfinite(found.logits).all():
        st.warning("The logits are not numbers: this run diverged, so its maps say nothing.")
        return
    if np.ptp(found.logits) == 0:
        st.warning(
            "All logits are equal, so the network has no answer: every class map pools to the "
            "same value."
        )
    else:
        st.markdown(_verdict(names, found, picture.truth, subject.weights is not None))


def _verdict(names: Sequence[str], found: ClassMaps, truth: str | None, trained: bool) -> str:
    best = int(found.logits.argmax())
    said = f"**{names[best]}**, {percent(found.probabilities[best])}"
    if not trained:
        return f"Untrained, it would say {said}: chance, not knowledge."
    if truth is None:
        return f"It says {said}."
    return f"It says {said}: right." if names[best] == truth else f"It says {said}; it is {truth}."
