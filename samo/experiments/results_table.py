"""What a grid found: per row its spread, and the paired difference from the baseline with a corrected p-value.

The results table as values, and as Markdown, CSV, JSON and one HTML page with its forest plot.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from samo.data.sampling import transductive_notes
from samo.errors import counted, first_ten
from samo.evaluation.decision import decided_rows
from samo.evaluation.metrics import METRICS, Tally
from samo.evaluation.paired_bootstrap import paired_bootstrap
from samo.evaluation.predictions import Predictions
from samo.evaluation.significance import PairedDifference, holm, paired_difference, verdict
from samo.evaluation.statistics import Interval, score_intervals, tally_by_unit, unnamed_line
from samo.experiments.cells import Cell, Result, result_of
from samo.files import write_json, write_text
from samo.printable import csv_text
from samo.reporting.drawing import BLUE, GREEN, GREY, INK, VERMILION, save_figure, verbatim
from samo.reporting.html import METRIC_NAMES, page_template
from samo.tasks import LabelSpace

__all__ = [
    "CORRECTION",
    "LEVEL",
    "ResultsTable",
    "Row",
    "forest_figure",
    "heads_of",
    "make_table",
    "marks",
    "overlap_ratio",
    "pooled",
    "text_rows",
    "write_table",
]

CORRECTION = "Holm"
LEVEL = 0.95
COLOURS = {"better": GREEN, "worse": VERMILION, "cannot tell": GREY, "": INK}


@dataclass(frozen=True)
class Row:
    """One way of training over its seeds and folds.

    Attributes:
        n: cells evaluated.
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
class ResultsTable:
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
    units_known: bool = True

    @property
    def baseline(self) -> str:
        """The row the others are compared with."""
        return self.rows[0].name if self.rows else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"schema": 1, "level": LEVEL, "correction": CORRECTION, "baseline": self.baseline, **asdict(self)}


def make_table(name: str, cells: Sequence[Cell], grid: Path, metric: str, unit: str) -> ResultsTable:
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
        _row(row, list(results.values()), grid, metric, _difference(reference, results, grid, metric, ratio))
        for row, results in by_row.items()
        if results
    ]
    corrected = holm([row.difference.p if row.difference and k else None for k, row in enumerate(rows)])
    everything = [result for results in by_row.values() for result in results.values()]
    n_items, unnamed = _unnamed(everything[:1], grid)
    unknown = unit != "row" and 0 < unnamed == n_items
    return ResultsTable(
        name,
        metric,
        unit,
        tuple(_compared(row, p, first=row.name == next(iter(by_row))) for row, p in zip(rows, corrected, strict=True)),
        len(cells),
        len(everything),
        any(result.synthetic for result in everything),
        any(result.leaky for result in everything),
        (*_notes(by_row, ratio, unit), *([unnamed_line(unit, unnamed, n_items)] if unknown else [])),
        not unknown,
    )


def _unnamed(results: Sequence[Result], grid: Path) -> tuple[int, int]:
    """Items of the test parts of these cells, and how many of them have no group."""
    groups = [
        group
        for result in results
        for group in Predictions.load(result.cell.run(grid).path("predictions.test.npz")).groups
    ]
    return len(groups), groups.count("")


def overlap_ratio(results: Sequence[Result]) -> float | None:
    """n_test / n_train where cells are tested on different items and so share training items; else None."""
    if len({result.test_digest for result in results}) < 2:
        return None
    return fmean(result.n_test / result.n_train for result in results)


def pooled(cells: Sequence[Cell], grid: Path, metric: str) -> tuple[float, Interval | None]:
    """A metric of the cells' test predictions taken together, and its interval over speakers (else rows).

    A speaker who is tested in several cells brings all of those predictions whenever drawn.
    """
    by_unit, n_items = _by_unit(cells, grid)
    value = METRICS[metric](Tally.from_flat(by_unit.flat().sum(axis=0)))
    return float(value), score_intervals(by_unit, {metric: METRICS[metric]}, level=LEVEL, n_items=n_items)[metric]


