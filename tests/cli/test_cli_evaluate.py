"""``samo evaluate``: report.json, other parts, other corpora, stamps, refusals."""

from __future__ import annotations

import json
import re
import shutil
from csv import DictReader
from pathlib import Path

import pytest
from safetensors.torch import save_file
from tone_corpora import (
    EMOTIONS,
    TINY,
    done,
    folder,
    read_json,
    refused,
    samo,
    table,
    table_rows,
)
from torch import zeros

SCHEMA_1 = {
    "schema", "run", "dataset", "synthetic", "split", "split_rule", "leaky", "n", "labels", "metrics", "ci",
    "per_class", "confusion", "by_group", "train_macro_f1", "val_macro_f1",
}  # fmt: skip


@pytest.fixture
def pictures() -> None:
    """Ask for the pictures; drawing is the larger part of an evaluation."""


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("samo.runs.run_report.save_figures", lambda *_: [])


def decide(*argv: object) -> dict:
    return done("evaluate", *argv, "--threads", "1", "--json").json


def test_report_json_is_stable(trained: Path) -> None:
    report = read_json(trained / "runs" / "first" / "report.json")
    assert set(report) >= SCHEMA_1
    assert (report["schema"], report["run"], report["dataset"], report["split"]) == (1, "first", "ravdess", "test")
    assert (report["synthetic"], report["leaky"], report["split_rule"]) == (False, False, "speaker")
    assert report["labels"] == list(EMOTIONS)
    assert list(report["metrics"]) == ["macro_f1", "micro_f1", "weighted_f1", "accuracy", "uar"]
    low, high = report["ci"]["macro_f1"]
    assert low <= report["metrics"]["macro_f1"] <= high
    assert (report["ci"]["level"], report["ci"]["unit"], report["ci"]["method"]) == (0.95, "speaker", "wilson")
    assert list(report["per_class"]) == report["labels"]
    for row in report["per_class"].values():
        assert set(row) == {"precision", "recall", "f1", "roc_auc", "average_precision", "support"}
    assert [sum(row) for row in report["confusion"]] == [row["support"] for row in report["per_class"].values()]
    assert report["n"] == sum(map(sum, report["confusion"])) == 16
    assert set(report["by_group"]) >= {"speaker", "gender", "intensity"}
    assert 0 <= report["train_macro_f1"] <= 1
    assert 0 <= report["val_macro_f1"] <= 1


