"""Compare: the network beside others on the same input."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from nin_core import ConfigError, NetworkSummary, NiNConfig
from nin_core.reference_nets import REFERENCE_NETS, reference_summary
from ui import figures, notes
from ui.components import plot
from ui.laboratory import Subject, information


def show(subject: Subject) -> None:
    """Draw the view."""
    dense_networks(subject.config, subject.network)


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
    information(*misfits)
