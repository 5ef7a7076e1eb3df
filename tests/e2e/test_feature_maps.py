"""The Feature maps page in a real browser: a trained run's own numbers, and uploads."""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from nin_core import PRESETS
from nin_core.features import class_maps, extract_feature_maps, load_model
from nin_core.images import to_network_input
from nin_core.jobs import start_run
from nin_core.recipes import RECIPES
from nin_core.store import RunStore
from tests.e2e.harness import (
    Dashboard,
    cell_on_screen,
    choose,
    pick,
    upload,
    visit,
    wait_idle,
)

if TYPE_CHECKING:
    from nin_core.data import Dataset

UPLOAD = "PNG, JPEG or WebP, at most 5 MB and 4 megapixels"
NETWORK = PRESETS["nin-slim-128"]


@pytest.fixture(scope="module")
def run_id(server: Dashboard, fashion_mnist: Dataset) -> int:
    """A run of the tutorial's slim network on a tenth of the real images."""
    store = RunStore(server.store_url)
    train = RECIPES["fast"].configure(NETWORK, subset=6000)
    run = start_run(store, NETWORK, train, "fashion-mnist")
    deadline = time.monotonic() + 600
    while store.get(run).worker is not None or store.get(run).state == "queued":
        assert time.monotonic() < deadline, store.get(run)
        time.sleep(0.2)
    assert store.get(run).state == "finished", store.get(run).error
    return run


def opened(page: Page, server: Dashboard, run_id: int) -> None:
    visit(page, server, f"/feature_maps?run={run_id}")
    expect(page.locator(".nin-sprite-title").first).to_be_visible()
    wait_idle(page)


def test_hover_reads_the_value_of_the_runs_own_map(
    server: Dashboard, page: Page, run_id: int, fashion_mnist: Dataset
) -> None:
    opened(page, server, run_id)
    choose(page, "Class", "Bag")
    choose(page, "Layer", "Block 2 · 1×1 convolution 2 + ReLU")
    number = int(np.flatnonzero(fashion_mnist.test_labels.numpy() == 8)[0])
    model = load_model(NETWORK, RunStore(server.store_url).load_checkpoint(run_id).blob)
    image = to_network_input(
        fashion_mnist.test_images[number].numpy(),
        channels=1,
        side=28,
        network=NETWORK,
        mean=fashion_mnist.mean,
        std=fashion_mnist.std,
    ).network_input
    maps = extract_feature_maps(model, image, ["block2.relu_2"])["block2.relu_2"]
    for channel, row, column in ((0, 0, 0), (5, 7, 3), (15, 13, 13)):
        page.mouse.move(*cell_on_screen(page, channel, row, column, "fm-after"))
        tip = page.locator(".st-key-fm-after .nin-sprite-tip")
        expect(tip).to_contain_text(f"channel {channel} · row {row}, column {column}")
        value = float(re.search(r"· (−?[\d.]+)", tip.inner_text().split("column")[1])[1])
        assert value == pytest.approx(float(maps[channel, row, column]), abs=1e-2)
    answer = class_maps(model, image)
    best = int(answer.logits.argmax())
    said = page.get_by_text(re.compile(r"^It says "))
    expect(said).to_contain_text(fashion_mnist.class_names[best])
    expect(said).to_contain_text(f"{100 * answer.probabilities[best]:.1f} %")


def test_a_clicked_pixel_of_a_trained_run_is_followed_through_the_1x1_layers(
    server: Dashboard, page: Page, run_id: int
) -> None:
    opened(page, server, run_id)
    pick(page, "View", "The 1×1 lens")
    page.mouse.click(*cell_on_screen(page, 2, 11, 17, "fm-lens"))
    heading = page.get_by_text("Pixel (11, 17) through block 1's 1×1 layers")
    expect(heading).to_be_visible()


def test_a_1x1_layer_shows_its_maps_before_and_after(
    server: Dashboard, page: Page, run_id: int
) -> None:
    opened(page, server, run_id)
    choose(page, "Layer", "Block 1 · 1×1 convolution 1 + ReLU")
    titles = page.locator(".nin-sprite-title")
    expect(titles.filter(has_text="6 maps of 30×30")).to_have_count(2)


def test_a_good_upload_is_answered_and_a_broken_one_gets_a_sentence(
    server: Dashboard, page: Page, run_id: int
) -> None:
    opened(page, server, run_id)
    pick(page, "Picture", "Upload")
    upload(page, UPLOAD, "broken.png", b"\x89PNG\r\n\x1a\n and then nothing that makes sense")
    alert = page.get_by_test_id("stAlert")
    expect(alert.first).to_be_visible()
    expect(alert.first).to_contain_text(re.compile("PNG|picture|image", re.IGNORECASE))

    picture = Image.new("RGB", (200, 120), "white")
    picture.paste((20, 20, 120), (60, 20, 140, 100))
    data = io.BytesIO()
    picture.save(data, "JPEG")
    upload(page, UPLOAD, "bag.jpg", data.getvalue(), "image/jpeg")
    expect(page.get_by_text(re.compile(r"^It says "))).to_be_visible()
    expect(page.get_by_text("Its background is bright")).to_be_visible()


def test_an_untrained_network_is_there_without_any_run(
    start_server: object, page: Page, fashion_mnist: Dataset
) -> None:
    server = start_server()
    visit(page, server, "/feature_maps?net=nin-28")
    expect(page.get_by_text("No run has weights yet")).to_be_visible()
    expect(page.locator(".nin-sprite-title").first).to_contain_text("32 maps of 28×28")
