"""A clip that a stranger sent, decoded: as :func:`samo_audio.audio_io.read`, with an end to what is accepted."""

from __future__ import annotations

from pathlib import Path

from samo.errors import DataError
from samo_audio.audio_io import Clip, info, read

__all__ = ["decode"]


def decode(path: str, sr: int, longest_s: float) -> Clip:
    """Decode a file of at most ``longest_s`` seconds to mono at ``sr`` Hz.

    Raises:
        DataError: as :func:`samo_audio.audio_io.read`, or it lasts longer, which its header says before it is decoded.
    """
    lasts = info(Path(path)).duration_s
    if lasts > longest_s:
        raise DataError(
            f"lasts {lasts:.1f} s, longer than the {longest_s:g} s that are taken", hint="send a part of it"
        )
    return read(Path(path), sr)
