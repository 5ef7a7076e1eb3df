"""Has a fragment's script run again after some seconds, while somebody sees the page.

Streamlit's `run_every` goes on in a hidden tab, and keeps the pace that a fragment was made with.
This component shows nothing itself; drawn by the fragment, it takes its pace from each drawing. A
hidden page is drawn once it is shown again.

Between two drawings that are far apart it asks a feed, if it is given one, whether the fragment is
out of date, and has it run at once if so.
"""

from __future__ import annotations

import time

import streamlit as st

from ui.components.wire import check_key, read_assets

_mount = st.components.v2.component(
    "nin_tick", js=read_assets("shared.js", "tick.js"), isolate_styles=False
)


def tick(seconds: float, *, key: str, watch: tuple[str, str] | None = None) -> None:
    """Have the fragment that draws this run again so many seconds from now.

    Args:
        watch: the URL of a feed, and the `version` in its answers of what is drawn now.
    """
    check_key(key)
    _mount(
        key=key,
        # That time has passed tells one drawing from the next, after which it is waited anew.
        data={
            "key": key,
            "seconds": seconds,
            "drawn": time.monotonic(),
            "watch": {"url": watch[0], "version": watch[1]} if watch else None,
        },
        on_tick_change=lambda: None,
    )
