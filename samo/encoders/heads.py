"""From the pooled vector to logits: a perceptron, or a stack of blocks, under one or several dropout masks."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samo.encoders.settings import EncoderSettings
from samo.tasks import LabelSpace

__all__ = ["Head", "MaskedDropout", "votes_to_logits"]


class Head(nn.Module):
    """``head_layers`` linear layers, the output layer included, each with (norm and) dropout before it.

    A hidden layer is ``GELU(W x + b)``, or with ``head_intermediate`` the feed-forward block of a transformer,
    ``W2 GELU(W1 x + b1) + b2``. ``head_residual`` adds the layer's input, through a projection where the widths differ
    (He et al. 2016, eq. 2).

    With S = ``dropout_samples`` > 1 each row passes under S dropout masks at once (multi-sample dropout, Inoue 2019).
    """

    def __init__(self, width: int, space: LabelSpace, settings: EncoderSettings) -> None:
        """``width`` is P, that of the pooled vector."""
        super().__init__()
        self.space = space
        self.samples = settings.dropout_samples
        self.inference = settings.dropout_inference
        hidden = settings.head_hidden or width
        widths = [width] + [hidden] * (settings.head_layers - 1)
        self.hidden = nn.ModuleList(
            _Hidden(n_in, n_out, settings, place) for place, (n_in, n_out) in enumerate(pairwise(widths))
        )
        self.before = _before(widths[-1], settings, len(widths) - 1)
        self.output = nn.Linear(widths[-1], space.n_columns)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of pooled vectors.

        Args:
            pooled: (B, P).

        Returns:
            (B, C). In training with S > 1 samples (S, B, C): the losses are averaged over S, not the logits.
        """
        several = self.samples > 1 and (self.training or self.inference != "off")
        x = pooled.expand(self.samples, *pooled.shape) if several else pooled
        for layer in self.hidden:
            x = layer(x)
        logits: Tensor = self.output(self.before(x))
        if self.training or not several:
            return logits
        return logits.float().mean(dim=0) if self.inference == "mean" else votes_to_logits(logits, self.space)


class _Hidden(nn.Module):
    """One hidden layer."""

    def __init__(self, n_in: int, n_out: int, settings: EncoderSettings, place: int) -> None:
        super().__init__()
        self.before = _before(n_in, settings, place)
        inner = settings.head_intermediate
        layers = [nn.Linear(n_in, inner), nn.GELU(), nn.Linear(inner, n_out)] if inner else []
        self.layers = nn.Sequential(*(layers or [nn.Linear(n_in, n_out), nn.GELU()]))
        self.shortcut: nn.Module | None = None
        if settings.head_residual:
            self.shortcut = nn.Identity() if n_in == n_out else nn.Linear(n_in, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) to (..., n_out)."""
        y: Tensor = self.layers(self.before(x))
        return y if self.shortcut is None else y + self.shortcut(x)


def _before(width: int, settings: EncoderSettings, place: int) -> nn.Sequential:
    n_masks = settings.dropout_samples if settings.dropout_inference != "off" else 0
    norm = [nn.LayerNorm(width)] if settings.head_norm else []
    return nn.Sequential(*norm, MaskedDropout(settings.dropout, width, n_masks, seed=place))


class MaskedDropout(nn.Module):
    """Dropout in training; in evaluation none, or ``n_masks`` masks drawn once and shared by all rows of all batches.

    A row's logits then depend on neither its batch nor its place in it.
    """

    masks: Tensor | None

    def __init__(self, p: float, width: int, n_masks: int, seed: int) -> None:
        super().__init__()
        self.p = p
        masks = None
        if n_masks:
            drawn = torch.rand(n_masks, 1, width, generator=torch.Generator().manual_seed(seed))
            masks = (drawn >= p).float() / (1.0 - p)
        # Settings and seed make it again, so a run's weights do not carry it.
        self.register_buffer("masks", masks, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width), or (S, B, width) under several masks; the shape is kept."""
        if self.training:
            return F.dropout(x, self.p)
        return x if self.masks is None else x * self.masks.to(x.dtype)

    def extra_repr(self) -> str:
        """What a printed model shows."""
        return f"p={self.p}"


def votes_to_logits(logits: Tensor, space: LabelSpace) -> Tensor:
    """Turn the votes of S dropout masks into logits whose probability is the share of votes.

    A mask votes for its largest logit (single-label), or for each label with probability above 1/2 (multi-label). With
    v of S votes and K choices (2 for a label of a multi-label task) the share is ``(v + 1/2) / (S + K/2)``, the
    posterior mean under Jeffreys' prior, so that no share is 0 or 1. The logit is its log (softmax) or log-odds.

    Args:
        logits: (S, B, C).
        space: which columns are which task's.

    Returns:
        (B, C) float32.
    """
    parts = []
    for task in space.tasks:
        own = logits[:, :, space.slices[task.name]].float()
        n_masks, n_labels = own.shape[0], own.shape[2]
        if task.multi_label:
            votes = (own > 0.0).float().sum(dim=0)
            parts.append(torch.log(votes + 0.5) - torch.log(n_masks - votes + 0.5))
        else:
            votes = F.one_hot(own.argmax(dim=2), n_labels).float().sum(dim=0)
            parts.append(torch.log((votes + 0.5) / (n_masks + 0.5 * n_labels)))
    return torch.cat(parts, dim=1)
