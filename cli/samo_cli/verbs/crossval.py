"""``samo crossval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from samo.errors import SettingsError
from samo.modalities import config_types, ensemble_files
from samo.settings import GRID_SETTINGS
from samo_cli.flags import in_artifacts
from samo_cli.grid_options import (
    DryRun,
    GridName,
    Modality,
    Place,
    Preset,
    Seeds,
    numbers,
    run_and_show,
    show_status,
    show_status_together,
    with_place,
)
from samo_cli.options import ConfigFile, flags_of

__all__ = ["crossval"]


@with_place(flags_of(config_types(), without=GRID_SETTINGS))
def crossval(
    context: typer.Context,
    modality: Modality = "audio",
    preset: Preset = "",
    config: ConfigFile = None,
    seeds: Seeds = "0",
    folds: Annotated[str, typer.Option(metavar="N,N,...", help="Only these folds; empty: all.")] = "",
    name: GridName = "",
    refit: Annotated[
        bool, typer.Option("--refit", help="Then train one model on everything: GRID/refit, to use; not to judge.")
    ] = False,
    dry_run: DryRun = False,
    *,
    place: Place,
    settings: dict[str, Any],
) -> None:
    """Train once for each fold, join the predictions of what each model never saw, and evaluate them as one.

    Folds are those the corpus publishes, else five of its speakers, or --num-folds; texts without known authors get
    folds stratified by label. What validates a fold is never tested in it. Again, it trains only what is missing.
    Without --keep or --patience the mean of the last epochs' weights counts, not the best epoch of few speakers.
    """
    resources = place.resources()
    if preset in ensemble_files(modality):
        if refit:
            raise SettingsError(f"--refit goes without --preset {preset}: refit its members, each by its own preset")
        spread = {"seeds": numbers(seeds, "--seeds"), "folds": numbers(folds, "--folds") if folds else (), "name": name}
        _ensemble(modality, preset, config, settings, spread, place, dry_run=dry_run, command=context.obj["command"])
        return
    repeats, only = numbers(seeds, "--seeds"), numbers(folds, "--folds") if folds else ()
    from samo.experiments.crossval import fold_settings, plan_crossval, report_crossval
    from samo_cli.render import TerminalReporter, note, print_json, show_crossval

    chosen = fold_settings(modality, preset, config, settings)
    command = context.obj["command"]
    plan = plan_crossval(chosen, repeats, only, name, place.artifacts, reporter=TerminalReporter(), command=command)
    if dry_run:
        show_status(plan, place)
        return

    shown: list[dict[str, Any]] = []

    def show(report: dict[str, Any]) -> None:
        if place.json:
            print_json(report)
        else:
            show_crossval(report, plan.folder)
        shown.append(report)

    run_and_show(plan, place, report_crossval, show)
    if refit:
        from samo.experiments.refit import refit as train_on_everything

        run = train_on_everything(plan, shown[-1], resources, TerminalReporter())
        note(f"next: {in_artifacts(f'samo predict --run {plan.name}/{run.name}', place.artifacts)}")


def _ensemble(
    modality: str,
    preset: str,
    config: Path | None,
    settings: dict[str, Any],
    spread: dict[str, Any],
    place: Place,
    *,
    dry_run: bool,
    command: str,
) -> None:
    """The members of an ensemble on every fold, then the ensemble."""
    from samo.ensembles.preset_ensemble import crossvalidate_members, plan_member_grids
    from samo_cli.render import TerminalReporter, print_json, show_combined

    common: dict[str, Any] = {"artifacts": place.artifacts, "reporter": TerminalReporter(), "command": command}
    name, plans = plan_member_grids(modality, preset, config, settings, **spread, **common)
    if dry_run:
        show_status_together(name, plans, place)
        return
    folder, report = crossvalidate_members(plans, name, resources=place.resources(), **common)
    if place.json:
        print_json(report)
    else:
        show_combined(report, folder)
