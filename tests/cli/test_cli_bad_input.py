"""Bad data through ``samo train``: one line on stderr, the right status, the files named."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tone_corpora import SR, TINY, done, folder, ravdess, refused, table, table_rows, tone

CLIP = "03-01-05-01-01-01-02.wav"


def training(root: Path, *more: object) -> list[object]:
    return ["train", "--data-root", root, *TINY, "--epochs", "1", *more]


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ([], "is empty"),
        (["notes.txt"], "no .wav or .flac file lies below"),
        (["hello.wav", "world.wav"], "none of the 2 clips below"),
        (["Actor_01/03-01-05-01-01-01-01.wav", "Actor_01/hello.wav"], "1 of 2 clips below"),
        (["Actor_01/03-01-05-01-01-01-01.wav", "Actor_01/03-01-05-01-01-01-02.wav"], "another actor's"),
        (["03-01-09-01-01-01-01.wav", "03-01-05-01-01-01-01.wav"], "03-01-09-01-01-01-01.wav"),
    ],
)
def test_folders_without_ravdess(tmp_path: Path, paths: list[str], says: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for path in paths:
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).touch()
    assert says in refused(3, *training(root))


def nan(path: Path) -> None:
    samples = np.zeros(SR, dtype=np.float32)
    samples[100] = np.nan
    soundfile.write(path, samples, SR, subtype="FLOAT")


def infinite(path: Path) -> None:
    samples = np.zeros(SR, dtype=np.float32)
    samples[100] = np.inf
    soundfile.write(path, samples, SR, subtype="FLOAT")


def cut(path: Path) -> None:
    whole = tone(path, 440.0).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def header_only(path: Path) -> None:
    path.write_bytes(tone(path, 440.0).read_bytes()[:44])


def absurd_rate(path: Path) -> None:
    data = bytearray(tone(path, 440.0).read_bytes())
    data[24:28] = struct.pack("<I", 4_000_000)
    path.write_bytes(bytes(data))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "header only": (header_only, "truncated"),
    "truncated": (cut, "truncated"),
    "no samples": (lambda path: soundfile.write(path, np.zeros(0), SR), "holds no samples"),
    "NaN": (nan, "holds NaN or infinite samples, the first at 0.013 s"),
    "infinity": (infinite, "holds NaN or infinite samples"),
    "text": (lambda path: path.write_text("not a sound\n" * 50), "is not in an audio format SAMO can read"),
    "rate": (absurd_rate, "sample rate 4000000 Hz is not within"),
    "channels": (lambda path: soundfile.write(path, np.zeros((800, 40)), SR), "40 channels; at most 32"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_clip_that_cannot_be_used(tmp_path: Path, kind: str, artifacts: Path) -> None:
    make, says = BAD[kind]
    tone(tmp_path / "03-01-01-01-01-01-01.wav", 300.0)
    make(tmp_path / CLIP)
    line = refused(3, *training(tmp_path))
    assert f"{tmp_path / CLIP}: " in line
    assert says in line
    assert not artifacts.exists()


def test_several_bad_clips_are_all_named(tmp_path: Path) -> None:
    tone(tmp_path / "03-01-01-01-01-01-01.wav", 300.0)
    for actor in range(2, 16):
        (tmp_path / f"03-01-05-01-01-01-{actor:02d}.wav").touch()
    line = refused(3, *training(tmp_path))
    assert "14 of 15 clips cannot be read" in line
    assert line.count("is empty (0 bytes)") == 10
    assert "and 4 more" in line


def test_silent_and_short_clips_are_trained_on(tmp_path: Path) -> None:
    root = ravdess(tmp_path / "odd")
    soundfile.write(root / "Actor_01" / "03-01-02-01-02-01-01.wav", np.zeros(SR), SR)
    tone(root / "Actor_01" / "03-01-03-01-02-01-01.wav", 450.0, seconds=0.05)
    tone(root / "Actor_01" / "03-01-04-01-02-01-01.wav", 450.0, seconds=4.0)
    assert 0.0 <= done(*training(root), "--json").json["val_macro_f1"] <= 1.0


def test_too_few_speakers(tmp_path: Path) -> None:
    line = refused(3, *training(ravdess(tmp_path / "two", (1, 2))))
    assert "2 speakers; a split by speaker needs at least three" in line
    line = refused(3, *training(folder(tmp_path / "f"), "--dataset", "folder"))
    assert "no speaker is known for 36 of 36 items: angry/spk0_0, angry/spk0_1 and 34 more (hint: " in line
    assert r"--speaker-pattern '^[^/]+/(spk\d+)'" in line
    assert "--speaker-column" not in line
    assert "--split random" in line


def test_a_class_that_training_never_sees(tmp_path: Path) -> None:
    rows = [
        (path, label, f"{speaker},{'test' if speaker[-1] in '45' else 'val' if speaker[-1] == '3' else 'train'}")
        for path, label, speaker in table_rows()
        if label != "sad" or speaker[-1] in "345"
    ]
    csv = table(tmp_path / "x", rows, "path,label,speaker,split")
    line = refused(3, *training(csv, "--dataset", "table", "--split", "table"))
    assert "the training split has no example of: sad" in line


@pytest.mark.parametrize(
    ("header", "more", "says"),
    [
        ("file,label,speaker", [], "has no column 'path'; it has: file, label, speaker"),
        ("path,emotion,speaker", [], "has no column 'label'"),
        ("path,label,speaker_id", [], "did you mean 'speaker_id'? name it with --speaker-column"),
        ("path,label,speaker", ["--label-column", "lable"], "did you mean 'label'?"),
        ("path,label,speaker", ["--split", "table"], "has no column 'split'"),
    ],
)
def test_tables_without_a_column(tmp_path: Path, header: str, more: list[str], says: str) -> None:
    csv = table(tmp_path / "x", table_rows(speakers=2), header)
    assert says in refused(3, *training(csv, "--dataset", "table", *more))


def test_tables_that_are_wrong(tmp_path: Path) -> None:
    csv = table(tmp_path / "x", table_rows())
    for path in csv.parent.glob("*_[0-3].wav"):
        path.unlink()
    line = refused(3, *training(csv, "--dataset", "table"))
    assert "12 of 18 files that" in line
    assert line.count(".wav") == 10
    assert "and 2 more" in line

    words = table(tmp_path / "y", table_rows(("angry", "happy", "meh")))
    line = refused(3, *training(words, "--dataset", "table", "--mode", "sentiment"))
    assert "--mode sentiment does not know the label in" in line
    assert "'meh'" in line

    both = [(path, label, f"{who},{'train' if label == 'sad' else 'test'}") for path, label, who in table_rows()]
    shared = table(tmp_path / "z", both, "path,label,speaker,split")
    line = refused(4, *training(shared, "--dataset", "table", "--split", "table"))
    assert "speakers stand in two splits: speaker0, speaker1" in line
    assert "is empty" in refused(3, *training(_empty(tmp_path / "e.csv"), "--dataset", "table"))


def _empty(path: Path) -> Path:
    path.touch()
    return path


def test_features_too_small_for_the_model(clips: Path) -> None:
    line = refused(2, *training(clips, "--hop-length", "1024", "--n-fft", "1024"))
    assert "--model small-cnn needs at least 16 frames" in line


def test_folds_that_do_not_exist(clips: Path) -> None:
    assert "fold 7 does not exist (hint: valid: 0 to 4)" in refused(
        2, *training(clips, "--split", "folds", "--fold", "7")
    )


def test_artifacts_that_cannot_be_written(clips: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    line = refused(9, *training(clips, "--artifacts", blocked / "inside"))
    assert str(blocked) in line


def test_what_makes_scores_doubtful_is_said_before_training(tmp_path: Path) -> None:
    """The same recording under two labels, a class that test lacks, and a split that the seed draws."""
    parts = {"0": "train", "1": "train", "2": "val", "3": "test"}
    rows = [
        (path, label, f"{speaker},{parts[speaker[-1]]}")
        for path, label, speaker in table_rows(speakers=4)
        if label != "sad" or speaker[-1] in "012"
    ]
    csv = table(tmp_path / "x", rows, "path,label,speaker,split")
    (first, _, _), (second, _, _) = (
        next(row for row in rows if row[1:] == (word, "speaker0,train")) for word in ("angry", "sad")
    )
    (csv.parent / second).write_bytes((csv.parent / first).read_bytes())
    printed = done(*training(csv, "--dataset", "table", "--seed", "1")).err
    assert f"1 recording stands several times under different labels: {first} (angry) = {second} (sad)" in printed
    assert "test has no example of sad: left out of macro-F1 there" in printed
    # The table's own split is drawn by no seed.
    assert "also draws the split" not in printed
    printed = done(*training(csv, "--dataset", "table", "--split", "speaker", "--seed", "1")).err
    assert "--seed 1 also draws the split; --split-seed 0 keeps that of --seed 0, as an ensemble needs" in printed


def test_a_mistyped_path_is_refused_before_torch_is_imported(trained: Path, clips: Path, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved, symlinks=True)
    config = moved / "runs" / "first" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "data_root": gone}))
    commands = [
        ["predict", gone],
        ["predict", str(clips), "--run", "other"],
        ["evaluate", "--data-root", gone],
        ["evaluate", "--artifacts", str(moved)],
        ["evaluate", "other"],
        ["train", "--data-root", gone],
        ["train", "--modality", "text", "--dataset", "table", "--data-root", gone],
        ["train", "--resume", "other"],
        ["train", "--resume", "first", "--artifacts", str(moved)],
    ]
    lines = [
        "import json, sys",
        "sys.modules['torch'] = None",
        "from samo_cli.main import main",
        "for words in json.loads(sys.argv[1]):",
        "    try:",
        "        main(words)",
        "    except SystemExit as leave:",
        "        print(leave.code)",
    ]
    environment = {**os.environ, "SAMO_ARTIFACTS": str(trained)}
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), json.dumps(commands)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    missing = "no such file or folder: {}", "{} points at {}, which does not exist", "there is no run 'other'"
    lines = ended.stderr.splitlines()
    assert [int(line) for line in ended.stdout.split()] == [3, 5, 3, 3, 5, 3, 3, 5, 3], ended.stderr
    assert len(lines) == len(commands)
    no_file, no_root, no_run = missing[0].format(gone), missing[1].format("--data-root", gone), missing[2]
    moved_away = f"the data of run 'first' are no longer at {gone}"
    wanted = [no_file, no_run, no_root, moved_away, no_run, no_root, no_root, no_run, moved_away]
    assert all(words in line for words, line in zip(wanted, lines, strict=True)), ended.stderr
