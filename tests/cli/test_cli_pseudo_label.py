"""``samo pseudo-label``, and the table it writes in a training that takes it."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path

import pytest
from sentence_table import LABELS, MULTI, TINY_TEXT, WORDS, sentence, write_table
from tone_corpora import done, read_json, refused

from samo.data import tables
from samo.errors import DataError

FLAGS = ["--threads", "1"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "texts.csv")


@pytest.fixture(scope="module")
def trained_words(tmp_path_factory: pytest.TempPathFactory, cache: Path, table: Path) -> Path:
    """The artifacts of a training of tf-idf, run ``words``; to read only."""
    root = tmp_path_factory.mktemp("words")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(cache))
        done("train", *MULTI, "--data-root", table, "--model", "tfidf", "--name", "words", "--artifacts", root)
    return root


@pytest.fixture
def texts(tmp_path: Path, table: Path) -> Path:
    """Forty new texts, an empty one, one twice, and one of the run's test part."""
    draw = random.Random(9)
    lines = [sentence((draw.choice(LABELS),), draw) + f" {k}" for k in range(40)]
    test_text = next(row["text"] for row in csv.DictReader(table.open()) if row["split"] == "test")
    path = tmp_path / "new.txt"
    path.write_text("\n".join([*lines[:20], "", lines[0], test_text, *lines[20:]]) + "\n")
    return path


@pytest.mark.slow
def test_from_unlabelled_texts_to_a_training(trained_words: Path, table: Path, texts: Path, artifacts: Path) -> None:
    where = ["--artifacts", trained_words, *FLAGS]
    out = texts.with_name("sure.csv")
    summary = done("pseudo-label", "words", texts, "--out", out, "--confidence", "0.7", *where, "--json").json
    assert (summary["run"], summary["texts"], summary["table"]) == ("words", 43, str(out))
    left_out = summary["left_out"]
    assert (left_out["empty"], left_out["repeated"], left_out["in validation or test"]) == (1, 1, 1)
    assert summary["kept"] == 40 - left_out["not confident"] > 5
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == summary["kept"]
    assert list(rows[0]) == ["text", "label", "confidence", "source"]
    for row in rows:
        (right,) = [label for label in LABELS if set(WORDS[label]) & set(row["text"].split())]
        assert (row["label"], row["source"]) == (right, "pseudo")
        assert 0.7 <= float(row["confidence"]) <= 1.0
    result = done(
        "train", *MULTI, "--data-root", table, *TINY_TEXT, "--epochs", "1", "--extra-table", out, "--name", "b"
    )
    assert f"{len(rows)} of {len(rows)} rows of {out} join the training part" in " ".join(result.err.split())
    run = artifacts / "runs" / "b"
    assert read_json(run / "augmentation.json")["methods"] == {"extra-table": len(rows)}
    assert len(read_json(run / "split.json")["train"]) == 160  # the corpus' own; extra rows are in no part
    out.unlink()
    assert done("evaluate", "b", *FLAGS, "--json").json["n"] == 40


def test_confidence_and_what_is_shown(trained_words: Path, texts: Path) -> None:
    where = ["--artifacts", trained_words, *FLAGS]
    kept = [
        done("pseudo-label", "words", texts, "--out", f"{c}.csv", "--confidence", c, *where, "--json").json["kept"]
        for c in ("0.6", "0.99")
    ]
    assert kept[0] > kept[1]
    shown = done("pseudo-label", "words", texts, "--out", "x.csv", "--confidence", "0.6", *where)
    assert f"{kept[0]} of 43 texts kept; left out: empty 1, repeated 1, in validation or test 1" in shown.out
    assert "--extra-table x.csv" in shown.err
    assert all(label in shown.out for label in LABELS)


def test_a_table_of_texts(trained_words: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text('id,comment\n1,"yay, so sunny"\n2,hate and rage\n')
    where = ["--artifacts", trained_words, *FLAGS, "--out", "x.tsv"]
    assert "no column 'text'" in refused(3, "pseudo-label", "words", path, *where)
    assert done("pseudo-label", "words", path, "--text-column", "comment", *where, "--json").json["texts"] == 2


def test_refused(trained_words: Path, trained: Path, texts: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("mine")
    where = ["--artifacts", trained_words, *FLAGS]
    line = refused(5, "pseudo-label", "words", texts, "--out", mine, *where)
    assert "mine.csv exists (hint: choose another --out, or replace it with --overwrite)" in line
    assert mine.read_text() == "mine"
    done("pseudo-label", "words", texts, "--out", mine, "--overwrite", *where)
    assert mine.read_text().startswith("text,label,")
    assert "--confidence 0.5" in refused(2, "pseudo-label", "words", texts, "--out", "a.csv", "--confidence", "0.5")
    assert "must end in .csv or .tsv" in refused(2, "pseudo-label", "words", texts, "--out", "a.txt", *where)
    assert "trained on audio" in refused(5, "pseudo-label", "first", texts, "--out", "a.csv", "--artifacts", trained)
    assert "--out" in refused(2, "pseudo-label", "words", texts, *where)


def test_a_pipe_nobody_writes_into_is_refused(trained_words: Path, tmp_path: Path) -> None:
    pipes = [tmp_path / name for name in ("pipe", "pipe.csv")]
    for pipe in pipes:
        os.mkfifo(pipe)
    words = ["--run", "words", "--artifacts", trained_words]
    assert f"{pipes[0]} is a pipe, no file (hint: give - and pipe it in)" in refused(3, "predict", pipes[0], *words)
    assert f"there is no table {pipes[1]}" in refused(3, "predict", pipes[1], *words)
    for modality in ("audio", "text"):
        line = refused(3, "train", "--modality", modality, "--dataset", "table", "--data-root", pipes[1])
        assert f"--data-root points at {pipes[1]}, which is a pipe (hint: save what comes out of it as a file)" in line
    with pytest.raises(DataError, match="is a pipe, no file"):
        tables.read_table(pipes[1], {"text"})
    # What a shell opens for a command, as in `samo predict <(zcat texts.gz)`, has a writer.
    reading, writing = os.pipe()
    os.write(writing, b"so glad\n")
    os.close(writing)
    assert done("predict", f"/dev/fd/{reading}", *words, "--json").json["predictions"][0]["text"] == "so glad"
    os.close(reading)
