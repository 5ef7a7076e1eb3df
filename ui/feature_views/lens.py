"""The 1×1 lens: one pixel's channels on their way through the dense network that a block's 1×1
convolutions are.

Choices made here:

* The whole view is a fragment, so that a click costs only what it shows. Maps of the picture and
  what all pixels share are computed once and cached; a click computes one pixel.
* What is looked at (pixel, layer, channel) are the values of number fields; a click in a map or in
  the pixel's strips sets them. So the keyboard does as well as the mouse.
* One question at a time below the pixel: its terms, its patch, the dense layer, the weights, the
  ReLU. Each has two sentences at most, and the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from nin_core import ConfigError
from ui import numbers
from ui.components import plot, sprite
from ui.feature_subject import keep_valid, model_of, percent
from ui.feature_views import Scene, computed, figures, tables
from ui.feature_views.choices import channel_list, choose_part, map_count
from ui.feature_views.stages import Stage, layers_of, stages

if TYPE_CHECKING:
    from nin_core.features import Array, PixelTrace

MAPS_HEIGHT = 230  # pixels of the maps to click in; more of them scroll
MOST_SIDE = 512  # rows or columns of a weight matrix that are drawn at once

_LAYER = "fm:lens:layer"
_PIXEL = "fm:lens:pixel"  # clicked, and not yet in the fields
_QUESTION = "fm:lens:question"


@dataclass(frozen=True)
class Look:
    """A pixel of a block as all parts of the view see it.

    Attributes:
        block: the block's convolutions; the k×k one first.
        maps: outputs of all their layers.
        row, column: the pixel.
        trace: its way through the 1×1 layers.
    """

    scene: Scene
    block: list[Stage]
    maps: dict[str, Array]
    row: int
    column: int
    trace: PixelTrace

    @property
    def number(self) -> int:
        """The block's number."""
        return self.block[0].block

    @property
    def inputs(self) -> Array:
        """The maps that enter the first 1×1 layer."""
        return self.maps[self.block[0].after]


@st.fragment
def show(scene: Scene) -> None:
    """Draw the view."""
    every = stages(scene.subject.network)
    blocks = {stage.block for stage in every if stage.kind == "conv1x1"}
    choices = {stage.after: stage for stage in every if stage.block in blocks}
    if not choices:
        st.info(
            "This network has no 1×1 convolutions, so there is nothing to look at through the "
            "lens; the presets have two in every block."
        )
        return
    st.caption(
        "x, what the k×k convolution leaves at a pixel, is one vector, and the 1×1 convolutions "
        "are a dense network for it, the same at every pixel. Click a pixel to follow it, type it, "
        "or move it in the maps with Shift and the arrow keys."
    )
    keep_valid(_LAYER, choices)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Maps to click in",
            list(choices),
            key=_LAYER,
            format_func=lambda name: choices[name].title.partition(" + ")[0],
            persist_state="session",
            width=290,
        )
        stage = choices[chosen]
        block = [other for other in every if other.block == stage.block]
        maps = computed.maps(scene, layers_of(block))
        followed = all(np.isfinite(values).all() for values in maps.values())
        pixel = None
        if followed:
            with st.container(horizontal=True, width="content", wrap=False):
                pixel = _pixel(maps[stage.after])
        shown = stage.after
        if stage.before != stage.after and st.toggle(
            "Before ReLU", key="fm:lens:before", persist_state="session", width="content"
        ):
            shown = stage.before
    if pixel is not None:
        _settle_channels(block, maps, pixel)
    _picture(stage, maps[shown], pixel)
    if pixel is None:
        st.warning(
            "These maps hold values that are not numbers (this run diverged), so no pixel can be "
            "followed."
        )
        return
    from nin_core.features import trace_vector

    vector = maps[block[0].after][:, pixel[0], pixel[1]]
    trace = trace_vector(model_of(scene.subject), vector, stage.block, *pixel)
    look = Look(scene, block, maps, *pixel, trace)
    _show_strips(look)
    keep_valid(_QUESTION, _QUESTIONS)
    question = st.segmented_control(
        "Look at",
        list(_QUESTIONS),
        key=_QUESTION,
        format_func=lambda name: _QUESTIONS[name][0],
        required=True,
        persist_state="session",
        label_visibility="collapsed",
    )
    _QUESTIONS[question][1](look)


