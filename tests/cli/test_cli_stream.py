"""``samo stream``: files, stdin and a stand-in for a microphone; its flags, its lines, its end."""

from __future__ import annotations

import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tone_corpora import SR, Result, done, refused, samo
from voice import voice

from samo_audio import sources
from samo_cli.render.live import bars


@pytest.fixture
def run(trained: Path) -> list[str]:
    return ["--run", "first", "--artifacts", str(trained), "--threads", "1"]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two seconds of a voice, one of silence."""
    sound = np.concatenate([voice(2.0, SR), np.zeros(SR, np.float32)])
    soundfile.write(tmp_path / "clip.wav", sound, SR)
    return tmp_path / "clip.wav"


def moments(*argv: object) -> list[dict[str, Any]]:
    return lines(done("stream", *argv, "--json"))


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.out.splitlines()]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))

    return give


def test_one_object_a_window_and_a_summary(run: list[str], clip: Path) -> None:
    result = done("stream", clip, "--pace", "fast", "--hop", "0.5", *run, "--json")
    found = lines(result)
    assert [(row["start_s"], row["end_s"]) for row in found] == [(k / 2, k / 2 + 0.5) for k in range(6)]
    assert [row["speech"] for row in found] == [True] * 4 + [False] * 2
    assert found[-1]["tasks"] == {}
    assert found[-1]["smoothed"] == found[3]["smoothed"] != {}
    assert found[0]["lost_s"] == 0.0
    notes = result.err.splitlines()
    assert notes[0] == f"· model first, windows of 0.5 s from {clip} ({SR} Hz)"
    assert notes[1] == "· 3.0 s heard: 6 windows, 4 of them with speech"
    assert notes[2].startswith("· answers to these: ")


def test_windows_answer_as_predict_does(run: list[str], clip: Path) -> None:
    head, *rows = done("predict", clip, *run, "--windows").out.splitlines()
    labels = head.split(",")[4:-1]
    found = moments(clip, "--pace", "fast", "--no-voice-activity", *run)
    assert len(rows) == len(found) == 6
    for row, moment in zip(rows[:4], found[:4], strict=True):
        cells = row.split(",")
        assert (float(cells[1]), float(cells[2])) == (moment["start_s"], moment["end_s"])
        shares = moment["tasks"]["emotion"]["probabilities"]
        assert [shares[label] for label in labels] == pytest.approx([float(cell) for cell in cells[4:-1]], abs=2e-6)


def test_every_flag_changes_what_it_says(run: list[str], clip: Path) -> None:
    plain = moments(clip, "--pace", "fast", *run)
    assert len(moments(clip, "--pace", "fast", "--hop", "0.25", *run)) == 11
    assert len(moments(clip, "--pace", "fast", "--seconds", "1.2", *run)) == 3
    quick = moments(clip, "--pace", "fast", "--smoothing", "0", *run)
    assert all(row["smoothed"] == row["tasks"] for row in quick[:4])
    assert plain[3]["smoothed"] != plain[3]["tasks"]
    soft = 3e-4 * np.random.default_rng(0).standard_normal(SR)
    soundfile.write(clip, soft, SR)
    assert [row["speech"] for row in moments(clip, "--pace", "fast", *run)] == [False, False]
    assert [row["speech"] for row in moments(clip, "--pace", "fast", "--no-voice-activity", *run)] == [True, True]


def test_pace(run: list[str], clip: Path, monkeypatch: pytest.MonkeyPatch, stdin: Any) -> None:
    slow: list[str] = []
    whole = sources.at_pace

    def at_pace(source: sources.Source) -> Any:
        slow.append(source.name)
        return whole(source, sleep=lambda seconds: None)

    monkeypatch.setattr(sources, "at_pace", at_pace)
    for argv, expected in (
        ([clip], [str(clip)]),
        ([clip, "--pace", "fast"], []),
        (["-"], []),
        (["-", "--pace", "real"], ["stdin"]),
    ):
        slow.clear()
        stdin(clip.read_bytes())
        assert len(moments(*argv, *run)) == 6
        assert slow == expected


def test_stdin_as_wav_and_raw(run: list[str], clip: Path, stdin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, _ = soundfile.read(clip, dtype="int16")
    plain = moments(clip, "--pace", "fast", *run)
    stdin(clip.read_bytes())
    assert moments("-", *run) == plain
    stdin(samples.tobytes())
    assert moments("-", "--format", "s16le", "--sr", SR, *run) == plain
    stdin(np.stack([samples / 2**15] * 2, axis=1).astype("<f4").tobytes())
    assert moments("-", "--format", "f32le", "--sr", SR, "--channels", 2, *run) == plain
    stdin(samples.tobytes())
    assert "need their rate in Hz: --sr" in refused(2, "stream", "-", "--format", "s16le", *run)
    stdin(b"")
    assert "stdin is empty" in refused(3, "stream", "-", *run)
    stdin(b"")
    assert "stdin is empty" in samo("stream", "-", "--format", "s16le", "--sr", SR, *run).error
    monkeypatch.setattr(sys, "stdin", None)
    assert "stdin is closed (hint: pipe sound" in refused(3, "stream", "-", *run)


def test_plain_lines_without_a_terminal(run: list[str], clip: Path) -> None:
    shown = done("stream", clip, "--pace", "fast", *run).out.splitlines()
    assert len(shown) == 6
    assert shown[0].startswith("0:00:00.0 - 0:00:00.5  ")
    assert " dBFS  " in shown[0]
    assert "%" in shown[0]
    assert "(this window: " in shown[0]
    assert shown[-1] == "0:00:02.5 - 0:00:03.0  -200.0 dBFS  no speech"


def test_bars_on_a_terminal(run: list[str], clip: Path, trained: Path) -> None:
    from rich.console import Console

    import samo as package
    from samo_audio.live import live

    predictor: Any = package.load("first", artifacts=trained, threads=1)
    sound, _ = soundfile.read(clip, dtype="float32")
    found = list(live(predictor, [sound], SR))
    console = Console(width=80, file=io.StringIO(), record=True)
    for moment in (found[0], found[-1]):
        console.print(bars(moment, predictor.space, 0.3))
    shown = console.export_text().splitlines()
    label = found[0].smoothed["emotion"].label
    assert shown[0] == f"emotion: {label}"
    (bar,) = [line for line in shown[1:9] if line.split()[0] == label]
    assert bar.count("█") == round(30 * found[0].smoothed["emotion"].probabilities[label])
    assert "speech" in shown[9]
    assert "0.3 s lost" in shown[9]
    assert "no speech" in shown[-1]


def test_ctrl_c_ends_with_a_summary(run: list[str], clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(source: sources.Source) -> Any:
        for k, block in enumerate(source.blocks):
            if k == 12:
                raise KeyboardInterrupt
            yield block

    monkeypatch.setattr(sources, "at_pace", stopped)
    result = samo("stream", clip, *run, "--json")
    assert (result.status, len(result.out.splitlines())) == (130, 2)
    assert result.stop == "stopped: after 1.0 s"
    assert "· 1.0 s heard: 2 windows, 2 of them with speech" in result.err


def test_a_microphone_and_what_it_lost(run: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    names: list[str] = []

    @contextmanager
    def microphone(name: str = "") -> Any:
        names.append(name)
        sound = voice(1.5, SR)
        yield sources.Source("USB Mic", SR, [sound[:SR], sound[SR:]], overruns=2, lost_s=0.2)

    monkeypatch.setattr(sources, "microphone", microphone)
    monkeypatch.setattr(sources, "microphones", lambda: [(1, "USB Mic", 1, 48_000)])
    result = done("stream", "--device-mic", "usb", *run, "--json")
    assert names == ["usb"]
    assert [row["lost_s"] for row in lines(result)] == [0.2] * 3
    assert "2 overruns: 0.2 s or more were lost" in result.err
    assert "a longer --hop asks less" in result.err
    assert done("stream", "--list-devices").out.splitlines()[-1].split() == ["1", "USB", "Mic", "1", "48000"]
    monkeypatch.setattr(sources, "microphones", list)
    assert "there is no microphone" in done("stream", "--list-devices").err
    assert "there is no microphone (hint: connect one" in refused(9, "stream", *run)


def test_without_sounddevice(run: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    line = refused(9, "stream", *run)
    assert "a microphone needs the package sounddevice (hint: pip install 'samo-emotion[mic]')" in line
    assert line in refused(9, "stream", "--list-devices")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--hop", "0.6"], "--hop 0.6: seconds from 0.01 to 0.5"),
        (["--smoothing", "-1"], "--smoothing -1"),
        (["--smoothing", "inf"], "--smoothing inf"),
        (["--seconds", "inf"], "--seconds inf: seconds from 0 to 1e+09"),
        (["--seconds", "1e300"], "--seconds 1e+300: "),
        (["--device-mic", "1"], "--device-mic names a microphone"),
        (["--sr", "8000"], "say what comes from stdin"),
        (["--format", "s16le"], "say what comes from stdin"),
        (["--channels", "2"], "say what comes from stdin"),
        (["--model", "x.onnx"], "--run and --model exclude each other"),
        (["--pace", "slow"], "--pace"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(run: list[str], clip: Path, argv: list[str], says: str) -> None:
    assert says in refused(2, "stream", clip, *argv, *run)


def test_what_cannot_be_streamed(run: list[str], clip: Path, tmp_path: Path) -> None:
    assert "does not exist" in refused(3, "stream", tmp_path / "none.wav", *run)
    assert "--pace is for a file or stdin" in refused(2, "stream", "--pace", "real", *run)
    assert "there is no model file" in refused(6, "stream", clip, "--model", tmp_path / "none.onnx")
    assert "there is no run 'x'" in refused(5, "stream", clip, "--run", "x", "--artifacts", tmp_path)
    damaged = clip.read_bytes()
    (tmp_path / "cut.wav").write_bytes(damaged[: len(damaged) // 2])
    assert "truncated" in samo("stream", tmp_path / "cut.wav", "--pace", "fast", *run, "--json").error
