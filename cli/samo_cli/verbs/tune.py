"""``samo tune``."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import EnvironmentProblem, Interrupted, RunError, SettingsError
from samo.modalities import MODALITIES, config_type, config_types, frontend_type, space_files
from samo.plugins import trust, trusted
from samo.settings import Config, resolve
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
    import optuna

    from samo.frontend import Frontend
    from samo.tuning.study import StudySpec

__all__ = ["tune", "work"]


@dataclass(frozen=True)
class _Asked:
    """What was typed, apart from settings."""

    trials: int
    timeout: float
    folder: Path
    storage: str
    workers: int
    device: str
    precision: str
    threads: int
    command: str


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
    modality: Annotated[str, typer.Option(metavar="|".join(MODALITIES), help="What is learned from.")] = "audio",
    preset: Annotated[str, typer.Option(metavar="NAME", help="Start from a recipe of `samo presets`.")] = "",
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
    raw = _space(modality, space, chosen, settings)
    from samo.runs.run import NAME_PATTERN, artifacts_root
    from samo.tuning.study import connect, make_pruner, open_study

    if pruner:
        make_pruner(pruner, 1)
    if name and not NAME_PATTERN.fullmatch(name):
        raise SettingsError(f"--name '{name}': use letters, digits and . _ + = - only")
    values = chosen.flat()
    root = artifacts_root(artifacts) / "tuning"
    name = name or _new_name(root, f"{values['dataset']}-{values['mode']}-{values['model']}")
    where = root / name
    asked = _Asked(
        trials, timeout, where, storage, workers, device, precision, threads, _without_password(context.obj["command"])
    )
    typed = bool(settings or preset or config or space)
    found = open_study(connect(where, storage), name)
    if found is None and (where / "runs").exists():
        raise RunError(
            f"{where} holds trials of a study that the storage does not know",
            hint="give the --storage it was begun with, or choose another --name",
        )
    if found is not None and not typed:
        chosen = config_type(found[1].modality).build(found[1].settings)
        raw, modality = dict(found[1].space), found[1].modality
    if found is not None:
        pruner = pruner or found[1].pruner
    facts, marks = _search(asked, modality, chosen, raw, pruner or "median")
    _show(facts, marks, modality, artifacts, json=json)


def work(spec: Mapping[str, Any]) -> None:
    """One worker of a study: take trials until there are enough.

    Raises:
        SamoError: what stops every trial.
    """
    from samo.training.runtime import make_runtime
    from samo.training.setup import Setup
    from samo.tuning.results import study_facts
    from samo.tuning.space import parse_space
    from samo.tuning.study import connect, join_study, open_study
    from samo.tuning.trials import Goal, run_trials
    from samo_cli.render import TuningView

    trust(*spec.get("trusted", ()))
    folder = Path(spec["folder"])
    found = open_study(connect(folder, spec["storage"]), spec["name"])
    if found is None:
        raise RunError(f"the study '{spec['name']}' is gone from its storage")
    study, stored = found
    base = config_type(stored.modality).build({**stored.settings, **spec["place"]})
    frontend: Any = frontend_type(stored.modality).open(base, print)
    searched = parse_space(stored.space, frontend.config)
    study = join_study(study._storage, stored, searched)
    runtime = make_runtime(spec["device"], spec["precision"], spec["threads"])
    goal = Goal(spec["trials"], spec["until"])
    with TuningView(goal.trials, study_facts(study, stored, folder)) as view:
        run_trials(study, searched, Setup(frontend, runtime), folder, goal, view)


def _space(modality: str, file: Path | None, base: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings to vary, checked, less those that flags fix."""
    from samo.tuning.space import parse_space, read_space

    raw = read_space(file or space_files(modality)["default"])
    return parse_space(raw, base, fixed=settings, drop_idle=file is None).to_json()


def _without_password(command: str) -> str:
    return re.sub(r"(://[^:/@\s]*:)[^@\s]+@", r"\1***@", command)


def _new_name(root: Path, stem: str) -> str:
    number = 1
    while (root / f"{stem}-{number:03d}").exists():
        number += 1
    return f"{stem}-{number:03d}"


