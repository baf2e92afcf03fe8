"""A small convolutional network: four blocks, pooled over band and time."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from samo_audio.config import ModelSettings
from samo_audio.models.maps import MapNetwork, MapPooling, map_pooling

__all__ = ["SmallCnn", "small_cnn"]


# Four times every second frame.
_FRAMES_PER_MAP = 16


class SmallCnn(MapNetwork):
    """Four blocks of 3x3 convolution, batch norm, ReLU and 2x2 max-pooling; channels double from ``width``.

    Bands are averaged, frames are averaged and their maximum is added, as in PANNs' Cnn14 (Kong et al. 2020): a mean
    alone lets a short strong cue drown in a long clip. ``pooling`` takes the place of both.
    """

    def __init__(
        self,
        n_columns: int,
        width: int = 32,
        use_bn: bool = True,
        dropout: float = 0.3,
        pooling: MapPooling | None = None,
    ) -> None:
        super().__init__()
        channels = [1, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(*(_block(before, after, use_bn) for before, after in pairwise(channels)))
        self.dropout = nn.Dropout(dropout)
        self.pooling = pooling
        self.head = nn.Linear(pooling.width if pooling else channels[-1], n_columns)

    def forward(self, spectrogram: Tensor, frames: Tensor | None = None) -> Tensor:
        """(B, 1, bands, frames) to (B, n_columns) logits; at least 16 bands and 16 frames, (B,) of them valid."""
        maps = self.blocks(spectrogram)
        pooled = _mean_and_max(maps.mean(dim=2)) if self.pooling is None else self.pooling(maps, frames)
        return self.head(self.dropout(pooled))


def small_cnn(settings: ModelSettings, n_columns: int) -> nn.Module:
    """Build from settings."""
    pooling = map_pooling(8 * settings.width, settings, _FRAMES_PER_MAP, _mean_and_max)
    return SmallCnn(n_columns, settings.width, settings.use_bn, settings.dropout, pooling)


def _mean_and_max(maps: Tensor) -> Tensor:
    """(B, W, T) to (B, W)."""
    return maps.mean(dim=2) + maps.amax(dim=2)


def _block(n_in: int, n_out: int, use_bn: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(n_in, n_out, 3, padding=1, bias=not use_bn)]
    if use_bn:
        layers.append(nn.BatchNorm2d(n_out))
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.MaxPool2d(2))
