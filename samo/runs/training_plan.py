"""What a run learns from: its split, looked at for leaks, its teachers, and the rows and settings of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from samo.data.leaks import audit
from samo.data.manifest import Item
from samo.data.splits import Split, make_split
from samo.frontend import Frontend
from samo.runs.artifacts import artifacts_root
from samo.runs.calibrate import threshold_settings
from samo.runs.provenance import refuse_known_start
from samo.runs.run import Run
from samo.runs.teachers import checked_teachers, taught_probabilities
from samo.training.setup import Setup
from samo.training.trainer import TrainPlan

__all__ = ["answers_of_teachers", "checked_split", "make_plan", "teachers_of", "with_augmented"]


def checked_split(frontend: Frontend, root: Path | None = None) -> Split:
    """The split to train on.

    Args:
        frontend: corpus and settings.
        root: folder of the outputs, in which teachers are looked for, and runs that start weights may come from.

    Raises:
        LeakError: it leaks, or start weights or teachers know its validation or test part.
        RunError, ModelFileError: there is no such teacher, or it has no model.
    """
    split = make_split(frontend.manifest, frontend.split_request())
    audit(frontend.manifest, split)
    refuse_known_start(frontend.config.flat(), frontend.manifest, split, root)
    teachers_of(frontend, split, root or artifacts_root(""))
    return split


def teachers_of(frontend: Frontend, split: Split, root: Path) -> list[Run]:
    """The teachers that the settings name, looked for below ``root``; none where they name none.

    Raises:
        LeakError: one knows the validation or test part.
        RunError, ModelFileError: there is no such run, or it has no model.
    """
    config: Any = frontend.config
    return checked_teachers(config.loss, root, frontend.modality, frontend.manifest, split)


def answers_of_teachers(teachers: Sequence[Run], learner: Frontend, plan: TrainPlan, setup: Setup) -> np.ndarray | None:
    """What the teachers answer to the rows that are learned from, in float32 on one process."""
    if not teachers:
        return None
    runtime = replace(setup.runtime.alone(), precision="float32")
    return taught_probabilities(teachers, learner, plan.train_rows, runtime)


def make_plan(frontend: Frontend, split: Split) -> TrainPlan:
    """Rows and settings the trainer needs."""
    config: Any = frontend.config
    rows = frontend.manifest.rows
    return TrainPlan(
        rows(split.train), rows(split.val), config.loss, config.optim, config.train, frontend.mixup_alpha,
        threshold_settings(config),
    )  # fmt: skip


def with_augmented(frontend: Frontend, plan: TrainPlan, made: tuple[Item, ...]) -> tuple[Frontend, TrainPlan]:
    """What is learned from: the training rows, and behind all of the manifest's what was made of them."""
    if not made:
        return frontend, plan
    n = len(frontend.manifest.items)
    rows = np.concatenate([plan.train_rows, np.arange(n, n + len(made), dtype=np.int64)])
    return frontend.with_extra(made), replace(plan, train_rows=rows)
