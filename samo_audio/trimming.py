"""Cutting the silence off both ends of a clip, in training, evaluation and prediction alike."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from samo_audio.audio_io import SILENT_PEAK

__all__ = ["LONGEST_S", "sounding"]

# Longer recordings are predicted as a stream, which has no end to look at: they are kept whole everywhere.
LONGEST_S = 60.0
# The level is that of overlapping frames; in seconds, so that it does not depend on the sampling rate.
_FRAME_S, _HOP_S = 0.04, 0.01
# Power that nothing is taken to lie below, so that zeros have a level.
_LEAST_POWER = 1e-10


def sounding(waveform: np.ndarray, sr: int, trim_db: float) -> tuple[int, int]:
    """Where a clip begins and ends to sound: to the sample the part that ``librosa.effects.trim`` keeps.

    Silence is what lies more than ``trim_db`` dB below the loudest of the clip's frames of 40 ms; ends are found to
    10 ms, and up to 20 ms of silence stay.

    Args:
        waveform: (T,) float32 samples.
        sr: its rate in Hz.
        trim_db: dB; 0 = keep all.

    Returns:
        First sample to keep and the one behind the last, at least one apart; (0, T) for a clip that is silent
        throughout or lasts more than a minute.
    """
    whole = 0, len(waveform)
    if not trim_db or len(waveform) > LONGEST_S * sr or np.abs(waveform).max() < SILENT_PEAK:
        return whole
    hop = round(_HOP_S * sr)
    loud = np.flatnonzero(_levels(waveform, round(_FRAME_S * sr), hop) > -trim_db)
    if not len(loud):
        return whole
    start, end = int(loud[0]) * hop, min(len(waveform), (int(loud[-1]) + 1) * hop)
    return (start, end) if start < end else whole


def _levels(waveform: np.ndarray, frame: int, hop: int) -> np.ndarray:
    """(n // hop + 1,) dB of frames of so many samples around every ``hop``-th one, re the loudest of them.

    Every operation is of float32 and in the order of librosa's (``feature.rms``, ``amplitude_to_db``): at the edge
    between silence and sound one bit more or less would move an end by 10 ms.
    """
    padded = np.pad(waveform, frame // 2)
    frames = sliding_window_view(padded, frame)[::hop].T
    amplitude = np.sqrt(np.mean(np.square(frames, dtype=np.float32), axis=-2))
    loudest = np.max(amplitude)
    levels: np.ndarray = 10.0 * np.log10(np.maximum(_LEAST_POWER, np.square(amplitude)))
    levels -= 10.0 * np.log10(np.maximum(_LEAST_POWER, loudest**2))
    return levels
