"""Brings a page up to date between reruns of its script: pictures that live on a feed of their own.

A rerun of a fragment costs the server and the browser several times what it takes to change a
number or to draw a longer curve, since Streamlit goes through every element of it. This component,
which shows nothing itself, asks a URL for news as often as the answers say, changes what they name,
and has the script run only when they say that the page itself is out of date.

An answer is JSON:

* `version`: another one than `follow` was given has the fragment rerun, after the rest is painted.
* `serial`: sent back as `since` with the next question, so that nothing is sent twice.
* `html`: pieces, each of which takes the place of the element of its first class. Only what stands
  in `st.html` may be changed so: all else is React's.
* `chart`: what `plot.prepare` made, for the chart of its key.
* `pause`: seconds until the next question. In a long one it is asked for the `version` alone
  (`&only=version`), so that what happens to a run is said soon however rarely its curve is drawn.

A hidden page asks nothing and catches up when it is shown. Where the feed cannot be reached the
script is run every few seconds instead.
"""

from __future__ import annotations

import streamlit as st

from ui.components.wire import check_key, read_assets

_mount = st.components.v2.component(
    "nin_follow", js=read_assets("shared.js", "follow.js"), isolate_styles=False
)


def follow(url: str, *, key: str, version: str, serial: str) -> None:
    """Keep this page up to date from the feed at `url` while this component is on it.

    Args:
        url: of the feed, with a query.
        version, serial: of what the script has drawn, as the feed's answers have them.
    """
    check_key(key)
    _mount(
        key=key,
        data={"key": key, "url": url, "version": version, "serial": serial},
        on_news_change=lambda: None,
    )
