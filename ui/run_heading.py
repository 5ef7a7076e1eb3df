"""What stands over the open run's picture: its name, its state, what it is and how it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from nin_core import summarize
from nin_core.datasets import DATASETS
from ui import numbers
from ui.run_points import local_time, network_name, plain, title

if TYPE_CHECKING:
    from nin_core.records import Run

_STATES: dict[str, tuple[str, str]] = {  # icon and colour of a badge
    "queued": (":material/hourglass_empty:", "gray"),
    "running": (":material/play_arrow:", "blue"),
    "paused": (":material/pause:", "gray"),
    "finished": (":material/check:", "green"),
    "stopped": (":material/stop:", "orange"),
    "interrupted": (":material/link_off:", "violet"),
    "failed": (":material/error:", "red"),
}


def draw(run: Run) -> None:
    """Name, badge and description of a run."""
    icon, color = _STATES.get(run.state, (":material/help:", "gray"))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(plain(title(run)), anchor=False, width="content")
        st.badge(run.state, icon=icon, color=color)
    st.caption(plain(_described(run)))


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