def look_at(stage: Stage, width: int, channel: int, row: int, column: int) -> None:
    """Have the view open at a pixel of a stage's maps. For callbacks of other views.

    Args:
        width: how many maps the stage has.
    """
    st.session_state[_LAYER] = stage.after
    _take(stage, width, channel, row, column)


# --- what is looked at ------------------------------------------------------------------------


def _channel_key(stage: Stage, width: int) -> str:
    """Names the field that holds the chosen channel of a stage's output."""
    return f"fm:lens:channel:{stage.before}:{width}"


def _step_key(block: int) -> str:
    """Names the switch that holds which of a block's 1×1 layers is looked at, from 1."""
    return f"fm:lens:step:{block}"


def _take(stage: Stage, width: int, channel: int, row: int, column: int) -> None:
    """Keep a click: the pixel, and of which output."""
    st.session_state[_PIXEL] = (row, column)
    _take_channel(stage, width, channel)


def _take_channel(stage: Stage, width: int, channel: int) -> None:
    st.session_state[_channel_key(stage, width)] = channel
    if stage.kind == "conv1x1":
        st.session_state[_step_key(stage.block)] = int(stage.before.rpartition("_")[2])


def _pixel(maps: Array) -> tuple[int, int]:
    """Fields that hold the pixel clicked last and can be typed in; at first the strongest one."""
    _, height, width = maps.shape
    keys = (f"fm:row:{height}", f"fm:column:{width}")
    pixel = st.session_state.pop(_PIXEL, None)
    if pixel is None and not all(key in st.session_state for key in keys):
        pixel = np.unravel_index(np.abs(maps).max(axis=0).argmax(), (height, width))
    values = []
    for index, (name, key, side) in enumerate(
        zip(("Row", "Column"), keys, (height, width), strict=True)
    ):
        if pixel is not None and 0 <= pixel[index] < side:
            st.session_state[key] = int(pixel[index])
        value = st.number_input(
            name,
            0,
            side - 1,
            key=key,
            width=96,
            persist_state="session",
            help=f"The pixel's {name.lower()}, 0 to {side - 1}; clicking in a map sets it.",
        )
        values.append(int(value))
    return values[0], values[1]


def _picture(stage: Stage, maps: Array, pixel: tuple[int, int] | None) -> None:
    """The maps to click in, with the pixel marked in each."""
    start, part = choose_part(maps, f"fm:part:{stage.after}:lens", "Maps")
    channel = st.session_state.get(_channel_key(stage, len(maps)))
    selected = None if channel is None else channel - start
    if selected is not None and not 0 <= selected < len(part):
        selected = None

    def take(click: dict[str, Any]) -> None:
        _take(stage, len(maps), start + click["channel"], click["row"], click["column"])

    with st.container(key="fm-lens-maps"):
        sprite(
            part,
            key="fm-lens",
            title=map_count(maps),
            labels=[str(number) for number in range(start, start + len(part))] if start else None,
            selected=selected,
            pixel=pixel,
            height=MAPS_HEIGHT,
            on_click=take,
        )


def _settle_channels(block: list[Stage], maps: dict[str, Array], pixel: tuple[int, int]) -> None:
    """Where no channel was chosen yet: the strongest one at this pixel, in each layer."""
    keep_valid(_step_key(block[0].block), range(1, len(block)))
    for stage in block:
        values = maps[stage.before][:, pixel[0], pixel[1]]
        keep_default(_channel_key(stage, len(values)), int(values.argmax()), len(values))


def keep_default(key: str, default: int, count: int) -> None:
    """Let `default` stand where no number below `count` is chosen."""
    if not 0 <= st.session_state.get(key, -1) < count:
        st.session_state[key] = default


def _choose_step(look: Look) -> int:
    """Which of the block's 1×1 layers is looked at, from 1."""
    steps = list(range(1, len(look.trace.steps) + 1))
    if len(steps) == 1:
        return 1
    return st.segmented_control(
        "1×1 convolution",
        steps,
        key=_step_key(look.number),
        required=True,
        persist_state="session",
        width="content",
    )


def _choose_channel(look: Look, stage: Stage, label: str) -> int:
    """A channel of a stage's output."""
    width = len(look.maps[stage.before])
    return int(
        st.number_input(
            label,
            0,
            width - 1,
            key=_channel_key(stage, width),
            persist_state="session",
            width=150,
            help=f"0 to {width - 1}; clicking in the maps or in the strips sets it.",
        )
    )


