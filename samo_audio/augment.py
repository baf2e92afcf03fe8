"""Augmentation of waveforms and spectrograms: batched, drawn per row from the row's own random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from samo.data.batch import Draws
from samo.errors import DataError
from samo_audio.audio_io import is_audio, is_recording, read
from samo_audio.config import AugmentSettings
from samo_audio.datasets.listing import clips_below, left_out
from samo_audio.problems import FORMAT_HINT

__all__ = [
    "SpecAugment",
    "WaveAugment",
    "copy_speeds",
    "freq_scale",
    "noise_notes",
    "pink_noise",
    "read_noise",
    "speed_factors",
]

NOISE_SECONDS = 30


class SpecAugment(nn.Module):
    """Mask bands and frames of a normalised spectrogram with 0, its mean (Park et al. 2019, without time warping)."""

    def __init__(self, settings: AugmentSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, spectrogram: Tensor, draws: Draws) -> Tensor:
        """Mask (B, bands, frames), or (B, channels, bands, frames) in all channels alike.

        Widths are uniform in 0 .. the largest mask, inclusive.
        """
        for k in range(self.settings.specaug_masks):
            for axis, name, largest in (
                (-2, f"mask-freq-{k}", self.settings.specaug_freq),
                (-1, f"mask-time-{k}", self.settings.specaug_time),
            ):
                kept = _kept(draws, name, spectrogram.shape[axis], largest, axis).to(spectrogram.device)
                spectrogram = spectrogram * (kept if spectrogram.ndim == 3 else kept[:, None])
        return spectrogram


class WaveAugment(nn.Module):
    """Time shift, gain and background noise on zero-padded waveforms; each only when its setting asks for it."""

    noise: Tensor

    def __init__(self, settings: AugmentSettings, sr: int, noise: np.ndarray | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.sr = sr
        bank = noise if noise is not None else pink_noise(NOISE_SECONDS * sr) if settings.noise else np.zeros(0)
        # Kept out of the state dict: augmentation is no part of a published model.
        self.register_buffer("noise", torch.from_numpy(bank.astype(np.float32)), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
        """Augment (B, T) waveforms of valid ``lengths``; what lies beyond a clip's end stays zero."""
        settings = self.settings
        if settings.time_shift > 0.0:
            waveforms = self._shift(waveforms, lengths, draws)
        if settings.gain > 0.0:
            gain_db = draws.between("gain", -settings.gain, settings.gain)
            waveforms = waveforms * _column(10.0 ** (gain_db / 20.0), waveforms)
        if settings.noise:
            waveforms = self._add_noise(waveforms, lengths, draws)
        return waveforms

    def _shift(self, waveforms: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
        """Move each row by up to ``time_shift`` seconds either way; what leaves the clip is lost, zeros come in."""
        most = self.settings.time_shift * self.sr
        shift = torch.from_numpy(np.rint(draws.between("shift", -most, most)).astype(np.int64)).to(waveforms.device)
        n = waveforms.shape[1]
        place = torch.arange(n, device=waveforms.device)[None, :]
        source = place - shift[:, None]
        inside = (source >= 0) & (source < n) & (place < lengths[:, None])
        return waveforms.gather(1, source.clamp(0, n - 1)) * inside

    def _add_noise(self, waveforms: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
        """Add a random stretch of the noise bank at a signal-to-noise ratio in dB drawn per row."""
        n = waveforms.shape[1]
        starts = draws.integers("noise-start", np.full(len(draws.rows), len(self.noise)))
        index = torch.from_numpy(starts)[:, None].to(waveforms.device) + torch.arange(n, device=waveforms.device)
        noise = self.noise[index % len(self.noise)]
        valid = (torch.arange(n, device=waveforms.device)[None, :] < lengths[:, None]).to(waveforms.dtype)
        noise = noise * valid
        count = lengths.clamp(min=1)[:, None]
        signal_power = (waveforms**2).sum(dim=1, keepdim=True) / count
        noise_power = ((noise**2).sum(dim=1, keepdim=True) / count).clamp(min=1e-20)
        snr_db = draws.between("noise-snr", self.settings.noise_snr_min, self.settings.noise_snr_max)
        wanted = signal_power / _column(10.0 ** (snr_db / 10.0), waveforms)
        return waveforms + noise * (wanted / noise_power).sqrt()


def freq_scale(settings: AugmentSettings, draws: Draws) -> Tensor | None:
    """(B,) factors for the frequency axis (vocal tract length perturbation); None when it is off."""
    if settings.freq_warp <= 0.0:
        return None
    drawn = draws.between("freq-warp", 1.0 - settings.freq_warp, 1.0 + settings.freq_warp)
    return torch.from_numpy(drawn.astype(np.float32))


def speed_factors(settings: AugmentSettings, draws: Draws) -> np.ndarray | None:
    """(B,) factors on the speed, exp(U(-speed, speed)); None when it is off."""
    if settings.speed <= 0.0:
        return None
    return np.exp(draws.between("speed", -settings.speed, settings.speed))


def copy_speeds(settings: AugmentSettings) -> tuple[float, ...]:
    """Factors on the speed of a frozen encoder's copies, exp(+-speed * k / steps) for k from 1 on, slow ones first."""
    steps = settings.speed_steps
    return tuple(float(np.exp(settings.speed * k / steps)) for k in range(-steps, steps + 1) if k)


def pink_noise(n_samples: int) -> np.ndarray:
    """(n_samples,) float32 noise whose power falls by 3 dB an octave, standard deviation 1; always the same."""
    spectrum = np.fft.rfft(np.random.Generator(np.random.PCG64(20180516)).standard_normal(n_samples))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0.0
    noise = np.fft.irfft(spectrum, n_samples)
    scaled: np.ndarray = (noise / noise.std()).astype(np.float32)
    return scaled


def read_noise(root: Path, sr: int) -> np.ndarray:
    """All recordings below ``root`` one behind the other, each scaled to standard deviation 1.

    Raises:
        DataError: the folder holds no sound, or cannot be read.
    """
    files, others = _noise_files(root)
    clips = [read(root / path, sr).waveform for path in files]
    loud = [clip / clip.std() for clip in clips if len(clip) and clip.std() > 0]
    if not loud:
        raise DataError(f"`noise_root={root}`: no audible recordings in there", hint=FORMAT_HINT if others else "")
    return np.concatenate(loud)


def noise_notes(root: Path) -> tuple[str, ...]:
    """The note on recordings below ``root`` that :func:`read_noise` leaves out, as it cannot read their format.

    Raises:
        DataError: the folder cannot be read.
    """
    return left_out(_noise_files(root)[1], root)


def _noise_files(root: Path) -> tuple[list[str], list[str]]:
    """Recordings below ``root`` that can be read, and those in other formats."""
    found = clips_below(root, is_recording) if root.is_dir() else []
    return [path for path in found if is_audio(Path(path))], [path for path in found if not is_audio(Path(path))]


def _kept(draws: Draws, name: str, size: int, largest: int, axis: int) -> Tensor:
    """A 0/1 mask, (B, size, 1) or (B, 1, size)."""
    uniform = draws.uniform(name, 2)
    width = np.floor(uniform[:, 0] * (min(largest, size) + 1))
    start = np.floor(uniform[:, 1] * (size - width + 1))
    position = np.arange(size)[None, :]
    kept = ~((position >= start[:, None]) & (position < (start + width)[:, None]))
    mask = torch.from_numpy(kept.astype(np.float32))
    return mask[:, :, None] if axis == -2 else mask[:, None, :]


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))[:, None].to(like.device)
