"""The frame around every page: navigation, the sidebar, and how failures are shown.

Streamlit runs a page file without the entry point when a page's own URL is the first one visited
on a fresh server. Every page therefore begins with `begin()`, which in that case registers the
pages and reruns, so that a deep link shows the whole frame and keeps its query string.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from ui import architecture, resources, server, sessions

if TYPE_CHECKING:
    from streamlit.navigation.page import StreamlitPage

    from nin_core import NiNConfig

# File, title, icon; the first is the page at "/".
_PAGES = (
    ("pages/home.py", "Home", ":material/home:"),
    ("pages/architecture.py", "Architecture", ":material/account_tree:"),
    ("pages/training.py", "Training", ":material/show_chart:"),
    ("pages/feature_maps.py", "Feature maps", ":material/grid_view:"),
)

RECOVERY_SECONDS = 4.0  # from one question of a page that waits for its store to the next

# Streamlit fades whatever a running script has not reached yet: at each step of a slider every
# element on the page began to fade and was called back, a layer and an animation apiece, a sixth of
# the step's time. That a script runs is said at the top right.
_STYLE = """
<style>
.stElementContainer, .stExpander summary, .stExpander summary > * { opacity: 1 !important; }
.nin-totals { width: 100%; border-collapse: collapse; font-size: 0.85rem; margin: 0 0 .4rem; }
.nin-totals th { font-weight: 400; opacity: .7; text-align: right; padding: 0 0 .15rem; }
.nin-totals td { padding: .15rem 0; border-top: 1px solid rgba(128, 128, 128, .25); }
.nin-totals td:nth-child(n+2) { text-align: right; white-space: nowrap; padding-left: .5rem;
  font-variant-numeric: tabular-nums; }
.nin-totals td:nth-child(3) { opacity: .75; }
</style>
"""

# Streamlit adds an entry to the browser's history whenever a page's address changes, so at every
# step of a slider; going back would lead through all of them, and the page would write its address
# anew at each. Only another page is an entry of its own.
_HISTORY = """
<script>
if (!window.ninHistory) {
  window.ninHistory = true;
  const push = history.pushState.bind(history);
  history.pushState = (state, title, url) => {
    const there = new URL(url ?? location.href, location.href).pathname;
    if (there === location.pathname) history.replaceState(state, title, url);
    else push(state, title, url);
  };
}
</script>
"""

# A tab outlives its server, and a computer that slept its session. The browser connects again by
# itself, but to a session that has never run the page: buttons of fragments would do nothing there.
_RECONNECTED = """
<script>
window.ninSession = "SESSION";
if (!window.ninReconnects) {
  window.ninReconnects = true;
  let lost = false;
  const look = async () => {
    const app = document.querySelector("[data-testid=stApp]");
    if (app?.dataset.testConnectionState !== "CONNECTED") return void (lost = true);
    if (!lost) return;
    lost = false;
    const answer = await fetch("PATH" + window.ninSession, { cache: "no-store" }).catch(() => null);
    if (answer?.ok && !(await answer.json()).active) location.reload();
  };
  new MutationObserver(look).observe(document.body, {
    subtree: true, attributes: true, attributeFilter: ["data-test-connection-state"],
  });
}
</script>
"""


def page(file: str) -> StreamlitPage:
    """The `st.Page` of a page file, for `st.page_link`."""
    for path, title, icon in _PAGES:
        if path == file:
            return st.Page(path, title=title, icon=icon, default=path == _PAGES[0][0])
    raise KeyError(file)


def navigation() -> StreamlitPage:
    """Name the site, register its pages and return the one that was asked for."""
    st.set_page_config(
        page_title="NiN Explorer",
        page_icon=str(Path(__file__).with_name("icon.svg")),
        layout="wide",
    )
    return st.navigation([page(path) for path, _, _ in _PAGES])


_settled = 0  # modules that were imported when the heap was last frozen
_MANY = 100  # modules, e.g. torch's


def _settle() -> None:
    """Take what imports have left in memory out of the garbage collector's work.

    Streamlit collects after every script run, holding the interpreter: 60 ms at each step of a
    slider, for everybody on this server, with nearly all of it spent on modules that never go.
    """
    global _settled
    if len(sys.modules) > _settled + _MANY:
        _settled = len(sys.modules)
        gc.collect()
        gc.freeze()


def run() -> None:
    """The entry point's whole job: frame, sidebar, then the page that was asked for."""
    chosen = navigation()
    st.session_state["nin_framed"] = True
    st.html(_STYLE)
    with st.sidebar:
        architecture.controls()
        st.html(_HISTORY + _reconnected(), unsafe_allow_javascript=True)
    chosen.run()
    _settle()


def _reconnected() -> str:
    """What has a page loaded anew when its browser is connected again, but its session is gone."""
    script = _RECONNECTED.replace("PATH", server.session_path(""))
    return script.replace("SESSION", sessions.current())


def begin() -> NiNConfig:
    """First line of every page file: make sure the frame is there; return the network to show."""
    # Set by `run()` in the same script run; taken away, so that it speaks of this run only.
    if not st.session_state.pop("nin_framed", False):
        navigation()
        st.rerun()
    if architecture.problem():
        st.info(
            "The network in the sidebar cannot be built yet (the reason stands there); this page "
            "shows the last one that can."
        )
    return architecture.current()


@contextmanager
def guarded(*, recovers: bool = False) -> Iterator[None]:
    """Show a store's or a data set's failure as its sentence, where it happened.

    Args:
        recovers: have the page drawn anew once the store answers again.
    """
    from nin_core.data import DataError
    from nin_core.store import StoreError

    try:
        yield
    except StoreError as error:
        st.error(f"The run store cannot be used: {error}", icon=":material/database_off:")
        if recovers:
            st.fragment(_wait_for_store, run_every=RECOVERY_SECONDS)()
    except DataError as error:
        st.error(str(error), icon=":material/image_not_supported:")


def _wait_for_store() -> None:
    from nin_core.store import StoreError

    try:
        resources.store().work()
    except StoreError:
        return
    st.rerun()
