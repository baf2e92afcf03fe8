"""What a reader must know before believing a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from samo.errors import counted, first_ten
from samo.evaluation.calibration import at_bound
from samo.evaluation.metrics import Decided
from samo.evaluation.statistics import FEW_GROUPS, unnamed_line

__all__ = ["label_warnings", "report_warnings"]


def report_warnings(report: Mapping[str, Any], decided: Decided, unit: str, unnamed: int = 0) -> list[str]:
    """One line for each reason to doubt the scores of a report.

    Args:
        report: whose warnings are still missing.
        decided: the rows of its task.
        unit: what a group is called.
        unnamed: rows whose group is not known.
    """
    found = []
    if report["synthetic_model_only"]:
        found.append("model trained on synthetic demo data: it never learned from the real data it is decided on here")
    elif report["synthetic"]:
        found.append("synthetic demo data: these scores say nothing about real people")
    if report["leaky"]:
        found.append(f"LEAKY SPLIT: a {unit} may be in training and here, so these scores are too good")
    if report["split"] == "train":
        found.append("the model was trained on these rows: the scores show memory, not skill")
    if report["split"] == "val":
        found.append("epoch, temperature or thresholds were chosen on this split, so its scores are a little too good")
    found += [*_calibration_warnings(report), *_threshold_warnings(report)]
    found += [*_abstention_warnings(report), *_shortcut_warnings(report)]
    drawn, n_units = report["ci"]["unit"], report["ci"]["n_units"]
    if n_units < 2:
        found.append(f"one {drawn} only: no confidence interval")
    elif n_units < FEW_GROUPS:
        more = (
            ""
            if drawn == "row" or report["split"] == "out-of-fold"
            else f"; `samo crossval` evaluates on every {drawn}"
        )
        found.append(f"{counted(n_units, drawn)} only: the intervals rest on little{more}")
    if report["ci"]["method"] == "percentile":
        found.append(
            "percentile intervals, as this run's reports had before: with few rows, rare classes or few groups they "
            f"hold the truth less often than {100 * report['ci']['level']:g} % of the time; runs trained now do better"
        )
    if unit != "row" and unnamed:
        found.append(
            f"no {unit} is known for {unnamed} of {report['n']} rows, so the interval draws each by itself: "
            f"where these rows share {unit}s, it is too narrow"
            if report["ci"]["method"] == "percentile"
            else unnamed_line(unit, unnamed, report["n"])
        )
    return found + label_warnings(report["labels"], decided)


def label_warnings(labels: Sequence[str], decided: Decided) -> list[str]:
    """Labels that no decided row has, and those that are never predicted."""
    found = []
    occurs, predicted = decided.truth.sum(axis=0) > 0, decided.predicted.sum(axis=0) > 0
    absent = [label for label, seen in zip(labels, occurs, strict=True) if not seen]
    if absent:
        found.append(f"absent from this split, so left out of macro-F1: {', '.join(absent)}")
    never = [label for label, seen in zip(labels, ~occurs | predicted, strict=True) if not seen]
    if never:
        found.append(f"never predicted: {', '.join(never)}")
    return found


def _calibration_warnings(report: Mapping[str, Any]) -> list[str]:
    scores, found = report["calibration"], []
    cannot_tell = (
        "the rows it was fitted on (all right, or too few) cannot tell it, so take probabilities for a ranking only"
    )
    if scores["temperature"] is None:
        bound = [fold for fold, value in scores["temperature_by_fold"].items() if value is not None and at_bound(value)]
        if bound:
            found.append(f"the temperature stands at its bound in {first_ten(bound)}: {cannot_tell}")
        bare = [fold for fold, value in scores["temperature_by_fold"].items() if value is None]
        if bare and scores["fitted_on"]:
            found.append(f"no temperature was fitted in {first_ten(bare)}")
    elif scores["fitted_on"] and at_bound(scores["temperature"]):
        found.append(f"the temperature stands at its bound of {scores['temperature']:g}: {cannot_tell}")
    if scores["fitted_on"] == report["split"]:
        found.append("the temperature was fitted on this split, so its calibration is a little too good")
    return found


def _shortcut_warnings(report: Mapping[str, Any]) -> list[str]:
    """A line where what should not give the answer away does, by more than chance."""
    found = report.get("shortcut")
    if not found or not found["ci"] or found["ci"][0] <= found["chance"]:
        return []
    low, high = found["ci"]
    return [
        f"{found['name']} alone reach macro-F1 {found['macro_f1']:.3f} [{low:.3f}, {high:.3f}], a blind guess "
        f"{found['chance']:.3f}: the labels stand partly in how the data were made, and a model may learn that"
    ]


def _abstention_warnings(report: Mapping[str, Any]) -> list[str]:
    scores = report["abstention"]
    if not scores["rule"]:
        return []
    found = []
    if scores["fitted_on"] == report["split"]:
        found.append("the threshold of confidence was chosen on this split, so it keeps what was wanted here")
    if not scores["answered"]:
        found.append(
            f"no answer is sure enough for the wanted {scores['rule']} of {scores['wanted']:g}: all are withheld"
        )
    return found


def _threshold_warnings(report: Mapping[str, Any]) -> list[str]:
    chosen = report["thresholds"]
    if not chosen or chosen["used"] == "half":
        return []
    found = []
    if chosen["fitted_on"] == report["split"]:
        found.append("the thresholds were chosen on this split, so its scores are too good")
    if chosen["used"] == "per-class" and chosen["borrowed"]:
        found.append(
            "no validation row to choose a threshold by, so that of all classes is taken: "
            + first_ten(chosen["borrowed"])
        )
    low, high, _ = chosen["tried"]
    for bound, word in ((low, "lowest"), (high, "highest")):
        at = [label for label, row in report["per_class"].items() if row["threshold"] == bound]
        if at:
            found.append(f"the threshold is the {word} tried ({bound:g}), another may be better: {first_ten(at)}")
    return found
