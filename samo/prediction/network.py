"""What a predictor needs of a network, whatever computes it: torch for a run, onnxruntime for an exported file."""

from __future__ import annotations

from typing import Protocol

import numpy as np

__all__ = ["Network"]


class Network(Protocol):
    """A trained network as a predictor sees it."""

    def logits(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """(B, C) float32 logits.

        Args:
            inputs: (B, T) padded: float32 samples, or int64 token ids.
            lengths: (B,) int64 valid lengths along T.

        Raises:
            ModelFileError: an exported file that does not compute what it should.
        """

    def features(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray | None:
        """(B, bands, frames) float32: the spectrograms the network sees; None where it sees none."""
