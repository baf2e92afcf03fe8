"""Do two samples come from one distribution? Tests that need no shape, and how far apart the samples are. NumPy only.

- **Counts** of classes: Pearson's chi-square of the table of two rows, its p-value by drawing the first row with both
  margins as they are, as a random relabelling of the pooled items does (the Monte-Carlo form of Fisher's exact test,
  Agresti 1992, "A survey of exact inference for contingency tables"). Counts may be small. Of tables of more than
  100,000,000 items the p-value is that of the limiting chi-square distribution.
- **Counts of labels of which several may hold**: each label alone, held or not, by the same draws; the smallest p-value
  times the number of labels (Bonferroni), since labels of one item depend on one another.
- **Numbers**: the two-sample statistic of Kolmogorov and Smirnov, its p-value by the limiting distribution with the
  correction of Stephens (1970, "Use of the Kolmogorov-Smirnov, Cramer-Von Mises and related statistics without
  extensive tables"). Ties make it larger, never smaller.

All take the items of a sample as independent. Many items of one speaker or one writer are not: then a shift is found
too easily.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["counts_p", "divergence", "ks", "labels_p"]

N_DRAWS = 9_999
# Items of a table that is drawn; NumPy draws below a billion.
_MOST_DRAWN = 10**8
# Statistics of tables that are equal differ by rounding.
_ROUNDING = 1e-9


def counts_p(first: npt.ArrayLike, second: npt.ArrayLike, *, n_draws: int = N_DRAWS, seed: int = 0) -> float:
    """The p-value of "both rows of counts are of one distribution"; 1 where a row is empty or one class has all.

    Args:
        first: (K,) how often each class is in the first sample.
        second: (K,) in the second.
        n_draws: random tables; the smallest p-value is 1 / (n_draws + 1).
        seed: equal seeds give equal p-values.

    Raises:
        ValueError: not two rows of counts of the same classes.
    """
    a, b = _counts(first), _counts(second)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"counts of shapes {a.shape} and {b.shape} are not of the same classes")
    kept = (a + b) > 0
    a, b = a[kept], b[kept]
    if len(a) < 2 or not a.sum() or not b.sum():
        return 1.0
    if int((a + b).sum()) > _MOST_DRAWN:
        beyond_it = _chi_square_tail(float(_chi_square(a[None], a + b)[0]), len(a) - 1)
        return max(beyond_it, 1 / (n_draws + 1))
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_hypergeometric(a + b, int(a.sum()), size=n_draws)
    beyond = int((_chi_square(drawn, a + b) >= _chi_square(a[None], a + b)[0] - _ROUNDING).sum())
    return (1 + beyond) / (n_draws + 1)


def _chi_square(rows: npt.NDArray[np.int64], pooled: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(D,) Pearson's statistic of tables whose first rows are (D, K) and whose columns add up to (K,) ``pooled``."""
    n, total = float(rows[0].sum()), float(pooled.sum())
    expected = pooled * (n / total)
    # The second row differs from its expectation by as much: one sum is both, weighed.
    found: npt.NDArray[np.float64] = (np.square(rows - expected) / pooled).sum(axis=1) * total**2 / (n * (total - n))
    return found


def _chi_square_tail(x: float, degrees: int) -> float:
    """The chance that a variable of the chi-square distribution exceeds x (Abramowitz and Stegun 1964, 26.4.4-5)."""
    half = x / 2
    if half <= 0:
        return 1.0
    # Two degrees more add a term; one and two degrees have closed forms.
    tail, begin = (math.erfc(math.sqrt(half)), 0.5) if degrees % 2 else (math.exp(-half), 1.0)
    powers = [begin + k for k in range((degrees - 1) // 2)]
    return min(1.0, tail + sum(math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers))


def labels_p(
    first: npt.ArrayLike, n_first: int, second: npt.ArrayLike, n_second: int, *, n_draws: int = N_DRAWS, seed: int = 0
) -> float:
    """The p-value of "each label is as frequent in both samples", where an item may have several labels.

    Args:
        first: (L,) items of the first sample that have each label.
        n_first: items of the first sample.
        second: (L,) of the second.
        n_second: items of the second.
        n_draws: random tables for each label.
        seed: equal seeds give equal p-values.
    """
    a, b = _counts(first), _counts(second)
    used = np.flatnonzero(a + b)
    found = [
        counts_p([a[k], n_first - a[k]], [b[k], n_second - b[k]], n_draws=n_draws, seed=seed + int(k)) for k in used
    ]
    return min(1.0, len(found) * min(found)) if found else 1.0


def ks(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[float, float]:
    """Kolmogorov's and Smirnov's distance in [0, 1], and its p-value; (0, 1) where a sample is empty.

    Args:
        first: (N,) numbers, finite.
        second: (M,).
    """
    a, b = (np.sort(np.asarray(sample, dtype=np.float64)) for sample in (first, second))
    if not len(a) or not len(b):
        return 0.0, 1.0
    every = np.concatenate([a, b])
    apart = np.searchsorted(a, every, side="right") / len(a) - np.searchsorted(b, every, side="right") / len(b)
    distance = float(np.abs(apart).max())
    root = float(np.sqrt(len(a) * len(b) / (len(a) + len(b))))
    return distance, _kolmogorov((root + 0.12 + 0.11 / root) * distance)


def _kolmogorov(x: float) -> float:
    """The chance that Kolmogorov's limiting variable exceeds x."""
    if x < 0.2:  # the series converges slowly there, and 1 is right to ten digits
        return 1.0
    k = np.arange(1, 101)
    return float(np.clip(2.0 * ((-1.0) ** (k - 1) * np.exp(-2.0 * np.square(k * x))).sum(), 0.0, 1.0))


def divergence(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Jensen-Shannon divergence of two rows of counts in bits, 0 (equal) to 1 (no class in common); 0 for an empty row.

    Lin (1991, "Divergence measures based on the Shannon entropy").
    """
    a, b = (_counts(row).astype(np.float64) for row in (first, second))
    if not a.sum() or not b.sum():
        return 0.0
    p, q = a / a.sum(), b / b.sum()
    middle = (p + q) / 2
    return max(0.0, _entropy(middle) - (_entropy(p) + _entropy(q)) / 2)


def _entropy(p: npt.NDArray[np.float64]) -> float:
    some = p[p > 0]
    return float(-(some * np.log2(some)).sum())


def _counts(row: npt.ArrayLike | Sequence[int]) -> npt.NDArray[np.int64]:
    found = np.asarray(row)
    if found.size and (found.dtype.kind not in "iu" or found.min() < 0):
        raise ValueError("counts are whole numbers from 0")
    return found.astype(np.int64)