def _by_unit(cells: Sequence[Cell], grid: Path) -> tuple[Tally, int]:
    """Outcome counts by speaker (else row) of the cells' test predictions together, and how many items they are of."""
    truth, predicted, groups, items = [], [], [], set()
    for cell in cells:
        run = cell.run(grid)
        space: LabelSpace = run.manifest.label_space
        predictions = Predictions.load(run.path("predictions.test.npz"), space)
        found = decided_rows(space.primary, predictions, space)
        truth.append(found.truth)
        predicted.append(found.predicted)
        any_known = any(predictions.groups)
        groups += [predictions.groups[row] or ("" if any_known else predictions.ids[row]) for row in found.rows]
        items |= {predictions.ids[row] for row in found.rows}
    return tally_by_unit(np.concatenate(truth), np.concatenate(predicted), groups), len(items)


def write_table(
    table: ResultsTable,
    scores: Mapping[str, Sequence[float]],
    folder: Path,
    command: str,
    cells: Sequence[Result] = (),
) -> list[Path]:
    """Write ``table.md``, ``.csv``, ``.json``, ``.html`` and ``forest.png``; returns the files.

    Args:
        table: from :func:`make_table`.
        scores: the metric of each cell, by row.
        folder: the grid's folder.
        command: what was typed, printed below the table.
        cells: those that are evaluated, to whose pages the page links.
    """
    heads, rows = heads_of(table), text_rows(table)
    forest = folder / "forest.png"
    save_figure(forest_figure(table, scores), forest)
    write_text(folder / "table.md", _markdown(table, heads, rows, command))
    write_text(folder / "table.csv", _csv(table))
    template = page_template("samo.experiments", "results_table.html.jinja")
    picture = "data:image/png;base64," + base64.b64encode(forest.read_bytes()).decode("ascii")
    page = template.render(
        table=table,
        heads=heads,
        rows=rows,
        forest=picture,
        marks=marks(table),
        command=command,
        links=_links(table, cells),
    )
    write_text(folder / "table.html", page)
    write_json(folder / "table.json", table.to_json())
    return [folder / name for name in ("table.md", "table.csv", "table.html", "table.json", "forest.png")]


def _links(table: ResultsTable, cells: Sequence[Result]) -> list[tuple[str, str, str]]:
    """Name, address and score of each cell's page."""
    return [
        (
            result.cell.name,
            f"runs/{quote(result.cell.name)}/{Path(result.cell.report).with_suffix('.html')}",
            f"{result.metrics[table.metric]:.3f}",
        )
        for result in cells
    ]


def marks(table: ResultsTable) -> list[str]:
    """What every output of this table must say in so many words."""
    return ["synthetic demo data"] * table.synthetic + ["LEAKY SPLIT"] * table.leaky


def heads_of(table: ResultsTable) -> tuple[str, ...]:
    """Column heads, the same on the terminal and in every file."""
    name = METRIC_NAMES[table.metric]
    # Where no speaker is known intervals hold less than they say, and are not called 95 %.
    over, level = (f"95 % over {table.unit}s", "95 %") if table.units_known else ("interval over rows", "interval")
    return (
        "row", "n", f"{name}, mean", "sd", f"pooled [{over}]",
        f"difference from {table.baseline} [{level}]", f"p ({CORRECTION})", "verdict",
    )  # fmt: skip


def text_rows(table: ResultsTable) -> list[tuple[str, ...]]:
    """One row of text cells for each row of the table."""
    return [
        (
            row.name,
            str(row.n),
            f"{row.mean:.3f}",
            "-" if row.sd is None else f"{row.sd:.3f}",
            f"{row.pooled:.3f}{_ends(row.low, row.high)}",
            _difference_text(row),
            "-" if row.p_corrected is None else f"{row.p_corrected:.3f}" if row.p_corrected >= 0.001 else "< 0.001",
            row.verdict or "baseline",
        )
        for row in table.rows
    ]


