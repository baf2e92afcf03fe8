"""After a cross-validation: one model that learns from everything, with what the folds found out about its kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from samo.data.splits import part_sizes
from samo.errors import RunError
from samo.evaluation.predictions import Predictions
from samo.experiments.grid_plan import GridPlan
from samo.experiments.reporter import GridReporter, PlainGridReporter
from samo.files import parse_json, write_json, write_text
from samo.frontend import Frontend
from samo.launch.resources import Resources
from samo.modalities import frontend_type
from samo.reporting.model_card import exported_sections, model_card, with_other_corpora
from samo.runs.calibrate import abstention_settings, calibrate, threshold_settings
from samo.runs.load import CROSSVALIDATED, other_corpora
from samo.runs.run import Run
from samo.runs.training import resume_training, train_run
from samo.settings import stored_config
from samo.training.runtime import make_runtime
from samo.training.setup import Setup

__all__ = ["refit"]


def refit(
    plan: GridPlan,
    report: dict[str, Any],
    resources: Resources | None = None,
    reporter: GridReporter | None = None,
) -> Run:
    """Train on every item of a cross-validated corpus, with the settings of its folds.

    Nothing is left to judge this model on, and nothing of it is chosen: it trains all epochs. Its temperature and
    thresholds are fitted on the validation predictions of all folds' models, and what it is worth is said by theirs on
    the folds they never saw. The first seed's settings count.

    Args:
        plan: of a cross-validation whose cells are all evaluated.
        report: of it, from :func:`samo.experiments.crossval.crossval_report`.
        resources: ``device``, ``precision`` and ``threads`` of this machine.
        reporter: shows the progress; left out: plain lines on stderr.

    Returns:
        The run, ``refit`` in the grid's folder. One that is trained already keeps its weights; where the folds or
        their predictions are others than those it was calibrated on, it is calibrated again, and its card follows.

    Raises:
        RunError: a fold is missing.
        Interrupted: stopped; the same call goes on.
    """
    resources, reporter = resources or Resources(), reporter or PlainGridReporter()
    missing = [cell.name for cell in plan.cells if not cell.run(plan.folder).path(cell.report).is_file()]
    if missing:
        raise RunError(f"not all folds of '{plan.name}' are in: {', '.join(missing)}", hint="cross-validate them first")
    config = stored_config({**plan.cells[0].settings, "split": "whole", "fold": 0, "num_folds": 0})
    run = Run(plan.folder / "runs" / "refit")
    kind = frontend_type(config.modality)
    with reporter.counting(kind.preparing) as progress:
        frontend = kind.open(config, reporter.note, progress, None)
    validated = _validated(plan)
    facts = {
        "grid": plan.name, "folds": len(plan.cells), "cells": [cell.name for cell in plan.cells],
        "validated": _digest(validated), "report": report,
    }  # fmt: skip
    known = _known(run)
    if run.path("trained.json").exists() and known == parse_json(json.dumps(facts)):
        return run
    setup = Setup(frontend, make_runtime(resources.device, resources.precision, resources.threads))
    if not run.path("trained.json").exists():
        _train(run, setup, reporter, plan.command)
    if known:
        reporter.note(
            f"'{run.full_name}' keeps its weights; its calibration and card are made anew, as the folds are not "
            "those that it had them from"
        )
    decision = calibrate(
        run, frontend.manifest.label_space, validated.logits, validated.targets, threshold_settings(config),
        abstention=abstention_settings(config),
    )  # fmt: skip
    _write_card(run, {**report, "refit": {"models": len(plan.cells), "decision": decision.to_json()}}, frontend)
    write_json(run.path(CROSSVALIDATED), facts)
    return run


def _train(run: Run, setup: Setup, reporter: GridReporter, command: str) -> None:
    """Train, or go on where it was stopped."""
    begun = run.path("config.json").exists()
    with reporter.training(setup.frontend.config.flat()["epochs"], run.history if begun else ()) as view:
        if begun:
            resume_training(run, setup, view)
        else:
            train_run(run, setup, view, command)


def _write_card(run: Run, report: Mapping[str, Any], frontend: Frontend) -> None:
    """The model card, with what the folds' report says; what was exported from these weights stays in it."""
    manifest, card_file = run.manifest, run.path("MODEL_CARD.md")
    parts = {"train": part_sizes(manifest, run.split.train, "item", manifest.group_noun)}
    about = {**report, "run": run.full_name, "parts": parts}
    before = exported_sections(card_file.read_text(encoding="utf-8")) if card_file.exists() else ""
    card = model_card(about, run.settings, run.environment, data_card=frontend.data_card(), exported=before)
    write_text(card_file, with_other_corpora(card, other_corpora(run)))


def _known(run: Run) -> dict[str, Any]:
    """What a refit says of its folds; empty where there is nothing that can be read."""
    try:
        found = parse_json(run.path(CROSSVALIDATED).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(predictions: Predictions) -> str:
    """SHA-256 of the items, what the models gave for them, and their labels."""
    digest = hashlib.sha256(json.dumps(predictions.ids).encode())
    for values in (predictions.logits, predictions.targets):
        digest.update(np.ascontiguousarray(values, dtype=np.float64).tobytes())
    return digest.hexdigest()


def _validated(plan: GridPlan) -> Predictions:
    """The raw validation predictions of all folds, one behind the other."""
    runs = plan.runs
    parts = [Predictions.load(run.path("predictions.val.npz"), run.manifest.label_space) for run in runs]
    logits, targets = (np.concatenate([getattr(part, name) for part in parts]) for name in ("logits", "targets"))
    groups = tuple(group for part in parts for group in part.groups)
    return replace(
        parts[0], ids=tuple(name for part in parts for name in part.ids), logits=logits, targets=targets, groups=groups,
        meta={}, decided=None,
    )  # fmt: skip
