"""Paired tests and corrections: exact values by hand, scipy and statsmodels as references."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from samo.evaluation.significance import (
    McNemar,
    PairedDifference,
    holm,
    mcnemar,
    paired_difference,
    verdict,
)

BASE, OTHER = [0.50, 0.60, 0.55, 0.52], [0.60, 0.62, 0.60, 0.58]


@pytest.mark.parametrize(
    "p", [[0.01], [0.04, 0.01, 0.03, 0.005], [0.2, 0.2, 0.01, 0.9, 1.0, 0.0], [0.6, 0.7, 0.8], [0.05] * 5]
)
def test_holm_agrees_with_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist(), abs=1e-15)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def test_tests_that_could_not_be_made_do_not_count() -> None:
    first, second = holm([0.02, 0.03])
    assert holm([None, 0.02, None, 0.03]) == [None, first, None, second]
    assert holm([None, None]) == [None, None]
    assert holm([]) == []
    with pytest.raises(ValueError, match="p-values lie in"):
        holm([0.5, 1.1])
    with pytest.raises(ValueError, match="p-values lie in"):
        holm([float("nan")])


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 8), (8, 1), (3, 3), (0, 5), (12, 20)])
def test_mcnemar_is_exact_and_two_sided(only_a: int, only_b: int) -> None:
    a = np.array([True] * only_a + [False] * only_b + [True] * 7 + [False] * 2)
    b = np.array([False] * only_a + [True] * only_b + [True] * 7 + [False] * 2)
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p == pytest.approx(reference_mcnemar([[7, only_a], [only_b, 2]], exact=True).pvalue)


def test_mcnemar_by_hand() -> None:
    # Five rows that only b has right: 2 * (1/2)**5.
    assert mcnemar([0] * 5 + [1], [1] * 6) == McNemar(0, 5, 0.0625)


def test_mcnemar_of_equal_answers() -> None:
    assert mcnemar([1, 0, 1], [1, 0, 1]) == McNemar(0, 0, 1.0)
    with pytest.raises(ValueError, match="not pairs"):
        mcnemar([1, 0], [1, 0, 1])


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_paired_t_is_scipys(level: float) -> None:
    found = paired_difference(BASE, OTHER, level=level)
    reference = scipy.stats.ttest_rel(OTHER, BASE)
    interval = reference.confidence_interval(level)
    assert (found.n, found.mean) == (4, pytest.approx(0.0575))
    assert found.sd == pytest.approx(np.std([0.10, 0.02, 0.05, 0.06], ddof=1))
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, reference.pvalue))


def test_nadeau_and_bengio_by_hand() -> None:
    ratio = 1 / 3
    differences = np.array([0.10, 0.02, 0.05, 0.06])
    error = np.sqrt(differences.var(ddof=1) * (1 / 4 + ratio))
    found = paired_difference(BASE, OTHER, train_test_ratio=ratio)
    half = error * scipy.stats.t.ppf(0.975, 3)
    assert (found.low, found.high) == pytest.approx((0.0575 - half, 0.0575 + half))
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(0.0575 / error, 3))
    assert found.p > paired_difference(BASE, OTHER).p  # type: ignore[operator]


def test_the_order_of_the_two_is_the_sign() -> None:
    one, back = paired_difference(BASE, OTHER), paired_difference(OTHER, BASE)
    assert one.mean == pytest.approx(-back.mean)
    assert one.p == pytest.approx(back.p)
    assert one.low == pytest.approx(-back.high)  # type: ignore[operator]


def test_pairs_matter_not_the_scores() -> None:
    """Differences of 0.01 between folds 0.4 apart are seen."""
    base = np.array([0.3, 0.7, 0.5, 0.4, 0.6])
    found = paired_difference(base, base + np.array([0.010, 0.011, 0.009, 0.010, 0.012]))
    assert found.p is not None
    assert found.p < 0.001


def test_one_pair_has_no_interval() -> None:
    assert paired_difference([0.5], [0.75]) == PairedDifference(1, 0.25, None, None, None, None)


@pytest.mark.parametrize("step", [0.0, 0.05, -0.1])
@pytest.mark.parametrize("ratio", [None, 0.25])
def test_equal_differences_are_no_proof(step: float, ratio: float | None) -> None:
    """t would be infinite (p = 0) or 0/0; 0.1 + 0.05 and the like differ in the last bit only."""
    base = [0.1, 0.2, 0.3, 0.7]
    found = paired_difference(base, [score + step for score in base], train_test_ratio=ratio)
    assert found.mean == pytest.approx(step)
    assert (found.sd, found.low, found.high, found.p) == (0.0, None, None, None)
    assert verdict(found.mean, found.p) == "cannot tell"


def test_what_is_no_pairs_is_refused() -> None:
    for base, other in (([], []), ([0.1], [0.1, 0.2]), ([[0.1]], [[0.2]])):
        with pytest.raises(ValueError, match="not pairs"):
            paired_difference(base, other)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite"):
        paired_difference([0.1, float("nan")], [0.1, 0.2])
    with pytest.raises(ValueError, match="n_test / n_train"):
        paired_difference(BASE, OTHER, train_test_ratio=-0.1)


@pytest.mark.parametrize(
    ("difference", "p", "alpha", "word"),
    [
        (0.1, 0.049, 0.05, "better"),
        (-0.1, 0.049, 0.05, "worse"),
        (0.1, 0.05, 0.05, "cannot tell"),
        (0.1, 0.049, 0.01, "cannot tell"),
        (0.1, None, 0.05, "cannot tell"),
        (0.1, float("nan"), 0.05, "cannot tell"),
        (0.0, 0.001, 0.05, "cannot tell"),
    ],
)
def test_verdict(difference: float, p: float | None, alpha: float, word: str) -> None:
    assert verdict(difference, p, alpha) == word


def test_the_corrected_test_keeps_its_word_where_folds_overlap() -> None:
    """Differences that share a part, as folds of one corpus do: rho = n_test / (n_test + n_train) = 1/5.

    With five pairs the plain t-test cries wolf in about one simulation of eight, the corrected one in one of twenty.
    """
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, np.sqrt(0.2), (2000, 1)), rng.normal(0, np.sqrt(0.8), (2000, 5))
    found = {
        ratio: np.mean([paired_difference(np.zeros(5), d, train_test_ratio=ratio).p < 0.05 for d in shared + own])  # type: ignore[operator]
        for ratio in (None, 1 / 4)
    }
    assert found[None] > 0.1
    assert 0.03 < found[1 / 4] < 0.07
