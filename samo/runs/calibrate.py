"""What a run answers with, temperature and thresholds: the one rule that report and predictor share.

``calibration.json`` and, for multi-label tasks, ``thresholds.json`` are fitted on the validation rows with the weights
of the best epoch, when training ends. Both name that epoch, and count only for those weights; thresholds count only
beside the temperatures they were chosen under. A run without them (stopped before its end, or trained by an earlier
version) gets them from the first ``samo evaluate`` on its own corpus, which predicts the validation rows anyway. Until
then its temperature is 1 and its thresholds are 0.5. Predictions are stored as raw logits, so that both can always be
fitted again, beside what was decided with them.
"""

from __future__ import annotations

import numpy as np

from samo.evaluation.calibration import Calibration
from samo.evaluation.decision import Decision, fit_decision
from samo.evaluation.thresholds import FloatArray, Thresholds, threshold_grid
from samo.runs.run import Run
from samo.settings import Config, ThresholdSettings
from samo.tasks import LabelSpace
from samo.training.checkpoint import read_about

__all__ = ["calibrate", "calibration_of", "decision_of", "selection_grid", "threshold_settings"]

TEMPERATURES = "calibration.json"
THRESHOLDS = "thresholds.json"


def calibrate(
    run: Run,
    space: LabelSpace,
    logits: np.ndarray,
    targets: np.ndarray,
    settings: ThresholdSettings | None = None,
    *,
    keep: Calibration | None = None,
) -> Decision:
    """Fit the temperatures and thresholds of a run's best weights and keep them in its folder.

    Args:
        run: whose ``best_model.safetensors`` gave the logits.
        space: the tasks and their columns.
        logits: (N, C) of the validation rows.
        targets: (N, C) in [0, 1]; NaN where a task has no label.
        settings: which thresholds are tried and used; the defaults where a modality has no such settings.
        keep: temperatures that count for these weights already, and then stay.
    """
    decision = fit_decision(
        logits, targets, space, settings or ThresholdSettings(), epoch=_epoch(run), calibration=keep
    )
    if not keep:
        decision.calibration.save(run.path(TEMPERATURES))
    if decision.thresholds.tasks:
        decision.thresholds.save(run.path(THRESHOLDS))
    return decision


def calibration_of(run: Run) -> Calibration | None:
    """The temperatures of a run's best weights; None when there are none for these weights.

    Raises:
        ModelFileError: there is no usable model.
        RunError: the file is damaged.
    """
    if not run.path(TEMPERATURES).is_file():
        return None
    calibration = Calibration.load(run.path(TEMPERATURES))
    return calibration if calibration.epoch == _epoch(run) else None


def decision_of(run: Run, space: LabelSpace) -> Decision:
    """What a run answers with; temperature 1 and thresholds 0.5 where none were fitted for its best weights.

    Args:
        run: with a model.
        space: the tasks and columns of that model.

    Raises:
        ModelFileError: there is no usable model.
        RunError: a file is damaged.
    """
    calibration = calibration_of(run) or Calibration()
    if run.path(THRESHOLDS).is_file():
        thresholds = Thresholds.load(run.path(THRESHOLDS))
        if thresholds.epoch == _epoch(run) and thresholds.are_for(calibration.temperature, space):
            return Decision(calibration, thresholds)
    return Decision(calibration)


def selection_grid(run: Run) -> FloatArray | None:
    """The thresholds by which the epochs of a multi-label run were selected; None where it did not keep them.

    Runs trained before epochs were selected by the thresholds that may ship have none.
    """
    facts = run.trained if run.path("trained.json").is_file() else {}
    if "selected_over" not in facts:
        return None
    low, high, number = facts["selected_over"]
    return threshold_grid(ThresholdSettings(threshold_range=(low, high), num_thresholds=number))


def threshold_settings(config: Config) -> ThresholdSettings:
    """Those of a configuration, the defaults where its modality has none."""
    found = getattr(config, "thresholds", None)
    return found if isinstance(found, ThresholdSettings) else ThresholdSettings()


def _epoch(run: Run) -> int:
    return int(read_about(run.model_file)["epoch"])
