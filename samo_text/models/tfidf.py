"""The baseline: tf-idf of word n-grams into a logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samo.data.batch import Draws, Mix
from samo.encoders.logreg import solve_task
from samo.tasks import LabelSpace
from samo.training.model import EmotionModel
from samo_text.config import ModelSettings, TextConfig

__all__ = ["N_COLUMNS", "TfidfModel", "fit_tfidf", "ngram_columns", "tfidf"]

N_COLUMNS = 2**18

# n-grams are hashed by a polynomial modulo a prime, whose products fit into 64 bits; one base for each length.
_PRIME = 2**31 - 1
_BASES = (1_103_515_245, 1_664_525, 1_013_904_223, 1_566_083_941)


class TfidfModel(EmotionModel):
    """Linear in tf-idf features: nothing in it learns by gradient, :func:`fit_tfidf` finds its weights.

    The feature of an n-gram that stands n times in a text is ``(1 + ln n) * idf``, over the L2 norm of the text's
    features: scikit-learn's ``TfidfTransformer(sublinear_tf=True)``. n-grams that share a column count as one.
    """

    idf: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, n_labels: int, ngrams: int) -> None:
        """``n_labels`` is C; ``ngrams`` the longest n-gram in words."""
        super().__init__()
        self.ngrams = ngrams
        self.register_buffer("idf", torch.zeros(N_COLUMNS))
        self.register_buffer("weight", torch.zeros(N_COLUMNS, n_labels))
        self.register_buffer("bias", torch.zeros(n_labels))

    def forward(self, inputs: Tensor, lengths: Tensor, draws: Draws | None = None, mix: Mix | None = None) -> Tensor:
        """Logits of a batch; it is the same in training.

        Args:
            inputs: (B, T) int64 word hashes, padded behind.
            lengths: (B,) int64 valid words.
            draws: not used.
            mix: not used: there is no embedding to mix.

        Returns:
            (B, C) float32 logits.
        """
        with torch.autocast(inputs.device.type, enabled=False):
            room = lengths[:, None] - torch.arange(inputs.shape[1], device=inputs.device)
            columns, stands = ngram_columns(inputs, room, self.ngrams)
            # Side by side after sorting, equal columns form runs; what does not stand there goes to the end.
            columns = columns.masked_fill(~stands, N_COLUMNS).sort(dim=1).values
            run = F.pad((columns[:, 1:] != columns[:, :-1]).long().cumsum(dim=1), (1, 0))
            there = (columns < N_COLUMNS).to(self.idf.dtype)
            counts = torch.zeros_like(there).scatter_add(1, run, there).gather(1, run).clamp(min=1.0)
            columns = columns.clamp(max=N_COLUMNS - 1)
            feature = (1.0 + counts.log()) * self.idf[columns]
            # An n-gram that stands n times is met n times here, so each time gives the n-th part.
            share = there / counts
            norm = (share * feature**2).sum(dim=1, keepdim=True).sqrt()
            value = share * feature / torch.where(norm > 0.0, norm, torch.ones_like(norm))
            logits: Tensor = (value[:, :, None] * F.embedding(columns, self.weight)).sum(dim=1) + self.bias
            return logits


def ngram_columns(ids: Tensor, room: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The column of the n-gram of 1 to ``longest`` words that begins at each word.

    Args:
        ids: (..., T) int64 word hashes.
        room: (..., T) words of the same text from here on, this one included.
        longest: longest n-gram.

    Returns:
        (..., longest * T) columns, and whether an n-gram stands there.
    """
    words, length = ids % _PRIME, ids.shape[-1]
    columns, stands = [], []
    for n in range(1, longest + 1):
        value = torch.full_like(words, n)
        for ahead in range(n):
            # Words past the end are never counted, since there is no room for the n-gram.
            value = (value * _BASES[n - 1] + F.pad(words, (0, ahead))[..., ahead : ahead + length]) % _PRIME
        columns.append(value * _BASES[n - 1] % _PRIME % N_COLUMNS)
        stands.append(room >= n)
    return torch.cat(columns, dim=-1), torch.cat(stands, dim=-1)


def fit_tfidf(
    token_lists: Sequence[np.ndarray], targets: np.ndarray, space: LabelSpace, settings: ModelSettings
) -> dict[str, Tensor]:
    """Count the n-grams of the training texts and fit one logistic regression a label, or one over all labels.

    A multi-label task gets a binary problem for each label, a single-label task one multinomial problem; classes are
    balanced (weight n / (K * n_class)), ``inverse_l2`` is scikit-learn's C. Rows that are NaN in a task's columns
    are left out of it. A label that no row has, or all rows have, keeps a constant.

    Args:
        token_lists: N arrays of word hashes, the training texts.
        targets: (N, C) float32.
        space: which columns are which task's.
        settings: n-grams, fewest counts, strength.

    Returns:
        ``idf`` (F,), ``weight`` (F, C) and ``bias`` (C,), float32, by name in :class:`TfidfModel`'s state.
    """
    counts = _counts(token_lists, settings.ngrams)
    n_texts, frequency = counts.shape[0], np.bincount(counts.indices, minlength=N_COLUMNS)
    kept = np.flatnonzero(frequency >= settings.min_count)
    idf = np.zeros(N_COLUMNS)
    idf[kept] = np.log((1.0 + n_texts) / (1.0 + frequency[kept])) + 1.0
    weight, bias = np.zeros((N_COLUMNS, space.n_columns)), np.zeros(space.n_columns)
    if len(kept):
        from sklearn.preprocessing import normalize

        counts.data = (1.0 + np.log(counts.data)) * idf[counts.indices]
        features = normalize(counts[:, kept.astype(np.int32)], copy=False)
    else:
        features = counts[:, :1] * 0.0
        kept = np.zeros(1, dtype=np.int64)
    for task in space.tasks:
        columns = space.slices[task.name]
        labelled = ~np.isnan(targets[:, columns]).any(axis=1)
        truth = targets[labelled, columns] > 0.5
        [(found, constant)] = solve_task(features[labelled], truth, task, [settings.inverse_l2])
        weight[kept, columns], bias[columns] = found.T, constant
    return {
        name: torch.from_numpy(value.astype(np.float32))
        for name, value in {"idf": idf, "weight": weight, "bias": bias}.items()
    }


def _counts(token_lists: Sequence[np.ndarray], longest: int) -> Any:
    """(N, F) how often each column's n-grams stand in each text."""
    from scipy.sparse import csr_array

    lengths = np.array([len(ids) for ids in token_lists], dtype=np.int64)
    room = np.concatenate([np.arange(n, 0, -1) for n in lengths])
    flat = torch.from_numpy(np.concatenate(token_lists).astype(np.int64))
    columns, stands = ngram_columns(flat, torch.from_numpy(room), longest)
    # Indices of 32 bits: the fit goes through them hundreds of times, and memory is what it waits for.
    rows = np.tile(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths), longest)
    there = stands.numpy()
    places = (rows[there], columns.numpy()[there].astype(np.int32))
    found = csr_array((np.ones(len(places[0])), places), shape=(len(lengths), N_COLUMNS), dtype=np.float64)
    found.sum_duplicates()
    return found


def tfidf(config: TextConfig, space: LabelSpace, assets: Path | None, n_tokens: int | None) -> TfidfModel:
    """The baseline without its weights, which come from :func:`fit_tfidf`; it needs no assets."""
    return TfidfModel(space.n_columns, config.model.ngrams)
