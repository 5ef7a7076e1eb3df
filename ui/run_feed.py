"""What an open page asks for while a run trains: the run's picture as JSON, at a route of ours.

Choices made here:

* A class that watches one run asks for the same: an answer serves everyone who asks for it within
  `SHARED_SECONDS`.
* The pause until the next question is `ui.pace`'s, by how many pages watch and where they are.
* A feed says what is; whether a page is out of date, and why the store does not answer, is told by
  the page's own script, which the answer's version has run.
"""

from __future__ import annotations

import json
import math
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlencode

import streamlit as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from nin_core.records import RunNotFound
from nin_core.store import StoreError
from ui import curve_panel, pace, resources, run_picture, server
from ui.curves import Unit, View

if TYPE_CHECKING:
    from nin_core.records import Run
    from ui.curve_panel import Look
    from ui.run_picture import Seen

SHARED_SECONDS = 0.2
LISTED = 500  # the newest runs, whose states are watched
KEPT = 64  # runs, times the ways in which they are looked at
LOST, GONE = "lost", "gone"  # versions: of a store that does not answer, of a run that was deleted
LOST_PAUSE = 2.0  # seconds until a store is asked again
ENDED_PAUSE = 3600.0  # of a run that has ended; whether somebody resumes it is asked meanwhile
FRESH = {"Cache-Control": "no-store"}
LOOPBACK = ("127.0.0.1", "::1")


def url(run_id: int, look: Look) -> str:
    """Where this session's page asks for the picture of a run."""
    view = look.view
    query = {
        "page": pace.page(),
        "vitals": int(look.vitals),
        "unit": view.unit,
        "smoothing": view.smoothing,
        "log": int(view.log_loss),
    }
    return f"{server.feed_path(run_id)}?{urlencode(query)}"


def watch_states() -> tuple[str, str]:
    """For `components.tick`: have a fragment run soon when any run's state is another one.

    Raises:
        StoreError: if the store does not answer.
    """
    return server.feed_path(), _states()


@st.cache_data(ttl=1.0, show_spinner=False)
def _states() -> str:
    return run_picture.digest(resources.store().states(LISTED))


def answer_states() -> Response:
    """Which states all runs are in, as a version that changes when one of them does."""
    try:
        version = _states()
    except StoreError:
        version = LOST
    return JSONResponse({"version": version}, headers=FRESH)


def serial(seen: Seen) -> str:
    """Changes with whatever the chart shows."""
    run = seen.run
    return f"{run.attempt}.{seen.history.last_id}.{run.active:d}.{run.has_evaluation:d}"


def answer(request: Request, run_id: int) -> Response:
    """The picture of a run, as `components.follow` takes it."""
    query = request.query_params
    try:
        look = _look(query)
    except ValueError:
        return JSONResponse({"problem": "The address names no view of a run."}, 400)
    if query.get("only") == "version":
        return JSONResponse({"version": _told(run_id, look).version()}, headers=FRESH)
    since = query.get("since", "")
    body, run = _told(run_id, look).answer(since)
    pause = LOST_PAUSE
    if run is not None:
        client = request.client.host if request.client else None
        pause = ENDED_PAUSE
        if run_picture.is_awaited(run):
            others = pace.note(query.get("page", "")[:64], here=client in LOOPBACK)
            pause = pace.of_run(run, others)
    body = f'{{"pause": {pause}, {body[1:]}'
    return Response(body, media_type="application/json", headers=FRESH)


def _look(query: Any) -> Look:
    """What is looked at, from the address.

    Raises:
        ValueError: if it is not one of `url`.
    """
    unit, smoothing = query.get("unit", "epochs"), float(query.get("smoothing", 0))
    if unit not in get_args(Unit) or not 0 <= smoothing <= curve_panel.MOST_SMOOTHING:
        raise ValueError(unit, smoothing)
    view = View(unit, smoothing, query.get("log") == "1")
    return curve_panel.Look(query.get("vitals") == "1", view)


class _Told:
    """What is told of a run to those who look at it in one way, made anew when it is old."""

    def __init__(self, run_id: int, look: Look) -> None:
        self._id, self._look = run_id, look
        self._lock = threading.Lock()
        self._made_at = -math.inf
        self._serial, self._chart, self._blocks = "", "", list[str]()
        self._facts: dict[str, Any] = {}
        self._run: Run | None = None

    def answer(self, since: str) -> tuple[str, Run | None]:
        """An answer as JSON, and the run; None if that could not be read."""
        with self._lock:
            if time.monotonic() - self._made_at > SHARED_SECONDS:
                self._make()
                self._made_at = time.monotonic()
            body = json.dumps(self._facts)
            if self._chart and self._facts["serial"] not in (since, LOST, GONE):
                body = f'{body[:-1]}, "chart": {self._chart}}}'
            return body, self._run

    def version(self) -> str:
        """Of the page that has this picture; hardly ever is anything drawn for it."""
        with self._lock:
            if not self._serial:  # what the picture consists of is not known yet, or was forgotten
                self._make()
                self._made_at = time.monotonic()
            if time.monotonic() - self._made_at <= SHARED_SECONDS:
                return str(self._facts["version"])
            seen = self._look_at_run()
            return seen if isinstance(seen, str) else run_picture.version(seen, self._blocks)

    def _look_at_run(self) -> Seen | str:
        """The run as it is now, or the version of a page that cannot show it."""
        try:
            return run_picture.look(resources.store(), self._id)
        except RunNotFound:
            return GONE
        except StoreError:
            return LOST

    def _make(self) -> None:
        seen = self._look_at_run()
        if isinstance(seen, str):
            self._run, self._facts = None, {"version": seen, "serial": seen}
            return
        self._run = seen.run
        number = serial(seen)
        if number != self._serial:
            chart = curve_panel.chart_of(seen.run, seen.history, self._look)
            self._chart = json.dumps(chart.data) if chart else ""
            self._blocks = chart.blocks if chart else []
            self._serial = number
        pieces = (run_picture.progress(seen), run_picture.figures(seen.run, seen.history))
        self._facts = {
            "version": run_picture.version(seen, self._blocks),
            "serial": number,
            "html": [piece for piece in pieces if piece],
        }


@lru_cache(maxsize=KEPT)
def _told(run_id: int, look: Look) -> _Told:
    """What is told of a run that is looked at in this way, once for all who ask."""
    return _Told(run_id, look)
