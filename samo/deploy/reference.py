"""What a model answered on its validation part, and what that part was like: what ``samo drift`` compares with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from samo.deploy.samples import MOST_KEPT
from samo.errors import RunError, SamoError
from samo.evaluation.abstention import confidence
from samo.evaluation.predictions import Predictions
from samo.modalities import config_type, frontend_type
from samo.runs.calibrate import decision_of
from samo.runs.code import require_code
from samo.runs.load import load_run_model
from samo.runs.run import ASSETS, Run, require_place
from samo.training.checkpoint import read_facts
from samo.training.runtime import make_runtime
from samo.training.setup import Setup
from samo.training.trainer import predict_logits

__all__ = ["reference_of"]


def reference_of(run: Run) -> dict[str, Any]:
    """A run's reference as plain values.

    Args:
        run: with a model. Its kept predictions of the validation part are used where they are of these weights, else
            the part is predicted again.

    Returns:
        ``part``, ``n``; by task ``counts``, ``n``, ``abstained``, sorted ``confidences`` and ``multi_label``; and
        sorted ``level_dbfs`` and ``duration_s`` of clips, or ``n_chars`` and ``n_tokens`` of texts. At most 1,000
        numbers of each. Without the data (moved away) only what the kept predictions say; ``{}`` where not even these
        are there.

    Raises:
        ModelFileError, RunError: the run has no usable model.
    """
    about = read_facts(run.model_file)
    space, ids = about.label_space, run.split.val
    setup = _setup(run)
    logits = _logits(run, setup, ids)
    if logits is None:
        return {}
    decision = decision_of(run, space)
    probabilities, present = decision.answers(logits, space)
    withheld = decision.abstained(probabilities, present, space)
    tasks = {}
    for task in space.tasks:
        columns = space.slices[task.name]
        sure = confidence(task, probabilities[:, columns], present[:, columns])
        tasks[task.name] = {
            "counts": dict(zip(task.labels, present[:, columns].sum(axis=0).tolist(), strict=True)),
            "n": len(logits),
            "abstained": int(withheld[task.name].sum()),
            "confidences": _thinned(sure),
            "multi_label": task.multi_label,
        }
    rows = setup.frontend.manifest.rows(ids) if setup else np.zeros(0, dtype=np.int64)
    facts = setup.frontend.input_facts(rows) if setup else {}
    return {"part": "val", "n": len(logits), "tasks": tasks, **{name: _thinned(each) for name, each in facts.items()}}


def _setup(run: Run) -> Setup | None:
    """The run's own data, opened; None where they are no longer there or no longer the same."""
    settings = run.flat_settings
    try:
        require_code(run, "model", "dataset")
        require_place(run, settings, moved=False)
        frontend = frontend_type(run.modality).open(
            config_type(run.modality).build(settings), lambda line: None, None, run.path(ASSETS)
        )
    except SamoError:
        return None
    return (
        Setup(frontend, make_runtime("cpu", "float32", 0)) if frontend.manifest.digest == run.manifest.digest else None
    )


def _logits(run: Run, setup: Setup | None, ids: Sequence[str]) -> np.ndarray | None:
    """(N, C) of the validation part: kept, or predicted; None where neither can be."""
    space = read_facts(run.model_file).label_space
    kept = run.path("predictions.val.npz")
    # Predictions are written behind the weights they are of; younger weights have none yet.
    if kept.is_file() and kept.stat().st_mtime_ns >= run.model_file.stat().st_mtime_ns:
        try:
            found = Predictions.load(kept, space)
        except RunError:
            found = None
        if found is not None and found.ids == tuple(ids):
            return found.logits
    if setup is None:
        return None
    model, _ = load_run_model(run, type(setup.frontend), setup.runtime)
    return predict_logits(model, setup, setup.frontend.manifest.rows(ids))


def _thinned(values: np.ndarray) -> list[float]:
    """Sorted, at most :data:`MOST_KEPT` of them at even distances in their order, to six digits."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if len(ordered) > MOST_KEPT:
        ordered = ordered[np.linspace(0, len(ordered) - 1, MOST_KEPT).round().astype(np.int64)]
    return [round(float(value), 6) for value in ordered]
