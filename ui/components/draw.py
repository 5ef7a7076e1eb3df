"""A small canvas to draw a picture on: mouse, finger or keyboard.

    png = draw(key="drawing", side=28, colors=("#ffffff", "#808080"), paper="#000000")

Choices:

* After each stroke the browser sends the whole canvas as a PNG. Python reads it as it reads an
  upload, with the same limits, since a browser can send anything.
* The canvas has ten pixels for each of the data set's, so that shrinking it smooths the strokes, as
  a scan would.
* A finger draws instead of scrolling, but only on the canvas. The keys that draw are those of the
  canvas while it has the focus, and Tab leaves it.
* The strokes stay in the browser while the page is open, also when the canvas goes for a while.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import streamlit as st

from ui.components.wire import (
    OnClick,
    check_key,
    check_on_click,
    click_callback,
    last_click,
    read_assets,
)

PIXELS = 10  # of the canvas along each pixel of the data set's images
MAX_BYTES = 2_000_000  # of a PNG; a canvas full of strokes has a tenth of that
_START = "data:image/png;base64,"

_mount = st.components.v2.component(
    "nin_draw", js=read_assets("draw.js"), css=read_assets("draw.css")
)


def draw(
    *,
    key: str,
    side: int,
    colors: Sequence[str],
    paper: str,
    on_click: OnClick = "rerun",
) -> bytes | None:
    """Show the canvas and return what is drawn as a PNG; None while it is empty.

    Args:
        key: names the canvas on its page.
        side: pixels along a side of the data set's images.
        colors: of the pens, the first is the one at hand; "#rrggbb".
        paper: the canvas's own colour, which the eraser has too.
        on_click: what happens after a stroke, as in `sprite`; a function is called with the PNG,
            empty once all is rubbed out.

    Raises:
        ValueError: there is no pen, or no side.
    """
    check_key(key)
    check_on_click(on_click)
    if not colors or side < 1:
        raise ValueError("A canvas needs at least one colour and one pixel.")
    _mount(
        key=key,
        data={
            "key": key,
            "side": side,
            "pixels": side * PIXELS,
            "colors": list(colors),
            "paper": paper,
            "known": bool(last_click(key)),
        },
        on_click_change=click_callback(key, on_click, _accept),
    )
    return last_click(key) or None


def _accept(click: Any) -> bytes | None:
    """A browser's PNG; empty for an empty canvas, None for what is neither."""
    if click == "":
        return b""
    if not isinstance(click, str) or not click.startswith(_START):
        return None
    text = click.removeprefix(_START)
    if len(text) > MAX_BYTES * 4 // 3:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
