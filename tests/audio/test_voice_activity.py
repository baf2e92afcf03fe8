"""Speech is told from silence, noise and held tones; units, floor and memory are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from voice import voice

from samo_audio.audio_io import read
from samo_audio.voice_activity import VoiceActivity, speech_in

SR = 8000


def noise(seconds: float, dbfs: float = -30.0, seed: int = 0) -> np.ndarray:
    sound = np.random.default_rng(seed).standard_normal(round(seconds * SR))
    return (sound * 10 ** (dbfs / 20)).astype(np.float32)


def pink(seconds: float) -> np.ndarray:
    spectrum = np.fft.rfft(noise(seconds))
    sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), round(seconds * SR))
    return (0.05 * sound / sound.std()).astype(np.float32)


def tones(seconds: float, *hz: float) -> np.ndarray:
    t = np.arange(round(seconds * SR)) / SR
    return (0.1 * sum(np.sin(2 * np.pi * f * t) for f in hz)).astype(np.float32)


@pytest.mark.parametrize("level", [0.3, 0.01, 0.001])
def test_a_voice_is_found_at_any_level(level: float) -> None:
    facts = speech_in(voice(2.0, level=level), SR)
    assert facts.speech
    assert facts.speech_s > 1.0


@pytest.mark.parametrize("sr", [4000, 8000, 22_050, 48_000])
def test_a_voice_is_found_at_any_rate(sr: int) -> None:
    assert speech_in(voice(1.0, sr), sr).speech


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(3 * SR, np.float32), np.full(3 * SR, 0.5, np.float32), noise(3), noise(3, -70), pink(3),
        tones(3, 100, 150, 200, 250, 300), tones(3, 261.6, 329.6, 392.0), tones(3, 440),
    ],
    ids=["silence", "a constant", "white noise", "quiet noise", "pink noise", "hum", "a chord", "a tone"],
)  # fmt: skip
def test_what_is_no_voice(sound: np.ndarray) -> None:
    alone = speech_in(sound, SR)
    assert (alone.speech, alone.speech_s) == (False, 0.0)
    # Switched on after five seconds of a quiet room: loud against its floor, and still no voice.
    activity = VoiceActivity(SR)
    activity.hear(np.concatenate([noise(5, -70), sound]))
    assert not activity.facts(3.0).speech


@pytest.mark.parametrize("snr_db", [20.0, 10.0])
def test_a_voice_in_noise_is_found_and_the_noise_before_it_is_not(snr_db: float) -> None:
    sound = noise(5, -20 - snr_db)
    sound[3 * SR :] += voice(2.0)
    activity = VoiceActivity(SR)
    activity.hear(sound[: 3 * SR])
    assert not activity.facts(3.0).speech
    activity.hear(sound[3 * SR :])
    assert activity.facts(2.0).speech_s > 1.0
    # Only its end: what was before the window does not count.
    activity.hear(noise(1, -20 - snr_db))
    assert activity.facts(0.8).speech_s < 0.2


def test_levels_are_in_dbfs_and_the_floor_is_that_of_the_pauses() -> None:
    # A sine of amplitude 0.1 has a root mean square of -23.0 dBFS.
    assert speech_in(tones(2, 1000), SR).level_dbfs == pytest.approx(-23.0, abs=0.1)
    activity = VoiceActivity(SR)
    activity.hear(np.concatenate([noise(4, -50), tones(4, 1000)]))
    # White noise of -50 dBFS: 3900 of its 4000 Hz lie in the band, which telephones' 3600 (0.45 of the rate) cut.
    assert activity.facts(2.0).floor_dbfs == pytest.approx(-50 + 10 * np.log10(3500 / 4000), abs=1.0)
    assert speech_in(np.zeros(SR, np.float32), SR).level_dbfs == -200.0


def test_a_third_of_a_second_is_speech_and_a_fifth_is_none() -> None:
    quiet = noise(3, -80)
    for seconds, speech in ((0.15, False), (0.6, True)):
        sound = quiet.copy()
        sound[SR : SR + round(seconds * SR)] += voice(seconds)
        assert speech_in(sound, SR).speech is speech
    # Half of a short window is enough.
    assert speech_in(voice(0.25), SR).speech


@pytest.mark.parametrize("size", [1, 37, 160, 5000])
def test_blocks_of_any_size_are_heard_alike(size: int) -> None:
    sound = np.concatenate([noise(0.3, -60), voice(0.7)])
    whole, pieces = VoiceActivity(SR), VoiceActivity(SR)
    whole.hear(sound)
    for start in range(0, len(sound), size):
        pieces.hear(sound[start : start + size])
    assert pieces.facts(0.7) == whole.facts(0.7)
    assert pieces.heard_s == pytest.approx(1.0)


def test_what_is_kept_does_not_grow() -> None:
    activity = VoiceActivity(SR, 3.0)
    for k in range(120):
        activity.hear(noise(0.5, seed=k))
        if k == 30:
            kept = activity._levels.nbytes + activity._shape.nbytes + activity._rest.nbytes
    assert activity._levels.nbytes + activity._shape.nbytes + activity._rest.nbytes <= kept + 4 * SR
    assert activity.heard_s == pytest.approx(60.0)


def test_nothing_heard_and_rates_too_low() -> None:
    facts = VoiceActivity(SR).facts(1.0)
    assert (facts.speech, facts.level_dbfs) == (False, -200.0)
    with pytest.raises(ValueError, match="at least 2000"):
        VoiceActivity(1000)


@pytest.mark.parametrize(("corpus", "pattern"), [("ravdess_root", "*-01-01-0[12].wav"), ("emodb_root", "03a0*")])
def test_real_clips_hold_speech_in_their_middle(corpus: str, pattern: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(corpus)
    paths = sorted(root.rglob(pattern))[:12]
    assert len(paths) >= 8
    found = []
    for path in paths:
        clip = read(path, 16_000).waveform
        middle = clip[max(0, len(clip) // 2 - 8000) :][:16_000]
        found.append(speech_in(middle, 16_000).speech)
    assert np.mean(found) >= 0.9
