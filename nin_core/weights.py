"""Weights from elsewhere: hostile bytes -> a checked checkpoint -> a finished run that is measured.

Choices made here:

* safetensors only. A pickle runs whatever program its author put into it, so it is refused by its
  first bytes, with the two lines that turn it into safetensors where it can be trusted.
* The header is read here and believed in nothing: lengths, offsets, shapes and types are checked
  against each other and the file's size before anything is made of them. No torch, no copy of the
  file: a page reads an upload in milliseconds.
* Two ways of naming are understood: this project's ("block1.conv.weight"), and numbers, as the
  tutorial's nested `nn.Sequential` gives them ("0.0.weight", "0.2.weight", …), whose layers are
  taken in order. A common prefix such as "module." or "net." is left out.
* What is stored is a checkpoint like any other: float32 under this project's names.
* An imported run is finished from its first moment. `scoring` measures it on its test set.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .checks import ConfigError
from .config import NiNConfig

if TYPE_CHECKING:
    from .store import RunStore

Shape = tuple[int, ...]

# The training state that a checkpoint of ours may hold besides the weights (see checkpoints.py).
_REST = "training/"

CONVERT = (
    'weights = torch.load("weights.pt", weights_only=True)\n'
    'safetensors.torch.save_file(weights, "weights.safetensors")'
)

_MAX_HEADER = 1_000_000  # bytes; a network of 12 blocks needs about 20,000
_MAX_TENSORS = 1000
# U8 is what a checkpoint of ours keeps the states of random generators in; no weight has it.
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1}
_FLOATS = ("F64", "F32", "F16", "BF16")
# First bytes of what people have under the name of weights, and what it is.
_PICKLES = (
    (b"PK\x03\x04", "a PyTorch file (.pt or .pth), which is a zip archive around a pickle"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "an old PyTorch file, which is a pickle"),
    *((bytes((0x80, protocol)), "a pickle") for protocol in range(6)),
)
_OTHERS = (
    (b"\x89HDF", "an HDF5 file, as Keras writes it"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"GGUF", "a GGUF file"),
    (b"\x08\x07\x12", "an ONNX file"),
    (b"\x08\x08\x12", "an ONNX file"),
    (b"\x08\x0a\x12", "an ONNX file"),
)


class PickleError(ConfigError):
    """The file is a pickle, or holds one; `CONVERT` turns it into safetensors."""


class _Entry(NamedTuple):
    """A tensor in a file: its type, shape and place among the data."""

    dtype: str
    shape: Shape
    begin: int
    end: int


@dataclass(frozen=True)
class ImportedWeights:
    """Weights that fit a network.

    Attributes:
        checkpoint: safetensors bytes, float32, under the network's own names.
        numbered: whether the file named its layers by numbers.
        tensors: how many there were.
    """

    checkpoint: bytes
    numbered: bool
    tensors: int


def read_weights(config: NiNConfig, data: bytes) -> ImportedWeights:
    """Read a `state_dict` in safetensors for the network of `config`.

    Args:
        data: the whole file. Half and double precision become float32.

    Raises:
        ConfigError: in one sentence, for every file that does not hold just this network's
            weights; where shapes differ it names the first tensor with both.
    """
    header, start = _header(data)
    entries = {name: entry for name, entry in header.items() if not name.startswith(_REST)}
    if not entries:
        raise _error("The file holds no tensors; a network's state_dict would work.")
    names = _without_prefix(list(entries), config)
    numbered = all(_NUMBERED.fullmatch(name) for name in names)
    pairs = (_by_number if numbered else _by_name)(config, names, entries)
    tensors = {}
    for ours, theirs in pairs:
        entry = entries[theirs]
        counts = ours.endswith("num_batches_tracked")
        if counts == (entry.dtype in _FLOATS):
            raise _error(
                f"{theirs} holds values of the type {entry.dtype}; "
                f"{'I64' if counts else 'F32'} would work."
            )
        tensors[ours] = _values(data[start + entry.begin : start + entry.end], entry)
    for name in _expected(config):
        # PyTorch writes it since 0.4.1; without it batch norm starts to count anew.
        if name.endswith("num_batches_tracked"):
            tensors.setdefault(name, np.zeros((), dtype=np.int64))
    from safetensors.numpy import save

    return ImportedWeights(save(tensors), numbered, len(entries))


def plain_weights(checkpoint: bytes) -> bytes:
    """A run's checkpoint without the state of its training: weights alone, as safetensors.

    Raises:
        ConfigError: if it is no safetensors.
    """
    from safetensors.numpy import save

    header, start = _header(checkpoint)
    return save(
        {
            name: _values(checkpoint[start + entry.begin : start + entry.end], entry)
            for name, entry in header.items()
            if not name.startswith(_REST)
        }
    )


def weights_file(store: RunStore, run_id: int) -> bytes:
    """A run's latest weights as safetensors, without the state of its training.

    Raises:
        ConfigError: if it has none (any more).
    """
    kept = store.load_checkpoint(run_id)
    if kept is None:
        raise ConfigError(f"Run #{run_id} has no weights.")
    return plain_weights(kept.blob)


# --- the file ---------------------------------------------------------------------------------


def _error(sentence: str) -> ConfigError:
    return ConfigError(sentence, field="weights")


def _header(data: bytes) -> tuple[dict[str, _Entry], int]:
    """The tensors that a file says it holds, checked, and where its data begin."""
    _refuse_others(data)
    if len(data) < 8:
        raise _error(
            f"The file has {len(data)} bytes, too few for safetensors; it may be cut off, so "
            "saving it again would work."
        )
    length = int.from_bytes(data[:8], "little")
    if length > _MAX_HEADER or data[8:9] not in (b"{", b""):
        raise _error(
            "This is not a safetensors file; safetensors.torch.save_file(model.state_dict(), …) "
            "makes one."
        )
    start = 8 + length
    if start > len(data):
        raise _cut_off(start, len(data))
    try:
        content = json.loads(data[8:start].decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        why = error if isinstance(error, ConfigError) else "its header cannot be read"
        raise _error(f"The file is damaged: {why}; saving it again would work.") from error
    if not isinstance(content, dict):
        raise _error("The file is damaged: its header is no object; saving it again would work.")
    content.pop("__metadata__", None)
    if len(content) > _MAX_TENSORS:
        raise _error(
            f"The file says it holds {len(content):,} tensors, more than any network here has "
            f"({_MAX_TENSORS:,}); weights of this network would work."
        )
    return _entries(content, len(data) - start), start


def _refuse_others(data: bytes) -> None:
    for magic, what in _PICKLES:
        if data.startswith(magic):
            raise PickleError(
                f"This is {what}, and a pickle can run any program on this computer, so it is not "
                "opened; if you trust it, convert it where it comes from with torch.load and "
                "safetensors.torch.save_file.",
                field="weights",
            )
    for magic, what in _OTHERS:
        if data.startswith(magic):
            raise _error(f"This is {what}; weights as safetensors would work.")


def _cut_off(needed: int, there: int) -> ConfigError:
    return _error(
        f"The file is cut off: it says it has {needed:,} bytes and has {there:,}; copying it "
        "again would work."
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object none of whose names comes twice: which of them would count?"""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ConfigError("a name in its header comes twice")
    return found


