"""A clip that was decoded elsewhere, such as in a process that may die of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Decoded"]


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded clip; a model of sound answers to it as to its file.

    Attributes:
        waveform: (T,) float32, mono, at the rate of the model.
        sr: that rate in Hz.
        peak: largest absolute sample of the file; 1 is full scale.
        rms_db: level of the file in dB below full scale.
        warnings: what is odd about the file, for example ``clipped``.
    """

    waveform: np.ndarray
    sr: int
    peak: float
    rms_db: float
    warnings: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / self.sr
