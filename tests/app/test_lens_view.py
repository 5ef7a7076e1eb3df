"""The 1×1 lens without a browser: its numbers are the library's, and its sums add up as shown."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

from nin_core import ConfigError
from nin_core.features import extract_feature_maps, pixel_trace, untrained_model
from nin_core.lens import (
    collapse,
    compare_collapsed,
    compare_with_dense,
    output_sum,
    patch_sum,
    pointwise_layers,
    spectrum,
)
from nin_core.store import RunStore
from tests.app.test_feature_maps import (
    NETWORK,
    _shapes_once,  # noqa: F401  an autouse fixture
    add_run,
    fed,
    opened,
    pictures,
    said,
    shape_image,
    tables,
    widget,
)
from ui.components.sprite import quantise
from ui.feature_views import figures
from ui.feature_views.choices import channel_list
from ui.feature_views.tables import difference, fixed, ledger, map_cells, value


def ask(app: AppTest, question: str) -> AppTest:
    app.main.segmented_control(key="fm:lens:question").set_value(question).run()
    assert not app.exception
    return app


def plots(app: AppTest) -> dict[str, dict[str, Any]]:
    """Key of each chart -> the figure that was sent."""
    found = {}
    for component in app.main.get("bidi_component"):
        if component.proto.component_name == "nin_plot":
            data = json.loads(component.proto.json)
            found[data["key"]] = data["figure"]
    return found


def cells(app: AppTest, label: str) -> list[list[str]]:
    """The texts of a table's rows."""
    table = next(table for table in tables(app) if f"aria-label='{label}'" in table)
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table.split("<tbody>")[1])
    return [
        [unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in rows
    ]


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("× ", ""))


class Shown:
    """A run of `NETWORK` in the lens, and what the library says of it."""

    def __init__(self, store: RunStore) -> None:
        self.model = untrained_model(NETWORK, seed=add_run(store))
        self.image = fed(NETWORK, shape_image())
        self.maps = extract_feature_maps(self.model, self.image)
        self.app = opened(view="lens")

    def look(self, layer: str, row: int, column: int) -> AppTest:
        widget(self.app, "selectbox", "Maps to click in").set_value(layer).run()
        widget(self.app, "number_input", "Row").set_value(row)
        widget(self.app, "number_input", "Column").set_value(column).run()
        assert not self.app.exception
        return self.app


@pytest.fixture
def shown(store: RunStore) -> Shown:
    return Shown(store)


def test_the_strips_are_the_pixels_trace(shown: Shown) -> None:
    app = shown.look("block1.relu_1", 3, 9)
    assert "Pixel (3, 9) through block 1's 1×1 layers" in said(app, "markdown")
    trace = pixel_trace(shown.model, shown.image, 1, 3, 9)
    expected = {"x": trace.inputs}
    for step, name in enumerate(trace.steps, start=1):
        expected[f"{step}: W·x + b"] = name.linear
        expected[f"{step}: norm"] = name.normalized
        expected[f"{step}: ReLU"] = name.outputs
    heat = plots(app)["fm-lens-strips"]["data"][0]
    assert heat["y"] == list(expected)
    for row, values in zip(heat["z"], expected.values(), strict=True):
        assert [cell for cell in row if cell is not None] == pytest.approx(values.tolist())
    assert heat["zmin"] == -heat["zmax"]
    data, numbers = pictures(app)["fm-lens"]
    assert data["pixel"] == [3, 9]
    np.testing.assert_array_equal(numbers, quantise(shown.maps["block1.relu_1"])[0])
    widget(app, "toggle", "Before ReLU").set_value(True).run()
    np.testing.assert_array_equal(
        pictures(app)["fm-lens"][1], quantise(shown.maps["block1.conv1x1_1"])[0]
    )


