"""One loss for single-label, multi-label and multi-task targets, mixed or smoothed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samo.errors import SettingsError, nearest
from samo.settings import LossSettings
from samo.tasks import LabelSpace, Task

__all__ = ["EmotionLoss", "class_counts", "class_weights", "loss_of", "rdrop_weight"]

# Below it a probability counts as 0 where its power is taken: a power of 0 has no finite gradient below exponent 1.
_LEAST = 1e-8


def class_counts(targets: np.ndarray) -> np.ndarray:
    """(C,) number of rows that hold each label; NaN rows count nowhere."""
    counts: np.ndarray = np.nan_to_num(targets).sum(axis=0)
    return counts


def class_weights(
    counts: np.ndarray,
    labels: tuple[str, ...],
    max_weight: float,
    multipliers: Mapping[str, float],
    multi_label: bool = False,
) -> np.ndarray:
    """Inverse-frequency weights, w_c = (1 / n_c) / mean_k(1 / n_k): mean 1 over the classes, clipped, multiplied.

    Of a single-label task only the ratios of the weights matter. Those of a multi-label task multiply the cost of
    labels that hold, against a cost of 1 where they do not: below 1 they would make a label that is rare already rarer
    still. There w_c = max_k(n_k) / n_c, clipped: the most frequent label has weight 1 and no other less.

    Args:
        counts: (C,) rows per class in the training split; a class without rows counts as one row.
        labels: C class names.
        max_weight: upper clip, applied after normalisation.
        multipliers: factor by label, applied last so that it is exactly what the user asked for.
        multi_label: whether several labels may hold at once.

    Returns:
        (C,) float32.
    """
    inverse = 1.0 / np.maximum(counts, 1.0)
    weights = np.minimum(inverse / (inverse.min() if multi_label else inverse.mean()), max_weight)
    factors = np.array([multipliers.get(label, 1.0) for label in labels])
    return (weights * factors).astype(np.float32)


def rdrop_weight(settings: LossSettings, epoch: int) -> float:
    """Weight of the divergence in an epoch (from 0): 0 in the first, risen to ``rdrop_alpha`` after the warm-up."""
    if epoch >= settings.rdrop_warmup_epochs:
        return settings.rdrop_alpha
    return settings.rdrop_alpha * epoch / settings.rdrop_warmup_epochs


class EmotionLoss(nn.Module):
    """Cross-entropy (or BCE) per task, with class weights, focal or asymmetric factors, and smoothing.

    For one row and one single-label task with target distribution t, weights w and probabilities p::

        loss = -sum_c w_c * t'_c * (1 - p_c)^gamma_c * log p_c
        t'_c = (1 - e_c) t_c + sum_k e_k t_k / C

    where gamma_c is 0 without focal loss (Lin et al. 2017, eq. 5) and e is the smoothing (Szegedy et al. 2016). For
    one of several labels (sigmoid outputs), averaged over the classes::

        loss = -mean_c( a w_c t'_c (1 - p_c)^g+_c log p_c  +  b (1 - t'_c) q_c^g-_c log(1 - q_c) )
        t'_c = (1 - e_c) t_c + e_c / 2

    where q = p and both exponents are gamma (BCE and its focal form), or, with the asymmetric loss (Ridnik et al. 2021,
    eq. 4 to 7), q_c = max(p_c - clip, 0) and the exponents are ``asl_gamma_pos`` and ``asl_gamma_neg``. Tasks with one
    label per row keep the cross-entropy then. a = b = 1 unless ``focal_alpha`` is below 1: then a = focal_alpha and
    b = 1 - focal_alpha (alpha_t of Lin et al. 2017, as ``torchvision.ops.sigmoid_focal_loss`` has it). A factor on all
    of the loss would change nothing: AdamW divides by the size of the gradient.

    By class, with n_c the rows of a class in the training split: w from :func:`class_weights`; gamma_c = gamma *
    (2 - n_c / max n) with ``adaptive_gamma``; e_c = e * n_c / max n with ``adaptive_smoothing``.

    ``forward`` returns the *sum* over rows, so that adding over micro-batches and dividing by all rows equals one large
    batch. (S, B, C) logits are S samples of each row under unlike dropout, and their losses are averaged (Inoue 2019).
    """

    weights: Tensor
    gamma: Tensor
    gamma_neg: Tensor
    smoothing: Tensor

    def __init__(self, space: LabelSpace, settings: LossSettings, train_targets: np.ndarray) -> None:
        super().__init__()
        self.space = space
        alpha = settings.focal_alpha if settings.focal_loss else 1.0
        # Of labels that hold, and of those that do not.
        self.alpha = (alpha, 1.0 - alpha) if alpha < 1.0 else (1.0, 1.0)
        self.clip = settings.asl_clip if settings.asymmetric_loss else 0.0
        self.distil_alpha, self.distil_temperature = settings.distil_alpha, settings.distil_temperature
        _refuse_misfit(space, settings)
        parts = [_constants(task, settings, train_targets[:, space.slices[task.name]]) for task in space.tasks]
        names = ("weights", "gamma", "gamma_neg", "smoothing")
        for name, values in zip(names, zip(*parts, strict=True), strict=True):
            self.register_buffer(name, torch.from_numpy(np.concatenate(values).astype(np.float32)))
        self.task_weights = {task.name: settings.task_weights.get(task.name, 1.0) for task in space.tasks}

    def forward(self, logits: Tensor, targets: Tensor, taught: Tensor | None = None) -> Tensor:
        """Summed loss of a batch.

        Args:
            logits: (B, C), or (S, B, C) for S samples of each row.
            targets: (B, C) in [0, 1]; rows that are NaN in a task's columns are left out of that task.
            taught: (B, C) a teacher's probabilities at ``distil_temperature``, NaN where it has none; None: no teacher.

        Returns:
            Scalar: sum over rows of the weighted task losses, float32.
        """
        return self.per_row(logits, targets, taught).sum()

    def per_row(self, logits: Tensor, targets: Tensor, taught: Tensor | None = None) -> Tensor:
        """(B,) loss of each row; of (S, B, C) logits the mean over the samples.

        With a teacher a task's loss is ``(1 - alpha) loss + alpha T^2 KL(teacher || student at T)``, the factor T^2
        because soft gradients shrink as 1 / T^2 (Hinton et al. 2015, section 2.1). Several labels have the divergence
        of each label's two outcomes, averaged over the labels. Rows without a teacher's answer keep the whole loss,
        rows without a label have the divergence alone.
        """

        def of_task(task: Task, columns: slice, truth: Tensor) -> Tensor:
            one = self._multi_label if task.multi_label else self._single_label
            cost = one(logits[..., columns].float(), truth, columns)
            if taught is None:
                return cost
            return torch.where(taught[:, columns].isnan().any(dim=1), cost, (1.0 - self.distil_alpha) * cost)

        def from_teacher(task: Task, columns: slice, soft: Tensor) -> Tensor:
            scaled = logits[..., columns].float() / self.distil_temperature
            apart = _teacher_divergence(scaled, soft, multi_label=task.multi_label)
            return self.distil_alpha * self.distil_temperature**2 * apart

        loss = self._over_tasks(of_task, logits, targets)
        return loss if taught is None else loss + self._over_tasks(from_teacher, logits, taught)

    def divergence(self, logits: Tensor, others: Tensor, targets: Tensor) -> Tensor:
        """How far two passes of the same rows lie apart (R-Drop, Liang et al. 2021, eq. 2), summed over the rows.

        (KL(p || q) + KL(q || p)) / 2 of the class probabilities of a single-label task; of a multi-label one the same
        for each label's two outcomes, averaged over the labels. Weighted by task, and masked, as the loss is. Of S
        samples the k-th of one pass is held against the k-th of the other, and the mean is taken.

        Args:
            logits: (B, C) or (S, B, C) of the first pass.
            others: those of the second, of the same shape.
            targets: (B, C); only where they are NaN matters.

        Returns:
            Scalar, at least 0, float32.
        """

        def of_task(task: Task, columns: slice, truth: Tensor) -> Tensor:
            a, b = logits[..., columns].float(), others[..., columns].float()
            # In both divergences what normalises the logs cancels: (p - q) (log p - log q) sums as (p - q) (a - b).
            if task.multi_label:
                return 0.5 * ((a.sigmoid() - b.sigmoid()) * (a - b)).mean(dim=-1)
            return 0.5 * ((a.softmax(dim=-1) - b.softmax(dim=-1)) * (a - b)).sum(dim=-1)

        return self._over_tasks(of_task, logits, targets).sum()

    def _over_tasks(self, of_task: Callable[[Task, slice, Tensor], Tensor], logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) weighted sum of what the tasks cost each row they are labelled in, averaged over samples."""
        total = torch.zeros(logits.shape[:-1], device=logits.device)
        for task in self.space.tasks:
            columns = self.space.slices[task.name]
            truth = targets[:, columns]
            labelled = ~torch.isnan(truth).any(dim=1)
            cost = of_task(task, columns, truth.nan_to_num(0.0))
            total = total + self.task_weights[task.name] * torch.where(labelled, cost, torch.zeros_like(cost))
        return total.mean(dim=0) if logits.ndim == 3 else total

    def _single_label(self, logits: Tensor, truth: Tensor, columns: slice) -> Tensor:
        smoothing = self.smoothing[columns]
        truth = (1.0 - smoothing) * truth + (truth * smoothing).sum(dim=1, keepdim=True) / truth.shape[1]
        log_p = F.log_softmax(logits, dim=-1)
        focus = (1.0 - log_p.exp()).clamp(min=1e-7) ** self.gamma[columns]
        return -(self.weights[columns] * truth * focus * log_p).sum(dim=-1)

    def _multi_label(self, logits: Tensor, truth: Tensor, columns: slice) -> Tensor:
        smoothing = self.smoothing[columns]
        truth = (1.0 - smoothing) * truth + 0.5 * smoothing
        log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
        # (1 - p)^gamma as exp(gamma log(1 - p)): a power of an underflowed 0 has no finite gradient for gamma < 1.
        positive = self.weights[columns] * truth * (self.gamma[columns] * log_q).exp() * log_p
        if self.clip > 0.0:
            # A clip too small to be subtracted from 1 must not leave log(0).
            shifted = (log_p.exp() - self.clip).clamp(min=0.0, max=1.0 - 1e-6)
            log_p, log_q = shifted.clamp(min=_LEAST).log(), torch.log1p(-shifted)
        negative = (1.0 - truth) * (self.gamma_neg[columns] * log_p).exp() * log_q
        present, absent = self.alpha
        return -(present * positive + absent * negative).mean(dim=-1)


