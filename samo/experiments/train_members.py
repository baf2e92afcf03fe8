"""Members of an ensemble to be: one training for each seed of each variant, all on one split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samo.errors import SettingsError, nearest
from samo.experiments.grid_plan import GridPlan, default_name, make_cell, open_data, open_plan, require_cell_places
from samo.experiments.reporter import GridReporter
from samo.experiments.run_grid import run_grid
from samo.frontend import Frontend
from samo.launch.resources import Resources
from samo.runs.artifacts import artifacts_root
from samo.runs.run import Run
from samo.settings import Config, stored_config

__all__ = ["VARIANTS", "plan_members", "train_members"]

# What each variant of an encoder changes; None is the setting's default: a frozen encoder has no rate of its own.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "frozen": {"freeze_encoder": True, "unfreeze_epochs": 0, "encoder_lr_scale": None, "layer_lr_decay": None},
    "unfrozen": {"freeze_encoder": False, "unfreeze_epochs": 1},
}
_VALID = f"valid: {', '.join(VARIANTS)}"


def train_members(
    config: Config,
    *,
    seeds: Sequence[int] = (),
    variants: Sequence[str] = (),
    name: str = "",
    artifacts: Path | str = "",
    resources: Resources | None = None,
    reporter: GridReporter | None = None,
    command: str = "",
) -> tuple[list[Run], Frontend]:
    """Train the members of an ensemble on one split; those that are trained already are kept.

    Args:
        config: settings of all, from :func:`samo.settings.resolve`; without a split seed the first seed is taken.
        seeds: one member with each; empty: that of the settings.
        variants: of a pretrained encoder, keys of :data:`VARIANTS`; empty: as set.
        name: of the grid's folder; empty makes one from the settings.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        resources: on what; left out: this machine.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the results.

    Returns:
        The runs, and their data, open.

    Raises:
        SettingsError: fewer than two members, an unknown variant, or one that the settings do not take.
        RunError, Interrupted: see :func:`~samo.experiments.run_grid.run_grid`.
    """
    plan = plan_members(config, seeds, variants, name, artifacts, command=command)
    frontend = open_data(stored_config(plan.cells[0].settings), reporter)
    run_grid(open_plan(plan, frontend=frontend), resources, reporter)
    return plan.runs, frontend


def plan_members(
    config: Config,
    seeds: Sequence[int] = (),
    variants: Sequence[str] = (),
    name: str = "",
    artifacts: Path | str = "",
    *,
    command: str = "",
) -> GridPlan:
    """One cell for each seed of each variant; no data are opened yet. See :func:`train_members`."""
    values = config.flat()
    # A list where nobody named seeds: made-up names are digests of it, and those of before must be found.
    repeats = tuple(seeds) or [values["seed"]]
    split_seed = repeats[0] if values["split_seed"] < 0 else values["split_seed"]
    cells = tuple(
        make_cell(config, f"{variant}.seed{seed}" if variant else f"seed{seed}", variant or "all",
                  **{"split_seed": split_seed, **changed, "seed": seed})
        for variant, changed in _changes(config, variants).items()
        for seed in repeats
    )  # fmt: skip
    if len(cells) < 2:
        raise SettingsError(f"`seeds={','.join(map(str, seeds))}`: an ensemble takes at least two members")
    more = [",".join(variants)] if variants else []
    name = name or default_name("ensemble", config, repeats, values["split"], values["fold"], *more)
    plan = GridPlan("ensemble", artifacts_root(str(artifacts)) / "grids" / name, cells, command=command)
    require_cell_places(plan.cells, plan.folder)
    return plan


def _changes(config: Config, variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each variant changes, by name; the one without a name changes nothing."""
    if not variants:
        return {"": {}}
    if config.flat().get("model") != "encoder":
        raise SettingsError("`variants` are those of a pretrained encoder", hint="`modality=text` `encoder=FOLDER`")
    for name in variants:
        if name not in VARIANTS:
            raise SettingsError(f"`variants`: unknown '{name}'", hint=nearest(name, VARIANTS) + _VALID)
    if len(set(variants)) != len(variants) or len(variants) < 2:
        raise SettingsError(f"`variants={','.join(variants)}`: name two or three different ones", hint=_VALID)
    defaults = {field.name: field.info.default for field in type(config).fields()}
    return {
        name: {key: defaults[key] if value is None else value for key, value in VARIANTS[name].items()}
        for name in variants
    }
