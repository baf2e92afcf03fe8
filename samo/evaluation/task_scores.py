"""What a report says of one task: scores with their intervals, by class, and what the thresholds did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from samo.errors import DataError, first_ten
from samo.evaluation.abstention import abstention_scores
from samo.evaluation.calibration import calibration_scores
from samo.evaluation.decision import Decision, decided_rows
from samo.evaluation.metrics import (
    Decided,
    Metric,
    accuracy,
    label_confusion,
    macro_f1,
    macro_f1_over,
    most_confused,
    per_class,
    scores,
    tally,
    uar,
)
from samo.evaluation.predictions import Predictions
from samo.evaluation.statistics import Intervals, score_intervals, tally_by_unit
from samo.evaluation.thresholds import RULES, Rule
from samo.tasks import LabelSpace, Task

__all__ = ["CI_LEVEL", "FREQUENT_ROWS", "rows_under", "task_scores"]

CI_LEVEL = 0.95
# A label with fewer rows has an F1 that a handful of them decides.
FREQUENT_ROWS = 50
_CI_METRICS: dict[str, Metric] = {"macro_f1": macro_f1, "accuracy": accuracy, "uar": uar}


def rows_under(
    task: Task, predictions: Predictions, space: LabelSpace, decision: Decision, rule: Rule | None = None
) -> Decided:
    """The labelled rows of a task as a run decides them, or under another rule of thresholds.

    Raises:
        DataError: no row is labelled, or the model's outputs are not finite.
    """
    finite = np.isfinite(predictions.logits[:, space.slices[task.name]]).all(axis=1)
    if not finite.all():
        bad = [name for name, good in zip(predictions.ids, finite, strict=True) if not good]
        raise DataError(
            f"the model's outputs for {len(bad)} of {len(predictions)} items are not finite: {first_ten(bad)}",
            hint="the weights may be damaged; evaluate another run or train again",
        )
    thresholds = decision.thresholds if decision.thresholds.tasks or rule else None
    found = decided_rows(task, predictions, space, decision.calibration.temperature, thresholds, rule)
    if not len(found.rows):
        raise DataError(f"none of the {len(predictions)} items has a label for the task '{task.name}'")
    return found


def task_scores(
    task: Task,
    found: Decided,
    predictions: Predictions,
    space: LabelSpace,
    unit: str,
    decision: Decision,
    method: Intervals = "wilson",
) -> dict[str, Any]:
    """Everything a report says of one task alone.

    Args:
        task: the task.
        found: its rows, from :func:`rows_under`.
        predictions: what ``found`` was made of.
        space: the tasks and their columns.
        unit: what a group is called; without groups the interval's unit is ``row``.
        decision: temperatures and thresholds that ``found`` was decided with.
        method: how intervals are computed.

    Returns:
        ``task``, ``n``, ``labels``, ``metrics``, ``per_class``, ``confusion``, ``most_confused``, ``calibration``,
        ``ci``, ``macro_f1_present`` (macro-F1 once more and over how many labels; None where all occur or none),
        ``macro_f1_all`` (over all labels, absent ones as 0; None where the former is), ``macro_f1_frequent`` (over
        those with :data:`FREQUENT_ROWS` rows; None where there is none, or a single-label task leaves none out) and
        ``thresholds`` (None where none were fitted) and ``abstention``.
    """
    groups = [predictions.groups[row] for row in found.rows]
    by_unit = tally_by_unit(found.truth, found.predicted, groups, each_alone=method == "percentile")
    counts, support = tally(found.truth, found.predicted), found.truth.sum(axis=0)
    matrix = label_confusion(found.truth, found.predicted)
    means, frequent = _means_over_some_labels(support), support >= FREQUENT_ROWS
    # Over several seeds an item stands once for each, and is no more than one.
    n_items = len({predictions.ids[row] for row in found.rows})
    drawn = _scores_of_resamples(means, support, method)
    intervals = score_intervals(by_unit, drawn, level=CI_LEVEL, n_items=n_items, method=method)
    ends = {name: list(interval) if interval else None for name, interval in intervals.items()}

    def over(name: str) -> dict[str, Any] | None:
        if name not in means:
            return None
        score, n_classes = means[name]
        return {"n_classes": n_classes, "value": float(score(counts)), "interval": ends[name]}

    all_frequent = frequent.all() and not task.multi_label
    return {
        "task": task.name,
        "n": len(found.rows),
        "labels": list(task.labels),
        "metrics": scores(counts),
        "per_class": _per_class(task, found, decision),
        "confusion": matrix.tolist(),
        "most_confused": most_confused(matrix, task.labels, support=found.truth.sum(axis=0)),
        "calibration": calibration_scores(
            task,
            predictions.logits[found.rows, space.slices[task.name]],
            found.truth,
            decision.calibration.temperature.get(task.name, 1.0),
            decision.calibration.fitted_on,
        ),
        # Without groups every row is a unit, and a reader must not believe that people were drawn.
        "ci": {
            **{name: ends[name] for name in _CI_METRICS},
            "level": CI_LEVEL,
            "unit": unit if any(groups) else "row",
            "n_units": by_unit.n_known,
            "method": "rows" if method == "wilson" and unit != "row" and not any(groups) else method,
        },
        "macro_f1_present": over("macro_f1_present"),
        "macro_f1_all": _over_all(over("macro_f1_present"), len(task.labels)),
        "macro_f1_frequent": {"least_rows": FREQUENT_ROWS, **(over("macro_f1_frequent") or {})}
        if frequent.any() and not all_frequent
        else None,
        "thresholds": _thresholds(task, predictions, space, groups, decision, ends["macro_f1"], method),
        "abstention": abstention_scores(task, found, decision.abstention),
    }


def _means_over_some_labels(support: np.ndarray) -> dict[str, tuple[Metric, int]]:
    """Macro-F1 over the labels that occur, where some do not, and over the frequent ones.

    By name: the score and over how many labels it is a mean.
    """
    occurring, frequent = support > 0, support >= FREQUENT_ROWS
    means: dict[str, tuple[Metric, int]] = {}
    if occurring.any() and not occurring.all():
        means["macro_f1_present"] = macro_f1, int(occurring.sum())
    if frequent.any():
        means["macro_f1_frequent"] = macro_f1_over(frequent), int(frequent.sum())
    return means


def _scores_of_resamples(
    means: Mapping[str, tuple[Metric, int]], support: np.ndarray, method: Intervals
) -> dict[str, Metric]:
    """The scores that have intervals, by name; with ``percentile`` resamples count the classes they lack as 0."""
    metrics = {**_CI_METRICS, **{name: score for name, (score, _) in means.items()}}
    if method == "percentile" and support.any():
        metrics["macro_f1"] = macro_f1_over(support > 0, absent_as_zero=True)
        if "macro_f1_present" in means:
            metrics["macro_f1_present"] = metrics["macro_f1"]
        if "macro_f1_frequent" in means:
            metrics["macro_f1_frequent"] = macro_f1_over(support >= FREQUENT_ROWS, absent_as_zero=True)
    return metrics


def _interval(found: Decided, groups: Sequence[str], method: Intervals) -> list[float] | None:
    by_unit = tally_by_unit(found.truth, found.predicted, groups, each_alone=method == "percentile")
    occurring = found.truth.sum(axis=0) > 0
    score = macro_f1_over(occurring, absent_as_zero=True) if method == "percentile" and occurring.any() else macro_f1
    ends = score_intervals(by_unit, {"macro_f1": score}, level=CI_LEVEL, method=method)["macro_f1"]
    return list(ends) if ends else None


def _over_all(present: Mapping[str, Any] | None, n_labels: int) -> dict[str, Any] | None:
    """Macro-F1 over all labels with 0 for those that the rows lack, from that over those that they have."""
    if present is None:
        return None
    share, ends = present["n_classes"] / n_labels, present["interval"]
    interval = [share * end for end in ends] if ends else None
    return {"n_classes": n_labels, "value": share * present["value"], "interval": interval}


def _per_class(task: Task, found: Decided, decision: Decision) -> dict[str, dict[str, float | int | None]]:
    table = per_class(found, task.labels)
    if task.name in decision.thresholds.tasks:
        for label, cut in zip(task.labels, decision.thresholds.of(task), strict=True):
            table[label]["threshold"] = float(cut)
    return table


def _thresholds(
    task: Task,
    predictions: Predictions,
    space: LabelSpace,
    groups: Sequence[str],
    decision: Decision,
    interval: list[float] | None,
    method: Intervals,
) -> dict[str, Any] | None:
    """Macro-F1 under each rule on the judged rows and on those the thresholds were chosen on, and what each gained.

    ``interval`` is that of the rule in use, which was drawn for the report already.
    """
    thresholds = decision.thresholds
    fitted = thresholds.tasks.get(task.name)
    if fitted is None:
        return None
    rules: dict[str, dict[str, Any]] = {}
    for rule in RULES:
        found = rows_under(task, predictions, space, decision, rule)
        rules[rule] = {
            "macro_f1": float(macro_f1(tally(found.truth, found.predicted))),
            "interval": interval if rule == thresholds.used else _interval(found, groups, method),
            "val_macro_f1": fitted.macro_f1[rule],
        }
    for row in rules.values():
        row["gain"] = row["macro_f1"] - rules["half"]["macro_f1"]
        row["val_gain"] = row["val_macro_f1"] - rules["half"]["val_macro_f1"]
    return {
        "used": thresholds.used,
        "global": fitted.common,
        "tried": list(thresholds.tried or ()),
        "fitted_on": thresholds.fitted_on,
        "borrowed": [label for label, rows in fitted.support.items() if not rows],
        "rules": rules,
    }
