"""What the Feature maps page shows of a network and a picture: answer, maps, one pixel, class maps.

Choices made here:

* What was computed is cached for all sessions, bounded, under the keys of weights and picture. A
  layer is computed when it is chosen, and no further than to the end of its block.
* The layer's part is a fragment, so that choosing a layer or clicking a pixel redraws only it.
* The pixel to follow is a value of two number fields; a click in a map sets them. So the keyboard
  does as well as the mouse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import streamlit as st

from nin_core import NiNConfig, summarize
from ui import numbers, theme
from ui.components import class_maps as class_maps_picture
from ui.components import sprite
from ui.feature_subject import Picture, Subject, keep_valid, model_of, percent

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from nin_core.features import Array, ClassMaps, PixelTrace, TraceStep

MAX_VALUES = 1_000_000  # in one picture of maps
MAX_CLASS_MAPS = 12
LISTED_CLASSES = 5

_STYLE = f"""
<style>
.nin-answer {{ width: 100%; border-collapse: collapse; font-size: 0.85rem; }}
.nin-answer th {{ font-weight: 400; text-align: left; white-space: nowrap; }}
.nin-answer thead th {{ opacity: .75; }}
.nin-answer th, .nin-answer td {{ padding: .16rem .6rem .16rem 0; }}
.nin-answer tbody tr {{ border-top: 1px solid rgba(128, 128, 128, .25); }}
.nin-answer .number {{ text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }}
.nin-answer .bar {{ width: 30%; padding-right: 0; }}
.nin-answer .bar span {{ display: block; height: .7rem; min-width: 1px;
  background: {theme.HEAD}; }}
