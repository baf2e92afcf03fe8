"""Logistic regression on fixed features: one problem a task, its strength chosen inside the rows it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samo.data.manifest import Item, Manifest
from samo.errors import DataError
from samo.tasks import LabelSpace, Task

__all__ = [
    "INVERSE_L2S",
    "NEVER",
    "Solution",
    "balanced_losses",
    "fit_logistic",
    "inner_folds",
    "inner_groups",
    "out_of_fold_logits",
    "solve_task",
    "standardisation",
]

# On standardised features; scikit-learn's C, from strong to weak.
INVERSE_L2S = (0.0001, 0.001, 0.01, 0.1, 1.0)
N_FOLDS = 5

# A label that no training row has: a probability of 1e-13.
NEVER = -30.0

# Of the gradient on scaled axes, at which the search for a strength stops: held-out losses then move by a thousandth.
_NEAR_ENOUGH = 3e-5

Solution = tuple[np.ndarray, np.ndarray]
"""(K, D) weights and (K,) constants."""

Fold = tuple[np.ndarray, np.ndarray]


def fit_logistic(
    features: np.ndarray | Tensor,
    targets: np.ndarray | Tensor,
    space: LabelSpace,
    *,
    groups: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
    inverse_l2s: Sequence[float] = INVERSE_L2S,
    n_plain: int | None = None,
) -> dict[str, Tensor]:
    """Fit what a ``nn.Linear(D, C)`` on raw features needs to be a class-balanced logistic regression.

    A single-label task gets one multinomial problem, a multi-label task a binary one for each label; a class weighs
    ``n / (K * n_class)``. Features are standardised over the rows given, which is folded into the weights. Each task
    takes the one of ``inverse_l2s`` with the lowest class-balanced log loss on folds held out inside these rows (the
    smaller of equals), tried from strong to weak until it rises. Where no two folds can be made it is the middle one.

    Args:
        features: (N, D) float, finite.
        targets: (N, C) float; NaN in a task's columns leaves the row out of that task.
        space: which columns are which task's.
        groups: (N,) names that stay together when folds are made, "" for none; None: each row is its own.
        seed: of the folds.
        inverse_l2s: scikit-learn's C to choose from, positive.
        n_plain: rows behind the first so many are changed copies of these. The strength is chosen without them, and all
            rows together weigh as much as the first alone. None: there are no copies.

    Returns:
        ``weight`` (C, D) and ``bias`` (C,), float32.

    Raises:
        DataError: a feature is not finite.
    """
    features, targets = _array(features), _array(targets)
    centre, scale = standardisation(features)
    features = (features - centre) / scale
    weight, bias = np.zeros((space.n_columns, features.shape[1])), np.zeros(space.n_columns)
    for task in space.tasks:
        columns = space.slices[task.name]
        labelled = ~np.isnan(targets[:, columns]).any(axis=1)
        truth = targets[labelled, columns] > 0.5
        rows, back = _in_row_space(features[labelled])
        own = None if groups is None else np.asarray(groups, dtype=str)[labelled]
        plain = int(labelled[:n_plain].sum())
        copied = plain < len(rows)
        alone = _in_row_space(features[labelled][:plain])[0] if copied else rows
        groups_alone = None if own is None else own[:plain]
        strength = _chosen(alone, truth[:plain], task, groups_alone, seed, sorted(inverse_l2s))
        strength *= plain / len(rows) if copied else 1.0
        found, bias[columns] = next(solve_task(rows, truth, task, [strength]))
        weight[columns] = found @ back
    weight /= scale
    bias -= weight @ centre
    return {"weight": torch.from_numpy(weight.astype(np.float32)), "bias": torch.from_numpy(bias.astype(np.float32))}


def out_of_fold_logits(
    features: np.ndarray | Tensor,
    targets: np.ndarray | Tensor,
    space: LabelSpace,
    *,
    groups: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
    n_plain: int | None = None,
    items: np.ndarray | None = None,
    answered: tuple[np.ndarray, np.ndarray] | None = None,
    fit: Callable[..., Callable[[np.ndarray], np.ndarray]] | None = None,
) -> np.ndarray:
    """(N, C) float64 logits of every row by a regression that learned from neither the row nor its group.

    The rows are dealt into five folds (fewer where there are fewer groups) and ``fit`` learns from the others, its
    strength chosen inside them. A copy is where its group is.

    Args:
        features, targets, space, groups, seed, n_plain: see :func:`fit_logistic`.
        items: (N,) of the rows learned from, for a ``fit`` that takes it; see :func:`samo.encoders.kernel.fit_kernel`.
        answered: (M, D) features that are answered in place of the rows, (M, C), and (M,) in whose row's place each is.
        fit: takes what :func:`fit_logistic` takes, which it is by default, and gives a function of features: logits.

    Raises:
        DataError: there are not two groups, or a feature is not finite.
    """
    features, targets = _array(features), _array(targets)
    names = None if groups is None else np.asarray(groups, dtype=str)
    folds = inner_folds(np.nan_to_num(targets) > 0.5, names, seed)
    if not folds:
        raise DataError("answers on held-out folds need rows of at least two groups")
    given, places = (features, np.arange(len(features))) if answered is None else answered
    logits = np.empty((len(given), space.n_columns))
    for learn, held_out in folds:
        settings: dict[str, Any] = {"groups": None if names is None else names[learn], "seed": seed}
        settings["n_plain"] = None if n_plain is None else int((learn < n_plain).sum())
        if items is not None:
            settings["items"] = np.asarray(items)[learn]
        found = (fit or _logistic)(features[learn], targets[learn], space, **settings)
        out_of_fold = np.isin(places, held_out)
        logits[out_of_fold] = found(_array(given[out_of_fold]))
    return logits


def _logistic(features: np.ndarray, targets: np.ndarray, space: LabelSpace, **given: Any) -> Callable[..., np.ndarray]:
    found = fit_logistic(features, targets, space, **given)
    weight, bias = (found[name].double().numpy() for name in ("weight", "bias"))
    return lambda rows: rows @ weight.T + bias


def inner_folds(truth: np.ndarray, groups: np.ndarray | None, seed: int) -> list[Fold]:
    """Rows to learn from and rows held out, for up to five folds with like shares of every label.

    Args:
        truth: (N, K) bool; a row of several labels counts for the rarest.
        groups: (N,) names that stay together, "" for none; None: each row is its own.
        seed: of the order in which groups are dealt.

    Returns:
        Pairs of row numbers; none where there are not two groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    counts = truth.sum(axis=0)
    stratum = np.where(truth.any(axis=1), np.where(truth, counts, len(truth) + 1).argmin(axis=1), truth.shape[1])
    names = np.full(len(truth), "") if groups is None else groups
    each = np.where(names == "", np.char.add("row ", np.arange(len(truth)).astype(str)), np.char.add("group ", names))
    n_folds = min(N_FOLDS, len(np.unique(each)), np.bincount(stratum).max(initial=0))
    if n_folds < 2:
        return []
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = splitter.split(np.zeros((len(truth), 1)), stratum, each)
    return [(learn, held_out) for learn, held_out in folds if len(learn) and len(held_out)]