def test_every_answer_lies_beside_the_report(trained: Path, clips: Path) -> None:
    """What the report counts can be counted again from the table; the page plays the clips where they lie."""
    run = trained / "runs" / "first"
    report = read_json(run / "report.json")
    rows = list(DictReader((run / "predictions.csv").read_text().splitlines()))
    assert [row["source"] for row in rows] == [f"{row['source']}" for row in rows if (clips / row["source"]).is_file()]
    assert len(rows) == 16
    assert sum(int(row["correct"]) for row in rows) / 16 == pytest.approx(report["metrics"]["accuracy"])
    for row in rows:
        assert float(row["confidence"]) == float(row[f"p.{row['predicted']}"]) <= 1.0
        assert (row["correct"] == "1") == (row["truth"] == row["predicted"])
    assert {row["group"] for row in rows} == set(report["by_group"]["speaker"])
    assert report["parts"] == {
        part: {"clip": n, "speaker": n // 8} for part, n in (("train", 24), ("val", 8), ("test", 16))
    }
    # Eight classes of as many clips: always the first, of whose F1 of 2/9 macro-F1 is an eighth.
    constant = report["constant"]
    assert constant["labels"] == ["neutral"]
    assert (constant["metrics"]["macro_f1"], constant["metrics"]["accuracy"]) == pytest.approx((1 / 36, 1 / 8))
    page = (run / "report.html").read_text()
    wrong = sorted((row for row in rows if row["correct"] == "0"), key=lambda row: -float(row["confidence"]))
    played = re.findall(r'<audio controls preload="none" src="([^"]+)">', page)
    assert played == [(clips / row["source"]).as_uri() for row in wrong[:10]]
    assert not list(run.rglob("*.wav"))


def test_pictures_stand_where_they_belong(trained: Path) -> None:
    page = (trained / "runs" / "first" / "report.html").read_text()
    sections = {part.partition("</h2>")[0]: part.count("<figure>") for part in page.split("<h2>")[1:]}
    assert sections["By class"] == 2
    assert sections["Abstention"] == 1
    assert sections["By group"] == 1
    assert "Lowest F1: " in page


def test_json_is_the_file_and_nothing_else(copied: Path) -> None:
    before = read_json(copied / "report.json")
    result = done("evaluate", "first", "--threads", "1", "--json")
    assert result.json == before == read_json(copied / "report.json")
    assert result.err == ""


def test_evaluation_repeats_what_training_measured(trained: Path) -> None:
    report = read_json(trained / "runs" / "first" / "report.json")
    kept = read_json(trained / "runs" / "first" / "trained.json")
    assert report["val_macro_f1"] == kept["val_macro_f1"]


def test_page_and_card_repeat_the_command(trained: Path) -> None:
    command = read_json(trained / "runs" / "first" / "environment.json")["command"]
    # A card may leave the machine: of a place it says its name alone.
    in_card = command.replace(f"{trained.parent}/", "")
    assert str(trained) in command
    for name, typed in (("report.html", command), ("MODEL_CARD.md", in_card)):
        text = (trained / "runs" / "first" / name).read_text(encoding="utf-8")
        assert typed in text
        assert "samo evaluate first" in text
        assert "LEAKY" not in text
        assert "synthetic" not in text


@pytest.mark.usefixtures("pictures")
def test_table_for_people(copied: Path) -> None:
    shown = done("evaluate", "--threads", "1")
    assert shown.err == ""
    tables = shown.out.partition("expected calibration error")[0].splitlines()
    assert len(tables) > 30
    assert max(map(len, tables)) <= 80
    for text in (
        "first on ravdess, test part: 16 items (split: speaker)",
        "95% interval over speakers",
        "macro-F1 by speaker: ",
        "\nexpected calibration error 0.",
        f"report: {copied}/report.html; pictures: {copied}/figures",
    ):
        assert text in shown.out
    header = next(line for line in shown.out.splitlines() if "neutral" in line and "surprised" in line)
    assert header.split() == list(EMOTIONS)
    assert {path.name for path in (copied / "figures").iterdir()} >= {"confusion.png", "per_class.png"}


def test_on_another_part(copied: Path) -> None:
    report = decide("first", "--on", "val")
    assert report["split"] == "val"
    assert report["n"] == 8
    assert report["metrics"]["macro_f1"] == report["val_macro_f1"]
    assert read_json(copied / "report.val.json") == report
    assert read_json(copied / "report.json")["split"] == "test"
    assert "--on dev: unknown part (hint: valid: train, val, test)" in refused(2, "evaluate", "--on", "dev")


def test_a_run_by_folder_by_name_and_the_newest(trained: Path) -> None:
    assert "there is no run in" in refused(5, "evaluate")
    line = refused(5, "evaluate", "frist", "--artifacts", trained)
    assert "there is no run 'frist'" in line
    assert "did you mean 'first'?" in line
    moved = shutil.copytree(trained / "runs" / "first", Path("moved"))
    assert decide(moved, "--on", "val")["run"] == "moved"


def test_clips_that_moved_and_clips_that_changed(copied: Path, clips: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(clips, tmp_path / "moved")
    assert decide("first", "--data-root", moved)["n"] == 16
    next(moved.rglob("*.wav")).unlink()
    line = refused(5, "evaluate", "first", "--data-root", moved)
    assert "the data differ from those run 'first' was trained on" in line
    assert "does not exist" in refused(3, "evaluate", "first", "--data-root", tmp_path / "gone")


def test_a_run_remembers_where_its_data_moved(copied: Path, clips: Path, tmp_path: Path) -> None:
    """Nobody gave a flag: what is missing is the run's own data, and a place that was given once is kept."""
    moved, gone = shutil.copytree(clips, tmp_path / "moved"), str(tmp_path / "gone")
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "data_root": gone}))
    says = f"the data of run 'first' are no longer at {gone} (hint: say where they are now with --data-root)"
    assert says in refused(3, "evaluate", "first")
    began = (copied / "config.json").stat().st_mtime_ns
    decide("first", "--data-root", moved)
    assert json.loads((copied / "config.json").read_text()) == {**config, "data_root": str(moved)}
    # Runs are ordered by it.
    assert (copied / "config.json").stat().st_mtime_ns == began
    assert decide("first")["n"] == 16
    # Another place of the same data is used, not remembered, as long as the first is there.
    decide("first", "--data-root", clips)
    assert json.loads((copied / "config.json").read_text()) == {**config, "data_root": str(moved)}
    (copied / "config.json").write_text(json.dumps({**config, "data_root": gone}))
    (copied / "trained.json").unlink()
    assert says in refused(3, "train", "--resume", "first")
    done("train", "--resume", "first", "--data-root", moved, "--threads", "1", "--precision", "float32")
    assert json.loads((copied / "config.json").read_text()) == {**config, "data_root": str(moved)}


