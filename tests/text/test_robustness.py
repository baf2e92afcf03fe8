"""What rewritten texts cost: against hand computation, with a predictor that reads letters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from samo.errors import DataError, SettingsError
from samo.evaluation.decision import Decision
from samo.evaluation.thresholds import TaskThresholds, Thresholds
from samo.runs.run import Run
from samo.tasks import LabelSpace, Task
from samo_text.predictor import TextPredictor
from samo_text.rewriting.kinds import KINDS
from samo_text.robustness import check_robustness, robustness_of
from samo_text.robustness_report import robustness_figure, text_rows, write_robustness

MOOD = Task("mood", ("bad", "good"))
TAGS = Task("tags", ("loud", "long"), multi_label=True)
FACTS = {
    "run": "mine",
    "dataset": "made up",
    "synthetic": False,
    "split": "test",
    "split_rule": "table",
    "leaky": False,
}


class Reader:
    """Says good to texts with a small ``good`` in them, loud to ``!`` and long to more than five words."""

    def __init__(self, space: LabelSpace | None = None, decision: Decision | None = None) -> None:
        self.space, self.decision = space or LabelSpace((MOOD,)), decision or Decision()
        self.read: list[str] = []

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        self.read += texts
        columns = {"mood": lambda text: [0.0, 1.0 if "good" in text else -1.0]}
        columns["tags"] = lambda text: [-0.4 + 2.0 * ("!" in text), 4.0 * (len(text.split()) > 5) - 2.0]
        rows = [[value for task in self.space.tasks for value in columns[task.name](text)] for text in texts]
        return np.array(rows, dtype=np.float32)


TEXTS = ("a good day", "GOOD grief", "bad luck", "is it good", "so so sad", "good good good good good good good")
MOODS = np.array([[0, 1], [1, 0], [1, 0], [0, 1], [1, 0], [0, 1]], dtype=np.float32)
IDS = [f"t{k}" for k in range(len(TEXTS))]


def decide(reader: Reader, targets: np.ndarray = MOODS, texts: Sequence[str] = TEXTS, **values: Any) -> dict[str, Any]:
    given = {"kinds": tuple(KINDS), "strength": 0.1, "seed": 0, "n_resamples": 200, **values}
    ids = [f"t{k}" for k in range(len(texts))]
    return robustness_of(texts, targets, [""] * len(texts), ids, cast(TextPredictor, reader), **given)


def row(report: dict[str, Any], name: str, task: str = "mood") -> dict[str, Any]:
    (found,) = [row for row in report["tasks"][task]["rewrites"] if row["name"] == name]
    return found


def test_what_is_lost_is_computed_as_by_hand() -> None:
    report = decide(Reader(), kinds=("case", "emoji"))
    mood = report["tasks"]["mood"]
    assert mood["macro_f1"] == 1.0  # "GOOD grief" is bad, and said to be
    # In capitals nothing is "good": all are bad, F1 2*3/(6+3) = 2/3 of bad and 0 of good.
    upper = row(report, "upper case")
    assert upper["macro_f1"] == pytest.approx(1 / 3)
    assert upper["difference"] == pytest.approx(-2 / 3)
    assert upper["answers_changed"] == pytest.approx(3 / 6)
    assert upper["answers_changed_of_rewritten"] == pytest.approx(3 / 6)
    assert upper["low"] <= upper["difference"] <= upper["high"]
    # In small letters one more is good: F1 of bad 2*2/(3+2) = 0.8, of good 2*3/(4+3) = 6/7.
    lower = row(report, "lower case")
    assert lower["macro_f1"] == pytest.approx((0.8 + 6 / 7) / 2)
    assert lower["answers_changed"] == pytest.approx(1 / 6)
    assert lower["answers_changed_of_rewritten"] == 1.0  # only "GOOD grief" has capitals
    idle = row(report, "emoji removed")
    assert (idle["difference"], idle["p"], idle["answers_changed_of_rewritten"]) == (0.0, None, None)
    assert "changed no text: emoji removed" in report["warnings"]
    assert [entry["n_changed"] for entry in report["rewrites"]] == [6, 1, 0, 6]
    assert report["rewrites"][1]["examples"] == [["GOOD grief", "good grief"]]


def test_p_values_are_corrected_for_the_number_of_rewritings() -> None:
    alone, among = decide(Reader(), kinds=("case",)), decide(Reader(), kinds=tuple(KINDS))
    for name in ("upper case", "lower case"):
        assert row(alone, name)["p"] == row(among, name)["p"] is not None
        assert row(among, name)["p_corrected"] >= row(alone, name)["p_corrected"]
    assert row(among, "upper case")["p_corrected"] > row(alone, "upper case")["p_corrected"]
    many = decide(Reader(), np.tile(MOODS, (20, 1)), TEXTS * 20, kinds=("case",))
    assert (row(many, "upper case")["verdict"], row(alone, "lower case")["verdict"]) == ("worse", "cannot tell")


def test_negation_is_counted_and_not_scored() -> None:
    report = decide(
        Reader(), texts=["is it bad", "it is fine", "bad", "no good"], targets=MOODS[:4], kinds=("negation",)
    )
    negation = row(report, "negation added")
    assert negation["macro_f1"] is negation["difference"] is negation["p"] is None
    assert negation["verdict"] == ""
    assert report["rewrites"][0]["n_changed"] == 3
    assert negation["answers_changed"] == 0.0


def test_only_what_was_rewritten_is_read_again() -> None:
    reader = Reader()
    decide(reader, kinds=("case",))
    assert len(reader.read) == 6 + 6 + 1


def test_unlabelled_rows_count_nowhere() -> None:
    targets = MOODS.copy()
    targets[0] = np.nan
    report = decide(Reader(), targets, kinds=("case", "length"))
    assert report["tasks"]["mood"]["n"] == 5
    assert row(report, "upper case")["answers_changed"] == pytest.approx(2 / 5)
    assert row(report, "upper case")["answers_changed_of_rewritten"] == pytest.approx(2 / 5)
    assert sum(entry["n"] for entry in report["tasks"]["mood"]["lengths"]) == 5
    with pytest.raises(DataError, match="no text of this part is labelled"):
        decide(Reader(), np.full_like(MOODS, np.nan))


def test_by_length() -> None:
    lengths = decide(Reader(), kinds=("length",))["tasks"]["mood"]["lengths"]
    assert [(entry["name"], entry["n"]) for entry in lengths] == [("up to 3 words", 5), ("4 to 8 words", 1)]
    assert [entry["micro_f1"] for entry in lengths] == [1.0, 1.0]
    assert lengths[1]["ci"] is None  # one text
    texts = [" ".join(["w"] * n) for n in (0, 3, 4, 8, 9, 16, 17, 24, 25, 300)]
    lengths = decide(Reader(), np.tile(MOODS[:1], (10, 1)), texts, kinds=("length",))["tasks"]["mood"]["lengths"]
    assert [entry["n"] for entry in lengths] == [2, 2, 2, 2, 2]
    assert lengths[-1]["name"] == "over 24 words"
    assert decide(Reader(), kinds=("case",))["tasks"]["mood"]["lengths"] == []


def test_every_task_is_decided_by_its_own_thresholds() -> None:
    space = LabelSpace((MOOD, TAGS))
    targets = np.array([[0, 1, 1, 0], [1, 0, 0, 0]], dtype=np.float32)
    texts = ["good!", "bad"]
    at_half = decide(Reader(space), targets, texts, kinds=("punctuation",))
    assert at_half["tasks"]["tags"]["macro_f1"] == 1.0  # loud is right, long has no row
    assert row(at_half, "marks removed", "tags")["macro_f1"] == 0.0
    assert row(at_half, "marks removed", "mood")["macro_f1"] == 1.0
    # Without its mark the first text is loud with probability 0.40, above a threshold of 0.3; so is the second then.
    cut = TaskThresholds(
        0.3, {"loud": 0.3, "long": 0.3}, {"half": 1, "global": 1, "per-class": 1}, {"loud": 1, "long": 1}
    )
    low = Decision(thresholds=Thresholds("per-class", {"tags": cut}))
    found = decide(Reader(space, low), targets, texts, kinds=("punctuation",))
    assert found["tasks"]["tags"]["macro_f1"] == pytest.approx(2 / 3)
    assert row(found, "marks removed", "tags")["difference"] == 0.0


def test_seed_and_strength_act() -> None:
    texts = [" ".join(["good grief again"] * 5)] * 6

    def typos(**values: Any) -> list[list[str]]:
        found: list[list[str]] = decide(Reader(), texts=texts, kinds=("typos",), **values)["rewrites"][0]["examples"]
        return found

    assert typos() == typos()
    assert typos() != typos(seed=1)
    touched = [
        sum(old != new for old, new in zip(before.split(), after.split(), strict=True))
        for before, after in (typos(strength=0.2)[0], typos(strength=0.8)[0])
    ]
    assert touched == [3, 12]


@pytest.mark.usefixtures("drawn_pictures")
def test_files_say_the_same(tmp_path: Path) -> None:
    texts = ["<b>good</b> & well", *TEXTS[1:]]
    report = {**FACTS, **decide(Reader(LabelSpace((MOOD, TAGS))), np.hstack([MOODS, MOODS]), texts), "synthetic": True}
    page = write_robustness(report, tmp_path)
    assert page == tmp_path / "robustness.html"
    assert json.loads((tmp_path / "robustness.json").read_text()) == report
    html = page.read_text()
    assert "&lt;B&gt;GOOD&lt;/B&gt; &amp; WELL" in html
    assert "<B>GOOD" not in html
    assert "synthetic demo data" in html
    for task in ("mood", "tags"):
        for cells in text_rows(report, task):
            assert all(f">{cell}</td>" in html for cell in cells)
    assert (tmp_path / "robustness.png").read_bytes()[:4] == b"\x89PNG"
    assert "data:image/png;base64," in html


def test_each_part_has_files_of_its_own_and_nothing_scored_has_no_picture(tmp_path: Path) -> None:
    report = {**FACTS, **decide(Reader(), kinds=("negation", "length")), "split": "val"}
    assert write_robustness(report, tmp_path) == tmp_path / "robustness.val.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["robustness.val.html", "robustness.val.json"]
    assert "<img" not in (tmp_path / "robustness.val.html").read_text()


def test_bars_are_as_long_as_the_differences() -> None:
    report = {**FACTS, **decide(Reader(), kinds=("case",))}
    (axes,) = robustness_figure(report).axes
    assert [bar.get_width() for bar in axes.patches] == [
        row["difference"] for row in report["tasks"]["mood"]["rewrites"]
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["upper case", "lower case"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"part": "train"}, "`on=train`: unknown part"),
        ({"strength": 0.0}, "`strength=0`"),
        ({"strength": 1.5}, "`strength=1.5`"),
    ],
)
def test_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    (tmp_path / "config.json").write_text('{"modality": "text"}')
    with pytest.raises(SettingsError, match=message):
        check_robustness(Run(tmp_path), cast(Any, None), **values)


def test_a_run_on_speech_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"modality": "audio"}')
    with pytest.raises(SettingsError, match="was trained on audio"):
        check_robustness(Run(tmp_path), cast(Any, None))
