"""The run that is open on the Training page: which one, how it goes, what can be done with it.

Choices made here:

* The page only reads the store. What is drawn follows from the run's number in the URL
  (`?run=5`), so a reload, a link, another tab or another person sees the same; without one the
  session's last run is opened, else the one that trains, else the newest. Runs that are compared
  (`&compare=5,7`) and the seed fans shown (`&fan=9`, by a run of each) stand there, too.
* While something is to come (the run is active, or its worker still measures it), a fragment draws
  status, figures and chart as often as `ui.pace` finds worth it, at most twice a second; when the
  state or the pace changes, the whole page is drawn once and a run that has ended does not tick.
* The fragment's parts have fixed places, so the chart stays where it is when a message comes.
* Points are read once per server, only those that are new, and shared by all its sessions.
* A store that does not answer for a moment leaves the last picture on the page, with a sentence.
* No torch here.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import streamlit as st

from nin_core import (
    ConfigError,
    NiNConfig,
    admission,
    estimate,
    jobs,
    preset_name,
    run_export,
    summarize,
    trouble,
)
from nin_core.datasets import DATASETS
from nin_core.recipes import MAX_EPOCHS, MAX_RATE, MIN_RATE
from nin_core.records import RESUMABLE, RunNotFound
from nin_core.store import StoreError
from ui import architecture, curve_panel, duplicate_panel, frame, numbers, pace, resources, theme
from ui.components import plot
from ui.curve_panel import CHART_HEIGHT
from ui.curves import History, training_figure

if TYPE_CHECKING:
    from nin_core.records import MetricRow, Run
    from nin_core.store import RunStore

MAX_HISTORIES = 32  # runs whose points a server keeps at hand

# What a session has chosen for its next run: {"recipe": …, "dataset": …, "name": …, and changes to
# the recipe}.
DRAFT = "tr:draft"
_OPEN = "tr:open"
_NOTICE = "tr:notice"
_TWIN = "tr:twin:started"

STATES: dict[str, tuple[str, str]] = {  # icon and colour of a badge
    "queued": (":material/hourglass_empty:", "gray"),
    "running": (":material/play_arrow:", "blue"),
    "paused": (":material/pause:", "gray"),
    "finished": (":material/check:", "green"),
    "stopped": (":material/stop:", "orange"),
    "interrupted": (":material/link_off:", "violet"),
    "failed": (":material/error:", "red"),
}

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


# --- which run is open ------------------------------------------------------------------------


def opened() -> Run | None:
    """The run that the page shows; None if there is none, which is then said."""
    store = resources.store()
    if started := st.session_state.pop(duplicate_panel.STARTED, None):
        open_run(started)
    linked = st.query_params.get("run")
    if linked is not None:
        if not (linked.isdecimal() and len(linked) < 10):
            st.warning(f"The link's run {linked[:20]!r} is no number; open a run from the list.")
            return None
        try:
            run = store.get(int(linked))
        except RunNotFound as error:
            st.warning(f"{error} Open another one from the list.", icon=":material/link_off:")
            return None
        st.session_state[_OPEN] = run.id
        return run
    run = _session_run(store) or _latest_run(store)
    if run is not None:
        open_run(run.id)
    return run


def open_run(run_id: int) -> None:
    """Have the page show this run from the next rerun on, and the URL name it."""
    st.session_state[_OPEN] = run_id
    st.query_params["run"] = str(run_id)


def linked_runs(parameter: str, what: str) -> list[int]:
    """The runs that the URL names under `parameter`, as in "12,18"; nonsense becomes a warning.

    Args:
        what: what these runs are, for the warning.
    """
    linked = st.query_params.get(parameter)
    if linked is None:
        return []
    parts = linked.split(",")
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        st.warning(
            f"The link's {parameter}={linked[:20]} does not name {what}; run numbers with commas "
            f"between them would, as in {parameter}=12,18.",
            icon=":material/link_off:",
        )
        return []
    return [int(part) for part in parts]


def link_runs(parameter: str, runs: Sequence[int]) -> None:
    """Have the URL name these runs under `parameter`; none: leave the parameter out."""
    wanted = ",".join(map(str, runs)) or None
    if st.query_params.get(parameter) == wanted:
        return
    if wanted is None:
        del st.query_params[parameter]
    else:
        st.query_params[parameter] = wanted


def _session_run(store: RunStore) -> Run | None:
    if _OPEN not in st.session_state:
        return None
    try:
        return store.get(st.session_state[_OPEN])
    except RunNotFound:
        return None


def _latest_run(store: RunStore) -> Run | None:
    runs = store.list_runs(limit=1, states=("running",)) or store.list_runs(limit=1)
    return runs[0] if runs else None


# --- telling what went wrong ------------------------------------------------------------------


def attempt(place: str, action: Callable[..., Any], *args: Any) -> Any:
    """Do what a button asks for; its failure becomes a sentence for `show_notice(place)`."""
    try:
        return action(*args)
    except (StoreError, ConfigError) as error:
        sentence = str(error)
        st.session_state[_NOTICE] = place, sentence[:1].upper() + sentence[1:]
        return None


def show_notice(place: str) -> None:
    """The sentence of the last action that failed at this place of the page, once."""
    if st.session_state.get(_NOTICE, ("", ""))[0] == place:
        st.error(st.session_state.pop(_NOTICE)[1])


# --- the open run -----------------------------------------------------------------------------


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
    st.html(_STYLE)
    icon, color = STATES.get(run.state, (":material/help:", "gray"))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(_plain(title(run)), anchor=False, width="content")
        st.badge(run.state, icon=icon, color=color)
    st.caption(_plain(_described(run)))
    every = _pace(run)
    st.fragment(_live, run_every=every)(run.id, run.state, every)
    _actions(run)


def _pace(run: Run, current: float | None = None) -> float | None:
    """Seconds from one drawing of a run to the next; None: nothing more will come."""
    if not run.active and run.worker is None:
        return None
    return pace.of_run(run, pace.watching(), current)


def title(run: Run) -> str:
    """How a run is called wherever runs are listed: "#5 nin-slim-128 · fast · seed 0"."""
    return f"#{run.id} {run.name}"


def network_name(network: NiNConfig) -> str:
    """A preset's name, or what sets the network apart: "NiN 6-16-32 @ 128 px"."""
    widths = "-".join(map(str, network.widths))
    return preset_name(network) or f"NiN {widths} @ {network.image_size} px"


