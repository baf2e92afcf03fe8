"""Pseudo-labels and extra tables: which texts are kept, in which file, and that a table joins training alone."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from samo.data.manifest import Item, Manifest
from samo.data.splits import Split
from samo.errors import DataError, LeakError, RunError, SettingsError
from samo.evaluation.calibration import Calibration
from samo.evaluation.decision import Decision
from samo.files import write_json
from samo.runs.provenance import Learned, fingerprint_of
from samo.runs.run import Run
from samo.tasks import LabelSpace, Task
from samo_text.config import TextConfig
from samo_text.datasets import index_corpus
from samo_text.extra_table import extra_items
from samo_text.frontend import TextFrontend
from samo_text.predictor import TextPredictor
from samo_text.pseudo_labels import (
    check_confidence,
    check_target,
    confident,
    pseudo_label,
    write_pseudo_labels,
)
from samo_text.texts import content_of, read_texts

MOOD = Task("mood", ("bad", "good"))
TAGS = Task("tags", ("loud", "long", "new"), multi_label=True)
BOTH = LabelSpace((MOOD, TAGS))
CPU = torch.device("cpu")


def logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def test_what_is_confident_by_hand() -> None:
    shares = np.array(
        [
            [0.05, 0.95, 0.95, 0.02, 0.10],  # both
            [0.85, 0.15, 0.95, 0.92, 0.00],  # tags alone
            [0.97, 0.03, 0.95, 0.50, 0.00],  # mood alone: one tag is open
            [0.97, 0.03, 0.01, 0.02, 0.03],  # mood alone: no tag holds
            [0.60, 0.40, 0.80, 0.10, 0.10],  # none
        ]
    )
    labels, decided, sure = confident(shares, BOTH, 0.9)
    assert decided.tolist() == [[True, True], [False, True], [True, False], [True, False], [False, False]]
    assert labels.astype(int).tolist() == [
        [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0],
    ]  # fmt: skip
    np.testing.assert_allclose(sure, [0.90, 0.92, 0.97, 0.97, 0.0])


class Reader:
    """Good with probability 0.95 when there is a ``good`` in a text, else 0.6; loud for sure when it shouts."""

    space = BOTH
    decision = Decision(Calibration({"mood": 1.0, "tags": 1.0}))

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            loud = 0.99 if "!" in text else 0.5
            rows.append([0.0, logit(0.95 if "good" in text else 0.6), logit(loud), logit(0.01), logit(0.02)])
        return np.array(rows, dtype=np.float32).reshape(-1, 5)


READER = cast(TextPredictor, Reader())


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run's folder with a corpus of three texts, one in each part."""
    run = Run(tmp_path / "run")
    texts = {"a": "a good day for fishing", "b": "the good old times are over", "c": "good things come to those"}
    items = tuple(Item(name, text, {"mood": ("good",)}) for name, text in texts.items())
    run.folder.mkdir()
    Manifest("made up", BOTH, items, tmp_path).save(run.path("manifest.jsonl"))
    Split("table", 0, ("a",), ("b",), ("c",)).save(run.path("split.json"))
    run.path("config.json").write_text(
        json.dumps({"modality": "text", "text_column": "text", "label_separator": "", "dataset": "goemotions"})
    )
    return run


def test_kept_and_left_out(run: Run) -> None:
    texts = [
        "all good here",
        "so so !",
        "ALL  good here",
        " ",
        "A good day for fishing",
        "the good old times are over",
        "good things come to those!",
        "so so",
        "good \ud83d",
    ]
    found = pseudo_label(run, READER, texts)
    assert found.texts == ("all good here", "so so !", "good \ufffd")
    assert found.labels.astype(int).tolist() == [[0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]]
    np.testing.assert_allclose(found.confidence, [0.95, 0.98, 0.95], atol=1e-6)
    assert found.summary == {
        "texts": 9,
        "kept": 3,
        "confidence": 0.9,
        "left_out": {
            "empty": 1,
            "repeated": 1,
            "in validation or test": 2,
            "in training": 1,
            "not confident": 1,
        },
        "counts": {"mood": {"bad": 0, "good": 2}, "tags": {"loud": 1, "long": 0, "new": 0}},
    }


