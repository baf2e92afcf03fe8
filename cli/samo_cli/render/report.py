"""A report as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from samo_cli.render.console import out, worded
from samo_cli.render.tables import counts_table, fitting_heads, number, plain_table, titled

__all__ = ["show_report"]


def show_report(report: Mapping[str, Any], page: Path, pictures: Path, openings: int = 0) -> None:
    """The report as tables, and how often the test part was looked at where that is more than once."""
    from samo.evaluation.abstention import abstention_line
    from samo.evaluation.calibration import summary
    from samo.reporting.report import corpus_of, groupings, stamps
    from samo.reporting.wording import baseline_line, openings_lines

    what = "whole corpus" if report["split"] == "all" else f"{report['split']} part"
    title = f"{report['run']} on {corpus_of(report)}, {what}: {report['n']} items"
    out.print(f"\n[bold]{escape(title)}[/bold] [dim](split: {escape(report['split_rule'])})[/dim]", soft_wrap=True)
    for mark in stamps(report):
        out.print(f"[bold yellow]{mark}[/bold yellow]")
    out.print(_metrics(report))
    if report["baseline"]:
        line = baseline_line(report["baseline"])
        out.print(line if len(line) <= 80 else line.replace("; ", ";\n  "), markup=False, soft_wrap=True)
    out.print()
    for part in (*_thresholds(report), *_tasks(report), _per_class(report), _confusion(report)):
        out.print(part)
        out.print()
    out.print(summary(report["calibration"]), soft_wrap=True)
    if "abstention" in report:
        out.print(abstention_line(report["abstention"]), soft_wrap=True)
    for group, rows in groupings(report).items():
        values = ", ".join(f"{name} {number(row['macro_f1'], 2)}" for name, row in rows.items())
        out.print(f"macro-F1 by {group}: {values}", markup=False)
    for warning in (*report["warnings"], *openings_lines(openings)):
        out.print(f"[yellow]![/yellow] {worded(warning)}", soft_wrap=True)
    out.print(f"[dim]report: {escape(str(page))}; pictures: {escape(str(pictures))}[/dim]", soft_wrap=True)


def _metrics(report: Mapping[str, Any]) -> Table:
    from samo.reporting.report import headlines
    from samo.reporting.wording import interval_name, selection_note

    table = plain_table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column(f"{interval_name(report['ci']).replace(' %', '%')} over {report['ci']['unit']}s")
    names = {"uar": "UAR", "accuracy": "accuracy", "micro_f1": "micro-F1", "weighted_f1": "weighted F1"}
    rows = [(name, report["metrics"][key], report["ci"].get(key)) for key, name in names.items()]
    for place, (name, value, ends) in enumerate([*headlines(report), *rows]):
        bounds = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
        table.add_row(name, number(value), bounds, style="" if place else "bold")
    for key, name in (("train_macro_f1", "macro-F1 on train"), ("val_macro_f1", "macro-F1 on validation")):
        if report[key] is not None:
            table.add_row(name + selection_note(report), number(report[key]), "", style="dim")
    return table


def _thresholds(report: Mapping[str, Any]) -> list[Group]:
    """What each way of choosing thresholds scored here and on validation; nothing for a single-label task."""
    from samo.reporting.wording import THRESHOLD_HEADS, threshold_line, threshold_rows

    rows = threshold_rows(report)
    return [_rows(f"thresholds (* decides): {threshold_line(report)}", THRESHOLD_HEADS, rows)] if rows else []


def _tasks(report: Mapping[str, Any]) -> list[Group]:
    from samo.reporting.wording import TASK_HEADS, task_rows

    rows = task_rows(report)
    return [_rows("tasks", TASK_HEADS, rows)] if rows else []


def _rows(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Group:
    table = plain_table()
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return titled(title, table)


def _per_class(report: Mapping[str, Any]) -> Group:
    table = plain_table()
    table.add_column("class")
    heads = ("precision", "recall", "F1", "ROC-AUC", "AP", "support")
    for head in (*heads, "threshold") if report["thresholds"] else heads:
        table.add_column(head, justify="right")
    for label, row in report["per_class"].items():
        if not row["support"]:
            continue
        cells = [row[key] for key in ("precision", "recall", "f1", "roc_auc", "average_precision")]
        threshold = [number(row["threshold"], 2)] if report["thresholds"] else []
        table.add_row(escape(label), *map(number, cells), str(row["support"]), *threshold)
    return titled("per class", table)


def _confusion(report: Mapping[str, Any]) -> Group:
    """The matrix where it fits, else the pairs that are most often confused."""
    rows = [
        (label, *(str(count or "·") for count in counts))
        for label, counts in zip(report["labels"], report["confusion"], strict=True)
    ]
    heads = fitting_heads(("", *report["labels"]), rows, out.width)
    if heads:
        return counts_table("confusion (rows: truth, columns: said)", heads, rows, diagonal=True)
    table = plain_table()
    for head in ("truth", "said", "times", "of that class"):
        table.add_column(head)
    for pair in report["most_confused"][:10]:
        table.add_row(escape(pair["true"]), escape(pair["predicted"]), str(pair["count"]), f"{pair['share']:.0%}")
    return titled("most often confused (the whole matrix is among the pictures)", table)
