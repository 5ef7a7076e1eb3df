"""From the name of a data set to uint8 tensors in memory, and from those to batches.

Choices made here:

* Every byte is verified each time it is loaded (the 55 MB of Fashion-MNIST take a fraction of a
  second), because a digest that was right last month says nothing of today's disk.
* Search order: the data folder, a folder that a package of the system fills, a download. Each file
  is taken from the first place that has it whole. A bad file is named in `Dataset.source` (or in
  the error), replaced if it lies in the data folder, and never used.
* Files are written under a temporary name and moved into place, so two processes that fetch at once
  at worst fetch twice. What a package has as an archive is unpacked into the data folder once.
* No pickle: CIFAR-10 is read from its binary archive. Where torchvision left only its pickled
  batches, they are digest-checked, then their opcodes are *listed* with `pickletools` and the
  pixels and labels picked out; nothing in them is ever executed.
* The whole set stays uint8 (47 MB for Fashion-MNIST); `prepare` makes float batches of it.
* Importing this module does not load torch; `find_dataset` does not either.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import pickletools
import shutil
import struct
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import download as downloader
from .datasets import DATASETS, DataFile, DatasetInfo, Packing
from .shapes import draw_shapes

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, float], None]

PROJECT = Path(__file__).resolve().parent.parent
MEGABYTE = 1_000_000


class DataError(ValueError):
    """A data set that cannot be had: one sentence that says why and what to do."""


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
    with _lock(info.name, root):
        found = _search(info, root, download, progress or (lambda sentence, fraction: None))
    try:
        arrays = _READERS[found.packing.format](info, found)
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
            next((p for p, _ in _places(packing, file, root) if _plausible(file, p)), None)
            for file in packing.files
        ]
        if all(places):
            where = _folders([place for place in places if place])
            sentence = f"{info.title} is in {where}."
            return DatasetStatus(info.name, info.title, True, where, sentence)
    size = info.download_bytes / MEGABYTE
    sentence = (
        f"{info.title} is not on this computer yet: it is downloaded when it is first used "
        f"({size:.0f} MB), or {_by_hand(info, root)}."
    )
    return DatasetStatus(info.name, info.title, False, "", sentence)


# --- finding the files ------------------------------------------------------------------------


class _UnusableError(Exception):
    """Why a file is not used ("is truncated …"); `whole`: it may be a good file of another set."""

    def __init__(self, reason: str, *, whole: bool = False) -> None:
        super().__init__(reason)
        self.whole = whole


class _Good(NamedTuple):
    """A verified file: where it lay, its bytes, and the digest that they were verified by."""

    path: Path
    content: bytearray
    algorithm: str


@dataclass(frozen=True)
class _Found:
    """The verified files of one packing, and sentences about what was noticed on the way."""

    packing: Packing
    goods: list[_Good]
    notes: list[str]

    @property
    def contents(self) -> list[bytearray]:
        return [good.content for good in self.goods]

    def where(self) -> str:
        return _folders([good.path for good in self.goods])

    def sentence(self, info: DatasetInfo) -> str:
        weak = any(good.algorithm != "sha256" for good in self.goods)
        how = "MD5 verified (no SHA-256 is published)" if weak else "SHA-256 verified"
        return " ".join([f"{info.title} from {self.where()}, {how}.", *self.notes])


_locks: dict[tuple[str, Path], threading.Lock] = {}
_locks_guard = threading.Lock()
# What loading found out about a file as it was then: (path, mtime in ns, size) -> usable.
_verdicts: dict[tuple[str, int, int], bool] = {}


def _lock(name: str, root: Path) -> threading.Lock:
    with _locks_guard:
        return _locks.setdefault((name, root), threading.Lock())


def _search(info: DatasetInfo, root: Path, download: bool, progress: Progress) -> _Found:
    """All files of the first complete packing; what is missing of the first is downloaded."""
    bad: dict[Path, _UnusableError] = {}
    incomplete: list[dict[str, _Good]] = []
    for packing in info.packings:
        goods = {
            file.name: good
            for file in packing.files
            if (good := _first_good(packing, file, root, bad)) is not None
        }
        if len(goods) == len(packing.files):
            break
        incomplete.append(goods)
    else:
        packing, goods = info.packings[0], incomplete[0]
        if not download:
            raise _missing(info, root, bad)
        missing = [file for file in packing.files if file.name not in goods]
        goods |= _download(info, packing, missing, root, bad, progress)
    notes = []
    for file in packing.files:
        notes.extend(_replace_bad(packing, file, goods[file.name], root, bad))
        _unpack(packing, file, goods[file.name], root)
    notes.extend(f"{_show(path)} {why} and was not used." for path, why in bad.items())
    return _Found(packing, [goods[file.name] for file in packing.files], notes)


def _places(packing: Packing, file: DataFile, root: Path) -> Iterator[tuple[Path, bool]]:
    """Where a file may lie, in the order of search; whether the place is for this set alone."""
    names = [file.name]
    if file.published is not None and file.published.name != file.name:
        names.append(file.published.name)
        if file.keeps_archive:
            names.reverse()
    for folder in packing.folders:
        for name in names:
            # IDX files of several sets have the same names: the data folder itself is no one's.
            yield root / folder / name, bool(folder) or packing.format != "idx"
    for folder in packing.system_folders:
        for name in names:
            yield Path(folder) / name, False


def _first_good(
    packing: Packing, file: DataFile, root: Path, bad: dict[Path, _UnusableError]
) -> _Good | None:
    """The first place where the file lies as it should be; where it does not goes into `bad`."""
    for path, _ in _places(packing, file, root):
        if path in bad:
            continue
        try:
            return _verified(file, path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except _UnusableError as error:
            bad[path] = error
        except OSError as error:
            bad[path] = _UnusableError(f"cannot be read ({_reason(error)})", whole=True)
    return None


def _verified(file: DataFile, path: Path) -> _Good:
    """The bytes of `file` as they lie (plain or .gz) at `path`, digest-checked.

    Raises:
        _UnusableError: if they are not the bytes they should be.
        OSError: if they cannot be read.
    """
    stat = path.stat()
    key = (str(path), stat.st_mtime_ns, stat.st_size)
    try:
        if stat.st_size > file.size + MEGABYTE:
            raise _UnusableError(f"is far too long ({stat.st_size:,} bytes)", whole=True)
        raw = bytearray(stat.st_size)
        with path.open("rb") as stream:  # into place: a copy of 47 MB is a tenth of a second
            del raw[stream.readinto(raw) :]
        content, algorithm = _checked(file, raw, compressed=path.name != file.name)
    except _UnusableError:
        _verdicts[key] = False
        raise
    _verdicts[key] = True
    return _Good(path, content, algorithm)


def _checked(file: DataFile, raw: bytearray, *, compressed: bool) -> tuple[bytearray, str]:
    """The file's content and the algorithm of the digest that it has been compared with."""
    algorithm, _, expected = (file.digest or "").partition(":")
    content, found = _unpacked(raw, file.size, algorithm) if compressed else (raw, None)
    if len(content) != file.size:
        fewer = len(content) < file.size
        raise _UnusableError(
            f"is truncated ({len(content):,} of {file.size:,} bytes)"
            if fewer
            else f"is longer than it should be ({file.size:,} bytes)",
            whole=not fewer or _idx_size(content) == len(content),
        )
    archive = file.published if file.keeps_archive and compressed else None
    if archive is not None and _digest(raw, "sha256") == archive.sha256:
        return content, "sha256"
    if file.digest is None:
        raise _UnusableError(
            "is not the published archive (its SHA-256 differs)"
            if compressed
            else "cannot be verified without its .gz archive",
            whole=True,
        )
    if (found or _digest(content, algorithm)) != expected:
        label = {"sha256": "SHA-256", "md5": "MD5"}[algorithm]
        raise _UnusableError(f"is not the published file (its {label} differs)", whole=True)
    return content, algorithm


