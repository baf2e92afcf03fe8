"""Areas of one label against the rest: by hand, and to the last bit those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference

from samo.evaluation.ranking import average_precision, roc_auc, roc_curve


def test_four_rows_by_hand() -> None:
    """Of the four pairs of a true and a false row three stand in the right order; the best two scores are equal."""
    truth, given = np.array([True, True, False, False]), np.array([0.9, 0.4, 0.4, 0.1])
    false, true = roc_curve(truth, given)
    assert (false.tolist(), true.tolist()) == ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    assert roc_auc(truth, given) == 0.875
    assert average_precision(truth, given) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_the_last_bit_those_of_scikit_learn(dtype: type) -> None:
    """Scores all different, many equal, all equal, and in perfect order; 2 to 200 rows, few or most of them true."""
    rng = np.random.default_rng(0)
    for n, digits, share in [(2, 9, 0.5), (3, 9, 0.5), (200, 9, 0.05), (150, 1, 0.3), (90, 0, 0.5), (200, 2, 0.9)]:
        for perfect in (False, True):
            truth = rng.random(n) < share
            truth[:2] = [True, False]
            given = (rng.random(n).round(digits) + (2 * truth if perfect else 0)).astype(dtype)
            assert roc_auc(truth, given) == reference.roc_auc_score(truth, given)
            assert average_precision(truth, given) == reference.average_precision_score(truth, given)
            for found, expected in zip(roc_curve(truth, given), reference.roc_curve(truth, given)[:2], strict=True):
                assert found.tolist() == expected.tolist()


def test_a_label_that_every_row_has() -> None:
    assert average_precision(np.ones(3, dtype=bool), np.array([0.3, 0.2, 0.1])) == 1.0


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(odd: float) -> None:
    for act in (roc_auc, average_precision):
        with pytest.raises(ValueError, match="not finite"):
            act(np.array([True, False]), np.array([odd, 0.5]))
