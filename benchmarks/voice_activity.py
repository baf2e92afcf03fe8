"""How often speech is told from what is none, and what a hop of `samo stream` costs.

    python benchmarks/voice_activity.py RAVDESS EMODB [RUN]

RAVDESS and EMODB are the folders of the clips, RUN a run on speech. Prints Markdown. Speech are the middle 1 s and the
whole of every 10th clip, clean and with white or pink noise at 10 and 5 dB below the speech, which is on 2 s before it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from samo_audio.audio_io import read
from samo_audio.voice_activity import VoiceActivity, speech_in

SR = 16_000
LEVELS_DBFS = (-60.0, -40.0, -20.0)
SEEDS = 20
WINDOW_S, HOP_S = 3.0, 0.5


def white(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal(n)


def pink(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise whose power falls by 3 dB an octave."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0)), n)


def brown(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise whose power falls by 6 dB an octave, such as wind."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1.0), n)


def hum(rng: np.random.Generator, n: int) -> np.ndarray:
    """Mains hum: 50 Hz and its harmonics, in a little noise."""
    t = np.arange(n) / SR
    tones = [np.sin(2 * np.pi * 50 * k * t + rng.uniform(0, 2 * np.pi)) / k for k in range(1, 21)]
    return sum(tones) + 0.02 * rng.standard_normal(n)


def fan(rng: np.random.Generator, n: int) -> np.ndarray:
    """Pink noise that swings by 3 dB at 1 Hz, and a hum."""
    swing = 10 ** (1.5 * np.sin(2 * np.pi * np.arange(n) / SR + rng.uniform(0, 6)) / 20)
    return pink(rng, n) / pink(rng, n).std() * swing + 0.3 * hum(rng, n)


def clicks(rng: np.random.Generator, n: int) -> np.ndarray:
    """Keys of a keyboard: bursts of noise of 10 ms, six a second, over a weak noise."""
    found = 0.003 * rng.standard_normal(n)
    for start in rng.integers(0, n - 400, int(6 * n / SR)):
        found[start : start + 160] += rng.standard_normal(160) * np.exp(-np.arange(160) / 40)
    return found


def notes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Notes of half a second with five harmonics that die away, over a weak noise."""
    t = np.arange(SR // 2) / SR
    found = 0.002 * rng.standard_normal(n)
    for start in range(0, n - len(t) + 1, len(t)):
        f0 = 220.0 * 2 ** (rng.integers(0, 25) / 12)
        note = sum(np.sin(2 * np.pi * k * f0 * t) / k**2 for k in range(1, 6))
        found[start : start + len(t)] += note * np.exp(-3 * t)
    return found


def chord(rng: np.random.Generator, n: int) -> np.ndarray:
    """A held chord of three tones."""
    t = np.arange(n) / SR
    return sum(np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) for f in (261.6, 329.6, 392.0))


