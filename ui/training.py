"""The open run on the Training page: its name and state, how it goes, what can be done with it.

`run_choice` says which one it is, `live_run` draws how it goes, `run_actions` what can be done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from nin_core import NiNConfig, jobs, summarize
from nin_core.datasets import DATASETS
from ui import live_run, numbers, resources, run_actions
from ui.components import plot
from ui.curve_panel import CHART_HEIGHT
from ui.curves import History, training_figure
from ui.run_points import local_time, network_name, plain, title

if TYPE_CHECKING:
    from nin_core.records import Run

STATES: dict[str, tuple[str, str]] = {  # icon and colour of a badge
    "queued": (":material/hourglass_empty:", "gray"),
    "running": (":material/play_arrow:", "blue"),
    "paused": (":material/pause:", "gray"),
    "finished": (":material/check:", "green"),
    "stopped": (":material/stop:", "orange"),
    "interrupted": (":material/link_off:", "violet"),
    "failed": (":material/error:", "red"),
}


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
    """Draw the open run: its name, what can be done with it, and how it goes."""
    icon, color = STATES.get(run.state, (":material/help:", "gray"))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(plain(title(run)), anchor=False, width="content")
        st.badge(run.state, icon=icon, color=color)
    st.caption(plain(_described(run)))
    live_run.draw(run)
    run_actions.draw(run)


def _described(run: Run) -> str:
    parts = []
    if run.network is not None:
        parameters = summarize(run.network).total_parameters
        parts.append(f"{network_name(run.network)} ({parameters:,} parameters)")
    data = DATASETS.get(run.dataset)
    parts.append(data.title if data else run.dataset)
    if run.imported:
        parts.append("weights imported, not trained here")
    elif run.train is not None:
        train = run.train
        images = f"{train.subset:,} images, " if train.subset else ""
        epochs = f"{train.total_epochs} epoch{'s' if train.total_epochs > 1 else ''}"
        parts.append(
            f"{train.recipe} recipe: {images}{epochs}, batch {train.batch_size}, "
            f"learning rate {train.learning_rate:g}, seed {train.seed}"
        )
        parts += [f"rate {rate:g} from step {step:,} on" for step, rate in train.rate_changes]
    if run.settings is not None:
        device = f" on {run.device}" if run.device not in (None, "cpu") else ""
        parts.append(run.settings.words() + device)
    if run.peak_bytes and run.base_bytes and run.predicted_bytes:
        took = max(run.peak_bytes - run.base_bytes, 0)
        parts.append(
            f"memory {numbers.size(took)} beside PyTorch ({numbers.size(run.predicted_bytes)} "
            "predicted)"
        )
    if run.started_at is not None:
        parts.append(f"started {local_time(run.started_at):%-d %b %H:%M}")
    return " · ".join(parts)


def prepare() -> None:
    """Have a worker process waiting, so that the next Start shows its first point at once.

    Only in a server: where the script runs without one, nobody will press Start.
    """
    if st.runtime.exists():
        jobs.keep_spare(resources.store())
