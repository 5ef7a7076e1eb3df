"""All channels of a layer in one picture, and class maps over the image they were made from.

    spot = sprite(maps, key="block-1", title="Block 1, 3×3 convolution")
    spot = class_maps(maps, image, labels=dataset.classes, values=logits, key="classes")
    film(reel([maps_early, maps_late]), key="learning")

Choices:

* One canvas, not one picture a channel: every cell is a whole number of screen pixels, unsmoothed,
  and all maps share one colour scale, unless each is to have its own. Zero has the surface's own
  colour, so what stands out is what responds: one hue upwards for maps that are nowhere negative
  (after ReLU), two hues for signed ones (weights, logits).
* Values are sent as 16-bit integers times a power of ten, four digits for the largest of the layer
  (0.9213 is 9213 × 10⁻⁴). That is the number the tooltip prints, rounded here once, so it is right
  to its last digit, which float16 (three digits and a bit) would not be, at half the size of
  float32. Hovering, selecting and resizing ask Python for nothing.
* The values travel in a parcel (see `wire`): pages may select a channel, or change a title, and the
  numbers are not sent again.
* Rows, columns and channels count from 0, as they do in a tensor.
* A map of NaN is shown as such: a network that diverged is a thing to look at, not an error.
* Two pictures of the same shape can be each other's partner: what the pointer is on in one is read
  and framed in both. They find each other in the browser, by key.
* A film is a picture with its values at several moments, on one scale. Each moment travels in a
  parcel of its own: the browser turns from one to another (`window.ninSprites.get(key).turn(n)`,
  as `replay` does) without Python, and a moment that is added sends only itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
import streamlit as st

from ui.components.wire import (
    OnClick,
    Parcel,
    check_key,
    check_on_click,
    click_callback,
    last_click,
    pack,
    read_assets,
    send,
)

_NOT_A_NUMBER = -32768  # int16's lowest, which no rounded value takes
_DIGITS = 4
_HEIGHT = 460  # CSS pixels: comfortable on a laptop's screen
_TILE = 160  # CSS pixels: as large as one of several maps becomes
_MOST_CELLS = 8_000_000  # about what one canvas can hold at one pixel a cell

_mount = st.components.v2.component(
    "nin_sprite",
    js=read_assets("shared.js", "sprite.js"),
    css=read_assets("sprite.css"),
    isolate_styles=False,
)


class Partner(TypedDict):
    """Another picture of maps in which the same cell is read too.

    Attributes:
        key: the other picture's.
        here, there: what this picture and the other one are called, in a word.
    """

    key: str
    here: str
    there: str


class Frame(NamedTuple):
    """One moment of a film: its values, which channels are all zero, how many hold no numbers."""

    parcel: Parcel
    dead: list[int]
    broken: int


@dataclass(frozen=True, slots=True)
class Film:
    """Maps of one shape at several moments, made by `reel`; its bytes are those of its parcels.

    Attributes:
        shape: ``[channels, height, width]``.
        decimals: of the values, as `quantise` returns them.
        scale: the lowest and highest value of all moments; zero is within.
    """

    shape: tuple[int, int, int]
    decimals: int
    scale: tuple[float, float]
    frames: tuple[Frame, ...]


class Spot(TypedDict):
    """A clicked cell: which channel, and where in its map, counted from 0."""

    channel: int
    row: int
    column: int


def sprite(
    maps: Any,
    *,
    key: str,
    title: str = "",
    labels: Sequence[str] | None = None,
    selected: int | None = None,
    pixel: tuple[int, int] | None = None,
    own_scales: bool = False,
    scale: tuple[float, float] | None = None,
    partner: Partner | None = None,
    height: int = _HEIGHT,
    on_click: OnClick = "rerun",
) -> Spot | None:
    """Show every channel of a layer as one grid of small maps.

    Args:
        maps: numbers of shape [channels, height, width] (an array or a tensor on the CPU):
            feature maps, or the kernels of a convolution.
        key: names the picture on its page. The same key is the same picture: its selection stays.
        title: what screen readers are told and, if given, written above.
        labels: a name for every channel, instead of its number.
        selected: outline this channel; None leaves the outline where the user put it.
        pixel: mark this (row, column) in every map. Then the arrow keys stay at it, and with Shift
            they move it.
        own_scales: colour each map by its own largest magnitude instead of the layer's.
        scale: the lowest and highest value that the colour scale must hold, no narrower than the
            maps; pictures with the same scale have the same colours. None: the maps' own.
        partner: a picture of maps of the same shape, for reading cells in both.
        height: CSS pixels that few maps are enlarged to fill; many maps take more.
        on_click: "rerun": a click, or arrow keys, rerun the script (or fragment). A function: it is
            called with the spot first. None: nothing is sent.

    Returns:
        The spot clicked last in this session, or None before the first and when the picture has no
        such spot any more. With the arrow keys it is the strongest cell of the channel, or the
        marked pixel.

    Raises:
        ValueError: the maps have another shape or kind, or are too many to draw.
    """
    values = _as_maps(maps)
    return _show(
        values,
        key=key,
        title=title,
        labels=_as_texts(labels, len(values), "labels"),
        selected=selected,
        pixel=pixel,
        own_scales=own_scales,
        scale=scale,
        partner=partner,
        wanted_height=height,
        on_click=on_click,
    )


def class_maps(
    maps: Any,
    image: Any,
    *,
    labels: Sequence[str],
    key: str,
    values: Sequence[float] | None = None,
    drawn: Any = None,
    title: str = "",
    selected: int | None = None,
    on_click: OnClick = "rerun",
) -> Spot | None:
    """Show the last layer's maps, one a class, over the image.

    Each map is stretched over the whole image. That is how such maps are read, not where exactly a
    cell looks: its receptive field is larger than the cell that is drawn.

    Args:
        maps: numbers of shape [classes, height, width].
        image: uint8 [height, width] or [height, width, 3].
        labels: the classes' names.
        key: names the picture on its page.
        values: a number a class, written under its name (a logit or a probability).
        drawn: what is left of `maps` to draw, of the same shape; None: all. A map that is zero only
            there is not called so.
        title, selected, on_click: as in `sprite`.

    Returns:
        As `sprite`; the channel is the class's number.

    Raises:
        ValueError: shapes, kinds or counts do not fit.
    """
    cells = _as_maps(maps)
    left = cells if drawn is None else _as_maps(drawn)
    if left.shape != cells.shape:
        raise ValueError(f"What is drawn must have the maps' shape {list(cells.shape)}.")
    picture = _as_image(image)
    names = _as_texts(labels, len(cells), "labels")
    captions = None
    if values is not None:
        numbers = [float(value) for value in values]
        if len(numbers) != len(cells):
            raise ValueError(f"There are {len(cells)} class maps but {len(numbers)} values.")
        captions = [
            f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "not a number"
            for value in numbers
        ]
    return _show(
        left,
        dead=_dead(cells),
        key=key,
        title=title,
        labels=names,
        captions=captions,
        image=picture,
        selected=selected,
        on_click=on_click,
    )


def reel(moments: Sequence[Any]) -> Film:
    """Make a film of maps at several moments: rounded to one scale and packed.

    Args:
        moments: maps as for `sprite`, all of one shape; at least one.

    Raises:
        ValueError: as `sprite`, and if the shapes differ.
    """
    every = [_as_maps(maps) for maps in moments]
    if not every or len({maps.shape for maps in every}) > 1:
        raise ValueError("A film needs moments, all with maps of one shape.")
    finite = [maps[np.isfinite(maps)] for maps in every]
    low = min(0.0, *(float(values.min(initial=0.0)) for values in finite))
    high = max(0.0, *(float(values.max(initial=0.0)) for values in finite))
    frames = []
    for maps in every:
        numbers, decimals = quantise(maps, max(-low, high))
        frames.append(Frame(pack({"values": numbers}), _dead(maps), _broken(maps)))
    channels, height, width = every[0].shape
    return Film((channels, height, width), decimals, (low, high), tuple(frames))


def film(
    shown: Film,
    *,
    key: str,
    title: str = "",
    labels: Sequence[str] | None = None,
    height: int = _HEIGHT,
) -> None:
    """Show a film; it begins at its last moment.

    Args:
        key, title, labels, height: as in `sprite`.

    Raises:
        ValueError: there are not as many labels as channels.
    """
    check_key(key)
    names = _as_texts(labels, shown.shape[0], "labels")
    last = shown.frames[-1]
    with st.container(gap=None):
        _mount(
            key=key,
            data=_message(
                key,
                last.parcel,
                shown.shape,
                shown.decimals,
                signed=shown.scale[0] < 0,
                dead=last.dead,
                broken=last.broken,
                title=title,
                labels=names,
                height=height,
                tile=_TILE if shown.shape[0] > 1 else height,
                scale=shown.scale,
                frames=[
                    {"parcel": frame.parcel.id, "dead": frame.dead, "broken": frame.broken}
                    for frame in shown.frames
                ],
            ),
        )
        for number, frame in enumerate(shown.frames):
            send(frame.parcel, key=f"{key} · parcel {number}")


def _show(
    values: np.ndarray,
    *,
    key: str,
    title: str,
    labels: list[str] | None,
    selected: int | None,
    on_click: OnClick,
    captions: list[str] | None = None,
    dead: list[int] | None = None,
    image: np.ndarray | None = None,
    pixel: tuple[int, int] | None = None,
    own_scales: bool = False,
    scale: tuple[float, float] | None = None,
    partner: Partner | None = None,
    wanted_height: int = _HEIGHT,
) -> Spot | None:
    check_key(key)
    check_on_click(on_click)
    channels, height, width = values.shape
    if selected is not None and not 0 <= selected < channels:
        raise ValueError(f"There is no channel {selected} to select: they are 0 to {channels - 1}.")
    if pixel is not None and not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise ValueError(f"The maps are {height}×{width}, so they have no pixel {pixel} to mark.")
    finite = values[np.isfinite(values)]
    lowest, highest = scale or (0.0, 0.0)
    if scale and finite.size and not lowest <= finite.min() <= finite.max() <= highest:
        raise ValueError(
            f"The scale {scale} does not hold the maps' {finite.min()} to {finite.max()}."
        )
    numbers, decimals = quantise(values, max(-lowest, highest))
    arrays = {"values": numbers} if image is None else {"values": numbers, "image": image}
    parcel = pack(arrays)
    with st.container(gap=None):
        _mount(
            key=key,
            data=_message(
                key,
                parcel,
                (channels, height, width),
                decimals,
                signed=lowest < 0 or bool(finite.size and finite.min() < 0),
                dead=_dead(values) if dead is None else dead,
                broken=_broken(values),
                title=title,
                labels=labels,
                captions=captions,
                image=None if image is None else list(image.shape),
                selected=selected,
                height=wanted_height,
                pixel=None if pixel is None else list(pixel),
                ownScales=own_scales,
                scale=scale,
                partner=partner,
                clicks=on_click is not None,
            ),
            on_click_change=click_callback(
                key, on_click, lambda click: _as_spot(click, values.shape)
            ),
        )
        send(parcel, key=f"{key} · parcel")
    return _as_spot(last_click(key), values.shape) if on_click is not None else None


_USUAL: dict[str, Any] = {
    "tile": _TILE,
    "labels": None,
    "captions": None,
    "image": None,
    "selected": None,
    "pixel": None,
    "ownScales": False,
    "partner": None,
    "clicks": False,
    "frames": None,
}


def _message(
    key: str,
    parcel: Parcel,
    shape: tuple[int, int, int],
    decimals: int,
    *,
    scale: tuple[float, float] | None,
    **more: Any,
) -> dict[str, Any]:
    """What the browser is told of a picture, apart from its numbers; lengths in CSS pixels."""
    return {
        **_USUAL,
        "key": key,
        "parcel": parcel.id,
        "shape": list(shape),
        "decimals": decimals,
        "scale": scale and [float(edge) * 10.0**decimals for edge in scale],
        **more,
    }


def _broken(values: np.ndarray) -> int:
    """How many channels hold values that are not numbers."""
    return int((~np.isfinite(values)).any(axis=(1, 2)).sum())


def _dead(values: np.ndarray) -> list[int]:
    """The channels that are zero everywhere."""
    return np.flatnonzero((values == 0).all(axis=(1, 2))).tolist()


def quantise(values: np.ndarray, reach: float = 0.0) -> tuple[np.ndarray, int]:
    """Round values to the digits that are shown.

    Args:
        reach: a magnitude that keeps four digits even if no value is as large.

    Returns:
        int16 of the same shape and the number of decimals d: a value is `int16 × 10^-d`. The
        layer's largest magnitude keeps four digits; what is not finite becomes -32768.
    """
    finite = np.isfinite(values)
    largest = float(np.abs(values, where=finite, out=np.zeros(values.shape)).max(initial=reach))
    decimals = 0
    if largest > 0:
        decimals = min(_DIGITS - 1 - math.floor(math.log10(largest)), 300)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.round(values.astype(np.float64) * 10.0**decimals)
    return np.where(finite, scaled, _NOT_A_NUMBER).astype(np.int16), decimals


def _as_maps(maps: Any) -> np.ndarray:
    values = np.asarray(maps)
    if values.ndim != 3 or values.size == 0:
        raise ValueError(
            f"Maps must have the shape [channels, height, width], not {list(values.shape)}."
        )
    if values.dtype.kind not in "fiub":
        raise ValueError(f"Maps must hold numbers, not {values.dtype}.")
    if values.size > _MOST_CELLS:
        raise ValueError(
            f"{values.size:,} values are too many for one picture (at most {_MOST_CELLS:,}): "
            "show fewer channels."
        )
    return values


def _as_image(image: Any) -> np.ndarray:
    picture = np.asarray(image)
    grey = picture.ndim == 2
    colour = picture.ndim == 3 and picture.shape[2] == 3
    if picture.dtype != np.uint8 or not (grey or colour) or picture.size == 0:
        raise ValueError(
            "The image must be uint8 of shape [height, width] or [height, width, 3], "
            f"not {picture.dtype} {list(picture.shape)}."
        )
    return picture


def _as_texts(texts: Sequence[str] | None, count: int, what: str) -> list[str] | None:
    if texts is None:
        return None
    if len(texts) != count:
        raise ValueError(f"There are {count} maps but {len(texts)} {what}.")
    return [str(text) for text in texts]


def _as_spot(click: Any, shape: tuple[int, ...]) -> Spot | None:
    """Return a click as a spot if it is one of this picture's: it comes from a browser."""
    if not isinstance(click, dict):
        return None
    place = [click.get(name) for name in ("channel", "row", "column")]
    if not all(type(n) is int and 0 <= n < side for n, side in zip(place, shape, strict=True)):
        return None
    channel, row, column = place
    return Spot(channel=channel, row=row, column=column)
