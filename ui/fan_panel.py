"""Seed fans on the Training page: start one, watch its band, and how many of its runs stall.

Choices made here:

* A fan is started under Start, where its configuration is; its figure is a section of the page's
  own, closed until it is wanted, and nothing of it is computed while it is closed.
* While a run of the fans shown is active, a fragment draws figure and lines again and again in
  fixed places (`ui.pace`); when all have ended it does not tick.
* A short run cannot tell "never" from "not yet": a run is said to be at the loss of guessing so
  far, or at its end, never to be unable to learn.
* A store that does not answer for a moment leaves the last picture on the page, with a sentence.
* No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import TYPE_CHECKING

import streamlit as st

from nin_core import PRESETS, RECIPES, admission, estimate, fans, jobs, trouble
from nin_core.data import find_dataset
from nin_core.datasets import DATASETS
from nin_core.recipes import FAN_SEEDS
from nin_core.records import ENDED
from nin_core.store import StoreError
from ui import frame, numbers, pace, resources, run_choice, run_feed, run_points, theme
from ui.components import plot, tick
from ui.fan_figures import FanCurves, fan_figure

if TYPE_CHECKING:
    from nin_core import NiNConfig
    from nin_core.recipes import TrainConfig
    from nin_core.records import Run
    from nin_core.store import RunStore
    from ui.curves import History

MIN_SEEDS, MAX_SEEDS = 2, 20
MAX_LISTED = 500  # the newest runs, among which fans are looked for
MAX_SHOWN = 4  # fans in one figure
TIMED_RUNS = 20  # the newest runs from which the time of the next is taken
START_SECONDS = 4.0  # to load PyTorch and the data, until a run here has shown how long it takes
EXAMPLE_NETWORK = "nin-slim-128"
EXAMPLE_RECIPES = ("tutorial", "fast")
CHART_HEIGHT = 460

PANEL = "tr:fan:panel"  # key of the expander
_SHOWN = "tr:fan:shown"
_STARTED = "tr:fan:started"
_CHANGED = "tr:fan:changed"
_SEEN = "tr:fan:seen"
_SEEDS = "tr:fan:seeds"
_NUMBER = "tr:fan:number"
_LINK = "fan"

_STYLE = """
<style>
.st-key-tr-fan [data-stale="true"], .st-key-tr-fan[data-stale="true"] { opacity: 1 !important; }
.nin-fan { line-height: 1.4; }
.nin-fan i { display: inline-block; width: .65rem; height: .65rem; margin-right: .35rem;
  border-radius: 2px; }
