"""A table of a few rows for a narrow column: what a panel says in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_STYLE = """\
<style>
.nin-small { width: 100%; border-collapse: collapse; font-size: .8rem; line-height: 1.2; }
.nin-small th { font-weight: 400; opacity: .75; text-align: right; vertical-align: bottom; }
.nin-small th:first-child { text-align: left; }
.nin-small td { border-top: 1px solid rgba(128, 128, 128, .25); padding: .16rem 0 .16rem .5rem;
  text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.nin-small td:first-child { padding-left: 0; text-align: left; white-space: normal; }
.nin-small .marked { font-weight: 600; }
.nin-small .faint { opacity: .55; }
</style>
"""


class Cell(NamedTuple):
    """A cell that stands out, or stands back; a plain text is neither."""

    text: str
    marked: bool


def html(label: str, titles: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> str:
    """The table as HTML; the first column is of words, the others are of numbers.

    Args:
        label: what it shows, for those who do not see it.
    """
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f"{_STYLE}<table class='nin-small' aria-label='{escape(label)}'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    return f"<td class='{'marked' if cell.marked else 'faint'}'>{escape(cell.text)}</td>"
