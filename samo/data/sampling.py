"""In which order rows are seen: a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from samo.data.batch import Draws
from samo.settings import LossSettings
from samo.tasks import LabelSpace

__all__ = [
    "balance_notes",
    "balanced_weights",
    "batches_of",
    "epoch_order",
    "joint_weights",
    "occurrences",
    "sampling_weights",
    "sorted_batches",
    "transductive_notes",
]

# So many batches are sorted by size among themselves: enough for batches of rows alike, few enough to stay random.
_CHUNK = 50


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


def occurrences(rows: np.ndarray) -> np.ndarray:
    """(N,) int64: how often each of (N,) rows stands before itself; 0 everywhere when each stands once."""
    order = np.argsort(rows, kind="stable")
    places = np.arange(len(rows))
    first = np.r_[True, rows[order][1:] != rows[order][:-1]][: len(rows)]
    counted = np.empty(len(rows), dtype=np.int64)
    counted[order] = places - np.maximum.accumulate(np.where(first, places, 0))
    return counted


def batches_of(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut an order into full batches; the rest waits for another epoch, a set smaller than one batch is kept whole."""
    n_full = len(order) // batch_size
    if n_full == 0:
        return [order]
    return [order[k * batch_size : (k + 1) * batch_size] for k in range(n_full)]


def sorted_batches(
    order: np.ndarray, sizes: np.ndarray, batch_size: int, seed: int, epoch: int, chunk: int = _CHUNK
) -> list[np.ndarray]:
    """Batches of rows of similar size, so that little is padded: the rows of :func:`batches_of`, dealt otherwise.

    Every ``chunk`` batches of the order are sorted by size among themselves; then the batches of the whole epoch are
    shuffled, so that long and short ones take turns.

    Args:
        order: (N,) int64 rows of the epoch.
        sizes: (N,) how long each of them is.
        batch_size: rows in a batch.
        seed: the run's seed.
        epoch: counted from 0.
        chunk: batches that are sorted together.
    """
    n_full = len(order) // batch_size
    if n_full == 0:
        return [order]
    n_rows = chunk * batch_size
    parts = [
        np.arange(start, min(start + n_rows, n_full * batch_size)) for start in range(0, n_full * batch_size, n_rows)
    ]
    by_size = np.concatenate([part[np.argsort(sizes[part], kind="stable")] for part in parts])
    batches = batches_of(order[by_size], batch_size)
    keys = Draws(seed, epoch, np.arange(len(batches))).uniform("batches")[:, 0]
    return [batches[k] for k in np.argsort(keys, kind="stable")]


def sampling_weights(targets: np.ndarray, space: LabelSpace, settings: LossSettings) -> np.ndarray | None:
    """(N,) probability of drawing each training row as the settings ask; None where each is seen once."""
    if settings.balanced_sampler:
        return balanced_weights(targets, space)
    if settings.joint_alpha > 0.0:
        return joint_weights(targets, space, settings.joint_alpha, settings.joint_max_mult, settings.joint_boost)
    return None


def balance_notes(settings: Mapping[str, Any]) -> list[str]:
    """What to know of settings, by name, that balance the classes twice: rows drawn more often, and weighted too."""
    drawn = [name for name in ("balanced_sampler", "joint_alpha") if settings.get(name)]
    if not drawn or not settings.get("class_weight_loss"):
        return []
    return [
        f"classes are balanced twice: `{drawn[0]}` draws rare ones more often, and `class_weight_loss` weighs them by "
        "their frequency before drawing"
    ]


def transductive_notes(settings: Mapping[str, Any]) -> list[str]:
    """What to know of settings, by name, with which a model knows the inputs of the tested speakers beforehand."""
    if settings.get("normalisation") != "speaker":
        return []
    return [
        "transductive: `normalisation=speaker` takes mean and sd from all clips of a speaker, those of tested speakers "
        "among them, unlabelled; the scores hold where several clips of each speaker are at hand, not for a single clip"
    ]


def balanced_weights(targets: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Sampling probability of each row so that all classes of the first task are equally likely.

    A row with several labels takes the weight of its rarest one; a row without labels that of the mean.

    Args:
        targets: (N, C).

    Returns:
        (N,) float64 that sums to 1.
    """
    positive = _positive(targets[:, space.slices[space.primary.name]])
    counts = positive.sum(axis=0)
    per_class = np.where(counts > 0, 1.0 / np.maximum(counts, 1), 0.0)
    weights: np.ndarray = np.where(positive, per_class[None, :], 0.0).max(axis=1)
    weights[weights == 0.0] = weights[weights > 0].mean()
    return weights / weights.sum()


def joint_weights(
    targets: np.ndarray, space: LabelSpace, alpha: float, max_mult: float, boost: Mapping[str, float]
) -> np.ndarray:
    """Sampling probability of each row so that the rare classes of all tasks are seen more often.

    Within a task a class c with n_c training rows is drawn ``boost_c * min((n_max / n_c) ** alpha, max_mult)`` times as
    often as the most frequent one: not more often with alpha 0, equally often with alpha 1. A row with several labels
    takes the multiple of its largest, and 1 where the task is answered with none. The weight of a row is the mean over
    the tasks it is labelled in, and 1 where there is none.

    Args:
        targets: (N, C).
        alpha: how much of the imbalance is evened out, from 0.
        max_mult: cap on a class's multiple, at least 1; boosts come on top.
        boost: factor by class, in every task that has one of this name.

    Returns:
        (N,) float64 that sums to 1.
    """
    total, n_tasks = np.zeros(len(targets)), np.zeros(len(targets))
    for task in space.tasks:
        columns = targets[:, space.slices[task.name]]
        positive = _positive(columns)
        counts = positive.sum(axis=0)
        # A class without rows is never asked for.
        multiple = np.minimum((counts.max() / np.maximum(counts, 1)) ** alpha, max_mult)
        multiple *= [boost.get(label, 1.0) for label in task.labels]
        of_task = np.where(positive, multiple[None, :], 0.0).max(axis=1)
        labelled = ~np.isnan(columns).any(axis=1)
        total += np.where(labelled, np.where(positive.any(axis=1), of_task, 1.0), 0.0)
        n_tasks += labelled
    weights: np.ndarray = np.where(n_tasks > 0, total / np.maximum(n_tasks, 1), 1.0)
    return weights / weights.sum()


def _positive(columns: np.ndarray) -> np.ndarray:
    """(N, C of the task) which labels hold; none of an unlabelled row."""
    positive: np.ndarray = np.nan_to_num(columns) > 0.5
    return positive
