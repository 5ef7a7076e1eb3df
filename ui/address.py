"""The page's address: parameters of one subject are written together, the others stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import streamlit as st


def hold(keys: Collection[str], wanted: Mapping[str, str]) -> None:
    """Have the address hold `wanted` and no other of the parameters `keys`."""
    held = st.query_params.to_dict()
    others = {key: value for key, value in held.items() if key not in keys}
    if held != others | wanted:
        st.query_params.from_dict(others | wanted)
