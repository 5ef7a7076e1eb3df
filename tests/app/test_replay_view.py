"""The view "Learning, replayed" without a browser: each moment's numbers, and every state it has.

Nothing ticks here; following is tested in the browser.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from streamlit.testing.v1 import AppTest

from nin_core import NiNConfig
from nin_core.features import extract_feature_maps, load_model, untrained_model
from nin_core.recipes import RECIPES
from nin_core.records import MetricRow, WorkerId
from nin_core.snapshots import Snapshots, Taken, halved
from nin_core.store import RunStore, StoreError
from tests.app.test_feature_maps import (
    NETWORK,
    _shapes_once,  # noqa: F401  an autouse fixture
    add_run,
    fed,
    opened,
    said,
    shape_image,
    show,
    widget,
)
from ui.components.sprite import quantise, reel
from ui.curves import History
from ui.feature_views import moments
from ui.feature_views.moments import FILM_BYTES, KeptArrays, Moment, channels_at_once
from ui.feature_views.replay import position

STEPS = (0, 10, 40)


def add_replay(
    store: RunStore,
    network: NiNConfig = NETWORK,
    steps: tuple[int, ...] = STEPS,
    *,
    latest: int = 40,
    running: bool = False,
) -> tuple[int, dict[int, bytes]]:
    """A run with snapshots, as a worker would have left it; with the weights by step."""
    run_id = store.create(network, RECIPES["fast"].configure(network), "shapes")
    attempt = store.claim(run_id, WorkerId("elsewhere", 1))
    assert attempt is not None
    kept: dict[int, bytes] = {}
    for step in steps:
        tensors = halved(untrained_model(network, seed=step).state_dict())
        assert Snapshots(store.database).add(run_id, attempt, Taken(step, 1, tensors))
        kept[step] = save(tensors)
    weights = save(untrained_model(network, seed=latest).state_dict())
    store.save_checkpoint(run_id, latest, 1, weights)
    kept.setdefault(latest, weights)
    rows = [
        MetricRow("step", 1, 1, 1.0, train_loss=2.5),
        MetricRow("step", 1, 10, 1.0, train_loss=1.5, test_accuracy=0.25, test_examples=100),
        MetricRow("epoch", 1, latest, 1.0, train_loss=0.5, test_accuracy=0.75, test_examples=900),
    ]
    store.add_metrics(run_id, rows, attempt=attempt)
    if not running:
        store.transition(run_id, "finished", attempt=attempt)
    return run_id, kept


def told(app: AppTest, component: str) -> dict[str, Any]:
    """What the page's only component of this kind was told."""
    found = [
        json.loads(one.proto.json)
        for one in app.main.get("bidi_component")
        if one.proto.component_name == component
    ]
    assert len(found) == 1
    return found[0]


def frames(app: AppTest) -> list[np.ndarray]:
    """The numbers of the film's moments, as they were sent."""
    parcels = {}
    for one in app.main.get("bidi_component"):
        if one.proto.component_name == "nin_parcel":
            data = one.proto.bytes
            length = struct.unpack("<I", data[:4])[0]
            parcels[json.loads(data[4 : 4 + length])["id"]] = data[4 + length :]
    data = told(app, "nin_sprite")
    count = int(np.prod(data["shape"]))
    return [
        np.frombuffer(parcels[frame["parcel"]], "<i2", count).reshape(data["shape"])
        for frame in data["frames"]
    ]


def maps_at(blob: bytes, layer: str) -> np.ndarray:
    return extract_feature_maps(load_model(NETWORK, blob), fed(NETWORK, shape_image()))[layer]


def layer(app: AppTest, name: str) -> AppTest:
    widget(app, "selectbox", "Layer").set_value(name).run()
    assert not app.exception
    return app


def look_at(app: AppTest, what: str) -> AppTest:
    app.main.segmented_control(key="fm:re:shown").set_value(what).run()
    assert not app.exception
    return app


