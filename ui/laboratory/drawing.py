"""The network drawn to scale: the drawing, how to read it, and what stands out in it."""

from __future__ import annotations

import streamlit as st

from nin_core import LayerSummary, NetworkSummary, NiNConfig
from nin_core.receptive_field import Step, layer_step, skips_pixels
from nin_core.sample_image import sample_image
from ui import diagram, notes, numbers, theme
from ui.components import FieldLayer, field, svg
from ui.laboratory import Subject, selection


def show(subject: Subject) -> None:
    """Draw the section."""
    config, network = subject.config, subject.network
    st.subheader("The network, to scale", anchor=False)
    chosen = selection.selected(network)
    svg(
        diagram.drawings(config),
        key="architecture:diagram",
        on_click=selection.select,
        selected=chosen and diagram.drawn_as(network, chosen),
        download=f"{network.name}-diagram",
    )
    st.caption(
        _how_to_read(config) + _warned(notes.field_note(network), notes.flooring_note(network))
    )
    receptive_fields(network, chosen)


def receptive_fields(network: NetworkSummary, chosen: LayerSummary | None) -> None:
    """One cell of a map and the pixels that it sees, on a picture."""
    st.subheader("What one value sees", anchor=False)
    size = network.input_shape[1]
    sample = sample_image()
    side = len(sample.pixels)
    resized = "" if side == size else f" resized to {size}×{size}, as the network gets it"
    field(
        field_layers(network),
        sample.pixels,
        image_size=size,
        key="architecture:field",
        layer=diagram.drawn_as(network, chosen or notes.last_convolution(network)),
        caption=f"{sample.title}, {side}×{side}{resized}.",
        on_click=selection.select,
    )


def field_layers(network: NetworkSummary) -> list[FieldLayer]:
    """The layers whose maps can be pointed at: those with a volume in the drawing."""
    layers: list[FieldLayer] = []
    steps: list[Step] = []
    for layer in filter(diagram.is_drawn, network.layers):
        step = layer_step(layer)
        if step is not None:
            steps.append(step)
        title = f"{layer.name} · {numbers.shape(layer.output_shape)}"
        color = theme.LAYER_COLORS[layer.kind]
        layers.append(FieldLayer(layer.name, title, color, step, skips_pixels(steps)))
    return layers


def _warned(*sentences: str | None) -> str:
    """What somebody who designs this network should know, as further paragraphs; None is none."""
    return "".join(f"\n\n:orange[:material/warning:] {text}" for text in sentences if text)


def _how_to_read(config: NiNConfig) -> str:
    norm = "batch norm and ReLU follow" if config.batch_norm else "ReLU follows"
    end = "" if config.final_relu else " but the last"
    return (
        "A volume's height and depth are the sides of its map on the image's own scale, its length "
        "the square root of its channels; the light rod is one pixel's channels, which a 1×1 "
        "convolution mixes, and the small window on a face is the next layer's. Click a layer to "
        f"choose it, here and in the table; {norm} every convolution{end}."
    )
