"""What a clip sounds like as a few hundred numbers: statistics over time, inside the model and on its device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samo.errors import EnvironmentProblem
from samo_audio.dft import Autocorrelation, PowerSpectrum, frames_of
from samo_audio.features import n_frames, to_active_level, to_peak

if TYPE_CHECKING:
    from samo_audio.config import FeatureSettings

__all__ = ["EGEMAPS_LICENCE", "EgemapsFunctionals", "LevelFunctionals", "SpectrumFunctionals", "build_functionals"]

EGEMAPS_LICENCE = (
    "eGeMAPS is computed by openSMILE, whose licence allows private, research and educational use and forbids products"
)
# Seconds of a frame, and between frames.
FRAME_S, PITCH_FRAME_S, HOP_S = 0.025, 0.04, 0.01
N_MELS, LOWEST_HZ, HIGHEST_HZ = 40, 50.0, 8000.0
# Added to powers, -80 dB; the sounding parts of a window lie at -50 dB, see `to_active_level`.
FLOOR_POWER = 1e-8
# A frame sounds when its level is at most so many dB below that of the loudest tenth of its clip.
SOUNDING_DB = 20.0
PITCH_HZ = (60.0, 500.0)
# Least height of the autocorrelation of a voiced frame (Boersma 1993).
VOICED = 0.5
QUANTILES = (0.1, 0.5, 0.9)
_ROWS_AT_ONCE = 8


class SpectrumFunctionals(nn.Module):
    """Statistics of log-mel power, its slope, level, pitch and rate over the sounding frames of a clip.

    Mean, standard deviation and the 10th, 50th and 90th percentile of 40 mel bands, of their slopes over five frames
    (without the median), of the level around its mean, and of the pitch of voiced frames (autocorrelation over that of
    its window, Boersma 1993); the share of sounding and of voiced frames, sounding seconds, and onsets a second.

    With ``level=active`` (see :class:`FeatureSettings`) no number depends on how loud a clip was recorded; otherwise
    its level is one more.
    """

    fbank: Tensor
    window: Tensor
    pitch_window: Tensor

    def __init__(self, settings: FeatureSettings) -> None:
        super().__init__()
        import torchaudio

        self.sr, self.level = settings.sr, settings.level
        self.hop = max(1, round(HOP_S * self.sr))
        self.frame, self.pitch_frame = round(FRAME_S * self.sr), round(PITCH_FRAME_S * self.sr)
        self.n_fft = 2 ** math.ceil(math.log2(self.frame))
        highest = min(HIGHEST_HZ, self.sr / 2)
        bank = torchaudio.functional.melscale_fbanks(
            self.n_fft // 2 + 1, LOWEST_HZ, highest, N_MELS, self.sr, norm="slaney", mel_scale="slaney"
        )
        # All of it follows from the settings, so that a run's weights do not carry it.
        self.register_buffer("fbank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(self.frame), persistent=False)
        self.register_buffer("pitch_window", torch.hann_window(self.pitch_frame), persistent=False)
        self.by_matrices: PowerSpectrum | None = None
        self.lags_by_matrices: Autocorrelation | None = None

    def use_matrices(self) -> None:
        """Transform by matrices from here on, all rows at once, as an exported network must."""
        self.by_matrices = PowerSpectrum(self.n_fft, self.hop, self.window, "constant")
        self.lags_by_matrices = Autocorrelation(self.pitch_frame, self._lags[1])

    @property
    def _lags(self) -> tuple[int, int]:
        """The shortest and the longest period in samples that is looked for."""
        return int(self.sr / PITCH_HZ[1]), min(int(self.sr / PITCH_HZ[0]), self.pitch_frame * 3 // 4)

    @property
    def width(self) -> int:
        """D, how many numbers describe a clip."""
        return 9 * N_MELS + 18 + (1 if self.level == "as-is" else 0)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) float32 waveforms, zero-padded, and (B,) valid samples to (B, D) numbers."""
        if self.by_matrices is not None:
            return self._of(waveforms, lengths)
        rows = zip(waveforms.split(_ROWS_AT_ONCE), lengths.split(_ROWS_AT_ONCE), strict=True)
        return torch.cat([self._of(some[:, : int(n.max())], n) for some, n in rows])

    def _of(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        loudness = _rms_db(waveforms, lengths)
        if self.level == "active":
            waveforms = to_active_level(waveforms, self.sr)
        elif self.level == "peak":
            waveforms = to_peak(waveforms)
        power = self._power(waveforms)
        frames, places = n_frames(lengths, self.hop)[:, None], torch.arange(power.shape[2], device=power.device)
        valid = places < frames
        # Behind its end a clip goes on as it ended, so that slopes there do not see the padding.
        power = power.gather(2, torch.minimum(places, frames - 1)[:, None].expand(power.shape))
        mel = 10.0 * torch.log10((self.fbank.T @ power) + FLOOR_POWER)
        # By Parseval the mean power of the frame's samples.
        total = power.sum(dim=1, keepdim=True) * 2.0 / (self.n_fft * (self.window**2).sum())
        level = 10.0 * torch.log10(total + FLOOR_POWER)
        top = _quantiles(level, valid, (0.9,))
        sounding = valid & (level >= top - SOUNDING_DB)[:, 0]
        seconds = sounding.sum(dim=1, keepdim=True) * HOP_S
        pitch, voicing = self._pitch(waveforms, power.shape[2])
        voiced = sounding & (voicing > VOICED)
        contour, slope = level - _mean(level, sounding)[:, :, None], _slope(level)
        parts = [
            _statistics(mel, sounding),
            _spread(_slope(mel), sounding),
            _spread(contour, sounding),
            _spread(slope, sounding),
            _statistics(pitch[:, None], voiced),
            _share(voiced, sounding),
            _mean(voicing[:, None], sounding),
            _share(sounding, valid),
            torch.log(seconds + HOP_S),
            _onsets(level[:, 0], sounding, valid) / (seconds + HOP_S),
        ]
        if self.level == "as-is":
            parts.append(loudness)
        return torch.cat(parts, dim=1)

    def _power(self, waveforms: Tensor) -> Tensor:
        """(B, bins, frames), each frame centred on a multiple of the hop; what lies outside a clip is silent."""
        if self.by_matrices is not None:
            power: Tensor = self.by_matrices(waveforms)
            return power
        spectrum = torch.stft(
            waveforms,
            self.n_fft,
            self.hop,
            self.frame,
            self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.abs() ** 2

    def _pitch(self, waveforms: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """(B, frames) semitones above 100 Hz, and the height of the peak they stand for, in about [0, 1]."""
        half, size = self.pitch_frame // 2, 2 ** math.ceil(math.log2(2 * self.pitch_frame))
        padded, (shortest, longest) = F.pad(waveforms, (half, self.pitch_frame)), self._lags
        if self.lags_by_matrices is not None:
            chunks = frames_of(padded, self.pitch_frame, self.hop)[:, :frames]
        else:
            chunks = padded.unfold(1, self.pitch_frame, self.hop)[:, :frames]
        chunks = (chunks - chunks.mean(dim=2, keepdim=True)) * self.pitch_window
        if self.lags_by_matrices is not None:
            lags, own = self.lags_by_matrices(chunks), self.lags_by_matrices(self.pitch_window)
        else:
            lags = torch.fft.irfft(torch.fft.rfft(chunks, size).abs() ** 2)
            own = torch.fft.irfft(torch.fft.rfft(self.pitch_window, size).abs() ** 2)
        # Zeros have no pitch: the floor keeps 0 / 0 at 0.
        height = lags[..., shortest : longest + 1] / lags[..., :1].clamp(min=1e-12)
        height = height / (own[shortest : longest + 1] / own[0])
        inner = height[..., 1:-1]
        height = torch.where((inner >= height[..., :-2]) & (inner >= height[..., 2:]), inner, -torch.ones_like(inner))
        # Of peaks alike the higher pitch: every multiple of a period is one too.
        cost = 0.05 * torch.linspace(0.0, 1.0, height.shape[-1], device=height.device)
        best = (height - cost).argmax(dim=-1, keepdim=True)
        hertz = self.sr / (best[..., 0] + shortest + 1).to(waveforms.dtype)
        return 12.0 * torch.log2(hertz / 100.0), height.gather(-1, best)[..., 0]


class LevelFunctionals(nn.Module):
    """How loud and how long a recording is, and nothing of what is heard in it.

    Level, peak and noise (the 10th percentile over 10 ms) in dB, log seconds, and the squares of the four, so that a
    class between two others is found too.
    """

    def __init__(self, settings: FeatureSettings) -> None:
        super().__init__()
        self.sr = settings.sr
        self.hop = max(1, round(HOP_S * self.sr))
        self.by_matrices = False

    def use_matrices(self) -> None:
        """Avoid from here on what does not export."""
        self.by_matrices = True

    @property
    def width(self) -> int:
        """D."""
        return 8

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) float32 waveforms, zero-padded, and (B,) valid samples to (B, 8) numbers of about 1."""
        waveforms = waveforms.float()
        padded = F.pad(waveforms**2, (0, self.hop))
        if self.by_matrices:
            frames = F.avg_pool1d(padded[:, None], self.hop, self.hop)[:, 0]
        else:
            frames = padded.unfold(1, self.hop, self.hop).mean(dim=2)
        valid = torch.arange(frames.shape[1], device=frames.device) < (lengths // self.hop).clamp(min=1)[:, None]
        quiet = _quantiles(10.0 * torch.log10(frames[:, None] + 1e-10), valid, (0.1,))[:, 0]
        peak = 20.0 * torch.log10(waveforms.abs().amax(dim=1, keepdim=True) + 1e-5)
        decibels = torch.cat([_rms_db(waveforms, lengths), peak, quiet], dim=1)
        seconds = torch.log(lengths[:, None].to(waveforms.dtype) / self.sr)
        each = torch.cat([(decibels + 40.0) / 20.0, seconds], dim=1)
        return torch.cat([each, each**2], dim=1)


class EgemapsFunctionals(nn.Module):
    """The 88 numbers of eGeMAPSv02 (Eyben et al. 2016), by the ``opensmile`` package on the CPU."""

    width = 88

    def __init__(self, settings: FeatureSettings) -> None:
        """Load openSMILE.

        Raises:
            EnvironmentProblem: the package is not there.
        """
        super().__init__()
        try:
            import opensmile  # type: ignore[import-not-found]
        except ImportError as error:
            raise EnvironmentProblem(
                "`functional_set=egemaps` needs the package opensmile", hint=f"pip install opensmile; {EGEMAPS_LICENCE}"
            ) from error
        self.sr, self.level = settings.sr, settings.level
        self.smile: Any = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) float32 waveforms, zero-padded, and (B,) valid samples to (B, 88) numbers."""
        if self.level == "active":
            # -50 dB is quiet to openSMILE, which has thresholds of its own: 20 dB up.
            waveforms = to_active_level(waveforms, self.sr) * 10.0
        elif self.level == "peak":
            waveforms = to_peak(waveforms)
        rows = [
            self.smile.process_signal(row[: int(n)].cpu().numpy(), self.sr).to_numpy(dtype="float32")[0]
            for row, n in zip(waveforms.float(), lengths, strict=True)
        ]
        return torch.stack([torch.from_numpy(row.copy()) for row in rows]).nan_to_num(0.0).to(waveforms.device)


Functionals = SpectrumFunctionals | LevelFunctionals | EgemapsFunctionals
_SETS: dict[str, type[Functionals]] = {
    "spectrum": SpectrumFunctionals,
    "level": LevelFunctionals,
    "egemaps": EgemapsFunctionals,
}


def build_functionals(name: str, settings: FeatureSettings) -> Functionals:
    """The set of that name: ``spectrum``, ``level`` or ``egemaps``; ``forward`` gives (B, ``width``)."""
    return _SETS[name](settings)


def _rms_db(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """(B, 1) level over the valid samples in dB re full scale, at least -100."""
    power = (waveforms**2).sum(dim=1, keepdim=True) / lengths[:, None].clamp(min=1)
    return 10.0 * torch.log10(power + 1e-10)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B, K) mean of (B, K, T) over the frames of a (B, T) mask; 0 without one."""
    kept = mask[:, None].to(values.dtype)
    return (values * kept).sum(dim=2) / kept.sum(dim=2).clamp(min=1.0)


def _deviation(values: Tensor, mask: Tensor) -> Tensor:
    """(B, K) standard deviation over the frames of the mask; 0 without one."""
    return _mean((values - _mean(values, mask)[:, :, None]) ** 2, mask).sqrt()


def _quantiles(values: Tensor, mask: Tensor, shares: tuple[float, ...]) -> Tensor:
    """(B, K, Q) quantiles over the frames of the mask, interpolated between two; 0 without one."""
    count = mask.sum(dim=1)
    ordered = values.masked_fill(~mask[:, None], math.inf).sort(dim=2).values
    place = (count - 1).clamp(min=0)[:, None] * torch.tensor(shares, device=values.device)
    low = place.floor().long()
    high = torch.minimum(low + 1, (count - 1).clamp(min=0)[:, None])
    reach = (values.shape[0], values.shape[1], len(shares))
    first, second = (ordered.gather(2, at[:, None].expand(reach)) for at in (low, high))
    found = first + (second - first) * (place - low)[:, None]
    return torch.where((count > 0)[:, None, None], found, torch.zeros_like(found))


def _statistics(values: Tensor, mask: Tensor) -> Tensor:
    """(B, 5 K): mean, standard deviation, and the three quantiles of each of K."""
    return torch.cat([_mean(values, mask), _spread_of(values, mask, QUANTILES)], dim=1)


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """(B, 4 K) of what has a mean of about 0: standard deviation, outer quantiles, mean size."""
    return torch.cat([_mean(values.abs(), mask), _spread_of(values, mask, (QUANTILES[0], QUANTILES[-1]))], dim=1)


def _spread_of(values: Tensor, mask: Tensor, shares: tuple[float, ...]) -> Tensor:
    return torch.cat([_deviation(values, mask), _quantiles(values, mask, shares).flatten(1)], dim=1)


def _share(some: Tensor, of: Tensor) -> Tensor:
    """(B, 1) how many of the frames of one mask are in another."""
    return (some.sum(dim=1, keepdim=True) / of.sum(dim=1, keepdim=True).clamp(min=1)).float()


def _slope(values: Tensor) -> Tensor:
    """(B, K, T) least-squares slope over five frames, in units a frame (HTK's deltas)."""
    padded = F.pad(values, (2, 2), mode="replicate")
    return (padded[..., 3:-1] - padded[..., 1:-3] + 2.0 * (padded[..., 4:] - padded[..., :-4])) / 10.0


def _onsets(level: Tensor, sounding: Tensor, valid: Tensor | None = None) -> Tensor:
    """(B, 1) peaks of the level smoothed over 70 ms that sound and are highest within 50 ms: about the syllables.

    Of two frames as high within 50 ms, to a hundredth of a decibel, the first is the peak. So a flat top counts once,
    and so does digital silence; which of its frames is higher by the last bit, in which computers differ, is no matter.

    Only (B, T) ``valid`` frames count, None is all, so that a clip has those it has alone, whatever it shares a batch
    with.
    """
    valid = torch.ones_like(sounding) if valid is None else valid
    kept = valid.to(level.dtype)
    means = F.avg_pool1d(torch.stack([level * kept, kept], dim=1), 7, 1, 3)
    smooth = (means[:, :1] / means[:, 1:].clamp(min=1e-6)).masked_fill(~valid[:, None], -math.inf)
    smooth = (smooth * 100.0).round()  # masked frames stay at -inf
    # The highest of five frames from each on, so that what lies before a frame and behind it stand apart.
    highest = F.max_pool1d(F.pad(smooth, (5, 5), value=-math.inf), 5, 1)
    peak = ((smooth > highest[..., :-6]) & (smooth >= highest[..., 6:]))[:, 0] & sounding
    return peak.sum(dim=1, keepdim=True).to(level.dtype)
