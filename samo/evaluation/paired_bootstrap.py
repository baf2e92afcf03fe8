"""The paired bootstrap: how far apart two runs are on the same items, and how sure one can be.

Both runs answer the same items of the same groups (people), so groups are drawn with what *both* runs made of them and
the difference is taken draw by draw: a hard speaker is hard for both and drops out. The interval is the percentile
interval of :mod:`samo.evaluation.statistics` with its tails widened for few groups.

The p-value is that interval read backwards, so that the two never disagree. With k of B draws on the lesser side of 0
(ties count), the share of that side is q = (k + 1) / (B + 1), never 0 (Davison & Hinkley 1997, section 4.2). It is the
tail area of the interval that just reaches 0, so p = 2 * T_{G-1}(sqrt((G-1)/G) * Phi^-1(q)), at most 1: Hesterberg's
widening (2014) solved for alpha. With many groups p = 2q; with few it is larger, because five speakers who all
favour one run are weak evidence. The least p there can be (k = 0) follows from B and G, 0.029 for five speakers, and a
comparison that cannot reach a verdict after the correction says so.

The draws of fewer than five groups are few and lie between those groups, so that a percentile interval holds the truth
in 70 to 90 % only. There interval and p-value are at least Student's with G - 1 degrees of freedom.

Where two runs differ on few rows, draws of these rows vary too little: with accuracies of 0.97 and 0.90 on 20 rows the
interval held the truth in 78 %, and two runs alike on all rows had none at all. So it also holds Bonett & Price's
(2012) with one row more on which the two differ, half for each, among the rows that the scores are worth
(:func:`~samo.evaluation.statistics.effective_rows`), and the p-value is at least that interval's. It then holds the
truth in 95 to 100 %; their own two rows more cost twice as many verdicts.

What is drawn is people, not trainings: another seed of either run is not part of any number here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samo.evaluation.metrics import Metric, Tally, accuracy, macro_f1, uar
from samo.evaluation.statistics import (
    Units,
    effective_rows,
    resampled,
    tail_area,
)

__all__ = ["COMPARED", "LEVEL", "N_RESAMPLES", "Difference", "p_value", "paired_bootstrap"]

LEVEL = 0.95
N_RESAMPLES = 10_000
COMPARED: dict[str, Metric] = {"macro_f1": macro_f1, "uar": uar, "accuracy": accuracy}
FEWEST_FOR_PERCENTILES = 5
# Differences of scores closer to 0 than this are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Difference:
    """One score of two runs.

    Attributes:
        baseline: the baseline's score, in [0, 1].
        value: the other run's score.
        low: lower end of the interval of ``value - baseline``, None with fewer than two groups.
        high: upper end, None with fewer than two groups.
        p: two-sided p-value of "no difference", None with fewer than two groups.
    """

    baseline: float
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def difference(self) -> float:
        """``value - baseline``, in [-1, 1]."""
        return self.value - self.baseline


def paired_bootstrap(
    baseline: Tally,
    other: Tally,
    statistics: Mapping[str, Metric] = COMPARED,
    *,
    n_resamples: int = N_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    few_rows: bool = True,
) -> dict[str, Difference]:
    """Interval and p-value of each statistic's difference over joint draws of the units.

    Args:
        baseline: outcome counts by unit from :func:`~samo.evaluation.statistics.tally_by_unit`.
        other: the other run's counts of the same units in the same order.
        statistics: functions of outcome counts by name.
        n_resamples: number of draws B; no p-value is below about 2 / (B + 1).
        level: coverage asked for, in (0, 1).
        seed: equal seeds give equal results.
        few_rows: widen what few rows on which the two differ make too narrow; False as reports had it before.
    """
    points = {name: (_total(baseline, metric), _total(other, metric)) for name, metric in statistics.items()}
    has_rest = isinstance(baseline, Units) and isinstance(other, Units) and baseline.has_rest
    n_units = len(baseline.rows) - has_rest
    if n_units < 2:
        return {name: Difference(*pair) for name, pair in points.items()}
    how: dict[str, Any] = {
        "n_units": n_units,
        "n_resamples": n_resamples,
        "level": level,
        "seed": seed,
        "few_rows": few_rows,
    }
    found = _drawn(baseline, other, statistics, points, **how)
    if isinstance(baseline, Units) and isinstance(other, Units) and baseline.has_rest:
        # Rows of unknown groups may be of the known ones, which then vary more than draws with them show.
        known = _drawn(baseline.known, other.known, statistics, points, **how)
        found = {name: _wider(found[name], known[name]) for name in found}
    return found


def _drawn(
    baseline: Tally,
    other: Tally,
    statistics: Mapping[str, Metric],
    points: Mapping[str, tuple[float, float]],
    *,
    n_units: int,
    n_resamples: int,
    level: float,
    seed: int,
    few_rows: bool,
) -> dict[str, Difference]:
    """Interval and p-value over draws of these units around the points, with the tails of ``n_units`` groups."""
    from scipy.special import stdtr, stdtrit

    drawn = resampled(
        _stacked(baseline, other),
        {name: _difference_of(metric) for name, metric in statistics.items()},
        n_resamples=n_resamples,
        seed=seed,
    )
    tail, found = tail_area(level, n_units), {}
    for name, given in drawn.items():
        middle = points[name][1] - points[name][0]
        here = _total(other, statistics[name]) - _total(baseline, statistics[name])
        values = given + (middle - here) if abs(middle - here) > _ROUNDING else given
        low, high = np.quantile(values, [tail, 1.0 - tail])
        beyond = int(min(np.count_nonzero(values <= 0), np.count_nonzero(values >= 0)))
        p = p_value(beyond, n_resamples, n_units)
        t = float(stdtrit(n_units - 1, 0.5 + level / 2.0))
        # By centre and standard error, other intervals that this one must hold.
        others = []
        squared_error = float(values.var()) * n_units / (n_units - 1)
        if n_units < FEWEST_FOR_PERCENTILES:
            others.append((middle, squared_error**0.5))
        rows = min(effective_rows(_sum(each), statistics[name]) for each in (baseline, other)) if few_rows else 0.0
        if rows > 0.0:
            others.append(_with_a_row_more(middle, squared_error, rows))
        for centre, error in others:
            low, high = min(low, centre - t * error), max(high, centre + t * error)
            p = max(p, 2.0 * float(stdtr(n_units - 1, -abs(centre) / error)) if error > 0.0 else 1.0)
        found[name] = Difference(*points[name], float(low), float(high), p)
    return found


def _with_a_row_more(difference: float, squared_error: float, rows: float) -> tuple[float, float]:
    """Centre and standard error of a difference of shares with one row more, of which each alone has half right.

    Bonett & Price (2012), "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data": with q the share of rows on which the two differ, ``(q - d^2) / n`` is the squared error, which gives q.
    """
    unlike = rows * (squared_error * rows + difference**2)
    n, centre = rows + 1.0, rows * difference / (rows + 1.0)
    return centre, float(np.sqrt(max(0.0, (unlike + 1.0) / n - centre**2) / n))


def _wider(one: Difference, other: Difference) -> Difference:
    """The ends farther out and the larger p-value of two over the same rows."""
    ends = (one.low, other.low, one.high, other.high, one.p, other.p)
    if not all(end is not None and np.isfinite(end) for end in ends):
        return one
    low, lower, high, higher, p, larger = (float(end) for end in ends if end is not None)
    return Difference(one.baseline, one.value, min(low, lower), max(high, higher), max(p, larger))


def _sum(by_unit: Tally) -> Tally:
    return Tally.from_flat(by_unit.flat().sum(axis=0))


def _total(by_unit: Tally, metric: Metric) -> float:
    return float(metric(_sum(by_unit)))


def _stacked(baseline: Tally, other: Tally) -> Tally:
    """Both runs as one tally of 2L + 1 labels, so that a unit is drawn with both; the last column is other.exact."""
    exact, nothing = other.exact[..., None], np.zeros_like(other.exact[..., None])
    return Tally(
        tp=np.concatenate([baseline.tp, other.tp, exact], axis=-1),
        fp=np.concatenate([baseline.fp, other.fp, nothing], axis=-1),
        fn=np.concatenate([baseline.fn, other.fn, nothing], axis=-1),
        exact=baseline.exact,
        rows=baseline.rows,
    )


def _difference_of(metric: Metric) -> Metric:
    """``metric(other) - metric(baseline)`` of stacked counts; rounding is made 0 so that ties are seen."""

    def difference(both: Tally) -> npt.NDArray[np.float64]:
        n = (both.tp.shape[-1] - 1) // 2
        first, second = slice(0, n), slice(n, 2 * n)
        baseline = Tally(both.tp[..., first], both.fp[..., first], both.fn[..., first], both.exact, both.rows)
        exact = both.tp[..., -1]
        other = Tally(both.tp[..., second], both.fp[..., second], both.fn[..., second], exact, both.rows)
        found = metric(other) - metric(baseline)
        return np.where(np.abs(found) <= _ROUNDING, 0.0, found)

    return difference


def p_value(beyond: int, n_resamples: int, n_units: int) -> float:
    """The formula of the module's docstring, in (0, 1]; ``beyond`` is its k."""
    from scipy.special import ndtri, stdtr

    share = (beyond + 1) / (n_resamples + 1)
    if share >= 0.5:
        return 1.0
    return 2.0 * float(stdtr(n_units - 1, np.sqrt((n_units - 1) / n_units) * ndtri(share)))
