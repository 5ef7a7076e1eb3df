"""What the Feature maps page shows: a network, a picture, a layer's maps, the class maps.

Choices made here:

* A `Subject` (which weights) and a `Picture` (which pixels) each have a key that names them to the
  last bit; what was computed is cached under both, for all sessions, in bounded caches. A layer is
  computed when it is chosen, and no further than to that layer.
* The page never waits for a run: one that still trains is shown with its latest checkpoint, which
  the next rerun replaces by a newer one.
* The layer's part is a fragment, so that choosing a layer or clicking a pixel redraws only it.
* Nothing here imports torch when it is imported; `resources.load_torch` does, behind a spinner.
* `?run=12` (or `?run=untrained`) says which network is shown, so that other pages can link here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import streamlit as st

from nin_core import ConfigError, NiNConfig, preset_name, summarize
from nin_core.datasets import DATASETS, DatasetInfo
from nin_core.images import (
    ImageError,
    ImageSteps,
    Pixels,
    has_bright_background,
    read_image,
    to_network_input,
)
from ui import numbers, resources, theme
from ui.components import class_maps as class_maps_picture
from ui.components import sprite

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from nin_core.features import Array, ClassMaps, PixelTrace, TraceStep
    from nin_core.store import Checkpoint, Run

UNTRAINED = "untrained"
FALLBACK = "shapes"  # the data set that is always there
# What one page may cost: beyond this, a picture takes many seconds or the memory of all pages.
MAX_MACS = 20_000_000_000
MAX_PARAMETERS = 50_000_000
MAX_ACTIVATION_BYTES = 128_000_000
MAX_VALUES = 1_000_000  # in one picture of maps
MAX_CLASS_MAPS = 12
LISTED_CLASSES = 5

_STYLE = f"""
<style>
.nin-answer {{ width: 100%; border-collapse: collapse; font-size: 0.85rem; }}
.nin-answer th {{ font-weight: 400; opacity: .75; text-align: left; padding: 0 .5rem .2rem 0; }}
.nin-answer td {{ padding: .16rem .5rem .16rem 0; border-top: 1px solid rgba(128,128,128,.25); }}
.nin-answer .number {{ text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }}
.nin-answer .bar {{ width: 34%; padding-right: 0; }}
.nin-answer .bar span {{ display: block; height: .7rem; min-width: 1px; background: {theme.HEAD}; }}
.nin-answer tr.chosen td {{ font-weight: 600; }}
</style>
"""


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
    def class_names(self) -> tuple[str, ...]:
        """One name per class map; numbers where the data set has another count of classes."""
        if len(self.data.class_names) == self.network.num_classes:
            return self.data.class_names
        return tuple(f"Class {number}" for number in range(self.network.num_classes))


def choose_network(config: NiNConfig) -> Subject:
    """Let the user pick a run that has weights, or the sidebar's network untrained."""
    st.html(_STYLE)
    runs = _runs()
    usable = {str(run.id): run for run in runs if run.has_checkpoint and run.problem is None}
    options = [*usable, UNTRAINED]
    _take_link(options, runs)
    _keep_valid("fm:network", options)
    chosen = st.selectbox(
        "Network",
        options,
        key="fm:network",
        format_func=lambda option: _network_title(usable.get(option)),
        persist_state="session",
    )
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
    subject = _untrained_subject(config) if run is None else _trained_subject(run)
    _refuse_too_large(subject.network)
    return subject


def _runs() -> list[Run]:
    """The runs, newest first; none if the store cannot be used, which is then said."""
    from nin_core.store import StoreError

    try:
        return resources.store().list_runs()
    except StoreError as error:
        st.warning(f"Runs cannot be shown: {error}", icon=":material/database_off:")
        return []


def _take_link(options: list[str], runs: list[Run]) -> None:
    """Once per session and link, choose the run that the URL names."""
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


def _network_title(run: Run | None) -> str:
    if run is None:
        return "Untrained: the sidebar's network"
    accuracy = "" if run.test_accuracy is None else f" · {run.test_accuracy:.1%}"
    return f"#{run.id} {run.name}{accuracy}{' · training' if run.active else ''}"