class TestARun:
    @pytest.fixture
    def kept(self, store: RunStore) -> dict[int, bytes]:
        return add_replay(store)[1]

    @pytest.mark.parametrize("name", ["block1.relu_1", "pool1", "block2.conv1x1_1"])
    def test_every_moment_is_that_snapshots_on_one_scale(
        self, kept: dict[int, bytes], name: str
    ) -> None:
        app = layer(opened(view="replay"), name)
        expected = [maps_at(kept[step], name) for step in STEPS]
        reach = max(np.abs(maps).max() for maps in expected)
        sent = frames(app)
        assert len(sent) == len(STEPS)
        for numbers, maps in zip(sent, expected, strict=True):
            np.testing.assert_array_equal(numbers, quantise(maps, reach)[0])
        data = told(app, "nin_sprite")
        low, high = (edge / 10.0 ** data["decimals"] for edge in data["scale"])
        assert high == pytest.approx(max(0.0, *(maps.max() for maps in expected)))
        assert low == pytest.approx(min(0.0, *(maps.min() for maps in expected)))
        assert data["signed"] == (low < 0)

    def test_filters_are_the_weights(self, kept: dict[int, bytes]) -> None:
        app = look_at(layer(opened(view="replay"), "block2.relu"), "filters")
        widget(app, "number_input", "Filters that read channel (0 to 3)").set_value(2).run()
        weights = [load(kept[step])["block2.conv.weight"][:, 2].float().numpy() for step in STEPS]
        reach = max(np.abs(one).max() for one in weights)
        for numbers, one in zip(frames(app), weights, strict=True):
            np.testing.assert_array_equal(numbers, quantise(one, reach)[0])
        assert told(app, "nin_sprite")["title"].startswith("6 filters of 3×3")

    def test_a_1x1_convolutions_filters_are_its_matrix(self, kept: dict[int, bytes]) -> None:
        app = look_at(layer(opened(view="replay"), "block1.relu_1"), "filters")
        weights = [load(kept[s])["block1.conv1x1_1.weight"][:, :, 0, 0] for s in STEPS]
        reach = max(float(one.float().abs().max()) for one in weights)
        for numbers, one in zip(frames(app), weights, strict=True):
            np.testing.assert_array_equal(numbers[0], quantise(one.float().numpy(), reach)[0])
        assert told(app, "nin_sprite")["shape"] == [1, 7, 5]

    def test_a_pooling_has_no_filters(self, kept: dict[int, bytes]) -> None:
        app = look_at(layer(opened(view="replay"), "block1.relu"), "filters")
        layer(app, "pool1")
        assert told(app, "nin_sprite")["shape"][1:] == [6, 6]

    def test_the_slider_says_what_was_known_by_then(self, kept: dict[int, bytes]) -> None:
        data = told(opened(view="replay"), "nin_replay")
        assert [moment["step"] for moment in data["moments"]] == list(STEPS)
        before, middle, last = data["moments"]
        assert before["title"] == "Before the first step"
        assert before["accuracy"] == "Test accuracy: not measured yet"
        assert middle["title"] == "Step 10 · epoch 1"
        assert middle["accuracy"] == "Test accuracy 25.0\u00a0%"
        assert middle["loss"] == "Training loss 1.500"
        assert last["accuracy"] == "Test accuracy 75.0\u00a0%"
        assert last["loss"] == "Training loss 1.500 (at step 10)"
        assert data["curves"]["accuracy"] == [[10, 0.25], [40, 0.75]]
        assert data["curves"]["loss"] == [[1, 2.5], [10, 1.5]]
        assert data["curves"]["end"] == "step 40"

    def test_another_picture_is_another_film(self, kept: dict[int, bytes]) -> None:
        app = opened(view="replay")
        before = frames(app)
        widget(app, "number_input", "Number (0–99)").set_value(3).run()
        assert not app.exception
        assert not np.array_equal(before[-1], frames(app)[-1])


def test_weights_further_on_than_the_last_snapshot_are_a_moment(store: RunStore) -> None:
    _, kept = add_replay(store, latest=55, running=True)
    app = layer(opened(view="replay"), "block1.relu")
    data = told(app, "nin_replay")
    assert [moment["step"] for moment in data["moments"]] == [*STEPS, 55]
    assert data["moments"][-1]["title"] == "Step 55 · epoch 1 · latest"
    maps = [maps_at(kept[step], "block1.relu") for step in (*STEPS, 55)]
    reach = max(np.abs(one).max() for one in maps)
    np.testing.assert_array_equal(frames(app)[-1], quantise(maps[-1], reach)[0])
    assert widget(app, "toggle", "Follow it while it trains").value is True


