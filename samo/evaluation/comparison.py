"""Runs against a baseline on the same items: every score beside the baseline's, with corrected p-values and verdicts.

Differences, intervals and p-values are those of :mod:`samo.evaluation.paired_bootstrap`. What is drawn is people, not
trainings: another seed of either run is not part of any number here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from samo.errors import DataError, SettingsError, counted, first_ten
from samo.evaluation.decision import decided_rows
from samo.evaluation.metrics import Decided, Metric, macro_f1_over
from samo.evaluation.paired_bootstrap import COMPARED, LEVEL, N_RESAMPLES, Difference, p_value, paired_bootstrap
from samo.evaluation.predictions import Predictions
from samo.evaluation.significance import holm, mcnemar, verdict
from samo.evaluation.statistics import (
    FEW_GROUPS,
    tally_by_unit,
    unnamed_line,
)
from samo.tasks import LabelSpace, Task

__all__ = ["SCHEMA", "aligned", "answers_of", "build_comparison"]

SCHEMA = 1


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


def _f1_of(column: int) -> Metric:
    """F1 of one label, which is the macro-F1 over that label alone."""
    return macro_f1_over(slice(column, column + 1))


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
    least = p_value(0, comparison["n_resamples"], n_units)
    found, correction = [], comparison["correction"]
    for family, what in (("scores", "runs"), ("classes", "F1 differences by class")):
        number = correction[family]
        if least * number >= alpha:
            found.append(
                f"with {counted(n_units, comparison['unit'])} no p-value is below {least:.3f}, so that after "
                f"{correction['method']} over {number} {what} each must read 'cannot tell'"
            )
    return found
