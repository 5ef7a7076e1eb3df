"""How the open run goes: status, messages, figures and curves, drawn anew while there is news.

Choices made here:

* While something is to come (the run is active, or its worker still measures it), a fragment draws
  as often as `ui.pace` finds worth it, at most twice a second; when the state or the pace changes,
  the whole page is drawn once and a run that has ended does not tick.
* The fragment's parts have fixed places, so the chart stays where it is when a message comes.
* A store that does not answer for a moment leaves the last picture on the page, with a sentence.
* No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import streamlit as st

from nin_core import admission, jobs, trouble
from nin_core.datasets import DATASETS
from nin_core.records import RESUMABLE, RunNotFound
from nin_core.store import StoreError
from ui import curve_panel, numbers, pace, resources, theme
from ui.curves import History
from ui.run_choice import attempt, open_run, show_notice
from ui.run_points import histories, steps_per_epoch, with_final_test

if TYPE_CHECKING:
    from nin_core.records import Run
    from nin_core.store import RunStore

_TWIN = "tr:twin:started"

# The parts that tick are never stale: fading them while they are drawn anew would be a flicker, as
# would be Streamlit's own sign that a script runs, which has a "Stop" that is not the run's.
_STYLE = """
<style>
.nin-figures { display: flex; flex-wrap: wrap; gap: .4rem 2rem; line-height: 1.3; }
.nin-figures > div { min-width: 6.5rem; font-size: 0.8rem; }
.nin-figures > div > span { opacity: .85; }
.nin-figures i { display: inline-block; width: .65rem; height: .65rem; margin-right: .35rem;
  border-radius: 2px; }
.nin-figures b { display: block; font-size: 1.35rem; font-weight: 400;
  font-variant-numeric: tabular-nums; }
.nin-figures small { display: block; font-size: 0.75rem; opacity: .75; min-height: 1.3em; }
[data-testid="stStatusWidget"] { display: none; }
.st-key-tr-live [data-stale="true"], .st-key-tr-live[data-stale="true"] { opacity: 1 !important; }
</style>
"""


def draw(run: Run) -> None:
    """Draw the run as it is now, and again while there is news."""
    st.html(_STYLE)
    every = _pace(run)
    st.fragment(_live, run_every=every)(run.id, run.state, every)


@dataclass(frozen=True)
class _Seen:
    """A run as it was read last: its row, its points, its place in the queue, its log.

    `waits`: why it does not start although it is its turn.
    """

    run: Run
    history: History
    place: admission.Place | None = None
    waits: str | None = None
    log: str = ""


def _live(run_id: int, drawn_state: str, every: float | None) -> None:
    """Status, messages, figures and chart of a run, as it is now.

    Args:
        drawn_state: the state in which the rest of the page shows the run.
        every: seconds after which this is drawn anew; None: never.
    """
    with st.container(key="tr-live"):
        status, messages, figures, chart = (st.container() for _ in range(4))
    try:
        seen = _look(run_id, ticking=every is not None)
    except RunNotFound:
        st.rerun()
    except StoreError as error:
        with messages:
            st.warning(f"The run store does not answer: {error}", icon=":material/database_off:")
        seen = st.session_state.get("tr:seen")
        if seen is None or seen.run.id != run_id:
            return
    else:
        run = seen.run
        if run.state != drawn_state or (every is not None and _pace(run, every) != every):
            st.rerun()
        st.session_state["tr:seen"] = seen
    with status:
        _status(seen)
    with messages:
        _messages(seen)
    with figures:
        _figures(seen.run, seen.history)
    with chart:
        _chart(seen.run, seen.history)


def _pace(run: Run, current: float | None = None) -> float | None:
    """Seconds from one drawing of a run to the next; None: nothing more will come."""
    if not run.active and run.worker is None:
        return None
    return pace.of_run(run, pace.watching(), current)


def _look(run_id: int, *, ticking: bool) -> _Seen:
    store = resources.store()
    if ticking:
        jobs.advance(store)  # whatever died since, and whatever may start now
    run = store.get(run_id)
    place, waits, log = None, None, ""
    if run.state == "queued":
        active = store.list_runs(states=("queued", "running"))
        place = admission.places(active, jobs.slots_here(), _speed(store)).get(run_id)
        training = [other for other in active if other.worker is not None]
        if place is not None and not place.ahead and len(training) < jobs.slots_here():
            waits = admission.waits_for_memory(run, training)
    elif run.state == "failed":
        log = store.log(run_id)
    return _Seen(run, histories().of(store, run), place, waits, log)


@st.cache_data(ttl=10, show_spinner=False)
def _speed(_store: RunStore) -> float:
    """This computer's speed, by its newest runs; asked rarely, since it hardly changes."""
    return admission.speed_of(_store.list_runs(states=("finished", "stopped"), limit=20))


