"""The per-layer table: its columns, what a row holds, and its files.

A column is described once, here: its heading, its exact figure and the text that shows it. The
table on the page (`ui.components.layer_table`), the CSV, the Markdown and the LaTeX all read that
description, so a file has exactly the columns and rows that are seen.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from nin_core import LayerSummary, NetworkSummary
from nin_core.operations import Operations, lost_pixels, operations
from nin_core.summary import Granularity, volume
from ui import numbers, theme

KIND_WORDS: dict[str, str] = {
    "conv": "k×k conv",
    "conv1x1": "1×1 conv",
    "batch_norm": "batch norm",
    "relu": "ReLU",
    "max_pool": "max pool",
    "avg_pool": "avg pool",
    "dropout": "dropout",
    "global_max_pool": "global max",
    "global_avg_pool": "global avg",
    "flatten": "flatten",
    "linear": "dense",
    "sigmoid": "sigmoid",
    "block": "NiN block",
}


class Row(NamedTuple):
    """A row of the table: a layer, a layer with its ReLU, or a block.

    Attributes:
        layer: its figures, those of its members together.
        operations: of its members, besides MACs, for one image.
        lost_pixels: columns (or rows) of its input that no window reaches.
        members: the layers it stands for, in order.
    """

    layer: LayerSummary
    operations: Operations
    lost_pixels: int
    members: tuple[LayerSummary, ...]


def table_rows(
    summary: NetworkSummary, granularity: Granularity, *, with_relu: bool = False
) -> tuple[Row, ...]:
    """The rows to show: blocks, or single layers.

    Without `with_relu` a ReLU joins the layer before it, with its bytes and operations, so that the
    rows still add up to the totals.
    """
    groups: list[list[LayerSummary]] = []
    for layer in summary.layers:
        if granularity == "block":
            joins = bool(groups) and layer.block == groups[-1][-1].block != 0
        else:
            joins = layer.kind == "relu" and not with_relu and bool(groups)
        if joins:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    if granularity == "block":
        heads = summary.blocks
    else:
        heads = tuple(
            group[0]._replace(
                activation_bytes=sum(layer.activation_bytes for layer in group),
                saved_bytes=sum(layer.saved_bytes for layer in group),
            )
            for group in groups
        )
    return tuple(
        Row(head, operations(*group), lost_pixels(head), tuple(group))
        for head, group in zip(heads, groups, strict=True)
    )


def total_row(summary: NetworkSummary) -> Row:
    """The whole network's sums; what cannot be added up is not shown in it."""
    total = summary.layers[-1]._replace(
        name="Total",
        kind="",
        parameters=summary.total_parameters,
        parameter_share=1.0 if summary.total_parameters else 0.0,
        macs=summary.total_macs,
        mac_share=1.0 if summary.total_macs else 0.0,
        activation_bytes=summary.total_activation_bytes,
        saved_bytes=sum(layer.saved_bytes for layer in summary.layers),
    )
    return Row(total, operations(*summary.layers), 0, summary.layers)


def row_of(rows: Sequence[Row], layer: LayerSummary | None) -> Row | None:
    """The row that stands for `layer`, alone or among others."""
    if layer is None:
        return None
    return next((row for row in rows if layer in row.members), None)


# --- columns ----------------------------------------------------------------------------------

