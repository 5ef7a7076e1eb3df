"""Architecture: the network to scale, its per-layer table, and where its parameters sit."""

from dataclasses import replace

import streamlit as st

from nin_core import PRESETS, ConfigError, preset, summarize
from nin_core.reference_nets import REFERENCE_NETS, reference_summary
from nin_core.summary import MAX_BATCH_SIZE
from ui import architecture, diagram, figures, frame, notes, numbers, tables
from ui.components import plot, svg

config = frame.begin()

st.title("Architecture")
with st.container(horizontal=True, vertical_alignment="bottom"):
    base = st.selectbox(
        "Compare with",
        list(PRESETS),
        index=list(PRESETS).index(architecture.base_preset()),
        key=f"architecture:other:{architecture.base_preset()}",
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
network, other = summarize(config, batch_size), summarize(preset(base), batch_size)

# --- totals -----------------------------------------------------------------------------------

seen = notes.last_convolution(network).receptive_field
figures_now = (
    (
        "Parameters",
        f"{network.total_parameters:,}",
        network.total_parameters,
        other.total_parameters,
    ),
    ("MACs an image", numbers.short(network.total_macs), network.total_macs, other.total_macs),
    (
        "Training memory",
        numbers.size(network.training_bytes()),
        network.training_bytes(),
        other.training_bytes(),
    ),
)
with st.container(horizontal=True):
    for label, value, now, then in figures_now:
        change = numbers.change(now, then)
        st.metric(
            label,
            value,
            f"{change} {'as' if change == 'same' else 'vs'} {base}",
            delta_color="off",
            delta_arrow="off",
            width=165,
        )
    st.metric(
        "Receptive field",
        f"{seen} px",
        f"image: {config.image_size} px",
        delta_color="off",
        delta_arrow="off",
        width=165,
        help="Side of the image patch that one value of a class map depends on.",
    )

# --- the network to scale ---------------------------------------------------------------------

st.subheader("The network, to scale")
with st.container(key="architecture-diagram", gap=None):
    for width in diagram.WIDTHS:
        with st.container(key=f"architecture-diagram-{width}"):
            svg(diagram.network_svg(config, width), key=f"architecture:diagram:{width}")
st.html(diagram.responsive_style("architecture-diagram"))
st.caption(
    "Height and depth of a volume: the sides of its map, on the image's own scale. Length: the "
    "square root of its channels. The light rod is one pixel's channels, which a 1×1 convolution "
    "mixes; the small window on a face is the next layer's. "
    f"{'Batch norm and ReLU follow' if config.batch_norm else 'ReLU follows'} every convolution"
    f"{'' if config.final_relu else ' but the last'}."
)
for note in (notes.field_note(network), notes.flooring_note(network)):
    if note:
        st.caption(f":material/info: {note}")

# --- the table --------------------------------------------------------------------------------

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
table, columns = tables.layer_table(network, rows)
st.dataframe(
    table,
    key="architecture:table",
    hide_index=True,
    height="content",
    column_config=columns,
)

# --- where it sits ----------------------------------------------------------------------------

st.subheader("Where parameters and MACs sit")
in_shares = st.segmented_control(
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
        network, other, quantity, granularity, shares=in_shares == "share"
    )
    with column:
        plot(figure, key=f"architecture:where:{quantity}", height=height)

# --- against the dense networks ---------------------------------------------------------------

st.subheader("Against LeNet, AlexNet and VGG-11")
references, misfits = [], []
for name in REFERENCE_NETS:
    try:
        references.append(
            reference_summary(
                name, config.in_channels, config.image_size, config.num_classes, batch_size
            )
        )
    except ConfigError as error:
        misfits.append(str(error))
log = st.toggle("Logarithmic", key="architecture:log", persist_state="session")
compared = [replace(network, name="this network"), *references]
for column, quantity in zip(st.columns(2), figures.QUANTITIES, strict=True):
    figure, height = figures.reference_figure(compared, quantity, log=log)
    with column:
        plot(figure, key=f"architecture:references:{quantity}", height=height)
if references:
    known = {net.name: net for net in references}
    rival = known.get("AlexNet") or references[-1]
    st.markdown(f"{notes.saving_note(network, rival)} {notes.head_note(network)}")
for sentence in misfits:
    st.caption(f":material/info: {sentence}")
