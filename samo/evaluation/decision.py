"""From logits to answers: the one way in which report, comparison, ensemble, grid and predictor decide.

A temperature makes probabilities of logits (:mod:`samo.evaluation.calibration`), and thresholds make answers of
them (:mod:`samo.evaluation.thresholds`). A run's own are found by
:func:`samo.runs.calibrate.decision_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from samo.evaluation.calibration import Calibration, apply_temperature, fit_temperature, usable_rows
from samo.evaluation.metrics import Decided, decide
from samo.evaluation.predictions import Predictions
from samo.evaluation.thresholds import Rule, Thresholds, fit_thresholds
from samo.settings import ThresholdSettings
from samo.tasks import LabelSpace, Task

__all__ = ["Decision", "decided_rows", "fit_decision"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Decision:
    """What one set of weights answers with; without arguments temperature 1 and thresholds 0.5."""

    calibration: Calibration = field(default_factory=Calibration)
    thresholds: Thresholds = field(default_factory=Thresholds)

    def probabilities(self, logits: np.ndarray, space: LabelSpace) -> FloatArray:
        """(N, C) probabilities of (N, C) logits under the temperatures."""
        return space.probabilities(apply_temperature(logits, self.calibration.temperature, space))

    def answers(self, logits: np.ndarray, space: LabelSpace) -> tuple[FloatArray, BoolArray]:
        """Probabilities and which labels hold, (N, C) each; of a single-label task exactly one holds.

        Args:
            logits: (N, C).
            space: the tasks and their columns.
        """
        probabilities = self.probabilities(logits, space)
        present = np.zeros(probabilities.shape, dtype=bool)
        for task in space.tasks:
            columns = space.slices[task.name]
            given = probabilities[:, columns]
            present[:, columns] = decide(
                task, given, np.zeros_like(given), threshold=self.thresholds.of(task)
            ).predicted
        return probabilities, present

    def applied(self, predictions: Predictions, space: LabelSpace) -> Predictions:
        """The same raw logits beside what is answered with them; single-label tasks need no note of it."""
        if not any(task.multi_label for task in space.tasks):
            return predictions
        return replace(predictions, decided=self.answers(predictions.logits, space)[1])

    def is_complete(self, space: LabelSpace) -> bool:
        """Whether all that a run answers with was fitted."""
        return bool(self.calibration.fitted_on) and self.thresholds.are_for(self.calibration.temperature, space)


def fit_decision(
    logits: np.ndarray,
    targets: np.ndarray,
    space: LabelSpace,
    settings: ThresholdSettings,
    *,
    epoch: int = 0,
    calibration: Calibration | None = None,
) -> Decision:
    """Fit temperatures, then thresholds on the probabilities they make.

    Args:
        logits: (N, C) of the validation rows.
        targets: (N, C) in [0, 1]; NaN where a task has no label.
        space: the tasks and their columns.
        settings: which thresholds are tried and used.
        epoch: of the weights, from 1.
        calibration: temperatures that are known already.
    """
    calibration = calibration or Calibration(
        fit_temperature(logits, targets, space), "val", usable_rows(logits, targets, space), epoch
    )
    if not any(task.multi_label for task in space.tasks):
        return Decision(calibration)
    probabilities = Decision(calibration).probabilities(logits, space)
    tasks = fit_thresholds(probabilities, targets, space, settings, calibration.temperature)
    tried = (*settings.threshold_range, settings.num_thresholds)
    return Decision(calibration, Thresholds(settings.threshold, tasks, tried, "val", epoch))


def decided_rows(
    task: Task,
    predictions: Predictions,
    space: LabelSpace,
    temperatures: Mapping[str, float] | None = None,
    thresholds: Thresholds | None = None,
    rule: Rule | None = None,
) -> Decided:
    """The labelled rows of one task, decided.

    Args:
        task: the task of ``space`` to judge.
        predictions: raw logits and targets.
        space: the tasks and their columns.
        temperatures: by task; 1 where none is given.
        thresholds: of multi-label tasks; None takes what was decided when ``predictions`` was made, else 0.5.
        rule: another than the one ``thresholds`` use.
    """
    columns = space.slices[task.name]
    # Only the task's own columns: a second task need not be finite.
    scaled = predictions.logits[:, columns].astype(np.float64) / (temperatures or {}).get(task.name, 1.0)
    cutoffs = (thresholds or Thresholds()).of(task, rule)
    found = decide(task, LabelSpace((task,)).probabilities(scaled), predictions.targets[:, columns], threshold=cutoffs)
    if task.multi_label and thresholds is None and predictions.decided is not None:
        return replace(found, predicted=predictions.decided[found.rows, columns])
    return found
