"""Streamlit's sessions: one for each page that is open in a browser."""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx


def current() -> str:
    """The name of the session that runs this script; "" outside of one."""
    context = get_script_run_ctx()
    return "" if context is None else context.session_id


def is_connected(session: str) -> bool:
    """Whether a browser is connected to that session; True where no server could tell."""
    runtime = st.runtime
    return not runtime.exists() or runtime.get_instance().is_active_session(session)
