"""Seed fans on the Training page, without a browser: start, every state of a fan, its end.

No worker is started here (the slots are none); runs are brought into their states through the
store, as a worker would.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from nin_core import PRESETS, fans, jobs
from nin_core.datasets import DATASETS
from nin_core.recipes import FAN_SEEDS, RECIPES
from nin_core.records import MetricRow, now
from nin_core.store import RunStore, StoreError
from nin_core.trouble import DIVERGED
from tests.app.test_training import NETWORK, WORKER, button, charts, field, labels, open_page, texts
from tests.conftest import dashboard
from ui import fan_panel, runs

DEAD = "6 of 10 class maps are zero for every probe image. Start again with the fast recipe."


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "available_cores", lambda: 0)


def fan_of(store: RunStore, seeds: int, recipe: str = "fast") -> tuple[str, list[int]]:
    train = RECIPES[recipe].configure(NETWORK, epochs=1, subset=640)
    fan = fans.start(store, NETWORK, train, "shapes", seeds)
    return fan, [run.id for run in fans.runs(store, fan)]


def trained(
    store: RunStore,
    run_id: int,
    losses: list[float | None],
    state: str,
    *,
    test: float | None = None,
    error: str | None = None,
    diagnosis: str | None = None,
) -> None:
    """Bring a queued run into a state, with a point every second step and second."""
    attempt = store.claim(run_id, WORKER)
    assert attempt is not None
    rows = [
        MetricRow("step", 1, 2 * n, 2.0 * n, loss, None, None, test, 100)
        for n, loss in enumerate(losses, 1)
    ]
    store.add_metrics(run_id, rows, attempt=attempt)
    if state == "running":
        return
    store.transition(run_id, state, attempt=attempt, **({"error": error} if error else {}))
    store.note(run_id, attempt, diagnosis=diagnosis)
    store.release(run_id, attempt)


def opened(**query: Any) -> AppTest:
    page = dashboard("training", **{key: str(value) for key, value in query.items()})
    page.session_state[fan_panel.PANEL] = True
    return page.run()


def said(page: AppTest) -> str:
    return "\n".join(h.proto.body for h in page.main.get("html") if "nin-fan" in h.proto.body)


def figure(page: AppTest, *names: str) -> dict[str, Any]:
    return charts(page)[f"fans {' '.join(names)}"]


def test_a_closed_section_reads_nothing_of_the_fans(store, monkeypatch) -> None:
    fan_of(store, 3)
    monkeypatch.setattr(fans, "runs", lambda *_: pytest.fail("nobody looks at the fan"))
    page = open_page()
    assert not page.exception
    assert not any(key.startswith("fans ") for key in charts(page))


def test_an_empty_store_offers_the_example_and_it_starts_both_recipes(store) -> None:
    page = opened()
    assert not page.exception
    assert not any(key.startswith("fans ") for key in charts(page))
    assert "a first guess" in texts(page)
    button(page, "The tutorial's recipe against ours").click().run()
    assert not page.exception
    members = store.list_runs()
    assert len(members) == 2 * FAN_SEEDS
    (tutorial, fast) = dict.fromkeys(run.fan for run in reversed(members))
    assert {run.train.recipe for run in fans.runs(store, tutorial)} == {"tutorial"}
    assert {run.train.recipe for run in fans.runs(store, fast)} == {"fast"}
    assert {run.train.subset for run in members} == {fans.EXAMPLE_IMAGES}
    assert figure(page, tutorial, fast)["layout"]["shapes"][0]["y0"] == math.log(10)
    assert said(page).count(f"none of {FAN_SEEDS} has ended yet") == 2


def test_a_link_opens_the_section_with_its_fan(store) -> None:
    first, ids = fan_of(store, 2)
    fan_of(store, 2, "tutorial")
    page = open_page(fan=ids[1])
    assert not page.exception
    assert figure(page, first)["layout"]
    assert page.query_params["fan"] == str(ids[0])
    page = open_page(fan=99)
    assert not page.exception
    assert "the seed fan of #99" in texts(page)
    assert "fan" in page.query_params, "the newest is shown instead"


def test_a_link_to_a_fan_in_an_empty_store_is_said(store) -> None:
    page = open_page(fan="one")
    assert not page.exception
    assert "fan=one does not name seed fans" in texts(page)
    assert "fan" not in page.query_params


def test_what_the_start_panel_says_is_started_from_each_seed(store) -> None:
    page = opened()
    field(page, "Data set").set_value("shapes").run()
    field(page, "Training images").set_value(500).run()
    field(page, "Number of seeds").set_value(3).run()
    button(page, "Start 3 runs").click().run()
    assert not page.exception
    members = list(reversed(store.list_runs()))
    data = DATASETS["shapes"]
    train = RECIPES["fast"].configure(
        NETWORK, train_size=data.train_size, mirrors=data.mirrors, subset=500
    )
    assert [run.train for run in members] == [replace(train, seed=seed) for seed in range(3)]
    assert {run.dataset for run in members} == {"shapes"}
    assert "none of 3 has ended yet, 3 wait" in said(page)


def test_what_is_typed_as_a_fan_is_started_counts(store) -> None:
    page = opened()
    label = next(b.label for b in page.main.button if re.fullmatch(r"Start \d+ runs", b.label))
    field(page, "Data set").set_value("shapes")
    field(page, "Epochs").set_value(2)
    field(page, "Number of seeds").set_value(3)
    button(page, label).click().run()
    assert not page.exception
    members = store.list_runs()
    assert [run.train.epochs for run in members if run.train] == [2] * 3
    assert {run.dataset for run in members} == {"shapes"}


def test_a_fan_says_who_stalls_who_diverged_and_who_still_trains(store) -> None:
    fan, ids = fan_of(store, 6)
    learns, dead, diverged, flat, running, _ = ids
    guess = math.log(10)
    trained(store, learns, [2.2, 1.0], "finished", test=0.7)
    trained(store, dead, [guess, guess], "finished", test=0.1, diagnosis=DEAD)
    trained(store, diverged, [2.0, None], "failed", error=f"{DIVERGED} after step 3.")
    trained(store, flat, [guess] * 60, "running")
    trained(store, running, [2.0], "running")
    page = opened()
    assert not page.exception
    text = said(page)
    assert "1 of 6 ended at the loss of guessing, 1 is at it so far, 1 diverged" in text
    assert "2 train, 1 waits; test accuracy 10.0% to 70.0%, median 40.0%" in text
    assert "Why, for seed 1: 6 of 10 class maps are zero for every probe image." in text
    assert "4 steps cannot tell" in text
    assert figure(page, fan)["data"]
    button(page, "seed 0 · 70%").click().run()
    assert not page.exception
    assert page.query_params["run"] == str(learns)


def test_a_fan_is_stopped_and_deleted_in_one_action_each(store) -> None:
    other = store.create(NETWORK, RECIPES["fast"].configure(NETWORK, epochs=1), "shapes")
    fan, ids = fan_of(store, 3)
    trained(store, ids[0], [2.0], "running")
    page = opened(run=ids[1])
    assert "Delete 3 runs for good" not in labels(page)
    button(page, "Stop all of them").click().run()
    assert not page.exception
    by_id = {run.id: run for run in fans.runs(store, fan)}
    assert by_id[ids[0]].desired_state == "stopped"
    assert {by_id[n].state for n in ids[1:]} == {"stopped"}
    assert store.get(other).state == "queued"
    store.transition(ids[0], "stopped", attempt=by_id[ids[0]].attempt)
    store.release(ids[0], by_id[ids[0]].attempt)
    page.run()
    button(page, "Delete 3 runs for good").click().run()
    assert not page.exception
    assert [run.id for run in store.list_runs()] == [other]
    assert said(page) == ""


def test_a_deleted_member_leaves_the_others(store) -> None:
    fan, ids = fan_of(store, 3)
    fans.stop(store, fan)
    store.delete(ids[1])
    page = opened()
    assert not page.exception
    assert "</b>: 2 stopped." in said(page)


def test_a_stopped_run_counts_only_if_it_was_at_guessing(store) -> None:
    _, ids = fan_of(store, 4)
    store.request(ids[0], "stopped")
    assert "none of 3 has ended yet, 1 stopped, 3 wait" in said(opened())
    trained(store, ids[1], [2.2, 1.0], "finished", test=0.7)
    trained(store, ids[2], [2.2, 2.0], "stopped", test=0.1)
    text = said(opened())
    assert "0 of 2 ended at the loss of guessing, 2 stopped, 1 waits" in text
    assert "test accuracy 70.0%." in text
    trained(store, ids[3], [math.log(10)] * 60, "stopped", test=0.1)
    assert "1 of 2 ended at the loss of guessing, 2 stopped; test accuracy 10.0%" in said(opened())


def test_two_fans_that_differ_in_the_recipe_are_shown_together(store) -> None:
    tutorial, _ = fan_of(store, 2, "tutorial")
    fast, _ = fan_of(store, 2)
    page = opened()
    assert figure(page, tutorial, fast)
    (choice,) = (widget for widget in page.main.multiselect if widget.label == "Fans")
    choice.set_value([fast]).run()
    assert figure(page, fast)
    assert not page.exception


def test_a_busy_run_older_than_those_listed_is_followed(store, monkeypatch) -> None:
    """What is drawn goes by the fan's own runs: by those listed, the page was drawn for ever."""
    fan, ids = fan_of(store, 2)
    trained(store, ids[1], [2.0, 1.5], "finished", test=0.6)
    monkeypatch.setattr(fan_panel, "MAX_LISTED", 1)
    page = opened()
    assert not page.exception
    assert figure(page, fan)["layout"]


