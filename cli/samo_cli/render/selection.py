"""Encoders trained alike, the best on validation first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from samo.errors import counted
from samo_cli.render.console import err, out, worded
from samo_cli.render.tables import number, plain_table

__all__ = ["show_selection"]

_STYLES = {"better": "bold green", "worse": "bold red", "cannot tell": "bold"}


def show_selection(summary: Mapping[str, Any], next_command: str) -> None:
    """A row for each encoder, the finding in words, and the next command."""
    from samo.experiments.selection import gain_line
    from samo.reporting.report import stamps

    title = f"{summary['grid']}: {summary['dataset']}, validation part, {counted(summary['n'], 'item')}"
    out.print(f"\n[bold]{escape(title)}[/bold]", soft_wrap=True)
    for mark in stamps(summary):
        out.print(f"[bold yellow]{mark}[/bold yellow]")
    table = plain_table()
    table.add_column("encoder", overflow="fold")
    for head in ("val macro-F1", f"{summary['level']:.0%} interval", "minutes", "epochs"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in summary["candidates"]:
        ends = row["ci"]
        interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-"
        cells = (number(row["val_macro_f1"]), interval, number(row["minutes"], 1), str(row["epochs"]))
        table.add_row(escape(row["name"]), *cells, style="bold" if row["name"] == summary["best"] else "")
    out.print(table)
    for left in summary["left_out"]:
        out.print(f"[yellow]![/yellow] left out: {escape(left['name'])} ({worded(left['reason'])})", soft_wrap=True)
    if summary["gain"]:
        finding, _, verdict = gain_line(summary).rpartition(": ")
        out.print(f"\n{worded(finding)}: [{_STYLES[verdict]}]{verdict}[/{_STYLES[verdict]}]", soft_wrap=True)
    for warning in summary["warnings"]:
        out.print(f"[yellow]![/yellow] {worded(warning)}", soft_wrap=True)
    out.print(f"kept as run {escape(summary['run'])}", soft_wrap=True)
    err.print(f"next: {escape(next_command)}", soft_wrap=True)
