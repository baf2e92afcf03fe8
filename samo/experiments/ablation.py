"""A grid from a file: which differences from the baseline are real."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from samo.errors import RunError, SettingsError, nearest
from samo.experiments.cells import Cell, result_of
from samo.experiments.grid import cells_of, read_grid
from samo.experiments.grid_plan import GRID_FILE, GridPlan, read_grid_facts, require_cell_places
from samo.experiments.reporter import GridReporter
from samo.experiments.results_table import ResultsTable, make_table, write_table
from samo.experiments.run_grid import run_grid
from samo.launch.resources import Resources
from samo.modalities import MODALITIES, config_type, grid_files
from samo.runs.artifacts import artifacts_root
from samo.settings import resolve

__all__ = ["ablate", "find_grid", "newest_grid", "plan_ablation", "report_ablation"]


def ablate(
    grid: Path | str,
    settings: Mapping[str, Any] | None = None,
    *,
    name: str = "",
    artifacts: Path | str = "",
    resources: Resources | None = None,
    reporter: GridReporter | None = None,
    command: str = "",
) -> ResultsTable:
    """Run a grid of trainings over seeds and folds, and compare its rows with the baseline.

    The same call goes on where it stopped; what is finished stays in ``ARTIFACTS/grids/NAME``, also when it fails.

    Args:
        grid: a TOML file, or the name of a grid that ships with SAMO.
        settings: held for all cells; they win over the grid's base, variants and axes over them.
        name: of the folder; empty: the file's name.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        resources: on what; left out: this machine.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the results.

    Raises:
        SettingsError: see :func:`~samo.experiments.grid.read_grid` and :func:`~samo.experiments.grid.cells_of`.
        RunError, Interrupted: see :func:`~samo.experiments.run_grid.run_grid`.
    """
    plan = plan_ablation(grid, settings, name, artifacts, command=command)
    try:
        run_grid(plan, resources, reporter)
    finally:
        found = report_ablation(plan.folder) if plan.has_results else None
    assert found is not None
    return found[0]


def plan_ablation(
    grid: Path | str,
    settings: Mapping[str, Any] | None = None,
    name: str = "",
    artifacts: Path | str = "",
    *,
    command: str = "",
) -> GridPlan:
    """Every cell of a grid; no data are opened yet. See :func:`ablate`."""
    path = find_grid(str(grid))
    read = read_grid(path)
    resolved = partial(resolve, typed=settings or {})
    cells = cells_of(read, resolved, settings or {}, lambda values: config_type(read.modality).anchored(values, path))
    folder = artifacts_root(str(artifacts)) / "grids" / (name or path.stem)
    plan = GridPlan("ablate", folder, tuple(cells), read.metric, command)
    require_cell_places(plan.cells, folder)
    return plan


def report_ablation(folder: Path) -> tuple[ResultsTable, list[Path]]:
    """Write and return the results table of the cells that are evaluated, and its files.

    Raises:
        RunError: no such grid, or none of its cells is finished.
    """
    facts = read_grid_facts(folder)
    cells = [Cell(**cell) for cell in facts["cells"]]
    table = make_table(facts["name"], cells, folder, facts["metric"], facts["unit"])
    if not table.rows:
        raise RunError(f"no cell of grid '{facts['name']}' is finished yet", hint=f"go on: {facts['command']}")
    scores: dict[str, list[float]] = {}
    results = [result for cell in cells if (result := result_of(cell, folder))]
    for result in results:
        scores.setdefault(result.cell.row, []).append(result.metrics[facts["metric"]])
    return table, write_table(table, scores, folder, facts["command"], results)


def find_grid(given: str) -> Path:
    """A grid by file or by the name it ships under.

    Raises:
        SettingsError: there is none; names those that ship.
    """
    shipped = {name: path for modality in MODALITIES for name, path in grid_files(modality).items()}
    if given in shipped and not Path(given).is_file():
        return shipped[given]
    if not Path(given).is_file():
        raise SettingsError(
            f"there is no grid '{given}'", hint=nearest(given, shipped) + f"give a TOML file, or: {', '.join(shipped)}"
        )
    return Path(given)


def newest_grid(artifacts: Path | str = "") -> Path:
    """The folder of the grid that was begun last.

    Raises:
        RunError: there is none.
    """
    root = artifacts_root(str(artifacts)) / "grids"
    found = sorted(root.glob(f"*/{GRID_FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunError(f"no grid was run in {root} yet", hint="samo ablate GRID.toml")
    return found[-1].parent
