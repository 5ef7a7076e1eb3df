"""From the name of a data set to uint8 tensors in memory, and from those to batches.

Choices made here:

* `data_files` finds and verifies the files, `data_formats` reads them.
* The whole set stays uint8 (47 MB for Fashion-MNIST); `prepare` makes float batches of it.
* Importing this module does not load torch; `find_dataset` does not either.
"""

from __future__ import annotations

import functools
import os
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .data_files import (
    MEGABYTE,
    DataError,
    Progress,
    by_hand,
    candidates,
    folders_of,
    lock,
    plausible,
    search,
)
from .data_formats import READERS, Arrays
from .datasets import DATASETS, DatasetInfo
from .machine import PROJECT
from .shapes import draw_shapes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    Attributes:
        name, title: as in `DATASETS`.
        train_images, test_images: uint8 [N, channels, side, side].
        train_labels, test_labels: int64 [N].
        class_names: one per label.
        mean, std: per channel, of pixels / 255 over the training set.
        generated: whether the images were drawn by us.
        source: a sentence for people: where the files were, how they were verified, and which bad
            files were found on the way.
    """

    name: str
    title: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    generated: bool
    source: str


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """Whether a data set is at hand, by names and sizes of files; loading verifies the bytes.

    Attributes:
        where: the folder(s), or "" if it is missing or generated.
        sentence: for people; says what to do if it is missing.
    """

    name: str
    title: str
    available: bool
    where: str
    sentence: str


def data_folder() -> Path:
    """The data folder: NIN_DATA or `data`; a relative path counts from the project's folder.

    Not from the working directory, so that the server and its workers mean the same folder.
    """
    return PROJECT / Path(os.environ.get("NIN_DATA") or "data").expanduser()


def dataset_info(name: str | DatasetInfo) -> DatasetInfo:
    """The facts about the data set of that name (a `DatasetInfo` is returned as it is).

    Raises:
        DataError: for an unknown name; it lists the known ones.
    """
    if isinstance(name, DatasetInfo):
        return name
    try:
        return DATASETS[name]
    except KeyError:
        raise DataError(
            f"there is no data set {name!r}; there are {', '.join(DATASETS)}."
        ) from None


def load_dataset(
    name: str | DatasetInfo,
    *,
    folder: Path | None = None,
    download: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Find, verify and read a data set; download it if it is nowhere on this computer.

    Args:
        name: a key of `DATASETS`, or the description of another set.
        folder: the data folder; default `data_folder()`.
        download: False: use only what is on this computer.
        progress: called with a sentence and the fraction done (0 to 1) during a download.

    Raises:
        DataError: when it cannot be had; says what to do.
    """
    info = dataset_info(name)
    if info.generated:
        arrays = draw_shapes(info.train_size, info.test_size)
        source = f"{info.title}: drawn by this program, no files needed."
        return _dataset(info, arrays, source)
    root = folder if folder is not None else data_folder()
    # Two sessions of one server that want the same set: the second waits, then finds it.
    with lock(info.name, root):
        found = search(info, root, download, progress or (lambda sentence, fraction: None))
    try:
        arrays = READERS[found.packing.format](info, found.contents)
    except (ValueError, KeyError, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"{info.title} in {found.where()} is not in the format it should have: {error}."
        ) from error
    return _dataset(info, arrays, found.sentence(info))


def find_dataset(name: str | DatasetInfo, *, folder: Path | None = None) -> DatasetStatus:
    """Whether a data set is on this computer, by the names and sizes of its files.

    Cheap enough for every rerun of a page: no file is read, except the last four bytes of an
    archive. A file that an earlier `load_dataset` of this process found bad does not count.
    """
    info = dataset_info(name)
    if info.generated:
        sentence = f"{info.title} needs no files: it is drawn when it is used."
        return DatasetStatus(info.name, info.title, True, "", sentence)
    root = folder if folder is not None else data_folder()
    for packing in info.packings:
        places = [
            next((p for p, _ in candidates(packing, file, root) if plausible(file, p)), None)
            for file in packing.files
        ]
        if all(places):
            where = folders_of([place for place in places if place])
            sentence = f"{info.title} is in {where}."
            return DatasetStatus(info.name, info.title, True, where, sentence)
    size = info.download_bytes / MEGABYTE
    sentence = (
        f"{info.title} is not on this computer yet: it is downloaded when it is first used "
        f"({size:.0f} MB), or {by_hand(info, root)}."
    )
    return DatasetStatus(info.name, info.title, False, "", sentence)


