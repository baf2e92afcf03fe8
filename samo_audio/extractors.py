"""What encoders of speech look at, as ``transformers`` makes it for them: inside the model, batched, on its device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from samo.encoders.pooling import valid_positions
from samo_audio.dft import PowerSpectrum

__all__ = ["FACTS", "StandardWaveform", "WhisperMel"]

# What of a ``preprocessor_config.json`` decides the features.
FACTS = (
    *("feature_extractor_type", "sampling_rate", "feature_size", "n_fft", "hop_length"),
    *("do_normalize", "return_attention_mask"),
)
# As in transformers.WhisperFeatureExtractor.
_LEAST_POWER, _DECADES = 1e-10, 8.0
_HIGHEST_MEL_HZ = 8000.0
# As in transformers.Wav2Vec2FeatureExtractor.
_LEAST_VARIANCE = 1e-7


class WhisperMel(nn.Module):
    """Log-mel spectrogram of Whisper (Radford et al. 2023), as ``transformers.WhisperFeatureExtractor`` makes it.

    The logarithm of mel power is cut eight decades below the largest value of the whole window.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, facts: Mapping[str, Any]) -> None:
        """``facts`` are those of :data:`FACTS`."""
        super().__init__()
        from transformers.audio_utils import mel_filter_bank

        self.n_fft, self.hop_length = int(facts["n_fft"]), int(facts["hop_length"])
        filters = mel_filter_bank(
            num_frequency_bins=1 + self.n_fft // 2,
            num_mel_filters=int(facts["feature_size"]),
            min_frequency=0.0,
            max_frequency=_HIGHEST_MEL_HZ,
            sampling_rate=int(facts["sampling_rate"]),
            norm="slaney",
            mel_scale="slaney",
        )
        # The settings make them again, so a run's weights do not carry them.
        self.register_buffer("filters", torch.from_numpy(filters.T.copy()).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        self.by_matrices: PowerSpectrum | None = None

    def use_matrices(self) -> None:
        """Transform by matrices from here on, as an exported network must."""
        self.by_matrices = PowerSpectrum(self.n_fft, self.hop_length, self.window, "reflect")

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) float32 waveforms, zero-padded to a multiple of the hop, to (B, bands, T / hop) float32."""
        if self.by_matrices is not None:
            power: Tensor = self.by_matrices(waveforms)[..., :-1]
        else:
            spectrum = torch.stft(waveforms, self.n_fft, self.hop_length, window=self.window, return_complex=True)
            power = (spectrum[..., :-1].abs() ** 2).contiguous()
        level = (self.filters @ power).clamp(min=_LEAST_POWER).log10()
        level = torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - _DECADES)
        return (level + 4.0) / 4.0


class StandardWaveform(nn.Module):
    """The waveform itself, as ``transformers.Wav2Vec2FeatureExtractor`` gives it.

    With ``do_normalize`` the valid samples of each row have mean 0 and variance 1.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        """``facts`` are those of :data:`FACTS`."""
        super().__init__()
        self.normalise = bool(facts.get("do_normalize", True))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) float32 zero-padded waveforms of (B,) valid samples, the shape is kept; padding stays zero."""
        if not self.normalise:
            return waveforms
        valid = valid_positions(waveforms.shape[1], lengths)
        count = lengths.clamp(min=1)[:, None]
        centred = (waveforms - (waveforms * valid).sum(dim=1, keepdim=True) / count) * valid
        variance = (centred**2).sum(dim=1, keepdim=True) / count
        return centred / (variance + _LEAST_VARIANCE).sqrt()


def padded_to(waveforms: Tensor, n_samples: int) -> Tensor:
    """(B, T) waveforms with zeros behind, or without what is too much."""
    behind = waveforms.new_zeros(waveforms.shape[0], n_samples)
    return torch.cat([waveforms, behind], dim=1)[:, :n_samples]
