"""In which order rows are seen: a function of the seed and the epoch alone."""

from __future__ import annotations

import numpy as np

from samo_core.data.batch import Draws
from samo_core.tasks import LabelSpace

__all__ = ["balanced_weights", "batches_of", "epoch_order"]


def epoch_order(rows: np.ndarray, seed: int, epoch: int, weights: np.ndarray | None = None) -> np.ndarray:
    """The rows of one epoch in the order they are trained on.

    Args:
        rows: (N,) int64 row numbers.
        seed: the run's seed.
        epoch: counted from 0.
        weights: (N,) probabilities of drawing each row, with replacement; None = each row once.

    Returns:
        (N,) int64.
    """
    keys = Draws(seed, epoch, rows).uniform("order" if weights is None else "sample")[:, 0]
    if weights is None:
        return rows[np.argsort(keys, kind="stable")]
    edges = np.cumsum(weights / weights.sum())
    drawn = np.searchsorted(edges, keys, side="right").clip(max=len(rows) - 1)
    return rows[drawn]


def batches_of(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut an order into full batches; the rest waits for another epoch, a set smaller than one batch is kept whole."""
    n_full = len(order) // batch_size
    if n_full == 0:
        return [order]
    return [order[k * batch_size : (k + 1) * batch_size] for k in range(n_full)]


def balanced_weights(targets: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Sampling probability of each row so that all classes of the first task are equally likely.

    A row with several labels takes the weight of its rarest one; a row without labels that of the mean.

    Args:
        targets: (N, C).

    Returns:
        (N,) float64 that sums to 1.
    """
    columns = targets[:, space.slices[space.primary.name]]
    holds = np.nan_to_num(columns) > 0.5
    counts = holds.sum(axis=0)
    per_class = np.where(counts > 0, 1.0 / np.maximum(counts, 1), 0.0)
    weights: np.ndarray = np.where(holds, per_class[None, :], 0.0).max(axis=1)
    weights[weights == 0.0] = weights[weights > 0].mean()
    return weights / weights.sum()
