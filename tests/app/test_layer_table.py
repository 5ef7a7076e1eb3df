"""The table of the Architecture page: its rows, columns, files, and the chosen row's arithmetic."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, NetworkSummary, summarize
from nin_core.operations import operations
from nin_core.reference_nets import reference_summary
from tests.app.test_architecture import component, page, read, whole
from tests.core.test_diagram import ODD
from ui import arithmetic, numbers, tables
from ui.components import layer_table

pytestmark = pytest.mark.usefixtures("store")

NETWORKS = [summarize(config, 8) for config in (*PRESETS.values(), *ODD.values())]


class Text(HTMLParser):
    """The text of some HTML, tags balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.parts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.parts.append(data)

    @property
    def text(self) -> str:
        assert not self.open
        return "".join(self.parts).replace("\u00a0", " ")


def sent(app: AppTest) -> dict[str, Any]:
    return component(app, "architecture:table")


def panel(app: AppTest) -> str:
    """The arithmetic shown under the table; empty while there is none."""
    found = [h.proto.body for h in app.main.get("html") if "nin-arithmetic" in h.proto.body]
    return Text(found[0]).text if found else ""


# --- rows and figures -------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("granularity", ["layer", "block"])
@pytest.mark.parametrize("with_relu", [True, False])
def test_rows_add_up_to_the_totals(
    network: NetworkSummary, granularity: Any, with_relu: bool
) -> None:
    rows = tables.table_rows(network, granularity, with_relu=with_relu)
    assert [member for row in rows for member in row.members] == list(network.layers)
    assert sum(row.layer.activation_bytes for row in rows) == network.total_activation_bytes
    kept = sum(layer.saved_bytes for layer in network.layers)
    assert sum(row.layer.saved_bytes for row in rows) == kept
    shown = read(tables.table_data(network, rows, tables.COLUMNS))
    everything = operations(*network.layers)
    totals = {
        "parameters": network.total_parameters,
        "macs": network.total_macs,
        "other_operations": everything.total,
        **everything._asdict(),
    }
    for name, expected in totals.items():
        *values, total = whole(shown[name])
        assert sum(values) == total == expected
    assert shown["name"] == [*(row.layer.name for row in rows), "Total"]
    assert shown["activation_bytes"][-1] == numbers.size(network.total_activation_bytes)
    assert shown["saved_bytes"][-1] == (numbers.size(kept) if kept else "0")
    # A layer without parameters has no bar.
    for count, share in zip(whole(shown["parameters"]), shown["parameter_share"], strict=True):
        assert bool(count) == bool(share)
    for column in tables.COLUMNS:
        assert column.added or shown[column.id][-1] == ""


def test_the_columns_of_nin_224() -> None:
    network = summarize(PRESETS["nin-224"], 64)
    rows = tables.table_rows(network, "layer", with_relu=True)
    first = {
        column.id: texts[0]
        for column, texts in zip(
            tables.COLUMNS,
            read(tables.table_data(network, rows, tables.COLUMNS)).values(),
            strict=True,
        )
    }
    assert first == {
        "name": "block1.conv",
        "kind": "k×k conv",
        "input_shape": "1×224×224",
        "output_shape": "96×54×54",
        "kernel_size": "11×11",
        "stride": "4",
        "padding": "0",
        "parameters": "11,712",
        "parameter_share": "0.6 %",
        "macs": "33,872,256",
        "mac_share": "4.4 %",
        "other_operations": "279,936",
        "comparisons": "0",
        "additions": "279,936",
        "multiplications": "0",
        "activation_bytes": "68.3 MiB",
        "saved_bytes": "0",
        "receptive_field": "11",
        "effective_stride": "4",
        "lost_pixels": "1",
    }


def test_a_relu_joins_the_layer_before_it() -> None:
    network = summarize(PRESETS["nin-224"])
    joined, *_ = tables.table_rows(network, "layer")
    assert [member.name for member in joined.members] == ["block1.conv", "block1.relu"]
    assert joined.operations.comparisons == joined.operations.additions == 96 * 54 * 54
    assert tables.row_of(tables.table_rows(network, "layer"), network.layers[1]) == joined
    block = tables.row_of(tables.table_rows(network, "block"), network.layers[3])
    assert block is not None
    assert block.layer.name == "block1"
    assert block.lost_pixels == 1
    assert tables.row_of((joined,), None) is None
    assert tables.row_of((joined,), network.layers[-1]) is None


