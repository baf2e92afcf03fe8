"""Texts labelled zero-shot, and pseudo-labels by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from samo.errors import counted
from samo_cli.render.console import out, worded
from samo_cli.render.predictions import shortened
from samo_cli.render.tables import counts_table, number, plain_table, show_table

if TYPE_CHECKING:
    from samo_text.zero_shot import ZeroShotAnswer

__all__ = ["show_pseudo_labels", "show_zero_shot", "show_zero_shot_report"]


def show_zero_shot(answers: Sequence[ZeroShotAnswer], note: str) -> None:
    """A row for each text with its nearest label and the next two."""
    warned = any(answer.warnings for answer in answers)
    rows = []
    for answer in answers:
        ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])
        others = ", ".join(f"{label} {share:.0%}" for label, share in ranked[1:3])
        row = (shortened(answer.text), answer.label, f"{ranked[0][1]:.0%}", others)
        rows.append((*row, "; ".join(answer.warnings)) if warned else row)
    out.print(f"[bold yellow]{escape(note)}[/bold yellow]", soft_wrap=True)
    heads = ("text", "label", "share", "next", "warnings")[: 5 if warned else 4]
    show_table(heads, rows, numbers=("share",))


def show_zero_shot_report(report: Mapping[str, Any]) -> None:
    """Macro-F1 with its interval, and a row for each label."""
    ends = report["ci"]
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
    where = f"{report['dataset']}, {report['part']} part, {counted(report['n'], 'text')}"
    out.print(f"\n[bold]{escape(where)}[/bold]", soft_wrap=True)
    out.print(f"[bold yellow]{escape(report['note'])}[/bold yellow]", soft_wrap=True)
    if report["synthetic"]:
        out.print("[bold yellow]synthetic demo data[/bold yellow]")
    scores = f"macro-F1 {report['macro_f1']:.3f}{interval} over {len(report['per_class'])} labels"
    out.print(f"{scores}, the label named is right for {report['hits']:.1%} of the texts", markup=False, soft_wrap=True)
    table = plain_table()
    for head in ("label", "precision", "recall", "F1", "ROC-AUC", "texts"):
        table.add_column(head, justify="left" if head == "label" else "right")
    for label, row in report["per_class"].items():
        cells = (row["precision"], row["recall"], row["f1"], row["roc_auc"])
        table.add_row(escape(label), *map(number, cells), str(row["support"]))
    out.print(table)
    for warning in report["warnings"]:
        out.print(f"[yellow]![/yellow] {worded(warning)}", soft_wrap=True)


def show_pseudo_labels(summary: Mapping[str, Any], path: Path) -> None:
    """How many texts of each class were kept, and what became of the others."""
    for task, counts in summary["counts"].items():
        rows = [(label, str(n)) for label, n in counts.items()]
        out.print()
        out.print(counts_table(f"{task}, pseudo-labels", ("label", "texts"), rows))
    lost = ", ".join(f"{reason} {n}" for reason, n in summary["left_out"].items() if n)
    out.print(
        f"\n{summary['kept']} of {counted(summary['texts'], 'text')} kept" + (f"; left out: {lost}" if lost else "")
    )
    out.print(f"[dim]table: {escape(str(path))}[/dim]", soft_wrap=True)
