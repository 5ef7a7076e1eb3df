"""Pictures of maps as a PNG file: what the page shows, with titles and scale. Pure: no widgets.

Choices made here:

* Drawn anew, not a screenshot: every cell is a whole number of pixels, all of a layer's channels
  are there however far the page is scrolled, and it is made on request only.
* The colours are those of the light theme, since such pictures go on paper and slides: as
  `ui/components/sprite.js` has them, zero in the surface's own grey.
* The font is the one that Pillow brings, so the file looks alike on every computer.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from nin_core.features import Array
    from nin_core.images import Pixels

_ZERO = "#f3f5f7"
_UP = (
    *("#e4f5ff", "#c7ebff", "#a6dcff", "#83c9ff", "#60b4ff"),
    *("#3d9df3", "#1c83e1", "#0068c9", "#0054a3", "#004280"),
)
_DOWN = ("#ffd9c2", "#f6a981", "#e07345", "#b34722", "#742a12")
_NOT_A_NUMBER = (200, 0, 200)
_TEXT, _MUTED, _LINE = "#1d2733", "#5a6472", "#c3cad3"

_MARGIN = 28
_GAP = 6  # between maps
_LABEL = 14  # above each
_BAR = (160, 12)
_THUMB = 64
_TILES = (60, 160)  # pixels that small maps are enlarged to, at least, and that a few fill
_WIDTH = 720  # of one group of maps, about
_LEAST_WIDTH = 480  # room for its titles
_MOST_PIXELS = 40_000_000
# What Pillow's own font lacks.
_PLAIN = str.maketrans({"×": "x", "−": "-", "–": "-", "→": ">", "\u00a0": " "})


class Group(NamedTuple):
    """Maps under one title and scale.

    Attributes:
        title: what they are.
        answer: what the network says to the picture.
        picture: uint8 ``[S, S]`` or ``[S, S, 3]``, what they are the maps of.
        maps: ``[channels, height, width]``, in the order they are drawn.
        labels: one a map.
        scale: the lowest and highest value of the colours, zero within; None: each map has its own.
    """

    title: str
    answer: str
    picture: Pixels
    maps: Array
    labels: Sequence[str]
    scale: tuple[float, float] | None


def shared_scale(*maps: Array) -> tuple[float, float]:
    """The lowest and highest value of all, zero within; what is not a number does not count."""
    low, high = 0.0, 0.0
    for values in maps:
        finite = np.isfinite(values)
        low = min(low, float(values.min(where=finite, initial=0)))
        high = max(high, float(values.max(where=finite, initial=0)))
    return low, high


def png(title: str, groups: Sequence[Group]) -> bytes:
    """The groups beside each other under a title, as a PNG."""
    parts = [_group(group) for group in groups]
    size = (
        sum(part.width for part in parts) + _MARGIN * (len(parts) + 1),
        max(part.height for part in parts) + 2 * _MARGIN + 32,
    )
    sheet = Image.new("RGB", size, "white")
    _write(sheet, (_MARGIN, _MARGIN - 4), title, 20, _TEXT, sheet.width - 2 * _MARGIN)
    left = _MARGIN
    for part in parts:
        sheet.paste(part, (left, _MARGIN + 32))
        left += part.width + _MARGIN
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _group(group: Group) -> Image.Image:
    channels, height, width = group.maps.shape
    longest = max(height, width)
    cell = max(1, -(-_TILES[0] // longest))
    # Few maps: larger ones, while three rows of them hold all.
    while (
        cell + 1 <= _TILES[1] // longest
        and 3 * ((_WIDTH + _GAP) // ((cell + 1) * width + _GAP)) >= channels
    ):
        cell += 1
    while cell > 1 and channels * cell * cell * height * width > _MOST_PIXELS:
        cell -= 1
    tile = (cell * width, cell * height)
    columns = min(channels, max(1, (_WIDTH + _GAP) // (tile[0] + _GAP)))
    rows = -(-channels // columns)
    columns = -(-channels // rows)  # rows of equal length, as on the page
    wide = max(columns * (tile[0] + _GAP) - _GAP, _LEAST_WIDTH)
    top = _THUMB + 60
    drawn = Image.new("RGB", (wide, top + rows * (_LABEL + tile[1] + _GAP)), "white")
    _head(drawn, group, wide)
    colours = _colours(group)
    pen = ImageDraw.Draw(drawn)
    for number, (label, pixels) in enumerate(zip(group.labels, colours, strict=True)):
        x = number % columns * (tile[0] + _GAP)
        y = top + number // columns * (_LABEL + tile[1] + _GAP) + _LABEL
        large = pixels.repeat(cell, axis=0).repeat(cell, axis=1)
        drawn.paste(Image.fromarray(large), (x, y))
        if not group.maps[number].any():  # zero everywhere: crossed out, as on the page
            pen.line([(x, y), (x + tile[0] - 1, y + tile[1] - 1)], _MUTED)
            pen.line([(x, y + tile[1] - 1), (x + tile[0] - 1, y)], _MUTED)
        pen.rectangle([(x, y), (x + tile[0] - 1, y + tile[1] - 1)], outline=_LINE)
        _write(drawn, (x, y - _LABEL), label, 11, _MUTED, tile[0])
    return drawn


def _head(drawn: Image.Image, group: Group, wide: int) -> None:
    """The picture, what it is, what the network says, and the scale."""
    picture = Image.fromarray(group.picture).convert("RGB")
    smooth = max(picture.size) > _THUMB
    how = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
    drawn.paste(picture.resize((_THUMB, _THUMB), how), (0, 0))
    left = _THUMB + 12
    _write(drawn, (left, 6), group.title, 15, _TEXT, wide - left)
    _write(drawn, (left, 32), group.answer, 13, _MUTED, wide - left)
    y = _THUMB + 14
    if group.scale is None:
        _write(drawn, (0, y), "Each map by its own largest value", 12, _MUTED, wide)
        return
    low, high = group.scale
    pen = ImageDraw.Draw(drawn)
    said = _number(low)
    x = int(pen.textlength(said, _font(12))) + 8
    _write(drawn, (0, y), said, 12, _MUTED, wide)
    steps = np.linspace(low, high, _BAR[0], dtype=np.float32)
    bar = _painted(np.tile(steps, (_BAR[1], 1)), max(high, -low), signed=low < 0)
    drawn.paste(Image.fromarray(bar), (x, y + 1))
    pen.rectangle([(x, y + 1), (x + _BAR[0] - 1, y + _BAR[1])], outline=_LINE)
    if low < 0:
        zero = x + round(-low / (high - low) * (_BAR[0] - 1))
        pen.line([(zero, y - 2), (zero, y + _BAR[1] + 3)], _TEXT)
        _write(drawn, (zero - 3, y + _BAR[1] + 4), "0", 10, _MUTED, wide)
    _write(drawn, (x + _BAR[0] + 8, y), _number(high), 12, _MUTED, wide)


def _colours(group: Group) -> list[Pixels]:
    """Each map's colours, uint8 ``[height, width, 3]``."""
    low, high = group.scale or shared_scale(group.maps)
    found = []
    for values in group.maps:
        reach = max(high, -low) if group.scale else float(np.nan_to_num(np.abs(values)).max())
        found.append(_painted(values, reach, signed=low < 0))
    return found


