"""A Plotly chart that is updated in place, for still and for live figures.

`st.plotly_chart` takes its chart off the page and builds a new one whenever the data changes: blank
frames, zoom lost. This component calls `Plotly.react` on one node that it keeps.

    point = plot(figure, key="loss", height=360, on_click="rerun")

Choices:

* plotly.js comes from the plotly wheel, served by Streamlit from this app (no CDN, nothing in the
  repository). It is loaded once per browser page.
* Zoom, pan and hidden legend entries survive every update, because `layout.uirevision` is set. Give
  the figure its own `uirevision` and change it where the view should start afresh.
* Colours and fonts are the Streamlit theme's, light and dark; a figure's own template is dropped.
  Where a figure must name a colour, it may write `"var(--st-red-color)"`, any `--st-…` variable.
* A live figure is drawn again as a whole, by the script in a fragment that runs again, or without
  it by whatever calls `window.ninPlots.get(key).show(data)` with the data of `prepare`. Once a
  trace has 1,000 points, all but its last few hundred travel in parcels (see `wire`), whose sizes
  are powers of two times 500, so a point is sent a handful of times in a run of any length, and a
  tick costs only the tail. The split follows from the figure alone: a reload gets everything, later
  ticks only what is new, and a lost tick loses nothing.
* Arrays over 100 numbers are sent in plotly's `{"dtype", "bdata"}` form with the dtype they have
  (float64: 10.7 characters a number, against about 18 as text; float32: 5.3). Hand over float32
  where seven digits are enough.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly
import plotly.graph_objects as go
import streamlit as st
from streamlit.components.v1 import declare_component

from ui.components.wire import (
    OnClick,
    Parcel,
    check_key,
    check_on_click,
    click_callback,
    last_click,
    pack,
    read_assets,
    send,
)

PLOTLY_FILES = Path(plotly.__file__).parent / "package_data"
_INLINE = 100  # up to so many numbers an array is sent as readable JSON
_BLOCK = 500  # points in the smallest parcel
_LONG = 2 * _BLOCK  # from so many points on a trace is sent in parcels

Point = dict[str, Any]

_mount = st.components.v2.component(
    "nin_plot",
    js=read_assets("shared.js", "plot.js"),
    css=read_assets("plot.css"),
    isolate_styles=False,
)


def plot(
    figure: go.Figure | Mapping[str, Any],
    *,
    key: str,
    height: int = 360,
    on_click: OnClick = None,
) -> Point | None:
    """Show a Plotly figure and return the point clicked last.

    Args:
        figure: a `go.Figure`, or a dict with `data` and `layout` whose values may be numpy arrays,
            pandas columns and dates. A dict is not validated by plotly and is quicker to draw.
        key: names the chart on its page. The same key is the same chart: its zoom stays.
        height: CSS pixels; reserved before the chart is there.
        on_click: None: clicks stay in the browser. "rerun": a click reruns the script (or the
            fragment). A function: it is called with the point first.

    Returns:
        The point clicked last in this session, until `forget_click(key)`; None before the first.
        A dict with `curve` and `name` (the trace), `index` (the point's number in it, or
        `[row, column]` in a heat map) and whichever of `x`, `y`, `z`, `text`, `label`, `value` and
        `customdata` the point has.

    Raises:
        ValueError: the figure is not a figure or holds something that cannot be sent.
    """
    check_on_click(on_click)
    prepared = prepare(figure, key=key, height=height, clicks=on_click is not None)
    mount(prepared, on_click=on_click)
    return last_click(key) if on_click is not None else None


class Prepared(NamedTuple):
    """A figure as its component takes it: what is sent with every update, and its parcels."""

    data: dict[str, Any]
    parcels: list[Parcel]

    @property
    def blocks(self) -> list[str]:
        """The names of the parcels without which it cannot be drawn."""
        return [parcel.id for parcel in self.parcels]


def prepare(
    figure: go.Figure | Mapping[str, Any], *, key: str, height: int, clicks: bool = False
) -> Prepared:
    """Make of a figure what its component takes; arguments and errors as for `plot`."""
    check_key(key)
    if isinstance(height, bool) or not isinstance(height, int) or not 80 <= height <= 4000:
        raise ValueError(
            f"height must be a whole number of pixels from 80 to 4000, not {height!r}."
        )
    plain = plain_figure(figure)
    tails, groups = split_long_traces(plain["data"])
    packed = [(pack(arrays), traces) for traces, arrays in groups]
    data = {
        "key": key,
        "plotly": plotly_url(),
        "height": height,
        "clicks": clicks,
        "figure": {"data": tails, "layout": plain["layout"]},
        "blocks": [{"parcel": p.id, "traces": traces} for p, traces in packed],
    }
    return Prepared(data, [parcel for parcel, _ in packed])


def mount(prepared: Prepared, *, on_click: OnClick = None) -> None:
    """Put a chart on the page."""
    data = prepared.data
    # Declared in every run: a reloaded module or a new server starts with an empty registry.
    declare_component("plotlyjs", path=PLOTLY_FILES)
    with st.container(gap=None):
        # The chart comes first so that it keeps its place however many parcels follow.
        _mount(
            key=data["key"],
            height=data["height"],
            data=data,
            on_click_change=click_callback(data["key"], on_click, _as_point),
        )
        for number, parcel in enumerate(prepared.parcels):
            send(parcel, key=f"{data['key']} · parcel {number}")


def _as_point(click: Any) -> Point | None:
    return click if isinstance(click, dict) else None


def plotly_url() -> str:
    """Return the path under which this server hands out the wheel's plotly.js."""
    base = st.get_option("server.baseUrlPath").strip("/")
    prefix = f"/{base}" if base else ""
    # The version keeps a browser from using a cached file of another release.
    return f"{prefix}/component/{__name__}.plotlyjs/plotly.min.js?v={plotly.__version__}"


