"""Tests of two samples: exact values on tiny ones, the level they keep, and the shifts they find."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from samo.evaluation.shift import counts_p, divergence, ks, labels_p


def test_counts_of_two_classes_agree_with_the_exact_test() -> None:
    """Tables of 7 + 9 items, 4 of the first class: of the first row 0 to 4 of them, hypergeometric."""
    chances = [comb(4, k) * comb(12, 7 - k) / comb(16, 7) for k in range(5)]
    # 4 of 4 in the first row: as far from its expectation of 1.75 as none other but 4 itself.
    assert counts_p([4, 3], [0, 9], n_draws=99_999) == pytest.approx(chances[4], abs=0.003)
    # 0 of 4: below by 1.75; 4 is above by 2.25.
    assert counts_p([0, 7], [4, 5], n_draws=99_999) == pytest.approx(chances[0] + chances[4], abs=0.005)
    assert counts_p([2, 5], [2, 7]) == 1.0


def test_three_classes_agree_with_scipy_where_counts_are_large() -> None:
    from scipy.stats import chi2_contingency

    table = np.array([[300, 500, 200], [270, 560, 170]])
    assert counts_p(*table) == pytest.approx(chi2_contingency(table, correction=False).pvalue, abs=0.01)


def test_tables_too_large_to_draw_have_the_limiting_distribution() -> None:
    from scipy.stats import chi2_contingency

    # Two to six classes: odd and even degrees of freedom.
    for n in range(2, 7):
        table = np.array([[10**8 + 9_000 * k for k in range(n)], [10**8] * n])
        expected = chi2_contingency(table, correction=False).pvalue
        assert 1e-4 < expected < 0.9
        assert counts_p(*table) == pytest.approx(expected, rel=1e-6)
    assert counts_p([10**9, 0], [0, 10**9]) == 1e-4
    assert counts_p([10**9, 10**9], [10**9, 10**9]) == 1.0


def test_counts_without_anything_to_compare() -> None:
    assert counts_p([5, 0], [9, 0]) == 1.0
    assert counts_p([0, 0], [3, 4]) == 1.0
    assert counts_p([3, 4], [3, 4], seed=1) == 1.0
    # The smallest that so many draws can tell.
    assert counts_p([500, 0], [0, 500], n_draws=99) == 0.01
    with pytest.raises(ValueError, match="not of the same classes"):
        counts_p([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="whole numbers"):
        counts_p([1.5, 2], [1, 2])


def test_one_label_of_several_is_found_and_paid_for() -> None:
    alone = counts_p([40, 60], [20, 80], n_draws=9_999, seed=1)
    # Three labels are in use; the fourth is never answered.
    found = labels_p([30, 40, 50, 0], 100, [30, 20, 50, 0], 100)
    assert found == pytest.approx(3 * alone)
    assert labels_p([0, 0], 10, [0, 0], 10) == 1.0


def test_kolmogorov_and_smirnov() -> None:
    distance, p = ks([1, 2, 3, 4], [3, 4, 5, 6])
    assert distance == 0.5
    # lambda = (sqrt(2) + 0.12 + 0.11 / sqrt(2)) * 0.5 = 0.8060; 2 (exp(-2 l^2) - exp(-8 l^2) + ...) = 0.5345
    assert p == pytest.approx(0.534, abs=0.002)
    assert ks([1, 2], [1, 2])[0] == 0.0
    assert ks([], [1.0]) == (0.0, 1.0)
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=400), rng.normal(0.15, 1.0, size=300)
    theirs = ks_2samp(a, b, method="asymp")
    distance, p = ks(a, b)
    assert distance == pytest.approx(theirs.statistic)
    assert p == pytest.approx(theirs.pvalue, rel=0.15)


def test_divergence_in_bits() -> None:
    assert divergence([3, 3], [10, 10]) == 0.0
    assert divergence([5, 0], [0, 7]) == pytest.approx(1.0)
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): H(m) - (0 + 1) / 2
    assert divergence([4, 0], [2, 2]) == pytest.approx(-(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) - 0.5)
    assert divergence([0, 0], [1, 2]) == 0.0


def test_without_a_shift_five_in_a_hundred_are_found() -> None:
    rng = np.random.default_rng(7)
    counts, numbers = [], []
    for _ in range(400):
        a, b = rng.multinomial(60, [0.5, 0.3, 0.15, 0.05]), rng.multinomial(80, [0.5, 0.3, 0.15, 0.05])
        counts.append(counts_p(a, b, n_draws=199, seed=int(rng.integers(1 << 30))) < 0.05)
        numbers.append(ks(rng.gamma(2.0, size=60), rng.gamma(2.0, size=80))[1] < 0.05)
    # 400 draws of 0.05: a standard deviation is 0.011.
    assert 0.02 < np.mean(counts) < 0.08
    assert 0.015 < np.mean(numbers) < 0.08
