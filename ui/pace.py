"""How often live pictures of runs are drawn anew.

A drawing of the open run costs the server about 25 ms of a processor and a browser on a laptop 120,
one of the list of runs 200. On the computer that trains, all of it is taken from the training. So
pictures are drawn as often as they visibly change, and no more often than leaves room for a class:

* A curve that takes `D` seconds to grow across the page is drawn `DRAWINGS` times on its way: half
  a second apart in a run of a few minutes, two seconds in one of a quarter of an hour.
* With every page that watches the drawings of all of them move apart. A page whose browser is on
  this computer counts threefold, since its drawing takes the same processors.
* What a person waits for is shown at once: a run that begins, ends, or was told to pause or stop.
* The list of runs, whose numbers say less, is drawn a sixth as often.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from nin_core.records import Run

PACES = (0.5, 1.0, 2.0, 4.0)  # seconds from one drawing of the open run to the next
LIST_PACES = (3.0, 6.0, 12.0)  # and of the list
LIST_FACTOR = 6
DRAWINGS = 500  # of a run from its first step to its last
LONGEST_ALONE = 2.0  # seconds, however long the run, where only one page watches
REMOTE_SECONDS, LOCAL_SECONDS = 0.1, 0.3  # by which a page that watches holds all of them back
ENDING_SECONDS = 5.0  # before its end, from when a run is watched closely
_MARGIN = 1.25  # past the limits of a pace, before it is left: an estimate wavers

_PAGE = "pace:page"


def of_run(run: Run, others: float, current: float | None = None) -> float:
    """Seconds from one drawing of an active run to the next, one of `PACES`.

    Args:
        others: seconds that the pages which watch take from one another, by `watching`.
        current: the pace so far, which is kept while it is about right.
    """
    return _chosen(PACES, max(_growing(run), others), current)


def of_list(runs: Sequence[Run], others: float, current: float | None = None) -> float:
    """The same for a list with these active runs, one of `LIST_PACES`."""
    growing = min((_growing(run) for run in runs if run.state == "running"), default=0.0)
    return _chosen(LIST_PACES, LIST_FACTOR * max(growing, others), current)


def _growing(run: Run) -> float:
    """Seconds in which a run's curve grows by a `DRAWINGS`th; 0 where somebody waits for it."""
    left = run.seconds_left
    if run.desired_state != "running" or left is None or left <= ENDING_SECONDS:
        return 0.0
    return min((run.seconds + left) / DRAWINGS, LONGEST_ALONE)


def _chosen(paces: Sequence[float], needed: float, current: float | None) -> float:
    if current is not None and needed and current / 2 / _MARGIN < needed <= current * _MARGIN:
        return current
    return next((pace for pace in paces if pace >= needed), paces[-1])


class Watchers:
    """The pages that have drawn a live picture within the last seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: dict[Hashable, tuple[float, float]] = {}  # page -> when, and its seconds

    def note(self, page: Hashable, seconds: float) -> float:
        """Say that `page` draws now and takes so much; returns what all but one take together."""
        now = time.monotonic()
        with self._lock:
            self._pages[page] = now, seconds
            for other, (when, _) in list(self._pages.items()):
                if now - when > 3 * PACES[-1]:
                    del self._pages[other]
            taken = [seconds for _, seconds in self._pages.values()]
        return sum(taken) if len(taken) > 1 else 0.0


def watching() -> float:
    """Note that this session's page draws; returns the seconds to hold back for all of them."""
    page = st.session_state.setdefault(_PAGE, uuid.uuid4())
    # Streamlit tells no address of a browser on this computer.
    return _watchers().note(
        page, LOCAL_SECONDS if st.context.ip_address is None else REMOTE_SECONDS
    )


@st.cache_resource(show_spinner=False)
def _watchers() -> Watchers:
    return Watchers()
