"""What rewritten texts cost, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from samo.errors import counted
from samo_cli.render.console import out, worded
from samo_cli.render.tables import number, plain_table, titled

__all__ = ["show_robustness"]

_STYLES = {"better": "green", "worse": "bold red", "cannot tell": "dim"}
_SHORT = {"texts changed": "texts", "difference": "diff.", "answers changed": "changed"}


def show_robustness(report: Mapping[str, Any], page: Path) -> None:
    """Each task's rewritings against the texts as they are, and its scores by length."""
    from samo.reporting.report import stamps
    from samo_text.robustness_report import HEADS, text_rows

    texts = counted(report["n"], "text")
    title = f"{report['run']}: {report['dataset']}, {report['split']} part, {texts} written otherwise"
    out.print(f"\n[bold]{escape(title)}[/bold]", soft_wrap=True)
    for mark in stamps(report):
        out.print(f"[bold yellow]{mark}[/bold yellow]")
    for task, found in report["tasks"].items():
        table = plain_table()
        for head in HEADS:
            table.add_column(_SHORT.get(head, head), justify="left" if head in ("rewriting", "verdict") else "right")
        ends = found["ci"]
        interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-"
        table.add_row("as they are", str(found["n"]), number(found["macro_f1"]), "", interval, "", "", style="bold")
        for *cells, word in text_rows(report, task):
            style = _STYLES.get(word, "dim")
            table.add_row(*map(escape, cells), f"[{style}]{word}[/{style}]")
        out.print()
        out.print(titled(task, table))
        if found["lengths"]:
            out.print()
            out.print(titled(f"{task} by length, as they are", _lengths(found)))
    out.print(f"\n[dim]{escape(_legend(report))}[/dim]", soft_wrap=True)
    for warning in report["warnings"]:
        out.print(f"[yellow]![/yellow] {worded(warning)}", soft_wrap=True)
    out.print(f"[dim]examples and picture: {escape(str(page))}[/dim]", soft_wrap=True)


def _lengths(found: Mapping[str, Any]) -> Any:
    table = plain_table()
    for head in ("length", "texts", "micro-F1", "interval", "macro-F1, labels present"):
        table.add_column(head, justify="left" if head == "length" else "right")
    for row in found["lengths"]:
        ends = row["ci"]
        interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-"
        cells = (row["name"], str(row["n"]), number(row["micro_f1"]), interval, number(row["macro_f1_present"]))
        table.add_row(*map(escape, cells))
    return table


def _legend(report: Mapping[str, Any]) -> str:
    return (
        f"texts: how many were changed; changed: answers that differ, of all; {report['level']:.0%} intervals from a "
        f"paired bootstrap over {report['unit']}s, verdicts by p after Holm; a negation changes the truth, so it has "
        "no score"
    )
