"""Scores: exact values worked out by hand, and scikit-learn as the judge on random data."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics as reference

from samo.evaluation import metrics
from samo.tasks import LabelSpace, Task

# 0 -> 0 0 1, 1 -> 1 2, 2 -> 2; class 3 never occurs and is never predicted.
TRUE, PRED = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
ABC = Task("t", ("a", "b", "c", "d"))
TAGS = Task("m", ("x", "y"), multi_label=True)


def indicators(classes: np.ndarray, n: int) -> np.ndarray:
    return classes[:, None] == np.arange(n)


def tallied(n: int = 4) -> metrics.Tally:
    return metrics.tally(indicators(TRUE, n), indicators(PRED, n))


def random_case(seed: int, n: int = 5, rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n, rows)
    return truth, np.where(rng.random(rows) < 0.5, truth, rng.integers(0, n, rows))


def test_confusion_by_hand() -> None:
    expected = [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert metrics.confusion(TRUE, PRED, 4).tolist() == expected
    assert metrics.label_confusion(indicators(TRUE, 4), indicators(PRED, 4)).tolist() == expected


def test_scores_by_hand() -> None:
    # F1: a 4/5, b 2/4, c 2/3; d does not occur. Recall: a 2/3, b 1/2, c 1.
    found = metrics.scores(tallied())
    assert found["macro_f1"] == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert found["weighted_f1"] == pytest.approx((3 * 4 / 5 + 2 * 1 / 2 + 1 * 2 / 3) / 6)
    assert found["micro_f1"] == found["accuracy"] == pytest.approx(4 / 6)
    assert found["uar"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert list(found) == list(metrics.METRICS)


def test_classes_that_no_row_has_are_left_out_of_macro_f1() -> None:
    assert metrics.macro_f1(tallied(4)) == metrics.macro_f1(tallied(3)) == pytest.approx(59 / 90)
    assert metrics.macro_f1_all(tallied(4)) == pytest.approx(59 / 120)
    assert metrics.uar(tallied(4)) == metrics.uar(tallied(3))


def test_a_predicted_but_absent_class_costs_its_row_and_is_no_class_of_the_mean() -> None:
    """Truth a a b; the second is taken for c, which no row is. F1: a 2/3, b 1; c, were it counted, 0."""
    truth, predicted = indicators(np.array([0, 0, 1]), 3), indicators(np.array([0, 2, 1]), 3)
    assert metrics.macro_f1(metrics.tally(truth, predicted)) == pytest.approx(5 / 6)
    assert metrics.macro_f1_all(metrics.tally(truth, predicted)) == pytest.approx(5 / 9)
    # In a multi-label task the first row's false alarm on c, which no row has, is seen in micro-F1 alone: 4 / (4 + 1).
    alarm = metrics.tally(np.eye(2, 3, dtype=bool), np.array([[1, 0, 1], [0, 1, 0]], dtype=bool))
    assert (metrics.macro_f1(alarm), metrics.micro_f1(alarm)) == (1.0, pytest.approx(4 / 5))


def test_macro_f1_of_resamples_is_over_the_classes_of_each() -> None:
    """Three resamples of two rows answered right: both, the first twice, none of either class."""
    tp = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    zeros = np.zeros((3, 2))
    counts = metrics.Tally(tp, zeros, zeros, tp.sum(axis=1), np.full(3, 2.0))
    assert metrics.macro_f1(counts).tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_single_label_agrees_with_sklearn(seed: int) -> None:
    truth, given = random_case(seed)
    # The sixth label never occurs.
    found = metrics.scores(metrics.tally(indicators(truth, 6), indicators(given, 6)))
    for average in ("macro", "micro", "weighted"):
        expected = reference.f1_score(truth, given, labels=range(5), average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(expected)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, given))
    assert found["uar"] == pytest.approx(reference.balanced_accuracy_score(truth, given))
    matrix = reference.confusion_matrix(truth, given, labels=range(6))
    assert (metrics.confusion(truth, given, 6) == matrix).all()


@pytest.mark.parametrize("seed", range(5))
def test_multi_label_agrees_with_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, given = rng.random((150, 4)) < 0.3, rng.random((150, 4)) < 0.4
    found = metrics.scores(metrics.tally(truth, given))
    for average in ("macro", "micro", "weighted"):
        expected = reference.f1_score(truth, given, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(expected)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, given))


def test_leading_dimensions_are_kept() -> None:
    one, other = tallied().flat(), metrics.tally(indicators(PRED, 4), indicators(TRUE, 4)).flat()
    both = metrics.Tally.from_flat(np.stack([one, other]))
    for metric in metrics.METRICS.values():
        assert metric(both).tolist() == [
            pytest.approx(float(metric(metrics.Tally.from_flat(flat)))) for flat in (one, other)
        ]


def test_nothing_counted_scores_zero() -> None:
    nothing = metrics.tally(np.zeros((0, 3), bool), np.zeros((0, 3), bool))
    assert metrics.scores(nothing) == dict.fromkeys(metrics.METRICS, 0.0)


def test_judge_masks_unlabelled_rows_and_decides() -> None:
    probabilities = np.array([[0.2, 0.8, 0, 0], [0.9, 0.1, 0, 0], [0.3, 0.3, 0.4, 0]])
    targets = np.array([[0, 1, 0, 0], [np.nan] * 4, [1, 0, 0, 0]])
    decided = metrics.decide(ABC, probabilities, targets)
    assert decided.rows.tolist() == [0, 2]
    assert decided.truth.argmax(1).tolist() == [1, 0]
    assert decided.predicted.argmax(1).tolist() == [1, 2]
    assert decided.predicted.sum(1).tolist() == [1, 1]


def test_judge_multi_label_thresholds() -> None:
    probabilities, targets = np.array([[0.5, 0.49], [0.2, 0.9]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert metrics.decide(TAGS, probabilities, targets).predicted.tolist() == [[True, False], [False, True]]
    by_label = metrics.decide(TAGS, probabilities, targets, threshold=np.array([0.2, 0.95]))
    assert by_label.predicted.tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("seed", range(3))
def test_per_class_agrees_with_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(4), 120)
    truth = rng.integers(0, 4, 120)
    decided = metrics.decide(ABC, probabilities, np.eye(4)[truth])
    table = metrics.per_class(decided, ABC.labels)
    expected = reference.precision_recall_fscore_support(truth, probabilities.argmax(1), zero_division=0)
    for column, label in enumerate(ABC.labels):
        row = table[label]
        found = [row[k] for k in ("precision", "recall", "f1", "support")]
        assert found == pytest.approx([values[column] for values in expected])
        assert row["roc_auc"] == pytest.approx(reference.roc_auc_score(truth == column, probabilities[:, column]))
        area = reference.average_precision_score(truth == column, probabilities[:, column])
        assert row["average_precision"] == pytest.approx(area)


def test_per_class_undefined_is_none() -> None:
    decided = metrics.decide(ABC, np.tile([0.7, 0.1, 0.1, 0.1], (3, 1)), np.eye(4)[[0, 0, 0]])
    table = metrics.per_class(decided, ABC.labels)
    assert table["a"]["roc_auc"] is None
    assert table["a"]["average_precision"] == 1.0
    assert table["b"] == {
        "precision": 0.0, "recall": 0.0, "f1": 0.0, "roc_auc": None, "average_precision": None, "support": 0
    }  # fmt: skip


def test_most_confused_orders_and_breaks_ties() -> None:
    matrix = np.array([[5, 3, 0], [3, 1, 1], [0, 0, 9]])
    found = metrics.most_confused(matrix, ("a", "b", "c"), 2)
    # Three each: b's three are the larger share of b.
    assert [(pair["true"], pair["predicted"], pair["count"]) for pair in found] == [("b", "a", 3), ("a", "b", 3)]
    assert found[0]["share"] == pytest.approx(3 / 5)
    assert metrics.most_confused(np.diag([1, 2]), ("a", "b")) == []


def test_label_confusion_of_several_labels() -> None:
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=bool)
    given = np.array([[0, 1, 0], [1, 1, 1], [0, 0, 1]], dtype=bool)
    # Row 0: a missed, b wrongly named. Row 1: nothing missed, so c's false alarm replaces nothing.
    assert metrics.label_confusion(truth, given).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_selection_score_single_label_is_macro_f1() -> None:
    truth, given = random_case(1)
    space = LabelSpace((Task("t", tuple("abcde")),))
    logits = np.eye(5)[given] * 3.0 + 10
    expected = reference.f1_score(truth, given, average="macro")
    assert metrics.selection_score(space, logits, np.eye(5)[truth]) == pytest.approx(expected)


def test_selection_goes_by_the_classes_that_validation_has() -> None:
    """Four rows of two of three classes, one wrong: F1 2/3 and 4/5. Trainings begun before go on with a third of 0."""
    space = LabelSpace((Task("emotion", ("a", "b", "c")),))
    targets, logits = np.eye(3)[[0, 0, 1, 1]], np.eye(3)[[0, 1, 1, 1]]
    assert metrics.selection_score(space, logits, targets) == pytest.approx((2 / 3 + 4 / 5) / 2)
    before = metrics.selection_score(space, logits, targets, absent_as_zero=True)
    assert before == pytest.approx((2 / 3 + 4 / 5) / 3)
    tags = LabelSpace((Task("tags", ("a", "b", "c"), multi_label=True),))
    assert metrics.selection_score(tags, 9 * targets - 4.5, targets) == 1.0
    assert metrics.selection_score(tags, 9 * targets - 4.5, targets, absent_as_zero=True) == pytest.approx(2 / 3)


def test_selection_score_multi_label_finds_a_low_threshold() -> None:
    # Perfectly ordered, yet no probability reaches 0.5: sigmoid(-2) = 0.12, sigmoid(-6) = 0.0025.
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], dtype=np.float32)
    logits = np.where(targets > 0, -2.0, -6.0)
    assert metrics.selection_score(LabelSpace((TAGS,)), logits, targets) == 1.0
    assert metrics.scores(metrics.tally(targets > 0, logits >= 0))["macro_f1"] == 0.0


def test_selection_score_averages_tasks_and_masks() -> None:
    space = LabelSpace((Task("one", ("a", "b")), Task("two", ("c", "d"))))
    logits = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1.0]])
    targets = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [np.nan, np.nan, 0, 1.0]])
    # Task one: rows 0 and 1 right, 1.0. Task two: c = 2/3, d = 2/3.
    assert metrics.selection_score(space, logits, targets) == pytest.approx((1.0 + 2 / 3) / 2)
    targets[:, 2:] = np.nan
    assert metrics.selection_score(space, logits, targets) == 1.0
    assert metrics.selection_score(space, logits, np.full_like(targets, np.nan)) == 0.0


def test_importing_the_scores_costs_no_heavy_library() -> None:
    code = (
        "import sys, samo.evaluation.metrics, samo.evaluation.statistics, samo.reporting.report, "
        "samo.reporting.html, samo.reporting.model_card; "
        "print([m for m in ('torch', 'sklearn', 'scipy', 'matplotlib', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_threshold_is_reached_by_what_equals_it() -> None:
    truth, given = np.array([[True], [False], [False]]), np.array([[0.5], [0.25], [0.0]])
    # From 0.25 on two rows are named, from 0.5 one, above it none.
    assert metrics.f1_by_threshold(truth, given, np.array([0.25, 0.5, 0.75])).tolist() == [[2 / 3], [1.0], [0.0]]
