"""``samo drift``: a run's validation part against lines of a server; what it says, its flags, its status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tone_corpora import EMOTIONS, done, refused, samo

import samo as package
from samo.deploy.drift import reference_of
from samo.runs.run import Run
from samo_audio.audio_io import read


def line(k: int, *, model: str = "first", label: str = "", **values: Any) -> dict[str, Any]:
    """One answer, the k-th of a file: labels by turns."""
    label = label or EMOTIONS[k % 8]
    answer = {"label": label, "labels": [label], "confidence": 0.3 + 0.05 * (k % 10), "abstained": False}
    return {
        "schema": 1, "time": f"2026-11-26T{k // 60 % 24:02d}:{k % 60:02d}:00Z", "model": model, "modality": "audio",
        "tasks": {"emotion": answer}, "duration_s": 0.5, "level_dbfs": -13.0 - 0.01 * (k % 7), "warnings": [], **values,
    }  # fmt: skip


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines))
    return path


@pytest.fixture
def reference(trained: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The run's eight validation clips are enough, for this test."""
    monkeypatch.setattr("samo.deploy.drift.FEWEST", 8)
    return ["--reference", "first", "--artifacts", str(trained)]


def test_the_reference_is_the_validation_part(trained: Path) -> None:
    run = Run(trained / "runs" / "first")
    found = reference_of(run)
    ids = run.split.val
    assert found["n"] == len(ids) == 8
    paths = [run.manifest.path(item) for item in run.manifest.items if item.id in ids]
    answers = package.load(run, threads=1).predict(paths)
    task = found["tasks"]["emotion"]
    labels = [each.label for each in answers]
    assert task["counts"] == {label: labels.count(label) for label in EMOTIONS}
    assert task["confidences"] == pytest.approx(sorted(max(each.probabilities.values()) for each in answers), abs=1e-5)
    assert (task["n"], task["abstained"], task["multi_label"]) == (8, 0, False)
    clips = [read(path, 8000) for path in paths]
    assert found["level_dbfs"] == pytest.approx(sorted(clip.rms_db for clip in clips), abs=1e-5)
    assert found["duration_s"] == [0.5] * 8


def test_without_kept_predictions_the_part_is_predicted_and_without_data_they_do(copied: Path, clips: Path) -> None:
    kept = reference_of(Run(copied))
    (copied / "predictions.val.npz").rename(copied / "aside.npz")
    again = reference_of(Run(copied))
    assert again["tasks"]["emotion"]["counts"] == kept["tasks"]["emotion"]["counts"]
    np.testing.assert_allclose(
        again["tasks"]["emotion"]["confidences"], kept["tasks"]["emotion"]["confidences"], atol=1e-4
    )
    settings = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**settings, "data_root": "/gone"}))
    assert reference_of(Run(copied)) == {}
    (copied / "aside.npz").rename(copied / "predictions.val.npz")
    gone = reference_of(Run(copied))
    assert gone == {name: kept[name] for name in ("part", "n", "tasks")}


def test_a_shift_is_shown_and_told(reference: list[str], tmp_path: Path) -> None:
    lines = [line(k, label="angry", level_dbfs=-40.0 - 0.1 * (k % 5)) for k in range(60)]
    file = write(tmp_path / "log.jsonl", lines)
    result = done("drift", file, *reference)
    assert result.out.startswith(
        "60 answers of first, 2026-11-26 00:00 to 2026-11-26 00:59 UTC, against 8 of what the model"
    )
    rows = {row.split("  ")[0]: row for row in result.out.splitlines()}
    assert rows["input level"].endswith("DRIFT")
    assert rows["labels of emotion"].endswith("DRIFT")
    assert " dB quieter than what the model was validated on (median -40.2 dBFS" in result.out
    assert "angry is answered " in result.out
    found = done("drift", file, *reference, "--json").json
    assert (found["drift"], found["n"], found["n_reference"], found["model"]) == (True, 60, 8, "first")
    assert (found["from"], found["to"]) == ("2026-11-26T00:00:00+00:00", "2026-11-26T00:59:00+00:00")
    level = next(check for check in found["checks"] if check["quantity"] == "input level")
    assert (level["drift"], level["effect"], level["test"]) == (True, 1.0, "Kolmogorov-Smirnov")
    assert level["now"] == pytest.approx(-40.2)
    assert found["broken"] == {"n": 0, "first": []}


