"""What the members of an ensemble and it are worth, as it stands in ``ensemble.json``: on validation, then on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from samo.data.leaks import is_leaky
from samo.data.manifest import Manifest
from samo.data.splits import Split
from samo.evaluation.calibration import Calibration
from samo.evaluation.decision import Decision, decided_rows
from samo.evaluation.metrics import decide
from samo.evaluation.paired_bootstrap import COMPARED, paired_bootstrap
from samo.evaluation.predictions import Predictions
from samo.evaluation.significance import verdict
from samo.evaluation.statistics import tally_by_unit
from samo.reporting.report import Subject, build_report
from samo.runs.ensemble_model import Ensemble
from samo.tasks import LabelSpace
from samo.training.checkpoint import EnsembleFacts
from samo.training.setup import Setup
from samo.training.trainer import predict_logits

__all__ = ["difference_of", "members_answers", "with_scores"]


def with_scores(
    summary: Mapping[str, Any], answered: Sequence[Predictions], split: Split, part: str, manifest: Manifest, unit: str
) -> dict[str, Any]:
    """A summary with what it was measured on; on the test part also with all scores there, and the gain.

    Args:
        summary: with ``members``, ``best_member`` and ``ensemble``, whose scores on validation are known.
        answered: of each member, then of the ensemble, as they are decided; of the ensemble alone on ``val``.
        split: what all members held out.
        part: ``test`` or ``val``.
        manifest: of the data.
        unit: what a confidence interval is resampled over.
    """
    names, space = [str(member["name"]) for member in summary["members"]], manifest.label_space
    named = zip([*names, summary["run"]][-len(answered) :], answered, strict=True)
    reports = [_report(name, predictions, split, part, manifest, unit) for name, predictions in named]
    whole = reports[-1]
    about = ("dataset", "synthetic", "split", "split_rule", "leaky", "task", "n")
    found = {
        **summary,
        **{key: whole[key] for key in about},
        **{key: whole["ci"][key] for key in ("unit", "n_units", "level")},
        "warnings": [
            *whole["warnings"],
            "one training a member: members of other seeds may turn the order round, and no number here knows of it",
        ],
    }
    if part == "val":
        return found
    scores = [
        {"macro_f1": float(report["metrics"]["macro_f1"]), "interval": report["ci"]["macro_f1"]} for report in reports
    ]
    best = answered[names.index(summary["best_member"])]
    return {
        **found,
        "members": [{**member, **own} for member, own in zip(summary["members"], scores[:-1], strict=True)],
        "mean_of_members": fmean(own["macro_f1"] for own in scores[:-1]),
        "ensemble": {**summary["ensemble"], **scores[-1]},
        "gain": difference_of(best, answered[-1], space, whole["ci"]["level"]),
    }


def difference_of(member: Predictions, ensemble: Predictions, space: LabelSpace, level: float) -> dict[str, Any]:
    """The ensemble's macro-F1 minus a member's, over joint draws of the groups, as `samo compare` takes it."""
    decided = [decided_rows(space.primary, predictions, space) for predictions in (member, ensemble)]
    groups = [member.groups[row] for row in decided[0].rows]
    tallies = [tally_by_unit(each.truth, each.predicted, groups) for each in decided]
    found = paired_bootstrap(tallies[0], tallies[1], {"macro_f1": COMPARED["macro_f1"]}, level=level)["macro_f1"]
    word = verdict(found.difference, found.p, 1.0 - level)
    return {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p, "verdict": word}


def members_answers(
    model: Ensemble, about: EnsembleFacts, setup: Setup, rows: np.ndarray, like: Predictions
) -> list[Predictions]:
    """What each member of an ensemble answers to rows of the manifest, with its own temperature and thresholds.

    Args:
        model: the ensemble's.
        about: what its file says of the members.
        setup: of the data as they are read.
        rows: (N,) of the manifest.
        like: the ensemble's predictions of these rows.
    """
    space = setup.frontend.manifest.label_space
    found = []
    for place, member in enumerate(about.members):
        given = replace(like, logits=predict_logits(model.member(place), setup, rows), decided=None)
        found.append(_decided(given, member.temperature, member.thresholds, space))
    return found


def _decided(
    predictions: Predictions,
    temperature: Mapping[str, float],
    thresholds: Mapping[str, Sequence[float]],
    space: LabelSpace,
) -> Predictions:
    """The same beside what is answered; single-label tasks need no note of it."""
    if not any(task.multi_label for task in space.tasks):
        return predictions
    shares = Decision(Calibration(temperature)).probabilities(predictions.logits, space)
    present = np.zeros(shares.shape, dtype=bool)
    for task in space.tasks:
        columns = space.slices[task.name]
        given = shares[:, columns]
        own = np.array(thresholds.get(task.name, [0.5] * len(task.labels)))
        present[:, columns] = decide(task, given, np.zeros_like(given), threshold=own).predicted
    return replace(predictions, decided=present)


def _report(
    name: str, predictions: Predictions, split: Split, part: str, manifest: Manifest, unit: str
) -> dict[str, Any]:
    """The report `samo evaluate` would make of a part as it is decided, temperature aside."""
    subject = Subject(
        name, manifest.dataset, part, split.rule, unit, manifest.synthetic, leaky=is_leaky(manifest, split)
    )
    return build_report(subject, replace(predictions, meta={}), manifest.label_space)
