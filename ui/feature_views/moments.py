"""The moments of a run: its snapshots and its latest weights, and what they make of a picture.

Choices made here:

* Snapshots are listed from the store at each call, without their bytes; the bytes of one are read
  when its maps are not known yet. The latest checkpoint is a moment too where the run has gone
  further than its last snapshot, so that a run that trains can be followed between snapshots.
* What was computed is kept once for all sessions, bounded in bytes: another moment that comes while
  a run trains costs itself only.
* All moments of one layer go to the browser; how many channels that can be at once follows from
  `FILM_BYTES`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import streamlit as st

from nin_core.snapshots import Snapshots
from ui import resources
from ui.components import Film, reel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from nin_core import NiNConfig
    from nin_core.features import Array
    from nin_core.records import Checkpoint, Run

FILM_BYTES = 10_000_000  # of one layer at all moments, as it is sent
VALUE_BYTES = 2  # of a value in a film
MAX_KEPT_BYTES = 96_000_000  # of maps, for all sessions
FRESH_SECONDS = 2.0  # for so long a checkpoint counts as the latest without being asked for again


@dataclass(frozen=True, slots=True)
class Moment:
    """Weights of a run that are kept.

    Attributes:
        step, epoch: after so many steps, in that epoch.
        made_at: seconds since 1970; with run and step it names the weights to the last bit.
        latest: the checkpoint's bytes; None for a snapshot.
    """

    run_id: int
    step: int
    epoch: int
    made_at: float
    latest: bytes | None = field(default=None, repr=False, compare=False)


class Part(NamedTuple):
    """What is looked at: some channels of a layer's maps, or their weights.

    Attributes:
        layer: as in `NiNConfig.plan()`; for weights a convolution.
        start, stop: the channels.
        what: "maps"; "kernels": one of k×k a channel; "matrix": of a 1×1 convolution, a row a
            channel.
        reads: for kernels, the channel of the layer before that they read.
    """

    layer: str
    start: int
    stop: int
    what: Literal["maps", "kernels", "matrix"] = "maps"
    reads: int = 0


def moments(run: Run) -> list[Moment]:
    """The moments of a run by step; none if it has kept no weights."""
    store = resources.store()
    found = [
        Moment(run.id, kept.step, kept.epoch, kept.made_at)
        for kept in Snapshots(store.database).all(run.id)
    ]
    if run.has_checkpoint and (not found or run.step > found[-1].step):
        latest = _latest(run.id, run.attempt)
        if latest is not None and (not found or latest.step > found[-1].step):
            made_at = latest.created_at.timestamp() if latest.created_at else 0.0
            found.append(Moment(run.id, latest.step, latest.epoch, made_at, latest.blob))
    return found


@st.cache_resource(show_spinner=False, max_entries=4, ttl=FRESH_SECONDS)
def _latest(run_id: int, attempt: int) -> Checkpoint | None:
    return resources.store().load_checkpoint(run_id)


def channels_at_once(moments: int, values: int) -> int:
    """How many channels of `values` numbers each a film of so many moments can hold."""
    return max(1, FILM_BYTES // (VALUE_BYTES * max(moments, 1) * values))


def filmed(
    found: Sequence[Moment], part: Part, network: NiNConfig, picture: tuple[Hashable, Tensor]
) -> tuple[list[Moment], Film | None]:
    """A part of the network at all moments.

    Args:
        picture: its key, and what enters the network.

    Returns:
        The moments whose weights are there (a run that trains on drops some), and their film; None
        if there are none.
    """
    resources.load_torch()
    key, pixels = picture
    seen = (part, key) if part.what == "maps" else part
    names = tuple((moment.run_id, moment.step, moment.made_at) for moment in found)
    missing, made = _film(names, seen, list(found), part, network, pixels)
    return [moment for moment in found if moment.step not in missing], made


@st.cache_resource(show_spinner=False, max_entries=6)
def _film(
    names: tuple[tuple[int, int, float], ...],
    seen: Hashable,
    _found: list[Moment],
    _part: Part,
    _network: NiNConfig,
    _pixels: Tensor,
) -> tuple[frozenset[int], Film | None]:
    values = []
    missing = set()
    for name, moment in zip(names, _found, strict=True):
        maps = _kept().get(
            (name, seen),
            lambda moment=moment: _values(moment, _part, _network, _pixels),
        )
        if maps is None:
            missing.add(moment.step)
        else:
            values.append(maps)
    return frozenset(missing), reel(values) if values else None


def _values(moment: Moment, part: Part, network: NiNConfig, pixels: Tensor) -> Array | None:
    """The part at one moment, ``[channels, height, width]``; None if its weights are gone."""
    from nin_core.checkpoints import load_weights
    from nin_core.features import extract_feature_maps, load_model

    blob = moment.latest
    if blob is None:
        blob = Snapshots(resources.store().database).load(moment.run_id, moment.step)
    if blob is None:
        return None
    if part.what == "maps":
        maps = extract_feature_maps(load_model(network, blob), pixels, [part.layer])[part.layer]
        return maps[part.start : part.stop].copy()
    weights = load_weights(blob)[f"{part.layer}.weight"].float().numpy()[part.start : part.stop]
    shown = weights[:, :, 0, 0][None] if part.what == "matrix" else weights[:, part.reads]
    return shown.copy()


class KeptArrays:
    """Arrays by name, the most recently asked for, at most so many bytes. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._arrays: OrderedDict[Hashable, NDArray[np.generic]] = OrderedDict()
        self.size = 0  # bytes

    def get(self, name: Hashable, make: Callable[[], Array | None]) -> Array | None:
        """The array of this name; made if it is not there. None is not kept."""
        with self._lock:
            if name in self._arrays:
                self._arrays.move_to_end(name)
                return self._arrays[name]
        made = make()  # unlocked: others need not wait for it
        if made is None:
            return None
        with self._lock:
            if name not in self._arrays:
                self._arrays[name] = made
                self.size += made.nbytes
            while self.size > self._max_bytes:
                _, oldest = self._arrays.popitem(last=False)
                self.size -= oldest.nbytes
        return made


@st.cache_resource(show_spinner=False)
def _kept() -> KeptArrays:
    """Those of this server."""
    return KeptArrays(MAX_KEPT_BYTES)
