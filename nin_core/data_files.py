"""Where the files of data sets are: found, verified, downloaded, put right.

Choices made here:

* Every byte is verified each time it is loaded (the 55 MB of Fashion-MNIST take a fraction of a
  second), because a digest that was right last month says nothing of today's disk.
* Search order: the data folder, a folder that a package of the system fills, a download. Each file
  is taken from the first place that has it whole. A bad file is named in `Found.sentence` (or in
  the error), replaced if it lies in the data folder, and never used.
* Files are written under a temporary name and moved into place, so two processes that fetch at once
  at worst fetch twice. What a package has as an archive is unpacked into the data folder once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import download as downloader
from .data_formats import idx_size
from .datasets import DataFile, DatasetInfo, Packing
from .machine import PROJECT

Progress = Callable[[str, float], None]

MEGABYTE = 1_000_000


class DataError(ValueError):
    """A data set that cannot be had: one sentence that says why and what to do."""


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
class Found:
    """The verified files of one packing, and sentences about what was noticed on the way."""

    packing: Packing
    goods: list[_Good]
    notes: list[str]

    @property
    def contents(self) -> list[bytearray]:
        """The files' bytes, in the order of the packing."""
        return [good.content for good in self.goods]

    def where(self) -> str:
        """The folders they lay in, for people."""
        return folders_of([good.path for good in self.goods])

    def sentence(self, info: DatasetInfo) -> str:
        """Where they were, how they were verified, and which bad files were found on the way."""
        weak = any(good.algorithm != "sha256" for good in self.goods)
        how = "MD5 verified (no SHA-256 is published)" if weak else "SHA-256 verified"
        return " ".join([f"{info.title} from {self.where()}, {how}.", *self.notes])


_locks: dict[tuple[str, Path], threading.Lock] = {}
_locks_guard = threading.Lock()
# What loading found out about a file as it was then: (path, mtime in ns, size) -> usable.
_verdicts: dict[tuple[str, int, int], bool] = {}


def lock(name: str, root: Path) -> threading.Lock:
    """What whoever looks for a set in this data folder is to hold meanwhile."""
    with _locks_guard:
        return _locks.setdefault((name, root), threading.Lock())


def search(info: DatasetInfo, root: Path, download: bool, progress: Progress) -> Found:
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
    return Found(packing, [goods[file.name] for file in packing.files], notes)


def candidates(packing: Packing, file: DataFile, root: Path) -> Iterator[tuple[Path, bool]]:
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
    for path, _ in candidates(packing, file, root):
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
            whole=not fewer or idx_size(content) == len(content),
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


def plausible(file: DataFile, path: Path) -> bool:
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
    for path, own in list(candidates(packing, file, root)):
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
        f"{info.title} is not on this computer{why}{named}: {remedy}, or {by_hand(info, root)}; "
        f"the generated Shapes set works at once."
    )


def by_hand(info: DatasetInfo, root: Path) -> str:
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


def folders_of(paths: Sequence[Path]) -> str:
    """The folders of these files as people read them, each once."""
    return " and ".join(dict.fromkeys(_show(path.parent) for path in paths))