_GZIP = 31  # zlib's word for "a gzip header and the largest window"
_READ, _HASHED = 2**17, 2**20  # bytes that are decompressed and hashed at a time


def _unpacked(raw: bytearray, size: int, algorithm: str) -> tuple[bytearray, str | None]:
    """The content of a gzip file, and its digest, which a second thread has computed meanwhile.

    Of a content that is longer than `size` at least one byte more, of one that has another size no
    digest.

    Args:
        algorithm: "" for none.
    """
    content = bytearray(size + 1)
    whole, packed = memoryview(content), memoryview(raw)
    digest = hashlib.new(algorithm, usedforsecurity=False) if algorithm else None
    filled = hashed = 0
    unpacker = zlib.decompressobj(_GZIP)
    try:
        with ThreadPoolExecutor(1) as second:
            for start in range(0, len(raw), _READ):
                piece: bytes | memoryview = packed[start : start + _READ]
                while piece:
                    if unpacker.eof:  # another member follows
                        unpacker = zlib.decompressobj(_GZIP)
                    part = unpacker.decompress(piece)[: len(whole) - filled]
                    piece = unpacker.unused_data
                    whole[filled : filled + len(part)] = part
                    filled += len(part)
                    if filled > size:
                        return content, None
                if digest is not None and filled - hashed > _HASHED:
                    second.submit(digest.update, whole[hashed:filled])
                    hashed = filled
            if not unpacker.eof:
                raise EOFError
    except (EOFError, zlib.error):
        raise _UnusableError("is truncated or damaged (it cannot be decompressed)") from None
    if filled < size or digest is None:
        return content[:filled], None
    digest.update(whole[hashed:filled])
    for view in (whole, packed):
        view.release()
    del content[size:]
    return content, digest.hexdigest()


