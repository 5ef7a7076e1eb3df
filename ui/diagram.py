"""NiNConfig -> a drawing of the network, to scale, as one SVG.

What stands for what:

* A volume is a layer's output: height and depth into the page are its map's two sides, its
  length from left to right its channels. All sides share one linear scale, the image's too;
  channels are drawn by their square root, so that 6 and 384 both fit.
* What happens between two volumes is a symbol in front of the second: a window that closes on a
  point (k×k convolution), a small dense layer (1×1 convolution), a funnel (pooling). The window
  itself is also marked on the face it slides over, at the face's own scale.
* A 1×1 convolution is the same dense layer at every pixel. That is drawn as it is: one pixel's
  channels are marked as a rod through the volumes, and the little dense layers join its pieces.
* ReLU and batch norm change no shape and have no volume; they are named on hover.

* Where a layer's windows leave out pixels of its input, and where the receptive field first exceeds
  the image, the layer says so under its shape.

Every layer's group carries `data-id` (the layer's name) and a `<title>`, for clicks and hover.
Nothing here knows a screen: the drawing is packed into rows for the width it is asked for, at one
unit a CSS pixel, and the browser chooses among the `drawings` of a few widths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from itertools import pairwise
from typing import NamedTuple

from nin_core import LayerSummary, NetworkSummary, NiNConfig, summarize
from nin_core.operations import lost_pixels, pixels_seen
from ui import numbers
from ui.diagram_shapes import SLANT, STYLE, SYMBOLS, role_of, volume

# Pixels of a page's text column: a telephone, and windows of 1024, 1280 and 1440 with the sidebar.
WIDTHS = (358, 550, 800, 960)
FONT = 12.0
SMALLEST = 1.5  # pixels: a 1×1 map must not vanish


class Size(NamedTuple):
    """How large things are drawn, in pixels."""

    image: float  # the image's side is at most this,
    map: float  # and no feature map's side more than this
    channel: float  # length of one channel; c channels have √c times this
    gap: float  # room for a symbol in front of a volume


_TIGHT = Size(image=120.0, map=80.0, channel=2.2, gap=32.0)
_ROOMY = Size(image=160.0, map=96.0, channel=3.0, gap=42.0)


def size_for(width: int) -> Size:
    """The sizes of a drawing `width` pixels wide."""
    return _ROOMY if width >= 900 else _TIGHT


_LINE = 15.0
_PAD = 10.0  # of a title in its card
_INSET = 6.0  # of the cells in their card
_CARD_TOP = 24.0
_BETWEEN = 14.0  # between parts in a row
_ROWS = 18.0  # between rows
# Widths of letters, in font sizes; those of the others are in `text_width`.
_WIDTHS = dict.fromkeys(" .,:;ijl()", 0.3) | dict.fromkeys("mwMW", 0.86)
_MAX_DOTS = 12
_UNDRAWN = ("relu", "batch_norm", "flatten")  # they change no volume


@dataclass
class Part:
    """A piece of the drawing around a horizontal axis at y = 0, from x = 0 to `width`.

    `above` and `below` are how far it reaches from the axis. `cards` are the (x, width, title) of
    blocks' backgrounds, drawn once the row is complete so that all in it are equally tall.
    """

    width: float = 0.0
    above: float = 0.0
    below: float = 0.0
    body: list[str] = field(default_factory=list)
    cards: list[tuple[float, float, str]] = field(default_factory=list)
    inside: tuple[float, float] = (0.0, 0.0)  # what the cards must hold, above and below

    def append(self, other: Part, gap: float = 0.0) -> None:
        """Put `other` to the right."""
        x = self.width + (gap if self.width else 0.0)
        self.body.append(_at(x, 0, other.body))
        self.cards += [(x + left, width, title) for left, width, title in other.cards]
        self.width = x + other.width
        self.above, self.below = max(self.above, other.above), max(self.below, other.below)
        self.inside = (max(self.inside[0], other.inside[0]), max(self.inside[1], other.inside[1]))

    def markup(self) -> str:
        """The cards, and everything else over them."""
        above, below = self.inside
        backgrounds = [
            f'<rect class="card" x="{x:.1f}" y="{-above:.1f}" width="{width:.1f}" '
            f'height="{above + below:.1f}" rx="6"/>'
            f'<text class="title" x="{x + _PAD:.1f}" y="{17 - above:.1f}">{escape(title)}</text>'
            for x, width, title in self.cards
        ]
        return "".join(backgrounds + self.body)


@lru_cache(maxsize=2048)
def text_width(text: str) -> float:
    """Room for a text, in pixels: what the layout reserves, a little over what sans serifs need."""
    return FONT * sum(_WIDTHS.get(letter, 0.55 if letter.islower() else 0.58) for letter in text)


class Scale(NamedTuple):
    """From pixels and channels of the network to pixels of the drawing."""

    pixel: float
    channel: float
    gap: float

    def side(self, size: int) -> float:
        """Drawn side of a map of `size` pixels."""
        return max(size * self.pixel, SMALLEST)

    def depth(self, channels: int) -> float:
        """Drawn length of `channels` channels."""
        return self.channel * math.sqrt(channels)


def scale_for(network: NetworkSummary, size: Size) -> Scale:
    """The scale at which `network` is drawn in this size."""
    largest = max(row.output_shape[1] for row in network.layers if row.block)
    return Scale(
        min(size.image / network.input_shape[1], size.map / largest), size.channel, size.gap
    )


def drawings(config: NiNConfig) -> dict[int, str]:
    """A drawing for each of `WIDTHS`, by the width it is for."""
    return {width: network_svg(config, width) for width in WIDTHS}


def is_drawn(layer: LayerSummary) -> bool:
    """Whether the drawing has a volume for this layer."""
    return layer.kind not in _UNDRAWN


def drawn_as(network: NetworkSummary, layer: LayerSummary) -> str:
    """The name of the drawn layer whose volume is also `layer`'s output.

    ReLU, batch norm and flattening leave the volume in front of them as it is.
    """
    name = layer.name
    for row in network.layers:
        if is_drawn(row):
            name = row.name
        if row.name == layer.name:
            break
    return name


@lru_cache(maxsize=16)
def network_svg(config: NiNConfig, width: int = 1000) -> str:
    """Draw `config` in rows of at most `width` pixels (240 or more holds any layer)."""
    legend = _pack(list(_legend(config)), width, gap=18.0)
    rows = _pack_evenly(list(_parts(config, width)), width, gap=_BETWEEN)
    body: list[str] = []
    y = 0.0
    for row in [*legend, *rows]:
        gap = 6.0 if row in legend[1:] else _ROWS
        y += row.above + (gap if y else 0.0)
        body.append(_at(0, y, [row.markup()]))
        y += row.below
    total = math.ceil(max(row.width for row in [*legend, *rows]))
    height = math.ceil(y)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nin-diagram" role="img" '
        f'width="{total}" height="{height}" viewBox="0 0 {total} {height}" '
        f'aria-label="{escape(describe(config))}">{STYLE}{"".join(body)}</svg>'
    )


def describe(config: NiNConfig) -> str:
    """The drawing in words, for those who do not see it."""
    blocks = [
        f"block {number}: {block.kernel_size}×{block.kernel_size} convolution and "
        f"{len(block.channels) - 1} 1×1 to {block.channels[-1]} channels"
        for number, block in enumerate(config.blocks, start=1)
    ]
    head = "average" if config.global_pool == "avg" else "max"
    return (
        f"Network in Network on {config.in_channels}×{config.image_size}×{config.image_size}: "
        f"{'; '.join(blocks)}; global {head} pooling to {config.num_classes} logits."
    )


# --- what is drawn, in order ------------------------------------------------------------------


class _Piece(NamedTuple):
    """Cells that belong together: those of a block, or a single one of another role."""

    role: str
    cells: tuple[Part, ...]
    title: str = ""


@lru_cache(maxsize=32)
def _pieces(config: NiNConfig, size: Size) -> tuple[_Piece, ...]:
    """Input, blocks, poolings, dropout and head in order; the same for all widths of one size."""
    network, warnings = _facts(config)
    scale = scale_for(network, size)
    rows = network.layers
    drawn = [row for row in rows if is_drawn(row)]
    following = dict(zip((row.name for row in drawn), drawn[1:], strict=False))
    pieces = [_Piece("input", (_input(config, scale, drawn[0]),))]
    last = len(config.blocks)
    for number in range(1, last + 1):
        if number == last and config.dropout > 0:
            pieces.append(_Piece("dropout", (_dropout(config.dropout),)))
        members = [row for row in drawn if row.block == number]
        cells = (
            _cell(row, _note(row, rows), warnings.get(row.name, ()), following[row.name], scale)
            for row in members
        )
        title = f"Block {number}" + (" → class maps" if number == last else "")
        pieces.append(_Piece("block", tuple(cells), title))
        pool = next((row for row in drawn if row.name == f"pool{number}"), None)
        if pool is not None:
            pieces.append(
                _Piece(
                    "pool",
                    (_cell(pool, "", warnings.get(pool.name, ()), following[pool.name], scale),),
                )
            )
    pieces.append(_Piece("head", (_head(drawn[-1], config.num_classes, scale),)))
    return tuple(pieces)


def _parts(config: NiNConfig, width: int) -> Iterator[Part]:
    """The pieces that a row break may separate; a pooling stays with its block if it can."""
    block: Part | None = None  # drawn, and waiting for its pooling
    for piece in _pieces(config, size_for(width)):
        is_block = piece.role == "block"
        part = _card(piece.cells, piece.title, width) if is_block else piece.cells[0]
        if block is not None:
            joined = piece.role == "pool" and block.width + 4.0 + part.width <= width
            if joined:
                block.append(part, gap=4.0)
            yield block
            block = None
            if joined:
                continue
        if is_block:
            block = part
        else:
            yield part


@lru_cache(maxsize=4)
def _facts(config: NiNConfig) -> tuple[NetworkSummary, dict[str, list[str]]]:
    """The summary and the warnings, which the drawings of all sizes share."""
    network = summarize(config)
    return network, _warnings(network)


def _warnings(network: NetworkSummary) -> dict[str, list[str]]:
    """What is lost and what exceeds the image, by the name of the layer where it happens."""
    found: dict[str, list[str]] = {}
    size = network.input_shape[1]
    exceeds = next((row for row in network.layers if row.receptive_field > size), None)
    for row in network.layers:
        if row is exceeds and row.kernel_size:
            found.setdefault(row.name, []).append(f"field {row.receptive_field} > {size} px")
        if lost_pixels(row):
            found.setdefault(row.name, []).append(
                f"sees {pixels_seen(row)} of {row.input_shape[1]} px"
            )
    return found


def _note(row: LayerSummary, rows: Sequence[LayerSummary]) -> str:
    """What follows a convolution without changing its shape."""
    after = rows[rows.index(row) + 1 :]
    names = []
    for other in after:
        if other.kind == "batch_norm":
            names.append("batch norm")
        elif other.kind == "relu":
            names.append("ReLU")
        else:
            break
    return f"\nFollowed by {' and '.join(names)}" if names else ""


def _input(config: NiNConfig, scale: Scale, following: LayerSummary) -> Part:
    channels, size = config.in_channels, config.image_size
    part = Part()
    side, depth = scale.side(size), scale.depth(channels)
    shape = f"{channels}×{size}×{size}"
    title = f"Input: {shape}"
    width = max(depth + side * SLANT[0], text_width(shape), text_width("Input"))
    x = (width - depth - side * SLANT[0]) / 2
    part.body += [
        *volume(x, side, depth, size, following),
        _text(width / 2, -side * (0.5 + SLANT[1]) - 8, "Input", "strong"),
        _text(width / 2, side / 2 + _LINE, shape),
    ]
    part.width = width
    part.above, part.below = side * (0.5 + SLANT[1]) + 8 + FONT, side / 2 + _LINE + 4
    return _wrapped(part, "", "input", title)


def _cell(
    row: LayerSummary, note: str, warnings: Sequence[str], following: LayerSummary, scale: Scale
) -> Part:
    """A symbol, the volume it makes, the operation above, shape and warnings below."""
    channels, size, _ = row.output_shape
    side, depth = scale.side(size), scale.depth(channels)
    role = role_of(row.kind)
    operation, detail = _operation(row)
    shape = numbers.shape(row.output_shape)
    words = map(text_width, (operation, detail, shape, *warnings))
    wide = max(scale.gap + depth + side * SLANT[0], *words)
    part = Part(width=wide + 8)
    x = (part.width - scale.gap - depth - side * SLANT[0]) / 2
    middle = part.width / 2
    top = max(side * (0.5 + SLANT[1]), 13.0) + 8
    bottom = max(side / 2, 13.0) + _LINE
    part.body += [
        SYMBOLS[role](x + scale.gap / 2 - 2),
        *volume(x + scale.gap, side, depth, size, following, rod=role == "conv1x1"),
        _text(middle, -top - _LINE, operation, "strong"),
        _text(middle, -top, detail, "muted") if detail else "",
        *(
            _text(middle, bottom + index * _LINE, line, "warning" if index else "")
            for index, line in enumerate((shape, *warnings))
        ),
    ]
    part.above = top + _LINE + FONT
    part.below = bottom + 4 + len(warnings) * _LINE
    return _wrapped(part, row.name, role, _hover(row) + note)


def _dropout(rate: float) -> Part:
    label, detail = "dropout", f"{rate:g}"
    part = Part(width=max(text_width(label), 26.0))
    middle = part.width / 2
    title = f"dropout: while training, each value is set to 0\nwith probability {rate:g}"
    cells = []
    for index in range(16):
        x, y = middle - 12 + index % 4 * 8, -12 + index // 4 * 8
        # A fixed pattern in which about `rate` of the cells are empty, spread evenly.
        empty = (index * 7 + 3) % 16 < rate * 16
        cells.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" class="{"o" if empty else "f"}"/>')
    part.body += [
        *cells,
        _text(middle, -21 - _LINE, label, "strong"),
        _text(middle, -21, detail, "muted"),
    ]
    part.above, part.below = 21 + _LINE + FONT, 21
    return _wrapped(part, "dropout", "dropout", title)


def _head(row: LayerSummary, classes: int, scale: Scale) -> Part:
    mode = "average" if row.kind == "global_avg_pool" else "max"
    label, detail = "global", f"{mode} pooling"
    below = f"{classes} logits"
    shown = min(classes, _MAX_DOTS)
    step = 9.0
    height = (shown - 1) * step
    part = Part(width=max(scale.gap + 16, *map(text_width, (detail, below))) + 8)
    x = (part.width - scale.gap - 16) / 2
    middle = part.width / 2
    column = x + scale.gap + 8
    dots = [
        f'<circle cx="{column:.1f}" cy="{index * step - height / 2:.1f}" r="3.4" class="f"/>'
        for index in range(shown)
    ]
    top = max(height / 2 + 4, 13.0) + 8
    bottom = max(height / 2 + 4, 13.0) + _LINE
    part.body += [
        SYMBOLS["head"](x + scale.gap / 2 - 2),
        *dots,
        _text(middle, -top - _LINE, label, "strong"),
        _text(middle, -top, detail, "strong"),
        _text(middle, bottom, below),
        _text(middle, bottom + _LINE, f"{shown} drawn", "muted") if shown < classes else "",
    ]
    part.above, part.below = top + _LINE + FONT, bottom + 4 + (_LINE if shown < classes else 0)
    return _wrapped(part, row.name, "head", f"{_hover(row)}\nOne number a class: {classes} logits")


def _card(cells: Sequence[Part], title: str, width: float) -> Part:
    """A block: its cells in as many lines as the width asks for, on a background with a title."""
    lines = _pack(cells, width - 2 * _INSET, gap=0.0)
    inner = max(line.width for line in lines)
    card = Part(width=max(inner + 2 * _INSET, text_width(title) + 2 * _PAD))
    y = 0.0
    for number, line in enumerate(lines):
        y += line.above if number else 0.0
        card.body.append(_at((card.width - inner) / 2, y, line.body))
        y += line.below
    card.above, card.below = lines[0].above + _CARD_TOP, y + _INSET
    card.cards = [(0.0, card.width, title)]
    card.inside = (card.above, card.below)
    return card


def _legend(config: NiNConfig) -> Iterator[Part]:
    """The symbols in words."""
    kinds = [
        ("conv", "k×k convolution"),
        ("conv1x1", "1×1 convolution: one dense layer, at every pixel"),
        ("pool", "pooling"),
        ("dropout", "dropout"),
        ("head", "global pooling"),
    ]
    has = {
        "conv": True,
        "conv1x1": any(len(block.channels) > 1 for block in config.blocks),
        "pool": any(block.pool for block in config.blocks),
        "dropout": False,  # says its name in the drawing
        "head": True,
    }
    for role, words in kinds:
        if not has[role]:
            continue
        part = Part(width=32 + text_width(words), above=13, below=13)
        part.body += [
            f'<g class="{role}">{SYMBOLS[role](13.0)}</g>',
            f'<text class="legend" x="32" y="4">{escape(words)}</text>',
        ]
        yield part


def _pack(parts: Sequence[Part], width: float, gap: float) -> list[Part]:
    """Fill rows from the left."""
    rows: list[Part] = []
    for part in parts:
        if not rows or rows[-1].width + gap + part.width > width:
            rows.append(Part())
        rows[-1].append(part, gap)
    return rows


def _pack_evenly(parts: Sequence[Part], width: float, gap: float) -> list[Part]:
    """As few rows as the width allows, and among those the ones whose widest is the narrowest."""
    wide = [part.width for part in parts]
    breaks, widest = _breaks(wide, width, gap)
    while True:
        # The next narrower filling is the one that the widest row does not fit into.
        narrower, reached = _breaks(wide, widest - 0.1, gap)
        if len(narrower) > len(breaks) or reached >= widest:
            break
        breaks, widest = narrower, reached
    return [
        _pack(parts[start:end], math.inf, gap)[0] for start, end in pairwise([*breaks, len(parts)])
    ]


def _breaks(widths: Sequence[float], limit: float, gap: float) -> tuple[list[int], float]:
    """(where each row begins when rows are filled from the left, the widest row's width)."""
    starts, filled, widest = [0], 0.0, 0.0
    for index, width in enumerate(widths):
        if index > starts[-1] and filled + gap + width > limit:
            starts.append(index)
        filled = filled + gap + width if index > starts[-1] else width
        widest = max(widest, filled)
    return starts, widest


# --- words ------------------------------------------------------------------------------------


def _operation(row: LayerSummary) -> tuple[str, str]:
    """What is done, in two short lines."""
    window = f"{row.kernel_size}×{row.kernel_size}"
    if row.kind in ("max_pool", "avg_pool"):
        window = f"{row.kind[:3]} {window}"
    return window, f"stride {row.stride}" if row.stride > 1 else ""


def _hover(row: LayerSummary) -> str:
    words = {
        "conv": f"{row.kernel_size}×{row.kernel_size} convolution",
        "conv1x1": "1×1 convolution",
        "max_pool": f"{row.kernel_size}×{row.kernel_size} max pooling",
        "avg_pool": f"{row.kernel_size}×{row.kernel_size} average pooling",
        "global_max_pool": "global max pooling",
        "global_avg_pool": "global average pooling",
    }[row.kind]
    if row.kernel_size > 1:
        words += f", stride {row.stride}, padding {row.padding}"
    lines = [
        f"{row.name}: {words}",
        f"{numbers.shape(row.input_shape)} → {numbers.shape(row.output_shape)}",
    ]
    if row.parameters:
        lines.append(f"{row.parameters:,} parameters, {numbers.short(row.macs)} MACs an image")
    lines.append(f"Receptive field: {row.receptive_field}×{row.receptive_field} image pixels")
    return "\n".join(lines)


def _at(x: float, y: float, body: Sequence[str]) -> str:
    return f'<g transform="translate({x:.1f} {y:.1f})">{"".join(body)}</g>'


def _wrapped(part: Part, name: str, role: str, title: str) -> Part:
    """The part as one layer (none without a name) that answers the pointer anywhere on it."""
    layer = f' data-id="{escape(name)}"' if name else ""
    part.body = [
        f'<g class="layer {role}"{layer}><title>{escape(title)}</title>'
        f'<rect class="hit" y="{-part.above:.1f}" rx="4" width="{part.width:.1f}" '
        f'height="{part.above + part.below:.1f}"/>{"".join(part.body)}</g>'
    ]
    return part


def _text(x: float, y: float, text: str, name: str = "") -> str:
    kind = f' class="{name}"' if name else ""
    return f'<text{kind} text-anchor="middle" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
