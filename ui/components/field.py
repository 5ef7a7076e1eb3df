"""Where one cell of a feature map looks: point at a cell, see its receptive field on a picture.

    field(layers, picture, image_size=224, key="field", layer="pool2", on_click=select)

Left the chosen layer's map, one square a cell; right the picture as large as the network's input,
with what the cell sees left bright, outlined, and what of its receptive field is padding hatched.

Choices:

* The browser answers alone: Python sends every layer's window and map size (a few numbers a layer),
  and `receptive_field.js` does the arithmetic of `nin_core.receptive_field` with them. A browser
  test holds the two together.
* Mouse: the cell under the pointer. Touch: the cell that is tapped. Keyboard: arrow keys on the
  map, or the two number fields.
* Both halves are SVG in units of cells and of pixels, so the numbers drawn are the numbers told.
* Rows, columns and pixels count from 0, as they do in a tensor.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

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
    "nin_field", js=read_assets("receptive_field.js", "field.js"), css=read_assets("field.css")
)


class FieldLayer(NamedTuple):
    """A layer that can be looked through.

    Attributes:
        name: what a choice returns; title: for people.
        color: of the chosen cell, any CSS colour.
        step: kernel size, stride, padding and cells of its map along a side; None for a layer whose
            cells each see the one cell in the same place.
        gaps: whether its cells skip pixels within their receptive field.
    """

    name: str
    title: str
    color: str
    step: tuple[int, int, int, int] | None
    gaps: bool


def field(
    layers: Sequence[FieldLayer],
    picture: np.ndarray,
    *,
    image_size: int,
    key: str,
    layer: str,
    caption: str = "",
    on_click: OnClick = None,
) -> str | None:
    """Show the explorer and return the layer chosen last in it.

    Args:
        layers: in the order of the forward pass, with every layer that has a window.
        picture: uint8 [side, side], grey; stretched to the network's input.
        image_size: pixels along a side of the input.
        key: names the explorer on its page.
        layer: the name of the layer to show; a new name moves the browser there.
        caption: what the picture is, written under it.
        on_click: what happens when a layer is chosen in the explorer's own list, as in `svg`.

    Returns:
        The name chosen last in this session, or None before the first choice.

    Raises:
        ValueError: there is no such layer, or the picture is no grey picture.
    """
    check_key(key)
    check_on_click(on_click)
    names = [entry.name for entry in layers]
    if layer not in names:
        raise ValueError(f"There is no layer {layer!r}; there are {', '.join(names)}.")
    if picture.dtype != np.uint8 or picture.ndim != 2 or picture.size == 0:
        raise ValueError(
            "The picture must be uint8 of shape [height, width], "
            f"not {picture.dtype} {list(picture.shape)}."
        )

    def accept(click: Any) -> str | None:
        return click if click in names else None

    _mount(
        key=key,
        data={
            "layers": [entry._asdict() for entry in layers],
            "layer": layer,
            "size": image_size,
            "picture": _as_url(picture.tobytes(), picture.shape),
            "smooth": picture.shape[0] != image_size,
            "caption": caption,
        },
        on_click_change=click_callback(key, on_click, accept),
    )
    return accept(last_click(key)) if on_click is not None else None


@lru_cache(maxsize=8)
def _as_url(pixels: bytes, shape: tuple[int, int]) -> str:
    """The picture as a data URL of a PNG."""
    file = io.BytesIO()
    Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(shape)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
