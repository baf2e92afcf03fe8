"""An ensemble of presets: each is cross-validated on the same folds, then they are combined fold by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samo.ensembles.ensemble import check_rules
from samo.ensembles.grid_ensembles import combine_grids, free_folder
from samo.errors import RunError, SettingsError, first_ten
from samo.experiments.crossval import fold_settings, plan_crossval, report_crossval
from samo.experiments.grid_plan import GridPlan, default_name
from samo.experiments.reporter import GridReporter, PlainGridReporter
from samo.experiments.run_grid import run_grid
from samo.launch.resources import Resources
from samo.reporting.report import read_report
from samo.runs.run import artifacts_root
from samo.settings import Config, named_setting, read_ensemble

__all__ = ["crossvalidate_members", "member_configs", "plan_member_grids"]


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
    """
    reporter = reporter or PlainGridReporter()
    configs, dropped = member_configs(modality, preset, file, settings)
    for member, names in dropped.items():
        reporter.note(f"{member} trains without {', '.join(f'`{each}`' for each in names)}, which it does not take")
    all_settings = [sorted(config.flat().items()) for config in configs.values()]
    name = name or default_name(preset, next(iter(configs.values())), tuple(seeds), tuple(folds), all_settings)
    plans = [
        plan_crossval(config, seeds, folds, f"{name}.{member}", artifacts, reporter=reporter, command=command)
        for member, config in configs.items()
    ]
    return name, plans


def member_configs(
    modality: str, preset: str, file: Path | None, settings: Mapping[str, Any]
) -> tuple[dict[str, Config], dict[str, list[str]]]:
    """The settings of each member, and those of ``settings`` that it does not take, where there are any.

    `weights` is taken by members with `pretrained` alone.

    Raises:
        SettingsError: a setting that no member takes, or a value out of range.
    """
    configs: dict[str, Config] = {}
    refused: dict[str, dict[str, SettingsError]] = {}
    for member in read_ensemble(modality, preset)[1]:
        own, refused[member] = dict(settings), {}
        while member not in configs:
            try:
                config = fold_settings(modality, member, file, own)
                # Tensors of one network fit no other: they are for the member that starts from published ones.
                if own.get("weights") and not config.flat()["pretrained"]:
                    raise SettingsError("`weights` goes to a member with `pretrained`")
                configs[member] = config
            except SettingsError as error:
                setting = named_setting(error)
                if setting not in settings or setting not in own:
                    raise
                refused[member][setting] = error
                del own[setting]
    everywhere = set.intersection(*(set(names) for names in refused.values()))
    if everywhere:
        raise next(error for errors in refused.values() for setting, error in errors.items() if setting in everywhere)
    return configs, {member: list(names) for member, names in refused.items() if names}
