"""The Architecture page: its totals, table, figures and sentences, without a browser."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import pytest
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, NetworkSummary, summarize
from nin_core.reference_nets import REFERENCE_NETS, reference_summary
from nin_core.summary import LayerSummary
from tests.conftest import dashboard
from tests.core.test_diagram import ODD
from tests.prerequisites import PROJECT
from ui import figures, link, notes, numbers, tables

pytestmark = pytest.mark.usefixtures("store")


def page(**query: str) -> AppTest:
    app = dashboard("architecture", **query).run()
    assert not app.exception, app.exception
    return app


def text(app: AppTest) -> str:
    return " ".join(element.value for element in [*app.main.markdown, *app.main.caption])


def metric(app: AppTest, label: str) -> Any:
    return next(m for m in app.main.metric if m.label == label)


COLUMNS = (
    *("layer", "kind", "kernel", "stride", "padding", "output", "parameters", "parameter share"),
    *("MACs", "MAC share", "activations", "kept", "receptive field", "effective stride"),
)


def read(html: str) -> dict[str, list[str]]:
    """The table's body and totals row, by column."""
    root = ElementTree.fromstring(html[html.index("<div") :])
    rows = [
        ["".join(cell.itertext()) for cell in row]
        for part in ("tbody", "tfoot")
        for row in root.findall(f"table/{part}/tr")
    ]
    return dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))


def whole(texts: list[str]) -> list[int]:
    return [int(text.replace(",", "")) for text in texts]


def table(app: AppTest) -> dict[str, list[str]]:
    return read(next(h.proto.body for h in app.main.get("html") if "nin-layers" in h.proto.body))


def component(app: AppTest, key: str) -> dict[str, Any]:
    """What the browser component of that key was sent."""
    for element in app.get("bidi_component"):
        if f"-{key}" in element.proto.id or key in element.proto.id:
            return json.loads(element.proto.json)
    raise AssertionError(f"no component {key}")


# --- the page ---------------------------------------------------------------------------------


def test_totals_and_the_table_are_the_tutorials() -> None:
    app = page(net="nin-224")
    assert metric(app, "Parameters").value == "1,992,166"
    assert metric(app, "Parameters").delta == "same as nin-224"
    assert metric(app, "MACs an image").value == "762 M"
    assert metric(app, "Receptive field").value == "195 px"
    shown = table(app)
    assert shown["layer"][0] == "block1.conv"
    assert shown["output"][:4] == ["96×54×54"] * 3 + ["96×26×26"]
    assert shown["layer"][-1] == "Total"
    *parameters, total = whole(shown["parameters"])
    assert sum(parameters) == total == 1_992_166
    *macs, total = whole(shown["MACs"])
    assert sum(macs) == total == 762_297_352
    assert shown["receptive field"][:5] == ["11", "11", "11", "19", "51"]
    assert shown["effective stride"][:5] == ["4", "4", "4", "8", "8"]
    assert "block1.conv sees 223 of 224, pool1 sees 53 of 54" in text(app)


def test_beside_the_networks_with_dense_layers() -> None:
    assert "92 % of AlexNet's 46.8 M parameters" in text(page(net="nin-224", view="compare"))


def test_a_slider_moves_everything() -> None:
    app = page(net="nin-224")
    before = component(app, "architecture:where:parameters")
    slider = next(s for s in app.sidebar.slider if s.label == "Block 3 channels")
    slider.set_value(300).run()
    now = summarize(PRESETS["nin-224"].with_widths((96, 256, 300)))
    assert metric(app, "Parameters").value == f"{now.total_parameters:,}"
    assert metric(app, "Parameters").delta == "−16 % vs nin-224"
    assert table(app)["parameters"][-1] == f"{now.total_parameters:,}"
    assert "300×12×12" in table(app)["output"]
    assert component(app, "architecture:where:parameters") != before
    assert "300×12×12" in component(app, "architecture:diagram")["drawings"][-1][1]


