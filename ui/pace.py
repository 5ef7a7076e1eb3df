"""How often live pictures of runs are drawn anew.

A new picture of the open run costs the server about 15 ms of a processor and a browser on a laptop
90, a drawing of the list of runs 200. On the computer that trains, all of it is taken from the
training. So pictures are drawn as often as they visibly change, and no more often than leaves room
for a class:

* A curve that takes `D` seconds to grow across the page is drawn `DRAWINGS` times on its way: half
  a second apart in a run of a few minutes, two seconds in one of a quarter of an hour. Whoever has
  just started a run of hours wants to see it move, too: a new picture comes with every eighth that
  is added to what it has so far.
* With every page that watches the drawings of all of them move apart, until it is closed. Browsers
  on this computer draw with the processors that train: their pages count by the square of their
  number, so that two beside each other stay lively and ten leave nine tenths of a laptop to the
  training.
* What a person waits for is shown at once: a run's first point above all, its end, or that it was
  told to pause or stop.
* However rare the pictures, it is asked every few seconds whether one is out of date (`NOTICE` in
  the components' scripts): a run whose worker has died is shown as interrupted within ten seconds.
* The list of runs, whose numbers say less, is drawn a sixth as often; seed fans half as often.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from ui import sessions

if TYPE_CHECKING:
    from nin_core.records import Run

BEGINNING_SECONDS = 0.15  # from one look at a run that is about to show its first point to the next
WAITED_SECONDS = 0.25  # at one that is about to end, to pause or to stop
QUEUED_SECONDS = 1.0  # at one that waits for its turn
SHORTEST, LONGEST = 0.5, 30.0  # seconds between two drawings of a run that trains
LIST_FACTOR, LONGEST_LIST = 6, 48.0  # of the list, against a run
FAN_FACTOR, LONGEST_FAN = 2, 36.0  # of seed fans, whose pictures hold several runs
FORGOTTEN_SECONDS = 1.25 * LONGEST_LIST  # after which a page that draws nothing is gone
DRAWINGS = 500  # of a run from its first step to its last
LONGEST_ALONE = 4.0  # seconds, however long the run, where only one page watches
YOUNG = 8  # what a run has behind it is drawn in so many pictures, at least
# By which a page elsewhere that watches holds all of them back, and one here times their number.
REMOTE_SECONDS, LOCAL_SECONDS = 0.1, 0.3
ENDING_SECONDS = 5.0  # before its end, from when a run is watched closely

_PAGE = "pace:page"


def of_run(run: Run, others: float) -> float:
    """Seconds from one drawing of a run, of which something is to come, to the next.

    Args:
        others: seconds to hold back for the pages that watch, by `Watchers.note`.
    """
    if run.active and run.worker is not None and not run.step:
        # For the second or two that it takes.
        return min(max(BEGINNING_SECONDS, others / 4), LONGEST)
    if run.state == "queued":
        return min(max(QUEUED_SECONDS, others), LONGEST)
    growing = _growing(run)
    if not growing:
        return min(max(WAITED_SECONDS, others / 4), LONGEST)
    return min(max(SHORTEST, growing, others), LONGEST)


def of_list(runs: Sequence[Run], others: float) -> float:
    """Seconds from one drawing of a list with these active runs to the next.

    Args:
        others: as for `of_run`.
    """
    growing = min((_growing(run) for run in runs if run.state == "running"), default=0.0)
    return min(LIST_FACTOR * max(SHORTEST, growing, others), LONGEST_LIST)


def of_fan(others: float) -> float:
    """Seconds from one drawing of seed fans that train to the next.

    Args:
        others: as for `of_run`.
    """
    return min(FAN_FACTOR * max(SHORTEST, others), LONGEST_FAN)


def _growing(run: Run) -> float:
    """Seconds in which a run's curve visibly grows; 0 where somebody waits for it."""
    left = run.seconds_left
    if run.desired_state != "running" or left is None or left <= ENDING_SECONDS:
        return 0.0
    return min((run.seconds + left) / DRAWINGS, run.seconds / YOUNG, LONGEST_ALONE)


class Watchers:
    """The pages that have drawn a live picture within the last seconds and are still open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: dict[str, tuple[float, bool]] = {}  # page -> when, and whether here
        self._sessions: dict[str, str] = {}  # page -> Streamlit's name of its session

    def join(self, page: str, session: str) -> None:
        """Say whose page it is: it watches as long as its browser is connected."""
        with self._lock:
            self._sessions[page] = session

    def note(self, page: str, *, here: bool) -> float:
        """Say that `page` draws now; returns the seconds to hold back for all of them.

        Args:
            here: whether its browser is on this computer.
        """
        now = time.monotonic()
        with self._lock:
            for other, (when, _) in list(self._pages.items()):
                if now - when > FORGOTTEN_SECONDS:
                    del self._pages[other]
            for other, session in list(self._sessions.items()):
                if not sessions.is_connected(session):
                    del self._sessions[other]
                    self._pages.pop(other, None)
            self._pages[page] = now, here
            count, near = len(self._pages), sum(here for _, here in self._pages.values())
        return LOCAL_SECONDS * near**2 + REMOTE_SECONDS * (count - near) if count > 1 else 0.0


def page() -> str:
    """What this session's page is called among those that watch."""
    name = str(st.session_state.setdefault(_PAGE, uuid.uuid4().hex))
    _watchers().join(name, sessions.current())
    return name


def watching() -> float:
    """Note that this session's page draws; returns the seconds to hold back for all of them."""
    # Streamlit tells no address of a browser on this computer.
    return note(page(), here=st.context.ip_address is None)


def note(page: str, *, here: bool) -> float:
    """Note that a page draws; returns the seconds to hold back for all of them.

    Args:
        here: whether its browser is on this computer.
    """
    return _watchers().note(page, here=here)


@st.cache_resource(show_spinner=False)
def _watchers() -> Watchers:
    return Watchers()
