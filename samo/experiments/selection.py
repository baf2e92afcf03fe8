"""Encoders trained under the same settings: the best on validation is kept as a run of its own; test stays closed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samo.errors import RunError, SamoError, SettingsError
from samo.evaluation.baseline import compare_to_baseline
from samo.evaluation.predictions import Predictions
from samo.experiments.cells import Cell
from samo.experiments.grid_plan import GridPlan, default_name, naming_settings, open_data, open_plan
from samo.experiments.reporter import GridReporter, PlainGridReporter
from samo.experiments.run_grid import run_grid
from samo.files import write_json
from samo.launch.resources import Resources
from samo.lazy import load_object
from samo.modalities import config_type, frontend_type
from samo.plugins import trust
from samo.reporting.report import metrics_of, read_report
from samo.runs.artifacts import artifacts_root, create_run, point_latest
from samo.runs.run import Run
from samo.settings import Config, named_setting, stored_config

__all__ = ["SELECTION_FILE", "gain_line", "keep_best", "rank_runs", "select_encoder"]

MODALITY = "text"
SELECTION_FILE = "choice.json"
"""What a kept run was selected from."""
# What speaks of the run it was copied from by name, and what only serves to go on with an unfinished training.
_LEFT_BEHIND = (".*", "report*", "figures*", "MODEL_CARD.md", "last.ckpt", "config.json")


def select_encoder(
    encoders: Sequence[str],
    settings: Mapping[str, Any],
    *,
    name: str = "",
    overwrite: bool = False,
    artifacts: Path | str = "",
    resources: Resources | None = None,
    reporter: GridReporter | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Train one text model for each encoder, evaluate them on validation, and keep the best as a run.

    An encoder that cannot be read, or whose training fails, is named and left out. The same call goes on where it
    stopped.

    Args:
        encoders: two or more different folders, Hugging Face names, or models without an encoder (``tfidf``).
        settings: those of all, by name, ``encoder`` and ``model`` apart; an encoder is trained without those that it
            does not take.
        name: of the run that is kept, and of the grid's folder; empty makes one.
        overwrite: replace the run of this name.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        resources: on what; left out: this machine.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the results.

    Returns:
        :func:`rank_runs` with ``schema``, ``grid``, ``left_out`` (name and reason), ``run`` and ``folder``.

    Raises:
        SettingsError: fewer than two encoders, or settings that none of them takes.
        RunError: the run's name is taken.
        SamoError: no encoder can be read; what is wrong with the first.
    """
    reporter, root = reporter or PlainGridReporter(), artifacts_root(str(artifacts))
    trust(*encoders)  # they were named by whoever calls: code of their own may be among them
    configs, dropped = _configs(encoders, settings)
    for encoder, names in dropped.items():
        reporter.note(f"{encoder} trains without {', '.join(f'`{n}`' for n in names)}, which it does not take")
    if name and not overwrite:
        create_run(root, name, "")  # a name that is taken costs no training
    sound, left_out = _readable(configs)
    for encoder, reason in left_out.items():
        reporter.note(f"left out: '{encoder}': {reason}")
    folder = root / "grids" / (name or _default_name(encoders, configs))
    cells = tuple(Cell(n, n, config.flat()["seed"], None, config.stored(), "val") for n, config in sound.items())
    plan = GridPlan("encoders", folder, cells, command=command)
    frontend = open_data(stored_config(cells[0].settings), reporter)
    failed = run_grid(open_plan(plan, frontend=frontend), resources, reporter, tolerant=True)
    left_out |= {n: f"{reason} (log: {folder / 'logs' / n}.log)" for n, reason in failed.items()}
    done = {run.name: run for run in plan.runs if run.name not in failed}
    summary = {"schema": 1, "grid": plan.name, **rank_runs(done)}
    summary["left_out"] = [{"name": n, "reason": reason} for n, reason in left_out.items()]
    values = frontend.config.flat()
    run = create_run(
        root, name, f"{values['dataset']}-{values['mode']}-{summary['best']}", overwrite=overwrite, hold=True
    )
    summary |= {"run": run.name, "folder": str(run.folder)}
    try:
        keep_best(done[summary["best"]], run, summary)
    finally:
        run.settle()
    return summary