@pytest.fixture(scope="module")
def own_table(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Path]:
    """A run over three classes of a table: its artifacts and the table."""
    root = tmp_path_factory.mktemp("table")
    csv = table(root, table_rows())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(cache))
        flags = [*TINY, "--dataset", "table", "--data-root", csv, "--name", "own", "--artifacts", root / "artifacts"]
        done("train", *flags)
    return root / "artifacts", csv


@pytest.fixture
def own(own_table: tuple[Path, Path], artifacts: Path) -> Path:
    shutil.copytree(own_table[0], artifacts, symlinks=True)
    return own_table[1]


@pytest.mark.usefixtures("own")
def test_another_corpus_with_a_label_map(tmp_path: Path, artifacts: Path) -> None:
    csv = table(tmp_path / "other", table_rows(("anger", "happy", "surprise"), speakers=4))
    there = ["--dataset", "table", "--data-root", csv]
    line = refused(3, "evaluate", "own", *there)
    assert "the run does not know these classes of the corpus: anger, surprise" in line
    assert "--label-map anger=angry" in line
    report = decide("own", *there, "--label-map", "anger=angry, surprise=-")
    assert report["n"] == 8
    assert (report["split"], report["split_rule"], report["dataset"]) == ("all", "other corpus", "table")
    assert report["labels"] == ["angry", "happy", "sad"]
    assert report["label_map"] == {"anger": "angry", "surprise": "-"}
    assert report["per_class"]["sad"]["support"] == 0
    assert (report["train_macro_f1"], report["val_macro_f1"]) == (None, None)
    (kept,) = (artifacts / "runs" / "own").glob("report.table-clips-*.json")
    assert read_json(kept) == report
    assert report["corpus"] == "table clips.csv"
    assert list(report["parts"]) == ["train", "val", "all"]
    assert report["parts"]["all"] == {"clip": 8, "speaker": 4}
    answers = kept.with_name(kept.name.replace("report", "predictions")).with_suffix(".csv")
    assert len(answers.read_text().splitlines()) == 1 + 8
    # Another table of the same name has a report, predictions and pictures of its own.
    second = table(tmp_path / "second", table_rows(("angry", "happy"), speakers=3))
    shown = done("evaluate", "own", "--dataset", "table", "--data-root", second).out
    assert "own on table clips.csv, whole corpus: 6 items" in shown
    assert read_json(kept) == report
    assert len(list((artifacts / "runs" / "own").glob("report.table-clips-*.json"))) == 2
    assert len(list((artifacts / "runs" / "own").glob("predictions.table-clips-*.npz"))) == 2
    assert not (artifacts / "runs" / "own" / "report.json").exists()


