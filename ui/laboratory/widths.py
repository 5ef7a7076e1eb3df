"""Widths that fit: the widest network within a budget, and what widths cost.

The answer and the charts are for the structure of the present network (image, windows, layers),
only its widths are sought. With the preset's proportions the answer does not depend on the present
widths, so it is remembered while a slider moves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from math import ceil
from typing import Any

import numpy as np
import streamlit as st

from nin_core import ConfigError, NiNConfig, estimate, preset, solver, summarize
from nin_core.config import MAX_CHANNELS
from nin_core.database import StoreError
from nin_core.solver import Budget, Fit, Proportions, Quantity
from ui import architecture, resources, width_figures
from ui.components import plot
from ui.laboratory import Subject, pinned
from ui.width_figures import words

POINTS = 80  # of a curve
CELLS = 32  # along a side of the heat map: 1,024 networks
TIMED_RUNS = 20  # the newest runs from which this computer's speed is taken

_PROPORTIONS = "architecture:proportions"


@dataclass(frozen=True, slots=True)
class _Unit:
    """How a budget is typed: `scale` is what one of the unit is in the library's own."""

    title: str
    scale: int
    default: float
    step: float
    least: float
    format: str | None = None


_UNITS: dict[Quantity, _Unit] = {
    "parameters": _Unit("parameters", 1, 500_000, 10_000, 1),
    "macs": _Unit("million MACs an image", 10**6, 100.0, 10.0, 0.001, "%.3g"),
    "bytes": _Unit("MiB of training memory", 2**20, 100.0, 10.0, 0.001, "%.5g"),
    "seconds": _Unit("seconds a step", 1, 0.1, 0.05, 0.001, "%.3g"),
}


def show(subject: Subject) -> None:
    """Draw the view."""
    config = subject.config
    st.subheader("Widths that fit")
    if not solver.growing(config):
        st.caption(
            "Every width of this network is its number of classes, so there is none to choose; add "
            "a block under “More settings”."
        )
        return
    st.caption(
        "The widest network within a budget: all widths grow together, in proportion, and at the "
        "next single channel the budget would be exceeded."
    )
    budget = _budget(subject.batch_size)
    try:
        shape, ratios, of = _proportions(config)
        sought = solver.proportions(shape, ratios)
    except ConfigError as error:
        st.error(_sentence(error))
        return
    answer = _answer(subject, shape, ratios, sought, budget)
    _curves(subject, sought, of, budget, answer)
    _heat_map(subject, budget)


# --- the question -----------------------------------------------------------------------------


def _budget(batch_size: int) -> Budget:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quantity: Quantity = st.session_state.get("architecture:quantity", "parameters")
        unit = _UNITS[quantity]
        key = f"architecture:limit:{quantity}"
        limit = st.number_input(
            "At most",
            unit.least,
            # What a button has put there is not a default's to set.
            value="min" if key in st.session_state else unit.default,
            step=unit.step,
            format=unit.format,
            key=key,
            persist_state="session",
            width=170,
        )
        st.selectbox(
            "of",
            list(_UNITS),
            format_func=lambda name: _UNITS[name].title,
            key="architecture:quantity",
            persist_state="session",
            width=230,
        )
    images = "1 image" if batch_size == 1 else f"{batch_size:,} images"
    measured = _speed()
    source = "from this computer's earlier runs" if measured else "for one thread of our computer"
    st.caption(
        f"Training memory and seconds are those of a step of {images} with momentum; the seconds "
        f"are a prediction {source}."
    )
    return Budget(quantity, limit * unit.scale, batch_size, measured or 1.0)


@st.cache_data(ttl=60, max_entries=1, show_spinner=False)
def _speed() -> float | None:
    """This computer against the reference thread, by its newest runs; None without any."""
    try:
        runs = resources.store().list_runs(limit=TIMED_RUNS)
    except StoreError:
        return None
    return estimate.measured_speed(
        (run.network, run.examples_per_second)
        for run in runs
        if run.network is not None and run.examples_per_second
    )


