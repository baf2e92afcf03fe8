"""Windows heard several times in evaluation: at other speeds, and earlier or later in the window."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Protocol

import numpy as np

from samo_audio.audio_io import window_starts

__all__ = ["View", "Viewed", "change_speed", "viewed", "views_of", "windows_of"]

View = tuple[float, int]
"""Factor on the speed, and samples a window is moved by: later above 0."""


class Viewed(Protocol):
    """How windows are heard; settings of evaluation, see :class:`samo_audio.config.FeatureSettings`."""

    @property
    def sr(self) -> int:
        """Sampling rate in Hz."""

    @property
    def tta_speed(self) -> float:
        """Logarithm of the higher of two more speeds; 0 = none."""

    @property
    def tta_shift(self) -> float:
        """Seconds a window is moved by either way; 0 = not."""


def views_of(reading: Viewed) -> tuple[View, ...]:
    """What is averaged over: the window as it is, at two speeds, moved either way."""
    shift, speed = round(reading.tta_shift * reading.sr), reading.tta_speed
    speeds: tuple[View, ...] = ((exp(-speed), 0), (exp(speed), 0)) if speed else ()
    shifts: tuple[View, ...] = ((1.0, -shift), (1.0, shift)) if shift else ()
    return ((1.0, 0), *speeds, *shifts)


def viewed(chunk: np.ndarray, view: View, window: int) -> np.ndarray:
    """(T,) samples of a window as a view hears them, (T',) of at most ``window``.

    Moved later it begins in silence, moved earlier it loses its beginning, but never more than half of it. What leaves
    the window at its end is lost.
    """
    factor, shift = view
    if factor != 1.0:
        chunk = change_speed(chunk, factor)
    if shift > 0:
        chunk = np.concatenate([np.zeros(shift, np.float32), chunk])
    return chunk[min(max(0, -shift), len(chunk) // 2) :][:window]


def windows_of(clip: np.ndarray, window: int, views: Sequence[View]) -> list[np.ndarray]:
    """Every window of (T,) samples in every view, (T',) of at most ``window`` each."""
    return [
        viewed(clip[start : start + window], view, window)
        for start in window_starts(len(clip), window).tolist()
        for view in views
    ]


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """(T,) samples to (ceil(T / factor),), which play ``factor`` times as fast (Ko et al. 2015).

    Between two samples runs the cubic through both, with the slopes that their neighbours give (Catmull & Rom 1974):
    exact where the signal is a quadratic, and within 1 % for what lies below an eighth of the rate, where speech is.
    """
    place = np.arange(int(np.ceil(len(samples) / factor)), dtype=np.float64) * factor
    low = np.minimum(place.astype(np.int64), len(samples) - 1)
    t = (place - low).astype(np.float32)
    padded = np.pad(samples, (1, 2), mode="edge")
    before, here, after, beyond = (padded[low + k] for k in range(4))
    slope_here, slope_after = 0.5 * (after - before), 0.5 * (beyond - here)
    rise = after - here
    curve = here + t * (
        slope_here + t * (3.0 * rise - 2.0 * slope_here - slope_after + t * (slope_here + slope_after - 2.0 * rise))
    )
    return curve.astype(np.float32)
