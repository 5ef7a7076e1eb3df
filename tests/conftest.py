"""Fixtures for all tests, and two rules: no test meets the user's own runs; CI skips nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from functools import cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import pytest

from tests.postgres import cluster, find_postgresql
from tests.prerequisites import (
    IN_CI,
    NO_FASHION_MNIST,
    NO_POSTGRESQL,
    PROJECT,
    find_fashion_mnist,
)

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

    from nin_core.data import Dataset
    from nin_core.store import RunStore


# Two test processes of two threads each, on two cores, are many times slower than of one.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def missing(sentence: str) -> NoReturn:
    """End a test that lacks something outside the project: skipped here, failed in CI."""
    if IN_CI:
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def pytest_configure() -> None:
    """Take a SIGTERM like Ctrl-C: fixtures still end the servers and workers they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest does not begin last: at the end one process would be left with it."""

    def turn(item: pytest.Item) -> int:
        folder, name = item.path.parts[-2:]
        if name == "test_stress.py":
            return 0
        if folder != "e2e":
            return 1
        return 2 if name == "test_training.py" else 3

    items.sort(key=turn)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one: nobody reads a list of skips there."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = call.excinfo.value if call.excinfo is not None else "no reason given"
        report.longrepr = f"skipped, which in CI is a failure: {reason}"
    return report


def _store_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'runs.db'}"


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_users_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever opens the default run store during the tests opens an empty one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIN_DATABASE_URL", _store_url(tmp_path_factory.mktemp("default-store")))
        # A probe after each run would measure the other tests, and tests wait for workers to end.
        patch.setenv("NIN_PROBE", "0")
        yield


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store without runs: to copy it is quicker than to make its tables."""
    from nin_core.store import RunStore

    made = RunStore(_store_url(tmp_path_factory.mktemp("empty-store")))
    made.close()
    assert made.path is not None
    return made.path


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[..., str]]:
    """Makes databases on a real PostgreSQL, which is started by the first test that needs it."""
    if find_postgresql() is None:
        missing(NO_POSTGRESQL)
    with cluster() as make:
        yield make


@cache
def databases() -> tuple[str, ...]:
    """The kinds of database for `on_database`; CI has PostgreSQL if it can have it at all."""
    return ("sqlite", "postgresql") if find_postgresql() or not IN_CI else ("sqlite",)


def on_database(kind: str, request: pytest.FixtureRequest) -> RunStore:
    """The test's `store` on this kind of database; it is the default one, too."""
    from nin_core.store import RunStore

    if kind == "postgresql":
        url = request.getfixturevalue("postgresql")()
        request.getfixturevalue("monkeypatch").setenv("NIN_DATABASE_URL", url)
        made = RunStore()
        request.addfinalizer(made.close)
        return made
    return request.getfixturevalue("sqlite_store")


@pytest.fixture
def sqlite_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _empty_store: Path) -> RunStore:
    """A new, empty run store in a file, which is also the default one while the test runs."""
    from nin_core.store import RunStore

    monkeypatch.setenv("NIN_DATABASE_URL", _store_url(tmp_path))
    shutil.copy(_empty_store, tmp_path / "runs.db")
    if "streamlit" in sys.modules:  # the dashboard holds one store per process
        import streamlit as st

        st.cache_resource.clear()
    return RunStore()


@pytest.fixture
def store(sqlite_store: RunStore) -> RunStore:
    """The run store of tests that need one; those of the store itself have it on each database."""
    return sqlite_store


def dashboard(page: str | None = None, **query: str) -> AppTest:
    """The dashboard's script in Streamlit's own test runner, opened with this query string."""
    from streamlit.testing.v1 import AppTest

    from ui.architecture import MORE

    app = AppTest.from_file(str(PROJECT / "dashboard.py"), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    app.session_state[MORE] = True  # its fields are drawn only while it is open
    if page is not None:
        app.run()
        app.switch_page(f"pages/{page}.py")
    return app


class HeadFigure(NamedTuple):
    """One of the figures at the head of the Architecture page."""

    value: str
    delta: str


def head_figure(app: AppTest, label: str) -> HeadFigure:
    """The head's figure of that label."""
    html = next(h.proto.body for h in app.main.get("html") if "nin-head" in h.proto.body)
    found = re.search(f"<span>{label}</span><b>(.*?)</b><small>(.*?)</small>", html)
    assert found is not None, f"no figure {label!r}"
    return HeadFigure(*map(unescape, found.groups()))


@pytest.fixture(scope="session")
def fashion_mnist() -> Dataset:
    """The real Fashion-MNIST; without it the test is skipped, in CI failed."""
    if not find_fashion_mnist():
        missing(NO_FASHION_MNIST)
    from nin_core.data import DataError, load_dataset

    try:
        return load_dataset("fashion-mnist", download=False)
    except DataError as error:  # it is there and damaged
        missing(str(error))