def inner_groups(manifest: Manifest, rows: np.ndarray) -> list[str]:
    """What stays together in :func:`inner_folds`, for each of these rows.

    An item's group; where none is known the item with all its windows and all that augmentation made of it.
    """
    return [_group_of(manifest, manifest.items[row]) for row in rows]


def _group_of(manifest: Manifest, item: Item) -> str:
    seen: set[str] = set()
    while not item.group and item.id not in seen:
        seen.add(item.id)
        row = manifest.row_of.get(item.meta.get("parent", ""))
        if row is None:
            break
        item = manifest.items[row]
    return f"group {item.group}" if item.group else f"item {item.id}"


def solve_task(features: Any, truth: np.ndarray, task: Task, inverse_l2s: Sequence[float]) -> Iterator[Solution]:
    """Solve one task for every strength, each beginning where the one before it ended.

    A label that no row has, or all rows have, keeps a constant.

    Args:
        features: (N, F), dense or sparse.
        truth: (N, K) bool.
        task: multi-label ones get a binary problem for each label, others one multinomial problem.
        inverse_l2s: scikit-learn's C; ascending is fastest.

    Yields:
        (K, F) weights and (K,) constants for each strength, solved when they are asked for.
    """
    solve = _one_by_one if task.multi_label else _one_of_all
    return solve(features, truth, inverse_l2s)


