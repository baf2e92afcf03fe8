"""``samo tune``."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import EnvironmentProblem
from samo.launch.resources import Resources
from samo.modalities import config_types
from samo.settings import resolve
from samo_cli.flags import in_artifacts
from samo_cli.grid_options import Modality, Preset
from samo_cli.options import (
    MACHINE,
    Artifacts,
    ConfigFile,
    Device,
    Json,
    Precision,
    Threads,
    flags_of,
    with_settings,
)

if TYPE_CHECKING:
    from samo.tuning.tune import TuneResult

__all__ = ["tune"]


@with_settings(flags_of(config_types()))
def tune(
    context: typer.Context,
    trials: Annotated[
        int, typer.Option(min=1, metavar="INTEGER", help="Trials of the study in all, earlier ones included.")
    ] = 20,
    timeout: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Begin no trial after this time; 0 = no limit.")
    ] = 0.0,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings to vary, as TOML; left out: the modality's own list."),
    ] = None,
    pruner: Annotated[
        str,
        typer.Option(metavar="median|hyperband|none", help="How trials that fall behind are ended; left out: median."),
    ] = "",
    name: Annotated[
        str, typer.Option(help="Name of the study; the same name goes on with it. Made up when left out.")
    ] = "",
    modality: Modality = "audio",
    preset: Preset = "",
    config: ConfigFile = None,
    storage: Annotated[
        str,
        typer.Option(
            metavar="FILE|URL", rich_help_panel=MACHINE, help="Where trials are kept; left out: a file of the study."
        ),
    ] = "",
    workers: Annotated[
        int, typer.Option(min=1, metavar="INTEGER", rich_help_panel=MACHINE, help="Trials trained at once.")
    ] = 1,
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Search for good settings by validation macro-F1 (Optuna: TPE and pruning). The test part is never looked at.

    Flags fix a setting; what no flag fixes is varied if it is in the search space.
    """
    if find_spec("optuna") is None:
        raise EnvironmentProblem("samo tune needs Optuna", hint='pip install "samo-emotion[tune]"')
    # Wrong settings are met before torch and Optuna are imported.
    chosen = resolve(modality, preset, config, settings)
    from samo.tuning.space import find_space

    varied = find_space(chosen, space, settings)
    from samo.tuning import tune as tuning
    from samo_cli.render import TerminalReporter

    found = tuning.tune(
        chosen,
        varied,
        trials=trials,
        timeout_s=timeout,
        pruner=pruner,
        name=name,
        storage=storage,
        keep_settings=not (settings or preset or config or space),
        artifacts=artifacts,
        resources=Resources(workers, threads, device, precision),
        reporter=TerminalReporter(),
        command=_without_password(context.obj["command"]),
    )
    _show(found, artifacts, json=json)


def _without_password(command: str) -> str:
    return re.sub(r"(://[^:/@\s]*:)[^@\s]+@", r"\1***@", command)


def _show(found: TuneResult, artifacts: str, *, json: bool) -> None:
    """One JSON object, or a panel with the next command; a pipe gets the file of the best settings."""
    from samo_cli.render import err, note, out, print_json, tuning_panel

    facts = found.facts
    if not any("importance" in file for file in facts["figures"]):
        note("no picture of importance: too few finished trials, or all alike")
    if json:
        print_json(facts)
        return
    command = in_artifacts(
        f"samo train --modality {found.modality} --config {shlex.quote(facts['best_toml'])}", artifacts
    )
    (out if out.is_terminal else err).print(tuning_panel(facts, command))
    if not out.is_terminal:
        out.print(facts["best_toml"], markup=False, soft_wrap=True)
