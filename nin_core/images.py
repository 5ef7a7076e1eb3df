"""Uploaded pictures: hostile bytes -> pixels -> what a data set's images look like.

Choices made here:

* Nothing is decoded before the file's size, its format (from its first bytes) and its dimensions
  (from its header) are within the limits, so that a small file cannot fill the memory.
* Only Pillow's PNG and JPEG readers are ever reached, and a file gives a picture or an
  `ImageError`: one sentence, whatever the reader stumbled over.
* The way to the network's input is the training's own. What is ours ends at an image of the data
  set's shape; from there on `nin_core.data.prepare` takes it, as it takes every training image.
  Each step's picture is kept, for the page to show.
* Pillow and torch are imported inside functions only: the page loads fast.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image
    from torch import Tensor

    from .config import NiNConfig

Pixels = NDArray[np.uint8]

MAX_BYTES = 5 * 1024 * 1024
MAX_PIXELS = 4_000_000
# A progressive JPEG's whole picture is gone over once per scan, and 5 MB hold 350,000 scans of 14
# bytes: an hour's work at 4 megapixels. Cameras and editors write about ten.
MAX_SCANS = 100

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
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
    """Decode a PNG or JPEG file.

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
    kind = next((name for start, name in _SIGNATURES.items() if data.startswith(start)), None)
    if kind is None:
        raise ImageError("This is not a PNG or JPEG file; save the picture as one of these.")
    if kind == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:  # start-of-scan markers
        raise ImageError(
            f"This JPEG has more than {MAX_SCANS} scans; save it again as an ordinary JPEG."
        )
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
        raise ImageError(
            f"This {kind} file is damaged or cut off; open it in an image editor and save it again."
        ) from error


@dataclass(frozen=True, eq=False, slots=True)
class ImageSteps:
    """An uploaded picture on its way into a network; all but the last uint8 ``[C, H, W]``.

    Attributes:
        original: as read.
        square: its middle, as a square.
        resized: that, in the channels and size of the data set's images.
        pixels: that, inverted if asked for: an image as the data set could hold it.
        network_input: float32 tensor ``[in_channels, image_size, image_size]``: that, prepared as
            every training image is.
    """

    original: Pixels
    square: Pixels
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
    """
    import torch
    from PIL import Image

    from .data import prepare

    _, height, width = pixels.shape
    length = min(height, width)
    top, left = (height - length) // 2, (width - length) // 2
    square = pixels[:, top : top + length, left : left + length]
    image = Image.fromarray(square[0] if len(square) == 1 else np.moveaxis(square, 0, 2))
    image = image.convert("L" if channels == 1 else "RGB")
    if length != side:
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    resized = _channels_first(image)
    fitted = 255 - resized if invert else resized
    prepared = prepare(
        torch.tensor(fitted)[None],
        image_size=network.image_size,
        in_channels=network.in_channels,
        mean=mean,
        std=std,
        device=torch.device("cpu"),
    )
    return ImageSteps(pixels, square, resized, fitted, prepared[0])


def has_bright_background(pixels: Pixels) -> bool:
    """Whether most of the picture's edge is brighter than mid-grey.

    The grey data sets show bright things on black; a photograph or drawing on white is their
    negative, and a network trained on them has never seen such a thing.

    Args:
        pixels: uint8 ``[C, H, W]``.
    """
    grey = pixels.mean(axis=0)
    edge = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    return bool(np.median(edge) > 127.5)


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