@pytest.mark.usefixtures("own")
def test_another_kind_of_corpus(tmp_path: Path, clips: Path) -> None:
    root = folder(tmp_path / "classes", ("angry", "happy"), speakers=3)
    report = decide("own", "--dataset", "folder", "--data-root", root, "--speaker-pattern", "(spk[0-9])")
    assert (report["dataset"], report["n"], report["ci"]["unit"]) == ("folder", 12, "speaker")
    without = ["neutral=-", "calm=-", "fearful=-", "disgust=-", "surprised=-"]
    shown = done("evaluate", "own", "--dataset", "ravdess", "--data-root", clips, "--label-map", ",".join(without))
    assert "own on ravdess, whole corpus: 18 items" in shown.out


def test_another_corpus_that_holds_training_clips(own: Path, tmp_path: Path) -> None:
    shutil.copytree(own.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("artifacts"))
    copy = tmp_path / "copy" / "clips.csv"
    lines = copy.read_text().splitlines()
    copy.write_text("\n".join(lines[:-1]) + "\n")
    line = refused(4, "evaluate", "own", "--dataset", "table", "--data-root", copy)
    assert "recordings the run was trained on are in this corpus: " in line
    assert ".wav" in line


def test_naming_the_own_corpus_changes_nothing(own: Path) -> None:
    report = decide("own", "--dataset", "table", "--data-root", own)
    assert (report["split"], report["split_rule"]) == ("test", "speaker")
    line = refused(2, "evaluate", "own", "--dataset", "table", "--data-root", own, "--label-map", "sad=happy")
    assert "this is the run's own" in line


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        (["--label-map", "a=b"], 2, "--label-map acts only together with --dataset"),
        (["--dataset", "folder", "--label-map", "a"], 2, "write OTHER=OWN"),
        (["--dataset", "folder", "--label-map", "a=b,a=c"], 2, "names 'a' twice"),
        (["--dataset", "folder"], 2, "--dataset folder needs --data-root"),
        (["--dataset", "foldr"], 2, "did you mean 'folder'?"),
        (["--speaker-pattern", "x"], 2, "--speaker-pattern acts only together with --dataset folder"),
        (["--precision", "fp16"], 2, "--precision fp16 needs a GPU"),
    ],
)
def test_flags_that_make_no_sense(copied: Path, argv: list[str], status: int, says: str) -> None:
    assert says in refused(status, "evaluate", copied.name, *argv)


