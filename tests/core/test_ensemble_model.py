"""How an ensemble's members are mixed and weighed: exact values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tiny_frontend as tiny
import torch
from torch import Tensor, nn

from samo.ensembles.weights import fit_weights
from samo.evaluation.calibration import negative_log_likelihood
from samo.runs.ensemble_model import VOTE_SMOOTHING, Ensemble, mixed, threshold_logits
from samo.tasks import LabelSpace

ONE = LabelSpace((tiny.EMOTION,))
TAGS = LabelSpace((tiny.TAGS,))


def logs(*rows: Sequence[float]) -> Tensor:
    """Logits whose softmax is these probabilities, one member a row: (K, 1, C)."""
    return torch.tensor(rows).log()[:, None]


def answer(logits: Tensor, weights: Sequence[float], space: LabelSpace, combine: str) -> np.ndarray:
    """(C,) probabilities of the mixture's one row."""
    return space.probabilities(mixed(logits, torch.tensor(weights).log(), space, combine).numpy())[0]


def test_the_mean_is_of_probabilities() -> None:
    found = answer(logs([0.7, 0.2, 0.1], [0.1, 0.6, 0.3]), [0.25, 0.75], ONE, "mean")
    np.testing.assert_allclose(found, [0.25, 0.5, 0.25], atol=1e-6)
    both = torch.tensor([[[0.9, 0.2, 0.5]], [[0.5, 0.4, 0.1]]])
    found = answer(both.logit(), [0.5, 0.5], TAGS, "mean")
    np.testing.assert_allclose(found, [0.7, 0.3, 0.3], atol=1e-6)