def _proportions(config: NiNConfig) -> tuple[NiNConfig, tuple[float, ...] | None, str]:
    """Draw the choice of proportions; returns a network that has them, ratios, and whose they are.

    Raises:
        ConfigError: if the ratios that were typed cannot be read.
    """
    base = architecture.base_preset()
    of_preset = _with_channels_of(preset(base), config)
    titles = {"preset": f"{base}'s", "network": "This network's", "own": "My own ratios"}
    if of_preset is None:
        del titles["preset"]
    if st.session_state.get(_PROPORTIONS) not in titles:
        st.session_state[_PROPORTIONS] = next(iter(titles))
    chosen = st.segmented_control(
        "In whose proportions",
        list(titles),
        format_func=titles.get,
        required=True,
        key=_PROPORTIONS,
        persist_state="session",
    )
    if chosen == "preset" and of_preset is not None:
        return of_preset, None, f"{base}'s"
    if chosen == "network":
        return config, None, "this network's"
    blocks = solver.growing(config)
    example = ":".join(str(config.blocks[b].channels[where[0]]) for b, where in blocks.items())
    text = st.text_input(
        f"Ratios of blocks {', '.join(str(block + 1) for block in blocks)}",
        example,
        key=f"architecture:ratios:{len(blocks)}",
        persist_state="session",
        width=230,
        help="Widths of the blocks' k×k convolutions on any common scale; within a block the "
        "widths keep their proportions.",
    )
    return config, parse_ratios(text, example), "the ratios'"


def parse_ratios(text: str, example: str) -> tuple[float, ...]:
    """Ratios as people write them: 1:2:4, or 1, 2, 4.

    Raises:
        ConfigError: if something in it is no number; says what would work.
    """
    parts = [part for part in re.split(r"[:,;/\s]+", text.strip()) if part]
    if not parts or not all(re.fullmatch(r"\d{1,7}(\.\d{1,4})?", part) for part in parts):
        raise ConfigError(
            f"“{text[:40]}” cannot be read as ratios; {example} would work.", field="ratios"
        )
    return tuple(float(part) for part in parts)


def _with_channels_of(source: NiNConfig, config: NiNConfig) -> NiNConfig | None:
    """`config` with the widths of `source`; None if they do not have the same layers."""
    places = solver.growing(config)
    if places != solver.growing(source):
        return None
    try:
        return solver.with_channels(
            config,
            {
                (block, position): source.blocks[block].channels[position]
                for block, where in places.items()
                for position in where
            },
        )
    except ConfigError:  # e.g. wide ones on a much larger image
        return None


# --- the answer -------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _fit(shape: NiNConfig, ratios: tuple[float, ...] | None, budget: Budget) -> Fit:
    return solver.fit(solver.proportions(shape, ratios), budget)


def _answer(
    subject: Subject,
    shape: NiNConfig,
    ratios: tuple[float, ...] | None,
    sought: Proportions,
    budget: Budget,
) -> Fit | None:
    """Say what fits, with a button for it; None if nothing does, which is said."""
    try:
        found = _fit(shape, ratios, budget)
    except ConfigError as error:
        st.error(_sentence(error))
        if isinstance(error.suggestion, int | float):
            st.button(
                "Use the smallest budget that works",
                on_click=_set_limit,
                args=(budget.quantity, error.suggestion),
            )
        return None
    following = None
    if found.next_cost is not None:
        following = sought.at(next(sought.steps(found.multiplier)))
    st.html(answer_table(subject.config, found, following, budget))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Use these widths",
            type="primary",
            icon=":material/input:",
            disabled=found.config == subject.config,
            on_click=architecture.show,
            args=(found.config,),
        )
        if following is None:
            st.caption(
                "A larger budget would change nothing: the next step is beyond the bounds of this "
                "program."
            )
        elif found.config == subject.config:
            st.caption("The sidebar's network has these widths.")
    return found


def _set_limit(quantity: Quantity, limit: float) -> None:
    """Type the smallest budget that works, rounded up to what the field shows."""
    unit = _UNITS[quantity]
    whole = quantity == "parameters"
    st.session_state[f"architecture:limit:{quantity}"] = (
        ceil(limit) if whole else ceil(limit / unit.scale * 1000) / 1000
    )


