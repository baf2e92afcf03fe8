"""A run beside a simple model on the same items: what it is worth above the cheapest answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from samo.evaluation.comparison import aligned, answers_of
from samo.evaluation.metrics import BoolArray, Decided, Metric, macro_f1, macro_f1_over, scores, tally
from samo.evaluation.paired_bootstrap import LEVEL, paired_bootstrap
from samo.evaluation.predictions import Predictions
from samo.evaluation.significance import verdict
from samo.evaluation.statistics import Intervals, score_intervals, tally_by_unit
from samo.tasks import LabelSpace, Task

__all__ = ["blind_guess", "compare_to_baseline", "constant_answers", "constant_scores", "shortcut_scores"]


def constant_answers(space: LabelSpace, targets: np.ndarray) -> BoolArray:
    """(C,) what a guess answers that looks at nothing: the label most frequent in training, of several labels all.

    All labels at once are the constant answer with the highest macro-F1, as no other has any F1 for each label.

    Args:
        space: the tasks and their columns.
        targets: (N, C) of the training rows; NaN where a task has no label.
    """
    answer = np.zeros(space.n_columns, dtype=bool)
    for task in space.tasks:
        columns = space.slices[task.name]
        counts = np.nansum(targets[:, columns], axis=0)
        answer[columns] = True if task.multi_label else np.arange(len(counts)) == counts.argmax()
    return answer


def constant_scores(task: Task, space: LabelSpace, answers: BoolArray, found: Decided) -> dict[str, Any]:
    """Scores of a constant guess on the rows of a report, which every model has to beat.

    Args:
        task: that the report speaks of.
        space: the tasks and their columns.
        answers: (C,) of :func:`constant_answers`, or (N, C) where parts of the rows have guesses of their own.
        found: the rows of the report.

    Returns:
        ``labels``, those that are always answered, empty where that differs between rows; and ``metrics``, as in the
        report.
    """
    given = np.atleast_2d(answers)[:, space.slices[task.name]]
    rows = np.broadcast_to(given, (len(found.truth), given.shape[1])) if len(given) == 1 else given[found.rows]
    alike = bool((rows == rows[:1]).all())
    labels = [label for label, held in zip(task.labels, rows[0], strict=True) if held and alike]
    return {"labels": labels, "metrics": scores(tally(found.truth, rows))}


def blind_guess(truth: np.ndarray, multi_label: bool) -> float:
    """The highest macro-F1, over the classes present, that is to be expected of guesses which see nothing.

    One of K classes: 1 / K, by guessing each as often as it occurs; no other guess does better. Several labels: all of
    them, always, whose F1 is 2 p / (1 + p) for a label with a share p of the rows.

    Args:
        truth: (N, K) bool.
        multi_label: whether several labels may hold at once.
    """
    share = truth.mean(axis=0)
    present = share[share > 0.0]
    return float((2.0 * present / (1.0 + present)).mean()) if multi_label else 1.0 / max(len(present), 1)


def shortcut_scores(
    found: Mapping[str, Any], predictions: Predictions, *, task: Task, space: LabelSpace
) -> dict[str, Any]:
    """What a report keeps of a model that sees only what should not give the answer away.

    Args:
        found: of :func:`compare_to_baseline` on that model.
        predictions: of the model that is evaluated.
        task: of ``space``.
        space: the tasks and their columns.

    Returns:
        ``name``, ``macro_f1``, ``ci``, ``level``, ``unit``, and ``chance``, that of :func:`blind_guess`.
    """
    truth = answers_of(found["name"], task, space, predictions).truth
    kept = {name: found[name] for name in ("name", "macro_f1", "ci", "level", "unit")}
    return {**kept, "chance": blind_guess(truth, task.multi_label)}


def compare_to_baseline(
    name: str,
    baseline: Predictions,
    predictions: Predictions,
    *,
    task: Task,
    label_space: LabelSpace,
    unit: str,
    n_resamples: int = 2000,
    level: float = LEVEL,
    seed: int = 0,
    intervals: Intervals = "wilson",
) -> dict[str, Any]:
    """The macro-F1 of a simple model on the rows of a report, and the paired difference that the judged model makes.

    Args:
        name: of the baseline.
        baseline: what it says, in any order of the same items; a multi-label task is decided as ``decided`` has it.
        predictions: the same of the judged model.
        task: the task of ``label_space`` to compare on; rows without a label for it are left out.
        label_space: the tasks and their columns.
        unit: what a group is called; without groups rows are drawn.
        n_resamples: number of draws.
        level: coverage of the intervals; 1 - level is the error accepted in the verdict.
        seed: of the draws.
        intervals: ``percentile`` has them as reports of runs trained before, resamples counting classes they lack as 0.

    Returns:
        ``name``, ``macro_f1``, ``ci`` ([low, high] or None), ``level``, ``unit`` and ``difference`` with ``value`` (the
        judged model's macro-F1 minus the baseline's), ``low``, ``high``, ``p`` and ``verdict``.

    Raises:
        DataError: they do not speak of the same items, outputs are not finite, or no row is labelled.
    """
    names = ("this run", name)
    answers = [
        answers_of(who, task, label_space, each)
        for who, each in zip(names, (predictions, aligned(predictions, baseline, names)), strict=True)
    ]
    groups = [predictions.groups[row] for row in answers[0].rows]
    own, simple = (
        tally_by_unit(each.truth, each.predicted, groups, each_alone=intervals == "percentile") for each in answers
    )
    how: dict[str, Any] = {"n_resamples": n_resamples, "level": level, "seed": seed}
    occurring = answers[0].truth.sum(axis=0) > 0
    as_before = intervals == "percentile" and occurring.any()
    score: dict[str, Metric] = {"macro_f1": macro_f1_over(occurring, absent_as_zero=True) if as_before else macro_f1}
    found = paired_bootstrap(simple, own, score, few_rows=intervals != "percentile", **how)["macro_f1"]
    ends = score_intervals(simple, score, method=intervals, **how)["macro_f1"]
    return {
        "name": name,
        "macro_f1": found.baseline,
        "ci": list(ends) if ends else None,
        "level": level,
        "unit": unit if any(groups) else "row",
        "difference": {
            "value": found.difference,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "verdict": verdict(found.difference, found.p, 1.0 - level),
        },
    }
