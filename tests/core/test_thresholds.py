"""Thresholds: which are best, by hand and against scikit-learn; the file; and what they decide."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from samo.errors import RunError
from samo.evaluation.calibration import Calibration
from samo.evaluation.decision import Decision, decided_rows, fit_decision
from samo.evaluation.metrics import f1_by_threshold, selection_score
from samo.evaluation.predictions import Predictions
from samo.evaluation.thresholds import (
    TaskThresholds,
    Thresholds,
    best_threshold,
    fit_thresholds,
    shrunk,
    smoothed,
    steady_threshold,
    threshold_grid,
)
from samo.settings import ThresholdSettings, with_defaults
from samo.tasks import LabelSpace, Task

ABC = Task("tags", ("a", "b", "c"), multi_label=True)
SPACE = LabelSpace((ABC,))
MIXED = LabelSpace((Task("mood", ("up", "down")), ABC))
PLAIN: dict[str, Any] = {"threshold_shrinkage": 0.0, "threshold_smoothing": 0.0}
NINE = ThresholdSettings(threshold_range=(0.1, 0.9), num_thresholds=9, **PLAIN)  # 0.1, 0.2 ... 0.9


def drawn(n: int = 300, seed: int = 0, shares: tuple[float, ...] = (0.4, 0.2, 0.05)) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) float32 logits that know something, and targets; some rows hold no label."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, len(shares))) < shares
    logits = np.log(shares) + 2.0 * truth + rng.normal(size=truth.shape)
    return logits.astype(np.float32), truth.astype(np.float32)


def predictions_of(logits: np.ndarray, targets: np.ndarray, decided: np.ndarray | None = None) -> Predictions:
    return Predictions(tuple(f"t{k}" for k in range(len(logits))), logits, targets, ("",) * len(logits), {}, decided)


@pytest.mark.parametrize("thresholds", [[0.5], [0.1, 0.3, 0.35, 0.9], np.linspace(0.01, 0.99, 200)])
def test_f1_by_threshold_agrees_with_sklearn(thresholds: list[float]) -> None:
    logits, targets = drawn()
    # Values on a threshold count as reaching it.
    given = np.round(SPACE.probabilities(logits), 1 if len(thresholds) < 9 else 9)
    found = f1_by_threshold(targets > 0, given, np.array(thresholds))
    for row, cut in zip(found, thresholds, strict=True):
        np.testing.assert_allclose(row, f1_score(targets > 0, given >= cut, average=None, zero_division=0))


def test_f1_by_threshold_of_nothing_and_of_nan() -> None:
    thresholds = np.array([0.2, 0.6])
    assert f1_by_threshold(np.zeros((0, 3), bool), np.zeros((0, 3)), thresholds).tolist() == [[0, 0, 0]] * 2
    truth = np.array([[True], [True]])
    np.testing.assert_allclose(f1_by_threshold(truth, np.array([[np.nan], [0.6]]), thresholds), [[2 / 3], [2 / 3]])


def test_selection_takes_the_best_single_threshold() -> None:
    logits, targets = drawn()
    shares = SPACE.probabilities(logits)
    grid = [0.01, 0.025, *np.linspace(0.05, 0.95, 19)]
    expected = max(f1_score(targets > 0, shares >= cut, average="macro", zero_division=0) for cut in grid)
    assert selection_score(SPACE, logits, targets) == pytest.approx(expected)


def test_epochs_are_selected_by_the_thresholds_that_may_ship() -> None:
    assert threshold_grid(ThresholdSettings()).tolist() == pytest.approx([k / 100 for k in range(1, 96)])
    logits, targets = drawn()
    shares, settings = (
        SPACE.probabilities(logits),
        ThresholdSettings(threshold_range=(0.6, 0.9), num_thresholds=4, **PLAIN),
    )
    found = selection_score(SPACE, logits, targets, threshold_grid(settings))
    scores = [f1_score(targets > 0, shares >= cut, average="macro", zero_division=0) for cut in (0.6, 0.7, 0.8, 0.9)]
    assert found == pytest.approx(max(scores))
    assert found == pytest.approx(fit_thresholds(shares, targets, SPACE, settings)["tags"].macro_f1["global"])
    assert found < selection_score(SPACE, logits, targets)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0, 0, 1, 0, 0, 0, 0, 0, 0], 0.3),
        ([0, 1, 1, 1, 0, 0, 0, 0, 0], 0.3),  # the middle of the plateau
        ([0, 1, 1, 1, 1, 0, 0, 0, 0], 0.3),  # the lower of two middles
        ([1, 0, 0, 0, 0, 0, 1, 1, 0], 0.7),  # the longest plateau
        ([1, 0, 0, 0, 0, 0, 0, 1, 0], 0.8),  # as long: nearest to 0.5
        ([0, 0, 0, 1, 0, 1, 0, 0, 0], 0.4),  # as near: the lower
        ([1, 1, 1, 1, 1, 1, 1, 1, 1], 0.5),
        ([1, 1 - 1e-15, 1, 0, 0, 0, 0, 0, 0], 0.2),  # rounding breaks no plateau
    ],
)
def test_the_middle_of_the_best_plateau(scores: list[float], best: float) -> None:
    assert best_threshold(np.linspace(0.1, 0.9, 9), np.array(scores, dtype=np.float64)) == pytest.approx(best)


def test_thresholds_by_hand() -> None:
    probabilities = np.array(
        # a: right above 0.25 to 0.65; b: above 0.05 to 0.25; c: never true
        [[0.9, 0.31, 0.9], [0.65, 0.25, 0.2], [0.25, 0.05, 0.2], [0.2, 0.05, 0.2], [np.nan, 0.9, 0.9], [0.9, 0.9, 0.9]]
    )
    targets = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [np.nan, 0, 0]], dtype=np.float32)
    found = fit_thresholds(probabilities, targets, SPACE, NINE, {"tags": 2.0})["tags"]
    # One threshold, F1 of a and b: at 0.1 and 0.2 they are 2/3 and 1, at 0.3 they are 1 and 2/3, then 1 and 0.
    assert found.common == pytest.approx(0.2)
    assert list(found.per_class) == ["a", "b", "c"]
    assert list(found.per_class.values()) == pytest.approx([0.4, 0.1, 0.2])
    assert found.macro_f1 == pytest.approx({"half": 1 / 2, "global": 5 / 6, "per-class": 1.0})
    assert (found.support, found.temperature) == ({"a": 2, "b": 2, "c": 0}, 2.0)


def test_every_score_is_the_one_sklearn_finds() -> None:
    logits, targets = drawn()
    shares, settings = (
        SPACE.probabilities(logits),
        ThresholdSettings(threshold_range=(0.03, 0.77), num_thresholds=38, **PLAIN),
    )
    found = fit_thresholds(shares, targets, SPACE, settings)["tags"]
    grid = np.linspace(0.03, 0.77, 38)
    by_class = np.array([f1_score(targets > 0, shares >= cut, average=None, zero_division=0) for cut in grid])
    assert found.macro_f1["half"] == pytest.approx(f1_score(targets > 0, shares >= 0.5, average="macro"))
    assert found.macro_f1["global"] == pytest.approx(by_class.mean(axis=1).max())
    assert found.macro_f1["per-class"] == pytest.approx(by_class.max(axis=0).mean())
    assert found.common in grid
    own = np.array(list(found.per_class.values()))
    assert f1_score(targets > 0, shares >= own, average="macro") == pytest.approx(found.macro_f1["per-class"])
    assert f1_score(targets > 0, shares >= found.common, average="macro") == pytest.approx(found.macro_f1["global"])
    assert found.macro_f1["half"] < found.macro_f1["global"] < found.macro_f1["per-class"]


@pytest.mark.parametrize("targets", [np.zeros((4, 3)), np.full((4, 3), np.nan), np.zeros((0, 3))])
def test_without_a_positive_row_the_threshold_is_a_half(targets: np.ndarray) -> None:
    given = np.tile([0.9, 0.2, 0.4], (len(targets), 1))
    found = fit_thresholds(given, targets, SPACE, NINE)["tags"]
    assert (found.common, set(found.per_class.values())) == (0.5, {0.5})
    assert found.macro_f1 == {"half": 0.0, "global": 0.0, "per-class": 0.0}


def test_a_class_below_the_grid_takes_the_threshold_of_all() -> None:
    given = np.array([[0.8, 0.05, 0.1], [0.3, 0.01, 0.1]])
    targets = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = fit_thresholds(given, targets, SPACE, NINE)["tags"]
    assert found.per_class["b"] == found.common == found.per_class["a"]


def test_many_rows_and_thresholds_are_quick() -> None:
    rng = np.random.default_rng(0)
    space = LabelSpace((Task("t", tuple(f"l{k}" for k in range(28)), multi_label=True),))
    given, targets = rng.random((5400, 28)), (rng.random((5400, 28)) < 0.1).astype(np.float32)
    started = time.process_time()
    fit_thresholds(given, targets, space, ThresholdSettings(num_thresholds=1000))
    assert time.process_time() - started < 0.5


def test_single_label_tasks_have_none() -> None:
    assert list(fit_thresholds(np.full((2, 5), 0.5), np.zeros((2, 5)), MIXED, NINE)) == ["tags"]


FITTED = Thresholds(
    "per-class",
    {"tags": TaskThresholds(0.3, {"a": 0.2, "b": 0.3, "c": 0.7}, {"half": 0.1, "global": 0.2, "per-class": 0.3},
                            {"a": 3, "b": 2, "c": 0}, 1.25)},
    (0.1, 0.9, 9), "val", 4,
)  # fmt: skip


def test_saved_and_read_back(tmp_path: Path) -> None:
    FITTED.save(tmp_path / "thresholds.json")
    assert Thresholds.load(tmp_path / "thresholds.json") == FITTED
    assert json.loads((tmp_path / "thresholds.json").read_text())["schema"] == 2


def test_thresholds_of_runs_before_count_the_same_labels(tmp_path: Path) -> None:
    """Schema 1 divided by all three labels, of which one has no row: 0.5 over three is 0.75 over two."""
    task = {
        "common": 0.5, "per_class": {"a": 0.5, "b": 0.5, "c": 0.5}, "support": {"a": 3, "b": 1, "c": 0},
        "macro_f1": {"half": 0.25, "global": 0.5, "per-class": 0.5}, "temperature": 1.0,
    }  # fmt: skip
    stored = {"schema": 1, "used": "global", "tasks": {"tags": task}, "tried": [0.1, 0.9, 9], "fitted_on": "val"}
    (tmp_path / "old.json").write_text(json.dumps({**stored, "epoch": 1}))
    found = Thresholds.load(tmp_path / "old.json").tasks["tags"].macro_f1
    assert found == pytest.approx({"half": 0.375, "global": 0.75, "per-class": 0.75})


@pytest.mark.parametrize(
    "changes",
    [{"used": "best"}, {"tasks": {"tags": {}}}, {"tried": [0.1]}, {"tasks": 3}, {"epoch": "x"},
     {"tasks": {"tags": {"common": 1.5, "per_class": {}, "macro_f1": {}, "support": {}, "temperature": 1}}}],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "thresholds.json"
    FITTED.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(RunError, match=r"thresholds\.json") as caught:
        Thresholds.load(path)
    assert caught.value.hint == "remove it; `samo evaluate` chooses the thresholds again"


def test_rules() -> None:
    assert FITTED.of(ABC).tolist() == [0.2, 0.3, 0.7]
    assert FITTED.of(ABC, "global").tolist() == [0.3] * 3
    assert FITTED.of(ABC, "half").tolist() == [0.5] * 3
    assert replace(FITTED, used="global").of(ABC).tolist() == [0.3] * 3
    assert FITTED.of(Task("other", ("x", "y"), multi_label=True)).tolist() == [0.5] * 2
    assert FITTED.by_task(MIXED) == {"tags": [0.2, 0.3, 0.7]}


def test_they_count_only_beside_their_temperature_and_labels() -> None:
    assert FITTED.are_for({"tags": 1.25}, SPACE)
    assert not FITTED.are_for({"tags": 1.0}, SPACE)
    assert not FITTED.are_for({}, SPACE)
    assert not FITTED.are_for({"tags": 1.25}, LabelSpace((Task("tags", ("a", "b", "d"), multi_label=True),)))
    assert Thresholds().are_for({}, LabelSpace((Task("mood", ("up", "down")),)))


def test_a_decision_turns_logits_into_answers() -> None:
    decision = Decision(Calibration({"mood": 3.0, "tags": 1.25}, "val"), FITTED)
    shares = np.array([[0.2, 0.3, 0.6], [0.19, 0.9, 0.71]])
    # A probability on the threshold would hang on rounding: one side by a hair.
    logits = np.hstack([[[1.0, 2.0], [2.0, 1.0]], 1.25 * np.log(shares / (1 - shares)) + 1e-9])
    probabilities, holds = decision.answers(logits, MIXED)
    np.testing.assert_allclose(probabilities[:, 2:], shares, rtol=1e-6)
    assert probabilities[0, 1] == pytest.approx(1 / (1 + np.exp(-1 / 3)))
    expected = [[0, 1, 1, 1, 0], [1, 0, 0, 1, 1]]
    assert holds.astype(int).tolist() == expected
    given = predictions_of(logits, np.zeros((2, 5), np.float32))
    applied = decision.applied(given, MIXED)
    assert applied.decided is not None
    assert applied.decided.astype(int).tolist() == expected
    assert applied.logits is given.logits
    assert decision.applied(given, LabelSpace((Task("mood", ("up", "down")),))).decided is None


def test_stored_decisions_are_what_is_judged(tmp_path: Path) -> None:
    logits, targets = drawn(40)
    decision = fit_decision(logits, targets, SPACE, NINE, epoch=2)
    assert (decision.thresholds.epoch, decision.calibration.epoch, decision.thresholds.fitted_on) == (2, 2, "val")
    decision.applied(predictions_of(logits, targets), SPACE).save(tmp_path / "p.npz")
    stored = Predictions.load(tmp_path / "p.npz")
    thresholds = decision.thresholds.of(ABC)
    shares = SPACE.probabilities(logits / np.float64(decision.calibration.temperature["tags"]))
    found = decided_rows(ABC, stored, SPACE)
    np.testing.assert_array_equal(found.predicted, shares >= thresholds)
    assert not np.array_equal(found.predicted, logits >= 0)
    # Thresholds given by name win over what was decided.
    np.testing.assert_array_equal(decided_rows(ABC, stored, SPACE, thresholds=Thresholds()).predicted, logits >= 0)
    again = decided_rows(ABC, stored, SPACE, decision.calibration.temperature, decision.thresholds)
    np.testing.assert_array_equal(again.predicted, found.predicted)
    stored.targets[:5] = np.nan
    np.testing.assert_array_equal(decided_rows(ABC, stored, SPACE).predicted, found.predicted[5:])


def test_thresholds_are_chosen_under_the_temperature() -> None:
    logits, targets = drawn()
    hot = fit_decision(4 * logits, targets, SPACE, NINE)
    assert hot.thresholds.tasks["tags"].temperature == hot.calibration.temperature["tags"] > 2
    # Temperature and thresholds together undo the factor.
    plain = fit_decision(logits, targets, SPACE, NINE)
    np.testing.assert_array_equal(hot.answers(4 * logits, SPACE)[1], plain.answers(logits, SPACE)[1])
    kept = fit_decision(logits, targets, SPACE, NINE, calibration=Calibration({"tags": 5.0}, "val"))
    assert kept.calibration.temperature == {"tags": 5.0}
    assert kept.thresholds.tasks["tags"].temperature == 5.0


@pytest.mark.parametrize("used", ["per-class", "global", "half"])
def test_the_rule_that_was_asked_for_decides(used: str) -> None:
    logits, targets = drawn()
    decision = fit_decision(logits, targets, SPACE, ThresholdSettings.model_validate({"threshold": used}))
    shares = decision.probabilities(logits, SPACE)
    fitted = decision.thresholds.tasks["tags"]
    thresholds = {"per-class": list(fitted.per_class.values()), "global": fitted.common, "half": 0.5}[used]
    np.testing.assert_array_equal(decision.answers(logits, SPACE)[1], shares >= thresholds)


def test_a_rare_class_is_pulled_toward_the_one_threshold() -> None:
    """In logits ln 1 = 0 and ln 9: of 2 rows and 6 of prior a quarter of the way is its own, 9 ** (1 / 4) = sqrt 3."""
    support = np.array([2, 18, 0, 5])
    found = shrunk(np.array([0.9, 0.9, 0.9, 0.5]), 0.5, support, 6.0)
    assert found.tolist() == pytest.approx([3**0.5 / (1 + 3**0.5), 9**0.75 / (1 + 9**0.75), 0.5, 0.5])
    # Toward 0.8, odds 4, from 0.5: half the way is odds of 2.
    assert shrunk(np.array([0.5]), 0.8, np.array([3]), 3.0)[0] == pytest.approx(2 / 3)
    assert shrunk(np.array([0.1, 0.3]), 0.7, np.array([1, 1]), 0.0).tolist() == [0.1, 0.3]
    assert shrunk(np.array([0.37]), 0.37, np.array([4]), 5.0).tolist() == [0.37]


def test_f1_is_smoothed_over_logits() -> None:
    """Odds of 1/3, 1 and 3 are as far apart in logits: weights 1 and e ** -0.5 at a width of ln 3."""
    grid, near, far = np.array([0.25, 0.5, 0.75]), np.exp(-0.5), np.exp(-2.0)
    found = smoothed(grid, np.array([[0.0], [0.0], [1.0]]), float(np.log(3.0)))
    assert found[:, 0].tolist() == pytest.approx([far / (1 + near + far), near / (1 + 2 * near), 1 / (1 + near + far)])
    assert smoothed(grid, np.array([[0.0], [0.3], [1.0]]), 0.0).ravel().tolist() == [0.0, 0.3, 1.0]


@pytest.mark.parametrize("middle", [0.03, 0.1, 0.3, 0.5, 0.7])
def test_smoothing_moves_no_symmetric_hump(middle: float) -> None:
    """A grid even in probability is dense in the middle of the logits: each threshold weighs as its share of them."""
    grid = np.linspace(0.01, 0.95, 95)
    logits = np.log(grid / (1.0 - grid))
    hump = np.exp(-0.5 * (logits - np.log(middle / (1.0 - middle))) ** 2)
    assert best_threshold(grid, smoothed(grid, hump[:, None], 0.5)[:, 0]) == pytest.approx(middle)
    # Of a straight line the mean is the line itself, wherever the grid is wide enough on both sides.
    inner = (grid > 0.05) & (grid < 0.5)
    np.testing.assert_allclose(smoothed(grid, logits[:, None], 0.3)[inner, 0], logits[inner], atol=0.02)
    assert smoothed(np.array([0.5]), np.array([[0.7]]), 0.5).tolist() == [[0.7]]


@pytest.mark.parametrize(
    ("highest_negative", "lowest_positive", "expected"),
    # Right at 0.01 to 0.59: smoothing alone took 0.03. At 0.05 to 0.89, 0.42; at 0.45 to 0.5, 0.51, which is wrong.
    [(0.005, 0.595, 0.30), (0.041, 0.895, 0.47), (0.441, 0.505, 0.47)],
)
def test_a_label_that_is_right_over_a_range_gets_its_middle(
    highest_negative: float, lowest_positive: float, expected: float
) -> None:
    negatives, positives = np.linspace(0.001, highest_negative, 50), np.linspace(lowest_positive, 0.999, 20)
    shares = np.concatenate([negatives, positives])[:, None].repeat(3, axis=1)
    targets = np.array([0.0] * 50 + [1.0] * 20, dtype=np.float32)[:, None].repeat(3, axis=1)
    settings = ThresholdSettings(threshold_shrinkage=0.0)
    found = fit_thresholds(shares, targets, SPACE, settings)["tags"]
    assert list(found.per_class.values()) == pytest.approx([expected] * 3)


def test_a_wide_best_stretch_is_not_smoothed_and_a_narrow_one_is() -> None:
    """In logits 0.1 to 0.5 is 2.2 wide, and 0.3 to 0.4 is 0.44, of which smoothing by 0.5 makes one hill of several."""
    grid = np.linspace(0.1, 0.9, 9)
    wide = np.array([0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.0])
    narrow = np.array([0.8, 0.8, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8])
    leaning = np.linspace(1.0, 0.0, 9)
    assert steady_threshold(grid, wide, leaning, 0.5) == pytest.approx(0.3)
    assert steady_threshold(grid, narrow, leaning, 0.5) == pytest.approx(0.1)
    assert steady_threshold(grid, narrow, leaning, 0.0) == pytest.approx(0.3)


def test_new_runs_have_steadier_thresholds_and_old_ones_keep_theirs() -> None:
    logits, targets = drawn()
    shares, steady = SPACE.probabilities(logits), ThresholdSettings()
    assert (steady.threshold_shrinkage, steady.threshold_smoothing) == (8.0, 0.5)
    plain = ThresholdSettings.model_validate(PLAIN)
    found = [list(fit_thresholds(shares, targets, SPACE, each)["tags"].per_class.values()) for each in (steady, plain)]
    assert found[0] != found[1]
    before = with_defaults({"modality": "text"})
    assert {name: before[name] for name in PLAIN} == PLAIN


def test_smoothing_and_shrinkage_are_what_a_fit_takes() -> None:
    logits, targets = drawn()
    shares = SPACE.probabilities(logits)
    grid = threshold_grid(NINE)
    plain = fit_thresholds(shares, targets, SPACE, NINE)["tags"]
    settings = NINE.model_copy(update={"threshold_shrinkage": 20.0, "threshold_smoothing": 0.5})
    found = fit_thresholds(shares, targets, SPACE, settings)["tags"]
    curves = smoothed(grid, f1_by_threshold(targets > 0, shares, grid), 0.5)
    own = np.array([best_threshold(grid, column) for column in curves.T])
    assert own.tolist() != list(plain.per_class.values())
    expected = shrunk(own, plain.common, targets.sum(axis=0), 20.0)
    assert list(found.per_class.values()) == pytest.approx(expected.tolist())
    assert found.common == plain.common
    # What is said of them is their own score, not the best of the curve.
    score = f1_score(targets > 0, shares >= expected, average="macro")
    assert found.macro_f1["per-class"] == pytest.approx(score)
    assert found.macro_f1["global"] == plain.macro_f1["global"]
    assert score < plain.macro_f1["per-class"]
