"""A text longer than a model reads is answered with a warning."""

from __future__ import annotations

from pathlib import Path

import samo
from samo.runs.run import Run


def test_a_text_that_is_cut_has_a_warning(before: Path, artifacts: Path) -> None:
    most = Run(artifacts / "runs" / "text").settings["max_tokens"]
    short, long = samo.load("text", threads=1).predict(["fine", "fine " * (2 * most)])
    assert (short.warnings, long.warnings) == ((), (f"cut at {most} tokens",))
