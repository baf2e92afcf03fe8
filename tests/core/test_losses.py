"""Losses worked out by hand, with torch as a second judge."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from samo.errors import SettingsError
from samo.settings import LossSettings
from samo.tasks import LabelSpace, Task
from samo.training.losses import EmotionLoss, class_counts, class_weights

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


def test_class_weights_of_several_labels_are_never_below_1() -> None:
    """The cost of a label that does not hold is 1: a weight below it would make rare labels rarer still."""
    counts, labels = np.array([100.0, 10.0, 1.0]), ("a", "b", "c")
    # 0.01, 0.1, 1 over their mean 0.37.
    np.testing.assert_allclose(class_weights(counts, labels, 2.0, {}), [1 / 37, 10 / 37, 2.0], rtol=1e-6)
    np.testing.assert_allclose(class_weights(counts, labels, 2.0, {}, True), [1.0, 2.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(class_weights(counts, labels, 50.0, {}, True), [1.0, 10.0, 50.0], rtol=1e-6)
    # What the user multiplies is exactly multiplied; a label without rows counts as one of one row.
    np.testing.assert_allclose(class_weights(counts, labels, 5.0, {"a": 0.5}, True), [0.5, 5.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(class_weights(np.array([8.0, 2.0, 0.0]), labels, 50.0, {}, True), [1, 4, 8], rtol=1e-6)


def test_no_label_of_goemotions_is_weighed_down() -> None:
    """Rows by label of its training part; over the mean 23 of them had a weight below 1."""
    counts = np.array(
        [
            4130,
            2328,
            1567,
            2470,
            2939,
            1087,
            1368,
            2191,
            641,
            1269,
            2022,
            793,
            303,
            853,
            596,
            2662,
            77,
            1452,
            2086,
            164,
            1581,
            111,
            1110,
            153,
            545,
            1326,
            1060,
            14219,
        ],
        dtype=np.float64,
    )
    labels = tuple(map(str, range(28)))
    weights = class_weights(counts, labels, 5.0, {}, True)
    assert (weights.min(), weights.argmin(), weights.max()) == (1.0, 27, 5.0)
    assert weights[0] == pytest.approx(14219 / 4130)


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
    assert one(B, focal_loss=True, focal_gamma=3.0) == pytest.approx(0.75**3 * 2 * LN2)
    assert one(B, focal_loss=True, focal_gamma=0.0) == pytest.approx(2 * LN2)
    assert one(B, focal_loss=True, class_weight_loss=True) == pytest.approx(1.2 * 0.75**2 * 2 * LN2)
    # gamma (2 - n / n_largest): 2 for a, 3 for b.
    assert one(A, focal_loss=True, adaptive_gamma=True) == pytest.approx(0.5**2 * LN2)
    assert one(B, focal_loss=True, adaptive_gamma=True) == pytest.approx(0.75**3 * 2 * LN2)
    assert one(A, focal_loss=True, task_gamma={"emotion": 1.0}) == pytest.approx(0.5 * LN2)


@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_alpha_is_that_of_torchvision(alpha: float, gamma: float) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, (50, 2)).astype(np.float32))
    targets = torch.from_numpy((rng.random((50, 2)) < 0.3).astype(np.float32))
    loss = EmotionLoss(MANY, LossSettings(focal_loss=True, focal_alpha=alpha, focal_gamma=gamma), TAGGED)
    theirs = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma).mean(dim=1)
    torch.testing.assert_close(loss.per_row(logits, targets), theirs)


def test_focal_alpha_by_hand() -> None:
    # x holds with probability 1/2, y does not with 1/4: alpha against 1 - alpha.
    found = many([1.0, 0.0], focal_loss=True, focal_alpha=0.25)
    assert found == pytest.approx((0.25 * 0.5**2 * LN2 + 0.75 * 0.75**2 * 2 * LN2) / 2)
    assert many([1.0, 0.0], focal_loss=True, focal_alpha=1.0) == many([1.0, 0.0], focal_loss=True)


def test_a_focal_alpha_that_does_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="a constant factor that AdamW cancels") as caught:
        one(B, focal_loss=True, focal_alpha=0.25)
    assert caught.value.hint == "`class_weight_loss` weighs such classes"
    with pytest.raises(SettingsError, match="`focal_alpha=2`: a share in"):
        many([1.0, 0.0], focal_loss=True, focal_alpha=2.0)
    # Runs that were trained with it load.
    assert LossSettings(focal_loss=True, focal_alpha=2.0).focal_alpha == 2.0


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
    # Inverse counts 1/3 and 1 over the lower of them: weights 1 and 3, of the positives only.
    assert many([1.0, 0.0], class_weight_loss=True) == pytest.approx((x + not_y) / 2)
    assert many([0.0, 1.0], class_weight_loss=True) == pytest.approx((x + 3.0 * y) / 2)
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


def test_asymmetric_by_hand() -> None:
    x, y, asl = LN2, -math.log(0.75), {"asymmetric_loss": True}
    # Labels that hold: (1 - p)^gamma_pos of the cross-entropy, 1 by default.
    assert many([1.0, 1.0], **asl) == pytest.approx((x + y) / 2)
    assert many([1.0, 1.0], **asl, asl_gamma_pos=2.0) == pytest.approx((0.25 * x + 0.25**2 * y) / 2)
    # Those that do not: p - 0.05 is 0.45 and 0.7, to the power of 4.
    not_x, not_y = -math.log(0.55), -math.log(0.3)
    assert many([0.0, 0.0], **asl) == pytest.approx((0.45**4 * not_x + 0.7**4 * not_y) / 2)
    assert many([0.0, 0.0], **asl, asl_gamma_neg=1.0) == pytest.approx((0.45 * not_x + 0.7 * not_y) / 2)
    assert many([0.0, 0.0], **asl, asl_gamma_neg=0.0) == pytest.approx((not_x + not_y) / 2)
    # x lies below the margin and costs nothing.
    assert many([0.0, 0.0], **asl, asl_clip=0.5, asl_gamma_neg=1.0) == pytest.approx(-0.25 * math.log(0.75) / 2)
    # Class weights are of the labels that hold: 1 and 3; smoothing is towards 1/2.
    assert many([1.0, 0.0], **asl, class_weight_loss=True) == pytest.approx((x + 0.7**4 * not_y) / 2)
    assert many([1.0, 1.0], **asl, class_weight_loss=True) == pytest.approx((x + 3 * y) / 2)
    smoothed = 0.9 * x + 0.1 * 0.45**4 * not_x + 0.1 * y + 0.9 * 0.7**4 * not_y
    assert many([1.0, 0.0], **asl, label_smoothing=0.2) == pytest.approx(smoothed / 2)


def published_asymmetric(logits: Tensor, targets: Tensor, gamma_pos: float, gamma_neg: float, clip: float) -> Tensor:
    """Ridnik et al.'s own code (github.com/Alibaba-MIIL/ASL, losses.py), the gradient of the focus included."""
    p = torch.sigmoid(logits)
    q = (1 - p + clip).clamp(max=1)
    loss = targets * torch.log(p.clamp(min=1e-8)) + (1 - targets) * torch.log(q.clamp(min=1e-8))
    return -(loss * torch.pow(1 - p * targets - q * (1 - targets), gamma_pos * targets + gamma_neg * (1 - targets)))


