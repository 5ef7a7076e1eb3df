"""Layer by layer: the network drawn to scale, its table, a layer's arithmetic, where costs sit."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from nin_core import NetworkSummary
from nin_core.summary import Granularity
from ui import arithmetic, bars, tables
from ui.components import layer_table
from ui.laboratory import Subject, drawing, selection

_ROWS = {"block": "Blocks", "layer": "Layers", "relu": "Layers and ReLU"}


def show(subject: Subject) -> None:
    """Draw the view."""
    drawing.show(subject)
    granularity = layers(subject.network)
    whereabouts(subject.network, subject.other, granularity)


def layers(network: NetworkSummary) -> Granularity:
    """The per-layer table with its switches and the chosen row worked out; returns the rows shown.

    A block is chosen by its first layer, and a layer's block is marked: one choice serves both
    kinds of rows, and the diagram.
    """
    st.subheader("Layer by layer", anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        granularity, rows = _rows(network)
        shown = _columns()
        _downloads(network, granularity, rows, shown)
    layer = selection.selected(network)
    chosen = tables.row_of(rows, layer)

    def choose(row_id: str) -> None:
        row = next(row for row in rows if row.layer.name == row_id)
        # A row that is chosen by another of its members lets go of that one.
        selection.select(layer.name if layer and row == chosen else row.members[0].name)

    layer_table(
        tables.table_data(network, rows, shown),
        key="architecture:table",
        label="Layers",
        on_click=choose,
        selected=chosen.layer.name if chosen else None,
    )
    if layer is None or chosen is None:
        st.caption(
            "Choose a row to see where each of its figures comes from; a click on a heading sorts."
        )
    else:
        with st.container(border=True, key="architecture-arithmetic"):
            st.html(arithmetic.panel(network, chosen, layer))
    return granularity


def _rows(network: NetworkSummary) -> tuple[Granularity, tuple[tables.Row, ...]]:
    rows = st.segmented_control(
        "Rows",
        list(_ROWS),
        format_func=_ROWS.get,
        default="layer",
        required=True,
        key="architecture:rows",
        persist_state="session",
        label_visibility="collapsed",
        width="content",
    )
    granularity: Granularity = "block" if rows == "block" else "layer"
    return granularity, tables.table_rows(network, granularity, with_relu=rows == "relu")


def _columns() -> tuple[tables.Column, ...]:
    key = "architecture:columns"
    default = [id_ for id_ in tables.CHOSEN if id_ != "name"]
    # What a popover holds is drawn while it is open: the page is the quicker for it.
    popover = st.popover(
        "Columns",
        icon=":material/view_column:",
        width="content",
        key="architecture:columns:open",
        on_change="rerun",
    )
    if not popover.open:
        return tables.columns(st.session_state.get(key, default))
    with popover:
        ids = st.pills(
            "Columns of the table",
            [column.id for column in tables.COLUMNS if column.id != "name"],
            format_func=lambda id_: tables.BY_ID[id_].title,
            selection_mode="multi",
            default=default,
            key=key,
            persist_state="session",
        )
    return tables.columns(ids)


def _downloads(
    network: NetworkSummary,
    granularity: Granularity,
    rows: Sequence[tables.Row],
    shown: Sequence[tables.Column],
) -> None:
    """The rows and columns that are shown, as files."""
    popover = st.popover(
        "Download",
        icon=":material/download:",
        width="content",
        key="architecture:download:open",
        on_change="rerun",
    )
    if not popover.open:
        return
    with popover:
        st.caption(
            "The rows and columns shown, in network order, every count exact. Markdown and LaTeX "
            "have the totals; CSV has not, so that a column can be added up."
        )
        files = (
            ("CSV", "csv", "text/csv", lambda: tables.to_csv(rows, shown)),
            ("Markdown", "md", "text/markdown", lambda: tables.to_markdown(network, rows, shown)),
            ("LaTeX", "tex", "application/x-tex", lambda: tables.to_latex(network, rows, shown)),
        )
        for name, suffix, mime, content in files:
            st.download_button(
                name,
                content,
                f"{network.name}-{granularity}s.{suffix}",
                mime,
                key=f"architecture:table:{suffix}",
                on_click="ignore",
                width="stretch",
            )


def whereabouts(network: NetworkSummary, other: NetworkSummary, granularity: Granularity) -> None:
    """Where parameters and MACs sit, over the other network's."""
    st.subheader("Where parameters and MACs sit", anchor=False)
    st.html(bars.where(network, other, granularity))
