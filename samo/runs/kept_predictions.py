"""What a run answers to the items of a part: kept from before where all it depends on is the same, else computed."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

import samo
from samo.data.manifest import Manifest
from samo.evaluation.predictions import Predictions
from samo.frontend import Frontend
from samo.runs.code import code_of
from samo.runs.run import ASSETS, ModelVersion, Run
from samo.tasks import LabelSpace
from samo.training.setup import Setup
from samo.training.trainer import predict_logits

__all__ = [
    "item_predictions",
    "kept_predictions",
    "known_logits",
    "made_with_digest",
    "predicted_parts",
    "predictions_of",
]


def made_with_digest(run: Run, setup: Setup, version: ModelVersion) -> str:
    """SHA-256 over all that the logits of a run's items depend on; empty where code outside SAMO has a part in it.

    Nobody knows in which files that code may change.
    """
    if code_of(run):
        return ""
    frontend, runtime = setup.frontend, setup.runtime
    assets = sorted(path for path in run.path(ASSETS).rglob("*") if path.is_file())
    facts = {
        "weights": version.digest,
        "data": frontend.manifest.digest,
        "space": frontend.manifest.label_space.to_json(),
        # Where the data lie says nothing of what they are.
        "settings": {name: value for name, value in frontend.config.stored().items() if name != "data_root"},
        "assets": [_sha256(path) for path in assets],
        "machine": [runtime.device.type, runtime.precision],
        "code": [torch.__version__, *(_sha256(path) for path in _sources(type(frontend)))],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _sources(kind: type[Frontend]) -> list[Path]:
    """The core's files of Python and the frontend's: any change of them may change what is predicted."""
    folders = [Path(inspect.getfile(found)).parent for found in (samo, kind)]
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def known_logits(
    run: Run, parts: Mapping[str, tuple[str, ...]], made_with: str, space: LabelSpace
) -> dict[str, np.ndarray]:
    """Logits that an evaluation before kept, of those parts that it made with the very same."""
    if not made_with:
        return {}
    kept = {
        name: Predictions.load_made_with(kept_predictions(run, name), made_with, ids, space)
        for name, ids in parts.items()
    }
    return {name: predictions.logits for name, predictions in kept.items() if predictions is not None}


def kept_predictions(run: Run, name: str) -> Path:
    """The file that keeps the predictions of a part, or of another corpus."""
    return run.path(f"predictions.{name}.npz")


def predicted_parts(
    setup: Setup, parts: Mapping[str, tuple[str, ...]], known: Mapping[str, np.ndarray], model: nn.Module | None
) -> dict[str, Predictions]:
    """Of each part: what is known, or else what the model answers."""
    logits = dict(known)
    for name in parts.keys() - known.keys():
        assert model is not None
        logits[name] = predict_logits(model, setup, setup.frontend.manifest.rows(parts[name]))
    return {name: predictions_of(setup.frontend, ids, logits[name]) for name, ids in parts.items()}


def predictions_of(frontend: Frontend, ids: tuple[str, ...], logits: np.ndarray) -> Predictions:
    """:func:`item_predictions` of a frontend's items."""
    return item_predictions(frontend.manifest, ids, logits)


def item_predictions(manifest: Manifest, ids: tuple[str, ...], logits: np.ndarray) -> Predictions:
    """(N, C) logits of N items beside their truth, groups and attributes."""
    rows = manifest.rows(ids)
    items = [manifest.items[row] for row in rows]
    names = sorted({name for item in items for name in item.meta})
    return Predictions(
        ids=tuple(ids),
        logits=logits,
        targets=manifest.targets[rows],
        groups=tuple(item.group for item in items),
        meta={name: tuple(item.meta.get(name, "") for item in items) for name in names},
    )
