"""Token ids, or states of tokens, padded to batches."""

from __future__ import annotations

import numpy as np
import torch

from samo.data.batch import Batch, Draws
from samo.data.padding import padded
from samo.encoders.states import collate_states

__all__ = ["collate"]


def collate(
    inputs: list[np.ndarray],
    targets: np.ndarray,
    rows: np.ndarray,
    pad_id: int,
    width: int = 0,
    draws: Draws | None = None,
) -> Batch:
    """Pad (T_i,) token ids, or (T_i, H) states of tokens, to the longest of them, or to ``width`` when that is more."""
    if inputs[0].ndim > 1:
        return Batch(*collate_states(inputs, width), torch.from_numpy(targets), rows, draws)
    ids, lengths = padded(inputs, width, pad_id)
    return Batch(torch.from_numpy(ids), torch.from_numpy(lengths), torch.from_numpy(targets), rows, draws)
