"""The browser components without a browser: what they send, refuse and return."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from streamlit.testing.v1 import AppTest

from ui.components import class_maps, plot, sprite, svg
from ui.components.plot import plain_figure, split_long_traces
from ui.components.sprite import quantise
from ui.components.wire import pack

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 80 40">{}</svg>'


def numbers(spec: Any) -> np.ndarray:
    """What plotly.js makes of a packed array."""
    flat = np.frombuffer(base64.b64decode(spec["bdata"]), dtype=f"<{spec['dtype']}")
    shape = spec.get("shape")
    return flat.reshape([int(side) for side in shape.split(",")]) if shape else flat


def sent(app: AppTest, number: int = 0) -> Any:
    """The data of the page's component with this number; parcels, which are bytes, do not count."""
    elements = [element.proto for element in app.get("bidi_component")]
    return json.loads([proto.json for proto in elements if proto.json][number])


def parcels(app: AppTest) -> dict[str, dict[str, np.ndarray]]:
    """The page's parcels, unpacked as the browser does it."""
    found = {}
    for element in app.get("bidi_component"):
        data = element.proto.bytes
        if not data:
            continue
        length = int.from_bytes(data[:4], "little")
        header = json.loads(data[4 : 4 + length])
        body = data[4 + length :]
        found[header["id"]] = {
            entry["name"]: np.frombuffer(
                body, f"<{entry['dtype']}", entry["length"], offset=entry["offset"]
            )
            for entry in header["arrays"]
        }
    return found


def page() -> None:
    import numpy as np
    import streamlit as st

    from ui.components import class_maps, plot, sprite, svg

    length = st.session_state.get("length", 3)
    steps = np.arange(length)
    figure = {"data": [{"x": steps, "y": steps / 7}], "layout": {"title": {"text": "Loss"}}}
    st.session_state.point = plot(figure, key="chart", height=300, on_click="rerun")
    maps = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    st.session_state.spot = sprite(maps, key="maps", title="Maps")
    class_maps(maps, np.zeros((8, 8), np.uint8), labels=["a", "b"], values=[1, 2.5], key="classes")
    st.session_state.id = svg(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 4"><g data-id="block1"/></svg>',
        key="drawing",
        on_click="rerun",
    )


def test_every_server_in_a_process_knows_the_components() -> None:
    """A registration made at import time must reach runtimes that start later."""
    for _ in range(2):
        app = AppTest.from_function(page).run()
        assert not app.exception
        assert [sent(app, i).get("key") for i in range(4)] == ["chart", "maps", "classes", None]


def test_the_modules_can_be_loaded_again_like_streamlit_does_when_a_file_changes() -> None:
    import sys

    saved = {n: m for n, m in sys.modules.items() if n.startswith("ui.components")}
    try:
        for name in saved:
            del sys.modules[name]
        app = AppTest.from_function(page).run()
        assert not app.exception
        assert len(parcels(app)) == 2  # equal maps with and without an image
    finally:
        sys.modules.update(saved)


def test_plotly_js_comes_from_this_server() -> None:
    app = AppTest.from_function(page).run()
    assert sent(app)["plotly"].startswith("/component/ui.components.plot.plotlyjs/plotly.min.js?v=")


def test_nothing_is_returned_before_the_first_click() -> None:
    app = AppTest.from_function(page).run()
    assert (app.session_state.point, app.session_state.spot, app.session_state.id) == (None,) * 3


def test_a_remembered_click_is_returned_only_while_it_fits() -> None:
    app = AppTest.from_function(page)
    app.session_state["last click: maps"] = {"channel": 1, "row": 2, "column": 3}
    app.session_state["last click: drawing"] = "block1"
    app.run()
    assert app.session_state.spot == {"channel": 1, "row": 2, "column": 3}
    assert app.session_state.id == "block1"
    app.session_state["last click: maps"] = {"channel": 1, "row": 3, "column": 0}
    app.session_state["last click: drawing"] = "block2"
    app.run()
    assert app.session_state.spot is None
    assert app.session_state.id is None


@pytest.mark.parametrize(
    "click", [None, 3, {}, {"channel": True, "row": 0, "column": 0}, {"channel": 0, "row": -1}]
)
def test_a_spot_that_no_picture_has_is_no_click(click: Any) -> None:
    app = AppTest.from_function(page)
    app.session_state["last click: maps"] = click
    app.run()
    assert not app.exception
    assert app.session_state.spot is None


# --- figures ----------------------------------------------------------------------------------


