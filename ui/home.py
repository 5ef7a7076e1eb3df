"""What the home page shows besides its words: ways in, the latest runs, the data."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from nin_core import PRESETS, summarize
from nin_core.data import find_dataset
from nin_core.records import Run
from nin_core.reference_nets import reference_summary
from ui import frame, home_picture, resources
from ui.components import svg

LATEST = 5

_DOORS = (
    (
        "pages/architecture.py",
        "Take it apart",
        "Drag the channel sliders and see every layer's shape, parameters, cost and memory follow, "
        "beside LeNet, AlexNet and VGG-11.",
    ),
    (
        "pages/training.py",
        "Train it",
        "Start a short run on Fashion-MNIST and watch loss and accuracy live. The tutorial's own "
        "recipe is there too, and the reason when it never learns.",
    ),
    (
        "pages/feature_maps.py",
        "Look inside",
        "What each convolution makes of an image, before and after every 1×1 layer, down to the "
        "ten class maps that decide.",
    ),
)


def doors() -> None:
    """Three ways on, each with a sentence."""
    for column, (file, title, text) in zip(st.columns(len(_DOORS)), _DOORS, strict=True):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{title}**")
            st.caption(text)
            page = frame.page(file)
            st.page_link(page, label=f"Open {page.title}")


def picture() -> None:
    """AlexNet's and VGG's pattern beside NiN's."""
    st.subheader("What NiN does differently")
    svg(home_picture.picture(), key="home-picture")


def words() -> None:
    """What NiN is and why 1×1 convolutions, in two points with computed figures."""
    st.subheader("In a few words")
    nin = PRESETS["nin-224"]
    alexnet = reference_summary("AlexNet", nin.in_channels, nin.image_size, nin.num_classes)
    st.markdown(
        "**A 1×1 convolution is a small dense layer applied at every pixel.** It mixes the "
        "channels of one pixel and looks at no neighbour. A NiN block puts two of them, each with "
        "a ReLU, behind an ordinary convolution: a network in the network."
    )
    st.markdown(
        "**The last block makes one map per class, and pooling each map gives its logit.** AlexNet "
        "and VGG flatten their maps into dense layers instead, and that is where their parameters "
        f"are: for 224×224 images AlexNet has {alexnet.total_parameters:,}, the tutorial's NiN "
        f"{summarize(nin).total_parameters:,}."
    )


def latest_runs() -> None:
    """The newest runs with their state and accuracy, each a link to its page."""
    st.subheader("Latest runs")
    with frame.guarded():
        runs = resources.store().list_runs(limit=LATEST)
        if not runs:
            st.caption("None yet. Training starts the first; one epoch takes well under a minute.")
        for run in runs:
            _run_row(run)


def _run_row(run: Run) -> None:
    link, what = st.columns([3, 2], vertical_alignment="center")
    with link:
        st.page_link(
            frame.page("pages/training.py"), label=run.name, query_params={"run": str(run.id)}
        )
    with what:
        st.caption(f"{run.state} · {_figure(run)} · {_ago(run.created_at)}")


def _figure(run: Run) -> str:
    if run.test_accuracy is not None:
        return f"{run.test_accuracy:.1%} test accuracy"
    return f"{run.progress:.0%} done" if run.active else "not tested"


def _ago(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86_400:
        return f"{seconds // 3600:.0f} h ago"
    return f"{int(seconds // 86_400)} days ago" if seconds >= 172_800 else "yesterday"


def data_status() -> None:
    """Whether Fashion-MNIST is at hand, and what there is otherwise."""
    st.subheader("Data")
    status = find_dataset("fashion-mnist")
    if status.available:
        st.markdown(f":material/check_circle: {status.sentence}")
        return
    st.markdown(f":material/cloud_download: {status.sentence}")
    st.caption(
        "Without a connection, the generated shapes work at once: choose them on the Training page."
    )
