"""The pictures of a comparison: differences from the baseline with their intervals, in all and by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from samo.errors import counted
from samo.reporting.drawing import BLUE, GREY, INK, VERMILION, legend_below, new_figure, save_named, verbatim

__all__ = ["difference_figure", "per_class_difference_figure", "save_comparison_figures"]

# Colour and sign of a verdict: readers who see no colours have the sign.
_VERDICTS = {"better": (BLUE, "D"), "worse": (VERMILION, "s"), "cannot tell": (GREY, "o")}
_SCORES = {"macro_f1": "macro-F1", "uar": "UAR", "accuracy": "accuracy"}


def save_comparison_figures(comparison: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw ``differences.png`` and a ``per_class.RUN.png`` for each run; returns the files.

    Args:
        comparison: from :func:`samo.evaluation.comparison.build_comparison`.
        folder: where the files go, each written and then renamed; made when missing.
    """
    figures = {"differences": difference_figure(comparison)}
    for row in comparison["comparisons"]:
        figures[f"per_class.{row['run']}"] = per_class_difference_figure(comparison, row)
    return save_named(figures, folder)


def difference_figure(comparison: Mapping[str, Any]) -> Figure:
    """A forest plot: each run's differences in macro-F1, UAR and accuracy."""
    rows = [(row, key) for row in comparison["comparisons"] for key in _SCORES]
    cells = [row["scores"][key] for row, key in rows]
    # Runs stand apart by a gap, each under its name.
    places = np.array([-(k + 1.6 * (k // len(_SCORES))) for k in range(len(rows))])
    about = f"baseline {comparison['baseline']}"
    figure, axes = _about(comparison, "Difference from the baseline", about, 8.4, 1.7 + 0.34 * (2 - places.min()))
    _draw(axes, cells, places)
    axes.set_yticks(places, [_SCORES[key] for _, key in rows])
    for number, row in enumerate(comparison["comparisons"]):
        axes.text(
            0.01, places[number * len(_SCORES)] + 0.95, verbatim(row["run"]), transform=axes.get_yaxis_transform(),
            fontweight="bold", fontsize=9.5, va="center", color=INK,
        )  # fmt: skip
    axes.set_ylim(places.min() - 0.7, 1.6)
    _finish(figure, axes, cells, comparison, "scores")
    return figure


def per_class_difference_figure(comparison: Mapping[str, Any], row: Mapping[str, Any]) -> Figure:
    """The difference in F1 by class of one run, largest gain first."""
    table = row["per_class"]
    labels = sorted(table, key=lambda label: (table[label]["difference"], label))
    cells, places = [table[label] for label in labels], np.arange(len(labels), dtype=np.float64)
    about = f"{row['run']} minus baseline {comparison['baseline']}"
    figure, axes = _about(comparison, "Difference in F1 by class", about, 8.4, 1.9 + 0.36 * len(labels))
    _draw(axes, cells, places)
    axes.set_yticks(places, [verbatim(label) for label in labels])
    axes.set_ylim(-0.7, len(labels) - 0.3)
    _finish(figure, axes, cells, comparison, "classes")
    return figure


def _about(comparison: Mapping[str, Any], title: str, about: str, width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure under the report's heading and stamps."""
    return new_figure({**comparison, "run": about}, title, width, height)


def _draw(axes: Axes, cells: Sequence[Mapping[str, Any]], places: np.ndarray) -> None:
    for cell, place in zip(cells, places, strict=True):
        colour, sign = _VERDICTS[cell["verdict"]]
        if cell["low"] is not None:
            axes.plot([cell["low"], cell["high"]], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(cell["difference"], place, marker=sign, color=colour, markersize=7.5, markeredgecolor="white")
        axes.text(
            1.015, place, f"{cell['baseline']:.3f} → {cell['run']:.3f}", transform=axes.get_yaxis_transform(),
            va="center", fontsize=8.5, color="#555555",
        )  # fmt: skip


def _finish(
    figure: Figure, axes: Axes, cells: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any], family: str
) -> None:
    """The line of no difference in the middle of a symmetric axis, and a legend of the verdicts."""
    ends = [abs(cell[key]) for cell in cells for key in ("low", "high", "difference") if cell[key] is not None]
    reach = 1.08 * max(*ends, 0.02)
    axes.axvline(0.0, color=INK, linewidth=1.2)
    axes.set_xlim(-reach, reach)
    axes.grid(axis="y", visible=False)
    level, unit = comparison["level"], comparison["unit"]
    axes.set_xlabel(f"difference with its {level:.0%} interval over {counted(comparison['n_units'], unit)}")
    correction = comparison["correction"]
    handles = [
        Line2D([], [], color=colour, marker=sign, markersize=7.5, markeredgecolor="white", linewidth=2.2, label=verdict)
        for verdict, (colour, sign) in _VERDICTS.items()
    ]
    number = correction[family]
    handles.append(
        Line2D(
            [],
            [],
            linestyle="",
            label=f"by p after {correction['method']}, {counted(number, 'test')}; intervals uncorrected",
        )
    )
    legend_below(figure, handles)
