"""The windows of a corpus' clips: which there are, and their samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from samo_audio.audio_io import window_starts
from samo_audio.config import FeatureSettings
from samo_audio.views import View, change_speed, viewed
from samo_audio.waveforms import Waveforms

__all__ = ["Windows", "window_settings"]


class Windows:
    """All M windows of N clips, evenly spaced in each; a window's place is its number among all.

    Attributes:
        size: samples of a window.
        rows: (M,) whose window it is.
        starts: (M,) its first sample.
        first: (N,) place of a clip's first window.
        counts: (N,) how many windows a clip has.
    """

    def __init__(self, waveforms: Waveforms, size: int) -> None:
        self.waveforms = waveforms
        self.size = size
        starts = [window_starts(int(length), size) for length in waveforms.lengths]
        self.counts = np.array([len(each) for each in starts], dtype=np.int64)
        self.rows = np.repeat(np.arange(len(starts)), self.counts)
        self.starts = np.concatenate(starts)
        self.first = np.cumsum(self.counts) - self.counts

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Places of all windows of clips, clip by clip."""
        places = [np.arange(self.first[row], self.first[row] + self.counts[row]) for row in rows]
        return np.concatenate(places) if places else np.zeros(0, dtype=np.int64)

    def of_any(self, rows: np.ndarray) -> np.ndarray:
        """(M,) whether a window is of one of these clips."""
        return np.isin(self.rows, rows)

    def chunks(self, places: np.ndarray, speed: float = 1.0) -> list[np.ndarray]:
        """Samples of windows, each at most ``size`` long, played ``speed`` times as fast."""
        n = int(self.size * speed)
        pairs = zip(self.rows[places], self.starts[places], strict=True)
        chunks = [self.waveforms.waveform(row)[start : start + n] for row, start in pairs]
        return chunks if speed == 1.0 else [change_speed(chunk, speed) for chunk in chunks]

    def views(self, places: np.ndarray, views: Sequence[View]) -> list[np.ndarray]:
        """Samples of windows, each in its view."""
        return [
            viewed(self.waveforms.waveform(row)[start : start + self.size], view, self.size)
            for row, start, view in zip(self.rows[places], self.starts[places], views, strict=True)
        ]

    def lengths(self, speed: float) -> np.ndarray:
        """(M,) int64 samples of all windows at a speed."""
        taken = np.minimum(self.waveforms.lengths[self.rows] - self.starts, int(self.size * speed))
        return np.ceil(taken / speed).astype(np.int64)

    def view_lengths(self, view: View) -> np.ndarray:
        """(M,) int64 samples of all windows as a view hears them."""
        speed, shift = view
        taken = np.minimum(self.waveforms.lengths[self.rows] - self.starts, self.size)
        heard = np.ceil(taken / speed).astype(np.int64)
        heard = heard + shift if shift > 0 else heard - np.minimum(-shift, heard // 2)
        return np.minimum(heard, self.size)

    @property
    def end_within(self) -> bool:
        """Whether no clip goes on behind its first window: then a view at a speed is the window at that speed."""
        return bool((self.waveforms.lengths <= self.size).all())

    def contents(self) -> list[str]:
        """(M,) what is in each window: the digest of its clip and its first sample."""
        content, ids = self.waveforms.content, self.waveforms.ids
        return [f"{content[ids[row]]}:{start}" for row, start in zip(self.rows, self.starts, strict=True)]


def window_settings(features: FeatureSettings) -> dict[str, Any]:
    """What decides which samples a window has: rate in Hz, trimming in dB, length in seconds."""
    return {"sr": features.sr, "trim_db": features.trim_db, "duration": features.duration}
