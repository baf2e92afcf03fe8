"""Scores of one task, single-label or multi-label, from the same outcome counts.

Macro-F1 is the mean over the classes that occur in the truth of the rows it is taken over, with 0 for 0/0: what
``sklearn.metrics.f1_score(average="macro", labels=numpy.unique(y_true), zero_division=0)`` gives. A class that no row
has cannot be answered, so its 0 would speak of the rows and not of the model. One function, :func:`macro_f1`, holds
this rule for selection, reports, folds, grids, resamples and differences.

A class that is predicted but absent is no class of the mean either. A row given to it is already missed by its true
class. scikit-learn's own default, all classes in truth *or* prediction, would let the set depend on the model: two
models of the same rows would be compared over different classes. The truth alone is what unweighted average recall
(Schuller et al. 2009) and ``sklearn.metrics.balanced_accuracy_score`` go by. In a multi-label task a false alarm on
an absent label is seen in micro-F1 and subset accuracy only.

:func:`macro_f1_all` counts every class of the task, absent ones as 0: reports written before had that as macro-F1.

Everything is numpy only: the trainer calls :func:`selection_score` each epoch, and ``samo predict`` must start quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samo.evaluation.ranking import average_precision, roc_auc
from samo.tasks import LabelSpace, Task

__all__ = [
    "METRICS",
    "Decided",
    "Metric",
    "Tally",
    "accuracy",
    "confusion",
    "decide",
    "f1_by_threshold",
    "label_confusion",
    "macro_f1",
    "macro_f1_all",
    "macro_f1_over",
    "mean_over_present",
    "micro_f1",
    "most_confused",
    "per_class",
    "scores",
    "selection_score",
    "tally",
    "uar",
    "weighted_f1",
]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Without a grid of its own a task is scored over this one. Early in training the rare labels' probabilities lie far
# below 0.5, so it reaches down.
_SELECTION_THRESHOLDS = np.concatenate([[0.01, 0.025], np.linspace(0.05, 0.95, 19)])


@dataclass(frozen=True)
class Decided:
    """The labelled rows of one task, decided.

    Attributes:
        rows: (M,) int64, which of the N rows given are labelled for the task.
        truth: (M, L) bool.
        predicted: (M, L) bool; exactly one True a row when the task is single-label.
        probabilities: (M, L) in [0, 1].
    """

    rows: npt.NDArray[np.int64]
    truth: BoolArray
    predicted: BoolArray
    probabilities: FloatArray


@dataclass(frozen=True)
class Tally:
    """Outcome counts of L labels, summed over rows. Leading dimensions (groups, resamples) are free.

    Attributes:
        tp: (..., L) label true and predicted.
        fp: (..., L) predicted only.
        fn: (..., L) true only.
        exact: (...) rows whose labels are all right.
        rows: (...) rows counted.
    """

    tp: FloatArray
    fp: FloatArray
    fn: FloatArray
    exact: FloatArray
    rows: FloatArray

    def flat(self) -> FloatArray:
        """(..., 3L + 2), so that sums over groups are one matrix product."""
        return np.concatenate([self.tp, self.fp, self.fn, self.exact[..., None], self.rows[..., None]], axis=-1)

    @classmethod
    def from_flat(cls, flat: FloatArray) -> Tally:
        """Undo :meth:`flat`."""
        n = (flat.shape[-1] - 2) // 3
        return cls(flat[..., :n], flat[..., n : 2 * n], flat[..., 2 * n : 3 * n], flat[..., -2], flat[..., -1])


Metric = Callable[[Tally], FloatArray]


def decide(
    task: Task, probabilities: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> Decided:
    """Decide each row: the largest probability (single-label) or all at or above ``threshold`` (multi-label).

    Args:
        task: the task whose columns these are.
        probabilities: (N, L) in [0, 1].
        targets: (N, L) in [0, 1]; rows that hold NaN carry no label and are left out.
        threshold: one number or (L,); ignored for a single-label task.
    """
    rows = np.flatnonzero(~np.isnan(targets).any(axis=1))
    given, labels_given = np.asarray(probabilities, dtype=np.float64)[rows], targets[rows]
    if task.multi_label:
        return Decided(rows, labels_given >= 0.5, given >= threshold, given)
    labels = np.arange(len(task.labels))
    return Decided(rows, labels_given.argmax(axis=1)[:, None] == labels, given.argmax(axis=1)[:, None] == labels, given)


def tally(truth: BoolArray, predicted: BoolArray) -> Tally:
    """Count outcomes over the rows of two (N, L) indicator matrices."""
    return Tally.from_flat(row_outcomes(truth, predicted).sum(axis=0, dtype=np.float64))


def row_outcomes(truth: BoolArray, predicted: BoolArray) -> npt.NDArray[np.bool_]:
    """(N, 3L + 2) bool: each row's own :meth:`Tally.flat`."""
    exact = (truth == predicted).all(axis=1, keepdims=True)
    return np.concatenate(
        [truth & predicted, ~truth & predicted, truth & ~predicted, exact, np.ones_like(exact)], axis=1
    )


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    return np.divide(
        numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape), where=denominator > 0
    )