def _status(seen: _Seen) -> None:
    run = seen.run
    if run.state == "queued" and run.worker is not None:
        _progress(run, "Starting a worker process …")
    elif run.state == "queued":
        _progress(run, _waiting(seen))
    elif run.state == "running" and not run.step:
        phase = run.phase or "starting"
        _progress(run, f"{phase[:1].upper()}{phase[1:]} …")
    elif run.state == "running":
        epochs = run.train.total_epochs if run.train else "?"
        parts = [f"Epoch {run.epoch} of {epochs}", f"step {run.step:,} of {run.total_steps or 0:,}"]
        if run.examples_per_second:
            parts.append(f"{run.examples_per_second:,.0f} images/s")
        if run.seconds_left is not None:
            parts.append(f"{numbers.duration(run.seconds_left)} left")
        _progress(run, " · ".join(parts))
    elif run.worker is not None:
        st.caption("Measuring it on the test set …")
    elif run.state in RESUMABLE and run.problem is None:
        _go_on(run)


def _waiting(seen: _Seen) -> str:
    """What a queued run waits for, and for how long."""
    slots = jobs.slots_here()
    at_once = "one run trains at a time" if slots == 1 else f"{slots} runs train at once"
    ahead = seen.place.ahead if seen.place else 0
    turn = "it is the next" if not ahead else f"{ahead} {'is' if ahead == 1 else 'are'} before it"
    text = f"Waiting for its turn: {at_once}, {turn}"
    if seen.waits:
        return f"Waiting for its turn: {seen.waits}"
    if seen.place is not None and seen.place.seconds:
        text += f"; expected to start in about {numbers.duration(seen.place.seconds)}"
    return text


def _go_on(run: Run) -> None:
    """Offer to let the run train on from where it was."""
    kept = run.has_checkpoint and run.step
    where = f"after step {run.step:,} of {run.total_steps:,}" if kept and run.total_steps else ""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _button(
            "Resume" if kept else "Start again",
            run,
            jobs.resume_run,
            icon=":material/play_arrow:",
            help="Goes on to what it would have become without the break, to the bit, on this "
            "computer."
            if kept
            else "It had kept nothing yet, so it begins anew.",
        )
        if where:
            st.caption(f"{run.state.capitalize()} {where}.", width="content")


_ENDING = {"stopped": "Stopping …", "paused": "Pausing …"}