def whole_line(app: AppTest) -> tuple[np.ndarray, np.ndarray]:
    """The chart's line put together from parcels and tail, as the browser does it."""
    data, arrived = sent(app), parcels(app)
    trace = data["figure"]["data"][0]
    columns = []
    for axis in ("x", "y"):
        parts = [arrived[block["parcel"]][f"0.{axis}"] for block in data["blocks"]]
        tail = trace[axis]
        parts.append(np.array(tail) if isinstance(tail, list) else numbers(tail))
        columns.append(np.concatenate(parts))
    return columns[0], columns[1]


@pytest.mark.parametrize("length", [3, 999, 1000, 1499, 1500, 7777])
def test_a_line_of_any_length_arrives_whole(length: int) -> None:
    app = AppTest.from_function(page)
    app.session_state.length = length
    app.run()
    x, y = whole_line(app)
    assert x.tolist() == list(range(length))
    assert y.tolist() == (np.arange(length) / 7).tolist()


def test_a_growing_line_repeats_its_parcels_and_sends_a_short_tail() -> None:
    app = AppTest.from_function(page)
    app.session_state.length = 7600
    app.run()
    before = set(parcels(app))
    app.session_state.length = 7900
    app.run()
    assert before <= set(parcels(app))
    assert len(json.dumps(sent(app)["figure"])) < 8000
    assert len(whole_line(app)[0]) == 7900


def test_no_point_is_sent_more_than_a_few_times() -> None:
    """Blocks are powers of two: over a run of n points each is in at most log2(n / 500) + 1."""
    seen: set[str] = set()
    points = 0
    for length in range(0, 16_001, 250):
        line = np.arange(length, dtype=np.float64)
        data = plain_figure({"data": [{"x": line, "y": line}]})["data"]
        for _, arrays in split_long_traces(data)[1]:
            parcel = pack(arrays)
            if parcel.id not in seen:
                seen.add(parcel.id)
                points += arrays["0.y"].size
    assert points <= 16_000 * 6


def test_lines_of_one_length_share_parcels_and_marked_points_stay_whole() -> None:
    line = np.arange(2000.0)
    traces = [
        {"y": line},
        {"y": line + 1},
        {"y": line[:1200]},
        {"y": line, "marker": {"color": line}},
        {"y": line, "text": ["a"] * 2000},
        {"type": "bar", "y": line},
    ]
    tails, blocks = split_long_traces(plain_figure({"data": traces})["data"])
    assert [numbers for numbers, _ in blocks] == [[0, 1], [2]]
    assert [numbers(trace["y"]).size for trace in tails] == [0, 0, 200, 2000, 2000, 2000]


def test_a_figure_becomes_plain_values() -> None:
    figure = go.Figure(go.Scatter(x=[1, 2], y=np.array([0.5, np.nan]), name="loss"))
    figure.add_heatmap(z=np.arange(400).reshape(20, 20))
    figure.update_layout(title_text="Run 3")
    plain = plain_figure(figure)
    json.dumps(plain, allow_nan=False)
    assert plain["data"][0]["y"] == [0.5, None]
    assert plain["data"][1]["z"]["dtype"] == "i2"
    assert numbers(plain["data"][1]["z"]).tolist() == np.arange(400).reshape(20, 20).tolist()
    assert plain["layout"] == {"title": {"text": "Run 3"}}  # the theme is the template


def test_dates_and_pandas_columns_can_be_drawn() -> None:
    import pandas as pd

    frame = pd.DataFrame({"t": pd.date_range("2026-01-01", periods=2), "v": [1.0, None]})
    plain = plain_figure({"data": [{"x": frame["t"], "y": frame["v"]}]})["data"][0]
    assert plain["x"][0].startswith("2026-01-01")
    assert plain["y"] == [1.0, None]
    day = plain_figure({"data": [{"x": [datetime.date(2026, 1, 2)]}]})["data"][0]
    assert day["x"] == ["2026-01-02"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.arange(101), "i1"),
        (np.arange(40_000), "i4"),
        (np.arange(101) * 2**40, "f8"),
        (np.arange(101, dtype=np.float32), "f4"),
        (np.arange(101, dtype=np.float16), "f4"),
        ([0.5] * 101, "f8"),
    ],
)
def test_numbers_keep_their_precision_and_no_more(values: Any, dtype: str) -> None:
    spec = plain_figure({"data": [{"y": values}]})["data"][0]["y"]
    assert spec["dtype"] == dtype
    assert numbers(spec).tolist() == list(values)


# --- maps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-30, 0.00731, 0.9994, 0.99996, 1, 12.5, 9999.7, 3e20])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_sent_value_is_the_value_rounded_to_four_digits(size: float, sign: int) -> None:
    values = np.linspace(0, sign * size, 11, dtype=np.float64).reshape(1, 1, 11)
    numbers, decimals = quantise(values)
    assert 1000 <= np.abs(numbers).max() <= 10_000
    step = 10.0**-decimals
    assert np.abs(numbers * step - values).max() <= 0.5 * step * (1 + 1e-9)


