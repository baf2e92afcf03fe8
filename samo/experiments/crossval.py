"""Cross-validation: every group is evaluated by the models that never saw it, all out-of-fold predictions as one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, cast

import numpy as np

from samo.data.corpora import require_places
from samo.data.leaks import audit
from samo.data.sampling import balance_notes, transductive_notes
from samo.data.splits import fold_count, fold_warnings, make_split, part_sizes
from samo.errors import DataError, RunError, SettingsError, counted
from samo.evaluation.abstention import fold_abstention
from samo.evaluation.baseline import compare_to_baseline, constant_answers, shortcut_scores
from samo.evaluation.calibration import apply_temperature, fold_calibration
from samo.evaluation.decision import Decision, decided_rows
from samo.evaluation.metrics import decide, scores, tally
from samo.evaluation.predictions import Predictions
from samo.experiments.cells import Cell
from samo.experiments.grid_plan import GridPlan, default_name, make_cell, open_data, open_plan
from samo.experiments.reporter import GridReporter
from samo.experiments.run_grid import run_grid
from samo.files import write_json, write_text
from samo.frontend import Frontend
from samo.launch.resources import Resources
from samo.modalities import frontend_type
from samo.reporting.answers import confident_mistakes, predictions_csv
from samo.reporting.figures import save_figures
from samo.reporting.html import render_html
from samo.reporting.report import Subject, build_report, metrics_of, read_report
from samo.runs.artifacts import artifacts_root
from samo.runs.calibrate import ABSTENTION, calibration_of, decision_of
from samo.runs.provenance import refuse_known_start
from samo.runs.run import Run
from samo.runs.teachers import checked_teachers
from samo.settings import FORMER_PATIENCE, Config, collect_settings, resolve
from samo.tasks import LabelSpace

__all__ = [
    "VALIDATED_APART",
    "crossval_report",
    "crossvalidate",
    "fold_settings",
    "fold_temperatures",
    "join_predictions",
    "plan_crossval",
    "report_crossval",
    "require_fold_places",
    "write_crossval",
]

# How the warning about an ensemble of a fold begins whose members had other validation parts.
VALIDATED_APART = "the members were validated on different items"


def crossvalidate(
    config: Config,
    *,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] = (),
    name: str = "",
    artifacts: Path | str = "",
    resources: Resources | None = None,
    reporter: GridReporter | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Train once for each fold and evaluate the predictions of what each model never saw as one.

    The same call goes on where it stopped; what is finished stays in ``ARTIFACTS/grids/NAME``, also when it fails.

    Args:
        config: settings of every fold, from :func:`samo.settings.resolve`.
        seeds: every fold once with each.
        folds: only these; empty: all.
        name: of the folder; empty makes one from the settings.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        resources: on what; left out: this machine.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the results.

    Returns:
        :func:`crossval_report`.

    Raises:
        SettingsError: an unknown fold, or a seed twice.
        LeakError, DataError: a fold that cannot be trained.
        RunError, Interrupted: see :func:`~samo.experiments.run_grid.run_grid`.
    """
    plan = plan_crossval(config, seeds, folds, name, artifacts, reporter=reporter, command=command)
    try:
        run_grid(plan, resources, reporter)
    finally:
        report = report_crossval(plan)
    assert report is not None
    return report


def fold_settings(modality: str, preset: str, file: Path | None, flags: Mapping[str, Any]) -> Config:
    """Settings of every fold, from preset, file and flags.

    Unless one of them says which weights count (`keep`, or a `patience`), the mean over the last quarter of the epochs
    does: the few speakers of a validation part are too few to choose an epoch on, and of six rules on the same
    trainings this one lost least (``artifacts/reports/epoch_rule``). Not where ``keep=average`` is refused: for a model
    that takes no steps, or fewer than eight epochs.

    Raises:
        SettingsError: see :func:`samo.settings.resolve`.
    """
    flags = {**flags, "split": "folds"}
    given, read = collect_settings(modality, preset, file, flags)
    config = resolve(modality, preset, file, flags)
    patience = flags.get("patience") or read.get("patience")
    # The recipes name the patience that was the default once.
    if "keep" in given or patience or given.get("patience", 0) not in (0, FORMER_PATIENCE):
        return config
    try:
        return resolve(modality, preset, file, {**flags, "keep": "average"})
    except SettingsError:  # no steps, or few epochs
        return config


