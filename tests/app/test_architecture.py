"""The Architecture page: its totals, table, figures and sentences, without a browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, NetworkSummary, summarize
from nin_core.reference_nets import REFERENCE_NETS, reference_summary
from tests.conftest import dashboard, head_figure
from tests.core.test_diagram import ODD
from tests.prerequisites import PROJECT
from ui import bars, figures, link, notes, numbers

pytestmark = pytest.mark.usefixtures("store")


def page(**query: str) -> AppTest:
    app = dashboard("architecture", **query).run()
    assert not app.exception, app.exception
    return app


def text(app: AppTest) -> str:
    return " ".join(element.value for element in [*app.main.markdown, *app.main.caption])


def read(sent: dict[str, Any]) -> dict[str, list[str]]:
    """What the table shows in its rows and, last, its totals, by column."""
    rows = [row["cells"] for row in sent["rows"]] + [sent["total"]]
    return {
        column["id"]: [row[number][0] for row in rows]
        for number, column in enumerate(sent["columns"])
    }


def whole(texts: list[str]) -> list[int]:
    return [int(text.replace(",", "")) for text in texts]


def table(app: AppTest) -> dict[str, list[str]]:
    return read(component(app, "architecture:table"))


def component(app: AppTest, key: str) -> dict[str, Any]:
    """What the browser component of that key was sent."""
    for element in app.get("bidi_component"):
        if f"-{key}" in element.proto.id or key in element.proto.id:
            return json.loads(element.proto.json)
    raise AssertionError(f"no component {key}")


# --- the page ---------------------------------------------------------------------------------


def test_totals_and_the_table_are_the_tutorials() -> None:
    app = page(net="nin-224")
    assert head_figure(app, "Parameters").value == "1,992,166"
    assert head_figure(app, "Parameters").delta == "same as nin-224"
    assert head_figure(app, "MACs an image").value == "762 M"
    assert head_figure(app, "Receptive field").value == "195 px"
    shown = table(app)
    assert shown["name"][0] == "block1.conv"
    assert shown["output_shape"][:4] == ["96×54×54"] * 3 + ["96×26×26"]
    assert shown["name"][-1] == "Total"
    *parameters, total = whole(shown["parameters"])
    assert sum(parameters) == total == 1_992_166
    *macs, total = whole(shown["macs"])
    assert sum(macs) == total == 762_297_352
    assert shown["receptive_field"][:5] == ["11", "11", "11", "19", "51"]
    assert shown["effective_stride"][:5] == ["4", "4", "4", "8", "8"]
    assert "block1.conv sees 223 of 224, pool1 sees 53 of 54" in text(app)


def test_beside_the_networks_with_dense_layers() -> None:
    assert "92 % of AlexNet's 46.8 M parameters" in text(page(net="nin-224", view="compare"))


def test_a_slider_moves_everything() -> None:
    app = page(net="nin-224")
    before = bars_of(app)
    slider = next(s for s in app.sidebar.slider if s.label == "Block 3 channels")
    slider.set_value(300).run()
    now = summarize(PRESETS["nin-224"].with_widths((96, 256, 300)))
    assert head_figure(app, "Parameters").value == f"{now.total_parameters:,}"
    assert head_figure(app, "Parameters").delta == "−16 % vs nin-224"
    assert table(app)["parameters"][-1] == f"{now.total_parameters:,}"
    assert "300×12×12" in table(app)["output_shape"]
    assert bars_of(app) != before
    assert "300×12×12" in component(app, "architecture:diagram")["drawings"][-1][1]


def test_blocks_single_layers_and_relu_rows() -> None:
    app = page(net="nin-224")
    rows = len(table(app)["name"])
    assert not any("relu" in name for name in table(app)["name"])
    app.main.segmented_control(key="architecture:rows").set_value("relu").run()
    assert len(table(app)["name"]) == rows + 12
    app.main.segmented_control(key="architecture:rows").set_value("block").run()
    shown = table(app)
    assert [name for name in shown["name"] if name.startswith("block")] == [
        "block1",
        "block2",
        "block3",
        "block4",
    ]
    assert dict(zip(shown["name"], shown["parameters"], strict=True))["block2"] == "746,240"


def test_another_preset_can_be_compared_and_the_batch_size_changed() -> None:
    app = page(net="nin-slim-128")
    other = next(s for s in app.main.selectbox if s.label == "Compare with")
    other.set_value("nin-28").run()
    assert head_figure(app, "Parameters").delta.endswith("vs nin-28")
    assert re.findall(r"</i>([^<]+)</span>", bars_of(app)) == [
        "k×k convolutions",
        "1×1 convolutions",
        "nin-28",
    ]
    before = head_figure(app, "Training memory").value
    next(n for n in app.main.number_input if n.label == "Batch size").set_value(1).run()
    assert head_figure(app, "Training memory").value != before


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
    assert head_figure(app, "Parameters").value == f"{summarize(config).total_parameters:,}"
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
        "assert any('block1.conv' in c.proto.json for c in app.main.get('bidi_component'))\n"
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


def bars_of(app: Any) -> str:
    """The bars that show where parameters and MACs sit."""
    return next(
        found.proto.body for found in app.main.get("html") if "class='nin-bars'" in found.proto.body
    )


NETWORKS = [summarize(config, 8) for config in (*PRESETS.values(), *ODD.values())]


# --- the figures ------------------------------------------------------------------------------


def lines(markup: str) -> list[list[tuple[str, list[float], str, str]]]:
    """Both panels of the bars: per line its name, its bars' widths, its figures, its tooltip."""
    return [
        [
            (
                name,
                [float(end) for end in re.findall(r"--\w:([\d.]+)%", ends)],
                shown,
                unescape(told),
            )
            for told, name, ends, shown in re.findall(
                r"<div title='([^']*)'><em>(.*?)</em><s.*? style='(.*?)'></s>(<b>.*?</b>)</div>",
                panel,
            )
        ]
        for panel in markup.split("<h4>")[1:]
    ]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("granularity", ["layer", "block"])
