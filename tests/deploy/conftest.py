"""Helpers of other folders, and two trained runs that ship with the tests."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
BEFORE = TESTS / "fixtures" / "trained_before"
for helpers in ("audio", "text", "cli"):
    if str(TESTS / helpers) not in sys.path:
        sys.path.append(str(TESTS / helpers))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def artifacts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Path:
    """Where this test's runs are; the working directory is empty."""
    for name in ("SAMO_DATA_ROOT", "SAMO_TEXT_DATA_ROOT", "SAMO_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAMO_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "artifacts"


@pytest.fixture
def before(artifacts: Path) -> Path:
    """Copies of the runs ``speech`` and ``text`` in this test's artifacts; the folder of their data."""
    shutil.copytree(BEFORE / "runs", artifacts / "runs")
    return BEFORE
