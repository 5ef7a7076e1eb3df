"""Runs as the page tells of them: their names, and their points as far as they are at hand.

Points are read once per server, only those that are new, and shared by all its sessions.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import streamlit as st

from nin_core import NiNConfig, estimate, preset_name, summarize
from nin_core.datasets import DATASETS
from ui.curves import History

if TYPE_CHECKING:
    from nin_core.records import Run
    from nin_core.store import RunStore

MAX_HISTORIES = 160  # runs whose points a server keeps at hand: all of some fans and a comparison


def title(run: Run) -> str:
    """How a run is called wherever runs are listed: "#5 nin-slim-128 · fast · seed 0"."""
    return f"#{run.id} {run.name}"


def network_name(network: NiNConfig) -> str:
    """A preset's name, or what sets the network apart: "NiN 6-16-32 @ 128 px"."""
    widths = "-".join(map(str, network.widths))
    return preset_name(network) or f"NiN {widths} @ {network.image_size} px"


def channels_of(network: NiNConfig) -> dict[str, int]:
    """Output channels of each layer, by its name."""
    return {layer.name: layer.output_shape[0] for layer in summarize(network).layers}


def steps_per_epoch(run: Run) -> float:
    """Steps of one epoch of a run, by which its curves are laid over epochs."""
    if run.train is None:
        return 1.0
    if run.total_steps:
        return run.total_steps / run.train.total_epochs
    data = DATASETS.get(run.dataset)
    return estimate.steps_per_epoch(run.train, data.train_size if data else 60_000)


def images_after(run: Run, steps: float) -> float:
    """Training images in a run's first so many steps; the last step of an epoch may have fewer."""
    data = DATASETS.get(run.dataset)
    if run.train is None or data is None:
        return math.nan
    images = min(run.train.subset or data.train_size, data.train_size)
    epochs, rest = divmod(steps, steps_per_epoch(run))
    return epochs * images + min(rest * run.train.batch_size, images)


def with_final_test(run: Run, history: History) -> History:
    """A run's points with the test that was made after its end, which has no row of its own."""
    images, accuracy = run.evaluated_images, run.evaluated_accuracy
    if run.active or not images or accuracy is None:
        return history
    if run.checkpoint_step not in (None, run.step):
        return history  # it came further than the weights that were kept and measured
    data = DATASETS.get(run.dataset)
    whole = data is not None and images >= data.test_size
    return history.tested(run.step, accuracy, images, whole=whole, seconds=run.seconds)


def local_time(moment: datetime) -> datetime:
    """A moment in the time zone of the browser."""
    try:
        return moment.astimezone(ZoneInfo(st.context.timezone or "UTC"))
    except (KeyError, ValueError, OSError):  # a zone that is not known here is a KeyError
        return moment


class Histories:
    """The points of the runs that were looked at last, for all sessions of this server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # And whether the run had ended by then, so that no more come.
        self._kept: OrderedDict[tuple[int, datetime, int], tuple[History, bool]] = OrderedDict()

    def of(self, store: RunStore, run: Run) -> History:
        """All points of `run`, of which only the new ones are read."""
        # Another database may give the same numbers, and a new attempt takes points back.
        key = (run.id, run.created_at, run.attempt)
        with self._lock:
            history, complete = self._kept.get(key, (History(), False))
        # To let a run go on takes its points after the checkpoint away, before the next attempt.
        if run.state != "running" and len(history.step) and history.step[-1] > run.step:
            history, complete = History(), False
        # Two sessions may read the same rows; each extends what it has, so none is added twice.
        if not complete:
            history = history.extended(store.metrics(run.id, history.last_id))
        with self._lock:
            self._kept[key] = history, not run.active and run.worker is None
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_HISTORIES:
                self._kept.popitem(last=False)
        return history


@st.cache_resource(show_spinner=False)
def histories() -> Histories:
    """The one `Histories` of this server."""
    return Histories()


def plain(text: str) -> str:
    """A text that Markdown shows as it is: names are people's."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|$~:<>^&" else c for c in text)
