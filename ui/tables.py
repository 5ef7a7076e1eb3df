"""The per-layer table of a network: its columns, how Streamlit shows them, and the CSV.

Figures stay numbers and are formatted in the browser, so that a column sorts by value. The totals
are the last row of the table; the CSV leaves them out, so that summing a column counts nothing
twice. The table goes to the browser as Arrow straight away: by way of pandas it took six times
longer, on the path from a slider to the page.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import streamlit as st

from nin_core import LayerSummary, NetworkSummary
from nin_core.summary import Granularity
from ui import numbers

TOTAL = "Total"

KIND_WORDS: dict[str, str] = {
    "conv": "k×k conv",
    "conv1x1": "1×1 conv",
    "batch_norm": "batch norm",
    "relu": "ReLU",
    "sigmoid": "sigmoid",
    "max_pool": "max pool",
    "avg_pool": "avg pool",
    "dropout": "dropout",
    "global_max_pool": "global max",
    "global_avg_pool": "global avg",
    "flatten": "flatten",
    "linear": "dense",
    "block": "NiN block",
}

_DIGIT, _PADDING = 7, 18  # pixels: a digit of a cell, and what surrounds its text
_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def table_rows(
    summary: NetworkSummary, granularity: Granularity, *, with_relu: bool = False
) -> tuple[LayerSummary, ...]:
    """The rows to show: blocks, or single layers.

    Without `with_relu` a ReLU joins the layer before it, with its bytes, so that the rows still
    add up to the totals.
    """
    rows = summary.rows(granularity)
    if granularity == "block" or with_relu:
        return rows
    joined: list[LayerSummary] = []
    for row in rows:
        if row.kind != "relu":
            joined.append(row)
            continue
        before = joined[-1]
        joined[-1] = before._replace(
            activation_bytes=before.activation_bytes + row.activation_bytes,
            saved_bytes=before.saved_bytes + row.saved_bytes,
        )
    return tuple(joined)


def layer_table(
    summary: NetworkSummary, rows: Sequence[LayerSummary]
) -> tuple[pa.Table, dict[str, Any]]:
    """The table with its totals row, and how `st.dataframe` shows its columns.

    Shares are percentages; memory is in the one unit that suits the largest figure.
    """
    last = summary.layers[-1]
    kept = sum(row.saved_bytes for row in summary.layers)
    unit = _unit(max(summary.total_activation_bytes, kept))
    scale = _UNITS[unit]
    total = (
        TOTAL,
        "",
        "",
        "",
        "",
        numbers.shape(last.output_shape),
        summary.total_parameters,
        100.0 if summary.total_parameters else 0.0,
        summary.total_macs,
        100.0 if summary.total_macs else 0.0,
        summary.total_activation_bytes / scale,
        kept / scale,
        last.receptive_field,
        last.effective_stride,
    )
    shown = [*(_cells(row, scale) for row in rows), total]
    columns = [list(column) for column in zip(*shown, strict=True)]
    table = pa.table(columns, names=list(_COLUMNS))
    return table, _column_config(unit, {"parameters": total[6], "MACs": total[8]})


def _cells(row: LayerSummary, scale: int) -> tuple[Any, ...]:
    window = row.kernel_size > 0
    return (
        row.name,
        KIND_WORDS[row.kind],
        f"{row.kernel_size}×{row.kernel_size}" if window else "",
        str(row.stride) if window else "",
        str(row.padding) if window else "",
        numbers.shape(row.output_shape),
        row.parameters,
        100 * row.parameter_share,
        row.macs,
        100 * row.mac_share,
        row.activation_bytes / scale,
        row.saved_bytes / scale,
        row.receptive_field,
        row.effective_stride,
    )


def _unit(largest: int) -> str:
    return next((unit for unit in ("GiB", "MiB") if largest >= _UNITS[unit]), "KiB")


# Column -> (pixels, what it means). The order is the table's.
_COLUMNS: dict[str, tuple[int, str]] = {
    "layer": (118, "The layer's name in PyTorch and in a run's checkpoint."),
    "kind": (80, "A block's row has the window of its k×k convolution."),
    "kernel": (54, "Side of the window, in pixels of the layer's input."),
    "stride": (50, "Step of the window, in pixels of the layer's input."),
    "padding": (60, "Zeros added around the layer's input, in pixels."),
    "output": (80, "Channels × height × width of one image's output."),
    "parameters": (80, "Weights and biases that are learned."),
    "params %": (84, "Share of the network's parameters."),
    "MACs": (90, "Multiply-accumulates for one image, forward; biases are not counted."),
    "MACs %": (84, "Share of the network's MACs."),
    "activations": (
        74,
        "Size of the outputs for the whole batch, in float32; a ReLU's is counted too.",
    ),
    "kept": (
        70,
        "What autograd keeps for the backward pass, for the whole batch; the input itself is "
        "kept as well.",
    ),
    "receptive field": (
        70,
        "Receptive field: side of the image patch that one value depends on, in pixels. It is not "
        "cut at the image's border.",
    ),
    "effective stride": (74, "Effective stride: image pixels between two neighbouring values."),
}


def _column_config(unit: str, largest: Mapping[str, int]) -> dict[str, Any]:
    """Labels, widths, formats and help; columns of `largest` are widened for their digits."""
    number, bar = st.column_config.NumberColumn, st.column_config.ProgressColumn
    config: dict[str, Any] = {}
    for name, (width, words) in _COLUMNS.items():
        common = {"help": words, "width": width}
        match name:
            case "parameters" | "MACs":
                common["width"] = max(width, _PADDING + _DIGIT * len(f"{largest[name]:,}"))
                config[name] = number(name, format="%,d", **common)
            case "params %" | "MACs %":
                config[name] = bar(name, format="%.1f %%", min_value=0, max_value=100, **common)
            case "activations" | "kept":
                label = "activ." if name == "activations" else name
                config[name] = number(f"{label} {unit}", format="%,.2f", **common)
            case "receptive field" | "effective stride":
                label = "rec. field" if name == "receptive field" else "eff. stride"
                config[name] = number(label, format="%,d", **common)
            case "layer":
                config[name] = st.column_config.TextColumn(name, pinned=True, **common)
            case "kernel" | "stride" | "padding" | "output":
                config[name] = st.column_config.TextColumn(name, alignment="right", **common)
            case _:
                config[name] = st.column_config.TextColumn(name, **common)
    return config


def layer_csv(rows: Sequence[LayerSummary]) -> str:
    """The rows as CSV: exact figures under `LayerSummary`'s names, shapes as 96×54×54."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LayerSummary._fields)
    for row in rows:
        writer.writerow(
            numbers.shape(value) if isinstance(value, tuple) else value for value in row
        )
    return text.getvalue()