def _search(
    asked: _Asked, modality: str, chosen: Config, raw: Mapping[str, Any], pruner: str
) -> tuple[dict[str, Any], dict[str, bool]]:
    """Open the data, run the trials, write what came of them."""
    from samo.data.splits import make_split
    from samo.runs.run import Run
    from samo.tuning.results import write_results
    from samo.tuning.space import parse_space
    from samo.tuning.study import StudySpec, connect, join_study, require_same_data
    from samo.tuning.trials import end_stale_trials
    from samo_cli.render import counting, note

    kind = frontend_type(modality)
    with counting(kind.preparing) as progress:
        frontend: Any = kind.open(chosen, note, progress)
    spec = StudySpec(asked.folder.name, modality, frontend.config.flat(), dict(raw), pruner)
    searched = parse_space(raw, frontend.config)
    marks = {
        "synthetic": frontend.manifest.synthetic,
        "leaky": make_split(frontend.manifest, frontend.split_request()).leaky,
    }
    if marks["leaky"]:
        note(
            "LEAKY SPLIT: with --split random the same speaker stands in train and validation; every output is stamped"
        )
    with Run(asked.folder).locked():
        study = join_study(connect(asked.folder, asked.storage), spec, searched)
        require_same_data(study, frontend.manifest.digest)
        stale = end_stale_trials(study, asked.folder, shared=bool(asked.storage))
        if stale:
            note(f"trials {', '.join(map(str, stale))} were cut short; their settings are trained again")
        try:
            _run(asked, study, spec, searched, frontend)
        except (Interrupted, KeyboardInterrupt) as stop:
            write_results(study, spec, type(chosen), asked.folder, marks, asked.command)
            raise Interrupted(
                f"the search was stopped; trials that ended are kept in {asked.folder}",
                hint=f"go on with the same command and --name {spec.name}",
                exit_status=getattr(stop, "exit_status", 130),
            ) from None
        return write_results(study, spec, type(chosen), asked.folder, marks, asked.command), marks


def _run(asked: _Asked, study: optuna.Study, spec: StudySpec, searched: Any, frontend: Frontend) -> None:
    """In this process, or in several."""
    from samo.launch.local import LocalLauncher, share_of_cores
    from samo.training.runtime import make_runtime
    from samo.training.setup import Setup
    from samo.tuning.results import study_facts
    from samo.tuning.trials import Goal, counted, run_trials
    from samo.tuning.workers import run_workers
    from samo_cli.render import TuningView, note

    goal = Goal(asked.trials, time.time() + asked.timeout if asked.timeout else None)
    done = len(counted(study))
    varied = f"{len(spec.space)} settings are varied: {', '.join(spec.space)}"
    note(f"study {spec.name}: {asked.trials} trials, {done} done before; {varied}")
    if searched.base_params() is None:
        note("the base settings lie outside the search space, so they are no trial")
    if done >= asked.trials:
        return
    with TuningView(goal.trials, study_facts(study, spec, asked.folder)) as view:
        if asked.workers == 1:
            runtime = make_runtime(asked.device, asked.precision, asked.threads)
            run_trials(study, searched, Setup(frontend, runtime), asked.folder, goal, view)
            return
        gpus = _gpus(asked.device)
        workers, threads = share_of_cores(asked.trials - done, asked.workers, asked.threads, gpus)
        note(f"{workers} workers, {threads} threads each; their logs are in {asked.folder / 'logs'}")
        told = {
            "name": spec.name,
            "folder": str(asked.folder.resolve()),
            "storage": asked.storage,
            "place": {"data_root": spec.settings["data_root"]},
            "trials": goal.trials,
            "until": goal.until,
            "device": asked.device,
            "precision": asked.precision,
            "threads": threads,
            "trusted": trusted(),
        }
        launcher = LocalLauncher("samo_cli.verbs.tune:work", workers, threads, gpus)
        run_workers(study, launcher, told, asked.folder, goal, view, shared=bool(asked.storage))


def _gpus(device: str) -> int:
    import torch

    return 0 if device == "cpu" else torch.cuda.device_count()


def _show(facts: dict[str, Any], marks: Mapping[str, bool], modality: str, artifacts: str, *, json: bool) -> None:
    """One JSON object, or a panel with the next command; a pipe gets the file of the best settings."""
    from samo_cli.render import err, note, out, print_json, tuning_panel

    if facts["best"] is None:
        reasons = [row["reason"] for row in facts["trials"] if row["reason"]]
        raise RunError(
            f"no trial of study '{facts['study']}' was finished" + (f"; the last: {reasons[-1]}" if reasons else ""),
            hint=f"{facts['folder']}/trials.csv says more",
        )
    if not any("importance" in file for file in facts["figures"]):
        note("no picture of importance: too few finished trials, or all alike")
    if json:
        print_json({**facts, **marks})
        return
    also = f" --artifacts {artifacts}" if artifacts else ""
    command = f"samo train --modality {modality} --config {facts['best_toml']}{also}"
    (out if out.is_terminal else err).print(tuning_panel(facts, marks, command))
    if not out.is_terminal:
        out.print(facts["best_toml"], markup=False, soft_wrap=True)