# --- the pixel --------------------------------------------------------------------------------


def _show_strips(look: Look) -> None:
    """The pixel's vector at every point of its way, one row of cells each."""
    st.markdown(f"##### Pixel ({look.row}, {look.column}) through block {look.number}'s 1×1 layers")
    st.caption("Framed are the channels looked at below; a click on a cell frames it.")
    rows = _strip_rows(look)
    marks = []
    for number, (_, stage, _) in enumerate(rows):
        marks.append((number, st.session_state[_channel_key(stage, len(look.maps[stage.before]))]))
    figure, height = figures.strips([(name, values) for name, _, values in rows], marks)

    def take(point: dict[str, Any]) -> None:
        index = point.get("index")
        if not (isinstance(index, list) and len(index) == 2):
            return
        row, channel = index
        if isinstance(row, int) and isinstance(channel, int) and 0 <= row < len(rows):
            _, stage, values = rows[row]
            if 0 <= channel < len(values):
                _take_channel(stage, len(values), channel)

    plot(figure, key="fm-lens-strips", height=height, on_click=take)


def _strip_rows(look: Look) -> list[tuple[str, Stage, np.ndarray]]:
    """(name, whose output, values) of each row of cells."""
    rows = [("x", look.block[0], look.trace.inputs)]
    for number, (step, stage) in enumerate(
        zip(look.trace.steps, look.block[1:], strict=True), start=1
    ):
        rows.append((f"{number}: W·x + b", stage, step.linear))
        if step.normalized is not None:
            rows.append((f"{number}: norm", stage, step.normalized))
        if step.activated:
            rows.append((f"{number}: ReLU", stage, step.outputs))
    return rows


# --- one output, term by term -----------------------------------------------------------------


def _terms(look: Look) -> None:
    from nin_core.lens import output_sum

    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = _choose_step(look)
        stage = look.block[number]
        channel = _choose_channel(look, stage, "Output channel")
    step = look.trace.steps[number - 1]
    layer = computed.matrices(look.scene.subject, look.number)[number - 1]
    terms = output_sum(step, channel)
    after = []
    if step.normalized is not None and layer.scale is not None and layer.shift is not None:
        scale, shift = layer.scale[channel], layer.shift[channel]
        how = f"× {tables.value(scale)} {'−' if shift < 0 else '+'} {tables.value(abs(shift))}"
        after.append(("batch norm, a fixed line in use", how, float(step.normalized[channel])))
    if step.activated:
        after.append(("ReLU", "max(0, ·)", float(step.outputs[channel])))
    names = "Channel of x" if number == 1 else f"Channel of “{number - 1}: ReLU”"
    st.html(tables.sum_table(terms, names, after))
    own = float(look.maps[stage.before][channel, look.row, look.column])
    st.caption(
        "Each term is a weight times this pixel's value, largest first; the column adds up to the "
        f"last digit shown. The convolution itself, in float32, gives {tables.value(own)} here: "
        f"{tables.difference(abs(own - terms.total))} from the exact sum."
    )


# --- the k×k convolution ----------------------------------------------------------------------


def _patch(look: Look) -> None:
    from nin_core.lens import patch_sum

    stage, scene = look.block[0], look.scene
    entering = (
        np.asarray(scene.picture.steps.network_input)
        if stage.entering is None
        else computed.maps(scene, (stage.entering,))[stage.entering]
    )
    fields = st.container(horizontal=True, vertical_alignment="bottom")
    with fields:
        channel = _choose_channel(look, stage, "Channel of x")
    patch = patch_sum(
        model_of(scene.subject), entering, look.number, channel, look.row, look.column
    )
    count, side = len(patch.kernel), patch.kernel.shape[-1]
    source = 0
    if count > 1:
        key = f"fm:lens:source:{stage.before}:{count}"
        keep_default(key, int(np.abs(patch.by_input).argmax()), count)
        with fields:
            source = int(
                st.number_input(
                    "Input channel",
                    0,
                    count - 1,
                    key=key,
                    persist_state="session",
                    width=150,
                    help=f"0 to {count - 1}: whose patch and kernel are drawn.",
                )
            )
    what = "the picture" if stage.entering is None else f"the {count} maps that enter the block"
    st.caption(
        f"Channel {channel} of x at this pixel is the {side}×{side} patch of {what} (rows "
        f"{patch.top} to {patch.top + side - 1}, columns {patch.left} to {patch.left + side - 1}"
        f"{'; outside is padding, 0' if not patch.inside.all() else ''}), multiplied by the kernel "
        f"cell by cell and summed{', for each input channel' if count > 1 else ''}."
        + (f" Drawn: input channel {source}." if count > 1 else "")
    )
    figure = figures.patch_times_kernel(
        patch.patch[source], patch.kernel[source], patch.products[source]
    )
    plot(figure, key="fm-lens-patch", height=250)
    own = look.maps[stage.before][channel, look.row, look.column]
    value = float(look.inputs[channel, look.row, look.column])
    after = [] if stage.before == stage.after else [(stage.title.partition(" + ")[2], "", value)]
    names = "Input channel" if count > 1 else "Input"
    st.html(tables.patch_table(patch, names, after))
    st.caption(
        f"The convolution itself, in float32, gives {tables.value(own)} here: "
        f"{tables.difference(abs(float(own) - patch.total))} from the exact sum."
    )


