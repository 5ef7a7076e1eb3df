"""Compare: pinned networks, changes layer by layer, and the tutorial's exercises, ready made."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, NiNConfig, summarize, variants
from nin_core.pins import Pins
from nin_core.reference_nets import reference_summary
from nin_core.store import RunStore
from tests.conftest import dashboard, head_figure
from tests.core.test_diagram import ODD
from ui import figures, notes
from ui.laboratory import compare, pinned

SLIM, FULL = PRESETS["nin-slim-128"], PRESETS["nin-224"]
WIDER = SLIM.with_widths((6, 16, 48))


def page(**query: str) -> AppTest:
    app = dashboard("architecture", **{"view": "compare", "net": "nin-slim-128"} | query).run()
    assert not app.exception, app.exception
    return app


def pin(app: AppTest, name: str) -> None:
    app.session_state["architecture:pin:open"] = True
    app.run()
    app.main.text_input(key="architecture:pin-name").set_value(name)
    next(button for button in app.main.button if button.label == "Pin").click().run()
    assert not app.exception


def press(app: AppTest, label: str, number: int = 0) -> None:
    [button for button in app.main.button if button.label == label][number].click().run()
    assert not app.exception


def other(app: AppTest) -> Any:
    return next(box for box in app.main.selectbox if box.label == "Compare with")


def move_block_3(app: AppTest, width: int) -> None:
    next(s for s in app.sidebar.slider if s.label == "Block 3 channels").set_value(width).run()


def chart(app: AppTest, key: str) -> dict[str, Any]:
    found = (e for e in app.get("bidi_component") if key in e.proto.id)
    return json.loads(next(found).proto.json)["figure"]


def table(html: str) -> dict[str, list[str]]:
    """A table's rows by their first cell, each cell as `figure|change`."""
    root = ElementTree.fromstring(html[html.index("<div") :])
    rows: dict[str, list[str]] = {}
    for row in [*root.iterfind(".//tbody/tr"), *root.iterfind(".//tfoot/tr")]:
        cells = ["|".join(cell.itertext()) for cell in row]
        rows[cells[0]] = cells[1:]
    return rows


# --- pins -------------------------------------------------------------------------------------


def test_a_pin_is_what_the_network_is_compared_with(store: RunStore) -> None:
    app = page()
    pin(app, "the narrow one")
    assert "Pinned as “the narrow one”" in app.main.success[0].value
    assert other(app).value == Pins(store.database).all()[0].id
    assert head_figure(app, "Parameters").delta == "same as the narrow one"
    move_block_3(app, 48)
    now, then = summarize(WIDER), summarize(SLIM)
    assert head_figure(app, "Parameters").delta.endswith("vs the narrow one")
    assert app.main.text_input(key="architecture:pin-name").value == ""
    shown = chart(app, "architecture:change:parameters")["data"]
    ghost = next(trace for trace in shown if trace["name"] == "the narrow one")
    assert sum(filter(None, ghost["x"])) == then.total_parameters
    solid = [value for trace in shown if trace is not ghost for value in trace["x"] if value]
    assert sum(solid) == now.total_parameters


def test_pins_outlive_the_session_and_a_change_of_preset(store: RunStore) -> None:
    pin(page(), "kept")
    app = page()
    assert other(app).value == "nin-slim-128"
    number = Pins(store.database).all()[0].id
    other(app).set_value(number).run()
    app.sidebar.selectbox[0].set_value("nin-28").run()
    assert other(app).value == number
    other(app).set_value("nin-224").run()
    app.sidebar.selectbox[0].set_value("nin-cifar10").run()
    assert other(app).value == "nin-cifar10"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("", "needs a name"), ("  ", "needs a name"), ("nin-28", "preset's name"), ("A", "already")],
)
@pytest.mark.usefixtures("store")
def test_a_name_that_cannot_be_is_said_beside_the_field(name: str, sentence: str) -> None:
    app = page()
    pin(app, "a")
    pin(app, name)
    assert len(app.main.error) == 1
    assert sentence in app.main.error[0].value
    assert len(other(app).options) == len(PRESETS) + 1
    app.run()
    assert not app.main.error  # said once


def test_a_pin_is_renamed_put_into_the_sidebar_and_deleted(store: RunStore) -> None:
    app = page(widths="6-16-48")
    pin(app, "wide")
    move_block_3(app, 24)
    number = Pins(store.database).all()[0].id
    app.main.text_input(key=f"architecture:pin-name:{number}").set_value("wider")
    press(app, "Rename")
    assert [found.name for found in Pins(store.database).all()] == ["wider"]
    assert head_figure(app, "Parameters").delta.endswith("vs wider")
    press(app, "Put into the sidebar")
    assert head_figure(app, "Parameters").value == f"{summarize(WIDER).total_parameters:,}"
    press(app, "Delete")
    assert Pins(store.database).all() == []
    assert other(app).value == "nin-slim-128"
    assert "“wider” is deleted." in app.main.success[0].value


def test_another_pin_is_taken_up_from_the_list(store: RunStore) -> None:
    app = page()
    for name in ("one", "two", "three"):
        pin(app, name)
    numbers = [found.id for found in Pins(store.database).all()]
    app.main.selectbox(key="architecture:pin-managed").set_value(numbers[1]).run()
    press(app, "Compare with it")
    assert other(app).value == numbers[1]


