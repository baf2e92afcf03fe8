"""Fixtures of the text tests."""

from __future__ import annotations

import pytest
import tiny_text as tiny


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with a tiny random encoder for each family."""
    root = tmp_path_factory.mktemp("encoders")
    return {family: str(tiny.encoder(root / family, family)) for family in tiny.FAMILIES}