# --- nn.Linear --------------------------------------------------------------------------------


def _dense(look: Look) -> None:
    import pandas as pd

    st.caption(
        "The same numbers from `torch.nn.Linear` with the convolutions' weights, run on this "
        "pixel's vector and on those of all pixels at once. What is left is float32 rounding: "
        "sums taken in another order."
    )
    found = computed.dense_differences(look.scene, look.number, look.maps)
    height, width = look.inputs.shape[1:]
    rows = [
        [
            f"1×1 convolution {number}",
            tables.difference(float(np.abs(item.difference[:, look.row, look.column]).max())),
            tables.difference(item.largest),
            tables.value(item.reach),
        ]
        for number, item in enumerate(found, start=1)
    ]
    columns = ["at this pixel", f"at all {height * width:,}", "largest value"]
    st.html(
        tables.comparison_table("Largest difference, convolution less nn.Linear", columns, rows)
    )
    out, entering = look.trace.steps[0].weight.shape
    bias = look.trace.steps[0].normalized is None  # otherwise the batch norm has it
    lines = [
        f"# x: the maps of {look.block[0].after}, 1×{numbers.shape(look.inputs.shape)}",
        f'conv = model.get_submodule("{look.trace.steps[0].layer}")',
        f"linear = torch.nn.Linear({entering}, {out}{'' if bias else ', bias=False'})",
        "linear.weight.data = conv.weight.data[:, :, 0, 0]",
        *(["linear.bias.data = conv.bias.data"] if bias else []),
        "conv(x)[0, :, row, col], linear(x[0, :, row, col])  # the same",
    ]
    st.code("\n".join(lines), language="python")
    table = pd.DataFrame(
        {name: pd.Series(values) for name, _, values in _strip_rows(look)}
    ).rename_axis("channel")
    st.dataframe(table.round(4), height=min(36 + 28 * len(table), 288), row_height=28)


# --- the weights ------------------------------------------------------------------------------


def _weights(look: Look) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = _choose_step(look)
        stage = look.block[number]
        layer = computed.matrices(look.scene.subject, look.number)[number - 1]
        channel = _choose_channel(look, stage, "Output channel")
        rows = _choose_lines("Rows (outputs)", layer.weight.shape[0], stage, "rows")
        columns = _choose_lines("Columns (inputs)", layer.weight.shape[1], stage, "columns")
    st.caption(
        "The layer's weights are one matrix: a row makes an output, a column says what becomes of "
        "an input. The framed row is the output channel above; a click on another chooses it."
    )

    def take(point: dict[str, Any]) -> None:
        index = point.get("index")
        if isinstance(index, list) and index and isinstance(index[0], int):
            row = index[0]
            if 0 <= row < len(rows):
                _take_channel(stage, len(layer.weight), rows[row])

    if rows and columns:
        figure = figures.matrix(layer.weight, rows, columns, channel)
        plot(figure, key="fm-lens-matrix", height=420, on_click=take)
    try:
        found = computed.spectrum(look.scene.subject, layer)
    except ConfigError as error:
        st.caption(f":material/info: {str(error)[0].upper()}{str(error)[1:]}")
        return
    st.caption(
        f"Singular values: how much the matrix stretches along {len(found.values)} directions at "
        f"right angles. Its rank is {found.rank} of {len(found.values)}, and the largest "
        f"{found.count_for(0.9)} hold 90 % of the squared sum: the mixing it does is about so many "
        "channels wide."
    )
    plot(figures.singular_values(found.values), key="fm-lens-spectrum", height=220)