def plan_crossval(
    config: Config,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] = (),
    name: str = "",
    artifacts: Path | str = "",
    *,
    reporter: GridReporter | None = None,
    command: str = "",
) -> GridPlan:
    """One cell for each seed and fold, every one of which can be trained; see :func:`crossvalidate`."""
    config = type(config).build({**config.flat(), "split": "folds"})
    # A made-up name is of what opening the data finds out: a finished grid is found before anything is asked for.
    located = config if name else frontend_type(config.modality).located(config)
    name = name or default_name("crossval", located, tuple(seeds), tuple(folds))
    require_fold_places(config, name, artifacts)
    frontend = open_data(config, reporter)
    chosen = _usable_folds(frontend, seeds, folds, artifacts_root(str(artifacts)))
    cells = tuple(make_cell(config, f"seed{seed}.fold{fold}", "all", seed=seed, fold=fold) for seed, fold in chosen)
    plan = GridPlan("crossval", artifacts_root(str(artifacts)) / "grids" / name, cells, command=command)
    return open_plan(plan, frontend=frontend)


def require_fold_places(config: Config, name: str, artifacts: Path | str = "") -> None:
    """Before its data are opened, refuse a cross-validation not begun yet whose settings name places that do not exist.

    Raises:
        DataError, ModelFileError: see :func:`~samo.data.corpora.require_places`.
    """
    if not (artifacts_root(str(artifacts)) / "grids" / name).exists():
        require_places(config.flat())


def report_crossval(plan: GridPlan) -> dict[str, Any] | None:
    """Write and return the report of the folds that are evaluated; None while there is none."""
    if not plan.has_results:
        return None
    report = crossval_report(plan.name, plan.cells, plan.folder, plan.unit)
    write_crossval(report, plan.cells, plan.folder, plan.command)
    return report


def fold_temperatures(cells: Sequence[Cell], grid: Path) -> dict[str, dict[str, Any]]:
    """What the joined raw test predictions of several cells say of calibration, by task, with each cell's temperature.

    A task without a labelled row is left out.
    """
    runs = [cell.run(grid) for cell in cells]
    raw = [Predictions.load(run.path("predictions.test.npz"), run.manifest.label_space) for run in runs]
    folds = np.repeat([cell.name for cell in cells], [len(part) for part in raw])
    logits, targets = (np.concatenate([getattr(part, name) for part in raw]) for name in ("logits", "targets"))
    fitted = {cell.name: calibration_of(run) for cell, run in zip(cells, runs, strict=True)}
    space, found = runs[0].manifest.label_space, {}
    for task in space.tasks:
        decided = decide(task, logits[:, space.slices[task.name]], targets[:, space.slices[task.name]])
        temperatures = {
            name: each.temperature[task.name] for name, each in fitted.items() if each and task.name in each.temperature
        }
        if len(decided.rows):
            given = logits[decided.rows, space.slices[task.name]]
            found[task.name] = fold_calibration(task, given, decided.truth, folds[decided.rows].tolist(), temperatures)
    return found


def _fold_abstention(cells: Sequence[Cell], grid: Path, out_of_fold: Predictions) -> dict[str, dict[str, Any]]:
    """What the joined answers are worth where each cell withholds by its own thresholds, by task; empty if none does.

    A task without a labelled row is left out.
    """
    runs = {cell.name: cell.run(grid) for cell in cells}
    space = next(iter(runs.values())).manifest.label_space
    found = {name: decision_of(run, space).abstention for name, run in runs.items() if run.path(ABSTENTION).is_file()}
    sizes = [len(run.split.test) for run in runs.values()]
    folds, scored = np.repeat(list(runs), sizes), {}
    for task in space.tasks if any(each.rule for each in found.values()) else ():
        decided = decided_rows(task, out_of_fold, space)
        if len(decided.rows):
            scored[task.name] = fold_abstention(task, decided, folds[decided.rows].tolist(), found)
    return scored


