"""What can be done with the open run, whatever its state: a row of buttons, most with a panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from nin_core import jobs, run_export
from nin_core.datasets import DATASETS
from nin_core.records import RESUMABLE
from nin_core.weights import weights_file
from ui import architecture, duplicate_panel, frame, resources
from ui.run_choice import DRAFT, attempt, delete, once_button

if TYPE_CHECKING:
    from nin_core.records import MetricRow, Run


def draw(run: Run) -> None:
    """Draw the row; what a run cannot do is not in it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover("Rename or delete", icon=":material/edit:"):
            _rename_and_delete(run)
        if run.state == "finished" and run.has_checkpoint and run.step and run.train is not None:
            with st.popover("Train on", icon=":material/forward_media:"):
                _train_on(run)
        if (run.active or run.state in RESUMABLE) and run.train is not None:
            with st.popover("Learning rate", icon=":material/speed:"):
                _learning_rate(run)
        if run.step or run.has_checkpoint:
            with st.popover("Download", icon=":material/download:"):
                _downloads(run)
        if run.train is not None and run.network is not None and not run.imported:
            with st.popover("Duplicate with changes", icon=":material/call_split:"):
                duplicate_panel.draw(run)
        readable = run.train is not None and run.network is not None
        if readable and run.dataset in DATASETS:
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
    st.number_input("More epochs", value=1, key=key)  # what cannot be is refused with a sentence
    st.caption(f"They follow its {run.train.total_epochs}{cycle}.")
    once_button("extend", "Train on", _extend, run.id, key, icon=":material/play_arrow:")


def _downloads(run: Run) -> None:
    """The run's points and weights for other programs; each file is made when it is asked for."""
    curves = {
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
    if run.step:
        st.caption("All points of its curves, up to the moment of the click.")
        for label, file in curves.items():
            _download(label, *file, disabled=label.startswith("TensorBoard") and not there)
        if not there:
            st.caption(f"For TensorBoard: `{run_export.TENSORBOARD_INSTALL}`.")
    if run.has_checkpoint:
        st.caption(
            "Its weights, for `safetensors.torch.load_file`; the Architecture page writes the "
            "PyTorch code that takes them."
        )
        _download(
            "Weights",
            lambda: weights_file(resources.store(), run.id),
            f"run-{run.id}.safetensors",
            "application/octet-stream",
        )


def _download(
    label: str,
    make: Callable[[], str | bytes],
    name: str,
    mime: str,
    *,
    disabled: bool = False,
) -> None:
    st.download_button(
        label,
        make,
        name,
        mime,
        key=f"tr:download:{label}",
        icon=":material/download:",
        on_click="ignore",
        disabled=disabled,
        width="stretch",
    )


def _points(run: Run) -> list[MetricRow]:
    return resources.store().metrics(run.id)


def _learning_rate(run: Run) -> None:
    """Another rate for the rest of a run, from its next step on."""
    assert run.train is not None
    cycle = run.train.schedule != "constant"
    now = run.desired_rate or run.train.rate_after(run.step)
    key = f"tr:rate:{run.id}:{now}"  # another tab may change it
    st.number_input(
        "Learning rate from now on",
        value=now,
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
    draft = {name: getattr(run.train, name) for name in ("recipe", "batch_size", "subset", "seed")}
    st.session_state[DRAFT] = draft | {
        "dataset": run.dataset,
        "epochs": run.train.total_epochs,
        "learning_rate": run.train.rate_after(run.step),
    }


def _rename_and_delete(run: Run) -> None:
    key = f"tr:name:{run.id}"
    st.text_input("Name", run.name, max_chars=100, key=key)
    st.button("Rename", on_click=_rename, args=(run.id, key))
    st.divider()
    if run.active:
        st.caption(f"Run #{run.id} is {run.state}; stop it before you delete it.")
        return
    st.caption("Deleting takes the curves, the weights and the results with it, for good.")
    once_button("delete", f"Delete run #{run.id}", _delete, run.id, icon=":material/delete:")


def _rename(run_id: int, key: str) -> None:
    attempt("run", resources.store().rename, run_id, st.session_state[key])


def _delete(run_id: int) -> None:
    attempt("run", delete, [run_id])
