"""The Start panel's choices as a query string, and back: a reload or a link fills the panel in.

Only what differs from what a first visit shows is written, in words a person can edit::

    ?recipe=tutorial&data=shapes&epochs=3&rate=0.05&batch=128&images=5000&seed=1

The name of the run to come is left out: the next one needs another. The network has parameters of
its own (`ui.link`). What a link says that cannot be is told in a sentence each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nin_core.datasets import DATASETS
from nin_core.recipes import (
    MAX_BATCH_SIZE,
    MAX_EPOCHS,
    MAX_RATE,
    MAX_SEED,
    MAX_SUBSET,
    MIN_RATE,
    RECIPES,
)

FIRST: dict[str, Any] = {"recipe": "fast", "dataset": "fashion-mnist", "seed": 0}


class _Number(NamedTuple):
    """A number of the panel: the draft's name of it, and what it may be."""

    field: str
    read: Callable[[str], float]
    low: float
    high: float


_NUMBERS = {
    "epochs": _Number("epochs", int, 1, MAX_EPOCHS),
    "rate": _Number("learning_rate", float, MIN_RATE, MAX_RATE),
    "batch": _Number("batch_size", int, 1, MAX_BATCH_SIZE),
    "images": _Number("subset", int, 1, MAX_SUBSET),
    "seed": _Number("seed", int, 0, MAX_SEED),
}
_NAMES = {"recipe": ("recipe", RECIPES), "data": ("dataset", DATASETS)}
KEYS = (*_NAMES, *_NUMBERS)


def to_query(draft: Mapping[str, Any]) -> dict[str, str]:
    """The query parameters of a draft: the recipe, the data set, and the numbers it names."""
    query = {}
    for key in KEYS:
        field = _NAMES[key][0] if key in _NAMES else _NUMBERS[key].field
        value = draft.get(field)
        if value is not None and value != FIRST.get(field):
            query[key] = str(value)
    return query


def from_query(query: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Read what `to_query` wrote.

    Returns:
        the draft, and a sentence for each parameter that says nothing possible.
    """
    draft, problems = {"recipe": FIRST["recipe"], "dataset": FIRST["dataset"]}, []
    for key, (field, known) in _NAMES.items():
        if (text := query.get(key)) is None:
            continue
        if text in known:
            draft[field] = text
        else:
            problems.append(f"{key}={text[:20]} is none of {', '.join(known)}.")
    for key, number in _NUMBERS.items():
        if (text := query.get(key)) is None:
            continue
        try:
            value = number.read(text)
        except ValueError:
            value = math.nan
        if number.low <= value <= number.high:
            draft[number.field] = value
        else:
            kind = "whole number" if number.read is int else "number"
            bounds = (
                f"{number.low:,g} and {number.high:,g}"
                if number.read is float
                else (f"{number.low:,} and {number.high:,}")
            )
            problems.append(f"{key}={text[:20]} is no {kind} between {bounds}.")
    return draft, problems