def test_rows_are_sorted_by_exact_figures_not_by_their_texts() -> None:
    network = summarize(PRESETS["nin-224"], 64)
    rows = tables.table_rows(network, "layer", with_relu=True)
    data = tables.table_data(network, rows, tables.columns(["macs", "output_shape", "mac_share"]))
    assert [column["id"] for column in data["columns"]] == [
        "name",
        "output_shape",
        "macs",
        "mac_share",
    ]
    first = data["rows"][0]["cells"]
    assert first[0] == ["block1.conv", None]
    assert first[1] == ["96×54×54", 96 * 54 * 54]
    assert first[2] == ["33,872,256", 33_872_256]
    assert first[3] == ["4.4 %", network.layers[0].mac_share]
    assert data["rows"][-1]["cells"][3] == ["", None]


# --- files ------------------------------------------------------------------------------------

SOME = tables.columns(["output_shape", "parameters", "parameter_share", "saved_bytes"])


def test_the_csv_is_exact_and_has_no_totals() -> None:
    network = summarize(PRESETS["nin-224"], 64)
    for granularity in ("layer", "block"):
        rows = tables.table_rows(network, granularity, with_relu=True)
        read_back = list(csv.DictReader(io.StringIO(tables.to_csv(rows, tables.COLUMNS))))
        assert list(read_back[0]) == [column.id for column in tables.COLUMNS]
        assert len(read_back) == len(rows)
        assert sum(int(row["parameters"]) for row in read_back) == 1_992_166
        assert sum(float(row["mac_share"] or 0) for row in read_back) == pytest.approx(1)
    assert read_back[0]["output_shape"] == "96×54×54"
    assert int(read_back[1]["activation_bytes"]) == 64 * 96 * 26 * 26 * 4
    narrow = tables.to_csv(rows, SOME).splitlines()
    assert narrow[0] == "name,output_shape,parameters,parameter_share,saved_bytes"


def test_markdown_has_the_shown_columns_exact_counts_and_totals() -> None:
    network = summarize(PRESETS["nin-224"], 64)
    rows = tables.table_rows(network, "layer")
    lines = tables.to_markdown(network, rows, SOME).splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(line) for line in cells} == {len(SOME)}
    assert [cell.strip() for cell in cells[0]] == [
        *("layer", "output", "parameters", "parameter share"),
        "kept for backward [B], batch of 64",
    ]
    assert [cell.strip() for cell in cells[1]] == ["---", *["---:"] * 4]
    assert [cell.strip() for cell in cells[2]] == [
        *("block1.conv", "96×54×54", "11,712", "0.588 %", "71,663,616")
    ]
    assert cells[3][0].strip() == "block1.conv1x1\\_1"
    assert [cell.strip() for cell in cells[-1]][:3] == ["Total", "", "1,992,166"]
    assert len(lines) == len(rows) + 3


def test_latex_is_a_booktabs_table_of_the_same() -> None:
    network = summarize(PRESETS["nin-224"], 64)
    rows = tables.table_rows(network, "block")
    lines = tables.to_latex(network, rows, SOME).splitlines()
    assert lines[1] == "\\begin{tabular}{lrrrr}"
    assert lines[-1] == "\\end{tabular}"
    body = [line for line in lines if line.endswith("\\\\")]
    assert len(body) == len(rows) + 2
    assert {line.count("&") for line in body} == {len(SOME) - 1}
    assert body[1].startswith("block1 & 96$\\times$54$\\times$54 & 30,336 & 1.523 \\% & ")
    assert body[-1].startswith("Total &  & 1,992,166 & 100.000 \\% & ")
    # What LaTeX would read as a command is escaped.
    assert not re.search(r"(?<!\\)[_%#]", "\n".join(body))


# --- the page ---------------------------------------------------------------------------------