.nin-answer tr.chosen th, .nin-answer tr.chosen td {{ font-weight: 600; }}
</style>
"""


# --- the answer -------------------------------------------------------------------------------


def show_answer(subject: Subject, picture: Picture) -> None:
    """The picture in the network's input size, and what the network says it is."""
    st.html(_STYLE)
    side = subject.network.image_size
    factor = max(1, -(-256 // side))  # small inputs as sharp squares
    st.image(
        picture.shown.repeat(factor, axis=0).repeat(factor, axis=1),
        caption=f"{picture.title}, as the network gets it: "
        f"{numbers.shape((subject.network.in_channels, side, side))}",
        width=256,
        alt=picture.title,
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
        f"<tr{_chosen(names[i] == picture.truth)}><th>{escape(names[i])}</th>"
        f"<td class='number'>{percent(share)}</td>{_bar(share)}</tr>"
        for i, share in ((i, answer.probabilities[i]) for i in order)
    ]
    st.html(
        "<table class='nin-answer' aria-label='Most probable classes'><thead><tr><th>Class</th>"
        "<th class='number'>Probability</th><th class='bar'></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _verdict(names: Sequence[str], answer: ClassMaps, truth: str | None, trained: bool) -> str:
    best = int(answer.logits.argmax())
    said = f"**{names[best]}**, {percent(answer.probabilities[best])}"
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
    return _cached_answer(subject.computed_key, picture.key, model_of(subject), picture)


@st.cache_resource(show_spinner=False, max_entries=64)
def _cached_answer(
    weights: tuple[Any, ...], pixels: tuple[Any, ...], _network: nn.Sequential, _picture: Picture
) -> ClassMaps:
    from nin_core.features import class_maps

    return class_maps(_network, _picture.steps.network_input)


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
    """

    title: str
    kind: Literal["conv", "conv1x1", "pool"]
    block: int
    before: str
    after: str
    entering: str | None


def stages(network: NiNConfig) -> list[Stage]:
    """The layers to choose from, in the order of the forward pass."""
    rows = summarize(network).layers
    # Batch norm and ReLU belong to the convolution before them.
    starts = [i for i, row in enumerate(rows) if row.kind not in ("batch_norm", "relu")]
    found: list[Stage] = []
    for start, end in pairwise([*starts, len(rows)]):
        row, parts = rows[start], rows[start:end]
        entering = found[-1].after if found else None
        if row.kind in ("conv", "conv1x1"):
            window = f"{row.kernel_size}×{row.kernel_size} convolution"
            what = window if row.kind == "conv" else f"1×1 convolution {row.name[-1]}"
            extras = {"batch_norm": " + batch norm", "relu": " + ReLU"}
            title = f"Block {row.block} · {what}" + "".join(extras[p.kind] for p in parts[1:])
            found.append(Stage(title, row.kind, row.block, row.name, parts[-1].name, entering))
        elif row.kind in ("max_pool", "avg_pool"):
            how = "maximum" if row.kind == "max_pool" else "mean"
            title = (
                f"Pooling {row.name.removeprefix('pool')} · {how} of "
                f"{row.kernel_size}×{row.kernel_size}, stride {row.stride}"
            )
            found.append(Stage(title, "pool", 0, row.name, row.name, entering))
    return found


@st.fragment
def show_layer(subject: Subject, picture: Picture) -> None:
    """All channels of a chosen layer; for a 1×1 convolution also what enters it, and one pixel."""
    choices = {stage.after: stage for stage in stages(subject.network)}
    keep_valid("fm:layer", choices)
    chosen = st.selectbox(
        "Layer",
        list(choices),
        key="fm:layer",
        format_func=lambda name: choices[name].title,
        persist_state="session",
    )
    stage = choices[chosen]
    # The whole block, so that its other layers and its pixels are there at once afterwards.
    block = [other for other in choices.values() if stage.block and other.block == stage.block]
    names = {name for other in block or [stage] for name in (other.before, other.after)}
    maps = _maps(subject, picture, tuple(sorted(names)))
    st.caption(_explanation(stage))
    shown = stage.after
    traced = len(block) > 1 and all(np.isfinite(values).all() for values in maps.values())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if stage.before != stage.after:
            keep_valid("fm:side", ["after", "before"])
            side = st.segmented_control(
                "What comes out",
                ["after", "before"],
                key="fm:side",
                format_func={"after": "After ReLU", "before": "Before ReLU"}.get,
                required=True,
                persist_state="session",
            )
            shown = stage.after if side == "after" else stage.before
        if traced:
            with st.container(horizontal=True, width="content", wrap=False):
                pixel = _pixel(maps[stage.after])
    if stage.kind == "conv1x1" and stage.entering:
        left, right = st.columns(2)
        with left:
            _sprite(stage, maps[stage.entering], "before", "What goes in")
        with right:
            _sprite(stage, maps[shown], "after", "What comes out")
    else:
        _sprite(stage, maps[shown], "after", "")
    if traced:
        _show_trace(subject, block, maps, stage, pixel)


def _maps(subject: Subject, picture: Picture, layers: tuple[str, ...]) -> dict[str, Array]:
    model = model_of(subject)
    return _cached_maps(subject.computed_key, picture.key, layers, model, picture)


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
            "channels and looks at no neighbour. So each map that comes out is a weighted sum "
            "of all that go in, and every shape stays where it is."
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
        keep_valid(key, starts)
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
        on_click=partial(_take_click, stage, side, start) if stage.block else None,
    )


def _take_click(stage: Stage, side: str, start: int, click: dict[str, Any]) -> None:
    """Keep the pixel that was clicked, and of which of the layer's outputs."""
    st.session_state["fm:pixel"] = (click.get("row"), click.get("column"))
    if side == "after" and isinstance(click.get("channel"), int):
        st.session_state["fm:channel"] = (stage.before, start + click["channel"])


# --- one pixel --------------------------------------------------------------------------------


def _pixel(maps: Array) -> tuple[int, int]:
    """Fields that hold the pixel clicked last and can be typed in; at first the strongest one."""
    _, height, width = maps.shape
    keys = (f"fm:row:{height}", f"fm:column:{width}")
    pixel = st.session_state.pop("fm:pixel", None)
    if pixel is None and not all(key in st.session_state for key in keys):
        pixel = np.unravel_index(np.abs(maps).max(axis=0).argmax(), (height, width))
    values = []
    for index, (name, key, side) in enumerate(
        zip(("row", "column"), keys, (height, width), strict=True)
    ):
        if pixel is not None and 0 <= pixel[index] < side:
            st.session_state[key] = int(pixel[index])
        value = st.number_input(
            f"Pixel's {name}",
            0,
            side - 1,
            key=key,
            width=130,
            persist_state="session",
            help=f"0 to {side - 1}; clicking a pixel in a map sets it. Below the maps it is "
            "followed through the block's 1×1 layers.",
        )
        values.append(int(value))
    return values[0], values[1]


def _show_trace(
    subject: Subject,
    block: list[Stage],
    maps: dict[str, Array],
    stage: Stage,
    pixel: tuple[int, int],
) -> None:
    """The chosen pixel's channel vector on its way through the block's 1×1 layers."""
    from nin_core.features import trace_vector

    row, column = pixel
    st.markdown(f"##### Pixel ({row}, {column}) through block {stage.block}'s 1×1 layers")
    st.caption(
        "A pixel's channel values are one vector, and the 1×1 convolutions are dense layers for "
        "it: W·x + b, then ReLU, with the same weights at every pixel. Click another pixel in the "
        "maps to follow it."
    )
    entering, leaving = maps[block[0].after], maps[block[-1].after]
    trace = trace_vector(model_of(subject), entering[:, row, column], stage.block, row, column)
    table = _trace_table(trace)
    st.dataframe(
        table,
        height=min(36 + 28 * len(table), 288),
        row_height=28,
        column_config={"x": st.column_config.NumberColumn(help=f"What leaves “{block[0].title}”.")},
    )
    step = next((step for step in trace.steps if step.layer == stage.before), trace.steps[-1])
    chosen, channel = st.session_state.get("fm:channel", ("", 0))
    if chosen != step.layer or not 0 <= channel < len(step.linear):
        channel = int(step.linear.argmax())
    st.markdown(_worked_example(step, channel, block))
    difference = float(np.abs(trace.outputs - leaving[:, row, column]).max())
    st.caption(
        "These numbers come from `torch.nn.functional.linear` with the convolutions' weights; the "
        f"convolutions' own {'differ by at most ' if difference else 'are the same'}"
        f"{f'{difference:.1g}' if difference else ''}."
    )


def _trace_table(trace: PixelTrace) -> pd.DataFrame:
    """One row a channel, one column a step; shorter vectors leave the rest of a column empty."""
    import pandas as pd

    columns = {"x": trace.inputs}
    for number, step in enumerate(trace.steps, start=1):
        columns[f"{number}: W·x + b"] = step.linear
        if step.normalized is not None:
            columns[f"{number}: norm"] = step.normalized
        if step.activated:
            columns[f"{number}: ReLU"] = step.outputs
    table = pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})
    return table.rename_axis("channel").round(4)


def _worked_example(step: TraceStep, channel: int, block: list[Stage]) -> str:
    """One output of a 1×1 layer at this pixel, as a sum that can be followed."""
    products = step.weight[channel] * step.inputs
    shown = [int(i) for i in np.argsort(-np.abs(products), kind="stable")[:3] if products[i]]
    terms = [
        (products[i], f"{_value(abs(step.weight[channel, i]))}·{_value(step.inputs[i])}")
        for i in shown
    ]
    text = " ".join(f"{'−' if value < 0 else '+'} {product}" for value, product in terms)
    text = text.removeprefix("+ ")
    if rest := int(np.count_nonzero(products)) - len(shown):
        text += f" + {rest} smaller product{'s' if rest > 1 else ''}"
    if not shown:
        text = "0 (every input is 0 here)"
    bias = float(step.bias[channel])
    text += f" {'−' if bias < 0 else '+'} {_value(abs(bias))} (b)"
    title = next(stage.title for stage in block if stage.before == step.layer)
    after = ""
    if step.activated:
        after = f"; what leaves is **{_value(step.outputs[channel])}**"
    return (
        f"{title.split(' + ')[0]}, channel {channel}: W·x + b = {text} = "
        f"**{_value(step.linear[channel])}**{after}."
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
        st.caption(
            f"Of {len(names)} classes, these are the {MAX_CLASS_MAPS} with the largest logits."
        )
    best = int(answer.logits.argmax())
    left, right = st.columns([12, 7])
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
    best = int(answer.logits.argmax())
    rows = []
    for i in shown:
        row, column = answer.peaks[i]
        peak = f"{row}, {column}" if answer.maps[i].any() else "all zero"
        rows.append(
            f"<tr{_chosen(i == best)}><th>{escape(names[i])}</th><td class='number'>{peak}</td>"
            f"<td class='number'>{_value(answer.logits[i])}</td>"
            f"<td class='number'>{percent(answer.probabilities[i])}</td>"
            f"{_bar(answer.probabilities[i])}</tr>"
        )
    return (
        "<table class='nin-answer' aria-label='Logits and probabilities'><thead><tr><th>Class</th>"
        "<th class='number' title='row, column'>Peak at</th><th class='number'>Logit</th>"
        "<th class='number'>Softmax</th><th class='bar'></th></tr></thead>"
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
        f"classes' e^logit: {percent(answer.probabilities[index])}."
    )


def _value(number: float) -> str:
    """Four significant digits, with a typographer's minus."""
    return f"{number:.4g}".replace("-", "−")
