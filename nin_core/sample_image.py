"""One picture to draw on: a real one of a data set that is at hand, else a generated shape.

Choices made here:

* Only data sets whose files lie plain, small and with a published digest count: the first test
  image of Fashion-MNIST, then MNIST. What is read is verified like everything in `nin_core.data`;
  a file that fails is not shown, and nothing is downloaded for a picture.
* No torch: this is for pages that must not wait for it.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .data import data_folder
from .datasets import DATASETS, DataFile, Packing
from .shapes import draw_shapes

_SETS = ("fashion-mnist", "mnist")
_IMAGES, _LABELS = 2, 3  # places of the test files in an "idx" packing
_IMAGE_HEADER, _LABEL_HEADER = 16, 8  # bytes before the first image and the first label
_LONGEST = 16_000_000  # bytes; the largest file that is read here has 8 million


class SampleImage(NamedTuple):
    """A grey picture, uint8 [side, side], and what it is, in words."""

    pixels: np.ndarray
    title: str


def sample_image() -> SampleImage:
    """The best picture at hand; the same one until files come or go."""
    for name in _SETS:
        packing = DATASETS[name].packings[0]
        images, labels = (_place(packing, packing.files[i]) for i in (_IMAGES, _LABELS))
        if images and labels and (sample := _read(name, images, labels)):
            return sample
    return _generated()


def _place(packing: Packing, file: DataFile) -> tuple[Path, int] | None:
    """Where the file lies in a folder of its set's own, and when it was written."""
    folders = [data_folder() / folder for folder in packing.folders if folder]
    for folder in (*folders, *map(Path, packing.system_folders)):
        for path in (folder / file.name, folder / f"{file.name}.gz"):
            try:
                return path, path.stat().st_mtime_ns
            except OSError:
                continue
    return None


@lru_cache(maxsize=4)
def _read(name: str, images: tuple[Path, int], labels: tuple[Path, int]) -> SampleImage | None:
    """The first test image; None if a file is not what it should be."""
    info = DATASETS[name]
    files = info.packings[0].files
    pictures = _verified(files[_IMAGES], images[0])
    classes = _verified(files[_LABELS], labels[0])
    if pictures is None or classes is None:
        return None
    count = info.side**2
    pixels = np.frombuffer(pictures, np.uint8, count, _IMAGE_HEADER).reshape(info.side, info.side)
    word = info.class_names[classes[_LABEL_HEADER]]
    return SampleImage(pixels, f"{info.title}, first test image ({word})")


def _verified(file: DataFile, path: Path) -> bytes | None:
    """The file's bytes, unpacked, if their digest is the published one."""
    try:
        if path.stat().st_size > _LONGEST:
            return None
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                content = stream.read(file.size + 1)
        else:
            content = path.read_bytes()
    except (OSError, EOFError, zlib.error):
        return None
    algorithm, _, digest = (file.digest or "").partition(":")
    if not digest or hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() != digest:
        return None
    return content


@lru_cache(maxsize=1)
def _generated() -> SampleImage:
    info = DATASETS["shapes"]
    images, labels, _, _ = draw_shapes(len(info.class_names), 0)
    word = info.class_names[labels[0]]
    return SampleImage(
        images[0, 0], f"a generated picture ({word.lower()}), no data set is at hand"
    )
