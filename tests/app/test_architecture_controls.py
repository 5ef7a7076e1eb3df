"""The sidebar's controls, in the real dashboard script without a browser."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, NiNConfig, summarize
from nin_core.store import RunStore
from tests.conftest import dashboard

pytestmark = pytest.mark.usefixtures("store")


def network(app: AppTest) -> NiNConfig:
    return app.session_state["nin_config"]


def totals(app: AppTest) -> str:
    return next(
        html.proto.body for html in app.sidebar.get("html") if "nin-totals" in html.proto.body
    )


def widget(app: AppTest, kind: str, label: str) -> Any:
    found = [w for w in app.sidebar.get(kind) if w.label == label]
    assert len(found) == 1, f"{len(found)} {kind} with the label {label}"
    return found[0]


def query(app: AppTest) -> dict[str, str]:
    return dict(app.query_params)


def test_it_starts_with_the_tutorials_slim_network_and_its_totals(store: RunStore) -> None:
    app = dashboard().run()
    assert not app.exception
    assert network(app) == PRESETS["nin-slim-128"]
    assert "10,846" in totals(app)
    assert query(app) == {"net": "nin-slim-128"}


def test_a_slider_moves_the_whole_block_and_the_url() -> None:
    app = dashboard().run()
    widget(app, "slider", "Block 2 channels").set_value(32).run()
    assert network(app).blocks[1].channels == (32, 32, 32)
    assert f"{summarize(network(app)).total_parameters:,}" in totals(app)
    assert query(app) == {"net": "nin-slim-128", "widths": "6-32-24"}


def test_a_slider_keeps_the_proportions_of_unequal_widths_and_returns_to_them() -> None:
    app = dashboard(net="nin-cifar10").run()
    widget(app, "slider", "Block 1 channels").set_value(96).run()
    assert network(app).blocks[0].channels == (96, 80, 48)
    widget(app, "slider", "Block 1 channels").set_value(1).run()
    widget(app, "slider", "Block 1 channels").set_value(192).run()
    assert network(app) == PRESETS["nin-cifar10"]


def test_a_link_brings_its_network() -> None:
    app = dashboard(net="nin-224", widths="10-20-30", head="avg", bn="1").run()
    config = network(app)
    assert (config.widths, config.global_pool, config.batch_norm) == ((10, 20, 30), "avg", True)
    assert query(app) == {"net": "nin-224", "widths": "10-20-30", "head": "avg", "bn": "1"}


def test_a_broken_link_says_so_and_shows_the_preset() -> None:
    app = dashboard(net="nin-224", widths="10-20").run()
    assert not app.exception
    assert "3 would work" in app.sidebar.warning[0].value
    assert network(app) == PRESETS["nin-224"]


def test_an_impossible_network_is_explained_kept_and_mended_with_one_click() -> None:
    app = dashboard().run()
    widget(app, "number_input", "Image size (pixels)").set_value(40).run()
    assert not app.exception
    (error,) = app.sidebar.error
    assert (
        error.value.startswith("Block 2's 3×3 pooling meets a map of 3×3")
        or "leaves" in error.value
    )
    assert widget(app, "number_input", "Image size (pixels)").value == 40
    assert network(app) == PRESETS["nin-slim-128"], "pages go on with the last one that can be"
    for _ in range(9):
        mend = [b for b in app.sidebar.button if b.label == "Use the value that works"]
        if not mend:
            break
        mend[0].click().run()
    assert not app.sidebar.error
    assert network(app).image_size == 40


def test_blocks_and_layers_can_be_added_and_taken_away() -> None:
    app = dashboard().run()
    widget(app, "number_input", "Blocks (the last one makes the class maps)").set_value(5).run()
    assert [b.channels for b in network(app).blocks[3:]] == [(24, 24, 24), (10, 10, 10)]
    widget(app, "number_input", "1×1 convolutions").set_value(0).run()
    assert network(app).blocks[0].channels == (6,)
    widget(app, "number_input", "1×1 convolutions").set_value(4).run()
    assert network(app).blocks[0].channels == (6,) * 5
    widget(app, "number_input", "Blocks (the last one makes the class maps)").set_value(1).run()
    assert len(network(app).blocks) == 1
    assert network(app).blocks[0].channels[-1] == 10
    assert not app.exception


def test_one_layers_width_and_the_number_of_classes() -> None:
    app = dashboard().run()
    widget(app, "number_input", "Channels of 1×1 no. 1").set_value(9).run()
    assert network(app).blocks[0].channels == (6, 9, 6)
    widget(app, "number_input", "Classes").set_value(7).run()
    assert network(app).blocks[-1].channels == (10, 10, 7)
    assert not app.sidebar.error


def test_another_preset_and_back() -> None:
    app = dashboard(widths="7-8-9").run()
    back = next(b for b in app.sidebar.button if b.label == "Back to nin-slim-128")
    back.click().run()
    assert network(app) == PRESETS["nin-slim-128"]
    widget(app, "selectbox", "Preset").set_value("nin-28").run()
    assert network(app) == PRESETS["nin-28"]
    assert query(app) == {"net": "nin-28"}


def test_the_network_survives_a_change_of_page() -> None:
    app = dashboard(net="nin-224", widths="10-20-30").run()
    for page in ("architecture", "training", "feature_maps", "home"):
        app.switch_page(f"pages/{page}.py").run()
        assert not app.exception
        assert network(app).widths == (10, 20, 30)
