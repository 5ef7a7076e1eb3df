"""The per-layer table of a network, as HTML for `st.html`, and its CSV.

Why not `st.dataframe`: at one slider step (two busy cores, medians of 20) the sidebar's totals had
changed after 365 ms, its canvas after 546, and what tests and screen readers can read of it after
907, since its grid holds that back for 200 ms. This table changes with the page. It also has a
totals row that stands out, headings in full words, and each figure in the unit that suits it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape

from nin_core import LayerSummary, NetworkSummary
from nin_core.summary import Granularity
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
    "block": "NiN block",
}


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


def layer_table(summary: NetworkSummary, rows: Sequence[LayerSummary]) -> str:
    """The table with a totals row that is the whole network's, in a box that scrolls sideways."""
    last = summary.layers[-1]
    total = last._replace(
        name="Total",
        kind="",
        kernel_size=0,
        parameters=summary.total_parameters,
        parameter_share=1.0 if summary.total_parameters else 0.0,
        macs=summary.total_macs,
        mac_share=1.0 if summary.total_macs else 0.0,
        activation_bytes=summary.total_activation_bytes,
        saved_bytes=sum(row.saved_bytes for row in summary.layers),
    )
    body = "".join(map(_row, rows))
    return (
        f'{_STYLE}<div class="nin-scroll"><table class="nin-layers" aria-label="Layers">'
        f"<thead>{_heading(summary.batch_size)}</thead><tbody>{body}</tbody>"
        f"<tfoot>{_row(total)}</tfoot></table></div>"
    )


def _row(row: LayerSummary) -> str:
    window = ("", "", "")
    if row.kernel_size:
        window = (f"{row.kernel_size}×{row.kernel_size}", str(row.stride), str(row.padding))
    color = theme.LAYER_COLORS.get(row.kind)
    mark = f'<i style="background:{color}"></i>' if color else ""
    cells = [
        f"<td>{mark}{KIND_WORDS.get(row.kind, '')}</td>",
        *(f"<td>{text}</td>" for text in window),
        f"<td>{numbers.shape(row.output_shape)}</td>",
        f"<td>{row.parameters:,}</td>",
        _share(row.parameter_share, row.parameters, color),
        f"<td>{row.macs:,}</td>",
        _share(row.mac_share, row.macs, color),
        f"<td>{numbers.size(row.activation_bytes)}</td>",
        f"<td>{numbers.size(row.saved_bytes) if row.saved_bytes else '0'}</td>",
        f"<td>{row.receptive_field:,}</td>" if row.kind else "<td></td>",
        f"<td>{row.effective_stride:,}</td>" if row.kind else "<td></td>",
    ]
    return f'<tr><th scope="row">{escape(row.name)}</th>{"".join(cells)}</tr>'


def _share(share: float, count: int, color: str | None) -> str:
    """A bar and the percentage; nothing for a layer that has none."""
    if not count:
        return "<td></td>"
    percent = 100 * share
    text = "<0.1 %" if percent < 0.05 else f"{percent:.1f} %"
    style = f"width:{percent:.2f}%" + (f";background:{color}" if color else "")
    return f'<td class="share"><span><b style="{style}"></b></span>{escape(text)}</td>'


def _heading(batch_size: int) -> str:
    images = "1 image" if batch_size == 1 else f"batch of {batch_size:,}"
    return (
        f'<tr><th rowspan="2" scope="col" title="{_HELP["layer"]}">layer</th>'
        f'<th rowspan="2" scope="col" title="{_HELP["kind"]}">kind</th>'
        '<th colspan="3" scope="colgroup">window</th>'
        f'<th rowspan="2" scope="col" title="{_HELP["output"]}">output</th>'
        f'<th colspan="2" scope="colgroup" title="{_HELP["parameters"]}">parameters</th>'
        f'<th colspan="2" scope="colgroup" title="{_HELP["macs"]}">MACs an image</th>'
        f'<th colspan="2" scope="colgroup">memory, {images}</th>'
        f'<th rowspan="2" scope="col" title="{_HELP["field"]}">receptive<br/>field</th>'
        f'<th rowspan="2" scope="col" title="{_HELP["stride"]}">effective<br/>stride</th></tr>'
        '<tr><th scope="col">kernel</th><th scope="col">stride</th><th scope="col">padding</th>'
        '<th scope="col">count</th><th scope="col">share</th>'
        '<th scope="col">count</th><th scope="col">share</th>'
        f'<th scope="col" title="{_HELP["activations"]}">activations</th>'
        f'<th scope="col" title="{_HELP["kept"]}">kept</th></tr>'
    )


_HELP = {
    "layer": "The layer's name in PyTorch and in a run's checkpoint",
    "kind": "A block's row has the window of its k×k convolution",
    "output": "Channels × height × width for one image",
    "parameters": "Weights and biases that are learned",
    "macs": "Multiply-accumulates of the forward pass; biases are not counted",
    "activations": "Size of the outputs in float32, those of ReLU included",
    "kept": "What autograd keeps for the backward pass; the input itself comes on top",
    "field": "Side of the image patch that one value depends on, in pixels; not cut at the border",
    "stride": "Image pixels between two neighbouring values",
}

_STYLE = """<style>
.nin-scroll { overflow-x: auto; }
.nin-layers { width: 100%; border-collapse: collapse; font-size: .82rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; white-space: nowrap; margin: 0; }
.nin-layers th, .nin-layers td { border: 0; padding: .27rem .3rem; text-align: right;
  font-weight: 400; }
.nin-layers thead th { color: color-mix(in srgb, currentColor 75%, transparent);
  vertical-align: bottom; padding-bottom: .2rem; }
.nin-layers thead th[colspan] { text-align: center; }
.nin-layers tbody tr > *, .nin-layers tfoot tr > * { border-top: 1px solid rgba(128,128,128,.22); }
.nin-layers tfoot tr > * { font-weight: 600; border-top: 2px solid rgba(128,128,128,.55); }
.nin-layers tbody tr:hover { background: rgba(128,128,128,.1); }
.nin-layers tr > :first-child { text-align: left; position: sticky; left: 0; z-index: 1;
  padding-left: 0; background: light-dark(LIGHT, DARK); }
.nin-layers thead tr + tr > :first-child { position: static; text-align: right; }
.nin-layers td:nth-child(2), .nin-layers thead tr:first-child > :nth-child(2) { text-align: left; }
.nin-layers i { display: inline-block; width: .6em; height: .6em; margin-right: .45em;
  border-radius: 2px; }
.nin-layers .share span { display: inline-block; width: 2.6em; height: .5em; margin-right: .4em;
  border-radius: 2px; background: rgba(128,128,128,.2); overflow: hidden; }
.nin-layers .share b { display: block; height: 100%; min-width: 1px;
  background: rgba(128,128,128,.8); }
</style>""".replace("LIGHT", theme.LIGHT_BACKGROUND).replace("DARK", theme.DARK_BACKGROUND)


def layer_csv(rows: Sequence[LayerSummary]) -> str:
    """The rows as CSV: exact figures under `LayerSummary`'s names, shapes as 96×54×54.

    Without the totals, so that summing a column counts nothing twice.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LayerSummary._fields)
    for row in rows:
        writer.writerow(
            numbers.shape(value) if isinstance(value, tuple) else value for value in row
        )
    return text.getvalue()