def _entries(content: dict[str, Any], size: int) -> dict[str, _Entry]:
    entries = {name: _entry(name, item) for name, item in content.items()}
    # The data follow each other without gap or overlap, in some order, to the end of the file.
    end = 0
    for name, entry in sorted(entries.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if entry.begin != end:
            raise _damaged(name, "its place among the data is not where the one before it ends")
        end = entry.end
    if end > size:
        raise _cut_off(end, size)
    if end < size:
        raise _error(
            f"The file is damaged: {size - end:,} bytes belong to no tensor; saving it again would "
            "work."
        )
    return entries


def _entry(name: str, item: Any) -> _Entry:
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(name, "it needs dtype, shape and data_offsets")
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise _error(
            f"{_clip(name)} has the type {_clip(dtype)}; F32 would work, or "
            f"{', '.join(t for t in _FLOATS if t != 'F32')}."
        )
    if not _are_counts(shape) or len(shape) > 8:
        raise _damaged(name, "its shape is no list of whole numbers")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _damaged(name, "its data_offsets are not two whole numbers")
    begin, end = offsets
    # Python's numbers do not overflow, so no shape can pretend to be small.
    if end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise _damaged(name, "its shape does not match the length of its data")
    return _Entry(dtype, tuple(shape), begin, end)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _damaged(name: str, why: str) -> ConfigError:
    return _error(f"The file is damaged at {_clip(name)}: {why}; saving it again would work.")


def _clip(value: object) -> str:
    """A name from the file as it can stand in a sentence."""
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= 60 else f"{text[:59]}…"


def _values(data: bytes, entry: _Entry) -> np.ndarray[Any, Any]:
    """A tensor's values: float32, or int64 for a count."""
    if entry.dtype == "BF16":  # the upper half of a float32
        halves = np.frombuffer(data, dtype="<u2").astype(np.uint32)
        return (halves << 16).view(np.float32).reshape(entry.shape)
    code = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}[
        entry.dtype
    ]
    values = np.frombuffer(data, dtype=code).reshape(entry.shape)
    with np.errstate(over="ignore"):
        return values.astype(np.float32 if entry.dtype in _FLOATS else np.int64)