def _one_by_one(features: Any, truth: np.ndarray, inverse_l2s: Sequence[float]) -> Iterator[Solution]:
    """A binary problem for each of K labels."""
    varied = [k for k, positive in enumerate(truth.T) if positive.any() and not positive.all()]
    paths = [_path(features, truth[:, k], inverse_l2s) for k in varied]
    for _ in inverse_l2s:
        weight = np.zeros((truth.shape[1], features.shape[1]))
        bias = np.where(truth.any(axis=0), -NEVER, NEVER)
        for k, path in zip(varied, paths, strict=True):
            slope, constant = next(path)
            weight[k], bias[k] = slope[0], constant[0]
        yield weight, bias


def _one_of_all(features: Any, truth: np.ndarray, inverse_l2s: Sequence[float]) -> Iterator[Solution]:
    """One problem over K classes."""
    classes = truth.argmax(axis=1)
    present = np.unique(classes)
    two = len(present) == 2
    answers = classes == present[1] if two else classes
    path = _path(features, answers, inverse_l2s) if len(present) > 1 else None
    for _ in inverse_l2s:
        weight, bias = np.zeros((truth.shape[1], features.shape[1])), np.full(truth.shape[1], NEVER)
        bias[present] = 0.0
        if path is not None and two:
            # scikit-learn gives the log-odds of the second class; half of it on each side is the same softmax.
            slope, constant = next(path)
            weight[present], bias[present] = np.outer((-0.5, 0.5), slope[0]), np.array([-0.5, 0.5]) * constant
        elif path is not None:
            weight[present], bias[present] = next(path)
        yield weight, bias