def _actions(run: Run) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover("Rename or delete", icon=":material/edit:"):
            _rename_and_delete(run)
        if run.state == "finished" and run.has_checkpoint and run.step and run.train is not None:
            with st.popover("Train on", icon=":material/forward_media:"):
                _train_on(run)
        if (run.active or run.state in RESUMABLE) and run.train is not None:
            with st.popover("Learning rate", icon=":material/speed:"):
                _learning_rate(run)
        if run.step:
            with st.popover("Download curves", icon=":material/download:"):
                _downloads(run)
        if run.train is not None and run.network is not None and not run.imported:
            with st.popover("Duplicate with changes", icon=":material/call_split:"):
                duplicate_panel.draw(run, attempt)
        if run.train is not None and run.network is not None:
            st.button(
                "Use its settings",
                key="tr:again",
                icon=":material/content_copy:",
                on_click=_use_settings,
                args=(run,),
                help="Puts its network in the sidebar and its recipe and numbers in the form, "
                "so that a new run with a change is one step away.",
            )
        if run.has_checkpoint and run.problem is None:
            st.page_link(
                frame.page("pages/feature_maps.py"),
                label="See its feature maps",
                query_params={"run": str(run.id)},
            )


def _train_on(run: Run) -> None:
    """More epochs for a finished run."""
    assert run.train is not None
    key = f"tr:more:{run.id}"
    cycle = ", in a cycle of the learning rate of their own" * (run.train.schedule != "constant")
    st.number_input("More epochs", 1, MAX_EPOCHS, key=key)
    st.caption(f"They follow its {run.train.total_epochs}{cycle}.")
    st.button("Train on", icon=":material/play_arrow:", on_click=_extend, args=(run.id, key))


def _downloads(run: Run) -> None:
    """The run's points for other programs; each file is made when it is asked for."""
    st.caption("All points of its curves, up to the moment of the click.")
    shown = {
        "CSV": (lambda: run_export.as_csv(_points(run)), f"run-{run.id}.csv", "text/csv"),
        "JSON": (
            lambda: run_export.as_json(resources.store().get(run.id), _points(run)),
            f"run-{run.id}.json",
            "application/json",
        ),
        "TensorBoard events": (
            lambda: run_export.as_tensorboard(run, _points(run)),
            run_export.events_name(run),
            "application/octet-stream",
        ),
    }
    there = run_export.can_tensorboard()
    for label, (make, name, mime) in shown.items():
        st.download_button(
            label,
            make,
            name,
            mime,
            key=f"tr:download:{label}",
            icon=":material/download:",
            on_click="ignore",
            disabled=label.startswith("TensorBoard") and not there,
            width="stretch",
        )
    if not there:
        st.caption(f"For TensorBoard: `{run_export.TENSORBOARD_INSTALL}`.")


def _points(run: Run) -> list[MetricRow]:
    return resources.store().metrics(run.id)