def test_a_chosen_layer_is_marked_and_worked_out() -> None:
    app = page(net="nin-224", layer="block1.conv")
    assert sent(app)["selected"] == "block1.conv"
    shown = panel(app)
    for line in (
        "⌊(224 − 11 + 2·0)/4⌋ + 1 = 54 px",
        "max(0, 224 − ((54 − 1)·4 + 11 − 0)) = 1 px",
        "96·(1·11·11) + 96 = 11,712",
        "54·54·96·(1·11·11) = 33,872,256",
        "1 + (11 − 1)·1 = 11 px",
        "64·96·54·54·4 = 71,663,616 B (68.3 MiB)",
        "0.6 % of the network's 1,992,166",
        "279,936 + 279,936 = 559,872",
    ):
        assert line in shown


def test_nothing_is_worked_out_before_a_row_is_chosen() -> None:
    app = page(net="nin-224")
    assert sent(app)["selected"] is None
    assert panel(app) == ""
    assert any("Choose a row" in caption.value for caption in app.main.caption)
    # Neither is a layer that this network does not have.
    assert panel(page(net="nin-224", layer="block9.conv")) == ""


def test_the_row_that_holds_the_chosen_layer_is_marked() -> None:
    app = page(net="nin-224", layer="block2.relu_1")
    assert sent(app)["selected"] == "block2.conv1x1_1"
    assert "256·(256·1·1) + 256 = 65,792" in panel(app)
    app.main.segmented_control(key="architecture:rows").set_value("relu").run()
    assert sent(app)["selected"] == "block2.relu_1"
    assert panel(app).startswith("block2.relu_1: ReLU")
    app.main.segmented_control(key="architecture:rows").set_value("block").run()
    assert sent(app)["selected"] == "block2"
    assert panel(app).startswith("block2.relu_1: ReLU")
    assert "614,656 + 65,792 + 65,792 = 746,240" in panel(app)


def test_the_arithmetic_follows_the_sliders() -> None:
    app = page(net="nin-224", layer="block3.conv")
    assert "384·(256·3·3) + 384 = 885,120" in panel(app)
    next(s for s in app.sidebar.slider if s.label == "Block 3 channels").set_value(300).run()
    assert "300·(256·3·3) + 300 = 691,500" in panel(app)


def test_columns_can_be_chosen() -> None:
    app = page(net="nin-224")
    assert [column["id"] for column in sent(app)["columns"]] == list(tables.CHOSEN)
    app.session_state["architecture:columns:open"] = True
    app.run()
    pills = next(g for g in app.main.button_group if g.label == "Columns of the table")
    pills.set_value(["macs", "kind"]).run()
    assert not app.exception
    assert [column["id"] for column in sent(app)["columns"]] == ["name", "kind", "macs"]
    pills = next(g for g in app.main.button_group if g.label == "Columns of the table")
    pills.set_value([]).run()
    assert [column["id"] for column in sent(app)["columns"]] == ["name"]
    pills = next(g for g in app.main.button_group if g.label == "Columns of the table")
    pills.set_value(["macs"]).run()
    app.session_state["architecture:columns:open"] = False
    for _ in range(2):
        app.run()
        assert [column["id"] for column in sent(app)["columns"]] == ["name", "macs"]


@pytest.mark.parametrize("network", [*NETWORKS, reference_summary("LeNet", 1, 28, 10)])
@pytest.mark.parametrize("granularity", ["layer", "block"])
def test_every_row_has_its_arithmetic(network: NetworkSummary, granularity: Any) -> None:
    rows = tables.table_rows(network, granularity)
    for layer in network.layers:
        row = tables.row_of(rows, layer)
        assert row is not None
        shown = Text(arithmetic.panel(network, row, layer)).text
        explained = layer if granularity == "block" else row.members[0]
        assert shown.startswith(arithmetic.title(explained))
        assert f"{explained.parameters:,}" in shown
        assert "Cᵢ" not in shown


def test_a_row_of_the_wrong_length_is_refused() -> None:
    data = {"columns": [{}], "rows": [{"id": "a", "cells": []}], "total": []}
    with pytest.raises(ValueError, match="Row 'a' has 0 cells; there are 1 columns"):
        layer_table(data, key="k", label="A table")
