"""Learning, replayed, in a real browser: what the slider shows, what play does, following a run.

The first run is made here, of networks with known weights; the last one really trains.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from safetensors.torch import save

from nin_core import PRESETS
from nin_core.data import load_dataset
from nin_core.datasets import DATASETS
from nin_core.features import extract_feature_maps, load_model, untrained_model
from nin_core.images import to_network_input
from nin_core.jobs import start_run, stop_run
from nin_core.recipes import RECIPES
from nin_core.records import MetricRow, WorkerId
from nin_core.snapshots import Snapshots, Taken, halved
from nin_core.store import RunStore
from tests.e2e.conftest import OpenTab
from tests.e2e.harness import (
    NARROW,
    Dashboard,
    cell_on_screen,
    choose,
    pick,
    switch,
    visit,
    wait_idle,
)
from ui.components.sprite import quantise

PATIENCE = 300_000  # ms
NETWORK = PRESETS["nin-28"].with_widths((5, 6, 7))
LAYER = "block1.relu"
STEPS = (0, 20, 40, 60)
ACCURACIES = (None, 0.25, 0.5, 0.75)
FILM = "fm-replay-film"

# The value under a cell as the sprite holds it, and the colour that is drawn there with the one
# that its scale has for that value.
CELL = """
([channel, row, column]) => {
    const { canvas, layout, data, arrays, scale } = window.ninSprites.get('fm-replay-film');
    const [, height, width] = data.shape;
    const value = arrays.values[(channel * height + row) * width + column];
    const tile = layout.top + layout.tileHeight + layout.bottom + layout.gap;
    const x = (channel % layout.columns) * (layout.tileWidth + layout.gap)
        + (column + 0.5) * layout.cell;
    const y = Math.floor(channel / layout.columns) * tile + layout.top + (row + 0.5) * layout.cell;
    const drawn = canvas.getContext('2d').getImageData(Math.floor(x), Math.floor(y), 1, 1).data;
    const wanted = new Uint8Array(new Uint32Array([scale.words[scale.stepOf(value)]]).buffer);
    return { value, drawn: [...drawn], wanted: [...wanted], high: scale.high };
}
"""


@pytest.fixture(scope="module")
def maps(server: Dashboard) -> list[np.ndarray]:
    """Adds a run with four snapshots to the store; the numbers that each one's maps should be."""
    store = RunStore(server.store_url)
    run_id = store.create(NETWORK, RECIPES["fast"].configure(NETWORK), "shapes")
    attempt = store.claim(run_id, WorkerId("elsewhere", 1))
    assert attempt is not None
    blobs = []
    for step, accuracy in zip(STEPS, ACCURACIES, strict=True):
        tensors = halved(untrained_model(NETWORK, seed=step).state_dict())
        Snapshots(store.database).add(run_id, attempt, Taken(step, 1, tensors))
        blobs.append(save(tensors))
        if accuracy is not None:
            row = MetricRow("step", 1, step, 1.0, train_loss=1.0, test_accuracy=accuracy)
            store.add_metrics(run_id, [row], attempt=attempt)
    store.save_checkpoint(run_id, STEPS[-1], 1, blobs[-1])
    store.transition(run_id, "finished", attempt=attempt)
    assert run_id == 1
    shapes, info = load_dataset("shapes"), DATASETS["shapes"]
    first = int(np.flatnonzero(shapes.test_labels.numpy() == 0)[0])
    image = to_network_input(
        shapes.test_images[first].numpy(),
        channels=1,
        side=info.side,
        network=NETWORK,
        mean=info.mean,
        std=info.std,
    ).network_input
    found = [extract_feature_maps(load_model(NETWORK, blob), image)[LAYER] for blob in blobs]
    reach = max(float(one.max()) for one in found)
    return [quantise(one, reach)[0] for one in found]