def fast_notes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Eight notes a second."""
    t = np.arange(SR // 8) / SR
    found = 0.002 * rng.standard_normal(n)
    for start in range(0, n - len(t) + 1, len(t)):
        f0 = 220.0 * 2 ** (rng.integers(0, 25) / 12)
        found[start : start + len(t)] += np.exp(-8 * t) * sum(np.sin(2 * np.pi * k * f0 * t) / k for k in range(1, 9))
    return found


def siren(rng: np.random.Generator, n: int) -> np.ndarray:
    """A tone with harmonics that glides up and down."""
    f0 = 350.0 * 2 ** (0.5 * np.sin(2 * np.pi * 0.8 * np.arange(n) / SR))
    phase = 2 * np.pi * np.cumsum(f0) / SR
    return sum(np.sin(k * phase) / k for k in range(1, 9))


NOISES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "white noise": white,
    "pink noise": pink,
    "brown noise": brown,
    "mains hum": hum,
    "a fan": fan,
    "a keyboard": clicks,
    "a held chord": chord,
    "notes of 0.5 s": notes,
    "notes of 0.125 s": fast_notes,
    "a siren": siren,
}


def windows_with_speech(sound: np.ndarray, sr: int = SR) -> Iterator[bool]:
    """Whether there is speech in each window of 3 s that `samo stream` looks at, one every 0.5 s."""
    activity, hop = VoiceActivity(sr, WINDOW_S), round(HOP_S * sr)
    for start in range(0, len(sound) - hop + 1, hop):
        activity.hear(sound[start : start + hop])
        if start + hop >= WINDOW_S * sr:
            yield activity.facts(WINDOW_S).speech


def at_level(sound: np.ndarray, dbfs: float) -> np.ndarray:
    return (sound / sound.std() * 10 ** (dbfs / 20)).astype(np.float32)


def noisy(clip: np.ndarray, snr_db: float, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The clip behind 2 s of a noise that goes on through it; the ratio is over the loud half of the clip's frames."""
    frames = np.square(clip[: len(clip) // 640 * 640].reshape(-1, 640)).mean(axis=1)
    loud = frames[frames >= np.median(frames)].mean()
    n = len(clip) + 2 * SR
    noise = at_level(NOISES[kind](rng, n), 10 * np.log10(loud) - snr_db)
    noise[2 * SR :] += clip
    return noise


def speech(name: str, root: Path) -> None:
    paths = sorted(path for path in root.rglob("*") if path.suffix in (".wav", ".flac"))[::10]
    clips = [read(path, SR).waveform for path in paths]
    rng = np.random.default_rng(0)
    rows: dict[str, list[bool]] = {}
    for clip in clips:
        middle = clip[max(0, len(clip) // 2 - SR // 2) :][:SR]
        rows.setdefault("the middle 1 s", []).append(speech_in(middle, SR).speech)
        rows.setdefault("the whole clip", []).append(speech_in(clip, SR).speech)
        rows.setdefault("20 dB quieter", []).append(speech_in(0.1 * clip, SR).speech)
        for snr_db in (10.0, 5.0):
            for kind in ("white noise", "pink noise", "mains hum"):
                mixed = noisy(clip, snr_db, kind, rng)
                key = f"behind and in {kind}, {snr_db:g} dB"
                rows.setdefault(key, []).append(any(windows_with_speech(mixed)))
                alone = f"{kind} {snr_db:g} dB, its first 2 s"
                rows.setdefault(alone, []).append(speech_in(mixed[: 2 * SR], SR).speech)
    for key, found in rows.items():
        print(f"| {name}: {key} | {len(found)} | {np.mean(found):.1%} |")


def no_speech() -> None:
    zero = list(windows_with_speech(np.zeros(20 * SR, dtype=np.float32)))
    print(f"| digital silence | {len(zero)} | {np.mean(zero):.1%} |")
    for name, make in NOISES.items():
        found: list[bool] = []
        late: list[bool] = []
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            sound = at_level(make(rng, 12 * SR), LEVELS_DBFS[seed % 3])
            found += windows_with_speech(sound)
            # Something is switched on after 5 s of a quiet room.
            room = at_level(white(rng, 5 * SR), -70.0)
            late += windows_with_speech(np.concatenate([room, sound]))
        print(f"| {name} | {len(found)} | {np.mean(found):.1%} |")
        print(f"| {name}, after 5 s of a quiet room | {len(late)} | {np.mean(late):.1%} |")


def latency(run: str) -> None:
    """Seconds from the last sample of a window to its answer."""
    import samo
    from samo_audio.live import live

    predictor = samo.load(run, device="cpu", threads=2)
    rng = np.random.default_rng(0)
    sound = 0.05 * rng.standard_normal(60 * 48_000).astype(np.float32)
    stamps: list[float] = []

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(sound), 4800):
            stamps.append(time.perf_counter())
            yield sound[start : start + 4800]

    taken = []
    for _ in live(predictor, blocks(), 48_000, voice=False):
        taken.append(1000 * (time.perf_counter() - stamps[-1]))
    p50, p99 = np.percentile(taken, [50, 99])
    windows = f"{len(taken)} windows of {predictor.window_s:g} s every {HOP_S} s at 48000 Hz"
    print(f"\n{windows}, {predictor.facts.network}, 2 threads:")
    print(f"from the last block of a window to its answer p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    activity = VoiceActivity(SR, WINDOW_S)
    began = time.perf_counter()
    for start in range(0, 60 * SR, SR // 2):
        activity.hear(sound[start : start + SR // 2])
        activity.facts(WINDOW_S)
    print(f"voice activity alone: {1000 * (time.perf_counter() - began) / 120:.1f} ms a hop of {HOP_S} s at {SR} Hz")


def main(argv: list[str]) -> None:
    ravdess, emodb, *run = argv
    print("| sound | windows or clips | taken for speech |\n|---|---|---|")
    speech("RAVDESS", Path(ravdess))
    speech("EMO-DB", Path(emodb))
    no_speech()
    if run:
        latency(run[0])


if __name__ == "__main__":
    main(sys.argv[1:])
