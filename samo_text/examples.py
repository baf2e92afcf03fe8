"""Texts that anybody may pass on: written for this."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_examples"]

_TEXTS = (
    "Thank you so much, this made my day!",
    "I cannot believe they cancelled it again.",
    "The meeting is at ten o'clock.",
)


def write_examples(folder: Path) -> dict[str, str]:
    """Write them into a folder, one a line.

    Returns:
        What a predictor is given, by where it stands.
    """
    (folder / "texts.txt").write_text("\n".join(_TEXTS) + "\n", encoding="utf-8")
    return {f"texts.txt:{line}": text for line, text in enumerate(_TEXTS, start=1)}
