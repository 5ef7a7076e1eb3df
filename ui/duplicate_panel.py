"""A twin of the open run with a few things changed, started from one popover.

The fields show what the run has; what is changed is said, and only that differs in the twin. Who
wants another network takes the run's settings into the form instead ("Use its settings").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from nin_core import ConfigError, jobs
from ui import resources, run_choice

if TYPE_CHECKING:
    from nin_core.records import Run

_LABELS = {
    "epochs": "epochs",
    "learning_rate": "learning rate",
    "batch_size": "batch size",
    "seed": "seed",
}


def draw(run: Run) -> None:
    """The popover's content."""
    assert run.train is not None
    given: dict[str, Any] = {
        "epochs": run.train.total_epochs,
        "learning_rate": run.train.learning_rate,
        "batch_size": run.train.batch_size,
        "seed": run.train.seed,
    }
    st.caption("The same network on the same images; change what the twin should have otherwise.")
    chosen: dict[str, Any] = {}
    for name, label in _LABELS.items():
        decimal = {"step": 0.001, "format": "%g"} if name == "learning_rate" else {}
        chosen[name] = st.number_input(
            f"Twin's {label}",
            value=given[name],  # any number is taken, and said to be wrong if it is
            key=f"tr:duplicate:{run.id}:{name}:{given[name]}",  # what is given may change
            **decimal,
        )
    changes = {name: value for name, value in chosen.items() if value != given[name]}
    problem = None
    try:
        run.train.varied(**changes)
    except ConfigError as error:
        problem = run_choice.sentence(error)
    if problem:
        st.error(problem)
    elif changes:
        st.caption(
            "Differs in "
            + ", ".join(
                f"{_LABELS[name]} {value:g} (not {given[name]:g})"
                for name, value in changes.items()
            )
            + "."
        )
    else:
        st.caption("Nothing is changed yet: the twin would repeat this run.")
    run_choice.once_button(
        "duplicate",
        "Start the duplicate",
        _start,
        run.id,
        changes,
        icon=":material/play_arrow:",
        type="primary",
        disabled=problem is not None or not changes,
    )


def _start(run_id: int, changes: dict[str, Any]) -> None:
    store = resources.store()
    twin = run_choice.attempt("run", lambda: jobs.duplicate_run(store, run_id, **changes))
    if twin is not None:
        run_choice.open_run(twin)
