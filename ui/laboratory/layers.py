"""Layer by layer: the network drawn to scale, its table, and where its costs sit."""

from __future__ import annotations

import streamlit as st

from nin_core import NetworkSummary
from nin_core.summary import Granularity
from ui import figures, tables
from ui.components import plot
from ui.laboratory import Subject, drawing


def show(subject: Subject) -> None:
    """Draw the view."""
    drawing.show(subject)
    granularity = layers(subject.network)
    whereabouts(subject.network, subject.other, granularity)


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
