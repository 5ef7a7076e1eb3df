"""A class of thirty on one server, all at once, while a run trains."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from nin_core import PRESETS, RECIPES, summarize
from nin_core.store import RunStore
from tests.e2e.harness import PROJECT, Dashboard, expect_state, set_slider, visit

pytestmark = pytest.mark.e2e

NETWORK = PRESETS["nin-28"].with_widths((6, 8, 8))
PLACES = ("architecture", "training", "feature_maps")
EACH = 10
WIDTHS = (10, 16, 24)  # of nin-slim-128, whose first block has 6


@contextmanager
def visitors(server: Dashboard, path: str) -> Iterator[subprocess.Popen[str]]:
    """Pages that are open in browsers elsewhere."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.visitors", f"{server.url}/{path}", "--count", str(EACH)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_thirty_pages_at_once_leave_the_pages_usable_and_the_run_alone(
    server: Dashboard, page: Page
) -> None:
    store = RunStore(server.store_url)
    train = RECIPES["fast"].configure(NETWORK, subset=6400, epochs=2)
    run_id = store.create(NETWORK, train, "shapes")
    with (
        visitors(server, PLACES[0]) as first,
        visitors(server, f"{PLACES[1]}?run={run_id}") as second,
        visitors(server, PLACES[2]) as third,
    ):
        for process in (first, second, third):
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == f"{EACH} open\n", process.stderr.read()
        visit(page, server, "/architecture")
        set_slider(page, "Block 1 channels", WIDTHS[0])
        total = summarize(PRESETS["nin-slim-128"].with_widths(WIDTHS)).total_parameters
        expect(page.locator(".nin-totals")).to_contain_text(f"{total:,}")
        visit(page, server, f"/training?run={run_id}")
        expect_state(page, "finished")
        for process in (first, second, third):
            assert process.poll() is None, process.stderr and process.stderr.read()
    assert store.get(run_id).attempt == 1
