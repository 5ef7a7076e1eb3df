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

_FIELD = 150  # pixels
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
    # What is given may change.
    keys = {name: f"tr:duplicate:{run.id}:{name}:{given[name]}" for name in _LABELS}
    with st.container(horizontal=True, gap="small"):  # two in a line: the button stays in sight
        for name, label in _LABELS.items():
            decimal = {"step": 0.001, "format": "%g"} if name == "learning_rate" else {}
            st.number_input(
                f"Twin's {label}",
                value=given[name],  # any number is taken, and said to be wrong if it is
                key=keys[name],
                width=_FIELD,
                **decimal,
            )
    changes = _changes(given, keys)
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
                f"{_LABELS[name]} {_shown(value)} (not {_shown(given[name])})"
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
        given,
        keys,
        icon=":material/play_arrow:",
        type="primary",
        disabled=problem is not None or not changes,
    )


def _changes(given: dict[str, Any], keys: dict[str, str]) -> dict[str, Any]:
    """What stands in the fields now and is not what the run has."""
    chosen = {name: st.session_state[key] for name, key in keys.items()}
    return {name: value for name, value in chosen.items() if value != given[name]}


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _start(run_id: int, given: dict[str, Any], keys: dict[str, str]) -> None:
    store, changes = resources.store(), _changes(given, keys)
    twin = run_choice.attempt("run", lambda: jobs.duplicate_run(store, run_id, **changes))
    if twin is not None:
        run_choice.open_run(twin)