# --- whose weights they are -------------------------------------------------------------------

_SUFFIXES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_NUMBERED = re.compile(rf"(?:\d{{1,4}}\.)+(?:{'|'.join(_SUFFIXES)})")


def _expected(config: NiNConfig) -> dict[str, Shape]:
    """The network's `state_dict`: names and shapes, in order."""
    found: dict[str, Shape] = {}
    for layer in config.plan():
        if layer.kind in ("conv", "conv1x1"):
            window = (layer.kernel_size, layer.kernel_size)
            found[f"{layer.name}.weight"] = (layer.out_channels, layer.in_channels, *window)
            if layer.bias:
                found[f"{layer.name}.bias"] = (layer.out_channels,)
        elif layer.kind == "batch_norm":
            for suffix in _SUFFIXES:
                counts = suffix == "num_batches_tracked"
                found[f"{layer.name}.{suffix}"] = () if counts else (layer.out_channels,)
    return found


def _without_prefix(names: list[str], config: NiNConfig) -> dict[str, str]:
    """Each name without the prefix that all have in common ("net.0.0.weight"), to the name."""
    own = {layer.name.partition(".")[0] for layer in config.plan()}
    short = list(names)
    while True:
        heads = {name.partition(".")[0] for name in short}
        head = heads.pop()
        if heads or head.isdecimal() or head in own or not all("." in name for name in short):
            return dict(zip(short, names, strict=True))
        short = [name.partition(".")[2] for name in short]


def _by_name(
    config: NiNConfig, names: dict[str, str], entries: dict[str, _Entry]
) -> Iterator[tuple[str, str]]:
    expected = _expected(config)
    if not set(names) & set(expected):
        raise _error(
            f"The file's first tensor is called {_clip(next(iter(names.values())))}; names like "
            f"{next(iter(expected))} or 0.0.weight would work."
        )
    for name, shape in expected.items():
        if name not in names:
            if name.endswith("num_batches_tracked"):
                continue
            raise _error(
                f"The file has no {name}, which this network needs in the shape {_times(shape)}; "
                "choose the network whose weights they are."
            )
        _compare(names[name], entries[names[name]].shape, name, shape)
        yield name, names[name]
    if unknown := [names[name] for name in names if name not in expected]:
        raise _unknown(unknown[0], entries)


