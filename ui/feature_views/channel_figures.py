"""Figures and tiles of the view "What a channel does". Pure: no widgets."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nin_core.images import Pixels
from nin_core.receptive_field import Field
from ui import theme
from ui.feature_views.tables import UP, value

BAR_HEIGHT = 300
MOST_TICKS = 48  # channels whose numbers fit under their bars

STYLE = """
<style>
.nin-tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr));
  gap: .8rem 1rem; }
.nin-tile figure { margin: 0; }
.nin-tile .pair { display: flex; gap: .4rem; }
.nin-tile .part, .nin-tile .whole { position: relative; width: 80px; height: 80px;
  flex: none; outline: 1px solid rgba(128, 128, 128, .5); }
.nin-tile .part { background: repeating-linear-gradient(45deg, rgba(128, 128, 128, .12) 0 4px,
  rgba(128, 128, 128, .4) 4px 5px); }
.nin-tile img { width: 80px; height: 80px; image-rendering: pixelated; display: block; }
.nin-tile .frame { position: absolute; box-sizing: border-box; border: 2px solid #ff6a13; }
.nin-tile figcaption { font-size: .8rem; line-height: 1.35; padding-top: .2rem;
  font-variant-numeric: tabular-nums; }
.nin-tile figcaption span { opacity: .75; }
.st-key-fm-ch-maps { max-height: 320px; overflow-y: auto; padding: 2px; }
</style>
"""


class Found(NamedTuple):
    """A place in a test image that excites a channel.

    Attributes:
        number: of the test image.
        name: its class.
        value: what the channel says there.
        picture: uint8 ``[S, S]`` or ``[S, S, 3]``, in the network's input size.
        rows, columns: the receptive field of the cell that says it.
    """

    number: int
    name: str
    value: float
    picture: Pixels
    rows: Field
    columns: Field


def tiles(found: Sequence[Found]) -> str:
    """Each place as the pixels that the channel sees there, beside the whole image."""
    return f"<div class='nin-tiles'>{''.join(map(_tile, found))}</div>"


def field_crop(picture: Pixels, rows: Field, columns: Field) -> Pixels:
    """The receptive field as a picture, uint8 ``[r, r, 4]``, see-through where it is padding.

    A field as large as the image, or larger, is the image.
    """
    side = picture.shape[0]
    colours = picture[..., None].repeat(3, axis=2) if picture.ndim == 2 else picture
    opaque = np.full((*picture.shape[:2], 1), 255, np.uint8)
    whole = np.concatenate([colours, opaque], axis=2)
    size = rows.whole.size
    if size >= side:
        return whole
    crop = np.zeros((size, size, 4), np.uint8)
    top, left = rows.seen.first - rows.whole.first, columns.seen.first - columns.whole.first
    seen = whole[rows.seen.first : rows.seen.last + 1, columns.seen.first : columns.seen.last + 1]
    crop[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    return crop


def _tile(found: Found) -> str:
    side = found.picture.shape[0]
    crop = field_crop(found.picture, found.rows, found.columns)
    what = f"test image {found.number}, {found.name}"
    seen = (
        f"rows {found.rows.seen.first}–{found.rows.seen.last}, "
        f"columns {found.columns.seen.first}–{found.columns.seen.last}"
    )
    pictures = f"<div class='part'>{_image(crop, f'{seen} of {what}')}</div>"
    if found.rows.whole.size < side:
        frame = "".join(
            f"{edge}:{100 * pixels / side:.2f}%;"
            for edge, pixels in (
                ("top", found.rows.seen.first),
                ("left", found.columns.seen.first),
                ("height", found.rows.seen.size),
                ("width", found.columns.seen.size),
            )
        )
        whole = _image(found.picture, what)
        pictures += f"<div class='whole'>{whole}<div class='frame' style='{frame}'></div></div>"
    return (
        f"<div class='nin-tile' title='{escape(seen)}'><figure><div class='pair'>{pictures}</div>"
        f"<figcaption><b>{value(found.value)}</b> · {escape(found.name)}<br>"
        f"<span>test image {found.number:,}</span></figcaption></figure></div>"
    )


def _image(pixels: Pixels, alt: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{escape(alt, quote=True)}' src='data:image/png;base64,{data}'>"


def logits(
    names: Sequence[str], before: NDArray[Any], after: NDArray[Any] | None
) -> dict[str, Any]:
    """Logits as bars, one class a group: with all channels, and with some switched off."""
    bars = [_bars(names, before, "all channels on", theme.POOL)]
    if after is not None:
        bars.append(_bars(names, after, "some switched off", UP))
    layout = {
        "margin": {"l": 8, "r": 8, "t": 30, "b": 8},
        "barmode": "group",
        "bargap": 0.25,
        "showlegend": after is not None,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"type": "category", "automargin": True},
        "yaxis": {"title": {"text": "logit"}, "automargin": True},
    }
    return {"data": bars, "layout": layout}


def _bars(names: Sequence[str], values: NDArray[Any], what: str, color: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": what,
        "x": list(names),
        "y": values.astype(np.float32),
        "marker": {"color": color},
        "hovertemplate": "%{x}: %{y:.4g}",
    }


def ranking(order: NDArray[np.int64], lost: NDArray[np.float64], selected: int) -> dict[str, Any]:
    """Accuracy lost without each channel, the most first; the selected channel stands out."""
    numbers = [str(channel) for channel in order]
    colors = [theme.POINTWISE if channel == selected else theme.CONV for channel in order]
    bars = {
        "type": "bar",
        "x": numbers,
        "y": (lost[order] * 100).astype(np.float32),
        "marker": {"color": colors},
        "hovertemplate": "without channel %{x}: %{y:.2f} points lost<extra></extra>",
    }
    many = len(order) > MOST_TICKS
    layout = {
        "margin": {"l": 8, "r": 8, "t": 10, "b": 40},
        "bargap": 0.15,
        "xaxis": {
            "type": "category",
            "title": {"text": "channel switched off"},
            "showticklabels": not many,
            "tickangle": 0,
        }
        | ({} if many else {"tickmode": "array", "tickvals": numbers, "ticktext": numbers}),
        "yaxis": {"title": {"text": "accuracy lost (points)"}, "automargin": True},
    }
    return {"data": [bars], "layout": layout}
