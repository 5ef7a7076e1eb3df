"""The Architecture page: what is looked at, its totals, and the views of the laboratory.

Everything is computed anew at each step of a slider, but only in the view that is open: what is
cheaper to compute than to look up is not cached. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html import escape

import streamlit as st

from nin_core import NiNConfig, summarize
from nin_core.summary import MAX_BATCH_SIZE
from ui import architecture, bars, notes, numbers
from ui.laboratory import Subject, compare, counters, export, layers, memory, pinned, widths

VIEWS: dict[str, tuple[str, Callable[[Subject], None]]] = {
    "layers": ("Layer by layer", layers.show),
    "compare": ("Compare", compare.show),
    "widths": ("Widths that fit", widths.show),
    "memory": ("Memory and time", memory.show),
    "counters": ("Why tools disagree", counters.show),
    "export": ("Take it with you", export.show),
}

_STYLE = """
.nin-head { display: flex; flex-wrap: wrap; gap: .8rem 1rem; line-height: 1.3; }
.nin-head > div { width: 165px; }  /* two of them fit beside each other on a telephone */
.nin-head span { display: block; font-size: .875rem; }
.nin-head b { display: block; font-size: 1.6rem; font-weight: 400; margin: .1rem 0 .25rem;
  font-variant-numeric: tabular-nums; }
.nin-head small { display: inline-block; max-width: 100%; box-sizing: border-box;
  font-size: .875rem; padding: .05rem .5rem; border-radius: 1rem;
  background: rgba(125, 133, 144, .14);
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; vertical-align: top; }
"""


def subject(config: NiNConfig) -> Subject:
    """The network of the sidebar beside the one chosen to compare it with."""
    name, other, batch_size = _choices(config)
    return Subject(
        config,
        summarize(config, batch_size),
        name,
        replace(summarize(other, batch_size), name=name),
        batch_size,
    )


def _choices(config: NiNConfig) -> tuple[str, NiNConfig, int]:
    """What to compare with and for how many images: (its name, the network, batch size)."""
    pins, problem = pinned.listed()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name, other = pinned.choose(pins)
        batch_size = st.number_input(
            "Batch size",
            1,
            MAX_BATCH_SIZE,
            # A view may move it too: what is there already is not a default's to set.
            "min" if "architecture:batch" in st.session_state else architecture.BATCH_SIZE,
            key="architecture:batch",
            persist_state="session",
            width=150,
            help="Images in a training step; every figure in bytes is for so many.",
        )
        if problem is None:
            pinned.pin_button(config)
    if problem is not None:
        st.error(problem, icon=":material/database_off:")
    return name, other, batch_size


def totals(shown: Subject) -> None:
    """The network in four figures, with their change against the other one."""
    network, other = shown.network, shown.other
    counts = [
        ("Parameters", "{:,}".format, network.total_parameters, other.total_parameters),
        ("MACs an image", numbers.short, network.total_macs, other.total_macs),
        ("Training memory", numbers.size, network.training_bytes(), other.training_bytes()),
    ]
    figures = []
    for label, words, now, then in counts:
        change = numbers.change(now, then)
        figures.append(
            (label, words(now), f"{change} {'as' if now == then else 'vs'} {other.name}")
        )
    field = notes.last_convolution(network).receptive_field
    figures.append(("Receptive field", f"{field} px", f"image: {network.input_shape[1]} px"))
    body = "".join(
        f"<div role='listitem'><span>{label}</span><b>{value}</b>"
        f"<small>{escape(below)}</small></div>"
        for label, value, below in figures
    )
    # Apart from what changes: a new style sheet has the browser look at the whole page again.
    st.html(f"<style>{_STYLE}{bars.STYLE}</style>")
    # One element for all: four of Streamlit's metrics cost ten times as much at each step.
    st.html(f"<div class='nin-head' role='list' aria-label='In figures'>{body}</div>")
