"""Convolutions over word vectors (Kim 2014), trained from scratch."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samo.encoders.body import Body
from samo.encoders.pooling import pooling_parts, valid_positions
from samo.tasks import LabelSpace
from samo_text.config import ModelSettings, TextConfig
from samo_text.models import MODELS
from samo_text.models.hash_embedding import HashEmbedding
from samo_text.models.text_model import TextModel

__all__ = ["KERNEL_WIDTHS", "TextCnn", "textcnn"]

KERNEL_WIDTHS = (1, 2, 3, 4, 5)


class TextCnn(Body):
    """Word vectors, then filters over one to five neighbouring words side by side, then GELU.

    Attributes:
        width: filters of all kernel widths together.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.width = settings.filters * len(KERNEL_WIDTHS)
        self.embedding = HashEmbedding(settings.hash_buckets, settings.embedding_width)
        self.filters = nn.ModuleList(
            nn.Conv1d(settings.embedding_width, settings.filters, width) for width in KERNEL_WIDTHS
        )

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) word hashes and (B,) lengths to (B, T, width) states: as many as there are words."""
        words = self.embedding(ids, valid_positions(ids.shape[1], lengths)).transpose(1, 2)
        answers = [
            F.gelu(convolve(F.pad(words, ((width - 1) // 2, width // 2))))
            for width, convolve in zip(KERNEL_WIDTHS, self.filters, strict=True)
        ]
        return torch.cat(answers, dim=1).transpose(1, 2)


def textcnn(config: TextConfig, space: LabelSpace, assets: Path | None, n_tokens: int | None) -> TextModel:
    """A text CNN under its pooling and head; it needs no assets."""
    parts = pooling_parts(config.model.pooling, MODELS["textcnn"])
    return TextModel(TextCnn(config.model), parts, space, config.model)
