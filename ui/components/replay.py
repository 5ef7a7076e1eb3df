"""A slider and a play button that move a film through its moments, with what was measured then.

    film(reel(maps), key="maps", title="16 maps of 14×14")
    replay(moments, curves, film="maps", subject="run 12, layer 3", key="replay")

Choices:

* All moments are in the browser, so that moving the slider and playing ask Python for nothing: a
  step costs what drawing it costs, however far the server is.
* Who stands at the newest moment stays at the newest when another comes: that is following live.
  Who looks at an earlier one stays there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

from ui import theme
from ui.components.wire import check_key, read_assets

_mount = st.components.v2.component(
    "nin_replay",
    js=read_assets("shared.js", "replay.js"),
    css=read_assets("replay.css"),
    isolate_styles=False,
)


class Moment(NamedTuple):
    """One position of the slider.

    Attributes:
        step: after how many training steps.
        title: the same for people.
        accuracy, loss: what was measured by then, in words.
    """

    step: int
    title: str
    accuracy: str
    loss: str


class Curves(NamedTuple):
    """What stands below the slider, over the steps of the run.

    Attributes:
        accuracy: step and test accuracy (a fraction).
        loss: step and training loss.
        steps: the right edge; `end` is what is written there.
    """

    accuracy: Sequence[tuple[float, float]]
    loss: Sequence[tuple[float, float]]
    steps: float
    end: str


def replay(moments: Sequence[Moment], curves: Curves, *, film: str, subject: str, key: str) -> None:
    """Show the slider.

    Args:
        moments: one for each moment of the film, by step; at least one.
        film: the film's key.
        subject: what the moments are of; another one starts at its newest moment.
        key: names it on its page.

    Raises:
        ValueError: there is no moment.
    """
    check_key(key)
    if not moments:
        raise ValueError("There is no moment to show.")
    _mount(
        key=key,
        data={
            "key": key,
            "film": film,
            "subject": subject,
            "moments": [moment._asdict() for moment in moments],
            "curves": {
                "accuracy": [list(point) for point in curves.accuracy],
                "loss": [list(point) for point in curves.loss],
                "steps": curves.steps,
                "end": curves.end,
            },
            "colors": {"accuracy": theme.TEST_ACCURACY, "loss": theme.TRAIN_LOSS},
        },
    )