def test_a_store_that_does_not_answer_leaves_a_sentence(store, monkeypatch) -> None:
    fan_of(store, 2)
    page = opened()

    def silent(*_: object) -> None:
        raise StoreError("the database is locked")

    monkeypatch.setattr(fans, "runs", silent)
    page.run()
    assert not page.exception
    assert any("does not answer: the database is locked" in w.value for w in page.warning)
    assert "none of 2 has" in said(page), "the last picture stays"


def test_the_list_of_runs_is_not_flooded(store) -> None:
    other = store.create(NETWORK, RECIPES["fast"].configure(NETWORK, epochs=1), "shapes", "mine")
    _, ids = fan_of(store, 4)
    fan_panel_free = open_page(run=other)
    (table,) = fan_panel_free.main.dataframe
    assert list(table.value["Run"]) == [other]
    (toggle,) = fan_panel_free.main.toggle
    assert toggle.label == "List the 4 runs of seed fans, too"
    toggle.set_value(True).run()
    (table,) = fan_panel_free.main.dataframe
    assert sorted(table.value["Run"]) == [other, *ids]
    names = runs.run_frame(store.list_runs())["Name"]
    assert sum(" · fan " in name for name in names) == 4


def test_the_expected_time_counts_rounds_and_what_starting_takes(store) -> None:
    network = PRESETS["nin-slim-128"]
    train = RECIPES["fast"].configure(network, epochs=1, subset=640)
    plan = (network, train, "shapes")
    one = fan_panel.expected_seconds([plan], [], 2)
    assert one > fan_panel.START_SECONDS
    assert fan_panel.expected_seconds([plan] * 2, [], 2) == pytest.approx(one)
    assert fan_panel.expected_seconds([plan] * 5, [], 2) == pytest.approx(3 * one)
    # An earlier run trained 10 s of the 30 between its start and its end.
    _, (run_id, _) = fan_of(store, 2)
    trained(store, run_id, [2.0] * 5, "finished")
    begun = now()
    run = replace(store.get(run_id), started_at=begun, ended_at=begun + timedelta(seconds=30))
    slower = fan_panel.expected_seconds([plan], [run], 2)
    assert slower - one == pytest.approx(20 - fan_panel.START_SECONDS)


def test_the_example_says_what_it_takes() -> None:
    for network, train, dataset in fan_panel.example():
        assert network == PRESETS[fan_panel.EXAMPLE_NETWORK]
        assert train.subset <= DATASETS[dataset].train_size