def _progress(run: Run, text: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.progress(run.progress, _ENDING.get(run.desired_state, text))
        _button(
            "Pause",
            run,
            jobs.pause_run,
            icon=":material/pause:",
            disabled=run.desired_state != "running",
            help="Frees the processor within a second; the run can go on later as if it had never "
            "been away.",
        )
        _button(
            "Stop",
            run,
            jobs.stop_run,
            icon=":material/stop:",
            disabled=run.desired_state == "stopped",
            help="Ends the run within a second, keeps what it has learned and measures it.",
        )


def _button(label: str, run: Run, action: Callable[..., Any], **settings: Any) -> None:
    """A button that does something with a run in the store; a refusal is shown at the run."""
    st.button(
        label,
        key=f"tr:{label.lower()}",
        on_click=attempt,
        args=("run", action, resources.store(), run.id),
        width="content",
        **settings,
    )


def _messages(seen: _Seen) -> None:
    run = seen.run
    show_notice("run")
    if run.problem:
        st.warning(run.problem)
    if run.desired_rate is not None and run.state != "running":
        st.info(f"It will go on with a learning rate of {run.desired_rate:g}.")
    if run.state == "failed":
        st.error(f"This run failed. {run.error or ''}", icon=":material/error:")
        if seen.log:
            with st.expander("The worker's log"):
                st.code(seen.log, language=None, height=300)
    elif run.state == "interrupted":
        kept = (
            f"Its weights after {run.step:,} steps are kept."
            if run.has_checkpoint
            else "It had not kept any weights yet."
        )
        st.warning(
            f"This run was interrupted. {run.error or ''} {kept}", icon=":material/link_off:"
        )
    elif run.state == "stopped" and not run.step:
        st.info("This run was stopped before its first step: there was nothing to keep.")
    if run.diagnosis:
        st.warning(f"**Diagnosis:** {run.diagnosis}", icon=":material/troubleshoot:")
    elif sentence := _stuck(seen):
        st.warning(sentence, icon=":material/horizontal_rule:")
    elif not (run.error or "").startswith(trouble.DIVERGED):
        return
    _offer_twin(run)


def _stuck(seen: _Seen) -> str | None:
    """Why the run seems to learn nothing while it trains; None if it does learn."""
    run, history = seen.run, seen.history
    if run.network is None or run.state != "running":
        return None
    classes = run.network.num_classes
    steps = trouble.plateau(history.step, history.train_loss, classes)
    if steps is None:
        return None
    return (
        f"For {steps:,} steps the loss has stayed at ln({classes}) = {math.log(classes):.3f}, what "
        "guessing costs: every image gets nearly the same logits, as when class maps are dead. It "
        "may still wake up."
    )


def _offer_twin(run: Run) -> None:
    """A button for the run that would learn, where this one does not."""
    if run.train is None or run.network is None or run.dataset not in DATASETS:
        return
    if st.session_state.pop(_TWIN, False):
        st.rerun()  # the page, whose run is the twin now
    twin = trouble.twin(run.train, run.network, DATASETS[run.dataset].train_size)
    st.button(
        f"Start a twin {twin.change}",
        key="tr:twin",
        icon=":material/call_split:",
        on_click=_start_twin,
        args=(run, twin),
        help="The same network on the same images with the same seed; this run stays as it is.",
    )


def _start_twin(run: Run, twin: trouble.Twin) -> None:
    assert run.network is not None
    store = resources.store()
    run_id = attempt("run", jobs.start_run, store, run.network, twin.train, run.dataset)
    if run_id is not None:
        open_run(run_id)
        st.session_state[_TWIN] = True


def _figures(run: Run, history: History) -> None:
    if not (run.active or len(history.step) or run.test_accuracy is not None):
        return
    loss, accuracy, images = _latest(run, history)
    data = DATASETS.get(run.dataset)
    note = "not measured yet" if run.active else "not measured"
    if run.test_accuracy is not None:
        examples = run.test_examples or 0
        whole = data is not None and examples >= data.test_size
        note = f"{'all' if whole else 'estimate on'} {examples:,} test images"
    shown = (
        ("Test accuracy", theme.TEST_ACCURACY, _share(run.test_accuracy), note),
        ("Training accuracy", theme.TRAIN_ACCURACY, _share(accuracy), images),
        ("Training loss", theme.TRAIN_LOSS, "–" if loss is None else f"{loss:.3f}", images),
        ("Training time", "", numbers.duration(run.seconds), f"{run.step:,} steps"),
    )
    swatch = "<i style='background:{}'></i>"
    body = "".join(
        f"<div role='listitem'><span>{color and swatch.format(color)}{label}</span>"
        f"<b>{value}</b><small>{escape(note)}</small></div>"
        for label, color, value, note in shown
    )
    st.html(f"<div class='nin-figures' role='list' aria-label='Latest figures'>{body}</div>")


def _latest(run: Run, history: History) -> tuple[float | None, float | None, str]:
    """Loss and accuracy at the end of the curves, and over how many images they are means."""
    if not len(history.step):
        return None, None, ""
    loss, accuracy = float(history.train_loss[-1]), float(history.train_accuracy[-1])
    images = ""
    if run.train is not None:
        before = history.step[-2] if len(history.step) > 1 else 0
        images = f"last {(history.step[-1] - before) * run.train.batch_size:,.0f} images"
    return (
        loss if math.isfinite(loss) else None,
        accuracy if math.isfinite(accuracy) else None,
        images,
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _chart(run: Run, history: History) -> None:
    if run.network is None or run.train is None or (not run.active and not len(history.step)):
        return
    curve_panel.draw(run, with_final_test(run, history), steps_per_epoch(run))