def _f1(counts: Tally) -> FloatArray:
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def mean_over_present(values: FloatArray, support: FloatArray) -> FloatArray:
    """Mean of (..., L) values over the labels whose (..., L) support is above 0; 0 where there is none."""
    present = support > 0
    return _ratio((values * present).sum(axis=-1), present.sum(axis=-1, dtype=np.float64))


def macro_f1(counts: Tally) -> FloatArray:
    """Mean F1 over the labels that occur in the truth, see the module's docstring; 0 where none does."""
    return mean_over_present(_f1(counts), counts.tp + counts.fn)


def macro_f1_all(counts: Tally) -> FloatArray:
    """Mean F1 over all L labels, absent ones as 0."""
    f1 = _f1(counts)
    return f1.sum(axis=-1) / f1.shape[-1]


def macro_f1_over(labels: BoolArray | slice, *, absent_as_zero: bool = False) -> Metric:
    """:func:`macro_f1`, or :func:`macro_f1_all`, over some of the L labels alone."""
    score = macro_f1_all if absent_as_zero else macro_f1
    return lambda c: score(Tally(c.tp[..., labels], c.fp[..., labels], c.fn[..., labels], c.exact, c.rows))


def micro_f1(counts: Tally) -> FloatArray:
    """F1 of all decisions pooled; equals accuracy for a single-label task."""
    tp, fp, fn = counts.tp.sum(axis=-1), counts.fp.sum(axis=-1), counts.fn.sum(axis=-1)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def weighted_f1(counts: Tally) -> FloatArray:
    """Mean F1 weighted by how often each label occurs."""
    support = counts.tp + counts.fn
    return _ratio((_f1(counts) * support).sum(axis=-1), support.sum(axis=-1))


def accuracy(counts: Tally) -> FloatArray:
    """Share of rows with every label right (for a multi-label task: subset accuracy)."""
    return _ratio(counts.exact, counts.rows)


def uar(counts: Tally) -> FloatArray:
    """Unweighted average recall: mean recall over the labels that occur in the truth.

    A label without support has no recall, so it is left out rather than counted as 0; with all labels present
    this is the balanced accuracy (Schuller et al. 2009, the INTERSPEECH emotion challenge).
    """
    support = counts.tp + counts.fn
    present = (support > 0).sum(axis=-1, dtype=np.float64)
    return _ratio(_ratio(counts.tp, support).sum(axis=-1), present)


METRICS: dict[str, Metric] = {
    "macro_f1": macro_f1,
    "micro_f1": micro_f1,
    "weighted_f1": weighted_f1,
    "accuracy": accuracy,
    "uar": uar,
}


def scores(counts: Tally) -> dict[str, float]:
    """Every metric of :data:`METRICS`, in [0, 1]; ``counts`` without leading dimensions."""
    return {name: float(metric(counts)) for name, metric in METRICS.items()}


def f1_by_threshold(truth: BoolArray, given: np.ndarray, thresholds: np.ndarray) -> FloatArray:
    """(K, L) F1 of each label when it holds at or above each threshold, 0 for 0/0.

    Rows are counted once by the highest threshold they reach, so K costs next to nothing.

    Args:
        truth: (N, L) bool.
        given: (N, L) probabilities or logits; NaN reaches no threshold.
        thresholds: (K,) ascending, in the unit of ``given``.
    """
    n_labels, n_steps = truth.shape[1], len(thresholds) + 1
    given = np.where(np.isnan(given), -np.inf, given).astype(np.float64)
    # NumPy counts the thresholds at or below each value; column by column, one flat number for each pair.
    reached = np.searchsorted(thresholds, given, side="right") + n_steps * np.arange(n_labels)
    at_least = [
        np.bincount(places, minlength=n_labels * n_steps).reshape(n_labels, n_steps)[:, ::-1].cumsum(axis=1)[:, -2::-1]
        for places in (reached[truth], reached.ravel())
    ]
    hits, named = (counts.T.astype(np.float64) for counts in at_least)
    return _ratio(2 * hits, named + truth.sum(axis=0))


