"""A training's state as the bytes of a checkpoint, and back: one safetensors file, no pickle.

The network's weights stand under their own names, so that the file is also what any other program
reads as the network's `state_dict`; all that only a training needs to go on stands under names
that begin with `REST`. Counters are in the file's metadata, as JSON. PyTorch is imported only where
tensors are made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .checks import ConfigError

if TYPE_CHECKING:
    import torch

    from .training_state import TrainingState

REST = "training/"
_COUNTERS = ("step", "epoch", "position", "epoch_ended", "event_due", "seconds")


def pack(state: TrainingState) -> bytes:
    """The state as safetensors bytes."""
    from safetensors.torch import save

    tensors = state.weights | {f"{REST}{name}": value for name, value in state.rest.items()}
    counters = {name: getattr(state, name) for name in _COUNTERS}
    return save(tensors, metadata={"training": json.dumps(counters)})


def unpack(blob: bytes) -> TrainingState:
    """What `pack` was given.

    Raises:
        ConfigError: if the bytes hold no training state (weights alone do not).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from .training_state import TrainingState

    try:
        counters = _counters(blob)
        tensors = load(blob)
        return TrainingState(
            **{name: counters[name] for name in _COUNTERS},
            weights=weights(tensors),
            rest={k.removeprefix(REST): v for k, v in tensors.items() if k.startswith(REST)},
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            "The checkpoint holds no training that could go on; starting a new run would work."
        ) from error


def weights(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The network's own among the tensors of a checkpoint."""
    return {name: value for name, value in tensors.items() if not name.startswith(REST)}


def load_weights(blob: bytes) -> dict[str, torch.Tensor]:
    """The network's weights in a checkpoint's bytes.

    Raises:
        SafetensorError: if they are no safetensors.
    """
    from safetensors.torch import load

    return weights(load(blob))


def holds_training(blob: bytes) -> bool:
    """Whether a training can go on from these bytes, as from `pack`'s; weights alone do not do."""
    try:
        return _COUNTERS[0] in _counters(blob)
    except (KeyError, ValueError, TypeError):
        return False


def _counters(blob: bytes) -> dict[str, Any]:
    # The library reads metadata from files only; the layout is 8 bytes of length, then JSON.
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    return json.loads(header["__metadata__"]["training"])
