"""The check before Start: asked for, worked out in the background, gone when the plan changes."""

from __future__ import annotations

import time

import pytest
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, RECIPES, jobs, load_dataset
from nin_core.preflight import preflight
from nin_core.store import RunStore
from tests.conftest import dashboard
from ui.preflight_panel import table

CHECK = "Check the start first"


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "available_cores", lambda: 0)


def panel(recipe: str) -> AppTest:
    app = dashboard("training", net="nin-slim-128")
    app.run()
    choose(app, "Data set", "shapes")
    recipes = next(g for g in app.main.button_group if g.label == "Recipe")
    recipes.set_value(recipe).run()
    assert not app.exception
    return app


def choose(app: AppTest, label: str, value: str) -> None:
    next(box for box in app.main.selectbox if box.label == label).set_value(value).run()


def offered(app: AppTest) -> bool:
    return any(button.label == CHECK for button in app.main.button)


def tables(app: AppTest) -> list[str]:
    return [block.value for block in app.main.get("html") if "How each layer starts" in block.value]


def check(app: AppTest) -> None:
    next(button for button in app.main.button if button.label == CHECK).click().run()
    deadline = time.monotonic() + 120
    while not tables(app):
        assert time.monotonic() < deadline, "the check does not end"
        assert not app.exception
        time.sleep(0.2)
        app.run()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("recipe", "icon"), [("tutorial", ":orange"), ("fast", ":green")])
def test_the_start_of_the_plan_is_checked(recipe: str, icon: str) -> None:
    app = panel(recipe)
    assert offered(app)
    check(app)
    network = PRESETS["nin-slim-128"]
    shapes = load_dataset("shapes")
    found = preflight(
        shapes, RECIPES[recipe].configure(network, train_size=len(shapes.train_labels)), network
    )
    assert any(
        text.value.startswith(icon) and found.sentence in text.value for text in app.main.markdown
    )
    assert table(found) in tables(app)[0]
    assert not offered(app)

    next(n for n in app.main.number_input if n.label == "Seed").set_value(5).run()
    assert not tables(app)
    assert offered(app)


def test_a_plan_that_cannot_be_run_is_not_checked(store: RunStore) -> None:
    app = panel("fast")
    next(n for n in app.sidebar.number_input if n.label == "Classes").set_value(3).run()
    assert any("class" in error.value for error in app.main.error)
    assert not offered(app)
    assert store.list_runs() == []
