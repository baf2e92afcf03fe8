"""Clips that anybody may pass on: two of the demo corpus, which nobody spoke."""

from __future__ import annotations

from pathlib import Path

from samo_audio.datasets.demo import synthesise, write_clip

__all__ = ["write_examples"]

# Both of speaker 01, once with much anger and once with some sadness.
_CLIPS = {"loud.wav": "03-01-05-02-01-01-01", "quiet.wav": "03-01-04-01-02-01-01"}


def write_examples(folder: Path) -> dict[str, str]:
    """Write them into a folder.

    Returns:
        What a predictor is given, by the name of its file.
    """
    for name, stem in _CLIPS.items():
        write_clip(folder / name, synthesise(stem))
    return {name: name for name in _CLIPS}
