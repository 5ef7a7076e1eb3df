"""How the browser components exchange data with Python: registration, parcels and clicks.

Choices:

* A component's JavaScript and CSS lie beside its module as plain files. They are read once and sent
  inline; Streamlit adds them to every message, so they are kept short. `shared.js` is put in front
  of a script that needs it, because an inline script cannot import a neighbour.
* Arrays travel in *parcels*: an invisible component whose message is nothing but the packed bytes.
  Streamlit refers to an unchanged message over 10 kB by its hash instead of sending it again, so a
  parcel crosses the wire once, whatever its chart or picture does afterwards. A parcel is named
  after its content: a message that is lost, merged with the next or repeated after a reload cannot
  make the browser draw something else, and Python keeps no account of what a browser has.
* A click arrives as a trigger value, which lives for one run. It is copied into the session here,
  so that pages can treat "the last click" as a value that stays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import streamlit as st

HERE = Path(__file__).parent

OnClick = Callable[[Any], object] | Literal["rerun"] | None

_JS_DTYPES = {"i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"}
# Streamlit caches messages from global.minCachedMessageSize (10,000 bytes) on; a shorter parcel
# would be sent again with every run, so it is filled up once.
_SMALLEST_PARCEL = 10_240


@lru_cache(maxsize=16)
def read_assets(*names: str) -> str:
    """Return the text of the files `names` in this folder, one after the other."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


_mount_parcel = st.components.v2.component(
    "nin_parcel", js=read_assets("shared.js", "parcel.js"), isolate_styles=False
)


class Parcel(NamedTuple):
    """Arrays packed for the browser: `id` is a digest of the content, `data` what is sent."""

    id: str
    data: bytes


def pack(arrays: Mapping[str, np.ndarray]) -> Parcel:
    """Pack named numeric arrays for the browser.

    Args:
        arrays: name -> array of a dtype that JavaScript has a typed array for (8 to 32-bit
            integers, float32, float64), any shape.

    Returns:
        The parcel. Its data: a little-endian uint32 with the header's length, the header as JSON,
        then the arrays' bytes.
    """
    entries: list[dict[str, Any]] = []
    body: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        dtype = array.dtype.str[1:]
        if dtype not in _JS_DTYPES:
            raise ValueError(f"Array {name!r} has dtype {array.dtype}, which browsers cannot hold.")
        raw = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).tobytes()
        entries.append({"name": name, "dtype": dtype, "length": array.size, "offset": offset})
        body.append(raw)
        offset += len(raw)
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps(entries).encode())
    for raw in body:
        digest.update(raw)
    parcel_id = digest.hexdigest()
    header = json.dumps({"id": parcel_id, "arrays": entries}).encode()
    packed = b"".join([len(header).to_bytes(4, "little"), header, *body])
    return Parcel(parcel_id, packed.ljust(_SMALLEST_PARCEL, b"\0"))


def send(parcel: Parcel, *, key: str) -> None:
    """Put `parcel` on the page, where the component that names it finds it."""
    _mount_parcel(key=key, data=parcel.data)


def check_key(key: str) -> None:
    """Raise ValueError unless `key` can name a component."""
    if not isinstance(key, str) or not key.strip():
        raise ValueError(f"key must be a text that names this component on the page, not {key!r}.")
    if "__" in key:
        raise ValueError(f"key must not contain two underscores in a row; {key!r} does.")


def check_on_click(on_click: OnClick) -> None:
    """Raise ValueError unless `on_click` is a function, "rerun" or None."""
    if on_click is not None and on_click != "rerun" and not callable(on_click):
        raise ValueError(f'on_click must be a function, "rerun" or None, not {on_click!r}.')


def click_callback(key: str, on_click: OnClick, accept: Callable[[Any], Any]) -> Callable[[], None]:
    """Return the callback that keeps a click of component `key` and hands it to `on_click`.

    Args:
        accept: turns what the browser sent, which can be anything, into a click, or None.
    """

    def keep() -> None:
        click = accept((st.session_state.get(key) or {}).get("click"))
        if click is None:
            return
        st.session_state[_slot(key)] = click
        if callable(on_click):
            on_click(click)

    return keep


def last_click(key: str) -> Any:
    """Return what was clicked last in component `key` in this session, or None."""
    return st.session_state.get(_slot(key))


def forget_click(key: str) -> None:
    """Forget the click that component `key` keeps, for instance when a page closes its details."""
    st.session_state.pop(_slot(key), None)


def _slot(key: str) -> str:
    return f"last click: {key}"
