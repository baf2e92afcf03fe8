"""Sliding windows over a stream: which windows, their answers, what is smoothed, and what silence changes."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from voice import voice

from samo.errors import DataError, SettingsError
from samo.evaluation.decision import Decision
from samo.prediction import ModelFacts, TrainedModel
from samo.tasks import LabelSpace, Task
from samo_audio.live import Moment, live
from samo_audio.predictor import AudioPredictor

SR = 8000
SPACE = LabelSpace((Task("emotion", ("angry", "happy", "sad")),))


class Loudness:
    """Logits that tell a window's mean, loudness and length apart."""

    def logits(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        mean, loudness = inputs.mean(axis=1), np.abs(inputs).mean(axis=1)
        return np.stack([20 * loudness, 100 * mean, lengths / SR], axis=1).astype(np.float32)

    def features(self, inputs: np.ndarray, lengths: np.ndarray) -> None:
        return None


@dataclass(frozen=True)
class Reading:
    sr: int = SR
    trim_db: float = 0.0
    window: int = SR
    tta_speed: float = 0.0
    tta_shift: float = 0.0


@pytest.fixture
def predictor() -> AudioPredictor:
    """Of windows of one second at 8 kHz."""
    return AudioPredictor(TrainedModel(Loudness(), SPACE, Decision(), ModelFacts("loud", "audio"), 1), Reading())


def blocks(sound: np.ndarray, size: int = 800) -> Iterator[np.ndarray]:
    return (sound[..., start : start + size] for start in range(0, sound.shape[-1], size))


def places(moments: list[Moment]) -> list[tuple[float, float]]:
    return [(moment.start_s, moment.end_s) for moment in moments]


def test_a_window_begins_at_every_hop_and_the_last_ends_with_the_stream(predictor: AudioPredictor) -> None:
    found = list(live(predictor, blocks(voice(2.3)), SR, hop_s=0.5))
    assert places(found) == [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0), (1.3, 2.3)]
    assert places(list(live(predictor, blocks(voice(2.0)), SR, hop_s=0.5))) == [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)]
    assert places(list(live(predictor, blocks(voice(0.4)), SR, hop_s=0.5))) == [(0.0, 0.4)]
    assert list(live(predictor, iter(()), SR)) == []
    assert len(list(live(predictor, blocks(voice(2.0)), SR, hop_s=0.1))) == 11


@pytest.mark.parametrize("size", [1, 333, 8000, 100_000])
def test_blocks_of_any_size_give_the_same(predictor: AudioPredictor, size: int) -> None:
    sound = voice(2.3)
    assert list(live(predictor, blocks(sound, size), SR)) == list(live(predictor, blocks(sound), SR))


def test_a_moment_comes_as_soon_as_its_last_sample_is_there(predictor: AudioPredictor) -> None:
    given = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal given
        for block in blocks(voice(2.0), 400):
            given += len(block)
            yield block

    assert [(moment.end_s, given / SR) for moment in live(predictor, counted(), SR)] == [
        (1.0, 1.0),
        (1.5, 1.5),
        (2.0, 2.0),
    ]


@pytest.mark.parametrize(("rate", "seconds"), [(SR, 4.0), (SR, 3.4), (22_050, 3.0)])
def test_windows_are_answered_as_predict_answers_them(predictor: AudioPredictor, rate: int, seconds: float) -> None:
    predictor.timeline_s = 0.0
    sound = voice(seconds, rate)
    timeline = predictor.predict(sound, sr=rate).timeline
    hop_s = timeline[1].start_s - timeline[0].start_s
    found = list(live(predictor, blocks(sound, 1000), rate, hop_s=hop_s))
    assert len(found) == len(timeline) >= 3
    for moment, window in zip(found, timeline, strict=True):
        assert (moment.start_s, moment.end_s) == pytest.approx((window.start_s, window.end_s), abs=1e-3)
        assert moment.answers["emotion"].probabilities == pytest.approx(window.probabilities, abs=1e-4)


