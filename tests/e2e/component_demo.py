"""A small app that shows the browser components by themselves; test_components.py drives it.

`?show=` names the scene. The numbers come from `numbers()`, so that the test knows every one.
"""

from __future__ import annotations

import numpy as np
import streamlit as st

from ui.components import class_maps, follow, plot, sprite, svg, tick

START, PER_TICK = 900, 40  # points of the live chart: it crosses 1,000 while it is watched
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat")

DRAWING = """
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 100">
  <style>rect { fill: var(--st-background-color); stroke: var(--st-text-color) }
         .selected rect { stroke-width: 4 }</style>
  <g data-id="block1"><title>96 maps of 54×54</title>
    <rect x="10" y="10" width="80" height="80"/></g>
  <g data-id="block2"><title>256 maps</title><rect x="200" y="10" width="80" height="80"/></g>
</svg>
"""


def line(length: int, number: int) -> np.ndarray:
    """A noisy falling curve of which only the end is new when it grows."""
    noise = np.random.default_rng(number).standard_normal(length)
    return np.exp(-np.arange(length) / 500) + number + 0.05 * noise


def maps(kind: str) -> np.ndarray:
    """The pictures' numbers: the shapes of a wide first layer, of kernels, of pooled maps."""
    random = np.random.default_rng(7)
    shapes = {"wide": (96, 54, 54), "kernels": (16, 11, 11), "pooled": (24, 1, 1)}
    values = random.standard_normal(shapes[kind]).astype(np.float32)
    if kind == "wide":
        values = np.maximum(values, 0)
        values[[5, 40]] = 0
    return values


def class_cells() -> np.ndarray:
    """Five class maps, one of them dead."""
    cells = np.random.default_rng(8).random((len(CLASSES), 5, 5)).astype(np.float32)
    cells[3] = 0
    return cells


def live() -> None:
    if st.checkbox("Something above"):
        st.info("Inserted above the chart.")
    st.session_state.setdefault("length", START)

    @st.fragment(run_every=0.3)
    def tick() -> None:
        st.session_state.length += PER_TICK
        length = st.session_state.length
        data = [
            {"x": np.arange(length), "y": line(length, n), "name": f"run {n}"} for n in range(3)
        ]
        point = plot({"data": data, "layout": {}}, key="live", on_click="rerun")
        st.text(f"points: {length}")
        st.text(f"clicked: {point and (point['name'], point['index'])}")

    tick()


def figures() -> None:
    heat = {"type": "heatmap", "z": np.arange(54 * 54).reshape(54, 54) / 7}
    point = plot({"data": [heat]}, key="heat", on_click="rerun")
    st.text(f"heat: {point and point['index']}")
    bars = {"type": "bar", "x": ["a", "b"], "y": [3, 1]}
    bars["marker"] = {"color": "var(--st-text-color)"}
    plot({"data": [bars], "layout": {"title": {"text": "Two bars"}}}, key="bars", height=200)


def pictures(kind: str) -> None:
    spot = sprite(maps(kind), key=kind, title="All maps")
    st.text(f"spot: {spot and tuple(spot.values())}")


def classes() -> None:
    image = np.tile(np.arange(28, dtype=np.uint8) * 9, (28, 1))
    cells = class_cells()
    class_maps(
        cells,
        image,
        labels=CLASSES,
        values=cells.mean((1, 2)),
        key="classes",
        selected=1,
        on_click=None,
    )


def drawing() -> None:
    chosen = st.session_state.get("chosen")
    svg(
        DRAWING,
        key="drawing",
        on_click=lambda id_: st.session_state.__setitem__("chosen", id_),
        selected=chosen,
        min_width=500,
    )
    st.text(f"chosen: {chosen}")


def watching() -> None:
    """Two fragments that nothing but a feed's word would have run again for an hour."""

    @st.fragment
    def ticking() -> None:
        st.session_state["ticks"] = st.session_state.get("ticks", 0) + 1
        tick(3600, key="tick", watch=("/nin-test/states", "1"))
        st.text(f"list drawn {st.session_state['ticks']} times")

    @st.fragment
    def following() -> None:
        st.session_state["follows"] = st.session_state.get("follows", 0) + 1
        follow("/nin-test/run?page=1", key="follow", version="1", serial="1")
        st.text(f"run drawn {st.session_state['follows']} times")

    ticking()
    following()


def home() -> None:
    show = st.query_params.get("show", "")
    if show in ("wide", "kernels", "pooled"):
        pictures(show)
    elif show:
        scenes = (live, figures, classes, drawing, watching)
        next(scene for scene in scenes if scene.__name__ == show)()


def other() -> None:
    st.text("another page")


if __name__ == "__main__":
    st.set_page_config(layout="wide")
    st.navigation([st.Page(home, title="Demo"), st.Page(other, title="Other")]).run()
