"""A report as one HTML file that needs nothing else: no server, no network, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samo.errors import counted, plural
from samo.evaluation.abstention import abstention_line
from samo.evaluation.calibration import summary
from samo.reporting.report import corpus_of, flat_items, groupings, headlines, reproduce_commands, stamps
from samo.reporting.wording import (
    TASK_HEADS,
    THRESHOLD_HEADS,
    as_code,
    baseline_line,
    combined_gain_line,
    constant_line,
    gain_line,
    interval_name,
    members_line,
    part_rows,
    selection_note,
    task_rows,
    threshold_line,
    threshold_rows,
    weights_by_fold,
)

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["METRIC_NAMES", "page_template", "render_html"]

METRIC_NAMES = {
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "weighted_f1": "weighted F1",
    "accuracy": "accuracy",
    "uar": "unweighted average recall (UAR)",
}


@cache
def page_template(package: str, name: str) -> Template:
    """A page's template, which lies in a package; compiled once, since a grid writes many pages.

    Names from data are escaped, and one that is not given is an error.
    """
    from jinja2 import Environment, StrictUndefined

    pages = Environment(autoescape=True, undefined=StrictUndefined)
    for each in (as_code, interval_name, plural, weights_by_fold):
        pages.filters[each.__name__] = each
    return pages.from_string(files(package).joinpath(name).read_text(encoding="utf-8"))


def render_html(
    report: Mapping[str, Any],
    figures: Mapping[str, Path],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    mistakes: Sequence[Mapping[str, Any]] = (),
    answers: str = "",
) -> str:
    """Render a report with its pictures embedded; every name from data or settings is escaped.

    Args:
        report: from :func:`samo.reporting.report.build_report`.
        figures: PNG files by name (``{path.stem: path}`` of what ``save_figures`` returned).
        settings: every setting of the run by name.
        environment: versions and hardware; ``command`` or ``commands`` hold what was typed to train.
        mistakes: from :func:`samo.reporting.answers.confident_mistakes`; files are linked where they lie, not copied.
        answers: name of the file of :func:`samo.reporting.answers.predictions_csv` beside the page.
    """
    seen = {name: value for name, value in environment.items() if name not in ("command", "commands")}
    placed = [
        "confusion",
        "per_class",
        "roc",
        "reliability",
        "risk_coverage",
        "training",
        *(f"by_{name}" for name in report["by_group"]),
    ]
    return page_template("samo.reporting", "report.html.jinja").render(
        report=report,
        corpus=corpus_of(report),
        stamps=stamps(report),
        headlines=headlines(report),
        groupings=groupings(report),
        figures={name: {"source": _embedded(path), "alt": _alt(name, report)} for name, path in figures.items()},
        placed=placed,
        metric_names=METRIC_NAMES,
        calibration=summary(report["calibration"]),
        abstention=abstention_line(report["abstention"]),
        baseline=baseline_line(report["baseline"]) if report["baseline"] else "",
        constant=constant_line(report["constant"]) if "constant" in report else "",
        parts=part_rows(report["parts"]) if "parts" in report else None,
        mistakes=mistakes,
        answers=answers,
        folds=report.get("folds", ()),
        selection_note=selection_note(report),
        threshold_heads=THRESHOLD_HEADS,
        threshold_rows=threshold_rows,
        threshold_line=threshold_line,
        task_heads=TASK_HEADS,
        task_rows=task_rows(report),
        members=members_line(report["ensemble"]) if "ensemble" in report else "",
        gain=gain_line(report["ensemble"]) if "ensemble" in report else "",
        grids=members_line(report["combined"]) if "combined" in report else "",
        combined_gain=combined_gain_line(report["combined"]) if "combined" in report else "",
        commands=reproduce_commands(report, environment),
        settings=flat_items(settings),
        environment=flat_items(seen),
    )


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _alt(name: str, report: Mapping[str, Any]) -> str:
    """What a reader who cannot see the picture should take from it."""
    table = report["per_class"]
    if name == "confusion" and report["most_confused"]:
        pair = report["most_confused"][0]
        return (
            f"Confusion matrix of {len(report['labels'])} classes. Most often {pair['true']} is taken for "
            f"{pair['predicted']}: {counted(pair['count'], 'row')}, {100 * pair['share']:.0f} % of that class."
        )
    if name == "per_class":
        order = sorted(table, key=lambda label: table[label]["f1"])
        worst, best = order[0], order[-1]
        return (
            f"F1, precision and recall by class. Lowest F1: {worst}, {table[worst]['f1']:.3f}; "
            f"highest: {best}, {table[best]['f1']:.3f}."
        )
    if name == "roc":
        areas = {label: row["roc_auc"] for label, row in table.items() if row["roc_auc"] is not None}
        listed = ", ".join(f"{label} {area:.3f}" for label, area in areas.items())
        return f"ROC curves, one class against the rest. Areas under the curve: {listed}."
    if name == "reliability":
        return f"Reliability diagram, accuracy over confidence: {summary(report['calibration'])}."
    if name == "risk_coverage":
        return f"Risk over coverage: {abstention_line(report['abstention'])}."
    attribute = name.removeprefix("by_")
    groups = [row["macro_f1"] for row in report["by_group"].get(attribute, {}).values() if row["macro_f1"] is not None]
    if groups:
        return f"Macro-F1 by {attribute}: {len(groups)} values from {min(groups):.3f} to {max(groups):.3f}."
    if name == "training":
        return "Training and validation loss, validation macro-F1 and learning rate by epoch."
    return f"Picture: {name.replace('_', ' ')}."
