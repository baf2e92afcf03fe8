"""The judgement of one run on one part of the data, as a plain structure that later tools read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from pydantic import ConfigDict, Field

from samo.errors import RunError, counted
from samo.evaluation.baseline import constant_scores
from samo.evaluation.decision import Decision
from samo.evaluation.metrics import Decided, accuracy, macro_f1, tally, uar
from samo.evaluation.predictions import Predictions
from samo.evaluation.statistics import Intervals
from samo.evaluation.task_scores import rows_under, task_scores
from samo.files import parse_json
from samo.reporting.report_warnings import label_warnings, report_warnings
from samo.stored import Count, Flag, Number, Share, Stored, Text, validated
from samo.tasks import LabelSpace, Task

__all__ = [
    "SCHEMA",
    "Report",
    "Subject",
    "build_report",
    "corpus_of",
    "flat_items",
    "groupings",
    "headlines",
    "metrics_of",
    "natural_key",
    "read_report",
    "reproduce_commands",
    "stamps",
]

SCHEMA = 1
# An attribute with more values than this is a description of each row rather than a grouping.
MAX_META_VALUES = 50
# The order in which a report names its subject.
_ABOUT = ("run", "dataset", "synthetic", "synthetic_model_only", "split", "split_rule", "leaky")


class Report(dict[str, Any]):
    """What ``report.json`` holds; a notebook shows its page.

    Attributes:
        page: ``report.html`` beside it.
        figures: the folder of its pictures.
        modality: of the run.
        openings: how often the test part was looked at with this run, 0 in a report on something else.
    """

    def __init__(self, content: Mapping[str, Any], page: Path, figures: Path, modality: str, openings: int = 0) -> None:
        super().__init__(content)
        self.page, self.figures, self.modality, self.openings = page, figures, modality, openings

    def __repr__(self) -> str:
        """The headline with its interval, and where the page is."""
        stamped = "".join(f"{stamp}; " for stamp in stamps(self))
        scores = "; ".join(
            f"{name} {value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
            for name, value, ends in headlines(self)
        )
        opened = f", opened {n} times" if (n := self.openings) > 1 else ""
        what = f"{self['split']}, {counted(self['n'], 'item')}{opened}"
        return f"{stamped}{self['run']} on {corpus_of(self)} ({what}): {scores}; {self.page}"

    def _repr_html_(self) -> str:
        """The whole page in a frame, so that its style stays its own."""
        page = escape(self.page.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:45rem;border:1px solid #ccc"></iframe>'


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        run: name of the run.
        dataset: name of the data set it was judged on.
        corpus: the same with the name of one's own table or folder; empty where there is none.
        split: ``train``, ``val``, ``test``, ``all`` or ``out-of-fold``.
        split_rule: how the split was drawn.
        unit: what a group is called, for example ``speaker``; without groups the interval's unit is ``row``.
        synthetic: whether the data, or those the model learned from, were generated.
        synthetic_model_only: whether only those the model learned from were.
        leaky: whether groups may stand on two sides of the split.
    """

    run: str
    dataset: str
    split: str
    split_rule: str
    unit: str
    synthetic: bool = False
    synthetic_model_only: bool = False
    leaky: bool = False
    corpus: str = ""