def plain_figure(figure: go.Figure | Mapping[str, Any]) -> dict[str, Any]:
    """Return `figure` as `{"data": [...], "layout": {...}}` of JSON values, without its template.

    Long numeric arrays become plotly's `{"dtype", "bdata"}`; numbers that are not finite become
    null, since JSON has no word for them.

    Raises:
        ValueError: `figure` is no figure, or a value in it cannot be sent; names where.
    """
    if isinstance(figure, go.Figure):
        figure = figure.to_dict()
    if not isinstance(figure, Mapping):
        raise ValueError(
            f'A figure must be a go.Figure or a dict with "data", not {type(figure).__name__}.'
        )
    data = figure.get("data", [])
    layout = figure.get("layout") or {}
    if not isinstance(data, list | tuple) or not all(isinstance(t, Mapping) for t in data):
        raise ValueError('The figure\'s "data" must be a list of traces, each a dict.')
    if not isinstance(layout, Mapping):
        raise ValueError('The figure\'s "layout" must be a dict.')
    return {
        "data": [_plain(trace, f"data[{number}]") for number, trace in enumerate(data)],
        "layout": _plain({k: v for k, v in layout.items() if k != "template"}, "layout"),
    }


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic):
        if isinstance(value, np.datetime64):
            return str(value)
        return _plain(value.item(), where)
    if isinstance(value, Mapping):
        if "bdata" in value and "dtype" in value:
            return _plain_array(_decode(value), where)
        return {str(name): _plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        if len(value) > _INLINE and all(type(item) in (int, float) for item in value):
            return _plain_array(np.asarray(value), where)
        return [_plain(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "__array__"):  # numpy, pandas, a tensor on the CPU
        return _plain_array(np.asarray(value), where)
    raise ValueError(f"{where} holds a {type(value).__name__}, which cannot be sent to a browser.")


def _plain_array(array: np.ndarray, where: str) -> Any:
    if array.dtype.kind == "M":
        return np.datetime_as_string(array, unit="auto").tolist()
    if array.dtype.kind not in "iuf" or array.size <= _INLINE:
        return _plain(array.tolist() if array.dtype != object else list(array), where)
    if array.dtype.kind in "iu":
        low, high = int(array.min()), int(array.max())
        for dtype in (np.int8, np.int16, np.int32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                array = array.astype(dtype)
                break
        else:  # JavaScript has no array of 64-bit integers that plotly.js would take
            array = array.astype(np.float64)
    elif array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return _encode(array)


def _encode(array: np.ndarray) -> dict[str, Any]:
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    spec = {"dtype": array.dtype.str[1:], "bdata": base64.b64encode(little.tobytes()).decode()}
    if array.ndim > 1:
        spec["shape"] = ", ".join(str(side) for side in array.shape)
    return spec


def _decode(spec: Mapping[str, Any]) -> np.ndarray:
    array = np.frombuffer(base64.b64decode(spec["bdata"]), dtype=f"<{spec['dtype']}")
    shape = spec.get("shape")
    return array.reshape([int(side) for side in str(shape).split(",")]) if shape else array


def split_long_traces(
    traces: list[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[tuple[list[int], dict[str, np.ndarray]]]]:
    """Split the traces that are long lines into what is sent once and what is sent every time.

    Args:
        traces: the `data` of `plain_figure`.

    Returns:
        The traces, the long ones shortened to their tails; and the blocks to send as parcels in
        the order of their points, each as (numbers of the traces it holds points of, arrays named
        `"<trace>.x"` and `"<trace>.y"`).
    """
    by_length: dict[int, list[int]] = {}
    for number, trace in enumerate(traces):
        length = _line_length(trace)
        if length >= _LONG:
            by_length.setdefault(length, []).append(number)

    tails = list(traces)
    blocks: list[tuple[list[int], dict[str, np.ndarray]]] = []
    for length, numbers in by_length.items():
        columns = {
            (number, axis): _decode(traces[number][axis])
            for number in numbers
            for axis in ("x", "y")
            if axis in traces[number]
        }
        end = 0
        for start, end in _block_bounds(length):
            arrays = {f"{n}.{axis}": column[start:end] for (n, axis), column in columns.items()}
            blocks.append((numbers, arrays))
        for number in numbers:
            tails[number] = traces[number] | {
                axis: _encode(column[end:]) for (n, axis), column in columns.items() if n == number
            }
    return tails, blocks


def _block_bounds(length: int) -> list[tuple[int, int]]:
    """Cut `length` points into blocks like the binary digits of their number, largest first."""
    bounds: list[tuple[int, int]] = []
    start, whole = 0, length // _BLOCK
    for bit in reversed(range(whole.bit_length())):
        if whole >> bit & 1:
            end = start + (_BLOCK << bit)
            bounds.append((start, end))
            start = end
    return bounds


def _line_length(trace: Mapping[str, Any]) -> int:
    """Return the points of a trace whose only long arrays are numeric x and y, else 0."""
    if trace.get("type", "scatter") not in ("scatter", "scattergl"):
        return 0
    if any(_holds_array(value) for name, value in trace.items() if name not in ("x", "y")):
        return 0
    columns = [trace[axis] for axis in ("x", "y") if axis in trace]
    if "y" not in trace or not all(isinstance(c, dict) and "bdata" in c for c in columns):
        return 0
    lengths = {_decode(column).size for column in columns}
    return lengths.pop() if len(lengths) == 1 else 0


def _holds_array(value: Any) -> bool:
    """Say whether a setting has one value per point (marker colours, texts, error bars)."""
    if isinstance(value, list):
        return len(value) > _INLINE
    if isinstance(value, dict):
        return "bdata" in value or any(_holds_array(item) for item in value.values())
    return False
