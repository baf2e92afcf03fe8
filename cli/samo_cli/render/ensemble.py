"""An ensemble and its members as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from samo.errors import counted
from samo_cli.render.console import out, worded
from samo_cli.render.tables import number, plain_table, show_table

__all__ = ["show_combined", "show_ensemble"]

_STYLES = {"better": "bold green", "worse": "bold red", "cannot tell": "bold"}


def show_ensemble(summary: Mapping[str, Any], page: Path) -> None:
    """Members, their mean and the ensemble, and the finding in words."""
    from samo.reporting.report import stamps
    from samo.reporting.wording import gain_line, members_line

    units = "" if summary["unit"] == "row" else f" of {counted(summary['n_units'], summary['unit'])}"
    title = f"{summary['run']}: {members_line(summary)}"
    out.print(f"\n[bold]{escape(title)}[/bold]", soft_wrap=True)
    where = f"{summary['dataset']}, test part: {counted(summary['n'], 'item')}{units} (split: {summary['split_rule']})"
    out.print(f"[dim]{escape(where)}[/dim]", soft_wrap=True)
    for mark in stamps(summary):
        out.print(f"[bold yellow]{mark}[/bold yellow]")
    table = plain_table()
    table.add_column("macro-F1", overflow="fold")
    for head in ("weight", "validation", "test"):
        table.add_column(head, justify="right")
    table.add_column(f"{summary['level']:.0%} interval", no_wrap=True)
    for member in summary["members"]:
        mark = " *" if member["name"] == summary["best_member"] else ""
        table.add_row(escape(member["name"]) + mark, number(member["weight"]), *_scores(member))
    table.add_row("mean of members", "", "", number(summary["mean_of_members"]), "", style="dim")
    table.add_section()
    table.add_row("ensemble", "", *_scores(summary["ensemble"]), style="bold")
    out.print(table)
    for left in summary["left_out"]:
        out.print(f"[yellow]![/yellow] left out: {escape(left['name'])} ({worded(left['reason'])})", soft_wrap=True)
    finding, _, verdict = gain_line(summary).rpartition(": ")
    style = _STYLES[verdict]
    out.print(f"\n{worded(finding)}: [{style}]{verdict}[/{style}]", soft_wrap=True)
    for warning in summary["warnings"]:
        out.print(f"[yellow]![/yellow] {worded(warning)}", soft_wrap=True)
    out.print(f"[dim]* best on the validation part; report: {escape(str(page))}[/dim]", soft_wrap=True)


def show_combined(report: Mapping[str, Any], folder: Path) -> None:
    """The joined report of a fold-by-fold ensemble, then its grids and the finding in words."""
    from samo.reporting.wording import combined_gain_line, weights_by_fold
    from samo_cli.render.grid import show_crossval

    show_crossval(report, folder)
    how = report["combined"]
    rows = [
        (
            row["grid"] + (" *" if row["grid"] == how["best_grid"] else ""), str(row["runs"]),
            weights_by_fold(row["weights"]), number(row["val_macro_f1"]),
            number(row["macro_f1"]),
        )
        for row in how["grids"]
    ]  # fmt: skip
    heads = ("grid", "runs", "weight by fold", "validation macro-F1", "joined macro-F1")
    show_table(heads, rows, whole=("grid",), numbers=heads[1:])
    finding, _, verdict = combined_gain_line(how).rpartition(": ")
    style = _STYLES[verdict]
    out.print(f"{escape(finding)}: [{style}]{verdict}[/{style}]", soft_wrap=True)


def _scores(row: Mapping[str, Any]) -> tuple[str, str, str]:
    ends = row["interval"]
    return number(row["val_macro_f1"]), number(row["macro_f1"]), f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-"
