"""From the maps of a network over a spectrogram to one vector a clip, over its own frames and with bands kept apart."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from samo.encoders.pooling import Pooling
from samo_audio.config import ModelSettings
from samo_audio.models import map_pooling_parts

__all__ = ["MapNetwork", "MapPooling", "map_pooling"]


class MapPooling(nn.Module):
    """Bands averaged in ``frequency_bins`` groups that stand side by side, then frames pooled as ``pooling`` says.

    Attributes:
        width: of the vector.
    """

    def __init__(self, channels: int, settings: ModelSettings, step: int, usual: Callable[[Tensor], Tensor]) -> None:
        """Make what of it learns.

        Args:
            channels: of the maps.
            settings: ``pooling`` and ``frequency_bins``.
            step: frames of the spectrogram that become one of the maps.
            usual: what ``pooling=auto`` does with (B, W, T) maps; it looks at all frames.
        """
        super().__init__()
        self.n_bins, self.step, self.usual = max(1, settings.frequency_bins), step, usual
        parts = map_pooling_parts(settings.pooling)
        self.over_time = Pooling(parts, channels * self.n_bins) if parts else None
        self.width = self.over_time.width if self.over_time else channels * self.n_bins

    def forward(self, maps: Tensor, frames: Tensor | None = None) -> Tensor:
        """Pool maps.

        Args:
            maps: (B, channels, bands, T).
            frames: (B,) valid frames of the spectrogram; None: all of them.

        Returns:
            (B, width).
        """
        height = maps.shape[2]
        # As adaptive average pooling has it; neighbours share a band where the bins do not divide the bands.
        edges = [(k * height // self.n_bins, -(-(k + 1) * height // self.n_bins)) for k in range(self.n_bins)]
        bins = torch.cat([maps[:, :, low:high].mean(dim=2) for low, high in edges], dim=1)
        if self.over_time is None:
            return self.usual(bins)
        if frames is None:
            valid = torch.full((len(maps),), maps.shape[3], device=maps.device)
        else:
            valid = torch.div(frames + self.step - 1, self.step, rounding_mode="floor")
        pooled: Tensor = self.over_time(bins.transpose(1, 2), valid)
        return pooled


class MapNetwork(nn.Module):
    """A network over (B, 1, bands, frames) that may be told how many of the frames are valid.

    Attributes:
        pooling: None where it pools as it always did.
    """

    pooling: MapPooling | None


def map_pooling(
    channels: int, settings: ModelSettings, step: int, usual: Callable[[Tensor], Tensor]
) -> MapPooling | None:
    """See :class:`MapPooling`; None where the settings ask for nothing."""
    if settings.pooling == "auto" and not settings.frequency_bins:
        return None
    return MapPooling(channels, settings, step, usual)
