"""What a grid found: per row its spread, and the paired difference from the baseline with a corrected p-value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from samo.evaluation.decision import decided_rows
from samo.evaluation.metrics import METRICS, Tally
from samo.evaluation.predictions import Predictions
from samo.evaluation.significance import PairedDifference, holm, paired_difference, verdict
from samo.evaluation.statistics import Interval, bootstrap, tally_by_unit
from samo.experiments.cells import Cell, Result, result_of
from samo.tasks import LabelSpace

__all__ = ["CORRECTION", "LEVEL", "GridTable", "Row", "make_table", "overlap_ratio", "pooled"]

CORRECTION = "Holm"
LEVEL = 0.95


@dataclass(frozen=True)
class Row:
    """One way of training over its seeds and folds.

    Attributes:
        n: cells judged.
        mean: of the metric over cells.
        sd: standard deviation over cells, None with one.
        pooled: the metric of all cells' predictions taken together.
        low: lower end of its interval over speakers (rows where none are known).
        high: upper end.
        difference: paired with the baseline over the seeds and folds both have; None for the baseline itself.
        p_corrected: two-sided, corrected for the number of rows compared.
        verdict: ``better``, ``worse`` or ``cannot tell``; empty for the baseline.
    """

    name: str
    n: int
    mean: float
    sd: float | None
    pooled: float
    low: float | None
    high: float | None
    difference: PairedDifference | None = None
    p_corrected: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class GridTable:
    """The rows in the order of the grid, baseline first, and what a reader must know of them."""

    name: str
    metric: str
    unit: str
    rows: tuple[Row, ...]
    n_cells: int
    n_done: int
    synthetic: bool
    leaky: bool
    notes: tuple[str, ...]

    @property
    def baseline(self) -> str:
        """The row the others are compared with."""
        return self.rows[0].name if self.rows else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"schema": 1, "level": LEVEL, "correction": CORRECTION, "baseline": self.baseline, **asdict(self)}


def make_table(name: str, cells: Sequence[Cell], grid: Path, metric: str, unit: str) -> GridTable:
    """Compare the rows of a grid from the cells that are done.

    Args:
        name: the grid's name.
        cells: all cells; those of the baseline come first.
        grid: the grid's folder.
        metric: a key of the report's ``metrics``.
        unit: what a group is called, ``speaker`` or ``row``.
    """
    by_row: dict[str, dict[tuple[int, int | None], Result]] = {cell.row: {} for cell in cells}
    for cell in cells:
        if result := result_of(cell, grid):
            by_row[cell.row][cell.seed, cell.fold] = result
    reference = next(iter(by_row.values()), {})
    ratio = overlap_ratio([result for results in by_row.values() for result in results.values()])
    rows = [
        _row(row, list(results.values()), grid, metric, _difference(reference, results, metric, ratio))
        for row, results in by_row.items()
        if results
    ]
    corrected = holm([row.difference.p if row.difference and k else None for k, row in enumerate(rows)])
    everything = [result for results in by_row.values() for result in results.values()]
    return GridTable(
        name,
        metric,
        unit,
        tuple(_judged(row, p, first=row.name == next(iter(by_row))) for row, p in zip(rows, corrected, strict=True)),
        len(cells),
        len(everything),
        any(result.synthetic for result in everything),
        any(result.leaky for result in everything),
        tuple(_notes(by_row, ratio, unit)),
    )


def overlap_ratio(results: Sequence[Result]) -> float | None:
    """n_test / n_train where cells are tested on different items and so share training items; else None."""
    if len({result.test_digest for result in results}) < 2:
        return None
    return fmean(result.n_test / result.n_train for result in results)


def pooled(cells: Sequence[Cell], grid: Path, metric: str) -> tuple[float, Interval | None]:
    """A metric of the cells' test predictions taken together, and its interval over speakers (else rows).

    A speaker who is tested in several cells brings all of those predictions whenever drawn.
    """
    truth, predicted, groups = [], [], []
    for cell in cells:
        run = cell.run(grid)
        said = Predictions.load(run.path("predictions.test.npz"))
        space: LabelSpace = run.manifest.label_space
        found = decided_rows(space.primary, said, space)
        truth.append(found.truth)
        predicted.append(found.predicted)
        groups += [said.groups[row] or said.ids[row] for row in found.rows]
    by_unit = tally_by_unit(np.concatenate(truth), np.concatenate(predicted), groups)
    value = METRICS[metric](Tally.from_flat(by_unit.flat().sum(axis=0)))
    return float(value), bootstrap(by_unit, {metric: METRICS[metric]}, level=LEVEL)[metric]


def _difference(
    reference: Mapping[tuple[int, int | None], Result],
    results: Mapping[tuple[int, int | None], Result],
    metric: str,
    ratio: float | None,
) -> PairedDifference | None:
    both = [key for key in reference if key in results]
    if reference is results or not both:
        return None
    before = [reference[key].metrics[metric] for key in both]
    after = [results[key].metrics[metric] for key in both]
    return paired_difference(before, after, train_test_ratio=ratio, level=LEVEL)


def _row(name: str, results: Sequence[Result], grid: Path, metric: str, difference: PairedDifference | None) -> Row:
    values = [result.metrics[metric] for result in results]
    together, interval = pooled([result.cell for result in results], grid, metric)
    low, high = interval or (None, None)
    sd = stdev(values) if len(values) > 1 else None
    return Row(name, len(values), fmean(values), sd, together, low, high, difference)


def _judged(row: Row, p: float | None, *, first: bool) -> Row:
    if first or row.difference is None:
        return row
    return replace(row, p_corrected=p, verdict=verdict(row.difference.mean, p))


def _notes(by_row: Mapping[str, Mapping[Any, Result]], ratio: float | None, unit: str) -> list[str]:
    notes = []
    counts = {len(results) for results in by_row.values()}
    if len(counts) > 1:
        notes.append("rows are unfinished: differences use the seeds and folds that row and baseline both have")
    if max(counts, default=0) < 2:
        notes.append("one cell a row: nothing can be told about the spread; add seeds or folds")
    elif ratio is None:
        notes.append(f"all cells are tested on the same items: p-values speak of other seeds, not of other {unit}s")
    else:
        notes.append("cells share training items: p-values and intervals of differences after Nadeau and Bengio (2003)")
    return notes