def forest_figure(table: ResultsTable, scores: Mapping[str, Sequence[float]]) -> Figure:
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
    left.set_yticks(range(n), [verbatim(row.name) for row in table.rows])
    left.set_ylim(n - 0.5, -0.5)
    name = METRIC_NAMES[table.metric]
    left.set_xlabel(f"{name} of each cell on its test part; bar: mean")
    right.set_xlabel(f"{name} minus that of {verbatim(table.baseline)}, {'95 % ' * table.units_known}interval")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color=GREY, alpha=0.3)
    stamp = "".join(f"  ·  {mark}" for mark in marks(table))
    figure.suptitle(f"{table.name}: {table.n_done} of {counted(table.n_cells, 'cell')}{stamp}", fontsize=10)
    return figure


def _difference(
    reference: Mapping[tuple[int, int | None], Result],
    results: Mapping[tuple[int, int | None], Result],
    grid: Path,
    metric: str,
    ratio: float | None,
) -> PairedDifference | None:
    """Over seeds and folds; on one split, where seeds alone often find equals different, over speakers too.

    There interval and p-value are the wider and the larger of those over seeds and those over speakers.
    """
    both = [key for key in reference if key in results]
    if reference is results or not both:
        return None
    before = [reference[key].metrics[metric] for key in both]
    after = [results[key].metrics[metric] for key in both]
    over_seeds = paired_difference(before, after, train_test_ratio=ratio, level=LEVEL)
    if ratio is not None or over_seeds.p is None or over_seeds.low is None or over_seeds.high is None:
        return over_seeds
    units = [_by_unit([each[key].cell for key in both], grid)[0] for each in (reference, results)]
    found = paired_bootstrap(units[0], units[1], {metric: METRICS[metric]}, level=LEVEL)[metric]
    if found.p is None or found.low is None or found.high is None:
        return replace(over_seeds, low=None, high=None, p=None)
    low, high = min(over_seeds.low, found.low), max(over_seeds.high, found.high)
    return replace(over_seeds, low=low, high=high, p=max(over_seeds.p, found.p))


def _row(name: str, results: Sequence[Result], grid: Path, metric: str, difference: PairedDifference | None) -> Row:
    values = [result.metrics[metric] for result in results]
    together, interval = pooled([result.cell for result in results], grid, metric)
    low, high = interval or (None, None)
    sd = stdev(values) if len(values) > 1 else None
    return Row(name, len(values), fmean(values), sd, together, low, high, difference)


def _compared(row: Row, p: float | None, *, first: bool) -> Row:
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
        notes.append(f"all cells are tested on the same items: verdicts must hold over seeds and over these {unit}s")
    else:
        notes.append("cells share training items: p-values and intervals of differences after Nadeau and Bengio (2003)")
    named: dict[str, dict[str, None]] = {}
    for row, results in by_row.items():
        for result in results.values():
            for line in transductive_notes(result.cell.settings):
                named.setdefault(line, {})[row] = None
    notes += [f"{line} (of {first_ten(list(rows))})" for line, rows in named.items()]
    return notes


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"


def _difference_text(row: Row) -> str:
    if row.difference is None:
        return ""
    ends = "" if row.difference.low is None else f" [{row.difference.low:+.3f}, {row.difference.high:+.3f}]"
    return f"{row.difference.mean:+.3f}{ends}"


def _markdown(table: ResultsTable, heads: Sequence[str], rows: Sequence[Sequence[str]], command: str) -> str:
    lines = [
        f"# {table.name}",
        "",
        f"{table.n_done} of {counted(table.n_cells, 'cell')}. {' '.join(marks(table))}".rstrip(),
        "",
    ]
    lines += ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines += ["", *(f"- {note}" for note in table.notes), "", "```console", f"$ {command}", "```", ""]
    return "\n".join(lines)


def _csv(table: ResultsTable) -> str:
    rows: list[list[Any]] = [
        ["row", "n", f"{table.metric}_mean", "sd", "pooled", "pooled_low", "pooled_high", "pairs", "difference",
         "difference_low", "difference_high", "p", f"p_{CORRECTION.lower()}", "verdict"]
    ]  # fmt: skip
    for row in table.rows:
        found = row.difference
        paired = (found.n, found.mean, found.low, found.high, found.p) if found else (None,) * 5
        scores = [row.name, row.n, row.mean, row.sd, row.pooled, row.low, row.high]
        rows.append([*scores, *paired, row.p_corrected, row.verdict])
    return csv_text(rows)
