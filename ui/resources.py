"""What a server holds once for all its sessions: the run store and the data sets.

Both are cached by Streamlit; a failure is not, so the next rerun tries again. Pages call these
inside `ui.frame.guarded()`, which turns a store's failure into a sentence on the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from nin_core.data import Dataset
    from nin_core.store import RunStore


@st.cache_resource(show_spinner=False)
def store() -> RunStore:
    """The run store at `NIN_DATABASE_URL`; the first call also tidies up after a server that died.

    Raises:
        StoreError: if the database cannot be used, in one sentence.
    """
    from nin_core import jobs
    from nin_core.store import RunStore

    opened = RunStore()
    jobs.try_advance(opened)
    return opened


@st.cache_resource(show_spinner=False, max_entries=3)
def dataset(name: str) -> Dataset:
    """A data set in memory, shared by all sessions (47 MB for Fashion-MNIST).

    Raises:
        DataError: if it cannot be had, in one sentence that says what to do.
    """
    from nin_core.data import load_dataset

    return load_dataset(name)


@st.cache_resource(show_spinner=False)
def torch_ready() -> bool:
    """Import torch and hold this process to one thread, so that pages leave the cores to runs."""
    import torch

    torch.set_num_threads(1)
    return True


def load_torch() -> None:
    """Have torch loaded; the first time in a server this shows what the wait is for."""
    import sys

    if "torch" in sys.modules:
        torch_ready()
        return
    with st.spinner("Loading PyTorch, once per server start …"):
        torch_ready()
