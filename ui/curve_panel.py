"""The chart of the open run, and how a person looks at curves: the unit, the axis, the smoothing.

Choices made here:

* What is chosen is kept in the session, for the open run and for the comparison each: one looks at
  one run's beginning in seconds and compares several by epochs.
* The charts of the two pictures have keys of their own, so each keeps its zoom.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import streamlit as st

from ui.components.plot import Prepared, mount, prepare
from ui.curves import Unit, View, training_figure
from ui.run_points import channels_of, steps_per_epoch, with_final_test
from ui.views import switch
from ui.vitals_figures import has_zeros, recorded, vitals_figure

if TYPE_CHECKING:
    from nin_core.records import Run
    from ui.curves import History

CHART_HEIGHT = 480
VITALS_HEIGHT = 600

_CURVES, _VITALS = "Loss and accuracy", "Gradients and dead channels"
_UNIT_LABELS: dict[Unit, str] = {"epochs": "Epochs", "steps": "Steps", "seconds": "Seconds"}
MOST_SMOOTHING = 0.99
SHORT = 10  # epochs up to which a run has the whole of its picture from its beginning
GROWN = 0.8  # of the picture's width, which the curve of a longer one fills before the edge moves


class Look(NamedTuple):
    """How a person looks at a run: at its loss and accuracy or its vitals, over which axes."""

    vitals: bool = False
    view: View = View()


def draw(run: Run, history: History) -> tuple[Look, Prepared | None]:
    """The switch between a run's pictures, how they are drawn, and the one chosen.

    Returns:
        what was chosen, and the chart; None where there is none to draw.
    """
    if not _has_curves(run, history):
        return Look(), None
    picture = switch(
        "Picture", (_CURVES, _VITALS), "tr:picture", label_visibility="collapsed", wrap=True
    )
    vitals = picture == _VITALS
    if vitals and not _has_vitals(history):
        st.info(
            "This run recorded no gradients and no dead channels: a version of NiN Explorer before "
            "these were kept has trained it. Runs that are started now record them."
        )
        return Look(vitals), None
    view = choose_view("tr:view", loss=not vitals)
    if vitals:
        crosses = " A cross at the foot of the norms is one of exactly 0." * has_zeros(history)
        st.caption(
            "Healthy: the gradient's norm stays level or falls slowly, the update's follows the "
            "learning rate, and the map stays nearly clear. A row that turns red is a layer whose "
            "channels are zero for every test image: they get no gradient and learn nothing more."
            f"{crosses}"
        )
    look = Look(vitals, view)
    chart = chart_of(run, history, look)
    if chart is not None:
        mount(chart)
    return look, chart


def chart_of(run: Run, history: History, look: Look) -> Prepared | None:
    """A run's picture as a person looks at it; None where there is none to draw."""
    if not _has_curves(run, history) or (look.vitals and not _has_vitals(history)):
        return None
    assert run.network is not None and run.train is not None
    history = with_final_test(run, history)
    end = _end(run, history)
    if look.vitals:
        channels = channels_of(run.network)
        figure = vitals_figure(
            history,
            steps_per_epoch=steps_per_epoch(run),
            end=end,
            channels=channels,
            view=look.view,
        )
        return prepare(figure, key=f"vitals of run {run.id}", height=VITALS_HEIGHT)
    figure = training_figure(
        history,
        steps_per_epoch=steps_per_epoch(run),
        end=end,
        num_classes=run.network.num_classes,
        rate_changes=run.train.rate_changes,
        view=look.view,
    )
    return prepare(figure, key=f"curves of run {run.id}", height=CHART_HEIGHT)


def _end(run: Run, history: History) -> float | None:
    """Epochs at the right edge; None: where the curves stand, of a run that goes no further.

    A run grows into its picture. Of a long one that has just begun it would be a dot in the corner,
    so the edge is an epoch at first, and then twice, four times, … as many, until it is the end.
    """
    assert run.train is not None
    total = run.train.total_epochs
    if not run.active:
        return total if run.state == "finished" else None
    if total <= SHORT:
        return total
    done = float(history.step[-1]) / steps_per_epoch(run) if len(history.step) else 0.0
    return min(total, 2 ** math.ceil(math.log2(max(done / GROWN, 1.0))))


def _has_curves(run: Run, history: History) -> bool:
    """Whether a run has curves, or will have: it can be read, and has points or is active."""
    return (
        run.network is not None
        and run.train is not None
        and (run.active or bool(len(history.step)))
    )


def _has_vitals(history: History) -> bool:
    """Whether a run's vitals were recorded, as far as it has come."""
    return not len(history.step) or recorded(history)


def choose_view(key: str, *, loss: bool = True) -> View:
    """One row of choices: the unit of the horizontal axis, the axis of the loss, the smoothing.

    Args:
        key: of this row in the session; what it says stays there.
        loss: whether a loss is drawn, whose axis can be chosen.
    """
    log = False
    with st.container(horizontal=True, vertical_alignment="top", gap="small"):
        unit = switch(
            "Horizontal axis", tuple(_UNIT_LABELS), f"{key}:unit", format_func=_UNIT_LABELS.get
        )
        if loss:
            log = switch("Loss axis", ("Linear", "Log"), f"{key}:loss") == "Log"
        smoothing = st.slider(
            "Smoothing",
            0.0,
            MOST_SMOOTHING,
            step=0.01,
            key=f"{key}:smoothing",
            persist_state="session",
            width=200,
            help="Weight of the past in a moving mean of the training curves; what was recorded "
            "stays faint behind it. Tests are not smoothed.",
        )
    return View(unit, float(smoothing), log)
