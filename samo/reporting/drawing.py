"""How all pictures look: colours, headings, axes, and how they are saved.

Figures are built without pyplot: no global state, no display, safe in a server's threads. Colours are Okabe & Ito's
(2008), which people with any colour vision can tell apart, and single-hue blue for the confusion matrix.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from samo.files import replacing
from samo.reporting.report import corpus_of, stamps

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "VERMILION",
    "blank_figure",
    "legend_below",
    "names_below",
    "new_figure",
    "plain_axes",
    "save_figure",
    "save_named",
    "verbatim",
    "write_png",
]

BLUE, ORANGE, GREEN, VERMILION, INK, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#222222", "#9a9a9a"
_DPI = 130


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture whole or not at all."""
    with replacing(path) as temporary:
        write_png(figure, temporary)


def write_png(figure: Figure, file: Path, dpi: int = _DPI) -> None:
    """Draw a picture once; ``savefig`` would draw it twice, once to lay out."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # Without a software version the same numbers give the same bytes.
    metadata: Any = {"Software": None}
    imsave(file, canvas.buffer_rgba(), format="png", dpi=dpi, metadata=metadata)


def save_named(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each picture as ``NAME.png``; returns the files."""
    paths = [folder / f"{name}.png" for name in figures]
    for figure, path in zip(figures.values(), paths, strict=True):
        save_figure(figure, path)
    return paths


def blank_figure(report: Mapping[str, Any], title: str, width: float, height: float, about: str = "") -> Figure:
    """An empty figure whose heading says what it is about (run, data, split) and carries the stamps."""
    split = f"{corpus_of(report)}, {report['split']} split by {report['split_rule']}"
    lines = textwrap.wrap(verbatim(about or f"{report['run']}: {split}, n = {report['n']}"), int(width * 12.5))
    marks = " · ".join(stamps(report))
    heading = 0.36 + 0.17 * len(lines) + (0.28 if marks else 0.0)
    total = height + heading - 0.36
    figure = Figure(figsize=(width, total))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - heading / total), h_pad=0.06, w_pad=0.06)
    centred: dict[str, Any] = {"x": 0.5, "ha": "center"}
    figure.text(y=1 - 0.2 / total, s=title, va="center", fontsize=13, fontweight="bold", color=INK, **centred)
    figure.text(y=1 - 0.35 / total, s="\n".join(lines), va="top", fontsize=8.5, color="#555555", **centred)
    if marks:
        place = 1 - (heading - 0.14) / total
        figure.text(y=place, s=marks, va="center", fontsize=10.5, fontweight="bold", color="#B03A00", **centred)
    return figure


def new_figure(report: Mapping[str, Any], title: str, width: float, height: float) -> tuple[Figure, Axes]:
    """The same with one pair of plain axes."""
    figure = blank_figure(report, title, width, height)
    axes = figure.subplots()
    plain_axes(axes)
    return figure, axes


def plain_axes(axes: Axes) -> None:
    """Two spines and a pale grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def names_below(axes: Axes, names: Sequence[str]) -> None:
    """Names at 0, 1, 2 ... below the axes, turned where side by side they would overlap.

    There is room for them where a figure has 2 inches and 0.34 more a name, or 0.2 with more than 30 names.
    """
    many = len(names) > 30
    turned = many or max(map(len, names), default=0) > 3
    axes.set_xticks(range(len(names)), list(map(verbatim, names)), rotation=90 if turned else 0)
    axes.tick_params(axis="x", labelsize=8 if many else 10)


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """Below the axes, where it can cover no bar."""
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def verbatim(text: str) -> str:
    """Keep a dollar sign in a name from starting mathematics, and an underscore from hiding it in a legend."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
