"""The view "What a channel does" without a browser: its numbers, and every state it can be in.

`run_every` does not tick here, so the tests wait for the background themselves and run again.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, NiNConfig
from nin_core.channels import (
    ablate,
    ablation_ranking,
    importance,
    input_gradient,
    map_gradients,
    most_exciting,
)
from nin_core.data import balanced_sample
from nin_core.datasets import DATASETS
from nin_core.features import class_maps, extract_feature_maps, untrained_model
from nin_core.predictions import PreparedImages
from nin_core.receptive_field import Step, receptive_field
from nin_core.store import RunStore
from tests.app.test_feature_maps import (
    NETWORK,
    add_run,
    fed,
    load_once,
    opened,
    pictures,
    said,
    settled,
    shape_image,
    show,
    tables,
    widget,
)
from ui.components.sprite import quantise
from ui.feature_views import channel_figures, channel_work
from ui.feature_views.tables import value

LAYER = "block1.relu_1"
NORM = "block1.bn_1"
SHAPES = DATASETS["shapes"]


@pytest.fixture(autouse=True)
def _shapes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nin_core.data.load_dataset", load_once)
    # A small sample at first: all that is shown, from fewer images.
    monkeypatch.setattr(channel_work, "PATIENCE_SECONDS", 0.0)


def channels_view(store: RunStore, network: NiNConfig = NETWORK, **changes: Any) -> AppTest:
    run_id = add_run(store, network, **changes)
    app = show(opened(run=str(run_id)), "channels")
    app.main.selectbox(key="fm:layer").set_value(LAYER).run()
    return settled(app)


def trained_model(store: RunStore, seed: int = 1) -> torch.nn.Sequential:
    return untrained_model(NETWORK, seed)


def sample() -> tuple[np.ndarray, PreparedImages, torch.Tensor]:
    """What the view looks at first: numbers, images, labels."""
    shapes = load_once("shapes")
    chosen = balanced_sample(shapes.test_labels, 500)
    images = PreparedImages(shapes.test_images[chosen], NETWORK, SHAPES.mean, SHAPES.std)
    return chosen.numpy(), images, shapes.test_labels[chosen]


def look_at(app: AppTest, question: str) -> AppTest:
    app.main.segmented_control(key="fm:ch:question").set_value(question).run()
    return settled(app)


def choose_channel(app: AppTest, channel: int) -> AppTest:
    widget(app, "number_input", "Channel (0 to 6)").set_value(channel).run()
    return settled(app)


def captions(app: AppTest) -> str:
    return said(app, "caption")


def test_channels_stand_in_the_order_that_is_chosen(store: RunStore) -> None:
    app = channels_view(store)
    model, image = trained_model(store), fed(NETWORK, shape_image())
    maps = extract_feature_maps(model, image, [LAYER])[LAYER]
    answer = int(class_maps(model, image).logits.argmax())
    amounts = importance(maps, map_gradients(model, image, LAYER, answer))
    scores = {
        "mean": maps.mean(axis=(1, 2)),
        "maximum": maps.max(axis=(1, 2)),
        "active": (maps > 0).mean(axis=(1, 2)),
        "importance": np.abs(amounts),
        "number": -np.arange(7),
    }
    for name, score in scores.items():
        app.main.selectbox(key="fm:ch:order").set_value(name).run()
        order = np.argsort(-score, kind="stable")
        told, numbers = pictures(app)["fm-channels"]
        assert told["labels"] == [str(channel) for channel in order], name
        assert (numbers == quantise(maps[order])[0]).all()
        assert told["selected"] == list(order).index(0)  # channel 0 is chosen, wherever it is


def test_the_chosen_channels_habits_and_the_dead_are_counted(store: RunStore) -> None:
    model = untrained_model(NETWORK, 1)
    with torch.no_grad():  # the batch norm before the ReLU always gives -1
        model.get_submodule(NORM).weight[[2, 5]] = 0
        model.get_submodule(NORM).bias[[2, 5]] = -1
    app = channels_view(store, weights=save(model.state_dict()))
    text = captions(app)
    assert "2 of 7 channels are zero everywhere for this picture, marked with a cross: 2, 5" in text
    assert "2 of 7 channels are dead, zero everywhere in 500 test images: 2, 5." in text
    app = choose_channel(app, 3)
    found = most_exciting(model, sample()[1], LAYER)
    habits = next(table for table in tables(app) if "Channel 3" in table)
    for number in (found.mean[3], found.maximum[3]):
        assert value(number) in habits
    app = choose_channel(app, 5)
    assert "Channel 5 is dead: no test image excites it" in said(app, "info")


def test_the_tiles_are_the_most_exciting_places_cut_to_their_fields(store: RunStore) -> None:
    app = choose_channel(channels_view(store), 4)
    numbers, images, labels = sample()
    found = most_exciting(trained_model(store), images, LAYER)
    html = next(h.proto.body for h in app.main.get("html") if "class='nin-tile'" in h.proto.body)
    assert re.findall(r"test image ([\d,]+)</span>", html) == [
        f"{numbers[index]:,}" for index in found.index[4]
    ]
    assert re.findall(r"<figcaption><b>(.*?)</b> · (\w+)", html) == [
        (value(v), SHAPES.class_names[int(labels[index])])
        for index, v in zip(found.index[4], found.value[4], strict=True)
    ]
    # A 5×5 window with stride 2 and padding 2.
    for row, column in zip(found.row[4], found.column[4], strict=True):
        rows, columns = (
            f"{max(2 * at - 2, 0)}–{min(2 * at + 2, 27)}" for at in (int(row), int(column))
        )
        assert f"rows {rows}, columns {columns}" in html
    assert "5×5 pixels, framed in the image" in captions(app)


def test_a_crop_is_the_pixels_of_the_field_and_see_through_where_padding_is() -> None:
    picture = np.arange(100, dtype=np.uint8).reshape(10, 10)
    corner = receptive_field([Step(5, 2, 2, 5)], 10, 0)
    middle = receptive_field([Step(5, 2, 2, 5)], 10, 2)
    crop = channel_figures.field_crop(picture, corner, middle)
    assert crop.shape == (5, 5, 4)
    assert (crop[2:, :, 0] == picture[:3, 2:7]).all()
    assert (crop[2:, :, 3] == 255).all() and not crop[:2, :, 3].any()
    everything = receptive_field([Step(10, 1, 0, 1)], 10, 0)
    assert (channel_figures.field_crop(picture, everything, everything)[..., 0] == picture).all()


def test_switching_channels_off_shows_both_answers_and_both_accuracies(store: RunStore) -> None:
    app = choose_channel(channels_view(store), 3)
    button = next(b for b in app.main.get("button") if b.label == "Switch channel 3 off")
    button.click().run()
    app = settled(app)
    assert app.session_state["fm:ch:question"] == "off"
    widget(app, "multiselect", "Channels switched off").set_value([3, 0, 6]).run()
    app = settled(app)
    model, image = trained_model(store), fed(NETWORK, shape_image())
    off = ablate(model, LAYER, [0, 3, 6])
    before, after = class_maps(model, image), class_maps(off, image)
    figure = next(
        data["figure"]["data"]
        for data in components(app, "nin_plot")
        if data["key"] == "fm-ch-logits"
    )
    assert figure[0]["y"] == pytest.approx(before.logits.tolist(), abs=1e-5)
    assert figure[1]["y"] == pytest.approx(after.logits.tolist(), abs=1e-5)
    text = said(app, "markdown")
    assert "Without these 3 channels, the answer" in text
    _, images, labels = sample()
    with torch.no_grad():
        batch = images[0:500]
        right = [int((net(batch).argmax(1) == labels).sum()) / 500 * 100 for net in (model, off)]
    shown = re.search(r"Test accuracy: ([\d.]+)\s%\s→\s\*\*([\d.]+)\s%", text)
    assert [float(number) for number in shown.groups()] == pytest.approx(right, abs=0.051)
    assert "on 500 test images" in text


def test_the_ranking_is_worked_out_when_asked_for_and_then_orders_the_maps(
    store: RunStore,
) -> None:
    app = look_at(channels_view(store), "ranking")
    button = next(b for b in app.main.get("button") if b.label.startswith("Rank the 7 channels"))
    button.click().run()
    app = settled(app)
    _, images, labels = sample()
    *_, found = ablation_ranking(trained_model(store), images, labels, LAYER)
    bars = next(
        data["figure"]["data"][0]
        for data in components(app, "nin_plot")
        if data["key"] == "fm-ch-ranking"
    )
    assert bars["x"] == [str(channel) for channel in found.order]
    assert bars["y"] == pytest.approx((found.lost[found.order] * 100).tolist(), abs=1e-4)
    app.main.selectbox(key="fm:ch:order").set_value("lost").run()
    assert pictures(app)["fm-channels"][0]["labels"] == [
        str(channel) for channel in np.argsort(-found.lost, kind="stable")
    ]


def test_gradients_are_drawn_for_the_class_that_is_chosen(store: RunStore) -> None:
    app = look_at(channels_view(store), "gradients")
    model, image = trained_model(store), fed(NETWORK, shape_image())
    app.main.selectbox(key="fm:ch:class:10").set_value(6).run()
    drawn = pictures(app)
    pixels = input_gradient(model, image, 6)
    told, numbers = drawn["fm-ch-input-gradient"]
    assert told["signed"]
    assert (np.abs(numbers - quantise(pixels)[0].astype(int)) <= 1).all()
    gradients = map_gradients(model, image, LAYER, 6)
    assert (np.abs(drawn["fm-ch-map-gradients"][1] - quantise(gradients)[0].astype(int)) <= 1).all()


def components(app: AppTest, name: str) -> list[dict[str, Any]]:
    return [
        json.loads(component.proto.json)
        for component in app.main.get("bidi_component")
        if component.proto.component_name == name
    ]


def test_a_run_that_trains_keeps_its_weights_in_this_view_until_asked(store: RunStore) -> None:
    run_id = add_run(store, running=True)
    app = settled(show(opened(run=str(run_id)), "channels"))
    first = pictures(app)["fm-channels"][1]
    newer = untrained_model(NETWORK, seed=77)
    store.save_checkpoint(run_id, 20, 2, save(newer.state_dict()))
    app = settled(app)
    assert (pictures(app)["fm-channels"][1] == first).all()
    next(b for b in app.main.get("button") if b.label == "Take its newer weights").click().run()
    app = settled(app)
    maps = extract_feature_maps(newer, fed(NETWORK, shape_image()), ["block1.relu"])["block1.relu"]
    assert (pictures(app)["fm-channels"][1] == quantise(maps)[0]).all()


def test_other_classes_than_the_images_have_no_test_accuracy(store: RunStore) -> None:
    network = dataclasses.replace(
        NETWORK,
        num_classes=3,
        blocks=(NETWORK.blocks[0], dataclasses.replace(NETWORK.blocks[1], channels=(6, 3))),
    )
    app = look_at(channels_view(store, network), "ranking")
    assert "3 classes" in captions(app) and "so there is no test accuracy" in captions(app)
    assert not [b for b in app.main.get("button") if b.label.startswith("Rank")]


def test_a_diverged_run_says_so(store: RunStore) -> None:
    model = untrained_model(NETWORK)
    with torch.no_grad():
        model.block1.conv.weight.fill_(float("nan"))
    app = channels_view(store, weights=save(model.state_dict()))
    assert "this run diverged, so its channels say nothing" in said(app, "warning")


def test_how_many_images_are_looked_at_follows_from_what_they_cost() -> None:
    info = DATASETS["fashion-mnist"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel_work, "PATIENCE_SECONDS", 10.0)
        sizes, cheap = channel_work.sample_sizes(info, PRESETS["nin-slim-128"])
        _, dear = channel_work.sample_sizes(info, PRESETS["nin-224"])
    assert sizes == [500, 2000, 10000]
    assert cheap == 10000 and dear == 500
