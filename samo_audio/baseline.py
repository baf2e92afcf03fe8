"""The simple models every report shows beside the run: what a network must beat, and what no network should need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from samo.data.batch import Batch
from samo.data.manifest import Manifest
from samo.encoders.logreg import inner_groups
from samo.files import alone, cache_root, caching
from samo_audio.config import AudioConfig
from samo_audio.models.functionals import FunctionalsModel, features_of, fit_functionals

__all__ = ["BASELINE", "SHORTCUT", "simple_logits"]

# Their settings are the defaults, but for the rate and the trimming, which are the run's.
BASELINE, SHORTCUT = "functionals", "level and duration"
# Raise it with every change of what samo_audio/functionals.py computes, or of what is kept.
_CACHE_VERSION = 3


def simple_logits(
    config: AudioConfig, manifest: Manifest, train_rows: np.ndarray, batches: Iterable[Batch]
) -> np.ndarray:
    """(N, C) float32 logits of all N clips by functionals with logistic regression.

    Features and answers are kept in SAMO's cache: the runs of a grid are evaluated beside one baseline.

    Args:
        config: of the simple model.
        manifest: the clips and their labels.
        train_rows: the rows it may learn from.
        batches: every window of every clip, read only where nothing is kept.
    """
    model, space = FunctionalsModel(config, manifest.label_space), manifest.label_space
    seen = f"{config.model.functional_set}:{config.features.model_dump_json()}"
    contents = ":".join(item.content or item.id for item in manifest.items)
    features_key = _key(f"{_CACHE_VERSION}:{seen}:{version('torch')}:{contents}")
    question = f"{manifest.digest}:{space.to_json()}:{features_key}:{version('scikit-learn')}"
    learned = np.sort(train_rows)
    # The strength is chosen on folds of groups, of which the digest says nothing.
    groups = json.dumps(inner_groups(manifest, learned))
    answers_key = _key(f"{question}:{groups}", learned.tobytes())
    if kept := _kept(answers_key, "logits"):
        return kept[0]
    # Runs of a grid that are evaluated at once need the same features: the first makes them.
    with alone(_place(features_key)):
        stored = _kept(features_key, "features", "rows")
        features, rows = stored or features_of(model, batches)
        if not stored:
            _keep(features_key, features=features, rows=rows)
    fitted = fit_functionals(features, rows, manifest, train_rows)
    each = features @ fitted["weight"].numpy().T + fitted["bias"].numpy()
    logits = np.zeros((len(manifest.items), space.n_columns))
    np.add.at(logits, rows, each)
    logits = (logits / np.bincount(rows, minlength=len(logits))[:, None]).astype(np.float32)
    _keep(answers_key, logits=logits)
    return logits


def _key(text: str, more: bytes = b"") -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape") + more).hexdigest()


def _place(key: str) -> Path:
    return cache_root() / "baselines" / f"{key}.npz"


def _kept(key: str, *names: str) -> list[np.ndarray] | None:
    """The arrays kept under a key; None where there are none, or damaged ones."""
    path = _place(key)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        path.unlink(missing_ok=True)  # made again
        return None


def _keep(key: str, **arrays: np.ndarray) -> None:
    with caching(_place(key)) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
