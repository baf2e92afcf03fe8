"""Which temperature a run answers with: the one rule that report and predictor share.

``calibration.json`` is fitted on the validation rows with the weights of the best epoch, when training ends. It names
that epoch, and counts only for those weights. A run without one for its weights (stopped before its end, or trained
by an earlier version) gets it from the first ``samo evaluate`` on its own corpus, which predicts the validation rows
anyway. Until then its temperature is 1. Predictions are stored as raw logits, so it can always be fitted again.
"""

from __future__ import annotations

import numpy as np

from samo_core.evaluation.calibration import Calibration, fit_temperature, usable_rows
from samo_core.experiments.run import Run
from samo_core.tasks import LabelSpace
from samo_core.training.checkpoint import read_about

__all__ = ["calibrate", "calibration_of"]

FILE = "calibration.json"


def calibrate(run: Run, space: LabelSpace, logits: np.ndarray, targets: np.ndarray) -> Calibration:
    """Fit the temperatures of a run's best weights and keep them in its folder.

    Args:
        run: whose ``best_model.safetensors`` gave the logits.
        space: the tasks and their columns.
        logits: (N, C) of the validation rows.
        targets: (N, C) in [0, 1]; NaN where a task has no label.
    """
    fitted = fit_temperature(logits, targets, space)
    calibration = Calibration(fitted, "val", usable_rows(logits, targets, space), _epoch(run))
    calibration.save(run.path(FILE))
    return calibration


def calibration_of(run: Run) -> Calibration | None:
    """The temperatures of a run's best weights; None when there are none for these weights.

    Raises:
        ModelFileError: there is no usable model.
        RunError: the file is damaged.
    """
    if not run.path(FILE).is_file():
        return None
    calibration = Calibration.load(run.path(FILE))
    return calibration if calibration.epoch == _epoch(run) else None


def _epoch(run: Run) -> int:
    return int(read_about(run.model_file)["epoch"])
