"""``samo ensemble``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import RunError, SettingsError, nearest
from samo.modalities import MODALITIES, config_types, frontend_type
from samo.settings import resolve
from samo_cli.flags import switch
from samo_cli.options import (
    Artifacts,
    ConfigFile,
    Device,
    Json,
    Precision,
    Threads,
    flags_of,
    with_settings,
)
from samo_cli.verbs.crossval import made_up_name
from samo.experiments.run_grid import Plan, Ray, StoreUrl, Where, Workers, numbers, open_frontend, open_plan, run_cells

if TYPE_CHECKING:
    from samo.frontend import Frontend
    from samo.runs.run import Run
    from samo.settings import Config

__all__ = ["ensemble"]

# The data of finished runs may have moved; all else about them is settled.
_OF_RUNS = {"data_root"}
# --seeds is in the place of the one, --weights means something else here; start weights can stand in --config.
_OWN = {"seed", "weights"}


# What each variant of an encoder changes: REQUIREMENTS F3's base, frozen and unfrozen.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    # A frozen encoder has no learning rate of its own: None is the setting's default.
    "frozen": {"freeze_encoder": True, "unfreeze_epochs": 0, "encoder_lr_scale": None, "layer_lr_decay": None},
    "unfrozen": {"freeze_encoder": False, "unfreeze_epochs": 1},
}
_VALID = f"valid: {', '.join(VARIANTS)}"


@with_settings(flags_of(config_types(), without=_OWN))
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
    combine: Annotated[
        str, typer.Option(metavar="mean|vote", help="The mean of the members' probabilities, or their votes.")
    ] = "mean",
    weights: Annotated[
        str, typer.Option(metavar="equal|fitted", help="How much members count; fitted on the validation part alone.")
    ] = "equal",
    name: Annotated[str, typer.Option(help="Name of the ensemble's run; made up when left out.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run of this name.")] = False,
    modality: Annotated[
        str,
        typer.Option(
            metavar="|".join(MODALITIES), help="With --seeds or --variants: what is learned from [audio, text]."
        ),
    ] = "",
    preset: Annotated[str, typer.Option(metavar="NAME", help="With --seeds or --variants: start from a recipe.")] = "",
    config: ConfigFile = None,
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
    """Let several runs of one split answer as one, and say whether that gains more than chance.

    The result is a run for evaluate, predict and compare. With --seeds or --variants the members are trained first, as
    a grid of this name; the other settings are theirs, and so is --precision: members are combined and judged in
    float32.
    """
    named = list(runs or ())
    if bool(named) == bool(seeds or variants):
        raise SettingsError(
            "name two or more RUNs, or let --seeds 0,1,2 or --variants base,frozen,unfrozen train the members"
        )
    if named:
        others: dict[str, object] = {
            "--modality": modality,
            "--preset": preset,
            "--config": config,
            "--workers": workers,
            "--ray": ray,
            "--store": store,
            "--precision": "" if precision == "auto" else precision,
        }
        _refuse_training_flags(settings, others)
    where = Where(workers, threads, device, precision, ray, store)
    from samo.ensembles.ensemble import assemble, check_choices, write_ensemble
    from samo.ensembles.members import gather
    from samo.runs.evaluate import evaluate_run
    from samo.runs.run import artifacts_root, create_run, find_run
    from samo.training.runtime import make_runtime
    from samo.training.setup import Setup
    from samo_cli.render import note, print_json, show_ensemble

    check_choices(combine, weights)
    root = artifacts_root(artifacts)
    if name and not overwrite:
        create_run(root, name, "")  # a name that is taken costs no training
    frontend: Frontend | None = None
    if named:
        members = [find_run(root, given) for given in named]
    else:
        chosen = resolve(modality or ("text" if variants else "audio"), preset, config, settings)
        plan = _plan(chosen, seeds, variants, root, name, context.obj["command"])
        frontend = open_frontend(plan.cells)
        members = _trained(plan, frontend, where)
    if name in [member.name for member in members]:
        raise SettingsError(f"--name {name}: a member is called that")
    runtime = make_runtime(device, "float32", threads)
    kind = frontend_type(_modality(members))
    sound, left_out = gather(members, kind, runtime)
    for left in left_out:
        note(f"left out: '{left.name}': {left.reason}")
    frontend = frontend or _open(kind, sound[0].config, settings, sound[0].run)
    assembly = assemble(sound, Setup(frontend, runtime), combine=combine, rule=weights, notify=note)
    values = frontend.config.flat()
    run = create_run(root, name, f"ensemble-{values['dataset']}-{values['mode']}", overwrite=overwrite)
    account = write_ensemble(run, assembly, left_out, Setup(frontend, runtime), context.obj["command"])
    evaluate_run(run, Setup(frontend, runtime), "test")
    if json:
        print_json(account)
    else:
        show_ensemble(account, run.path("report.html"))


def _refuse_training_flags(settings: dict[str, Any], others: dict[str, object]) -> None:
    typed = [switch(name) for name in settings if name not in _OF_RUNS]
    typed += [flag for flag, value in others.items() if value]
    if typed:
        raise SettingsError(
            f"{typed[0]} acts only together with --seeds or --variants: the RUNs named are trained already"
        )


def _modality(runs: Sequence[Run]) -> str:
    """That of the first run that can be read; the others are held against it."""
    problems = []
    for run in runs:
        try:
            return str(run.settings["modality"])
        except RunError as error:
            problems.append(error.message)
    raise RunError(f"no run can be read: {problems[0]}")


def _open(kind: type[Frontend], config: Config, settings: dict[str, Any], run: Run) -> Frontend:
    from samo.runs.run import ASSETS
    from samo_cli.render import counting, note

    with counting(kind.preparing) as progress:
        return kind.open(type(config).build({**config.flat(), **settings}), note, progress, run.path(ASSETS))


def _plan(chosen: Config, seeds: str, variants: str, root: Path, name: str, command: str) -> Plan:
    """One cell for each seed of each variant, all on one split."""
    from samo.experiments.cells import Cell

    values = {"modality": chosen.modality, **chosen.flat()}
    repeats = numbers(seeds, "--seeds") if seeds else [values["seed"]]
    if values["split_seed"] < 0:
        values["split_seed"] = repeats[0]
    cells = tuple(
        Cell(f"{variant}.seed{seed}" if variant else f"seed{seed}", variant or "all", seed, None, settings)
        for variant, changed in _variants(chosen, variants).items()
        for seed in repeats
        for settings in [{**values, **changed, "seed": seed}]
    )
    for cell in cells:  # a member whose settings contradict each other costs no training of the others
        type(chosen).build({key: value for key, value in cell.settings.items() if key != "modality"})
    if len(cells) < 2:
        raise SettingsError(f"--seeds {seeds}: an ensemble takes at least two members")
    name = name or made_up_name(
        "ensemble", chosen, repeats, values["split"], values["fold"], *([variants] if variants else [])
    )
    return Plan("ensemble", root / "grids" / name, cells, "macro_f1", command)


def _variants(chosen: Config, given: str) -> dict[str, dict[str, Any]]:
    """What each variant changes, by name; the one without a name changes nothing."""
    if not given:
        return {"": {}}
    if chosen.flat().get("model") != "encoder":
        raise SettingsError("--variants are those of a pretrained encoder", hint="--modality text --encoder FOLDER")
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in VARIANTS:
            raise SettingsError(f"--variants: unknown '{name}'", hint=nearest(name, VARIANTS) + _VALID)
    if len(set(names)) != len(names) or len(names) < 2:
        raise SettingsError(f"--variants {given}: name two or three different ones", hint=_VALID)
    defaults = {field.name: field.info.default for field in type(chosen).fields()}
    return {
        name: {key: defaults[key] if value is None else value for key, value in VARIANTS[name].items()}
        for name in names
    }


def _trained(plan: Plan, frontend: Frontend, where: Where) -> list[Run]:
    """The cells' runs; those that are trained already are kept."""
    plan = open_plan(plan, frontend)
    run_cells(plan, where)
    return [cell.run(plan.folder) for cell in plan.cells]
