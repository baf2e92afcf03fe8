"""What the trainer asks of a network besides its logits."""

from __future__ import annotations

from torch import nn

__all__ = ["EmotionModel"]


class EmotionModel(nn.Module):
    """A network whose parts may learn at different speeds, or from different epochs on.

    ``forward(inputs, lengths, draws=None, mix=None)`` gives (B, C) logits; see
    :class:`samo_core.training.frontend.Frontend`.
    """

    def lr_scale(self, name: str) -> float:
        """Factor on the learning rate of the parameter called ``name``, above 0."""
        return 1.0

    def begin_epoch(self, epoch: int) -> None:
        """Freeze or unfreeze what the epoch (from 0) asks for: a function of it alone, so that resuming is exact."""
