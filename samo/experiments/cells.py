"""The cells of a grid: one training each, in a folder that says itself whether it is still the same cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from samo.errors import RunError, first_ten
from samo.reporting.report import metrics_of, read_report
from samo.runs.run import ENSEMBLE_FILE, Run
from samo.settings import REPORT_SETTINGS, with_defaults

__all__ = [
    "Cell",
    "Result",
    "refuse_changed",
    "refuse_other_settings",
    "report_of",
    "result_of",
    "seconds_left",
    "status_of",
]

# Where the data lies may differ between machines; that they are the same data is checked by their digest.
MOVABLE = frozenset({"data_root"}) | REPORT_SETTINGS


@dataclass(frozen=True)
class Cell:
    """One training of a grid.

    Attributes:
        name: name of its run, for example ``focal.seed0.fold2``.
        row: the row of the table it counts for, for example ``focal``.
        seed: its seed.
        fold: its test fold, None when the grid asks for no folds.
        settings: every setting, ``modality`` included, as they stand in ``config.json``.
        part: what it is evaluated on; ``val`` leaves the test part closed.
    """

    name: str
    row: str
    seed: int
    fold: int | None
    settings: Mapping[str, Any]
    part: str = "test"

    @property
    def report(self) -> str:
        """The file its scores are kept in."""
        return report_of(self.part)

    def run(self, grid: Path) -> Run:
        """Its run below the grid's folder."""
        return Run(grid / "runs" / self.name)


def report_of(part: str) -> str:
    """The file in which a run keeps its scores on a part."""
    return "report.json" if part == "test" else f"report.{part}.json"


@dataclass(frozen=True)
class Result:
    """What an evaluated cell says.

    Attributes:
        metrics: the report's metrics on the part evaluated.
        n_train: items trained on.
        n_test: items evaluated.
        test_digest: the same for cells evaluated on the same items.
        seconds: spent in training epochs.
    """

    cell: Cell
    metrics: Mapping[str, float]
    n_train: int
    n_test: int
    test_digest: int
    seconds: float
    synthetic: bool
    leaky: bool


def status_of(cell: Cell, grid: Path) -> str:
    """``done``, ``running``, ``stopped`` (trained but not evaluated included) or ``missing``."""
    run = cell.run(grid)
    status = run.status
    if status in ("evaluated", "trained"):
        return "done" if run.path(cell.report).is_file() else "stopped"
    return {"empty": "missing"}.get(status, status)


def refuse_changed(cells: Iterable[Cell], grid: Path) -> None:
    """Refuse to go on with a grid whose cells on disk have other settings than requested.

    Raises:
        RunError: names the cells and the settings that differ; the folder has ensembles, which nothing trained.
    """
    ensembles = sorted(path.parent.name for path in (grid / "runs").glob(f"*/{ENSEMBLE_FILE}"))
    if ensembles:
        raise RunError(
            f"grid '{grid.name}' is an ensemble: its {first_ten(ensembles)} are no trained cells",
            hint="give another `name`",
        )
    runs = [(cell, cell.run(grid)) for cell in cells]
    refuse_other_settings(((cell, run.settings) for cell, run in runs if run.path("config.json").is_file()), str(grid))


def refuse_other_settings(found: Iterable[tuple[Cell, Mapping[str, Any]]], place: str) -> None:
    """Refuse cells that were trained with other settings than requested; ``place`` is where they lie.

    Raises:
        RunError: names the cells and the settings that differ.
    """
    changed = []
    for cell, stored in found:
        wanted, stored = cell.settings, with_defaults(stored)
        names = [n for n in {**stored, **wanted} if n not in MOVABLE and stored.get(n) != wanted.get(n)]
        changed += [f"{cell.name}: {name} was {stored.get(name)!r}, is now {wanted.get(name)!r}" for name in names]
    if changed:
        raise RunError(
            f"cells of {place} were trained with other settings: {first_ten(changed)}",
            hint="give the grid another `name`, undo the change, or remove these cells",
        )


def result_of(cell: Cell, grid: Path) -> Result | None:
    """The result of a cell that was evaluated, else None.

    Raises:
        RunError: its files are damaged.
    """
    run = cell.run(grid)
    path = run.path(cell.report)
    if not path.is_file():
        return None
    try:
        report = read_report(path)
        split = run.split
        return Result(
            cell,
            metrics_of(report),
            len(split.train),
            len(split.test),
            hash(split.test),
            sum(row["seconds"] for row in run.history),
            report["synthetic"],
            report["leaky"],
        )
    except RunError as error:
        error.hint = error.hint or "remove the cell and run the grid again"
        raise


def seconds_left(cells: Sequence[Cell], grid: Path) -> float | None:
    """Estimated seconds of training left, from the finished cells of the same row, else of any; None without."""
    spent: dict[str, list[float]] = {}
    for cell in cells:
        if status_of(cell, grid) == "done":
            spent.setdefault(cell.row, []).append(sum(row["seconds"] for row in cell.run(grid).history))
    if not spent:
        return None
    anywhere = fmean(seconds for row in spent.values() for seconds in row)
    return sum(fmean(spent.get(cell.row, [anywhere])) for cell in cells if status_of(cell, grid) != "done")
