"""From states of tokens or frames to one vector an item; padding is masked out everywhere."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from samo.errors import SettingsError, nearest

__all__ = [
    "LAST",
    "LAST4",
    "POOLINGS",
    "Attention",
    "PooledArchitecture",
    "Pooling",
    "pooling_parts",
    "sequences_of",
    "valid_positions",
]

# The sequences of states a body may give: of its last layer, and the mean of its last four.
LAST, LAST4 = "last", "last4"

# What each name of the setting `pooling` is made of.
POOLINGS = {
    "cls": ("cls",),
    "mean": ("mean",),
    "max": ("max",),
    "mean-max": ("mean", "max"),
    "attention": ("attention",),
    "last4-mean": ("last4-mean",),
}


class PooledArchitecture(Protocol):
    """What :func:`pooling_parts` needs to know of an architecture."""

    @property
    def pooling(self) -> str:
        """What ``auto`` stands for; empty for a model that pools nothing."""

    @property
    def has_layers(self) -> bool:
        """Whether it is a stack of layers, the last four of which can be averaged."""


def pooling_parts(pooling: str, architecture: PooledArchitecture) -> tuple[str, ...]:
    """The parts that ``pooling`` names, in order; ``()`` for a model that pools nothing.

    Raises:
        SettingsError: an unknown name, a part named twice, or last4-mean of a model without layers.
    """
    if not architecture.pooling:
        return ()
    names = (architecture.pooling if pooling == "auto" else pooling).split("+")
    parts: list[str] = []
    for name in names:
        if name not in POOLINGS:
            raise SettingsError(
                f"unknown pooling '{name}'",
                hint=nearest(name, POOLINGS) + f"valid: auto, or one or more of {', '.join(POOLINGS)} joined with +",
            )
        parts += POOLINGS[name]
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice:
        raise SettingsError(f"`pooling={pooling}` names {twice} twice")
    if "last4-mean" in parts and not architecture.has_layers:
        raise SettingsError("`pooling=last4-mean` acts only together with `model=encoder`, which has layers")
    return tuple(parts)


def sequences_of(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The sequences of states that these parts look at."""
    looked_at = {LAST4 if part == "last4-mean" else LAST for part in parts}
    return tuple(name for name in (LAST, LAST4) if name in looked_at)


def valid_positions(length: int, lengths: Tensor) -> Tensor:
    """(B, T) bool: True on the tokens or frames of an item, False on padding."""
    return torch.arange(length, device=lengths.device)[None, :] < lengths[:, None]


class Pooling(nn.Module):
    """Joins the pooled vectors of all parts, in order.

    ``cls`` is the first position (of a text's encoder its classification token, else simply the first word or frame);
    ``mean`` and ``max`` go over the valid positions; ``attention`` is :class:`Attention`; ``last4-mean`` averages the
    last four layers, then the positions. An item without valid positions gives zeros.

    Attributes:
        width: P, width of the joined vector.
    """

    def __init__(self, parts: tuple[str, ...], width: int) -> None:
        """``width`` is H, that of one state."""
        super().__init__()
        self.parts = parts
        self.sequences = sequences_of(parts)
        self.width = width * len(parts)
        self._state_width = width
        self.attention = Attention(width) if "attention" in parts else None

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Pool the states of each item.

        Args:
            states: (B, T, H * k), the k sequences of :func:`sequences_of` side by side.
            lengths: (B,) valid positions.

        Returns:
            (B, P) float32.
        """
        # A sum over many positions needs more digits than bfloat16 has.
        with torch.autocast(states.device.type, enabled=False):
            valid = valid_positions(states.shape[1], lengths)
            by_sequence = dict(zip(self.sequences, states.float().split(self._state_width, dim=2), strict=True))
            return torch.cat([self._pool(part, by_sequence, valid) for part in self.parts], dim=1)

    def _pool(self, part: str, states: dict[str, Tensor], valid: Tensor) -> Tensor:
        if part == "last4-mean":
            return _mean(states[LAST4], valid)
        if part == "mean":
            return _mean(states[LAST], valid)
        if part == "max":
            return _max(states[LAST], valid)
        if part == "cls":
            return states[LAST][:, 0] * valid[:, :1]
        assert self.attention is not None
        pooled: Tensor = self.attention(states[LAST], valid)
        return pooled


class Attention(nn.Module):
    """Weighted mean of the states with weights learned from the states (Yang et al. 2016, eq. 5 to 7).

    ``weight = softmax(u . tanh(W h + b))`` over the valid positions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor, valid: Tensor) -> Tensor:
        """(B, T, H) states and (B, T) validity to (B, H)."""
        score = self.score(torch.tanh(self.project(states)))[:, :, 0]
        # The lowest finite number, not -inf: a row without positions must not become 0 / 0.
        score = score.masked_fill(~valid, torch.finfo(score.dtype).min)
        weight = torch.softmax(score, dim=1) * valid
        return (weight[:, :, None] * states.masked_fill(~valid[:, :, None], 0.0)).sum(dim=1)


def _mean(states: Tensor, valid: Tensor) -> Tensor:
    total = states.masked_fill(~valid[:, :, None], 0.0).sum(dim=1)
    return total / valid.sum(dim=1, keepdim=True).clamp(min=1)


def _max(states: Tensor, valid: Tensor) -> Tensor:
    largest = states.masked_fill(~valid[:, :, None], torch.finfo(states.dtype).min).amax(dim=1)
    return torch.where(valid.any(dim=1, keepdim=True), largest, torch.zeros_like(largest))