def _learning_rate(run: Run) -> None:
    """Another rate for the rest of a run, from its next step on."""
    assert run.train is not None
    cycle = run.train.schedule != "constant"
    key = f"tr:rate:{run.id}"
    st.number_input(
        "Learning rate from now on",
        MIN_RATE,
        MAX_RATE,
        run.desired_rate or run.train.rate_after(run.step),
        step=0.001,
        format="%g",
        key=key,
    )
    st.caption(
        "The peak of its cycle, which goes on: the rate of every step that follows changes in the "
        "same proportion."
        if cycle
        else "It holds from the next step on; the curves show where."
    )
    st.button("Change", icon=":material/speed:", on_click=_change_rate, args=(run.id, key))


def _change_rate(run_id: int, key: str) -> None:
    attempt("run", resources.store().change_rate, run_id, st.session_state[key])


def _extend(run_id: int, key: str) -> None:
    attempt("run", jobs.extend_run, resources.store(), run_id, st.session_state[key])


def _use_settings(run: Run) -> None:
    assert run.network is not None and run.train is not None
    architecture.show(run.network)
    fields = ("recipe", "epochs", "learning_rate", "batch_size", "subset", "seed")
    st.session_state[DRAFT] = {"dataset": run.dataset} | {
        name: getattr(run.train, name) for name in fields
    }


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


def _rename_and_delete(run: Run) -> None:
    key = f"tr:name:{run.id}"
    st.text_input("Name", run.name, max_chars=100, key=key)
    st.button("Rename", on_click=_rename, args=(run.id, key))
    st.divider()
    if run.active:
        st.caption(f"Run #{run.id} is {run.state}; stop it before you delete it.")
        return
    st.caption("Deleting takes the curves, the weights and the results with it, for good.")
    st.button(f"Delete run #{run.id}", icon=":material/delete:", on_click=_delete, args=(run.id,))


def _rename(run_id: int, key: str) -> None:
    attempt("run", resources.store().rename, run_id, st.session_state[key])


def _delete(run_id: int) -> None:
    attempt("run", delete, [run_id])


def delete(run_ids: list[int]) -> None:
    """Delete runs, and show them no longer.

    Raises:
        StoreError: for the first that cannot be deleted.
    """
    for run_id in run_ids:
        resources.store().delete(run_id)
        if st.session_state.get(_OPEN) == run_id:
            del st.session_state[_OPEN]
        if st.query_params.get("run") == str(run_id):
            del st.query_params["run"]


def prepare() -> None:
    """Have a worker process waiting, so that the next Start shows its first point at once.

    Only in a server: where the script runs without one, nobody will press Start.
    """
    if st.runtime.exists():
        jobs.keep_spare(resources.store())


# --- what ticks -------------------------------------------------------------------------------


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


# --- what other parts of the page use ---------------------------------------------------------


def steps_per_epoch(run: Run) -> float:
    """Steps of one epoch of a run, by which its curves are laid over epochs."""
    if run.train is None:
        return 1.0
    if run.total_steps:
        return run.total_steps / run.train.total_epochs
    data = DATASETS.get(run.dataset)
    return estimate.steps_per_epoch(run.train, data.train_size if data else 60_000)


def with_final_test(run: Run, history: History) -> History:
    """A run's points with the test that was made after its end, which has no row of its own."""
    if run.active or not run.has_evaluation or run.test_accuracy is None or not run.test_examples:
        return history
    data = DATASETS.get(run.dataset)
    whole = data is not None and run.test_examples >= data.test_size
    return history.tested(
        run.step, run.test_accuracy, run.test_examples, whole=whole, seconds=run.seconds
    )


def local_time(moment: datetime) -> datetime:
    """A moment in the time zone of the browser."""
    try:
        return moment.astimezone(ZoneInfo(st.context.timezone or "UTC"))
    except (ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError on some systems
        return moment


class Histories:
    """The points of the runs that were looked at last, for all sessions of this server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, datetime, int], History] = OrderedDict()

    def of(self, store: RunStore, run: Run) -> History:
        """All points of `run`, of which only the new ones are read."""
        # Another database may give the same numbers, and a new attempt takes points back.
        key = (run.id, run.created_at, run.attempt)
        with self._lock:
            history = self._kept.get(key, History())
        # Two sessions may read the same rows; each extends what it has, so none is added twice.
        history = history.extended(store.metrics(run.id, history.last_id))
        with self._lock:
            self._kept[key] = history
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_HISTORIES:
                self._kept.popitem(last=False)
        return history


@st.cache_resource(show_spinner=False)
def histories() -> Histories:
    """The one `Histories` of this server."""
    return Histories()


def _plain(text: str) -> str:
    """A text that Markdown shows as it is: names are people's."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|$~:<>^&" else c for c in text)