def test_votes_are_counted_and_ties_go_to_the_larger_mean() -> None:
    e, three = VOTE_SMOOTHING, [1 / 3, 1 / 3, 1 / 3]
    sure, unsure, third = [0.98, 0.01, 0.01], [0.3, 0.36, 0.34], [0.2, 0.5, 0.3]
    found = answer(logs(sure, unsure, third), three, ONE, "vote")
    means = np.mean([sure, unsure, third], axis=0)
    np.testing.assert_allclose(found, (1 - e) * np.array([1 / 3, 2 / 3, 0]) + e * means, atol=1e-6)
    # The mean of probabilities would have said otherwise.
    assert found.argmax() == 1
    assert means.argmax() == 0
    assert answer(logs(sure, unsure), [0.5, 0.5], ONE, "vote").argmax() == 0
    assert answer(logs(sure, unsure), [0.4, 0.6], ONE, "vote").argmax() == 1
    # The same of both: the first label.
    assert answer(logs([0.2, 0.4, 0.4], [0.2, 0.4, 0.4]), [0.5, 0.5], ONE, "vote").argmax() == 1
    tags = torch.tensor([[[0.9, 0.2, 0.6]], [[0.3, 0.4, 0.5]]])
    found = answer(tags.logit(), [0.5, 0.5], TAGS, "vote")
    expected = (1 - e) * np.array([0.5, 0, 1]) + e * np.array([0.6, 0.3, 0.55])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_members_vote_at_their_own_thresholds() -> None:
    e, tags = VOTE_SMOOTHING, torch.tensor([[[0.3, 0.2, 0.6]], [[0.3, 0.4, 0.5]]])
    thresholds = [{"tags": [0.25, 0.5, 0.7]}, {"tags": [0.35, 0.3, 0.4]}]
    at = threshold_logits(thresholds, TAGS)
    np.testing.assert_allclose(at.sigmoid(), [each["tags"] for each in thresholds], rtol=1e-6)
    weights = torch.tensor([0.25, 0.75])
    mean = np.array([0.3, 0.35, 0.525])
    found = TAGS.probabilities(mixed(tags.logit(), weights.log(), TAGS, "vote", at).numpy())[0]
    np.testing.assert_allclose(found, (1 - e) * np.array([0.25, 0.75, 0.75]) + e * mean, atol=1e-6)
    averaged = TAGS.probabilities(mixed(tags.logit(), weights.log(), TAGS, "mean", at).numpy())[0]
    np.testing.assert_allclose(averaged, mean, atol=1e-6)
    members = [Said(row[0].logit().tolist()) for row in tags]
    model = Ensemble(members, weights.tolist(), [{}, {}], TAGS, "vote", thresholds)
    answer = TAGS.probabilities(model(torch.zeros(1, 4), torch.tensor([4])).numpy())[0]
    np.testing.assert_allclose(answer, found, atol=1e-6)
    assert threshold_logits([{}], tiny.BOTH).tolist() == [[0.0] * 6]
    # The weights are fitted to the same votes: only the second member names what holds.
    targets = np.array([[0.0, 1.0, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(fit_weights(tags.logit(), targets, np.ones(1), TAGS, "vote", at), [0.0, 1.0])
    turned = fit_weights(tags.logit(), targets, np.ones(1), TAGS, "vote", at.flip(0))
    np.testing.assert_array_equal(turned, [1.0, 0.0])


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_logits_stay_finite(combine: str) -> None:
    extreme = torch.tensor([[[200.0, -200.0, 0.0] * 2], [[-200.0, 200.0, 0.0] * 2]])
    found = mixed(extreme, torch.tensor([0.5, 0.5]).log(), tiny.BOTH, combine)
    assert found.isfinite().all()


class Said(nn.Module):
    """Says the same logits to every row."""

    def __init__(self, logits: Sequence[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        return self.logits.expand(len(inputs), -1)


def test_every_member_has_its_own_temperature() -> None:
    members = [Said([2.0, 0.0, 0.0, 1.0, 0.0, 0.0]), Said([0.0, 0.0, 3.0, 0.0, 0.0, 4.0])]
    temperatures = [{"emotion": 2.0}, {"tags": 4.0}]
    model = Ensemble(members, [0.5, 0.5], temperatures, tiny.BOTH, "mean")
    found = tiny.BOTH.probabilities(model(torch.zeros(1, 4), torch.tensor([4])).numpy())[0]
    first = tiny.BOTH.probabilities(np.array([[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]))[0]
    second = tiny.BOTH.probabilities(np.array([[0.0, 0.0, 3.0, 0.0, 0.0, 1.0]]))[0]
    np.testing.assert_allclose(found, (first + second) / 2, atol=1e-6)
    assert not list(model.state_dict())


def test_a_perfect_member_gets_all_the_weight() -> None:
    rng = np.random.default_rng(0)
    targets = np.eye(3)[rng.integers(0, 3, 40)]
    perfect = torch.tensor(20.0 * targets)
    noise = torch.tensor(rng.normal(0, 1, (40, 3)))
    np.testing.assert_array_equal(fit_weights(torch.stack([noise, perfect]), targets, np.ones(40), ONE), [0.0, 1.0])
    # Two that are alike share what they get.
    np.testing.assert_allclose(fit_weights(torch.stack([noise, noise]), targets, np.ones(40), ONE), [0.5, 0.5])


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_fitted_weights_are_the_most_likely_ones(combine: str) -> None:
    rng = np.random.default_rng(1)
    rows = np.array([tiny.BOTH.encode(item.labels) for item in tiny.corpus(tiny.BOTH)[0].items])
    # The first knows more of the even rows, the second of the odd ones.
    known = np.where(np.arange(len(rows)) % 2 == [[0], [1]], 3.0, [[0.5], [1.0]])
    logits = torch.tensor(rng.normal(0, 1, (2, len(rows), 6)) + known[..., None] * np.nan_to_num(rows))
    found = fit_weights(logits, rows, np.ones(len(rows)), tiny.BOTH, combine)

    def cost(first: float) -> float:
        weights = torch.tensor([first, 1 - first], dtype=torch.float64)
        probabilities = mixed(logits, weights.log(), tiny.BOTH, combine).numpy()
        labelled = ~np.isnan(rows[:, 3])
        tags = negative_log_likelihood(probabilities[labelled, 3:], rows[labelled, 3:], multi_label=True)
        return negative_log_likelihood(probabilities[:, :3], rows[:, :3]) + tags

    grid = np.linspace(0.005, 0.995, 199)
    assert 0.05 < found[0] < 0.95
    assert found.sum() == pytest.approx(1.0)
    assert found[0] == pytest.approx(grid[np.argmin([cost(first) for first in grid])], abs=5e-3)


def test_a_window_counts_by_its_share() -> None:
    rng = np.random.default_rng(2)
    targets = np.eye(3)[rng.integers(0, 3, 30)]
    logits = torch.tensor(rng.normal(0, 1, (2, 30, 3)) + targets)
    twice = fit_weights(logits.repeat(1, 2, 1), np.tile(targets, (2, 1)), np.full(60, 0.5), ONE)
    np.testing.assert_allclose(twice, fit_weights(logits, targets, np.ones(30), ONE), atol=1e-5)
    only = np.where(np.arange(30) < 10, 1.0, 1e-9)
    part = fit_weights(logits[:, :10], targets[:10], np.ones(10), ONE)
    np.testing.assert_allclose(fit_weights(logits, targets, only, ONE), part, atol=1e-4)
    assert abs(part[0] - fit_weights(logits, targets, np.ones(30), ONE)[0]) > 0.02
