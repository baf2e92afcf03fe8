"""Answers while a sound is still going on: sliding windows over blocks as they come, with memory that stays flat.

    for moment in live(samo.load("my-run"), blocks, 48_000):
        print(moment)

A window is as long as the model's, and one begins every ``hop_s`` seconds, so the first answer comes after one
window. A window is answered exactly as a window of the same samples in a recording's time line. The **smoothed**
answers come of the mean of the windows' logits, the younger the heavier, as a long recording's answer comes of their
plain mean: a window that is t seconds older than another weighs ``exp(-t / smoothing_s)`` of it (an exponential moving
average; after a pause the next window weighs accordingly more). Windows in which nobody speaks
(:mod:`samo_audio.voice_activity`) have no answer and change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr

from samo.errors import SettingsError
from samo.prediction import Answer
from samo_audio.audio_io import mono_of
from samo_audio.voice_activity import VoiceActivity, VoiceFacts

if TYPE_CHECKING:
    from samo_audio.predictor import AudioPredictor

__all__ = ["HOP_S", "SMOOTHING_S", "Moment", "live"]

HOP_S, SMOOTHING_S = 0.5, 3.0
# Starts of windows are whole samples; a hop may not be so short that every sample begins one.
LEAST_HOP_S = 0.01


@dataclass(frozen=True)
class Moment:
    """One window of a stream.

    Attributes:
        start_s: where it begins, in seconds of what was heard.
        end_s: where it ends.
        voice: what is heard in it, its level and whether somebody speaks.
        answers: the window's own, by task; empty where nobody speaks.
        smoothed: those of the latest windows together; empty before the first speech.
    """

    start_s: float
    end_s: float
    voice: VoiceFacts
    answers: Mapping[str, Answer] = field(default_factory=dict)
    smoothed: Mapping[str, Answer] = field(default_factory=dict)

    @property
    def speech(self) -> bool:
        """Whether the window is answered."""
        return bool(self.answers)

    def to_json(self) -> dict[str, Any]:
        """Plain values; by task."""
        return {
            "start_s": self.start_s,
            "end_s": self.end_s,
            "speech": self.speech,
            "speech_s": self.voice.speech_s,
            "level_dbfs": self.voice.level_dbfs,
            "noise_floor_dbfs": self.voice.floor_dbfs,
            "tasks": {name: answer.to_json() for name, answer in self.answers.items()},
            "smoothed": {name: answer.to_json() for name, answer in self.smoothed.items()},
        }

    def __str__(self) -> str:
        """The window in one line."""
        if not self.speech:
            return f"{self.start_s:.1f} - {self.end_s:.1f} s: no speech"
        named = [
            f"{answer.label or 'none'} {answer.probabilities[answer.likeliest]:.0%}"
            for answer in self.smoothed.values()
        ]
        return f"{self.start_s:.1f} - {self.end_s:.1f} s: {', '.join(named)}"


def live(
    predictor: AudioPredictor,
    blocks: Iterable[np.ndarray],
    sr: int,
    *,
    hop_s: float = HOP_S,
    smoothing_s: float = SMOOTHING_S,
    voice: bool = True,
) -> Iterator[Moment]:
    """Answer a stream of sound window by window, each as soon as its last sample is there.

    Args:
        predictor: a model on speech, as :func:`samo.load` gives it.
        blocks: (time,) or (channels, time) floats with 1 as full scale, or integers; of any length each.
        sr: their sampling rate in Hz; any rate will do.
        hop_s: seconds from the beginning of a window to that of the next, 0.01 to the length of a window.
        smoothing_s: seconds after which a window weighs 1/e (37 %) in the smoothed answers; 0 = only the latest counts.
        voice: leave windows without speech unanswered; False answers every window that is not silent.

    Yields:
        A :class:`Moment` a window. What is left behind the last whole window at the end is answered in one that ends
        with the last sample; a stream shorter than a window is one window.

    Raises:
        SettingsError: ``hop_s`` or ``smoothing_s`` out of their ranges.
        DataError: an absurd rate, or samples that are not finite.
        TypeError: a block is no array of numbers.
    """
    if not LEAST_HOP_S <= hop_s <= predictor.window_s:
        raise SettingsError(
            f"`hop={hop_s:g}`: seconds from {LEAST_HOP_S} to {predictor.window_s:g}, the length of the model's windows"
        )
    if not 0.0 <= smoothing_s < math.inf:
        raise SettingsError(f"`smoothing={smoothing_s:g}`: seconds, 0 or more")
    return _moments(predictor, _at_rate(blocks, sr, predictor.sr), hop_s, _Smoothing(predictor, smoothing_s), voice)


def _moments(
    predictor: AudioPredictor, blocks: Iterable[np.ndarray], hop_s: float, smoothing: _Smoothing, voice: bool
) -> Iterator[Moment]:
    sr, window, hop = predictor.sr, predictor.window, max(1, round(hop_s * predictor.sr))
    activity = VoiceActivity(sr, window / sr)
    latest, total, end = np.zeros(0, dtype=np.float32), 0, window

    def moment() -> Moment:
        facts = activity.facts(len(latest) / sr)
        begin = total - len(latest)
        answers: Mapping[str, Answer] = {}
        if predictor.is_heard(latest) and (facts.speech or not voice):
            logits = predictor.window_logits(latest)
            (answers,) = predictor.answers(logits)
            smoothing.add(logits, begin / sr)
        return Moment(round(begin / sr, 3), round(total / sr, 3), facts, answers, smoothing.answers)

    for block in blocks:
        while len(block):
            # No further than the end of the next window: its voice is asked for when that has just been heard.
            taken, block = block[: end - total], block[end - total :]
            activity.hear(taken)
            latest, total = np.concatenate([latest, taken])[-window:], total + len(taken)
            if total == end:
                yield moment()
                end += hop
    # The end of the last window answered lies a hop before the next.
    if total and (end == window or total > end - hop):
        yield moment()


class _Smoothing:
    """The mean of the logits so far, the younger the heavier."""

    def __init__(self, predictor: AudioPredictor, seconds: float) -> None:
        self._predictor, self._seconds = predictor, seconds
        self._logits, self._at = np.zeros((0, 0)), 0.0
        self.answers: Mapping[str, Answer] = {}

    def add(self, logits: np.ndarray, at: float) -> None:
        """Take in (1, C) logits of the window that begins at so many seconds."""
        new = logits.astype(np.float64)
        kept = math.exp((self._at - at) / self._seconds) if self._seconds else 0.0
        self._logits = kept * self._logits + (1.0 - kept) * new if len(self._logits) else new
        self._at = at
        (self.answers,) = self._predictor.answers(self._logits)


def _at_rate(blocks: Iterable[np.ndarray], rate: int, sr: int) -> Iterator[np.ndarray]:
    """Mono float32 blocks at ``sr`` Hz, none of them empty.

    Raises:
        DataError, TypeError: see :func:`live`.
    """
    stream = soxr.ResampleStream(rate, sr, 1, dtype="float32", quality="HQ") if rate != sr else None
    done = 0
    for given in blocks:
        if not isinstance(given, np.ndarray):
            raise TypeError(f"blocks of sound are NumPy arrays, not {type(given).__name__}")
        if not given.size:
            continue
        mono = mono_of(given, rate, done)
        done += len(mono)
        yield mono if stream is None else stream.resample_chunk(mono)
    if stream is not None and done:
        yield stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)