@pytest.fixture
def opened(page: Page, server: Dashboard, maps: list[np.ndarray]) -> Page:
    visit(page, server, f"/feature_maps?run=1&view=replay&layer={LAYER}")
    expect(page.locator(".nin-replay-slider")).to_be_visible()
    shows(page, maps, 3)
    return page


def shows(page: Page, maps: list[np.ndarray], moment: int) -> None:
    """Slider, words, values and pixels are that moment's."""
    expect(page.locator(".nin-replay-slider")).to_have_value(str(moment))
    title = "Before the first step" if moment == 0 else f"Step {STEPS[moment]} · epoch 1"
    expect(page.locator(".nin-replay-moment")).to_have_text(title)
    known = ACCURACIES[moment]
    accuracy = page.locator(".nin-replay-accuracy")
    expect(accuracy).to_contain_text("not measured" if known is None else f"{known * 100:.1f}")
    channel, row, column = where(maps)
    page.wait_for_function(
        f"([place, value]) => ({CELL})(place).value === value",
        arg=[[channel, row, column], int(maps[moment][channel, row, column])],
    )
    for place in ((channel, row, column), (0, 0, 0), (4, 27, 13)):
        cell = page.evaluate(CELL, list(place))
        assert cell["value"] == maps[moment][place]
        assert cell["drawn"] == cell["wanted"]
        assert cell["high"] == pytest.approx(max(one.max() for one in maps), abs=1)


def where(maps: list[np.ndarray]) -> tuple[int, int, int]:
    """A cell that has another value at each moment."""
    every = np.sort(np.stack(maps), axis=0)
    apart = np.diff(every.astype(int), axis=0).min(axis=0)
    channel, row, column = np.unravel_index(apart.argmax(), apart.shape)
    assert apart.max() > 0
    return int(channel), int(row), int(column)


def test_the_slider_moves_all_maps_through_the_moments(
    opened: Page, maps: list[np.ndarray]
) -> None:
    slider = opened.locator(".nin-replay-slider")
    slider.focus()
    opened.keyboard.press("Home")
    shows(opened, maps, 0)
    opened.keyboard.press("ArrowRight")
    shows(opened, maps, 1)
    slider.fill("2")  # as a mouse sets it
    shows(opened, maps, 2)
    opened.keyboard.press("End")
    shows(opened, maps, 3)


def test_the_tip_reads_the_moments_value(opened: Page, maps: list[np.ndarray]) -> None:
    channel, row, column = where(maps)
    tips = []
    for moment in (0, 3):
        opened.locator(".nin-replay-slider").fill(str(moment))
        shows(opened, maps, moment)
        opened.mouse.move(0, 0)
        opened.mouse.move(*cell_on_screen(opened, channel, row, column, FILM))
        tip = opened.locator(".nin-sprite-tip")
        expect(tip).to_contain_text(f"channel {channel} · row {row}, column {column}")
        tips.append(float(tip.inner_text().split("·")[-1].replace("−", "-")))
    digits = [int(maps[moment][channel, row, column]) for moment in (0, 3)]
    assert tips[0] * digits[1] == pytest.approx(tips[1] * digits[0])


def test_play_goes_through_all_moments_and_stops_at_the_end(
    opened: Page, maps: list[np.ndarray]
) -> None:
    opened.evaluate(
        """() => {
            window.seen = [];
            const film = window.ninSprites.get('fm-replay-film');
            const turn = film.turn;
            film.turn = (moment) => { window.seen.push(moment); turn(moment); };
        }"""
    )
    play = opened.locator(".nin-replay-play")
    expect(play).to_have_attribute("aria-label", "Play")
    play.click()
    expect(play).to_have_attribute("aria-label", "Pause")
    opened.wait_for_function("() => window.seen.length >= 4")
    shows(opened, maps, 3)
    expect(play).to_have_attribute("aria-label", "Play")
    assert opened.evaluate("() => window.seen.map(String)") == ["0", "1", "2", "Infinity"]