def _choose_lines(label: str, count: int, stage: Stage, which: str) -> list[int]:
    """Rows or columns of a matrix from a text like "0-15, 40"; none while it cannot be read."""
    every = f"all {count}" if count <= MOST_SIDE else f"the first {MOST_SIDE} of {count}"
    text = st.text_input(
        label,
        key=f"fm:lens:{which}:{stage.before}",
        placeholder=every,
        persist_state="session",
        width=150,
        help=f"For example 0-7, 12: channels from 0 to {count - 1}. Empty: {every}.",
    )
    if not (text or "").strip():
        return list(range(min(count, MOST_SIDE)))
    try:
        return channel_list(text, count, MOST_SIDE)
    except ConfigError as error:
        st.error(f"{label}: {error}")
        return []


# --- without the ReLU -------------------------------------------------------------------------


def _collapse(look: Look) -> None:
    from nin_core.lens import compare_collapsed

    layers = computed.matrices(look.scene.subject, look.number)
    pairs = list(pairwise(layers))
    if not pairs:
        st.info(
            f"Block {look.number} has one 1×1 convolution, so there is no ReLU between two to take "
            "away; with two or more there is."
        )
        return
    chosen = 0
    if len(pairs) > 1:
        key = f"fm:lens:pair:{look.number}"
        keep_valid(key, range(len(pairs)))
        chosen = st.segmented_control(
            "Between 1×1 convolutions",
            list(range(len(pairs))),
            key=key,
            format_func=lambda index: f"{index + 1} and {index + 2}",
            required=True,
            persist_state="session",
        )
    first, second = pairs[chosen]
    one = computed.collapsed(look.scene.subject, first, second)
    norm = ", the batch norm between folded in" if first.scale is not None else ""
    st.caption(
        "Without the ReLU between them, two 1×1 convolutions are one: W₂·(W₁·x + b₁) + b₂ = "
        f"(W₂·W₁)·x + (W₂·b₁ + b₂){norm}. The ReLU is what makes the second layer worth having."
    )
    entering = look.inputs if chosen == 0 else look.maps[look.block[chosen].after]
    here = compare_collapsed(one, first, second, look.trace.steps[chosen].inputs)
    everywhere = computed.collapse_totals(look.scene, first, second, entering)
    pixels = f"all {entering.shape[1] * entering.shape[2]:,} pixels"
    st.html(
        tables.comparison_table(
            "One matrix instead of two layers",
            ["this pixel", pixels],
            [
                [
                    "One matrix vs. both layers without ReLU: largest difference (rounding)",
                    tables.difference(here.error),
                    tables.difference(everywhere.error),
                ],
                [
                    "One matrix vs. the network with its ReLU: largest difference",
                    tables.value(here.distance),
                    tables.value(everywhere.distance),
                ],
                [
                    "… root mean square, relative to the network's outputs",
                    percent(here.relative),
                    percent(everywhere.relative),
                ],
                [
                    "Values between the layers that the ReLU sets to 0",
                    percent(here.clipped),
                    percent(everywhere.clipped),
                ],
            ],
        )
    )
    figure, height = figures.strips(
        [
            ("one matrix", here.collapsed),
            ("no ReLU", here.stepwise),
            ("with ReLU", here.real),
            ("ReLU's part", here.real - here.collapsed),
        ]
    )
    plot(figure, key="fm-lens-collapse", height=height)
    apart = sum(layer.weight.size + len(layer.bias) for layer in (first, second))
    st.caption(
        f"This pixel's W·x + b of 1×1 convolution {chosen + 2}, four ways. The one matrix below "
        f"has {numbers.shape(one.weight.shape)} weights: {one.weight.size + len(one.bias):,} "
        f"parameters instead of {apart:,}."
    )
    rows, columns = (list(range(min(side, MOST_SIDE))) for side in one.weight.shape)
    plot(figures.matrix(one.weight, rows, columns), key="fm-lens-one", height=360)


_QUESTIONS: dict[str, tuple[str, Callable[[Look], None]]] = {
    "terms": ("Term by term", _terms),
    "patch": ("Where x comes from", _patch),
    "dense": ("As nn.Linear", _dense),
    "weights": ("The weights", _weights),
    "collapse": ("Without the ReLU", _collapse),
}
