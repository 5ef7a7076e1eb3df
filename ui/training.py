"""The open run on the Training page: how it goes, and what can be done with it.

`run_choice` says which one it is, `live_run` draws how it goes, `run_actions` what can be done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from nin_core import NiNConfig, jobs
from ui import live_run, resources, run_actions
from ui.components import plot
from ui.curve_panel import CHART_HEIGHT
from ui.curves import History, training_figure

if TYPE_CHECKING:
    from nin_core.records import Run


def welcome(config: NiNConfig) -> None:
    """What to do while no run is open, and the empty axes in which one's curves will appear."""
    if resources.store().list_runs(limit=1):
        st.markdown("**No run is open.** Start one, or click one in the list of runs below.")
        return
    st.markdown(
        "**No network has been trained here yet.** Choose a recipe, or leave all as it is, and "
        "press **Start**: the curves appear here while the network learns, and the run goes on "
        "even if you close the page."
    )
    axes = training_figure(History(), steps_per_epoch=1, end=1.0, num_classes=config.num_classes)
    plot(axes, key="curves of no run", height=CHART_HEIGHT)


def show(run: Run) -> None:
    """Draw the open run: its name, how it goes, and what can be done with it."""
    live_run.draw(run)
    run_actions.draw(run)


def prepare() -> None:
    """Have a worker process waiting, so that the next Start shows its first point at once.

    Only in a server: where the script runs without one, nobody will press Start.
    """
    if st.runtime.exists():
        jobs.keep_spare(resources.store())