@pytest.mark.parametrize(("gamma_pos", "gamma_neg", "clip"), [(0.0, 4.0, 0.05), (1.0, 3.0, 0.2), (2.0, 2.0, 0.0)])
def test_asymmetric_agrees_with_its_authors(gamma_pos: float, gamma_neg: float, clip: float) -> None:
    tags = LabelSpace((Task("tags", ("a", "b", "c"), multi_label=True),))
    settings = LossSettings(asymmetric_loss=True, asl_gamma_pos=gamma_pos, asl_gamma_neg=gamma_neg, asl_clip=clip)
    logits, targets = random_rows()
    found = logits.requires_grad_()
    EmotionLoss(tags, settings, TRAIN)(found, targets).backward()
    other = logits.detach().double().requires_grad_()
    expected = published_asymmetric(other, targets.double(), gamma_pos, gamma_neg, clip)
    value = EmotionLoss(tags, settings, TRAIN).per_row(found, targets)
    torch.testing.assert_close(value, expected.mean(dim=1).float(), atol=1e-6, rtol=1e-5)
    expected.sum().div(3).backward()
    assert found.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(found.grad, other.grad.float(), atol=1e-6, rtol=1e-4)


def test_asymmetric_without_shift_and_asymmetry_is_the_focal_loss() -> None:
    same = {"asl_gamma_pos": 2.0, "asl_gamma_neg": 2.0, "asl_clip": 0.0}
    assert many([1.0, 0.0], asymmetric_loss=True, **same) == pytest.approx(many([1.0, 0.0], focal_loss=True), rel=1e-6)