def test_the_terms_are_ranked_and_add_up_to_the_last_digit(shown: Shown) -> None:
    app = shown.look("block1.relu_1", 3, 9)
    widget(app, "button_group", "1×1 convolution").set_value(2).run()
    widget(app, "number_input", "Output channel").set_value(2).run()
    assert not app.exception
    step = pixel_trace(shown.model, shown.image, 1, 3, 9).steps[1]
    terms = output_sum(step, 2)
    rows = cells(app, "Terms of the sum")
    assert [row[0] for row in rows[:7]] == [str(i) for i in terms.order]  # 7 inputs: all of them
    for row, i in zip(rows, terms.order, strict=False):
        assert number(row[1]) == pytest.approx(terms.weights[i], rel=1e-3)
        assert number(row[2]) == pytest.approx(terms.inputs[i], rel=1e-3, abs=1e-9)
    by_name = {row[0]: row for row in rows}
    total = number(by_name["W·x + b"][1])
    assert total == pytest.approx(terms.total, rel=1e-4)
    decimals = len(by_name["W·x + b"][1].partition(".")[2])
    parts = [number(row[-2]) for row in rows[: rows.index(by_name["W·x + b"])]]
    assert round(sum(parts), decimals) == round(total, decimals)
    # batch norm and ReLU follow
    assert number(by_name["batch norm, a fixed line in use"][2]) == pytest.approx(
        step.normalized[2], abs=1e-4
    )
    scale = pointwise_layers(shown.model, 1)[1].scale[2]
    assert f"× {value(scale)}" in by_name["batch norm, a fixed line in use"][1]
    assert number(by_name["ReLU"][2]) == pytest.approx(max(step.normalized[2], 0), abs=1e-4)
    own = shown.maps["block1.conv1x1_2"][2, 3, 9]
    assert f"in float32, gives {value(own)} here" in said(app, "caption")


def test_the_patch_of_the_first_block_is_cut_from_the_picture(shown: Shown) -> None:
    app = ask(shown.look("block1.relu", 0, 13), "patch")
    widget(app, "number_input", "Channel of x").set_value(4).run()
    patch = patch_sum(shown.model, shown.image, 1, 4, 0, 13)
    figure = plots(app)["fm-lens-patch"]
    for heat, values in zip(
        figure["data"], (patch.patch, patch.kernel, patch.products), strict=True
    ):
        np.testing.assert_allclose(heat["z"], values[0], atol=1e-6)
    words = said(app, "caption")
    assert "(rows -2 to 2, columns 24 to 28; outside is padding, 0)" in words.replace("−", "-")
    rows = {row[0]: row for row in cells(app, "Sum of the patch times the kernel")}
    assert number(rows["sum + b"][1]) == pytest.approx(patch.total, rel=1e-4)
    out = shown.maps["block1.relu"][4, 0, 13]
    assert number(rows["batch norm + ReLU"][2]) == pytest.approx(out, abs=1e-4)


def test_the_patch_of_a_later_block_is_cut_from_its_input_maps(shown: Shown) -> None:
    app = ask(shown.look("block2.conv1x1_1", 2, 3), "patch")
    widget(app, "number_input", "Channel of x").set_value(5)
    widget(app, "number_input", "Input channel").set_value(3).run()
    assert not app.exception
    patch = patch_sum(shown.model, shown.maps["pool1"], 2, 5, 2, 3)
    heat = plots(app)["fm-lens-patch"]["data"][2]
    np.testing.assert_allclose(heat["z"], patch.products[3], atol=1e-6)
    order = np.argsort(-np.abs(patch.by_input), kind="stable")
    rows = cells(app, "Sum of the patch times the kernel")
    assert [row[0] for row in rows[:4]] == [str(i) for i in order]


PLAIN = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def test_nn_linear_gives_the_same(shown: Shown) -> None:
    app = ask(shown.look("block1.relu_1", 3, 9), "dense")
    rows = cells(app, "Largest difference, convolution less nn.Linear")
    found = compare_with_dense(shown.model, 1, shown.maps)
    for row, item in zip(rows, found, strict=True):
        # Rounding is not the same in two passes, so its size is compared, not its digits.
        here, largest = (float(cell.translate(PLAIN).replace("·10", "e")) for cell in row[1:3])
        assert here <= largest < 1e-5
        assert row[3] == value(item.reach)
        assert item.largest < 1e-5
    trace = pixel_trace(shown.model, shown.image, 1, 3, 9)
    table = app.main.get("dataframe")[0].value
    np.testing.assert_allclose(table["x"].dropna(), trace.inputs, atol=1e-4)
    np.testing.assert_allclose(table["2: ReLU"].dropna(), trace.outputs, atol=1e-4)
    # the lines that are shown do what they say
    names = {"model": shown.model, "torch": torch, "row": 3, "col": 9}
    names["x"] = torch.from_numpy(shown.maps["block1.relu"])[None]
    *lines, last = app.main.code[0].value.splitlines()
    exec("\n".join(lines), names)
    with torch.no_grad():
        conv, linear = eval(last.partition("#")[0], names)
    torch.testing.assert_close(conv, linear)


