"""Silence cut off both ends of a clip: which samples stay, which clips stay whole, and where it acts."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_audio as tiny

from samo.data.batch import Draws
from samo_audio import predictor
from samo_audio.audio_io import SILENT_PEAK, read
from samo_audio.frontend import AudioFrontend
from samo_audio.trimming import LONGEST_S, sounding

SR = 8000
# Frames of 320 samples around every 80th: those of the sound's ends hold 80 samples of it.
START, END = 4000 - 80, 8000 + 160


def spoken(silence: float = 0.0) -> np.ndarray:
    """(12000,) float32: half a second of a square wave of amplitude 0.5 between two of lower ones."""
    wave = np.where(np.arange(12_000) % 16 < 8, 1.0, -1.0)
    level = np.full(12_000, silence)
    level[4000:8000] = 0.5
    return (level * wave).astype(np.float32)


@pytest.mark.parametrize("silence", [0.0, 0.5e-2])
def test_the_ends_are_exact(silence: float) -> None:
    """Silence 40 dB below the sound is cut by 30 dB."""
    assert sounding(spoken(silence), SR, 30.0) == (START, END)


def by_librosa(waveform: np.ndarray, sr: int, trim_db: float) -> tuple[int, int]:
    import librosa

    if np.abs(waveform).max() < SILENT_PEAK:
        return 0, len(waveform)
    frame, hop = round(0.04 * sr), round(0.01 * sr)
    _, ends = librosa.effects.trim(waveform, top_db=trim_db, frame_length=frame, hop_length=hop)
    start, end = map(int, ends)
    return (start, end) if start < end else (0, len(waveform))


@pytest.mark.usefixtures("compiled_librosa")
def test_the_ends_are_those_of_librosa() -> None:
    """Noise that swells and dies away, of every length, level and rate."""
    rng = np.random.default_rng(0)
    cut = 0
    for _ in range(150):
        sr = int(rng.choice([4000, 11_025, 16_000, 22_050, 44_100]))
        n = int(rng.integers(1, sr))
        level = np.interp(np.arange(n), np.sort(rng.integers(0, n + 1, 8)), 10 ** rng.uniform(-5, 0, 8))
        waveform = (level * rng.standard_normal(n)).astype(np.float32)
        trim_db = float(rng.uniform(0.1, 100))
        assert sounding(waveform, sr, trim_db) == by_librosa(waveform, sr, trim_db)
        cut += sounding(waveform, sr, trim_db) != (0, n)
    assert cut > 50


@pytest.mark.real
@pytest.mark.usefixtures("compiled_librosa")
def test_the_ends_of_real_clips_are_those_of_librosa(emodb_root: Path) -> None:
    clips = sorted(emodb_root.rglob("*.flac"))[:40]
    assert clips
    for path in clips:
        waveform = read(path, 16_000).waveform
        for trim_db in (20.0, 40.0):
            assert sounding(waveform, 16_000, trim_db) == by_librosa(waveform, 16_000, trim_db)


def test_what_is_not_so_far_below_stays() -> None:
    # The outermost frames are half padding, which lowers them by 3 dB.
    assert sounding(spoken(0.5e-2), SR, 39.0) == (START, END)
    assert sounding(spoken(0.5e-2), SR, 44.0) == (0, 12_000)
    assert sounding(spoken(), SR, 0.0) == (0, 12_000)


def test_a_pause_inside_stays() -> None:
    pause = spoken()
    pause[5500:6500] = 0.0
    assert sounding(pause, SR, 30.0) == (START, END)


def test_level_and_rate_do_not_matter() -> None:
    assert sounding(spoken() / 100, SR, 30.0) == (START, END)
    assert sounding(np.repeat(spoken(), 2), 2 * SR, 30.0) == (2 * START, 2 * END)


@pytest.mark.parametrize("level", [0.0, 0.9e-4])
def test_silence_stays_whole(level: float) -> None:
    silent = np.zeros(4000, np.float32)
    silent[2000] = level
    assert sounding(silent, SR, 30.0) == (0, 4000)


@pytest.mark.parametrize("n", [1, 2, 79, 80, 81, 320, 321])
def test_the_shortest_clips_keep_a_sample(n: int) -> None:
    for place in (0, n // 2, n - 1):
        click = np.zeros(n, np.float32)
        click[place] = 0.5
        start, end = sounding(click, SR, 30.0)
        assert 0 <= start <= place < end <= n


def test_recordings_over_a_minute_stay_whole() -> None:
    minute = np.zeros(60 * SR + 1, np.float32)
    minute[4000:8000] = 0.5
    assert sounding(minute[:-1], SR, 30.0) == (START, END)
    assert sounding(minute, SR, 30.0) == (0, len(minute))
    # What is predicted as a stream is just what is not trimmed.
    assert predictor.STREAMED_S == LONGEST_S


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three speakers with three clips: one that sounds in its middle, one all through, one silent."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    lines = ["path,label,speaker,split"]
    waves = {"a": spoken(), "b": spoken(0.5), "c": np.zeros(2000, np.float32)}
    for speaker, part in enumerate(("train", "val", "test")):
        for (name, wave), label in zip(waves.items(), tiny.LABELS, strict=True):
            tiny.write(tmp_path / f"{speaker}{name}.wav", wave * (1 - speaker / 8))
            lines.append(f"{speaker}{name}.wav,{label},s{speaker},{part}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return tmp_path / "table.csv"


def test_training_and_evaluation_see_the_trimmed_clips(table: Path) -> None:
    plain, short = tiny.frontend(table), tiny.frontend(table, trim_db=30.0)
    assert plain.waveforms.lengths.tolist() == 3 * [12_000, 12_000, 2000]
    assert short.waveforms.lengths.tolist() == 3 * [END - START, 12_000, 2000]
    assert np.array_equal(short.waveforms.waveform(0), plain.waveforms.waveform(0)[START:END])
    windows = next(iter(short.eval_batches(np.array([0]), 8)))
    sound = plain.waveforms.waveform(0)
    expected = [sound[START : START + 4000], sound[END - 4000 : END]]
    np.testing.assert_array_equal(windows.inputs.numpy(), expected)
    for epoch in range(5):
        crop = short.train_batch(np.array([0]), Draws(0, epoch, np.array([0]))).inputs.numpy()[0]
        assert any(np.array_equal(crop, sound[at : at + 4000]) for at in range(START, END - 4000 + 1))
    # What is known of the whole file stays, its silence among it.
    assert short.waveforms.facts == plain.waveforms.facts
    assert short.waveforms.facts[2].warnings == ("silent",)
    assert short.manifest.digest == plain.manifest.digest


def test_other_settings_trim_anew_and_workers_get_what_is_trimmed(table: Path) -> None:
    plain = tiny.frontend(table)
    short = plain.with_config(plain.config.model_copy(update={"features": tiny.config(trim_db=30.0).features}))
    assert short.waveforms.lengths[0] == END - START
    copied = pickle.loads(pickle.dumps(short.waveforms))
    assert np.array_equal(copied.waveform(0), short.waveforms.waveform(0))
    whole = short.with_config(plain.config)
    assert whole.waveforms.lengths[0] == 12_000


def test_members_of_an_ensemble_are_trimmed_alike() -> None:
    settings = [AudioFrontend.batch_settings(tiny.config(trim_db=db)) for db in (0.0, 30.0, 30.0)]
    assert settings[0] != settings[1] == settings[2]


@pytest.mark.slow
def test_librosa_is_never_waited_for(table: Path) -> None:
    code = (
        "import sys\n"
        "import samo.runs.train, samo_audio.predictor, tiny_audio as tiny\n"
        "from pathlib import Path\n"
        "for trim_db in (0.0, 30.0):\n"
        "    clips = tiny.frontend(Path(sys.argv[1]), trim_db=trim_db)\n"
        "    batch = next(clips.eval_batches(range(9), 4))\n"
        "    clips.new_model()(batch.inputs, batch.lengths)\n"
        "    print(sorted({'librosa', 'numba'} & set(sys.modules)))\n"
    )
    where = os.pathsep.join([str(Path(tiny.__file__).parent), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", code, str(table)],
        env={**os.environ, "PYTHONPATH": where},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == ["[]", "[]"]
