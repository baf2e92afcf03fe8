"""PANNs' Cnn14 and Cnn6 (Kong et al. 2020), pretrained on AudioSet, and the spectrogram they look at.

The code here is SAMO's own; weights are those of Zenodo record 3987831 (CC BY 4.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
import torchaudio
from torch import Tensor, nn

from samo.data.download import RemoteFile
from samo_audio.config import FeatureSettings, ModelSettings
from samo_audio.dft import PowerSpectrum
from samo_audio.features import at_level, stretch
from samo_audio.models.start_weights import load_published

__all__ = ["Panns", "PannsMel"]

SR = 32_000
# What PannsMel does, by the names of the settings that describe a log-mel spectrogram.
N_MELS, N_FFT, HOP_LENGTH, FMIN, FMAX = 64, 1024, 320, 50.0, 14_000.0
# Between features and network decibels are centred, so that a mask of 0 is nothing loud.
MEAN_DB, SD_DB = -30.0, 20.0

_RECORD = "https://zenodo.org/record/3987831/files/"
PUBLISHED = {
    "cnn14": RemoteFile(
        "Cnn14_mAP=0.431.pth", (_RECORD + "Cnn14_mAP%3D0.431.pth",), 0, md5="541141fa2ee191a88f24a3219fff024e"
    ),
    "cnn6": RemoteFile(
        "Cnn6_mAP=0.343.pth", (_RECORD + "Cnn6_mAP%3D0.343.pth",), 0, md5="e25e26b84585b14c7754c91e48efc9be"
    ),
}


class PannsMel(nn.Module):
    """The features of PANNs: mel power in dB, slaney's filters from 50 Hz to 14 kHz, in the interface of ``LogMel``.

    They are (dB + 30) / 20, which the network undoes: it normalises bands of decibels by its first batch norm. What
    lies behind a clip's end is silence (-100 dB), as in the clips that the weights learned from.

    With ``level=active`` the sounding parts of a window are first brought to -23 dB re full scale.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, settings: FeatureSettings) -> None:
        super().__init__()
        self.settings = settings
        filters = torchaudio.functional.melscale_fbanks(
            N_FFT // 2 + 1, FMIN, FMAX, N_MELS, SR, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)
        self.by_matrices: PowerSpectrum | None = None

    def use_matrices(self) -> None:
        """Transform by matrices from here on, as an exported network must."""
        self.by_matrices = PowerSpectrum(N_FFT, HOP_LENGTH, self.window, "reflect")

    def forward(self, waveforms: Tensor, lengths: Tensor, freq_scale: Tensor | None = None) -> Tensor:
        """(B, T) waveforms at 32 kHz to (B, 64, T // 320 + 1); see :meth:`LogMel.forward`."""
        waveforms = at_level(waveforms.float(), self.settings)
        if self.by_matrices is not None:
            power: Tensor = self.by_matrices(waveforms)
        else:
            spectrum = torch.stft(
                waveforms, N_FFT, HOP_LENGTH, N_FFT, self.window, center=True, pad_mode="reflect", return_complex=True
            )
            power = spectrum.real**2 + spectrum.imag**2
        if freq_scale is not None:
            power = stretch(power, freq_scale)
        return (10.0 * (self.filters @ power).clamp(min=1e-10).log10() - MEAN_DB) / SD_DB


class Panns(nn.Module):
    """Blocks of convolution, batch norm and ReLU, each halved by mean pooling; bands averaged, frames averaged and
    their maximum added; a hidden layer and the head.

    PANNs' own dropout inside the blocks is left out: there is one, before the last two layers.
    """

    def __init__(
        self, n_columns: int, channels: Sequence[int], kernel: int, halved: int, dropout: float, n_bands: int = N_MELS
    ) -> None:
        """Make the layers.

        Args:
            n_columns: logits.
            channels: of each block.
            kernel: 3 for blocks of two 3x3 convolutions, 5 for those of one 5x5.
            halved: blocks that are pooled, from the first.
            dropout: share of units.
            n_bands: mel bands.
        """
        super().__init__()
        self.bn0 = nn.BatchNorm2d(n_bands)
        self.n_blocks, self.halved = len(channels), halved
        for number, (before, after) in enumerate(pairwise([1, *channels]), start=1):
            self.add_module(f"conv_block{number}", _Block(before, after, kernel))
        self.fc1 = nn.Linear(channels[-1], channels[-1])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], n_columns)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, bands, frames) to (B, n_columns) logits."""
        # Maps are (frames, bands) here, and batch norm is by band.
        decibels = spectrogram * SD_DB + MEAN_DB
        maps = self.bn0(decibels.transpose(1, 2)).transpose(1, 2).transpose(2, 3)
        for number in range(1, self.n_blocks + 1):
            maps = self.get_submodule(f"conv_block{number}")(maps)
            if number <= self.halved:
                maps = nn.functional.avg_pool2d(maps, 2)
        frames = maps.mean(dim=3)
        pooled = self.dropout(frames.amax(dim=2) + frames.mean(dim=2))
        return self.head(self.dropout(nn.functional.relu(self.fc1(pooled))))

    def from_published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of PANNs' files by the names they have here; the filters among them are of no use."""
        return {
            name.replace("fc_audioset.", "head."): tensor
            for name, tensor in tensors.items()
            if not name.startswith(("spectrogram_extractor.", "logmel_extractor."))
        }


class _Block(nn.Module):
    """One 5x5 convolution or two 3x3 ones, each with batch norm and ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.has_two = kernel == 3
        if self.has_two:
            self.conv2 = nn.Conv2d(n_out, n_out, kernel, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, maps: Tensor) -> Tensor:
        maps = nn.functional.relu_(self.bn1(self.conv1(maps)))
        return nn.functional.relu_(self.bn2(self.conv2(maps))) if self.has_two else maps


def _panns(
    name: str, channels: Sequence[int], kernel: int, halved: int, settings: ModelSettings, n_columns: int
) -> nn.Module:
    network = Panns(n_columns, channels, kernel, halved, settings.dropout)
    if settings.pretrained:
        load_published(network, PUBLISHED[name])
    return network


cnn14 = partial(_panns, "cnn14", (64, 128, 256, 512, 1024, 2048), 3, 5)
cnn6 = partial(_panns, "cnn6", (64, 128, 256, 512), 5, 4)
