"""Cutting the silence off both ends of a clip, in training, evaluation and prediction alike."""

from __future__ import annotations

from threading import Lock

import numpy as np

from samo_audio.audio_io import SILENT_PEAK

__all__ = ["LONGEST_S", "sounding"]

# Longer recordings are predicted as a stream, which has no end to look at: they are kept whole everywhere.
LONGEST_S = 60.0
# The level is that of overlapping frames; in seconds, so that it does not depend on the sampling rate.
_FRAME_S, _HOP_S = 0.04, 0.01
# Prediction opens clips in threads, and librosa imports and compiles its parts at their first call.
_LOCK = Lock()


def sounding(waveform: np.ndarray, sr: int, trim_db: float) -> tuple[int, int]:
    """Where a clip begins and ends to sound: the part that ``librosa.effects.trim`` keeps.

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
    # Training without trimming does not wait for librosa.
    import librosa

    frame, hop = round(_FRAME_S * sr), round(_HOP_S * sr)
    with _LOCK:
        _, ends = librosa.effects.trim(waveform, top_db=trim_db, frame_length=frame, hop_length=hop)
    start, end = map(int, ends)
    return (start, end) if start < end else whole
