"""An ensemble of presets: each is trained on one split, or cross-validated on the same folds, and they are combined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from samo.ensembles.build_ensemble import build_ensemble
from samo.ensembles.ensemble import check_rules
from samo.ensembles.grid_ensembles import combine_grids, free_folder
from samo.errors import RunError, SettingsError, first_ten
from samo.experiments.cells import Cell
from samo.experiments.crossval import fold_settings, plan_crossval, report_crossval, require_fold_places
from samo.experiments.grid_plan import (
    GridPlan,
    default_name,
    make_cell,
    naming_settings,
    open_data,
    open_plan,
    require_cell_places,
)
from samo.experiments.reporter import GridReporter, PlainGridReporter
from samo.experiments.run_grid import run_grid
from samo.frontend import Frontend
from samo.launch.resources import Resources
from samo.modalities import frontend_type
from samo.reporting.report import read_report
from samo.runs.artifacts import artifacts_root, create_run
from samo.runs.run import Run
from samo.settings import (
    GRID_SETTINGS,
    Config,
    collect_settings,
    error_in,
    named_setting,
    read_ensemble,
    resolve,
    stored_config,
)

__all__ = ["crossvalidate_members", "member_configs", "plan_member_grids", "train_preset_ensemble"]


def crossvalidate_members(
    plans: Sequence[GridPlan],
    name: str,
    *,
    weights: str = "equal",
    artifacts: Path | str = "",
    resources: Resources | None = None,
    reporter: GridReporter | None = None,
    command: str = "",
) -> tuple[Path, dict[str, Any]]:
    """Train what is missing of each member's cross-validation, then combine them; the same call goes on.

    Args:
        plans: from :func:`plan_member_grids`.
        name: of the ensemble's folder in ``ARTIFACTS/grids``.
        weights: one of :data:`~samo.ensembles.members.WEIGHTS`.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        resources: on what; left out: this machine.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the results.

    Returns:
        As :func:`~samo.ensembles.grid_ensembles.combine_grids`.

    Raises:
        SettingsError: unknown weights.
        RunError: the name is that of another grid, or of an ensemble of others.
        RunError, Interrupted: see :func:`~samo.experiments.run_grid.run_grid`.
    """
    check_rules("mean", weights)
    reporter = reporter or PlainGridReporter()
    target = free_folder(artifacts_root(str(artifacts)), name, [plan.folder for plan in plans], overwrite=True)
    names = [plan.name for plan in plans]
    if target.exists() and (others := _combined_in(target)) != names:
        raise RunError(
            f"grid '{name}' is an ensemble of {first_ten(others)}: it is not replaced", hint="choose another `name`"
        )
    for plan in plans:
        reporter.note(f"member {plan.name}")
        try:
            run_grid(plan, resources, reporter)
        finally:
            report_crossval(plan)
    return combine_grids(
        names, weights=weights, name=name, overwrite=True, artifacts=artifacts, reporter=reporter, command=command
    )


def _combined_in(folder: Path) -> list[str]:
    """The grids that an ensemble of grids is made of."""
    combined = read_report(folder / "report.json").get("combined", {})
    return [str(row["grid"]) for row in combined.get("grids", ())]


def plan_member_grids(
    modality: str,
    preset: str,
    file: Path | None,
    settings: Mapping[str, Any],
    *,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] = (),
    name: str = "",
    artifacts: Path | str = "",
    reporter: GridReporter | None = None,
    command: str = "",
) -> tuple[str, list[GridPlan]]:
    """The ensemble's name, and a cross-validation for each member, named ``NAME.MEMBER``; nothing is trained.

    Args:
        modality: what is learned from.
        preset: an ensemble of :func:`~samo.modalities.ensemble_files`.
        file: a configuration file, or None.
        settings: by name; each goes to the members that take it.
        seeds, folds: as :func:`~samo.experiments.crossval.crossvalidate` has them.
        name: empty makes one from the settings.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the results.

    Raises:
        SettingsError: a setting that no member takes; an unknown fold.
        LeakError, DataError: a fold that cannot be trained.
        DataError, ModelFileError: see :func:`~samo.experiments.crossval.require_fold_places`.
        RunError: the name is that of another grid.
    """
    reporter = reporter or PlainGridReporter()
    configs = _announced_configs(modality, preset, file, settings, fold_settings, reporter)
    all_settings = [naming_settings(config, GRID_SETTINGS) for config in configs.values()]
    name = name or default_name(preset, next(iter(configs.values())), tuple(seeds), tuple(folds), all_settings)
    for member, config in configs.items():
        require_fold_places(config, f"{name}.{member}", artifacts)
    plans = [
        plan_crossval(config, seeds, folds, f"{name}.{member}", artifacts, reporter=reporter, command=command)
        for member, config in configs.items()
    ]
    return name, plans


def train_preset_ensemble(
    modality: str,
    preset: str,
    file: Path | None,
    settings: Mapping[str, Any],
    *,
    name: str = "",
    overwrite: bool = False,
    artifacts: Path | str = "",
    resources: Resources | None = None,
    reporter: GridReporter | None = None,
    command: str = "",
) -> tuple[Run, dict[str, Any]]:
    """Train what is missing of an ensemble's members on one split, and let them answer as one run; test stays closed.

    The members lie in the grid ``NAME``, where the same call finds them again.

    Args:
        modality: what is learned from.
        preset: an ensemble of :func:`~samo.modalities.ensemble_files`.
        file: a configuration file, or None.
        settings: by name; those of the file and these go to the members that take them.
        name: of the run and of the grid; empty makes both.
        overwrite: replace the run of this name.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        resources: on what; left out: this machine.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the results.

    Returns:
        The run, and the summary of its members as it stands in ``ensemble.json``.

    Raises:
        SettingsError: a setting that no member takes, or a member has the ensemble's name.
        RunError: the name is taken, or that of a grid of other settings.
        RunError, Interrupted: see :func:`~samo.experiments.run_grid.run_grid`.
    """
    reporter, root = reporter or PlainGridReporter(), artifacts_root(str(artifacts))
    configs = _announced_configs(modality, preset, file, settings, resolve, reporter)
    if name in configs:
        raise SettingsError(f"`name={name}`: a member is called that")
    if name and not overwrite:
        create_run(root, name, "")  # a name that is taken costs no training
    _refuse_unpackable(frontend_type(modality), configs)
    first = next(iter(configs.values()))
    values = first.flat()
    split_seed = values["seed"] if values["split_seed"] < 0 else values["split_seed"]
    cells = tuple(
        make_cell(config, member, member, seed=config.flat()["seed"], part="val", split_seed=split_seed)
        for member, config in configs.items()
    )
    folder = root / "grids" / (name or _grid_name(preset, cells))
    plan = GridPlan("ensemble", folder, cells, command=command)
    require_cell_places(plan.cells, folder)
    frontend = open_data(stored_config(cells[0].settings), reporter)
    run_grid(open_plan(plan, frontend=frontend), resources, reporter)
    return build_ensemble(
        plan.runs, name=name, overwrite=overwrite, artifacts=root, frontend=frontend, resources=resources,
        reporter=reporter, command=command, test=False,
    )  # fmt: skip


def _grid_name(preset: str, cells: Sequence[Cell]) -> str:
    """The same wherever the data lie and whatever settings come later, so that trained members are found again."""
    configs = [stored_config(cell.settings) for cell in cells]
    return default_name(preset, configs[0], [naming_settings(config) for config in configs])


def _refuse_unpackable(kind: type[Frontend], configs: Mapping[str, Config]) -> None:
    """Refuse members that no batch can feed together, before they are trained.

    Raises:
        SettingsError: names two.
    """
    alone = [member for member, config in configs.items() if not kind.packs(config)]
    for member, config in configs.items() if alone else ():
        mine, other = kind.batch_settings(config), kind.batch_settings(configs[alone[0]])
        if differing := [name for name in mine if mine[name] != other[name]]:
            raise SettingsError(
                f"{alone[0]} and {member} cannot be one model: they are fed differently ({first_ten(differing)}), and "
                f"{alone[0]} takes more than each {kind.item} alone",
                hint=f"`samo crossval` combines what they answer to the {kind.item}s of each fold",
            )


def _announced_configs(
    modality: str,
    preset: str,
    file: Path | None,
    settings: Mapping[str, Any],
    resolved: Callable[..., Config],
    reporter: GridReporter,
) -> dict[str, Config]:
    """The settings of each member; which it does not take is said."""
    configs, dropped = member_configs(modality, preset, file, settings, resolved)
    for member, reasons in dropped.items():
        for setting, reason in reasons.items():
            reporter.note(f"{member} trains without `{setting}`: {reason}")
    return configs


def member_configs(
    modality: str,
    preset: str,
    file: Path | None,
    settings: Mapping[str, Any],
    resolved: Callable[..., Config] = fold_settings,
) -> tuple[dict[str, Config], dict[str, dict[str, str]]]:
    """The settings of each member, and by member what of the file and of ``settings`` it does not take, and why.

    `weights` is taken by members with `pretrained` alone.

    Args:
        modality: what is learned from.
        preset: an ensemble of :func:`~samo.modalities.ensemble_files`.
        file: a configuration file, or None.
        settings: by name; they win over the file.
        resolved: :func:`~samo.experiments.crossval.fold_settings`, or :func:`~samo.settings.resolve` of one training.

    Raises:
        SettingsError: an unknown setting, or one that no member takes.
    """
    members = read_ensemble(modality, preset)[1]
    read = collect_settings(modality, members[0], file, dict(settings))[1]
    given = {**read, **settings}
    configs: dict[str, Config] = {}
    refused: dict[str, dict[str, SettingsError]] = {}
    for member in members:
        configs[member], refused[member] = _member_config(modality, member, given, resolved)
    nowhere = set.intersection(*(set(errors) for errors in refused.values()))
    for setting in (name for name in given if name in nowhere):
        error = _of_no_member(preset, setting, {member: errors[setting] for member, errors in refused.items()})
        raise error if file is None or setting not in read or setting in settings else error_in(file, error)
    return configs, {
        member: {setting: error.message for setting, error in errors.items()}
        for member, errors in refused.items()
        if errors
    }


def _member_config(
    modality: str, member: str, given: Mapping[str, Any], resolved: Callable[..., Config]
) -> tuple[Config, dict[str, SettingsError]]:
    """The settings of one member, without those that it does not take, and why it does not."""
    own, refused = dict(given), dict[str, SettingsError]()
    while True:
        try:
            config = resolved(modality, member, None, own)
            # Tensors of one network fit no other: they are for the member that starts from published ones.
            if own.get("weights") and not config.flat()["pretrained"]:
                raise SettingsError("`weights` goes to a member with `pretrained`")
            return config, refused
        except SettingsError as error:
            setting = _unfit(error, modality, member, own, resolved)
            if not setting:
                raise
            refused[setting] = error
            del own[setting]


def _unfit(
    error: SettingsError, modality: str, member: str, own: Mapping[str, Any], resolved: Callable[..., Config]
) -> str:
    """Which of the given settings a member's settings are wrong by; empty where none alone is.

    An error may name a setting of the preset that does not go with a given one.
    """
    if (named := named_setting(error)) in own:
        return named
    for setting in own:
        try:
            resolved(modality, member, None, {name: value for name, value in own.items() if name != setting})
            return setting
        except SettingsError:
            continue
    return ""


def _of_no_member(preset: str, setting: str, errors: Mapping[str, SettingsError]) -> SettingsError:
    """What is wrong with a setting: the members' one reason, or the reason of each."""
    first = next(iter(errors.values()))
    if len({error.message for error in errors.values()}) == 1:
        return first
    reasons = "; ".join(f"{member}: {error.message}" for member, error in errors.items())
    return SettingsError(f"`{setting}` is taken by no member of `preset={preset}`: {reasons}", hint=first.hint)
