"""How much each member of an ensemble counts: the weights that make the validation targets most likely."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from samo.errors import RunError
from samo.runs.ensemble_model import log_outcomes
from samo.tasks import LabelSpace

__all__ = ["LEAST_WEIGHT", "fit_weights"]

# A member that counts less than this is not worth the time it takes: its weight is 0 and it is not in the model.
LEAST_WEIGHT = 1e-3
# No member may be able to make the likelihood 0 on its own.
_LEAST_LIKELIHOOD = 1e-12


def fit_weights(
    logits: Tensor,
    targets: np.ndarray,
    share: np.ndarray,
    space: LabelSpace,
    combine: str = "mean",
    thresholds: Tensor | None = None,
) -> npt.NDArray[np.float64]:
    """The weights that make the targets most likely under the mixture (stacking of densities, Smyth & Wolpert 1999).

    The negative log-likelihood is convex in the weights and smooth, unlike macro-F1, which a search over a few clips
    would fit to their noise. Where an item has several windows it is the mean over them; as an item's answer is the
    geometric mean of its windows', that bounds the item's own from above, and equals it for one window.

    Args:
        logits: (K, W, C) of K members and W windows, under each member's temperature.
        targets: (W, C) in [0, 1]; rows that are NaN in a task's columns are left out of it.
        share: (W,) how much a window counts, above 0.
        space: the tasks and their columns.
        combine: one of :data:`~samo.runs.ensemble_model.COMBINE`.
        thresholds: (K, C) from :func:`~samo.runs.ensemble_model.threshold_logits`; None is 0.

    Returns:
        (K,) in [0, 1], sum 1; below :data:`LEAST_WEIGHT` it is 0.
    """
    from scipy.optimize import minimize

    likelihood, count = _cases(logits, targets, share, space, combine, thresholds)
    equal = np.full(len(logits), 1.0 / len(logits))

    def cost(weights: npt.NDArray[np.float64]) -> float:
        return float(-(count @ np.log(likelihood @ weights)))

    def slope(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(-(count / (likelihood @ weights)) @ likelihood)

    found = minimize(
        cost, equal, jac=slope, method="SLSQP", bounds=[(0.0, 1.0)] * len(equal),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
        options={"maxiter": 1000, "ftol": 1e-12},
    ).x  # fmt: skip
    best = min((equal, np.clip(found, 0.0, None) / np.clip(found, 0.0, None).sum()), key=cost)
    kept = np.where(best < LEAST_WEIGHT, 0.0, best)
    return np.asarray(kept / kept.sum())


def _cases(
    logits: Tensor, targets: np.ndarray, share: np.ndarray, space: LabelSpace, combine: str, thresholds: Tensor | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(M, K) likelihoods of every outcome that occurs, and (M,) how much it counts; 1 in all for each task."""
    likelihoods, counts = [], []
    for task in space.tasks:
        columns = space.slices[task.name]
        rows = ~np.isnan(targets[:, columns]).any(axis=1)
        if not rows.any():
            continue
        outcomes = targets[rows, columns].astype(np.float64)
        outcomes = np.concatenate([outcomes, 1.0 - outcomes], axis=1) if task.multi_label else outcomes
        given = logits[:, torch.from_numpy(rows), columns].double()
        own = None if thresholds is None else thresholds[:, None, columns]
        likelihood = log_outcomes(given, task, combine, own).exp().numpy()
        count = outcomes * share[rows, None]
        likelihoods.append(likelihood[:, count > 0].T)
        counts.append(count[count > 0] / count.sum())
    if not counts:
        raise RunError("no item of the validation part has a label, so no weights can be fitted")
    return np.clip(np.concatenate(likelihoods), _LEAST_LIKELIHOOD, 1.0), np.concatenate(counts)
