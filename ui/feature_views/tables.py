"""Small HTML tables of the Feature maps page, and the numbers in them. Pure: no widgets.

Sums are shown so that a reader can add them up: all terms have the same number of decimals, and
the row of what is not listed is what the listed ones leave of the total, rounding and all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ui import theme
from ui.feature_subject import percent

if TYPE_CHECKING:
    from nin_core.features import ClassMaps
    from nin_core.lens import OutputSum, PatchSum

# The two hues of signed values, as in the pictures of maps: each shows on white and on dark.
UP, DOWN = "#3b7dbf", "#d9722b"

STYLE = f"""
<style>
.nin-answer {{ width: 100%; border-collapse: collapse; font-size: 0.85rem; }}
.nin-answer th {{ font-weight: 400; text-align: left; white-space: nowrap; }}
.nin-answer thead th {{ opacity: .75; }}
.nin-answer th, .nin-answer td {{ padding: .16rem .6rem .16rem 0; }}
.nin-answer tbody tr {{ border-top: 1px solid rgba(128, 128, 128, .25); }}
.nin-answer .number {{ text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }}
.nin-answer .bar {{ width: 30%; padding-right: 0; }}
.nin-answer .bar span {{ display: block; height: .7rem; min-width: 1px;
  background: {theme.HEAD}; }}
.nin-answer tr.chosen th, .nin-answer tr.chosen td {{ font-weight: 600; }}
.nin-answer tr.total {{ border-top: 2px solid rgba(128, 128, 128, .6); }}
.nin-answer .signed {{ width: 26%; padding-right: 0; }}
.nin-answer .signed div {{ position: relative; height: .7rem; min-width: 3rem; }}
.nin-answer .signed div::before {{ content: ""; position: absolute; left: 50%; top: -.2rem;
  bottom: -.2rem; width: 1px; background: rgba(128, 128, 128, .6); }}
.nin-answer .signed span {{ position: absolute; top: 0; bottom: 0; min-width: 1px; }}
.nin-cells {{ border-collapse: collapse; font-size: 0.78rem; font-variant-numeric: tabular-nums; }}
.nin-cells td {{ border: 1px solid rgba(128, 128, 128, .35); padding: .15rem .35rem;
  text-align: right; }}
.nin-cells td.peak {{ outline: 2px solid {theme.HEAD}; outline-offset: -2px; font-weight: 600; }}
.nin-scroll {{ overflow-x: auto; }}
.st-key-fm-lens-maps {{ max-height: 290px; overflow-y: auto; }}
</style>
"""

LISTED = 8  # terms of a sum, or classes, before "others"
MOST_CELLS = 64  # of a class map that are written out as numbers
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_DIGITS = 5  # of the largest number in a sum


def value(number: float) -> str:
    """Four significant digits, with a typographer's minus."""
    return f"{number:.4g}".replace("-", "−")


def fixed(number: float, decimals: int) -> str:
    """So many decimals, with a typographer's minus; no minus before a zero."""
    text = f"{number:.{decimals}f}"
    if not float(text):
        text = text.removeprefix("-")
    return text.replace("-", "−")


# --- sums that add up -------------------------------------------------------------------------


@dataclass(frozen=True)
class Ledger:
    """A sum in figures of equal decimals that add up to the total to the last digit.

    Attributes:
        decimals: of every figure.
        terms: the listed terms, rounded.
        rest: what they and the bias leave of the total: the terms not listed, and rounding.
        bias, total: rounded.
    """

    decimals: int
    terms: tuple[float, ...]
    rest: float
    bias: float
    total: float


def ledger(terms: Sequence[float], bias: float, total: float) -> Ledger:
    """The listed `terms` of a sum beside its bias and total, in figures that add up."""
    largest = max([abs(total), abs(bias), *(abs(term) for term in terms)])
    decimals = 0
    if largest > 0:
        decimals = min(max(_DIGITS - 1 - math.floor(math.log10(largest)), 0), 12)
    units = [round(term * 10**decimals) for term in terms]
    bias_units, total_units = round(bias * 10**decimals), round(total * 10**decimals)
    rest = total_units - bias_units - sum(units)
    one = 10**-decimals
    return Ledger(
        decimals,
        tuple(unit * one for unit in units),
        rest * one,
        bias_units * one,
        total_units * one,
    )


