"""How far a score could move if other groups had been drawn: the cluster bootstrap.

Rows of one group (one person, say) resemble each other, so they are not independent draws and an interval over rows is
too narrow. The cluster bootstrap draws whole groups with replacement (Field & Welsh 2007, "Bootstrapping clustered
data"). A group enters only by its outcome counts, so a resample is a row of a matrix product.

Why the percentile interval: it stays inside [0, 1], follows a skewed distribution and needs no estimate of variance,
which macro-F1 has in no closed form. BCa would need an acceleration constant from a jackknife over groups, which is
noise with the handful of groups a test split holds. A plain percentile interval over G groups is itself too narrow, by
about sqrt((G-1)/G) * z/t, so its tail areas are widened: alpha/2 becomes Phi(-sqrt(G/(G-1)) * t_{1-alpha/2, G-1}), the
"expanded percentile interval" of Hesterberg (2014, arXiv:1411.5279; `ExpandProbs` in his R package resample). With many
groups nothing changes; `benchmarks/interval_coverage.py` shows what it does with few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from samo.evaluation.metrics import METRICS, Metric, Tally, row_outcomes

__all__ = ["FEW_GROUPS", "Interval", "bootstrap", "resampled", "tail_area", "tally_by_unit"]

Interval = tuple[float, float]

# With fewer groups the interval rests on too little, see benchmarks/interval_coverage.py.
FEW_GROUPS = 8

# Entries of one block of draws; bounds memory at some tens of MB whatever the number of units.
_BLOCK = 2_000_000
# From so many kinds of units on, drawing units one by one and counting them is faster than a multinomial draw.
_MANY_KINDS = 500


def tally_by_unit(truth: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_], groups: Sequence[str]) -> Tally:
    """Outcome counts of each unit of resampling, leading dimension U.

    Args:
        truth: (N, L) bool.
        predicted: (N, L) bool.
        groups: N group names; a row with an empty name is a unit of its own.
    """
    outcomes = row_outcomes(truth, predicted)
    numbers: dict[object, int] = {}
    keys = (group or row for row, group in enumerate(groups))
    unit = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    if len(unit) != len(outcomes):
        raise ValueError(f"{len(unit)} group names for {len(outcomes)} rows")
    if not len(unit):
        return Tally.from_flat(np.zeros((0, outcomes.shape[1])))
    order = np.argsort(unit, kind="stable")
    starts = np.flatnonzero(np.diff(unit[order], prepend=-1))
    return Tally.from_flat(np.add.reduceat(outcomes[order], starts, axis=0, dtype=np.float64))


def tail_area(level: float, n_units: int) -> float:
    """Area below the lower end (and above the upper) of the widened percentile interval, in (0, 0.5)."""
    from scipy.special import ndtr, stdtrit

    t = stdtrit(n_units - 1, 1.0 - (1.0 - level) / 2.0)
    return float(ndtr(-np.sqrt(n_units / (n_units - 1)) * t))


def resampled(
    by_unit: Tally, statistics: Mapping[str, Metric], *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, npt.NDArray[np.float64]]:
    """Each statistic over ``n_resamples`` draws of U units with replacement: name -> (n_resamples,).

    Units with equal counts are drawn together, which leaves the distribution as it is, makes the result
    independent of the order of the rows, and turns a bootstrap over N single-label rows into one over at most
    L * L kinds of rows.
    """
    kinds, repeats = _kinds(by_unit.flat())
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // len(kinds))
    parts: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in statistics}
    for start in range(0, n_resamples, step):
        draws = _drawn(rng, repeats, min(step, n_resamples - start))
        totals = Tally.from_flat(draws.astype(np.float64) @ kinds)
        for name, statistic in statistics.items():
            parts[name].append(statistic(totals))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _kinds(counts: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The distinct rows of (U, M) whole numbers below 2**32, in order, and how often each occurs."""
    # Bytes of big-endian numbers sort as the numbers do, and many times faster than NumPy compares rows.
    rows = np.ascontiguousarray(counts.astype(">u4")).view(f"V{4 * counts.shape[1]}")[:, 0]
    kinds, repeats = np.unique(rows, return_counts=True)
    return kinds.view(">u4").reshape(len(kinds), -1).astype(np.float64), repeats


def _drawn(rng: np.random.Generator, repeats: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """(size, K) how often each of K kinds is drawn when as many units are drawn as there are."""
    n_units, n_kinds = int(repeats.sum()), len(repeats)
    if n_kinds < _MANY_KINDS:
        return rng.multinomial(n_units, repeats / n_units, size=size)
    kind_of = np.repeat(np.arange(n_kinds), repeats)
    return np.stack([
        np.bincount(kind_of[rng.integers(0, n_units, n_units)], minlength=n_kinds) for _ in range(size)
    ])  # fmt: skip


def bootstrap(
    by_unit: Tally,
    statistics: Mapping[str, Metric] = METRICS,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    widen: bool = True,
) -> dict[str, Interval | None]:
    """Percentile interval of each statistic over draws of the units; None with fewer than two units.

    Args:
        by_unit: counts by unit from :func:`tally_by_unit`, leading dimension U.
        statistics: functions of outcome counts by name.
        n_resamples: number of draws.
        level: coverage asked for, in (0, 1).
        seed: equal seeds give equal intervals.
        widen: correct the tail areas for a small number of units; False gives the textbook percentile interval.
    """
    n_units = len(by_unit.rows)
    if n_units < 2:
        return dict.fromkeys(statistics)
    tail = tail_area(level, n_units) if widen else (1.0 - level) / 2.0
    drawn = resampled(by_unit, statistics, n_resamples=n_resamples, seed=seed)
    ends = {name: np.quantile(values, [tail, 1.0 - tail]) for name, values in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}
