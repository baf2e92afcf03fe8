"""``samo compare``: tables, files, and every reason not to compare."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tone_corpora import EMOTIONS, done, read_json, refused

from samo.data.manifest import Manifest
from samo.data.splits import Split
from samo.evaluation.predictions import Predictions
from samo.files import write_json
from samo.reporting import comparison_figures


@pytest.fixture
def pictures() -> None:
    """Ask for the pictures; drawing is the larger part of a comparison."""


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(comparison_figures, "save_comparison_figures", lambda *_: [])


@pytest.fixture
def other(copied: Path) -> Path:
    """A second run on the same data, which has every test item right."""
    return second(copied, "second")


def second(run: Path, name: str, wrong: int = 0) -> Path:
    """A copy of a run that has all items right but the first few."""
    copy = shutil.copytree(run, run.parent / name)
    for part in ("test", "val"):
        predictions = Predictions.load(copy / f"predictions.{part}.npz")
        logits = 5 * predictions.targets
        logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
        replace(predictions, logits=logits).save(copy / f"predictions.{part}.npz")
    return copy


def compare(*argv: object) -> dict:
    return done("compare", *argv, "--json").json


@pytest.mark.usefixtures("pictures")
@pytest.mark.slow
def test_tables_files_and_pictures(copied: Path, other: Path, artifacts: Path) -> None:
    shown = done("compare", "first", "second")
    report = read_json(copied / "report.json")["metrics"]
    folder = artifacts / "comparisons" / "first-vs-second"
    assert shown.err == ""
    for text in (
        "ravdess, test part: 16 items of 2 speakers (split: speaker)",
        f"{report['macro_f1']:.3f}",
        f"{1 - report['macro_f1']:+.3f}",
        "p (Holm)",
        "UAR",
        "McNemar",
        *EMOTIONS,
        "paired bootstrap over speakers",
        "comparison.json: artifacts/comparisons/first-vs-second",
    ):
        assert text in shown.out
    tables = shown.out[: shown.out.index("paired bootstrap")]
    assert max(map(len, tables.splitlines())) <= 80
    assert {path.name for path in folder.iterdir()} == {"comparison.json", "differences.png", "per_class.second.png"}


def test_json_is_the_file_and_nothing_else(copied: Path, other: Path, artifacts: Path) -> None:
    result = done("compare", "first", "second", "--json")
    assert result.err == ""
    assert result.json == read_json(artifacts / "comparisons" / "first-vs-second" / "comparison.json")
    report = read_json(copied / "report.json")
    scores = result.json["comparisons"][0]["scores"]
    for name in ("macro_f1", "uar", "accuracy"):
        assert scores[name]["baseline"] == report["metrics"][name]
        assert scores[name]["run"] == 1.0
    assert list(result.json["comparisons"][0]["per_class"]) == list(EMOTIONS)
    assert (result.json["baseline"], result.json["dataset"], result.json["split"]) == ("first", "ravdess", "test")
    wrong = round(16 * (1 - report["metrics"]["accuracy"]))
    assert result.json["comparisons"][0]["mcnemar"]["only_run"] == wrong


def test_the_first_is_the_baseline(copied: Path, other: Path) -> None:
    forth, back = compare("first", "second"), compare("second", "first")
    one, two = (found["comparisons"][0]["scores"]["accuracy"] for found in (forth, back))
    assert one["difference"] == pytest.approx(-two["difference"])
    assert (back["baseline"], back["comparisons"][0]["run"]) == ("second", "first")


def test_several_runs_are_corrected_for(copied: Path, other: Path, artifacts: Path) -> None:
    second(copied, "third", wrong=4)
    comparison = compare("first", "second", "third")
    assert [row["run"] for row in comparison["comparisons"]] == ["second", "third"]
    assert comparison["correction"]["scores"] == 2
    assert (artifacts / "comparisons" / "first-vs-second-vs-third" / "comparison.json").is_file()


def test_on_the_validation_part(copied: Path, other: Path, artifacts: Path) -> None:
    comparison = compare("first", "second", "--on", "val")
    kept = read_json(copied / "trained.json")
    assert (comparison["split"], comparison["n"]) == ("val", 8)
    assert comparison["comparisons"][0]["scores"]["macro_f1"]["baseline"] == kept["val_macro_f1"]
    assert any("best epochs were chosen" in line for line in comparison["warnings"])
    assert (artifacts / "comparisons" / "first-vs-second.val" / "comparison.json").is_file()
    for part in ("train", "tset"):
        assert f"--on {part}: runs are not compared there (hint: valid: test, val)" in refused(
            2, "compare", "first", "second", "--on", part
        )


def test_runs_elsewhere_by_folder_and_artifacts(copied: Path, other: Path, artifacts: Path, tmp_path: Path) -> None:
    moved = artifacts.rename(tmp_path / "elsewhere")
    assert "there is no run 'first'" in refused(5, "compare", "first", "second")
    comparison = compare(moved / "runs" / "first", "second", "--artifacts", moved)
    assert comparison["baseline"] == "first"
    assert (moved / "comparisons" / "first-vs-second").is_dir()


def test_a_comparison_replaces_itself_and_no_other(copied: Path, other: Path, artifacts: Path) -> None:
    root = artifacts / "comparisons"
    former = compare("first", "second")
    assert compare("first", "second") == former
    assert [path.name for path in root.iterdir()] == ["first-vs-second"]
    shutil.rmtree(other)
    second(copied, "second", wrong=3)
    later = compare("first", "second")
    assert later["comparisons"] != former["comparisons"]
    assert read_json(root / "first-vs-second" / "comparison.json") == former
    assert read_json(root / "first-vs-second-002" / "comparison.json") == later
    assert compare("first", "second") == later
    assert sorted(path.name for path in root.iterdir()) == ["first-vs-second", "first-vs-second-002"]


def test_a_foreign_folder_of_that_name_is_left_alone(copied: Path, other: Path, artifacts: Path) -> None:
    notes = artifacts / "comparisons" / "first-vs-second" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    compare("first", "second")
    assert [path.name for path in notes.parent.iterdir()] == ["notes.txt"]
    assert (artifacts / "comparisons" / "first-vs-second-002" / "comparison.json").is_file()


def test_many_long_names_make_a_name_that_fits(copied: Path, artifacts: Path) -> None:
    names = [f"{letter * 100}" for letter in "abc"]
    for name in names:
        second(copied, name)
    compare("first", *names)
    (folder,) = (artifacts / "comparisons").iterdir()
    assert folder.name.startswith("first-vs-3-others-")


def test_too_few_or_the_same_runs(copied: Path, tmp_path: Path) -> None:
    assert "missing argument 'RUN" in refused(2, "compare")
    assert "a baseline and at least one other run" in refused(2, "compare", "first")
    assert "run 'first' is named twice" in refused(2, "compare", "first", copied)
    shutil.copytree(copied, tmp_path / "first")
    assert "two runs are called 'first'" in refused(2, "compare", "first", tmp_path / "first")
    assert "did you mean 'first'?" in refused(5, "compare", "first", "frist")


@pytest.mark.parametrize(
    ("gone", "part", "hint"),
    [
        ("predictions.test.npz", "test", "samo evaluate second)"),
        ("report.json", "test", "samo evaluate second)"),
        ("predictions.val.npz", "val", "samo evaluate second --on val)"),
    ],
)
def test_a_run_that_is_not_judged(other: Path, artifacts: Path, gone: str, part: str, hint: str) -> None:
    (other / gone).unlink()
    line = refused(5, "compare", "first", "second", "--on", part)
    assert f"run 'second' is not evaluated on its {part} part yet" in line
    assert line.endswith(f"(hint: {hint}")
    assert not (artifacts / "comparisons").exists()


def test_judged_on_validation_only_is_enough_there(other: Path) -> None:
    (other / "report.json").rename(other / "report.val.json")
    assert compare("second", "first", "--on", "val")["unit"] == "speaker"


@pytest.mark.parametrize("name", ["predictions.test.npz", "report.json"])
def test_damaged_files(copied: Path, other: Path, name: str) -> None:
    whole = (copied / name).read_bytes()
    (copied / name).write_bytes(whole[: len(whole) // 2])
    line = refused(5, "compare", "first", "second")
    assert f"cannot read {copied / name}" in line
    assert "samo evaluate first" in line


def edit_manifest(run: Path, change: Callable[[Manifest], Manifest]) -> None:
    change(Manifest.load(run / "manifest.jsonl")).save(run / "manifest.jsonl")


def test_other_data(other: Path) -> None:
    edit_manifest(other, lambda m: m.with_content({item.id: "changed" for item in m.items}))
    line = refused(5, "compare", "first", "second")
    assert "runs 'first' and 'second' are of different data (ravdess, 48 items; ravdess, 48 items)" in line


def test_other_classes(other: Path) -> None:
    lines = (other / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    header = json.loads(lines[0])
    header["label_space"][0]["labels"].append("bored")
    (other / "manifest.jsonl").write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n", encoding="utf-8")
    line = refused(5, "compare", "first", "second")
    assert "answer different questions" in line
    assert "surprised, bored" in line


def test_another_split_is_explained(other: Path) -> None:
    """What the second run is evaluated on, the first has learned."""
    split = Split.load(other / "split.json")
    replace(split, train=split.test + split.train[16:], test=split.train[:16]).save(other / "split.json")
    line = refused(5, "compare", "first", "second")
    assert "have different test parts: 0 of 16 items are in both" in line
    assert (
        f"'second' was trained on 16 of the 16 items 'first' is evaluated on, for example {sorted(split.test)[0]}"
        in line
    )
    assert "--fold" in line


def test_stale_predictions_of_other_items(other: Path) -> None:
    shutil.copy(other / "predictions.val.npz", other / "predictions.test.npz")
    assert "do not speak of the same items: 16 and 8, 0 in common" in refused(3, "compare", "first", "second")


def test_another_training_set_is_noted(other: Path) -> None:
    split = Split.load(other / "split.json")
    replace(split, train=split.train[:8]).save(other / "split.json")
    assert "trained on other items than 'first': second" in compare("first", "second")["warnings"]


def test_stamps(copied: Path, other: Path) -> None:
    plain = done("compare", "first", "second").out
    assert "LEAKY" not in plain
    assert "synthetic" not in plain
    # The digest does not hold the stamp, so both runs are still of the same data.
    edit_manifest(copied, lambda m: replace(m, synthetic=True))
    split = read_json(other / "split.json")
    write_json(other / "split.json", {**split, "rule": "random"})
    stamped = done("compare", "first", "second").out.splitlines()
    assert "synthetic demo data" in stamped
    assert "LEAKY SPLIT" in stamped
    found = compare("first", "second")
    assert (found["synthetic"], found["leaky"]) == (True, True)
