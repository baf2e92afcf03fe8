"""The pictures of a report, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from samo.evaluation.decision import decided_rows
from samo.evaluation.predictions import Predictions
from samo.evaluation.ranking import roc_curve
from samo.reporting.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    VERMILION,
    blank_figure,
    legend_below,
    names_below,
    new_figure,
    plain_axes,
    save_named,
    verbatim,
)
from samo.tasks import LabelSpace

__all__ = [
    "by_group_figure",
    "confusion_figure",
    "per_class_figure",
    "reliability_figure",
    "risk_coverage_figure",
    "roc_figure",
    "save_figures",
    "training_figure",
]

# Okabe & Ito without yellow, which is too faint for a line on white; twice, told apart by the dash.
_LINES = [
    (colour, dash)
    for dash in ("-", "--")
    for colour in (BLUE, VERMILION, GREEN, "#CC79A7", ORANGE, "#56B4E9", INK, "#7f5f3f")
]
# With more curves than this only the worst are coloured: they are what the reader looks for.
_COLOURED_CURVES = 10
_CELL: dict[str, Any] = {"color": GREY, "edgecolor": "white"}


def save_figures(
    report: Mapping[str, Any],
    predictions: Predictions,
    history: Sequence[Mapping[str, Any]],
    label_space: LabelSpace,
    folder: Path,
) -> list[Path]:
    """Draw what there is to draw and return the files, each written and then renamed.

    Args:
        report: from :func:`samo.reporting.report.build_report`.
        predictions: what the report was made from.
        history: one row an epoch with ``epoch``, ``train_loss``, ``val_loss``, ``val_macro_f1``, ``lr``; may be empty.
        label_space: the tasks and their columns.
        folder: where the PNG files go; made when missing.
    """
    figures = {"confusion": confusion_figure(report), "per_class": per_class_figure(report)}
    unit = report["ci"]["unit"]
    if len(report["by_group"].get(unit, {})) > 1:
        figures[f"by_{unit}"] = by_group_figure(report, unit)
    if any(row["roc_auc"] is not None for row in report["per_class"].values()):
        figures["roc"] = roc_figure(report, predictions, label_space)
    figures["reliability"] = reliability_figure(report)
    figures["risk_coverage"] = risk_coverage_figure(report)
    if history:
        figures["training"] = training_figure(report, history)
    return save_named(figures, folder)


def confusion_figure(report: Mapping[str, Any]) -> Figure:
    """Counts in cells, coloured by the share of the true class."""
    labels, matrix = [verbatim(label) for label in report["labels"]], np.array(report["confusion"])
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    n = len(labels)
    side = max(4.6, 0.58 * n) if n <= 12 else 0.36 * n
    figure, axes = new_figure(report, "Confusion matrix", side + 1.9, side + 1.3)
    image = axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(n), labels, rotation=40 if n <= 12 else 90, ha="right" if n <= 12 else "center")
    axes.set_yticks(range(n), labels)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    # White lines between the cells keep neighbours of one colour apart.
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for (row, column), count in np.ndenumerate(matrix):
        if count or row == column:
            ink = "white" if share[row, column] > 0.55 else INK
            axes.text(column, row, f"{count}", ha="center", va="center", color=ink, fontsize=10 if n <= 12 else 6.5)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return figure


def per_class_figure(report: Mapping[str, Any]) -> Figure:
    """F1 by label, best first, with the number of rows; dots mark precision and recall."""
    table = report["per_class"]
    labels = sorted(table, key=lambda label: (table[label]["f1"], label))
    figure, axes = new_figure(report, "F1 by class", 7.2, 1.9 + 0.4 * len(labels))
    places = np.arange(len(labels))
    bars = axes.barh(places, [table[label]["f1"] for label in labels], color=BLUE, height=0.62, alpha=0.85, label="F1")
    # The circle is the larger, so that it still shows where both have one value.
    dots = [
        axes.scatter(
            [table[label][name] for label in labels],
            places, s=size, color=colour, marker=marker, edgecolor="white", zorder=3, label=name,
        )
        for name, colour, marker, size in (("precision", ORANGE, "o", 75), ("recall", VERMILION, "D", 26))
    ]  # fmt: skip
    mean = report["metrics"]["macro_f1"]
    line = axes.axvline(mean, color=INK, linewidth=1.2, linestyle="--", label=f"macro-F1 {mean:.3f}")
    axes.set_yticks(places, [f"{verbatim(label)}  (n = {table[label]['support']})" for label in labels])
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.grid(axis="y", visible=False)
    legend_below(figure, [bars, *dots, line])
    return figure


def by_group_figure(report: Mapping[str, Any], attribute: str) -> Figure:
    """Macro-F1 of each group, lowest first, with the groups' mean."""
    table = {name: row for name, row in report["by_group"][attribute].items() if row["macro_f1"] is not None}
    names = sorted(table, key=lambda name: table[name]["macro_f1"])
    values = [table[name]["macro_f1"] for name in names]
    many = len(names) > 30
    width = max(6.0, 2.0 + (0.2 if many else 0.34) * len(names))
    attribute = verbatim(attribute)
    figure, axes = new_figure(report, f"Macro-F1 by {attribute}", width, 4.2)
    axes.bar(range(len(names)), values, color=BLUE, alpha=0.85, width=0.7)
    mean, worst = float(np.mean(values)), values[0]
    line = axes.axhline(mean, color=INK, linewidth=1.2, linestyle="--", label=f"mean over {attribute}s {mean:.3f}")
    names_below(axes, names)
    axes.set_xlabel(f"{attribute} (lowest {worst:.3f}, highest {values[-1]:.3f})")
    axes.set_ylabel("macro-F1 over its labels")
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_ylim(0, 1)
    axes.grid(axis="x", visible=False)
    legend_below(figure, [line])
    return figure


