"""Losses worked out by hand, with torch as a second judge."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from samo_core.config import LossSettings
from samo_core.errors import SettingsError
from samo_core.tasks import LabelSpace, Task
from samo_core.training.losses import EmotionLoss, class_counts, class_weights

EMOTION = Task("emotion", ("a", "b", "c"))
TAGS = Task("tags", ("x", "y"), multi_label=True)
ONE, MANY, BOTH = LabelSpace((EMOTION,)), LabelSpace((TAGS,)), LabelSpace((EMOTION, TAGS))
# Shares of training rows: a 4, b 2, c 2; x 3, y 1.
TRAIN = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 1, 1, 2, 2]]
TAGGED = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], dtype=np.float32)
LN2 = math.log(2.0)
# Probabilities 1/2, 1/4, 1/4 for a, b, c.
P = torch.tensor([0.5, 0.25, 0.25])
NAN = float("nan")


def one(target: list[float], train: np.ndarray = TRAIN, **settings: Any) -> float:
    """Loss of one row whose class probabilities are P."""
    loss = EmotionLoss(ONE, LossSettings(**settings), train)
    return loss(P.log()[None] + 5.0, torch.tensor([target])).item()


def many(target: list[float], **settings: Any) -> float:
    """Loss of one row with probability 1/2 for x and 3/4 for y."""
    loss = EmotionLoss(MANY, LossSettings(**settings), TAGGED)
    return loss(torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([target])).item()


A, B = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


def test_counts() -> None:
    assert class_counts(TRAIN).tolist() == [4, 2, 2]
    assert class_counts(np.array([[1, 0], [NAN, NAN], [1, 1]], dtype=np.float32)).tolist() == [2, 1]


def test_class_weights_by_hand() -> None:
    counts, labels = np.array([4.0, 2.0, 2.0]), ("a", "b", "c")
    # 1/4, 1/2, 1/2 over their mean 5/12.
    weights = class_weights(counts, labels, 5.0, {})
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [0.6, 1.2, 1.2], rtol=1e-6)
    assert weights.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(class_weights(counts, labels, 1.0, {}), [0.6, 1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(class_weights(counts, labels, 1.0, {"b": 2.5}), [0.6, 2.5, 1.0], rtol=1e-6)
    # A class without rows counts as one row.
    np.testing.assert_allclose(class_weights(np.array([1.0, 0.0, 2.0]), labels, 5.0, {}), [1.2, 1.2, 0.6], rtol=1e-6)


def test_cross_entropy() -> None:
    assert one(A) == pytest.approx(LN2)
    assert one(B) == pytest.approx(2 * LN2)
    # Mixed rows.
    assert one([0.5, 0.5, 0.0]) == pytest.approx(1.5 * LN2)


def test_class_weights_in_the_loss() -> None:
    assert one(A, class_weight_loss=True) == pytest.approx(0.6 * LN2)
    assert one(B, class_weight_loss=True) == pytest.approx(1.2 * 2 * LN2)
    assert one(B, class_weight_loss=True, max_class_weight=1.0) == pytest.approx(2 * LN2)
    assert one(B, class_weight_loss=True, class_weight_mult={"b": 3.0}) == pytest.approx(3 * 1.2 * 2 * LN2)


def test_focal() -> None:
    assert one(A, focal_loss=True) == pytest.approx(0.5**2 * LN2)
    assert one(B, focal_loss=True, focal_gamma=3.0, focal_alpha=0.25) == pytest.approx(0.25 * 0.75**3 * 2 * LN2)
    assert one(B, focal_loss=True, focal_gamma=0.0) == pytest.approx(2 * LN2)
    assert one(B, focal_loss=True, class_weight_loss=True) == pytest.approx(1.2 * 0.75**2 * 2 * LN2)
    # gamma (2 - n / n_largest): 2 for a, 3 for b.
    assert one(A, focal_loss=True, adaptive_gamma=True) == pytest.approx(0.5**2 * LN2)
    assert one(B, focal_loss=True, adaptive_gamma=True) == pytest.approx(0.75**3 * 2 * LN2)
    assert one(A, focal_loss=True, task_gamma={"emotion": 1.0}) == pytest.approx(0.5 * LN2)


def test_smoothing() -> None:
    # 0.3 over three classes: 0.8, 0.1, 0.1.
    assert one(A, label_smoothing=0.3) == pytest.approx(0.8 * LN2 + 0.2 * 2 * LN2)
    # Smoothing of b is 0.3 * 2/4: 0.05, 0.9, 0.05.
    assert one(B, label_smoothing=0.3, adaptive_smoothing=True) == pytest.approx(0.05 * LN2 + 0.95 * 2 * LN2)
    assert one(A, label_smoothing=0.3, adaptive_smoothing=True) == pytest.approx(one(A, label_smoothing=0.3))
    # Half a, half b: 0.35 + 0.075, 0.425 + 0.075, 0.075.
    mixed = one([0.5, 0.5, 0.0], label_smoothing=0.3, adaptive_smoothing=True)
    assert mixed == pytest.approx(0.425 * LN2 + 0.575 * 2 * LN2)


def test_multi_label() -> None:
    x, y, not_y = LN2, -math.log(0.75), -math.log(0.25)
    assert many([1.0, 1.0]) == pytest.approx((x + y) / 2)
    assert many([0.0, 0.0]) == pytest.approx((x + not_y) / 2)
    # Inverse counts 1/3 and 1 over their mean 2/3: weights 1/2 and 3/2, of the positives only.
    assert many([1.0, 0.0], class_weight_loss=True) == pytest.approx((0.5 * x + not_y) / 2)
    assert many([0.0, 1.0], class_weight_loss=True) == pytest.approx((x + 1.5 * y) / 2)
    # Smoothed towards 1/2.
    assert many([1.0, 0.0], label_smoothing=0.2) == pytest.approx((x + 0.1 * y + 0.9 * not_y) / 2)
    assert many([1.0, 0.0], label_smoothing=0.3, adaptive_smoothing=True) == pytest.approx(
        (x + 0.05 * y + 0.95 * not_y) / 2
    )


def test_multi_label_focal() -> None:
    x, y, not_y = LN2, -math.log(0.75), -math.log(0.25)
    assert many([1.0, 1.0], focal_loss=True) == pytest.approx((0.25 * x + 0.25**2 * y) / 2)
    assert many([0.0, 0.0], focal_loss=True, focal_gamma=1.0) == pytest.approx((0.5 * x + 0.75 * not_y) / 2)
    # gamma 1 for x, 2 - 1/3 for y.
    adaptive = many([1.0, 1.0], focal_loss=True, focal_gamma=1.0, adaptive_gamma=True)
    assert adaptive == pytest.approx((0.5 * x + 0.25 ** (5 / 3) * y) / 2)


def both(**settings: Any) -> EmotionLoss:
    train = np.full((12, 5), NAN, dtype=np.float32)
    train[:8, :3], train[8:, 3:] = TRAIN, TAGGED
    return EmotionLoss(BOTH, LossSettings(**settings), train)


def test_several_tasks_and_missing_labels() -> None:
    logits = torch.cat([P.log(), torch.tensor([0.0, math.log(3.0)])]).expand(3, 5)
    targets = torch.tensor([[1.0, 0, 0, NAN, NAN], [0, 1.0, 0, 1, 1], [NAN] * 5])
    tags = (LN2 - math.log(0.75)) / 2
    np.testing.assert_allclose(both().per_row(logits, targets), [LN2, 2 * LN2 + tags, 0.0], rtol=1e-6)
    weighted = both(task_weights={"emotion": 0.5, "tags": 3.0}).per_row(logits, targets)
    np.testing.assert_allclose(weighted, [0.5 * LN2, LN2 + 3 * tags, 0.0], rtol=1e-6)
    focal = both(focal_loss=True, task_gamma={"tags": 1.0}).per_row(logits, targets)
    expected = [0.25 * LN2, 0.75**2 * 2 * LN2 - 0.5 * math.log(0.5) / 2 - 0.25 * math.log(0.75) / 2, 0.0]
    np.testing.assert_allclose(focal, expected, rtol=1e-6)
    # Weights of a task come from the rows that are labelled for it.
    np.testing.assert_allclose(both(class_weight_loss=True).weights, [0.6, 1.2, 1.2, 0.5, 1.5], rtol=1e-6)


def test_missing_labels_give_no_gradient() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([[1.0, 0, 0, NAN, NAN], [NAN, NAN, NAN, 1, 0], [NAN] * 5])
    both(focal_loss=True, class_weight_loss=True, label_smoothing=0.1)(logits, targets).backward()
    assert logits.grad is not None
    missing = torch.isnan(targets)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[missing] == 0.0).all()
    assert (logits.grad[~missing] != 0.0).all()


def random_rows(n: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(0, 3, (n,), generator=generator)
    return 3 * torch.randn(n, 3, generator=generator), torch.eye(3)[classes]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_torch(smoothing: float, weighted: bool) -> None:
    logits, targets = random_rows()
    loss = EmotionLoss(ONE, LossSettings(label_smoothing=smoothing, class_weight_loss=weighted), TRAIN)
    # torch divides a weighted mean by the weights of the rows; the sum is the same.
    expected = F.cross_entropy(
        logits, targets.argmax(dim=1), weight=loss.weights, label_smoothing=smoothing, reduction="sum"
    )
    torch.testing.assert_close(loss(logits, targets), expected)
    tags = LabelSpace((Task("tags", ("a", "b", "c"), multi_label=True),))
    binary = EmotionLoss(tags, LossSettings(label_smoothing=smoothing, class_weight_loss=weighted), TRAIN)
    expected = F.binary_cross_entropy_with_logits(
        logits, (1 - smoothing) * targets + smoothing / 2, pos_weight=binary.weights, reduction="sum"
    )
    torch.testing.assert_close(binary(logits, targets), expected / 3)


def test_sum_over_rows() -> None:
    logits, targets = random_rows()
    loss = EmotionLoss(ONE, LossSettings(), TRAIN)
    torch.testing.assert_close(loss(logits, targets), loss(logits[:20], targets[:20]) + loss(logits[20:], targets[20:]))
    assert loss(logits.bfloat16(), targets).dtype == torch.float32


@pytest.mark.parametrize("space", [ONE, LabelSpace((Task("tags", ("a", "b", "c"), multi_label=True),))])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_extreme_logits_stay_finite(space: LabelSpace, gamma: float) -> None:
    logits = torch.tensor([[300.0, -300.0, 0.0], [-300.0, 300.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    settings = LossSettings(focal_loss=True, focal_gamma=gamma, label_smoothing=0.1)
    value = EmotionLoss(space, settings, TRAIN)(logits, torch.tensor([A, A, A]))
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_unknown_names_are_refused() -> None:
    for name, flag in (("task_gamma", "--task-gamma"), ("task_weights", "--task-weights")):
        with pytest.raises(SettingsError, match=f"{flag} names unknown 'emotoin'") as caught:
            both(**{name: {"emotoin": 1.0}})
        assert caught.value.hint == "did you mean 'emotion'? valid: emotion, tags"
    with pytest.raises(SettingsError, match="--class-weight-mult names unknown 'z'") as caught:
        both(class_weight_loss=True, class_weight_mult={"z": 1.0})
    assert caught.value.hint == "valid: a, b, c, x, y"


# For each setting: what it needs, and a change of it that must change the loss of both tasks' rows.
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "class_weight_loss": ({}, True),
    "max_class_weight": ({"class_weight_loss": True}, 1.0),
    "class_weight_mult": ({"class_weight_loss": True}, {"b": 2.0}),
    "focal_loss": ({}, True),
    "focal_gamma": ({"focal_loss": True}, 1.0),
    "focal_alpha": ({"focal_loss": True}, 0.5),
    "adaptive_gamma": ({"focal_loss": True}, True),
    "task_gamma": ({"focal_loss": True}, {"emotion": 1.0}),
    "label_smoothing": ({}, 0.1),
    "adaptive_smoothing": ({"label_smoothing": 0.1}, True),
    "task_weights": ({}, {"emotion": 0.5}),
}


@pytest.mark.parametrize("name", LossSettings.model_fields)
def test_every_setting_acts(name: str) -> None:
    if name == "balanced_sampler":
        return  # of the order of rows: test_sampling, test_trainer
    needs, value = CHANGES[name]
    logits, targets = torch.tensor([[1.0, 0.2, 0.0, 1.0, -0.5]]), torch.tensor([[0.0, 1.0, 0.0, 1.0, 1.0]])
    before, after = both(**needs)(logits, targets), both(**needs, **{name: value})(logits, targets)
    assert before.item() != pytest.approx(after.item(), rel=1e-3)