def _digest(content: bytearray, algorithm: str) -> str:
    # Not a matter of security for MD5, whose use some systems forbid otherwise.
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()


def _plausible(file: DataFile, path: Path) -> bool:
    """Whether `path` looks like `file` without reading it: by its size, for .gz the one inside."""
    try:
        stat = path.stat()
        if not _verdicts.get((str(path), stat.st_mtime_ns, stat.st_size), True):
            return False
        if path.name == file.name:
            return stat.st_size == file.size and file.digest is not None
        with path.open("rb") as stream:
            stream.seek(-4, os.SEEK_END)  # gzip ends with the size of what it holds
            return struct.unpack("<I", stream.read(4))[0] == file.size
    except (OSError, struct.error):
        return False


# --- fetching, replacing, telling -------------------------------------------------------------


def _download(
    info: DatasetInfo,
    packing: Packing,
    missing: Sequence[DataFile],
    root: Path,
    bad: dict[Path, _UnusableError],
    progress: Progress,
) -> dict[str, _Good]:
    """Download the missing files into the set's own folder; the verified files by name.

    Raises:
        DataError: if that fails; the data folder is then as it was.
    """

    def report(arrived: int, total: int) -> None:
        progress(
            f"Downloading {info.title}: {arrived / MEGABYTE:.0f} of {total / MEGABYTE:.0f} MB",
            arrived / total,
        )

    home = root / packing.folders[0]
    goods: dict[str, _Good] = {}
    arrival = root
    try:
        home.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=root) as temporary:
            published = [file.published for file in missing if file.published is not None]
            downloader.download(published, Path(temporary), report)
            progress(f"Verifying {info.title}", 1.0)
            for file in missing:
                names = [file.name, f"{file.name}.gz"]
                arrival = next(p for n in names if (p := Path(temporary) / n).exists())
                good = _verified(file, arrival)
                goods[file.name] = good._replace(path=_keep(file, good, home))
    except downloader.DownloadError as error:
        why = f" and could not be downloaded ({error})"
        raise _missing(info, root, bad, why) from error
    except _UnusableError as error:
        why = f" and what was downloaded as {arrival.name} {error}"
        raise _missing(info, root, bad, why, remedy="try again later") from error
    except OSError as error:
        why = f" and {_show(root)} cannot be written to ({_reason(error)})"
        remedy = "set NIN_DATA to a folder with room that can be written to"
        raise _missing(info, root, bad, why, remedy=remedy) from error
    return goods


