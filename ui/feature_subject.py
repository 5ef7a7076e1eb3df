"""What the Feature maps page looks at: a network with its weights, and a picture.

Choices made here:

* A `Subject` (which weights) and a `Picture` (which pixels) each have a key that names them to the
  last bit: whatever is computed from them is cached under both.
* The page never waits for a run: one that still trains is shown with its latest checkpoint, which
  the next rerun replaces by a newer one.
* Every picture, a test image too, goes the same way into the network (`to_network_input`).
* `?run=12` (or `?run=untrained`, with `&seed=3`) says which network is shown, so that other pages
  can link here.
* Which picture it is, `ui.feature_images` lets the user choose.
* Nothing here imports torch when it is imported; `resources.load_torch` does, behind a spinner.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from nin_core import ConfigError, NiNConfig, preset_name, summarize
from nin_core.datasets import DATASETS, DatasetInfo
from nin_core.images import ImageSteps, Pixels, Square, to_network_input
from ui import numbers, resources

if TYPE_CHECKING:
    from torch import nn

    from nin_core.records import Checkpoint, Run

UNTRAINED = "untrained"
FALLBACK = "shapes"  # the data set that is always there
# What one picture may cost: beyond this it takes many seconds, or the memory of all pages.
MAX_MACS = 20_000_000_000
MAX_PARAMETERS = 50_000_000
MAX_ACTIVATION_BYTES = 128_000_000


# --- which network ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A network with its weights.

    Attributes:
        key: names the weights; hashable.
        network: the architecture.
        data: the set whose images it was trained on (untrained: that it is shown).
        standardize: whether its inputs are standardised.
        weights: a checkpoint; None for the untrained network with this `seed`.
    """

    key: tuple[Any, ...]
    network: NiNConfig
    data: DatasetInfo
    standardize: bool
    weights: bytes | None = field(repr=False, default=None)
    seed: int = 0

    @property
    def computed_key(self) -> tuple[Any, ...]:
        """Names what is computed: the weights, and the set whose mean its inputs are made with."""
        return (*self.key, self.data.name)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class map; numbers where the data set has another count of classes."""
        if len(self.data.class_names) == self.network.num_classes:
            return self.data.class_names
        return tuple(f"Class {number}" for number in range(self.network.num_classes))


def choose_network(config: NiNConfig) -> Subject:
    """Let the user pick a run that has weights, or the sidebar's network untrained."""
    runs = _runs()
    usable = _usable(runs)
    options = [*usable, UNTRAINED]
    _take_link(options, runs)
    # Who saw the untrained network for want of runs wants to see the first run there is.
    if usable and st.session_state.pop("fm:no runs", False):
        st.session_state["fm:network"] = options[0]
    st.session_state["fm:no runs"] = not usable
    keep_valid("fm:network", options)
    chosen = st.selectbox(
        "Network",
        options,
        key="fm:network",
        format_func=lambda option: network_title(usable.get(option)),
        persist_state="session",
    )
    st.session_state["fm:link"] = chosen
    if st.query_params.get("run") != chosen:
        st.query_params["run"] = chosen
    waiting = [run for run in runs if run.active and not run.has_checkpoint]
    if not usable:
        st.caption(
            f"Run #{waiting[0].id} has no checkpoint yet: it appears here after its first ten "
            "seconds of training. Until then, look at a network before it has learned anything."
            if waiting
            else "No run has weights yet: start one on the Training page. Until then, this is the "
            "sidebar's network before it has learned anything."
        )
    run = usable.get(chosen)
    if run is not None and "seed" in st.query_params:
        del st.query_params["seed"]
    subject = _untrained_subject(config) if run is None else _trained_subject(run)
    refuse_too_large(subject.network)
    return subject


def usable_runs() -> dict[str, Run]:
    """The runs that have weights to look at, newest first, by their number as a text."""
    return _usable(_runs())


def _usable(runs: list[Run]) -> dict[str, Run]:
    return {str(run.id): run for run in runs if run.has_checkpoint and run.problem is None}


