"""Learning, replayed: one layer's maps or filters at the moments of a run's training.

Choices made here:

* All moments are sent at once, on one colour scale, and the browser turns between them: nothing is
  computed or sent when the slider moves.
* While a run trains the view can follow it: a fragment that shows nothing looks for newer weights
  every other second, and draws the page once when there are some, its answer too. So a tick costs
  little, however large the film is. Whoever has moved the slider back stays where they are.
* Accuracy and loss are those that the run had reported by then, with the step where they were
  measured if it is another one; nothing is measured anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from nin_core import NiNConfig, summarize
from nin_core.records import RunNotFound
from nin_core.snapshots import room_for
from nin_core.store import StoreError
from ui import frame, numbers, resources, run_points
from ui.components import Curves, film, replay, tick
from ui.components import Moment as Position
from ui.curves import History, thinned
from ui.feature_subject import keep_valid, percent
from ui.feature_views import Scene
from ui.feature_views.choices import choose_layer, choose_range
from ui.feature_views.moments import Moment, Part, channels_at_once, filmed, moments
from ui.feature_views.stages import Stage

if TYPE_CHECKING:
    from nin_core.records import Run

Names = tuple[tuple[int, float], ...]  # of moments: step, and when they were made

TICK_SECONDS = 2.0
CURVE_POINTS = 300  # of a curve below the slider
HALF_BYTES = 2  # of a weight in a snapshot

_FOLLOW, _SHOWN, _READS = "fm:re:follow", "fm:re:shown", "fm:re:reads"
_FILM = "fm-replay-film"


def show(scene: Scene) -> None:
    """Draw the view."""
    st.caption(
        "While a run trains, its weights are kept at some moments. Move through them, or press "
        "play, to see how the same picture's maps, or the filters, form."
    )
    subject = scene.subject
    if subject.weights is None:
        st.info(
            "An untrained network has nothing to replay: start a run on the Training page, or "
            "choose one under “Network”."
        )
        return
    run = resources.store().get(int(subject.key[1]))
    if run.active and st.toggle(
        "Follow it while it trains",
        True,
        key=_FOLLOW,
        persist_state="session",
        help="Newer weights are shown as soon as they are saved, while the slider is at its end.",
    ):
        st.fragment(_watch)(run.id, _names(moments(run)))
    _replay(scene, run.id)


def _watch(run_id: int, shown: Names) -> None:
    """Draw the page anew when the run has other moments than are shown, or trains no more."""
    tick(TICK_SECONDS, key="fm:watch")
    try:
        run = resources.store().get(run_id)
        if run.active and _names(moments(run)) == shown:
            return
    except RunNotFound:
        pass  # the page says so
    except StoreError:
        return  # the next tick asks again
    st.rerun()


def _names(found: list[Moment]) -> Names:
    return tuple((moment.step, moment.made_at) for moment in found)


@st.fragment
def _replay(scene: Scene, run_id: int) -> None:
    with frame.guarded():
        _show_moments(scene, resources.store().get(run_id))


def _show_moments(scene: Scene, run: Run) -> None:
    network = scene.subject.network
    found = moments(run)
    if len(found) < 2:
        st.info(_nothing_to_replay(run, network, len(found)))
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        stage = choose_layer(network, width=330)
        part, shape = _choose_part(stage, network, len(found))
    picture = (
        (scene.picture.key, scene.subject.data.name),
        scene.picture.steps.network_input,
    )
    with st.spinner(f"The layer at {len(found)} moments …"):
        found, shown = filmed(found, part, network, picture)
    if shown is None:
        st.warning("This run's snapshots are gone; choose another run.")
        return
    history = run_points.with_final_test(run, run_points.histories().of(resources.store(), run))
    replay(
        [position(moment, history) for moment in found],
        curves(run, history, found[-1].step),
        film=_FILM,
        subject=f"run {run.id}",
        key="fm-replay",
    )
    film(
        shown,
        key=_FILM,
        title=f"{_title(part, shape)}, one colour scale for all moments",
        labels=[str(channel) for channel in range(part.start, part.stop)]
        if part.what != "matrix"
        else ["W"],
    )


# --- what is looked at ------------------------------------------------------------------------


def _choose_part(stage: Stage, network: NiNConfig, count: int) -> tuple[Part, tuple[int, int, int]]:
    """Maps or filters of a layer, and which channels; with their shape."""
    rows = summarize(network).layers
    channels, height, width = next(r.output_shape for r in rows if r.name == stage.after)
    kinds = ["maps", "filters"] if stage.kind != "pool" else ["maps"]
    keep_valid(_SHOWN, ["maps", "filters"])
    chosen = "maps"
    if len(kinds) > 1:
        chosen = st.segmented_control(
            "Look at",
            kinds,
            key=_SHOWN,
            format_func={"maps": "Maps", "filters": "Filters"}.get,
            required=True,
            persist_state="session",
            help="Maps: what the layer makes of the picture. Filters: its weights.",
        )
    if chosen == "maps":
        start, stop = _choose_channels(stage, channels, channels_at_once(count, height * width))
        return Part(stage.after, start, stop), (stop - start, height, width)
    row = next(r for r in rows if r.name == stage.before)
    entering, kernel = row.input_shape[0], row.kernel_size
    assert kernel is not None
    if stage.kind == "conv1x1":
        start, stop = _choose_channels(stage, channels, channels_at_once(count, entering))
        return Part(stage.before, start, stop, "matrix"), (1, stop - start, entering)
    reads = 0
    if entering > 1:
        key = f"{_READS}:{stage.before}"
        if st.session_state.get(key, 0) >= entering:
            st.session_state[key] = 0
        reads = st.number_input(
            f"Filters that read channel (0 to {entering - 1})",
            0,
            entering - 1,
            key=key,
            persist_state="session",
            width=240,
            help="A filter has one kernel for each channel that enters; these are those for one.",
        )
    start, stop = _choose_channels(stage, channels, channels_at_once(count, kernel * kernel))
    return Part(stage.before, start, stop, "kernels", int(reads)), (stop - start, kernel, kernel)


def _choose_channels(stage: Stage, channels: int, at_once: int) -> tuple[int, int]:
    """All channels, or as many as a film can hold."""
    return choose_range("Channels", channels, at_once, f"fm:re:part:{stage.after}", width=150)


def _title(part: Part, shape: tuple[int, int, int]) -> str:
    count, height, width = shape
    if part.what == "matrix":
        return f"{height}×{width} weights, a row an output, a column an input"
    what = "map" if part.what == "maps" else "filter"
    return f"{count} {what}{'s' if count > 1 else ''} of {height}×{width}"


# --- what is said -----------------------------------------------------------------------------


def _nothing_to_replay(run: Run, network: NiNConfig, count: int) -> str:
    """Why a run has fewer than two moments, and what to do, in a sentence."""
    if run.imported:
        return "Imported weights have no training to replay; start a run on the Training page."
    size = HALF_BYTES * summarize(network).total_parameters
    if not room_for(size):
        return (
            f"This network is too large for snapshots ({numbers.size(size)} each); train one "
            "with smaller widths to see it learn."
        )
    if run.active:
        return "This run has not kept a second moment yet; its maps appear here once it has."
    if count and run.step < 2:
        return f"Run #{run.id} ended after {run.step} steps; resume it on the Training page."
    return (
        f"Run #{run.id} kept no snapshots of its weights; start one like it on the Training page, "
        "or let it train for more epochs."
    )


def position(moment: Moment, history: History) -> Position:
    """A position of the slider: what was known of the run by then."""
    where = "Before the first step" if not moment.step else f"Step {moment.step:,}"
    title = where + (f" · epoch {moment.epoch}" if moment.step else "")
    if moment.latest is not None:
        title += " · latest"
    accuracy = _last_by(moment.step, history.test_step, history.test_accuracy)
    loss = _last_by(moment.step, history.step, history.train_loss)
    return Position(
        moment.step,
        title,
        _said("Test accuracy", accuracy, percent, moment.step),
        _said("Training loss", loss, lambda value: f"{value:.3f}", moment.step),
    )


def _last_by(step: int, steps: np.ndarray, values: np.ndarray) -> tuple[int, float] | None:
    """The last of a curve's values by `step`, and where it was measured."""
    there = np.flatnonzero((steps <= step) & np.isfinite(values))
    return (int(steps[there[-1]]), float(values[there[-1]])) if len(there) else None


def _said(
    what: str, found: tuple[int, float] | None, shown: Callable[[float], str], step: int
) -> str:
    if found is None:
        return f"{what}: not measured yet"
    at, value = found
    return f"{what} {shown(value)}" + ("" if at == step else f" (at step {at:,})")


def curves(run: Run, history: History, last: int) -> Curves:
    """The curves below the slider, up to where the run is."""
    steps = max(run.step, last)
    return Curves(
        accuracy=_points(history.test_step, history.test_accuracy),
        loss=_points(history.step, history.train_loss),
        steps=steps,
        end=f"step {steps:,}",
    )


def _points(steps: np.ndarray, values: np.ndarray) -> list[tuple[float, float]]:
    columns = thinned(steps, values, limit=CURVE_POINTS)
    return [(float(x), float(y)) for x, y in zip(*columns, strict=True) if np.isfinite(y)]
