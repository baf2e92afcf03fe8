"""EfficientAT's MobileNetV3 (Schmid et al. 2023), pretrained on AudioSet, and the spectrogram it looks at.

The code here is SAMO's own, since importing torchvision takes 1.5 s and 150 MB; weights are those of
github.com/fschmid56/EfficientAT (MIT).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from samo.data.download import RemoteFile
from samo_audio.config import FeatureSettings, ModelSettings
from samo_audio.dft import PowerSpectrum
from samo_audio.features import at_level, stretch
from samo_audio.models.start_weights import load_published

__all__ = ["KaldiMel", "MobileNet"]

SR = 32_000
# What KaldiMel does, by the names of the settings that describe a log-mel spectrogram.
N_MELS, N_FFT, WIN_LENGTH, HOP_LENGTH, FMIN, FMAX = 128, 1024, 800, 320, 0.0, 15_000.0

_RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"
# Only files whose checksum is known: the release names none, these two were hashed by people who had them.
PUBLISHED = {
    "mn04": RemoteFile(
        "mn04_as_mAP_432.pt",
        (_RELEASE + "mn04_as_mAP_432.pt",),
        4_066_513,
        sha256="899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
    ),
    "mn10": RemoteFile(
        "mn10_as_mAP_471.pt",
        (_RELEASE + "mn10_as_mAP_471.pt",),
        19_708_753,
        sha256="0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e",
    ),
}

# MobileNetV3-large (Howard et al. 2019, table 1): channels in, kernel, expanded, out, squeeze-excitation, activation,
# stride.
_BLOCKS = (
    (16, 3, 16, 16, False, "RE", 1),
    (16, 3, 64, 24, False, "RE", 2),
    (24, 3, 72, 24, False, "RE", 1),
    (24, 5, 72, 40, True, "RE", 2),
    (40, 5, 120, 40, True, "RE", 1),
    (40, 5, 120, 40, True, "RE", 1),
    (40, 3, 240, 80, False, "HS", 2),
    (80, 3, 200, 80, False, "HS", 1),
    (80, 3, 184, 80, False, "HS", 1),
    (80, 3, 184, 80, False, "HS", 1),
    (80, 3, 480, 112, True, "HS", 1),
    (112, 3, 672, 112, True, "HS", 1),
    (112, 5, 672, 160, True, "HS", 2),
    (160, 5, 960, 160, True, "HS", 1),
    (160, 5, 960, 160, True, "HS", 1),
)
_EMBEDDING = 1280


class KaldiMel(nn.Module):
    """The features of EfficientAT: natural logarithm of mel power by Kaldi's filters, in the interface of ``LogMel``.

    Pre-emphasis 0.97, a symmetric Hann window of 25 ms every 10 ms, 128 bands from 0 to 15 kHz, ``log(x + 1e-5)``,
    and (x + 4.5) / 5. What lies behind a clip's end is silence, as in the clips that the weights learned from.

    With ``level=active`` the sounding parts of a window are first brought to -23 dB re full scale.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, settings: FeatureSettings) -> None:
        super().__init__()
        from torchaudio.compliance.kaldi import get_mel_banks

        self.settings = settings
        # Made from constants, so no part of a run's weights.
        self.register_buffer("window", torch.hann_window(WIN_LENGTH, periodic=False), persistent=False)
        banks, _ = get_mel_banks(N_MELS, N_FFT, float(SR), FMIN, FMAX, 100.0, -500.0, 1.0)
        self.register_buffer("filters", nn.functional.pad(banks, (0, 1)), persistent=False)
        self.by_matrices: PowerSpectrum | None = None

    def use_matrices(self) -> None:
        """Transform by matrices from here on, as an exported network must."""
        self.by_matrices = PowerSpectrum(N_FFT, HOP_LENGTH, self.window, "reflect")

    def forward(self, waveforms: Tensor, lengths: Tensor, freq_scale: Tensor | None = None) -> Tensor:
        """(B, T) waveforms at 32 kHz to (B, 128, (T - 1) // 320 + 1); see :meth:`LogMel.forward`."""
        waveforms = at_level(waveforms.float(), self.settings)
        sharpened = waveforms[:, 1:] - 0.97 * waveforms[:, :-1]
        if self.by_matrices is not None:
            power: Tensor = self.by_matrices(sharpened)
        else:
            spectrum = torch.stft(
                sharpened, N_FFT, HOP_LENGTH, WIN_LENGTH, self.window, center=True, pad_mode="reflect",
                return_complex=True,
            )  # fmt: skip
            power = spectrum.real**2 + spectrum.imag**2
        if freq_scale is not None:
            power = stretch(power, freq_scale)
        return ((self.filters @ power + 1e-5).log() + 4.5) / 5.0


