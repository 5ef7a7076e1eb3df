"""The parts of the Architecture page, in the order in which a newcomer needs them.

Everything is computed anew at each step of a slider: the whole page costs some 20 ms of Python, and
what is cheaper to compute than to look up is not cached. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from nin_core import PRESETS, ConfigError, NetworkSummary, NiNConfig
from nin_core.reference_nets import REFERENCE_NETS, reference_summary
from nin_core.summary import MAX_BATCH_SIZE, Granularity
from ui import architecture, diagram, figures, notes, numbers, tables
from ui.components import plot, svg

_METRIC = 165  # pixels; two of them fit beside each other on a telephone


def choices() -> tuple[str, int]:
    """What to compare with and for how many images: (preset's name, batch size)."""
    base = architecture.base_preset()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        other = st.selectbox(
            "Compare with",
            list(PRESETS),
            index=list(PRESETS).index(base),
            key=f"architecture:other:{base}",
            persist_state="session",
            width=190,
        )
        batch_size = st.number_input(
            "Batch size",
            1,
            MAX_BATCH_SIZE,
            architecture.BATCH_SIZE,
            key="architecture:batch",
            persist_state="session",
            width=150,
            help="Images in a training step; every figure in bytes is for so many.",
        )
    return other, batch_size


def totals(network: NetworkSummary, other: NetworkSummary) -> None:
    """The network in four figures, with their change against the other one."""
    counts = [
        ("Parameters", "{:,}".format, network.total_parameters, other.total_parameters),
        ("MACs an image", numbers.short, network.total_macs, other.total_macs),
        ("Training memory", numbers.size, network.training_bytes(), other.training_bytes()),
    ]
    shown = []
    for label, words, now, then in counts:
        change = numbers.change(now, then)
        shown.append((label, words(now), f"{change} {'as' if now == then else 'vs'} {other.name}"))
    field = notes.last_convolution(network).receptive_field
    shown.append(("Receptive field", f"{field} px", f"image: {network.input_shape[1]} px"))
    with st.container(horizontal=True):
        for label, value, below in shown:
            st.metric(label, value, below, delta_color="off", delta_arrow="off", width=_METRIC)


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
    _information(notes.field_note(network), notes.flooring_note(network))


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


def dense_networks(config: NiNConfig, network: NetworkSummary) -> None:
    """Beside LeNet, AlexNet and VGG-11 on the same input, and what their dense layers cost."""
    st.subheader("Against LeNet, AlexNet and VGG-11")
    fitting: dict[str, NetworkSummary] = {}
    misfits: list[str] = []
    for name in REFERENCE_NETS:
        try:
            fitting[name] = reference_summary(
                name, config.in_channels, config.image_size, config.num_classes
            )
        except ConfigError as error:
            misfits.append(str(error))
    log = st.toggle("Logarithmic", key="architecture:log", persist_state="session")
    compared = [replace(network, name="this network"), *fitting.values()]
    for column, quantity in zip(st.columns(2), figures.QUANTITIES, strict=True):
        figure, height = figures.reference_figure(compared, quantity, log=log)
        with column:
            plot(figure, key=f"architecture:references:{quantity}", height=height)
    if fitting:
        rival = fitting.get("AlexNet") or list(fitting.values())[-1]
        st.markdown(f"{notes.saving_note(network, rival)} {notes.head_note(network)}")
    _information(*misfits)


def _information(*sentences: str | None) -> None:
    for sentence in sentences:
        if sentence:
            st.caption(f":material/info: {sentence}")
