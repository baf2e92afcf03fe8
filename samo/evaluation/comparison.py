"""Runs against a baseline on the same items: how far apart they are, and how sure one can be.

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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samo.errors import DataError, SettingsError, counted, first_ten
from samo.evaluation.decision import decided_rows
from samo.evaluation.metrics import Decided, Metric, Tally, accuracy, macro_f1, macro_f1_over, uar
from samo.evaluation.predictions import Predictions
from samo.evaluation.significance import holm, mcnemar, verdict
from samo.evaluation.statistics import (
    FEW_GROUPS,
    Units,
    effective_rows,
    resampled,
    tail_area,
    tally_by_unit,
    unnamed_line,
)
from samo.tasks import LabelSpace, Task

__all__ = ["COMPARED", "SCHEMA", "Difference", "aligned", "answers_of", "build_comparison", "paired_bootstrap"]

SCHEMA = 1
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


def aligned(baseline: Predictions, other: Predictions, names: tuple[str, str] = ("baseline", "other")) -> Predictions:
    """``other`` in the baseline's order of items.

    Raises:
        DataError: the items, their targets or their groups are not the same; the first few are named.
    """
    row_of = {name: row for row, name in enumerate(other.ids)}
    strays = sorted(set(baseline.ids) ^ set(other.ids))
    if strays:
        common = len(set(baseline.ids) & set(other.ids))
        raise DataError(
            f"'{names[0]}' and '{names[1]}' do not speak of the same items: {len(baseline)} and {len(other)}, "
            f"{common} in common; only in one of them: {first_ten(strays)}",
            hint="only runs decided on the same items can be compared",
        )
    rows = [row_of[name] for name in baseline.ids]
    targets = other.targets[rows]
    same = targets.shape == baseline.targets.shape and np.array_equal(targets, baseline.targets, equal_nan=True)
    if not same:
        if targets.shape != baseline.targets.shape:
            raise DataError(f"'{names[0]}' and '{names[1]}' do not have the same number of labels")
        unequal = ~((targets == baseline.targets) | (np.isnan(targets) & np.isnan(baseline.targets))).all(axis=1)
        wrong = [baseline.ids[row] for row in np.flatnonzero(unequal)]
        raise DataError(f"'{names[0]}' and '{names[1]}' hold different labels for: {first_ten(wrong)}")
    groups = tuple(other.groups[row] for row in rows)
    if groups != baseline.groups:
        wrong = [name for name, a, b in zip(baseline.ids, baseline.groups, groups, strict=True) if a != b]
        raise DataError(f"'{names[0]}' and '{names[1]}' hold different groups (speakers) for: {first_ten(wrong)}")
    meta = {name: tuple(values[row] for row in rows) for name, values in other.meta.items()}
    decided = None if other.decided is None else other.decided[rows]
    return Predictions(baseline.ids, other.logits[rows], targets, groups, meta, decided)


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
        p = _p_value(beyond, n_resamples, n_units)
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


def build_comparison(
    predictions: Mapping[str, Predictions],
    *,
    task: Task,
    label_space: LabelSpace,
    unit: str,
    dataset: str,
    split: str,
    split_rule: str,
    synthetic: bool = False,
    leaky: bool = False,
    notes: Sequence[str] = (),
    n_resamples: int = N_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge two or more runs against the first.

    Verdicts go by p-values corrected after Holm: each score over the runs, F1 by class over all classes and runs.
    Intervals are not corrected. A multi-label task is decided as its predictions say, each run by its own thresholds,
    and has no McNemar test.

    Args:
        predictions: by name of the run, over the same items in any order; the first is the baseline.
        task: the task of ``label_space`` to compare on; rows without a label for it are left out.
        label_space: the tasks and their columns.
        unit: what a group is called, for example ``speaker``; without groups rows are drawn.
        dataset: name of the data set.
        split: the part of the data decided on.
        split_rule: how the split was drawn.
        synthetic: whether the data were generated.
        leaky: whether groups may stand on two sides of the split.
        notes: further warnings.
        n_resamples: number of draws.
        level: coverage of the intervals; 1 - level is the error accepted in verdicts.
        seed: of the draws.

    Returns:
        Plain Python values; None where a value is undefined, never NaN.

    Raises:
        SettingsError: fewer than two runs.
        DataError: they do not speak of the same items, outputs are not finite, or no row is labelled.
    """
    if len(predictions) < 2:
        raise SettingsError("a comparison takes at least two runs")
    (base, baseline), *others = predictions.items()
    given = {base: baseline, **{name: aligned(baseline, other, (base, name)) for name, other in others}}
    answers = {name: answers_of(name, task, label_space, each) for name, each in given.items()}
    groups = [baseline.groups[row] for row in answers[base].rows]
    drawn = {"n_resamples": n_resamples, "level": level, "seed": seed}
    compared = [_against(answers[base], answers[name], groups, task, drawn) for name, _ in others]
    _correct(compared, 1.0 - level)
    comparison: dict[str, Any] = {
        "schema": SCHEMA,
        "baseline": base,
        "dataset": dataset,
        "synthetic": synthetic,
        "split": split,
        "split_rule": split_rule,
        "leaky": leaky,
        "task": task.name,
        "labels": list(task.labels),
        "n": len(groups),
        "unit": unit if any(groups) else "row",
        "n_units": len(set(groups) - {""}) or len(groups),
        "unnamed": groups.count("") if any(groups) else 0,
        "level": level,
        "n_resamples": n_resamples,
        "correction": {"method": "Holm", "scores": len(others), "classes": len(others) * len(task.labels)},
        "comparisons": [{"run": name, **row} for (name, _), row in zip(others, compared, strict=True)],
    }
    comparison["warnings"] = [*_warnings(comparison), *notes]
    return comparison


