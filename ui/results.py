"""What a run's network gets right and wrong on the test set: matrix, classes, pictures.

Choices made here:

* Everything follows from the logits that the worker stored; no network is run. The test images and
  their labels come from the data set, whose loader needs torch, which is loaded when there is
  something to show.
* In the confusion matrix, right answers and mistakes have a colour scale each: on a common one the
  diagonal drowns the mistakes, which are what the matrix is for.
* The pictures of the most confident mistakes are one PNG inside the page, cut by the browser.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from nin_core import evaluation, scoring
from nin_core.datasets import DATASETS
from nin_core.evaluation import Mistake
from ui import frame, resources, theme
from ui.components import plot
from ui.run_choice import attempt, once_button

if TYPE_CHECKING:
    from nin_core.records import Run

Figure = dict[str, Any]

MISTAKES = 18
PICTURE_SCALE = 3  # screen pixels of one image pixel, for 28×28

_STYLE = """
<style>
.nin-mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.7rem, 1fr));
  gap: .9rem .6rem; }
.nin-mistakes > div { font-size: .8rem; line-height: 1.3; }
.nin-mistakes b { display: block; font-weight: 600; }
.nin-mistakes span { display: block; image-rendering: pixelated; border-radius: 3px;
  margin-bottom: .3rem; background-repeat: no-repeat; }
</style>
"""


@dataclass(frozen=True)
class Results:
    """What the stored logits say.

    Attributes:
        images: how many of the test set's images were measured, from its first on.
        confusion: [true, predicted] counts.
        mistakes: the most confident ones; `pictures` is uint8 [n, side, side(, 3)] of them.
    """

    images: int
    confusion: NDArray[np.int64]
    mistakes: tuple[Mistake, ...]
    pictures: NDArray[np.uint8]


def show(run: Run) -> None:
    """Draw the results of a run that has ended, or why there are none."""
    if run.active or run.dataset not in DATASETS:
        return
    if not run.has_evaluation:
        if run.worker is None and run.has_checkpoint and run.problem is None:
            measure = ("run", scoring.measure_again, resources.store(), run.id)
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                once_button(
                    "measure", "Measure them", attempt, *measure, icon=":material/checklist:"
                )
                st.caption("These weights were not measured on the test set.", width="content")
        return
    st.subheader("What it gets right and wrong", anchor=False)
    with frame.guarded():
        resources.load_torch()
        results = _results(run.id, str(run.created_at), run.attempt, run.test_examples or 0)
        if results is None:
            return
        info = DATASETS[run.dataset]
        names = class_names(info.class_names, len(results.confusion))
        st.caption(_summary(results, names, info.test_size, run.state))
        left, right = st.columns([3, 2], gap="medium")
        with left:
            st.markdown("**Confusion matrix**")
            key = f"confusion of run {run.id}"
            plot(confusion_figure(results.confusion, names), key=key, height=470)
        with right:
            st.markdown("**Accuracy of each class**")
            key = f"classes of run {run.id}"
            plot(class_figure(results.confusion, names), key=key, height=470)
        _mistakes(results, names)


@st.cache_resource(show_spinner="Counting right and wrong answers …", max_entries=8)
def _results(run_id: int, created: str, attempt: int, examples: int) -> Results | None:
    """The results of a run; the other arguments tell it from itself at another time."""
    store = resources.store()
    stored = store.load_evaluation(run_id)
    if stored is None:
        return None
    data = resources.dataset(store.get(run_id).dataset)
    logits = evaluation.read_logits(stored.logits, stored.images, stored.classes)
    labels = data.test_labels.numpy()[: stored.images]
    mistakes = tuple(evaluation.confident_mistakes(logits, labels, MISTAKES))
    chosen = data.test_images.numpy()[[mistake.index for mistake in mistakes]]
    pictures = chosen[:, 0] if chosen.shape[1] == 1 else chosen.transpose(0, 2, 3, 1)
    confusion = evaluation.confusion_matrix(logits, labels)
    return Results(stored.images, confusion, mistakes, np.ascontiguousarray(pictures))


def class_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """One name for each of a network's `count` classes; it may have more than its data set."""
    return tuple(names[:count]) + tuple(f"class {n}" for n in range(len(names), count))


def _summary(results: Results, names: Sequence[str], test_size: int, state: str) -> str:
    counts = results.confusion
    right, total = int(np.trace(counts)), results.images
    said = f"{right:,} of {total:,} test images right."
    if total < test_size:
        said = (
            f"{right:,} of the first {total:,} test images right; a {state} run is measured on as "
            f"many of the {test_size:,} as ten seconds allow."
        )
    wrong = counts - np.diag(np.diagonal(counts))
    if wrong.any():
        true, predicted = np.unravel_index(int(wrong.argmax()), wrong.shape)
        said += (
            f" Most often, {names[true]} is taken for {names[predicted]}: "
            f"{wrong[true, predicted]:,} times."
        )
    never = [names[index] for index in np.flatnonzero(counts.any(axis=1) & ~counts.any(axis=0))]
    if never:
        listed = ", ".join(never[:-1]) + " or " * (len(never) > 1) + never[-1]
        said += f" No test image is taken for {listed}."
    return said


# --- figures ----------------------------------------------------------------------------------


