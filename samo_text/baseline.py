"""The simple model every report shows beside the run: what a network must beat to be worth its cost."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from zipfile import BadZipFile

import numpy as np
import torch

from samo.data.manifest import Manifest
from samo.files import cache_root, caching
from samo_text.config import TextConfig
from samo_text.models import build_model
from samo_text.models.tfidf import fit_tfidf
from samo_text.tokens import HashTokens, TokenLists, token_lists

__all__ = ["BASELINE", "baseline_logits"]

# Its settings are the defaults, whatever the run's own are.
BASELINE = "tfidf"
_BATCH = 256
# Raise it with every change of what samo_text/models/tfidf.py computes.
_CACHE_VERSION = 2


def baseline_logits(manifest: Manifest, train_rows: np.ndarray) -> np.ndarray:
    """(N, C) float32 logits of all N texts by tf-idf with logistic regression.

    Kept in SAMO's cache: the runs of a grid are judged beside one baseline, which takes about a minute on GoEmotions.

    Args:
        manifest: the texts and their labels.
        train_rows: the rows it may learn from.
    """
    config = TextConfig.build({"model": BASELINE})
    tokens = HashTokens(config.tokens.max_tokens)
    found_by = f"{_CACHE_VERSION}:{tokens.digest}:{version('scikit-learn')}:{config.model.model_dump_json()}"
    question = f"{manifest.digest}:{manifest.label_space.to_json()}:{found_by}"
    known = hashlib.sha256(question.encode() + np.sort(train_rows).tobytes())
    path = cache_root() / "baselines" / f"{known.hexdigest()}.npz"
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as stored:
                logits: np.ndarray = stored["logits"]
                return logits
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            path.unlink(missing_ok=True)  # damaged: made again below
    lists = token_lists(tokens, [item.source for item in manifest.items])
    model = build_model(config, manifest.label_space)
    texts = [lists.row(row) for row in train_rows]
    fitted = fit_tfidf(texts, manifest.targets[train_rows], manifest.label_space, config.model)
    model.load_state_dict(fitted, strict=False)
    logits = _predicted(model.eval(), lists, manifest.label_space.n_columns)
    with caching(path) as temporary:
        np.savez(temporary, logits=logits)
    return logits


@torch.inference_mode()
def _predicted(model: torch.nn.Module, lists: TokenLists, n_columns: int) -> np.ndarray:
    logits = np.zeros((len(lists), n_columns), dtype=np.float32)
    order = np.argsort(lists.lengths, kind="stable")
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        lengths = lists.lengths[rows]
        ids = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
        for place, row in zip(ids, rows, strict=True):
            place[: lists.lengths[row]] = lists.row(row)
        logits[rows] = model(torch.from_numpy(ids), torch.from_numpy(lengths)).float().numpy()
    return logits
