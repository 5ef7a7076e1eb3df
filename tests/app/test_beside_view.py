"""The view "Side by side" without a browser: what each side shows, and what does not match."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save
from streamlit.testing.v1 import AppTest

from nin_core import BlockConfig, NiNConfig, PoolConfig
from nin_core.datasets import DATASETS
from nin_core.features import class_maps, extract_feature_maps, load_model, untrained_model
from nin_core.images import to_network_input
from nin_core.snapshots import Snapshots, Taken, halved
from nin_core.store import RunStore
from tests.app.test_feature_maps import (
    NETWORK,
    add_run,
    fed,
    load_once,
    opened,
    pictures,
    said,
    shape_image,
    show,
    tables,
    widget,
)
from ui.components.sprite import quantise
from ui.feature_subject import Subject, percent, picture_of
from ui.feature_views import Scene, beside, picture_file, take_along
from ui.feature_views.stages import paired, stages

LAYER = "block1.relu_1"
LEFT, RIGHT = "fm-beside-left", "fm-beside-right"


@pytest.fixture(autouse=True)
def _shapes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nin_core.data.load_dataset", load_once)


def compared(run_id: int, way: str, layer: str = LAYER) -> AppTest:
    app = show(opened(run=str(run_id)), "beside")
    app.main.segmented_control(key="fm:be:way").set_value(way).run()
    assert not app.exception
    app.main.selectbox(key="fm:layer").set_value(layer).run()
    assert not app.exception
    return app


def of(network: NiNConfig, seed: int, image: Any, layer: str = LAYER) -> np.ndarray:
    return extract_feature_maps(untrained_model(network, seed), image, [layer])[layer]


def shown(app: AppTest, key: str) -> tuple[np.ndarray, dict[str, Any]]:
    told, sent = pictures(app)[key]
    return sent, told


def assert_sides(app: AppTest, left: np.ndarray, right: np.ndarray) -> None:
    """Both sides hold these maps, to the digits that one shared scale leaves."""
    low = min(0.0, float(left.min()), float(right.min()))
    high = max(float(left.max()), float(right.max()))
    for key, maps in ((LEFT, left), (RIGHT, right)):
        sent, told = shown(app, key)
        expected, decimals = quantise(maps, max(-low, high))
        assert (sent == expected).all()
        assert told["decimals"] == decimals
        assert told["scale"] == pytest.approx([low * 10**decimals, high * 10**decimals])
    assert shown(app, LEFT)[1]["partner"] == {"key": RIGHT, "here": "left", "there": "right"}
    assert shown(app, RIGHT)[1]["partner"] == {"key": LEFT, "here": "right", "there": "left"}


def test_two_runs_on_one_scale_with_both_answers(store: RunStore) -> None:
    first, second = add_run(store), add_run(store)
    app = compared(first, "run")
    image = fed(NETWORK, shape_image())
    assert_sides(app, of(NETWORK, first, image), of(NETWORK, second, image))
    headings = [html.proto.body for html in app.main.get("html")]
    assert any(f"<b>Right</b> · #{second}" in text for text in headings)
    answers = tables(app)[-2:]
    for seed, table in zip((first, second), answers, strict=True):
        found = class_maps(untrained_model(NETWORK, seed), image).probabilities
        assert all(percent(share) in table for share in found)
    assert "Runs number their channels each in its own way" in said(app, "caption")


def test_a_run_against_the_untrained_network_of_another_seed(store: RunStore) -> None:
    run_id = add_run(store)
    app = compared(run_id, "run")  # there is no other run
    assert app.main.selectbox(key="fm:be:run").value == "untrained"
    image = fed(NETWORK, shape_image())
    assert_sides(app, of(NETWORK, run_id, image), of(NETWORK, 0, image))
    app.main.number_input(key="fm:be:seed").set_value(run_id).run()
    assert_sides(app, of(NETWORK, run_id, image), of(NETWORK, run_id, image))
    assert "equal to the last bit" in said(app, "caption")


def test_two_moments_are_the_runs_snapshots(store: RunStore) -> None:
    run_id = add_run(store)
    attempt = store.get(run_id).attempt
    kept = Snapshots(store.database)
    models = {step: untrained_model(NETWORK, 50 + step) for step in (0, 3)}
    for step, model in models.items():
        assert kept.add(run_id, attempt, Taken(step, 1, halved(model.state_dict())))
    app = compared(run_id, "moment")
    image = fed(NETWORK, shape_image())

    def at(step: int) -> np.ndarray:
        halves = load_model(NETWORK, save(halved(models[step].state_dict())))
        return extract_feature_maps(halves, image, [LAYER])[LAYER]

    assert_sides(app, at(0), of(NETWORK, run_id, image))
    assert any("step 0 (untrained)" in html.proto.body for html in app.main.get("html"))
    app.main.select_slider(key=f"fm:be:right:{run_id}").set_value(3).run()
    assert_sides(app, at(0), at(3))


def test_without_snapshots_a_sentence_says_so(store: RunStore) -> None:
    app = show(opened(run=str(add_run(store))), "beside")
    app.main.segmented_control(key="fm:be:way").set_value("moment").run()
    assert "kept no snapshots" in said(app, "info")
    untrained = show(opened(run="untrained"), "beside")
    untrained.main.segmented_control(key="fm:be:way").set_value("moment").run()
    assert "one moment only" in said(untrained, "info")


def test_two_pictures_of_one_network_and_one_that_is_kept(store: RunStore) -> None:
    run_id = add_run(store)
    app = compared(run_id, "picture")
    shapes = load_once("shapes")
    number = app.main.number_input(key="fm:be:number").value
    assert int(shapes.test_labels[number]) != 0  # another class than the left one's
    first = of(NETWORK, run_id, fed(NETWORK, shape_image()))
    other = fed(NETWORK, shapes.test_images[number].numpy())
    assert_sides(app, first, of(NETWORK, run_id, other))
    widget(app, "button", "Keep the left one here").click().run()
    app.main.number_input(key="fm:number").set_value(2).run()
    assert not app.exception
    moved = of(NETWORK, run_id, fed(NETWORK, shape_image(2)))
    assert_sides(app, moved, first)
    widget(app, "button", "Back to test images").click().run()
    assert_sides(app, moved, of(NETWORK, run_id, other))


def test_channels_stand_in_one_order(store: RunStore) -> None:
    first, second = add_run(store), add_run(store)
    app = compared(first, "run")
    image = fed(NETWORK, shape_image())
    left, right = of(NETWORK, first, image), of(NETWORK, second, image)
    scores = {
        "difference": np.abs(left - right).mean(axis=(1, 2)),
        "maximum": left.max(axis=(1, 2)),
    }
    for order, values in scores.items():
        app.main.selectbox(key="fm:be:order").set_value(order).run()
        expected = [str(channel) for channel in np.argsort(-values, kind="stable")]
        for key in (LEFT, RIGHT):
            assert shown(app, key)[1]["labels"] == expected


OTHER = NiNConfig(
    in_channels=1,
    image_size=28,
    num_classes=10,
    blocks=(BlockConfig(channels=(9, 12, 10), kernel_size=5, stride=1, padding=2),),
    batch_norm=True,
)


def test_networks_of_other_shapes_say_what_can_be_compared(store: RunStore) -> None:
    first, second = add_run(store), add_run(store, OTHER)
    app = compared(first, "run", stages(NETWORK)[0].after)
    note = said(app, "caption")
    pairs = paired(NETWORK, OTHER)
    total = len(stages(NETWORK))
    assert f"{len(pairs.both)} of the {total} layers of the left network can be compared" in note
    assert "the right one has no " in note
    lonely = pairs.only_left[-1]
    app.main.selectbox(key="fm:layer").set_value(lonely.after).run()
    assert not app.exception
    assert "The right network has no " in said(app, "info")
    assert not pictures(app)
    assert second


def test_a_run_on_other_pictures_gets_the_left_one_in_its_own_format(store: RunStore) -> None:
    colour = replace(NETWORK, in_channels=3, image_size=32)
    first, second = add_run(store), add_run(store, colour, "cifar10")
    app = compared(first, "run")
    image = fed(NETWORK, shape_image())
    info = DATASETS["cifar10"]
    other = to_network_input(
        shape_image(),
        channels=info.channels,
        side=info.side,
        network=colour,
        mean=info.mean,
        std=info.std,
    ).network_input
    assert other.shape == (3, 32, 32)
    assert_sides(app, of(NETWORK, first, image), of(colour, second, other))
    note = said(app, "caption")
    assert "so cells have no counterpart" in note


def test_a_run_that_diverged_gives_sentences(store: RunStore) -> None:
    good = add_run(store)
    state = untrained_model(NETWORK, 1).state_dict()
    broken = {
        name: value * torch.nan if value.is_floating_point() else value
        for name, value in state.items()
    }
    add_run(store, weights=save(broken))
    app = compared(good, "run")
    assert "One side's maps are not numbers" in said(app, "warning")
    assert "Some values are not numbers" in said(app, "caption")


def layers(pairs: Any) -> list[str]:
    return [left.before for left, _ in pairs.both.values()]


def test_layers_correspond_by_name_with_or_without_batch_norm() -> None:
    plain = NiNConfig(
        in_channels=1,
        image_size=20,
        num_classes=3,
        blocks=(
            BlockConfig(channels=(4, 4), kernel_size=3, stride=1, padding=1, pool=PoolConfig(2, 2)),
            BlockConfig(channels=(4, 3), kernel_size=3, stride=1, padding=1),
        ),
    )
    normed = NiNConfig(
        in_channels=1,
        image_size=20,
        num_classes=3,
        blocks=(
            BlockConfig(channels=(4, 6, 5), kernel_size=3, stride=1, padding=1),
            BlockConfig(channels=(4, 3), kernel_size=3, stride=1, padding=1),
        ),
        batch_norm=True,
        final_relu=False,
    )
    pairs = paired(plain, normed)
    assert layers(pairs) == ["block1.conv", "block1.conv1x1_1", "block2.conv", "block2.conv1x1_1"]
    assert [stage.before for stage in pairs.only_left] == ["pool1"]
    assert [stage.before for stage in pairs.only_right] == ["block1.conv1x1_2"]
    stage = pairs.both["block1.relu_1"][0]
    sentence = beside.what_does_not_match(
        pairs, stage, (np.zeros((4, 9, 9), np.float32), np.zeros((6, 9, 9), np.float32))
    )
    assert sentence == (
        "4 of the 5 layers of the left network can be compared; the right one has no Pooling 1; "
        "only the right one has Block 1 · 1×1 convolution 2; Block 1 · 1×1 convolution 1 is 4×9×9 "
        "on the left and 6×9×9 on the right, so channels 4 to 5 have no counterpart."
    )


def test_channels_that_one_side_lacks_stand_last() -> None:
    left = np.zeros((2, 3, 3), np.float32)
    left[1] = 5
    right = np.zeros((4, 3, 3), np.float32)
    assert beside.ranked((left, right), "maximum").tolist() == [1, 0, 2, 3]
    assert beside.ranked((left, right), "difference").tolist() == [1, 0, 2, 3]
    assert beside.ranked((left, right), "number").tolist() == [0, 1, 2, 3]


def test_the_largest_difference_is_found_where_it_is() -> None:
    left = np.zeros((2, 3, 3), np.float32)
    right = left.copy()
    right[1, 2, 0] = -9
    assert beside.how_far_apart(left, right) == (
        "On average |left − right| is 0.5; it is largest in channel 1 at row 2, column 0: 0 and −9."
    )
    right[0, 0, 0] = np.nan
    assert "not numbers" in beside.how_far_apart(left, right)


# --- taking it along --------------------------------------------------------------------------


def scene_of(seed: int, weights: bytes | None = None) -> Scene:
    info = DATASETS["shapes"]
    subject = Subject(("untrained", NETWORK, seed), NETWORK, info, True, weights, seed)
    return Scene(subject, picture_of(subject, shape_image(), key=("shapes", 0), title="A shape"))


def test_weights_are_taken_along_of_runs_and_of_untrained_networks() -> None:
    state = untrained_model(NETWORK, 4).state_dict()
    trained = save({**state, "training/momentum": torch.ones(3)})
    for taken in (
        take_along.weights_of(scene_of(4).subject),
        take_along.weights_of(scene_of(9, trained).subject),
    ):
        found = load(taken)
        assert set(found) == set(state)
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_the_picture_holds_each_cell_in_its_colour() -> None:
    values = np.array([[[0, 1], [-1, 0.5]], [[0, 0], [0, 0]]], np.float32)
    group = picture_file.Group(
        "Left: a network × 2",
        "Bag 98 %",
        np.zeros((4, 4), np.uint8),
        values,
        ["7", "3"],
        (-1.0, 1.0),
    )
    made = Image.open(io.BytesIO(picture_file.png("A layer", [group, group])))
    assert made.format == "PNG"
    pixels = np.asarray(made)
    blue, orange = (0x00, 0x42, 0x80), (0x74, 0x2A, 0x12)
    # The cells are 80 pixels wide, in both groups: at least their middles have the scale's ends.
    for colour in (blue, orange):
        assert 2 * 78 * 78 <= (pixels == colour).all(axis=2).sum() < 2 * 81 * 81
    one = Image.open(io.BytesIO(picture_file.png("A layer", [group])))
    assert one.width < made.width


def test_a_map_on_its_own_scale_reaches_the_end_of_it() -> None:
    values = np.array([[[0, 0.001]], [[0, 100]]], np.float32)
    own = picture_file._colours(
        picture_file.Group("", "", np.zeros((2, 2), np.uint8), values, ["0", "1"], None)
    )
    assert (own[0] == own[1]).all()
    broken = values.copy()
    broken[0, 0, 0] = np.nan
    scale = picture_file.shared_scale(broken, -values)
    assert scale == (-100.0, 100.0)
    colours = picture_file._colours(
        picture_file.Group("", "", np.zeros((2, 2), np.uint8), broken, ["0", "1"], scale)
    )
    assert colours[0][0, 0].tolist() == [200, 0, 200]


def test_the_view_offers_its_files_and_the_lines_that_give_them(store: RunStore) -> None:
    first, second = add_run(store), add_run(store)
    app = compared(first, "run")
    lines = next(code.value for code in app.main.get("code"))
    assert 'arrays["left/input"]' in lines
    assert f'"{LAYER}"' in lines
    assert f"#{second}" in lines
    names = [button.proto.label for button in app.main.get("download_button")]
    assert names == ["PNG", "NPZ", "All with weights and code"]


def test_all_channels_are_taken_along_with_what_goes_in(store: RunStore) -> None:
    run_id = add_run(store)
    app = show(opened(run=str(run_id)), "maps")
    app.main.selectbox(key="fm:layer").set_value(LAYER).run()
    stage = next(stage for stage in stages(NETWORK) if stage.after == LAYER)
    lines = next(code.value for code in app.main.get("code"))
    wanted = f'    [\n        "{stage.entering}",\n        "{LAYER}",\n    ],\n'
    assert wanted in lines
    assert 'arrays["input"]' in lines
    assert f"run {run_id}" in lines
    app.main.segmented_control(key="fm:side").set_value("before").run()
    assert f'"{stage.before}"' in next(code.value for code in app.main.get("code"))
