"""The Start panel's choices as a query string, and back: a reload or a link fills the panel in.

What was chosen on the Training page is written, unless a first visit shows it as well, in words a
person can edit::

    ?recipe=tutorial&data=shapes&epochs=3&rate=0.05&batch=128&images=5000&seed=1

The name of the run to come is left out: the next one needs another. The network has parameters of
its own (`ui.link`). What a link says that cannot be is told in a sentence each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from nin_core.datasets import DATASETS
from nin_core.recipes import BOUNDS, RECIPES

FIRST: dict[str, Any] = {"recipe": "fast", "dataset": "fashion-mnist", "seed": 0}


class _Number(NamedTuple):
    """A number of the panel: the draft's name of it."""

    field: str
    whole: bool = True

    def read(self, text: str) -> float | None:
        """The number that `text` is; None if it is none that may be."""
        if not re.fullmatch(_WHOLE if self.whole else _DECIMAL, text):
            return None
        value = int(text) if self.whole else float(text)
        low, high = BOUNDS[self.field]
        return value if low <= value <= high else None

    def __str__(self) -> str:
        low, high = BOUNDS[self.field]
        kind = "whole number" if self.whole else "number"
        return f"{kind} between {_plain(low)} and {_plain(high)}"


_WHOLE = r"\d{1,12}"
_DECIMAL = r"\d{1,6}(\.\d{1,20})?(e-?\d{1,2})?"
_NUMBERS = {
    "epochs": _Number("epochs"),
    "rate": _Number("learning_rate", whole=False),
    "batch": _Number("batch_size"),
    "images": _Number("subset"),
    "seed": _Number("seed"),
}
_NAMES = {"recipe": ("recipe", RECIPES), "data": ("dataset", DATASETS)}
KEYS = (*_NAMES, *_NUMBERS)


def to_query(draft: Mapping[str, Any]) -> dict[str, str]:
    """The query parameters of a draft."""
    fields = {key: field for key, (field, _) in _NAMES.items()}
    fields |= {key: number.field for key, number in _NUMBERS.items()}
    return {
        key: str(draft[field])
        for key, field in fields.items()
        if draft.get(field) is not None and draft[field] != FIRST.get(field)
    }


def from_query(query: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Read what `to_query` wrote.

    Returns:
        the draft, and a sentence for each parameter that says nothing possible.
    """
    draft, problems = dict(FIRST), []
    for key in KEYS:
        text = query.get(key)
        if text is None:
            continue
        if key in _NAMES:
            field, known = _NAMES[key]
            value, wanted = text if text in known else None, f"none of {', '.join(known)}"
        else:
            field = _NUMBERS[key].field
            value, wanted = _NUMBERS[key].read(text), f"no {_NUMBERS[key]}"
        if value is None:
            problems.append(f"{key}={text[:20]} is {wanted}.")
        else:
            draft[field] = value
    return draft, problems


def _plain(value: float) -> str:
    """A bound as people write it: 1,000 or 0.000001."""
    return f"{value:,.0f}" if value >= 1 or not value else f"{value:f}".rstrip("0")