def _path(features: Any, classes: np.ndarray, inverse_l2s: Sequence[float]) -> Iterator[Solution]:
    """(1, F) and (1,) of a binary problem, else (K, F) and (K,), for every strength."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(class_weight="balanced", max_iter=1000, warm_start=True)
    for inverse_l2 in inverse_l2s:
        model.set_params(C=inverse_l2).fit(features, classes)
        yield model.coef_.copy(), model.intercept_.copy()


def _chosen(
    features: np.ndarray,
    truth: np.ndarray,
    task: Task,
    groups: np.ndarray | None,
    seed: int,
    inverse_l2s: Sequence[float],
) -> float:
    """The strength with the lowest class-balanced log loss on held-out folds, ascending until it rises."""
    middle = inverse_l2s[len(inverse_l2s) // 2]
    folds = inner_folds(truth, groups, seed) if len(inverse_l2s) > 1 else []
    if not folds:
        return middle
    answered = truth[np.concatenate([held_out for _, held_out in folds])]
    best, least = middle, np.inf
    for inverse_l2, solutions in zip(inverse_l2s, _on_folds(features, truth, task, folds, inverse_l2s), strict=True):
        logits = np.concatenate(
            [
                features[held_out] @ weight.T + bias
                for (_, held_out), (weight, bias) in zip(folds, solutions, strict=True)
            ]
        )
        loss = float(np.nanmean(balanced_losses(logits, answered, task)))
        # What held-out rows lose falls and then rises, and weak penalties take longest to solve.
        if loss >= least:
            break
        best, least = inverse_l2, loss
    return best


def _on_folds(
    features: np.ndarray, truth: np.ndarray, task: Task, folds: Sequence[Fold], inverse_l2s: Sequence[float]
) -> Iterator[Sequence[Solution]]:
    """What :func:`solve_task` gives of what each fold learns from, for every strength, near enough to choose one by."""
    present = {tuple(np.unique(truth[learn].argmax(axis=1))) for learn, _ in folds}
    if task.multi_label or len(present) > 1 or len(classes := list(present.pop())) < 3:
        paths = [solve_task(features[learn], truth[learn], task, inverse_l2s) for learn, _ in folds]
        yield from zip(*paths, strict=True)
        return
    for solutions in _together(features, truth[:, classes], folds, inverse_l2s):
        found = []
        for slope, constant in solutions:
            weight, bias = np.zeros((truth.shape[1], features.shape[1])), np.full(truth.shape[1], NEVER)
            weight[classes], bias[classes] = slope, constant
            found.append((weight, bias))
        yield found


def _together(
    features: np.ndarray, truth: np.ndarray, folds: Sequence[Fold], inverse_l2s: Sequence[float]
) -> Iterator[list[Solution]]:
    """(K, F) and (K,) of every fold, a multinomial problem of K classes that all have, solved as one in float32.

    One product with the features serves all folds. Along the eigenvectors of what the features share, each divided by
    the root of the curvature that it has where all weights are 0, an optimum is a tenth as many steps away.
    """
    from scipy.optimize import minimize

    (n_rows, width), n_classes, n_folds = features.shape, truth.shape[1], len(folds)
    spread, axes = np.linalg.eigh(features.T @ features)
    curvature = np.maximum(spread, 0.0) / n_rows / n_classes
    weights = np.zeros((n_rows, n_folds, 1))
    for fold, (learn, _) in enumerate(folds):
        weights[learn, fold, 0] = truth[learn] @ (1.0 / (n_classes * truth[learn].sum(axis=0)))
    rotated, right = (features @ axes).astype(np.float32), truth[:, None, :].astype(np.float32)
    light = weights.astype(np.float32)
    shape, slopes = (width + 1, n_folds, n_classes), np.zeros((width + 1, n_folds, n_classes))
    for inverse_l2 in inverse_l2s:
        penalty = np.array([1.0 / (inverse_l2 * len(learn)) for learn, _ in folds])
        scale = np.append(1.0 / np.sqrt(curvature + penalty.mean()), 1.0)[:, None, None]
        scaled, penalties = rotated * scale[:-1, 0, 0].astype(np.float32), penalty[:, None] * scale[:-1] ** 2

        def loss_and_gradient(
            flat: np.ndarray, scaled: np.ndarray = scaled, penalties: np.ndarray = penalties
        ) -> tuple[float, np.ndarray]:
            given = flat.reshape(shape)
            logits = (scaled @ given[:-1].reshape(width, -1).astype(np.float32)).reshape(n_rows, n_folds, n_classes)
            logits += given[-1].astype(np.float32)
            logits -= logits.max(axis=2, keepdims=True)
            chances = np.exp(logits)
            total = chances.sum(axis=2, keepdims=True)
            losses = np.log(total) - (logits * right).sum(axis=2, keepdims=True)
            wrong = (chances / total - right) * light
            pulled = penalties * given[:-1]
            gradient = np.empty(shape)
            gradient[:-1] = (scaled.T @ wrong.reshape(n_rows, -1)).reshape(width, n_folds, n_classes) + pulled
            gradient[-1] = wrong.sum(axis=0)
            return float((weights * losses).sum() + 0.5 * (pulled * given[:-1]).sum()), gradient.ravel()

        options = {"maxiter": 1000, "gtol": _NEAR_ENOUGH, "ftol": 0.0}
        found = minimize(loss_and_gradient, (slopes / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
        slopes = found.x.reshape(shape) * scale
        yield [((axes @ slopes[:-1, fold]).T, slopes[-1, fold]) for fold in range(n_folds)]


def balanced_losses(logits: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray:
    """(1, K) mean log loss of the rows that have each label; of a multi-label task (2, K), also of those that have not.

    NaN where there is no such row; the mean of the others is the class-balanced log loss.
    """
    losses = _log_losses(logits, truth, task)
    either = np.stack([truth, ~truth]) if task.multi_label else truth[None]
    n = either.sum(axis=1)
    return np.where(n > 0, (losses * either).sum(axis=1) / np.maximum(n, 1), np.nan)


def _log_losses(logits: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray:
    """(N, K) -log of the probability of each label's answer; of a single-label task each label's as if it were true."""
    if task.multi_label:
        losses: np.ndarray = np.logaddexp(0.0, np.where(truth, -logits, logits))
    else:
        losses = np.logaddexp.reduce(logits, axis=1, keepdims=True) - logits
    return losses


def _in_row_space(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features in a basis of the space their rows span, and the (R, D) basis.

    The optimum of an L2-penalised regression lies in that space, so nothing is lost, and N rows of D > N features cost
    what N features cost.
    """
    n_rows, width = features.shape
    if width <= n_rows or not n_rows:
        return features, np.eye(width)
    basis, triangle = np.linalg.qr(features.T)
    return triangle.T, basis.T


def standardisation(features: np.ndarray) -> Solution:
    """(D,) mean and (D,) standard deviation of (N, D) features; 1 where a column is constant.

    Raises:
        DataError: a feature is not finite.
    """
    if not np.isfinite(features).all():
        n = int((~np.isfinite(features).all(axis=1)).sum())
        raise DataError(f"{n} of {len(features)} rows have features that are not finite numbers")
    if not len(features):
        return np.zeros(features.shape[1]), np.ones(features.shape[1])
    centre, scale = features.mean(axis=0), features.std(axis=0)
    return centre, np.where(scale > 1e-8 * np.maximum(np.abs(centre), 1e-30), scale, 1.0)


def _array(values: np.ndarray | Tensor) -> np.ndarray:
    given = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return given.astype(np.float64)
