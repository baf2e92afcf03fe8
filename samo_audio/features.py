"""Waveform to normalised log-mel spectrogram, inside the model and on its device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from samo.data.batch import Batch
from samo.errors import SettingsError
from samo_audio.audio_io import SILENT_PEAK
from samo_audio.config import FeatureSettings
from samo_audio.dft import PowerSpectrum
from samo_audio.pcen import pcen

__all__ = ["LogMel", "at_level", "band_statistics", "n_frames", "stretch", "to_active_level", "to_peak"]

# Added to the power: a soft floor at -60 dB, above the noise of recording rooms and below quiet speech.
FLOOR_POWER = 1e-6
# Where `level=active` brings the sounding parts of a window, in dB re full scale. It decides how far below them the
# floor lies: with default features, white noise weaker by 22 dB has the floor's power. Measured, see
# artifacts/reports/level/results.md; runs are trained with it, so it stays.
ACTIVE_DB = -50.0
# The same for networks pretrained on recordings at their own level, where most of these lie.
PRETRAINED_DB = -23.0
# A window without a sound above this, in dB re full scale, holds noise alone: it is raised like one of this level.
SILENT_DB = -80.0
# Seconds of a frame whose power is measured; they overlap by half.
LEVEL_FRAME_S = 0.04
# Centre and spread of log-mel power in dB, and of PCEN, over speech recordings; only their order of magnitude matters.
FIXED = {"log": (-30.0, 20.0), "pcen": (0.5, 0.6)}


def n_frames(lengths: Tensor, hop_length: int) -> Tensor:
    """Frames of centred analysis that start within the valid samples: ``lengths // hop + 1``."""
    return lengths // hop_length + 1


