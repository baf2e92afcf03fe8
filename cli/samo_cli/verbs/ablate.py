"""``samo ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import RunError, SettingsError, nearest
from samo.modalities import MODALITIES, config_type, config_types, grid_files
from samo.settings import resolve
from samo_cli.options import Artifacts, Device, Json, Precision, Threads, flags_of, with_settings
from samo.experiments.run_grid import (
    GRID_SETTINGS,
    DryRun,
    GridName,
    Plan,
    Ray,
    StoreUrl,
    Where,
    Workers,
    account,
    list_cells,
    open_frontend,
    open_plan,
    run_cells,
)  # fmt: skip

if TYPE_CHECKING:
    pass

__all__ = ["ablate"]


def _grid_names() -> list[str]:
    return [name for modality in MODALITIES for name in grid_files(modality)]


@with_settings(flags_of(config_types(), without=GRID_SETTINGS))
def ablate(
    context: typer.Context,
    grid: Annotated[
        str,
        typer.Argument(
            metavar="GRID.toml|NAME|show",
            help="A grid file, a grid that ships with SAMO, or `show`.",
            autocompletion=_grid_names,
        ),
    ],
    of: Annotated[str, typer.Argument(metavar="[NAME]", help="With `show`: the grid to print again.")] = "",
    name: GridName = "",
    dry_run: DryRun = False,
    workers: Workers = 0,
    ray: Ray = "",
    store: StoreUrl = "",
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Run a grid of trainings over seeds and folds, and say which differences from the baseline are real.

    Running it again trains only what is missing and goes on with what was interrupted. Settings given as flags hold for
    all cells.
    """
    from samo.runs.run import artifacts_root

    root = artifacts_root(artifacts) / "grids"
    if grid == "show":
        _show(root / of if of else _newest(root), json=json)
        return
    if of:
        raise SettingsError(f"unexpected argument '{of}'", hint="samo ablate GRID.toml, or samo ablate show NAME")
    where = Where(workers, threads, device, precision, ray, store)
    from samo.experiments.grid import cells_of, read_grid

    path = _find(grid)
    asked = read_grid(path)
    cells = cells_of(asked, resolve, settings, lambda values: config_type(asked.modality).anchored(values, path))
    plan = Plan("ablate", root / (name or path.stem), tuple(cells), asked.metric, context.obj["command"])
    if dry_run:
        list_cells(plan, where, json=json)
        return
    plan = open_plan(plan, open_frontend(cells))
    try:
        run_cells(plan, where)
    finally:
        if any(cell.run(plan.folder).path("report.json").exists() for cell in plan.cells):
            _show(plan.folder, json=json)


def _find(given: str) -> Path:
    """A grid by file or by the name it ships under."""
    shipped = {name: path for modality in MODALITIES for name, path in grid_files(modality).items()}
    if given in shipped and not Path(given).is_file():
        return shipped[given]
    if not Path(given).is_file():
        raise SettingsError(
            f"there is no grid '{given}'", hint=nearest(given, shipped) + f"give a TOML file, or: {', '.join(shipped)}"
        )
    return Path(given)


def _newest(root: Path) -> Path:
    found = sorted(root.glob("*/grid.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunError(f"no grid was run in {root} yet", hint="samo ablate GRID.toml")
    return found[-1].parent


def _show(folder: Path, *, json: bool) -> None:
    """Print and save the table of what is done."""
    from samo.experiments.cells import Cell, result_of
    from samo.experiments.results_table import make_table
    from samo.experiments.table_files import write_table
    from samo_cli.render import print_json, show_grid

    facts = account(folder)
    cells = [Cell(**cell) for cell in facts["cells"]]
    table = make_table(facts["name"], cells, folder, facts["metric"], facts["unit"])
    if not table.rows:
        raise RunError(f"no cell of grid '{facts['name']}' is finished yet", hint=f"go on: {facts['command']}")
    scores: dict[str, list[float]] = {}
    for cell in cells:
        if result := result_of(cell, folder):
            scores.setdefault(cell.row, []).append(result.metrics[facts["metric"]])
    files = write_table(table, scores, folder, facts["command"])
    if json:
        print_json(table.to_json())
        return
    show_grid(table, files)
