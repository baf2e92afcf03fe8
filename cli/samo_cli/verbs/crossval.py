"""``samo crossval``."""

from __future__ import annotations

import itertools
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import SettingsError
from samo.modalities import MODALITIES, config_types
from samo.settings import resolve
from samo_cli.options import Artifacts, ConfigFile, Device, Json, Precision, Threads, flags_of, with_settings
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
)  # fmt: skip

if TYPE_CHECKING:
    from samo.experiments.cells import Cell
    from samo.settings import Config

__all__ = ["crossval", "made_up_name"]


@with_settings(flags_of(config_types(), without=GRID_SETTINGS))
def crossval(
    context: typer.Context,
    modality: Annotated[str, typer.Option(metavar="|".join(MODALITIES), help="What is learned from.")] = "audio",
    preset: Annotated[str, typer.Option(metavar="NAME", help="Start from a recipe of `samo presets`.")] = "",
    config: ConfigFile = None,
    seeds: Seeds = "0",
    folds: Annotated[str, typer.Option(metavar="N,N,...", help="Only these folds; empty: all.")] = "",
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
    """Train once for each fold, join the predictions of what each model never saw, and judge them as one.

    Folds are those the corpus publishes, else five of its speakers; texts without known authors get five stratified by
    label. What validates a fold is never tested in it. Running it again trains only what is missing.
    """
    where = Where(workers, threads, device, precision, ray, store)
    chosen = resolve(modality, preset, config, settings)
    repeats = numbers(seeds, "--seeds")
    asked = numbers(folds, "--folds") if folds else ()
    from samo.experiments.cells import Cell
    from samo.experiments.crossval import crossval_report, write_crossval
    from samo.runs.run import artifacts_root
    from samo_cli.render import print_json, show_crossval

    chosen = type(chosen).build({**chosen.flat(), "split": "folds"})
    base = Cell("", "", 0, 0, {"modality": modality, **chosen.flat()})
    frontend = open_frontend([base])
    cells = _cells(frontend, chosen, repeats, asked)
    name = name or made_up_name("crossval", frontend.config, repeats, asked)
    plan = Plan("crossval", artifacts_root(artifacts) / "grids" / name, cells, "macro_f1", context.obj["command"])
    plan = open_plan(plan, frontend)
    if dry_run:
        list_cells(plan, where, json=json)
        return
    try:
        run_cells(plan, where)
    finally:
        if any(cell.run(plan.folder).path("report.json").exists() for cell in cells):
            report = crossval_report(plan.name, plan.cells, plan.folder, plan.unit)
            write_crossval(report, plan.cells, plan.folder, plan.command)
            if json:
                print_json(report)
            else:
                show_crossval(report, plan.folder)


def made_up_name(kind: str, config: Config, *asked: object) -> str:
    """The same for the same settings, so that the same command goes on where it stopped."""
    values = {name: value for name, value in config.flat().items() if name not in ("data_root", *GRID_SETTINGS)}
    digest = sha256(f"{sorted(values.items())}{asked}".encode()).hexdigest()[:4]
    return f"{kind}-{values['dataset']}-{values['mode']}-{values['model']}-{digest}"


def _cells(frontend: Any, chosen: Config, seeds: tuple[int, ...], asked: tuple[int, ...]) -> tuple[Cell, ...]:
    from samo.data.splits import audit, fold_count, make_split
    from samo.experiments.cells import Cell

    manifest = frontend.manifest
    n_folds = fold_count(manifest)
    stray = [fold for fold in asked if fold >= n_folds]
    if stray:
        raise SettingsError(f"--folds {stray[0]}: {manifest.dataset} has {n_folds} folds, counted from 0")
    for seed, fold in itertools.product(seeds, asked or range(n_folds)):
        # A fold that cannot be trained is met before hours are spent on the others.
        request = replace(frontend.split_request(), rule="folds", fold=fold, seed=seed)
        audit(manifest, make_split(manifest, request))
    return tuple(
        Cell(
            f"seed{seed}.fold{fold}",
            "all",
            seed,
            fold,
            _settings(chosen, {**chosen.flat(), "seed": seed, "fold": fold}),
        )
        for seed, fold in itertools.product(seeds, asked or range(n_folds))
    )


def _settings(chosen: Config, values: dict[str, Any]) -> dict[str, Any]:
    return {"modality": chosen.modality, **type(chosen).build(values).flat()}
