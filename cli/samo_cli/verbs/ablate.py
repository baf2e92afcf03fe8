"""``samo ablate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from samo.errors import SettingsError
from samo.modalities import MODALITIES, config_types, grid_files
from samo.settings import GRID_SETTINGS
from samo_cli.grid_options import DryRun, GridName, Place, run_and_show, show_status, with_place
from samo_cli.options import flags_of

__all__ = ["ablate"]


def _grid_names() -> list[str]:
    return [name for modality in MODALITIES for name in grid_files(modality)]


@with_place(flags_of(config_types(), without=GRID_SETTINGS))
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
    *,
    place: Place,
    settings: dict[str, Any],
) -> None:
    """Run a grid of trainings over seeds and folds, and say which differences from the baseline are real.

    Running it again trains only what is missing and goes on with what was interrupted. Settings given as flags hold for
    all cells.
    """
    if of and grid != "show":
        raise SettingsError(f"unexpected argument '{of}'", hint="samo ablate GRID.toml, or samo ablate show NAME")
    from samo.experiments.ablation import newest_grid, plan_ablation, report_ablation
    from samo.experiments.grid_plan import open_plan
    from samo.experiments.results_table import ResultsTable
    from samo.runs.artifacts import artifacts_root
    from samo_cli.render import TerminalReporter, print_json, show_grid

    def show(found: tuple[ResultsTable, Any]) -> None:
        if place.json:
            print_json(found[0].to_json())
        else:
            show_grid(*found)

    if grid == "show":
        folder = artifacts_root(place.artifacts) / "grids" / of if of else newest_grid(place.artifacts)
        show(report_ablation(folder))
        return
    place.resources()
    plan = plan_ablation(grid, settings, name, place.artifacts, command=context.obj["command"])
    if dry_run:
        show_status(plan, place)
        return
    plan = open_plan(plan, TerminalReporter())
    run_and_show(plan, place, lambda plan: report_ablation(plan.folder) if plan.has_results else None, show)
