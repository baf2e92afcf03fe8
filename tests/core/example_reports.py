"""Predictions of three classes drawn at random, and the report of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from samo.evaluation.calibration import Calibration
from samo.evaluation.decision import Decision
from samo.evaluation.predictions import Predictions
from samo.evaluation.thresholds import Thresholds
from samo.reporting.report import Subject, build_report
from samo.tasks import LabelSpace, Task

LABELS = ("calm", "happy", "sad")
SPACE = LabelSpace((Task("emotion", LABELS),))
HISTORY = [
    {"epoch": k, "train_loss": 2.0 / k, "val_loss": 2.1 / k, "val_macro_f1": 0.1 * min(k, 4), "lr": 1e-3 / k}
    for k in range(1, 7)
]


def predictions(n_groups: int = 10, space: LabelSpace = SPACE, seed: int = 0, rows: int = 12) -> Predictions:
    rng = np.random.default_rng(seed)
    n, n_columns = n_groups * rows, space.n_columns
    targets = np.eye(n_columns, dtype=np.float32)[rng.integers(0, n_columns, n)]
    group = np.repeat(np.arange(n_groups), rows)
    return Predictions(
        ids=tuple(f"item{k}" for k in range(n)),
        logits=(rng.normal(size=targets.shape) + 1.5 * targets).astype(np.float32),
        targets=targets,
        groups=tuple(f"s{k}" for k in group),
        meta={"gender": tuple("fm"[k % 2] for k in group), "empty": ("",) * n},
    )


def report(given: Predictions | None = None, **changed: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "run": "run-1", "dataset": "corpus", "synthetic": False, "split": "test", "split_rule": "speaker",
        "leaky": False, "task": SPACE.primary, "predictions": given or predictions(), "label_space": SPACE,
        "unit": "speaker", "train_macro_f1": 0.9, "val_macro_f1": 0.6,
    }  # fmt: skip
    return build(**{**arguments, **changed})


def build(
    predictions: Predictions,
    label_space: LabelSpace,
    calibration: Calibration | None = None,
    thresholds: Thresholds | None = None,
    **about: Any,
) -> dict[str, Any]:
    """A report of arguments by name: those of the subject, and the others."""
    names = {field.name for field in fields(Subject)}
    subject = Subject(**{name: value for name, value in about.items() if name in names})
    others = {name: value for name, value in about.items() if name not in names}
    decision = Decision(calibration or Calibration(), thresholds or Thresholds())
    return build_report(subject, predictions, label_space, decision, **others)
