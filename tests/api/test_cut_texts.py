"""A text longer than a model reads is answered with a warning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import samo
from samo.runs.run import Run


def test_a_text_that_is_cut_has_a_warning(before: Path, artifacts: Path) -> None:
    most = Run(artifacts / "runs" / "text").settings["max_tokens"]
    short, long = samo.load("text", threads=1).predict(["fine", "fine " * (2 * most)])
    assert (short.warnings, long.warnings) == ((), (f"cut at {most} tokens",))


def test_the_first_answers_wait_for_few_texts(before: Path, artifacts: Path) -> None:
    """Texts are ordered by length in windows; the first is small, so that who stops early has answers."""
    model = samo.load("text", threads=1)
    taken: list[str] = []

    def texts() -> Iterator[str]:
        for number in range(1000):
            taken.append(f"fine {number}")
            yield taken[-1]

    answers = model.stream(texts())
    assert next(answers).text == "fine 0"
    assert len(taken) == 256
    assert [answer.text for answer in answers] == taken[1:]
