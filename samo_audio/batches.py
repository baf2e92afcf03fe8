"""Waveforms padded to batches."""

from __future__ import annotations

import numpy as np
import torch

from samo.data.batch import Batch, Draws

__all__ = ["collate"]


def collate(
    cuts: list[np.ndarray], targets: np.ndarray, rows: np.ndarray, window: int, draws: Draws | None = None
) -> Batch:
    """Pad (T_i,) waveforms to (B, window)."""
    inputs = np.zeros((len(cuts), window), dtype=np.float32)
    for place, cut in zip(inputs, cuts, strict=True):
        place[: len(cut)] = cut
    lengths = torch.tensor([len(cut) for cut in cuts])
    return Batch(torch.from_numpy(inputs), lengths, torch.from_numpy(targets), rows, draws)