def build_report(
    subject: Subject,
    predictions: Predictions,
    label_space: LabelSpace,
    decision: Decision | None = None,
    *,
    task: Task | None = None,
    train_macro_f1: float | None = None,
    val_macro_f1: float | None = None,
    baseline: Mapping[str, Any] | None = None,
    shortcut: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    calibration: Mapping[str, Mapping[str, Any]] | None = None,
    abstention: Mapping[str, Mapping[str, Any]] | None = None,
    intervals: Intervals = "wilson",
    constant: np.ndarray | None = None,
    parts: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """Score the predictions of one task, and beside it those of the other tasks of the label space.

    Args:
        subject: what the report is about.
        predictions: logits, as the model gave them, and targets of N rows; rows without a label are left out.
        label_space: the tasks and their columns.
        decision: temperatures and thresholds; without thresholds what was decided when the predictions were made
            counts, else 0.5. Single-label tasks need none.
        task: the one the report speaks of; None is the first.
        train_macro_f1: the same score on the training part, None when unknown.
        val_macro_f1: the same score on the validation part, None when unknown.
        baseline: a simple model on the same rows, from :func:`~samo.evaluation.baseline.compare_to_baseline`.
        shortcut: what a model reaches that sees only what should not give the answer away, from
            :func:`~samo.evaluation.baseline.shortcut_scores`; the report has the key only where it is given.
        notes: further warnings.
        calibration: what the report says of it, by task, where the predictions are under a temperature already.
        abstention: what it says of withheld answers, by task, where several models answered.
        intervals: how they are computed, see :func:`~samo.evaluation.statistics.score_intervals`.
        constant: what a constant guess answers, see :func:`~samo.evaluation.baseline.constant_answers`.
        parts: how many items and groups are in each part, by their nouns.

    Returns:
        Plain Python numbers, strings, lists and dicts; None where a value is undefined, never NaN. With several tasks
        ``tasks`` holds :func:`~samo.evaluation.task_scores.task_scores` of each that has labelled rows, and
        ``overall_macro_f1`` the mean of their macro-F1.

    Raises:
        DataError: no row is labelled, or the model's outputs are not finite.
    """
    decision, task, unit = decision or Decision(), task or label_space.primary, subject.unit
    decided = rows_under(task, predictions, label_space, decision)
    groups = tuple(predictions.groups[row] for row in decided.rows)
    by_group, skipped = _by_group(decided, groups, predictions, unit)
    scored = task_scores(task, decided, predictions, label_space, unit, decision, intervals)
    tasks, others = _tasks(scored, predictions, label_space, unit, decision, intervals)
    for key, given in (("calibration", calibration), ("abstention", abstention)):
        for name, scores in (given or {}).items():
            if name == task.name:
                scored[key] = dict(scores)
            elif name in tasks:
                tasks[name][key] = dict(scores)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        **{name: getattr(subject, name) for name in _ABOUT},
        **({"corpus": subject.corpus} if subject.corpus else {}),
        **scored,
        "tasks": tasks,
        "overall_macro_f1": fmean(each["metrics"]["macro_f1"] for each in tasks.values()) if tasks else None,
        "baseline": dict(baseline) if baseline else None,
        **({} if constant is None else {"constant": constant_scores(task, label_space, constant, decided)}),
        **({"parts": {part: dict(counts) for part, counts in parts.items()}} if parts else {}),
        **({"shortcut": dict(shortcut)} if shortcut else {}),
        "by_group": by_group,
        "train_macro_f1": _plain(train_macro_f1),
        "val_macro_f1": _plain(val_macro_f1),
        "gap": _gap(train_macro_f1, val_macro_f1),
    }
    unnamed = sum(not group for group in groups)
    report["warnings"] = [*report_warnings(report, decided, unit, unnamed), *others, *skipped, *notes]
    return report


def corpus_of(report: Mapping[str, Any]) -> str:
    """What was evaluated on, for people: the data set, and of one's own the table or folder."""
    return str(report.get("corpus") or report["dataset"])


class _StoredInterval(Stored):
    unit: Text
    n_units: Count | None = None
    level: Share = 0.95
    macro_f1: tuple[Number, Number] | None


class _StoredMetrics(Stored):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None]

    macro_f1: Number


class _StoredPresent(Stored):
    value: Number


class _StoredReport(Stored):
    dataset: Text
    synthetic: Flag
    leaky: Flag
    n: Count
    metrics: _StoredMetrics
    ci: _StoredInterval
    macro_f1_present: _StoredPresent | None = None
    tasks: dict[Text, Any] = Field(default_factory=dict)
    overall_macro_f1: Number | None = None
    train_macro_f1: Number | None = None
    val_macro_f1: Number | None = None


def read_report(path: Path) -> dict[str, Any]:
    """A ``report.json``; what others read of it is there, and of its kind.

    Raises:
        RunError: missing or damaged.
    """
    try:
        report: dict[str, Any] = parse_json(path.read_bytes())
        validated(_StoredReport, report)
        return report
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error


def stamps(report: Mapping[str, Any]) -> list[str]:
    """What every picture, table and card made from this report must say in so many words."""
    learned = "model trained on " if report.get("synthetic_model_only") else ""
    found = [f"{learned}synthetic demo data"] if report["synthetic"] else []
    return [*found, "LEAKY SPLIT"] if report["leaky"] else found


