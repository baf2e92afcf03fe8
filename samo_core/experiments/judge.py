"""Judge a trained run: the only place that opens the test part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from samo_core.data.manifest import Item, Manifest
from samo_core.data.splits import Split, audit
from samo_core.deploy.model_card import model_card
from samo_core.errors import DataError, LeakError, RunError, SettingsError, first_ten, nearest
from samo_core.evaluation.calibration import Calibration
from samo_core.evaluation.figures import save_figures
from samo_core.evaluation.html import render_html
from samo_core.evaluation.predictions import Predictions
from samo_core.evaluation.report import build_report
from samo_core.experiments.calibrate import calibrate, calibration_of
from samo_core.experiments.experiment import load_run_model
from samo_core.experiments.run import Run
from samo_core.files import write_json, write_text
from samo_core.tasks import LabelSpace
from samo_core.training.frontend import Frontend
from samo_core.training.runtime import Runtime
from samo_core.training.trainer import predict_logits

__all__ = ["judge_elsewhere", "judge_run", "relabel"]


def judge_run(run: Run, frontend: Frontend, part: str, runtime: Runtime) -> dict[str, Any]:
    """Judge a run on a part of its own corpus; writes predictions (raw logits), report, pictures and model card.

    Probabilities are those of the run's temperature, which is fitted and kept here when training did not come to that.

    Raises:
        RunError: the data changed since training, or the run's ``calibration.json`` is damaged.
        LeakError: the split shares speakers or recordings.
    """
    if frontend.manifest.digest != run.manifest.digest:
        raise RunError(
            f"the data differ from those run '{run.name}' was trained on",
            hint="give the same --data-root, or name the other corpus with --dataset to judge on it",
        )
    split = run.split
    leaks = audit(frontend.manifest, split)
    known = calibration_of(run)
    model, space = load_run_model(run, type(frontend), runtime)
    said = {name: _predict(model, frontend, split.part(name), runtime) for name in {"train", "val", part}}
    for name, predictions in said.items():
        predictions.save(run.path(f"predictions.{name}.npz"))
    calibration = known or calibrate(run, space, said["val"].logits, said["val"].targets)
    notes = [f"leak: {line}" for line in leaks[:10]]
    report = _report(run, frontend, space, split, said[part], part, calibration, notes, said["train"], said["val"])
    write_report(run, frontend, report, said[part], "" if part == "test" else f".{part}")
    return report


def judge_elsewhere(run: Run, frontend: Frontend, mapping: Mapping[str, str], runtime: Runtime) -> dict[str, Any]:
    """Judge a run on all labelled items of another corpus, with the temperature of its own.

    Args:
        run: the trained run.
        frontend: of the other corpus; its manifest must already be relabelled.
        mapping: kept in the report.
        runtime: where.

    Raises:
        LeakError: a recording of the other corpus was trained on.
        DataError: the mapping leaves no item.
    """
    ids = tuple(item.id for item in frontend.manifest.items if item.labels)
    if not ids:
        raise DataError("no item of the corpus is left to judge on", hint="--label-map leaves every class out")
    trained = run.manifest
    known = {trained.items[row].content for row in trained.rows(run.split.train + run.split.val)}
    seen = [item.source for item in frontend.manifest.items if item.content and item.content in known]
    if seen:
        raise LeakError(f"recordings the run was trained on are in this corpus: {first_ten(seen)}")
    calibration = calibration_of(run)
    notes = [] if calibration else ["no temperature: judge the run on its own corpus first, which fits it"]
    model, space = load_run_model(run, type(frontend), runtime)
    predictions = _predict(model, frontend, ids, runtime)
    everything = Split("other corpus", 0, (), (), ids)
    report = _report(run, frontend, space, everything, predictions, "all", calibration, notes)
    report["label_map"] = dict(mapping)
    predictions.save(run.path(f"predictions.{frontend.manifest.dataset}.npz"))
    write_report(run, frontend, report, predictions, f".{frontend.manifest.dataset}")
    return report


def relabel(manifest: Manifest, space: LabelSpace, mapping: Mapping[str, str]) -> Manifest:
    """Translate a corpus' labels into those of a run; ``label=-`` leaves a class out.

    Raises:
        SettingsError: the mapping names a class that does not exist.
        DataError: a class of the corpus has no counterpart.
    """
    own, foreign = space.primary.labels, manifest.label_space.primary
    for old, new in mapping.items():
        if old not in foreign.labels:
            raise SettingsError(
                f"--label-map: the corpus has no class '{old}'",
                hint=nearest(old, foreign.labels) + f"valid: {', '.join(foreign.labels)}",
            )
        if new != "-" and new not in own:
            raise SettingsError(
                f"--label-map: the run has no class '{new}'", hint=nearest(new, own) + f"valid: {', '.join(own)}, -"
            )
    stray = [label for label in foreign.labels if label not in own and label not in mapping]
    if stray:
        raise DataError(
            f"the run does not know these classes of the corpus: {first_ten(stray)}",
            hint=f"map them, for example --label-map {stray[0]}={own[0]}, or leave them out with {stray[0]}=-",
        )

    def translated(item: Item) -> Item:
        names = (mapping.get(label, label) for label in item.labels.get(foreign.name, ()))
        kept = tuple(dict.fromkeys(name for name in names if name != "-"))
        return replace(item, labels={space.primary.name: kept} if kept else {})

    return replace(manifest, label_space=space, items=tuple(translated(item) for item in manifest.items))


def write_report(run: Run, frontend: Frontend, report: dict[str, Any], predictions: Predictions, suffix: str) -> None:
    """Pictures, page and card first, ``report.json`` last: its presence means that all is there."""
    figures = save_figures(
        report, predictions, run.history, frontend.manifest.label_space, run.path(f"figures{suffix}")
    )
    settings, environment = run.settings, run.environment
    pictures = {path.stem.replace("_", " "): path for path in figures}
    write_text(run.path(f"report{suffix}.html"), render_html(report, pictures, settings, environment))
    if not suffix:
        card = model_card(report, settings, environment, data_card=frontend.data_card())
        write_text(run.path("MODEL_CARD.md"), card)
    write_json(run.path(f"report{suffix}.json"), report)


def _predict(model: nn.Module, frontend: Frontend, ids: tuple[str, ...], runtime: Runtime) -> Predictions:
    manifest = frontend.manifest
    rows = manifest.rows(ids)
    items = [manifest.items[row] for row in rows]
    names = sorted({name for item in items for name in item.meta})
    return Predictions(
        ids=tuple(ids),
        logits=predict_logits(model, frontend, rows, runtime),
        targets=manifest.targets[rows],
        groups=tuple(item.group for item in items),
        meta={name: tuple(item.meta.get(name, "") for item in items) for name in names},
    )


def _report(
    run: Run,
    frontend: Frontend,
    space: LabelSpace,
    split: Split,
    predictions: Predictions,
    part: str,
    calibration: Calibration | None,
    notes: list[str],
    train: Predictions | None = None,
    val: Predictions | None = None,
) -> dict[str, Any]:
    def score(said: Predictions | None) -> float | None:
        return macro_f1(said, space) if said else None

    return build_report(
        run=run.name,
        dataset=frontend.manifest.dataset,
        synthetic=frontend.manifest.synthetic or run.manifest.synthetic,
        split=part,
        split_rule=split.rule,
        leaky=split.leaky or run.split.leaky,
        task=space.primary,
        predictions=predictions,
        label_space=space,
        unit=frontend.unit,
        train_macro_f1=score(train),
        val_macro_f1=score(val),
        calibration=calibration,
        notes=notes,
    )


def macro_f1(predictions: Predictions, space: LabelSpace) -> float:
    """Macro-F1 as the trainer selects by it."""
    from samo_core.evaluation.metrics import selection_score

    return float(selection_score(space, predictions.logits, np.asarray(predictions.targets)))
