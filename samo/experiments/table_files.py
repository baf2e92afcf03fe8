"""A grid's table as Markdown, CSV, JSON and one HTML page with its forest plot."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from matplotlib.figure import Figure

from samo.experiments.results_table import CORRECTION, GridTable, Row
from samo.files import write_json, write_text
from samo.reporting.drawing import BLUE, GREEN, GREY, INK, VERMILION, save_figure
from samo.reporting.html import METRIC_NAMES

__all__ = ["COLOURS", "forest_figure", "heads_of", "marks", "text_rows", "write_table"]

COLOURS = {"better": GREEN, "worse": VERMILION, "cannot tell": GREY, "": INK}


def write_table(table: GridTable, scores: Mapping[str, Sequence[float]], folder: Path, command: str) -> list[Path]:
    """Write ``table.md``, ``.csv``, ``.json``, ``.html`` and ``forest.png``; returns the files.

    Args:
        table: from :func:`samo.experiments.results_table.make_table`.
        scores: the metric of each cell, by row.
        folder: the grid's folder.
        command: what was typed, printed below the table.
    """
    heads, rows = heads_of(table), text_rows(table)
    forest = folder / "forest.png"
    save_figure(forest_figure(table, scores), forest)
    write_text(folder / "table.md", _markdown(table, heads, rows, command))
    write_text(folder / "table.csv", _csv(table))
    source = files("samo.experiments").joinpath("results_table.html.jinja").read_text(encoding="utf-8")
    from jinja2 import Environment, StrictUndefined

    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(source)
    picture = "data:image/png;base64," + base64.b64encode(forest.read_bytes()).decode("ascii")
    page = template.render(table=table, heads=heads, rows=rows, forest=picture, marks=marks(table), command=command)
    write_text(folder / "table.html", page)
    write_json(folder / "table.json", table.to_json())
    return [folder / name for name in ("table.md", "table.csv", "table.html", "table.json", "forest.png")]


def marks(table: GridTable) -> list[str]:
    """What every output of this table must say in so many words."""
    return ["synthetic demo data"] * table.synthetic + ["LEAKY SPLIT"] * table.leaky


def heads_of(table: GridTable) -> tuple[str, ...]:
    """Column heads, the same on the terminal and in every file."""
    name = METRIC_NAMES[table.metric]
    return (
        "row", "n", f"{name}, mean", "sd", f"pooled [95 % over {table.unit}s]",
        f"difference from {table.baseline} [95 %]", f"p ({CORRECTION})", "verdict",
    )  # fmt: skip


def text_rows(table: GridTable) -> list[tuple[str, ...]]:
    """One row of text cells for each row of the table."""
    return [
        (
            row.name,
            str(row.n),
            f"{row.mean:.3f}",
            "-" if row.sd is None else f"{row.sd:.3f}",
            f"{row.pooled:.3f}{_ends(row.low, row.high)}",
            _difference(row),
            "-" if row.p_corrected is None else f"{row.p_corrected:.3f}" if row.p_corrected >= 0.001 else "< 0.001",
            row.verdict or "baseline",
        )
        for row in table.rows
    ]


def forest_figure(table: GridTable, scores: Mapping[str, Sequence[float]]) -> Figure:
    """Left every cell and the mean of each row; right the paired difference from the baseline with its interval."""
    n = len(table.rows)
    figure = Figure(figsize=(10.5, 1.5 + 0.42 * n), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    for place, row in enumerate(table.rows):
        colour = COLOURS[row.verdict]
        left.plot(list(scores[row.name]), [place] * len(scores[row.name]), "o", color=BLUE, alpha=0.45, markersize=4)
        left.plot([row.mean], [place], "|", color=INK, markersize=16, markeredgewidth=2)
        if row.difference is None:
            continue
        right.plot([row.difference.mean], [place], "o", color=colour, markersize=6)
        if row.difference.low is not None and row.difference.high is not None:
            right.plot([row.difference.low, row.difference.high], [place] * 2, "-", color=colour, linewidth=2)
    right.axvline(0.0, color=INK, linewidth=0.8)
    left.set_yticks(range(n), [row.name for row in table.rows])
    left.set_ylim(n - 0.5, -0.5)
    name = METRIC_NAMES[table.metric]
    left.set_xlabel(f"{name} of each cell on its test part; bar: mean")
    right.set_xlabel(f"{name} minus that of {table.baseline}, 95 % interval")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color=GREY, alpha=0.3)
    stamp = "".join(f"  ·  {mark}" for mark in marks(table))
    figure.suptitle(f"{table.name}: {table.n_done} of {table.n_cells} cells{stamp}", fontsize=10)
    return figure


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    ends = "" if row.difference.low is None else f" [{row.difference.low:+.3f}, {row.difference.high:+.3f}]"
    return f"{row.difference.mean:+.3f}{ends}"


def _markdown(table: GridTable, heads: Sequence[str], rows: Sequence[Sequence[str]], command: str) -> str:
    lines = [f"# {table.name}", "", f"{table.n_done} of {table.n_cells} cells. {' '.join(marks(table))}".rstrip(), ""]
    lines += ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines += ["", *(f"- {note}" for note in table.notes), "", "```console", f"$ {command}", "```", ""]
    return "\n".join(lines)


def _csv(table: GridTable) -> str:
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(
        ["row", "n", f"{table.metric}_mean", "sd", "pooled", "pooled_low", "pooled_high", "pairs", "difference",
         "difference_low", "difference_high", "p", f"p_{CORRECTION.lower()}", "verdict"]
    )  # fmt: skip
    for row in table.rows:
        found = row.difference
        paired = (found.n, found.mean, found.low, found.high, found.p) if found else (None,) * 5
        writer.writerow(
            [row.name, row.n, row.mean, row.sd, row.pooled, row.low, row.high, *paired, row.p_corrected, row.verdict]
        )
    return sheet.getvalue()