def _trained_subject(run: Run) -> Subject:
    assert run.network is not None
    assert run.train is not None
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
    st.caption(
        f"{title} on {data.title}, {state} (epoch {checkpoint.epoch}, step {checkpoint.step:,})."
    )
    if run.active:
        st.button("Show newer weights", icon=":material/refresh:")  # any rerun loads the latest
    return Subject(
        key=("run", run.id, run.attempt, checkpoint.step, checkpoint.created_at),
        network=run.network,
        data=data,
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
        _keep_valid("fm:data", at_hand)
        name = st.selectbox(
            "Pictures",
            at_hand,
            key="fm:data",
            format_func=lambda name: DATASETS[name].title,
            persist_state="session",
        )
    with seeds:
        seed = st.number_input(
            "Seed",
            0,
            9999,
            key="fm:seed",
            persist_state="session",
            help="PyTorch's random initial weights come from it: another seed, other maps.",
        )
    return Subject(
        key=(UNTRAINED, config, int(seed)),
        network=config,
        data=DATASETS[name],
        standardize=True,
        seed=int(seed),
    )


def _refuse_too_large(network: NiNConfig) -> None:
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


def _model(subject: Subject) -> nn.Sequential:
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


# --- which picture ----------------------------------------------------------------------------


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


def choose_picture(subject: Subject) -> Picture:
    """Let the user pick a test image by class and number, or upload a picture."""
    _keep_valid("fm:source", ["test", "upload"])
    source = st.segmented_control(
        "Picture",
        ["test", "upload"],
        key="fm:source",
        format_func={"test": "Test images", "upload": "Upload"}.get,
        required=True,
        persist_state="session",
        width="stretch",
    )
    resources.load_torch()
    return _test_image(subject) if source == "test" else _uploaded(subject)


def _test_image(subject: Subject) -> Picture:
    from nin_core.data import find_dataset

    info = subject.data
    if not find_dataset(info.name).available:
        st.info(
            f"{info.title} is not on this computer (any more), so these are generated shapes, "
            "which this network was not trained on; uploading a picture works too."
        )
        info = DATASETS[FALLBACK]
    with st.spinner(f"Loading {info.title} …"):
        dataset = resources.dataset(info.name)
    _keep_valid("fm:class", range(len(info.class_names)))
    label = st.selectbox(
        "Class",
        range(len(info.class_names)),
        key="fm:class",
        format_func=lambda label: info.class_names[label],
        persist_state="session",
    )
    members = np.flatnonzero(dataset.test_labels.numpy() == label)
    number_column, next_column = st.columns([5, 3], vertical_alignment="bottom")
    with number_column:
        last = len(members) - 1
        st.session_state["fm:number"] = min(max(st.session_state.get("fm:number", 0), 0), last)
        number = st.number_input(
            f"Number in class (0 to {last})", 0, last, key="fm:number", persist_state="session"
        )
    with next_column:
        st.button("Next", on_click=_next_number, args=(len(members),), width="stretch")
    index = int(members[int(number)])
    known = info is subject.data and subject.class_names == info.class_names
    steps = _steps(subject, dataset.test_images[index].numpy(), invert=False)
    return Picture(
        key=(info.name, index),
        title=f"{info.title}, test image {index:,} of {len(dataset.test_labels):,}",
        truth=info.class_names[label] if known else None,
        steps=steps,
        shown=_as_fed(subject, steps),
    )


def _next_number(count: int) -> None:
    st.session_state["fm:number"] = (st.session_state["fm:number"] + 1) % count


def _uploaded(subject: Subject) -> Picture:
    file = st.file_uploader(
        "PNG or JPEG, at most 5 MB and 4 megapixels",
        type=["png", "jpg", "jpeg"],
        key="fm:file",
        max_upload_size=5,
    )
    if file is None:
        st.info("Choose a picture of one thing in the middle, best on a plain background.")
        st.stop()
    data = file.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    try:
        pixels = _decoded(digest, data)
    except ImageError as error:
        st.error(str(error), icon=":material/broken_image:")
        st.stop()
    info = subject.data
    suggested = info.channels == 1 and has_bright_background(pixels)
    invert = st.toggle("Invert", value=suggested, key=f"fm:invert:{digest[:16]}")
    if suggested:
        st.caption(
            f"Its background is bright, and {info.title} shows bright things on black, so "
            f"inverting is {'suggested and on' if invert else 'suggested, but off'}."
        )
    steps = _steps(subject, pixels, invert=invert)
    with st.container(horizontal=True, gap="small"):
        for caption, step in (
            ("Uploaded", steps.original),
            ("Middle", steps.square),
            (f"{info.side}×{info.side}", steps.resized),
            *([("Inverted", steps.pixels)] if invert else []),
        ):
            st.image(_thumbnail(step), caption=caption, width=72)
    return Picture(
        key=(digest, info.name, invert),
        title="Your picture",
        truth=None,
        steps=steps,
        shown=_as_fed(subject, steps),
    )


@st.cache_resource(show_spinner=False, max_entries=4)
def _decoded(digest: str, _data: bytes) -> Pixels:
    return read_image(_data)


def _steps(subject: Subject, pixels: Pixels, *, invert: bool) -> ImageSteps:
    info = subject.data
    return to_network_input(
        pixels,
        channels=info.channels,
        side=info.side,
        network=subject.network,
        mean=info.mean if subject.standardize else None,
        std=info.std if subject.standardize else None,
        invert=invert,
    )


def _as_fed(subject: Subject, steps: ImageSteps) -> Pixels:
    """The network's input as a picture: standardising undone, one or three channels."""
    values = steps.network_input.numpy()
    if subject.standardize:
        shape = (-1, 1, 1)
        mean, std = np.array(subject.data.mean), np.array(subject.data.std)
        if len(mean) not in (1, len(values)):  # colour that became grey
            mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
        values = values * std.reshape(shape) + mean.reshape(shape)
    picture = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return np.moveaxis(picture, 0, 2) if len(picture) == 3 else picture[0]


def _thumbnail(pixels: Pixels) -> Any:
    from PIL import Image

    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
    image.thumbnail((144, 144))
    return image


# --- the answer -------------------------------------------------------------------------------


def show_answer(subject: Subject, picture: Picture) -> None:
    """The picture in the network's input size, and what the network says it is."""
    side = subject.network.image_size
    factor = max(1, -(-256 // side))  # small inputs as sharp squares
    st.image(
        picture.shown.repeat(factor, axis=0).repeat(factor, axis=1),
        caption=f"{picture.title}, as the network gets it: "
        f"{numbers.shape((subject.network.in_channels, side, side))}",
        width=256,
    )
    answer = _answer(subject, picture)
    names = subject.class_names
    if not np.isfinite(answer.logits).all():
        st.warning("The logits are not numbers: this run diverged, so its maps say nothing.")
        return
    if np.ptp(answer.logits) == 0:
        st.warning(
            "All logits are equal, so the network has no answer: every class map pools to the "
            "same value."
        )
    else:
        st.markdown(_verdict(names, answer, picture.truth, subject.weights is not None))
    order = np.argsort(-answer.logits, kind="stable")[:LISTED_CLASSES]
    rows = [
        f"<tr{_chosen(names[i] == picture.truth)}><td>{escape(names[i])}</td>"
        f"<td class='number'>{answer.probabilities[i]:.1%}</td>{_bar(answer.probabilities[i])}</tr>"
        for i in order
    ]
    st.html(
        "<table class='nin-answer' aria-label='Most probable classes'><thead><tr><th>Class</th>"
        "<th class='number'>Probability</th><th class='bar'></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _verdict(names: Sequence[str], answer: ClassMaps, truth: str | None, trained: bool) -> str:
    best = int(answer.logits.argmax())
    said = f"**{names[best]}**, {answer.probabilities[best]:.1%}"
    if not trained:
        return f"Untrained, it would say {said}: chance, not knowledge."
    if truth is None:
        return f"It says {said}."
    return f"It says {said}: right." if names[best] == truth else f"It says {said}; it is {truth}."


def _bar(share: float) -> str:
    return f"<td class='bar'><span style='width:{share:.1%}'></span></td>"


def _chosen(is_chosen: bool) -> str:
    return " class='chosen'" if is_chosen else ""


def _answer(subject: Subject, picture: Picture) -> ClassMaps:
    return _cached_answer(_weights_key(subject), picture.key, _model(subject), picture)


@st.cache_resource(show_spinner=False, max_entries=64)
def _cached_answer(
    weights: tuple[Any, ...], pixels: tuple[Any, ...], _network: nn.Sequential, _picture: Picture
) -> ClassMaps:
    from nin_core.features import class_maps

    return class_maps(_network, _picture.steps.network_input)


def _weights_key(subject: Subject) -> tuple[Any, ...]:
    """Names the computation: weights, and the set whose mean and size the input is made with."""
    return (*subject.key, subject.data.name)


# --- a layer ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A choice in the list of layers: a convolution with what belongs to it, or a pooling.

    Attributes:
        title: for people.
        kind: "conv" (k×k), "conv1x1" or "pool".
        block: from 1; 0 for pooling.
        before, after: layers whose maps it has before and after its (batch norm and) ReLU; equal
            without one and for pooling.
        entering: the layer whose maps enter it; None: the image does.
        shape: (channels, height, width) of its maps.
    """

    title: str
    kind: Literal["conv", "conv1x1", "pool"]
    block: int
    before: str
    after: str
    entering: str | None
    shape: tuple[int, int, int]


def stages(network: NiNConfig) -> list[Stage]:
    """The layers to choose from, in the order of the forward pass."""
    rows = summarize(network).layers
    starts = [
        i
        for i, row in enumerate(rows)
        if row.kind
        in (
            "conv",
            "conv1x1",
            "max_pool",
            "avg_pool",
            "global_max_pool",
            "global_avg_pool",
            "dropout",
        )
    ]
    found: list[Stage] = []
    for start, end in pairwise([*starts, len(rows)]):
        row, parts = rows[start], rows[start:end]
        entering = found[-1].after if found else None
        if row.kind in ("conv", "conv1x1"):
            window = f"{row.kernel_size}×{row.kernel_size} convolution"
            what = window if row.kind == "conv" else f"1×1 convolution {row.name[-1]}"
            extras = {"batch_norm": " + batch norm", "relu": " + ReLU"}
            title = f"Block {row.block} · {what}" + "".join(extras[p.kind] for p in parts[1:])
            found.append(
                Stage(
                    title, row.kind, row.block, row.name, parts[-1].name, entering, row.output_shape
                )
            )
        elif row.kind in ("max_pool", "avg_pool"):
            how = "maximum" if row.kind == "max_pool" else "mean"
            title = (
                f"Pooling {row.name.removeprefix('pool')} · {how} of "
                f"{row.kernel_size}×{row.kernel_size}, stride {row.stride}"
            )
            found.append(Stage(title, "pool", 0, row.name, row.name, entering, row.output_shape))
    return found


@st.fragment
def show_layer(subject: Subject, picture: Picture) -> None:
    """All channels of a chosen layer; for a 1×1 convolution also what enters it, and one pixel."""
    choices = {stage.after: stage for stage in stages(subject.network)}
    _keep_valid("fm:layer", choices)
    chosen = st.selectbox(
        "Layer",
        list(choices),
        key="fm:layer",
        format_func=lambda name: choices[name].title,
        persist_state="session",
    )
    stage = choices[chosen]
    shown = stage.after
    if stage.before != stage.after:
        _keep_valid("fm:side", ["after", "before"])
        side = st.segmented_control(
            "Values",
            ["after", "before"],
            key="fm:side",
            format_func={"after": "After ReLU", "before": "Before ReLU"}.get,
            required=True,
            persist_state="session",
            label_visibility="collapsed",
        )
        shown = stage.after if side == "after" else stage.before
    # The whole block, so that its other layers and its pixels are there at once afterwards.
    block = [other for other in choices.values() if stage.block and other.block == stage.block]
    names = {name for other in block or [stage] for name in (other.before, other.after)}
    maps = _maps(subject, picture, tuple(sorted(names)))
    st.caption(_explanation(stage))
    if stage.kind == "conv1x1" and stage.entering:
        _sprite(stage, maps[stage.entering], "before", "Before it")
        _sprite(stage, maps[shown], "after", "After it")
    else:
        _sprite(stage, maps[shown], "after", "")
    if len(block) > 1:
        _show_trace(subject, picture, block, maps, stage)


def _maps(subject: Subject, picture: Picture, layers: tuple[str, ...]) -> dict[str, Array]:
    key = _weights_key(subject)
    return _cached_maps(key, picture.key, layers, _model(subject), picture)


@st.cache_resource(show_spinner=False, max_entries=8)
def _cached_maps(
    weights: tuple[Any, ...],
    pixels: tuple[Any, ...],
    layers: tuple[str, ...],
    _network: nn.Sequential,
    _picture: Picture,
) -> dict[str, Array]:
    from nin_core.features import extract_feature_maps

    return extract_feature_maps(_network, _picture.steps.network_input, layers)


def _explanation(stage: Stage) -> str:
    if stage.kind == "conv1x1":
        return (
            "A 1×1 convolution is a small dense layer applied at every pixel: it mixes the "
            "channels and looks at no neighbour. So each map below is a weighted sum of all the "
            "maps above it, and every shape stays where it is."
        )
    if stage.kind == "conv":
        return (
            "Each channel slides its own kernel over all the maps (or the picture) before it and "
            "answers where they match. Only these layers and the poolings look at neighbours."
        )
    return (
        "Pooling keeps one value per window, channel by channel: the maps get smaller and each "
        "value speaks for a larger part of the picture."
    )


def _sprite(stage: Stage, maps: Array, side: str, heading: str) -> None:
    """One picture of maps under its heading, in parts if there are too many values."""
    channels, height, width = maps.shape
    at_once = max(1, MAX_VALUES // (height * width))
    start = 0
    if channels > at_once:
        starts = list(range(0, channels, at_once))
        key = f"fm:part:{stage.after}:{side}"
        _keep_valid(key, starts)
        start = st.selectbox(
            f"{heading or 'Maps'}: channels",
            starts,
            key=key,
            format_func=lambda first: f"{first} to {min(first + at_once, channels) - 1}",
        )
    part = maps[start : start + at_once]
    size = f"{channels} map{'s' if channels > 1 else ''} of {height}×{width}"
    sprite(
        part,
        key=f"fm-{side}",
        title=f"{heading}: {size}" if heading else size,
        labels=[str(number) for number in range(start, start + len(part))] if start else None,
        on_click=_take_click if stage.block else None,
    )


def _take_click(click: dict[str, Any]) -> None:
    st.session_state["fm:pixel"] = (click.get("row"), click.get("column"))


# --- one pixel --------------------------------------------------------------------------------


def _show_trace(
    subject: Subject,
    picture: Picture,
    block: list[Stage],
    maps: dict[str, Array],
    stage: Stage,
) -> None:
    """The chosen pixel's channel vector on its way through the block's 1×1 layers."""
    from nin_core.features import trace_vector

    st.markdown(f"##### One pixel through block {stage.block}")
    row, column = _pixel(maps[stage.after])
    entering, leaving = maps[block[0].after], maps[block[-1].after]
    trace = trace_vector(_model(subject), entering[:, row, column], stage.block, row, column)
    difference = float(np.abs(trace.outputs - leaving[:, row, column]).max())
    st.caption(
        "Click a pixel above: its channel values are a vector, and each 1×1 convolution "
        "multiplies it by the same weight matrix at every pixel. `torch.nn.functional.linear` "
        f"gives the numbers below; the convolution's differ by at most {difference:.0e}."
    )
    st.dataframe(_trace_table(trace, block), height=280, row_height=28)
    step = next((step for step in trace.steps if step.layer == stage.before), trace.steps[-1])
    st.markdown(_worked_example(step, block))


def _pixel(maps: Array) -> tuple[int, int]:
    """The pixel clicked last, as two fields that can be typed in; first the strongest one."""
    _, height, width = maps.shape
    clicked = st.session_state.pop("fm:pixel", None)
    keys = (f"fm:row:{height}", f"fm:column:{width}")
    if clicked is None and not all(key in st.session_state for key in keys):
        strongest = np.abs(maps).max(axis=0).argmax()
        clicked = tuple(int(place) for place in np.unravel_index(strongest, (height, width)))
    fields = st.container(horizontal=True, gap="small")
    values = []
    for index, (name, key, side) in enumerate(
        zip(("Row", "Column"), keys, (height, width), strict=True)
    ):
        if clicked is not None and 0 <= clicked[index] < side:
            st.session_state[key] = clicked[index]
        values.append(
            fields.number_input(
                f"{name} (0 to {side - 1})",
                0,
                side - 1,
                key=key,
                width=150,
                persist_state="session",
            )
        )
    return int(values[0]), int(values[1])


def _trace_table(trace: PixelTrace, block: list[Stage]) -> pd.DataFrame:
    """One row a channel, one column a step; shorter vectors leave the rest of a column empty."""
    import pandas as pd

    columns = {f"after {_short(block[0])}": trace.inputs}
    for number, step in enumerate(trace.steps, start=1):
        columns[f"{number}: W·x + b"] = step.linear
        if step.normalized is not None:
            columns[f"{number}: batch norm"] = step.normalized
        if step.activated:
            columns[f"{number}: ReLU"] = step.outputs
    table = pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})
    return table.rename_axis("channel").round(4)


def _short(stage: Stage) -> str:
    return stage.title.split(" · ")[1].replace("convolution", "conv")


def _worked_example(step: TraceStep, block: list[Stage]) -> str:
    """The strongest output of a 1×1 layer at this pixel, as a sum that can be followed."""
    channel = int(step.outputs.argmax())
    products = step.weight[channel] * step.inputs
    largest = np.argsort(-np.abs(products), kind="stable")[:3]
    terms = " ".join(
        f"{'−' if products[i] < 0 else '+'} {_value(abs(step.weight[channel, i]))}·"
        f"{_value(step.inputs[i])}"
        for i in largest
    )
    rest = f" + {len(products) - len(largest)} more products" if len(products) > 3 else ""
    title = next(stage.title for stage in block if stage.before == step.layer)
    cut = ""
    if step.activated:
        cut = f", after ReLU {_value(step.outputs[channel])}"
    return (
        f"{title}, channel {channel}: W·x + b = {terms.removeprefix('+ ')}{rest} "
        f"{'−' if step.bias[channel] < 0 else '+'} {_value(abs(step.bias[channel]))} (b) = "
        f"**{_value(step.linear[channel])}**{cut}."
    )


# --- class maps -------------------------------------------------------------------------------


def show_class_maps(subject: Subject, picture: Picture) -> None:
    """The class maps over the picture, and how pooling and softmax make the answer of them."""
    answer = _answer(subject, picture)
    if not np.isfinite(answer.logits).all():
        return
    names = subject.class_names
    st.markdown("#### From class maps to the answer")
    st.caption(
        "The last layer has one map per class, here laid over the picture; no dense layer "
        f"follows. Global {_POOLING[answer.global_pool]} of each map is its class's logit, and "
        "softmax turns the logits into probabilities."
    )
    shown = np.arange(len(names))
    if len(names) > MAX_CLASS_MAPS:
        shown = np.argsort(-answer.logits, kind="stable")[:MAX_CLASS_MAPS]
        st.caption(f"Of {len(names)} classes, these are the {MAX_CLASS_MAPS} with the most.")
    best = int(answer.logits.argmax())
    left, right = st.columns([7, 5], gap="large")
    with left:
        class_maps_picture(
            answer.maps[shown],
            picture.shown,
            labels=[names[i] for i in shown],
            values=[float(answer.logits[i]) for i in shown],
            key="fm-classes",
            selected=int(np.flatnonzero(shown == best)[0]),
            on_click=None,
        )
    with right:
        st.html(_class_table(names, answer, shown))
        st.caption(_arithmetic(names[best], best, answer))


_POOLING = {"max": "max pooling (the largest value)", "avg": "average pooling (the mean)"}


def _class_table(names: Sequence[str], answer: ClassMaps, shown: np.ndarray) -> str:
    is_max = answer.global_pool == "max"
    best = int(answer.logits.argmax())
    rows = []
    for i in shown:
        place = f"<td class='number'>{answer.peaks[i][0]}, {answer.peaks[i][1]}</td>"
        if not answer.maps[i].any():
            place = "<td class='number'>all zero</td>"
        rows.append(
            f"<tr{_chosen(i == best)}><td>{escape(names[i])}</td>{place}"
            f"<td class='number'>{_value(answer.logits[i])}</td>"
            f"<td class='number'>{answer.probabilities[i]:.1%}</td>"
            f"{_bar(answer.probabilities[i])}</tr>"
        )
    return (
        "<table class='nin-answer' aria-label='Logits and probabilities'><thead><tr><th>Class</th>"
        f"<th class='number'>Peak at</th><th class='number'>{'Maximum' if is_max else 'Mean'} = "
        "logit</th><th class='number'>Softmax</th><th class='bar'></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _arithmetic(name: str, index: int, answer: ClassMaps) -> str:
    values = answer.maps[index]
    row, column = answer.peaks[index]
    size = f"{values.shape[0]}×{values.shape[1]}"
    if answer.global_pool == "max":
        how = (
            f"{name}'s logit is the largest of its {size} values, {_value(values.max())}, at row "
            f"{row}, column {column}."
        )
    else:
        how = (
            f"{name}'s logit is the sum of its {size} values divided by {values.size}: "
            f"{_value(values.sum())} ÷ {values.size} = {_value(answer.logits[index])}."
        )
    return (
        f"{how} Its probability is e^{_value(answer.logits[index])} divided by the sum of all "
        f"classes' e^logit: {answer.probabilities[index]:.1%}."
    )


# --- small things -----------------------------------------------------------------------------


def _keep_valid(key: str, options: Collection[Any]) -> None:
    """Let the first option stand where nothing is chosen, or something no longer on offer."""
    if st.session_state.get(key) not in options:
        st.session_state[key] = next(iter(options))


def _value(number: float) -> str:
    """Four significant digits, with a typographer's minus."""
    return f"{number:.4g}".replace("-", "−")
