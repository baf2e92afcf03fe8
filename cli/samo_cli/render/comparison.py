"""A comparison as tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from samo.errors import counted, plural
from samo_cli.render.console import out, worded
from samo_cli.render.tables import number, plain_table, titled

__all__ = ["show_comparison"]

_STYLES = {"better": "bold green", "worse": "bold red", "cannot tell": "dim"}


def show_comparison(comparison: Mapping[str, Any], folder: Path) -> None:
    """Macro-F1 of every run against the baseline, each run's other scores and classes, and the finding in words."""
    from samo.reporting.report import stamps

    units = "" if comparison["unit"] == "row" else f" of {counted(comparison['n_units'], comparison['unit'])}"
    title = f"{comparison['dataset']}, {comparison['split']} part: {counted(comparison['n'], 'item')}{units}"
    out.print(f"\n[bold]{escape(title)}[/bold] [dim](split: {escape(comparison['split_rule'])})[/dim]", soft_wrap=True)
    for mark in stamps(comparison):
        out.print(f"[bold yellow]{mark}[/bold yellow]")
    out.print(_runs(comparison))
    for row in comparison["comparisons"]:
        out.print()
        out.print(_details(row, comparison))
    out.print()
    out.print(f"[dim]{escape(_legend(comparison))}[/dim]")
    for row in comparison["comparisons"]:
        out.print(_sentence(row, comparison), soft_wrap=True)
    for warning in comparison["warnings"]:
        out.print(f"[yellow]![/yellow] {worded(warning)}", soft_wrap=True)
    out.print(f"[dim]pictures and comparison.json: {escape(str(folder))}[/dim]", soft_wrap=True)


def _runs(comparison: Mapping[str, Any]) -> Table:
    table = _table("run", ("macro-F1",), comparison)
    rows = comparison["comparisons"]
    baseline = rows[0]["scores"]["macro_f1"]["baseline"]
    table.add_row(escape(comparison["baseline"]), number(baseline), "", "", "", "baseline")
    for row in rows:
        table.add_row(escape(row["run"]), *_cells(row["scores"]["macro_f1"])[1:])
    return table


def _details(row: Mapping[str, Any], comparison: Mapping[str, Any]) -> Group:
    table = _table("", ("baseline", "run"), comparison)
    for key, name in (("uar", "UAR"), ("accuracy", "accuracy")):
        table.add_row(name, *_cells(row["scores"][key]))
    if test := row["mcnemar"]:
        only, more = (str(test["only_baseline"]), str(test["only_run"])), test["only_run"] - test["only_baseline"]
        table.add_row("McNemar", *only, f"{more:+d}", "", _p(test["p_corrected"]), _word(test["verdict"]))
    table.add_section()
    table.add_row("[dim]class F1[/dim]")
    for label, cell in row["per_class"].items():
        table.add_row(escape(label), *_cells(cell))
    return titled(f"{row['run']} against {comparison['baseline']}", table)


def _table(first: str, scores: tuple[str, ...], comparison: Mapping[str, Any]) -> Table:
    table = plain_table()
    table.add_column(first, overflow="fold")
    heads = (*scores, "difference", f"{comparison['level']:.0%} interval", f"p ({comparison['correction']['method']})")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    return table


def _cells(cell: Mapping[str, Any]) -> tuple[str, ...]:
    interval = "-" if cell["low"] is None else f"{cell['low']:+.3f} to {cell['high']:+.3f}"
    scores = number(cell["baseline"]), number(cell["run"]), f"{cell['difference']:+.3f}"
    return (*scores, interval, _p(cell["p_corrected"]), _word(cell["verdict"]))


def _p(value: float | None) -> str:
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _word(verdict: str) -> str:
    return f"[{_STYLES[verdict]}]{verdict}[/{_STYLES[verdict]}]"


def _legend(comparison: Mapping[str, Any]) -> str:
    """What was corrected for, and what the counts of McNemar's row are."""
    by, unit = comparison["correction"], comparison["unit"]
    text = (
        f"paired bootstrap over {unit}s; p-values corrected after {by['method']} for {by['scores']} "
        f"{plural('run', by['scores'])} (F1 of classes: {counted(by['classes'], 'test')}), intervals not corrected"
    )
    if any(row["mcnemar"] for row in comparison["comparisons"]):
        text += "; McNemar counts the items that only one of the two has right"
    return text


def _sentence(row: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """The finding on macro-F1 in plain words."""
    cell, unit = row["scores"]["macro_f1"], comparison["unit"]
    run, baseline = escape(row["run"]), escape(comparison["baseline"])
    if cell["difference"] == 0:
        return f"{run} and {baseline} have the same macro-F1"
    if cell["verdict"] == "cannot tell":
        return f"[bold]cannot tell[/bold] {run} from {baseline}: other {escape(unit)}s might turn the order round"
    return f"{run} is {_word(cell['verdict'])} than {baseline} by {abs(cell['difference']):.3f} in macro-F1"