def answers_of(name: str, task: Task, space: LabelSpace, predictions: Predictions) -> Decided:
    """What was decided for the labelled rows of one task.

    Raises:
        DataError: outputs are not finite, or no row is labelled; ``name`` says whose.
    """
    if not np.isfinite(predictions.logits[:, space.slices[task.name]]).all():
        raise DataError(f"the outputs of '{name}' are not finite", hint="its weights may be damaged; train again")
    found = decided_rows(task, predictions, space)
    if not len(found.rows):
        raise DataError(f"none of the {len(predictions)} items has a label for the task '{task.name}'")
    return found


def _against(
    baseline: Decided, other: Decided, groups: Sequence[str], task: Task, drawn: Mapping[str, Any]
) -> dict[str, Any]:
    """Every score of one run beside the baseline's, still without corrected p-values."""
    first, second = (tally_by_unit(decided.truth, decided.predicted, groups) for decided in (baseline, other))
    by_class = {f"class {label}": _f1_of(column) for column, label in enumerate(task.labels)}
    found = paired_bootstrap(first, second, {**COMPARED, **by_class}, **drawn)
    row: dict[str, Any] = {
        "scores": {name: _plain(found[name]) for name in COMPARED},
        "per_class": {label: _plain(found[f"class {label}"]) for label in task.labels},
        "mcnemar": None,
    }
    if not task.multi_label:
        test = mcnemar(*((decided.truth == decided.predicted).all(axis=1) for decided in (baseline, other)))
        row["mcnemar"] = {"only_baseline": test.only_a, "only_run": test.only_b, "p": test.p}
    return row


def _correct(compared: Sequence[Mapping[str, Any]], alpha: float) -> None:
    """Add ``p_corrected`` and ``verdict``, family by family."""
    families = [[row["scores"][name] for row in compared] for name in COMPARED]
    families.append([cell for row in compared for cell in row["per_class"].values()])
    for family in families:
        for cell, p in zip(family, holm([cell["p"] for cell in family]), strict=True):
            cell["p_corrected"], cell["verdict"] = p, verdict(cell["difference"], p, alpha)
    tests = [row["mcnemar"] for row in compared if row["mcnemar"]]
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_corrected"] = p
        test["verdict"] = verdict(test["only_run"] - test["only_baseline"], p, alpha)


def _plain(found: Difference) -> dict[str, Any]:
    return {
        "baseline": found.baseline,
        "run": found.value,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }


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


def _f1_of(column: int) -> Metric:
    """F1 of one label, which is the macro-F1 over that label alone."""
    return macro_f1_over(slice(column, column + 1))


def _p_value(beyond: int, n_resamples: int, n_units: int) -> float:
    """The formula of the module's docstring, in (0, 1]; ``beyond`` is its k."""
    from scipy.special import ndtri, stdtr

    share = (beyond + 1) / (n_resamples + 1)
    if share >= 0.5:
        return 1.0
    return 2.0 * float(stdtr(n_units - 1, np.sqrt((n_units - 1) / n_units) * ndtri(share)))


def _warnings(comparison: Mapping[str, Any]) -> list[str]:
    found = []
    unit, n_units = comparison["unit"], comparison["n_units"]
    if comparison["synthetic"]:
        found.append("synthetic demo data: these scores say nothing about real people")
    if comparison["leaky"]:
        found.append("LEAKY SPLIT: training and judging may share groups, so these scores are too good")
    if comparison["split"] == "val":
        found.append("the best epochs were chosen on this split, which favours the run that had more to choose from")
    if comparison["unnamed"]:
        found.append(unnamed_line(unit, comparison["unnamed"], comparison["n"]))
    if n_units < 2:
        found.append(f"one {unit} only: no interval and no p-value")
    elif n_units < FEW_GROUPS:
        found.append(f"{counted(n_units, unit)} only: intervals and p-values rest on little")
    found += _out_of_reach(comparison) if n_units > 1 else []
    if any(row["mcnemar"] for row in comparison["comparisons"]) and unit != "row":
        found.append(f"McNemar takes the items of one {unit} for independent; trust the bootstrap over {unit}s more")
    found.append("one training a run: another seed may turn the order round, and no number here knows of it")
    return found


def _out_of_reach(comparison: Mapping[str, Any]) -> list[str]:
    """Where the correction leaves no room for any verdict, so that "cannot tell" is not taken for a finding."""
    n_units, alpha = comparison["n_units"], 1.0 - comparison["level"]
    least = _p_value(0, comparison["n_resamples"], n_units)
    found, correction = [], comparison["correction"]
    for family, what in (("scores", "runs"), ("classes", "F1 differences by class")):
        number = correction[family]
        if least * number >= alpha:
            found.append(
                f"with {counted(n_units, comparison['unit'])} no p-value is below {least:.3f}, so that after "
                f"{correction['method']} over {number} {what} each must read 'cannot tell'"
            )
    return found
