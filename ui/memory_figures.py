"""Figures and tables of the view "Memory and time": plain dicts and HTML, no widgets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from nin_core import NetworkSummary
from nin_core.ledger import (
    Ledger,
    Term,
    Work,
    backward_work,
    forward_work,
)
from nin_core.machine import Machine
from nin_core.measure import MeasureResult
from nin_core.summary import MAX_BATCH_SIZE
from ui import numbers, theme

# A term has one colour wherever it is drawn.
COLORS = {
    "weights": theme.CONV,
    "gradients": theme.POINTWISE,
    "optimizer": theme.HEAD,
    "saved": theme.NORM,
    "transients": theme.POOL,
    "batch": theme.DROPOUT,
    "live": theme.POOL,
}
BATCHES = tuple(2**power for power in range(MAX_BATCH_SIZE.bit_length()))
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1))
_THEME_TEXT = "var(--st-text-color)"


def bars_figure(inference: Ledger, training: Ledger, batch_size: int) -> tuple[dict[str, Any], int]:
    """Two stacked bars, inference over training, each term a piece of them, and its height."""
    rows = {"Inference": inference, "Training": training}
    largest = max(ledger.total(batch_size) for ledger in rows.values())
    unit, divisor = _unit(largest)
    # The totals stand in the labels, where a narrow chart has room for them.
    labels = [
        f"<b>{name}</b><br>{numbers.size(ledger.total(batch_size))}"
        for name, ledger in rows.items()
    ]
    data = []
    for term in _distinct(*rows.values()):
        sizes = [_size(ledger, term, batch_size) for ledger in rows.values()]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": term.title,
                "y": list(rows),  # categories; `ticktext` has their words
                "x": [size / divisor if size else None for size in sizes],
                "customdata": [numbers.size(size) for size in sizes],
                "hovertemplate": "%{y}, " + term.title + ": %{customdata}<extra></extra>",
                "marker": {"color": COLORS[term.name]},
            }
        )
    layout = {
        "barmode": "stack",
        "bargap": 0.35,
        "margin": {"l": 8, "r": 16, "t": 8, "b": 40},
        "xaxis": {
            "title": {"text": unit},
            "range": [0, largest / divisor * 1.02],
        },
        "yaxis": {
            "autorange": "reversed",
            "type": "category",
            "tickvals": list(rows),
            "ticktext": labels,
            "ticklabelstandoff": 6,
        },
        "showlegend": False,  # the table below names the colours
    }
    return {"data": data, "layout": layout}, 168


def terms_table(inference: Ledger, training: Ledger, batch_size: int) -> str:
    """Every term with its bytes in inference and training and the reason for it, and the totals."""
    body = []
    for term in _distinct(inference, training):
        sizes = (_size(ledger, term, batch_size) for ledger in (inference, training))
        cells = "".join(f"<td>{numbers.size(size) if size else '–'}</td>" for size in sizes)
        mark = f'<i style="background:{COLORS[term.name]}"></i>'
        body.append(
            f'<tr><th scope="row">{mark}{escape(term.title)}</th>{cells}'
            f"<td>{escape(term.sentence)}</td></tr>"
        )
    totals = "".join(
        f"<td>{numbers.size(ledger.total(batch_size))}</td>" for ledger in (inference, training)
    )
    return _table(
        "Memory by term",
        ("term", "inference", "training", "what it is"),
        body,
        f'<tr><th scope="row">Total</th>{totals}<td></td></tr>',
        kind="nin-ledger-terms",
    )


def scaling_figure(
    training: Ledger, batch_size: int, available: int | None, *, log: bool
) -> tuple[dict[str, Any], int]:
    """The terms of training, stacked, against the batch size; with the memory that is free.

    On linear axes it ends where the free memory does, on logarithmic ones at the largest batch.
    """
    batches: Sequence[int] = BATCHES
    if not log:
        end = max(4 * batch_size, 64)
        if available is not None:
            end = max(end, training.largest_batch(available) * 9 // 8)
        end = min(end, MAX_BATCH_SIZE)
        batches = sorted({1, *(max(1, end * step // 16) for step in range(1, 17))})
    data: list[dict[str, Any]] = []
    for term in training.terms:
        sizes = [term.bytes(batch) for batch in batches]
        if any(sizes):
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": term.title,
                    "stackgroup": "terms",
                    "x": list(batches),
                    "y": sizes,
                    "text": list(map(numbers.size, sizes)),
                    "hovertemplate": term.title + ": %{text}<extra></extra>",
                    "line": {"width": 0.5, "color": COLORS[term.name]},
                }
            )
    totals = [training.total(batch) for batch in batches]
    # On logarithmic axes from half the lowest band, so that each has some height.
    low = training.terms[0].bytes(1) / 2
    high = max(totals[-1], available or 0) * (2 if log else 1.08)
    ticks = _byte_ticks(low, high, log=log)
    span = [batches[0], batches[-1]]
    if available is not None:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "free memory",
                "x": span,
                "y": [available, available],
                "hovertemplate": f"free memory: {numbers.size(available)}<extra></extra>",
                "line": {"width": 2, "dash": "dash", "color": theme.TRAIN_LOSS},
            }
        )
    here = training.total(batch_size)
    data.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"batch of {batch_size:,}",
            "x": [batch_size, batch_size],
            "y": [low if log else 0, here],
            "hovertemplate": f"batch of {batch_size:,}: {numbers.size(here)}<extra></extra>",
            "line": {"width": 1.5, "dash": "dot", "color": _THEME_TEXT},
            "marker": {"size": [0, 9], "color": _THEME_TEXT},
        }
    )
    layout: dict[str, Any] = {
        "margin": {"l": 8, "r": 16, "t": 8, "b": 40},
        "hovermode": "x",
        "xaxis": {"title": {"text": "images in a batch"}},
        "yaxis": {"tickvals": ticks, "ticktext": list(map(numbers.size, ticks))},
        "uirevision": f"{log}",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    if log:
        shown = BATCHES[::2]
        layout["xaxis"] |= {
            "type": "log",
            "tickvals": list(shown),
            "ticktext": [numbers.short(batch) if batch > 9999 else str(batch) for batch in shown],
            "range": [math.log10(value) for value in span],
        }
        layout["yaxis"] |= {"type": "log", "range": [math.log10(low), math.log10(high)]}
    else:
        layout["xaxis"]["range"] = [0, span[1]]
        layout["yaxis"]["range"] = [0, high]
    return {"data": data, "layout": layout}, 400


class Comparison(NamedTuple):
    """One line of prediction against measurement, in words."""

    what: str
    predicted: str
    measured: str
    difference: str
    why: str


def comparison_table(rows: Iterable[Comparison]) -> str:
    """Prediction and measurement side by side."""
    body = [
        f'<tr><th scope="row">{escape(row.what)}</th><td>{escape(row.predicted)}</td>'
        f"<td>{escape(row.measured)}</td><td>{escape(row.difference)}</td>"
        f"<td>{escape(row.why)}</td></tr>"
        for row in rows
    ]
    headings = ("", "predicted", "measured", "difference", "why")
    return _table("Predicted and measured", headings, body, kind="nin-ledger-compared")


class LayerSpeed(NamedTuple):
    """One layer's work and time in one direction."""

    name: str
    kind: str
    direction: str
    work: Work
    seconds: float

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.work.flops / self.work.bytes

    @property
    def flops_per_second(self) -> float:
        """Operations a second."""
        return self.work.flops / self.seconds

    def share(self, machine: Machine) -> float:
        """Of what the roofline allows (0 to 1)."""
        return machine.seconds(*self.work) / self.seconds


