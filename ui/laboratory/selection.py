"""The layer that is looked at: one choice, made in the table or in the diagram, kept in the URL."""

from __future__ import annotations

import streamlit as st

from nin_core import LayerSummary, NetworkSummary

_LAYER = "architecture:layer"
_PARAMETER = "layer"


def selected(network: NetworkSummary) -> LayerSummary | None:
    """The chosen layer of `network`; None if none is, or this network has no layer of that name."""
    name = st.session_state.get(_LAYER, st.query_params.get(_PARAMETER))
    return next((layer for layer in network.layers if layer.name == name), None)


def select(name: str | None) -> None:
    """Choose a layer by name, or none; choosing the chosen one again lets go of it.

    For a component's `on_click`: the script, which runs afterwards, draws the choice.
    """
    if name == st.session_state.get(_LAYER, st.query_params.get(_PARAMETER)):
        name = None
    st.session_state[_LAYER] = name
    if name is None:
        st.query_params.pop(_PARAMETER, None)
    else:
        st.query_params[_PARAMETER] = name
