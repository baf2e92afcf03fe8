"""What the trainer asks of a network besides its logits."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["EmotionModel"]


class EmotionModel(nn.Module):
    """A network whose parts may learn at different speeds, or from different epochs on.

    ``forward(inputs, lengths, draws=None, mix=None)`` gives (B, C) logits; see
    :class:`samo.frontend.Frontend`. In training it may give (S, B, C) instead, S samples of each row
    under unlike dropout: their losses are averaged. Other networks learn as a whole, at one rate.

    A parameter that needs no gradient when training begins (before the first :meth:`begin_epoch`) never learns. A model
    of such parameters alone is finished as it is given: it is judged once.
    """

    def spectrograms(self, inputs: Tensor, lengths: Tensor) -> Tensor | None:
        """(B, bands, frames) what a network over spectrograms looks at; None of any other."""
        return None

    def lr_scale(self, name: str) -> float:
        """Factor on the learning rate of the parameter called ``name``, above 0."""
        return 1.0

    def begin_epoch(self, epoch: int) -> None:
        """Freeze or unfreeze what the epoch (from 0) asks for: a function of it alone, so that resuming is exact.

        What is frozen for some epochs only must be frozen here, not when the model is made. Something must always
        be left to learn.
        """