def _runs() -> list[Run]:
    """The runs, newest first; none if the store cannot be used, which is then said."""
    from nin_core.store import StoreError

    try:
        return resources.store().list_runs()
    except StoreError as error:
        st.warning(f"Runs cannot be shown: {error}", icon=":material/database_off:")
        return []


def _take_link(options: list[str], runs: list[Run]) -> None:
    """Choose the run that the URL names, if it is not the one that this page wrote there."""
    linked = st.query_params.get("run")
    if linked is None or st.session_state.get("fm:link") == linked:
        return
    st.session_state["fm:link"] = linked
    if linked in options:
        st.session_state["fm:network"] = linked
        return
    run = next((run for run in runs if str(run.id) == linked), None)
    if run is None:
        st.info(f"The link's run #{linked[:12]} does not exist (any more).")
    else:
        st.info(run.problem or f"Run #{run.id} has no checkpoint yet, so it cannot be shown.")


def network_title(run: Run | None) -> str:
    """ "#3 a name · 84.1 %"; None: the sidebar's network."""
    if run is None:
        return "Untrained: the sidebar's network"
    accuracy = "" if run.test_accuracy is None else f" · {percent(run.test_accuracy)}"
    return f"#{run.id} {run.name}{accuracy}{' · training' if run.active else ''}"


def _trained_subject(run: Run) -> Subject:
    assert run.network is not None
    checkpoint = _checkpoint(run)
    if checkpoint is None:
        st.error(f"Run #{run.id}'s checkpoint is gone; choose another run.")
        st.stop()
    title = preset_name(run.network) or f"widths {'-'.join(map(str, run.network.widths))}"
    state = {
        "running": "still training; these are its latest saved weights",
        "queued": "waiting for its turn; these are its latest saved weights",
        "finished": "trained to its end",
    }.get(run.state, run.state)
    data = DATASETS.get(run.dataset, DATASETS[FALLBACK])
    if run.imported:
        st.caption(f"{title} with imported weights, on {data.title}.")
    else:
        st.caption(
            f"{title} on {data.title}, {state} (epoch {checkpoint.epoch}, "
            f"step {checkpoint.step:,})."
        )
    if run.active:
        st.button("Show newer weights", icon=":material/refresh:")  # any rerun loads the latest
    return _with_weights(run, checkpoint)


def run_subject(run: Run) -> Subject | None:
    """A run with its latest weights; None if they are gone."""
    checkpoint = _checkpoint(run)
    return None if checkpoint is None else _with_weights(run, checkpoint)


def _with_weights(run: Run, checkpoint: Checkpoint) -> Subject:
    assert run.network is not None
    assert run.train is not None
    return Subject(
        key=("run", run.id, run.attempt, checkpoint.step, checkpoint.created_at),
        network=run.network,
        data=DATASETS.get(run.dataset, DATASETS[FALLBACK]),
        standardize=run.train.standardize,
        weights=checkpoint.blob,
    )


def _checkpoint(run: Run) -> Checkpoint | None:
    if run.active:
        return resources.store().load_checkpoint(run.id)
    return _final_checkpoint(run.id, run.attempt, run.state, run.step)


@st.cache_resource(show_spinner=False, max_entries=4)
def _final_checkpoint(run_id: int, attempt: int, state: str, step: int) -> Checkpoint | None:
    return resources.store().load_checkpoint(run_id)


def _untrained_subject(config: NiNConfig) -> Subject:
    from nin_core.data import find_dataset

    at_hand = [name for name in DATASETS if find_dataset(name).available]
    sets, seeds = st.columns([5, 3])
    with sets:
        keep_valid("fm:data", at_hand)
        name = st.selectbox(
            "Pictures",
            at_hand,
            key="fm:data",
            format_func=lambda name: DATASETS[name].title,
            persist_state="session",
        )
    linked = st.query_params.get("seed", "")
    if "fm:seed" not in st.session_state and re.fullmatch(r"\d{1,4}", linked):
        st.session_state["fm:seed"] = int(linked)
    with seeds:
        seed = st.number_input(
            "Seed",
            0,
            9999,
            key="fm:seed",
            persist_state="session",
            help="PyTorch's random initial weights come from it: another seed, other maps.",
        )
    if seed:
        st.query_params["seed"] = str(seed)
    elif linked:
        del st.query_params["seed"]
    return Subject(
        key=(UNTRAINED, config, int(seed)),
        network=config,
        data=DATASETS[name],
        standardize=True,
        seed=int(seed),
    )


