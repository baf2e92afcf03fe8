"""``samo predict``: table, JSON and CSV, long recordings, odd files, unreadable files."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tone_corpora import EMOTIONS, SR, done, read_json, refused, samo, tone

from samo.evaluation.predictions import Predictions
from samo.prediction import Prediction
from samo_audio.predictor import AudioPredictor
from samo_cli.resumed_csv import left_to_do


@pytest.fixture
def run(trained: Path) -> list[str]:
    return ["--run", "first", "--artifacts", str(trained), "--threads", "1"]


def predicted(run: list[str], *paths: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = done("predict", *paths, *run, "--json").json["predictions"]
    return found


def test_json_is_stable(run: list[str], clips: Path) -> None:
    result = done("predict", clips / "Actor_01", clips / "Actor_02" / "03-01-01-01-01-01-02.wav", *run, "--json")
    assert result.err == "· run first (trained on ravdess)\n"
    assert list(result.json) == ["schema", "run", "synthetic", "predictions", "errors"]
    assert (result.json["schema"], result.json["run"], result.json["synthetic"]) == (1, "first", False)
    assert result.json["errors"] == []
    assert len(result.json["predictions"]) == 9
    for row in result.json["predictions"]:
        assert list(row) == ["path", "label", "abstained", "probabilities", "tasks", "warnings"]
        answer = {"labels": [row["label"]], "likeliest": row["label"], "probabilities": row["probabilities"]}
        assert row["tasks"] == {"emotion": {**answer, "abstained": False}}
        assert row["abstained"] is False
        assert list(row["probabilities"]) == list(EMOTIONS)
        assert math.isclose(sum(row["probabilities"].values()), 1.0, abs_tol=1e-6)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].__getitem__)
        assert row["warnings"] == []
    assert result.json["predictions"][0]["path"] == str(clips / "Actor_01" / "03-01-01-01-02-01-01.wav")


def test_predict_says_what_evaluate_judged(run: list[str], clips: Path, trained: Path) -> None:
    predictions = Predictions.load(trained / "runs" / "first" / "predictions.test.npz")
    paths = [clips / f"Actor_{name[-2:]}" / f"{name}.wav" for name in predictions.ids]
    shares = [list(row["probabilities"].values()) for row in predicted(run, *paths)]
    temperature = read_json(trained / "runs" / "first" / "calibration.json")["temperature"]["emotion"]
    assert abs(temperature - 1) > 1e-3
    odds = np.exp((predictions.logits - predictions.logits.max(axis=1, keepdims=True)) / temperature)
    np.testing.assert_allclose(shares, odds / odds.sum(axis=1, keepdims=True), atol=1e-5)


def test_csv(run: list[str], clips: Path) -> None:
    result = done("predict", clips / "Actor_01", *run, "--csv")
    head, *rows = csv.reader(io.StringIO(result.out))
    assert head == ["path", "label", *EMOTIONS, "abstained", "warnings"]
    assert len(rows) == 8
    for row in rows:
        assert row[1] == EMOTIONS[int(np.argmax([float(share) for share in row[2:-2]]))]
        assert row[-2] == "false"


def test_table(run: list[str], clips: Path) -> None:
    shown = done("predict", clips / "Actor_01", *run)
    lines = shown.out.splitlines()
    assert lines[0].split() == ["file", "label", "probability", "next"]
    assert shown.err == "· run first (trained on ravdess)\n"
    # A pipe gets one line a file, however long its name.
    assert [line.split()[0] for line in lines[2:]] == sorted(str(p) for p in (clips / "Actor_01").iterdir())
    assert all("%" in line for line in lines[2:])


def test_json_and_csv_exclude_each_other(clips: Path) -> None:
    for pair in (["--json", "--csv"], ["--json", "--windows"], ["--csv", "--windows"]):
        assert "exclude each other" in refused(2, "predict", clips, *pair)


def test_paths_that_are_not_there(run: list[str], tmp_path: Path) -> None:
    assert f"no such file or folder: {tmp_path / 'no.wav'}" in refused(3, "predict", tmp_path / "no.wav", *run)
    (tmp_path / "void").mkdir()
    assert f"no audio files in {tmp_path / 'void'}" in refused(3, "predict", tmp_path / "void", *run)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("8bit.wav", {"subtype": "PCM_U8"}),
        ("24bit.wav", {"subtype": "PCM_24"}),
        ("32bit.wav", {"subtype": "PCM_32"}),
        ("float.wav", {"subtype": "FLOAT"}),
        ("double.wav", {"subtype": "DOUBLE"}),
        ("clip.flac", {}),
        ("clip.ogg", {}),
        ("mp3.wav", {"format": "MP3"}),
    ],
)
def test_any_format_gets_the_same_label(run: list[str], tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    same = tone(tmp_path / "x" / "16bit.wav", 450.0)
    samples, _ = soundfile.read(same)
    soundfile.write(tmp_path / "x" / name, samples, SR, **how)
    plain, other = predicted(run, same, tmp_path / "x" / name)
    assert plain["label"] == other["label"]
    if name == "mp3.wav":
        assert any("is MP3 despite its name" in warning for warning in other["warnings"])


def test_stereo_and_other_rates(run: list[str], tmp_path: Path) -> None:
    mono = tone(tmp_path / "mono.wav", 450.0)
    samples, _ = soundfile.read(mono)
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples, samples], axis=1), SR)
    one, two = predicted(run, mono, tmp_path / "stereo.wav")
    assert one["probabilities"] == pytest.approx(two["probabilities"], abs=1e-4)
    tone(tmp_path / "fast.wav", 450.0, sr=44_100)
    assert predicted(run, tmp_path / "fast.wav")[0]["label"]


def test_silence_and_short_clips_get_a_warning(run: list[str], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(SR), SR)
    tone(tmp_path / "short.wav", 450.0, seconds=0.05)
    result = done("predict", tmp_path, *run, "--json").json
    short, silent = result["predictions"]
    assert silent["warnings"] == ["silent"]
    assert short["warnings"] == ["shorter than 0.1 s"]
    for row in (short, silent):
        assert all(math.isfinite(share) for share in row["probabilities"].values())
        assert row["abstained"] is True
    rows = {Path(line.split()[0]).name: line for line in done("predict", tmp_path, *run).out.splitlines()[2:]}
    assert f" not sure ({silent['label']}; silent) " in rows["silent.wav"]
    assert f" not sure ({short['label']}; shorter than 0.1 s) " in rows["short.wav"]
    _, silent_row = csv.reader(io.StringIO(done("predict", tmp_path / "silent.wav", *run, "--csv").out))
    assert (silent_row[1], *silent_row[-2:]) == (silent["label"], "true", "silent")


@pytest.mark.parametrize("seconds", [12.0, 70.0])
def test_long_recordings_get_a_time_line(run: list[str], tmp_path: Path, seconds: float) -> None:
    long = tone(tmp_path / "long.wav", 450.0, seconds=seconds)
    (row,) = predicted(run, long)
    timeline = row["timeline"]
    assert len(timeline) == 2 * seconds
    assert (timeline[0]["start_s"], timeline[-1]["end_s"]) == (0.0, seconds)
    assert set(timeline[0]) == {"start_s", "end_s", "label", "abstained", "probabilities"}
    shown = done("predict", long, *run).out
    assert f"time line of {long}" in shown
    assert "  0:00:00.0 - 0:00:00.5  " in shown


def test_windows_are_rows(run: list[str], tmp_path: Path, clips: Path) -> None:
    long, short = tone(tmp_path / "long.wav", 450.0, seconds=12.0), tone(tmp_path / "short.wav", 450.0, seconds=0.4)
    result = done("predict", long, short, *run, "--windows")
    head, *rows = csv.reader(io.StringIO(result.out))
    assert head == ["path", "start_s", "end_s", "label", *EMOTIONS, "abstained"]
    assert [row[0] for row in rows] == [str(long)] * 24 + [str(short)]
    assert [tuple(map(float, row[1:3])) for row in rows] == [(k / 2, k / 2 + 0.5) for k in range(24)] + [(0.0, 0.4)]
    (answer,) = predicted(run, long)
    for row, window in zip(rows[:24], answer["timeline"], strict=True):
        assert row[3] == window["label"]
        assert [float(share) for share in row[4:-1]] == pytest.approx(list(window["probabilities"].values()), abs=1e-6)
    assert "--windows prints them" in done("predict", long, *run, "--csv").err
    assert "--windows" not in done("predict", short, *run, "--csv").err


def test_unreadable_files_are_named_and_the_rest_predicted(run: list[str], tmp_path: Path) -> None:
    tone(tmp_path / "a_good.wav", 450.0)
    (tmp_path / "b_empty.wav").touch()
    whole = tone(tmp_path / "c_cut.wav", 450.0).read_bytes()
    (tmp_path / "c_cut.wav").write_bytes(whole[: len(whole) // 2])
    tone(tmp_path / "d_good.wav", 300.0)
    result = samo("predict", tmp_path, *run, "--json")
    assert result.status == 3
    assert [Path(row["path"]).name for row in result.json["predictions"]] == ["a_good.wav", "d_good.wav"]
    assert [Path(row["path"]).name for row in result.json["errors"]] == ["b_empty.wav", "c_cut.wav"]
    lines = result.err.splitlines()
    assert len(lines) == 3
    assert lines[1] == f"error: {tmp_path}/b_empty.wav: is empty (0 bytes)"
    assert "c_cut.wav: truncated" in lines[2]
    assert samo("predict", tmp_path, *run, "--csv").status == 3
    alone = samo("predict", tmp_path / "b_empty.wav", *run)
    assert (alone.status, alone.out) == (3, "")


def test_every_wrong_file_is_a_line_and_the_others_are_answered(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording of another format, one that may not be read, a pipe, a folder that may not be read."""
    tone(tmp_path / "a_good.wav", 450.0)
    (tmp_path / "b_memo.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    tone(tmp_path / "c_locked.wav", 450.0)
    os.mkfifo(tmp_path / "d_pipe.wav")
    tone(tmp_path / "e_folder" / "x.wav", 450.0)
    tone(tmp_path / "f_good.wav", 300.0)
    (tmp_path / "g_pointer.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    scandir, access, opened = os.scandir, os.access, Path.open

    def refuse(path: Any) -> None:
        # pytest removes its folders by their descriptors.
        if not isinstance(path, int) and Path(path).name in ("c_locked.wav", "e_folder"):
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", lambda path=".": refuse(path) or scandir(path))
    monkeypatch.setattr(Path, "open", lambda path, *how, **more: refuse(path) or opened(path, *how, **more))
    monkeypatch.setattr(os, "access", lambda path, *how: "c_locked" not in str(path) and access(path, *how))
    result = samo("predict", tmp_path, tmp_path / "c_locked.wav", *run, "--json")
    assert result.status == 3
    assert [Path(row["path"]).name for row in result.json["predictions"]] == ["a_good.wav", "f_good.wav"]
    says = {
        "b_memo.m4a": "is not in an audio format SAMO can read (hint: SAMO reads WAV, FLAC, Ogg, MP3, AIFF, AU, CAF, "
        "W64, RF64; convert others: ffmpeg -i in.m4a out.wav)",
        "c_locked.wav": "cannot be read: Permission denied",
        "d_pipe.wav": "is not a regular file",
        "e_folder": "cannot be read: Permission denied",
        "g_pointer.wav": "is a pointer of Git LFS, not the recording (hint: fetch the files themselves: git lfs pull)",
    }
    lines = [f"error: {tmp_path / name}: {why}" for name, why in says.items()]
    assert result.err.splitlines()[1:] == [*lines, lines[1]]
    assert [Path(row["path"]).name for row in result.json["errors"]] == [*says, "c_locked.wav"]


@pytest.mark.slow
def test_names_that_look_like_markup_or_bytes(run: list[str], tmp_path: Path) -> None:
    tone(tmp_path / "[red]x[/red].wav", 450.0)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    shutil.copy(tmp_path / "[red]x[/red].wav", odd)
    assert "[red]x[/red].wav" in done("predict", tmp_path / "[red]x[/red].wav", *run).out
    assert [row["path"] for row in predicted(run, tmp_path)] == [f"{tmp_path}/[red]x[/red].wav", odd]
    shell = [sys.executable, "-m", "samo_cli", "predict", odd, *run]
    printed = subprocess.run([*shell, "--json"], capture_output=True, check=True).stdout
    assert json.loads(printed)["predictions"][0]["path"] == odd


def test_a_run_without_a_model(artifacts: Path, clips: Path) -> None:
    # What comes with SAMO answers in its place, and says what it is.
    result = done("predict", clips, "--csv")
    assert "model samo-speech: audio model 'samo-speech'" in result.err
    assert "licence: CC BY-NC-SA 4.0" in result.err
    assert "there is no run in artifacts yet (hint: train one: samo train" in refused(5, "evaluate")
    (artifacts / "runs" / "empty").mkdir(parents=True)
    assert "there is no run 'empty'" in refused(5, "predict", clips, "--run", "empty")


def test_a_run_that_may_abstain_says_so_everywhere(trained: Path, clips: Path, tmp_path: Path) -> None:
    """A threshold above every confidence: nothing is answered, and every label stands beside it."""
    run = tmp_path / "runs" / "first"
    shutil.copytree(trained / "runs" / "first", run)
    kept = read_json(run / "calibration.json")
    stored = {
        "schema": 1, "rule": "risk", "wanted": 0.1, "thresholds": {"emotion": 2.0}, "fitted_on": "val",
        "temperature": kept["temperature"], "n": kept["n"], "epoch": kept["epoch"],
    }  # fmt: skip
    (run / "abstention.json").write_text(json.dumps(stored))
    where = ["--run", str(run)]
    rows = predicted(where, clips / "Actor_01")
    assert all(row["abstained"] and row["label"] in EMOTIONS for row in rows)
    lines = done("predict", clips / "Actor_01", *where).out.splitlines()[2:]
    assert all(f" not sure ({row['label']}) " in line for row, line in zip(rows, lines, strict=True))
    _, *csv_rows = csv.reader(io.StringIO(done("predict", clips / "Actor_01", *where, "--csv").out))
    assert [(row[1], row[-2]) for row in csv_rows] == [(row["label"], "true") for row in rows]
    # Fitted for other weights it does not count.
    (run / "abstention.json").write_text(json.dumps({**stored, "epoch": kept["epoch"] + 1}))
    assert not any(row["abstained"] for row in predicted(where, clips / "Actor_01"))


@pytest.fixture
def stops_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Lets Ctrl-C come after so many answers; returns how many lines stdout had when each next one was asked for."""

    def stop_after(n: int) -> list[int]:
        lines: list[int] = []
        whole = AudioPredictor.stream

        def stream(self: AudioPredictor, inputs: Any, **how: Any) -> Iterator[Prediction]:
            for number, prediction in enumerate(whole(self, inputs, **how)):
                if isinstance(sys.stdout, io.StringIO):
                    lines.append(len(sys.stdout.getvalue().splitlines()))
                if number == n:
                    raise KeyboardInterrupt
                yield prediction

        monkeypatch.setattr(AudioPredictor, "stream", stream)
        return lines

    return stop_after


def test_rows_are_written_one_by_one_and_survive_ctrl_c(
    run: list[str], clips: Path, stops_after: Callable[[int], list[int]]
) -> None:
    whole = done("predict", clips / "Actor_01", *run, "--csv").out.splitlines()
    lines = stops_after(3)
    stopped = samo("predict", clips / "Actor_01", *run, "--csv")
    assert (stopped.status, stopped.out.splitlines()) == (130, whole[:4])
    assert lines == [1, 2, 3, 4]
    assert stopped.stop == "stopped: after 3 of 8 (hint: the same command with --resume FILE.csv goes on)"
    windows = samo("predict", clips / "Actor_01", *run, "--windows")
    assert (windows.status, len(windows.out.splitlines())) == (130, 4)


def test_ctrl_c_shows_what_is_known(
    run: list[str], clips: Path, tmp_path: Path, stops_after: Callable[[int], list[int]]
) -> None:
    (tmp_path / "a_empty.wav").touch()
    stops_after(3)
    table = samo("predict", tmp_path, clips / "Actor_01", *run)
    assert (table.status, len(table.out.splitlines())) == (130, 2 + 2)
    assert table.err.splitlines()[-2:] == [
        f"error: {tmp_path}/a_empty.wav: is empty (0 bytes)", "stopped: after 3 of 9",
    ]  # fmt: skip
    plain = samo("predict", tmp_path, clips / "Actor_01", *run, "--json")
    assert (plain.status, plain.json["stopped"], len(plain.json["predictions"])) == (130, True, 2)
    assert len(plain.json["errors"]) == 1


@pytest.mark.parametrize("left", ["a row", "half a row", "a number that is cut", "half a head", "nothing"])
def test_resume_goes_on_where_the_file_ends(
    left: str, run: list[str], clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = [clips / "Actor_01", clips / "Actor_02"]
    whole = done("predict", *folder, *run, "--csv").out
    rows = whole.splitlines(keepends=True)
    (tmp_path / "out.csv").write_text(
        {
            "a row": "".join(rows[:6]),
            "half a row": "".join(rows[:6]) + rows[6][:40],
            "a number that is cut": "".join(rows[:6]) + rows[6].removesuffix(",false,\n")[:-2],
            "half a head": rows[0][:9],
            "nothing": "",
        }[left]
    )
    requested: list[Path] = []
    stream = AudioPredictor.stream
    monkeypatch.setattr(
        AudioPredictor, "stream", lambda self, inputs: stream(self, requested.extend(inputs) or list(requested))
    )
    resumed = done("predict", *folder, *run, "--resume", tmp_path / "out.csv")
    n_known = 5 if "half a head" != left != "nothing" else 0
    assert (tmp_path / "out.csv").read_text() == whole
    assert len(requested) == 16 - n_known
    assert (resumed.out, resumed.err.splitlines()[1]) == ("", f"· {n_known} of 16 are in {tmp_path / 'out.csv'}")
    # A second time there is nothing left to do, and however the paths are spelled.
    requested.clear()
    monkeypatch.chdir(clips)
    done("predict", "Actor_02", "Actor_01", *run, "--resume", tmp_path / "out.csv")
    assert requested == []
    assert (tmp_path / "out.csv").read_text() == whole


def test_resume_asks_again_for_what_could_not_be_read(run: list[str], tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    tone(tmp_path / "clips" / "b.wav", 450.0)
    (tmp_path / "clips" / "a.wav").touch()
    file = tmp_path / "out.csv"
    file.write_text(samo("predict", tmp_path / "clips", *run, "--csv").out)
    again = samo("predict", tmp_path / "clips", *run, "--resume", file)
    assert (again.status, again.error) == (3, f"error: {tmp_path}/clips/a.wav: is empty (0 bytes)")
    tone(tmp_path / "clips" / "a.wav", 300.0)
    done("predict", tmp_path / "clips", *run, "--resume", file)
    paths = [row[0] for row in csv.reader(file.open())]
    assert paths == ["path", str(tmp_path / "clips" / "b.wav"), str(tmp_path / "clips" / "a.wav")]


def test_a_file_that_cannot_be_gone_on_with(run: list[str], clips: Path, tmp_path: Path) -> None:
    file, words = tmp_path / "out.csv", ["predict", clips / "Actor_01", *run]
    resume = [*words, "--resume", file]
    line = refused(3, *resume)
    assert line.endswith(
        f"{file} cannot be gone on with: No such file or directory (hint: begin it with --csv > {file})"
    )
    head, *rows = done(*words, "--csv").out.splitlines(keepends=True)
    for text in ("a,b\n1,2\n", head.replace("happy", "joy")):
        file.write_text(text)
        assert "has other columns than `samo predict --csv` writes with this run" in refused(3, *resume)
        assert file.read_text() == text
    file.write_text(head + "x.wav,happy\n" + rows[0])
    assert f"{file} is damaged: row 2 has 2 columns, not 12" in refused(3, *resume)
    file.write_text(head)
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert f"another command writes into {file}" in refused(5, *resume)
    for other in ("--json", "--windows"):
        assert "--resume goes on with what --csv wrote" in refused(2, *resume, other)


def test_rows_are_told_apart_as_they_are_written() -> None:
    """Texts that stand twice have two rows; formulas have an apostrophe, and bytes that are not UTF-8 are escaped."""
    items = ["so\nglad", "=1+1", "so\nglad", "b\udce9", "new", "so\nglad"]
    assert left_to_do(items, ["so\nglad", "'=1+1", "b\\udce9", "so\nglad"], str) == ["new", "so\nglad"]
    assert left_to_do(["x/a.wav"], ["./x/a.wav"], os.path.abspath) == []