Value = int | float | str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        id: its name in files: the field of `LayerSummary` or `Operations` that it shows.
        title: its name where it stands alone: in the chooser, in Markdown and LaTeX.
        group, heading: its name in the table: the group stands once over neighbours that share it.
        kind: how it is written and aligned.
        value: the exact figure of a row; None where the row has none.
        help: what it is, in a sentence.
        added: whether the column can be added up; only then it has a total.
        chosen: whether it is shown until the user chooses.
    """

    id: str
    title: str
    group: str
    heading: str
    kind: Literal["text", "shape", "window", "count", "share", "bytes", "pixels"]
    value: Callable[[Row], Value | None]
    help: str
    added: bool = False
    chosen: bool = True

    def text(self, value: Value | None) -> str:
        """A figure as the page writes it."""
        if value is None:
            return ""
        match self.kind:
            case "shape":
                return numbers.shape(value)  # type: ignore[arg-type]
            case "window":
                return f"{value}×{value}"
            case "share":
                return numbers.share(float(value))  # type: ignore[arg-type]
            case "bytes":
                return numbers.size(value) if value else "0"  # type: ignore[arg-type]
            case "text":
                return str(value)
            case _:
                return f"{value:,}"

    def exact(self, value: Value | None) -> str:
        """A figure as a document writes it: nothing rounded but shares, to three decimals."""
        match self.kind:
            case "share" if value is not None:
                return f"{100 * float(value):.3f} %"  # type: ignore[arg-type]
            case "bytes" if value is not None:
                return f"{value:,}"
            case _:
                return self.text(value)


def _layer(field: str) -> Callable[[Row], Value | None]:
    return lambda row: getattr(row.layer, field)


def _window(field: str) -> Callable[[Row], Value | None]:
    return lambda row: getattr(row.layer, field) if row.layer.kernel_size else None


def _share(field: str, count: str) -> Callable[[Row], Value | None]:
    """A share; None for a row that has nothing to share, which then has no bar either."""
    return lambda row: getattr(row.layer, field) if getattr(row.layer, count) else None


def _operation(field: str) -> Callable[[Row], Value | None]:
    return lambda row: getattr(row.operations, field)


def _kind(row: Row) -> str:
    words = KIND_WORDS.get(row.layer.kind, "")
    joined = row.layer.kind != "block" and len(row.members) > 1
    return f"{words} + ReLU" if joined and words else words


COLUMNS: tuple[Column, ...] = (
    Column(
        *("name", "layer", "", "layer", "text", _layer("name")),
        "The layer's name in PyTorch and in a run's checkpoint",
        added=True,
    ),
    Column(
        *("kind", "kind", "", "kind", "text", _kind),
        "What the layer does",
        chosen=False,
    ),
    Column(
        *("input_shape", "input", "", "input", "shape", _layer("input_shape")),
        "Channels × height × width for one image",
    ),
    Column(
        *("output_shape", "output", "", "output", "shape", _layer("output_shape")),
        "Channels × height × width for one image",
    ),
    Column(
        *("kernel_size", "kernel", "window", "kernel", "window", _window("kernel_size")),
        "Height × width of the window; a block's row has that of its k×k convolution",
    ),
    Column(
        *("stride", "stride", "window", "stride", "count", _window("stride")),
        "Steps from one window to the next",
    ),
    Column(
        *("padding", "padding", "window", "pad", "count", _window("padding")),
        "Rows and columns of zeros put around the input",
    ),
    Column(
        *("parameters", "parameters", "parameters", "count", "count", _layer("parameters")),
        "Weights and biases that are learned",
        added=True,
    ),
    Column(
        *("parameter_share", "parameter share", "parameters", "share", "share"),
        _share("parameter_share", "parameters"),
        "Share of the network's parameters",
        added=True,
    ),
    Column(
        *("macs", "MACs", "MACs an image", "count", "count", _layer("macs")),
        "Multiply-accumulates of the forward pass; biases are not counted",
        added=True,
    ),
    Column(
        *("mac_share", "MAC share", "MACs an image", "share", "share"),
        _share("mac_share", "macs"),
        "Share of the network's multiply-accumulates",
        added=True,
    ),
    Column(
        *("other_operations", "other operations", "other operations", "all", "count"),
        _operation("total"),
        "What an image's forward pass does besides MACs: comparisons, additions, multiplications",
        added=True,
    ),
    Column(
        *("comparisons", "comparisons", "other operations", "compare", "count"),
        _operation("comparisons"),
        "Comparisons an image: max pooling and ReLU",
        added=True,
        chosen=False,
    ),
    Column(
        *("additions", "additions", "other operations", "add", "count"),
        _operation("additions"),
        "Additions an image: biases, average pooling, batch norm",
        added=True,
        chosen=False,
    ),
    Column(
        *("multiplications", "multiplications", "other operations", "multiply", "count"),
        _operation("multiplications"),
        "Multiplications and divisions an image: average pooling, batch norm",
        added=True,
        chosen=False,
    ),
    Column(
        *("activation_bytes", "activations", "memory", "activations", "bytes"),
        _layer("activation_bytes"),
        "Size of the outputs in float32, those of ReLU included, for the batch",
        added=True,
    ),
    Column(
        *("saved_bytes", "kept for backward", "memory", "kept", "bytes", _layer("saved_bytes")),
        "What autograd keeps for the backward pass, for the batch; the input comes on top",
        added=True,
    ),
    Column(
        *("receptive_field", "receptive field", "", "receptive field", "pixels"),
        _layer("receptive_field"),
        "Side of the image patch that one value depends on, in pixels; not cut at the border",
    ),
    Column(
        *("effective_stride", "effective stride", "", "effective stride", "pixels"),
        _layer("effective_stride"),
        "Image pixels between two neighbouring values",
    ),
    Column(
        *("lost_pixels", "pixels lost", "", "pixels lost", "pixels"),
        lambda row: row.lost_pixels if row.layer.kernel_size else None,
        "Columns, and as many rows, of the input that no window reaches",
    ),
)
BY_ID: dict[str, Column] = {column.id: column for column in COLUMNS}
CHOSEN: tuple[str, ...] = tuple(column.id for column in COLUMNS if column.chosen)


def columns(ids: Sequence[str]) -> tuple[Column, ...]:
    """The columns of these ids in the table's order; the layer's name always comes first."""
    return tuple(column for column in COLUMNS if column.id == "name" or column.id in ids)


def table_data(
    summary: NetworkSummary, rows: Sequence[Row], shown: Sequence[Column]
) -> dict[str, Any]:
    """What the browser draws and sorts: headings, and each cell's text and figure.

    A cell is ``[text, figure]``: rows are sorted by the figure, shapes by the values they hold,
    and by the text where the figure is None. A share's figure is also its bar's length.
    """
    return {
        "columns": [
            {
                "id": column.id,
                "title": column.title,
                "heading": column.heading,
                "group": _group(column, summary.batch_size),
                "help": column.help,
                "kind": column.kind,
            }
            for column in shown
        ],
        "rows": [
            {
                "id": row.layer.name,
                "color": theme.LAYER_COLORS.get(row.layer.kind, ""),
                "cells": [_cell(column, column.value(row)) for column in shown],
            }
            for row in rows
        ],
        "total": [
            _cell(column, column.value(total) if column.added else None)
            for total in [total_row(summary)]
            for column in shown
        ],
    }


def _group(column: Column, batch_size: int) -> str:
    return f"memory, {_images(batch_size)}" if column.kind == "bytes" else column.group


def _images(batch_size: int) -> str:
    return "1 image" if batch_size == 1 else f"batch of {batch_size:,}"


def _cell(column: Column, value: Value | None) -> list[Any]:
    if isinstance(value, tuple):
        return [column.text(value), volume(value)]
    return [column.text(value), None if isinstance(value, str) else value]


# --- files ------------------------------------------------------------------------------------


def to_csv(rows: Sequence[Row], shown: Sequence[Column]) -> str:
    """The rows as CSV: exact figures under the columns' ids, shapes as 96×54×54.

    Without the totals, so that summing a column counts nothing twice.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.id for column in shown)
    for row in rows:
        writer.writerow(_plain(column.value(row)) for column in shown)
    return text.getvalue()


