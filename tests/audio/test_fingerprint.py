"""Fingerprints of made voices: copies of every kind are found, other takes are not."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import tiny_audio as tiny
from edited_runs import trained_with

import samo
from samo.data.fingerprints import Fingerprints, near_copies
from samo.errors import LeakError
from samo.runs.run import Run
from samo_audio.audio_io import clip_of, read
from samo_audio.config import AudioConfig
from samo_audio.fingerprint import fingerprint, fingerprints
from samo_audio.frontend import AudioFrontend
from samo_audio.inspection import inspect
from samo_audio.waveforms import open_waveforms

RATE = 22_050
QUIET: Any = {"epochs": 1, "sr": 8000, "duration": 0.5, "n_mels": 32, "n_fft": 256, "hop_length": 64, "width": 4}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and no pictures, which take seconds."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("samo.runs.run_report.save_figures", lambda *_: [])


@functools.cache
def voice(tune: int, take: int, seconds: float = 2.5, rate: int = RATE) -> np.ndarray:
    """(seconds * rate,) a sung tune: a ``tune`` has its notes, each ``take`` its own timing, vibrato and breath."""
    notes, own = np.random.default_rng(tune), np.random.default_rng(1000 * tune + take)
    time_s = np.arange(round(seconds * rate)) / rate
    count = 8
    pitches = notes.uniform(110, 260, count)
    begins = np.linspace(0, seconds, count + 1)[:-1] + own.normal(0, 0.03, count)
    knots = np.linspace(0, seconds, 60)
    wobble = np.interp(time_s, knots, own.normal(0, 0.02, 60).cumsum() * 0.5)
    pitch = pitches[np.clip(np.searchsorted(begins, time_s) - 1, 0, count - 1)] * (1 + wobble)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    made = np.zeros(len(time_s))
    for harmonic in range(1, 25):
        swell = np.exp(np.interp(time_s, knots, own.normal(0, 0.8, 60)))
        made += swell * np.sin(harmonic * phase) / harmonic * (harmonic * pitch < 0.45 * rate)
    sung = (0.1 * made + 0.002 * own.standard_normal(len(time_s))).astype(np.float32)
    sung.flags.writeable = False
    return sung


def coded(samples: np.ndarray, container: str, codec: str) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=container, subtype=codec)
    file.seek(0)
    decoded: np.ndarray = soundfile.read(file, dtype="float32")[0]
    return decoded


def dithered(samples: np.ndarray) -> np.ndarray:
    return np.round(samples * 32768 + np.random.default_rng(0).triangular(-1, 0, 1, len(samples))) / 32768


def made_of(**clips: np.ndarray) -> Fingerprints:
    return Fingerprints.of(
        "test", 62.5, [(name, *fingerprint(each.astype(np.float32), RATE)) for name, each in clips.items()]
    )


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "16 kHz": lambda x: clip_of(soxr.resample(x, RATE, 16_000), 16_000, RATE).waveform,
    "+3 dB": lambda x: x * 10 ** (3 / 20),
    "-30 dB": lambda x: x * 10 ** (-30 / 20),
    "inverted": lambda x: -x,
    "cut by a sample": lambda x: x[1:],
    "cut by 0.1 s": lambda x: x[2205:],
    "both ends cut": lambda x: x[3000:-3000],
    "MP3": lambda x: coded(x, "MP3", "MPEG_LAYER_III"),
    "Ogg": lambda x: coded(x, "OGG", "VORBIS"),
    "dither": dithered,
    "one channel of stereo": lambda x: (
        clip_of(np.stack([x, 0.5 * np.concatenate([np.zeros(5, np.float32), x])[: len(x)]]), RATE, RATE).waveform
    ),
    "noise 20 dB below": lambda x: x + 0.1 * x.std() * np.random.default_rng(0).standard_normal(len(x)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_copy_is_found_and_no_other_take(name: str) -> None:
    takes = {f"take{take}": voice(1, take) for take in range(4)}
    found = near_copies(made_of(copy=CHANGES[name](takes["take2"])), made_of(**takes))
    assert [pair.second for pair in found] == ["take2"]
    assert found[0].alike > 0.8


def test_overlapping_cuts_of_a_recording_are_found() -> None:
    whole = voice(2, 0, 3.0)
    (found,) = made_of(first=whole[: 2 * RATE], second=whole[RATE + 77 :]).pairs
    # One second is in both, less what the windows of 0.19 s reach beyond its ends.
    assert found.seconds == pytest.approx(0.81, abs=0.05)


def test_takes_of_one_tune_do_not_match() -> None:
    takes = made_of(**{f"{tune}-{take}": voice(tune, take) for tune in range(3) for take in range(12)})
    assert takes.counts.min() > 100
    assert takes.pairs == ()


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(RATE),
        np.full(RATE, 0.5),
        np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE),
        voice(0, 0, 0.15),
        np.zeros(1),
    ],
    ids=["silence", "constant", "steady tone", "short", "one sample"],
)
def test_what_says_nothing_has_no_words(samples: np.ndarray) -> None:
    words, frames = fingerprint(samples.astype(np.float32), RATE)
    assert len(words) == len(frames) == 0


def test_quiet_frames_are_left_out_and_the_rest_keep_their_place() -> None:
    sound = voice(3, 0, 1.0)
    words, frames = fingerprint(np.concatenate([np.zeros(RATE, np.float32), sound]), RATE)
    # Windows of 128 ms, each 16 ms, compared over 64 ms: none reaches into the sound before (1 - 0.192) s.
    assert frames.min() >= 50
    assert len(words) == len(frames) > 40


def test_fingerprints_are_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("here", "there"):
        tiny.write(tmp_path / folder / "a.wav", voice(0, 0), RATE)
    made = [open_waveforms([("a", tmp_path / folder / "a.wav")], 8000) for folder in ("here", "there")]
    first = fingerprints(made[0])
    assert first is not None
    monkeypatch.setattr("samo_audio.fingerprint.fingerprint", None)
    second = fingerprints(made[1])
    assert second is not None
    assert np.array_equal(first.words, second.words)
    assert len(list((tmp_path / "cache" / "fingerprints").iterdir())) == 1


def test_clips_decoded_to_a_low_rate_have_none(tmp_path: Path) -> None:
    tiny.write(tmp_path / "a.wav", voice(0, 0), RATE)
    assert fingerprints(open_waveforms([("a", tmp_path / "a.wav")], 4000)) is None


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six speakers; the last one's clip is another's, as MP3 at 16 kHz under another name."""
    lines = ["path,label,speaker,split"]
    for speaker in range(6):
        part = "train" if speaker < 4 else "val" if speaker == 4 else "test"
        for number, label in enumerate(tiny.LABELS):
            tiny.write(tmp_path / f"data/{speaker}-{number}.wav", voice(speaker, number), RATE)
            lines.append(f"{speaker}-{number}.wav,{label},s{speaker},{part}")
    low = soxr.resample(voice(1, 2), RATE, 16_000)
    soundfile.write(tmp_path / "data/again.mp3", 1.4 * low[1600:], 16_000, format="MP3")
    (tmp_path / "data/clean.csv").write_text("\n".join(lines))
    (tmp_path / "data/leaky.csv").write_text("\n".join([*lines, "again.mp3,sad,s5,test"]))
    # Another corpus: a copy of a clip trained on, one of a clip tested on, and clips of nobody known.
    low = soxr.resample(voice(5, 0), RATE, 16_000)
    soundfile.write(tmp_path / "data/tested.ogg", low, 16_000, format="OGG", subtype="VORBIS")
    for number in range(3):
        tiny.write(tmp_path / f"data/new-{number}.wav", voice(77, number), RATE)
    new = ["path,label,speaker", "new-0.wav,angry,x", "new-1.wav,happy,y", "new-2.wav,sad,z", "tested.ogg,angry,s5"]
    (tmp_path / "data/other.csv").write_text("\n".join(new))
    (tmp_path / "data/copied.csv").write_text("\n".join([*new, "again.mp3,sad,w"]))
    return tmp_path / "data"


