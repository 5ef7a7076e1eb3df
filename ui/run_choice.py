"""Which run the Training page shows, the runs that its links name, and what an action came to.

* What is drawn follows from the run's number in the URL (`?run=5`), so a reload, a link, another
  tab or another person sees the same; without one the session's last run is opened, else the one
  that trains, else the newest. Runs that are compared (`&compare=5,7`) and the seed fans shown
  (`&fan=9`, by a run of each) stand there, too.
* What a button asks for may be refused: the sentence is kept for the place where the button is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from nin_core import ConfigError
from nin_core.records import RunNotFound
from nin_core.store import StoreError
from ui import address, resources

if TYPE_CHECKING:
    from nin_core.records import Run
    from nin_core.store import RunStore

# What a session has chosen for its next run: {"recipe": …, "dataset": …, "name": …, and changes to
# the recipe}.
DRAFT = "tr:draft"
_OPEN = "tr:open"
_NOTICE = "tr:notice"
_PRESSES = "tr:presses"


def opened() -> Run | None:
    """The run that the page shows; None if there is none, which is then said."""
    store = resources.store()
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
    if st.session_state.get(_OPEN) != run_id and st.session_state.get(_NOTICE, ("",))[0] == "run":
        del st.session_state[_NOTICE]  # it was about another run
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
    address.hold([parameter], {parameter: ",".join(map(str, runs))} if runs else {})


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


def attempt(place: str, action: Callable[..., Any], *args: Any) -> Any:
    """Do what a button asks for; its failure becomes a sentence for `show_notice(place)`."""
    try:
        return action(*args)
    except (StoreError, ConfigError) as error:
        st.session_state[_NOTICE] = place, sentence(error)
        return None


def sentence(error: Exception) -> str:
    """What is wrong, as a sentence of its own."""
    text = str(error)
    field = getattr(error, "field", None)
    if field:
        text = text.replace(field, field.replace("_", " "))  # as it is labelled
    return text[:1].upper() + text[1:]


def presses(name: str) -> int:
    """How often a button of `once_button` has been pressed in this session."""
    return int(st.session_state.get(_PRESSES, {}).get(name, 0))


def once_button(
    name: str, label: str, action: Callable[..., Any], *args: Any, **settings: Any
) -> None:
    """A button whose action the second click of a double click does not repeat.

    Args:
        name: tells it from the others of the page.
        settings: for `st.button`.
    """
    press = presses(name)  # a part of its key: the next one is another button
    st.button(
        label,
        key=f"tr:{name}:{press}",
        on_click=_once,
        args=(name, press, action, *args),
        **settings,
    )


def _once(name: str, press: int, action: Callable[..., Any], *args: Any) -> None:
    if presses(name) == press:
        st.session_state.setdefault(_PRESSES, {})[name] = press + 1
        action(*args)


def show_notice(place: str, said: str | None = None) -> None:
    """The sentence of the last action that failed at this place of the page, once.

    Args:
        said: what stands there already.
    """
    if st.session_state.get(_NOTICE, ("", ""))[0] == place:
        _, text = st.session_state.pop(_NOTICE)
        if text != said:
            st.error(text)


def delete(run_ids: list[int]) -> None:
    """Delete runs, and show them no longer.

    Raises:
        RunNotFound: if one was gone already, when the others are too.
        StoreError: for the first that cannot be deleted.
    """
    gone: RunNotFound | None = None
    for run_id in run_ids:
        try:
            resources.store().delete(run_id)
        except RunNotFound as error:  # another page was quicker
            gone = error
            continue
        if st.session_state.get(_OPEN) == run_id:
            del st.session_state[_OPEN]
        if st.query_params.get("run") == str(run_id):
            del st.query_params["run"]
    if gone is not None:
        raise gone
