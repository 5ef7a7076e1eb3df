"""The arithmetic of the chosen row, as HTML for `st.html`: rule, numbers put in, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from nin_core import LayerSummary, NetworkSummary
from nin_core.arithmetic import SYMBOLS, Formula, arithmetic, sums
from ui import numbers
from ui.tables import KIND_WORDS, Row


def title(layer: LayerSummary) -> str:
    """The layer in words: block1.conv, 11×11 convolution."""
    window = f"{layer.kernel_size}×{layer.kernel_size}"
    words = {
        "conv": f"{window} convolution",
        "conv1x1": "1×1 convolution: the same dense layer at every pixel",
        "max_pool": f"maximum of every {window} window",
        "avg_pool": f"mean of every {window} window",
        "global_max_pool": "maximum of every map",
        "global_avg_pool": "mean of every map",
        "batch_norm": "batch normalisation",
        "relu": "ReLU, max(0, x)",
        "linear": "dense layer",
        "flatten": "maps of one value become one row of numbers",
    }.get(layer.kind, KIND_WORDS.get(layer.kind, layer.kind))
    return f"{layer.name}: {words}" if words != layer.name else layer.name


def panel(network: NetworkSummary, row: Row, layer: LayerSummary) -> str:
    """All formulas of `layer`, of the ReLU that shares its row, and the row's sums.

    Args:
        row: the table's row that stands for `layer`. A block's is explained by `layer` and the
            sums; another one by all its members.
    """
    is_block = row.layer.kind == "block"
    first, *joined = (layer,) if is_block else row.members
    formulas = arithmetic(network, first.name)
    parts = [_section(title(first), _shapes(first), formulas)]
    for member in joined:
        # What a ReLU leaves as it was need not be said a second time.
        changed = [formula for formula in arithmetic(network, member.name) if formula.worked]
        parts.append(_section(title(member), _shapes(member), changed))
    if len(row.members) > 1:
        added = [formula for formula in sums(row.members) if formula.worked]
        what = f"{row.layer.name} as a whole" if is_block else "Together, as in the table"
        parts.append(_section(what, ", ".join(one.name for one in row.members), added))
    return f'{STYLE}<div class="nin-arithmetic">{"".join(parts)}{_letters(formulas)}</div>'


def _shapes(layer: LayerSummary) -> str:
    return f"{numbers.shape(layer.input_shape)} → {numbers.shape(layer.output_shape)}"


def _section(heading: str, below: str, formulas: Sequence[Formula]) -> str:
    return (
        f"<h4>{escape(heading)}</h4><p>{escape(below)}</p>"
        f"<table><tbody>{''.join(map(_line, formulas))}</tbody></table>"
    )


def _line(formula: Formula) -> str:
    worked = f"{escape(formula.worked)} = " if formula.worked else ""
    unit = f" {formula.unit}" if formula.unit else ""
    result = f"<b>{formula.result:,}</b>{unit}"
    if formula.unit == "B" and formula.result >= 1024:
        size = numbers.size(formula.result).replace(" ", "\u00a0")
        result += f" ({size})"
    # A sum needs no words and may take their room.
    words = f"<td>{escape(formula.words)}</td>" if formula.words else ""
    wide = "" if formula.words else ' colspan="2"'
    return (
        f'<tr><th scope="row">{escape(formula.title)}</th><td>{_rule(formula.rule)}</td>'
        f"<td{wide}>{worked}{result}</td>{words}</tr>"
    )


_LETTER = re.compile(rf"(max)|{'|'.join(SYMBOLS)}")
_INDICES = {"ᵢ": "<sub>in</sub>", "ₒ": "<sub>out</sub>"}


def _rule(rule: str) -> str:
    """The rule with its letters in italics."""
    return _LETTER.sub(lambda found: found[1] or _letter(found[0]), escape(rule))


def _letter(letter: str) -> str:
    return f"<i>{letter[0]}</i>{_INDICES.get(letter[1:], '')}"


def _letters(formulas: Sequence[Formula]) -> str:
    """What the letters in these rules mean, in one line."""
    rules = " ".join(formula.rule for formula in formulas)
    used = {found[0] for found in _LETTER.finditer(rules)}
    return (
        '<p class="letters">'
        + " · ".join(
            f"{_letter(letter)} {words}" for letter, words in SYMBOLS.items() if letter in used
        )
        + "</p>"
    )


# Streamlit keeps `<style>` of `st.html` on the page; its colours follow the theme.
STYLE = """<style>
.nin-arithmetic { font-size: .85rem; line-height: 1.45; }
.nin-arithmetic h4 { font-size: .95rem; font-weight: 600; padding: .5rem 0 0; margin: 0; }
.nin-arithmetic p { margin: 0 0 .25rem; opacity: .75; font-size: .85rem; }
.nin-arithmetic table { border-collapse: collapse; width: 100%; margin: 0 0 .5rem; }
.nin-arithmetic th, .nin-arithmetic td { border: 0; padding: .3rem .9rem .3rem 0;
  border-top: 1px solid rgba(128,128,128,.22); vertical-align: baseline; text-align: left;
  font-weight: 400; }
.nin-arithmetic th { width: 8.6rem; opacity: .75; }
.nin-arithmetic td:nth-child(2) { width: 11.5rem; opacity: .75; }
.nin-arithmetic td:nth-child(3) { width: 31%; font-variant-numeric: tabular-nums; }
.nin-arithmetic td:nth-child(4) { opacity: .8; padding-right: 0; }
.nin-arithmetic i { font-style: italic; }
.nin-arithmetic sub { font-size: .7em; line-height: 0; }
@media (max-width: 640px) {
  .nin-arithmetic tr, .nin-arithmetic th, .nin-arithmetic td { display: block; }
  .nin-arithmetic tr { border-top: 1px solid rgba(128,128,128,.22); padding: .35rem 0; }
  .nin-arithmetic tr > :nth-child(n) { width: auto; border: 0; padding: 0;
    overflow-wrap: anywhere; }
}
</style>"""