def opened(table: Path, **values: Any) -> AudioFrontend:
    given = AudioConfig.build({**QUIET, "dataset": "table", "data_root": str(table), "split": "table", **values})
    return AudioFrontend.open(given, lambda line: None)


def trained(table: Path, tmp_path: Path, name: str = "run", **values: Any) -> Any:
    place = {"artifacts": tmp_path / "artifacts", "device": "cpu", "threads": 1, "name": name}
    return samo.train(**place, **{**QUIET, "dataset": "table", "data_root": table, "split": "table", **values})


def test_training_refuses_a_near_copy_of_a_test_clip_and_goes_on_when_told(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LeakError, match=r"near copies: .*1-2\.wav \(train\)") as caught:
        trained(table / "leaky.csv", tmp_path)
    assert "again.mp3 (test)" in caught.value.message
    assert "`near_copies=report`" in caught.value.hint
    capsys.readouterr()
    run = trained(table / "leaky.csv", tmp_path, near_copies="report")
    assert "near copies: " in capsys.readouterr().err
    report = samo.evaluate(run, device="cpu", threads=1)
    assert [line for line in report["warnings"] if "again.mp3" in line and line.startswith("leak: near copies")]


@pytest.mark.slow
def test_a_run_begun_before_only_reports_near_copies_and_says_what_it_lacks(table: Path, tmp_path: Path) -> None:
    run = trained(table / "leaky.csv", tmp_path, near_copies="report")
    # As an older version left it.
    run.path("fingerprints.npz").unlink()
    assert '  "near_copies": "report",\n' in run.path("config.json").read_text()
    trained_with(run.folder, "near_copies")
    run = Run(run.folder)
    assert run.settings["near_copies"] == "refuse"
    report = samo.evaluate(run, device="cpu", threads=1)
    assert any(line.startswith("leak: near copies") for line in report["warnings"])
    there = {"dataset": "table", "data_root": table / "copied.csv", "device": "cpu", "threads": 1}
    lines = samo.evaluate(run, **there)["warnings"]
    assert any(line.startswith("only exact copies of the training data were looked for") for line in lines)