def _teacher_divergence(logits: Tensor, soft: Tensor, *, multi_label: bool) -> Tensor:
    """(..., B) KL(soft || student) of (..., B, K) logits, at least 0; of several labels the mean over them."""
    if multi_label:
        with_label = torch.xlogy(soft, soft) - soft * F.logsigmoid(logits)
        return (with_label + torch.xlogy(1.0 - soft, 1.0 - soft) - (1.0 - soft) * F.logsigmoid(-logits)).mean(dim=-1)
    return (torch.xlogy(soft, soft) - soft * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def loss_of(
    forward: Callable[[], Tensor], criterion: EmotionLoss, targets: Tensor, rdrop: float, taught: Tensor | None = None
) -> Tensor:
    """Summed loss of a batch; with R-Drop the mean over two passes and how far they lie apart (Liang et al. 2021).

    Both passes see the same inputs and draws; they differ by dropout alone, which draws from torch's generator. Batch
    norm moves its running statistics in each.

    Args:
        forward: makes one pass, (B, C) or (S, B, C) logits.
        criterion: the loss, and the divergence of two passes.
        targets: (B, C).
        rdrop: weight of the divergence, 0 = one pass. The paper adds the two losses where here they are averaged: its
            alpha is twice this one.
        taught: (B, C) a teacher's probabilities, or None.
    """
    logits = forward()
    loss: Tensor = criterion(logits, targets, taught)
    if rdrop == 0.0:
        return loss
    others = forward()
    return 0.5 * (loss + criterion(others, targets, taught)) + rdrop * criterion.divergence(logits, others, targets)


def _constants(task: Task, settings: LossSettings, targets: np.ndarray) -> tuple[np.ndarray, ...]:
    """(weights, gamma, gamma of labels that do not hold, smoothing) of one task, each of shape (its classes,)."""
    counts = class_counts(targets)
    share = counts / max(counts.max(), 1.0)
    ones = np.ones(len(task.labels))
    weights = ones
    if settings.class_weight_loss:
        weights = class_weights(
            counts, task.labels, settings.max_class_weight, settings.class_weight_mult, task.multi_label
        )
    focal = settings.task_gamma.get(task.name, settings.focal_gamma) if settings.focal_loss else 0.0
    gamma = gamma_neg = focal * (2.0 - share if settings.adaptive_gamma else ones)
    if settings.asymmetric_loss and task.multi_label:
        gamma, gamma_neg = settings.asl_gamma_pos * ones, settings.asl_gamma_neg * ones
    return weights, gamma, gamma_neg, settings.label_smoothing * (share if settings.adaptive_smoothing else ones)


def _refuse_misfit(space: LabelSpace, settings: LossSettings) -> None:
    """Settings that name tasks or classes this model does not have, or a loss that none of its tasks can use."""
    tasks, classes = [task.name for task in space.tasks], [c for task in space.tasks for c in task.labels]
    _known("task_gamma", settings.task_gamma, tasks)
    _known("task_weights", settings.task_weights, tasks)
    _known("class_weight_mult", settings.class_weight_mult, classes)
    _known("joint_boost", settings.joint_boost, classes)
    several = any(task.multi_label for task in space.tasks)
    if settings.focal_alpha > 1.0:
        raise SettingsError(
            f"`focal_alpha={settings.focal_alpha:g}`: a share in (0, 1), the weight of labels that hold; 1 = off",
            hint="`focal_alpha=0.25` is that of Lin et al. 2017",
        )
    if settings.focal_alpha < 1.0 and not several:
        raise SettingsError(
            f"`focal_alpha` is for items with several labels; here each has one {' and one '.join(tasks)}, where it "
            "would be a constant factor that AdamW cancels",
            hint="`class_weight_loss` weighs such classes",
        )
    if settings.asymmetric_loss and not several:
        raise SettingsError(
            f"`asymmetric_loss` is for items with several labels; here each has one {' and one '.join(tasks)}",
            hint="`focal_loss` or `class_weight_loss` balances such classes",
        )


def _known(setting: str, given: Iterable[str], valid: list[str]) -> None:
    for name in given:
        if name not in valid:
            raise SettingsError(
                f"`{setting}` names unknown '{name}'", hint=nearest(name, valid) + f"valid: {', '.join(valid)}"
            )
