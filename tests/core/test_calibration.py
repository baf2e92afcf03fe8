"""Temperature, calibration error and reliability: by hand, against scikit-learn, on simulated truth."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tiny_frontend as tiny
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from samo.errors import RunError
from samo.evaluation.calibration import (
    Calibration,
    apply_temperature,
    brier_score,
    calibration_scores,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    summary,
    usable_rows,
)
from samo.evaluation.metrics import decide
from samo.tasks import LabelSpace

ONE, MANY = LabelSpace((tiny.EMOTION,)), LabelSpace((tiny.TAGS,))


def drawn(space: LabelSpace, n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, C) logits, and targets drawn with exactly their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 1.5, (n, space.n_columns))
    shares = space.probabilities(logits)
    targets = np.empty_like(shares)
    for task in space.tasks:
        columns = space.slices[task.name]
        if task.multi_label:
            targets[:, columns] = rng.random((n, len(task.labels))) < shares[:, columns]
        else:
            picked = (shares[:, columns].cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
            targets[:, columns] = np.eye(len(task.labels))[picked]
    return logits.astype(np.float32), targets.astype(np.float32)


# Three rows right at 0.9, 0.9 and 0.6; one wrong at 0.8; one wrong at 0.6.
SHARES = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.6, 0.4], [0.6, 0.4]])
TRUTH = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1]], dtype=bool)


def test_calibration_error_by_hand() -> None:
    # (0.5, 0.75]: two at 0.6, half of them right; (0.75, 1]: 0.9, 0.9, 0.8, two of three right.
    bins = reliability(SHARES, TRUTH, 4)
    assert [(row["low"], row["high"], row["count"]) for row in bins] == [
        (0.0, 0.25, 0), (0.25, 0.5, 0), (0.5, 0.75, 2), (0.75, 1.0, 3),
    ]  # fmt: skip
    assert [row["accuracy"] for row in bins] == [None, None, 0.5, pytest.approx(2 / 3)]
    assert [row["confidence"] for row in bins] == [None, None, pytest.approx(0.6), pytest.approx(2.6 / 3)]
    assert expected_calibration_error(SHARES, TRUTH, 4) == pytest.approx((2 * 0.1 + 3 * (2.6 / 3 - 2 / 3)) / 5)
    assert expected_calibration_error(SHARES, TRUTH, 1) == pytest.approx(0.76 - 0.6)


def test_bins_of_equal_mass_by_hand() -> None:
    # The median is 0.8: {0.6, 0.6, 0.8} with one right, and {0.9, 0.9} with both.
    bins = reliability(SHARES, TRUTH, 2, equal_mass=True)
    assert [(row["low"], row["high"], row["count"]) for row in bins] == [(0.6, 0.8, 3), (0.8, 0.9, 2)]
    error = expected_calibration_error(SHARES, TRUTH, 2, equal_mass=True)
    assert error == pytest.approx((3 * (2 / 3 - 1 / 3) + 2 * 0.1) / 5)
    alike = reliability(np.full((4, 2), 0.5), np.tile([True, False], (4, 1)), equal_mass=True)
    assert [(row["low"], row["high"], row["count"], row["accuracy"]) for row in alike] == [(0.5, 0.5, 4, 1.0)]


def test_a_bin_holds_its_upper_edge() -> None:
    edges = np.array([[0.0], [0.25], [0.5], [0.50001], [1.0]])
    counts = [row["count"] for row in reliability(edges, edges > 0, 4, multi_label=True)]
    assert counts == [2, 1, 1, 1]


def test_several_labels_count_as_pairs() -> None:
    shares, truth = np.array([[0.1, 0.9], [0.3, 0.7]]), np.array([[False, True], [True, True]])
    assert expected_calibration_error(shares, truth, 2, multi_label=True) == pytest.approx((2 * 0.3 + 2 * 0.2) / 4)
    assert brier_score(shares, truth, multi_label=True) == pytest.approx((0.01 + 0.01 + 0.49 + 0.09) / 4)
    assert brier_score(SHARES, TRUTH) == pytest.approx(2 * (0.01 + 0.01 + 0.64 + 0.16 + 0.36) / 5)


def test_nothing_to_judge_is_no_error() -> None:
    assert expected_calibration_error(np.empty((0, 2)), np.empty((0, 2), dtype=bool), equal_mass=True) == 0.0


@pytest.mark.parametrize(("equal_mass", "strategy"), [(False, "uniform"), (True, "quantile")])
def test_reliability_is_that_of_sklearn(equal_mass: bool, strategy: str) -> None:
    logits, targets = drawn(MANY, 300)
    shares = MANY.probabilities(1.7 * logits)
    bins = reliability(shares, targets > 0, 10, multi_label=True, equal_mass=equal_mass)
    right, predicted = calibration_curve(targets.ravel(), shares.ravel(), n_bins=10, strategy=strategy)
    np.testing.assert_allclose([row["accuracy"] for row in bins if row["count"]], right)
    np.testing.assert_allclose([row["confidence"] for row in bins if row["count"]], predicted)
    if not equal_mass:
        counts = np.histogram(shares, np.linspace(0, 1, 11))[0]
        expected = np.average(np.abs(right - predicted), weights=counts)
        assert expected_calibration_error(shares, targets > 0, 10, multi_label=True) == pytest.approx(expected)


def test_likelihood_is_that_of_sklearn() -> None:
    logits, targets = drawn(ONE, 200)
    assert negative_log_likelihood(logits, targets) == pytest.approx(log_loss(targets, ONE.probabilities(logits)))
    logits, targets = drawn(MANY, 200)
    shares = MANY.probabilities(logits)
    assert negative_log_likelihood(logits, targets, multi_label=True) == pytest.approx(
        np.mean([log_loss(targets[:, k], shares[:, k]) for k in range(3)])
    )
    assert brier_score(shares, targets > 0, multi_label=True) == pytest.approx(
        np.mean([brier_score_loss(targets[:, k], shares[:, k]) for k in range(3)])
    )
    # Nothing overflows where a probability would be 0.
    assert negative_log_likelihood(np.array([[-2000.0, 0.0]]), np.array([[1.0, 0.0]])) == 2000.0
    assert negative_log_likelihood(np.array([[-2000.0]]), np.array([[1.0]]), multi_label=True) == 2000.0


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_factor_that_logits_were_multiplied_by_is_found(factor: float) -> None:
    logits, targets = drawn(tiny.BOTH)
    found = fit_temperature(factor * logits, targets, tiny.BOTH)
    assert found == {"emotion": pytest.approx(factor, rel=0.06), "tags": pytest.approx(factor, rel=0.06)}
    # Scaling changes the temperature by exactly the factor, whatever the sample says.
    alone = fit_temperature(logits, targets, tiny.BOTH)
    assert found == {name: pytest.approx(factor * value, rel=1e-4) for name, value in alone.items()}


@pytest.mark.parametrize("space", [ONE, MANY], ids=["one label", "several"])
def test_no_temperature_is_more_likely(space: LabelSpace) -> None:
    task = space.primary

    def cost(temperature: float) -> float:
        return negative_log_likelihood(logits / temperature, targets, multi_label=task.multi_label)

    for seed in range(5):
        logits, targets = drawn(space, 40, seed)
        fitted = cost(fit_temperature(logits, targets, space)[task.name])
        assert fitted <= cost(1.0)
        assert fitted <= min(map(cost, np.geomspace(0.1, 10, 200))) + 1e-12


def test_logits_that_tell_all_or_nothing() -> None:
    targets = np.eye(3)[[0, 1, 2, 0]]
    assert fit_temperature(5 * targets, targets, ONE) == {"emotion": pytest.approx(0.1, rel=1e-12)}
    assert fit_temperature(-5 * targets, targets, ONE) == {"emotion": pytest.approx(10.0, rel=1e-12)}
    assert fit_temperature(0 * targets, targets, ONE) == {"emotion": 1.0}
    assert fit_temperature(1e6 * targets, targets, ONE) == {"emotion": 1.0}
    assert fit_temperature(np.empty((0, 3)), np.empty((0, 3)), ONE) == {"emotion": 1.0}


def test_rows_without_label_or_answer_are_left_out() -> None:
    logits, targets = drawn(tiny.BOTH, 60)
    alone = fit_temperature(logits[:50], targets[:50], tiny.BOTH)
    targets[50:55, :3] = np.nan
    logits[55:, 1] = np.inf
    found = fit_temperature(logits, targets, tiny.BOTH)
    assert found["emotion"] == pytest.approx(alone["emotion"])
    assert found["tags"] != pytest.approx(alone["tags"], rel=1e-6)
    assert usable_rows(logits, targets, tiny.BOTH) == {"emotion": 50, "tags": 60}
    targets[:, 3:] = np.nan
    assert fit_temperature(logits, targets, tiny.BOTH)["tags"] == 1.0


def test_each_task_has_its_own_temperature() -> None:
    logits = np.arange(12, dtype=np.float32).reshape(2, 6)
    scaled = apply_temperature(logits, {"tags": 2.0}, tiny.BOTH)
    np.testing.assert_array_equal(scaled[:, :3], logits[:, :3])
    np.testing.assert_array_equal(scaled[:, 3:], logits[:, 3:] / 2)
    assert (scaled.dtype, logits[0, 5]) == (np.float64, 5.0)


@pytest.mark.parametrize("temperature", [0.1, 0.37, 3.0, 10.0])
def test_a_temperature_changes_no_label(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(0, scale, (500, 3)) for scale in (1e-6, 0.1, 3.0, 300.0)]).astype(np.float32)
    targets = np.zeros_like(logits)
    for space in (ONE, MANY):
        task = space.primary
        before = decide(task, space.probabilities(logits), targets).predicted
        scaled = apply_temperature(logits, {task.name: temperature}, space)
        np.testing.assert_array_equal(decide(task, space.probabilities(scaled), targets).predicted, before)


def test_scores_before_and_after() -> None:
    logits, targets = drawn(ONE, 3000)
    found = calibration_scores(tiny.EMOTION, 3 * logits, targets > 0, 3.0, "val")
    shares, sure = ONE.probabilities(logits), ONE.probabilities(3 * logits)
    assert found["ece"] == pytest.approx(expected_calibration_error(shares, targets > 0), abs=1e-6)
    assert found["ece_uncalibrated"] == pytest.approx(expected_calibration_error(sure, targets > 0))
    assert found["ece"] < 0.04 < 0.15 < found["ece_uncalibrated"]
    assert (found["nll"], found["nll_uncalibrated"]) == (
        pytest.approx(log_loss(targets, shares)), pytest.approx(log_loss(targets, sure)),
    )  # fmt: skip
    assert found["brier"] == pytest.approx(brier_score(shares, targets > 0))
    assert found["ece_equal_mass"] < 0.04 < 0.15 < found["ece_equal_mass_uncalibrated"]
    assert len(found["bins"]) == len(found["bins_uncalibrated"]) == found["n_bins"] == 15
    assert sum(row["count"] for row in found["bins"]) == 3000
    assert (found["temperature"], found["fitted_on"]) == (3.0, "val")
    assert found["binning"] == "equal-width bins of the top-label confidence, Guo et al. 2017"
    assert "(row, label) pairs" in calibration_scores(tiny.TAGS, logits, targets > 0, 1.0, "")["binning"]
    before, after = f"{found['ece_uncalibrated']:.3f}", f"{found['ece']:.3f}"
    assert summary(found) == f"expected calibration error {after}; without the temperature of 3.00 it is {before}"
    without = calibration_scores(tiny.EMOTION, 3 * logits, targets > 0, 1.0, "")
    assert summary(without) == f"expected calibration error {before}; no temperature was fitted"


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    written = Calibration({"emotion": math.pi}, "val", {"emotion": 12}, 7)
    written.save(path)
    assert Calibration.load(path) == written
    for damage in (
        "{", "[]", "{}", '{"temperature": {"emotion": 0}, "fitted_on": "val", "n": {}, "epoch": 1}',
        '{"temperature": {"emotion": NaN}, "fitted_on": "val", "n": {}, "epoch": 1}',
        '{"temperature": {"emotion": 1}, "fitted_on": "val", "n": {}, "epoch": null}',
    ):  # fmt: skip
        path.write_text(damage)
        with pytest.raises(RunError, match=r"cannot read .*calibration\.json"):
            Calibration.load(path)