def test_bars_are_to_scale_and_add_up(network: NetworkSummary, granularity: Any) -> None:
    other = summarize(PRESETS["nin-cifar10"])
    beside = network.layers != other.layers
    wholes = (
        (network.total_parameters, other.total_parameters),
        (network.total_macs, other.total_macs),
    )
    panels = lines(bars.where(network, other, granularity))
    assert len(panels) == 2
    for panel, (whole, other_whole) in zip(panels, wholes, strict=True):
        assert len({name for name, *_ in panel}) == len(panel)
        counts = [
            [int(count.replace(",", "")) for count in re.findall(r": ([\d,]+) \(", told)]
            for *_, told in panel
        ]
        assert sum(count[0] for count in counts) == whole
        if beside:
            assert sum(count[1] for count in counts) == other_whole
        # Of windows and 1×1 together, then of the other network: as long as they should be.
        longest = max(max(c[0], c[-1] * beside) for c in counts)
        for (_, widths, shown, _), count in zip(panel, counts, strict=True):
            assert len(widths) == 2 + beside
            assert widths[0] <= widths[1]
            assert widths[1] == pytest.approx(100 * count[0] / longest, abs=0.011)
            assert count[0] == 0 or numbers.share(count[0] / whole) in shown
            if beside:
                assert widths[2] == pytest.approx(100 * count[1] / longest, abs=0.006)
                assert count[1] == 0 or f"<small>{numbers.share(count[1] / other_whole)}" in shown
        assert max(widths[1] for _, widths, *_ in panel) <= 100.01


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


def test_what_the_head_saves() -> None:
    network = summarize(PRESETS["nin-224"])
    dense = (384 * 5 * 5 + 1) * 4096 + 4097 * 4096 + 4097 * 10
    then = 1_992_166 - 34_790 + dense
    note = notes.head_note(network)
    assert f"{then / 1e6:.1f} M" in note
    assert f"saves {100 * (1 - 1_992_166 / then):.0f} %" in note
