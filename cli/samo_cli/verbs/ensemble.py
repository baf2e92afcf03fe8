"""``samo ensemble``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from samo.errors import SettingsError
from samo.modalities import MODALITIES, config_types
from samo.settings import resolve
from samo_cli.flags import switch
from samo_cli.grid_options import Place, numbers, with_place
from samo_cli.options import ConfigFile, flags_of, overwriting

__all__ = ["ensemble"]

# --seeds is in the place of the one, --weights means something else here; start weights can stand in --config.
_OWN = {"seed", "weights"}


@with_place(flags_of(config_types(), without=_OWN))
def ensemble(
    context: typer.Context,
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN ...]", help="Names or folders of two or more trained runs.")
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="N,N,...", help="Instead of RUNs: train one member with each of these seeds.")
    ] = "",
    variants: Annotated[
        str,
        typer.Option(
            metavar="base,frozen,unfrozen",
            help="Instead of RUNs: train these variants of an encoder: as set, frozen, unfrozen layer by layer.",
        ),
    ] = "",
    grids: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Instead of RUNs: combine these finished cross-validations fold by fold, without training again.",
        ),
    ] = "",
    all_seeds: Annotated[
        bool,
        typer.Option(
            "--all-seeds",
            help="With --grids, of which one is enough: one ensemble a fold of the cells of all seeds, though they "
            "were validated on different speakers or rows.",
        ),
    ] = False,
    combine: Annotated[
        str, typer.Option(metavar="mean|vote", help="The mean of the members' probabilities, or their votes.")
    ] = "mean",
    weights: Annotated[
        str, typer.Option(metavar="equal|fitted", help="How much members count; fitted on the validation part alone.")
    ] = "equal",
    name: Annotated[str, typer.Option(help="Name of the ensemble's run; made up when left out.")] = "",
    overwrite: Annotated[bool, overwriting("the run of this name")] = False,
    modality: Annotated[
        str,
        typer.Option(
            metavar="|".join(MODALITIES), help="With --seeds or --variants: what is learned from [audio, text]."
        ),
    ] = "",
    preset: Annotated[str, typer.Option(metavar="NAME", help="With --seeds or --variants: start from a recipe.")] = "",
    config: ConfigFile = None,
    *,
    place: Place,
    settings: dict[str, Any],
) -> None:
    """Let several runs of one split answer as one, and say whether that gains more than chance.

    The result is a run for evaluate, predict and compare; with --grids, a cross-validation. With --seeds or --variants
    the members are trained first, as a grid of this name; the other settings are theirs, and so is --precision: members
    are combined and evaluated in float32.
    """
    if [bool(runs), bool(grids), bool(seeds or variants)].count(True) != 1:
        raise SettingsError(
            "name two or more RUNs, or let --seeds 0,1,2 or --variants base,frozen,unfrozen train the members, or name "
            "two or more --grids"
        )
    if runs or grids:
        _refuse_training_flags(settings, place, {"--modality": modality, "--preset": preset, "--config": config})
    if grids:
        if "data_root" in settings:
            raise SettingsError("--data-root does nothing with --grids: what the folds' evaluations kept is combined")
        rules = {"combine": combine, "weights": weights, "all_seeds": all_seeds}
        _combine_grids(grids, rules, name, place, overwrite=overwrite, command=context.obj["command"])
        return
    if all_seeds:
        raise SettingsError("--all-seeds acts only together with --grids")
    resources = place.resources()
    from samo.ensembles.build_ensemble import build_ensemble
    from samo.ensembles.ensemble import check_rules
    from samo.experiments.train_members import train_members
    from samo.runs.artifacts import artifacts_root, create_run, find_run
    from samo_cli.render import TerminalReporter, print_json, show_ensemble

    check_rules(combine, weights)
    root = artifacts_root(place.artifacts)
    if name and not overwrite:
        create_run(root, name, "")  # a name that is taken costs no training
    common: dict[str, Any] = {"name": name, "artifacts": root, "resources": resources, "reporter": TerminalReporter()}
    common["command"] = context.obj["command"]
    if runs:
        members, frontend = [find_run(root, given) for given in runs], None
    else:
        chosen = resolve(modality or ("text" if variants else "audio"), preset, config, settings)
        which = tuple(name.strip() for name in variants.split(",") if name.strip())
        repeats = numbers(seeds, "--seeds") if seeds else ()
        members, frontend = train_members(chosen, seeds=repeats, variants=which, **common)
    how: dict[str, Any] = {"combine": combine, "weights": weights, "overwrite": overwrite}
    run, summary = build_ensemble(members, **how, frontend=frontend, settings=settings, **common)
    if place.json:
        print_json(summary)
    else:
        show_ensemble(summary, run.path("report.html"))


def _combine_grids(
    grids: str, rules: Mapping[str, Any], name: str, place: Place, *, overwrite: bool, command: str
) -> None:
    from samo.ensembles.grid_ensembles import combine_grids
    from samo_cli.render import TerminalReporter, print_json, show_combined

    named = [part.strip() for part in grids.split(",") if part.strip()]
    folder, report = combine_grids(
        named, **rules, name=name, overwrite=overwrite, artifacts=place.artifacts,
        reporter=TerminalReporter(), command=command,
    )  # fmt: skip
    if place.json:
        print_json(report)
    else:
        show_combined(report, folder)


def _refuse_training_flags(settings: Mapping[str, Any], place: Place, others: Mapping[str, object]) -> None:
    """Refuse what speaks of a training where there is none; the data of finished runs may have moved."""
    precision = "" if place.precision == "auto" else place.precision
    machine = {"--workers": place.workers, "--ray": place.ray, "--store": place.store, "--precision": precision}
    typed = [switch(name) for name in settings if name != "data_root"]
    typed += [flag for flag, value in {**others, **machine}.items() if value]
    if typed:
        raise SettingsError(
            f"{typed[0]} acts only together with --seeds or --variants: what is named is trained already"
        )