def join_predictions(cells: Sequence[Cell], grid: Path, kind: str = "") -> Predictions:
    """The test predictions of several cells as one, scaled by each cell's own temperature, decided by its thresholds.

    ``kind`` ``baseline`` or ``shortcut``: as the simple model that was evaluated beside each run decided, unscaled.

    With several seeds an item stands once for each; an item without a group is a group of its own over all seeds.
    """
    parts = []
    for cell in cells:
        run = cell.run(grid)
        file = run.path(f"predictions.test.{kind}.npz" if kind else "predictions.test.npz")
        predictions = Predictions.load(file, run.manifest.label_space)
        if not kind and (calibration := calibration_of(run)):
            scaled = apply_temperature(predictions.logits, calibration.temperature, run.manifest.label_space)
            predictions = replace(predictions, logits=scaled)
        parts.append(predictions)
    names = sorted(set.intersection(*(set(part.meta) for part in parts)))
    seeds = len({cell.seed for cell in cells})
    return Predictions(
        tuple(name for part in parts for name in part.ids),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.targets for part in parts]),
        tuple(
            group or (name if seeds > 1 else "")
            for part in parts
            for group, name in zip(part.groups, part.ids, strict=True)
        ),
        {name: tuple(value for part in parts for value in part.meta[name]) for name in names},
        None if any(part.decided is None for part in parts) else np.concatenate([part.decided for part in parts]),
    )


def crossval_report(name: str, cells: Sequence[Cell], grid: Path, unit: str) -> dict[str, Any]:
    """The report of a cross-validation: that of the joined predictions, and the spread over folds and seeds.

    The interval resamples speakers (rows where none are known), each with the predictions of every seed. ``folds`` has
    a row for each cell, ``by_seed`` the joined metrics of each seed, ``spread`` mean and standard deviation of macro-F1
    over the cells and over the seeds.

    Args:
        name: of the grid.
        cells: one for each seed and fold.
        grid: the grid's folder.
        unit: what a group is called.

    Raises:
        RunError: no cell is evaluated yet.
    """
    done = [cell for cell in cells if cell.run(grid).path("report.json").is_file()]
    if not done:
        raise RunError(f"no fold of '{name}' is evaluated yet", hint=f"logs are in {grid / 'logs'}")
    reports = [read_report(cell.run(grid).path("report.json")) for cell in done]
    manifest = done[0].run(grid).manifest
    missing = [cell.name for cell in cells if cell not in done]
    leaky = any(report["leaky"] for report in reports)
    out_of_fold, space = join_predictions(done, grid), manifest.label_space
    on_train = [report["train_macro_f1"] for report in reports]
    baseline = _beside("baseline", reports, done, grid, out_of_fold, space, unit)
    shortcut = _beside("shortcut", reports, done, grid, out_of_fold, space, unit)
    report = build_report(
        Subject(name, manifest.dataset, "out-of-fold", "folds", unit, manifest.synthetic, leaky=leaky),
        out_of_fold,
        space,
        baseline=baseline,
        shortcut=shortcut_scores(shortcut, out_of_fold, task=space.primary, space=space) if shortcut else None,
        train_macro_f1=fmean(on_train) if None not in on_train else None,
        val_macro_f1=fmean(report["val_macro_f1"] for report in reports),
        notes=_notes(done[0].run(grid), reports, missing),
        calibration=fold_temperatures(done, grid),
        abstention=_fold_abstention(done, grid, out_of_fold),
        constant=np.concatenate([_constant_answers(cell.run(grid)) for cell in done]),
        parts={"out-of-fold": part_sizes(manifest, tuple(dict.fromkeys(out_of_fold.ids)), "item", manifest.group_noun)},
    )
    report["folds"] = [_fold_row(cell, one) for cell, one in zip(done, reports, strict=True)]
    by_seed = {seed: [cell for cell in done if cell.seed == seed] for seed in dict.fromkeys(c.seed for c in done)}
    report["by_seed"] = [
        {"seed": seed, **_metrics(join_predictions(mine, grid), manifest.label_space)} for seed, mine in by_seed.items()
    ]
    report["spread"] = {
        "cells": _spread([row["macro_f1"] for row in report["folds"]]),
        "seeds": _spread([row["macro_f1"] for row in report["by_seed"]]),
    }
    return report


