"""The one error for bad input, and the checks of single values that raise it.

Used by every frozen dataclass of the library (network, recipe), so that all of them say what is
wrong, where, and what would work, in the same words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any


class ConfigError(ValueError):
    """An invalid configuration, in one sentence that says what is wrong and what would work.

    Attributes:
        field: dotted path of the offending value, e.g. ``"blocks[2].padding"``.
        suggestion: a value for that field that passes the failed check; None if there is none.
    """

    def __init__(self, message: str, *, field: str = "", suggestion: object = None) -> None:
        super().__init__(message)
        self.field = field
        self.suggestion = suggestion


def whole(
    value: object, name: str, low: int, high: int, *, field: str, default: int | None = None
) -> int:
    """Return `value` as an int in low..high, or raise a ConfigError with the nearest value."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        good = default if default is not None else low
        raise ConfigError(
            f"{name} is {value!r}, which is not a whole number; {good} would work.",
            field=field,
            suggestion=good,
        )
    number = int(value)
    if not low <= number <= high:
        good = min(max(number, low), high)
        raise ConfigError(
            f"{name} is {number:,}; it must be between {low} and {high:,}, so {good:,} would work.",
            field=field,
            suggestion=good,
        )
    return number


def real(value: object, name: str, low: float, high: float, *, field: str, good: float) -> float:
    """Return `value` as a finite float in [low, high], or raise a ConfigError."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ConfigError(
            f"{name} is {value!r}, which is not a number; {good:g} would work.",
            field=field,
            suggestion=good,
        )
    number = float(value)
    if not low <= number <= high:
        nearest = min(max(number, low), high)
        raise ConfigError(
            f"{name} is {number:g}; it must be between {low:g} and {high:g}, "
            f"so {nearest:g} would work.",
            field=field,
            suggestion=nearest,
        )
    return number


def choice(value: object, name: str, options: Sequence[str], *, field: str) -> str:
    """Return `value` if it is one of `options`, or raise a ConfigError that lists them."""
    if value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ConfigError(
            f"{name} is {value!r}; it must be one of {listed}.", field=field, suggestion=options[0]
        )
    return str(value)


def flag(value: object, name: str, *, field: str) -> bool:
    """Return `value` if it is a bool, or raise a ConfigError."""
    if not isinstance(value, bool):
        raise ConfigError(
            f"{name} is {value!r}; it must be true or false.", field=field, suggestion=bool(value)
        )
    return value


def record(cls: type, data: object, what: str) -> dict[str, Any]:
    """Check that `data` is a mapping with just the field names of `cls`."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{what} must be an object with named fields, not {data!r}.")
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(map(str, data)) - known)
    if unknown:
        raise ConfigError(
            f"{what} has no field {unknown[0]!r}; the fields are {', '.join(sorted(known))}.",
            field=unknown[0],
        )
    return dict(data)
