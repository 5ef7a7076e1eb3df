"""Widths that fit: the question, its answer in the sidebar, and the charts, without a browser."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, BlockConfig, ConfigError, NiNConfig, solver, summarize
from nin_core.solver import Budget
from tests.conftest import dashboard, head_figure
from tests.core.test_diagram import ODD
from ui import link
from ui.laboratory import widths

pytestmark = pytest.mark.usefixtures("store")

SLIM, FULL, UNEQUAL = (PRESETS[name] for name in ("nin-slim-128", "nin-224", "nin-cifar10"))


def page(**query: str) -> AppTest:
    app = dashboard("architecture", **{"view": "widths", "net": "nin-224"} | query).run()
    assert not app.exception, app.exception
    return app


def answer(app: AppTest) -> dict[str, list[str]]:
    """The rows of the answer by what they are: widths, parameters, MACs, memory, seconds."""
    html = next(h.proto.body for h in app.main.get("html") if "Widths that fit" in h.proto.body)
    rows = {}
    for row in ElementTree.fromstring(html[html.index("<div") :]).iterfind(".//tbody/tr"):
        head, *cells = row
        rows[head.findtext("small") or ""] = [head.text or "", *((c.text or "") for c in cells)]
    return rows


def press(app: AppTest, label: str) -> None:
    next(button for button in app.main.button if button.label == label).click().run()
    assert not app.exception


def chart(app: AppTest, key: str) -> dict[str, Any]:
    found = (e for e in app.get("bidi_component") if key in e.proto.id)
    return json.loads(next(found).proto.json)["figure"]


def parameters(app: AppTest) -> str:
    return head_figure(app, "Parameters").value


def test_half_a_million_parameters_and_the_button_that_takes_them() -> None:
    app = page()
    rows = answer(app)
    assert rows["this network"][:2] == ["96-256-384", "1,992,166"]
    assert rows["widest that fits"][:2] == ["47-127-190", "499,380"]
    assert rows["next step"][:2] == ["48-127-190", "502,869"]
    press(app, "Use these widths")
    assert parameters(app) == "499,380"
    assert app.query_params["widths"] == "47-127-190"
    assert next(b for b in app.main.button if b.label == "Use these widths").disabled


@pytest.mark.parametrize(
    ("quantity", "limit", "scale"),
    [("macs", 50.0, 10**6), ("bytes", 200.0, 2**20), ("seconds", 0.5, 1)],
)
def test_every_kind_of_budget(quantity: solver.Quantity, limit: float, scale: int) -> None:
    app = page()
    app.main.selectbox(key="architecture:quantity").set_value(quantity).run()
    app.main.number_input(key=f"architecture:limit:{quantity}").set_value(limit).run()
    found = solver.fit(solver.proportions(FULL), Budget(quantity, limit * scale, 64))
    rows = answer(app)
    assert rows["widest that fits"][0] == widths.widths_text(found.config)
    press(app, "Use these widths")
    assert parameters(app) == f"{summarize(found.config).total_parameters:,}"


def test_a_budget_too_small_is_said_and_mended() -> None:
    app = page()
    app.main.number_input(key="architecture:limit:parameters").set_value(5).run()
    least = summarize(FULL.with_widths((1, 1, 1))).total_parameters
    (error,) = app.main.error
    assert f"takes {least:,} parameters; that is the smallest budget that works." in error.value
    press(app, "Use the smallest budget that works")
    assert not app.main.error
    assert answer(app)["widest that fits"][:2] == ["1-1-1", f"{least:,}"]


@pytest.mark.parametrize("quantity", ["macs", "bytes", "seconds"])
def test_the_smallest_budget_is_enough_in_every_unit(quantity: str) -> None:
    app = page()
    app.main.selectbox(key="architecture:quantity").set_value(quantity).run()
    app.main.number_input(key=f"architecture:limit:{quantity}").set_value(0.001).run()
    press(app, "Use the smallest budget that works")
    assert not app.main.error
    assert answer(app)["widest that fits"][0] == "1-1-1"


def test_proportions_of_the_preset_of_the_network_and_of_ones_own() -> None:
    app = page(widths="100-100-100")
    by_preset = answer(app)["widest that fits"][0]
    assert by_preset == "47-127-190"
    choice = app.main.segmented_control(key="architecture:proportions")
    choice.set_value("network").run()
    first, second, third = answer(app)["widest that fits"][0].split("-")
    assert first == second == third
    app.main.segmented_control(key="architecture:proportions").set_value("own").run()
    ratios = next(t for t in app.main.text_input if t.label == "Ratios of blocks 1, 2, 3")
    ratios.set_value("1 : 2 : 4").run()
    found = [int(width) for width in answer(app)["widest that fits"][0].split("-")]
    assert found[1] == pytest.approx(2 * found[0], abs=1)
    for text, sentence in (
        ("1:2", "2 ratios were given, but 3 blocks have widths to choose"),
        ("wide", "“wide” cannot be read as ratios; 100:100:100 would work."),
        ("", "cannot be read as ratios"),
        ("1:0:2", "would work"),
    ):
        next(t for t in app.main.text_input if "Ratios" in t.label).set_value(text).run()
        (error,) = app.main.error
        assert sentence in error.value
        assert not app.exception


def test_a_network_of_other_blocks_than_its_preset_has_its_own_proportions() -> None:
    app = page(net="nin-28", blocks="8-8_k3s1p1~16_k3s1p1~10_k3s1p1")
    choice = app.main.segmented_control(key="architecture:proportions")
    assert "nin-28's" not in choice.options
    assert answer(app)["widest that fits"][0].count("|") == 0


def test_unequal_widths_are_written_out() -> None:
    assert widths.widths_text(UNEQUAL) == "192-160-96 | 192-192-192 | 192-192"
    assert widths.widths_text(FULL) == "96-256-384"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1:2:4", (1, 2, 4)), ("0.5, 1, 2", (0.5, 1, 2)), (" 6/16/24 ", (6, 16, 24)), ("3", (3,))],
)
def test_ratios_as_people_write_them(text: str, expected: tuple) -> None:
    assert widths.parse_ratios(text, "1:2") == expected


@pytest.mark.parametrize("text", ["", ":", "a", "1:-2", "1e9", "9" * 30, "1:2:x", "½"])
def test_ratios_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match="1:2:4 would work"):
        widths.parse_ratios(text, "1:2:4")


def test_shares_never_round_to_the_budget_itself() -> None:
    shown = [widths._share(ratio) for ratio in (0.4, 0.9996, 0.99999999, 1, 1.00001, 3.98, 1e6)]
    assert shown == [
        *("40 %", "99.96 %", "just under 100 %", "100 %", "100.001 %", "398 %", "1,000,000 ×"),
    ]


# --- charts -----------------------------------------------------------------------------------


def test_the_curves_pass_through_the_answer() -> None:
    app = page()
    figure = chart(app, "architecture:width:parameters")
    by_name = {trace["name"]: trace for trace in figure["data"]}
    assert by_name["budget"]["y"] == [500_000, 500_000]
    assert by_name["this network"]["y"] == [1_992_166] * 2
    (x,), (y,) = by_name["widest that fits"]["x"], by_name["widest that fits"]["y"]
    assert y == 499_380
    curve = by_name["in proportion"]
    assert np.interp(x, curve["x"], curve["y"]) == pytest.approx(y, rel=0.05)
    at_one = curve["y"][min(range(len(curve["x"])), key=lambda i: abs(curve["x"][i] - 1))]
    assert at_one == 1_992_166
    names = {trace["name"] for trace in chart(app, "architecture:width:macs")["data"]}
    assert "budget" not in names


@pytest.mark.parametrize("config", [SLIM, FULL, UNEQUAL, PRESETS["nin-28"]])
def test_every_cell_of_the_map_is_that_of_summarize(config: NiNConfig) -> None:
    first, *_, last = solver.growing(config)
    across, down = (widths.cell_widths(config, config, block) for block in (first, last))
    values = widths.grid(config, (first, across), (last, down), Budget("macs", 1))
    assert values.shape == (widths.CELLS, widths.CELLS)
    assert values.size >= 1000
    for row, column in ((0, 0), (3, 17), (31, 31), (12, 5)):
        network = solver.with_block_width(config, first, across[column])
        network = solver.with_block_width(network, last, down[row])
        assert values[row, column] == summarize(network).total_macs
    present = config.blocks[first].channels[0]
    assert across[0] <= present <= across[-1]


def test_a_clicked_cell_goes_into_the_sidebar(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[NiNConfig] = []
    monkeypatch.setattr(widths.architecture, "show", taken.append)
    widths._take_cell(FULL, 0, 2, {"x": 48, "y": 192, "z": 5.1})
    assert taken == [FULL.with_widths((48, 256, 192))]
    for nonsense in (None, {}, {"x": "a", "y": 1}, {"x": 0, "y": 4}, {"x": 3, "y": 10**9}):
        widths._take_cell(FULL, 0, 2, nonsense)
    assert len(taken) == 1


def test_the_map_shows_where_the_network_is_and_follows_the_blocks_chosen() -> None:
    app = page()
    figure = chart(app, "architecture:width-map")
    marker = next(t for t in figure["data"] if t.get("name") == "this network")
    assert (marker["x"], marker["y"]) == ([96], [384])
    app.main.selectbox(key="architecture:map:Across").set_value(2).run()
    app.main.selectbox(key="architecture:map:Down").set_value(1).run()
    marker = next(
        t for t in chart(app, "architecture:width-map")["data"] if t.get("name") == "this network"
    )
    assert (marker["x"], marker["y"]) == ([384], [256])


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (300_000, "the dashed line is the budget."),
        (1, "none of them fit the budget."),
        (10**9, "all of them fit the budget."),
    ],
)
def test_the_map_says_where_the_budget_is(limit: int, told: str) -> None:
    app = page()
    app.main.number_input(key="architecture:limit:parameters").set_value(limit).run()
    assert not app.exception
    assert any(told in caption.value for caption in app.main.caption)
    lines = [t for t in chart(app, "architecture:width-map")["data"] if t.get("name") == "budget"]
    assert len(lines) == ("dashed" in told)


def test_a_map_of_networks_that_cannot_be_built_is_not_said_to_fit() -> None:
    budget = Budget("parameters", 10**9)
    values = np.full((2, 2), np.nan)
    assert widths._where_budget(values, budget) == "none of them can be built"
    values[0, 0] = 1.0
    assert widths._where_budget(values, budget) == "all of them fit the budget"


@pytest.mark.parametrize("name", [*PRESETS, *ODD])
def test_every_network_has_its_view(name: str) -> None:
    app = page(**link.to_query((PRESETS | ODD)[name], "nin-28"))
    assert not app.exception


def test_a_network_without_a_width_to_choose() -> None:
    lone = NiNConfig(1, 28, 10, (BlockConfig((10, 10), 5),))
    app = page(**link.to_query(lone, "nin-28"))
    assert any("there is none to choose" in caption.value for caption in app.main.caption)
    single = NiNConfig(1, 28, 10, (BlockConfig((8, 8), 5), BlockConfig((10,), 5)))
    app = page(**link.to_query(single, "nin-28"))
    assert any("takes two blocks" in caption.value for caption in app.main.caption)