def test_the_temperature_counts_and_so_does_confidence(run: Run) -> None:
    class Unsure(Reader):
        decision = Decision(Calibration({"mood": 2.0, "tags": 2.0}))

    texts = ["all good here"]
    assert not pseudo_label(run, cast(TextPredictor, Unsure()), texts).texts
    # logit(0.95) / 2 is a probability of 0.813.
    (sure,) = pseudo_label(run, cast(TextPredictor, Unsure()), texts, 0.8).confidence
    assert sure == pytest.approx(1 / (1 + np.exp(-logit(0.95) / 2)), abs=1e-6)
    assert pseudo_label(run, READER, texts, 0.95001).summary["left_out"]["not confident"] == 1
    assert pseudo_label(run, READER, [], 0.8).summary["kept"] == 0


@pytest.mark.parametrize("confidence", [0.5, 1.01, float("nan"), -1.0])
def test_confidence_refused(confidence: float) -> None:
    with pytest.raises(SettingsError, match="`confidence="):
        check_confidence(confidence)


def rows_of(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_the_table(run: Run, tmp_path: Path) -> None:
    found = pseudo_label(run, READER, ["all good here", 'so, "so" !', "good and loud!"])
    write_pseudo_labels(found, run, tmp_path / "new.csv")
    assert rows_of(tmp_path / "new.csv") == [
        ["text", "mood", "tags", "confidence", "source"],
        ["all good here", "good", "", "0.9500", "pseudo"],
        ['so, "so" !', "", "loud", "0.9800", "pseudo"],
        ["good and loud!", "good", "loud", "0.9500", "pseudo"],
    ]
    write_pseudo_labels(found, run, tmp_path / "new.tsv")
    assert rows_of(tmp_path / "new.tsv", "\t") == rows_of(tmp_path / "new.csv")


def test_a_table_that_lost_what_its_teacher_learned_is_refused(run: Run, tmp_path: Path) -> None:
    write_pseudo_labels(pseudo_label(run, READER, ["all good here"]), run, tmp_path / "new.csv")
    copy = tmp_path / "elsewhere" / "mine.csv"
    copy.parent.mkdir()
    shutil.copy(tmp_path / "new.csv", copy)
    manifest = corpus(tmp_path)
    with pytest.raises(LeakError, match=r"labels of 1 of 1 rows are a run's .* no mine\.csv\.teacher\.json beside it"):
        extra_items(copy, manifest, np.array([0, 1]))
    copy.write_text(copy.read_text() + "found elsewhere,good,,1.0,reddit\n")
    with pytest.raises(LeakError, match="the labels of 1 of 2 rows"):
        extra_items(copy, manifest, np.array([0, 1]))
    shutil.copy(tmp_path / "new.csv.teacher.json", copy.with_name("mine.csv.teacher.json"))
    assert [item.source for item in extra_items(copy, manifest, np.array([0, 1]))] == [
        "all good here",
        "found elsewhere",
    ]
    copy.with_name("mine.csv.teacher.json").unlink()
    copy.write_text("text,mood,source\nfound elsewhere,good,reddit\n")
    assert len(extra_items(copy, manifest, np.array([0, 1]))) == 1


def test_a_teacher_of_the_teacher_hands_its_labels_on_too(run: Run, tmp_path: Path) -> None:
    items = tuple(replace(item, content=content_of(item.source)) for item in corpus(tmp_path).items)
    manifest, held_out = replace(corpus(tmp_path), items=items), items[2]
    first = {"schema": 1, "run": "first", "learned": [held_out.content]}
    write_json(tmp_path / "first.csv.teacher.json", first)
    run.settings["extra_table"] = str(tmp_path / "first.csv")
    write_pseudo_labels(pseudo_label(run, READER, ["all good here"]), run, tmp_path / "new.csv")
    with pytest.raises(LeakError, match=rf"learned from 1 of the \d validation and test texts .*: {held_out.id}"):
        extra_items(tmp_path / "new.csv", manifest, np.array([0, 1]))
    # What weights learned from that a run started from.
    before = Learned("other", {}, {"train": frozenset([fingerprint_of(held_out.content)])})
    write_json(tmp_path / "first.csv.teacher.json", {**first, "learned": [], "before": [before.to_json()]})
    write_pseudo_labels(pseudo_label(run, READER, ["all good here"]), run, tmp_path / "new.csv")
    with pytest.raises(LeakError, match=r"learned from 1 of the \d validation and test texts"):
        extra_items(tmp_path / "new.csv", manifest, np.array([0, 1]))


def test_a_corpus_with_labels_of_a_run_says_so(run: Run, tmp_path: Path) -> None:
    texts = ["all good here", "good and loud!"]
    write_pseudo_labels(pseudo_label(run, READER, texts), run, tmp_path / "new.csv")
    with (tmp_path / "new.csv").open("a") as file:
        file.write("words of people,bad,,,\n")
    config = TextConfig.build({"dataset": "table", "data_root": str(tmp_path / "new.csv"), "label_columns": "mood"})
    assert index_corpus(config.data).notes == (
        "2 of 3 rows have the labels of a run (column source): a score on them tells how alike two models are, not how "
        "good one is",
    )


def test_columns_and_separator_are_those_of_the_run(run: Run, tmp_path: Path) -> None:
    run.settings["text_column"], run.settings["label_separator"] = "comment", ";"
    found = pseudo_label(run, READER, ["loud!"])
    found.labels[0, 3] = True
    write_pseudo_labels(found, run, tmp_path / "new.csv")
    assert rows_of(tmp_path / "new.csv")[:2] == [
        ["comment", "mood", "tags", "confidence", "source"],
        ["loud!", "", "loud;long", "0.9800", "pseudo"],
    ]
    run.settings["label_separator"] = "o"
    with pytest.raises(DataError, match="label 'loud' holds 'o'"):
        write_pseudo_labels(found, run, tmp_path / "new.csv")


def test_targets_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"must end in \.csv or \.tsv"):
        check_target(run, tmp_path / "new.txt", overwrite=False)
    there = tmp_path / "there.csv"
    there.write_text("mine")
    with pytest.raises(RunError, match="exists"):
        check_target(run, there, overwrite=False)
    check_target(run, there, overwrite=True)
    run.settings["modality"] = "audio"
    with pytest.raises(RunError, match="was trained on audio"):
        check_target(run, tmp_path / "new.csv", overwrite=False)


