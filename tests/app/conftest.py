"""What holds for all tests of pages without a browser."""

from __future__ import annotations

import pytest

from nin_core import jobs


@pytest.fixture(autouse=True)
def no_spare_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Training page has a worker wait for the next Start: a process with PyTorch a test."""
    monkeypatch.setattr(jobs, "keep_spare", lambda store: None)