def test_the_moment_stays_when_the_layer_changes(opened: Page, maps: list[np.ndarray]) -> None:
    opened.locator(".nin-replay-slider").fill("1")
    choose(opened, "Layer", "Block 2 · 5×5 convolution + batch norm + ReLU")
    expect(opened.locator(".nin-replay-slider")).to_have_value("1")
    pick(opened, "Look at", "Filters")
    expect(opened.get_by_text("6 filters of 5×5, one colour scale")).to_be_visible()
    pick(opened, "Look at", "Maps")
    choose(opened, "Layer", "Block 1 · 5×5 convolution + batch norm + ReLU")
    shows(opened, maps, 1)


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_page_does_not_scroll_sideways(
    server: Dashboard, maps: list[np.ndarray], new_page: OpenTab, dark: bool
) -> None:
    page = new_page(NARROW, dark=dark)
    visit(page, server, f"/feature_maps?run=1&view=replay&layer={LAYER}")
    expect(page.locator(".nin-replay-slider")).to_be_visible()
    wide = page.evaluate(
        "() => { const m = document.querySelector('[data-testid=\"stMain\"]');"
        " return m.scrollWidth - m.clientWidth; }"
    )
    assert wide <= 0


@pytest.fixture
def training(server: Dashboard) -> Iterator[int]:
    """A run on the shapes that does not end by itself, with its first weights kept."""
    store = RunStore(server.store_url)
    network = PRESETS["nin-28"].with_widths((4, 4, 4))
    config = RECIPES["fast"].configure(network, epochs=500)
    run_id = start_run(store, network, config, "shapes")
    yield run_id
    stop_run(store, run_id)


def test_a_run_that_trains_is_followed_until_one_looks_back(
    server: Dashboard, maps: list[np.ndarray], page: Page, training: int
) -> None:
    visit(page, server, "/feature_maps")
    store = RunStore(server.store_url)
    while not (store.get(training).has_checkpoint or not store.get(training).active):
        page.wait_for_timeout(500)
    assert store.get(training).active
    visit(page, server, f"/feature_maps?run={training}&view=replay&layer={LAYER}")
    slider = page.locator(".nin-replay-slider")
    expect(slider).to_be_visible(timeout=PATIENCE)
    step = "() => window.ninReplays.get('fm-replay').data.moments.at(-1).step"
    shown = "() => window.ninReplays.get('fm-replay').moment.textContent"
    newest = "() => window.ninSprites.get('fm-replay-film').told.frames.at(-1).parcel"
    drawn = "() => window.ninSprites.get('fm-replay-film').data.parcel"
    for _ in range(2):
        before = page.evaluate(step)
        page.wait_for_function(f"step => ({step})() > step", arg=before, timeout=PATIENCE)
        page.wait_for_function(
            f"() => ({shown})().startsWith(`Step ${{({step})().toLocaleString('en')}} `)"
            f" && ({drawn})() === ({newest})()"
        )
    # Who looks back stays there while newer moments come.
    slider.fill("1")
    title, before = page.evaluate(shown), page.evaluate(step)
    page.wait_for_function(f"step => ({step})() > step", arg=before, timeout=PATIENCE)
    assert page.evaluate(shown) == title
    page.wait_for_function(
        """() => {
            const { data, told } = window.ninSprites.get('fm-replay-film');
            return data.parcel === told.frames[window.ninReplays.get('fm-replay').at].parcel;
        }"""
    )
    switch(page, "Follow it while it trains")
    before = page.evaluate(step)
    page.wait_for_timeout(5_000)
    assert page.evaluate(step) == before
    # Followed to its end, the page shows the run's last weights and ticks no more.
    switch(page, "Follow it while it trains")
    stop_run(store, training)
    expect(page.get_by_text("Follow it while it trains")).to_have_count(0, timeout=PATIENCE)
    wait_idle(page)
    last = store.load_checkpoint(training)
    assert last is not None
    assert page.evaluate(step) == last.step
