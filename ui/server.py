"""What a server does before anybody opens a page: it takes up what the last one left.

Streamlit runs a page's script only when a browser asks for it. Without this, runs that a dead
server left in the queue would wait for the first visitor, and so would the first visitor for the
modules that every page needs.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Around the life of a server, as `streamlit.App` takes it; its end ends its workers itself."""
    threading.Thread(target=take_up, name="take-up", daemon=True).start()
    yield


def take_up() -> None:
    """Settle the runs of servers that died and start what waits; import what pages need.

    A store that cannot be used is told of by the page that needs it.
    """
    from nin_core import jobs
    from nin_core.store import RunStore, StoreError

    with suppress(StoreError):
        jobs.advance(RunStore())
    from ui import architecture_page, training  # noqa: F401
