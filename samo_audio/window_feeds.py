"""What an exported network whose members read clips differently is given of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from samo.data.padding import padded, parts_of
from samo.prediction.readings import INPUTS, SHARES, AudioReading, named
from samo_audio.views import views_of, windows_of

__all__ = ["WindowFeeds"]

# Of all readings together; a clip that has more is given alone.
_WINDOWS_AT_ONCE = 32


class WindowFeeds:
    """Clips as the windows of each reading, in all views, and what each window counts in its clip.

    As :class:`samo_audio.models.whole_clips.WholeClips` hears them, but for the mean, which the network takes.
    """

    def __init__(self, parts: Sequence[AudioReading]) -> None:
        """``parts``: the readings, in the order of :func:`samo.data.padding.packed` rows."""
        self.parts = [(part.window, views_of(part)) for part in parts]

    def __call__(self, inputs: np.ndarray, lengths: np.ndarray) -> Iterator[Mapping[str, np.ndarray]]:
        """The inputs of the network by name, for some of (B, T) packed rows at a time."""
        clips: list[list[list[np.ndarray]]] = []
        for row in inputs:
            each = zip(parts_of(row, len(self.parts)), self.parts, strict=True)
            windows = [windows_of(samples, *reading) for samples, reading in each]
            if clips and sum(len(each) for clip in (*clips, windows) for each in clip) > _WINDOWS_AT_ONCE:
                yield self._given(clips)
                clips = []
            clips.append(windows)
        yield self._given(clips)

    def _given(self, clips: Sequence[Sequence[Sequence[np.ndarray]]]) -> dict[str, np.ndarray]:
        given: dict[str, np.ndarray] = {}
        for k, (window, _) in enumerate(self.parts):
            counts = [len(windows[k]) for windows in clips]
            owners = np.repeat(np.arange(len(clips)), counts)
            shares = np.zeros((len(clips), len(owners)), dtype=np.float32)
            shares[owners, np.arange(len(owners))] = (1.0 / np.array(counts))[owners]
            batch = padded([chunk for windows in clips for chunk in windows[k]], window)
            given |= {
                named(name, k): each for name, each in zip((*INPUTS["audio"], SHARES), (*batch, shares), strict=True)
            }
        return given
