"""From states of tokens or frames to one vector an item; padding is masked out everywhere."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samo.errors import SettingsError, nearest

__all__ = [
    "ALL",
    "LAST",
    "LAST4",
    "POOLINGS",
    "STATISTICS",
    "Attention",
    "PooledArchitecture",
    "Pooling",
    "pooling_parts",
    "sequences_of",
    "statistics",
    "valid_positions",
]

# The sequences of states a body may give: of its last layer, the mean of its last four, and those of all layers.
LAST, LAST4, ALL = "last", "last4", "all"

# Parts that can be computed layer by layer before the layers are weighed, in the order of :func:`statistics`.
STATISTICS = ("mean", "sd", "max")

# What each name of the setting `pooling` is made of.
POOLINGS = {
    "cls": ("cls",),
    "mean": ("mean",),
    "sd": ("sd",),
    "max": ("max",),
    "mean-sd": ("mean", "sd"),
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


def sequences_of(parts: tuple[str, ...], layers: str = LAST) -> tuple[str, ...]:
    """The sequences of states that these parts look at; ``layers`` is ``last`` or ``all``."""
    looked_at = {LAST4 if part == "last4-mean" else layers for part in parts}
    return tuple(name for name in (LAST, LAST4, ALL) if name in looked_at)


def valid_positions(length: int, lengths: Tensor) -> Tensor:
    """(B, T) bool: True on the tokens or frames of an item, False on padding."""
    return torch.arange(length, device=lengths.device)[None, :] < lengths[:, None]


class Pooling(nn.Module):
    """Joins the pooled vectors of all parts, in order.

    ``cls`` is the first position (of a text's encoder its classification token, else simply the first word or frame);
    ``mean``, ``sd`` (population) and ``max`` go over the valid positions; ``attention`` is :class:`Attention`;
    ``last4-mean`` averages the last four layers, then the positions. An item without valid positions gives zeros.

    Where the states of all layers are looked at, ``over_layers`` says what becomes of them: ``weigh`` takes a weighted
    mean of the layers with learned softmax weights (Yang et al. 2021, SUPERB, section 3), of the states under
    ``attention`` and of the pooled vectors under the other parts; ``join`` puts the pooled vectors of all layers side
    by side; ``last`` takes those of the last layer.

    With ``standardise`` each statistic of each layer is brought to mean 0 and sd 1 over the training items before the
    layers are weighed; :func:`samo.encoders.model.fit_frozen` finds these.

    Attributes:
        width: P, width of the joined vector.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        parts: tuple[str, ...],
        width: int,
        *,
        sequences: tuple[str, ...] | None = None,
        n_layers: int = 1,
        over_layers: Literal["last", "weigh", "join"] = "last",
        mask_share: float = 0.0,
        mask_span: int = 10,
        standardise: bool = False,
    ) -> None:
        """Make what of it learns.

        Args:
            parts: those of :func:`pooling_parts`.
            width: H, that of one state.
            sequences: what the states hold side by side; None: :func:`sequences_of` the last layer.
            n_layers: L, how many layers' states stand in :data:`ALL`, the embeddings included.
            over_layers: what becomes of L layers.
            mask_share: share of an item's positions that is left out in training, drawn anew each time.
            mask_span: positions that are left out in one piece.
            standardise: whether to; only where :attr:`takes_statistics`.
        """
        super().__init__()
        self.parts = parts
        self.sequences = sequences_of(parts) if sequences is None else sequences
        self.over_layers = over_layers
        self.mask_share, self.mask_span = mask_share, mask_span
        self.width = width * len(parts) * (n_layers if over_layers == "join" else 1)
        self._state_width, self.n_layers = width, n_layers
        self.attention = Attention(width) if "attention" in parts else None
        self.standardise = standardise and self.takes_statistics
        if self.standardise:
            shape = (len(STATISTICS), n_layers, width)
            self.register_buffer("centre", torch.zeros(shape))
            self.register_buffer("scale", torch.ones(shape))
        self.layer_weights = nn.Parameter(torch.zeros(n_layers)) if over_layers == "weigh" else None

    @property
    def takes_statistics(self) -> bool:
        """Whether :func:`statistics` of all layers say all that it needs of an item."""
        return self.sequences == (ALL,) and set(self.parts) <= set(STATISTICS) and not self.mask_share

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Pool the states of each item.

        Args:
            states: (B, T, W), the sequences of :func:`sequences_of` side by side; or (B, 3, L, H) :func:`statistics`.
            lengths: (B,) valid positions.

        Returns:
            (B, P) float32.
        """
        # A sum over many positions needs more digits than bfloat16 has.
        with torch.autocast(states.device.type, enabled=False):
            if states.ndim == 4:
                of_parts = [(part, states[:, STATISTICS.index(part)].float().flatten(1)) for part in self.parts]
                return torch.cat([self._of_layers(self._standard(part, each)) for part, each in of_parts], dim=1)
            valid = self._unmasked(valid_positions(states.shape[1], lengths))
            widths = [self._state_width * (self.n_layers if name == ALL else 1) for name in self.sequences]
            by_sequence = dict(zip(self.sequences, states.float().split(widths, dim=2), strict=True))
            return torch.cat([self._pool(part, by_sequence, valid) for part in self.parts], dim=1)

    def _pool(self, part: str, states: dict[str, Tensor], valid: Tensor) -> Tensor:
        if part == "last4-mean":
            return _mean(states[LAST4], valid)
        seen = states[ALL] if ALL in states else states[LAST]
        if part == "attention":
            assert self.attention is not None
            pooled: Tensor = self.attention(self._of_layers(seen), valid)
            return pooled
        if part == "cls":
            return self._of_layers(seen[:, 0] * valid[:, :1])
        return self._of_layers(self._standard(part, _STATISTIC[part](seen, valid)))

    def _standard(self, part: str, values: Tensor) -> Tensor:
        """(B, L * H) of a part of :data:`STATISTICS`, brought to mean 0 and sd 1 where that is asked for."""
        if not self.standardise:
            return values
        place = STATISTICS.index(part)
        return (values - self.centre[place].flatten()) / self.scale[place].flatten()

    def _of_layers(self, values: Tensor) -> Tensor:
        """(..., L * H) to what ``over_layers`` makes of it; (..., H) of one layer stays."""
        if self.over_layers == "join" or self.n_layers == 1 or self.sequences != (ALL,):
            return values
        by_layer = values.unflatten(-1, (self.n_layers, self._state_width))
        if self.layer_weights is None:
            return by_layer[..., -1, :]
        return (by_layer * self.layer_weights.float().softmax(dim=0)[:, None]).sum(dim=-2)

    def _unmasked(self, valid: Tensor) -> Tensor:
        """(B, T) valid positions without those that are masked, of which one at least is left."""
        if not (self.training and self.mask_share):
            return valid
        # Every position begins a span: so often that the wanted share is covered.
        begins = 1.0 - (1.0 - self.mask_share) ** (1.0 / self.mask_span)
        drawn = (torch.rand(valid.shape, device=valid.device) < begins).float()
        spans = F.max_pool1d(F.pad(drawn, (self.mask_span - 1, 0))[:, None], self.mask_span, stride=1)[:, 0]
        left = valid & (spans == 0.0)
        return torch.where(left.any(dim=1, keepdim=True), left, valid)


def statistics(states: Tensor, lengths: Tensor, n_layers: int) -> Tensor:
    """Mean, sd and maximum over the valid positions, layer by layer: all that :data:`STATISTICS` need of an item.

    Args:
        states: (B, T, L * H).
        lengths: (B,) valid positions.
        n_layers: L.

    Returns:
        (B, 3, L, H) float32.
    """
    valid = valid_positions(states.shape[1], lengths)
    found = torch.stack([_STATISTIC[name](states.float(), valid) for name in STATISTICS], dim=1)
    return found.unflatten(2, (n_layers, -1))


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


def _sd(states: Tensor, valid: Tensor) -> Tensor:
    """Population standard deviation; of one position 0, without a gradient."""
    apart = (states - _mean(states, valid)[:, None]).masked_fill(~valid[:, :, None], 0.0)
    variance = (apart**2).sum(dim=1) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    # The square root has no gradient at 0.
    spread = variance > 0.0
    return torch.where(spread, torch.where(spread, variance, torch.ones_like(variance)).sqrt(), variance)


_STATISTIC = {"mean": _mean, "sd": _sd, "max": _max}
