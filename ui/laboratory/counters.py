"""Why tools disagree: one network counted by five tools, each figure taken apart into terms."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import streamlit as st

from nin_core.counters import Term, ToolCount, count_like_tools
from ui import numbers, theme
from ui.components import plot
from ui.laboratory import Subject, information

TERM_COLORS = {
    "convolutions": theme.POINTWISE,
    "biases": theme.CONV,
    "batch norm": theme.NORM,
    "ReLU": theme.DROPOUT,
    "pooling": theme.POOL,
    "global pooling": theme.HEAD,
    "additions": theme.POINTWISE,
}


def show(subject: Subject) -> None:
    """Draw the view."""
    network = subject.network
    counts = count_like_tools(network)
    st.subheader("Why do tools disagree?")
    st.caption(
        "Five tools count the operations of one image's forward pass, and each means something "
        f"else by an operation. Every figure is this page's {network.total_macs:,} "
        "multiply-accumulates (MACs) of the convolutions, plus the terms listed under it."
    )
    st.html(ledger(counts, network.total_macs))
    figure = extras_figure(counts)
    if figure is not None:
        st.subheader("What is counted on top of the convolutions")
        plot(figure, key="architecture:counters", height=64 + 34 * len(figure["data"][0]["y"]))
    information(
        "The rules are fvcore 0.1.5's, thop 0.1.1's, torchinfo 1.8's, ptflops 0.7's and PyTorch's "
        "own, for a model in eval mode; the tests compare each with the tool itself."
    )


def ledger(counts: Sequence[ToolCount], macs: int) -> str:
    """A card a tool: its figure, and the terms that add up to it."""
    cards = "".join(_card(count, macs) for count in counts)
    return f'{_STYLE}<div class="nin-ledger">{cards}</div>'


def extras_figure(counts: Sequence[ToolCount]) -> dict[str, Any] | None:
    """Stacked bars of the terms besides the convolutions, for the tools that count MACs once.

    None if none of them counts anything besides.
    """
    # A tool that counts multiplications and additions apart is off everyone else's scale.
    shown = [count for count in counts if count.extra < count.terms[0].count]
    names = [name for name in TERM_COLORS if any(_share(count, name) for count in shown)]
    names = [name for name in names if name != "convolutions"]
    if not names:
        return None
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [count.tool for count in shown],
            "x": [_share(count, name) for count in shown],
            "customdata": [f"{_share(count, name):,}" for count in shown],
            "hovertemplate": "%{y}, " + name + ": %{customdata}<extra></extra>",
            "marker": {"color": TERM_COLORS[name]},
        }
        for name in names
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.35,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "traceorder": "normal"},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
        "xaxis": {"rangemode": "tozero", "tickformat": "~s"},
        "margin": {"l": 76, "r": 16, "t": 8, "b": 34},
    }
    return {"data": traces, "layout": layout}


def _share(count: ToolCount, name: str) -> int:
    return sum(term.count for term in count.terms if term.name == name)


def _card(count: ToolCount, macs: int) -> str:
    rows = "".join(_row(term, first=not index) for index, term in enumerate(count.terms))
    change = numbers.change(count.figure, macs)
    against = "the MACs as they are" if change == "same" else f"{change} against the MACs"
    missed = f"Not counted: {', '.join(count.leaves_out)}." if count.leaves_out else ""
    return (
        f"<section><h4>{escape(count.tool)}<span>{escape(against)}</span></h4>"
        f'<table aria-label="{escape(count.tool)}"><tbody>{rows}</tbody><tfoot><tr>'
        f'<th scope="row">{escape(count.quantity)} it reports</th>'
        f"<td>{count.figure:,}</td></tr></tfoot></table>"
        f"<p>{escape(missed)}</p></section>"
    )


def _row(term: Term, *, first: bool) -> str:
    product = f"<small>{term.each} × {term.values:,}</small>" if term.each > 1 else ""
    return (
        f'<tr><th scope="row"><i style="background:{TERM_COLORS[term.name]}"></i>'
        f"{'' if first else '+ '}{escape(term.name)}<small>{escape(term.rule)}</small></th>"
        f"<td>{term.count:,}{product}</td></tr>"
    )


_STYLE = """<style>
.nin-ledger { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr));
  gap: 1rem; }
.nin-ledger section { border: 1px solid rgba(128,128,128,.3); border-radius: .5rem;
  padding: .7rem .9rem .6rem; display: flex; flex-direction: column; }
.nin-ledger h4 { margin: 0 0 .35rem; padding: 0; font-size: 1.05rem; display: flex;
  justify-content: space-between; align-items: baseline; gap: .6rem; }
.nin-ledger h4 span { font-size: .8rem; font-weight: 400; opacity: .8; text-align: right; }
.nin-ledger table { width: 100%; border-collapse: collapse; font-size: .85rem; margin: 0;
  font-variant-numeric: tabular-nums; }
.nin-ledger th, .nin-ledger td { border: 0; border-top: 1px solid rgba(128,128,128,.22);
  padding: .3rem 0; vertical-align: top; text-align: right; font-weight: 400; }
.nin-ledger th { text-align: left; padding-right: .8rem; }
.nin-ledger td { white-space: nowrap; }
.nin-ledger small { display: block; font-size: .75rem; line-height: 1.3; opacity: .78; }
.nin-ledger th small { padding-left: 1.05em; }
.nin-ledger i { display: inline-block; width: .6em; height: .6em; margin-right: .45em;
  border-radius: 2px; }
.nin-ledger tfoot th, .nin-ledger tfoot td { font-weight: 600;
  border-top: 2px solid rgba(128,128,128,.55); }
.nin-ledger p { font-size: .78rem; opacity: .8; margin: .35rem 0 0; }
</style>"""
