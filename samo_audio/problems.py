"""What is wrong with an audio file, in one line that names it."""

from __future__ import annotations

from pathlib import Path

from samo.errors import DataError

__all__ = ["ADPCM_HINT", "FORMAT_HINT", "LFS_HINT", "REPAIR_HINT", "bad", "not_audio"]

FORMAT_HINT = "SAMO reads WAV, FLAC, Ogg, MP3, AIFF, AU, CAF, W64, RF64; convert others: ffmpeg -i in.m4a out.wav"
REPAIR_HINT = "if its recorder was stopped hard, repair the header: sox --ignore-length broken.wav repaired.wav"
ADPCM_HINT = "convert it: ffmpeg -i in.wav -c:a pcm_s16le out.wav"
LFS_HINT = "fetch the files themselves: git lfs pull"


def not_audio(path: Path) -> DataError:
    """The error for a file that is no audio, or in a format that cannot be read."""
    return bad(path, "is not in an audio format SAMO can read", hint=FORMAT_HINT)


def bad(path: Path, why: str, *, hint: str = "") -> DataError:
    """The error for a file, and why."""
    return DataError(f"{path}: {why}", hint=hint)
