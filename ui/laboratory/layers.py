"""Layer by layer: the network drawn to scale, its table, and where its costs sit."""

from __future__ import annotations

import streamlit as st

from nin_core import NetworkSummary, NiNConfig
from nin_core.summary import Granularity
from ui import diagram, figures, notes, tables
from ui.components import plot, svg
from ui.laboratory import Subject, information


def show(subject: Subject) -> None:
    """Draw the view."""
    drawing(subject.config, subject.network)
    granularity = layers(subject.network)
    whereabouts(subject.network, subject.other, granularity)


def drawing(config: NiNConfig, network: NetworkSummary) -> None:
    """The network to scale, how to read it, and what stands out in it."""
    st.subheader("The network, to scale")
    key = "architecture-diagram"
    with st.container(key=key, gap=None):
        for width in diagram.WIDTHS:
            with st.container(key=f"{key}-{width}"):
                svg(diagram.network_svg(config, width), key=f"architecture:diagram:{width}")
    st.html(diagram.responsive_style(key))
    st.caption(
        "Height and depth of a volume: the sides of its map, on the image's own scale. Length: the "
        "square root of its channels. The light rod is one pixel's channels, which a 1×1 "
        "convolution mixes; the small window on a face is the next layer's. "
        f"{'Batch norm and ReLU follow' if config.batch_norm else 'ReLU follows'} every convolution"
        f"{'' if config.final_relu else ' but the last'}."
    )
    information(notes.field_note(network), notes.flooring_note(network))


def layers(network: NetworkSummary) -> Granularity:
    """The per-layer table with its switches; returns the rows chosen."""
    st.subheader("Layer by layer")
    with st.container(horizontal=True, vertical_alignment="center"):
        granularity = st.segmented_control(
            "Rows",
            ["block", "layer"],
            format_func={"block": "Blocks", "layer": "Single layers"}.get,
            default="layer",
            required=True,
            key="architecture:rows",
            persist_state="session",
            label_visibility="collapsed",
            width="content",
        )
        with_relu = granularity == "layer" and st.toggle(
            "ReLU rows", key="architecture:relu", persist_state="session", width="content"
        )
        rows = tables.table_rows(network, granularity, with_relu=with_relu)
        st.download_button(
            "CSV",
            lambda: tables.layer_csv(rows),
            f"{network.name}-{granularity}s.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            width="content",
        )
    st.html(tables.layer_table(network, rows))
    return granularity


def whereabouts(network: NetworkSummary, other: NetworkSummary, granularity: Granularity) -> None:
    """Where parameters and MACs sit, over the other network's."""
    st.subheader("Where parameters and MACs sit")
    unit = st.segmented_control(
        "Unit",
        ["share", "count"],
        format_func={"share": "Share of the network", "count": "Count"}.get,
        default="share",
        required=True,
        key="architecture:unit",
        persist_state="session",
        label_visibility="collapsed",
    )
    for column, quantity in zip(st.columns(2), figures.QUANTITIES, strict=True):
        figure, height = figures.where_figure(
            network, other, quantity, granularity, shares=unit == "share"
        )
        with column:
            plot(figure, key=f"architecture:where:{quantity}", height=height)