def answer_table(config: NiNConfig, found: Fit, following: NiNConfig | None, budget: Budget) -> str:
    """The present network, the widest that fits and the first that does not, a row each."""
    rows = [("this network", config), ("widest that fits", found.config)]
    if following is not None:
        rows.append(("next step", following))
    body = "".join(
        f'<tr class="{"nin-fit" if index == 1 else ""}">'
        f'<th scope="row">{widths_text(network)}<small>{name}</small></th>'
        f"{_answer_cells(network, budget)}</tr>"
        for index, (name, network) in enumerate(rows)
    )
    head = "".join(f"<th>{title}</th>" for title in width_figures.TITLES.values())
    return (
        f"{pinned.TABLE_STYLE}{_STYLE}<div class='nin-changes'><table aria-label='Widths that fit'>"
        f"<thead><tr><th>Widths</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def widths_text(network: NiNConfig) -> str:
    """The widths that can be chosen: 47-127-190, or 64-53-32 | 64-64-64 where a block's differ."""
    blocks = [
        [network.blocks[block].channels[position] for position in where]
        for block, where in solver.growing(network).items()
    ]
    if all(len(set(widths)) == 1 for widths in blocks):
        return "-".join(str(widths[0]) for widths in blocks)
    return " | ".join("-".join(map(str, widths)) for widths in blocks)


def _answer_cells(network: NiNConfig, budget: Budget) -> str:
    summary = summarize(network, budget.batch_size)
    values: dict[Quantity, float] = {
        "parameters": summary.total_parameters,
        "macs": summary.total_macs,
        "bytes": summary.training_bytes(),
        "seconds": solver.step_seconds(summary, budget.speed),
    }
    cells = []
    for quantity, value in values.items():
        share = ""
        if quantity == budget.quantity:
            share = f"<small>{_share(value / budget.limit)} of the budget</small>"
        cells.append(f"<td>{words(quantity, value)}{share}</td>")
    return "".join(cells)


def _share(ratio: float) -> str:
    """A share of the budget that never rounds to 100 % from either side."""
    if ratio == 1:
        return "100 %"
    if ratio > 10:
        return f"{ratio:,.0f} ×"
    percent = 100 * ratio
    for digits in (0, 1, 2, 3, 4):
        if float(f"{percent:.{digits}f}") != 100:
            return f"{percent:.{digits}f} %"
    return "just over 100 %" if ratio > 1 else "just under 100 %"


def _sentence(error: ConfigError) -> str:
    return str(error)[0].upper() + str(error)[1:]


_STYLE = """<style>
.nin-changes tr.nin-fit th, .nin-changes tr.nin-fit td { font-weight: 600;
  background: rgba(59,125,191,.12); }
.nin-changes tr.nin-fit th { padding-left: .4rem !important; }
</style>"""


# --- the charts -------------------------------------------------------------------------------


def _curves(
    subject: Subject, sought: Proportions, of: str, budget: Budget, answer: Fit | None
) -> None:
    st.subheader("What width costs")
    st.caption(
        "All widths times one multiplier: parameters and MACs grow with about its square, since "
        "both a layer's inputs and its outputs become more."
    )
    reach = 2 * max(1, ceil(answer.multiplier)) if answer else 2
    multipliers = [Fraction(reach * k, POINTS) for k in range(1, POINTS + 1)]
    found = solver.costs(sought.config, solver.channels_at(sought, multipliers))
    network = subject.network
    shown: list[tuple[Quantity, int]] = [
        ("parameters", network.total_parameters),
        ("macs", network.total_macs),
    ]
    place = None
    if answer is not None:
        fitting = summarize(answer.config)
        place = {"parameters": fitting.total_parameters, "macs": fitting.total_macs}
    for column, (quantity, now) in zip(st.columns(2), shown, strict=True):
        values = [
            int(value) if possible else None
            for value, possible in zip(found.of(quantity), found.possible, strict=True)
        ]
        figure = width_figures.curve_figure(
            [float(multiplier) for multiplier in multipliers],
            values,
            quantity,
            of=of,
            now=now,
            budget=budget.limit if budget.quantity == quantity else None,
            answer=(float(answer.multiplier), place[quantity]) if answer and place else None,
        )
        with column:
            plot(figure, key=f"architecture:width:{quantity}", height=330)


def _heat_map(subject: Subject, budget: Budget) -> None:
    """A cost over the widths of two blocks, the others as they are."""
    config = subject.config
    blocks = list(solver.growing(config))
    st.subheader("Two widths at once")
    if len(blocks) < 2:
        st.caption("This takes two blocks whose widths can be chosen; this network has one.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        across = _block("Across", blocks, blocks[0])
        down = _block("Down", [block for block in blocks if block != across], blocks[-1])
    base = preset(architecture.base_preset())
    widths = {block: cell_widths(config, base, block) for block in (across, down)}
    values = grid(config, (across, widths[across]), (down, widths[down]), budget)
    st.caption(
        f"{CELLS**2:,} networks, all their other widths as in the sidebar. Click a cell to put "
        f"its two widths there; {_where_budget(values, budget)}."
    )
    first = {b: config.blocks[b].channels[solver.growing(config)[b][0]] for b in (across, down)}
    figure = width_figures.heat_figure(
        (f"block {across + 1}", widths[across]),
        (f"block {down + 1}", widths[down]),
        values,
        budget.quantity,
        now=(first[across], first[down]),
        budget=budget.limit,
    )
    plot(
        figure,
        key="architecture:width-map",
        height=460,
        on_click=partial(_take_cell, config, across, down),
    )


def _where_budget(values: np.ndarray, budget: Budget) -> str:
    """Where the map has its dashed line, or why it has none."""
    if np.isnan(values).all():
        return "none of them can be built"
    if width_figures.crosses(values, budget.limit):
        return "the dashed line is the budget"
    return f"{'none' if (values > budget.limit).any() else 'all'} of them fit the budget"


def _block(label: str, blocks: Sequence[int], default: int) -> int:
    key = f"architecture:map:{label}"
    if st.session_state.get(key) not in blocks:
        st.session_state[key] = default if default in blocks else blocks[0]
    return st.selectbox(
        label,
        blocks,
        format_func=lambda block: f"Block {block + 1}",
        key=key,
        persist_state="session",
        width=150,
    )


def cell_widths(config: NiNConfig, base: NiNConfig, block: int) -> list[int]:
    """The widths of a block's cells: evenly up to a power of two beyond the present width.

    The preset's own width is within it, too, so that the axis stays while a slider moves.
    """
    position = solver.growing(config)[block][0]
    widest = config.blocks[block].channels[position]
    if block < len(base.blocks) - 1:
        widest = max(widest, base.blocks[block].channels[0])
    limit = min(max(CELLS, 2 ** (3 * widest // 2).bit_length()), MAX_CHANNELS)
    return list(range(limit // CELLS, limit + 1, limit // CELLS))


def grid(
    config: NiNConfig,
    across: tuple[int, Sequence[int]],
    down: tuple[int, Sequence[int]],
    budget: Budget,
) -> np.ndarray:
    """The budget's quantity, [down, across]; NaN beyond the bounds of `config.py`.

    Args:
        across, down: each a block (from 0) and the widths of its first growing layer.
    """
    channels = {
        place: values.reshape(side)
        for (block, widths), side in ((across, (1, -1)), (down, (-1, 1)))
        for place, values in solver.channels_of_block(config, block, widths).items()
    }
    found = solver.costs(config, channels, batch_size=budget.batch_size, speed=budget.speed)
    return np.where(found.possible, found.of(budget.quantity), np.nan)


def _take_cell(config: NiNConfig, across: int, down: int, point: dict[str, Any] | None) -> None:
    """Put the widths of the clicked cell into the sidebar."""
    chosen = (point or {}).get("x"), (point or {}).get("y")
    if not all(isinstance(width, int | float) and 1 <= width <= MAX_CHANNELS for width in chosen):
        return
    # A cell that cannot be built is empty: there is nothing to click.
    with suppress(ConfigError):
        wider = solver.with_block_width(config, across, round(chosen[0]))
        architecture.show(solver.with_block_width(wider, down, round(chosen[1])))
