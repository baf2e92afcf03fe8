"""Texts through every experiment: folds, shares, searches, ensembles, grids, comparisons and other corpora."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sentence_table import LABELS, MULTI, TINY_TEXT, write_table
from small_encoders import small_bert
from tone_corpora import Result, done, read_json

from samo.evaluation.predictions import Predictions
from samo.experiments import crossval, train_cell
from samo.launch.local import Job, LocalLauncher, Outcome, Watcher
from samo.runs import run_report
from samo_text.frontend import TextFrontend

WHERE = ["--threads", "1", "--precision", "float32"]
HERE = [*WHERE, "--workers", "1"]
SETTINGS = [word for word in TINY_TEXT if word not in WHERE]
# A model of sentences, and what stands beside --encoder.
WORDS = [*MULTI, *SETTINGS]
ENCODER = [*MULTI, "--batch-size", "16", "--lr", "0.02", "--epochs", "3", "--max-tokens", "16", "--dropout", "0"]
WRONG = re.compile(r"\b[Ss]peakers?\b|\b[Cc]lips?\b|LEAKY|\baudio\b|\brecordings?\b")


def here(launcher: LocalLauncher, jobs: Sequence[Job], watcher: Watcher) -> list[Outcome]:
    """Cells in this process: test_cli_grids sees to workers."""
    for job in jobs:
        train_cell.train_cell(job.spec)
    return [Outcome(job.name, "done") for job in jobs]


def without_workers_and_pictures(patch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds, and test_report sees to it."""
    patch.setattr(run_report, "save_figures", lambda *_: [])
    patch.setattr(crossval, "save_figures", lambda *_: [])
    patch.setattr(LocalLauncher, "run", here)
    patch.setattr(train_cell, "_opened", {})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_workers_and_pictures(monkeypatch)
    # The baseline of the two runs is enough.
    monkeypatch.setattr(TextFrontend, "baseline", lambda *_: None)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 sentences with a split of their own."""
    return write_table(tmp_path_factory.mktemp("table") / "texts.csv", 180)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bert(tmp_path_factory.mktemp("bert") / "small")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path, table: Path, bert: Path) -> Path:
    """The artifacts of two judged runs of one split, ``words`` and ``frozen``; to read only."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(cache))
        without_workers_and_pictures(patch)
        where = ["--data-root", table, "--artifacts", root, *WHERE]
        frozen = ["--encoder", bert, "--freeze-encoder", "--pooling", "max"]
        printed = [
            done("train", *WORDS, "--epochs", "6", *where, "--name", "words"),
            done("train", *ENCODER, *frozen, *where, "--name", "frozen"),
            *(done("evaluate", name, "--artifacts", root, "--threads", "1") for name in ("words", "frozen")),
        ]
    (root / "said.txt").write_text("\n".join(result.out + result.err for result in printed))
    return root


@pytest.fixture
def copied(runs: Path, artifacts: Path) -> Path:
    shutil.copytree(runs, artifacts, symlinks=True)
    return artifacts


def spoken(result: Result) -> str:
    """All that was printed, none of it in the words of the other modality."""
    printed = result.out + result.err
    assert not WRONG.search(printed), printed
    return printed


def rows_of(table: Path) -> dict[str, str]:
    """Text by the id it gets."""
    with table.open(newline="") as lines:
        return {f"row-{number:07d}": row["text"] for number, row in enumerate(csv.DictReader(lines), start=2)}


def test_training_and_judging_speak_of_rows(runs: Path) -> None:
    printed = (runs / "said.txt").read_text()
    assert not WRONG.search(printed), WRONG.search(printed)
    assert "run words: 180 texts of table" in printed
    assert "train 120 texts, val 30, test 30" in printed
    for name in ("MODEL_CARD.md", "report.html"):
        page = (runs / "runs" / "words" / name).read_text()
        assert not WRONG.search(page), WRONG.search(page)


# A frozen encoder


def test_a_frozen_encoder_is_left_as_it_was(runs: Path, bert: Path) -> None:
    weights, before = (
        load_file(path) for path in (runs / "runs/frozen/best_model.safetensors", bert / "model.safetensors")
    )
    for name, tensor in before.items():
        if not name.startswith("pooler."):
            kept = weights[f"body.network.{name}"][: len(tensor)]
            assert np.array_equal(kept, tensor), name
    assert read_json(runs / "runs" / "frozen" / "report.json")["metrics"]["macro_f1"] > 0.4


