"""``samo learning-curve``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from samo.errors import SettingsError
from samo.modalities import MODALITIES, config_types
from samo.settings import resolve
from samo_cli.options import Artifacts, ConfigFile, Device, Json, Precision, Threads, flags_of, with_settings
from samo_cli.verbs.crossval import made_up_name
from samo.experiments.run_grid import (
    GRID_SETTINGS,
    DryRun,
    GridName,
    Plan,
    Ray,
    Seeds,
    StoreUrl,
    Where,
    Workers,
    list_cells,
    numbers,
    open_frontend,
    open_plan,
    run_cells,
)

__all__ = ["learning_curve"]


@with_settings(flags_of(config_types(), without=GRID_SETTINGS | {"limit_fraction"}))
def learning_curve(
    context: typer.Context,
    modality: Annotated[str, typer.Option(metavar="|".join(MODALITIES), help="What is learned from.")] = "audio",
    preset: Annotated[str, typer.Option(metavar="NAME", help="Start from a recipe of `samo presets`.")] = "",
    config: ConfigFile = None,
    shares: Annotated[
        str, typer.Option(metavar="S,S,...", help="Shares of the training speakers (rows where none are known).")
    ] = "0.25,0.5,0.75,1",
    seeds: Seeds = "0,1,2",
    folds: Annotated[str, typer.Option(metavar="N,N,...", help="Test on these folds; empty: the default split.")] = "",
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
    """Train on growing shares of the training speakers or texts and say whether more data would help.

    Larger shares hold the smaller ones; validation and test stay the same for all shares of a seed.
    """
    from samo.experiments.grid import Grid, cells_of

    where = Where(workers, threads, device, precision, ray, store)
    repeats = numbers(seeds, "--seeds")
    tested = numbers(folds, "--folds") if folds else ()
    base = {**settings, **({"preset": preset} if preset else {}), **({"config": str(config)} if config else {})}
    sizes = _shares(shares)
    grid = Grid(modality=modality, seeds=repeats, folds=tested, base=base, axes={"limit_fraction": sizes})
    cells = cells_of(grid, resolve, {})
    from samo.experiments.learning_curve import curve_of, write_curve
    from samo.runs.run import artifacts_root
    from samo_cli.render import print_json, show_curve

    frontend = open_frontend(cells)
    name = name or made_up_name("learning-curve", frontend.config, repeats, tested, sizes)
    folder = artifacts_root(artifacts) / "grids" / name
    plan = open_plan(Plan("learning-curve", folder, tuple(cells), "macro_f1", context.obj["command"]), frontend)
    if dry_run:
        list_cells(plan, where, json=json)
        return
    try:
        run_cells(plan, where)
    finally:
        curve = curve_of(plan.name, plan.cells, plan.folder, plan.unit)
        if curve.points:
            files = write_curve(curve, plan.folder)
            if json:
                print_json(curve.to_json())
            else:
                show_curve(curve, files)


def _shares(given: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in given.split(","))
    except ValueError:
        found = ()
    if not found or min(found) <= 0 or max(found) > 1 or len(set(found)) < len(found):
        raise SettingsError(f"--shares '{given}': write different numbers in (0, 1] joined by commas, such as 0.5,1")
    return tuple(sorted(found))