def test_what_is_not_a_number_is_sent_as_such() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -2.0]).reshape(1, 1, 5)
    assert quantise(values)[0].ravel().tolist() == [-32768, -32768, -32768, 0, -2000]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.uint8, np.int64, np.bool_])
def test_maps_may_be_any_numbers(kind: type) -> None:
    numbers, decimals = quantise(np.ones((2, 2, 2), kind))
    assert (numbers * 10.0**-decimals == 1).all()


def test_dead_channels_are_told_by_their_exact_values() -> None:
    def two_maps() -> None:
        import numpy as np

        from ui.components import sprite

        maps = np.zeros((3, 2, 2), np.float32)
        maps[0] = 1
        maps[1, 0, 0] = 1e-9  # rounds to 0.000 and is still alive
        sprite(maps, key="maps")

    app = AppTest.from_function(two_maps).run()
    assert sent(app)["dead"] == [2]
    assert not sent(app)["signed"]


def test_selecting_a_channel_does_not_send_the_maps_again() -> None:
    def selecting() -> None:
        import numpy as np
        import streamlit as st

        from ui.components import sprite

        maps = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        sprite(maps, key="maps", selected=st.session_state.get("channel"))

    app = AppTest.from_function(selecting).run()
    before = app.get("bidi_component")[1].proto
    app.session_state.channel = 1
    app.run()
    assert sent(app)["selected"] == 1
    assert app.get("bidi_component")[1].proto == before


def test_two_pictures_on_one_scale_round_their_values_alike() -> None:
    def two_pictures() -> None:
        import numpy as np

        from ui.components import sprite

        sprite(
            np.full((1, 2, 2), 0.5, np.float32),
            key="maps",
            scale=(-2.0, 30.0),
            partner={"key": "other", "here": "left", "there": "right"},
        )

    told = sent(AppTest.from_function(two_pictures).run())
    assert told["decimals"] == quantise(np.array([30.0]))[1] == 2
    assert told["scale"] == [-200, 3000]
    assert told["signed"]
    assert told["partner"] == {"key": "other", "here": "left", "there": "right"}


# --- bad input --------------------------------------------------------------------------------

MAPS = np.zeros((2, 3, 3), np.float32)
IMAGE = np.zeros((8, 8), np.uint8)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: plot([1, 2], key="k"), "must be a go.Figure"),
        (lambda: plot({"data": [3]}, key="k"), "must be a list of traces"),
        (lambda: plot({"data": [{"y": [object()]}]}, key="k"), r"data\[0\].y\[0\] holds a object"),
        (lambda: plot({"data": []}, key=""), "key must be a text"),
        (lambda: plot({"data": []}, key="a__b"), "two underscores"),
        (lambda: plot({"data": []}, key="k", height=0), "height must be"),
        (lambda: plot({"data": []}, key="k", on_click="yes"), "on_click must be"),
        (lambda: sprite(MAPS[0], key="k"), r"\[channels, height, width\], not \[3, 3\]"),
        (lambda: sprite(MAPS[:0], key="k"), "not \\[0, 3, 3\\]"),
        (lambda: sprite(MAPS.astype(str), key="k"), "must hold numbers"),
        (lambda: sprite(np.zeros((900, 100, 100)), key="k"), "too many for one picture"),
        (lambda: sprite(MAPS, key="k", selected=2), "no channel 2 to select: they are 0 to 1"),
        (lambda: sprite(MAPS, key="k", labels=["a"]), "2 maps but 1 labels"),
        (lambda: sprite(MAPS + 3, key="k", scale=(0, 2)), "does not hold the maps' 3.0 to 3.0"),
        (lambda: class_maps(MAPS, IMAGE, labels=["a"], key="k"), "2 maps but 1 labels"),
        (
            lambda: class_maps(MAPS, IMAGE / 255, labels=["a", "b"], key="k"),
            "must be uint8",
        ),
        (
            lambda: class_maps(MAPS, IMAGE, labels=["a", "b"], values=[1], key="k"),
            "2 class maps but 1 values",
        ),
        (lambda: svg("<svg", key="k"), "not well-formed"),
        (lambda: svg("<svg viewBox='0 0 1 1'/>", key="k"), "xmlns"),
        (lambda: svg(SVG.replace("80", "wide").format(""), key="k"), "needs a viewBox"),
        (lambda: svg(SVG.format("<script/>"), key="k"), "must not hold <script>"),
        (lambda: svg(SVG.format('<g onclick="x"/>'), key="k"), "attribute onclick"),
        (lambda: svg(SVG.format("<style>a{fill:url(//x.y/z)}</style>"), key="k"), "must not load"),
        (lambda: svg(SVG.format('<use href="//x.y/z"/>'), key="k"), "attribute href"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