def headlines(report: Mapping[str, Any]) -> list[tuple[str, float, Sequence[float] | None]]:
    """Name, value and interval of macro-F1, what is shown first coming first.

    Where classes are absent that is the score over the present ones: no model could have found the others. Last comes
    the score over frequent classes, where the report has it. Reports written before ``macro_f1_all`` hold that score as
    ``macro_f1``.
    """
    value, ends, n_labels = report["metrics"]["macro_f1"], report["ci"]["macro_f1"], len(report["labels"])
    if whole := report.get("macro_f1_all"):
        value, ends = whole["value"], whole["interval"]
    found: list[tuple[str, float, Sequence[float] | None]] = [("macro-F1", value, ends)]
    if present := report["macro_f1_present"]:
        name = f"macro-F1 over the {present['n_classes']} of {n_labels} classes present"
        found = [
            (name, present["value"], present["interval"]),
            (f"macro-F1 over all {n_labels} classes", value, ends),
        ]
    if frequent := report["macro_f1_frequent"]:
        number = counted(frequent["n_classes"], "class")
        name = f"macro-F1 over the {number} with {frequent['least_rows']}+ rows"
        found.append((name, frequent["value"], frequent["interval"]))
    return found


def metrics_of(report: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a stored report, macro-F1 over the classes present also where it was written as over all."""
    metrics: dict[str, float] = dict(report["metrics"])
    if "macro_f1_all" not in report and (present := report.get("macro_f1_present")):
        metrics["macro_f1"] = present["value"]
    return metrics


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


def _tasks(
    scored: dict[str, Any],
    predictions: Predictions,
    label_space: LabelSpace,
    unit: str,
    decision: Decision,
    intervals: Intervals,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Each task's scores where there are several, and what to know of those the report does not speak of."""
    if len(label_space.tasks) < 2:
        return {}, []
    tasks: dict[str, dict[str, Any]] = {}
    warnings: list[str] = []
    for task in label_space.tasks:
        if task.name == scored["task"]:
            tasks[task.name] = scored
        elif np.isnan(predictions.targets[:, label_space.slices[task.name]]).any(axis=1).all():
            warnings.append(f"no item has a label for the task '{task.name}', so it is not judged")
        else:
            decided = rows_under(task, predictions, label_space, decision)
            tasks[task.name] = task_scores(task, decided, predictions, label_space, unit, decision, intervals)
            warnings += [f"{task.name}: {line}" for line in label_warnings(task.labels, decided)]
    return tasks, warnings


def _by_group(
    decided: Decided, groups: Sequence[str], predictions: Predictions, unit: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Scores by value of each attribute, and a warning for each attribute that was left out."""
    # A row is no group of anything: cross-validation names rows only to draw each with all its predictions.
    attributes = {unit: groups} if any(groups) and unit != "row" else {}
    skipped = []
    for name, values in predictions.meta.items():
        given = tuple(values[row] for row in decided.rows)
        n_values = len(set(given) - {""})
        if name in attributes or not n_values:
            continue
        if n_values > MAX_META_VALUES:
            skipped.append(f"no scores by {name}: it has {n_values} values, more than {MAX_META_VALUES}")
        else:
            attributes[name] = given
    return {name: _by_value(decided, values) for name, values in attributes.items()}, skipped


def _by_value(decided: Decided, values: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Scores of each value's rows.

    Macro-F1 and UAR are over the labels that occur among those rows: no one group can be asked for labels it
    never shows. So the groups' mean is not the macro-F1 of the whole.
    """
    array = np.asarray(values, dtype=object)
    table: dict[str, dict[str, float | int | None]] = {}
    for value in sorted(set(values) - {""}, key=natural_key):
        rows = array == value
        counts = tally(decided.truth[rows], decided.predicted[rows])
        labelled = bool((counts.tp + counts.fn).any())
        table[value] = {
            "n": int(counts.rows),
            "macro_f1": float(macro_f1(counts)) if labelled else None,
            "accuracy": float(accuracy(counts)),
            "uar": float(uar(counts)) if labelled else None,
        }
    return table


def _plain(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _gap(train: float | None, val: float | None) -> float | None:
    """Training minus validation macro-F1: how much the model knows only by heart."""
    known, unseen = _plain(train), _plain(val)
    return None if known is None or unseen is None else known - unseen