def test_blocks_single_layers_and_relu_rows() -> None:
    app = page(net="nin-224")
    rows = len(table(app)["layer"])
    assert not any("relu" in name for name in table(app)["layer"])
    app.main.toggle(key="architecture:relu").set_value(True).run()
    assert len(table(app)["layer"]) == rows + 12
    app.main.segmented_control(key="architecture:rows").set_value("block").run()
    shown = table(app)
    assert [name for name in shown["layer"] if name.startswith("block")] == [
        "block1",
        "block2",
        "block3",
        "block4",
    ]
    assert dict(zip(shown["layer"], shown["parameters"], strict=True))["block2"] == "746,240"


def test_another_preset_can_be_compared_and_the_batch_size_changed() -> None:
    app = page(net="nin-slim-128")
    other = next(s for s in app.main.selectbox if s.label == "Compare with")
    other.set_value("nin-28").run()
    assert metric(app, "Parameters").delta.endswith("vs nin-28")
    names = [t["name"] for t in component(app, "architecture:where:macs")["figure"]["data"]]
    assert names == ["k×k convolutions", "1×1 convolutions", "nin-28"]
    before = metric(app, "Training memory").value
    next(n for n in app.main.number_input if n.label == "Batch size").set_value(1).run()
    assert metric(app, "Training memory").value != before


def test_reference_networks_that_do_not_fit_say_from_where_they_would() -> None:
    words = text(page(net="nin-28", view="compare"))
    assert "AlexNet shrinks a 28×28 image to nothing; 65×65 is the smallest that works." in words
    assert "VGG-11 shrinks a 28×28 image to nothing; 32×32 is the smallest that works." in words
    assert "of LeNet's 61.7 k parameters" in words


def test_an_image_too_small_for_any_of_them() -> None:
    words = text(page(net="nin-28", image="8", view="compare"))
    assert "12×12 is the smallest that works" in words


def test_a_receptive_field_beyond_the_image_is_said() -> None:
    assert "could see 35×35 pixels, but the image has only 28×28" in text(page(net="nin-28"))
    assert "could see" not in text(page(net="nin-224"))


@pytest.mark.parametrize("name", [*PRESETS, *ODD])
def test_every_network_has_its_page(name: str) -> None:
    config = (PRESETS | ODD)[name]
    app = page(**link.to_query(config, "nin-28"))
    assert metric(app, "Parameters").value == f"{summarize(config).total_parameters:,}"
    app.main.segmented_control(key="architecture:view").set_value("compare").run()
    for log in (True, False):
        app.main.toggle(key="architecture:log").set_value(log).run()
        assert not app.exception