def test_a_task_named_like_a_column_is_refused(run: Run, tmp_path: Path) -> None:
    space = LabelSpace((Task("source", ("a", "b")),))
    Manifest("x", space, (Item("i", "t", {"source": ("a",)}),), tmp_path).save(run.path("manifest.jsonl"))
    with pytest.raises(DataError, match="task 'source'"):
        check_target(run, tmp_path / "new.csv", overwrite=False)


def test_unlabelled_texts_are_read(tmp_path: Path) -> None:
    given = {
        "a.txt": "one\n\ntwo, three\n",
        "a.csv": 'id,text\n1,one\n2,\n3,"two, three"\n',
        "a.tsv": "text\tid\none\t1\n\t2\ntwo, three\t3\n",
        "a.json": '[{"text": "one"}, {"text": null}, {"text": "two, three"}]',
        "a.jsonl": '{"text": "one"}\n{"id": 3}\n{"text": "two, three"}\n',
    }
    for name, content in given.items():
        (tmp_path / name).write_text(content)
        assert read_texts(tmp_path / name) == ["one", "", "two, three"], name
    assert read_texts(tmp_path / "a.csv", "id") == ["1", "2", "3"]
    with pytest.raises(DataError, match="no column 'txt'; it has: id, text"):
        read_texts(tmp_path / "a.csv", "txt")
    with pytest.raises(DataError, match="there is no table"):
        read_texts(tmp_path / "b.csv")
    notes: list[str] = []
    (tmp_path / "c.csv").write_text('id,text\n1,"one\nmore"\n2,two\n')
    assert read_texts(tmp_path / "c.csv", notify=notes.append) == ["one\nmore", "two"]
    assert notes == ["1 row of c.csv holds several lines: row 2"]
    (tmp_path / "b.json").write_text('[{"text": 3}]')
    with pytest.raises(DataError, match="holds no text in row 1"):
        read_texts(tmp_path / "b.json")


def corpus(tmp_path: Path) -> Manifest:
    texts = ["the first text of them", "the second one is here", "a third one to be judged on"]
    return Manifest("made up", BOTH, tuple(Item(f"t{k}", text, {}) for k, text in enumerate(texts)), tmp_path)


