"""The table of answers beside a report, the most confident mistakes in its page, and what a constant guess scores."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from samo.data.manifest import Item, Manifest
from samo.data.splits import part_sizes
from samo.evaluation.baseline import constant_answers
from samo.evaluation.calibration import Calibration
from samo.evaluation.decision import Decision
from samo.evaluation.predictions import Predictions
from samo.reporting.answers import confident_mistakes, predictions_csv
from samo.reporting.html import render_html
from samo.reporting.report import Subject, build_report
from samo.reporting.wording import constant_line, part_rows
from samo.tasks import LabelSpace, Task

ONE = LabelSpace((Task("emotion", ("calm", "angry")),))
SEVERAL = LabelSpace((Task("emotion", ("calm", "angry", "sad"), multi_label=True), Task("tone", ("low", "high"))))
LN3 = float(np.log(3.0))


def corpus(root: Path, *, texts: bool = False) -> tuple[Manifest, Predictions]:
    """Five items: a is right, b and c are wrong with 0.75 and 0.9, d right, e without a label."""
    sources = ["=1+1", "b\x1b[31m.wav", "c d.wav", "d.wav", "e.wav"]
    labels: list[str] = ["calm", "calm", "angry", "angry", ""]
    items = tuple(
        Item(
            id=name, source=source, labels={"emotion": (label,)} if label else {}, group=group,
            segment=(1.5, 2.0) if name == "c" else None,
        )
        for name, source, label, group in zip("abcde", sources, labels, ["s1", "s1", "s2", "s2", ""], strict=True)
    )  # fmt: skip
    manifest = Manifest("own", ONE, items, root, copies="reported" if texts else "refused")
    shares = np.array([0.6, 0.25, 0.9, 0.2, 0.5])
    logits = np.stack([np.log(shares), np.log(1.0 - shares)], axis=1)
    return manifest, Predictions(tuple("abcde"), logits, manifest.targets, tuple(item.group for item in items))


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_answer_beside_its_truth(tmp_path: Path) -> None:
    manifest, predictions = corpus(tmp_path)
    text = predictions_csv(predictions, ONE, Decision(), manifest, {"seed": [0, 0, 0, 1, 1]})
    assert "\x1b" not in text
    rows = rows_of(text)
    assert list(rows[0]) == [
        "id", "source", "group", "seed", "truth", "predicted", "confidence", "correct", "p.calm", "p.angry",
    ]  # fmt: skip
    assert list(rows[0].values()) == ["a", "'=1+1", "s1", "0", "calm", "calm", "0.6", "1", "0.6", "0.4"]
    assert [row["correct"] for row in rows] == ["1", "0", "0", "1", ""]
    assert [row["confidence"] for row in rows] == ["0.6", "0.75", "0.9", "0.8", ""]
    assert [row["seed"] for row in rows] == ["0", "0", "0", "1", "1"]
    assert (rows[1]["truth"], rows[1]["predicted"], rows[1]["source"]) == ("calm", "angry", "b\ufffd[31m.wav")
    assert rows[4]["truth"] == rows[4]["p.calm"] == ""


def test_confidence_is_under_the_temperature(tmp_path: Path) -> None:
    manifest, predictions = corpus(tmp_path)
    decision = Decision(Calibration({"emotion": 0.5}, "val"))
    rows = rows_of(predictions_csv(predictions, ONE, decision, manifest))
    # 0.75 against 0.25 are odds of 3, of 9 at half the temperature.
    assert rows[1]["confidence"] == "0.9"


def test_each_task_has_columns_of_its_own_and_several_labels_are_joined(tmp_path: Path) -> None:
    items = (
        Item(id="a", source="one", labels={"emotion": ("calm", "sad"), "tone": ("high",)}),
        Item(id="b", source="two", labels={"emotion": ()}),
    )
    manifest = Manifest("own", SEVERAL, items, tmp_path, copies="reported")
    logits = np.array([[LN3, -LN3, LN3, 0.0, LN3], [-LN3, -LN3, -LN3, LN3, 0.0]])
    decided = np.array([[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]], dtype=bool)
    predictions = Predictions(("a", "b"), logits, manifest.targets, ("", ""), decided=decided)
    first, second = rows_of(predictions_csv(predictions, SEVERAL, Decision(), manifest))
    assert (first["truth.emotion"], first["predicted.emotion"]) == ("calm; sad", "calm; sad")
    assert (first["confidence.emotion"], first["correct.emotion"], first["p.sad.emotion"]) == ("0.421875", "1", "0.75")
    assert (first["truth.tone"], first["confidence.tone"]) == ("high", "0.75")
    # Decided by thresholds, "angry" is answered with a probability of a quarter.
    assert (second["truth.emotion"], second["predicted.emotion"], second["correct.emotion"]) == ("", "angry", "0")
    assert second["confidence.emotion"] == "0.140625"
    assert second["predicted.tone"] == ""


def test_the_surest_mistakes_come_first_with_what_is_to_be_heard(tmp_path: Path) -> None:
    manifest, predictions = corpus(tmp_path)
    (tmp_path / "c d.wav").touch()
    found = confident_mistakes(predictions, ONE, Decision(), manifest)
    assert [(row["truth"], row["predicted"], row["group"]) for row in found] == [
        ("angry", "calm", "s2"), ("calm", "angry", "s1"),
    ]  # fmt: skip
    assert [row["confidence"] for row in found] == pytest.approx([0.9, 0.75])
    assert found[0]["audio"] == (tmp_path / "c d.wav").as_uri() + "#t=1.5,2"
    assert found[0]["text"] == "c"
    assert (found[1]["audio"], found[1]["text"]) == ("", "b\x1b[31m.wav")


def test_mistakes_in_texts_are_read(tmp_path: Path) -> None:
    manifest, predictions = corpus(tmp_path, texts=True)
    long = Manifest(
        "own", ONE, tuple(Item(i.id, "word " * 200, i.labels, i.group) for i in manifest.items), tmp_path,
        copies="reported",
    )  # fmt: skip
    assert confident_mistakes(predictions, ONE, Decision(), long)[0]["text"] == ("word " * 120).rstrip() + " …"
    assert confident_mistakes(predictions, ONE, Decision(), manifest)[0] == {
        "truth": "angry", "predicted": "calm", "confidence": pytest.approx(0.9), "group": "s2", "text": "c d.wav",
        "audio": "",
    }  # fmt: skip


def test_a_constant_guess(tmp_path: Path) -> None:
    assert constant_answers(ONE, np.array([[1, 0], [0, 1], [0, 1], [np.nan, np.nan]])).tolist() == [False, True]
    several = np.array([[1, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 1, 0]], dtype=float)
    assert constant_answers(SEVERAL, several).tolist() == [True, True, True, True, False]
    _, predictions = corpus(tmp_path)
    subject = Subject("r", "own", "test", "speaker", "speaker")
    parts = {"train": {"clip": 12, "speaker": 3}, "test": {"clip": 5}}
    answers = np.array([True, False])
    report = build_report(subject, predictions, ONE, constant=answers, parts=parts)
    # Two of four labelled rows are calm: F1 of calm 2/3, of angry 0.
    assert report["constant"]["labels"] == ["calm"]
    metrics = report["constant"]["metrics"]
    assert (metrics["macro_f1"], metrics["accuracy"], metrics["uar"]) == pytest.approx((1 / 3, 0.5, 0.5))
    assert constant_line(report["constant"]) == (
        "a constant guess (always calm): macro-F1 0.333, accuracy 0.500, UAR 0.500"
    )
    assert report["parts"] == parts
    # Rows of two folds whose training parts have other majorities.
    by_row = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], dtype=bool)
    folds = build_report(subject, predictions, ONE, constant=by_row)["constant"]
    assert (folds["labels"], folds["metrics"]["accuracy"]) == ([], 1.0)
    assert "the most frequent class of each training part" in constant_line(folds)
    assert "constant" not in build_report(subject, predictions, ONE)


def test_the_page_has_mistakes_parts_and_the_constant_guess(tmp_path: Path) -> None:
    manifest, predictions = corpus(tmp_path)
    (tmp_path / "c d.wav").touch()
    subject = Subject("r", "own", "test", "speaker", "speaker")
    parts = {"train": {"clip": 12, "speaker": 3}, "test": {"clip": 5}}
    report = build_report(subject, predictions, ONE, constant=np.array([True, False]), parts=parts)
    mistakes = [{**row, "truth": "<b>"} for row in confident_mistakes(predictions, ONE, Decision(), manifest)]
    page = render_html(report, {}, {}, {}, mistakes, "predictions.csv")
    address = (tmp_path / "c d.wav").as_uri() + "#t=1.5,2"
    assert f'<audio controls preload="none" src="{address}"></audio>' in page
    assert page.count("<audio") == 1
    assert "<b>" not in page
    assert '<a href="predictions.csv">' in page
    assert "A constant guess (always calm): macro-F1 0.333" in page
    assert '<tr><th scope="row">train</th><td>12</td><td>3</td></tr>' in page
    assert part_rows(parts) == (("part", "clips", "speakers"), [("train", "12", "3"), ("test", "5", "-")])
    plain = render_html(build_report(subject, predictions, ONE), {}, {}, {})
    assert "constant guess" not in plain
    assert "mistakes" not in plain.partition("<body>")[2]


def test_parts_are_counted_by_their_nouns(tmp_path: Path) -> None:
    manifest, _ = corpus(tmp_path)
    assert part_sizes(manifest, ("a", "b", "c"), "clip", "speaker") == {"clip": 3, "speaker": 2}
    assert part_sizes(manifest, ("e",), "clip", "speaker") == {"clip": 1}