def refuse_too_large(network: NiNConfig) -> None:
    """End the page, or the fragment, with a sentence if the network's maps would take too long."""
    summary = summarize(network)
    for value, limit, what in (
        (summary.total_macs, MAX_MACS, "MACs a picture"),
        (summary.total_parameters, MAX_PARAMETERS, "parameters"),
        (summary.total_activation_bytes, MAX_ACTIVATION_BYTES, "bytes of maps a picture"),
    ):
        if value > limit:
            st.warning(
                f"This network has {numbers.short(value)} {what}, and this page shows up to "
                f"{numbers.short(limit)}; choose smaller widths or a smaller image."
            )
            st.stop()


def model_of(subject: Subject) -> nn.Sequential:
    """The module, in eval mode, from a bounded cache; sessions share it and must not change it."""
    resources.load_torch()
    if subject.weights is None:
        return _untrained_model(subject.network, subject.seed)
    try:
        return _trained_model(subject.key, subject.network, subject.weights)
    except ConfigError as error:
        st.error(f"These weights cannot be shown: {error}")
        st.stop()


@st.cache_resource(show_spinner=False, max_entries=3)
def _untrained_model(network: NiNConfig, seed: int) -> nn.Sequential:
    from nin_core.features import untrained_model

    return untrained_model(network, seed)


@st.cache_resource(show_spinner=False, max_entries=3)
def _trained_model(key: tuple[Any, ...], _network: NiNConfig, _weights: bytes) -> nn.Sequential:
    from nin_core.features import load_model

    return load_model(_network, _weights)


# --- a picture --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as a network gets it.

    Attributes:
        key: names the pixels; hashable.
        title: what it is, for people.
        truth: its class, if that is one the network knows.
        steps: on the way into the network.
        shown: uint8 ``[S, S]`` or ``[S, S, 3]`` in the network's input size.
    """

    key: tuple[Any, ...]
    title: str
    truth: str | None
    steps: ImageSteps
    shown: Pixels


def picture_of(
    subject: Subject,
    pixels: Pixels,
    *,
    key: tuple[Any, ...],
    title: str,
    truth: str | None = None,
    invert: bool = False,
    square: Square = "crop",
) -> Picture:
    """Any picture, on the way of every training image into the subject's network.

    Args:
        pixels: uint8 ``[C, H, W]``.
        invert, square: as for `to_network_input`; both must be told by the key.
    """
    info = subject.data
    steps = to_network_input(
        pixels,
        channels=info.channels,
        side=info.side,
        network=subject.network,
        mean=info.mean if subject.standardize else None,
        std=info.std if subject.standardize else None,
        invert=invert,
        square=square,
    )
    return Picture(key, title, truth, steps, _as_fed(subject, steps))


def _as_fed(subject: Subject, steps: ImageSteps) -> Pixels:
    """The network's input as a picture: as prepared, but for the standardising."""
    import torch

    from nin_core.data import prepare

    side, channels = subject.network.image_size, subject.network.in_channels
    batch = torch.tensor(steps.pixels)[None]
    values = prepare(batch, image_size=side, in_channels=channels, mean=None, std=None)[0]
    picture = (values * 255).round().to(torch.uint8).numpy()
    return np.moveaxis(picture, 0, 2) if channels == 3 else picture[0]


# --- shared with what is shown ---------------------------------------------------------------


def keep_valid(key: str, options: Collection[Any]) -> None:
    """Let the first option stand where nothing is chosen, or something no longer on offer."""
    if st.session_state.get(key) not in options:
        st.session_state[key] = next(iter(options))


def percent(share: float) -> str:
    return "<0.1\u00a0%" if 0 < share < 0.0005 else f"{share * 100:.1f}\u00a0%"