def roc_figure(report: Mapping[str, Any], predictions: Predictions, label_space: LabelSpace) -> Figure:
    """One label against the rest: true positive rate over false positive rate."""
    task = next(task for task in label_space.tasks if task.name == report["task"])
    # A temperature moves rows past each other in a column of a softmax: without it the area is not the report's.
    # Out-of-fold predictions are already under those of their folds.
    found = decided_rows(task, predictions, label_space, {task.name: report["calibration"]["temperature"] or 1.0})
    areas = {label: row["roc_auc"] for label, row in report["per_class"].items() if row["roc_auc"] is not None}
    worst_first = sorted(areas, key=lambda label: areas[label])
    coloured = worst_first[:_COLOURED_CURVES][::-1]
    figure, axes = new_figure(report, "ROC curves, one class against the rest", 7.6, 5.2)
    for label in worst_first[_COLOURED_CURVES:]:
        column = task.labels.index(label)
        axes.plot(*roc_curve(found.truth[:, column], found.probabilities[:, column]), color="#d0d0d0", lw=1)
    for label, (colour, dash) in zip(coloured, _LINES, strict=False):
        column = task.labels.index(label)
        false, true = roc_curve(found.truth[:, column], found.probabilities[:, column])
        axes.plot(
            false, true, color=colour, linestyle=dash, linewidth=1.7, label=f"{verbatim(label)}  {areas[label]:.3f}"
        )
    if len(worst_first) > _COLOURED_CURVES:
        axes.plot([], [], color="#d0d0d0", label=f"{len(worst_first) - _COLOURED_CURVES} better ones")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="chance  0.500")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.legend(title="area under the curve", loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False)
    return figure


def reliability_figure(report: Mapping[str, Any]) -> Figure:
    """Accuracy over confidence by bin with the rows in each, before and after the temperature (Guo et al. 2017)."""
    scores = report["calibration"]
    shown = [("", "no temperature was fitted")]
    if scores["fitted_on"]:
        own = scores["temperature"]
        after = (
            f"the {scores['fitted_on']} temperature of each fold"
            if own is None
            else (f"temperature {own:.2f}, fitted on {scores['fitted_on']}")
        )
        shown = [("_uncalibrated", "before: temperature 1"), ("", after)]
    figure = blank_figure(report, "Reliability diagram", 1.6 + 4.0 * len(shown), 5.6)
    grid = figure.subplots(2, len(shown), sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False)
    handles: list[Any] = []
    for (top, bottom), (suffix, words) in zip(grid.T, shown, strict=True):
        handles = _reliability(top, scores[f"bins{suffix}"])
        bins = scores[f"bins{suffix}"]
        bottom.bar([row["low"] for row in bins], [row["count"] for row in bins], _widths(bins), align="edge", **_CELL)
        bottom.set_xlabel("confidence")
        plain_axes(top)
        plain_axes(bottom)
        top.set_title(f"{words}\nexpected calibration error {scores[f'ece{suffix}']:.3f}", fontsize=10)
    grid[0, 0].set_ylabel("accuracy")
    grid[1, 0].set_ylabel("count")
    legend_below(figure, handles)
    return figure


