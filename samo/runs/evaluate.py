"""Judge a trained run: the only place that opens the test part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from torch import nn

from samo.data.manifest import Item, Manifest
from samo.data.splits import Split, audit, split_notes
from samo.errors import DataError, LeakError, RunError, SettingsError, first_ten, nearest
from samo.evaluation.baseline import compare_to_baseline
from samo.evaluation.decision import Decision, fit_decision
from samo.evaluation.predictions import Predictions
from samo.files import write_json, write_text
from samo.frontend import Frontend
from samo.reporting.figures import save_figures
from samo.reporting.html import render_html
from samo.reporting.model_card import model_card
from samo.reporting.report import build_report
from samo.runs.calibrate import calibrate, decision_of, threshold_settings
from samo.runs.ensemble_model import ensemble_facts, merged_settings
from samo.runs.run import Run
from samo.runs.train import load_run_model
from samo.tasks import LabelSpace
from samo.training.checkpoint import read_about
from samo.training.runtime import Runtime
from samo.training.setup import Setup
from samo.training.trainer import predict_logits

__all__ = ["evaluate_corpus", "evaluate_run", "macro_f1", "predictions_of", "relabel"]


def evaluate_run(run: Run, setup: Setup, part: str) -> dict[str, Any]:
    """Judge a run on a part of its own corpus; writes predictions, report, pictures and model card.

    Predictions are kept as raw logits beside the answers they led to. Temperatures and thresholds are the run's own,
    fitted and kept here when training did not come to that.

    Raises:
        RunError: the data changed since training, or ``calibration.json`` or ``thresholds.json`` is damaged.
        LeakError: the split shares speakers or recordings.
    """
    if setup.frontend.manifest.digest != run.manifest.digest:
        raise RunError(
            f"the data differ from those run '{run.name}' was trained on",
            hint="give the same `data_root`, or name the other corpus with `dataset` to judge on it",
        )
    split = run.split
    leaks = audit(setup.frontend.manifest, split)
    known = decision_of(run, setup.frontend.manifest.label_space)
    model, space = load_run_model(run, type(setup.frontend), setup.runtime)
    said = {name: _predict(model, setup, split.part(name)) for name in {"train", "val", part}}
    decision = _completed(run, setup.frontend, space, known, said["val"])
    said = {name: decision.applied(predictions, space) for name, predictions in said.items()}
    for name, predictions in said.items():
        predictions.save(run.path(f"predictions.{name}.npz"))
    notes = [*(f"leak: {line}" for line in leaks[:10]), *split_notes(setup.frontend.manifest, split)]
    notes += _other_precision(run, setup.runtime)
    baseline = _baseline(setup.frontend, space, split, part, said[part])
    report = _report(
        run, setup.frontend, space, split, said[part], part, decision, notes, said["train"], said["val"], baseline
    )
    write_report(run, setup.frontend, report, said[part], "" if part == "test" else f".{part}")
    return report


def evaluate_corpus(run: Run, setup: Setup, mapping: Mapping[str, str]) -> dict[str, Any]:
    """Judge a run on all labelled items of another corpus, with the temperature of its own.

    Args:
        run: the trained run.
        setup: of the other corpus, whose manifest must already be relabelled.
        mapping: kept in the report.

    Raises:
        LeakError: a recording of the other corpus was trained on.
        DataError: the mapping leaves no item.
    """
    ids = tuple(item.id for item in setup.frontend.manifest.items if item.labels)
    if not ids:
        raise DataError("no item of the corpus is left to judge on", hint="`label_map` leaves every class out")
    trained = run.manifest
    known = {trained.items[row].content for row in trained.rows(run.split.train + run.split.val)}
    seen = [item.source for item in setup.frontend.manifest.items if item.content and item.content in known]
    notes = []
    if seen and setup.frontend.manifest.copies == "reported":
        notes.append(f"leak: {len(seen)} of {len(ids)} items also stand in what the run was trained on")
    elif seen:
        raise LeakError(f"recordings the run was trained on are in this corpus: {first_ten(seen)}")
    model, space = load_run_model(run, type(setup.frontend), setup.runtime)
    decision = decision_of(run, space)
    if not decision.is_complete(space):
        missing = "thresholds" if decision.calibration.fitted_on else "temperature"
        notes.append(f"no {missing}: judge the run on its own corpus first, which fits it")
    predictions = decision.applied(_predict(model, setup, ids), space)
    everything = Split("other corpus", 0, (), (), ids)
    report = _report(run, setup.frontend, space, everything, predictions, "all", decision, notes)
    report["label_map"] = dict(mapping)
    predictions.save(run.path(f"predictions.{setup.frontend.manifest.dataset}.npz"))
    write_report(run, setup.frontend, report, predictions, f".{setup.frontend.manifest.dataset}")
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
                f"`label_map`: the corpus has no class '{old}'",
                hint=nearest(old, foreign.labels) + f"valid: {', '.join(foreign.labels)}",
            )
        if new != "-" and new not in own:
            raise SettingsError(
                f"`label_map`: the run has no class '{new}'", hint=nearest(new, own) + f"valid: {', '.join(own)}, -"
            )
    stray = [label for label in foreign.labels if label not in own and label not in mapping]
    if stray:
        pairs = [f"{old}={new}" for old, new in mapping.items()] + [f"{old}={_alike(old, own)}" for old in stray]
        raise DataError(
            f"the run does not know these classes of the corpus: {first_ten(stray)}",
            hint=f"`label_map={','.join(pairs)}`, where x=- leaves x out; the run's classes: {', '.join(own)}",
        )

    def translated(item: Item) -> Item:
        given = item.labels.get(foreign.name)
        names = (mapping.get(label, label) for label in given or ())
        kept = tuple(dict.fromkeys(name for name in names if name != "-"))
        # An item that has none of its labels is answered so; one whose labels are all left out is not judged.
        none_hold = given == () and foreign.multi_label and space.primary.multi_label
        return replace(item, labels={space.primary.name: kept} if kept or none_hold else {})

    return replace(manifest, label_space=space, items=tuple(translated(item) for item in manifest.items))


def _alike(word: str, labels: Sequence[str]) -> str:
    """The label that begins like ``word`` or is spelled most like it; ``-`` when none is."""

    def likeness(label: str) -> tuple[bool, float]:
        mine, theirs = word.casefold(), label.casefold()
        return mine[:3] == theirs[:3], SequenceMatcher(None, mine, theirs).ratio()

    best = max(labels, key=likeness)
    return best if likeness(best) >= (False, 0.6) else "-"


def write_report(run: Run, frontend: Frontend, report: dict[str, Any], predictions: Predictions, suffix: str) -> None:
    """Pictures, page and card first, ``report.json`` last: its presence means that all is there."""
    figures = save_figures(
        report, predictions, run.history, frontend.manifest.label_space, run.path(f"figures{suffix}")
    )
    settings, environment = _settings(run), run.environment
    pictures = {path.stem.replace("_", " "): path for path in figures}
    write_text(run.path(f"report{suffix}.html"), render_html(report, pictures, settings, environment))
    if not suffix:
        card = model_card(report, settings, environment, data_card=frontend.data_card())
        write_text(run.path("MODEL_CARD.md"), card)
    write_json(run.path(f"report{suffix}.json"), report)


def _other_precision(run: Run, runtime: Runtime) -> list[str]:
    """Why validation macro-F1 may not be the one training printed."""
    trained = run.environment.get("runtime", {}).get("precision", runtime.precision)
    if trained == runtime.precision:
        return []
    return [f"validation macro-F1 of training was measured in {trained}, here in {runtime.precision}"]


def _completed(run: Run, frontend: Frontend, space: LabelSpace, known: Decision, val: Predictions) -> Decision:
    """What a run answers with, fitted on its validation rows where something is missing."""
    if known.is_complete(space):
        return known
    keep = known.calibration if known.calibration.fitted_on else None
    return calibrate(run, space, val.logits, val.targets, threshold_settings(frontend.config), keep=keep)


def _baseline(
    frontend: Frontend, space: LabelSpace, split: Split, part: str, said: Predictions
) -> dict[str, Any] | None:
    """The modality's simple model on the same rows, with temperature and thresholds of its own from validation."""
    ids = {name: split.part(name) for name in ("val", part)}
    rows = {name: frontend.manifest.rows(each) for name, each in ids.items()}
    found = frontend.baseline(frontend.manifest.rows(split.train), np.concatenate(list(rows.values())))
    if not found:
        return None
    name, logits = found
    parts = np.split(logits, [len(rows["val"])])
    val, judged = parts[0], parts[0] if part == "val" else parts[1]
    decision = fit_decision(val, frontend.manifest.targets[rows["val"]], space, threshold_settings(frontend.config))
    baseline = decision.applied(predictions_of(frontend, ids[part], judged), space)
    return compare_to_baseline(name, baseline, said, task=space.primary, label_space=space, unit=frontend.unit)


