"""Gated recurrent units in both directions (Cho et al. 2014), trained from scratch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from samo.encoders.body import Body
from samo.encoders.pooling import pooling_parts, valid_positions
from samo.tasks import LabelSpace
from samo_text.config import ModelSettings, TextConfig
from samo_text.models import MODELS
from samo_text.models.hash_embedding import HashEmbedding
from samo_text.models.text_model import TextModel

__all__ = ["BiGru", "bigru", "reversed_texts"]


class BiGru(Body):
    """Word vectors, then one GRU that reads each text forwards and one that reads it backwards.

    The second is given each text turned round instead of packed sequences, which cannot be exported to ONNX.

    Attributes:
        width: units of both directions together.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.width = 2 * settings.gru_units
        self.embedding = HashEmbedding(settings.hash_buckets, settings.embedding_width)
        self.ahead = nn.GRU(settings.embedding_width, settings.gru_units, batch_first=True)
        self.back = nn.GRU(settings.embedding_width, settings.gru_units, batch_first=True)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) word hashes and (B,) lengths to (B, T, width) states."""
        words = self.embedding(ids, valid_positions(ids.shape[1], lengths))
        ahead, _ = self.ahead(words)
        back, _ = self.back(reversed_texts(words, lengths))
        return torch.cat([ahead, reversed_texts(back, lengths)], dim=2)


def reversed_texts(states: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, H) with the first ``lengths`` tokens of each row in reverse order; padding stays where it is."""
    place = torch.arange(states.shape[1], device=states.device)[None, :]
    mirrored = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
    return states.gather(1, mirrored[:, :, None].expand_as(states))


def bigru(config: TextConfig, space: LabelSpace, assets: Path | None, n_tokens: int | None) -> TextModel:
    """A bidirectional GRU under its pooling and head; it needs no assets."""
    parts = pooling_parts(config.model.pooling, MODELS["bigru"])
    return TextModel(BiGru(config.model), parts, space, config.model)
