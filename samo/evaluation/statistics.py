"""How far a score could move if other groups had been drawn: the cluster bootstrap.

Rows of one group (one person, say) resemble each other, so they are not independent draws and an interval over rows
is too narrow. The cluster bootstrap draws whole groups with replacement (Field & Welsh 2007, "Bootstrapping clustered
data"). A group enters only by its outcome counts, so a resample is a row of a matrix product.

A **score** in [0, 1] gets Wilson's interval (1927) for the rows it is worth, :func:`score_intervals`. With p the
score, e its standard error over the draws times sqrt(G/(G-1)), and t the quantile of Student's distribution with G -
1 degrees of freedom, it is ``(p + t^2/2n -+ t sqrt(p(1-p)/n + t^2/4n^2)) / (1 + t^2/n)`` for ``n = p(1-p)/e^2``, the
effective count of Korn & Graubard (1998, "Confidence intervals for proportions with small expected number of positive
counts estimated from survey data"); Dean & Pagano (2015) compare such intervals for clustered data. The draws of few
rows, of rare classes or of a nearly perfect answer vary too little, or not at all; so n is at most
:func:`effective_rows`, what the rows would be worth if all were independent. It lies in [0, 1], holds the score, and
never has width 0. In ``artifacts/reports/coverage/results.md``, which ``benchmarks/interval_coverage.py`` writes, it
holds the truth in 93 to 100 % of every case. The percentile interval that reports had before does in 42 % at accuracy
0.97 on 20 rows, and in 71 to 72 % with three groups.

Where the groups of **some rows are not known**, such rows may be of the groups that are known, of others, or of one.
Drawn each by itself they make an interval that holds the truth in 70 to 93 %. So they are drawn as one unit, ``e`` is
at least that of the known groups alone, and t has their degrees of freedom: 94 to 100 % there.

A **difference** has no such bounds and gets the percentile interval, :func:`bootstrap`: it follows a skewed
distribution and needs no estimate of variance. BCa would need an acceleration constant from a jackknife over groups,
which is noise with the handful of groups a test split holds. A plain percentile interval over G groups is itself too
narrow, by about sqrt((G-1)/G) * z/t, so its tail areas are widened: alpha/2 becomes Phi(-sqrt(G/(G-1)) *
t_{1-alpha/2, G-1}), the "expanded percentile interval" of Hesterberg (2014, arXiv:1411.5279; `ExpandProbs` in his R
package resample). With many groups nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from samo.evaluation.metrics import METRICS, Metric, Tally, row_outcomes

__all__ = [
    "FEW_GROUPS",
    "Interval",
    "Intervals",
    "Units",
    "bootstrap",
    "effective_rows",
    "resampled",
    "score_intervals",
    "tail_area",
    "tally_by_unit",
    "unnamed_line",
]

Interval = tuple[float, float]
Intervals = Literal["wilson", "percentile"]
"""How a run's intervals are computed. A report names a third method, ``rows``: Wilson's over rows whose groups exist
and are not known, which holds the truth too seldom to be called by its level."""

# With fewer groups the interval rests on too little, see benchmarks/interval_coverage.py.
FEW_GROUPS = 8

# Entries of one block of draws; bounds memory at some tens of MB whatever the number of units.
_BLOCK = 2_000_000
# From so many kinds of units on, drawing units one by one and counting them is faster than a multinomial draw.
_MANY_KINDS = 500


@dataclass(frozen=True)
class Units(Tally):
    """Outcome counts of each unit of resampling, leading dimension U.

    Attributes:
        has_rest: whether the last unit is all rows together whose group is not known, beside known groups.
    """

    has_rest: bool = False

    @property
    def n_known(self) -> int:
        """How many units are groups, or rows where no group is known."""
        return len(self.rows) - self.has_rest

    @property
    def known(self) -> Tally:
        """Without the rows whose group is not known."""
        return Tally.from_flat(self.flat()[: self.n_known])


def tally_by_unit(
    truth: npt.NDArray[np.bool_],
    predicted: npt.NDArray[np.bool_],
    groups: Sequence[str],
    *,
    each_alone: bool = False,
) -> Units:
    """Outcome counts of each unit of resampling, leading dimension U.

    Args:
        truth: (N, L) bool.
        predicted: (N, L) bool.
        groups: N group names; a row with an empty name is a unit of its own where no group is known, and one of the
            rest where some are.
        each_alone: a row with an empty name is a unit of its own in any case, as runs trained before have it.
    """
    outcomes = row_outcomes(truth, predicted)
    numbers: dict[object, int] = {}
    has_rest = not each_alone and any(groups) and not all(groups)
    names = [*dict.fromkeys(group for group in groups if group), ""] if has_rest else []
    numbers.update({name: number for number, name in enumerate(names)})
    keys = groups if has_rest else (group or row for row, group in enumerate(groups))
    unit = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    if len(unit) != len(outcomes):
        raise ValueError(f"{len(unit)} group names for {len(outcomes)} rows")
    flat = np.zeros((0, outcomes.shape[1]))
    if len(unit):
        order = np.argsort(unit, kind="stable")
        starts = np.flatnonzero(np.diff(unit[order], prepend=-1))
        flat = np.add.reduceat(outcomes[order], starts, axis=0, dtype=np.float64)
    found = Tally.from_flat(flat)
    return Units(found.tp, found.fp, found.fn, found.exact, found.rows, has_rest)


def unnamed_line(unit: str, unnamed: int, n: int) -> str:
    """What intervals are where groups are not known.

    Args:
        unit: what a group is called.
        unnamed: rows whose group is not known, above 0.
        n: all rows.
    """
    known = f"no {unit} is known for {unnamed} of {n} rows"
    if unnamed < n:
        return f"{known}: intervals draw them as one {unit} more, and are never narrower than the known {unit}s ask for"
    return (
        f"{known}: where rows share {unit}s, intervals over rows hold the truth in 58 to 66 % instead of 95 %, and a "
        f"difference is found too easily; name the {unit}s"
    )


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


def score_intervals(
    by_unit: Tally,
    statistics: Mapping[str, Metric] = METRICS,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    n_items: int | None = None,
    method: Intervals = "wilson",
) -> dict[str, Interval | None]:
    """Interval of each score by the formula of the module's docstring.

    Args:
        by_unit: counts by unit from :func:`tally_by_unit`, leading dimension U.
        statistics: functions of outcome counts by name, with values in [0, 1].
        n_resamples: number of draws.
        level: coverage asked for, in (0, 1).
        seed: equal seeds give equal intervals.
        n_items: how many different items the rows are of, where an item has a row for each of several models.
        method: ``percentile`` gives what :func:`bootstrap` does, as reports of runs trained before had it.

    Returns:
        None with fewer than two units, the rest not counted, and for a score that no row has a part in, such as
        macro-F1 where no row has a label.
    """
    from scipy.special import stdtrit

    if method == "percentile":
        return bootstrap(by_unit, statistics, n_resamples=n_resamples, level=level, seed=seed)
    n_units = by_unit.n_known if isinstance(by_unit, Units) else len(by_unit.rows)
    if n_units < 2:
        return dict.fromkeys(statistics)
    counts = Tally.from_flat(by_unit.flat().sum(axis=0))
    squared_errors = _squared_errors(by_unit, statistics, n_resamples, seed)
    if isinstance(by_unit, Units) and by_unit.has_rest:
        known = _squared_errors(by_unit.known, statistics, n_resamples, seed)
        squared_errors = {name: float(np.fmax(error, known[name])) for name, error in squared_errors.items()}
    t = float(stdtrit(n_units - 1, 0.5 + level / 2.0))
    found: dict[str, Interval | None] = {}
    share = 1.0 if n_items is None else n_items / float(counts.rows)
    for name, statistic in statistics.items():
        value, most = float(statistic(counts)), share * effective_rows(counts, statistic)
        squared_error = squared_errors[name]
        spread = value * (1.0 - value)
        rows = min(most, spread / squared_error) if squared_error > 0.0 and spread > 0.0 else most
        found[name] = _wilson(value, rows, t) if rows > 0.0 else None
    return found


def _squared_errors(by_unit: Tally, statistics: Mapping[str, Metric], n_resamples: int, seed: int) -> dict[str, float]:
    """Each score's squared standard error over draws of the units, corrected for their number."""
    n_units = len(by_unit.rows)
    drawn = resampled(by_unit, statistics, n_resamples=n_resamples, seed=seed)
    return {name: float(values.var()) * n_units / (n_units - 1) for name, values in drawn.items()}


