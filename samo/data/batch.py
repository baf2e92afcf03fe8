"""A batch, and the private random numbers that belong to its rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Batch", "Draws", "Mix", "draw_mix", "part_of"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Draws:
    """Random numbers that are a function of (seed, epoch, row, its occurrence, name) and of nothing else.

    Neither the batch a row falls into nor the number of workers changes them, which is what makes exact resume
    possible. The generator is SplitMix64 (Steele, Lea & Flood 2014) used as a counter-based hash.

    Attributes:
        seed: the run's seed.
        epoch: counted from 0.
        rows: (B,) int64 row numbers in the manifest.
        occurrences: (B,) how often each row was drawn before in this epoch: a row that is drawn again gets numbers of
            its own. None: every row for the first time.
    """

    seed: int
    epoch: int
    rows: np.ndarray
    occurrences: np.ndarray | None = None

    def __getitem__(self, places: slice | np.ndarray) -> Draws:
        """Those of some of the rows, the same numbers."""
        again = None if self.occurrences is None else self.occurrences[places]
        return Draws(self.seed, self.epoch, self.rows[places], again)

    def uniform(self, name: str, n: int = 1) -> np.ndarray:
        """(B, n) float64 in [0, 1), a separate stream for each ``name``."""
        stream = int.from_bytes(hashlib.sha256(f"{self.seed}:{self.epoch}:{name}".encode()).digest()[:8], "little")
        with np.errstate(over="ignore"):
            base = _splitmix(self.rows.astype(np.uint64) * _GOLDEN + np.uint64(stream))
            if self.occurrences is not None:
                # Through the hash once more, so that no sum of row and occurrence is taken twice.
                again = _splitmix(base ^ _splitmix(self.occurrences.astype(np.uint64) * _GOLDEN))
                base = np.where(self.occurrences > 0, again, base)
            counters = base[:, None] + _GOLDEN * np.arange(1, n + 1, dtype=np.uint64)[None, :]
            bits = _splitmix(counters)
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def between(self, name: str, low: float, high: float) -> np.ndarray:
        """(B,) float64 uniform in [low, high)."""
        return low + (high - low) * self.uniform(name)[:, 0]

    def integers(self, name: str, high: np.ndarray) -> np.ndarray:
        """(B,) int64 uniform in 0 .. high-1; ``high`` is (B,) and positive."""
        drawn: np.ndarray = np.floor(self.uniform(name)[:, 0] * high).astype(np.int64)
        return drawn


@dataclass(frozen=True)
class Mix:
    """How rows of a batch are mixed (mixup, Zhang et al. 2018): ``weight * row + (1 - weight) * partner``.

    A batch may hold more rows than are mixed: those behind the first B are partners only.

    Attributes:
        partner: (B,) int64 positions in the batch.
        weight: (B,) float32 in [0.5, 1].
    """

    partner: Tensor
    weight: Tensor

    def apply(self, values: Tensor) -> Tensor:
        """Mix any tensor whose first dimension is the batch; B rows are left."""
        weight = self.weight.view(-1, *([1] * (values.ndim - 1))).to(values.dtype)
        return weight * values[: len(weight)] + (1.0 - weight) * values[self.partner]

    def to(self, device: torch.device) -> Mix:
        """The same mix on another device."""
        return Mix(self.partner.to(device), self.weight.to(device))


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs.

    Attributes:
        inputs: (B, T) padded inputs.
        lengths: (B,) int64 valid lengths along T.
        targets: (B, C) float32; NaN where a task has no label.
        rows: (B,) int64 row numbers in the manifest; a row may stand several times (windows of one clip).
        draws: random numbers for augmentation; None outside training.
    """

    inputs: Tensor
    lengths: Tensor
    targets: Tensor
    rows: np.ndarray
    draws: Draws | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if device.type == "cpu":
            return self
        return Batch(
            self.inputs.to(device, non_blocking=True),
            self.lengths.to(device, non_blocking=True),
            self.targets.to(device, non_blocking=True),
            self.rows,
            self.draws,
        )


def draw_mix(draws: Draws, alpha: float) -> Mix | None:
    """Draw partners and weights for mixup; None when ``alpha`` is 0.

    The weight is max(w, 1 - w) with w from Beta(alpha, alpha), so that a row stays mostly itself.
    """
    if alpha <= 0.0 or len(draws.rows) < 2:
        return None
    # The quantile function of the beta distribution; scipy.stats has it too but takes a second to import.
    from scipy.special import betaincinv

    weight = betaincinv(alpha, alpha, draws.uniform("mix-weight")[:, 0])
    weight = np.maximum(weight, 1.0 - weight)
    partner = np.argsort(draws.uniform("mix-partner")[:, 0], kind="stable")
    return Mix(torch.from_numpy(partner), torch.from_numpy(weight.astype(np.float32)))


def part_of(draws: Draws, mix: Mix | None, part: slice) -> tuple[Draws, Mix | None]:
    """What one of several processes needs to train on a part of a batch as if it had all of it.

    Args:
        draws: rows of the whole batch and their random numbers.
        mix: how the whole batch is mixed.
        part: the positions that are this process's own.

    Returns:
        Its own rows with the partners they are mixed with behind them, and the mix of its own rows. For an empty part
        any row and a mix of none, since features cannot be made of nothing.
    """
    n = len(draws.rows)
    if part == slice(0, n):
        return draws, mix
    own = np.arange(n)[part]
    if len(own) == 0:
        return draws[:1], Mix(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    if mix is None:
        return draws[part], None
    partner = mix.partner.numpy()[part]
    wanted = np.concatenate([own, np.setdiff1d(partner, own)])
    place = np.zeros(n, dtype=np.int64)
    place[wanted] = np.arange(len(wanted))
    return draws[wanted], Mix(torch.from_numpy(place[partner]), mix.weight[part])


def _splitmix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = value ^ (value >> np.uint64(31))
    return mixed
