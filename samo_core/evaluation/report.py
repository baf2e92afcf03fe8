"""The judgement of one run on one part of the data, as a plain structure that later tools read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from samo_core.errors import DataError, first_ten
from samo_core.evaluation.calibration import TEMPERATURE_RANGE, Calibration, apply_temperature, calibration_scores
from samo_core.evaluation.metrics import (
    FloatArray,
    Judged,
    Tally,
    accuracy,
    judge,
    label_confusion,
    macro_f1,
    macro_f1_present,
    most_confused,
    per_class,
    scores,
    tally,
    uar,
)
from samo_core.evaluation.predictions import Predictions
from samo_core.evaluation.statistics import bootstrap, tally_by_unit
from samo_core.tasks import LabelSpace, Task

__all__ = [
    "SCHEMA",
    "build_report",
    "flat_items",
    "groupings",
    "headlines",
    "natural_key",
    "reproduce_commands",
    "stamps",
]

SCHEMA = 1
CI_LEVEL = 0.95
# With fewer groups the interval rests on too little, see benchmarks/interval_coverage.py.
FEW_GROUPS = 8
# An attribute with more values than this is a description of each row rather than a grouping.
MAX_META_VALUES = 50
_CI_METRICS = {"macro_f1": macro_f1, "accuracy": accuracy, "uar": uar}


def build_report(
    *,
    run: str,
    dataset: str,
    synthetic: bool,
    synthetic_model_only: bool = False,
    split: str,
    split_rule: str,
    leaky: bool,
    task: Task,
    predictions: Predictions,
    label_space: LabelSpace,
    unit: str,
    train_macro_f1: float | None,
    val_macro_f1: float | None,
    calibration: Calibration | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Judge the predictions of one task.

    Args:
        run: name of the run.
        dataset: name of the data set judged on.
        synthetic: whether its data, or those the model learned from, were generated.
        synthetic_model_only: whether only those the model learned from were.
        split: ``train``, ``val``, ``test`` or ``all``.
        split_rule: how the split was drawn.
        leaky: whether groups may stand on two sides of the split.
        task: the task of ``label_space`` to judge; rows without a label for it are left out.
        predictions: logits, as the model gave them, and targets of N rows.
        label_space: the tasks and their columns.
        unit: what a group is called, for example ``speaker``; without groups the interval's unit is ``row``.
        train_macro_f1: the same score on the training split, None when unknown.
        val_macro_f1: the same score on the validation split, None when unknown.
        calibration: the temperatures its answers are judged and given with; None is temperature 1.
        notes: further warnings.

    Returns:
        Plain Python numbers, strings, lists and dicts; None where a value is undefined, never NaN.

    Raises:
        DataError: no row is labelled, or the model's outputs are not finite.
    """
    calibration = calibration or Calibration()
    judged = _judged(task, predictions, label_space, calibration)
    groups = tuple(predictions.groups[row] for row in judged.rows)
    by_group, skipped = _by_group(judged, groups, predictions, unit)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "run": run,
        "dataset": dataset,
        "synthetic": synthetic,
        "synthetic_model_only": synthetic_model_only,
        "split": split,
        "split_rule": split_rule,
        "leaky": leaky,
        **_scored(task, judged),
        "calibration": calibration_scores(
            task,
            predictions.logits[judged.rows, label_space.slices[task.name]],
            judged.truth,
            calibration.temperature.get(task.name, 1.0),
            calibration.fitted_on,
        ),
        # Without groups every row is a unit, and a reader must not believe that people were drawn.
        "ci": _intervals(judged, groups, unit if any(groups) else "row"),
        "macro_f1_present": _present(judged, groups),
        "by_group": by_group,
        "train_macro_f1": _plain(train_macro_f1),
        "val_macro_f1": _plain(val_macro_f1),
        "gap": _gap(train_macro_f1, val_macro_f1),
    }
    report["warnings"] = [*_warnings(report, judged, unit), *skipped, *notes]
    return report


def stamps(report: Mapping[str, Any]) -> list[str]:
    """What every picture, table and card made from this report must say in so many words."""
    learned = "model trained on " if report.get("synthetic_model_only") else ""
    found = [f"{learned}synthetic demo data"] if report["synthetic"] else []
    return [*found, "LEAKY SPLIT"] if report["leaky"] else found


