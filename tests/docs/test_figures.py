"""What README and docs say was measured is what the files in ``artifacts/reports`` say."""

from __future__ import annotations

import runpy
from typing import Any

import pytest
from pages import ROOT

CHECK: dict[str, Any] = runpy.run_path(str(ROOT / "artifacts" / "reports" / "check.py"))


@pytest.fixture
def texts() -> dict[str, str]:
    found: dict[str, str] = CHECK["read_pages"]()
    return found


def test_pages_and_files_agree(texts: dict[str, str]) -> None:
    """Where they do not: ``python artifacts/reports/check.py --write``, and see what it changed."""
    assert CHECK["differences"](texts) == []
    assert sum(len(claim.figures) for claim in CHECK["claims"]()) > 80


def test_every_figure_of_every_stretch_is_compared(texts: dict[str, str]) -> None:
    """A page with one figure changed is found and repaired, figure by figure."""
    for claim in CHECK["claims"]():
        match = claim.pattern.search(texts[claim.page])
        for number in range(1, len(claim.figures) + 1):
            start, end = match.span(number)
            text = texts[claim.page]
            wrong = {**texts, claim.page: f"{text[:start]}9{text[start:end].lstrip('+-')}{text[end:]}"}
            (line,) = CHECK["differences"](wrong)
            assert line.startswith(f"{claim.page}: ")
            assert "the file says" in line
            assert CHECK["corrected"](wrong) == texts


def test_a_stretch_that_is_gone_and_a_figure_without_a_file_are_named(texts: dict[str, str]) -> None:
    gone = {**texts, "README.md": texts["README.md"].replace("| SmallCNN from scratch", "| SmallCNN")}
    lines = CHECK["differences"](gone)
    assert lines[0].startswith("README.md: stands 0 times: | SmallCNN from scratch")
    assert all("no file is named for" in line for line in lines[1:])
    more = {**texts, "README.md": texts["README.md"] + "A new network has 0.777, in 12.5 % of cases.\n"}
    assert CHECK["differences"](more) == [
        "README.md: no file is named for 0.777",
        "README.md: no file is named for 12.5 %",
    ]


def test_every_exception_is_used(texts: dict[str, str]) -> None:
    for figure in CHECK["WITHOUT_FILE"]:
        assert any(figure in text for text in texts.values()), figure