def _channels(n: float) -> int:
    """The multiple of 8 nearest to ``n``, and not less than 0.9 of it."""
    nearest = max(8, int(n + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * n else nearest + 8


def _convolution(
    n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = None
) -> nn.Sequential:
    """A convolution without bias, batch norm and, where given, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(n_out, eps=1e-3, momentum=0.01),
    ]
    return nn.Sequential(*layers, *([act(inplace=True)] if act else []))


class SqueezeExcitation(nn.Module):
    """A gate in (0, 1) for each channel, from the averages of all (Hu et al. 2018)."""

    def __init__(self, n: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(n, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, n, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, bands, frames), of the same shape."""
        gates: Tensor = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return gates * x


class InvertedResidual(nn.Module):
    """Expand, convolve each channel on its own, gate, project; beside a shortcut where the shape stays."""

    def __init__(
        self, n_in: int, kernel: int, expanded: int, n_out: int, gated: bool, activation: str, stride: int
    ) -> None:
        super().__init__()
        act = nn.Hardswish if activation == "HS" else nn.ReLU
        layers: list[nn.Module] = [] if expanded == n_in else [_convolution(n_in, expanded, 1, act=act)]
        layers.append(_convolution(expanded, expanded, kernel, stride=stride, groups=expanded, act=act))
        if gated:
            layers.append(SqueezeExcitation(expanded, _channels(expanded // 4)))
        self.block = nn.Sequential(*layers, _convolution(expanded, n_out, 1))
        self.has_shortcut = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, bands, frames) to (B, n_out, bands / stride, frames / stride)."""
        y: Tensor = self.block(x)
        if self.has_shortcut:
            y += x
        return y


class MobileNet(nn.Module):
    """MobileNetV3-large of any width on one channel, with sigmoid gates in its squeeze-excitation.

    Batch norm has eps 1e-3 and momentum 0.01. Bands and frames are averaged, then a linear layer, Hardswish, dropout
    and the head. Names of tensors and random start are those of torchvision's MobileNetV3 (BSD-3-Clause): runs trained
    with it load, and a seed gives the same network.
    """

    def __init__(self, n_columns: int, width: float = 1.0, dropout: float = 0.2) -> None:
        super().__init__()
        first, last = _channels(_BLOCKS[0][0] * width), _channels(_BLOCKS[-1][3] * width)
        stem = _convolution(3, first, 3, stride=2, act=nn.Hardswish)
        blocks = [
            InvertedResidual(
                _channels(n_in * width),
                kernel,
                _channels(expanded * width),
                _channels(n_out * width),
                gated,
                act,
                stride,
            )
            for n_in, kernel, expanded, n_out, gated, act, stride in _BLOCKS
        ]
        self.features = nn.Sequential(
            stem,
            *blocks,
            _convolution(last, 6 * last, 1, act=nn.Hardswish),
        )
        n_embedded = _channels(_EMBEDDING * width)
        self.embedding = nn.Sequential(nn.Linear(6 * last, n_embedded), nn.Hardswish(inplace=True))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(n_embedded, n_columns)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        # The stem for three colours was drawn first, as in torchvision, so that a seed gives the same network as ever.
        stem[0] = grey = nn.Conv2d(1, first, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(grey.weight, mode="fan_out")

    def forward(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, bands, frames) to (B, n_columns) logits."""
        return self.head(self.dropout(self.embedding(self.features(spectrogram).mean(dim=(2, 3)))))

    def from_published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of EfficientAT's files, where gates are linear layers, by the names they have here."""
        renamed = {}
        for name, tensor in tensors.items():
            if ".conc_se_layers.0." in name and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
            name = name.replace(".conc_se_layers.0.", ".")
            name = name.replace("classifier.2.", "embedding.0.").replace("classifier.5.", "head.")
            renamed[name] = tensor
        return renamed


def _mobilenet(name: str, width: float, settings: ModelSettings, n_columns: int) -> nn.Module:
    network = MobileNet(n_columns, width, settings.dropout)
    if settings.pretrained:
        load_published(network, PUBLISHED[name])
    return network


mn04 = partial(_mobilenet, "mn04", 0.4)
mn05 = partial(_mobilenet, "mn05", 0.5)
mn10 = partial(_mobilenet, "mn10", 1.0)
mn20 = partial(_mobilenet, "mn20", 2.0)
mn30 = partial(_mobilenet, "mn30", 3.0)
mn40 = partial(_mobilenet, "mn40", 4.0)
