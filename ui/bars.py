"""Where a network's parameters and MACs sit: bars beside each other, as one piece of HTML.

Not a chart of Plotly's: the bars follow every step of a slider, two of its charts cost more than
half of all else on the page, and here the figures can stand beside the bars. Scales begin at zero
and end at the longest bar, so they need no axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from nin_core import NetworkSummary
from nin_core.summary import Granularity
from ui import numbers, theme
from ui.figures import LOWER, QUANTITIES, Part, Quantity, label, parts, total

_GHOST = "rgba(125, 133, 144, .5)"
# A line's bars are the background of one element: fewer than half the elements to bring up to date.
STYLE = f"""
.nin-bars {{ display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; font-size: .875rem;
  font-variant-numeric: tabular-nums; line-height: 1.25;
  content-visibility: auto; contain-intrinsic-size: auto 30rem; }}
.nin-bars > p {{ flex: 100%; display: flex; flex-wrap: wrap; gap: .2rem 1.25rem; margin: 0;
  font-size: inherit; }}
.nin-bars > p i {{ width: .75rem; height: .75rem; margin-right: .4rem; border-radius: 2px;
  display: inline-block; vertical-align: -.05rem; }}
.nin-bars > div {{ flex: 1 1 320px; display: grid; align-items: center; gap: .3rem .6rem;
  grid-template-columns: max-content minmax(60px, 1fr) repeat(2, max-content); }}
.nin-bars h4 {{ grid-column: 1 / -1; font-size: .875rem; font-weight: 600; margin: 0; padding: 0; }}
.nin-bars > div > div {{ display: contents; }}
.nin-bars em {{ font-style: normal; }}
.nin-bars b {{ font-weight: 400; text-align: right; }}
.nin-bars small {{ display: block; font-size: .75rem; opacity: .75; }}
.nin-bars s {{ height: .75rem; background: linear-gradient(to right, {theme.CONV} var(--k),
  {theme.POINTWISE} 0 var(--p), transparent 0); }}
.nin-bars s.two {{ height: 1.6rem; background:
  linear-gradient(to right, {theme.CONV} var(--k), {theme.POINTWISE} 0 var(--p), transparent 0)
    top / 100% 48% no-repeat,
  linear-gradient(to right, {_GHOST} var(--o), transparent 0) bottom / 100% 48% no-repeat; }}
.nin-bars .k {{ background: {theme.CONV}; }}
.nin-bars .p {{ background: {theme.POINTWISE}; }}
.nin-bars .o {{ background: {_GHOST}; }}
"""


def where(network: NetworkSummary, other: NetworkSummary, granularity: Granularity) -> str:
    """Bars for the parameters and the MACs of a network's parts, over those of another one.

    One line a block or a weighted layer (a batch norm counts with its convolution), first at the
    top: a bar as long as its count, the count, its share of its own network; exact counts are in a
    tooltip.

    `STYLE` must be on the page.

    Args:
        other: drawn below; the same network means that there is nothing to compare.
    """
    beside = None if other.layers == network.layers else other
    marks = [("k", "k×k convolutions"), ("p", "1×1 convolutions")]
    if beside is not None:
        marks.append(("o", other.name))
    legend = "".join(f"<span><i class='{kind}'></i>{escape(words)}</span>" for kind, words in marks)
    panels = "".join(_panel(network, beside, name, granularity) for name in QUANTITIES)
    return f"<div class='nin-bars'><p>{legend}</p>{panels}</div>"


def _panel(
    network: NetworkSummary,
    other: NetworkSummary | None,
    quantity: Quantity,
    granularity: Granularity,
) -> str:
    mine = parts(network, quantity, granularity)
    theirs = parts(other, quantity, granularity) if other is not None else {}
    whole = max(total(network, quantity), 1)
    other_whole = max(total(other, quantity), 1) if other is not None else 1
    longest = max(map(sum, [*mine.values(), *theirs.values()])) or 1

    def width(count: int) -> str:
        return f"{100 * count / longest:.2f}%"

    def lines() -> Iterator[str]:
        for part in sorted(mine.keys() | theirs.keys()):
            windows, pixels = mine.get(part, (0, 0))
            count = windows + pixels
            ends = f"--k:{width(windows)};--p:{width(count)}"
            counted, share = _figures(count, whole) if part in mine else ("–", "")
            told = _told(part, count, whole, quantity)
            if other is not None:
                count = sum(theirs.get(part, (0, 0)))
                ends += f";--o:{width(count)}"
                below = _figures(count, other_whole) if part in theirs else ("–", "")
                counted += f"<small>{below[0]}</small>"
                share += f"<small>{below[1]}</small>"
                told += f"; {other.name}: {_counted(count, other_whole)}"
            yield (
                f"<div title='{escape(told)}'><em>{label(*part)}</em>"
                f"<s{' class=two' * (other is not None)} style='{ends}'></s>"
                f"<b>{counted}</b><b>{share}</b></div>"
            )

    return f"<div><h4>{QUANTITIES[quantity]}</h4>{''.join(lines())}</div>"


def _figures(count: int, whole: int) -> tuple[str, str]:
    return numbers.short(count), numbers.share(count / whole)


def _told(part: Part, count: int, whole: int, quantity: Quantity) -> str:
    return f"{label(*part)}: {_counted(count, whole)} of {whole:,} {LOWER[quantity]}"


def _counted(count: int, whole: int) -> str:
    return f"{count:,} ({numbers.share(count / whole)})"