def test_the_status_is_zero_unless_wanted(reference: list[str], tmp_path: Path) -> None:
    drifted = write(tmp_path / "a", [line(k, level_dbfs=-60.0) for k in range(60)])
    assert samo("drift", drifted, *reference).status == 0
    failed = samo("drift", drifted, *reference, "--fail-on-drift")
    assert (failed.status, "error" in failed.err) == (1, False)
    calm = write(tmp_path / "b", [line(k) for k in range(120)])
    assert done("drift", calm, "--halves", "--fail-on-drift").out.splitlines()[-1] == "no drift is seen"


def test_broken_lines_and_other_models_are_named(reference: list[str], tmp_path: Path) -> None:
    lines = [line(k) for k in range(40)]
    lines[3:3] = ["{no", *[line(k, model="b") for k in range(5)], "[]"]
    result = done("drift", write(tmp_path / "x", lines), *reference)
    assert "2 lines are no answers and left out: line 4 (" in result.err
    assert "line 10 (" in result.err
    assert "lines of other models are left out: 5 of b" in result.err
    assert result.out.startswith("40 answers of first")
    found = done("drift", tmp_path / "x", *reference, "--json").json
    assert ([each["line"] for each in found["broken"]["first"]], found["other_models"]) == ([4, 10], {"b": 5})


def test_which_model(reference: list[str], tmp_path: Path) -> None:
    lines = [line(k, model="b" if k % 3 else "c") for k in range(60)]
    file = write(tmp_path / "x", lines)
    assert "lines of several models: c, b (hint: name one with --model)" in refused(3, "drift", file, *reference)
    result = done("drift", file, *reference, "--model", "b")
    assert result.out.startswith("40 answers of b")
    assert "the lines are of a model called b, the reference is first" in result.err
    assert "--model x: no line is of it (hint: there are: c, b" in refused(2, "drift", file, *reference, "--model", "x")


def test_halves_and_since(tmp_path: Path) -> None:
    lines = [line(k, level_dbfs=-20.0 - (k % 9) - (12 if k >= 60 else 0)) for k in range(120)]
    file = write(tmp_path / "x", lines)
    found = done("drift", file, "--halves", "--json").json
    assert (found["reference"], found["n_reference"], found["n"]) == ("the first half", 60, 60)
    assert [check["says"] for check in found["checks"] if check["drift"]] == [
        "the inputs are 12 dB quieter than the first half (median -36 dBFS, -24 there)"
    ]
    late = done("drift", file, "--halves", "--since", "2026-11-26T01:00", "--json").json
    assert (late["n_reference"], late["n"], late["drift"]) == (30, 30, False)
    few = done("drift", file, "--halves", "--since", "10m")
    assert "too few answers to tell: 5 in the first half, at least 30 needed" in few.out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "give either --reference RUN|FILE.onnx or --halves"),
        (["--halves", "--reference", "first"], "give either --reference"),
        (["--halves", "--since", "soon"], "--since soon: no time (hint: 2026-11-26"),
    ],
)
def test_flags(tmp_path: Path, argv: list[str], says: str) -> None:
    assert says in refused(2, "drift", write(tmp_path / "x", [line(k) for k in range(70)]), *argv)


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    assert "holds no answers (it is empty) (hint: `samo serve`" in refused(
        3, "drift", write(tmp_path / "x", []), "--halves"
    )
    assert "No such file" in refused(3, "drift", tmp_path / "none", "--halves")
    assert "there is no model file" in refused(
        6, "drift", write(tmp_path / "y", [line(0)]), "--reference", tmp_path / "none.onnx"
    )


def test_lines_of_another_model_are_refused(reference: list[str], tmp_path: Path) -> None:
    bored = write(tmp_path / "bored", [line(k, label="bored") for k in range(60)])
    assert "the lines answer emotion with bored, the reference with" in refused(3, "drift", bored, *reference)
    assert done("drift", bored, "--halves").out
    text = write(tmp_path / "text", [line(k, modality="text") for k in range(60)])
    assert "the lines are answers to text, the reference is of audio" in refused(3, "drift", text, *reference)


def test_broken_lines_are_counted_once(tmp_path: Path) -> None:
    file = write(tmp_path / "x", [line(k) for k in range(60)] + ["no"] * 19)
    printed = done("drift", file, "--halves").err
    assert "19 lines are no answers and left out: line 61 (" in printed
    assert printed.count(" more") == 1
    assert " and 16 more" in printed
