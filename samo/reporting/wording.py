"""What a report says of thresholds, tasks and its baseline, in the words and rows that every output shares."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from samo.errors import plural

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = [
    "RULE_NAMES",
    "SETTING",
    "TASK_HEADS",
    "THRESHOLD_HEADS",
    "as_code",
    "baseline_line",
    "combined_gain_line",
    "constant_line",
    "gain_line",
    "interval_name",
    "members_line",
    "openings_lines",
    "part_rows",
    "selection_note",
    "task_rows",
    "threshold_line",
    "threshold_rows",
    "weights_by_fold",
]

RULE_NAMES = {"half": "0.5", "global": "global", "per-class": "per class"}
THRESHOLD_HEADS = ("thresholds", "macro-F1", "interval", "gain", "validation", "gain there")
TASK_HEADS = ("task", "labels", "rows", "macro-F1", "interval", "accuracy", "thresholds")

# A setting or a command as messages write it: `focal_loss`, `split=folds`, `samo crossval`.
SETTING = re.compile(r"`(samo [a-z][^`]*|[a-z][a-z0-9_]*(?:=[^`]*)?)`")


def as_code(line: str) -> Markup:
    """A line for HTML, escaped, with its settings and commands as ``<code>``."""
    from markupsafe import Markup, escape

    return Markup(SETTING.sub(r"<code>\1</code>", str(escape(line))))


def interval_name(ci: Mapping[str, Any]) -> str:
    """``95 % interval``; an interval that holds the truth less often is not called so.

    Args:
        ci: of a report; those written before the method was named are percentile intervals.
    """
    names = {"wilson": f"{100 * ci['level']:g} % interval", "rows": "interval"}
    return names.get(ci.get("method", ""), "percentiles")


def baseline_line(baseline: Mapping[str, Any], answering: str = "this run") -> str:
    """``baseline tfidf 0.459 [0.441, 0.476]; this run +0.060 [+0.040, +0.081]: better``."""
    gap = baseline["difference"]
    ends = _ends((gap["low"], gap["high"]) if gap["low"] is not None else None, "+.3f")
    return (
        f"baseline {baseline['name']} {baseline['macro_f1']:.3f}{_ends(baseline['ci'])}; "
        f"{answering} {gap['value']:+.3f}{ends}: {gap['verdict']}"
    )


def constant_line(constant: Mapping[str, Any]) -> str:
    """``a constant guess (always neutral): macro-F1 0.036, accuracy 0.133, UAR 0.125``."""
    labels, metrics = constant["labels"], constant["metrics"]
    every = "every label" if len(labels) > 1 else "the most frequent class of each training part"
    guess = f"always {labels[0]}" if len(labels) == 1 else every
    words = {"macro_f1": "macro-F1", "accuracy": "accuracy", "uar": "UAR"}
    return f"a constant guess ({guess}): {', '.join(f'{word} {metrics[key]:.3f}' for key, word in words.items())}"


def part_rows(parts: Mapping[str, Mapping[str, int]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows of a table of how much is in each part."""
    nouns = list(dict.fromkeys(noun for counts in parts.values() for noun in counts))
    return ("part", *(plural(noun, 0) for noun in nouns)), [
        (part, *(str(counts.get(noun, "-")) for noun in nouns)) for part, counts in parts.items()
    ]


