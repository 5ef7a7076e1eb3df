"""How commands speak: a table, a line of JSON, a file, an error in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class CommandError(Exception):
    """What the user reads on stderr, in one sentence."""


def print_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Iterable[int],
    last: Sequence[str] | None = None,
) -> None:
    """Print aligned columns, those in `right` to the right; `last` stands under a line."""
    every = [head, *rows, *([last] if last else [])]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    to_right = set(right)

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if i in to_right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    print(line(head), rule, *map(line, rows), sep="\n")
    if last:
        print(rule, line(last), sep="\n")


def print_json(values: dict[str, Any]) -> None:
    """One line of JSON on stdout, at once."""
    print(json_line(values), flush=True)


def json_line(values: dict[str, Any]) -> str:
    """One line of strict JSON: NaN and infinities are not part of it and become null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False)


def write_text(name: str | None, text: str) -> None:
    """Write the file that the user named, or to stdout without one."""
    if name is None:
        print(text, end="")
    else:
        write_file(name, text.encode())


def write_file(name: str, data: bytes) -> None:
    """Write a file that the user named."""
    try:
        Path(name).write_bytes(data)
    except OSError as error:
        raise CommandError(
            f"The file {name} cannot be written: {error.strerror or error}."
        ) from error


def shape_text(shape: Iterable[int]) -> str:
    """A shape as people write it, e.g. “96×54×54”."""
    return "×".join(f"{side}" for side in shape)


def bytes_text(count: int) -> str:
    """A size in the unit that suits it, e.g. “1.5 MiB”."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:,.0f} {units[0]}" if units[0] == "B" else f"{value:,.1f} {units[0]}"
