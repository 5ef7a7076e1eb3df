"""Compare: the network against another, the tutorial's exercises, and nets with dense layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import escape

import streamlit as st

from nin_core import ConfigError, LayerSummary, NetworkSummary, NiNConfig, summarize, variants
from nin_core.reference_nets import REFERENCE_NETS, reference_summary
from ui import architecture, figures, notes, numbers
from ui.components import plot
from ui.laboratory import Subject, information, pinned

_MUCH = 50  # times as large: from here on a linear axis hides the smaller one


def show(subject: Subject) -> None:
    """Draw the view."""
    changes(subject.network, subject.other)
    pins, problem = pinned.listed()
    if problem is None:  # the page's head says so otherwise
        pinned.manage(pins, subject.network)
    exercises(subject.config, subject.network)
    dense_networks(subject.config, subject.network)


# --- against one other network ----------------------------------------------------------------


def changes(network: NetworkSummary, other: NetworkSummary) -> None:
    """What differs from the network chosen in the page's head, layer by layer and in total."""
    st.subheader(f"Against {other.name}")
    if network.layers == other.layers:
        st.caption(
            f"This network is {other.name}. Move a slider, or choose another network under "
            "“Compare with”, and every layer's change stands here."
        )
        return
    st.caption(
        f"Grey behind each bar: the same layer of {other.name}. Its layers that this network does "
        "not have are there, too."
    )
    log = st.toggle("Logarithmic scale", key="architecture:change-log", persist_state="session")
    for column, quantity in zip(st.columns(2), figures.QUANTITIES, strict=True):
        figure, height = figures.change_figure(network, other, quantity, log=log)
        with column:
            plot(figure, key=f"architecture:change:{quantity}", height=height)
    with st.expander("The same in figures"):
        st.html(changes_table(network, other))


def changes_table(network: NetworkSummary, other: NetworkSummary) -> str:
    """Both networks' layers by name: the present figures, and their change."""
    mine, theirs = _grouped(network), _grouped(other)
    # In the order of this network; a layer that only the other one has comes after its last
    # neighbour that both have.
    names = list(mine)
    before = None
    for name in theirs:
        if name not in mine:
            names.insert(names.index(before) + 1 if before is not None else 0, name)
        before = name
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{_cells(mine.get(name), theirs.get(name))}</tr>'
        for name in names
    )
    totals = _cells(_total(network), _total(other))
    images = "1 image" if network.batch_size == 1 else f"batch of {network.batch_size:,}"
    return (
        f'{pinned.TABLE_STYLE}<div class="nin-changes"><table aria-label="Changes against '
        f'{escape(other.name)}"><thead><tr><th>layer</th><th>output</th><th>parameters</th>'
        f"<th>MACs an image</th><th>kept for backward, {images}</th></tr></thead>"
        f'<tbody>{rows}</tbody><tfoot><tr><th scope="row">Total</th>{totals}</tr></tfoot></table>'
        "</div>"
    )


@dataclass(frozen=True, slots=True)
class _Costs:
    shape: str
    parameters: int
    macs: int
    saved: int


def _grouped(network: NetworkSummary) -> dict[str, _Costs]:
    """Layers by name, batch norm and ReLU with the convolution before them."""
    groups: dict[str, list[LayerSummary]] = {}
    for layer in network.layers:
        if layer.kind in ("relu", "batch_norm"):
            groups[next(reversed(groups))].append(layer)
        elif layer.kind != "flatten":
            groups[layer.name] = [layer]
    return {
        name: _sum(numbers.shape(members[0].output_shape), members)
        for name, members in groups.items()
    }


def _total(network: NetworkSummary) -> _Costs:
    return _sum("", network.layers)


def _sum(shape: str, layers: Iterable[LayerSummary]) -> _Costs:
    members = list(layers)
    return _Costs(
        shape,
        sum(layer.parameters for layer in members),
        sum(layer.macs for layer in members),
        sum(layer.saved_bytes for layer in members),
    )


def _cells(now: _Costs | None, then: _Costs | None) -> str:
    shape = now.shape if now else "–"
    was = f"<small>was {then.shape}</small>" if then and then.shape != shape else ""
    cells = [f"<td>{shape}{was}</td>"]
    for name, words in (("parameters", "{:,}".format), ("macs", "{:,}".format), ("saved", _size)):
        new = getattr(now, name) if now else 0
        old = getattr(then, name) if then else 0
        if not new and not old:
            cells.append("<td>–</td>")
            continue
        change = f"was {words(old)}" if not new else numbers.change(new, old)
        cells.append(f"<td>{words(new) if new else '–'}<small>{change}</small></td>")
    return "".join(cells)


