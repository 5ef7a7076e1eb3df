"""Taking it along: what a view shows as PNG, its arrays as NPZ, and the PyTorch that gives them.

Each file is made when its button is pressed, not at every run of the script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from nin_core import export, maps_export
from nin_core.maps_export import Side
from ui.feature_subject import Subject, model_of, percent
from ui.feature_views import Scene, computed, picture_file
from ui.feature_views.picture_file import Group, shared_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nin_core.features import Array

__all__ = ["Group", "Shown", "group", "shared_scale", "show", "stem_of", "weights_of", "whose"]


@dataclass(frozen=True, eq=False)
class Shown:
    """One side of what a view shows.

    Attributes:
        name: "left", "right", or "" where there is one side only.
        title: which network and picture.
        scene: these.
        maps: layer -> all its channels, for the arrays.
        groups: what is drawn of them, for the picture.
    """

    name: str
    title: str
    scene: Scene
    maps: Mapping[str, Array]
    groups: Sequence[Group]


def show(sides: Sequence[Shown], *, stem: str, title: str, key: str) -> None:
    """The buttons, and the lines of code.

    Args:
        stem: of the files' names.
        title: above the picture.
        key: of the view, before its widgets' keys.
    """
    # Names and keys only: nothing is computed here but what the page has computed anyway.
    taken = [_side(side) for side in sides]

    def picture() -> bytes:
        return picture_file.png(title, [group for side in sides for group in side.groups])

    def archive() -> bytes:
        weights = [lambda subject=side.scene.subject: weights_of(subject) for side in sides]
        return maps_export.archive(taken, weights, picture())

    files = (
        ("PNG", picture, f"{stem}.png", "image/png", "What is shown, with titles and scale."),
        (
            "NPZ",
            lambda: maps_export.npz(taken),
            f"{stem}.npz",
            "application/octet-stream",
            "The arrays for NumPy: every channel of the layer, the network's input, the logits; "
            'the array "names" says what each is.',
        ),
        (
            "All with weights and code",
            archive,
            f"{stem}.zip",
            "application/zip",
            "Both, and the network as PyTorch code, its weights as safetensors, and the lines "
            "below, which give the same arrays.",
        ),
    )
    with st.expander("Take it along", icon=":material/download:", key=f"{key}:take"):
        with st.container(horizontal=True):
            for label, make, name, mime, what in files:
                st.download_button(
                    label,
                    make,
                    name,
                    mime,
                    icon=":material/download:",
                    on_click="ignore",
                    help=what,
                    width="content",
                    key=f"{key}:take:{label}",
                )
        st.caption(
            "These lines of PyTorch give the same arrays; unpacked, the archive has all that they "
            "need."
        )
        st.code(maps_export.code(taken), language="python", height=320)


def _side(shown: Shown) -> Side:
    subject, picture = shown.scene.subject, shown.scene.picture
    return Side(
        name=shown.name,
        title=shown.title,
        network=subject.network,
        weights_key=subject.key,
        image=picture.steps.network_input.numpy(),
        maps=shown.maps,
        logits=computed.answer(shown.scene).logits,
    )


def weights_of(subject: Subject) -> bytes:
    """A subject's weights as safetensors, an untrained network's too."""
    if subject.weights is None:
        from safetensors.torch import save

        return save(model_of(subject).state_dict())
    from nin_core.weights import plain_weights

    return plain_weights(subject.weights)


def group(
    title: str,
    scene: Scene,
    maps: Array,
    channels: NDArray[np.int64],
    scale: tuple[float, float] | None,
) -> Group:
    """These channels of a layer's maps as they are drawn; without a scale each map has its own."""
    return Group(
        title=title,
        answer=_answer(scene),
        picture=scene.picture.shown,
        maps=maps[channels],
        labels=[str(channel) for channel in channels],
        scale=scale,
    )


def whose(subject: Subject) -> str:
    """Which network's weights: "nin-28, run 3", "nin-custom, untrained"."""
    which = f"run {subject.key[1]}" if subject.weights else f"untrained, seed {subject.seed}"
    return f"{export.network_name(subject.network)}, {which}"


def _answer(scene: Scene) -> str:
    """ "Bag 98.2 %, Shirt 1.1 %, Coat 0.4 %": the three most probable classes."""
    found = computed.answer(scene)
    if not np.isfinite(found.logits).all():
        return "No answer: its logits are not numbers"
    order = found.probabilities.argsort(kind="stable")[::-1][:3]
    names = scene.subject.class_names
    return ", ".join(f"{names[i]} {percent(found.probabilities[i])}" for i in order)


def stem_of(scene: Scene, layer: str) -> str:
    """A file's name: the network, which of its weights, the layer."""
    subject = scene.subject
    which = "-".join(str(part) for part in subject.key[:2]) if subject.weights else "untrained"
    return f"{export.network_name(subject.network)}-{which}-{layer}"