.nin-fan small { display: block; font-size: .8rem; opacity: .8; }
</style>
"""


# --- starting ---------------------------------------------------------------------------------


Planned = tuple["NiNConfig", "TrainConfig", str]


def offer(plan: Planned, plan_now: Callable[[], Planned]) -> None:
    """Under Start: the same configuration from several seeds.

    Args:
        plan: as the page shows it.
        plan_now: for the button's callback: as it stands in the fields then.
    """
    # Another key once it was pressed: it is shut then.
    key = f"tr:fan:{run_choice.presses('fan')}:popover"
    with st.popover("Start from several seeds", icon=":material/stacked_line_chart:", key=key):
        st.caption(
            "A seed fan: the same run from the seeds 0, 1, …, which tells a lucky start from a "
            "good recipe."
        )
        seeds = st.number_input(
            "Number of seeds",
            MIN_SEEDS,
            MAX_SEEDS,
            st.session_state.get(_SEEDS, FAN_SEEDS),
            key=_NUMBER,
        )
        st.session_state[_SEEDS] = seeds
        st.caption(f"In all {_expected([plan] * seeds)}.")
        run_choice.once_button(
            "fan",
            f"Start {seeds} runs",
            _start_own,
            plan_now,
            type="primary",
            icon=":material/play_arrow:",
        )
    if st.session_state.get(_STARTED, ("", 0))[0] == "start":
        _, count = st.session_state.pop(_STARTED)
        st.toast(f"{count} runs have been put in the queue; see “Seed fan” below.")
        st.rerun()  # the section that shows them is another part of the page


def _start_own(plan_now: Callable[[], Planned]) -> None:
    plan = run_choice.attempt("start", plan_now)
    if plan is not None:
        _start("start", [plan], st.session_state[_NUMBER])


def _start(place: str, plans: Sequence[Planned], seeds: int) -> None:
    store = resources.store()
    started = []
    for network, train, dataset in plans:
        fan = run_choice.attempt(place, fans.start, store, network, train, dataset, seeds)
        if fan is None:
            break
        started.append(fan)
    if started:
        st.session_state[_SHOWN] = started
        st.session_state[PANEL] = True
        st.session_state[_STARTED] = place, seeds * len(started)


def _expected(plans: Sequence[Planned]) -> str:
    """How long runs will take together, in words, and what that is taken from."""
    runs = resources.store().list_runs(states=("finished",), limit=TIMED_RUNS)
    timed = [run for run in runs if run.examples_per_second]
    seconds = expected_seconds(plans, timed, jobs.slots_here())
    basis = "by earlier runs" if timed else "a first guess, no run has been timed here yet"
    return f"about **{numbers.duration(seconds)}** ({basis})"


def expected_seconds(plans: Sequence[Planned], timed: Sequence[Run], slots: int) -> float:
    """Seconds until runs that begin now have all ended, each with the start of its process.

    Args:
        timed: earlier runs on this computer.
        slots: how many train at once.
    """
    speed = admission.speed_of(timed)
    around = [
        (run.ended_at - run.started_at).total_seconds() - run.seconds
        for run in timed
        if run.ended_at and run.started_at and run.attempt == 1  # a resumed one has waited
    ]
    start = max(median(around), 0.0) if around else START_SECONDS
    slots = max(1, min(slots, len(plans)))
    total = 0.0
    for network, train, dataset in plans:
        data = DATASETS[dataset]
        total += start + estimate.predict_seconds(
            network, train, train_size=data.train_size, test_size=data.test_size, speed=speed
        )
    return total / len(plans) * math.ceil(len(plans) / slots)


def example() -> list[Planned]:
    """The tutorial's recipe against ours, one plan each: short runs of the tutorial's network."""
    dataset = "fashion-mnist" if find_dataset("fashion-mnist").available else "shapes"
    network = PRESETS[EXAMPLE_NETWORK]
    size = DATASETS[dataset].train_size
    return [
        (
            network,
            RECIPES[name].configure(
                network, epochs=1, subset=min(fans.EXAMPLE_IMAGES, size), train_size=size
            ),
            dataset,
        )
        for name in EXAMPLE_RECIPES
    ]


# --- the section ------------------------------------------------------------------------------


def show() -> None:
    """Draw the section; what is in it only if it is open."""
    if PANEL not in st.session_state and _LINK in st.query_params:
        st.session_state[PANEL] = True
    panel = st.expander(
        "Seed fan: the same training from several seeds",
        key=PANEL,
        icon=":material/stacked_line_chart:",
        on_change="rerun",
    )
    if panel.open:
        with panel:
            _panel()
    else:
        run_choice.link_runs(_LINK, ())


def _panel() -> None:
    st.html(_STYLE)
    st.caption(
        "One run may be luck. A fan trains one configuration from several seeds and shows the "
        "range they end in, and how many stay at the loss of guessing. Start one of your own "
        "under **Start**, or the example:"
    )
    _example()
    run_choice.show_notice("fan")
    known = _known(resources.store().list_runs(limit=MAX_LISTED))
    if not known and _LINK not in st.query_params:
        return
    shown = _choose(known)
    if not shown:
        return
    st.fragment(_live)(tuple(shown))


def _example() -> None:
    plans = example()
    _, train, dataset = plans[0]
    with st.container(horizontal=True, vertical_alignment="center"):
        run_choice.once_button(
            "fan-example",
            "The tutorial's recipe against ours",
            _start,
            "fan",
            plans,
            FAN_SEEDS,
            icon=":material/play_arrow:",
        )
        st.caption(
            f"{FAN_SEEDS} seeds each of {EXAMPLE_NETWORK} on {train.subset:,} images of "
            f"{DATASETS[dataset].title}, {_expected(plans * FAN_SEEDS)}.",
            width="stretch",
        )
    if st.session_state.get(_STARTED, ("", 0))[0] == "fan":
        st.session_state.pop(_STARTED)


def _known(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """All fans among the runs, the newest first, with their runs by seed."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.fan is not None:
            found.setdefault(run.fan, []).insert(0, run)
    return found


def _choose(known: dict[str, list[Run]]) -> list[str]:
    """The fans in the figure: what was started or chosen last, else the newest."""
    if _SHOWN not in st.session_state and (linked := _linked(known)):
        st.session_state[_SHOWN] = linked
    chosen = st.session_state.get(_SHOWN)
    shown = [fan for fan in chosen or () if fan in known]
    if known and not shown and (chosen is None or chosen):  # nothing chosen yet, or all is gone
        shown = _newest(known)
    st.session_state[_SHOWN] = shown
    if len(known) > 1:
        key = "tr:fan:choice"
        st.session_state[key] = shown
        st.multiselect(
            "Fans",
            list(known),
            key=key,
            max_selections=MAX_SHOWN,
            format_func=lambda fan: label(known[fan]) if fan in known else "deleted",
            placeholder="None is shown; choose one",
            on_change=lambda: st.session_state.update({_SHOWN: st.session_state[key]}),
        )
    run_choice.link_runs(_LINK, [known[fan][0].id for fan in shown])
    return shown


