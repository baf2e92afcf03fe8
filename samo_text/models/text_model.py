"""The whole of a text network: token states, pooling, mixup, head."""

from __future__ import annotations

import torch
from torch import Tensor

from samo.data.batch import Draws, Mix
from samo.encoders.body import Body
from samo.encoders.heads import Head
from samo.encoders.pooling import Pooling
from samo.tasks import LabelSpace
from samo.training.model import EmotionModel
from samo_text.config import ModelSettings

__all__ = ["TextModel"]


class TextModel(EmotionModel):
    """A body, a pooling and a head; everything but the body learns at the full learning rate."""

    def __init__(self, body: Body, parts: tuple[str, ...], space: LabelSpace, settings: ModelSettings) -> None:
        """``parts`` are those of :func:`samo.encoders.pooling.pooling_parts`."""
        super().__init__()
        self.body = body
        self.pooling = Pooling(parts, body.width)
        self.head = Head(self.pooling.width, space, settings)

    @property
    def state_width(self) -> int:
        """W = H * k: width of what :meth:`states` gives, one H for each sequence the pooling looks at."""
        return self.body.width * len(self.pooling.sequences)

    def states(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """What the pooling looks at; of a frozen encoder it never changes and can be kept.

        Args:
            ids: (B, T) int64.
            lengths: (B,) int64 valid tokens.

        Returns:
            (B, T, W); what stands on padding means nothing.
        """
        states: Tensor = self.body(ids, lengths)
        return states

    def forward(self, inputs: Tensor, lengths: Tensor, draws: Draws | None = None, mix: Mix | None = None) -> Tensor:
        """Logits of a batch.

        Args:
            inputs: (B, T) int64 ids, padded behind; or (B, T, W) floating states kept from :meth:`states`.
            lengths: (B,) int64 valid tokens.
            draws: not used; dropout draws from torch's own generator.
            mix: how to mix the rows' pooled embeddings, used in training mode only.

        Returns:
            (B, C) logits; in training with several dropout samples (S, B, C).
        """
        states = inputs if torch.is_floating_point(inputs) else self.states(inputs, lengths)
        pooled = self.pooling(states, lengths)
        if self.training and mix is not None:
            pooled = mix.apply(pooled)
        logits: Tensor = self.head(pooled)
        return logits

    def lr_scale(self, name: str) -> float:
        """Factor on the learning rate of a parameter by its name in this model."""
        return self.body.lr_scale(name.removeprefix("body.")) if name.startswith("body.") else 1.0

    def begin_epoch(self, epoch: int) -> None:
        """Freeze or unfreeze the body's layers."""
        self.body.begin_epoch(epoch)