_TEMPORARY = ".download-"


def _sweep(root: Path) -> None:
    """Remove what downloads left that were killed more than a day ago."""
    for folder in root.glob(f"{_TEMPORARY}*"):
        if time.time() - folder.stat().st_mtime > 86_400:
            shutil.rmtree(folder, ignore_errors=True)


def _keep(file: DataFile, good: _Good, folder: Path) -> Path:
    """Put a good file into `folder`, in the form that can be verified best the next time.

    That is the published archive if only this has a SHA-256, else the decompressed file.
    """
    if file.keeps_archive and good.path.name != file.name:
        target = folder / good.path.name
        _write(target, good.path.read_bytes())
    else:
        target = folder / file.name
        _write(target, good.content)
    return target


def _write(target: Path, content: bytes | bytearray) -> None:
    """Write a file so that no reader, and no crash, ever sees half of it under its name."""
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(temporary).chmod(0o644)  # mkstemp's files are for their owner alone
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _unpack(packing: Packing, file: DataFile, good: _Good, root: Path) -> None:
    """Keep what a package of the system has only as an archive, unpacked, for the next time.

    Reading that takes a third of the time; where it cannot be written, nothing is lost.
    """
    packed = good.path.name != file.name and not good.path.is_relative_to(root)
    if packed and not file.keeps_archive:
        with suppress(OSError):
            home = root / packing.folders[0]
            home.mkdir(parents=True, exist_ok=True)
            _keep(file, good, home)


def _replace_bad(
    packing: Packing, file: DataFile, good: _Good, root: Path, bad: dict[Path, _UnusableError]
) -> Iterator[str]:
    """Put good copies where bad ones lay in the data folder; a sentence for each of them.

    A whole file in the data folder itself may belong to another set and is left alone.
    """
    for path, own in list(_places(packing, file, root)):
        if path not in bad or not path.is_relative_to(root) or (bad[path].whole and not own):
            continue
        why = bad.pop(path)
        try:
            kept = good.path if good.path.parent == path.parent else _keep(file, good, path.parent)
            if kept != path:
                path.unlink()
            yield f"{_show(path)} {why} and was replaced."
        except OSError as error:
            yield f"{_show(path)} {why}, was not used and cannot be replaced ({_reason(error)})."


def _missing(
    info: DatasetInfo,
    root: Path,
    bad: dict[Path, _UnusableError],
    why: str = "",
    *,
    remedy: str = "connect to the internet and try again",
) -> DataError:
    """The error for a set that is nowhere to be had: why, the bad files, and the ways out."""
    named = "".join(f"; {_show(path)} {reason}" for path, reason in bad.items())
    return DataError(
        f"{info.title} is not on this computer{why}{named}: {remedy}, or {_by_hand(info, root)}; "
        f"the generated Shapes set works at once."
    )


def _by_hand(info: DatasetInfo, root: Path) -> str:
    """How to supply the files without a download."""
    packing = info.packings[0]
    names = [file.published.name if file.published else file.name for file in packing.files]
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    ways = [f"put {listed} into {_show(root / packing.folders[0])}"]
    if info.package:
        ways.append(f"on Debian or Ubuntu run: sudo apt-get install {info.package}")
    return ", or ".join(ways)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _show(path: Path) -> str:
    """A path as people read it: relative to the project where it lies inside."""
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)


def _folders(paths: Sequence[Path]) -> str:
    return " and ".join(dict.fromkeys(_show(path.parent) for path in paths))


# --- reading the formats ----------------------------------------------------------------------

_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _idx_size(content: bytes | bytearray) -> int:
    """The length that the header of an IDX file of bytes announces; -1 if it is no such file."""
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        return -1
    size = 1
    for dimension in struct.unpack_from(f">{content[3]}I", content, 4):
        size *= dimension
    return 4 + 4 * content[3] + size


