"""Whether somebody speaks in a stretch of sound. NumPy only: who listens to a microphone needs no torch for it.

A frame of 40 ms, one every 20 ms, is of speech where three things hold:

- It is **loud**: its level between 100 and 4000 Hz is at least 6 dB above the noise floor, and above -75 dBFS. The
  floor is the 10th percentile of the levels of the last 10 s, so that a steady noise of any level is its own floor;
  speech has pauses. A percentile over a sliding stretch is the simplest of the trackers that need no decision of their
  own (Martin 2001, "Noise power spectral density estimation based on optimal smoothing and minimum statistics").
- It is **periodic** as a voice is, between 70 and 400 Hz: the autocorrelation of its compressed spectrum (magnitude to
  the power of 2/3, Tolonen & Karjalainen 2000, "A computationally efficient multipitch analysis model") reaches 0.15 of
  its value at 0. Noises of every colour stay below: compression takes their slope away.
- It **changes**: against the frame 100 ms before and the one 100 ms behind, the levels of 16 bands differ by 1.5 dB on
  average, the change of the whole left out. Mains hum, a fan and held notes do not change so (the idea of the long-term
  spectral variability of Ghosh, Tsiartas & Narayanan 2011, "Robust voice activity detection using long-term signal
  variability").

Frames within 0.1 s of these are of speech as well: consonants without voice stand beside vowels. A window is of speech
where at least 0.3 s of it is, or half of a window under 0.6 s. ``artifacts/reports/stream/results.md`` has how often
that is right; singing, and instruments that glide, are taken for speech.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["VoiceActivity", "VoiceFacts", "speech_in"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FRAME_S, HOP_S = 0.04, 0.02
# Telephones pass little beyond; both ends of it are in Hz.
BAND_HZ = (100.0, 4000.0)
PITCH_HZ = (70.0, 400.0)
N_BANDS = 16
FLOOR_S, FLOOR_PERCENTILE = 10.0, 10.0
LEAST_LEVEL_DBFS, ABOVE_FLOOR_DB = -75.0, 6.0
LEAST_PERIODICITY = 0.15
CHANGE_S, LEAST_CHANGE_DB = 0.1, 1.5
# What lies further below the loudest band of a frame says nothing of a voice.
BAND_RANGE_DB = 40.0
# So many of the frame and two on either side, itself included.
NEIGHBOURS, LEAST_NEIGHBOURS = 2, 2
BESIDE_S = 0.1
LEAST_SPEECH_S, LEAST_SHARE = 0.3, 0.5
# Nothing is quieter.
_SILENCE = 1e-20


@dataclass(frozen=True)
class VoiceFacts:
    """What is heard in one window.

    Attributes:
        speech: whether somebody speaks in it.
        speech_s: seconds of it that are speech.
        level_dbfs: root mean square of its frames between 100 and 4000 Hz, in dB below full scale; at least -200.
        floor_dbfs: the noise floor at its end, in the same unit.
    """

    speech: bool
    speech_s: float
    level_dbfs: float
    floor_dbfs: float


class VoiceActivity:
    """Listens to a stream block by block and answers for its latest stretch; memory does not grow with the stream."""

    def __init__(self, sr: int, longest_s: float = FLOOR_S) -> None:
        """Prepare.

        Args:
            sr: sampling rate in Hz, at least 2000.
            longest_s: the longest window that will be asked for, in seconds.
        """
        if sr < 2000:
            raise ValueError(f"voices are not told from noise at {sr} Hz; at least 2000")
        self.sr = sr
        self._frame, self._hop = round(FRAME_S * sr), round(HOP_S * sr)
        self._kept = round(max(FLOOR_S, longest_s) / HOP_S) + 2
        self._size = 1 << (2 * self._frame - 1).bit_length()
        hz = np.fft.rfftfreq(self._size, 1.0 / sr)
        self._inside = (hz >= BAND_HZ[0]) & (hz <= min(BAND_HZ[1], 0.45 * sr))
        # Bands as wide as hearing has them: even on a scale of logarithms.
        edges = np.geomspace(BAND_HZ[0], min(BAND_HZ[1], 0.45 * sr), N_BANDS + 1)
        places = np.searchsorted(hz[self._inside], edges[:-1])
        self._bands = np.maximum(np.maximum.accumulate(places), np.arange(N_BANDS))
        self._lags = slice(int(sr / PITCH_HZ[1]), int(sr / PITCH_HZ[0]) + 1)
        # Hann's window; the factor makes a frame's level that of its samples.
        self._taper = np.hanning(self._frame + 2)[1:-1]
        self._scale = 2.0 / (self._size * float(np.square(self._taper).sum()))
        self._rest = np.zeros(0, dtype=np.float32)
        self._begin = 0  # number of the first frame that is kept
        self._levels = np.zeros(0)
        self._periodicity = np.zeros(0)
        self._shape = np.zeros((0, N_BANDS))

    @property
    def heard_s(self) -> float:
        """Seconds heard so far."""
        return ((self._begin + len(self._levels)) * self._hop + len(self._rest)) / self.sr

    def hear(self, samples: np.ndarray) -> None:
        """Take in the next (T,) samples of the stream; 1 is full scale."""
        self._rest = np.concatenate([self._rest, np.asarray(samples, dtype=np.float32)])
        n = max(0, (len(self._rest) - self._frame) // self._hop + 1) if len(self._rest) >= self._frame else 0
        # A whole recording may come as one block: what is kept of it is its end, computed in pieces.
        for first in range(0, n, 512):
            count = min(512, n - first)
            frames = np.lib.stride_tricks.sliding_window_view(self._rest[first * self._hop :], self._frame)
            self._add(frames[:: self._hop][:count].astype(np.float64))
        self._rest = self._rest[n * self._hop :]

    def _add(self, frames: FloatArray) -> None:
        """Measure (n, frame) samples."""
        power = np.square(np.abs(np.fft.rfft(frames * self._taper, self._size)))[:, self._inside]
        levels = 10.0 * np.log10(np.maximum(power.sum(axis=1) * self._scale, _SILENCE))
        bands = np.add.reduceat(power, self._bands, axis=1)
        shape = 10.0 * np.log10(
            np.maximum(bands, np.maximum(bands.max(axis=1, keepdims=True) * 10 ** (-BAND_RANGE_DB / 10), _SILENCE))
        )
        shape -= shape.mean(axis=1, keepdims=True)
        compressed = np.zeros((len(frames), len(self._inside)))
        compressed[:, self._inside] = np.cbrt(power)
        r = np.fft.irfft(compressed, self._size)
        periodicity = r[:, self._lags].max(axis=1) / np.maximum(r[:, 0], _SILENCE)
        self._levels = np.concatenate([self._levels, levels])[-self._kept :]
        self._periodicity = np.concatenate([self._periodicity, periodicity])[-self._kept :]
        before = self._begin + len(self._shape) + len(frames)
        self._shape = np.concatenate([self._shape, shape])[-self._kept :]
        self._begin = before - len(self._shape)

    def facts(self, seconds: float) -> VoiceFacts:
        """What the last ``seconds`` of the stream hold; less where less was heard."""
        if not len(self._levels):
            return VoiceFacts(False, 0.0, -200.0, -200.0)
        spoken, floor = self.frames()
        n = min(len(spoken), max(1, round(seconds / HOP_S) - 1))
        window_s = min(seconds, n * HOP_S)
        speech_s = float(spoken[-n:].sum()) * HOP_S
        mean = float(np.mean(np.power(10.0, self._levels[-n:] / 10.0)))
        least = min(LEAST_SPEECH_S, LEAST_SHARE * window_s)
        return VoiceFacts(
            speech_s >= least - 1e-9, round(speech_s, 2), round(10.0 * float(np.log10(max(mean, _SILENCE))), 1),
            round(floor, 1),
        )  # fmt: skip

    def frames(self) -> tuple[BoolArray, float]:
        """(n,) whether each frame that is kept is of speech, the oldest first, and the noise floor in dBFS."""
        recent = self._levels[-round(FLOOR_S / HOP_S) :]
        floor = float(np.percentile(recent, FLOOR_PERCENTILE))
        loud = self._levels >= max(floor + ABOVE_FLOOR_DB, LEAST_LEVEL_DBFS)
        voiced = loud & (self._periodicity >= LEAST_PERIODICITY) & (self._change() >= LEAST_CHANGE_DB)
        # The onset of a note changes too, but in a frame or two.
        voiced &= _around(voiced, NEIGHBOURS) >= LEAST_NEIGHBOURS
        beside = _around(voiced, round(BESIDE_S / HOP_S)) > 0
        return beside & (self._levels >= LEAST_LEVEL_DBFS), floor

    def _change(self) -> FloatArray:
        """(n,) dB by which the shape of a frame's spectrum differs from those before and behind, the smaller one."""
        lag, n = round(CHANGE_S / HOP_S), len(self._shape)
        found = np.full((2, n), np.inf)
        if n > lag:
            apart = np.abs(self._shape[lag:] - self._shape[:-lag]).mean(axis=1)
            found[0, lag:], found[1, :-lag] = apart, apart
        least: FloatArray = found.min(axis=0)
        return np.where(np.isfinite(least), least, 0.0)


def _around(flags: BoolArray, reach: int) -> FloatArray:
    """(n,) how many of the flags within ``reach`` places are set."""
    found: FloatArray = np.convolve(flags, np.ones(2 * reach + 1))[reach : reach + len(flags)].round()
    return found


def speech_in(waveform: np.ndarray, sr: int) -> VoiceFacts:
    """What is heard in one (T,) waveform of at most some minutes; 1 is full scale."""
    seconds = len(waveform) / sr
    activity = VoiceActivity(sr, seconds)
    activity.hear(waveform)
    return activity.facts(seconds)