def test_names_are_shown_as_they_are(store: RunStore) -> None:
    Pins(store.database).add("<b>&</b>", WIDER)
    app = page()
    html = next(h.proto.body for h in app.main.get("html") if "Pinned networks" in h.proto.body)
    assert next(iter(table(html))).startswith("<b>&</b>|6-16-48 @ 128 px")
    other(app).set_value(Pins(store.database).all()[0].id).run()
    html = next(h.proto.body for h in app.main.get("html") if "Changes against" in h.proto.body)
    assert table(html)


def test_a_store_that_fails_costs_the_pins_but_not_the_page(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import streamlit as st

    assert store.path is not None
    store.close()
    store.path.write_bytes(b"no database" * 500)
    st.cache_resource.clear()
    app = page()
    assert len(app.main.error) == 1
    assert "is damaged or not a run store" in app.main.error[0].value
    assert head_figure(app, "Parameters").value == "10,846"
    assert other(app).options == list(PRESETS)
    assert not [button for button in app.main.button if button.label == "Pin"]


# --- changes ----------------------------------------------------------------------------------

NETWORKS = [*PRESETS.values(), *ODD.values()]


@pytest.mark.parametrize("config", NETWORKS)
@pytest.mark.parametrize("rival", [FULL, PRESETS["nin-cifar10"]])
def test_every_layer_and_the_total_change(config: NiNConfig, rival: NiNConfig) -> None:
    network, against = summarize(config, 8), summarize(rival, 8)
    rows = table(compare.changes_table(network, against))
    total = rows.pop("Total")
    assert total[1].split("|")[0] == f"{network.total_parameters:,}"
    assert total[2].split("|")[0] == f"{network.total_macs:,}"
    names = {layer.name for net in (network, against) for layer in net.layers}
    assert set(rows) == {n for n in names if not re.search("relu|bn|flatten", n)}
    for column, whole in ((1, network.total_parameters), (2, network.total_macs)):
        counted = [cells[column].split("|")[0].replace(",", "") for cells in rows.values()]
        assert sum(int(count) for count in counted if count != "–") == whole
    for quantity in figures.QUANTITIES:
        for log in (False, True):
            figure, _ = figures.change_figure(network, against, quantity, log=log)
            whole = network.total_parameters if quantity == "parameters" else network.total_macs
            assert sum(x or 0 for trace in figure["data"][1:] for x in trace["x"]) == whole
            if log:
                low, high = figure["layout"]["xaxis"]["range"]
                bars = [x for trace in figure["data"] for x in trace["x"] if x]
                assert 10**low < min(bars) < max(bars) < 10**high


# --- exercises --------------------------------------------------------------------------------


def test_exercise_2_says_what_a_layer_costs_and_buys(store: RunStore) -> None:
    app = page(net="nin-224")
    html = [h.proto.body for h in app.main.get("html") if "nin-comparison" in h.proto.body]
    assert len(html) == 4
    fewer = variants.fewer_pointwise(FULL)
    assert fewer is not None
    assert f"{summarize(fewer).total_parameters:,}<small>−11 %</small>" in html[0]
    assert "It saves 11 % of the parameters and 12 % of the MACs" in html[0]
    assert "195 px<small>same</small>" in html[0]
    assert "223 k parameters more (+12 % MACs)" in html[1]
    assert "A step between: 384 → 61 → 10" in html[2]
    assert "384 → 384 → 10" in html[3]
    buttons = [b for b in app.main.button if b.label == "Put into the sidebar"]
    buttons[0].click().run()
    assert head_figure(app, "Parameters").value == f"{summarize(fewer).total_parameters:,}"


@pytest.mark.parametrize("config", NETWORKS)
def test_every_network_has_its_comparisons(config: NiNConfig) -> None:
    network = summarize(config, 4)
    found = [
        *compare.pointwise_comparisons(config, network),
        *compare.narrowing_comparisons(config, network),
    ]
    for comparison in found:
        assert comparison.config != config
        row = ElementTree.fromstring(compare.comparison_row(comparison, network, style=False))
        assert row.findtext("h4") == comparison.title
        figures_shown = [dd.text for dd in row.iterfind(".//dd")]
        changed = summarize(comparison.config, 4)
        assert figures_shown[0] == f"{changed.total_parameters:,}"
        assert figures_shown[3] == f"{notes.last_convolution(changed).receptive_field} px"
        assert comparison.lesson.endswith(".")


# --- dense networks ---------------------------------------------------------------------------


def test_ratios_have_no_exponents() -> None:
    network = summarize(SLIM)
    note = notes.saving_note(network, reference_summary("AlexNet", 1, 128, 10))
    assert "2,280 times fewer" in note
    assert not re.search(r"e[+-]\d", note)
    same = notes.saving_note(network, reference_summary("LeNet", 1, 32, 10))
    assert "times fewer" in same


@pytest.mark.usefixtures("store")
def test_the_scale_is_logarithmic_where_one_network_dwarfs_another() -> None:
    assert page().main.toggle(key="architecture:log").value
    assert not page(net="nin-28").main.toggle(key="architecture:log").value


def test_the_pins_table_shows_the_present_networks_change(store: RunStore) -> None:
    pins = Pins(store.database)
    pins.add("slim", SLIM)
    rows = table(pinned.pins_table(pins.all(), summarize(WIDER, 64)))
    (cells,) = rows.values()
    assert cells[0].startswith("10.8 k|")
    assert cells[0].endswith("%") or "×" in cells[0]
    assert cells[3] == "195 px"
