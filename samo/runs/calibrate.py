"""What a run answers with, temperature, thresholds and when to abstain: the one rule of report and predictor.

``calibration.json`` and, for multi-label tasks, ``thresholds.json`` are fitted on the validation rows with the weights
of the best epoch, when training ends. Both name that epoch, and count only for those weights; thresholds count only
beside the temperatures they were chosen under. ``abstention.json`` is there where the settings ask for it, and counts
as thresholds do. A run without them (stopped before its end, or trained by an earlier
version) gets them from the first ``samo evaluate`` on its own corpus, which predicts the validation rows anyway. Until
then its temperature is 1 and its thresholds are 0.5. Predictions are stored as raw logits, so that both can always be
fitted again, beside what was decided with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from samo.evaluation.abstention import Abstention
from samo.evaluation.calibration import Calibration
from samo.evaluation.decision import Decision, fit_decision
from samo.evaluation.thresholds import Thresholds
from samo.runs.run import ENSEMBLE_FILE, Run
from samo.settings import AbstentionSettings, Config, ThresholdSettings
from samo.tasks import LabelSpace
from samo.training.checkpoint import read_facts

__all__ = [
    "ABSTENTION",
    "abstention_settings",
    "agreed_decision",
    "calibrate",
    "calibration_of",
    "decision_of",
    "threshold_settings",
]

TEMPERATURES = "calibration.json"
THRESHOLDS = "thresholds.json"
ABSTENTION = "abstention.json"


def calibrate(
    run: Run,
    space: LabelSpace,
    logits: np.ndarray,
    targets: np.ndarray,
    settings: ThresholdSettings | None = None,
    *,
    keep: Calibration | None = None,
    abstention: AbstentionSettings | None = None,
    epoch: int | None = None,
) -> Decision:
    """Fit the temperatures and thresholds of a run's best weights and keep them in its folder.

    Args:
        run: whose ``best_model.safetensors`` gave the logits.
        space: the tasks and their columns.
        logits: (N, C) of the validation rows.
        targets: (N, C) in [0, 1]; NaN where a task has no label.
        settings: which thresholds are tried and used; the defaults where a modality has no such settings.
        keep: temperatures that count for these weights already, and then stay.
        abstention: which answers are to be withheld; None: none.
        epoch: of the weights that gave the logits; None: of those that lie there now.
    """
    decision = fit_decision(
        logits, targets, space, settings or ThresholdSettings(),
        epoch=_epoch(run) if epoch is None else epoch, calibration=keep, abstention=abstention,
    )  # fmt: skip
    if not keep:
        decision.calibration.save(run.path(TEMPERATURES))
    if decision.thresholds.tasks:
        decision.thresholds.save(run.path(THRESHOLDS))
    if decision.abstention.rule:
        decision.abstention.save(run.path(ABSTENTION))
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
    """What a run answers with; temperature 1, thresholds 0.5 and no abstention where none were fitted for its weights.

    Args:
        run: with a model.
        space: the tasks and columns of that model.

    Raises:
        ModelFileError: there is no usable model.
        RunError: a file is damaged.
    """
    calibration = calibration_of(run) or Calibration()
    thresholds, abstention = Thresholds(), Abstention()
    if run.path(THRESHOLDS).is_file():
        found = Thresholds.load(run.path(THRESHOLDS))
        if found.epoch == _epoch(run) and found.are_for(calibration.temperature, space):
            thresholds = found
    if run.path(ABSTENTION).is_file():
        kept = Abstention.load(run.path(ABSTENTION))
        # Of several labels the confidence in an answer depends on the thresholds it was made with.
        decided = thresholds.are_for(calibration.temperature, space)
        if decided and kept.epoch == _epoch(run) and kept.are_for(calibration.temperature, space):
            abstention = kept
    return Decision(calibration, thresholds, abstention)


def abstention_settings(config: Config) -> AbstentionSettings:
    """Those of a configuration, the defaults where its modality has none."""
    found = getattr(config, "abstention", None)
    return found if isinstance(found, AbstentionSettings) else AbstentionSettings()


def threshold_settings(config: Config) -> ThresholdSettings:
    """Those of a configuration, the defaults where its modality has none."""
    found = getattr(config, "thresholds", None)
    return found if isinstance(found, ThresholdSettings) else ThresholdSettings()


def agreed_decision(settings: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings of an ensemble: of thresholds and of abstention what all members have alike, else the defaults.

    So it does not matter which member is named first.

    Args:
        settings: by name; all others are those.
        members: settings of each member.
    """
    found = dict(settings)
    for section in (ThresholdSettings, AbstentionSettings):
        default, names = section().model_dump(mode="json"), [name for name in section.model_fields if name in settings]
        own = [{name: each.get(name, default[name]) for name in names} for each in members]
        found |= own[0] if all(each == own[0] for each in own) else {name: default[name] for name in names}
    return found


def _epoch(run: Run) -> int:
    # An ensemble has no epoch, and one of kept answers no model file.
    if run.path(ENSEMBLE_FILE).is_file():
        return 0
    if not run.has_model and run.path("trained.json").is_file() and "best_epoch" in run.trained:
        return int(run.trained["best_epoch"])  # what was kept of a run outlives its weights
    return read_facts(run.model_file).epoch
