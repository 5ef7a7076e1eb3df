"""Pictures of the Feature maps page as HTML: the network's input, and an upload's way there.

Pure: no widgets.
"""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from nin_core.images import ImageSteps, Pixels

SHOWN = 128  # pixels that a larger picture is shrunk to before it is sent
LARGE = 256

_BESIDE = """
<style>
.nin-beside { display: flex; gap: .8rem; align-items: flex-start; }
.nin-beside figure { margin: 0; width: 5.6rem; flex: none; font-size: .75rem; line-height: 1.35; }
.nin-beside figcaption { margin-top: .4rem; opacity: .7; }
.nin-beside img { width: 100%; aspect-ratio: 1; outline: 1px solid rgba(128, 128, 128, .4); }
.nin-beside img.sharp { image-rendering: pixelated; }
.nin-beside > div { flex: 1; min-width: 0; max-height: 15.5rem; overflow-y: auto; }
.nin-beside .nin-answer { font-size: .78rem; }
.nin-beside .nin-answer thead { position: absolute; clip-path: inset(50%); }
.nin-beside .nin-answer th { overflow: hidden; text-overflow: ellipsis; max-width: 6rem; }
.nin-beside .nin-answer th, .nin-beside .nin-answer td { padding: .08rem .5rem .08rem 0; }
.nin-beside .nin-answer .bar { padding-right: 0; width: 25%; }
</style>
"""

_STYLE = """
<style>
.nin-steps { display: flex; flex-wrap: wrap; gap: .5rem .2rem; margin: 0; padding: 0;
  list-style: none; }
.nin-steps li { width: 5.2rem; margin: 0; padding: 0; font-size: .75rem; line-height: 1.25; }
.nin-steps div { width: 64px; height: 64px; display: grid; place-items: center; position: relative;
  margin-bottom: .2rem; }
.nin-steps img { max-width: 100%; max-height: 100%; min-width: 0; display: block;
  outline: 1px solid rgba(128, 128, 128, .5); }
.nin-steps img.sharp { image-rendering: pixelated; width: 100%; height: 100%; }
.nin-steps li + li div::before { content: "→"; position: absolute; left: -.95rem; opacity: .6;
  font-size: .8rem; }
</style>
"""


def beside(shown: Pixels, title: str, table: str) -> str:
    """The network's input with the network's answer beside it.

    Args:
        shown: uint8 ``[S, S]`` or ``[S, S, 3]``.
        title: what it is.
        table: HTML; a long one scrolls.
    """
    pixels = np.moveaxis(shown if shown.ndim == 3 else shown[..., None], 2, 0)
    small = "class='sharp'" if pixels.shape[1] <= SHOWN else ""
    return (
        f"{_BESIDE}<div class='nin-beside'><figure><img {small} src='{as_url(pixels, LARGE)}' "
        f"alt=''><figcaption>{escape(title)}</figcaption></figure><div>{table}</div></div>"
    )


def steps(taken: ImageSteps, shown: Pixels, *, square: str, inverted: bool) -> str:
    """The pictures from the one that was read to the network's input, each under what was done.

    Args:
        shown: the network's input, uint8 ``[S, S]`` or ``[S, S, 3]``.
        square: "crop" or "fit"; inverted: whether it was.
    """
    pictures = [("read", taken.original)]
    if taken.square is not taken.original and taken.square.shape != taken.original.shape:
        pictures.append(("middle cut out" if square == "crop" else "fitted", taken.square))
    if len(taken.converted) != len(taken.square):
        pictures.append(("in grey" if len(taken.converted) == 1 else "in colour", taken.converted))
    if taken.resized.shape != taken.converted.shape:
        pictures.append(("resized", taken.resized))
    if inverted:
        pictures.append(("inverted", taken.pixels))
    if shown.shape[0] != taken.pixels.shape[1]:
        deep = shown if shown.ndim == 3 else shown[..., None]
        pictures.append(("as the network gets it", np.moveaxis(deep, 2, 0)))
    items = "".join(
        f"<li><div><img {_sharp(pixels)} src='{as_url(pixels)}' alt='{escape(what)}'></div>"
        f"{escape(what)}<br>{pixels.shape[2]}×{pixels.shape[1]}</li>"
        for what, pixels in pictures
    )
    return f"{_STYLE}<ol class='nin-steps' aria-label='Steps into the network'>{items}</ol>"


def _sharp(pixels: Pixels) -> str:
    return "class='sharp'" if pixels.shape[1] == pixels.shape[2] <= SHOWN // 2 else ""


def as_url(pixels: Pixels, most: int = SHOWN) -> str:
    """uint8 ``[C, H, W]`` as a data URL of a PNG of at most so many pixels a side."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
    image.thumbnail((most, most), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