def _settings(run: Run) -> dict[str, Any]:
    """Every setting; of an ensemble those of all its members."""
    if not ensemble_facts(run):
        return run.settings
    members = [member["settings"] for member in read_about(run.model_file)["ensemble"]["members"]]
    return {"modality": run.settings["modality"], **merged_settings(members)}


def _predict(model: nn.Module, setup: Setup, ids: tuple[str, ...]) -> Predictions:
    return predictions_of(setup.frontend, ids, predict_logits(model, setup, setup.frontend.manifest.rows(ids)))


def predictions_of(frontend: Frontend, ids: tuple[str, ...], logits: np.ndarray) -> Predictions:
    """(N, C) logits of N items beside their truth, groups and attributes."""
    manifest = frontend.manifest
    rows = manifest.rows(ids)
    items = [manifest.items[row] for row in rows]
    names = sorted({name for item in items for name in item.meta})
    return Predictions(
        ids=tuple(ids),
        logits=logits,
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
    decision: Decision,
    notes: list[str],
    train: Predictions | None = None,
    val: Predictions | None = None,
    baseline: dict[str, Any] | None = None,
) -> dict[str, Any]:
    def score(said: Predictions | None) -> float | None:
        return macro_f1(said, space) if said else None

    account = ensemble_facts(run)
    if account and account["fitted_on"] == part:
        notes = [*notes, "the weights of the members were fitted on this split, so its scores are a little too good"]
    report = build_report(
        run=run.name,
        dataset=frontend.manifest.dataset,
        synthetic=frontend.manifest.synthetic or run.manifest.synthetic,
        synthetic_model_only=run.manifest.synthetic and not frontend.manifest.synthetic,
        split=part,
        split_rule=split.rule,
        leaky=split.leaky or run.split.leaky,
        task=space.primary,
        predictions=predictions,
        label_space=space,
        unit=frontend.unit,
        train_macro_f1=score(train),
        val_macro_f1=score(val),
        calibration=decision.calibration,
        thresholds=decision.thresholds if decision.thresholds.tasks else None,
        baseline=baseline,
        notes=notes,
    )
    return {**report, "ensemble": account} if account else report


def macro_f1(predictions: Predictions, space: LabelSpace) -> float:
    """Macro-F1 as the trainer selects by it."""
    from samo.evaluation.metrics import selection_score

    return float(selection_score(space, predictions.logits, np.asarray(predictions.targets)))
