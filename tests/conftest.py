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