def confusion_figure(counts: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """The confusion matrix as a heat map; rows are the true classes, the first on top.

    Args:
        counts: [true, predicted].
    """
    shown = _occurring(counts)
    counts = counts[np.ix_(shown, shown)]
    labels = [names[index] for index in shown]
    diagonal = np.eye(len(labels), dtype=bool)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    hover = [
        [
            f"true {labels[row]}, predicted {labels[column]}: {counts[row, column]:,}"
            f"<br>{shares[row, column]:.1%} of {totals[row, 0]:,}"
            for column in range(len(labels))
        ]
        for row in range(len(labels))
    ]
    text = np.where(counts > 0, counts.astype(str), "")

    def layer(mask: NDArray[np.bool_], color: str, highest: float) -> dict[str, Any]:
        return {
            "type": "heatmap",
            "x": labels,
            "y": labels,
            "z": np.where(mask, shares, np.nan).tolist(),
            "zmin": 0,
            "zmax": highest or 1,
            "colorscale": [[0, "rgba(128, 128, 128, 0.1)"], [1, _translucent(color)]],
            "showscale": False,
            "text": np.where(mask, text, "").tolist(),
            "texttemplate": "%{text}",
            "textfont": {"size": 11, "color": "var(--st-text-color)"},
            "customdata": hover,
            "hovertemplate": "%{customdata}<extra></extra>",
            "hoverongaps": False,
            "xgap": 1,
            "ygap": 1,
        }

    return {
        "data": [
            layer(diagonal, theme.TEST_ACCURACY, 1.0),
            layer(~diagonal, theme.TRAIN_LOSS, float(shares[~diagonal].max(initial=0.0))),
        ],
        "layout": {
            "xaxis": {"title": {"text": "predicted"}, "tickangle": -40, "showgrid": False},
            "yaxis": {"title": {"text": "true"}, "autorange": "reversed", "showgrid": False},
            "margin": {"l": 80, "r": 8, "t": 30, "b": 80},
            "dragmode": False,
        },
    }


def _translucent(color: str) -> str:
    """A colour at three quarters: the theme's text stays readable on it, on light and on dark."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.75)"


def class_figure(counts: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Accuracy of each class that has images, the best on top."""
    totals = counts.sum(axis=1)
    accuracy = evaluation.per_class_accuracy(counts)
    order = [int(i) for i in np.argsort(accuracy, kind="stable") if totals[i]]
    values = [float(accuracy[i]) for i in order]
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": values,
                "y": [names[i] for i in order],
                "text": [f"{value:.1%}" for value in values],
                "textposition": "auto",
                "insidetextanchor": "end",
                "marker": {"color": theme.TEST_ACCURACY},
                "customdata": [f"{counts[i, i]:,} of {totals[i]:,}" for i in order],
                "hovertemplate": "%{y}: %{customdata} right<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"range": [0, 1.005], "tickformat": ".0%", "dtick": 0.25},
            "yaxis": {"showgrid": False, "ticklabelstandoff": 6},
            "margin": {"l": 80, "r": 20, "t": 30, "b": 80},
            "bargap": 0.25,
            "dragmode": False,
        },
    }


def _occurring(counts: NDArray[np.int64]) -> list[int]:
    """The classes that an image has or was taken for; all of them if there are few."""
    if len(counts) <= 12:
        return list(range(len(counts)))
    return [int(i) for i in np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))]


# --- mistakes ---------------------------------------------------------------------------------


def _mistakes(results: Results, names: Sequence[str]) -> None:
    st.markdown("**Most confident mistakes**")
    if not results.mistakes:
        st.caption("There is none: every measured image was recognised.")
        return
    st.html(_STYLE + mistakes_html(results, names))


def mistakes_html(results: Results, names: Sequence[str]) -> str:
    """The wrong answers as a list of pictures with captions."""
    side = results.pictures.shape[1]
    scale = max(1, round(28 * PICTURE_SCALE / side))
    shown = side * scale
    columns = math.ceil(math.sqrt(len(results.mistakes)))
    rows = math.ceil(len(results.mistakes) / columns)
    url = base64.b64encode(sprite_png(results.pictures, columns)).decode()
    items = []
    for number, mistake in enumerate(results.mistakes):
        true, taken = escape(names[mistake.label]), escape(names[mistake.predicted])
        x, y = number % columns * shown, number // columns * shown
        items.append(
            f"<div role='listitem'><span role='img' aria-label='Test image {mistake.index}'"
            f" style='width:{shown}px;height:{shown}px;background-position:-{x}px -{y}px'></span>"
            f"<b>{true}</b> taken for {taken}, {_sureness(mistake.confidence)}</div>"
        )
    return (
        f"<style>.nin-mistakes span {{ background-image: url(data:image/png;base64,{url}); "
        f"background-size: {columns * shown}px {rows * shown}px; }}</style>"
        f"<div class='nin-mistakes' role='list'>{''.join(items)}</div>"
    )


def _sureness(confidence: float) -> str:
    """A confidence in whole percent; certainty is not claimed for what is only almost certain."""
    return "over 99%" if confidence > 0.99 else f"{confidence:.0%}"


def sprite_png(pictures: NDArray[np.uint8], columns: int) -> bytes:
    """Pictures [n, side, side(, 3)] side by side in rows of `columns`, as one PNG."""
    from PIL import Image

    count, side = pictures.shape[:2]
    rows = math.ceil(count / columns)
    canvas = np.zeros((rows * side, columns * side, *pictures.shape[3:]), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        canvas[row * side : (row + 1) * side, column * side : (column + 1) * side] = picture
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG")
    return buffer.getvalue()
