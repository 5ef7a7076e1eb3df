"""Side by side in a browser: both values under one pointer, one scale, and what is taken along."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, expect
from torch import nn

from nin_core import PRESETS
from nin_core.data import load_dataset
from nin_core.datasets import DATASETS
from nin_core.features import Array, extract_feature_maps, load_model, untrained_model
from nin_core.images import to_network_input
from nin_core.jobs import start_run
from nin_core.recipes import RECIPES
from nin_core.snapshots import Snapshots
from nin_core.store import RunStore
from tests.e2e.conftest import OpenTab
from tests.e2e.harness import (
    NARROW,
    Dashboard,
    cell_on_screen,
    choose,
    expand,
    pick,
    visit,
    wait_idle,
)

SHAPES = DATASETS["shapes"]
NETWORK = PRESETS["nin-28"].with_widths((6, 8, 8))
LAYER = "block1.relu_1"
LEFT, RIGHT = "fm-beside-left", "fm-beside-right"


class Trained(NamedTuple):
    """A run that trained here, and what it makes of the picture that the page shows first."""

    run_id: int
    model: nn.Sequential
    first: nn.Sequential  # at its first snapshot
    image: torch.Tensor

    def maps(self, model: nn.Sequential) -> Array:
        return extract_feature_maps(model, self.image, [LAYER])[LAYER]


@pytest.fixture(scope="module")
def trained(server: Dashboard) -> Trained:
    store = RunStore(server.store_url)
    run_id = start_run(
        store, NETWORK, RECIPES["fast"].configure(NETWORK, subset=1500, epochs=1), "shapes"
    )
    deadline = time.monotonic() + 300
    while store.get(run_id).worker is not None or store.get(run_id).state == "queued":
        assert time.monotonic() < deadline, store.get(run_id)
        time.sleep(0.2)
    assert store.get(run_id).state == "finished", store.get(run_id).error
    shapes = load_dataset("shapes")
    number = int(np.flatnonzero(shapes.test_labels.numpy() == 0)[0])
    image = to_network_input(
        shapes.test_images[number].numpy(),
        channels=SHAPES.channels,
        side=SHAPES.side,
        network=NETWORK,
        mean=SHAPES.mean,
        std=SHAPES.std,
    ).network_input
    kept = Snapshots(store.database)
    return Trained(
        run_id,
        load_model(NETWORK, store.load_checkpoint(run_id).blob),
        load_model(NETWORK, kept.load(run_id, kept.all(run_id)[0].step)),
        image,
    )


def opened(page: Page, server: Dashboard, trained: Trained, way: str) -> None:
    visit(page, server, f"/feature_maps?run={trained.run_id}&view=beside&layer={LAYER}")
    pick(page, "Compare with another", way)
    expect(page.locator(f".st-key-{RIGHT} .nin-sprite-title")).to_be_visible()
    wait_idle(page)


def read(page: Page, key: str, channel: int, row: int, column: int) -> dict[str, float]:
    """What the tip says at a cell: side -> value."""
    page.mouse.move(*cell_on_screen(page, channel, row, column, key))
    tip = page.locator(f".st-key-{key} .nin-sprite-tip")
    expect(tip).to_contain_text(f"channel {channel} · row {row}, column {column}")
    found = re.findall(r"(left|right) (−?[\d.]+)", tip.inner_text())
    return {side: float(number.replace("−", "-")) for side, number in found}


SPOTS = ((0, 0, 0), (3, 13, 20), (5, 27, 27))


def test_a_pointer_reads_the_same_cell_of_both_moments(
    server: Dashboard, page: Page, trained: Trained
) -> None:
    opened(page, server, trained, "Moment")
    maps = {"left": trained.maps(trained.first), "right": trained.maps(trained.model)}
    step = 1e-3 * max(float(half.max()) for half in maps.values())
    for key, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        for spot in SPOTS:
            said = read(page, key, *spot)
            assert set(said) == {"left", "right"}
            for side, value in said.items():
                assert value == pytest.approx(float(maps[side][spot]), abs=step)
            # The same cell is framed in the other one, too.
            frames = [page.locator(f".st-key-{k} .nin-sprite-cell") for k in (key, other)]
            boxes = [frame.evaluate("e => [e.style.left, e.style.top]") for frame in frames]
            assert boxes[0] == boxes[1]
            expect(frames[1]).to_be_visible()
    page.mouse.move(2, 2)
    expect(page.locator(f".st-key-{LEFT} .nin-sprite-cell")).to_be_hidden()


def test_every_pixel_has_the_colour_of_its_value_on_the_shared_scale(
    server: Dashboard, page: Page, trained: Trained
) -> None:
    opened(page, server, trained, "Run")  # the only other one is the untrained network
    maps = (trained.maps(trained.model), trained.maps(untrained_model(NETWORK, 0)))
    high = max(float(half.max()) for half in maps)
    script = """([key, high, spots]) => {
        const { layout, canvas, scale, data } = window.ninSprites.get(key);
        const context = canvas.getContext("2d");
        return spots.map(([channel, row, column, value]) => {
            const across = channel % layout.columns;
            const down = Math.floor(channel / layout.columns);
            const tile = layout.top + layout.tileHeight + layout.bottom + layout.gap;
            const x = across * (layout.tileWidth + layout.gap) + (column + 0.5) * layout.cell;
            const y = down * tile + layout.top + (row + 0.5) * layout.cell;
            const [r, g, b] = context.getImageData(x, y, 1, 1).data;
            const units = Math.round(value * 10 ** data.decimals);
            return [`rgba(${r},${g},${b},1)`, scale.css[scale.stepOf(units)],
                    scale.reach / 10 ** data.decimals];
        });
    }"""
    rng = np.random.default_rng(0)
    for key, values in zip((LEFT, RIGHT), maps, strict=True):
        # Not at the edges, where the map's frame is drawn.
        spots = [
            (int(rng.integers(6)), int(rng.integers(1, 27)), int(rng.integers(1, 27)))
            for _ in range(40)
        ]
        asked = [[*spot, float(values[spot])] for spot in spots]
        for drawn, expected, reach in page.evaluate(script, [key, high, asked]):
            assert drawn == expected
            assert reach == pytest.approx(high, rel=1e-3)


def test_what_is_taken_along_gives_the_same_arrays_elsewhere(
    server: Dashboard, page: Page, trained: Trained, tmp_path: Path
) -> None:
    opened(page, server, trained, "Moment")
    expand(page, "Take it along")

    def download(label: str) -> Path:
        with page.expect_download(timeout=120_000) as pending:
            page.get_by_test_id("stDownloadButton").get_by_role("button", name=label).click()
        path = tmp_path / pending.value.suggested_filename
        pending.value.save_as(path)
        return path

    arrays = np.load(download("NPZ"))
    assert (arrays["left/input"] == trained.image.numpy()).all()
    for side, model in (("left", trained.first), ("right", trained.model)):
        np.testing.assert_allclose(arrays[f"{side}/{LAYER}"], trained.maps(model), atol=1e-5)
    assert "left/block1.relu_1: the output of layer" in str(arrays["names"])
    with Image.open(download("PNG")) as picture:
        assert picture.format == "PNG"
        assert picture.width > 900
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(download("All with weights and code")) as whole:
        whole.extractall(folder)
    done = subprocess.run(
        [sys.executable, "maps.py"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same") == 4


def test_two_pictures_stand_below_each_other_on_a_telephone(
    server: Dashboard, new_page: OpenTab, trained: Trained
) -> None:
    page = new_page(NARROW)
    opened(page, server, trained, "Picture")
    choose(page, "Order of the channels", "Difference")
    boxes = [page.locator(f".st-key-{key} canvas").first.bounding_box() for key in (LEFT, RIGHT)]
    assert boxes[0]["x"] == boxes[1]["x"]
    assert boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"]
    assert (
        page.evaluate(
            "() => { const main = document.querySelector('[data-testid=stMain]');"
            " return main.scrollWidth - main.clientWidth; }"
        )
        == 0
    )