def test_the_page_does_not_import_torch() -> None:
    """A fresh interpreter: torch would cost seconds before the first table."""
    script = (
        "import sys\n"
        "from streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_file('dashboard.py', default_timeout=60)\n"
        "app.switch_page('pages/architecture.py')\n"
        "app.run()\n"
        "assert not app.exception, app.exception\n"
        "assert any('nin-layers' in h.proto.body for h in app.main.get('html'))\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_view_is_in_the_url_and_an_unknown_one_is_said() -> None:
    app = page(net="nin-28", view="compare")
    assert app.query_params["view"] == "compare"
    app.main.segmented_control(key="architecture:view").set_value("layers").run()
    assert app.query_params["view"] == "layers"
    app = page(net="nin-28", view="attic")
    assert "There is no view 'attic'" in app.main.warning[0].value
    assert table(app)


# --- the table --------------------------------------------------------------------------------

NETWORKS = [summarize(config, 8) for config in (*PRESETS.values(), *ODD.values())]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("granularity", ["layer", "block"])
@pytest.mark.parametrize("with_relu", [True, False])
def test_rows_add_up_to_the_totals(
    network: NetworkSummary, granularity: Any, with_relu: bool
) -> None:
    rows = tables.table_rows(network, granularity, with_relu=with_relu)
    assert sum(row.activation_bytes for row in rows) == network.total_activation_bytes
    assert sum(row.saved_bytes for row in rows) == sum(row.saved_bytes for row in network.layers)
    shown = read(tables.layer_table(network, rows))
    for name in ("parameters", "MACs"):
        *values, total = whole(shown[name])
        assert sum(values) == total
    assert shown["layer"] == [*(row.name for row in rows), "Total"]
    assert shown["activations"][-1] == numbers.size(network.total_activation_bytes)
    # A layer without parameters has no bar.
    for count, share in zip(whole(shown["parameters"]), shown["parameter share"], strict=True):
        assert bool(count) == bool(share)


def test_the_csv_is_exact_and_has_no_totals() -> None:
    network = summarize(PRESETS["nin-224"], 64)
    rows = list(csv.DictReader(io.StringIO(tables.layer_csv(network.layers))))
    assert list(rows[0]) == list(LayerSummary._fields)
    assert len(rows) == len(network.layers)
    assert sum(int(row["parameters"]) for row in rows) == 1_992_166
    assert rows[0]["output_shape"] == "96×54×54"
    assert int(rows[0]["activation_bytes"]) == 64 * 96 * 54 * 54 * 4


# --- the figures ------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("quantity", figures.QUANTITIES)
@pytest.mark.parametrize("granularity", ["layer", "block"])
def test_bars_add_up(network: NetworkSummary, quantity: Any, granularity: Any) -> None:
    other = summarize(PRESETS["nin-cifar10"])
    for shares in (True, False):
        figure, height = figures.where_figure(network, other, quantity, granularity, shares=shares)
        windows, pixels, *rest = figure["data"]
        total = sum(windows["x"]) + sum(pixels["x"])
        whole = network.total_parameters if quantity == "parameters" else network.total_macs
        assert total == pytest.approx(100 if shares else whole)
        assert pixels["base"] == windows["x"]
        assert len(rest) == (network.layers != other.layers)
        assert len(set(windows["y"])) == len(windows["y"])
        assert height >= 20 * len(windows["y"])


@pytest.mark.parametrize("log", [True, False])
def test_reference_bars_are_the_totals(log: bool) -> None:
    networks = [
        summarize(PRESETS["nin-224"]),
        *(reference_summary(n, 1, 224, 10) for n in REFERENCE_NETS),
    ]
    figure, _ = figures.reference_figure(networks, "parameters", log=log)
    for index, network in enumerate(networks):
        bars = [trace["x"][index] or 0 for trace in figure["data"]]
        assert sum(bars) == network.total_parameters
        assert bars[2] == notes.dense_parameters(network)
    assert figure["layout"]["barmode"] == ("group" if log else "stack")


# --- the sentences ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "seen"),
    [
        (224, 11, 4, 0, 223),
        (54, 3, 2, 0, 53),
        (28, 5, 1, 2, 28),
        (32, 3, 2, 1, 32),
        (10, 1, 3, 0, 4),  # windows with gaps between them
        (3, 2, 5, 1, 1),
    ],
)
def test_pixels_seen(size: int, kernel: int, stride: int, padding: int, seen: int) -> None:
    windows = (size - kernel + 2 * padding) // stride + 1
    reached = {
        pixel
        for index in range(windows)
        for pixel in range(index * stride - padding, index * stride - padding + kernel)
        if 0 <= pixel < size
    }
    row = (
        summarize(PRESETS["nin-28"])
        .layers[0]
        ._replace(
            kernel_size=kernel,
            stride=stride,
            padding=padding,
            input_shape=(1, size, size),
            output_shape=(1, windows, windows),
        )
    )
    assert notes.pixels_seen(row) == len(reached) == seen


def test_what_the_head_saves() -> None:
    network = summarize(PRESETS["nin-224"])
    dense = (384 * 5 * 5 + 1) * 4096 + 4097 * 4096 + 4097 * 10
    then = 1_992_166 - 34_790 + dense
    note = notes.head_note(network)
    assert f"{then / 1e6:.1f} M" in note
    assert f"saves {100 * (1 - 1_992_166 / then):.0f} %" in note
