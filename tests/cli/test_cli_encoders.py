"""``samo train --encoders``: cells of a grid, the best on validation as a run, the test part closed, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from sentence_table import MULTI, write_table
from small_encoders import small_bert
from tone_corpora import done, read_json, refused

from samo.errors import SamoError
from samo.evaluation.baseline import compare_to_baseline
from samo.evaluation.predictions import Predictions
from samo.experiments import train_cell as cells
from samo.experiments.selection import gain_line
from samo.launch.local import Job, LocalLauncher, Outcome, Watcher
from samo.runs import run_report
from samo.runs.run import Run

SETTINGS = ["--max-tokens", "24", "--batch-size", "32", "--epochs", "2", "--threads", "1", "--precision", "float32"]


def here(launcher: LocalLauncher, jobs: Sequence[Job], watcher: Watcher) -> list[Outcome]:
    """Cells in this process: test_cli_grids sees to workers."""
    ended = []
    for job in jobs:
        try:
            cells.train_cell(job.spec)
            ended.append(Outcome(job.name, "done"))
        except SamoError as error:
            ended.append(Outcome(job.name, "failed", error.message))
    return ended


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_report, "save_figures", lambda *_: [])
    monkeypatch.setattr(LocalLauncher, "run", here)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "texts.csv", 180)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bert(tmp_path_factory.mktemp("encoders") / "bert")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, cache: Path, table: Path, bert: Path) -> Path:
    """The artifacts of one choice named ``c``: tf-idf, a BERT that cannot learn much, and a broken one."""
    root = tmp_path_factory.mktemp("chosen")
    (root / "broken").mkdir()
    (root / "broken" / "config.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(cache))
        patch.setattr(run_report, "save_figures", lambda *_: [])
        patch.setattr(LocalLauncher, "run", here)
        result = done(
            "train", *train_command(table, bert, root / "broken", "tfidf"), "--name", "c", "--artifacts", root
        )
    (root / "out.txt").write_text(result.out)
    (root / "err.txt").write_text(result.err)
    return root


def train_command(table: Path, *encoders: object) -> list[object]:
    names = ",".join(map(str, encoders))
    return [*MULTI, "--data-root", table, "--encoders", names, "--encoder-lr-scale", "0.1", *SETTINGS]


def test_the_best_on_validation_is_a_run(chosen: Path) -> None:
    run, cells = chosen / "runs" / "c", chosen / "grids" / "c" / "runs"
    summary = read_json(run / "choice.json")
    assert [row["name"] for row in summary["candidates"]] == ["tfidf", "bert"]
    assert (summary["best"], summary["gain"]["second"]) == ("tfidf", "bert")
    reports = {name: read_json(cells / name / "report.val.json") for name in ("tfidf", "bert")}
    for row in summary["candidates"]:
        assert row["val_macro_f1"] == reports[row["name"]]["metrics"]["macro_f1"]
        assert row["ci"] == reports[row["name"]]["ci"]["macro_f1"]
        seconds = sum(epoch["seconds"] for epoch in Run(cells / row["name"]).history)
        assert row["minutes"] == pytest.approx(seconds / 60)
    assert (chosen / "latest").resolve() == run.resolve()
    assert (run / "best_model.safetensors").read_bytes() == (cells / "tfidf" / "best_model.safetensors").read_bytes()
    assert read_json(run / "config.json") == read_json(cells / "tfidf" / "config.json")
    assert Run(run).status == "trained"


def test_the_gain_is_a_paired_bootstrap_over_validation_rows(chosen: Path) -> None:
    cells = chosen / "grids" / "c" / "runs"
    by_encoder = {name: Predictions.load(cells / name / "predictions.val.npz") for name in ("tfidf", "bert")}
    space = Run(cells / "tfidf").manifest.label_space
    found = compare_to_baseline(
        "bert", by_encoder["bert"], by_encoder["tfidf"], task=space.primary, label_space=space, unit="row"
    )["difference"]
    summary = read_json(chosen / "runs" / "c" / "choice.json")
    assert {name: summary["gain"][name] for name in found} == found
    assert summary["gain"]["verdict"] == "better"
    assert gain_line(summary) in (chosen / "out.txt").read_text()


def test_the_test_part_stays_closed(chosen: Path) -> None:
    files = [path.name for path in chosen.rglob("*") if path.is_file()]
    assert "predictions.val.npz" in files
    assert not {"report.json", "predictions.test.npz", "MODEL_CARD.md"} & set(files)


def test_what_is_broken_and_what_is_not_taken_is_said(chosen: Path) -> None:
    summary = read_json(chosen / "runs" / "c" / "choice.json")
    (left,) = summary["left_out"]
    assert left["name"] == "broken"
    printed, notes = (chosen / "out.txt").read_text(), (chosen / "err.txt").read_text()
    assert "left out: broken (" in printed
    assert "tfidf trains without" in notes
    assert all(flag in notes for flag in ("--epochs", "--batch-size", "--encoder-lr-scale"))
    assert "bert trains without" not in notes
    assert "next: samo evaluate c --artifacts" in notes
    settings = read_json(chosen / "grids" / "c" / "runs" / "bert" / "config.json")
    assert (settings["epochs"], settings["encoder_lr_scale"], settings["model"]) == (2, 0.1, "encoder")


def test_evaluate_takes_the_run_and_again_trains_nothing(
    chosen: Path, artifacts: Path, table: Path, bert: Path
) -> None:
    shutil.copytree(chosen, artifacts, symlinks=True)
    assert done("evaluate", "--threads", "1", "--json").json["run"] == "c"
    typed = train_command(table, bert, artifacts / "broken", "tfidf")
    assert "a run named 'c' exists" in refused(5, "train", *typed, "--name", "c")
    again = done("train", *typed, "--name", "c", "--overwrite", "--json")
    assert "2 cells, 2 done before" in again.err
    assert again.json["best"] == "tfidf"
    assert not (artifacts / "runs" / "c" / "report.json").exists()


def test_an_encoder_that_wins_is_kept_whole(artifacts: Path, table: Path, bert: Path) -> None:
    other = small_bert(bert.parent / "more" / "bert", seed=1)
    summary = done("train", *train_command(table, bert, other), "--json").json
    assert {row["name"] for row in summary["candidates"]} == {"bert", "bert-2"}
    assert summary["run"] == f"table-emotion-{summary['best']}-001"
    printed = done("predict", "--text", "we hate the dog", "--json", "--threads", "1").json
    assert printed["run"] == summary["run"]
    assert not list(artifacts.glob("runs/*/last.ckpt"))


def test_a_training_that_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch, table: Path, bert: Path, artifacts: Path
) -> None:
    real = cells.train_run

    def train_run(run: Run, *rest: object) -> object:
        if run.name == "bert":
            raise SamoError("it broke")
        return real(run, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cells, "train_run", train_run)
    summary = done("train", *train_command(table, bert, "tfidf"), "--name", "f", "--json").json
    assert [row["name"] for row in summary["candidates"]] == ["tfidf"]
    assert summary["gain"] is None
    assert summary["left_out"][0]["reason"].startswith("it broke (log: ")


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [
        (["--encoders", "tfidf"], 2, "name two or more different ones"),
        (["--encoders", "tfidf,tfidf"], 2, "name two or more different ones"),
        (["--encoders", "tfidf,bigru", "--model", "textcnn"], 2, "--encoders and --model exclude"),
        (["--encoders", "tfidf,bigru", "--lr=-1"], 2, "--lr"),
        (["--encoders", "tfidf,bigru", "--filters", "8"], 2, "--filters"),
        (["--encoders", "tfidf,bigru", "--resume", "x"], 2, "--encoders goes without --resume"),
        (["--encoders", "tfidf,bigru", "--tracker", "tensorboard"], 2, "--encoders goes without --tracker"),
        (["--encoders", "/no/such,./neither"], 6, "there is no such folder"),
    ],
)
def test_refused(table: Path, artifacts: Path, more: list[str], status: int, says: str) -> None:
    assert says in refused(status, "train", *MULTI, "--data-root", table, *more)
    assert not (artifacts / "runs").exists()


def test_audio_has_no_encoders() -> None:
    assert "--encoders belongs to --modality text" in refused(2, "train", "--encoders", "a,b")
