"""``samo learning-curve``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import SettingsError
from samo.modalities import config_types
from samo.settings import GRID_SETTINGS, resolve
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
    with_place,
)
from samo_cli.options import ConfigFile, flags_of

if TYPE_CHECKING:
    from samo.experiments.learning_curve import LearningCurve

__all__ = ["learning_curve"]


@with_place(flags_of(config_types(), without=GRID_SETTINGS | {"limit_fraction"}))
def learning_curve(
    context: typer.Context,
    modality: Modality = "audio",
    preset: Preset = "",
    config: ConfigFile = None,
    shares: Annotated[
        str, typer.Option(metavar="S,S,...", help="Shares of the training speakers (rows where none are known).")
    ] = "0.25,0.5,0.75,1",
    seeds: Seeds = "0,1,2",
    folds: Annotated[str, typer.Option(metavar="N,N,...", help="Test on these folds; empty: the default split.")] = "",
    name: GridName = "",
    dry_run: DryRun = False,
    *,
    place: Place,
    settings: dict[str, Any],
) -> None:
    """Train on growing shares of the training speakers or texts and say whether more data would help.

    Larger shares hold the smaller ones; validation and test stay the same for all shares of a seed.
    """
    place.resources()
    repeats, tested = numbers(seeds, "--seeds"), numbers(folds, "--folds") if folds else ()
    sizes = _shares(shares)
    chosen = resolve(modality, preset, config, settings)
    from samo.experiments.learning_curve import plan_learning_curve, report_learning_curve
    from samo_cli.render import TerminalReporter, print_json, show_curve

    command = context.obj["command"]
    plan = plan_learning_curve(
        chosen, sizes, repeats, tested, name, place.artifacts, reporter=TerminalReporter(), command=command
    )
    if dry_run:
        show_status(plan, place)
        return

    def show(found: tuple[LearningCurve, Any]) -> None:
        if place.json:
            print_json(found[0].to_json())
        else:
            show_curve(*found)

    run_and_show(plan, place, report_learning_curve, show)


def _shares(given: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in given.split(","))
    except ValueError:
        found = ()
    if not found or min(found) <= 0 or max(found) > 1 or len(set(found)) < len(found):
        raise SettingsError(f"--shares '{given}': write different numbers in (0, 1] joined by commas, such as 0.5,1")
    return tuple(sorted(found))