def test_copies_of_training_clips_in_another_corpus_are_refused(table: Path, tmp_path: Path) -> None:
    run = trained(table / "clean.csv", tmp_path)
    # Of train and validation alone: 15 of 18 clips, with less than a kilobyte each.
    assert len(Fingerprints.load(run.path("fingerprints.npz")).ids) == 15
    assert run.path("fingerprints.npz").stat().st_size < 15 * 1024
    there = {"dataset": "table", "device": "cpu", "threads": 1}
    with pytest.raises(LeakError, match=r"again\.mp3 and 1-2\.wav, 9\d% alike over") as caught:
        samo.evaluate(run, data_root=table / "copied.csv", **there)
    assert "`near_copies=report`" in caught.value.hint
    listed = samo.evaluate(run, data_root=table / "copied.csv", near_copies="report", **there)["warnings"]
    assert len([line for line in listed if line.startswith("leak: near copies of what the run was trained on: ")]) == 1
    # A clip it was tested on is new to it.
    clean = samo.evaluate(run, data_root=table / "other.csv", **there)
    assert clean["n"] == 4
    assert not [line for line in clean["warnings"] if "copies" in line]


def test_inspect_names_near_copies(table: Path) -> None:
    front = opened(table / "leaky.csv")
    found = inspect(front.manifest, front.waveforms)
    assert found["duplicates"] == []
    (pair,) = found["near_copies"]
    assert sorted(pair["ids"]) == ["1-2", "again"]
    assert 0.85 < pair["alike"] < 1.0
    (line,) = [line for line in found["warnings"] if line.startswith("near copies: ")]
    assert line.endswith(", by different speakers: a split by speaker may put them on two sides")


@pytest.mark.real
@pytest.mark.slow
def test_takes_of_real_actors_do_not_match_but_the_file_that_stands_twice_does(ravdess_root: Path) -> None:
    """The actors whose takes come closest, of all 1,036,080 pairs; see ``benchmarks/fingerprint.py``."""
    files = [path for actor in ("07", "23") for path in sorted((ravdess_root / f"Actor_{actor}").iterdir())]
    found = made_of(**{path.stem: read(path, RATE).waveform for path in files})
    assert [{pair.first, pair.second} for pair in found.pairs] == [{"03-01-03-01-02-01-07", "03-01-03-01-02-02-07"}]


@pytest.mark.real
def test_copies_of_real_clips_are_found_among_their_speakers_others(emodb_root: Path) -> None:
    files = sorted(emodb_root.glob("0[38]*"))
    clips = {path.stem: read(path, RATE).waveform for path in files}
    corpus = made_of(**clips)
    assert corpus.pairs == ()
    for name in list(clips)[::15]:
        copy = coded(0.7 * clips[name][2205 + 177 :], "MP3", "MPEG_LAYER_III")
        assert [pair.second for pair in near_copies(made_of(copy=copy), corpus)] == [name]