def test_below_the_margin_nothing_pulls() -> None:
    logits = torch.tensor([[-4.0, -2.0]], requires_grad=True)
    EmotionLoss(MANY, LossSettings(asymmetric_loss=True), TAGGED)(logits, torch.zeros(1, 2)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] == 0.0  # p = 0.018
    assert logits.grad[0, 1] > 0.0  # p = 0.119


def test_asymmetric_loss_is_for_several_labels() -> None:
    with pytest.raises(
        SettingsError, match="`asymmetric_loss` is for items with several labels; here each has one emo"
    ):
        EmotionLoss(ONE, LossSettings(asymmetric_loss=True), TRAIN)
    with pytest.raises(ValueError, match="`asymmetric_loss` and `focal_loss` exclude each other"):
        LossSettings(asymmetric_loss=True, focal_loss=True)
    # Of several tasks it is that of those with several labels.
    logits, targets = torch.tensor([[1.0, 0.2, 0.0, 1.0, -0.5]]), torch.tensor([[0.0, 1.0, 0.0, NAN, NAN]])
    assert both(asymmetric_loss=True)(logits, targets).item() == both()(logits, targets).item()


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
    np.testing.assert_allclose(both(class_weight_loss=True).weights, [0.6, 1.2, 1.2, 1.0, 3.0], rtol=1e-6)


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


THREE_TAGS = LabelSpace((Task("tags", ("a", "b", "c"), multi_label=True),))


@pytest.mark.parametrize("loss", ["cross-entropy", "focal", "asymmetric", "asymmetric without shift"])
@pytest.mark.parametrize("space", [ONE, THREE_TAGS])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_extreme_logits_stay_finite(space: LabelSpace, gamma: float, loss: str) -> None:
    logits = torch.tensor([[300.0, -300.0, 0.0], [-300.0, 300.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    settings = LossSettings(focal_loss=loss == "focal", focal_gamma=gamma, label_smoothing=0.1)
    if loss.startswith("asymmetric"):
        if space is ONE:
            return
        clip = 0.0 if loss.endswith("shift") else 0.05
        settings = LossSettings(
            asymmetric_loss=True, asl_gamma_pos=gamma, asl_gamma_neg=gamma, asl_clip=clip, label_smoothing=0.1
        )
    value = EmotionLoss(space, settings, TRAIN)(logits, torch.tensor([A, A, A]))
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_unknown_names_are_refused() -> None:
    for name in ("task_gamma", "task_weights"):
        with pytest.raises(SettingsError, match=f"`{name}` names unknown 'emotoin'") as caught:
            both(**{name: {"emotoin": 1.0}})
        assert caught.value.hint == "did you mean 'emotion'? valid: emotion, tags"
    with pytest.raises(SettingsError, match="`class_weight_mult` names unknown 'z'") as caught:
        both(class_weight_loss=True, class_weight_mult={"z": 1.0})
    assert caught.value.hint == "valid: a, b, c, x, y"
    with pytest.raises(SettingsError, match="`joint_boost` names unknown 'z'"):
        both(joint_alpha=1.0, joint_boost={"z": 1.0})


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
    "asymmetric_loss": ({}, True),
    "asl_gamma_pos": ({"asymmetric_loss": True}, 1.0),
    "asl_gamma_neg": ({"asymmetric_loss": True}, 1.0),
    "asl_clip": ({"asymmetric_loss": True}, 0.2),
    "label_smoothing": ({}, 0.1),
    "adaptive_smoothing": ({"label_smoothing": 0.1}, True),
    "task_weights": ({}, {"emotion": 0.5}),
}


@pytest.mark.parametrize("name", LossSettings.model_fields)
def test_every_setting_acts(name: str) -> None:
    if name in ("balanced_sampler", "joint_alpha", "joint_max_mult", "joint_boost"):
        return  # of the order of rows: test_sampling, test_trainer
    if name in ("rdrop_alpha", "rdrop_warmup_epochs"):
        return  # of two passes: test_passes, test_trainer
    if name == "teacher" or name.startswith("distil_"):
        return  # of what others answer: test_distillation
    needs, value = CHANGES[name]
    logits, targets = torch.tensor([[1.0, 0.2, 0.0, 1.0, 0.5]]), torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]])
    before, after = both(**needs)(logits, targets), both(**needs, **{name: value})(logits, targets)
    assert before.item() != pytest.approx(after.item(), rel=1e-3)
