"""A torch module as predictors see a network."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from samo.training.model import EmotionModel
from samo.training.runtime import Runtime

__all__ = ["TorchNetwork"]


class TorchNetwork:
    """A module on a runtime's device, in its precision; see :class:`samo.prediction.network.Network`."""

    def __init__(self, module: nn.Module, runtime: Runtime) -> None:
        """``module(inputs, lengths)`` gives (B, C) logits; it is placed on the runtime's device already."""
        self.module = module.eval()
        self.runtime = runtime

    @torch.inference_mode()
    def logits(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """(B, C) float32 logits of (B, T) padded inputs and their (B,) lengths."""
        with self.runtime.autocast():
            logits: np.ndarray = self.module(*self._placed(inputs, lengths)).float().cpu().numpy()
        return logits

    @torch.inference_mode()
    def features(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray | None:
        """(B, bands, frames) float32 spectrograms of the module; None where it makes none."""
        if not isinstance(self.module, EmotionModel):
            return None
        spectrograms = self.module.spectrograms(*self._placed(inputs, lengths))
        return None if spectrograms is None else spectrograms.float().cpu().numpy()

    def _placed(self, inputs: np.ndarray, lengths: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.runtime.device
        return torch.from_numpy(inputs).to(device), torch.from_numpy(lengths).to(device)
