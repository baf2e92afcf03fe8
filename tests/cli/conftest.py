"""A private cache, artifacts and environment for every test; one training that many tests read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tone_corpora import TINY, done, ravdess


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def artifacts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Path:
    """Where this test's runs go; the working directory is empty."""
    roots = ("SAMO_DATA_ROOT", "SAMO_TEXT_DATA_ROOT", "SAMO_ARTIFACTS")
    for name in (*roots, "SAMO_DEBUG", "NO_COLOR", "FORCE_COLOR", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAMO_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "80")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work / "artifacts"


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers, eight emotions, under RAVDESS's names."""
    return ravdess(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path, clips: Path) -> Path:
    """The artifacts of one training and its evaluation, run ``first``; to read only."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(cache))
        patch.delenv("SAMO_DATA_ROOT", raising=False)
        done("train", "--data-root", clips, *TINY, "--epochs", "4", "--name", "first", "--artifacts", root)
        done("evaluate", "--artifacts", root, "--threads", "1")
    return root


@pytest.fixture
def copied(trained: Path, artifacts: Path) -> Path:
    """The folder of a copy of run ``first`` in this test's own artifacts."""
    shutil.copytree(trained, artifacts, symlinks=True)
    return artifacts / "runs" / "first"
