"""How the open run goes: name, status, figures and curves, brought up to date by themselves.

Choices made here:

* The script draws it once. `components.follow` brings progress, figures and chart up to date from
  `run_feed`, and has this fragment run when there is another message or button: often while
  something is to come (the run is active, or its worker still measures it), and every few seconds
  afterwards, since others may resume it. When what stands elsewhere on the page is out of date, the
  whole page is drawn.
* The fragment's parts have fixed places, so the chart stays where it is when a message comes.
* A store that does not answer for a moment leaves the last picture on the page, with a sentence.
* No torch here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from nin_core import jobs, trouble
from nin_core.datasets import DATASETS
from nin_core.records import PHASE_MEASURING, RESUMABLE, RunNotFound
from nin_core.store import StoreError
from ui import curve_panel, resources, run_feed, run_heading, run_picture
from ui.components import follow
from ui.curve_panel import Look
from ui.run_choice import attempt, once_button, open_run, show_notice
from ui.run_picture import Seen

if TYPE_CHECKING:
    from nin_core.records import Run

_TWIN = "tr:twin:started"

# What follows is never stale: fading it while it is drawn anew would be a flicker, as would be
# Streamlit's own sign that a script runs, which has a "Stop" that is not the run's.
_STYLE = """
<style>
[data-testid="stStatusWidget"] { display: none; }
.st-key-tr-live [data-stale="true"], .st-key-tr-live[data-stale="true"] { opacity: 1 !important; }
</style>
"""


def draw(run: Run) -> None:
    """Draw the run as it is now, and have it followed while there is news to come."""
    st.html(_STYLE + run_picture.STYLE)
    st.fragment(_live)(run)


def _live(drawn: Run) -> None:
    """Name, status, messages, figures and chart of a run, as it is now.

    It is read before anything is drawn: what reading takes is time in which a name would stand over
    the figures of the run that the page showed before.

    Args:
        drawn: the run as the rest of the page shows it.
    """
    run_id = drawn.id
    lost: StoreError | None = None
    try:
        seen = run_picture.look(resources.store(), run_id)
    except RunNotFound:
        st.rerun()
    except StoreError as error:
        lost = error
        seen = st.session_state.get("tr:seen")
        if seen is not None and seen.run.id != run_id:
            seen = None
    else:
        if run_picture.page_version(seen.run) != run_picture.page_version(drawn):
            st.rerun()
        st.session_state["tr:seen"] = seen
    with st.container(key="tr-live"):
        heading, status, messages, figures, chart, following = (st.container() for _ in range(6))
    with heading:
        run_heading.draw(seen.run if seen else drawn)
    if lost:
        with messages:
            st.warning(f"The run store does not answer: {lost}", icon=":material/database_off:")
    if seen is None:
        with following:
            _follow(run_id, Look(), run_feed.LOST, run_feed.LOST)
        return
    with status:
        _status(seen)
    with messages:
        _messages(seen)
    with figures:
        if html := run_picture.figures(seen.run, seen.history):
            st.html(html)
    with chart:
        look, shown = curve_panel.draw(seen.run, seen.history)
    with following:
        version = run_picture.version(seen, shown.blocks if shown else [])
        serial = run_feed.serial(seen)
        if lost:
            version = serial = run_feed.LOST
        _follow(run_id, look, version, serial)


def _follow(run_id: int, look: Look, version: str, serial: str) -> None:
    url = run_feed.url(run_id, look)
    follow(url, key=f"follow run {run_id}", version=version, serial=serial)


def _status(seen: Seen) -> None:
    run = seen.run
    if html := run_picture.progress(seen):
        _progress(run, html)
    elif run.worker is not None:  # else its process is about to end
        if run.phase == PHASE_MEASURING:
            st.caption("Measuring it on the test set …")
    elif run.state in RESUMABLE and run.problem is None:
        _go_on(seen)


def _go_on(seen: Seen) -> None:
    """Offer to let the run train on from where it was."""
    run = seen.run
    kept = run.checkpoint_step
    where = f"after step {kept:,} of {run.total_steps:,}" if kept and run.total_steps else ""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _button(
            "Resume" if kept else "Start again",
            run,
            jobs.resume_run,
            icon=":material/play_arrow:",
            help="Goes on to what it would have become without the break: to the bit, on this "
            "computer and with the same PyTorch."
            if kept
            else "It had kept nothing yet, so it begins anew.",
        )
        if run.state == "paused":
            _button(
                "Stop",
                run,
                jobs.stop_run,
                icon=":material/stop:",
                help="Ends the run where it is, keeps what it has learned and measures it.",
            )
        if where:
            ended = run.state.capitalize() if kept >= run.step else "Goes on"
            but = f" {seen.otherwise}" if seen.otherwise else ""
            st.caption(f"{ended} {where}.{but}", width="content")


def _progress(run: Run, html: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.html(html)
        # Together, also below the bar, where the page is narrow.
        with st.container(horizontal=True, width="content", gap="small"):
            _button(
                "Pause",
                run,
                jobs.pause_run,
                icon=":material/pause:",
                disabled=run.desired_state != "running",
                help="Frees the processor within a second; the run can go on later as if it had "
                "never been away.",
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
    what = (attempt, "run", action, resources.store(), run.id)
    once_button(label.lower(), label, *what, width="content", **settings)


def _messages(seen: Seen) -> None:
    run = seen.run
    show_notice("run")
    if seen.trouble:
        st.warning(
            f"Nothing can start or end meanwhile: {seen.trouble}", icon=":material/database:"
        )
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
            f"Its weights after {run.checkpoint_step:,} steps are kept."
            if run.has_checkpoint
            else "It had not kept any weights yet."
        )
        st.warning(
            f"This run was interrupted. {run.error or ''} {kept}", icon=":material/link_off:"
        )
    elif run.state == "stopped" and not run.step:
        st.info("This run was stopped before its first step: there was nothing to keep.")
    too_short = False
    late = False
    if woke := run_picture.woke(seen):
        st.info(woke, icon=":material/wb_twilight:")
        # Of the fast recipe the twin has a lower rate, which is no answer to a late start.
        late = run.active and run.train is not None and run.train.recipe != "fast"
    if run.diagnosis:
        st.warning(f"**Diagnosis:** {run.diagnosis}", icon=":material/troubleshoot:")
        too_short = run.diagnosis.startswith(trouble.ALL_ALIVE)
    elif sentence := run_picture.stuck(seen):
        begun = run_picture.bad_start(seen)
        begun = f" **Before its first step:** {begun}" if begun else ""
        st.warning(f"{sentence}{begun}", icon=":material/horizontal_rule:")
    elif sentence := run_picture.bad_start(seen):
        st.warning(f"**Before its first step:** {sentence}", icon=":material/flight_takeoff:")
        if run.train is not None and run.train.initialization == "unit-variance":
            return  # a twin would start from the same weights
    elif not (late or (run.error or "").startswith(trouble.DIVERGED)):
        return
    _offer_twin(run, too_short)


def _offer_twin(run: Run, too_short: bool) -> None:
    """A button for the run that would learn, where this one does not, or late."""
    if run.train is None or run.network is None or run.dataset not in DATASETS:
        return
    if st.session_state.pop(_TWIN, False):
        st.rerun()  # the page, whose run is the twin now
    size = DATASETS[run.dataset].train_size
    twin = trouble.twin(run.train, run.network, size, too_short=too_short)
    once_button(
        "twin",
        f"Start a twin {twin.change}",
        _start_twin,
        run,
        twin,
        icon=":material/call_split:",
        help="The same network on the same images with the same seed; this run stays as it is.",
    )


def _start_twin(run: Run, twin: trouble.Twin) -> None:
    assert run.network is not None
    store = resources.store()
    run_id = attempt("run", jobs.start_run, store, run.network, twin.train, run.dataset)
    if run_id is not None:
        open_run(run_id)
        st.session_state[_TWIN] = True