def _linked(known: dict[str, list[Run]]) -> list[str]:
    """The fans that the link names by one run of each."""
    numbers = run_choice.linked_runs(_LINK, "seed fans")
    fan_of = {run.id: fan for fan, members in known.items() for run in members}
    if gone := [f"#{number}" for number in numbers if number not in fan_of]:
        st.warning(
            f"The link names the seed fan of {gone[0]}, which is no run of a fan here: it was "
            "deleted, or is in another store.",
            icon=":material/link_off:",
        )
    return list(dict.fromkeys(fan_of[number] for number in numbers if number in fan_of))[:MAX_SHOWN]


def _newest(known: dict[str, list[Run]]) -> list[str]:
    """The newest fan, and the one before it if only their recipes differ."""
    first, *others = known
    shown = [first]
    if others and _comparable(known[first][0], known[others[0]][0]):
        shown = [others[0], first]
    return shown


def _comparable(run: Run, other: Run) -> bool:
    if run.train is None or other.train is None or run.train.recipe == other.train.recipe:
        return False
    return (run.network, run.dataset, run.train.subset, run.train.epochs) == (
        other.network,
        other.dataset,
        other.train.subset,
        other.train.epochs,
    )


def label(members: Sequence[Run]) -> str:
    """How a fan is called: "Tutorial, nin-slim-128, 6 runs from #1 on"."""
    first = members[0]
    parts = []
    if first.train is not None:
        parts.append(RECIPES[first.train.recipe].title)
    if first.network is not None:
        parts.append(run_points.network_name(first.network))
    runs = "1 run" if len(members) == 1 else f"{len(members)} runs"
    return ", ".join([*parts, f"{runs} from #{first.id} on"])


def _busy(run: Run) -> bool:
    return run.active or run.worker is not None


# --- what ticks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fan:
    """A fan as it was read last."""

    name: str
    runs: Sequence[Run]
    histories: Sequence[History]
    stalls: dict[int, fans.Stall]


def _live(shown: tuple[str, ...]) -> None:
    with st.container(key="tr-fan"):
        message, chart, lines = (st.container() for _ in range(3))
    try:
        watched = run_feed.watch_states()
        seen = _look(shown)
    except StoreError as error:
        with message:
            st.warning(f"The run store does not answer: {error}", icon=":material/database_off:")
        shown_before, seen = st.session_state.get(_SEEN, ((), []))
        tick(frame.RECOVERY_SECONDS, key="tr:fan-tick")
        if shown_before != shown:
            return
    else:
        st.session_state[_SEEN] = shown, seen
        gone = len(seen) < len(shown)
        busy = any(_busy(run) for fan in seen for run in fan.runs)
        if gone or st.session_state.pop(_CHANGED, False):
            st.rerun()
        if busy:
            tick(pace.of_fan(pace.watching()), key="tr:fan-tick", watch=watched)
    with message:
        run_choice.show_notice("fan")
    with chart:
        plot(
            fan_figure([_curves(fan) for fan in seen]),
            key=f"fans {' '.join(shown)}",
            height=CHART_HEIGHT,
        )
        st.caption(
            "Band: lowest to highest of the runs; thick line: their median; faint lines: each run."
        )
    with lines:
        for number, fan in enumerate(seen):
            with st.container(key=f"tr-fan-{fan.name}", gap="xsmall"):
                _line(fan, theme.RUNS[number])


def _look(shown: tuple[str, ...]) -> list[_Fan]:
    store: RunStore = resources.store()
    there = {name: fans.runs(store, name) for name in shown}
    if any(_busy(run) for runs in there.values() for run in runs):
        jobs.try_advance(store)  # whoever looks moves the queue on
        there = {name: fans.runs(store, name) for name in shown}
    found = []
    for name, runs in there.items():
        if not runs:
            continue
        histories = [run_points.histories().of(store, run) for run in runs]
        stalls = {}
        for run, seen in zip(runs, histories, strict=True):
            stall = fans.stall_of(run, seen.step, seen.train_loss, seen.train_accuracy)
            if stall:
                stalls[run.id] = stall
        full = [run_points.with_final_test(*pair) for pair in zip(runs, histories, strict=True)]
        found.append(_Fan(name, runs, full, stalls))
    return found


def _curves(fan: _Fan) -> FanCurves:
    first = fan.runs[0]
    return FanCurves(
        label=label(fan.runs),
        histories=fan.histories,
        steps_per_epoch=max(run_points.steps_per_epoch(run) for run in fan.runs),
        end=max((run.train.total_epochs for run in fan.runs if run.train), default=1),
        num_classes=first.network.num_classes if first.network else 10,
    )


