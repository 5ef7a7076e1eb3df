"""The search for the fastest settings: asked for, worked out in the background, shown."""

from __future__ import annotations

import time

import pytest
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, RECIPES, jobs, tuning
from nin_core.store import RunStore
from tests.conftest import dashboard
from ui.probe_panel import table

FIND = "Find the fastest way to train it"
AGAIN = "Try again"


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "available_cores", lambda: 0)


def panel() -> AppTest:
    app = dashboard("training", net="nin-28")
    app.run()
    next(box for box in app.main.selectbox if box.label == "Data set").set_value("shapes").run()
    assert not app.exception
    return app


def offers(app: AppTest, label: str) -> bool:
    return any(button.label == label for button in app.main.button)


def click(app: AppTest, label: str) -> None:
    next(button for button in app.main.button if button.label == label).click().run()


def wait_for(app: AppTest, there) -> None:
    deadline = time.monotonic() + 240
    while not there():
        assert time.monotonic() < deadline, "the search does not end"
        assert not app.exception
        time.sleep(0.3)
        app.run()


@pytest.mark.usefixtures("store")
def test_what_is_fastest_is_found_and_shown() -> None:
    app = panel()
    click(app, FIND)
    assert not offers(app, FIND)
    network = PRESETS["nin-28"]
    batch = RECIPES["fast"].configure(network).batch_size
    wait_for(app, lambda: tuning.known(network, batch) is not None)
    found = tuning.known(network, batch)
    app.run()
    titles = [box.label for box in app.main.expander]
    assert f"{found.chosen.words()}: {found.images_per_second:,.0f} images/s" in titles
    assert table(found) in [block.value for block in app.main.get("html")]
    for trial in found.trials:
        assert trial.settings.words() in table(found)
        assert f">{trial.images_per_second:,.0f}<" in table(found)
    assert not offers(app, FIND)


def test_beside_a_run_it_is_not_measured_and_can_be_tried_again(store: RunStore) -> None:
    network = PRESETS["nin-28"]
    run_id = store.create(network, RECIPES["fast"].configure(network), "shapes")
    app = panel()
    click(app, FIND)
    wait_for(app, lambda: offers(app, AGAIN))
    assert any("when nothing trains, it works" in text.value for text in app.main.caption)
    jobs.stop_run(store, run_id)
    click(app, AGAIN)
    assert not offers(app, AGAIN)  # it looks again, until a run comes
    store.create(network, RECIPES["fast"].configure(network), "shapes")
    wait_for(app, lambda: offers(app, AGAIN))
