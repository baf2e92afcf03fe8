"""The order of rows, balanced or not."""

from __future__ import annotations

import numpy as np
import pytest

from samo_core.data.sampling import balanced_weights, batches_of, epoch_order
from samo_core.tasks import LabelSpace, Task

ONE = LabelSpace((Task("emotion", ("a", "b", "c")),))
MANY = LabelSpace((Task("tags", ("a", "b", "c"), multi_label=True),))
ROWS = np.arange(100, 160)


def classes(*counts: int) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[np.repeat(np.arange(3), counts)]


def test_order_is_a_permutation() -> None:
    order = epoch_order(ROWS, 0, 0)
    assert order.dtype == np.int64
    assert sorted(order) == list(ROWS)
    assert list(order) != list(ROWS)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    np.testing.assert_array_equal(epoch_order(ROWS, 3, 4), epoch_order(ROWS, 3, 4))
    orders = {tuple(epoch_order(ROWS, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    # The state of the process-wide generators plays no part.
    np.random.seed(1)
    np.testing.assert_array_equal(epoch_order(ROWS, 3, 4), epoch_order(ROWS[::-1], 3, 4))


def test_order_is_the_same_on_every_machine() -> None:
    assert epoch_order(np.arange(8), 0, 0).tolist() == [7, 0, 4, 3, 5, 1, 6, 2]
    weights = np.array([5.0, 1, 1, 1, 1, 1, 1, 1])
    assert epoch_order(np.arange(8), 0, 0, weights).tolist() == [2, 7, 0, 0, 2, 0, 3, 0]


def test_every_place_is_equally_likely() -> None:
    places = np.array([np.argsort(epoch_order(np.arange(10), 0, epoch)) for epoch in range(3000)])
    counts = np.stack([np.bincount(place, minlength=10) for place in places.T])
    # Each of 100 counts is binomial with mean 300 and sd 16.4.
    assert abs(counts - 300).max() < 5 * 16.4


def test_batches() -> None:
    order = np.arange(7)
    assert [batch.tolist() for batch in batches_of(order, 3)] == [[0, 1, 2], [3, 4, 5]]
    assert [batch.tolist() for batch in batches_of(order, 7)] == [list(range(7))]
    assert [batch.tolist() for batch in batches_of(order, 8)] == [list(range(7))]
    assert [batch.tolist() for batch in batches_of(order, 1)] == [[k] for k in range(7)]


def test_balanced_weights_by_hand() -> None:
    weights = balanced_weights(classes(3, 2, 1), ONE)
    np.testing.assert_allclose(weights, [1 / 9, 1 / 9, 1 / 9, 1 / 6, 1 / 6, 1 / 3])
    # A class without rows is no obstacle.
    np.testing.assert_allclose(balanced_weights(classes(3, 1, 0), ONE), [1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_several_labels_take_the_weight_of_the_rarest() -> None:
    targets = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32)
    # a 3 rows, b 2, c 1: raw weights 1/3, 1/2, 1, 1/2.
    np.testing.assert_allclose(balanced_weights(targets, MANY), np.array([2, 3, 6, 3]) / 14)


def test_rows_without_label_take_the_mean() -> None:
    targets = np.vstack([classes(1, 1, 1), np.full((1, 3), np.nan, dtype=np.float32)])
    np.testing.assert_allclose(balanced_weights(targets, ONE), [1 / 4] * 4)


def test_only_the_first_task_is_balanced() -> None:
    space = LabelSpace((ONE.primary, MANY.primary))
    tags = np.tile(np.array([[1, 0, 1]], dtype=np.float32), (6, 1))
    weights = balanced_weights(np.hstack([classes(3, 2, 1), tags]), space)
    np.testing.assert_allclose(weights, balanced_weights(classes(3, 2, 1), ONE))


@pytest.mark.parametrize("counts", [(2700, 250, 50), (1000, 1000, 1000), (2998, 1, 1)])
def test_balanced_order_gives_equal_class_shares(counts: tuple[int, ...]) -> None:
    targets = classes(*counts)
    rows = np.arange(len(targets)) + 7
    order = epoch_order(rows, 0, 0, balanced_weights(targets, ONE))
    assert len(order) == len(rows)
    shares = np.bincount(targets[order - 7].argmax(axis=1), minlength=3) / len(order)
    # Each share has sd sqrt(2/9 / 3000) = 0.0086.
    assert shares == pytest.approx([1 / 3] * 3, abs=0.035)
    assert order.tolist() == epoch_order(rows, 0, 0, balanced_weights(targets, ONE)).tolist()
    assert order.tolist() != epoch_order(rows, 0, 1, balanced_weights(targets, ONE)).tolist()


def test_rows_of_weight_zero_are_never_drawn() -> None:
    weights = np.array([0.0, 1.0, 0.0, 3.0, 0.0])
    drawn = np.concatenate([epoch_order(np.arange(5), 0, epoch, weights) for epoch in range(400)])
    counts = np.bincount(drawn, minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    assert counts[3] / counts[1] == pytest.approx(3.0, rel=0.15)
