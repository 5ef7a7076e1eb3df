"""What a server does besides running pages: it keeps the queue moving, and answers pages.

Streamlit runs a page's script only when a browser asks for it. Without `lifespan`, runs that a dead
server left in the queue would wait for the first visitor, as would one that waits for memory, and
the first visitor for the modules that every page needs. For the same reason these are imported here
where they are used, and not before the server answers.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

QUEUE_SECONDS = 3.0  # from one look at the queue to the next, where no page looks at it


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Around the life of a server, as `streamlit.App` takes it; its end ends its workers itself."""
    ended = threading.Event()
    threading.Thread(target=keep_up, args=(ended,), name="keep-up", daemon=True).start()
    yield
    ended.set()


def keep_up(ended: threading.Event) -> None:
    """Settle the runs of workers that died and start what waits, whether or not a page is open.

    First of all; then what pages need is imported; then again and again until `ended` is set. A
    store that cannot be used is told of by the page that needs it, and asked again here.
    """
    from nin_core import jobs
    from nin_core.store import RunStore, StoreError

    store: RunStore | None = None
    first = True
    while first or not ended.wait(QUEUE_SECONDS):
        try:
            store = store or RunStore()
            jobs.advance(store)
        except StoreError:
            pass
        except Exception:  # whatever it is, the queue is not to stand still for good
            traceback.print_exc()
        if first:
            from ui import architecture_page, run_feed, training  # noqa: F401
        first = False


def routes() -> list[Route]:
    """The addresses at which this server answers besides Streamlit's own, for `streamlit.App`."""
    from starlette.routing import Route

    def feed(request: Request) -> Response:  # a plain function: Starlette has a thread call it
        from ui import run_feed

        return run_feed.answer(request, request.path_params["run_id"])

    def states(_: Request) -> Response:
        from ui import run_feed

        return run_feed.answer_states()

    def session(request: Request) -> Response:
        from starlette.responses import JSONResponse

        from ui import sessions

        active = sessions.is_connected(request.path_params["session"])
        return JSONResponse({"active": active}, headers={"Cache-Control": "no-store"})

    return [
        Route(feed_path("{run_id:int}"), feed),
        Route(feed_path(), states),
        Route(session_path("{session}"), session),
    ]


def feed_path(run_id: int | str | None = None) -> str:
    """Where a page asks for the picture of a run, or for the states of all; see `run_feed`."""
    return _path("runs") + (f"/{run_id}" if run_id is not None else "")


def session_path(session: str) -> str:
    """Where a page asks whether Streamlit's session of that name is connected to a browser."""
    return f"{_path('sessions')}/{session}"


def _path(name: str) -> str:
    base = str(st.get_option("server.baseUrlPath")).strip("/")
    return f"{'/' if base else ''}{base}/nin/{name}"