def _painted(values: Array, reach: float, *, signed: bool) -> Pixels:
    """Values as colours: zero in the surface's grey, evenly through the stops to ±reach."""
    up = _rgb((_ZERO, *_UP))
    finite = np.isfinite(values)
    at = np.where(finite, values, 0) / (reach or 1)
    painted = _through(up, np.clip(at, 0, 1))
    if signed:
        painted = np.where(at[..., None] < 0, _through(_rgb((_ZERO, *_DOWN)), -at), painted)
    painted[~finite] = _NOT_A_NUMBER
    return painted.round().astype(np.uint8)


def _through(stops: Array, at: Array) -> Array:
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(at, places, stops[:, part]) for part in range(3)], axis=-1)


def _rgb(colours: Sequence[str]) -> Array:
    return np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours], np.float32)


def _number(value: float) -> str:
    return f"{value:.4g}"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write(
    onto: Image.Image, at: tuple[int, int], text: str, size: int, color: str, room: int
) -> None:
    """Text on one line, cut where there is no room."""
    pen, font = ImageDraw.Draw(onto), _font(size)
    plain = text.translate(_PLAIN)
    shown = plain
    while shown and pen.textlength(shown if shown == plain else f"{shown}...", font) > room:
        shown = shown[:-1]
    pen.text(at, shown if shown == plain else f"{shown}...", color, font)
