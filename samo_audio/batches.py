"""Waveforms padded to batches."""

from __future__ import annotations

import numpy as np
import torch

from samo.data.batch import Batch, Draws
from samo.data.padding import padded

__all__ = ["collate"]


def collate(
    chunks: list[np.ndarray], targets: np.ndarray, rows: np.ndarray, window: int, draws: Draws | None = None
) -> Batch:
    """Pad (T_i,) waveforms to (B, window)."""
    inputs, lengths = padded(chunks, window)
    return Batch(torch.from_numpy(inputs), torch.from_numpy(lengths), torch.from_numpy(targets), rows, draws)
