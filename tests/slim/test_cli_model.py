"""``samo predict --model FILE.onnx``: the same forms as with a run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_onnx as tiny

from samo_cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a clip of 12 s and one of half a second, and a file of two texts."""
    root = tmp_path_factory.mktemp("files")
    tiny.write(root / "speech.onnx")
    tiny.write(root / "words.onnx", "text")
    wave = 0.25 + 0.125 * np.where(np.arange(96_000) % 2, 1.0, -1.0)
    (root / "clips").mkdir()
    soundfile.write(root / "clips" / "long.wav", wave, tiny.SR, subtype="FLOAT")
    soundfile.write(root / "clips" / "short.wav", wave[:4000], tiny.SR, subtype="FLOAT")
    (root / "texts.txt").write_text("one two\nthree\n")
    return root


def command(capsys: pytest.CaptureFixture[str], *argv: object, status: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as left:
        main(["predict", *map(str, argv)])
    out, err = capsys.readouterr()
    assert left.value.code == status, err
    return out, err


def test_json_says_what_the_model_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = command(capsys, "--model", folder / "speech.onnx", folder / "clips" / "short.wav", "--json")
    printed = json.loads(out)
    assert list(printed) == ["schema", "run", "synthetic", "predictions", "errors"]
    assert (printed["run"], printed["synthetic"], printed["errors"]) == ("tiny", True, [])
    assert printed["predictions"][0]["probabilities"] == pytest.approx(tiny.shares(0.25), abs=1e-6)
    assert err.splitlines() == [
        f"· model {folder / 'speech.onnx'}: audio model 'tiny'",
        "  answers: emotion (calm, happy, sad)",
        "  trained: small-cnn on demo, synthetic demo data, 2026-11-01",
        "  score:   test macro-F1 0.500 over 8 items",
        "  licence: CC0-1.0, of the data and so of the weights",
    ]


def test_csv_windows_and_resume(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", folder / "speech.onnx"]
    out, _ = command(capsys, *model, folder / "clips", "--csv")
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["path", "label", *tiny.LABELS, "abstained", "warnings"]
    assert [Path(row[0]).name for row in rows[1:]] == ["long.wav", "short.wav"]
    out, _ = command(capsys, *model, folder / "clips", "--windows")
    windows = list(csv.reader(io.StringIO(out)))
    assert len(windows) == 1 + 24 + 1
    # The first line and the first clip were written before.
    kept = tmp_path / "kept.csv"
    kept.write_text("\n".join(",".join(row) for row in rows[:2]) + "\n")
    _, err = command(capsys, *model, folder / "clips", "--resume", kept)
    assert f"1 of 2 are in {kept}" in err
    assert list(csv.reader(kept.open())) == rows


def test_texts_of_files_and_of_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = command(capsys, "--model", folder / "words.onnx", folder / "texts.txt", "--text", "a b c", "--json")
    found = json.loads(out)["predictions"]
    assert [row["text"] for row in found] == ["a b c", "one two", "three"]
    for row, n in zip(found, (3, 2, 1), strict=True):
        assert row["probabilities"] == pytest.approx(tiny.shares(n / 10), abs=1e-6)


def test_a_run_and_a_file_exclude_each_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = command(capsys, "--model", folder / "words.onnx", "--run", "mine", "--text", "a", status=2)
    assert err == "error: --run and --model exclude each other: a run answers, or an exported file\n"


@pytest.mark.parametrize(
    ("model", "rest", "status", "line"),
    [
        (
            "speech",
            ["--text", "a"],
            2,
            "model {} was trained on speech; --text needs a model of text (hint: name a run with "
            "--run, or take --model samo-text)",
        ),
        (
            "words",
            ["clips", "--windows"],
            2,
            "model {} was trained on text; --windows belongs to recordings (hint: name a run "
            "with --run, or take --model samo-speech)",
        ),
        ("speech", ["clips", "--text-column", "b"], 2, "model {} was trained on speech; --text-column needs"),
        ("speech", ["clips", "--device", "cuda"], 2, "--device cuda: an exported file is computed on the CPU"),
        ("none", ["clips"], 6, "there is no model file {} (hint: models that come with SAMO: samo-speech, samo-text; "),
    ],
)
def test_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], model: str, rest: list[str], status: int, line: str
) -> None:
    path = folder / f"{model}.onnx"
    given = [str(folder / "clips") if word == "clips" else word for word in rest]
    out, err = command(capsys, "--model", path, *given, status=status)
    assert out == ""
    assert err.startswith("error: " + line.format(path))
    assert err.count("\n") == 1


def test_a_misspelled_released_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = command(capsys, "--model", "samo-speach", folder / "clips", status=6)
    assert err.startswith(
        "error: there is no model file samo-speach (hint: did you mean 'samo-speech'? models that come "
    )


def test_help_names_the_released_models(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = command(capsys, "--help")
    assert "samo-speech or samo-text" in " ".join(out.replace("│", " ").split())


def test_a_name_of_two_lines_is_one_row(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / "a\nb.wav"
    clip.write_bytes((folder / "clips" / "short.wav").read_bytes())
    out, _ = command(capsys, "--model", folder / "speech.onnx", clip)
    assert len(out.splitlines()) == 3
    assert f"{tmp_path}/a\\nb.wav  " in out
