"""The text modality through the command line: train, stop, resume, evaluate, predict, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sentence_table import LABELS, MULTI, TABLE, TINY_TEXT, write_table
from tone_corpora import done, read_json, refused, samo, stop_after

from samo.evaluation.predictions import Predictions


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "texts.csv")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, cache: Path, table: Path) -> Path:
    """The artifacts of one training on the table and its evaluation, run ``words``; to read only."""
    root = tmp_path_factory.mktemp("judged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(cache))
        done("train", *MULTI, "--data-root", table, *TINY_TEXT, "--epochs", "6", "--name", "words", "--artifacts", root)
        done("evaluate", "--artifacts", root, "--threads", "1")
    return root


@pytest.fixture
def run(evaluated: Path) -> list[str]:
    return ["--run", "words", "--artifacts", str(evaluated), "--threads", "1"]


def test_the_report_of_a_text_run(evaluated: Path) -> None:
    report = read_json(evaluated / "runs" / "words" / "report.json")
    assert report["labels"] == sorted(LABELS)
    assert report["n"] == 40
    assert report["ci"]["unit"] == "row"
    assert not report["leaky"]
    assert report["metrics"]["macro_f1"] > 0.8


def test_the_baseline_stands_beside_the_run(evaluated: Path) -> None:
    report = read_json(evaluated / "runs" / "words" / "report.json")
    assert report["baseline"]["name"] == "tfidf"
    assert 0.5 < report["baseline"]["macro_f1"] <= 1.0
    difference = report["metrics"]["macro_f1"] - report["baseline"]["macro_f1"]
    assert report["baseline"]["difference"]["value"] == pytest.approx(difference, abs=1e-9)


def test_thresholds_are_those_of_validation(evaluated: Path) -> None:
    thresholds = read_json(evaluated / "runs" / "words" / "thresholds.json")
    assert thresholds["fitted_on"] == "val"
    report = read_json(evaluated / "runs" / "words" / "report.json")
    assert list(report["thresholds"]["rules"]) == ["half", "global", "per-class"]
    assert report["metrics"]["macro_f1"] == report["thresholds"]["rules"]["per-class"]["macro_f1"]


def test_predict_says_what_evaluate_judged(evaluated: Path, run: list[str], tmp_path: Path) -> None:
    predictions = Predictions.load(evaluated / "runs" / "words" / "predictions.test.npz")
    manifest = [
        json.loads(line) for line in (evaluated / "runs" / "words" / "manifest.jsonl").read_text().splitlines()[1:]
    ]
    text_of = {item["id"]: item["source"] for item in manifest}
    lines = tmp_path / "texts.txt"
    lines.write_text("\n".join(text_of[name] for name in predictions.ids) + "\n")
    rows = done("predict", lines, *run, "--json").json["predictions"]
    task = next(iter(rows[0]["tasks"]))
    labels = list(rows[0]["tasks"][task]["probabilities"])
    assert predictions.decided is not None
    for row, decided in zip(rows, predictions.decided, strict=True):
        assert set(row["tasks"][task]["labels"]) == {
            label for label, holds in zip(labels, decided, strict=True) if holds
        }
    temperature = read_json(evaluated / "runs" / "words" / "calibration.json")["temperature"][task]
    given = np.array([list(row["tasks"][task]["probabilities"].values()) for row in rows])
    np.testing.assert_allclose(given, 1 / (1 + np.exp(-predictions.logits / temperature)), atol=1e-5)


def test_predict_texts_given_as_flags(run: list[str]) -> None:
    printed = done("predict", "--text", "i hate the damn dog", "--text", "yay sunny", *run, "--json").json
    assert list(printed) == ["schema", "run", "synthetic", "predictions", "errors"]
    assert list(printed["predictions"][0]) == ["text", "label", "abstained", "probabilities", "tasks", "warnings"]
    assert [row["text"] for row in printed["predictions"]] == ["i hate the damn dog", "yay sunny"]
    answers = [next(iter(row["tasks"].values())) for row in printed["predictions"]]
    assert [answer["likeliest"] for answer in answers] == ["anger", "joy"]


def test_predict_table_and_csv(run: list[str]) -> None:
    shown = done("predict", "--text", "i hate the damn dog", *run)
    assert "anger" in shown.out
    (head, row) = csv.reader(io.StringIO(done("predict", "--text", "so, tears", *run, "--csv").out))
    assert head[:2] == ["text", "labels"]
    assert head[-2:] == ["abstained", "warnings"]
    assert row[-2] == "false"
    assert row[0] == "so, tears"
    assert set(head[2:-2]) == set(LABELS)


def test_predict_odd_texts(run: list[str], tmp_path: Path) -> None:
    lines = tmp_path / "odd.txt"
    lines.write_bytes("\ufeffyay\r\n\r\n😂😂\r\na\x00b\r\n".encode() + b"so " * 300_000)
    rows = done("predict", lines, *run, "--json").json["predictions"]
    assert [row["text"][:4] for row in rows] == ["yay", "", "😂😂", "a\x00b", "so s"]
    assert [row["warnings"] for row in rows] == [[], ["empty"], [], [], ["cut at 128 tokens"]]
    # Nothing is told from no text.
    assert [row["abstained"] for row in rows] == [False, True, False, False, False]
    assert done("predict", "--text", " ", *run).out.count("not sure (") == 1


def test_predict_reads_tables_as_tables(run: list[str], tmp_path: Path) -> None:
    given = {
        "x.csv": 'id,text\n7,yay sunny\n8,"so, tears"\n',
        "x.tsv": "text\tid\nyay sunny\t7\nso, tears\t8\n",
        "X.JSONL": '{"text": "yay sunny"}\n{"text": "so, tears"}\n',
        "x.json": '[{"text": "yay sunny"}, {"text": "so, tears"}]',
    }
    for name, content in given.items():
        (tmp_path / name).write_text(content)
        rows = done("predict", tmp_path / name, *run, "--json").json["predictions"]
        assert [row["text"] for row in rows] == ["yay sunny", "so, tears"], name
    rows = done("predict", tmp_path / "x.csv", "--text-column", "id", *run, "--json").json["predictions"]
    assert [row["text"] for row in rows] == ["7", "8"]
    line = refused(3, "predict", tmp_path / "x.csv", "--text-column", "txt", *run)
    assert "no column 'txt'; it has: id, text" in line
    assert "name it with --text-column" in line
    (tmp_path / "x.csv").write_text('id,text\n7,"yay\nsunny"\n8,tears\n')
    assert "1 row of x.csv holds several lines: row 2" in done("predict", tmp_path / "x.csv", *run, "--json").err
    (tmp_path / "x.csv").write_text('id,text\n7,"yay\n8,sunny\n9,so"\n10,tears\n')
    assert "a quotation mark opens a cell of 3 lines" in refused(3, "predict", tmp_path / "x.csv", *run)


def test_predict_refuses(run: list[str], trained: Path, tmp_path: Path) -> None:
    bad = tmp_path / "latin.txt"
    bad.write_bytes(b"caf\xe9")
    assert "is not UTF-8 text" in refused(3, "predict", bad, *run)
    assert "cannot be read" in refused(3, "predict", tmp_path / "none.txt", *run)
    assert "nothing to predict" in refused(2, "predict", *run)
    assert "--windows belongs to recordings" in refused(2, "predict", "--text", "x", "--windows", *run)
    audio = ["--run", "first", "--artifacts", str(trained), "--threads", "1"]
    assert "trained on speech" in refused(2, "predict", "--text", "x", *audio)


@pytest.mark.slow
def test_stopped_and_resumed_is_the_same_model(table: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of four, then on: the weights of an undisturbed training."""
    flags = [
        *MULTI,
        "--data-root",
        str(table),
        *TINY_TEXT,
        "--epochs",
        "4",
        "--rdrop-alpha",
        "0.5",
        "--mixup-alpha",
        "0.3",
    ]
    done("train", *flags, "--name", "whole")
    stop_after(monkeypatch, 2, KeyboardInterrupt())
    assert samo("train", *flags, "--name", "cut").status == 130
    done("train", "--resume", "cut", "--threads", "1", "--precision", "float32")
    whole, cut = (load_file(artifacts / "runs" / name / "best_model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all((whole[name] == cut[name]).all() for name in whole)


def test_single_label_and_stratified_split(tmp_path: Path, artifacts: Path) -> None:
    source = write_table(tmp_path / "all.csv", split=False)
    rows = [row for row in csv.reader(source.open()) if "|" not in row[1]]
    single = tmp_path / "single.csv"
    with single.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    done("train", *TABLE, "--data-root", single, *TINY_TEXT, "--name", "single")
    done("evaluate", "single", "--threads", "1")
    report = read_json(artifacts / "runs" / "single" / "report.json")
    assert report["split_rule"] == "stratified"
    assert not report["leaky"]
    assert sum(sum(row) for row in report["confusion"]) == report["n"]


@pytest.mark.slow
def test_two_tasks_with_unlabelled_cells(tmp_path: Path, artifacts: Path) -> None:
    source = write_table(tmp_path / "all.csv")
    two = tmp_path / "two.csv"
    with two.open("w", newline="") as file:
        writer = csv.writer(file)
        for number, (text, label, part) in enumerate(csv.reader(source.open())):
            tone = "tone" if number == 0 else ("" if number % 7 == 0 else "bad" if "joy" not in label else "good")
            writer.writerow([text, label.split("|")[0], tone, part])
    flags = [*TABLE, "--data-root", str(two), "--label-columns", "label,tone", *TINY_TEXT, "--epochs", "5"]
    done("train", *flags, "--name", "two", "--task-weights", "tone=2")
    done("evaluate", "two", "--threads", "1")
    report = read_json(artifacts / "runs" / "two" / "report.json")
    assert set(report["tasks"]) == {"label", "tone"}
    assert report["tasks"]["tone"]["n"] < report["tasks"]["label"]["n"]
    scores = [report["tasks"][name]["metrics"]["macro_f1"] for name in ("label", "tone")]
    assert report["overall_macro_f1"] == pytest.approx(sum(scores) / 2)
    printed = done("predict", "--text", "yay so glad", "--run", "two", "--threads", "1", "--json").json["predictions"][
        0
    ]
    assert set(printed["tasks"]) == {"label", "tone"}
    assert printed["tasks"]["tone"]["labels"] == [printed["tasks"]["tone"]["likeliest"]]


@pytest.mark.slow
def test_tfidf_trains_in_one_epoch_without_steps(table: Path, artifacts: Path) -> None:
    done("train", *MULTI, "--data-root", table, "--model", "tfidf", "--threads", "1", "--name", "plain")
    assert len((artifacts / "runs" / "plain" / "history.jsonl").read_text().splitlines()) == 1
    done("evaluate", "plain", "--threads", "1")
    report = read_json(artifacts / "runs" / "plain" / "report.json")
    assert report["metrics"]["macro_f1"] > 0.8
    assert report["baseline"] is None


@pytest.mark.parametrize(
    ("status", "flags", "line"),
    [
        (3, ["--label-columns", "emotion"], "has no column 'emotion'"),
        (3, ["--text-column", "body"], "has no column 'body'"),
        (2, ["--pooling", "middle"], "unknown pooling 'middle'"),
        (2, ["--model", "textcn"], "unknown model 'textcn'"),
        (2, ["--sr", "8000"], "--sr is no setting of --modality text"),
        (2, ["--gru-units", "8"], "--gru-units acts only together with --model bigru"),
        (2, ["--freeze-encoder"], "--freeze-encoder acts only together with --model encoder"),
    ],
)
def test_wrong_settings_are_one_line(table: Path, status: int, flags: list[str], line: str) -> None:
    assert line in refused(status, "train", *MULTI, "--data-root", table, *flags)