def test_from_ids_it_answers_as_it_was_judged(copied: Path, table: Path, bert: Path, tmp_path: Path) -> None:
    """predict knows the run's folder alone, and no states."""
    predictions = Predictions.load(copied / "runs" / "frozen" / "predictions.test.npz")
    texts = tmp_path / "texts.txt"
    text_of = {item["id"]: item["source"] for item in map(json.loads, _manifest(copied / "runs" / "frozen"))}
    texts.write_text("\n".join(text_of[name] for name in predictions.ids) + "\n")
    rows = done("predict", texts, "--run", "frozen", "--threads", "1", "--json").json["predictions"]
    assert predictions.decided is not None
    labels = read_json(copied / "runs" / "frozen" / "report.json")["labels"]
    found = [[label in next(iter(row["tasks"].values()))["labels"] for label in labels] for row in rows]
    order = [list(next(iter(rows[0]["tasks"].values()))["probabilities"]).index(label) for label in labels]
    assert np.array_equal(np.array(found), predictions.decided[:, order].astype(bool))


def _manifest(run: Path) -> list[str]:
    return (run / "manifest.jsonl").read_text().splitlines()[1:]


# Grids


@pytest.mark.slow
def test_crossval(table: Path, artifacts: Path) -> None:
    command = ["crossval", *WORDS, "--data-root", table, *HERE, "--epochs", "1", "--seeds", "3", "--name", "folds"]
    printed = spoken(done(*command))
    grid = artifacts / "grids" / "folds"
    report = read_json(grid / "report.json")
    assert "macro-F1 by" not in printed
    assert report["ci"]["unit"] == "row"
    tested = [read_json(grid / "runs" / f"seed3.fold{fold}" / "split.json") for fold in range(5)]
    ids = sorted(name for split in tested for name in split["test"])
    assert len(ids) == 180
    assert set(ids) == {json.loads(line)["id"] for line in _manifest(grid / "runs" / "seed3.fold0")}
    labels = {
        json.loads(line)["id"]: json.loads(line)["labels"]["label"] for line in _manifest(grid / "runs" / "seed3.fold0")
    }
    for label in LABELS:
        counts = [sum(label in labels[name] for name in split["test"]) for split in tested]
        assert max(counts) - min(counts) <= 2, counts
    assert not any(set(split["val"]) & set(split["test"]) for split in tested)
    assert report["n"] == 180


def test_learning_curve(table: Path, artifacts: Path) -> None:
    command = ["learning-curve", *WORDS, "--data-root", table, *HERE, "--epochs", "2", "--seeds", "0"]
    printed = spoken(done(*command, "--shares", "0.25,1", "--name", "curve"))
    assert "30" in printed
    assert "120" in printed
    runs = artifacts / "grids" / "curve" / "runs"
    splits = [read_json(path / "split.json") for path in sorted(runs.iterdir())]
    small, whole = sorted(splits, key=lambda split: len(split["train"]))
    assert (len(small["train"]), len(whole["train"])) == (30, 120)
    assert set(small["train"]) < set(whole["train"])
    assert small["test"] == whole["test"]


@pytest.mark.slow
def test_ablate(table: Path, artifacts: Path, tmp_path: Path) -> None:
    grid = tmp_path / "losses.toml"
    grid.write_text(
        'modality = "text"\nseeds = [0, 1]\n[base]\nepochs = 2\n[variants.baseline]\n[variants.asl]\n'
        "asymmetric_loss = true\n"
    )
    printed = spoken(done("ablate", grid, *WORDS[2:], "--data-root", table, *HERE, "--epochs", "2"))
    assert "baseline" in printed
    assert "asl" in printed
    cells = artifacts / "grids" / "losses" / "runs"
    assert sorted(path.name for path in cells.iterdir()) == [
        "asl.seed0",
        "asl.seed1",
        "baseline.seed0",
        "baseline.seed1",
    ]
    used = {path.name: read_json(path / "config.json")["asymmetric_loss"] for path in cells.iterdir()}
    assert {name for name, on in used.items() if on} == {"asl.seed0", "asl.seed1"}
    shown = done("ablate", "show", "losses", "--json").json
    assert [row["name"] for row in shown["rows"]] == ["baseline", "asl"]


