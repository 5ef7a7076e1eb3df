"""One map, large, over the picture it was made from: point at a cell, see what it sees.

    pixel = closeup(maps[7], image, steps=steps_to(summary, "block1.relu"), key="large", name="7")

Choices:

* A cell is drawn in the middle of what it sees, as wide as its stride in the picture. So the map
  fits the picture, where one stretched over all of it would be off by half a field.
* The receptive field of the cell under the pointer is framed, cut off at the picture's border; the
  browser does its arithmetic alone (`receptive_field.js`).
* The amount of colour says how much, warm above zero and cold below, so that zero lets the picture
  through; one slider goes from the picture alone over both to the map alone.
* Values are those of the picture of maps, rounded as there (`sprite.quantise`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from ui.components.wire import (
    OnClick,
    check_key,
    check_on_click,
    click_callback,
    last_click,
    pack,
    read_assets,
    send,
)

_mount = st.components.v2.component(
    "nin_closeup",
    js=read_assets("shared.js", "receptive_field.js", "closeup.js"),
    css=read_assets("closeup.css"),
)


def closeup(
    numbers: np.ndarray,
    picture: np.ndarray,
    *,
    decimals: int,
    reach: int,
    steps: Sequence[tuple[int, int, int, int]],
    key: str,
    name: str,
    pixel: tuple[int, int],
    on_click: OnClick = "rerun",
) -> tuple[int, int] | None:
    """Show one map over its picture and return the cell clicked last.

    Args:
        numbers: int16 ``[height, width]`` of `sprite.quantise`.
        picture: the network's input, uint8 ``[S, S]`` or ``[S, S, 3]``.
        decimals: of the numbers.
        reach: the number that gets all the colour, e.g. the layer's largest.
        steps: from the picture to the map, as `receptive_field.steps_to` gives them.
        key: names it on its page.
        name: of the map, for people.
        pixel: (row, column) of the cell to mark; a new one moves the mark there.
        on_click: as in `sprite`; a function is called with (row, column).

    Raises:
        ValueError: the shapes do not fit.
    """
    check_key(key)
    check_on_click(on_click)
    if numbers.dtype != np.int16 or numbers.ndim != 2 or numbers.size == 0:
        raise ValueError(f"A map must be int16 [height, width], not {numbers.dtype}.")
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.size == 0:
        raise ValueError(f"The picture must be uint8 [S, S] or [S, S, 3], not {picture.dtype}.")
    height, width = numbers.shape
    if not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise ValueError(f"The map is {height}×{width}, so it has no pixel {pixel}.")
    values, image = pack({"values": numbers}), pack({"image": picture})

    def accept(click: Any) -> tuple[int, int] | None:
        if not isinstance(click, list) or len(click) != 2:
            return None
        row, column = click
        if type(row) is not int or type(column) is not int:
            return None
        return (row, column) if 0 <= row < height and 0 <= column < width else None

    with st.container(gap=None):
        _mount(
            key=key,
            data={
                "key": key,
                "values": values.id,
                "image": image.id,
                "shape": [height, width],
                "imageShape": list(picture.shape),
                "decimals": decimals,
                "reach": reach,
                "steps": [list(step) for step in steps],
                "name": name,
                "pixel": list(pixel),
            },
            on_click_change=click_callback(key, on_click, accept),
        )
        send(values, key=f"{key} · map")
        send(image, key=f"{key} · picture")
    return accept(list(last_click(key) or ())) if on_click is not None else None
