"""Least squares on how near a vector is to those learned from: one linear system, its penalty and its scale found by
folds held out inside the rows given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samo.encoders.logreg import NEVER, Solution, balanced_losses, inner_folds, standardisation
from samo.tasks import LabelSpace, Task

__all__ = ["PENALTIES", "KernelRegression", "RadialBasis", "fit_kernel", "nearness", "radial_basis"]

# Beside the sum of squares over rows whose weights add up to their number.
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
# Of a squared distance a feature. Standardised features of unlike items differ by 2 on average in the square, so that
# items with nothing in common are exp(-0.6) alike.
_GAMMA = 0.3
# An eigenvalue of the centres' own kernel below this share of the largest is what rounding left.
_LEAST_SHARE = 1e-9
# Logits are so many times the distance of two answers, 0 and 1: to choose from, and without folds to choose on.
_SCALES = tuple(np.geomspace(0.5, 64.0, 57))
_USUAL_SCALE = 8.0
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class KernelRegression:
    """What :func:`fit_kernel` found: logits are ``weight @ basis(vector) + bias``.

    Attributes:
        basis: around the vectors learned from.
        weight: (C, M).
        bias: (C,).
    """

    basis: RadialBasis
    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(N, P) to (N, C) logits."""
        logits: np.ndarray = self.basis(vectors) @ self.weight.T + self.bias
        return logits