def _dataset(info: DatasetInfo, arrays: Arrays, source: str) -> Dataset:
    """Check the arrays against the description and wrap them as tensors.

    Raises:
        DataError: if shapes, counts or labels are not as described.
    """
    import torch

    train_images, train_labels, test_images, test_labels = arrays
    shape = (info.channels, info.side, info.side)
    for images, labels, size in (
        (train_images, train_labels, info.train_size),
        (test_images, test_labels, info.test_size),
    ):
        if images.shape != (size, *shape) or labels.shape != (size,):
            raise DataError(
                f"{info.title} should have {size:,} images of {shape} with a label each, but its "
                f"files hold images {images.shape} and labels {labels.shape}."
            )
        if labels.max(initial=0) >= info.num_classes:
            raise DataError(f"{info.title} has the label {labels.max()}, which names no class.")
    return Dataset(
        name=info.name,
        title=info.title,
        train_images=torch.from_numpy(np.ascontiguousarray(train_images)),
        train_labels=torch.from_numpy(train_labels.astype(np.int64)),
        test_images=torch.from_numpy(np.ascontiguousarray(test_images)),
        test_labels=torch.from_numpy(test_labels.astype(np.int64)),
        class_names=info.class_names,
        mean=info.mean,
        std=info.std,
        generated=info.generated,
        source=source,
    )


# --- from the set to a batch ------------------------------------------------------------------


def balanced_sample(labels: torch.Tensor, size: int, *, seed: int = 0) -> torch.Tensor:
    """Indices, int64 and ascending, of `size` images with the classes as equal as can be.

    The same arguments give the same images. Fewer than `size` come back only if there are fewer
    labels; where a class runs out, the others fill up.
    """
    import torch

    rng = np.random.default_rng(seed)
    classes = labels.cpu().numpy()
    order = rng.permutation(len(classes))
    # Take the images in rounds: everyone's first, everyone's second, … of the shuffled order.
    by_class = order[np.argsort(classes[order], kind="stable")]
    counts = np.bincount(classes)
    rounds = np.concatenate([np.arange(count) for count in counts])
    chosen = by_class[np.argsort(rounds, kind="stable")[:size]]
    return torch.from_numpy(np.sort(chosen))


# Rec. 601 luma, as in Pillow's conversion to "L".
_LUMA = (0.299, 0.587, 0.114)


def prepare(
    images: torch.Tensor,
    *,
    image_size: int,
    in_channels: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    device: torch.device | str = "cpu",
    channels_last: bool = True,
) -> torch.Tensor:
    """Turn uint8 images into what a network takes: scaled, channels adapted, standardised, resized.

    Args:
        images: uint8 [N, C, H, W].
        image_size, in_channels: of the network. One channel is repeated as often as asked; three
            become one as luma.
        mean, std: per channel of `images`, of pixels / 255; None: pixels stay in 0..1, as in the
            tutorial.

    Returns:
        float32 [N, in_channels, image_size, image_size] on `device`; resized as
        ``F.interpolate(mode="bilinear", align_corners=False)`` does, and only if the size differs.

    Raises:
        DataError: for a number of channels that the images cannot be turned into.
    """
    import torch

    batch = images.to(device).to(torch.float32) / 255
    channels = batch.shape[1]
    if channels == 3 and in_channels == 1:
        luma = torch.tensor(_LUMA, device=batch.device)
        batch = (batch * luma.view(1, 3, 1, 1)).sum(1, keepdim=True)
        if mean is not None and std is not None:
            mean = [sum(w * m for w, m in zip(_LUMA, mean, strict=True))]
            std = [sum(w * s for w, s in zip(_LUMA, std, strict=True))]
    elif channels not in (1, in_channels):
        raise DataError(
            f"the images have {channels} channels and the network takes {in_channels}; "
            f"1 or {channels} input channels would work."
        )
    if mean is not None and std is not None:
        shift = torch.tensor(mean, dtype=torch.float32, device=batch.device).view(1, -1, 1, 1)
        scale = torch.tensor(std, dtype=torch.float32, device=batch.device).view(1, -1, 1, 1)
        batch = (batch - shift) / scale
    height, width = batch.shape[-2:]
    if (height, width) != (image_size, image_size):
        # Bilinear resizing is linear in each direction, so two small matrix products do it; on the
        # CPU 3.5 times as fast as `F.interpolate` for 28 -> 128.
        columns = _interpolation(width, image_size, str(batch.device))
        rows = _interpolation(height, image_size, str(batch.device))
        batch = rows @ (batch @ columns.T)
    if batch.shape[1] != in_channels:
        batch = batch.expand(-1, in_channels, -1, -1)
    form = torch.channels_last if channels_last else torch.contiguous_format
    return batch.contiguous(memory_format=form)


@functools.lru_cache(maxsize=32)
def _interpolation(before: int, after: int, device: str) -> torch.Tensor:
    """Matrix [after, before] that resizes one direction as ``F.interpolate`` does bilinearly."""
    import torch
    import torch.nn.functional as functional

    unit = torch.eye(before).unsqueeze(0)
    resized = functional.interpolate(unit, size=after, mode="linear", align_corners=False)
    return resized[0].T.contiguous().to(device)
