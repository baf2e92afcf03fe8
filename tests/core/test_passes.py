"""Several samples of a row, and two passes over it (R-Drop): worked out by hand, with torch as a second judge."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from samo.settings import LossSettings
from samo.tasks import LabelSpace, Task
from samo.training.losses import EmotionLoss, loss_of, rdrop_weight

EMOTION = Task("emotion", ("a", "b", "c"))
ONE, TAGS = LabelSpace((EMOTION,)), LabelSpace((Task("tags", ("a", "b", "c"), multi_label=True),))
BOTH = LabelSpace((EMOTION, Task("pair", ("x", "y"), multi_label=True)))
TRAIN = torch.eye(3).numpy()[[0, 0, 0, 0, 1, 1, 2, 2]]
LN2, NAN = math.log(2.0), float("nan")


def loss_for(space: LabelSpace, **settings: object) -> EmotionLoss:
    train = torch.ones(8, space.n_columns).numpy() if space is BOTH else TRAIN
    return EmotionLoss(space, LossSettings.model_validate(settings), train)


def random_rows(n: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(0, 3, (n,), generator=generator)
    return 3 * torch.randn(n, 3, generator=generator), torch.eye(3)[classes]


def test_samples_are_averaged_by_their_losses() -> None:
    logits, targets = random_rows(6)
    samples = torch.stack([logits, 2 * logits, logits.flip(1)])
    for space in (ONE, TAGS):
        loss = loss_for(space, label_smoothing=0.1, class_weight_loss=True)
        expected = sum(loss.per_row(one, targets) for one in samples) / 3
        torch.testing.assert_close(loss.per_row(samples, targets), expected)
        torch.testing.assert_close(loss(samples, targets), expected.sum())
        assert loss(samples, targets).item() != pytest.approx(loss(samples.mean(dim=0), targets).item(), rel=1e-2)
        torch.testing.assert_close(loss.per_row(logits[None], targets), loss.per_row(logits, targets), rtol=0, atol=0)


def test_divergence_by_hand() -> None:
    # One label of (1/2, 1/4, 1/4) against (1/4, 1/2, 1/4): the KL divergence is ln(2) / 4 in both directions.
    one, other, target = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.5, 0.25]), torch.eye(3)[:1]
    found = loss_for(ONE).divergence(one.log()[None] + 2.0, other.log()[None] - 1.0, target)
    assert found.item() == pytest.approx(LN2 / 4, rel=1e-5)
    # One of two labels is 1/2 in one pass and 3/4 in the other, the second label the same in both.
    emotion = [NAN, NAN, NAN]
    a, b = torch.tensor([[0.0] * 3 + [0.0, 1.0]]), torch.tensor([[1.0] * 3 + [math.log(3.0), 1.0]])
    there = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    back = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    found = loss_for(BOTH).divergence(a, b, torch.tensor([[*emotion, 1.0, 0.0]]))
    assert found.item() == pytest.approx((there + back) / 2 / 2, rel=1e-5)


def test_divergence_agrees_with_torch() -> None:
    (a, targets), b = random_rows(), random_rows()[0].flip(0)
    log_a, log_b = a.log_softmax(1), b.log_softmax(1)
    kl = [F.kl_div(*pair, reduction="sum", log_target=True) for pair in ((log_a, log_b), (log_b, log_a))]
    loss = loss_for(ONE)
    torch.testing.assert_close(loss.divergence(a, b, targets), sum(kl) / 2, rtol=1e-4, atol=1e-4)
    bernoulli = [torch.distributions.Bernoulli(logits=logits.double()) for logits in (a, b)]
    kl = [torch.distributions.kl_divergence(*pair).sum() for pair in (bernoulli, bernoulli[::-1])]
    tags = loss_for(TAGS)
    torch.testing.assert_close(tags.divergence(a, b, targets), (sum(kl) / 2 / 3).float(), rtol=1e-4, atol=1e-4)


def test_divergence_of_tasks_rows_and_samples() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 3, 5, generator=generator).requires_grad_(), torch.randn(2, 3, 5, generator=generator)
    targets = torch.tensor([[1.0, 0, 0, NAN, NAN], [0, 1.0, 0, 1, 1], [NAN] * 5])
    plain = loss_for(BOTH)
    alone = [
        [plain.divergence(a[k, row : row + 1], b[k, row : row + 1], targets[row : row + 1]).item() for row in range(3)]
        for k in range(2)
    ]
    assert alone[0][2] == alone[1][2] == 0.0
    assert min(alone[0][0], alone[0][1]) > 0.0
    assert plain.divergence(a[0], b[0], targets).item() == pytest.approx(sum(alone[0]), rel=1e-5)
    assert plain.divergence(a, b, targets).item() == pytest.approx(sum(map(sum, alone)) / 2, rel=1e-5)
    assert loss_for(BOTH, task_weights={"emotion": 3.0}).divergence(
        a[0, :1], b[0, :1], targets[:1]
    ).item() == pytest.approx(3 * alone[0][0], rel=1e-5)
    plain.divergence(a, b, targets).backward()
    assert a.grad is not None
    assert (a.grad[:, torch.isnan(targets)] == 0.0).all()
    assert (a.grad[:, ~torch.isnan(targets)] != 0.0).all()


def test_one_pass_or_two() -> None:
    logits, targets = random_rows(4)
    loss, passes = loss_for(ONE), iter([logits, 3 * logits, None])
    found = loss_of(lambda: next(passes), loss, targets, 0.7)
    assert next(passes) is None  # two were asked for
    expected = (loss(logits, targets) + loss(3 * logits, targets)) / 2
    assert found.item() == pytest.approx((expected + 0.7 * loss.divergence(logits, 3 * logits, targets)).item())
    only = iter([logits])
    assert loss_of(lambda: next(only), loss, targets, 0.0).item() == loss(logits, targets).item()


def test_rdrop_rises_by_epoch() -> None:
    assert [rdrop_weight(LossSettings(), epoch) for epoch in range(2)] == [0.0, 0.0]
    assert [rdrop_weight(LossSettings(rdrop_alpha=2.0), epoch) for epoch in range(2)] == [2.0, 2.0]
    rising = LossSettings(rdrop_alpha=2.0, rdrop_warmup_epochs=4)
    assert [rdrop_weight(rising, epoch) for epoch in range(6)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]


def test_both_passes_learn_from_how_far_they_lie_apart() -> None:
    """KL(p || q) written out, whose gradient torch takes through p and through q."""
    logits, targets = random_rows(4)
    one, other = logits.clone().requires_grad_(), (0.5 * logits.flip(0)).requires_grad_()
    passes = iter([one, other])
    loss_of(lambda: next(passes), loss_for(ONE), targets, 0.7).backward()
    by_hand = [one.detach().clone().requires_grad_(), other.detach().clone().requires_grad_()]
    log_p, log_q = (each.log_softmax(dim=1) for each in by_hand)
    apart = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum() / 2
    entropies = [F.cross_entropy(each, targets, reduction="sum") for each in by_hand]
    (sum(entropies) / 2 + 0.7 * apart).backward()
    for found, expected in zip((one, other), by_hand, strict=True):
        assert found.grad is not None
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5)
