"""How often live pictures of runs are drawn anew.

A new picture of the open run costs the server about 15 ms of a processor and a browser on a laptop
90, a drawing of the list of runs 200. On the computer that trains, all of it is taken from the
training. So pictures are drawn as often as they visibly change, and no more often than leaves room
for a class:

* A curve that takes `D` seconds to grow across the page is drawn `DRAWINGS` times on its way: half
  a second apart in a run of a few minutes, two seconds in one of a quarter of an hour.
* With every page that watches the drawings of all of them move apart. Browsers on this computer
  draw with the processors that train: their pages count by the square of their number, so that two
  beside each other stay lively and ten leave nine tenths of a laptop to the training.
* What a person waits for is shown at once: a run's first point above all, its end, or that it was
  told to pause or stop.
* The list of runs, whose numbers say less, is drawn a sixth as often; seed fans half as often.
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

BEGINNING_SECONDS = 0.15  # from one look at a run that is about to show its first point to the next
WAITED_SECONDS = 0.25  # at one that is about to end, to pause or to stop
QUEUED_SECONDS = 1.0  # at one that waits for its turn
SHORTEST, LONGEST = 0.5, 9.0  # seconds between two drawings of a run that trains
LIST_PACES = (3.0, 6.0, 12.0, 24.0, 48.0)  # and of the list
LIST_FACTOR = 6
FAN_PACES = (1.0, 2.0, 4.0, 8.0, 16.0)  # and of seed fans, whose pictures hold several runs
FAN_FACTOR = 2
FORGOTTEN_SECONDS = LIST_PACES[-1] + LONGEST  # after which a page that draws nothing is gone
DRAWINGS = 500  # of a run from its first step to its last
LONGEST_ALONE = 2.0  # seconds, however long the run, where only one page watches
# By which a page elsewhere that watches holds all of them back, and one here times their number.
REMOTE_SECONDS, LOCAL_SECONDS = 0.1, 0.1
ENDING_SECONDS = 5.0  # before its end, from when a run is watched closely
_MARGIN = 1.25  # past the limits of a pace, before it is left: an estimate wavers

_PAGE = "pace:page"


def of_run(run: Run, others: float) -> float:
    """Seconds from one drawing of a run, of which something is to come, to the next.

    Args:
        others: seconds to hold back for the pages that watch, by `Watchers.note`.
    """
    if run.active and run.worker is not None and not run.step:
        return max(BEGINNING_SECONDS, others / 4)  # for the second or two that it takes
    if run.state == "queued":
        return min(max(QUEUED_SECONDS, others), LONGEST)
    growing = _growing(run)
    if not growing:
        return min(max(WAITED_SECONDS, others / 4), LONGEST)
    return min(max(SHORTEST, growing, others), LONGEST)


def of_list(runs: Sequence[Run], others: float, current: float | None = None) -> float:
    """Seconds from one drawing of a list with these active runs to the next, one of `LIST_PACES`.

    Args:
        others: as for `of_run`.
        current: the pace so far, which is kept while it is about right.
    """
    growing = min((_growing(run) for run in runs if run.state == "running"), default=0.0)
    return _step(LIST_PACES, LIST_FACTOR * max(growing, others), current)


def of_fan(others: float, current: float | None = None) -> float:
    """Seconds from one drawing of seed fans that train to the next, one of `FAN_PACES`.

    Args:
        others, current: as for `of_list`.
    """
    return _step(FAN_PACES, FAN_FACTOR * others, current)


def _step(paces: Sequence[float], needed: float, current: float | None) -> float:
    """The shortest pace that is long enough; the current one while it is about right."""
    if current is not None and needed and current / 2 / _MARGIN < needed <= current * _MARGIN:
        return current
    return next((pace for pace in paces if pace >= needed), paces[-1])


def _growing(run: Run) -> float:
    """Seconds in which a run's curve grows by a `DRAWINGS`th; 0 where somebody waits for it."""
    left = run.seconds_left
    if run.desired_state != "running" or left is None or left <= ENDING_SECONDS:
        return 0.0
    return min((run.seconds + left) / DRAWINGS, LONGEST_ALONE)


class Watchers:
    """The pages that have drawn a live picture within the last seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: dict[Hashable, tuple[float, bool]] = {}  # page -> when, and whether here

    def note(self, page: Hashable, *, here: bool) -> float:
        """Say that `page` draws now; returns the seconds to hold back for all of them.

        Args:
            here: whether its browser is on this computer.
        """
        now = time.monotonic()
        with self._lock:
            self._pages[page] = now, here
            for other, (when, _) in list(self._pages.items()):
                if now - when > FORGOTTEN_SECONDS:
                    del self._pages[other]
            count, near = len(self._pages), sum(here for _, here in self._pages.values())
        return LOCAL_SECONDS * near**2 + REMOTE_SECONDS * (count - near) if count > 1 else 0.0


def page() -> str:
    """What this session's page is called among those that watch."""
    return str(st.session_state.setdefault(_PAGE, uuid.uuid4().hex))


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