def _size(count: int) -> str:
    return numbers.size(count)


# --- the tutorial's exercises -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """A network to compare with the present one, ready made.

    Attributes:
        title: what is different about it.
        config: the network.
        lesson: what one learns from the figures, in a sentence.
    """

    title: str
    config: NiNConfig
    lesson: str


def exercises(config: NiNConfig, network: NetworkSummary) -> None:
    """Exercises 2 and 4 of the tutorial, answered for the present network."""
    st.subheader("One 1×1 layer more or fewer")
    st.caption(
        "The tutorial's exercise 2: why are there two 1×1 convolutions in a block, and what if one "
        "is removed? Each change is made in every block; the figures' change is against the "
        "present network."
    )
    _rows("pointwise", network, pointwise_comparisons(config, network))
    before, classes = variants.incoming_channels(config), config.num_classes
    st.subheader(f"From {before} channels to {classes}")
    last = len(config.blocks)
    shape = numbers.shape(next(row for row in network.layers if row.block == last).input_shape)
    st.caption(
        f"The tutorial's exercise 4: what is lost when block {last} turns {shape} into {classes} "
        "class maps in one step, and what does a step between cost?"
    )
    _rows("narrowing", network, narrowing_comparisons(config, network))


def pointwise_comparisons(config: NiNConfig, network: NetworkSummary) -> list[Comparison]:
    """Exercise 2: a 1×1 convolution fewer, and one more, in every block."""
    found = []
    field = notes.last_convolution(network).receptive_field
    fewer, more = variants.fewer_pointwise(config), variants.more_pointwise(config)
    if fewer is not None:
        found.append(
            Comparison(
                "One 1×1 layer fewer",
                fewer,
                f"{_saving(fewer, network)} and the receptive field stays {field} px, since a 1×1 "
                "layer looks at one pixel: what goes is one mixing of each pixel's channels with "
                "its ReLU, so a block can tell fewer patterns apart.",
            )
        )
    if more is not None:
        found.append(
            Comparison(
                "One 1×1 layer more",
                more,
                f"Depth without a wider view: {_cost(more, network)} buys one more mixing of each "
                f"pixel's channels, and a value of a class map still sees {field} px; gradients "
                "have one more ReLU a block to pass.",
            )
        )
    return found


def narrowing_comparisons(config: NiNConfig, network: NetworkSummary) -> list[Comparison]:
    """Exercise 4: the last block narrowing at once, by a step between, or in its last layer."""
    before, classes, last = (
        variants.incoming_channels(config),
        config.num_classes,
        len(config.blocks),
    )
    window = f"{config.blocks[-1].kernel_size}×{config.blocks[-1].kernel_size}"
    found = []
    if before > classes and (at_once := variants.in_one_step(config)) is not None:
        found.append(
            Comparison(
                f"In one step: {before} → {classes}",
                at_once,
                f"The cheapest end: {_cost(at_once, network)}, but behind the {window} convolution "
                f"a pixel is {classes} numbers, and what it drops no 1×1 layer can bring back.",
            )
        )
    between = variants.half_way(config)
    if between is not None and (stepwise := variants.in_two_steps(config)) is not None:
        found.append(
            Comparison(
                f"A step between: {before} → {between} → {classes}",
                stepwise,
                f"The {window} convolution keeps {between} features a pixel, and the 1×1 layers "
                f"combine them into class maps: {_cost(stepwise, network)} for a hidden layer in "
                f"block {last} that is not yet one map a class.",
            )
        )
    if (late := variants.in_the_last_layer(config)) is not None:
        found.append(
            Comparison(
                f"In the last 1×1 layer: {before} → {before} → {classes}",
                late,
                f"As the paper's networks end: nothing is dropped before the last layer, for "
                f"{_cost(late, network)}; the price shows that the early narrowing is what makes "
                f"block {last} cheap.",
            )
        )
    return found


def _saving(config: NiNConfig, network: NetworkSummary) -> str:
    changed = summarize(config)
    parameters = 1 - changed.total_parameters / network.total_parameters
    macs = 1 - changed.total_macs / network.total_macs
    return f"It saves {100 * parameters:.0f} % of the parameters and {100 * macs:.0f} % of the MACs"


def _cost(config: NiNConfig, network: NetworkSummary) -> str:
    changed = summarize(config)
    more = changed.total_parameters - network.total_parameters
    macs = numbers.change(changed.total_macs, network.total_macs)
    sign = "more" if more >= 0 else "fewer"
    return f"{numbers.short(abs(more))} parameters {sign} ({macs} MACs)"


def _rows(name: str, network: NetworkSummary, comparisons: list[Comparison]) -> None:
    if not comparisons:
        st.caption("This network has nothing to change here.")
        return
    for number, comparison in enumerate(comparisons):
        figures_of, button = st.columns([6, 1.3], vertical_alignment="center")
        with figures_of:
            st.html(comparison_row(comparison, network, style=number == 0))
        with button:
            st.button(
                "Put into the sidebar",
                key=f"architecture:{name}:{number}",
                on_click=architecture.show,
                args=(comparison.config,),
                width="stretch",
            )


def comparison_row(comparison: Comparison, network: NetworkSummary, *, style: bool = True) -> str:
    """A comparison's figures with their change against the present network, and its lesson."""
    changed = summarize(comparison.config, network.batch_size)
    field, now_field = (notes.last_convolution(one).receptive_field for one in (changed, network))
    pairs = (
        ("Parameters", "{:,}".format, changed.total_parameters, network.total_parameters),
        ("MACs an image", numbers.short, changed.total_macs, network.total_macs),
        ("Training memory", numbers.size, changed.training_bytes(), network.training_bytes()),
        ("Receptive field", "{} px".format, field, now_field),
    )
    cells = "".join(
        f"<div><dt>{label}</dt>"
        f"<dd>{words(then)}<small>{numbers.change(then, now)}</small></dd></div>"
        for label, words, then, now in pairs
    )
    return (
        f'{_ROW_STYLE if style else ""}<section class="nin-comparison"><h4>'
        f"{escape(comparison.title)}</h4><dl>{cells}</dl><p>{escape(comparison.lesson)}</p></section>"
    )


