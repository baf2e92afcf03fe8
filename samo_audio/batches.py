"""Waveforms padded to batches."""

from __future__ import annotations

import numpy as np
import torch

from samo.data.batch import Batch, Draws

__all__ = ["collate"]


def collate(
    chunks: list[np.ndarray], targets: np.ndarray, rows: np.ndarray, window: int, draws: Draws | None = None
) -> Batch:
    """Pad (T_i,) waveforms to (B, window)."""
    inputs = np.zeros((len(chunks), window), dtype=np.float32)
    for place, chunk in zip(inputs, chunks, strict=True):
        place[: len(chunk)] = chunk
    lengths = torch.tensor([len(chunk) for chunk in chunks])
    return Batch(torch.from_numpy(inputs), lengths, torch.from_numpy(targets), rows, draws)
