"""A private cache and working directory for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

BEFORE = Path(__file__).resolve().parent.parent / "fixtures" / "trained_before"


@pytest.fixture(autouse=True)
def artifacts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this test's runs go; the working directory is empty."""
    for name in ("SAMO_DATA_ROOT", "SAMO_TEXT_DATA_ROOT", "SAMO_ARTIFACTS", "SAMO_TRACKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "artifacts"


@pytest.fixture
def before(artifacts: Path) -> Path:
    """Two runs that samo 0.1.0 trained before its house was rebuilt, in this test's artifacts; their data beside it."""
    shutil.copytree(BEFORE / "runs", artifacts / "runs")
    return BEFORE