def _by_number(
    config: NiNConfig, names: dict[str, str], entries: dict[str, _Entry]
) -> Iterator[tuple[str, str]]:
    theirs = _grouped(sorted(names, key=_order))
    ours = _grouped(list(_expected(config)))
    expected = _expected(config)
    for (layer, suffixes), (place, found) in zip(ours, theirs, strict=False):
        for suffix in suffixes:
            name = f"{layer}.{suffix}"
            if suffix not in found:
                if suffix == "num_batches_tracked":
                    continue
                raise _error(
                    f"The file's layer {place} has no {suffix}, but this network's {layer} needs "
                    f"one in the shape {_times(expected[name])}; choose the network whose weights "
                    "they are."
                )
            there = names[f"{place}.{suffix}"]
            _compare(there, entries[there].shape, name, expected[name])
            yield name, there
        if extra := [suffix for suffix in found if suffix not in suffixes]:
            raise _unknown(names[f"{place}.{extra[0]}"], entries, layer)
    if len(theirs) > len(ours):
        place, suffixes = theirs[len(ours)]
        raise _unknown(names[f"{place}.{suffixes[0]}"], entries)
    if len(ours) > len(theirs):
        layer, suffixes = ours[len(theirs)]
        raise _error(
            f"The file has {len(theirs)} layers with weights, but this network has {len(ours)}: "
            f"{layer}.{suffixes[0]} of the shape {_times(expected[f'{layer}.{suffixes[0]}'])} is "
            "the first that is missing; choose the network whose weights they are."
        )


def _order(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".")[:-1])


def _grouped(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Layers in order, each with what it has: ("0.0", ["weight", "bias"])."""
    found: dict[str, list[str]] = {}
    for name in names:
        layer, _, suffix = name.rpartition(".")
        found.setdefault(layer, []).append(suffix)
    return list(found.items())


def _compare(theirs: str, shape: Shape, ours: str, expected: Shape) -> None:
    if shape != expected:
        needs = "" if theirs == ours else f"{ours} "
        raise _error(
            f"The first tensor that differs is {_clip(theirs)}: it is {_times(shape)} in the file, "
            f"and this network's {needs}is {_times(expected)}; choose the network whose weights "
            "they are."
        )


def _unknown(name: str, entries: dict[str, _Entry], layer: str = "") -> ConfigError:
    where = f"this network's {layer} has not" if layer else "this network does not have"
    return _error(
        f"The file has {_clip(name)} of the shape {_times(entries[name].shape)}, which {where}; "
        "choose the network whose weights they are."
    )


def _times(shape: Shape) -> str:
    return _clip("×".join(map(str, shape))) if shape else "a single number"


# --- as a run ---------------------------------------------------------------------------------


def import_run(
    store: RunStore,
    network: NiNConfig,
    weights: ImportedWeights,
    *,
    dataset: str,
    name: str,
    standardize: bool,
    source: str = "",
) -> int:
    """Make a finished run of weights and begin to measure it on the test set; returns its number.

    Args:
        dataset: whose test images measure it, and whose classes its outputs are.
        standardize: whether the network was trained on standardised pixels, not on 0..1.
        source: the file's name, kept with the checkpoint.

    Raises:
        ConfigError: if the network does not fit the data set.
        StoreError: if the run cannot be written down.
    """
    from .jobs import check_dataset
    from .processes import this_worker
    from .recipes import RECIPES
    from .records import Checkpoint
    from .scoring import measure_beside

    check_dataset(network, dataset)
    # How it was trained is not known; of a recipe only `standardize` matters from here on.
    train = RECIPES["fast"].configure(network, standardize=standardize)
    info = {"imported": source[:200], "numbered": weights.numbered}
    checkpoint = Checkpoint(0, 0, weights.checkpoint, info)
    run_id, attempt = store.create_finished(
        network, train, dataset, name, checkpoint, this_worker()
    )
    measure_beside(store, run_id, attempt)
    return run_id
