"""``samo zero-shot``: every form says what it is; labels, texts and corpora as given; refusals."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from sentence_table import LABELS, write_table
from small_encoders import small_bert
from tone_corpora import done, refused

NOTE = "zero-shot: not trained on these labels"
TEXT = ["--text", "we hate the dog", "--text", "so sunny"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bert(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def flags(encoder: Path) -> list[str]:
    return ["--labels", "joy=glad and sunny,anger=hate|rage,sadness=tears", "--encoder", str(encoder), "--threads", "1"]


def test_json(flags: list[str], encoder: Path) -> None:
    printed = done("zero-shot", *TEXT, *flags, "--json").json
    assert (printed["zero_shot"], printed["note"], printed["encoder"]) == (True, NOTE, str(encoder))
    assert printed["temperature"] == 0.05
    assert printed["labels"] == {"joy": ["glad and sunny"], "anger": ["hate", "rage"], "sadness": ["tears"]}
    for row in printed["predictions"]:
        assert list(row["probabilities"]) == list(LABELS)
        assert sum(row["probabilities"].values()) == pytest.approx(1.0)
        assert row["label"] == max(row["probabilities"], key=lambda label: row["probabilities"][label])


def test_a_description_is_its_own_nearest(flags: list[str]) -> None:
    printed = done("zero-shot", "--text", "tears", "--text", "glad and sunny", *flags, "--json").json["predictions"]
    assert [row["label"] for row in printed] == ["sadness", "joy"]


def test_temperature_sharpens(flags: list[str]) -> None:
    sharp, flat = (
        done("zero-shot", "--text", "tears", *flags, "--temperature", t, "--json").json["predictions"][0]
        for t in ("0.02", "5")
    )
    assert sharp["probabilities"]["sadness"] > flat["probabilities"]["sadness"]
    assert flat["probabilities"]["sadness"] == pytest.approx(1 / 3, abs=0.05)


def test_table_and_csv(flags: list[str]) -> None:
    shown = done("zero-shot", *TEXT, *flags)
    assert NOTE in shown.out
    assert "we hate the dog" in shown.out
    head, *rows = csv.reader(io.StringIO(done("zero-shot", *TEXT, *flags, "--csv").out))
    assert head == ["text", "label", *LABELS, "warnings", "model"]
    assert [(row[0], row[-1]) for row in rows] == [("we hate the dog", NOTE), ("so sunny", NOTE)]


def test_files_of_texts_and_of_labels(encoder: Path, tmp_path: Path) -> None:
    lines, labels = tmp_path / "texts.txt", tmp_path / "labels.toml"
    lines.write_text("tears\n\nglad\n")
    labels.write_text('a = "tears"\nb = ["glad", "yay"]\n')
    printed = done("zero-shot", lines, "--labels-file", labels, "--encoder", encoder, "--json").json
    assert [(row["text"], row["warnings"]) for row in printed["predictions"]] == [
        ("tears", []),
        ("", ["empty"]),
        ("glad", []),
    ]
    assert printed["predictions"][0]["label"] == "a"
    assert printed["labels"]["b"] == ["glad", "yay"]


def test_judged_on_labelled_texts(flags: list[str], tmp_path: Path) -> None:
    table = write_table(tmp_path / "texts.csv", 60)
    corpus = ["--dataset", "table", "--data-root", table, "--label-separator", "|"]
    report = done("zero-shot", *corpus, *flags, "--json").json
    assert (report["zero_shot"], report["note"], report["part"], report["n"]) == (True, NOTE, "test", 10)
    assert list(report["per_class"]) == list(LABELS)
    assert report["ci"][0] <= report["macro_f1"] <= report["ci"][1]
    assert done("zero-shot", *corpus, *flags, "--on", "all", "--json").json["n"] == 60
    shown = done("zero-shot", *corpus, *flags)
    assert NOTE in shown.out
    assert f"macro-F1 {report['macro_f1']:.3f}" in shown.out
    bare = ["--labels", "joy,anger", *flags[2:]]
    assert "labels of the corpus are not described: sadness" in refused(3, "zero-shot", *corpus, *bare)


def test_refused(flags: list[str], tmp_path: Path) -> None:
    assert "one of the two" in refused(2, "zero-shot", *flags)
    assert "one of the two" in refused(2, "zero-shot", *TEXT, "--dataset", "demo", *flags)
    assert "--encoder is needed" in refused(2, "zero-shot", *TEXT, "--labels", "a,b")
    assert "--labels or --labels-file" in refused(2, "zero-shot", *TEXT, *flags[2:])
    assert "--csv goes" in refused(2, "zero-shot", *TEXT, *flags, "--csv", "--json")
    assert "--on acts only" in refused(2, "zero-shot", *TEXT, *flags, "--on", "test")
    assert "there is no such folder" in refused(6, "zero-shot", *TEXT, *flags[:2], "--encoder", tmp_path / "none")
    assert "--temperature 0 must be" in refused(2, "zero-shot", *TEXT, *flags, "--temperature", "0")
    assert "cannot be read" in refused(3, "zero-shot", tmp_path / "none.txt", *flags)
