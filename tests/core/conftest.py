"""Fixtures of the core's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_trainings import train

from samo.launch import store as stores
from samo.launch.store import Store
from samo.runs.run import Run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run."""
    return train(tmp_path_factory.mktemp("whole"))


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """One file system of folders, and one that has none, as object stores."""
    monkeypatch.setattr(stores, "PAUSES_S", (0.01, 0.01, 0.01))
    return Store(f"{request.param}://{tmp_path}/store")