def test_the_weights_and_their_singular_values(shown: Shown) -> None:
    app = ask(shown.look("block1.relu_1", 3, 9), "weights")
    layer = pointwise_layers(shown.model, 1)[0]
    figure = plots(app)["fm-lens-matrix"]
    np.testing.assert_allclose(figure["data"][0]["z"], layer.weight, rtol=1e-6)
    bars = plots(app)["fm-lens-spectrum"]["data"][0]
    np.testing.assert_allclose(bars["y"], spectrum(layer.weight).values, rtol=1e-6)
    assert "Its rank is 5 of 5" in said(app, "caption")

    widget(app, "text_input", "Rows (outputs)").set_value("6, 0-1")
    widget(app, "text_input", "Columns (inputs)").set_value("2-4").run()
    assert not app.exception
    heat = plots(app)["fm-lens-matrix"]["data"][0]
    np.testing.assert_allclose(heat["z"], layer.weight[[6, 0, 1], 2:5], rtol=1e-6)
    assert heat["y"] == ["6", "0", "1"]
    widget(app, "text_input", "Rows (outputs)").set_value("0-7").run()
    assert not app.exception
    assert "Rows (outputs): '0-7' is outside 0-6; 0-6 would work" in said(app, "error")


def test_without_the_relu_the_layers_collapse(shown: Shown) -> None:
    app = ask(shown.look("block1.relu_2", 3, 9), "collapse")
    first, second = pointwise_layers(shown.model, 1)
    matrix = collapse(first, second)
    here = compare_collapsed(matrix, first, second, shown.maps["block1.relu"][:, 3, 9])
    every = compare_collapsed(matrix, first, second, shown.maps["block1.relu"])
    rows = cells(app, "One matrix instead of two layers")
    assert rows[0][1:] == [difference(here.error), difference(every.error)]
    assert rows[1][1:] == [value(here.distance), value(every.distance)]
    assert rows[3][2] == f"{every.clipped * 100:.1f}\u00a0%"
    assert every.error < 1e-12 < every.distance
    strips = plots(app)["fm-lens-collapse"]["data"][0]
    np.testing.assert_allclose(strips["z"][0], here.collapsed, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(strips["z"][2], here.real, rtol=1e-5, atol=1e-6)
    one = plots(app)["fm-lens-one"]["data"][0]
    np.testing.assert_allclose(one["z"], matrix.weight, rtol=1e-5, atol=1e-7)
    # the other block has one 1×1 convolution only
    shown.look("block2.conv1x1_1", 0, 0)
    assert "there is no ReLU between two to take away" in said(app, "info")


def test_a_pixel_that_smaller_maps_do_not_have_is_forgotten_there(shown: Shown) -> None:
    app = shown.look("block1.relu_1", 13, 13)
    app.session_state["fm:lens:pixel"] = (13, 13)
    widget(app, "selectbox", "Maps to click in").set_value("block2.conv1x1_1").run()
    assert not app.exception
    assert pictures(app)["fm-lens"][0]["pixel"] != [13, 13]
    app = shown.look("block1.relu_1", 13, 13)
    assert "Pixel (13, 13)" in said(app, "markdown")


@pytest.mark.parametrize("question", ["terms", "patch", "dense", "weights", "collapse"])
@pytest.mark.parametrize(
    "query",
    [
        {"net": "nin-cifar10"},  # three input channels, widths that differ
        {"net": "nin-28", "blocks": "4-4-4-4-4_k5s2p2~8-10_k3s1p1"},  # four 1×1 layers, and one
        {"net": "nin-28", "blocks": "1-1-1_k28s1p0~10-10-10_k1s1p0"},  # one channel, one pixel
    ],
)
def test_other_networks(store: RunStore, query: dict[str, str], question: str) -> None:
    app = ask(opened(**query, view="lens"), question)
    for stage in widget(app, "selectbox", "Maps to click in").options:
        assert stage.startswith("Block")
    assert "fm-lens-strips" in plots(app)
    for pair in app.main.get("button_group"):
        if pair.label == "Between 1×1 convolutions":
            pair.set_value(2).run()
            assert not app.exception
            assert "W·x + b of 1×1 convolution 4" in said(app, "caption")


def test_one_that_diverged(store: RunStore) -> None:
    state = untrained_model(NETWORK).state_dict()
    state["block1.conv.weight"] = torch.full_like(state["block1.conv.weight"], torch.nan)
    add_run(store, weights=save(state))
    app = opened(view="lens")
    assert "values that are not numbers (this run diverged)" in said(app, "warning")
    assert "fm-lens" in pictures(app)
    assert not app.main.get("number_input") or "Row" not in [
        field.label for field in app.main.get("number_input")
    ]


def test_one_whose_pixel_is_dead(store: RunStore) -> None:
    state = untrained_model(NETWORK).state_dict()
    state["block1.bn.bias"] = torch.full_like(state["block1.bn.bias"], -100.0)
    add_run(store, weights=save(state))
    app = opened(view="lens")
    for question in ("terms", "patch", "dense", "weights", "collapse"):
        ask(app, question)
    assert "Pixel (0, 0)" in said(app, "markdown")


FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


class TestLedger:
    @settings(max_examples=300, deadline=None)
    @given(st.lists(FINITE, max_size=12), st.lists(FINITE, max_size=30), FINITE)
    def test_what_is_shown_adds_up(
        self, listed: list[float], others: list[float], bias: float
    ) -> None:
        total = sum(listed) + sum(others) + bias
        shown = ledger(listed, bias, total)
        texts = [fixed(v, shown.decimals) for v in (*shown.terms, shown.rest, shown.bias)]
        units = [round(number(text) * 10**shown.decimals) for text in texts]
        assert sum(units) == round(number(fixed(shown.total, shown.decimals)) * 10**shown.decimals)
        assert shown.total == pytest.approx(total, abs=10**-shown.decimals)
        for figure, term in zip(shown.terms, listed, strict=True):
            assert figure == pytest.approx(term, abs=0.51 * 10**-shown.decimals)

    def test_nothing_but_zeros(self) -> None:
        shown = ledger([0.0, 0.0], 0.0, 0.0)
        assert (shown.rest, shown.total, shown.decimals) == (0, 0, 0)

    def test_texts(self) -> None:
        assert fixed(-0.00001, 3) == "0.000"
        assert fixed(-1.5, 2) == "−1.50"
        assert [difference(x) for x in (0.0, 5.7e-8, 0.25)] == ["0", "5.7·10⁻⁸", "0.25"]


class TestChannelList:
    @pytest.mark.parametrize(
        ("text", "channels"),
        [("3", [3]), ("0-2, 9", [0, 1, 2, 9]), (" 9 , 1–2,9", [9, 1, 2]), ("2-2", [2])],
    )
    def test_it_is_read(self, text: str, channels: list[int]) -> None:
        assert channel_list(text, 10, 10) == channels

    @pytest.mark.parametrize(
        "text", ["a", "1,", "-1", "1-", "10", "3-2", "0-10", "1e3", "²", "0--3", "9" * 400, "1;2"]
    )
    def test_what_is_not_one_gets_a_sentence(self, text: str) -> None:
        with pytest.raises(ConfigError, match="would work") as error:
            channel_list(text, 10, 10)
        assert channel_list(error.value.suggestion, 13, 13)

    def test_too_many(self) -> None:
        with pytest.raises(ConfigError, match="11 channels are too many") as error:
            channel_list("0-10", 20, 10)
        assert len(channel_list(error.value.suggestion, 20, 10)) == 10


class TestFigures:
    def test_zero_has_no_colour_and_the_scale_is_symmetric(self) -> None:
        figure, _ = figures.strips([("a", np.array([0.5, -2.0])), ("b", np.array([1.0]))])
        heat = figure["data"][0]
        assert (heat["zmin"], heat["zmax"]) == (-2, 2)
        assert all(color.endswith(",0)") for at, color in figures.SIGNED if at == 0.5)
        assert np.isnan(heat["z"][1, 1])

    def test_all_zero_has_a_scale(self) -> None:
        assert figures.reach_of(np.zeros(3)) == 1

    def test_the_framed_row_follows_the_rows_chosen(self) -> None:
        weight = np.arange(12.0).reshape(4, 3)
        whole = figures.matrix(weight, [1, 2, 3], [0, 1, 2], mark=3)
        assert whole["layout"]["shapes"][0]["y0"] == 2.5
        picked = figures.matrix(weight, [3, 0], [2], mark=0)
        assert picked["layout"]["shapes"][0]["y0"] == 0.5
        assert figures.matrix(weight, [3], [2], mark=0)["layout"]["shapes"] == []

    def test_a_map_with_many_values_is_not_written_out(self) -> None:
        assert map_cells(np.zeros((9, 9))) == ""
        assert map_cells(np.array([[1.0, 2.0]])).count("class=peak") == 1