@pytest.mark.usefixtures("copied")
def test_label_maps_that_name_no_class(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", ("joy", "sad"), speakers=2)
    there = ["evaluate", "first", "--dataset", "folder", "--data-root", root]
    assert "the corpus has no class 'joi' (hint: did you mean 'joy'?" in refused(2, *there, "--label-map", "joi=happy")
    assert "the run has no class 'hapy' (hint: did you mean 'happy'?" in refused(2, *there, "--label-map", "joy=hapy")
    assert "leaves every class out" in refused(3, *there, "--label-map", "joy=-,sad=-")
    assert "another corpus is judged as a whole" in refused(2, *there, "--label-map", "joy=happy", "--on", "val")


def test_damaged_and_foreign_models(copied: Path, clips: Path) -> None:
    file = copied / "best_model.safetensors"
    whole = file.read_bytes()
    for damage, says in {
        whole[: len(whole) // 2]: "is damaged",
        b"": "is damaged",
        b"PK\x03\x04" * 20: "is damaged",
    }.items():
        file.write_bytes(damage)
        assert says in refused(6, "evaluate", "first")
        assert says in refused(6, "predict", clips, "--run", "first")
    save_file({"weight": zeros(2)}, file)
    assert "was not written by SAMO" in refused(6, "evaluate", "first")
    done("train", "--data-root", clips, *TINY, "--epochs", "1", "--width", "8", "--name", "wider")
    shutil.copy(copied.parent / "wider" / "best_model.safetensors", file)
    assert "does not fit the run's settings at" in refused(6, "evaluate", "first")
    file.unlink()
    assert "there is no model at" in refused(6, "predict", clips, "--run", "first")


@pytest.mark.parametrize(
    "name", ["config.json", "split.json", "manifest.jsonl", "history.jsonl", "environment.json", "calibration.json"]
)
def test_damaged_run_folders(copied: Path, name: str) -> None:
    (copied / name).write_text("{")
    assert name.partition(".")[0] in refused(5, "evaluate", "first")


def test_a_random_split_is_stamped_everywhere(clips: Path, artifacts: Path) -> None:
    trained = done("train", "--data-root", clips, *TINY, "--split", "random", "--name", "leaky")
    assert "· LEAKY SPLIT: with --split random" in trained.err
    assert trained.err.count("LEAKY SPLIT") == 2
    shown = done("evaluate", "leaky", "--threads", "1")
    assert "LEAKY SPLIT\n" in shown.out
    run = artifacts / "runs" / "leaky"
    report = read_json(run / "report.json")
    assert (report["leaky"], report["split_rule"]) == (True, "random")
    for name in ("report.html", "MODEL_CARD.md"):
        assert "LEAKY SPLIT" in (run / name).read_text(encoding="utf-8")
    assert samo("runs", "--json").json["runs"][0]["status"] == "evaluated"


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The demo corpus cut to six speakers, in a cache of its own."""
    from samo_audio.datasets import demo

    names = tuple(name for name in demo.clip_names() if int(name[-2:]) <= 6 and name.split("-")[3:5] == ["01", "01"])
    monkeypatch.setattr(demo, "clip_names", lambda: names)
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_demo_data_is_stamped_everywhere(small_demo: Path, artifacts: Path, clips: Path) -> None:
    trained = done("train", "--dataset", "demo", *TINY, "--epochs", "1", "--name", "demo")
    assert trained.err.splitlines()[0] == "· Data: the built-in demo corpus (synthetic voices)."
    assert "synthetic demo data" in trained.err
    shown = done("evaluate", "demo", "--threads", "1")
    assert "synthetic demo data\n" in shown.out
    run = artifacts / "runs" / "demo"
    assert read_json(run / "report.json")["synthetic"] is True
    for name in ("report.html", "MODEL_CARD.md"):
        assert "synthetic demo data" in (run / name).read_text(encoding="utf-8")
    clip = next(small_demo.rglob("*.wav"))
    result = done("predict", clip)
    assert result.err == "· run demo (trained on demo, synthetic demo data)\n"
    assert done("predict", clip, "--json").json["synthetic"] is True
    # Real recordings are no demo data, and only the model is stamped.
    shown = done("evaluate", "demo", "--dataset", "ravdess", "--data-root", clips, "--threads", "1")
    assert "model trained on synthetic demo data\n" in shown.out
    assert "nothing about real people" not in shown.out
    elsewhere = read_json(run / "report.ravdess.json")
    assert (elsewhere["synthetic"], elsewhere["synthetic_model_only"]) == (True, True)
    # The corpus can be made again, so a cache that was emptied or moved is no loss.
    shutil.rmtree(small_demo)
    assert decide("demo", "--on", "val")["synthetic"] is True


def test_a_class_without_examples_in_test_is_said(tmp_path: Path) -> None:
    part = {0: "train", 1: "train", 2: "train", 3: "val", 4: "test", 5: "test"}
    rows = [
        (path, label, f"{speaker},{part[int(speaker[-1])]}")
        for path, label, speaker in table_rows()
        if not (label == "sad" and part[int(speaker[-1])] == "test")
    ]
    csv = table(tmp_path / "uneven", rows, "path,label,speaker,split")
    there = ["--dataset", "table", "--data-root", csv, "--split", "table"]
    done("train", *there, *TINY, "--epochs", "1", "--name", "uneven")
    report = decide("uneven")
    assert report["per_class"]["sad"] == {
        "precision": 0.0, "recall": 0.0, "f1": 0.0, "roc_auc": None, "average_precision": None, "support": 0,
    }  # fmt: skip
    assert "absent from this split, so left out of macro-F1: sad" in report["warnings"]
    assert "sad" in done("evaluate", "uneven", "--threads", "1").out