def confusion(y_true: npt.ArrayLike, y_pred: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """(n, n) counts; row = true class, column = predicted class. Arguments are (N,) class numbers in [0, n)."""
    cells = np.asarray(y_true, dtype=np.int64) * n + np.asarray(y_pred, dtype=np.int64)
    return np.bincount(cells, minlength=n * n).reshape(n, n).astype(np.int64)


def label_confusion(truth: BoolArray, predicted: BoolArray) -> npt.NDArray[np.int64]:
    """(L, L) confusion of two (N, L) indicator matrices, single-label or multi-label.

    The diagonal counts hits. Off it, [i, j] counts the rows where i was missed while j was wrongly predicted.
    With one label a row this is the ordinary confusion matrix; with several, rows need not sum to the support.
    """
    # Floating point products use BLAS; counts are exact in float64 up to 2**53.
    matrix = (truth & ~predicted).T.astype(np.float64) @ (predicted & ~truth).astype(np.float64)
    matrix[np.diag_indices_from(matrix)] = (truth & predicted).sum(axis=0)
    return matrix.astype(np.int64)


def most_confused(
    matrix: np.ndarray, labels: Sequence[str], k: int = 5, support: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """The ``k`` most frequent mistakes as ``{"true", "predicted", "count", "share"}``, commonest first.

    ``share`` is the count over the rows of that true class, in [0, 1]: ``support`` (L,) where rows have several labels
    and so stand in several cells, else the sums of ``matrix``.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    places = [(int(i), int(j)) for i, j in zip(*np.nonzero(wrong), strict=True)]
    totals = matrix.sum(axis=1) if support is None else support
    # Equal counts: the larger share of its class first, then label order, so the list never depends on chance.
    order = sorted(places, key=lambda p: (-wrong[p], -wrong[p] / totals[p[0]], p))
    return [
        {
            "true": labels[i],
            "predicted": labels[j],
            "count": int(wrong[i, j]),
            "share": float(wrong[i, j] / totals[i]),
        }
        for i, j in order[:k]
    ]


def per_class(decided: Decided, labels: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Precision, recall, F1, ROC-AUC and average precision (one label against the rest) and support by label.

    ROC-AUC is None when a label has no positive or no negative row, average precision when it has no positive.
    """
    counts = tally(decided.truth, decided.predicted)
    precision, recall = _ratio(counts.tp, counts.tp + counts.fp), _ratio(counts.tp, counts.tp + counts.fn)
    f1, support = _f1(counts), (counts.tp + counts.fn).astype(int)
    table: dict[str, dict[str, float | int | None]] = {}
    for column, label in enumerate(labels):
        truth, given = decided.truth[:, column], decided.probabilities[:, column]
        positive, n_rows = int(support[column]), len(truth)
        table[label] = {
            "precision": float(precision[column]),
            "recall": float(recall[column]),
            "f1": float(f1[column]),
            "roc_auc": roc_auc(truth, given) if 0 < positive < n_rows else None,
            "average_precision": average_precision(truth, given) if positive else None,
            "support": positive,
        }
    return table


def selection_score(
    space: LabelSpace,
    logits: np.ndarray,
    targets: np.ndarray,
    thresholds: np.ndarray | None = None,
    *,
    absent_as_zero: bool = False,
) -> float:
    """The number that early stopping and the best checkpoint go by: macro-F1, averaged over tasks, in [0, 1].

    A single-label task takes the largest logit. A multi-label task takes the best single threshold of a grid,
    because at a fixed 0.5 its F1 stands at 0 through the early epochs and nothing could be selected.
    A task without a labelled row is left out; without any, the score is 0.

    Args:
        space: the tasks and their columns.
        logits: (N, C).
        targets: (N, C) in [0, 1]; NaN where a task has no label.
        thresholds: (K,) in (0, 1), ascending, tried in multi-label tasks: those a run can ship with
            (:func:`samo.evaluation.thresholds.threshold_grid`). None: 21 of them from 0.01 to 0.95.
        absent_as_zero: count classes that no row has as 0, as trainings begun before macro-F1 left them out.
    """
    tried = _SELECTION_THRESHOLDS if thresholds is None else thresholds
    found = []
    for task in space.tasks:
        columns = space.slices[task.name]
        labels_given, given = targets[:, columns], logits[:, columns]
        if np.isnan(labels_given).any(axis=1).all():
            continue
        if not task.multi_label:
            decided = decide(task, given, labels_given)
            score = macro_f1_all if absent_as_zero else macro_f1
            found.append(float(score(tally(decided.truth, decided.predicted))))
        else:
            # Thresholds are moved to the logits, so no sigmoid is taken.
            cutoffs = np.log(tried / (1 - tried))
            rows = ~np.isnan(labels_given).any(axis=1)
            truth = labels_given[rows] >= 0.5
            by_label = f1_by_threshold(truth, given[rows], cutoffs)
            means = by_label.mean(axis=1) if absent_as_zero else mean_over_present(by_label, truth.sum(axis=0))
            found.append(float(means.max()))
    return float(np.mean(found)) if found else 0.0