def test_the_smoothed_answer_weighs_windows_by_their_age(predictor: AudioPredictor) -> None:
    sound = np.concatenate([voice(1.0, level=0.02), voice(1.0, level=0.2)])
    first, second = live(predictor, blocks(sound), SR, hop_s=1.0, smoothing_s=2.0)
    assert first.smoothed == first.answers
    old, new = (np.log(list(each.answers["emotion"].probabilities.values())) for each in (first, second))
    kept = math.exp(-0.5)
    odds = np.exp(kept * old + (1 - kept) * new)
    assert list(second.smoothed["emotion"].probabilities.values()) == pytest.approx(odds / odds.sum(), rel=1e-6)
    # A third window is one second younger than the second, not two than the first.
    longer = np.concatenate([sound, voice(1.0, level=0.05)])
    *_, third = live(predictor, blocks(longer), SR, hop_s=1.0, smoothing_s=2.0)
    third_own = np.log(list(third.answers["emotion"].probabilities.values()))
    odds = np.exp(kept * (kept * old + (1 - kept) * new) + (1 - kept) * third_own)
    assert list(third.smoothed["emotion"].probabilities.values()) == pytest.approx(odds / odds.sum(), rel=1e-6)
    latest = list(live(predictor, blocks(sound), SR, hop_s=1.0, smoothing_s=0.0))[-1]
    assert latest.smoothed == latest.answers


def test_without_speech_there_is_no_answer_and_nothing_changes(predictor: AudioPredictor) -> None:
    pause = 1e-3 * np.random.default_rng(0).standard_normal(3 * SR).astype(np.float32)
    sound = np.concatenate([voice(1.0), pause, voice(1.0, level=0.3)])
    found = list(live(predictor, blocks(sound), SR, hop_s=1.0, smoothing_s=2.0))
    assert [moment.speech for moment in found] == [True, False, False, False, True]
    assert found[1].answers == {}
    assert found[1].smoothed == found[3].smoothed == found[0].smoothed
    assert "no speech" in str(found[1])
    # After four seconds the old answer weighs exp(-4/2).
    old, new = (np.log(list(found[k].answers["emotion"].probabilities.values())) for k in (0, 4))
    kept = math.exp(-2.0)
    odds = np.exp(kept * old + (1 - kept) * new)
    assert list(found[4].smoothed["emotion"].probabilities.values()) == pytest.approx(odds / odds.sum(), rel=1e-6)
    every = list(live(predictor, blocks(sound), SR, hop_s=1.0, voice=False))
    assert all(moment.speech for moment in every)


def test_silence_is_never_answered(predictor: AudioPredictor) -> None:
    found = list(live(predictor, blocks(np.zeros(2 * SR, np.float32)), SR, voice=False))
    assert [(moment.answers, moment.smoothed) for moment in found] == [({}, {})] * 3
    assert found[0].to_json() == {
        "start_s": 0.0, "end_s": 1.0, "speech": False, "speech_s": 0.0, "level_dbfs": -200.0,
        "noise_floor_dbfs": -200.0,
        "tasks": {}, "smoothed": {},
    }  # fmt: skip


def test_integers_and_channels_are_heard_as_predict_hears_them(predictor: AudioPredictor) -> None:
    sound = voice(1.0)
    whole = (sound * 2**15).round().astype(np.int16)
    (plain,) = live(predictor, blocks(whole / np.float32(2**15)), SR)
    (integers,) = live(predictor, blocks(whole), SR)
    (stereo,) = live(predictor, blocks(np.stack([whole, whole])), SR)
    assert plain == integers == stereo


@pytest.mark.parametrize("hop_s", [0.0, 0.001, 1.5, math.nan])
def test_hops_out_of_range(predictor: AudioPredictor, hop_s: float) -> None:
    with pytest.raises(SettingsError, match=r"seconds from 0\.01 to 1, the length of the model's windows"):
        live(predictor, iter(()), SR, hop_s=hop_s)


def test_what_is_no_sound(predictor: AudioPredictor) -> None:
    with pytest.raises(SettingsError, match="smoothing=-1"):
        live(predictor, iter(()), SR, smoothing_s=-1)
    with pytest.raises(TypeError, match="not list"):
        list(live(predictor, [[0.0, 1.0]], SR))  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"NaN or infinite samples, the first at 0\.1"):
        list(live(predictor, [np.zeros(800), np.full(10, np.nan)], SR))
    with pytest.raises(DataError, match="sample rate 3 Hz"):
        list(live(predictor, [np.zeros(800)], 3))


def test_memory_stays_flat(predictor: AudioPredictor) -> None:
    def sound(seconds: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        return (rng.standard_normal(4000).astype(np.float32) for _ in range(2 * seconds))

    def peak(seconds: int) -> int:
        tracemalloc.start()
        try:
            assert sum(1 for _ in live(predictor, sound(seconds), SR, voice=False)) == 2 * seconds - 1
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(5)
    assert peak(120) < 1.2 * peak(20)