class LogMel(nn.Module):
    """Log-mel power in dB (Davis & Mermelstein 1980; mel formulas as in librosa), or PCEN, normalised.

    With ``level=active`` a window is first scaled by :func:`to_active_level`: the floor added to the power then lies
    at one distance below its sounding parts, however loud it was recorded.

    Normalisation ``train`` uses mean and standard deviation per band found on the training split, ``clip`` removes
    the mean of the clip's own valid frames, ``fixed`` uses constants, ``speaker`` those that are given.
    Frames beyond a clip's end become exactly 0, the mean, so that padding says nothing.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, settings: FeatureSettings) -> None:
        """Make the filters.

        Raises:
            SettingsError: no filter reaches a bin of the FFT.
        """
        super().__init__()
        import torchaudio

        self.settings = settings
        with warnings.catch_warnings():
            # 128 bands on a 1024-point FFT leave some of the lowest filters empty: constant bands, harmless.
            warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
            self.mel = torchaudio.transforms.MelSpectrogram(
                sample_rate=settings.sr,
                n_fft=settings.n_fft,
                win_length=settings.win_length or settings.n_fft,
                hop_length=settings.hop_length,
                f_min=settings.fmin,
                f_max=settings.fmax or settings.sr / 2,
                n_mels=settings.n_mels,
                mel_scale=settings.mel_scale,
                norm="slaney" if settings.mel_scale == "slaney" else None,
                power=None,
            )
        if not self.mel.mel_scale.fb.any():
            raise SettingsError(
                f"no mel filter between `fmin` and `fmax` reaches one of the {settings.n_fft // 2 + 1} FFT bins",
                hint="widen the range, or raise `n_fft`",
            )
        mean, self.spread = FIXED[settings.compression]
        self.register_buffer("mean", torch.full((settings.n_mels,), mean))
        self.register_buffer("sd", torch.full((settings.n_mels,), self.spread))
        self.by_matrices: PowerSpectrum | None = None

    def use_matrices(self) -> None:
        """Transform by matrices from here on, as an exported network must."""
        n_fft, hop = self.settings.n_fft, self.settings.hop_length
        self.by_matrices = PowerSpectrum(n_fft, hop, self.mel.spectrogram.window, "reflect")

    def forward(
        self, waveforms: Tensor, lengths: Tensor, freq_scale: Tensor | None = None, speaker: Tensor | None = None
    ) -> Tensor:
        """Normalised log-mel spectrogram.

        Args:
            waveforms: (B, T) float32, zero-padded.
            lengths: (B,) int64 valid samples.
            freq_scale: (B,) factors; what lay at f Hz comes to lie at f / factor Hz. None = 1.
            speaker: (B, 2 * n_mels) mean and sd per band of each row's speaker, for ``normalisation=speaker`` alone.

        Returns:
            (B, n_mels, frames) float32, zero beyond each clip's end.
        """
        level = self.compressed(self.levelled(waveforms), freq_scale)
        frames = n_frames(lengths, self.settings.hop_length)
        valid = torch.arange(level.shape[-1], device=level.device)[None, :] < frames[:, None]
        valid = valid[:, None, :].to(level.dtype)
        if self.settings.normalisation == "clip":
            count = valid.sum(dim=(1, 2), keepdim=True) * level.shape[1]
            centred = (level - (level * valid).sum(dim=(1, 2), keepdim=True) / count) / self.spread
        elif speaker is not None:
            mean, sd = speaker[:, :, None].chunk(2, dim=1)
            centred = (level - mean) / sd
        else:
            centred = (level - self.mean[None, :, None]) / self.sd[None, :, None]
        return centred * valid

    def levelled(self, waveforms: Tensor) -> Tensor:
        """(B, T) waveforms at the level the settings ask for."""
        if self.settings.level == "peak":
            return to_peak(waveforms)
        return to_active_level(waveforms, self.settings.sr) if self.settings.level == "active" else waveforms

    def compressed(self, waveforms: Tensor, freq_scale: Tensor | None = None) -> Tensor:
        """(B, T) waveforms to (B, n_mels, frames): decibels, or :func:`samo_audio.pcen.pcen`."""
        if self.settings.compression == "log":
            return self.decibels(waveforms, freq_scale)
        mel: Tensor = self.mel.mel_scale(self.power(waveforms, freq_scale).sqrt())
        return pcen(mel, self.settings.sr, self.settings.hop_length)

    def decibels(self, waveforms: Tensor, freq_scale: Tensor | None = None) -> Tensor:
        """(B, T) waveforms to (B, n_mels, frames) mel power in dB above a soft floor of -60 dB."""
        return 10.0 * torch.log10(self.mel_power(waveforms, freq_scale) + FLOOR_POWER)

    def mel_power(self, waveforms: Tensor, freq_scale: Tensor | None = None) -> Tensor:
        """(B, T) waveforms to (B, n_mels, frames) mel power."""
        mel: Tensor = self.mel.mel_scale(self.power(waveforms, freq_scale))
        return mel

    def power(self, waveforms: Tensor, freq_scale: Tensor | None = None) -> Tensor:
        """(B, T) waveforms to (B, n_fft // 2 + 1, frames) power."""
        if self.by_matrices is not None:
            power: Tensor = self.by_matrices(waveforms.float())
        else:
            spectrum = self.mel.spectrogram(waveforms.float())
            # The absolute value, to be squared again, would take a root: a third of all the time of the features.
            power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
        return power if freq_scale is None else stretch(power, freq_scale)


def to_peak(waveforms: Tensor) -> Tensor:
    """Scale each waveform so that its largest sample is at full scale.

    What stays below -80 dB is taken for noise of a silent recording, and raised by 80 dB and no more.

    Args:
        waveforms: (B, T) float32.

    Returns:
        (B, T) float32 in [-1, 1]; zeros stay zeros.
    """
    waveforms = waveforms.float()
    return waveforms / waveforms.abs().amax(dim=1, keepdim=True).clamp(min=SILENT_PEAK)


def to_active_level(waveforms: Tensor, sr: int) -> Tensor:
    """Scale each waveform so that its sounding parts have a level of -50 dB re full scale.

    Their level is the mean of the power of frames of 40 ms, weighted by that same power. Silence has no weight, so
    that neither padding nor pauses change it, as in the active speech level of ITU-T P.56. What lies below -80 dB is
    raised by 30 dB and no more.

    Args:
        waveforms: (B, T) float32, zero-padded.
        sr: their rate in Hz.

    Returns:
        (B, T) float32; zeros stay zeros.
    """
    waveforms = waveforms.float()
    frame, hop = round(LEVEL_FRAME_S * sr), round(LEVEL_FRAME_S * sr / 2)
    # A frame of zeros behind the end, so that the last samples count alike whether or not padding follows.
    power = nn.functional.pad(waveforms**2, (0, frame))
    power = nn.functional.avg_pool1d(power[:, None], frame, hop)[:, 0]
    lowest = 10.0 ** (SILENT_DB / 10.0)
    active = (power**2).sum(dim=1) / power.sum(dim=1).clamp(min=1e-30)
    gain = (10.0 ** (ACTIVE_DB / 10.0) / active.clamp(min=lowest)).sqrt()
    return waveforms * gain[:, None]


def at_level(waveforms: Tensor, settings: FeatureSettings) -> Tensor:
    """(B, T) waveforms for a pretrained network: with ``level=active`` their sounding parts at -23 dB re full scale."""
    if settings.level == "peak":
        return to_peak(waveforms)
    if settings.level != "active":
        return waveforms
    return to_active_level(waveforms, settings.sr) * 10.0 ** ((PRETRAINED_DB - ACTIVE_DB) / 20.0)


def stretch(power: Tensor, scale: Tensor) -> Tensor:
    """Read (B, F, frames) power at frequencies multiplied by (B,) ``scale``, linearly interpolated."""
    n_bins, n_times = power.shape[1], power.shape[2]
    wanted = torch.arange(n_bins, device=power.device)[None, :] * scale[:, None].to(power.dtype)
    wanted = wanted.clamp(max=n_bins - 1.001)
    low = wanted.long()
    share = (wanted - low)[:, :, None]
    index = low[:, :, None].expand(-1, -1, n_times)
    return power.gather(1, index) * (1.0 - share) + power.gather(1, index + 1) * share


def band_statistics(settings: FeatureSettings, batches: Iterator[Batch]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each mel band over all valid frames, each (n_mels,); in dB, or of PCEN."""
    features = LogMel(settings)
    total = torch.zeros(3, settings.n_mels, dtype=torch.float64)
    for batch in batches:
        level = features.compressed(features.levelled(batch.inputs)).double()
        frames = n_frames(batch.lengths, settings.hop_length)
        valid = (torch.arange(level.shape[-1])[None, :] < frames[:, None]).double()[:, None, :]
        total += torch.stack(
            [(level * valid).sum((0, 2)), (level**2 * valid).sum((0, 2)), valid.sum().expand(settings.n_mels)]
        )
    mean = total[0] / total[2]
    variance = (total[1] / total[2] - mean**2).clamp(min=0.0)
    # A band without energy has no spread; dividing by it would blow up rounding errors.
    return mean.float(), variance.sqrt().clamp(min=features.spread / 20.0).float()
