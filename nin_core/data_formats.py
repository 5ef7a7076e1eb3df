"""The files of data sets as arrays: IDX, and CIFAR-10's archives.

Choices made here:

* No pickle: CIFAR-10 is read from its binary archive. Where torchvision left only its pickled
  batches, their opcodes are *listed* with `pickletools` and the pixels and labels picked out;
  nothing in them is ever executed.
* What is given was verified before (see `data_files`); a file that is not in its format all the
  same raises a ValueError, or an error of the archive it is in.
"""

from __future__ import annotations

import io
import pickletools
import struct
import tarfile
from collections.abc import Callable, Sequence

import numpy as np

from .datasets import DatasetInfo

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def idx_size(content: bytes | bytearray) -> int:
    """The length that the header of an IDX file of bytes announces; -1 if it is no such file."""
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        return -1
    size = 1
    for dimension in struct.unpack_from(f">{content[3]}I", content, 4):
        size *= dimension
    return 4 + 4 * content[3] + size


def _idx(content: bytearray) -> np.ndarray:
    """The array in an IDX file of unsigned bytes (format: yann.lecun.com/exdb/mnist)."""
    if idx_size(content) != len(content):
        raise ValueError("an IDX file has a header that does not fit it")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def _read_idx(info: DatasetInfo, contents: Sequence[bytearray]) -> Arrays:
    train_images, train_labels, test_images, test_labels = map(_idx, contents)
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


def _read_cifar_binary(info: DatasetInfo, contents: Sequence[bytearray]) -> Arrays:
    """Records of one label byte and the pixels, channel by channel."""
    record = 1 + info.channels * info.side**2
    limit = record * info.train_size
    batches = _members(contents[0], [f"{name}.bin" for name in _BATCHES], limit)
    records = [np.frombuffer(batch, np.uint8).reshape(-1, record) for batch in batches]
    return _join([(batch[:, 1:], batch[:, 0]) for batch in records], info)


def _read_cifar_python(info: DatasetInfo, contents: Sequence[bytearray]) -> Arrays:
    return _join([_pickled_batch(batch) for batch in contents], info)


def _read_cifar_python_tar(info: DatasetInfo, contents: Sequence[bytearray]) -> Arrays:
    limit = 2 * info.train_size * info.channels * info.side**2
    batches = _members(contents[0], _BATCHES, limit)
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


def _join(batches: Sequence[tuple[np.ndarray, np.ndarray]], info: DatasetInfo) -> Arrays:
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


READERS: dict[str, Callable[[DatasetInfo, Sequence[bytearray]], Arrays]] = {
    "idx": _read_idx,
    "cifar-binary": _read_cifar_binary,
    "cifar-python": _read_cifar_python,
    "cifar-python-tar": _read_cifar_python_tar,
}
