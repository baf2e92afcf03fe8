"""The whole of a text network: token states, pooling, mixup, head."""

from __future__ import annotations

from samo.encoders.model import StatesModel
from samo.training.model import EmotionModel

__all__ = ["TextModel"]


class TextModel(StatesModel, EmotionModel):
    """(B, T) int64 ids, padded behind, and (B,) int64 lengths in tokens to logits."""