def risk_coverage_figure(report: Mapping[str, Any]) -> Figure:
    """Share of wrong answers over the share of rows that are answered, the most confident first."""
    scores = report["abstention"]
    figure, axes = new_figure(report, "Risk and coverage", 6.4, 4.4)
    coverage, risk = ([point[name] for point in scores["curve"]] for name in ("coverage", "risk"))
    handles: list[Any] = axes.plot(coverage, risk, color=BLUE, linewidth=1.7, label=f"area (AURC) {scores['aurc']:.3f}")
    whole = f"all answered {scores['risk']:.3f}"
    handles.append(axes.axhline(scores["risk"], color=GREY, linestyle=":", label=whole))
    if scores["threshold"] is not None and scores["answered"]:
        place = [scores["coverage"]], [scores["answered_risk"]]
        label = f"threshold {scores['threshold']:.3f}"
        handles.append(axes.scatter(*place, color=VERMILION, zorder=3, label=label))
    axes.set_xlabel("coverage: share of rows that are answered")
    axes.set_ylabel("risk: share of wrong answers")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, min(1.0, 1.1 * max([*risk, 0.05])))
    legend_below(figure, handles)
    return figure


def training_figure(report: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses, validation macro-F1 and learning rate by epoch; a line marks the epoch that was kept."""
    figure = blank_figure(report, "Training", 7.6, 6.6, about=report["run"])
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[2, 2, 1])
    epochs = _column(history, "epoch")
    top.plot(epochs, _column(history, "train_loss"), color=BLUE, marker=".", label="training")
    top.plot(epochs, _column(history, "val_loss"), color=VERMILION, marker=".", linestyle="--", label="validation")
    top.set_ylabel("loss")
    top.legend(frameon=False)
    f1 = _column(history, "val_macro_f1")
    middle.plot(epochs, f1, color=VERMILION, marker=".", linestyle="--")
    middle.set_ylabel("validation macro-F1")
    middle.set_ylim(0, min(1.0, max(0.1, 1.15 * np.nanmax(f1))) if np.isfinite(f1).any() else 1.0)
    rates = _column(history, "lr")
    bottom.plot(epochs, rates, color=GREEN, marker=".")
    bottom.set_ylabel("learning rate")
    bottom.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    bottom.set_ylim(0, 1.1 * np.nanmax(rates, initial=0.0) or 1.0)
    bottom.set_xlabel("epoch")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    bottom.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    for axes in (top, middle, bottom):
        plain_axes(axes)
    best = _best(history)
    if best is not None:
        for axes in (top, middle, bottom):
            axes.axvline(epochs[best], color=INK, linewidth=1, linestyle=":")
        middle.plot(epochs[best], f1[best], marker="o", markersize=9, color=VERMILION, markeredgecolor=INK)
        middle.set_title(f"best: {f1[best]:.3f} in epoch {epochs[best]:.0f}", fontsize=10, loc="left", pad=3)
    return figure


def _reliability(axes: Axes, bins: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Bars of accuracy, and on them the distance of each from its bin's mean confidence."""
    filled = [row for row in bins if row["count"]]
    lows, widths = [row["low"] for row in filled], _widths(filled)
    accuracy = [row["accuracy"] for row in filled]
    gap = [row["confidence"] - row["accuracy"] for row in filled]
    bars = axes.bar(lows, accuracy, widths, align="edge", color=BLUE, edgecolor="white", alpha=0.85, label="accuracy")
    gaps = axes.bar(
        lows, gap, widths, bottom=accuracy, align="edge", fill=False, edgecolor=VERMILION, hatch="////", linewidth=1,
        label="gap to the mean confidence",
    )  # fmt: skip
    (line,) = axes.plot([0, 1], [0, 1], color=INK, linewidth=1.2, linestyle="--", label="perfectly calibrated")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return [bars, gaps, line]


def _widths(bins: Sequence[Mapping[str, Any]]) -> list[float]:
    return [row["high"] - row["low"] for row in bins]


def _best(history: Sequence[Mapping[str, Any]]) -> int | None:
    """Row of the highest macro-F1, ties by lower loss, as the trainer chooses."""
    f1, loss = _column(history, "val_macro_f1"), _column(history, "val_loss")
    rows = np.flatnonzero(np.isfinite(f1))
    return int(min(rows, key=lambda row: (-f1[row], np.nan_to_num(loss[row], nan=math.inf)))) if len(rows) else None


def _column(history: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """(E,) float64, NaN where an epoch has no such value."""
    return np.array([np.nan if row.get(name) is None else row[name] for row in history], dtype=np.float64)