def headlines(report: Mapping[str, Any]) -> list[tuple[str, float, Sequence[float] | None]]:
    """Name, value and interval of macro-F1, what is shown first coming first.

    Where classes are absent that is the score over the present ones: no model could have found the others.
    """
    value, ends, present = report["metrics"]["macro_f1"], report["ci"]["macro_f1"], report["macro_f1_present"]
    if not present:
        return [("macro-F1", value, ends)]
    n_labels = len(report["labels"])
    name = f"macro-F1 over the {present['n_classes']} of {n_labels} classes present"
    return [(name, present["value"], present["interval"]), (f"macro-F1 over all {n_labels} classes", value, ends)]


def groupings(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Scores by value of each attribute that has several: one value alone repeats the whole."""
    return {attribute: table for attribute, table in report["by_group"].items() if len(table) > 1}


def reproduce_commands(report: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """Commands that lead to this report again.

    ``environment`` may hold what was typed to train, as ``command`` (one line) or ``commands`` (several).
    """
    typed = environment.get("commands") or environment.get("command") or ()
    commands = [typed] if isinstance(typed, str) else list(typed)
    if report["split"] in ("val", "test"):
        on = " --on val" if report["split"] == "val" else ""
        commands.append(f"samo evaluate {report['run']}{on}")
    return list(dict.fromkeys(commands))


def flat_items(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of every value for a table of two columns; nested mappings are joined by a full stop."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}.{inner}", text) for inner, text in flat_items(value)]
        elif isinstance(value, list | tuple):
            rows.append((str(name), ", ".join(map(str, value)) or "none"))
        else:
            rows.append((str(name), "none" if value is None or value == "" else str(value)))
    return rows


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``"2"`` comes before ``"10"``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _judged(task: Task, predictions: Predictions, label_space: LabelSpace, calibration: Calibration) -> Judged:
    columns = label_space.slices[task.name]
    finite = np.isfinite(predictions.logits[:, columns]).all(axis=1)
    if not finite.all():
        bad = [name for name, good in zip(predictions.ids, finite, strict=True) if not good]
        raise DataError(
            f"the model's outputs for {len(bad)} of {len(predictions)} items are not finite: {first_ten(bad)}",
            hint="the weights may be damaged; evaluate another run or train again",
        )
    scaled = apply_temperature(predictions.logits, calibration.temperature, label_space)
    judged = judge(task, label_space.probabilities(scaled)[:, columns], predictions.targets[:, columns])
    if not len(judged.rows):
        raise DataError(f"none of the {len(predictions)} items has a label for the task '{task.name}'")
    return judged


def _scored(task: Task, judged: Judged) -> dict[str, Any]:
    matrix = label_confusion(judged.truth, judged.predicted)
    return {
        "task": task.name,
        "n": len(judged.rows),
        "labels": list(task.labels),
        "metrics": scores(tally(judged.truth, judged.predicted)),
        "per_class": per_class(judged, task.labels),
        "confusion": matrix.tolist(),
        "most_confused": most_confused(matrix, task.labels),
    }


def _intervals(judged: Judged, groups: Sequence[str], unit: str) -> dict[str, Any]:
    by_unit = tally_by_unit(judged.truth, judged.predicted, groups)
    found = bootstrap(by_unit, _CI_METRICS, level=CI_LEVEL)
    ci: dict[str, Any] = {name: list(ends) if ends else None for name, ends in found.items()}
    return {**ci, "level": CI_LEVEL, "unit": unit, "n_units": len(by_unit.rows)}


def _present(judged: Judged, groups: Sequence[str]) -> dict[str, Any] | None:
    """Macro-F1 over the classes that occur, with its interval; None where all do."""
    occurs = judged.truth.any(axis=0)
    if occurs.all():
        return None

    def over_present(counts: Tally) -> FloatArray:
        # The same classes in every resample, as macro-F1 has them.
        kept = Tally(counts.tp[..., occurs], counts.fp[..., occurs], counts.fn[..., occurs], counts.exact, counts.rows)
        return macro_f1(kept)

    by_unit = tally_by_unit(judged.truth, judged.predicted, groups)
    ends = bootstrap(by_unit, {"macro_f1": over_present}, level=CI_LEVEL)["macro_f1"]
    value = float(macro_f1_present(tally(judged.truth, judged.predicted)))
    return {"n_classes": int(occurs.sum()), "value": value, "interval": list(ends) if ends else None}


def _by_group(
    judged: Judged, groups: Sequence[str], predictions: Predictions, unit: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Scores by value of each attribute, and a warning for each attribute that was left out."""
    attributes = {unit: groups} if any(groups) else {}
    skipped = []
    for name, values in predictions.meta.items():
        given = tuple(values[row] for row in judged.rows)
        n_values = len(set(given) - {""})
        if name in attributes or not n_values:
            continue
        if n_values > MAX_META_VALUES:
            skipped.append(f"no scores by {name}: it has {n_values} values, more than {MAX_META_VALUES}")
        else:
            attributes[name] = given
    return {name: _by_value(judged, values) for name, values in attributes.items()}, skipped


def _by_value(judged: Judged, values: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Scores of each value's rows.

    Macro-F1 and UAR are over the labels that occur among those rows: no one group can be asked for labels it
    never shows. So the groups' mean is not the macro-F1 of the whole.
    """
    array = np.asarray(values, dtype=object)
    table: dict[str, dict[str, float | int | None]] = {}
    for value in sorted(set(values) - {""}, key=natural_key):
        rows = array == value
        counts = tally(judged.truth[rows], judged.predicted[rows])
        labelled = bool((counts.tp + counts.fn).any())
        table[value] = {
            "n": int(counts.rows),
            "macro_f1": float(macro_f1_present(counts)) if labelled else None,
            "accuracy": float(accuracy(counts)),
            "uar": float(uar(counts)) if labelled else None,
        }
    return table


def _warnings(report: Mapping[str, Any], judged: Judged, unit: str) -> list[str]:
    found = []
    if report["synthetic_model_only"]:
        found.append("model trained on synthetic demo data: it never learned from the real data it is judged on here")
    elif report["synthetic"]:
        found.append("synthetic demo data: these scores say nothing about real people")
    if report["leaky"]:
        found.append(f"LEAKY SPLIT: a {unit} may be in training and here, so these scores are too good")
    if report["split"] == "train":
        found.append("the model was trained on these rows: the scores show memory, not skill")
    if report["split"] == "val":
        found.append("the best epoch was chosen on this split, so its scores are a little too good")
    found += _calibration_warnings(report)
    drawn, n_units = report["ci"]["unit"], report["ci"]["n_units"]
    if n_units < 2:
        found.append(f"one {drawn} only: no confidence interval")
    elif n_units < FEW_GROUPS:
        found.append(
            f"{n_units} {drawn}s only: the intervals rest on little and hold the truth less often "
            f"than {100 * report['ci']['level']:.0f} % of the time"
        )
    occurs, predicted = judged.truth.sum(axis=0) > 0, judged.predicted.sum(axis=0) > 0
    absent = [label for label, seen in zip(report["labels"], occurs, strict=True) if not seen]
    if absent:
        found.append(f"absent from this split, so F1 = 0 in macro-F1: {', '.join(absent)}")
    never = [label for label, seen in zip(report["labels"], ~occurs | predicted, strict=True) if not seen]
    if never:
        found.append(f"never predicted: {', '.join(never)}")
    return found


def _calibration_warnings(report: Mapping[str, Any]) -> list[str]:
    scores, found = report["calibration"], []
    if scores["fitted_on"] and scores["temperature"] in TEMPERATURE_RANGE:
        found.append(
            f"the temperature stands at its bound of {scores['temperature']:g}: the rows it was fitted on "
            "(all right, or too few) cannot tell it, so take probabilities for a ranking only"
        )
    if scores["fitted_on"] == report["split"]:
        found.append("the temperature was fitted on this split, so its calibration is a little too good")
    return found


def _plain(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _gap(train: float | None, val: float | None) -> float | None:
    """Training minus validation macro-F1: how much the model knows only by heart."""
    known, unseen = _plain(train), _plain(val)
    return None if known is None or unseen is None else known - unseen
