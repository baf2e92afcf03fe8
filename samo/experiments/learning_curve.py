"""Macro-F1 over growing shares of the training speakers (or rows): would more data help?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure

from samo.errors import RunError, counted
from samo.evaluation.significance import PairedDifference, paired_difference, verdict
from samo.experiments.cells import Cell, result_of
from samo.experiments.grid_plan import GridPlan, default_name, make_cell, open_data, open_plan, require_cell_places
from samo.experiments.reporter import GridReporter
from samo.experiments.results_table import LEVEL, overlap_ratio
from samo.experiments.run_grid import run_grid
from samo.files import write_json, write_text
from samo.launch.resources import Resources
from samo.modalities import frontend_type
from samo.printable import csv_text
from samo.reporting.drawing import BLUE, GREY, INK, ORANGE, save_figure
from samo.runs.artifacts import artifacts_root
from samo.settings import Config, stored_config

__all__ = [
    "LearningCurve",
    "Point",
    "curve_figure",
    "curve_of",
    "learning_curve",
    "plan_learning_curve",
    "report_learning_curve",
    "write_curve",
]

SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Point:
    """One share of the training data over its seeds and folds.

    Attributes:
        share: of the training units, in (0, 1].
        n_units: training units (speakers, or rows), averaged over cells.
        n_items: training items, averaged over cells.
        test: macro-F1 on the test part of each cell, in the order of seeds and folds.
        val: the same on validation.
        gain: paired with the next smaller share; None for the smallest.
    """

    share: float
    n_units: float
    n_items: float
    test: tuple[float, ...]
    val: tuple[float, ...]
    gain: PairedDifference | None = None


@dataclass(frozen=True)
class LearningCurve:
    """Points from the smallest share to the largest, and what the last step says in words."""

    name: str
    unit: str
    points: tuple[Point, ...]
    finding: str
    synthetic: bool
    leaky: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"schema": 1, **asdict(self)}


def learning_curve(
    config: Config,
    *,
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = (0, 1, 2),
    folds: Sequence[int] = (),
    name: str = "",
    artifacts: Path | str = "",
    resources: Resources | None = None,
    reporter: GridReporter | None = None,
    command: str = "",
) -> LearningCurve:
    """Train on growing shares of the training speakers (or rows) and say whether more data would help.

    Larger shares hold the smaller ones; validation and test stay the same for all shares of a seed. The same call goes
    on where it stopped; what is finished stays in ``ARTIFACTS/grids/NAME``, also when it fails.

    Args:
        config: settings of every training, from :func:`samo.settings.resolve`.
        shares: of the training units, in (0, 1].
        seeds: every share once with each.
        folds: test on these; empty: the split of the settings.
        name: of the folder; empty makes one from the settings.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        resources: on what; left out: this machine.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the results.

    Raises:
        SettingsError: a share out of range, or a share or seed twice.
        RunError, Interrupted: see :func:`~samo.experiments.run_grid.run_grid`; or no seed was finished for every share.
    """
    plan = plan_learning_curve(config, shares, seeds, folds, name, artifacts, reporter=reporter, command=command)
    try:
        run_grid(plan, resources, reporter)
    finally:
        found = report_learning_curve(plan)
    if found is None:
        raise RunError(
            f"no seed of '{plan.name}' is finished for every share", hint=f"logs are in {plan.folder / 'logs'}"
        )
    return found[0]


def plan_learning_curve(
    config: Config,
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = (0, 1, 2),
    folds: Sequence[int] = (),
    name: str = "",
    artifacts: Path | str = "",
    *,
    reporter: GridReporter | None = None,
    command: str = "",
) -> GridPlan:
    """One cell for each share, seed and fold; see :func:`learning_curve`."""
    sizes = tuple(sorted(float(share) for share in shares))
    cells = tuple(
        make_cell(config, f"{row}.seed{seed}" + ("" if fold is None else f".fold{fold}"), row,
                  seed=seed, fold=fold, limit_fraction=size)
        for size in sizes
        for row in [f"limit_fraction={size}"]
        for seed, fold in itertools.product(seeds, folds or (None,))
    )  # fmt: skip
    grids, about = artifacts_root(str(artifacts)) / "grids", (tuple(seeds), tuple(folds), sizes)
    first = stored_config(cells[0].settings)
    # A made-up name is of what opening the data finds out: a finished grid is found before anything is asked for.
    located = first if name else frontend_type(first.modality).located(first)
    name = name or default_name("learning-curve", located, *about)
    require_cell_places(cells, grids / name)
    frontend = open_data(first, reporter)
    plan = GridPlan("learning-curve", grids / name, cells, command=command)
    return open_plan(plan, frontend=frontend)


def report_learning_curve(plan: GridPlan) -> tuple[LearningCurve, list[Path]] | None:
    """Write and return the curve of the cells that are evaluated, and its files; None while there is no point."""
    curve = curve_of(plan.name, plan.cells, plan.folder, plan.unit)
    return (curve, write_curve(curve, plan.folder)) if curve.points else None


def curve_of(name: str, cells: Sequence[Cell], grid: Path, unit: str) -> LearningCurve:
    """Read the cells that are evaluated; a seed and fold counts only when it is there for every share.

    Args:
        name: of the grid.
        cells: their ``limit_fraction`` is the share.
        grid: the grid's folder.
        unit: what a group is called.
    """
    shares = sorted({float(cell.settings["limit_fraction"]) for cell in cells})
    done = {(float(c.settings["limit_fraction"]), c.seed, c.fold): r for c in cells if (r := result_of(c, grid))}
    pairs = [key for key in dict.fromkeys((c.seed, c.fold) for c in cells) if all((s, *key) in done for s in shares)]
    ratio = overlap_ratio([done[shares[-1], *key] for key in pairs])
    points: list[Point] = []
    for share in shares if pairs else []:
        results = [done[share, *key] for key in pairs]
        sizes = [_units(result.cell, grid) for result in results]
        test = tuple(result.metrics["macro_f1"] for result in results)
        val = tuple(score for result in results if (score := result.cell.run(grid).val_macro_f1) is not None)
        gain = paired_difference(points[-1].test, test, train_test_ratio=ratio, level=LEVEL) if points else None
        points.append(Point(share, fmean(sizes), fmean(result.n_train for result in results), test, val, gain))
    everything = list(done.values())
    return LearningCurve(
        name, unit, tuple(points), _finding(points, unit),
        any(r.synthetic for r in everything), any(r.leaky for r in everything),
    )  # fmt: skip


def curve_figure(curve: LearningCurve) -> Figure:
    """Test and validation macro-F1 over the number of training units, every cell a dot, the mean a line."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    sizes = [point.n_units for point in curve.points]
    for values, colour, name in (
        ([point.val for point in curve.points], ORANGE, "validation"),
        ([point.test for point in curve.points], BLUE, "test"),
    ):
        for size, scores in zip(sizes, values, strict=True):
            axes.plot([size] * len(scores), scores, "o", color=colour, alpha=0.35, markersize=4)
        axes.plot(sizes, [fmean(scores) for scores in values], "-o", color=colour, label=name, markersize=5)
    axes.set_xlabel(f"training {curve.unit}s")
    axes.set_ylabel("macro-F1")
    axes.set_xlim(left=0)
    axes.set_ylim(*_score_range([score for point in curve.points for score in (*point.test, *point.val)]))
    axes.grid(color=GREY, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    marks = ["synthetic demo data"] * curve.synthetic + ["LEAKY SPLIT"] * curve.leaky
    axes.set_title("  ·  ".join([curve.name, *marks]), fontsize=10, color=INK)
    return figure


def write_curve(curve: LearningCurve, folder: Path) -> list[Path]:
    """Write ``curve.json``, ``curve.csv`` and ``curve.png``; returns the files."""
    names = ("share", f"training_{curve.unit}s", "training_items", "test_mean", "test_sd", "val_mean", "gain")
    rows: list[tuple[Any, ...]] = [names]
    for point in curve.points:
        sd = stdev(point.test) if len(point.test) > 1 else None
        gain = point.gain.mean if point.gain else None
        rows.append((point.share, point.n_units, point.n_items, fmean(point.test), sd, fmean(point.val), gain))
    write_text(folder / "curve.csv", csv_text(rows))
    save_figure(curve_figure(curve), folder / "curve.png")
    write_json(folder / "curve.json", curve.to_json())
    return [folder / "curve.csv", folder / "curve.png", folder / "curve.json"]


def _score_range(scores: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of scores, at least a quarter wide: a narrower one makes noise look like a trend."""
    width = min(1.0, max(0.25, 1.15 * (max(scores) - min(scores))))
    low = min(max(0.0, (max(scores) + min(scores) - width) / 2), 1.0 - width)
    return low, low + width


def _units(cell: Cell, grid: Path) -> int:
    run = cell.run(grid)
    manifest = run.manifest
    items = [manifest.items[row] for row in manifest.rows(run.split.train)]
    return len({item.group or item.id for item in items})


def _finding(points: Sequence[Point], unit: str) -> str:
    if len(points) < 2:
        return "too few finished cells for a curve"
    gain = points[-1].gain
    assert gain is not None
    sizes = f"from {points[-2].n_units:.0f} to {counted(round(points[-1].n_units), unit)}"
    step = f"the last step, {sizes}, changed macro-F1 by "
    change = f"{step}{gain.mean:+.3f}"
    if gain.p is None:
        return f"{change}; with {counted(gain.n, 'pair')} nothing can be told about its spread"
    ends = f" [{gain.low:+.3f}, {gain.high:+.3f}], p {gain.p:.3f}"
    words = {
        "better": f"the curve still rises: more {unit}s would likely help",
        "worse": "the score falls with more data: look for a change in the data or a training that is too short",
        "cannot tell": "it cannot be told whether more data would help",
    }
    return f"{change}{ends}: {words[verdict(gain.mean, gain.p)]}"