def _plain(value: Value | None) -> Value | None:
    return numbers.shape(value) if isinstance(value, tuple) else value


def to_markdown(summary: NetworkSummary, rows: Sequence[Row], shown: Sequence[Column]) -> str:
    """The rows and their totals as a Markdown table: exact figures, numbers to the right."""
    lines = [
        [_escape_markdown(_document_title(column, summary.batch_size)) for column in shown],
        ["---" if column.kind == "text" else "---:" for column in shown],
        *(
            [_escape_markdown(text) for text in texts]
            for texts in _document_rows(summary, rows, shown)
        ),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def to_latex(summary: NetworkSummary, rows: Sequence[Row], shown: Sequence[Column]) -> str:
    """The rows and their totals as a LaTeX `tabular` (needs the package booktabs), exact."""
    alignment = "".join("l" if column.kind == "text" else "r" for column in shown)
    *body, total = (_latex_line(texts) for texts in _document_rows(summary, rows, shown))
    titles = _latex_line([_document_title(column, summary.batch_size) for column in shown])
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            f"\\begin{{tabular}}{{{alignment}}}",
            "\\toprule",
            titles,
            "\\midrule",
            *body,
            "\\midrule",
            total,
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def _document_rows(
    summary: NetworkSummary, rows: Sequence[Row], shown: Sequence[Column]
) -> list[list[str]]:
    """Exact texts of the rows and, last, the totals."""
    total = total_row(summary)
    return [
        *([column.exact(column.value(row)) for column in shown] for row in rows),
        [column.exact(column.value(total) if column.added else None) for column in shown],
    ]


def _document_title(column: Column, batch_size: int) -> str:
    match column.kind:
        case "bytes":
            return f"{column.title} [B], {_images(batch_size)}"
        case "pixels":
            return f"{column.title} [px]"
        case _:
            return column.title


def _escape_markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("_", "\\_").replace("<", "\\<")


_LATEX = {"_": "\\_", "%": "\\%", "×": "$\\times$", "&": "\\&", "#": "\\#", "<": "$<$"}


def _latex_line(texts: Sequence[str]) -> str:
    cells = ("".join(_LATEX.get(letter, letter) for letter in text) for text in texts)
    return f"{' & '.join(cells)} \\\\"