def layer_speeds(network: NetworkSummary, result: MeasureResult) -> list[LayerSpeed]:
    """Forward and backward of every layer that does something."""
    speeds = []
    batch = network.batch_size
    for index, (row, times) in enumerate(zip(network.layers, result.layers, strict=True)):
        for direction, work, seconds in (
            ("forward", forward_work(row, batch), times.forward),
            ("backward", backward_work(row, batch, first=index == 0), times.backward),
        ):
            if work.bytes and seconds > 0:
                speeds.append(LayerSpeed(row.name, row.kind, direction, work, seconds))
    return speeds


def roofline_figure(speeds: Sequence[LayerSpeed], machine: Machine) -> tuple[dict[str, Any], int]:
    """GFLOP/s of every layer with weights against its operations a byte, under the roof."""
    points = [speed for speed in speeds if speed.work.flops]
    intensities = [point.intensity for point in points]
    low = min([*intensities, machine.ridge]) / 2
    high = max([*intensities, machine.ridge]) * 2
    corners = sorted((low, machine.ridge, high))
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "this machine's roof",
            "x": corners,
            "y": [machine.attainable(x) / 1e9 for x in corners],
            "hoverinfo": "skip",
            "line": {"width": 2, "color": theme.TRAIN_LOSS},
        }
    ]
    for kind, words in (("conv", "k×k"), ("conv1x1", "1×1"), ("linear", "dense")):
        for direction, symbol in (("forward", "circle"), ("backward", "diamond-open")):
            chosen = [p for p in points if p.kind == kind and p.direction == direction]
            if not chosen:
                continue
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"{words} {direction}",
                    "x": [p.intensity for p in chosen],
                    "y": [p.flops_per_second / 1e9 for p in chosen],
                    "text": [
                        f"{p.name} {direction}: {_rate(p.flops_per_second)}, "
                        f"{100 * p.share(machine):.0f} % of the roof"
                        for p in chosen
                    ],
                    "hovertemplate": "%{text}<extra></extra>",
                    "marker": {
                        "symbol": symbol,
                        "size": 10,
                        "color": theme.LAYER_COLORS[kind],
                        "line": {"width": 1.5, "color": theme.LAYER_COLORS[kind]},
                    },
                }
            )
    lowest = min([*(p.flops_per_second for p in points), machine.attainable(low)]) / 1e9
    layout = {
        "margin": {"l": 8, "r": 16, "t": 8, "b": 40},
        "hovermode": "closest",
        "xaxis": {
            "type": "log",
            "title": {"text": "operations a byte moved"},
            "dtick": "D2",
            "range": [math.log10(low), math.log10(high)],
        },
        "yaxis": {
            "type": "log",
            "title": {"text": "GFLOP/s"},
            "dtick": "D2",
            "range": [math.log10(lowest / 2), math.log10(machine.flops_per_second / 1e9 * 2)],
        },
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    return {"data": data, "layout": layout}, 400


def speeds_table(network: NetworkSummary, result: MeasureResult) -> str:
    """Every layer's time and speed forward and backward."""
    found = {(s.name, s.direction): s for s in layer_speeds(network, result)}
    machine = result.machine
    body = []
    for row, times in zip(network.layers, result.layers, strict=True):
        cells = []
        for direction, seconds in (("forward", times.forward), ("backward", times.backward)):
            speed = found.get((row.name, direction))
            cells += [milliseconds(seconds) if seconds else "–"]
            cells += [_speed(speed), f"{100 * speed.share(machine):.0f} %"] if speed else ["", ""]
        color = theme.LAYER_COLORS.get(row.kind, theme.POOL)
        body.append(
            f'<tr><th scope="row"><i style="background:{color}"></i>{escape(row.name)}</th>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    total = (
        f'<tr><th scope="row">All layers</th>'
        f"<td>{milliseconds(sum(t.forward for t in result.layers))}</td><td></td><td></td>"
        f"<td>{milliseconds(sum(t.backward for t in result.layers))}</td><td></td><td></td></tr>"
    )
    return _table(
        "Time of each layer",
        ("layer", "forward", "speed", "of roof", "backward", "speed", "of roof"),
        body,
        total,
        kind="nin-ledger-layers",
    )


def milliseconds(seconds: float) -> str:
    """A short time in three digits: 0.05 ms, 12.3 ms, 1.2 s."""
    if seconds >= 1:
        return numbers.duration(seconds)
    value = seconds * 1000
    digits = 0 if value >= 99.5 else 1 if value >= 9.95 else 2
    return f"{value:.{digits}f} ms"


def _speed(speed: LayerSpeed) -> str:
    """GFLOP/s of a layer that multiplies, GB/s of one that only moves values."""
    if speed.work.flops:
        return _rate(speed.flops_per_second)
    return f"{speed.work.bytes / speed.seconds / 1e9:.1f} GB/s"


def _rate(flops_per_second: float) -> str:
    return f"{flops_per_second / 1e9:.3g} GFLOP/s"


def _distinct(*ledgers: Ledger) -> list[Term]:
    """The terms of all, each name once, in the order in which they first appear."""
    return list({term.name: term for ledger in ledgers for term in ledger.terms}.values())


def _size(ledger: Ledger, term: Term, batch_size: int) -> int:
    return sum(own.bytes(batch_size) for own in ledger.terms if own.name == term.name)


def _unit(largest: float) -> tuple[str, int]:
    return next((unit for unit in _UNITS if largest >= unit[1]), _UNITS[-1])


def _byte_ticks(low: float, high: float, *, log: bool) -> list[int]:
    """Round sizes between two: every factor of 8 or 32, or about five even steps."""
    if log:
        factor = 3 if high / low < 8**6 else 5
        powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
        return [2**power for power in powers if (power - 10) % factor == 0]
    step = 2 ** round(math.log2(high / 5))
    return [step * number for number in range(int(high // step) + 1)]


def _table(
    label: str,
    headings: Sequence[str],
    body: Sequence[str],
    foot: str = "",
    *,
    kind: str,
) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in headings)
    return (
        f'{_STYLE}<div class="nin-ledger-box">'
        f'<table class="nin-ledger {kind}" aria-label="{escape(label)}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
        f"<tfoot>{foot}</tfoot></table></div>"
    )


_STYLE = """<style>
.nin-ledger-box { overflow-x: auto; }
.nin-ledger { width: 100%; border-collapse: collapse; font-size: .85rem; line-height: 1.35;
  font-variant-numeric: tabular-nums; margin: 0; }
.nin-ledger th, .nin-ledger td { border: 0; padding: .3rem .6rem; text-align: right;
  font-weight: 400; vertical-align: top; white-space: nowrap; }
.nin-ledger thead th { color: color-mix(in srgb, currentColor 75%, transparent); }
.nin-ledger tbody tr > *, .nin-ledger tfoot tr > * {
  border-top: 1px solid rgba(128,128,128,.22); }
.nin-ledger tfoot tr > * { font-weight: 600; border-top: 2px solid rgba(128,128,128,.55); }
.nin-ledger tr > :first-child { text-align: left; padding-left: 0; }
.nin-ledger:not(.nin-ledger-layers) tr > :last-child { text-align: left; white-space: normal;
  width: 60%; }
.nin-ledger i { display: inline-block; width: .7em; height: .7em; margin-right: .5em;
  border-radius: 2px; }
@media (max-width: 640px) {
  /* The explanation goes below its figures. */
  .nin-ledger-terms tr, .nin-ledger-compared tr { display: grid;
    border-top: 1px solid rgba(128,128,128,.22); }
  .nin-ledger-terms tr { grid-template-columns: 1fr 5.2rem 5.2rem; }
  .nin-ledger-compared tr { grid-template-columns: 1fr 1fr 1.3fr; }
  .nin-ledger-terms tr > *, .nin-ledger-compared tr > * { border: 0 !important;
    padding: .15rem 0; white-space: normal; }
  .nin-ledger-compared tr > :first-child { grid-column: 1 / -1; font-weight: 600; }
  .nin-ledger-terms tr > :last-child, .nin-ledger-compared tr > :last-child {
    grid-column: 1 / -1; width: auto !important; opacity: .75; font-size: .8rem; }
  .nin-ledger-terms thead tr > :last-child, .nin-ledger-terms tfoot tr > :last-child,
  .nin-ledger-compared thead tr > :last-child,
  .nin-ledger-compared thead tr > :first-child { display: none; }
}
</style>"""
