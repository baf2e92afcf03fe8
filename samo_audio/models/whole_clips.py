"""A model of windows as a model of whole clips."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from samo.data.padding import padded
from samo_audio.config import FeatureSettings
from samo_audio.views import views_of, windows_of

__all__ = ["WholeClips"]

_WINDOWS_AT_ONCE = 32


class WholeClips(nn.Module):
    """What a model answers to clips, by the mean of its logits over their windows and views, as it is evaluated."""

    def __init__(self, model: nn.Module, features: FeatureSettings) -> None:
        """``features``: of the model; they give its windows and views."""
        super().__init__()
        self.model = model
        self.window, self.views = features.window, views_of(features)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, C) float32 logits of (B, T) clips of any length, and their (B,) samples."""
        chunks: list[np.ndarray] = []
        owners: list[int] = []
        for row, (waveform, length) in enumerate(zip(waveforms.cpu().numpy(), lengths.tolist(), strict=True)):
            own = windows_of(waveform[:length], self.window, self.views)
            chunks += own
            owners += [row] * len(own)
        logits = []
        for start in range(0, len(chunks), _WINDOWS_AT_ONCE):
            batch = (torch.from_numpy(each) for each in padded(chunks[start : start + _WINDOWS_AT_ONCE], self.window))
            logits.append(self.model(*(each.to(waveforms.device) for each in batch)).float())
        rows = torch.tensor(owners, device=waveforms.device)
        total = logits[0].new_zeros(len(waveforms), logits[0].shape[1]).index_add(0, rows, torch.cat(logits))
        return total / torch.bincount(rows, minlength=len(waveforms))[:, None]
