"""What a channel does, in a browser: crops, channels switched off, the ranking with progress."""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from nin_core.channels import (
    Ablation,
    ablate,
    ablation_accuracy,
    ablation_ranking,
    most_exciting,
)
from nin_core.data import load_dataset
from nin_core.features import class_maps
from nin_core.predictions import PreparedImages
from tests.e2e.harness import Dashboard, cell_on_screen, pick, visit, wait_idle
from tests.e2e.test_beside import LAYER, NETWORK, SHAPES, Trained, trained
from ui.feature_subject import percent
from ui.feature_views.tables import value

__all__ = ["trained"]  # the fixture

CHANNELS = NETWORK.blocks[0].channels[1]


class Expected:
    """What the view should show of a run, over all test images."""

    def __init__(self, run: Trained) -> None:
        self.run = run
        self.shapes = load_dataset("shapes")
        self.images = PreparedImages(self.shapes.test_images, NETWORK, SHAPES.mean, SHAPES.std)

    @cached_property
    def ranking(self) -> Ablation:
        labels = self.shapes.test_labels
        return list(ablation_ranking(self.run.model, self.images, labels, LAYER))[-1]

    def without(self, channels: list[int]) -> Ablation:
        labels = self.shapes.test_labels
        steps = ablation_accuracy(self.run.model, self.images, labels, LAYER, [channels])
        return list(steps)[-1]


@pytest.fixture(scope="module")
def expected(trained: Trained) -> Expected:
    return Expected(trained)


def opened(page: Page, server: Dashboard, expected: Expected) -> None:
    run = expected.run.run_id
    visit(page, server, f"/feature_maps?run={run}&view=channels&layer={LAYER}")
    expect(page.get_by_text(re.compile("dead"))).to_be_visible()
    wait_idle(page)


def bars(page: Page, key: str) -> list[dict[str, list[object]]]:
    """The bars of a chart as they are drawn: their x and y."""
    chart = page.locator(f".st-key-{key} .nin-plot")
    expect(chart.locator(".barlayer .point").first).to_be_attached()
    return chart.evaluate(
        "node => node.data.map(({x, y}) => ({x: Array.from(x), y: Array.from(y)}))"
    )


def test_the_images_that_excite_a_clicked_channel_most(
    server: Dashboard, page: Page, expected: Expected
) -> None:
    found = most_exciting(expected.run.model, expected.images, LAYER)
    channel = int(np.flatnonzero(~found.dead)[-1])
    opened(page, server, expected)
    pick(page, "Look at", "What excites it")
    page.mouse.click(*cell_on_screen(page, channel, 14, 14, "fm-channels"))
    wait_idle(page)
    expect(page.get_by_text(f"that excite channel {channel} most")).to_be_visible()
    tiles = page.locator(".nin-tile")
    count = int((found.value[channel] != 0).sum())
    expect(tiles).to_have_count(count)
    names = SHAPES.class_names
    for place in range(count):
        number = int(found.index[channel, place])
        name = names[int(expected.shapes.test_labels[number])]
        caption = tiles.nth(place).locator("figcaption")
        expect(caption).to_contain_text(value(float(found.value[channel, place])))
        expect(caption).to_contain_text(f"test image {number:,}")
        expect(caption).to_contain_text(name)
        # The crop is a picture that has loaded, of the receptive field's size.
        sides = tiles.nth(place).locator(".part img").evaluate("e => [e.width, e.naturalWidth]")
        assert sides[1] == NETWORK.blocks[0].kernel_size


def test_channels_switched_off_change_the_logits_and_the_accuracy(
    server: Dashboard, page: Page, expected: Expected
) -> None:
    worst, second = (int(channel) for channel in expected.ranking.order[:2])
    opened(page, server, expected)
    off: list[int] = []
    for channel in (worst, second):
        page.mouse.click(*cell_on_screen(page, channel, 14, 14, "fm-channels"))
        wait_idle(page)
        page.get_by_role("button", name=f"Switch channel {channel} off").click()
        off.append(channel)
        after = expected.without(off)
        said = page.get_by_text(re.compile("^Test accuracy:"))
        expect(said).to_contain_text(
            f"{percent(after.accuracy)} → {percent(after.accuracy_without[0])}"
        )
        wait_idle(page)
        model, image = expected.run.model, expected.run.image
        before, now = bars(page, "fm-ch-logits")
        np.testing.assert_allclose(before["y"], class_maps(model, image).logits, rtol=1e-4)
        assert before["x"] == now["x"] == list(SHAPES.class_names)
        without = class_maps(ablate(model, LAYER, sorted(off)), image).logits
        np.testing.assert_allclose(now["y"], without, rtol=1e-4, atol=1e-5)
        assert now["y"] != before["y"]


def test_the_ranking_shows_how_far_it_is_and_then_every_channel(
    server: Dashboard, page: Page, expected: Expected
) -> None:
    opened(page, server, expected)
    pick(page, "Look at", "Ranking")
    page.evaluate(
        """() => {
            window.progressSeen = [];
            const look = () => {
                const bar = document.querySelector('[data-testid=stProgress]');
                const text = bar?.innerText ?? '';
                if (text && window.progressSeen.at(-1) !== text) window.progressSeen.push(text);
                requestAnimationFrame(look);
            };
            look();
        }"""
    )
    page.get_by_role("button", name=re.compile(f"Rank the {CHANNELS} channels")).click()
    ranking = expected.ranking
    verdict = page.get_by_text(re.compile("^Test accuracy with all channels:"))
    expect(verdict).to_contain_text(percent(ranking.accuracy))
    wait_idle(page)
    seen = page.evaluate("() => window.progressSeen")
    assert any(f"Testing without each of {CHANNELS} channels" in text for text in seen), seen
    (drawn,) = bars(page, "fm-ch-ranking")
    assert drawn["x"] == [str(channel) for channel in ranking.order]
    np.testing.assert_allclose(drawn["y"], ranking.lost[ranking.order] * 100, atol=1e-4)
    # A click on a bar chooses its channel.
    bar = page.locator(".st-key-fm-ch-ranking .barlayer .point").first
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(".st-key-fm-ch-ranking .hoverlayer .hovertext").first).to_be_visible()
    page.mouse.down()
    page.mouse.up()
    wait_idle(page)
    field = page.get_by_test_id("stNumberInput").filter(has_text=f"Channel (0 to {CHANNELS - 1})")
    expect(field.locator("input")).to_have_value(str(int(ranking.order[0])))
