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
        st.caption("Without FlopCounterMode, whose additions would dwarf the rest.")
        plot(figure, key="architecture:counters", height=64 + 34 * len(figure["data"][0]["y"]))
    information(
        "The rules are fvcore 0.1.5's, thop 0.1.1's, torchinfo 1.8's, ptflops 0.7's and PyTorch's "
        "own, for a model in eval mode; the tests compare each with the tool itself."
    )


def ledger(counts: Sequence[ToolCount], macs: int) -> str:
    """A column a tool: its figure, and the terms that add up to it, in rows that all share.

    Where there is no room for columns they are cards, without the rows of what is not counted.
    """
    counted = {term.name for count in counts for term in count.terms}
    rows = [name for name in TERM_COLORS if name in counted]
    cards = "".join(_card(count, rows, macs) for count in counts)
    style = _STYLE.replace("ROWS", str(len(rows) + 2)).replace("TOOLS", str(len(counts)))
    return f'{style}<div class="nin-ledger-box"><div class="nin-ledger">{cards}</div></div>'


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
        "yaxis": {
            "autorange": "reversed",
            "type": "category",
            "showgrid": False,
            "ticklabelstandoff": 6,
        },
        "xaxis": {"rangemode": "tozero", "tickformat": "~s"},
        "margin": {"l": 76, "r": 16, "t": 8, "b": 34},
    }
    return {"data": traces, "layout": layout}


def _share(count: ToolCount, name: str) -> int:
    return sum(term.count for term in count.terms if term.name == name)


def _card(count: ToolCount, rows: Sequence[str], macs: int) -> str:
    change = numbers.change(count.figure, macs)
    against = "the MACs as they are" if change == "same" else f"{change} against the MACs"
    terms = "".join(_row(name, [t for t in count.terms if t.name == name]) for name in rows)
    return (
        f'<section aria-label="{escape(count.tool)}"><h4>{escape(count.tool)}'
        f"<span>{escape(against)}</span></h4><dl>{terms}"
        f'<div class="total"><dt>its {escape(count.quantity)}</dt>'
        f"<dd>{count.figure:,}</dd></div></dl></section>"
    )


def _row(name: str, terms: Sequence[Term]) -> str:
    """One row of a tool's column; two terms of one name share it."""
    mark = f'<i style="background:{TERM_COLORS[name]}"></i>'
    if not terms:
        return f'<div class="none"><dt>{mark}{escape(name)}</dt><dd>not counted</dd></div>'
    rules = ", ".join(term.rule for term in terms)
    products = [f"{term.each} × {term.values:,}" for term in terms if term.each > 1]
    if len(terms) > 1:
        products = [" + ".join(f"{term.count:,}" for term in terms)]
    return (
        f"<div><dt>{mark}{escape(name)}</dt><dd>{sum(term.count for term in terms):,}</dd>"
        f'<dd class="rule">{escape(": ".join([*products, rules]))}</dd></div>'
    )


_STYLE = """<style>
.nin-ledger-box { container-type: inline-size; }
.nin-ledger { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr));
  gap: .9rem; }
.nin-ledger section { border: 1px solid rgba(128,128,128,.3); border-radius: .5rem;
  padding: .7rem .8rem .4rem; font-size: .85rem; }
.nin-ledger h4 { margin: 0; padding: 0 0 .4rem; font-size: 1.05rem; }
.nin-ledger h4 span { display: block; font-size: .78rem; font-weight: 400; opacity: .8; }
.nin-ledger section dl { margin: 0; padding: 0; font-size: inherit; }
.nin-ledger dl > div { display: flex; flex-wrap: wrap; justify-content: space-between;
  align-content: start; column-gap: .5rem; border-top: 1px solid rgba(128,128,128,.22);
  padding: .3rem 0; }
.nin-ledger dl dt, .nin-ledger dl dd { font-size: inherit; font-weight: 400; line-height: 1.4;
  margin: 0; padding: 0; }
.nin-ledger dl dd { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.nin-ledger dl .rule { flex-basis: 100%; text-align: left; white-space: normal; opacity: .78;
  font-size: .74rem; line-height: 1.3; padding-left: 1.2em; }
.nin-ledger i { display: inline-block; width: .6em; height: .6em; margin-right: .45em;
  border-radius: 2px; }
.nin-ledger dl > .none { display: none; }
.nin-ledger dl > .none > * { opacity: .55; }
.nin-ledger dl .total > * { font-weight: 600; }
.nin-ledger dl > .total { border-top: 2px solid rgba(128,128,128,.55); }
@container (min-width: 56rem) {
  .nin-ledger { grid-template-columns: repeat(TOOLS, 1fr); column-gap: .6rem; row-gap: 0; }
  .nin-ledger section { display: grid; grid-row: span ROWS; grid-template-rows: subgrid;
    padding: .6rem .6rem .3rem; font-size: .79rem; }
  .nin-ledger section dl { display: contents; }
  .nin-ledger dl > .none { display: flex; }
}
</style>"""
