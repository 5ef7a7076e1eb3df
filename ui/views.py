"""The switch between a page's views; the one that is open stands in the URL as `?view=`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import streamlit as st

Shown = TypeVar("Shown")


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
    chosen = st.segmented_control(
        "View",
        list(views),
        format_func=lambda name: views[name][0],
        default=next(iter(views)) if key not in st.session_state else None,
        required=True,
        key=key,
        persist_state="session",
        label_visibility="collapsed",
        wrap=True,
    )
    st.query_params["view"] = chosen
    return views[chosen][1]
