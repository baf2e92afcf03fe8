"""Is one way of training better than another, or was it luck? Paired tests and corrections for many of them.

Scores are compared pair by pair: the same seed and the same fold on both sides, so that an easy fold helps both. What
the test then asks is whether the differences, not the scores, stand clear of zero.

Folds share most of their training rows, so their differences are correlated and the plain t-test finds "significant"
gains far too often. Nadeau & Bengio (2003, "Inference for the generalization error", Machine Learning 52) replace the
variance of the mean, s^2 / n, by s^2 * (1/n + n_test/n_train); with several seeds this is the test that Bouckaert &
Frank (2004) recommend for repeated cross-validation. ``benchmarks/difference_coverage.py`` shows both in a simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALPHA",
    "McNemar",
    "PairedDifference",
    "Verdict",
    "holm",
    "mcnemar",
    "paired_difference",
    "verdict",
]

Verdict = Literal["better", "worse", "cannot tell"]

ALPHA = 0.05
# Scores lie in [0, 1]; differences closer together than this differ by rounding only.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class PairedDifference:
    """What n pairs of scores say about ``other - baseline``.

    Attributes:
        n: number of pairs.
        mean: mean difference; above 0 when ``other`` scores higher.
        sd: standard deviation of the differences (n - 1 in the denominator), None with one pair.
        low: lower end of the interval of the mean, None where there is none.
        high: upper end, None where there is none.
        p: two-sided p-value of "no difference", None where no test can be made.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two models has right, and the exact two-sided p-value of "equally often"."""

    only_a: int
    only_b: int
    p: float


def paired_difference(
    baseline: Sequence[float] | npt.NDArray[np.float64],
    other: Sequence[float] | npt.NDArray[np.float64],
    *,
    train_test_ratio: float | None = None,
    level: float = 0.95,
) -> PairedDifference:
    """Mean of ``other - baseline`` over pairs, with Student's t interval and p-value at n - 1 degrees of freedom.

    Differences that are all equal (three seeds, each 0.05 better, or twice the same model) have no spread to judge the
    mean by: t would be infinite or 0/0 and the p-value 0 or undefined. Then ``sd`` is 0 and interval and p are None.

    Args:
        baseline: n scores.
        other: n scores, in the same order of seeds and folds.
        train_test_ratio: n_test / n_train when the pairs come from folds whose training sets overlap (K folds with one
            for validation: 1 / (K - 2)); the variance is then that of Nadeau & Bengio (2003). None for pairs that
            share no data or, as with seeds on one split, differ by chance alone: such an interval speaks of further
            seeds on that split, not of further speakers.
        level: coverage asked for, in (0, 1).

    Raises:
        ValueError: unequal lengths, no pair, a score that is not finite, or a negative ratio.
    """
    first, second = np.asarray(baseline, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(f"scores of shapes {first.shape} and {second.shape} are not pairs")
    differences = second - first
    if not np.isfinite(differences).all():
        raise ValueError("a score is not finite")
    if train_test_ratio is not None and not train_test_ratio >= 0:
        raise ValueError(f"train_test_ratio is n_test / n_train and cannot be {train_test_ratio}")
    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return PairedDifference(n, mean, None)
    if np.ptp(differences) <= _ROUNDING:
        return PairedDifference(n, mean, 0.0)
    from scipy.special import stdtr, stdtrit

    sd = float(differences.std(ddof=1))
    error = sd * float(np.sqrt(1.0 / n + (train_test_ratio or 0.0)))
    half = error * float(stdtrit(n - 1, 0.5 + level / 2.0))
    p = 2.0 * float(stdtr(n - 1, -abs(mean) / error))
    return PairedDifference(n, mean, sd, mean - half, mean + half, p)


def mcnemar(right_a: npt.ArrayLike, right_b: npt.ArrayLike) -> McNemar:
    """Exact McNemar test (1947) of two models' right answers on the same rows.

    Under "equally good" the rows that only one has right fall to either side like a fair coin. Rows count as
    independent, which clips of one speaker are not: for speech the bootstrap over speakers is the stricter witness.

    Args:
        right_a: (N,) bool, whether the first model has a row right.
        right_b: (N,) bool, the second model.

    Returns:
        p is 1 when the models are right on the same rows.
    """
    from scipy.stats import binomtest

    first, second = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"answers of shapes {first.shape} and {second.shape} are not pairs")
    only_a, only_b = int((first & ~second).sum()), int((~first & second).sum())
    p = float(binomtest(only_b, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)


def holm(pvalues: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted after Holm (1979): the chance of any false finding among them stays below alpha.

    The k-th smallest of m is multiplied by m - k + 1 and is never below the one before it. None (no test could be
    made) stays None and does not count among the m.
    """

    given = np.array([p for p in pvalues if p is not None], dtype=np.float64)
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError("p-values lie in [0, 1]")
    order = np.argsort(given, kind="stable")
    steps = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    found = np.empty_like(given)
    found[order] = np.minimum(steps, 1.0)
    adjusted = iter(found.tolist())
    return [None if p is None else next(adjusted) for p in pvalues]


def verdict(difference: float, p_corrected: float | None, alpha: float = ALPHA) -> Verdict:
    """The finding in a word; "cannot tell" without a p-value, without a difference, or with p at alpha or above.

    Args:
        difference: mean of other - baseline.
        p_corrected: two-sided p-value, corrected for the number of comparisons.
        alpha: largest chance of a false finding that is accepted, in (0, 1).
    """
    if p_corrected is None or difference == 0 or not p_corrected < alpha:
        return "cannot tell"
    return "better" if difference > 0 else "worse"