def test_tune(table: Path, artifacts: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("lr = {low = 0.001, high = 0.05, log = true}\nfilters = {choices = [4, 8]}\n")
    varied = [word for word in WORDS if word not in ("--lr", "0.02", "--filters", "4")]
    flags = [*varied, "--data-root", table, *WHERE, "--epochs", "1", "--space", space]
    result = done("tune", *flags, "--trials", "2", "--name", "mine", "--json")
    assert result.json["counts"]["finished"] == 2
    assert not WRONG.search(result.err)
    best = (artifacts / "tuning" / "mine" / "best.toml").read_text()
    assert 'label_separator = "|"' in best
    score = result.json["best"]["value"]
    trained = done(
        "train", "--modality", "text", "--config", artifacts / "tuning/mine/best.toml", *WHERE, "--json"
    ).json
    assert trained["val_macro_f1"] == pytest.approx(score)


# Several runs


def test_compare(copied: Path) -> None:
    printed = spoken(done("compare", "words", "frozen"))
    assert "words" in printed
    assert "frozen" in printed
    assert "row" in printed


def test_ensemble_of_runs_with_other_tokens(copied: Path) -> None:
    """Hashed words and an encoder's subwords: each member reads its own, and the whole answers as any run."""
    done("ensemble", "words", "frozen", "--threads", "1", "--name", "both-tokens")
    kept = read_json(copied / "runs" / "both-tokens" / "ensemble.json")
    assert [member["name"] for member in kept["members"]] == ["words", "frozen"]
    answer = done("predict", "--text", "i hate the damn dog", "--run", "both-tokens", "--threads", "1", "--json").json
    assert answer["predictions"][0]["tasks"]["label"]["likeliest"] == "anger"
    evaluated = done("evaluate", "both-tokens", "--threads", "1", "--json").json["metrics"]
    assert evaluated == read_json(copied / "runs" / "both-tokens" / "report.json")["metrics"]


def test_ensemble_of_named_runs(copied: Path) -> None:
    done("train", *WORDS, "--data-root", _root(copied), *WHERE, "--seed", "1", "--name", "other")
    printed = spoken(done("ensemble", "words", "other", "--threads", "1", "--name", "both"))
    assert "both: the mean of its members' probabilities" in printed
    summary = read_json(copied / "runs" / "both" / "ensemble.json")
    assert [member["name"] for member in summary["members"]] == ["words", "other"]
    answer = done("predict", "--text", "i hate the damn dog", "--run", "both", "--threads", "1", "--json").json
    task = answer["predictions"][0]["tasks"]["label"]
    assert task["likeliest"] == "anger"
    assert (
        done("evaluate", "both", "--threads", "1", "--json").json["metrics"]
        == read_json(copied / "runs" / "both" / "report.json")["metrics"]
    )


def _root(artifacts: Path) -> str:
    return str(read_json(artifacts / "runs" / "words" / "config.json")["data_root"])


def test_ensemble_of_seeds(table: Path, artifacts: Path) -> None:
    command = [
        "ensemble",
        "--seeds",
        "2,0",
        *WORDS,
        "--data-root",
        table,
        *HERE,
        "--epochs",
        "1",
        "--split",
        "stratified",
    ]
    spoken(done(*command, "--name", "two"))
    cells = artifacts / "grids" / "two" / "runs"
    splits = [read_json(cells / name / "split.json") for name in ("seed0", "seed2")]
    assert splits[0] == splits[1]
    assert splits[0]["rule"] == "stratified"
    report = read_json(artifacts / "runs" / "two" / "report.json")
    assert report["ci"]["unit"] == "row"
    assert report["thresholds"]


# Another corpus, and what is in one


def test_judged_on_another_table(copied: Path, tmp_path: Path) -> None:
    other = write_table(tmp_path / "other.csv", 60, split=False, seed=9)
    command = ["evaluate", "words", "--dataset", "table", "--data-root", other, "--threads", "1"]
    result = done(*command, "--json")
    spoken(result)
    assert result.json["n"] == 60
    assert result.json["metrics"]["macro_f1"] > 0.6
    assert result.json["ci"]["unit"] == "row"


def test_data_inspect(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samo_text.inspection.draw", lambda *_: [])  # test_cli_data_text sees to the pictures
    printed = spoken(done("data", "inspect", *MULTI, "--data-root", table))
    assert "180" in printed
    assert all(label in printed for label in LABELS)


def test_runs_lists_texts(copied: Path) -> None:
    listed: dict[str, Any] = {row["run"]: row for row in done("runs", "--json").json["runs"]}
    assert set(listed) == {"words", "frozen"}
    assert all(row["dataset"] == "table" and row["status"] == "evaluated" for row in listed.values())


@pytest.mark.parametrize("verb", ["crossval", "learning-curve", "evaluate"])
def test_help_of_shared_verbs_speaks_of_both(verb: str) -> None:
    page = " ".join(done(verb, "--help").out.split())
    about = page[: page.index("--modality") if "--modality" in page else page.index("Arguments:")]
    assert "speaker" in about
    assert "texts" in about
