"""``samo train --encoders A,B,C``: each trained under the same settings, the best on validation kept as a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samo.errors import SamoError, SettingsError
from samo.modalities import config_type
from samo.settings import Config, collect_settings, named_setting
from samo_cli.flags import switch
from samo_cli.verbs.crossval import made_up_name
from samo.experiments.run_grid import Plan, Where, open_frontend, open_plan, run_cells

if TYPE_CHECKING:
    from samo.experiments.cells import Cell

__all__ = ["Asked", "train_encoders"]


@dataclass(frozen=True)
class Asked:
    """What was typed behind ``samo train``."""

    encoders: str
    modality: str
    preset: str
    config: Path | None
    settings: Mapping[str, Any]
    name: str
    overwrite: bool
    command: str


def train_encoders(asked: Asked, where: Where, artifacts: str, *, json: bool) -> None:
    """Train one cell for each encoder, judge them on validation, and keep the best as a run.

    An encoder that cannot be read, or whose training fails, is named and left out. The same command goes on where it
    stopped.

    Raises:
        SettingsError: fewer than two encoders, or settings that none of them takes.
        RunError: the run's name is taken.
        SamoError: no encoder can be read; what is wrong with the first.
    """
    configs = _configs(asked)
    from samo.experiments.selection import choose, keep
    from samo.runs.run import artifacts_root, create_run
    from samo_cli.render import note, print_json, show_choice

    root = artifacts_root(artifacts)
    if asked.name and not asked.overwrite:
        create_run(root, asked.name, "")  # a name that is taken costs no training
    sound, left_out = _sound(configs)
    for name, reason in left_out.items():
        note(f"left out: '{name}': {reason}")
    plan = _plan(asked, configs, sound, root)
    frontend = open_frontend(plan.cells)
    plan = open_plan(plan, frontend)
    failed = run_cells(plan, where, tolerant=True)
    left_out |= {name: f"{reason} (log: {plan.folder / 'logs' / name}.log)" for name, reason in failed.items()}
    done = {cell.name: cell.run(plan.folder) for cell in plan.cells if cell.name not in failed}
    account = {"schema": 1, "grid": plan.name, **choose(done)}
    account["left_out"] = [{"name": name, "reason": reason} for name, reason in left_out.items()]
    values = frontend.config.flat()
    stem = f"{values['dataset']}-{values['mode']}-{account['best']}"
    run = create_run(root, asked.name, stem, overwrite=asked.overwrite)
    account |= {"run": run.name, "folder": str(run.folder)}
    keep(done[account["best"]], run, account)
    if json:
        print_json(account)
    else:
        also = f" --artifacts {artifacts}" if artifacts else ""
        show_choice(account, f"samo evaluate {run.name}{also}")


def _configs(asked: Asked) -> dict[str, Config]:
    """The settings of each encoder, by the name of its cell."""
    if asked.modality != "text":
        raise SettingsError("--encoders belongs to --modality text")
    clash = [switch(name) for name in ("encoder", "model") if name in asked.settings]
    if clash:
        raise SettingsError(f"--encoders and {clash[0]} exclude each other")
    given = [place.strip() for place in asked.encoders.split(",") if place.strip()]
    if len(given) < 2 or len(set(given)) < len(given):
        raise SettingsError(f"--encoders {asked.encoders}: name two or more different ones, joined by commas")
    values = collect_settings(asked.modality, asked.preset, asked.config, dict(asked.settings))[0]
    found: dict[str, Config] = {}
    dropped: dict[str, dict[str, SettingsError]] = {}
    for place in given:
        name = _cell_name(place, found)
        found[name], dropped[name] = _config(place, values)
    everywhere = set.intersection(*(set(settings) for settings in dropped.values()))
    if everywhere:
        raise next(error for setting, error in dropped[next(iter(found))].items() if setting in everywhere)
    _say_dropped(dropped)
    return found


def _config(place: str, values: Mapping[str, Any]) -> tuple[Config, dict[str, SettingsError]]:
    """The settings of one encoder, without those that it does not take, and why it does not."""
    from samo_text.models import MODELS

    own = {name: value for name, value in values.items() if name not in ("encoder", "model")}
    if place in MODELS and place != "encoder":
        own["model"] = place
    else:
        folder = Path(place).expanduser()
        own |= {"model": "encoder", "encoder": str(folder.absolute()) if folder.is_dir() else place}
    dropped: dict[str, SettingsError] = {}
    while True:
        try:
            return config_type("text").build(own), dropped
        except SettingsError as error:
            setting = named_setting(error)
            if setting not in own or setting in ("encoder", "model"):
                raise
            dropped[setting] = error
            del own[setting]


def _say_dropped(dropped: Mapping[str, Mapping[str, SettingsError]]) -> None:
    from samo_cli.render import note

    for name, settings in dropped.items():
        if settings:
            note(f"{name} trains without {', '.join(map(switch, settings))}, which it does not take")


def _cell_name(place: str, taken: Mapping[str, object]) -> str:
    """The last part of a path or hub name, as a file name of its own."""
    stem = re.sub(r"[^A-Za-z0-9._+=-]+", "-", Path(place).name).strip("-.") or "encoder"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def _sound(configs: Mapping[str, Config]) -> tuple[list[str], dict[str, str]]:
    """Encoders whose tokenizer and weights can be read, before hours are spent; what is wrong with the others.

    Raises:
        SamoError: of the first, when there is none.
    """
    from samo.tasks import LabelSpace, Task
    from samo_text.models import build_model
    from samo_text.tokens import EncoderTokens, open_tokens

    any_space = LabelSpace((Task("any", ("a", "b")),))
    sound, errors = [], {}
    for name, config in configs.items():
        try:
            tokens = open_tokens(config)  # type: ignore[arg-type]
            build_model(config, any_space, None, len(tokens) if isinstance(tokens, EncoderTokens) else None)  # type: ignore[arg-type]
            sound.append(name)
        except SamoError as error:
            errors[name] = error
    if not sound:
        raise next(iter(errors.values()))
    return sound, {name: error.message for name, error in errors.items()}


def _plan(asked: Asked, configs: Mapping[str, Config], sound: list[str], root: Path) -> Plan:
    from samo.experiments.cells import Cell

    cells: tuple[Cell, ...] = tuple(
        Cell(name, name, configs[name].flat()["seed"], None, {"modality": "text", **configs[name].flat()}, "val")
        for name in sound
    )
    name = asked.name or made_up_name(
        "encoders", next(iter(configs.values())), asked.encoders, [c.flat() for c in configs.values()]
    )
    return Plan("encoders", root / "grids" / name, cells, "macro_f1", asked.command)