def rank_runs(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Order runs by validation macro-F1 and compare the best with the second.

    Args:
        runs: by name, of one split, each evaluated on ``val``. Several tasks count by the mean of their macro-F1.

    Returns:
        ``candidates``, the best first (name, val_macro_f1, ci, minutes, epochs); ``best``; ``gain`` of the best on the
        ``second`` as :func:`~samo.evaluation.baseline.compare_to_baseline` gives it (of the first task; None
        with one run); ``dataset``, ``synthetic``, ``leaky``, ``task``, ``n`` and ``warnings``.

    Raises:
        RunError: a run was not evaluated on its validation part, or its report is damaged.
    """
    reports = {name: _report(run) for name, run in runs.items()}
    rows = [
        {
            "name": name,
            "val_macro_f1": _score(report),
            "ci": None if report["tasks"] else report["ci"]["macro_f1"],
            "minutes": sum(row["seconds"] for row in runs[name].history) / 60.0,
            "epochs": len(runs[name].history),
        }
        for name, report in reports.items()
    ]
    rows.sort(key=lambda row: -row["val_macro_f1"])
    best, first = rows[0]["name"], reports[rows[0]["name"]]
    space, gain = runs[best].manifest.label_space, None
    if len(rows) > 1:
        second = rows[1]["name"]
        made = {name: Predictions.load(runs[name].path("predictions.val.npz"), space) for name in (best, second)}
        unit = first["ci"]["unit"]
        found = compare_to_baseline(second, made[second], made[best], task=space.primary, label_space=space, unit=unit)
        gain = {"second": second, "level": found["level"], "unit": found["unit"], **found["difference"]}
    return {
        "dataset": first["dataset"],
        "synthetic": first["synthetic"],
        "leaky": first["leaky"],
        "task": space.primary.name,
        "n": first["n"],
        "level": first["ci"]["level"],
        "candidates": rows,
        "best": best,
        "gain": gain,
        "warnings": _warnings(len(rows), bool(first["tasks"]), space.primary.name),
    }


def gain_line(summary: Mapping[str, Any]) -> str:
    """Whether the best gains more than chance on the second."""
    gain, interval = summary["gain"], ""
    if gain["low"] is not None:
        interval = f" ({100 * gain['level']:g} % interval {gain['low']:+.3f} to {gain['high']:+.3f})"
    against = f"of '{summary['best']}' against '{gain['second']}' on validation"
    return f"{gain['value']:+.3f} macro-F1{interval} {against}: {gain['verdict']}"


def keep_best(chosen: Run, run: Run, summary: Mapping[str, Any]) -> None:
    """Copy a finished run under another name, with the summary of what it was selected from, and make it the newest.

    What its evaluation wrote stays behind, so that it stands there as trained and not yet evaluated.

    Args:
        chosen: the run that is kept.
        run: the new one.
        summary: from :func:`rank_runs`.
    """
    left_behind = shutil.ignore_patterns(*_LEFT_BEHIND)

    def ignored(folder: str, names: list[str]) -> set[str]:
        return left_behind(folder, names) if Path(folder) == chosen.folder else set()

    with run.locked():
        shutil.copytree(chosen.folder, run.folder, ignore=ignored, dirs_exist_ok=True)
        write_json(run.path(SELECTION_FILE), summary)
        write_json(run.path("config.json"), chosen.settings)
        point_latest(run.root, run)


def _configs(encoders: Sequence[str], settings: Mapping[str, Any]) -> tuple[dict[str, Config], dict[str, list[str]]]:
    """The settings of each encoder by the name of its cell, and which it does not take, where there are any."""
    if len(encoders) < 2 or len(set(encoders)) < len(encoders):
        raise SettingsError(f"`encoders={','.join(encoders)}`: name two or more different ones, joined by commas")
    found: dict[str, Config] = {}
    refused: dict[str, dict[str, SettingsError]] = {}
    for encoder in encoders:
        name = _cell_name(encoder, found)
        found[name], refused[name] = _config(encoder, settings)
    everywhere = set.intersection(*(set(names) for names in refused.values()))
    if everywhere:
        raise next(error for setting, error in refused[next(iter(found))].items() if setting in everywhere)
    return found, {name: list(settings) for name, settings in refused.items() if settings}


def _config(encoder: str, settings: Mapping[str, Any]) -> tuple[Config, dict[str, SettingsError]]:
    """The settings of one encoder, without those that it does not take, and why it does not."""
    kind = config_type(MODALITY)
    models = next(load_object(field.choices) for field in kind.fields() if field.name == "model")
    own = {name: value for name, value in settings.items() if name not in ("encoder", "model")}
    if encoder in models and encoder != "encoder":
        own["model"] = encoder
    else:
        folder = Path(encoder).expanduser()
        own |= {"model": "encoder", "encoder": str(folder.absolute()) if folder.is_dir() else encoder}
    refused: dict[str, SettingsError] = {}
    while True:
        try:
            return kind.build(own), refused
        except SettingsError as error:
            setting = named_setting(error)
            if setting not in own or setting in ("encoder", "model"):
                raise
            refused[setting] = error
            del own[setting]


def _cell_name(encoder: str, taken: Mapping[str, object]) -> str:
    """The last part of a path or hub name, as a file name of its own."""
    stem = re.sub(r"[^A-Za-z0-9._+=-]+", "-", Path(encoder).name).strip("-.") or "encoder"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def _readable(configs: Mapping[str, Config]) -> tuple[dict[str, Config], dict[str, str]]:
    """Encoders whose files can be read, before hours are spent; what is wrong with the others.

    Raises:
        SamoError: of the first, when there is none.
    """
    kind: Any = frontend_type(MODALITY)
    sound: dict[str, Config] = {}
    errors: dict[str, SamoError] = {}
    for name, config in configs.items():
        try:
            kind.check_model(config)
            sound[name] = config
        except SamoError as error:
            errors[name] = error
    if not sound:
        raise next(iter(errors.values()))
    return sound, {name: error.message for name, error in errors.items()}


def _default_name(encoders: Sequence[str], configs: Mapping[str, Config]) -> str:
    settings = [naming_settings(config) for config in configs.values()]
    return default_name("encoders", next(iter(configs.values())), ",".join(encoders), settings)


def _report(run: Run) -> dict[str, Any]:
    path: Path = run.path("report.val.json")
    try:
        return read_report(path)
    except RunError as error:
        error.hint = "remove the cell and run the command again"
        raise


def _score(report: Mapping[str, Any]) -> float:
    return float(report["overall_macro_f1"] if report["tasks"] else metrics_of(report)["macro_f1"])


def _warnings(n: int, several_tasks: bool, task: str) -> list[str]:
    found = [
        "epochs, thresholds and the best of these were chosen on the validation part, so that its scores are too good; "
        "the test part was not opened"
    ]
    if n > 2:
        found.append(f"the best of {n} is compared with the second as if these two had been named beforehand")
    if n > 1:
        found.append("one training each: another seed may turn the order round, and no number here knows of it")
    if several_tasks:
        found.append(f"ordered by the mean over tasks, compared on the task '{task}'")
    return found
