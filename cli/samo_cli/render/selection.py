"""Encoders trained alike, the best on validation first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from samo_cli.render.console import err, out
from samo_cli.render.tables import number, plain_table

__all__ = ["show_choice"]

_STYLES = {"better": "bold green", "worse": "bold red", "cannot tell": "bold"}


def show_choice(account: Mapping[str, Any], next_command: str) -> None:
    """A row for each encoder, the finding in words, and the next command."""
    from samo.experiments.selection import gain_line
    from samo.reporting.report import stamps

    title = f"{account['grid']}: {account['dataset']}, validation part, {account['n']} items"
    out.print(f"\n[bold]{escape(title)}[/bold]", soft_wrap=True)
    for mark in stamps(account):
        out.print(f"[bold yellow]{mark}[/bold yellow]")
    table = plain_table()
    table.add_column("encoder", overflow="fold")
    for head in ("val macro-F1", f"{account['level']:.0%} interval", "minutes", "epochs"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in account["candidates"]:
        ends = row["ci"]
        interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-"
        cells = (number(row["val_macro_f1"]), interval, number(row["minutes"], 1), str(row["epochs"]))
        table.add_row(escape(row["name"]), *cells, style="bold" if row["name"] == account["best"] else "")
    out.print(table)
    for left in account["left_out"]:
        out.print(f"[yellow]![/yellow] left out: {escape(left['name'])} ({escape(left['reason'])})", soft_wrap=True)
    if account["gain"]:
        finding, _, verdict = gain_line(account).rpartition(": ")
        out.print(f"\n{escape(finding)}: [{_STYLES[verdict]}]{verdict}[/{_STYLES[verdict]}]", soft_wrap=True)
    for warning in account["warnings"]:
        out.print(f"[yellow]![/yellow] {escape(warning)}", soft_wrap=True)
    out.print(f"kept as run {escape(account['run'])}", soft_wrap=True)
    err.print(f"next: {escape(next_command)}", soft_wrap=True)
