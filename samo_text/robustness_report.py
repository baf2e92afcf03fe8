"""A robustness report as JSON, one picture, and a page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from samo.files import write_json, write_text
from samo.reporting.drawing import (
    BLUE,
    GREY,
    INK,
    VERMILION,
    blank_figure,
    legend_below,
    plain_axes,
    save_figure,
    verbatim,
)
from samo.reporting.html import page_template
from samo.reporting.report import stamps

__all__ = ["HEADS", "robustness_figure", "text_rows", "write_robustness"]

HEADS = ("rewriting", "texts changed", "macro-F1", "difference", "interval", "answers changed", "verdict")
_COLOURS = {"worse": VERMILION, "cannot tell": GREY, "better": BLUE}


def write_robustness(report: Mapping[str, Any], folder: Path) -> Path:
    """Write ``robustness.png``, ``.html`` and ``.json`` (``robustness.val.*`` for that part); returns the page."""
    stem = "robustness" if report["split"] == "test" else f"robustness.{report['split']}"
    picture, page = folder / f"{stem}.png", folder / f"{stem}.html"
    drawn = any(cells(task) for task in report["tasks"].values())
    if drawn:
        save_figure(robustness_figure(report), picture)
    else:
        picture.unlink(missing_ok=True)
    template = page_template("samo_text", "robustness.html.jinja")
    embedded = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii") if drawn else ""
    text = template.render(
        report=report,
        heads=HEADS,
        rows={task: text_rows(report, task) for task in report["tasks"]},
        marks=stamps(report),
        picture=embedded,
        alt=_alt(report),
    )
    write_text(page, text)
    write_json(folder / f"{stem}.json", report)
    return page


def cells(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rewritings of a task that have a macro-F1."""
    return [row for row in task["rewrites"] if row["difference"] is not None]


def text_rows(report: Mapping[str, Any], task: str) -> list[tuple[str, ...]]:
    """One row of text cells under :data:`HEADS` for each rewriting, the same on the terminal and on the page."""
    found: list[tuple[str, ...]] = []
    changed = {row["name"]: row["n_changed"] for row in report["rewrites"]}
    for row in report["tasks"][task]["rewrites"]:
        scored = row["difference"] is not None
        interval = f"{row['low']:+.3f} to {row['high']:+.3f}" if row["low"] is not None else "-"
        found.append(
            (
                row["name"],
                str(changed[row["name"]]),
                f"{row['macro_f1']:.3f}" if scored else "-",
                f"{row['difference']:+.3f}" if scored else "-",
                interval,
                f"{100 * row['answers_changed']:.1f} %",
                row["verdict"] or "-",
            )
        )
    return found


def robustness_figure(report: Mapping[str, Any]) -> Figure:
    """A bar for each rewriting: macro-F1 minus that of the texts as they are, with its interval; a column a task."""
    shown = {name: task for name, task in report["tasks"].items() if cells(task)}
    n_rows = max(len(cells(task)) for task in shown.values())
    figure = blank_figure(report, "Texts written otherwise", 4.0 + 4.4 * len(shown), 1.5 + 0.36 * n_rows)
    columns = np.atleast_1d(figure.subplots(1, len(shown), sharey=True))
    for axes, (name, task) in zip(columns, shown.items(), strict=True):
        plain_axes(axes)
        rows = cells(task)
        for place, row in enumerate(rows):
            axes.barh(place, row["difference"], height=0.62, color=_COLOURS[row["verdict"]])
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [place, place], color=INK, linewidth=1.6)
            axes.text(
                1.015, place, f"{row['macro_f1']:.3f}", transform=axes.get_yaxis_transform(), va="center", fontsize=8.5,
                color="#555555",
            )  # fmt: skip
        axes.axvline(0.0, color=INK, linewidth=1.0)
        axes.set_yticks(range(len(rows)), [verbatim(row["name"]) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{verbatim(name)}: macro-F1 minus {task['macro_f1']:.3f} of the texts as they are")
    handles = [Patch(color=colour, label=word) for word, colour in _COLOURS.items()]
    lines = f"{report['level']:.0%} intervals over {report['unit']}s; colours by p after Holm"
    legend_below(figure, [*handles, Line2D([], [], color=INK, linewidth=1.6, label=lines)])
    return figure


def _alt(report: Mapping[str, Any]) -> str:
    rows = [(row["difference"], row["name"]) for task in report["tasks"].values() for row in cells(task)]
    if not rows:
        return "No rewriting was scored."
    worst, name = min(rows)
    return f"Difference in macro-F1 under {len(rows)} rewritings; the largest loss is {worst:+.3f} under: {name}."