def effective_rows(counts: Tally, statistic: Metric) -> float:
    """How many independent rows of equal weight tell as much of a score as these (Kish 1965, (sum w)^2 / sum w^2).

    The weight of a row is by how much the score changes when a row of its label is decided otherwise. For accuracy this
    is the number of rows; for a mean over L classes of n_l rows about L^2 / sum(1 / n_l), L times their harmonic mean.

    Args:
        counts: of all rows, without leading dimensions.
        statistic: function of outcome counts.
    """
    support = counts.tp + counts.fn
    n_labels = len(support)
    step = np.diag(np.where(counts.tp > 0, 1.0, -1.0))
    exact = np.full(n_labels, counts.exact - (1.0 if counts.exact > 0 else -1.0))
    changed = Tally(
        counts.tp - step, np.tile(counts.fp, (n_labels, 1)), counts.fn + step, exact, np.full(n_labels, counts.rows)
    )
    weights = np.where(support > 0, np.abs(statistic(changed) - statistic(counts)), 0.0)
    # Differences of scores closer to 0 than this are rounding.
    weights[weights < 1e-12] = 0.0
    squares = float((support * weights**2).sum())
    return float((support * weights).sum()) ** 2 / squares if squares > 0.0 else 0.0


def _wilson(value: float, rows: float, t: float) -> Interval:
    """Wilson's score interval of a share, widened to hold its value where rounding leaves that out."""
    shrink = 1.0 + t**2 / rows
    centre = (value + t**2 / (2.0 * rows)) / shrink
    half = t * float(np.sqrt(value * (1.0 - value) / rows + t**2 / (4.0 * rows**2))) / shrink
    return min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))