def sum_table(
    terms: OutputSum, names: str, after: Sequence[tuple[str, str, float]], listed: int = LISTED
) -> str:
    """One output of a 1×1 layer, its largest terms first, down to what leaves the layer.

    Args:
        names: what an input is called, e.g. "channel of x".
        after: what follows W·x + b: (name, how, value).
        listed: how many terms are listed.
    """
    order = terms.order[:listed]
    figures = ledger([terms.products[i] for i in order], terms.bias, terms.total)
    others = terms.order[listed:]
    rest = float(terms.products[others].sum())
    largest = max(abs(rest), abs(terms.bias), float(np.abs(terms.products).max(initial=0.0)))
    rows = [
        f"<tr><th>{i}</th><td class='number'>{value(terms.weights[i])}</td>"
        f"<td class='number'>× {value(terms.inputs[i])}</td>"
        f"<td class='number'>{fixed(figure, figures.decimals)}</td>"
        f"{signed_bar(terms.products[i], largest)}</tr>"
        for i, figure in zip(order, figures.terms, strict=True)
    ]
    rows.append(_rest_row(len(others), figures, rest, largest))
    rows.append(_row("bias b", figures.bias, figures.decimals, terms.bias, largest))
    rows.append(
        f"<tr class='total chosen'><th colspan='3'>W·x + b</th>"
        f"<td class='number'>{fixed(figures.total, figures.decimals)}</td><td></td></tr>"
    )
    rows += _after_rows(after, figures.decimals)
    return _table(
        "Terms of the sum",
        f"<th>{escape(names)}</th><th class='number'>weight</th><th class='number'>× input</th>"
        "<th class='number'>= term</th><th></th>",
        rows,
    )


def patch_table(
    patch: PatchSum, names: str, after: Sequence[tuple[str, str, float]], listed: int = LISTED
) -> str:
    """One output of the k×k convolution: what each input channel's patch × kernel adds.

    Args:
        names, after, listed: as in `sum_table`.
    """
    order = np.argsort(-np.abs(patch.by_input), kind="stable")
    shown, others = order[:listed], order[listed:]
    figures = ledger([patch.by_input[i] for i in shown], patch.bias, patch.total)
    rest = float(patch.by_input[others].sum())
    largest = max(abs(rest), abs(patch.bias), float(np.abs(patch.by_input).max(initial=0.0)))
    rows = [
        _row(
            str(i) if len(order) > 1 else "patch × kernel",
            figure,
            figures.decimals,
            patch.by_input[i],
            largest,
        )
        for i, figure in zip(shown, figures.terms, strict=True)
    ]
    rows.append(_rest_row(len(others), figures, rest, largest))
    rows.append(_row("bias b", figures.bias, figures.decimals, patch.bias, largest))
    rows.append(
        f"<tr class='total chosen'><th colspan='3'>sum + b</th>"
        f"<td class='number'>{fixed(figures.total, figures.decimals)}</td><td></td></tr>"
    )
    rows += _after_rows(after, figures.decimals)
    side = patch.kernel.shape[-1]
    return _table(
        "Sum of the patch times the kernel",
        f"<th colspan='3'>{escape(names)}</th><th class='number'>Σ of {side}×{side} products</th>"
        "<th></th>",
        rows,
    )


def _after_rows(after: Sequence[tuple[str, str, float]], decimals: int) -> list[str]:
    return [
        f"<tr class='chosen'><th>{escape(name)}</th><td class='number' colspan='2'>{escape(how)}"
        f"</td><td class='number'>{fixed(result, decimals)}</td><td></td></tr>"
        for name, how, result in after
    ]


def _row(name: str, figure: float, decimals: int, exact: float, largest: float) -> str:
    return (
        f"<tr><th colspan='3'>{escape(name)}</th>"
        f"<td class='number'>{fixed(figure, decimals)}</td>{signed_bar(exact, largest)}</tr>"
    )


def _rest_row(count: int, figures: Ledger, exact: float, largest: float) -> str:
    if not count and not figures.rest:
        return ""
    name = f"{count} other{'s' if count > 1 else ''}, and rounding" if count else "rounding"
    return _row(name, figures.rest, figures.decimals, exact if count else 0.0, largest)


