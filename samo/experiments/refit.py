"""After a cross-validation: one model that learns from everything, with what the folds found out about its kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from samo.errors import RunError
from samo.evaluation.predictions import Predictions
from samo.experiments.grid_plan import GridPlan
from samo.experiments.reporter import GridReporter, PlainGridReporter
from samo.files import write_json, write_text
from samo.launch.resources import Resources
from samo.modalities import frontend_type
from samo.reporting.model_card import model_card, with_other_corpora
from samo.runs.calibrate import abstention_settings, calibrate, threshold_settings
from samo.runs.load import CROSSVALIDATED, other_corpora
from samo.runs.run import Run
from samo.runs.train import resume_training, train_run
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
        The run, ``refit`` in the grid's folder; one that is finished already is given back as it is.

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
    if run.path("trained.json").exists() and run.path(CROSSVALIDATED).exists():
        return run
    setup = Setup(frontend, make_runtime(resources.device, resources.precision, resources.threads))
    if not run.path("trained.json").exists():
        begun = run.path("config.json").exists()
        with reporter.training(config.flat()["epochs"], run.history if begun else ()) as view:
            if begun:
                resume_training(run, setup, view)
            else:
                train_run(run, setup, view, plan.command)
    validated = _validated(plan)
    calibrate(
        run, frontend.manifest.label_space, validated.logits, validated.targets, threshold_settings(config),
        abstention=abstention_settings(config),
    )  # fmt: skip
    about = {**report, "run": run.name, "refit": len(plan.cells)}
    card = model_card(about, run.settings, run.environment, data_card=frontend.data_card())
    write_text(run.path("MODEL_CARD.md"), with_other_corpora(card, other_corpora(run)))
    write_json(run.path(CROSSVALIDATED), {"grid": plan.name, "folds": len(plan.cells), "report": report})
    return run


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
