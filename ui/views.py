"""Switches; the one between a page's views, of which the open one stands in the URL as `?view=`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import streamlit as st

Option = TypeVar("Option")
Shown = TypeVar("Shown")


def switch(label: str, options: Sequence[Option], key: str, **settings: Any) -> Option:
    """A segmented control of which one option is always chosen, at first the first.

    What is chosen stays in the session under `key`. A rerun that cuts into another one can leave
    the control without its choice; then it is the first option again, never none.

    Args:
        settings: for `st.segmented_control`.
    """
    if st.session_state.get(key) is None:
        st.session_state[key] = options[0]
    return st.segmented_control(
        label, options, key=key, required=True, persist_state="session", **settings
    )


def choose(
    views: Mapping[str, tuple[str, Callable[[Shown], None]]], key: str
) -> Callable[[Shown], None]:
    """Draw the switch and return what draws the view that is open.

    Args:
        views: its name in the URL -> its title and what draws it; the first is open at first.
        key: of the switch in the session.
    """
    linked = st.query_params.get("view")
    if linked is not None and linked not in views:
        st.warning(f"There is no view {linked[:20]!r}; the link could name {', '.join(views)}.")
    elif linked is not None and key not in st.session_state:
        st.session_state[key] = linked
    chosen = switch(
        "View",
        list(views),
        key,
        format_func=lambda name: views[name][0],
        label_visibility="collapsed",
        wrap=True,
    )
    st.query_params["view"] = chosen
    return views[chosen][1]