def _idx(content: bytearray) -> np.ndarray:
    """The array in an IDX file of unsigned bytes (format: yann.lecun.com/exdb/mnist)."""
    if _idx_size(content) != len(content):
        raise ValueError("an IDX file has a header that does not fit it")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def _read_idx(info: DatasetInfo, found: _Found) -> _Arrays:
    train_images, train_labels, test_images, test_labels = map(_idx, found.contents)
    return train_images[:, None], train_labels, test_images[:, None], test_labels


_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def _members(archive: bytearray, names: Sequence[str], limit: int) -> list[bytes]:
    """The regular files of those names in a .tar.gz, in that order; nothing touches the disk."""
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            stream = tar.extractfile(member) if name in names and member.isreg() else None
            if stream is not None:
                if member.size > limit:
                    raise ValueError(f"{name} is larger than {limit:,} bytes")
                contents[name] = stream.read()
    absent = [name for name in names if name not in contents]
    if absent:
        raise ValueError(f"{absent[0]} is not in the archive")
    return [contents[name] for name in names]


def _read_cifar_binary(info: DatasetInfo, found: _Found) -> _Arrays:
    """Records of one label byte and the pixels, channel by channel."""
    record = 1 + info.channels * info.side**2
    limit = record * info.train_size
    batches = _members(found.contents[0], [f"{name}.bin" for name in _BATCHES], limit)
    records = [np.frombuffer(batch, np.uint8).reshape(-1, record) for batch in batches]
    return _join([(batch[:, 1:], batch[:, 0]) for batch in records], info)


def _read_cifar_python(info: DatasetInfo, found: _Found) -> _Arrays:
    return _join([_pickled_batch(batch) for batch in found.contents], info)


def _read_cifar_python_tar(info: DatasetInfo, found: _Found) -> _Arrays:
    limit = 2 * info.train_size * info.channels * info.side**2
    batches = _members(found.contents[0], _BATCHES, limit)
    return _join([_pickled_batch(batch) for batch in batches], info)


def _pickled_batch(pickled: bytes | bytearray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n × pixels, flat] and labels [n] of a CIFAR-10 batch, found among its opcodes.

    The batch is a Python 2 pickle of a dict: "labels" is a list of small integers, "data" an array
    whose bytes are its longest string. `pickletools.genops` parses; it never executes.
    """
    key = ""
    labels: list[int] = []
    pixels = b""
    fortran = flag = False
    for opcode, argument, _ in pickletools.genops(bytes(pickled)):
        if opcode.name in ("NEWTRUE", "NEWFALSE"):
            flag = opcode.name == "NEWTRUE"
        elif isinstance(argument, str | bytes):
            text = argument if isinstance(argument, bytes) else argument.encode("latin-1")
            if len(text) > len(pixels):
                # An array's state is (version, shape, dtype, is Fortran order, bytes).
                pixels, fortran = text, flag
            if text in (b"labels", b"data", b"filenames", b"batch_label"):
                key = text.decode()
        elif key == "labels" and opcode.name in ("BININT1", "BININT2", "BININT", "INT"):
            labels.append(int(argument))
    images = np.frombuffer(pixels, np.uint8)
    if not labels or images.size % len(labels):
        raise ValueError("a batch's pixels and labels do not fit each other")
    order = "F" if fortran else "C"
    return images.reshape(len(labels), -1, order=order), np.array(labels)


def _join(batches: Sequence[tuple[np.ndarray, np.ndarray]], info: DatasetInfo) -> _Arrays:
    """CIFAR-10's batches, the last of which is the test set, as images and labels."""

    def images(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        return np.concatenate([p for p, _ in parts]).reshape(
            -1, info.channels, info.side, info.side
        )

    train, test = batches[:-1], batches[-1:]
    return (
        images(train),
        np.concatenate([labels for _, labels in train]),
        images(test),
        test[0][1],
    )


_READERS: dict[str, Callable[[DatasetInfo, _Found], _Arrays]] = {
    "idx": _read_idx,
    "cifar-binary": _read_cifar_binary,
    "cifar-python": _read_cifar_python,
    "cifar-python-tar": _read_cifar_python_tar,
}


def _dataset(info: DatasetInfo, arrays: _Arrays, source: str) -> Dataset:
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
