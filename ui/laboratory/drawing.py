"""The network drawn to scale: the drawing, how to read it, and what stands out in it."""

from __future__ import annotations

import streamlit as st

from nin_core import NiNConfig
from ui import diagram, notes
from ui.components import svg
from ui.laboratory import Subject, selection


def show(subject: Subject) -> None:
    """Draw the section."""
    config, network = subject.config, subject.network
    st.subheader("The network, to scale")
    chosen = selection.selected(network)
    svg(
        diagram.drawings(config),
        key="architecture:diagram",
        on_click=selection.select,
        selected=chosen and diagram.drawn_as(network, chosen),
        download=f"{network.name}-diagram",
    )
    st.caption(_how_to_read(config))
    warnings(notes.field_note(network), notes.flooring_note(network))


def warnings(*sentences: str | None) -> None:
    """What somebody who designs this network should know; None is nothing."""
    for sentence in sentences:
        if sentence:
            st.caption(f":orange[:material/warning:] {sentence}")


def _how_to_read(config: NiNConfig) -> str:
    norm = "batch norm and ReLU follow" if config.batch_norm else "ReLU follows"
    end = "" if config.final_relu else " but the last"
    return (
        "A volume's height and depth are the sides of its map on the image's own scale, its length "
        "the square root of its channels; the light rod is one pixel's channels, which a 1×1 "
        "convolution mixes, and the small window on a face is the next layer's. Click a layer to "
        f"choose it, here and in the table; {norm} every convolution{end}."
    )