def _notes(first: Run, reports: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> list[str]:
    """What a reader must know of the folds; the settings are those of the first."""
    # A fold may be an ensemble, whose members' settings its report knows.
    of_members = ("transductive:", VALIDATED_APART)
    carried = [line for one in reports for line in one.get("warnings", ()) if line.startswith(of_members)]
    manifest, settings = first.manifest, first.settings
    return [
        *([f"not all folds are in: {', '.join(missing)}"] if missing else []),
        *fold_warnings(manifest, "folds"),
        *balance_notes(settings),
        *dict.fromkeys([*transductive_notes(settings), *carried]),
        *(["each fold is decided by its own thresholds"] if manifest.label_space.primary.multi_label else []),
    ]


def _fold_row(cell: Cell, report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seed": cell.seed,
        "fold": cell.fold,
        "cell": cell.name,
        "n": report["n"],
        **metrics_of(report),
        "val_macro_f1": report["val_macro_f1"],
    }


def write_crossval(
    report: dict[str, Any],
    cells: Sequence[Cell],
    grid: Path,
    command: str,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Predictions, pictures and page first, ``report.json`` last, all in the grid's folder.

    ``settings`` are those that the page shows; left out: the first cell's.
    """
    done = [cell for cell in cells if cell.run(grid).path("report.json").is_file()]
    predictions, run = join_predictions(done, grid), done[0].run(grid)
    predictions.save(grid / "predictions.npz")
    pictures = save_figures(report, predictions, [], run.manifest.label_space, grid / "figures")
    shown = {name: value for name, value in (settings or run.settings).items() if name not in ("seed", "fold")}
    environment = {**run.environment, "command": command}
    answers = predictions, run.manifest.label_space, Decision(), run.manifest
    tested = [cell for cell in done for _ in cell.run(grid).split.test]
    columns: dict[str, list[object]] = {"seed": [cell.seed for cell in tested], "fold": [cell.fold for cell in tested]}
    write_text(grid / "predictions.csv", predictions_csv(*answers, columns))
    named = {p.stem: p for p in pictures}
    page = render_html(report, named, shown, environment, confident_mistakes(*answers), "predictions.csv")
    write_text(grid / "report.html", page)
    write_json(grid / "report.json", report)


def _constant_answers(run: Run) -> np.ndarray:
    """(N, C) of the rows a fold tests: the constant guess of those that it trains on."""
    manifest = run.manifest
    answer = constant_answers(manifest.label_space, manifest.targets[manifest.rows(run.split.train)])
    return np.tile(answer, (len(run.split.test), 1))


def _beside(
    kind: str,
    reports: Sequence[Mapping[str, Any]],
    cells: Sequence[Cell],
    grid: Path,
    out_of_fold: Predictions,
    space: LabelSpace,
    unit: str,
) -> dict[str, Any] | None:
    """The simple models of all cells against the runs, on the joined rows; None where a cell has none.

    Cells that were evaluated before their answers were kept have none.
    """
    if not all(
        report.get(kind) and cell.run(grid).path(f"predictions.test.{kind}.npz").is_file()
        for report, cell in zip(reports, cells, strict=True)
    ):
        return None
    # With several seeds an item stands once for each, so its place names it.
    places = tuple(map(str, range(len(out_of_fold))))
    simple = join_predictions(cells, grid, kind)
    if simple.ids != out_of_fold.ids:
        raise DataError(f"what stands beside the runs in {grid} is of other items", hint="evaluate its cells again")
    pair = [replace(each, ids=places) for each in (simple, out_of_fold)]
    return compare_to_baseline(reports[0][kind]["name"], *pair, task=space.primary, label_space=space, unit=unit)


def _metrics(predictions: Predictions, space: LabelSpace) -> dict[str, float]:
    found = decided_rows(space.primary, predictions, space)
    return scores(tally(found.truth, found.predicted))


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"n": len(values), "mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None}


def _usable_folds(
    frontend: Frontend, seeds: Sequence[int], folds: Sequence[int], artifacts: Path
) -> list[tuple[int, int]]:
    """Every seed with every fold; one that cannot be trained is met before hours are spent on the others."""
    manifest, config = frontend.manifest, cast(Any, frontend.config)
    n_folds = fold_count(manifest, frontend.split_request().num_folds)
    stray = [fold for fold in folds if fold >= n_folds]
    if stray:
        raise SettingsError(f"`folds={stray[0]}`: {manifest.dataset} has {counted(n_folds, 'fold')}, counted from 0")
    chosen = list(itertools.product(seeds, folds or range(n_folds)))
    for seed, fold in chosen:
        request = replace(frontend.split_request(), rule="folds", fold=fold, seed=config.data.split_seed_or(seed))
        split = make_split(manifest, request)
        audit(manifest, split)
        refuse_known_start(frontend.config.flat(), manifest, split, artifacts)
        checked_teachers(config.loss, artifacts, frontend.modality, manifest, split)
    return chosen
