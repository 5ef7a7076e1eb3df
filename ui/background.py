"""Work of some seconds that a page wants: the server's one background thread, and how far it is.

`nin_core.background` does it; a page asks at each rerun, and shows `wait` until it is there. A
fragment of its own then shows how far the work is and redraws the page once, when it is done.
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable
from typing import Any

import streamlit as st

from nin_core.background import Background, Look, Name, Work

TICK_SECONDS = 0.7


@st.cache_resource(show_spinner=False)
def background() -> Background:
    """The server's thread for such work."""
    return Background()


def ask(kind: str, key: Hashable, work: Work) -> tuple[Name, Look]:
    """How work stands that this session wants; it begins if nobody has asked for it yet."""
    name = Name(kind, key)
    return name, background().ask(name, _owner(), work)


def finished(name: Name) -> Any:
    """The result of work if it is there; None if not. Asks for nothing."""
    look = background().find(name, _owner())
    return look.result if look is not None and look.state == "done" else None


def wait(name: Name, look: Look, what: str) -> None:
    """Show how far work is until it is there, then redraw the page; or why it failed.

    Args:
        what: is being done, for people.
    """
    if look.state == "failed":
        st.error(f"{what}: it failed ({look.problem}).", icon=":material/error:")
        st.button("Try again", key=f"again:{name.kind}", on_click=background().forget, args=(name,))
        return
    st.fragment(_progress, run_every=TICK_SECONDS)(name, what)


def _progress(name: Name, what: str) -> None:
    look = background().find(name, _owner())
    if look is None or look.state in ("done", "failed"):
        st.rerun()  # the page, which asks again
    queue = f" · waits for {look.before} other" if look.before else f" · {look.done:.0%}"
    st.progress(min(look.done, 1.0), text=f"{what}{queue}")


def _owner() -> str:
    """This session, for the background."""
    return st.session_state.setdefault("background:owner", uuid.uuid4().hex)
