"""What a recording is known by: 32 bits each 16 ms that another level, rate, codec, sign or cut hardly changes.

A bit says whether the step in level between two neighbouring bands rose within 64 ms (Haitsma & Kalker 2002): gain and
any filter that stays cancel out. The 33 bands lie between 250 and 3,500 Hz, which telephones and codecs keep. Windows
of 128 ms resolve the harmonics of a voice: two takes of a sentence differ in pitch and timing and agree by chance only.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import cache

import numpy as np
import scipy.fft
import soxr

from samo.data.fingerprints import Fingerprints
from samo.errors import DiskFull, EnvironmentProblem, RunError
from samo.files import cache_root
from samo_audio.waveforms import Waveforms

__all__ = ["LOWEST_RATE", "fingerprint", "fingerprints", "made_of"]

LOWEST_RATE = 7000
"""Lowest sampling rate in Hz that holds all bands; clips decoded to less get no fingerprints."""
_RATE, _WINDOW, _HOP = 8000, 1024, 128
_BANDS, _LOWEST_HZ, _HIGHEST_HZ = 33, 250.0, 3500.0
# Frames compared to tell whether a step rose.
_APART = 4
# A frame counts within that many dB of the loudest, where the steps change by that many dB in the middle of the bands.
_DEPTH_DB, _LEAST_CHANGE_DB = 40.0, 0.5
_FRAMES_AT_ONCE = 512
_KIND = f"33 bands, 250 to 3500 Hz, {_WINDOW} by {_HOP} at {_RATE} Hz, version 1"


def fingerprint(waveform: np.ndarray, sr: int) -> tuple[np.ndarray, np.ndarray]:
    """The words of a recording and the frames they stand for.

    Args:
        waveform: (T,) float32.
        sr: its sampling rate in Hz.

    Returns:
        (M,) uint32 words and (M,) int64 frame numbers, 62.5 a second; quiet and unchanging frames are left out, and a
        recording under 0.2 s has none.
    """
    samples = waveform if sr == _RATE else soxr.resample(waveform, sr, _RATE, quality="MQ")
    if len(samples) < _WINDOW + _APART * _HOP:
        return np.empty(0, dtype=np.uint32), np.empty(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    power = np.concatenate(
        [_band_powers(windows[first : first + _FRAMES_AT_ONCE]) for first in range(0, len(windows), _FRAMES_AT_ONCE)]
    )
    total = power.sum(axis=1)
    loudest = float(total.max())
    level = 10.0 * np.log10(power + (1e-9 * loudest + 1e-20))
    steps = np.diff(level, axis=1)
    change = steps[_APART:] - steps[:-_APART]
    heard = np.minimum(total[_APART:], total[:-_APART]) > loudest * 10.0 ** (-_DEPTH_DB / 10.0)
    heard[heard] = np.median(np.abs(change[heard]), axis=1) >= _LEAST_CHANGE_DB
    words = np.packbits(change[heard] > 0, axis=1, bitorder="little").view("<u4")[:, 0]
    return words.astype(np.uint32), np.flatnonzero(heard)


def fingerprints(waveforms: Waveforms) -> Fingerprints | None:
    """The fingerprints of decoded clips and their near copies, made once and kept in the cache by what is in the clips.

    None where the clips are decoded to less than :data:`LOWEST_RATE`.
    """
    if waveforms.sr < LOWEST_RATE:
        return None
    lines = [_KIND, str(waveforms.sr), *(f"{name}\0{waveforms.content[name]}" for name in waveforms.ids)]
    key = hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]
    path = cache_root().absolute() / "fingerprints" / f"{key}.npz"
    try:
        return Fingerprints.load(path)
    except RunError:
        made = made_of(waveforms)
    # They are made again next time; what keeps the cache from being written is told where clips are decoded.
    with suppress(OSError, DiskFull, EnvironmentProblem):
        made.save(path, pairs=True)
    return made


def made_of(waveforms: Waveforms) -> Fingerprints:
    """The fingerprints of decoded clips, made anew."""
    rows = enumerate(waveforms.ids)
    return Fingerprints.of(
        _KIND, _RATE / _HOP, [(name, *fingerprint(waveforms.waveform(row), waveforms.sr)) for row, name in rows]
    )


def _band_powers(windows: np.ndarray) -> np.ndarray:
    """(F, 33) power in the bands of (F, 1024) samples."""
    edges, taper = _edges_and_taper()
    spectrum = scipy.fft.rfft(windows * taper, axis=1)[:, : edges[-1]]
    power: np.ndarray = np.add.reduceat(np.square(np.abs(spectrum)), edges[:-1], axis=1)
    return power


@cache
def _edges_and_taper() -> tuple[np.ndarray, np.ndarray]:
    """(34,) bins of the spectrum the bands begin and end at; (1024,) float32 weights of a window's samples."""
    edges = np.round(np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, _BANDS + 1) * _WINDOW / _RATE).astype(int)
    return edges, np.hanning(_WINDOW).astype(np.float32)