def threshold_rows(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row of :data:`THRESHOLD_HEADS` for each rule; the one that decides is marked with a star.

    Args:
        scores: of one task, from :func:`samo.evaluation.task_scores.task_scores`; empty without thresholds.
    """
    if not (found := scores["thresholds"]):
        return []
    names = {**RULE_NAMES, "global": f"{RULE_NAMES['global']} {found['global']:.2f}"}
    return [
        (
            names[rule] + (" *" if rule == found["used"] else ""),
            f"{row['macro_f1']:.3f}",
            _ends(row["interval"]).strip() or "-",
            "" if rule == "half" else f"{row['gain']:+.3f}",
            f"{row['val_macro_f1']:.3f}",
            "" if rule == "half" else f"{row['val_gain']:+.3f}",
        )
        for rule, row in found["rules"].items()
    ]


def threshold_line(scores: Mapping[str, Any]) -> str:
    """How much of what the thresholds in use gained on validation was left on the judged rows."""
    found = scores["thresholds"]
    row = found["rules"][found["used"]]
    if found["used"] == "half":
        return "decided at 0.5, as asked for; the other rows show what thresholds would do"
    if row["val_gain"] <= 0.0:
        return "chosen on validation they gained nothing there"
    kept = f"{100 * row['gain'] / row['val_gain']:.0f} % of it"
    return f"chosen on validation they gained {row['val_gain']:+.3f} there and {row['gain']:+.3f} here ({kept})"


def task_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row of :data:`TASK_HEADS` for each task, then their mean; empty where there is one task only."""
    tasks = report["tasks"]
    if not tasks:
        return []
    rows = [
        (
            name,
            str(len(task["labels"])),
            str(task["n"]),
            f"{task['metrics']['macro_f1']:.3f}",
            _ends(task["ci"]["macro_f1"]).strip() or "-",
            f"{task['metrics']['accuracy']:.3f}",
            RULE_NAMES[task["thresholds"]["used"]] if task["thresholds"] else "-",
        )
        for name, task in tasks.items()
    ]
    return [*rows, ("mean over tasks", "", "", f"{report['overall_macro_f1']:.3f}", "", "", "")]


def openings_lines(openings: int) -> list[str]:
    """A line where the test part was looked at before."""
    if openings < 2:
        return []
    return [
        f"the test part was opened {openings} times with this run: whatever is chosen by its scores makes them too good"
    ]


def selection_note(report: Mapping[str, Any]) -> str:
    """What to add to the name of training and validation macro-F1, where it is not under the run's thresholds.

    The reports of runs trained before have it at the best single threshold of each part, and percentile intervals.
    """
    before = interval_name(report["ci"]) == "percentiles"
    return " (one threshold)" if report["thresholds"] and before else ""


def _ends(ends: Sequence[float] | None, style: str = ".3f") -> str:
    return f" [{ends[0]:{style}}, {ends[1]:{style}}]" if ends else ""


def members_line(ensemble: Mapping[str, Any]) -> str:
    """How an ensemble combines its members."""
    how = "the mean of its members' probabilities" if ensemble["combine"] == "mean" else "its members' votes"
    weights = "weights fitted on the validation part" if ensemble["fitted_on"] else "equal weights"
    return f"{how}, {weights}"


def weights_by_fold(weights: Sequence[float]) -> str:
    """Weights of a member, fold by fold; one, where all are alike."""
    shown = [f"{weight:.2f}" for weight in weights]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)


def gain_line(ensemble: Mapping[str, Any]) -> str:
    """Whether an ensemble gains more than chance on the member that is best on the validation part.

    Empty where the members were not tested.
    """
    if ensemble["gain"] is None:
        return ""
    against = f"against '{ensemble['best_member']}', the best member on the validation part"
    return _gain(ensemble["gain"], ensemble["level"], against)


def combined_gain_line(combined: Mapping[str, Any]) -> str:
    """The same of cross-validations that were combined fold by fold; see ``combined`` in their report."""
    against = f"against '{combined['best_grid']}', the best on the validation parts"
    return _gain(combined["gain"], combined["gain"]["level"], against)


def _gain(gain: Mapping[str, Any], level: float, against: str) -> str:
    interval = ""
    if gain["low"] is not None:
        interval = f" ({100 * level:g} % interval {gain['low']:+.3f} to {gain['high']:+.3f})"
    return f"{gain['difference']:+.3f} macro-F1{interval} {against}: {gain['verdict']}"
