"""The views of the Architecture page: one module a view, each with `show(subject)`."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from nin_core import NetworkSummary, NiNConfig


@dataclass(frozen=True, slots=True)
class Subject:
    """What every view of the Architecture page is about.

    Attributes:
        config: the sidebar's network.
        network: its summary for `batch_size` images.
        base: the name of the preset or pinned network to compare it with.
        other: that network's summary for as many images, under that name.
        batch_size: images in a training step.
    """

    config: NiNConfig
    network: NetworkSummary
    base: str
    other: NetworkSummary
    batch_size: int


def information(*sentences: str | None) -> None:
    """Remarks under a picture or a table; None is no remark."""
    for sentence in sentences:
        if sentence:
            st.caption(f":material/info: {sentence}")
