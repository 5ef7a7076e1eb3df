"""Uploaded pictures: hostile bytes -> pixels -> what a data set's images look like.

Choices made here:

* Nothing is decoded before the file's size, its format (from its first bytes) and its dimensions
  (from its header) are within the limits, so that a small file cannot fill the memory.
* Only Pillow's PNG, JPEG and WebP readers are ever reached, and a file gives a picture or an
  `ImageError`: one sentence, whatever the reader stumbled over.
* WebP's header is read here, because Pillow's reader allocates the whole canvas as it opens a file.
* The way to the network's input is the training's own. What is ours ends at an image of the data
  set's shape; from there on `nin_core.data.prepare` takes it, as it takes every training image.
  Each step's picture is kept, for the page to show.
* Pillow and torch are imported inside functions only: the page loads fast.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image
    from torch import Tensor

    from .config import NiNConfig

Pixels = NDArray[np.uint8]
Square = Literal["crop", "fit"]

MAX_BYTES = 5 * 1024 * 1024
MAX_PIXELS = 4_000_000
# A progressive JPEG's whole picture is gone over once per scan, and 5 MB hold 350,000 scans of 14
# bytes: an hour's work at 4 megapixels. Cameras and editors write about ten.
MAX_SCANS = 100

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
FORMATS = "PNG, JPEG or WebP"
_ORIENTATION = 0x0112  # the EXIF tag; its values 2 to 8 as Pillow's transpositions:
_TRANSPOSITIONS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class ImageError(ValueError):
    """An upload that cannot be used, in one sentence that says why and what would work."""


def read_image(data: bytes) -> Pixels:
    """Decode a PNG, JPEG or WebP file.

    Rotated as its EXIF says; the first frame of an animation; transparency over white; 16 bits,
    palettes, CMYK and the rest become 8-bit grey or colour.

    Args:
        data: the whole file; at most 5 MB and 4 megapixels, checked before decoding.

    Returns:
        uint8 ``[C, H, W]``; C is 1 for a picture stored in shades of grey and 3 for colour.

    Raises:
        ImageError: for every file that does not give a picture.
    """
    from PIL import Image

    if len(data) > MAX_BYTES:
        raise ImageError(
            f"The file has {len(data) / 2**20:.1f} MB; at most {MAX_BYTES // 2**20} MB are "
            "accepted, so save it smaller."
        )
    kind = _kind(data)
    if kind is None:
        raise ImageError(f"This is not a {FORMATS} file; save the picture as one of these.")
    name = "WebP" if kind == "WEBP" else kind
    if kind == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:  # start-of-scan markers
        raise ImageError(
            f"This JPEG has more than {MAX_SCANS} scans; save it again as an ordinary JPEG."
        )
    if kind == "WEBP":
        size = _webp_size(data)
        if size is None:
            raise ImageError(_damaged(name))
        _check_size(*size)
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:  # reads the header only
            _check_size(*image.size)
            return _pixels(image)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"The picture has more than {MAX_PIXELS // 10**6} megapixels; make it smaller first."
        ) from error
    except Exception as error:
        # Pillow's readers raise a dozen unrelated types on damaged files (OSError, SyntaxError,
        # struct.error, zlib.error, IndexError, …), and a new one must not become a traceback.
        raise ImageError(_damaged(name)) from error


def _kind(data: bytes) -> str | None:
    """The file's format as Pillow calls it, from its first bytes; None for others."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for start, name in _SIGNATURES.items() if data.startswith(start)), None)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the first chunk of a WebP file; None if it has no such chunk.

    The layouts: RFC 9649, sections 2.5 (VP8), 2.6 (VP8L) and 2.7 (VP8X).
    """
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return (
            int.from_bytes(body[6:8], "little") & 0x3FFF,
            int.from_bytes(body[8:10], "little") & 0x3FFF,
        )
    if chunk == b"VP8L" and body[:1] == b"\x2f":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        return (
            int.from_bytes(body[4:7], "little") + 1,
            int.from_bytes(body[7:10], "little") + 1,
        )
    return None


def _damaged(name: str) -> str:
    return f"This {name} file is damaged or cut off; open it in an image editor and save it again."


@dataclass(frozen=True, eq=False, slots=True)
class ImageSteps:
    """An uploaded picture on its way into a network; all but the last uint8 ``[C, H, W]``.

    Attributes:
        original: as read.
        square: its middle, or all of it on a plain ground, as a square.
        converted: that, in the channels of the data set's images.
        resized: that, in their size.
        pixels: that, inverted if asked for: an image as the data set could hold it.
        network_input: float32 tensor ``[in_channels, image_size, image_size]``: that, prepared as
            every training image is.
    """

    original: Pixels
    square: Pixels
    converted: Pixels
    resized: Pixels
    pixels: Pixels
    network_input: Tensor


def to_network_input(
    pixels: Pixels,
    *,
    channels: int,
    side: int,
    network: NiNConfig,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    invert: bool = False,
    square: Square = "crop",
) -> ImageSteps:
    """Turn a picture into what a network trained on a data set was fed with.

    Args:
        pixels: uint8 ``[1 or 3, H, W]``, from `read_image`.
        channels: of the data set's images: 1 (luma is taken from colour) or 3.
        side: of the data set's images, in pixels. Shrinking averages (antialiased bilinear); a
            picture that has this size already stays as it is, to the bit.
        network: whose input it becomes.
        mean, std: of the data set, as for `prepare`; None for a network trained without them.
        invert: make bright dark and dark bright.
        square: "crop" cuts out the middle; "fit" keeps all of it, on a square of the median colour
            of its edge.
    """
    import torch
    from PIL import Image

    from .data import prepare

    cut = _fitted(pixels) if square == "fit" else _middle(pixels)
    image = Image.fromarray(cut[0] if len(cut) == 1 else np.moveaxis(cut, 0, 2))
    image = image.convert("L" if channels == 1 else "RGB")
    converted = _channels_first(image)
    if image.width != side:
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    resized = _channels_first(image)
    final = 255 - resized if invert else resized
    prepared = prepare(
        torch.tensor(final)[None],
        image_size=network.image_size,
        in_channels=network.in_channels,
        mean=mean,
        std=std,
        device=torch.device("cpu"),
    )
    return ImageSteps(pixels, cut, converted, resized, final, prepared[0])


def has_bright_background(pixels: Pixels) -> bool:
    """Whether most of the picture's edge is brighter than mid-grey.

    The grey data sets show bright things on black; a photograph or drawing on white is their
    negative, and a network trained on them has never seen such a thing.

    Args:
        pixels: uint8 ``[C, H, W]``.
    """
    return bool(np.median(_edge(pixels).mean(axis=0)) > 127.5)


def _edge(pixels: Pixels) -> Pixels:
    """The outermost pixels ``[C, N]``."""
    return np.concatenate(
        [pixels[:, 0], pixels[:, -1], pixels[:, 1:-1, 0], pixels[:, 1:-1, -1]], axis=1
    )


def _middle(pixels: Pixels) -> Pixels:
    _, height, width = pixels.shape
    length = min(height, width)
    top, left = (height - length) // 2, (width - length) // 2
    return pixels[:, top : top + length, left : left + length]


def _fitted(pixels: Pixels) -> Pixels:
    """The whole picture in the middle of a square of its edge's median colour.

    A line of a million pixels must not become a square of 10¹²: what is longer than the limit's
    square is thinned out first (nearest pixel).
    """
    _, height, width = pixels.shape
    step = -(-max(height, width) // math.isqrt(MAX_PIXELS))
    pixels = pixels[:, ::step, ::step]
    channels, height, width = pixels.shape
    length = max(height, width)
    ground = np.median(_edge(pixels), axis=1).round().astype(np.uint8)
    square = np.empty((channels, length, length), np.uint8)
    square[:] = ground[:, None, None]
    top, left = (length - height) // 2, (length - width) // 2
    square[:, top : top + height, left : left + width] = pixels
    return square


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError("The picture has no pixels; choose another file.")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"The picture is {width:,}×{height:,}, which is more than {MAX_PIXELS // 10**6} "
            "megapixels; make it smaller first."
        )


def _pixels(image: Image.Image) -> Pixels:
    from PIL import Image

    image.load()
    rotation = _TRANSPOSITIONS.get(_orientation(image))
    if image.mode.startswith(("I", "F")):  # 16-bit grey; `convert` would clip it, not scale it
        wide = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.clip(np.rint(wide / 257), 0, 255).astype(np.uint8))
    elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        grey = image.mode in ("1", "L", "LA", "La")
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image).convert("L" if grey else "RGB")
    else:
        image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    if rotation is not None:
        image = image.transpose(Image.Transpose[rotation])
    return _channels_first(image)


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation; None where it is missing or unreadable (no reason to refuse)."""
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # as in `read_image`: malformed EXIF raises many types
        return None


def _channels_first(image: Image.Image) -> Pixels:
    array = np.asarray(image, dtype=np.uint8)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0))