def _line(fan: _Fan, color: str) -> None:
    """One fan in words, its runs as buttons, and what can be done with all of them."""
    st.html(
        f"<div class='nin-fan'><i style='background:{color}'></i><b>{label(fan.runs)}</b>: "
        f"{verdict(fan.runs, fan.stalls)}<small>{_why(fan)}</small></div>"
    )
    store = resources.store()
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        for run in fan.runs:
            _open_button(run, run.id in fan.stalls)
        if any(run.active for run in fan.runs):
            st.button(
                "Stop all of them",
                key=f"tr:fan:stop:{fan.name}",
                icon=":material/stop:",
                on_click=run_choice.attempt,
                args=("fan", fans.stop, store, fan.name),
            )
        else:
            with st.popover(
                "Delete all of them", icon=":material/delete:", key=f"tr:fan:delete:{fan.name}"
            ):
                st.caption("Their curves, weights and results go with them, for good.")
                st.button(
                    f"Delete {len(fan.runs)} runs for good",
                    key=f"tr:fan:gone:{fan.name}",
                    on_click=_delete,
                    args=([run.id for run in fan.runs],),
                )


def verdict(runs: Sequence[Run], stalls: dict[int, fans.Stall]) -> str:
    """How many of a fan's runs are at the loss of guessing, and how the others stand."""
    diverged = [run for run in runs if (run.error or "").startswith(trouble.DIVERGED)]
    guessing = [run for run in runs if run.id in stalls and run not in diverged]
    ended = [run for run in guessing if run.state in ENDED]
    # What somebody stopped might have become anything, unless it was at guessing by then.
    counted = [run for run in runs if run.state != "stopped" or run in guessing]
    total = len(counted)
    waiting = sum(run.state == "queued" for run in runs)
    training_now = sum(run.state == "running" for run in runs)
    parts = [f"{len(ended)} of {total} ended at the loss of guessing"] if total else []
    if total and not any(run.state in ENDED for run in counted):
        parts = [f"none of {total} has ended yet"]
    if so_far := len(guessing) - len(ended):
        parts.append(f"{so_far} {'is' if so_far == 1 else 'are'} at it so far")
    if diverged:
        parts.append(f"{len(diverged)} diverged")
    for state in ("failed", "interrupted", "paused", "stopped"):
        if count := sum(run.state == state and run not in (*diverged, *guessing) for run in runs):
            parts.append(f"{count} {state}")
    if training_now:
        parts.append(f"{training_now} {'trains' if training_now == 1 else 'train'}")
    if waiting:
        parts.append(f"{waiting} {'waits' if waiting == 1 else 'wait'}")
    text = ", ".join(parts)
    measured = sorted(
        run.test_accuracy for run in counted if run.test_accuracy is not None and run.state in ENDED
    )
    if measured:
        lowest, highest = f"{measured[0]:.1%}", f"{measured[-1]:.1%}"
        text += f"; test accuracy {lowest}"
        if lowest != highest:
            text += f" to {highest}, median {median(measured):.1%}"
    return text + "."


def _why(fan: _Fan) -> str:
    """The reason of the first run that stalls, in the product's own words; the others at hand."""
    if not fan.stalls:
        return ""
    stall = next(iter(fan.stalls.values()))
    where = f"seed {stall.run.train.seed}" if stall.run.train else f"#{stall.run.id}"
    sentence = escape(stall.why.split(". ")[0].rstrip("."))
    return f"Why, for {where}: {sentence}.{_too_short(stall.run)}"


def _too_short(run: Run) -> str:
    """A caution, if the run has not seen all images of its data set once."""
    data = DATASETS.get(run.dataset)
    if run.error or run.train is None or data is None:
        return ""
    if run.step * run.train.batch_size >= data.train_size:
        return ""
    return f" {run.step:,} steps cannot tell “never” from “not yet”."


def _open_button(run: Run, stalls: bool) -> None:
    seed = f"seed {run.train.seed}" if run.train else f"#{run.id}"
    if run.test_accuracy is not None:
        seed += f" · {run.test_accuracy:.0%}"
    elif run.active:
        seed += " · waits" if run.state == "queued" else " · trains"
    else:
        seed += f" · {run.state}"
    st.button(
        seed,
        key=f"tr:fan:open:{run.id}",
        type="tertiary",
        icon=":material/horizontal_rule:" if stalls else ":material/show_chart:",
        on_click=_open,
        args=(run.id,),
    )


def _open(run_id: int) -> None:
    run_choice.open_run(run_id)
    st.session_state[_CHANGED] = True


def _delete(run_ids: list[int]) -> None:
    run_choice.attempt("fan", run_choice.delete, run_ids)
    st.session_state[_CHANGED] = True
