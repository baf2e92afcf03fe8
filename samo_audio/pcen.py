"""Per-channel energy normalisation, which divides every band by its own recent level instead of taking a logarithm."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["pcen", "smoothed", "smoothing"]

# As librosa.pcen has them, from Wang et al. 2017; the scale is the one it names for waveforms within [-1, 1].
GAIN, BIAS, POWER, TIME_CONSTANT_S, EPSILON, SCALE = 0.98, 2.0, 0.5, 0.4, 1e-6, 2.0**31
# Frames that count less than this are nothing beside the newest.
_FORGOTTEN = 1e-12
_BLOCK = 64


def smoothing(sr: int, hop_length: int) -> float:
    """Share of the newest frame in a mean over about 0.4 s (Lostanlen et al. 2019, as in librosa)."""
    frames = TIME_CONSTANT_S * sr / hop_length
    return (math.sqrt(1.0 + 4.0 * frames**2) - 1.0) / (2.0 * frames**2)


def smoothed(values: Tensor, share: float) -> Tensor:
    """``m[t] = (1 - share) * m[t - 1] + share * x[t]`` with ``m[-1] = x[0]``, in time linear in T.

    Within blocks of frames it is one product with a matrix, and the means before the blocks are found by doubling: the
    sum over the last 2k blocks is that over the last k and, k blocks ago, that over the k before (Hillis & Steele
    1986). So the number of steps does not depend on T. A loop over frames would be slow, and make an exported file
    huge.

    Args:
        values: (B, bands, T).
        share: in (0, 1).

    Returns:
        (B, bands, T); no frame depends on a later one.
    """
    n_frames, fall = values.shape[-1], math.log1p(-share)
    frame = torch.arange(_BLOCK, device=values.device)
    age = frame[None, :] - frame[:, None]
    weights = share * torch.exp(fall * age.clamp(min=0).to(values.dtype)) * (age >= 0).to(values.dtype)
    blocks = functional.pad(values, (0, -n_frames % _BLOCK)).unflatten(-1, (-1, _BLOCK)) @ weights
    before, n_blocks = torch.cat([values[..., :1], blocks[..., -1]], dim=-1)[..., :-1], 1
    while (kept := math.exp(fall * _BLOCK * n_blocks)) > _FORGOTTEN:
        before = before + kept * functional.pad(before, (n_blocks, 0))[..., :-n_blocks]
        n_blocks *= 2
    found = blocks + before[..., None] * torch.exp(fall * (frame + 1).to(values.dtype))
    return found.flatten(-2)[..., :n_frames]


def pcen(magnitude: Tensor, sr: int, hop_length: int) -> Tensor:
    """``(x / (1e-6 + m) ** 0.98 + 2) ** 0.5 - 2 ** 0.5`` of a mel spectrogram, m its :func:`smoothed` past.

    Wang et al. 2017, equation 1, with fixed parameters. Noise that stays, and how loud a recording is, nearly vanish;
    onsets stay. The past of the first frame is that frame (as in Zeghidour et al. 2021), so that a window may begin
    anywhere; librosa begins with a level of 1 unless told.

    Args:
        magnitude: (B, bands, T) mel bands of the absolute spectrum of waveforms within [-1, 1].
        sr: sampling rate in Hz.
        hop_length: samples between frames.

    Returns:
        (B, bands, T), at least 0.
    """
    scaled = magnitude * SCALE
    level = smoothed(scaled, smoothing(sr, hop_length))
    return (scaled * (EPSILON + level) ** -GAIN + BIAS) ** POWER - BIAS**POWER
