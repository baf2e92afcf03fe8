"""One loss for single-label, multi-label and multi-task targets, mixed or smoothed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samo_core.config import LossSettings
from samo_core.errors import SettingsError, nearest
from samo_core.tasks import LabelSpace, Task

__all__ = ["EmotionLoss", "class_counts", "class_weights"]


def class_counts(targets: np.ndarray) -> np.ndarray:
    """(C,) number of rows that hold each label; NaN rows count nowhere."""
    counts: np.ndarray = np.nan_to_num(targets).sum(axis=0)
    return counts


def class_weights(
    counts: np.ndarray, labels: tuple[str, ...], max_weight: float, multipliers: Mapping[str, float]
) -> np.ndarray:
    """Inverse-frequency weights: normalised to mean 1 over the classes, clipped, multiplied.

    Args:
        counts: (C,) rows per class in the training split.
        labels: C class names.
        max_weight: upper clip, applied after normalisation.
        multipliers: factor by label, applied last so that it is exactly what the user asked for.

    Returns:
        (C,) float32.
    """
    inverse = 1.0 / np.maximum(counts, 1.0)
    weights = np.minimum(inverse / inverse.mean(), max_weight)
    factors = np.array([multipliers.get(label, 1.0) for label in labels])
    return (weights * factors).astype(np.float32)


class EmotionLoss(nn.Module):
    """Cross-entropy (or BCE) per task, with class weights, focal factor and smoothing.

    For one row and one single-label task with target distribution t, weights w and probabilities p::

        loss = -alpha * sum_c w_c * t'_c * (1 - p_c)^gamma_c * log p_c
        t'_c = (1 - e_c) t_c + sum_k e_k t_k / C

    where gamma_c is 0 without focal loss (Lin et al. 2017, eq. 5) and e is the smoothing (Szegedy et al. 2016).
    Multi-label tasks use the two-sided focal BCE, smoothed towards 1/2, averaged over classes. ``forward`` returns
    the *sum* over rows, so that adding over micro-batches and dividing by all rows equals one large batch.
    """

    weights: Tensor
    gamma: Tensor
    smoothing: Tensor

    def __init__(self, space: LabelSpace, settings: LossSettings, train_targets: np.ndarray) -> None:
        super().__init__()
        self.space = space
        self.alpha = settings.focal_alpha if settings.focal_loss else 1.0
        _known("task_gamma", settings.task_gamma, [task.name for task in space.tasks])
        _known("task_weights", settings.task_weights, [task.name for task in space.tasks])
        _known("class_weight_mult", settings.class_weight_mult, [c for task in space.tasks for c in task.labels])
        parts = [_constants(task, settings, train_targets[:, space.slices[task.name]]) for task in space.tasks]
        for name, values in zip(("weights", "gamma", "smoothing"), zip(*parts, strict=True), strict=True):
            self.register_buffer(name, torch.from_numpy(np.concatenate(values).astype(np.float32)))
        self.task_weights = {task.name: settings.task_weights.get(task.name, 1.0) for task in space.tasks}

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Summed loss of a batch.

        Args:
            logits: (B, C).
            targets: (B, C) in [0, 1]; rows that are NaN in a task's columns are left out of that task.

        Returns:
            Scalar: sum over rows of the weighted task losses, float32.
        """
        return self.per_row(logits, targets).sum()

    def per_row(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) loss of each row."""
        total = torch.zeros(len(logits), device=logits.device)
        for task in self.space.tasks:
            columns = self.space.slices[task.name]
            truth = targets[:, columns]
            labelled = ~torch.isnan(truth).any(dim=1)
            one = self._multi_label if task.multi_label else self._single_label
            loss = one(logits[:, columns].float(), truth.nan_to_num(0.0), columns)
            total = total + self.task_weights[task.name] * torch.where(labelled, loss, torch.zeros_like(loss))
        return total

    def _single_label(self, logits: Tensor, truth: Tensor, columns: slice) -> Tensor:
        smoothing = self.smoothing[columns]
        truth = (1.0 - smoothing) * truth + (truth * smoothing).sum(dim=1, keepdim=True) / truth.shape[1]
        log_p = F.log_softmax(logits, dim=1)
        focus = (1.0 - log_p.exp()).clamp(min=1e-7) ** self.gamma[columns]
        return -self.alpha * (self.weights[columns] * truth * focus * log_p).sum(dim=1)

    def _multi_label(self, logits: Tensor, truth: Tensor, columns: slice) -> Tensor:
        smoothing = self.smoothing[columns]
        truth = (1.0 - smoothing) * truth + 0.5 * smoothing
        log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
        gamma = self.gamma[columns]
        # (1 - p)^gamma as exp(gamma log(1 - p)): a power of an underflowed 0 has no finite gradient for gamma < 1.
        positive = self.weights[columns] * truth * (gamma * log_q).exp() * log_p
        negative = (1.0 - truth) * (gamma * log_p).exp() * log_q
        return -self.alpha * (positive + negative).mean(dim=1)


def _constants(task: Task, settings: LossSettings, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(weights, gamma, smoothing) of one task, each of shape (its classes,)."""
    counts = class_counts(targets)
    share = counts / max(counts.max(), 1.0)
    ones = np.ones(len(task.labels))
    weights = ones
    if settings.class_weight_loss:
        weights = class_weights(counts, task.labels, settings.max_class_weight, settings.class_weight_mult)
    gamma = settings.task_gamma.get(task.name, settings.focal_gamma) if settings.focal_loss else 0.0
    return (
        weights,
        gamma * (2.0 - share if settings.adaptive_gamma else ones),
        settings.label_smoothing * (share if settings.adaptive_smoothing else ones),
    )


def _known(setting: str, given: Mapping[str, float], valid: list[str]) -> None:
    for name in given:
        if name not in valid:
            flag = "--" + setting.replace("_", "-")
            raise SettingsError(
                f"{flag} names unknown '{name}'", hint=nearest(name, valid) + f"valid: {', '.join(valid)}"
            )
