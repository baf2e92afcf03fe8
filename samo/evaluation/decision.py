"""From logits to answers: the one way in which report, comparison, ensemble, grid and predictor decide.

A temperature makes probabilities of logits (:mod:`samo.evaluation.calibration`), thresholds make answers of them
(:mod:`samo.evaluation.thresholds`), and below a confidence an answer is withheld (:mod:`samo.evaluation.abstention`).
A run's own are found by :func:`samo.runs.calibrate.decision_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samo.evaluation.abstention import Abstention, confidence, confidence_threshold
from samo.evaluation.calibration import Calibration, apply_temperature, fit_temperature, usable_rows
from samo.evaluation.metrics import Decided, decide, macro_f1, tally
from samo.evaluation.predictions import Predictions
from samo.evaluation.thresholds import Rule, Thresholds, fit_thresholds
from samo.tasks import LabelSpace, Task

if TYPE_CHECKING:
    from samo.settings import AbstentionSettings, ThresholdSettings

__all__ = ["Decision", "decided_rows", "fit_decision"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Decision:
    """What one set of weights answers with; without arguments temperature 1, thresholds 0.5, and always an answer."""

    calibration: Calibration = field(default_factory=Calibration)
    thresholds: Thresholds = field(default_factory=Thresholds)
    abstention: Abstention = field(default_factory=Abstention)

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

    def abstained(
        self, probabilities: np.ndarray, present: np.ndarray, space: LabelSpace, usable: np.ndarray | None = None
    ) -> dict[str, BoolArray]:
        """Which answers are withheld, by task, (N,) each: those below the threshold of confidence.

        Args:
            probabilities: (N, C) of :meth:`answers`.
            present: (N, C) from there too.
            space: the tasks and their columns.
            usable: (N,) whether there is anything to tell an answer by; without it (silence, an empty text) none is
                given, however sure a model is. None: everywhere.
        """
        withheld = {}
        for task in space.tasks:
            columns = space.slices[task.name]
            sure = confidence(task, probabilities[:, columns], present[:, columns])
            unsure = sure < self.abstention.thresholds.get(task.name, 0.0)
            withheld[task.name] = unsure if usable is None else unsure | ~np.asarray(usable, dtype=bool)
        return withheld

    def applied(self, predictions: Predictions, space: LabelSpace) -> Predictions:
        """The same raw logits beside what is answered with them; single-label tasks need no note of it."""
        if not any(task.multi_label for task in space.tasks):
            return predictions
        return replace(predictions, decided=self.answers(predictions.logits, space)[1])

    def score(self, predictions: Predictions, space: LabelSpace) -> float:
        """Macro-F1 of the answers, averaged over the tasks with a labelled row, in [0, 1]; 0 without any."""
        decided = [
            decided_rows(task, predictions, space, self.calibration.temperature, self.thresholds)
            for task in space.tasks
        ]
        found = [float(macro_f1(tally(each.truth, each.predicted))) for each in decided if len(each.rows)]
        return float(np.mean(found)) if found else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values that :meth:`from_json` reads back; None for what was not fitted."""
        return {
            "calibration": self.calibration.to_json(),
            "thresholds": self.thresholds.to_json() if self.thresholds.tasks else None,
            "abstention": self.abstention.to_json() if self.abstention.rule else None,
        }

    @classmethod
    def from_json(cls, data: object, space: LabelSpace) -> Decision:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: it is something else, or not for these labels and temperatures.
        """
        if not isinstance(data, Mapping):
            raise ValueError("is no decision")
        calibration = Calibration.from_json(data.get("calibration"))
        thresholds, abstention = Thresholds(), Abstention()
        if (given := data.get("thresholds")) is not None:
            thresholds = Thresholds.from_json(given)
            if not thresholds.are_for(calibration.temperature, space):
                raise ValueError("its thresholds are not for its labels and temperatures")
        if (given := data.get("abstention")) is not None:
            abstention = Abstention.from_json(given)
            if not abstention.are_for(calibration.temperature, space):
                raise ValueError("its thresholds of confidence are not for its tasks and temperatures")
        return cls(calibration, thresholds, abstention)

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
    abstention: AbstentionSettings | None = None,
) -> Decision:
    """Fit temperatures, then thresholds on the probabilities they make, then those of confidence in the answers.

    Args:
        logits: (N, C) of the validation rows.
        targets: (N, C) in [0, 1]; NaN where a task has no label.
        space: the tasks and their columns.
        settings: which thresholds are tried and used.
        epoch: of the weights, from 1.
        calibration: temperatures that are known already.
        abstention: which answers are to be withheld; None: none.
    """
    calibration = calibration or Calibration(
        fit_temperature(logits, targets, space), "val", usable_rows(logits, targets, space), epoch
    )
    decision = Decision(calibration)
    if any(task.multi_label for task in space.tasks):
        tasks = fit_thresholds(decision.probabilities(logits, space), targets, space, settings, calibration.temperature)
        tried = (*settings.threshold_range, settings.num_thresholds)
        decision = replace(decision, thresholds=Thresholds(settings.threshold, tasks, tried, "val", epoch))
    if abstention is None or not abstention.rule:
        return decision
    return replace(decision, abstention=_fit_abstention(decision, logits, targets, space, abstention, epoch))


def _fit_abstention(
    decision: Decision,
    logits: np.ndarray,
    targets: np.ndarray,
    space: LabelSpace,
    settings: AbstentionSettings,
    epoch: int,
) -> Abstention:
    """Thresholds of confidence, by the finite rows that are labelled for a task."""
    shares, present = decision.answers(logits, space)
    thresholds, n = {}, {}
    for task in space.tasks:
        columns = space.slices[task.name]
        truth, given = targets[:, columns], logits[:, columns]
        rows = ~np.isnan(truth).any(axis=1) & np.isfinite(given).all(axis=1)
        found = decide(task, shares[rows, columns], truth[rows], threshold=decision.thresholds.of(task))
        sure = confidence(task, shares[rows, columns], present[rows, columns])
        thresholds[task.name] = confidence_threshold(sure, (found.truth != found.predicted).any(axis=1), settings)
        n[task.name] = int(rows.sum())
    temperature = {task.name: decision.calibration.temperature.get(task.name, 1.0) for task in space.tasks}
    return Abstention(settings.rule, settings.wanted, thresholds, temperature, "val", n, epoch)


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
