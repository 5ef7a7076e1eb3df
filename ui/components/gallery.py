"""Small pictures to choose one from.

    number = gallery(pictures, labels=names, key="tests", selected=3, on_click=take)

Choices:

* All pictures are one PNG inside the message, cut by the browser: two dozen are a few kB.
* Each is a button with its own name, so that the keyboard and a screen reader have them too.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from ui.components.wire import (
    OnClick,
    check_key,
    check_on_click,
    click_callback,
    last_click,
    read_assets,
)

_mount = st.components.v2.component(
    "nin_gallery", js=read_assets("gallery.js"), css=read_assets("gallery.css")
)


def gallery(
    pictures: np.ndarray,
    *,
    labels: Sequence[str],
    key: str,
    selected: int | None = None,
    on_click: OnClick = "rerun",
) -> int | None:
    """Show pictures side by side and return the number of the one clicked last.

    Args:
        pictures: uint8 ``[n, side, side]`` or ``[n, side, side, 3]``.
        labels: what each one is, for the tip and for screen readers.
        key: names the gallery on its page.
        selected: outline this one.
        on_click: as in `sprite`; a function is called with the number.

    Raises:
        ValueError: shapes, kinds or counts do not fit.
    """
    check_key(key)
    check_on_click(on_click)
    if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4) or pictures.size == 0:
        raise ValueError(
            "Pictures must be uint8 of shape [n, side, side] or [n, side, side, 3], "
            f"not {pictures.dtype} {list(pictures.shape)}."
        )
    if len(labels) != len(pictures):
        raise ValueError(f"There are {len(pictures)} pictures but {len(labels)} labels.")

    def accept(click: Any) -> int | None:
        return click if type(click) is int and 0 <= click < len(pictures) else None

    _mount(
        key=key,
        data={
            "strip": _as_url(pictures.tobytes(), pictures.shape),
            "labels": list(labels),
            "selected": selected,
        },
        on_click_change=click_callback(key, on_click, accept),
    )
    return accept(last_click(key)) if on_click is not None else None


@lru_cache(maxsize=32)
def _as_url(pixels: bytes, shape: tuple[int, ...]) -> str:
    """The pictures in one row as a data URL of a PNG."""
    pictures = np.frombuffer(pixels, np.uint8).reshape(shape)
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(pictures), axis=1)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