def test_a_snapshot_that_went_meanwhile_is_left_out(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_replay(store)
    load_one = Snapshots.load
    monkeypatch.setattr(
        Snapshots,
        "load",
        lambda self, run_id, step: None if step == 10 else load_one(self, run_id, step),
    )
    app = opened(view="replay")
    assert [moment["step"] for moment in told(app, "nin_replay")["moments"]] == [0, 40]
    assert len(frames(app)) == 2


def test_a_layer_that_is_too_large_for_one_film_comes_in_parts(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_replay(store)
    values = 14 * 14
    monkeypatch.setattr(moments, "FILM_BYTES", 2 * values * len(STEPS) * 3)
    app = layer(opened(view="replay"), "block1.relu")  # 5 channels of 14×14
    assert told(app, "nin_sprite")["labels"] == ["0", "1", "2"]
    widget(app, "selectbox", "Channels").set_value(3).run()
    assert not app.exception
    assert told(app, "nin_sprite")["labels"] == ["3", "4"]
    assert told(app, "nin_sprite")["shape"] == [2, 14, 14]


# --- nothing to replay ------------------------------------------------------------------------


def test_an_untrained_network(store: RunStore) -> None:
    app = opened(view="replay")
    assert "An untrained network has nothing to replay" in said(app, "info")


def test_a_run_without_snapshots(store: RunStore) -> None:
    run_id = add_run(store)
    app = opened(view="replay")
    assert f"Run #{run_id} kept no snapshots of its weights; start one like it" in said(app, "info")


def test_a_run_that_has_just_begun(store: RunStore) -> None:
    add_run(store, running=True)
    assert "has not kept a second moment yet" in said(opened(view="replay"), "info")


def test_imported_weights(store: RunStore) -> None:
    add_run(store, step=0)
    assert "Imported weights have no training" in said(opened(view="replay"), "info")


def test_a_network_that_is_too_large_for_snapshots(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run(store)
    monkeypatch.setattr("nin_core.snapshots.MAX_BYTES", 100)
    assert "too large for snapshots" in said(opened(view="replay"), "info")


def test_a_diverged_run_is_shown_as_it_is(store: RunStore) -> None:
    run_id, _ = add_replay(store)
    broken = {
        name: torch.full_like(value, float("nan")) if value.is_floating_point() else value
        for name, value in untrained_model(NETWORK).state_dict().items()
    }
    Snapshots(store.database).add(run_id, store.get(run_id).attempt, Taken(40, 1, halved(broken)))
    app = opened(view="replay")
    assert told(app, "nin_sprite")["frames"][-1]["broken"] == 5


def test_a_store_that_fails_is_said(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    add_replay(store)

    def fail(self: Snapshots, run_id: int) -> None:
        raise StoreError("the database is locked.")

    monkeypatch.setattr(Snapshots, "all", fail)
    assert "The run store cannot be used: the database is locked." in said(
        opened(view="replay"), "error"
    )


def test_other_views_and_back(store: RunStore) -> None:
    add_replay(store)
    app = show(show(opened(view="replay"), "maps"), "replay")
    assert len(frames(app)) == len(STEPS)


# --- parts ------------------------------------------------------------------------------------


def test_kept_arrays_are_bounded_and_drop_the_longest_unused() -> None:
    kept = KeptArrays(3 * 80)
    made: list[str] = []

    def ask(name: str) -> None:
        kept.get(name, lambda: made.append(name) or np.zeros(10))

    for name in ("a", "b", "c", "a", "d", "a", "b"):
        ask(name)
    assert made == ["a", "b", "c", "d", "b"]
    assert kept.size == 3 * 80
    assert kept.get("gone", lambda: None) is None
    assert kept.size == 3 * 80


@pytest.mark.parametrize("count", [2, 17, 40])
@pytest.mark.parametrize("values", [1, 54 * 54, 400 * 400])
def test_a_film_fits_its_bytes(count: int, values: int) -> None:
    channels = channels_at_once(count, values)
    assert channels == 1 or channels * values * count * 2 <= FILM_BYTES


def test_a_reel_needs_moments_of_one_shape() -> None:
    with pytest.raises(ValueError, match="one shape"):
        reel([])
    with pytest.raises(ValueError, match="one shape"):
        reel([np.zeros((1, 2, 2)), np.zeros((1, 3, 3))])


def test_moments_that_are_equal_are_one_parcel() -> None:
    still = reel([np.ones((1, 2, 2)), np.zeros((1, 2, 2)), np.ones((1, 2, 2))])
    ids = [frame.parcel.id for frame in still.frames]
    assert ids[0] == ids[2] != ids[1]
    assert still.scale == (0.0, 1.0)
    assert still.frames[1].dead == [0]


def test_a_position_without_any_measurement() -> None:
    found = position(Moment(1, 5, 1, 0.0), History())
    assert found.accuracy == "Test accuracy: not measured yet"
    assert found.loss == "Training loss: not measured yet"