def fit_kernel(
    vectors: np.ndarray,
    targets: np.ndarray,
    space: LabelSpace,
    *,
    n_centres: int,
    groups: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
    n_plain: int | None = None,
    items: np.ndarray | None = None,
    penalties: Sequence[float] = PENALTIES,
) -> KernelRegression:
    """Regularised least-squares classification (Rifkin et al. 2003) with the radial kernel of support vector machines.

    Each label is regressed on 1 where a row has it and 0 where not. A class of a single-label task weighs
    ``n / (K * n_class)``; under several labels rows weigh alike. Answers of least squares are no log-odds: each task's
    are multiplied by one number, each label's of a multi-label task by its own, around the middle between the mean
    answers to rows with and without it. These numbers and the penalty, one for all labels of a task, are of folds held
    out inside these rows, where they have the lowest class-balanced log loss. A label that no row has is never
    answered.

    Args:
        vectors: (N, P) float, finite.
        targets: (N, C) float; NaN in a task's columns leaves the row out of that task.
        space: which columns are which task's.
        n_centres: see :func:`radial_basis`.
        groups: (N,) names that stay together when folds are made, "" for none; None: each row is its own.
        seed: of the folds, and of which centres are drawn: in each fold among the rows it learns from, in the end among
            all.
        n_plain: rows behind the first so many are changed copies of these: they are learned from, all rows together
            weigh as much as the first alone, and no loss is measured on them. None: there are no copies.
        items: (N,) numbers of what rows are of, where the mean over all rows of an item is its answer, copies
            included: then that mean's loss is measured.
        penalties: to choose from; where no two folds can be made it is the middle one.

    Raises:
        DataError: a vector is not finite.
    """
    vectors, targets = np.asarray(vectors, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    basis = radial_basis(vectors, n_centres, n_plain=n_plain, seed=seed)
    near, n_plain = basis(vectors), len(vectors) if n_plain is None else n_plain
    names = None if groups is None else np.asarray(groups, dtype=str)
    weight, bias = np.zeros((space.n_columns, near.shape[1])), np.zeros(space.n_columns)
    for task in space.tasks:
        columns = space.slices[task.name]
        labelled = np.flatnonzero(~np.isnan(targets[:, columns]).any(axis=1))
        own = near if len(labelled) == len(near) else near[labelled]  # of all rows nothing is copied
        n_own, truth = int((labelled < n_plain).sum()), targets[labelled, columns] > 0.5
        folds = _Folds(vectors, labelled, truth, task, names, seed, n_plain, n_centres, items)
        penalty, scale, middle = folds.best(sorted(penalties))
        ((slope, constant),) = _path(own, truth, task, n_own, [penalty])
        middle = _middle(own @ slope.T + constant, truth, task) if middle is None else middle
        weight[columns] = slope * scale[:, None]
        bias[columns] = np.where(truth.any(axis=0), (constant - middle) * scale, NEVER)
    return KernelRegression(basis, weight, bias)


@dataclass(frozen=True)
class _Folds:
    """The rows of one task, to choose a penalty and a scale on.

    Attributes:
        vectors: (N, P) of all rows, those without a label of this task too: the basis is around them as well.
        labelled: (L,) which of them have a label.
        truth: (L, K).
        groups, items: (N,) or None.
        n_plain: of the N rows.
    """

    vectors: np.ndarray
    labelled: np.ndarray
    truth: np.ndarray
    task: Task
    groups: np.ndarray | None
    seed: int
    n_plain: int
    n_centres: int
    items: np.ndarray | None

    def best(self, penalties: Sequence[float]) -> tuple[float, np.ndarray, np.ndarray | None]:
        """The penalty with the least loss, the (K,) scales that go with it, and the (K,) answers that become 0.

        None for these where no folds can be made.
        """
        usual = penalties[len(penalties) // 2], np.full(self.truth.shape[1], _USUAL_SCALE), None
        folds = inner_folds(self.truth, None if self.groups is None else self.groups[self.labelled], self.seed)
        if not folds:
            return usual
        heard = self.labelled < (self.n_plain if self.items is None else len(self.vectors))
        together = np.concatenate([held_out[heard[held_out]] for _, held_out in folds])
        answered = self._of_items(self.truth[together].astype(float), together) > 0.5
        each = [self._answers(learn, held_out, heard, penalties) for learn, held_out in folds]
        answers = [self._of_items(np.concatenate(of_folds), together) for of_folds in zip(*each, strict=True)]
        middles = [_middle(given, answered, self.task) for given in answers]
        pairs, possible = zip(answers, middles, strict=True), np.asarray(self.truth.any(axis=0))
        found = [_best_scale(given - middle, answered, self.task, possible) for given, middle in pairs]
        losses = [loss for loss, _ in found]
        # One for all labels: on GoEmotions rare ones overfit a penalty of their own.
        best = int(np.argmin(losses))
        return penalties[best], found[best][1], middles[best]

    def _of_items(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Means over the rows of each item; values as they are where rows stand for themselves."""
        if self.items is None:
            return values
        of_rows = np.asarray(self.items)[self.labelled[rows]]
        _, which, counts = np.unique(of_rows, return_inverse=True, return_counts=True)
        sums = np.zeros((len(counts), values.shape[1]))
        np.add.at(sums, which, values)
        return sums / counts[:, None]

    def _answers(
        self, learn: np.ndarray, held_out: np.ndarray, heard: np.ndarray, penalties: Sequence[float]
    ) -> list[np.ndarray]:
        """What rows held out that are ``heard`` are answered for each penalty by the whole procedure on the others.

        With its own basis: around rows held out it would bend where in truth it cannot.
        """
        apart, rows = self._apart_from(held_out), self.labelled[learn]
        learned, n_around = self.vectors[rows], int(apart[: self.n_plain].sum())
        around = learned if len(learned) == apart.sum() else self.vectors[apart]  # nothing is copied twice
        basis = radial_basis(around, self.n_centres, n_plain=n_around, seed=self.seed)
        n_plain = int((rows < self.n_plain).sum())
        path = _path(basis(learned), self.truth[learn], self.task, n_plain, penalties)
        near = basis(self.vectors[self.labelled[held_out[heard[held_out]]]])
        return [near @ slope.T + constant for slope, constant in path]

    def _apart_from(self, held_out: np.ndarray) -> np.ndarray:
        """(N,) whether a row is learned from, or would be had it a label: neither held out nor of a group that is."""
        apart = np.ones(len(self.vectors), dtype=bool)
        apart[self.labelled[held_out]] = False
        if self.groups is not None and len(self.labelled) < len(apart):
            names = self.groups[self.labelled[held_out]]
            apart &= ~np.isin(self.groups, names[names != ""])
        return apart


def _path(
    features: np.ndarray, truth: np.ndarray, task: Task, n_plain: int, penalties: Sequence[float]
) -> Iterator[Solution]:
    """(K, D) weights and (K,) constants for each penalty, of answers near 1 for a label and near 0 for none."""
    counts = truth.sum(axis=0)
    balance = np.ones(len(truth)) if task.multi_label else (truth / np.maximum(counts, 1)).sum(axis=1)
    balance *= n_plain / max(balance.sum(), 1e-30)
    middle = balance @ features / max(balance.sum(), 1e-30)
    wanted, share = truth.astype(float), balance @ truth / max(balance.sum(), 1e-30)
    moved = features - middle
    weighed = (moved * balance[:, None]).T
    spread, axes = np.linalg.eigh(weighed @ moved)
    along = axes.T @ (weighed @ (wanted - share))
    for penalty in penalties:
        slope = (axes @ (along / (np.maximum(spread, 0.0) + penalty)[:, None])).T
        yield slope, share - slope @ middle


def _middle(answers: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray:
    """(K,) answers halfway between the means of rows with and without a label; 0 where one label is one of several."""
    if not task.multi_label:
        return np.zeros(truth.shape[1])
    n = truth.sum(axis=0)
    present, absent = (answers * truth).sum(axis=0), (answers * ~truth).sum(axis=0)
    middle: np.ndarray = 0.5 * (present / np.maximum(n, 1) + absent / np.maximum(len(truth) - n, 1))
    return middle


def _best_scale(answers: np.ndarray, truth: np.ndarray, task: Task, possible: np.ndarray) -> tuple[float, np.ndarray]:
    """The least class-balanced log loss of answers times one of the scales, and the (K,) scales that have it.

    A label that is not ``possible`` is never answered.
    """
    scaled = (np.where(possible, answers * scale, NEVER) for scale in _SCALES)
    losses = np.array([balanced_losses(logits, truth, task) for logits in scaled])
    known = np.where(np.isnan(losses), 0.0, losses)
    each = known.mean(axis=1) if task.multi_label else np.repeat(known.mean(axis=(1, 2))[:, None], truth.shape[1], 1)
    best = each.argmin(axis=0)
    return float(each.min(axis=0).mean()), np.array(_SCALES)[best]


@dataclass(frozen=True)
class RadialBasis:
    """Turns (N, P) vectors into (N, M) numbers whose inner products are those of the radial kernel, near the centres.

    Attributes:
        centre: (P,) means that vectors are standardised by.
        scale: (P,) standard deviations.
        centres: (M, P) standardised vectors.
        root: (M, M) inverse square root of the kernel among the centres.
    """

    centre: np.ndarray
    scale: np.ndarray
    centres: np.ndarray
    root: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(N, P) to (N, M) float64."""
        centres, found = torch.from_numpy(self.centres), np.empty((len(vectors), len(self.centres)))
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            rows = (np.asarray(vectors[some], dtype=np.float64) - self.centre) / self.scale
            found[some] = nearness(torch.from_numpy(rows), centres).numpy() @ self.root
        return found


def radial_basis(vectors: np.ndarray, n_centres: int, *, n_plain: int | None = None, seed: int = 0) -> RadialBasis:
    """A basis around vectors to learn from.

    Args:
        vectors: (N, P) finite floats.
        n_centres: M at most; of more vectors so many are drawn.
        n_plain: vectors behind the first so many are changed copies of these, and no centres; None: there are none.
        seed: of which are drawn.

    Raises:
        DataError: a vector is not finite.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    centre, scale = standardisation(vectors)
    plain = vectors[:n_plain]
    if len(plain) > n_centres:
        plain = plain[np.sort(np.random.default_rng(seed).choice(len(plain), n_centres, replace=False))]
    centres = (plain - centre) / scale
    given = torch.from_numpy(centres)
    spread, axes = np.linalg.eigh(nearness(given, given).numpy())
    kept = spread > _LEAST_SHARE * spread.max(initial=0.0)
    root = (axes[:, kept] / np.sqrt(spread[kept])) @ axes[:, kept].T
    return RadialBasis(centre, scale, centres, root)


def nearness(rows: Tensor, centres: Tensor) -> Tensor:
    """(B, P) and (M, P) standardised vectors to (B, M) numbers from 0 to 1, where 1 is the same vector."""
    of_centres = (centres**2).sum(dim=1)
    if torch.jit.is_tracing():  # an exported file holds these M numbers as they are, not the centres once more
        of_centres = torch.tensor(of_centres.tolist(), dtype=centres.dtype, device=centres.device)
    squares = (rows**2).sum(dim=1, keepdim=True) + of_centres
    distances = (squares - 2.0 * (rows @ centres.T)).clamp(min=0.0)
    return torch.exp(-_GAMMA / rows.shape[1] * distances)
