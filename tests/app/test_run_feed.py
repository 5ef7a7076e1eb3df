"""The feed that keeps an open run's picture up to date: the same as the page's script draws."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request

from nin_core import PRESETS, processes
from nin_core.recipes import RECIPES
from nin_core.records import MetricRow, WorkerId
from nin_core.store import RunStore, StoreError
from ui import pace, resources, run_feed, run_picture, run_points, server
from ui.curve_panel import Look
from ui.curves import View

NETWORK = PRESETS["nin-slim-128"]


@pytest.fixture
def store(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunStore]:
    """A store of this test's own, which is the server's."""
    monkeypatch.setenv("NIN_DATABASE_URL", f"sqlite:///{tmp_path / 'runs.db'}")
    monkeypatch.setattr(run_feed, "SHARED_SECONDS", -1.0)
    resources.store.clear()
    run_feed._told.cache_clear()
    yield resources.store()
    resources.store.clear()
    run_feed._told.cache_clear()


def running(store: RunStore, steps: int = 0) -> tuple[int, int]:
    """A run that this process works on; its number and its attempt."""
    run_id = store.create(NETWORK, RECIPES["fast"].configure(NETWORK), "shapes")
    attempt = store.claim(run_id, processes.this_worker())
    assert attempt is not None
    store.note(run_id, attempt, total_steps=94)
    report(store, run_id, attempt, *range(1, steps + 1))
    return run_id, attempt


def report(store: RunStore, run_id: int, attempt: int, *steps: int) -> None:
    rows = [MetricRow("step", 1, step, step / 10, 2 / step, 1 - 1 / step) for step in steps]
    store.add_metrics(run_id, rows, attempt=attempt)


def ask(run_id: int, look: Look | None = None, since: str = "", **query: Any) -> Any:
    """What the feed answers, as the browser reads it."""
    parts = urlsplit(run_feed.url(run_id, look or Look()))
    text = "&".join([parts.query, f"since={since}", *(f"{k}={v}" for k, v in query.items())])
    return answered(run_id, text)


def answered(run_id: int, query: str) -> Any:
    scope = {
        "type": "http",
        "method": "GET",
        "path": server.feed_path(run_id),
        "query_string": query.encode(),
        "headers": [],
        "client": ("192.0.2.7", 1),
    }
    return json.loads(run_feed.answer(Request(scope), run_id).body)


def test_the_feed_says_what_the_page_says(store: RunStore) -> None:
    run_id, attempt = running(store, 40)
    seen = run_picture.look(store, run_id)
    told = ask(run_id)
    assert told["html"] == [
        run_picture.progress(seen),
        run_picture.figures(seen.run, seen.history),
    ]
    assert told["version"] == run_picture.version(seen, [])
    assert told["serial"] == run_feed.serial(seen)
    assert told["chart"]["key"] == f"curves of run {run_id}"
    assert told["chart"]["figure"]["data"][0]["x"][-1] == pytest.approx(40 / 94)
    assert told["pause"] >= pace.SHORTEST
    report(store, run_id, attempt, 41)
    newer = ask(run_id, since=told["serial"])
    assert newer["version"] == told["version"]  # one more point is nothing to draw a page for
    assert newer["chart"]["figure"]["data"][0]["x"][-1] == pytest.approx(41 / 94)


def test_a_page_whose_picture_was_forgotten_is_not_out_of_date(store: RunStore) -> None:
    run_id, _ = running(store, 2500)  # so many that its points come in parcels
    told = ask(run_id)
    assert told["chart"]["blocks"]
    run_feed._told.cache_clear()  # as if many others had looked at other runs meanwhile
    assert ask(run_id, only="version")["version"] == told["version"]


@pytest.mark.parametrize(
    ("end", "since", "images"),
    [
        (94, 90, 4 * 64 - 16),  # the last batch of 6,000 has 48
        (40, 30, 640),
        (188, 94, 6000),
        (95, 94, 64),
    ],
)
def test_the_figures_say_over_how_many_images_they_are_means(
    store: RunStore, end: int, since: int, images: int
) -> None:
    run_id = store.create(NETWORK, RECIPES["fast"].configure(NETWORK, epochs=2), "shapes")
    attempt = store.claim(run_id, processes.this_worker())
    assert attempt is not None
    store.note(run_id, attempt, total_steps=188)
    report(store, run_id, attempt, since, end)
    assert f"last {images:,} images" in ask(run_id)["html"][1]


@pytest.mark.parametrize("zone", ["Etc/Unknown", "..", "", None])
def test_a_browser_of_an_unknown_time_zone_gets_a_time(
    monkeypatch: pytest.MonkeyPatch, zone: str | None
) -> None:
    monkeypatch.setattr(run_points.st, "context", SimpleNamespace(timezone=zone))
    moment = datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert run_points.local_time(moment) == moment


@pytest.mark.parametrize(
    ("epochs", "steps", "edge"),
    [(10, 40, 10), (300, 0, 1), (300, 40, 1), (300, 90, 2), (300, 940, 16), (300, 28_000, 300)],
)
def test_the_picture_of_a_long_run_grows_with_it(
    store: RunStore, epochs: int, steps: int, edge: int
) -> None:
    train = RECIPES["fast"].configure(NETWORK, epochs=epochs)
    run_id = store.create(NETWORK, train, "shapes")
    attempt = store.claim(run_id, processes.this_worker())
    assert attempt is not None
    store.note(run_id, attempt, total_steps=94 * epochs)
    if steps:
        report(store, run_id, attempt, steps)
    axis = ask(run_id)["chart"]["figure"]["layout"]["xaxis"]
    assert axis["autorangeoptions"]["maxallowed"] == pytest.approx(1.01 * edge)


def test_what_a_page_has_is_not_sent_again(store: RunStore) -> None:
    run_id, _ = running(store, 40)
    told = ask(run_id)
    again = ask(run_id, since=told["serial"])
    assert "chart" not in again
    assert again["html"] == told["html"]


def test_the_chart_is_the_one_that_is_looked_at(store: RunStore) -> None:
    run_id, _ = running(store, 40)
    chart = ask(run_id, Look(view=View("steps", 0.5, True)))["chart"]
    assert chart["figure"]["data"][0]["x"][-1] == 40
    assert chart["figure"]["layout"]["yaxis2"]["type"] == "log"
    assert len(chart["figure"]["data"]) == 5  # what was recorded stands behind what is smoothed
    # This one recorded no gradients, which the page says in words.
    assert "chart" not in ask(run_id, Look(vitals=True))


@pytest.mark.parametrize("query", ["unit=parsecs", "smoothing=1", "smoothing=nan", "smoothing=x"])
def test_an_address_that_names_no_view_is_refused(store: RunStore, query: str) -> None:
    run_id, _ = running(store)
    assert answered(run_id, query) == {"problem": "The address names no view of a run."}


def test_the_page_is_drawn_when_it_is_out_of_date(store: RunStore) -> None:
    run_id, attempt = running(store)
    begins = ask(run_id)
    store.note(run_id, attempt, phase="loading data")
    loading = ask(run_id)
    assert loading["version"] == begins["version"]  # nothing must hold up the first point
    assert loading["pause"] == pytest.approx(pace.BEGINNING_SECONDS, abs=0.1)
    assert "Loading data" in loading["html"][0]
    seen = {begins["version"]}

    def changed() -> None:
        version = ask(run_id)["version"]
        assert version not in seen
        seen.add(version)

    report(store, run_id, attempt, 1)
    changed()  # it has curves to download now
    store.rename(run_id, "other")
    changed()
    store.request(run_id, "paused")
    changed()
    store.transition(run_id, "paused", attempt=attempt)
    changed()
    store.release(run_id, attempt)
    changed()


def test_a_run_that_does_not_learn_is_told_of_now_and_then(store: RunStore) -> None:
    run_id, attempt = running(store)
    versions = []
    for step in range(1, 400):
        row = MetricRow("step", 1, step, step / 10, 2.3026, 0.1)
        store.add_metrics(run_id, [row], attempt=attempt)
        if step > 10:
            versions.append(ask(run_id)["version"])
    assert 1 < len(set(versions)) < 20


def test_a_run_whose_worker_died_is_settled_by_whoever_watches(store: RunStore) -> None:
    run_id = store.create(NETWORK, RECIPES["fast"].configure(NETWORK), "shapes")
    gone = WorkerId(processes.this_host(), 2**22 + 1, "1")
    assert store.claim(run_id, gone) is not None
    drawn = run_picture.page_version(store.get(run_id))
    told = ask(run_id)
    run = store.get(run_id)
    assert run.state == "interrupted"
    assert run_picture.page_version(run) != drawn
    assert told["version"] == run_picture.version(run_picture.look(store, run_id), [])


def test_a_run_that_is_gone_and_a_store_that_does_not_answer_have_the_page_drawn(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, attempt = running(store, 40)
    ask(run_id)

    def fails(*_: Any) -> Any:
        raise StoreError("the database is locked.")

    with monkeypatch.context() as broken:
        broken.setattr(run_picture, "look", fails)
        lost = answered(run_id, "unit=epochs")
    assert lost == {"pause": run_feed.LOST_PAUSE, "version": "lost", "serial": "lost"}
    assert ask(run_id, since="lost")["chart"]  # it is back
    store.transition(run_id, "stopped", attempt=attempt)
    store.release(run_id, attempt)
    store.delete(run_id)
    assert answered(run_id, "unit=epochs")["version"] == "gone"


def test_a_class_shares_an_answer(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, _ = running(store, 40)
    monkeypatch.setattr(run_feed, "SHARED_SECONDS", 60.0)
    looks = []
    real = run_picture.look
    monkeypatch.setattr(run_picture, "look", lambda *of: looks.append(of) or real(*of))
    pauses = [ask(run_id, since=f"{n}")["pause"] for n in range(30)]
    assert len(looks) == 1
    assert len(set(pauses)) == 1  # one session asks
    many = [answered(run_id, f"page={n}")["pause"] for n in range(30)]
    assert many == sorted(many)
    assert many[-1] > many[0]
