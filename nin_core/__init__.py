"""The library behind NiN Explorer: the network, its analysis, its training, its pictures.

`from nin_core import summarize` stays light: names that need torch are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .checks import ConfigError
from .config import PRESETS, BlockConfig, NiNConfig, PoolConfig, preset, preset_name
from .summary import LayerSummary, NetworkSummary, summarize

if TYPE_CHECKING:
    from .data import Dataset, load_dataset
    from .events import EpochEvent, StepEvent
    from .features import class_maps, extract_feature_maps, pixel_trace
    from .model import build_nin
    from .recipes import RECIPES, TrainConfig
    from .store import RunStore
    from .training import fit

_LAZY = {
    "Dataset": "data",
    "load_dataset": "data",
    "EpochEvent": "events",
    "StepEvent": "events",
    "class_maps": "features",
    "extract_feature_maps": "features",
    "pixel_trace": "features",
    "build_nin": "model",
    "RECIPES": "recipes",
    "TrainConfig": "recipes",
    "RunStore": "store",
    "fit": "training",
}

__all__ = [
    "PRESETS",
    "RECIPES",
    "BlockConfig",
    "ConfigError",
    "Dataset",
    "EpochEvent",
    "LayerSummary",
    "NetworkSummary",
    "NiNConfig",
    "PoolConfig",
    "RunStore",
    "StepEvent",
    "TrainConfig",
    "build_nin",
    "class_maps",
    "extract_feature_maps",
    "fit",
    "load_dataset",
    "pixel_trace",
    "preset",
    "preset_name",
    "summarize",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
