"""Word vectors without a vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["HashEmbedding"]

_HALF_BITS = 31


class HashEmbedding(nn.Module):
    """The vector of a word is the sum of two rows of one table, picked by the two halves of its 62-bit hash.

    Two words that share one row seldom share the other, so a table much smaller than the vocabulary tells them apart
    (Svenstrup et al. 2017, without their learned importance of each row, which needs a table over words).
    """

    def __init__(self, buckets: int, width: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.table = nn.Embedding(buckets, width)
        # The sum of two rows starts with standard deviation 0.1 per unit.
        nn.init.normal_(self.table.weight, std=0.1 / 2**0.5)

    def forward(self, ids: Tensor, valid: Tensor) -> Tensor:
        """Vectors of words.

        Args:
            ids: (B, T) int64 in [0, 2**62).
            valid: (B, T) bool.

        Returns:
            (B, T, width), zeros on padding.
        """
        low, high = ids % 2**_HALF_BITS, torch.div(ids, 2**_HALF_BITS, rounding_mode="floor")
        vectors: Tensor = self.table(low % self.buckets) + self.table(high % self.buckets)
        return vectors.masked_fill(~valid[:, :, None], 0.0)
