"""The order of rows, balanced or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samo.data.sampling import (
    balance_notes,
    balanced_weights,
    batches_of,
    epoch_order,
    joint_weights,
    occurrences,
    sampling_weights,
    sorted_batches,
)
from samo.settings import LossSettings
from samo.tasks import LabelSpace, Task

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


def test_occurrences_by_hand() -> None:
    assert occurrences(np.array([5, 2, 5, 5, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]
    assert occurrences(np.arange(4)).tolist() == [0, 0, 0, 0]
    assert occurrences(np.array([], dtype=np.int64)).tolist() == []


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"balanced_sampler": True, "class_weight_loss": True}, "balanced_sampler"),
        ({"joint_alpha": 0.5, "class_weight_loss": True}, "joint_alpha"),
        ({"balanced_sampler": True}, ""),
        ({"class_weight_loss": True}, ""),
        ({}, ""),
    ],
)
def test_classes_that_are_balanced_twice_are_told(settings: dict[str, Any], word: str) -> None:
    found = balance_notes(LossSettings(**settings).model_dump())
    assert [line.startswith(f"classes are balanced twice: `{word}` draws") for line in found] == (
        [True] if word else []
    )


def test_batches() -> None:
    order = np.arange(7)
    assert [batch.tolist() for batch in batches_of(order, 3)] == [[0, 1, 2], [3, 4, 5]]
    assert [batch.tolist() for batch in batches_of(order, 7)] == [list(range(7))]
    assert [batch.tolist() for batch in batches_of(order, 8)] == [list(range(7))]
    assert [batch.tolist() for batch in batches_of(order, 1)] == [[k] for k in range(7)]


# --- batches of rows of similar size


def test_sorted_batches_by_hand() -> None:
    order, sizes = np.arange(100, 109), np.array([5, 1, 4, 1, 9, 2, 6, 5, 3])
    # Two chunks of two batches of two; the ninth row waits. Equal sizes keep their order.
    found = [batch.tolist() for batch in sorted_batches(order, sizes, 2, 0, 0, chunk=2)]
    assert sorted(found) == [[101, 103], [102, 100], [105, 107], [106, 104]]
    # The batches of both chunks take turns, otherwise in every epoch.
    dealt = {tuple(map(tuple, sorted_batches(order, sizes, 2, 0, epoch, chunk=2))) for epoch in range(30)}
    assert len(dealt) > 10
    assert found == [batch.tolist() for batch in sorted_batches(order, sizes, 2, 0, 0, chunk=2)]
    assert found != [batch.tolist() for batch in sorted_batches(order, sizes, 2, 1, 0, chunk=2)]


@pytest.mark.parametrize(("n", "batch_size"), [(1000, 16), (1000, 10), (7, 8), (16, 16), (1600, 32)])
def test_sorted_batches_hold_the_rows_of_plain_ones(n: int, batch_size: int) -> None:
    order = np.random.default_rng(0).permutation(n)
    sizes = np.random.default_rng(1).integers(3, 60, n)
    plain, found = batches_of(order, batch_size), sorted_batches(order, sizes, batch_size, 3, 4)
    assert [len(batch) for batch in found] == [len(batch) for batch in plain]
    assert sorted(np.concatenate(found)) == sorted(np.concatenate(plain))


def test_sorted_batches_are_padded_less() -> None:
    order = np.random.default_rng(0).permutation(4000)
    sizes = np.random.default_rng(1).geometric(0.06, 4000)  # as lengths of short texts

    def padded(batches: list[np.ndarray]) -> int:
        place = np.argsort(order)
        return sum(len(batch) * int(sizes[place[batch]].max()) for batch in batches)

    alike = sorted_batches(order, sizes, 20, 0, 0)
    assert padded(batches_of(order, 20)) > 2.5 * sizes.sum()
    assert padded(alike) < 1.15 * sizes.sum()
    # And not from short to long: neighbours' longest rows do not follow one another.
    longest = np.array([sizes[np.argsort(order)[batch]].max() for batch in alike], dtype=float)
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.25


# --- which rows are drawn how often


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


def shares(*raw: float) -> np.ndarray:
    return np.array(raw) / sum(raw)


def test_joint_weights_of_one_task() -> None:
    targets = classes(4, 2, 1)
    plain = joint_weights(targets, ONE, 1.0, 100.0, {})
    np.testing.assert_allclose(plain, shares(1, 1, 1, 1, 2, 2, 4))
    np.testing.assert_allclose(plain, balanced_weights(targets, ONE))
    root = joint_weights(targets, ONE, 0.5, 100.0, {})
    np.testing.assert_allclose(root, shares(1, 1, 1, 1, 2**0.5, 2**0.5, 2))
    np.testing.assert_allclose(joint_weights(targets, ONE, 1.0, 3.0, {}), shares(1, 1, 1, 1, 2, 2, 3))
    # Boosts come on top of the cap, and may ask for less.
    boosted = joint_weights(targets, ONE, 1.0, 3.0, {"c": 2.0, "a": 0.5})
    np.testing.assert_allclose(boosted, shares(0.5, 0.5, 0.5, 0.5, 2, 2, 6))
    # A class without rows is no obstacle.
    np.testing.assert_allclose(joint_weights(classes(3, 1, 0), ONE, 1.0, 5.0, {}), shares(1, 1, 1, 3))


def test_joint_weights_of_several_labels() -> None:
    # a 4 rows, b 2, c 1; the last row has none.
    targets = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(joint_weights(targets, MANY, 1.0, 9.0, {}), shares(1, 2, 4, 2, 1))


def test_joint_weights_of_several_tasks() -> None:
    space = LabelSpace((ONE.primary, MANY.primary))
    nan = float("nan")
    targets = np.array(
        [
            [1, 0, 0, 1, 0, 0],
            [1, 0, 0, 0, 1, 0],
            [0, 1, 0, 1, 0, 0],
            [0, 0, 1, nan, nan, nan],
            [nan, nan, nan, 0, 0, 1],
            [nan] * 6,
        ],
        dtype=np.float32,
    )
    # First task: a 1, b 2, c 2; second: a 1, b 2, c 2. Means over the tasks a row is labelled in.
    np.testing.assert_allclose(joint_weights(targets, space, 1.0, 9.0, {}), shares(1, 1.5, 1.5, 2, 2, 1))
    # A boost reaches every task that has a class of this name.
    boosted = joint_weights(targets, space, 1.0, 9.0, {"b": 3.0})
    np.testing.assert_allclose(boosted, shares(1, 3.5, 3.5, 2, 2, 1))


def test_settings_choose_the_weights() -> None:
    targets = classes(4, 2, 1)
    assert sampling_weights(targets, ONE, LossSettings()) is None
    balanced = sampling_weights(targets, ONE, LossSettings(balanced_sampler=True))
    assert balanced is not None
    np.testing.assert_array_equal(balanced, balanced_weights(targets, ONE))
    settings = LossSettings(joint_alpha=0.5, joint_max_mult=1.5, joint_boost={"b": 2.0})
    joint = sampling_weights(targets, ONE, settings)
    assert joint is not None
    np.testing.assert_allclose(joint, shares(1, 1, 1, 1, 2 * 2**0.5, 2 * 2**0.5, 1.5))
    with pytest.raises(ValueError, match="`joint_alpha` and `balanced_sampler` exclude each other"):
        LossSettings(joint_alpha=0.5, balanced_sampler=True)


def test_rows_of_weight_zero_are_never_drawn() -> None:
    weights = np.array([0.0, 1.0, 0.0, 3.0, 0.0])
    drawn = np.concatenate([epoch_order(np.arange(5), 0, epoch, weights) for epoch in range(400)])
    counts = np.bincount(drawn, minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    assert counts[3] / counts[1] == pytest.approx(3.0, rel=0.15)