def test_extra_rows(tmp_path: Path) -> None:
    path, notes = tmp_path / "extra.csv", list[str]()
    path.write_text(
        "text,mood,tags,confidence\n"
        "brand new words,good,loud|new,0.9\n"
        "The first text of THEM,good,,0.9\n"
        "a third one to be judged on!,good,,0.9\n"
        ",good,,0.9\n"
        "without a label,,,0.9\n"
        "Brand new words,bad,,0.9\n"
        "other words,,long,0.9\n"
    )
    found = extra_items(path, corpus(tmp_path), np.array([0, 1]), notify=notes.append)
    assert [(item.id, item.source, dict(item.labels)) for item in found] == [
        ("extra-00001", "brand new words", {"mood": ("good",), "tags": ("loud", "new")}),
        ("extra-00007", "other words", {"tags": ("long",)}),
    ]
    assert all(item.meta == {"parent": "", "method": "extra-table"} for item in found)
    assert notes == [
        f"2 of 7 rows of {path} join the training part; left out: empty 2, repeated 1, in training 1, "
        "in validation or test 1"
    ]


def test_extra_rows_of_json_and_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "extra.jsonl"
    path.write_text('{"words": "brand new", "tags": ["loud", "new"]}\n{"words": "other", "tags": "long;new"}\n')
    found = extra_items(path, corpus(tmp_path), np.array([0]), text_column="words", separator=";")
    assert [dict(item.labels) for item in found] == [{"tags": ("loud", "new")}, {"tags": ("long", "new")}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,mood\nnew,goood\n", "row 2 of .* has no label 'goood'"),
        ("txt,mood\nnew,good\n", "no column 'text'"),
        ("text,moods\nnew,good\n", "no column 'mood'"),
        ("text,mood\na third one to be judged on,good\n", "no row that can be trained on .in validation or test 1"),
    ],
)
def test_extra_tables_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "extra.csv"
    with pytest.raises(DataError, match="there is no such table"):
        extra_items(path, corpus(tmp_path), np.array([0, 1]))
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        extra_items(path, corpus(tmp_path), np.array([0, 1]))


def test_extra_rows_of_zeros_are_labelled_and_empty_ones_are_not(tmp_path: Path) -> None:
    path, notes = tmp_path / "extra.csv", list[str]()
    path.write_text("text,loud,long,new\nnobody knows this,,,\nnone of these words,0,0,0\nbrand new,1,0,1\n")
    found = extra_items(path, corpus(tmp_path), np.array([0]), notify=notes.append)
    assert [(item.source, dict(item.labels)) for item in found] == [
        ("none of these words", {"tags": ()}),
        ("brand new", {"tags": ("loud", "new")}),
    ]
    assert notes == [f"2 of 3 rows of {path} join the training part; left out: empty 1"]
    path.write_text("text,loud,long,new\nbrand new,1,,0\n")
    with pytest.raises(DataError, match=r"row 2 of .*: column 'long' is empty"):
        extra_items(path, corpus(tmp_path), np.array([0]))


@pytest.fixture
def frontend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a table of thirty texts under further settings."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    rows = [f"text number {k} of the glad ones,{('bad', 'good')[k % 2]}" for k in range(30)]
    (tmp_path / "texts.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "extra.csv").write_text("text,label\nwords we never saw before,good\n")

    def opened(**values: Any) -> TextFrontend:
        given = {"dataset": "table", "data_root": str(tmp_path / "texts.csv"), **values}
        return TextFrontend.open(TextConfig.build(given), lambda line: None)

    return opened


@pytest.mark.parametrize("model", ["textcnn", "tfidf"])
def test_the_frontend_adds_the_table(frontend: Any, tmp_path: Path, model: str) -> None:
    assert frontend(model=model).augment(np.arange(5), CPU) == ()
    (item,) = frontend(model=model, extra_table=str(tmp_path / "extra.csv")).augment(np.arange(5), CPU)
    assert (item.id, item.source, item.labels) == ("extra-00001", "words we never saw before", {"label": ("good",)})


def test_extra_texts_are_augmented_like_others_and_never_repeated(frontend: Any, tmp_path: Path) -> None:
    front = frontend(extra_table=str(tmp_path / "extra.csv"), augment="word-order", augment_max_per_text=2)
    extra, *made = front.augment(np.arange(2), CPU)
    assert extra.meta["method"] == "extra-table"
    assert {item.meta["parent"] for item in made} == {"row-0000002", "row-0000003", "extra-00001"}
    assert extra.source not in [item.source for item in made]