_ROW_STYLE = """<style>
.nin-comparison { border-top: 1px solid rgba(128,128,128,.3); padding: .55rem 0 .1rem; }
.nin-comparison h4 { font-size: 1rem; margin: 0 0 .3rem; padding: 0; }
.nin-comparison dl { display: grid; gap: .2rem 1rem; margin: 0; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); }
.nin-comparison dt { font-size: .78rem; font-weight: 400; opacity: .78; margin: 0; padding: 0; }
.nin-comparison dd { margin: 0; padding: 0; font-variant-numeric: tabular-nums; }
.nin-comparison small { margin-left: .5em; font-size: .8rem; opacity: .78; }
.nin-comparison p { font-size: .88rem; margin: .4rem 0 0; max-width: 52rem; }
</style>"""


# --- against networks with dense layers -------------------------------------------------------


def dense_networks(config: NiNConfig, network: NetworkSummary) -> None:
    """Beside LeNet, AlexNet and VGG-11 on the same input, and what their dense layers cost."""
    st.subheader("Against LeNet, AlexNet and VGG-11")
    fitting: dict[str, NetworkSummary] = {}
    misfits: list[str] = []
    for name in REFERENCE_NETS:
        try:
            fitting[name] = reference_summary(
                name, config.in_channels, config.image_size, config.num_classes
            )
        except ConfigError as error:
            misfits.append(str(error))
    totals = [network.total_parameters, *(net.total_parameters for net in fitting.values())]
    log = st.toggle(
        "Logarithmic",
        value=max(totals) > _MUCH * min(totals),
        key="architecture:log",
        persist_state="session",
    )
    compared = [replace(network, name="this network"), *fitting.values()]
    for column, quantity in zip(st.columns(2), figures.QUANTITIES, strict=True):
        figure, height = figures.reference_figure(compared, quantity, log=log)
        with column:
            plot(figure, key=f"architecture:references:{quantity}", height=height)
    if fitting:
        rival = fitting.get("AlexNet") or list(fitting.values())[-1]
        st.markdown(f"{notes.saving_note(network, rival)} {notes.head_note(network)}")
    information(*misfits)