def signed_bar(amount: float, largest: float) -> str:
    """A table cell with a bar from the middle: to the right for what adds, left for the rest."""
    if not largest or not amount:
        return "<td class='signed'><div></div></td>"
    width = 50 * min(abs(amount) / largest, 1)
    side, color = ("left", UP) if amount > 0 else ("right", DOWN)
    return (
        f"<td class='signed'><div><span style='{side}:50%;width:{width:.1f}%;"
        f"background:{color}'></span></div></td>"
    )


# --- comparisons ------------------------------------------------------------------------------


def comparison_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts: the first column names, the others numbers."""
    return _table(
        title,
        "<th></th>" + "".join(f"<th class='number'>{escape(column)}</th>" for column in columns),
        [
            f"<tr><th style='white-space:normal'>{escape(name)}</th>"
            + "".join(f"<td class='number'>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for name, *cells in rows
        ],
    )


def difference(number: float) -> str:
    """How far two results are apart: "0" where they are the same, 5.7·10⁻⁸."""
    if not 0 < number < 1e-3:
        return f"{number:.2g}"
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPT)}"


# --- classes ----------------------------------------------------------------------------------


def probabilities_table(names: Sequence[str], answer: ClassMaps, truth: str | None) -> str:
    """Every class, the most probable first, the true one in bold; empty without numbers."""
    if not np.isfinite(answer.logits).all():
        return ""
    order = np.argsort(-answer.logits, kind="stable")
    rows = [
        f"<tr{_chosen(names[i] == truth)}><th>{escape(names[i])}</th>"
        f"<td class='number'>{percent(answer.probabilities[i])}</td>"
        f"{_bar(answer.probabilities[i])}</tr>"
        for i in order
    ]
    return _table(
        "Probabilities of all classes",
        "<th>Class</th><th class='number'>Probability</th><th class='bar'></th>",
        rows,
    )


def pooling_table(
    names: Sequence[str], answer: ClassMaps, shown: Sequence[int], chosen: int
) -> str:
    """From map to probability, one class a row, `chosen` in bold."""
    cells = answer.maps[0].size
    powers = np.exp(answer.logits.astype(np.float64) - float(answer.logits.max()))
    rows = []
    for i in shown:
        row, column = answer.peaks[i]
        dead = not answer.maps[i].any()
        how = "all zero" if dead else f"({row}, {column})"
        if answer.global_pool == "avg" and not dead:
            how = f"{value(answer.maps[i].sum(dtype=np.float64))} ÷ {cells}"
        rows.append(
            f"<tr{_chosen(i == chosen)}><th>{escape(names[i])}</th>"
            f"<td class='number'>{how}</td><td class='number'>{value(answer.logits[i])}</td>"
            f"<td class='number'>{value(powers[i])}</td>"
            f"<td class='number'>{percent(answer.probabilities[i])}</td>"
            f"{_bar(answer.probabilities[i])}</tr>"
        )
    pooling = "Sum ÷ n" if answer.global_pool == "avg" else "Largest at"
    return _table(
        "Logits and probabilities",
        f"<th>Class</th><th class='number'>{pooling}</th><th class='number'>= logit z</th>"
        "<th class='number' title='The largest z is taken off first, which changes no "
        "probability'>e^(z − max)</th>"
        "<th class='number'>Softmax</th><th class='bar'></th>",
        rows,
    )


def map_cells(values: np.ndarray) -> str:
    """A class map as numbers, its largest framed; empty if there are too many."""
    if values.size > MOST_CELLS:
        return ""
    peak = int(values.argmax())
    width = values.shape[1]
    rows = []
    for number, row in enumerate(values):
        cells = (
            f"<td{' class=peak' if number * width + i == peak else ''}>{value(cell)}</td>"
            for i, cell in enumerate(row)
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        "<div class='nin-scroll'><table class='nin-cells' aria-label='Values of the class map'>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _table(label: str, head: str, rows: Sequence[str]) -> str:
    return (
        f"<div class='nin-scroll'><table class='nin-answer' aria-label='{escape(label)}'>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _bar(share: float) -> str:
    return f"<td class='bar'><span style='width:{share:.1%}'></span></td>"


def _chosen(is_chosen: bool) -> str:
    return " class='chosen'" if is_chosen else ""
