"""The list of all runs: open one with a click, tick several to compare or delete them.

Choices made here:

* A cell's click opens its run, the boxes at the left tick runs; both are Streamlit's own table,
  which also sorts, searches and scrolls.
* Streamlit knows the rows of a table by their position. The table's key names the runs in it, so a
  new run starts a new table (with the same runs ticked) instead of moving the ticks to others.
* While any run is active the list is drawn anew again and again (`ui.pace`) for whoever sees it,
  in a fragment of its own beside the open run's.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from nin_core import jobs
from nin_core.datasets import DATASETS
from nin_core.recipes import RECIPES
from nin_core.store import StoreError
from ui import (
    curve_panel,
    frame,
    pace,
    resources,
    run_choice,
    run_feed,
    run_points,
)
from ui.components import plot, tick
from ui.curves import MAX_COMPARED, NAMED, Compared, comparison_figure

if TYPE_CHECKING:
    from nin_core.records import Run

MAX_RUNS = run_feed.LISTED
VISIBLE_ROWS = 10
COMPARISON_HEIGHT, LEGEND_HEIGHT = 430, 14  # pixels, of the chart and for each run in its legend

_TICKED = "tr:ticked"
_LIST_FANS = "tr:list-fans"
_LINK = "compare"


def show(opened: Run | None) -> None:
    """Draw the list of runs and the comparison of the ticked ones, if there are runs."""
    if resources.store().list_runs(limit=1):
        st.fragment(_live)(opened)


def _live(opened: Run | None) -> None:
    runs: list[Run] | None = None
    with frame.guarded():
        watched = run_feed.watch_states()  # first: what comes meanwhile is only drawn once more
        # Whoever looks at the list moves the queue on, whichever run is open.
        trouble = jobs.try_advance(resources.store())
        runs = resources.store().list_runs(limit=MAX_RUNS)
        st.subheader("Runs", anchor=False)
        st.caption("Click a run to open it above; tick two or more to compare them.")
        run_choice.show_notice("list")
        if trouble:
            st.warning(f"Nothing can start or end meanwhile: {trouble}", icon=":material/database:")
        _take_link(runs)
        number = None if opened is None else opened.id
        listed = _without_fans(runs, number)
        if listed:
            _table(listed, number)
        ticked = [run for run in listed if run.id in st.session_state[_TICKED]]
        run_choice.link_runs(_LINK, [run.id for run in ticked])
        _actions(ticked)
        if len(ticked) > 1:
            _comparison(ticked[:MAX_COMPARED])
            if len(ticked) > MAX_COMPARED:
                st.caption(f"The newest {MAX_COMPARED} of {len(ticked)} ticked runs are drawn.")
    if st.session_state.pop("tr:picked", False):
        st.rerun()  # to open the run that was clicked
    if runs is None:
        tick(frame.RECOVERY_SECONDS, key="tr:list-tick")
    elif running := [run for run in runs if run.active]:
        tick(pace.of_list(running, pace.watching()), key="tr:list-tick", watch=watched)


def _take_link(runs: list[Run]) -> None:
    """At the start of a session, tick the runs that the link names."""
    if _TICKED in st.session_state:
        return
    linked = run_choice.linked_runs(_LINK, "runs to compare")
    there = {run.id: run for run in runs}
    st.session_state[_TICKED] = tuple(number for number in linked if number in there)
    if any(there[number].fan is not None for number in st.session_state[_TICKED]):
        st.session_state[_LIST_FANS] = True
    if gone := [f"#{number}" for number in linked if number not in there]:
        st.warning(
            f"The link compares {', '.join(gone[:3])}{' and others' * (len(gone) > 3)}, which "
            f"{'is' if len(gone) == 1 else 'are'} not in the list: deleted, of another store, or "
            f"older than the newest {MAX_RUNS}.",
            icon=":material/link_off:",
        )


def _without_fans(runs: list[Run], opened: int | None) -> list[Run]:
    """The runs to list: those of seed fans only if asked for, or open."""
    members = sum(run.fan is not None for run in runs)
    if not members or st.toggle(f"List the {members} runs of seed fans, too", key=_LIST_FANS):
        return runs
    return [run for run in runs if run.fan is None or run.id == opened]


# --- the table --------------------------------------------------------------------------------


def _table(runs: list[Run], opened: int | None) -> None:
    ids = [run.id for run in runs]
    key = "tr:runs:" + hashlib.blake2b(repr(ids).encode(), digest_size=8).hexdigest()
    ticked = st.session_state[_TICKED]
    st.dataframe(
        run_frame(runs, opened),
        key=key,
        hide_index=True,
        height="content" if len(runs) <= VISIBLE_ROWS else 35 * (VISIBLE_ROWS + 1) + 3,
        on_select=lambda: _selected(ids, key),
        selection_mode=["multi-row", "single-cell"],
        selection_default={"selection": {"rows": [ids.index(i) for i in ids if i in ticked]}},
        placeholder="–",
        column_config={
            "Run": st.column_config.NumberColumn(format="#%d", width=60),
            "Name": st.column_config.TextColumn(width="medium"),
            "State": st.column_config.TextColumn(width="small"),
            "Test accuracy": st.column_config.NumberColumn(format="%.1f%%", width=105),
            "Epochs": st.column_config.TextColumn(width="small"),
            "Seconds": st.column_config.NumberColumn(format="%.1f", width="small"),
            "Created": st.column_config.DatetimeColumn(
                format="D MMM, HH:mm", timezone=st.context.timezone or "UTC", width=110
            ),
        },
        alt="All runs, the newest first",
    )


def run_frame(runs: list[Run], opened: int | None = None) -> pd.DataFrame:
    """The table of runs: a row a run, numbers as numbers so that it sorts."""
    return pd.DataFrame([_row(run, run.id == opened) for run in runs])


def _row(run: Run, is_open: bool) -> dict[str, Any]:
    state = f"{run.state}, {run.progress:.0%}" if run.state == "running" else run.state
    data = DATASETS.get(run.dataset)
    epochs = "–"
    recipe = "imported" if run.imported else "–"
    if run.train is not None and not run.imported:
        done = run.steps_done / run_points.steps_per_epoch(run)
        epochs = f"{done:.2f}".rstrip("0").rstrip(".") + f" of {run.train.total_epochs}"
        recipe = RECIPES[run.train.recipe].title
    name = run.name if run.fan is None else f"{run.name} · fan {run.fan[:4]}"
    return {
        "Run": run.id,
        "Name": f"▸ {name}" if is_open else name,
        "State": state,
        "Test accuracy": None if run.test_accuracy is None else 100 * run.test_accuracy,
        "Recipe": recipe,
        "Data set": data.title if data else run.dataset,
        "Epochs": epochs,
        "Seconds": run.seconds or None,
        "Created": run.created_at,
    }


def _selected(ids: list[int], key: str) -> None:
    selection = st.session_state[key]["selection"]
    st.session_state[_TICKED] = tuple(ids[row] for row in selection["rows"])
    if selection["cells"]:
        picked = ids[selection["cells"][0][0]]
        if str(picked) != st.query_params.get("run"):
            run_choice.open_run(picked)
            st.session_state["tr:picked"] = True


# --- the ticked runs --------------------------------------------------------------------------


def _actions(ticked: list[Run]) -> None:
    if not ticked:
        return
    what = f"{len(ticked)} ticked run{'s' if len(ticked) > 1 else ''}"
    with st.popover(f"Delete the {what}", icon=":material/delete:", key="tr:delete-ticked"):
        if active := [run for run in ticked if run.active]:
            st.caption(f"Run #{active[0].id} is {active[0].state}; stop it before you delete it.")
            return
        st.caption("Their curves, weights and results go with them, for good.")
        st.button(
            f"Delete {what} for good",
            on_click=_delete,
            args=([run.id for run in ticked],),
        )


def _delete(run_ids: list[int]) -> None:
    run_choice.attempt("list", run_choice.delete, run_ids)
    st.session_state["tr:picked"] = True  # the open run may be gone


def _different_data(runs: list[Run]) -> str | None:
    """A caution where runs are of different data sets; None where all are of one."""
    of: dict[str, list[str]] = {}
    for run in sorted(runs, key=lambda run: run.id):
        data = DATASETS.get(run.dataset)
        of.setdefault(data.title if data else run.dataset, []).append(f"#{run.id}")
    if len(of) < 2:
        return None
    told = "; ".join(f"{', '.join(ids)} of {title}" for title, ids in of.items())
    return f"These runs are of different data sets, so their figures do not compare: {told}."


def _comparison(ticked: list[Run]) -> None:
    store = resources.store()
    compared = []
    for run in sorted(ticked, key=lambda run: run.id):
        try:
            history = run_points.with_final_test(run, run_points.histories().of(store, run))
        except StoreError:
            continue
        per_epoch = run_points.steps_per_epoch(run)
        compared.append(Compared(run_points.title(run), history, per_epoch, f"#{run.id}"))
    if different := _different_data(ticked):
        st.caption(different)
    view = curve_panel.choose_view("tr:compare")
    # The legend above takes its lines from the chart.
    height = COMPARISON_HEIGHT + LEGEND_HEIGHT * min(len(compared), NAMED)
    plot(comparison_figure(compared, view), key="comparison of runs", height=height)
