"""Fixtures every test may use: real data when it is there, a private cache, a small corpus."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def real_data(name: str) -> Path:
    given = os.environ.get("SAMO_TEST_DATA")
    for root in ([Path(given)] if given else []) + [ROOT.parent / "shared" / "data"]:
        if (root / name).is_dir():
            return root / name
    pytest.skip(f"no real {name}: neither in $SAMO_TEST_DATA nor in ../shared/data")


@pytest.fixture(scope="session")
def ravdess_root() -> Path:
    """The real RAVDESS speech clips."""
    return real_data("ravdess")


@pytest.fixture(scope="session")
def goemotions_root() -> Path:
    """The real GoEmotions comments."""
    return real_data("goemotions")


@pytest.fixture(scope="session")
def minilm_root() -> Path:
    """all-MiniLM-L6-v2, whose folder lies beside the data's."""
    given = os.environ.get("SAMO_TEST_DATA")
    for root in ([Path(given).parent] if given else []) + [ROOT.parent / "shared"]:
        if (root / "models" / "all-MiniLM-L6-v2").is_dir():
            return root / "models" / "all-MiniLM-L6-v2"
    pytest.skip("no all-MiniLM-L6-v2: neither in models beside $SAMO_TEST_DATA nor in ../shared/models")


# Files that take a minute or more: begun first, so that no worker is left alone with one of them at the end.
LONG = ("test_cli_torchrun", "test_cli_kill", "test_launch_ray", "test_cli_ray", "test_distributed", "test_cli_text")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of :data:`LONG` before all others, in that order; else as collected."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
