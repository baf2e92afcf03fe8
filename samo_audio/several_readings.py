"""What models that read clips differently get of one: each its part, at its rate and trimmed its way, in one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import soxr
from pydantic import Field

from samo.data.padding import packed
from samo.errors import ModelFileError
from samo.files import parse_json, write_json
from samo.stored import Number, Stored, validated
from samo_audio.audio_io import window_starts
from samo_audio.trimming import sounding

__all__ = ["WHOLE_S", "Part", "SeveralReadings"]

# As long as what gets no time line: one utterance.
WHOLE_S = 10.0
_FILE = "several_readings.json"


class Part(Stored):
    """How the models of one part are given a clip: rate in Hz, and below which level its ends are cut off."""

    sr: Annotated[int, Field(strict=True, ge=1000, le=768_000)]
    trim_db: Annotated[Number, Field(ge=0.0, le=1000.0)]


@dataclass(frozen=True)
class SeveralReadings:
    """How several models read one clip.

    A clip of up to 10 s, or up to the longest window of the models, is one piece: each model reads it whole, through as
    many of its own windows as it takes, as it does alone. A longer one is cut into pieces of that window at the highest
    rate.

    Attributes:
        parts: of the rows, see :func:`samo.data.padding.packed`.
        window_s: the longest window of the models in seconds.
    """

    parts: tuple[Part, ...]
    window_s: float

    # What it has in common with the settings of one model's features: a piece is heard in one view, and trimmed later.
    trim_db, tta_speed, tta_shift = 0.0, 0.0, 0.0

    @property
    def sr(self) -> int:
        """The highest rate in Hz."""
        return max(part.sr for part in self.parts)

    @property
    def window(self) -> int:
        """Samples of a piece of a long clip, at the highest rate."""
        return round(self.window_s * self.sr)

    @property
    def rates(self) -> tuple[int, ...]:
        """The different rates in Hz."""
        return tuple(sorted({part.sr for part in self.parts}))

    def pieces(self, clip: Mapping[int, np.ndarray]) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        """First sample and samples by rate of each piece of a clip; of a piece of a long one at the highest rate alone.

        Args:
            clip: (T,) float32 samples by rate, at all :attr:`rates`.
        """
        highest = clip[self.sr]
        if len(highest) <= max(WHOLE_S * self.sr, self.window):
            yield 0, dict(clip)
            return
        for start in window_starts(len(highest), self.window).tolist():
            yield start, {self.sr: highest[start : start + self.window]}

    def row(self, piece: Mapping[int, np.ndarray]) -> np.ndarray:
        """A piece as one row of a batch; at rates at which it is not there it is resampled (soxr HQ)."""
        found = []
        for part in self.parts:
            samples = piece.get(part.sr)
            if samples is None:
                samples = soxr.resample(piece[self.sr], self.sr, part.sr, quality="HQ")
            # Of one sample nothing may be left at a lower rate.
            samples = samples if len(samples) else np.zeros(1, dtype=np.float32)
            begin, end = sounding(samples, part.sr, part.trim_db)
            found.append(samples[begin:end])
        return packed(found)

    def save(self, folder: Path) -> None:
        """Write them among a run's assets."""
        parts = [part.model_dump() for part in self.parts]
        write_json(folder / _FILE, {"parts": parts, "window_s": self.window_s})

    @classmethod
    def load(cls, folder: Path | None) -> SeveralReadings | None:
        """What :meth:`save` wrote; None where it wrote nothing.

        Raises:
            ModelFileError: it is damaged.
        """
        path = folder / _FILE if folder is not None else None
        if path is None or not path.is_file():
            return None
        try:
            stored = validated(_Stored, parse_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise ModelFileError(f"cannot read {path}: {error}", hint="build the ensemble again") from error
        return cls(stored.parts, stored.window_s)


class _Stored(Stored):
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    window_s: Annotated[Number, Field(gt=0.0, le=3600.0)]
