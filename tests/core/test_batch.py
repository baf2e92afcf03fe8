"""Random numbers by (seed, epoch, row, name), and mixup."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from samo.data.batch import Batch, Draws, Mix, draw_mix

ROWS = np.array([4, 0, 17, 9])


def test_draws_are_the_same_on_every_machine() -> None:
    """The same numbers with Python's own integers: no version of numpy may change what a seed means."""

    def splitmix(value: int) -> int:
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
        return value ^ (value >> 31)

    golden, rows = 0x9E3779B97F4A7C15, [0, 1, 1439]
    stream = int.from_bytes(hashlib.sha256(b"3:1:crop").digest()[:8], "little")
    bases = [splitmix((row * golden + stream) % 2**64) for row in rows]
    expected = [[(splitmix((base + golden * k) % 2**64) >> 11) / 2**53 for k in (1, 2)] for base in bases]
    drawn = Draws(3, 1, np.array(rows)).uniform("crop", 2)
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_allclose(drawn[:, 0], [0.948979, 0.678272, 0.276714], atol=1e-6)


def test_draws_do_not_depend_on_the_batch() -> None:
    together = Draws(1, 2, ROWS).uniform("x", 3)
    assert together.shape == (4, 3)
    for row, drawn in zip(ROWS, together, strict=True):
        np.testing.assert_array_equal(Draws(1, 2, np.array([row])).uniform("x", 3)[0], drawn)
    np.testing.assert_array_equal(Draws(1, 2, ROWS[::-1]).uniform("x", 3), together[::-1])
    # Nor does a number depend on how many are asked for.
    np.testing.assert_array_equal(Draws(1, 2, ROWS).uniform("x"), together[:, :1])


def test_a_row_that_is_drawn_again_has_numbers_of_its_own() -> None:
    once = Draws(1, 2, ROWS).uniform("x", 3)
    rows, nth = np.array([4, 4, 0, 4, 17]), np.array([0, 1, 0, 2, 0])
    drawn = Draws(1, 2, rows, nth).uniform("x", 3)
    # The first time as ever, so that a training without such rows ends with the weights it had.
    np.testing.assert_array_equal(drawn[[0, 2, 4]], once[:3])
    assert len(np.unique(drawn)) == 15
    np.testing.assert_array_equal(Draws(1, 2, rows[::-1], nth[::-1]).uniform("x", 3), drawn[::-1])
    np.testing.assert_array_equal(Draws(1, 2, rows, nth)[1:4].uniform("x", 3), drawn[1:4])
    many = Draws(0, 0, np.repeat(np.arange(100), 500), np.tile(np.arange(500), 100)).uniform("x")[:, 0]
    # Chi-square over 100 bins: mean 99, sd 14.
    assert 50 < ((np.histogram(many, bins=100, range=(0.0, 1.0))[0] - 500) ** 2 / 500).sum() < 160
    assert abs(np.corrcoef(many[:-1], many[1:])[0, 1]) < 0.02
    assert len(np.unique(many)) == 50_000


@pytest.mark.parametrize(("seed", "epoch", "name"), [(2, 2, "x"), (1, 3, "x"), (1, 2, "y"), (12, 2, "x")])
def test_draws_depend_on_seed_epoch_and_name(seed: int, epoch: int, name: str) -> None:
    assert not np.isin(Draws(seed, epoch, ROWS).uniform(name), Draws(1, 2, ROWS).uniform("x")).any()


def test_draws_are_uniform_and_independent() -> None:
    drawn = Draws(0, 0, np.arange(50_000)).uniform("x", 2)
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    # Chi-square over 100 bins: mean 99, sd 14.
    counts = np.histogram(drawn, bins=100, range=(0.0, 1.0))[0]
    assert 50 < ((counts - 1000) ** 2 / 1000).sum() < 160
    # Correlations of independent numbers have sd 1 / sqrt(N) = 0.0045.
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.02
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.02
    later = Draws(0, 1, np.arange(50_000)).uniform("x")[:, 0]
    assert abs(np.corrcoef(drawn[:, 0], later)[0, 1]) < 0.02


def test_between_and_integers() -> None:
    draws = Draws(0, 0, np.arange(10_000))
    values = draws.between("gain", -6.0, 2.0)
    assert values.shape == (10_000,)
    assert -6.0 <= values.min() < -5.9
    assert 1.9 < values.max() < 2.0
    drawn = draws.integers("crop", np.where(np.arange(10_000) < 5000, 1, 3))
    assert drawn.dtype == np.int64
    assert set(drawn[:5000]) == {0}
    assert np.bincount(drawn[5000:]) == pytest.approx([5000 / 3] * 3, abs=150)


def test_mix_by_hand() -> None:
    mix = Mix(torch.tensor([1, 0, 2]), torch.tensor([0.75, 0.5, 0.6]))
    np.testing.assert_allclose(mix.apply(torch.tensor([4.0, 8.0, 5.0])), [5.0, 6.0, 5.0])
    pictures = torch.tensor([4.0, 8.0, 5.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    np.testing.assert_allclose(mix.apply(pictures)[0], [[[5.0, 5.0], [5.0, 5.0]]])
    # A row without a label in a task, or mixed with one, stays without.
    mixed = mix.apply(torch.tensor([[1.0, torch.nan], [0.0, 1.0], [1.0, 1.0]]))
    np.testing.assert_allclose(mixed, [[0.75, np.nan], [0.5, np.nan], [1.0, 1.0]])


def test_mix_keeps_the_sum_of_single_label_targets() -> None:
    draws = Draws(0, 0, np.arange(64))
    mix = draw_mix(draws, 0.4)
    assert mix is not None
    targets = torch.eye(8)[torch.arange(64) % 8]
    np.testing.assert_allclose(mix.apply(targets).sum(dim=1), np.ones(64), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_drawn_mix(alpha: float) -> None:
    rows = np.arange(20_000)
    mix = draw_mix(Draws(0, 0, rows), alpha)
    assert mix is not None
    assert sorted(mix.partner.tolist()) == rows.tolist()
    assert mix.weight.dtype == torch.float32
    assert mix.weight.min() >= 0.5
    assert mix.weight.max() <= 1.0
    # Of w from Beta(a, a): E[max(w, 1 - w)] = 1/2 + E|w - 1/2|, and Var[w] = 1 / (4 (2 a + 1)).
    variance = float(((mix.weight - 0.5) ** 2).mean())
    assert variance == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_mix_is_off() -> None:
    assert draw_mix(Draws(0, 0, ROWS), 0.0) is None
    assert draw_mix(Draws(0, 0, ROWS[:1]), 0.5) is None


def test_mix_is_a_function_of_seed_epoch_and_rows() -> None:
    first, again, other = (draw_mix(Draws(0, epoch, ROWS), 0.5) for epoch in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.partner, again.partner)
    assert not torch.equal(first.weight, other.weight)


def test_batch_length_and_place() -> None:
    batch = Batch(torch.zeros(4, 2), torch.tensor([2, 2, 1, 2]), torch.zeros(4, 3), ROWS, Draws(0, 0, ROWS))
    assert len(batch) == 4
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert {moved.inputs.device.type, moved.lengths.device.type, moved.targets.device.type} == {"meta"}
    assert moved.rows is ROWS
    assert moved.draws is batch.draws
