"""Fourier transforms as products with matrices, for exported networks: ONNX's own are slow, or not everywhere.

The matrices are made of one table of cosines, so that a file can carry the table instead, see ``Turns.used``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Autocorrelation", "PowerSpectrum", "Turns", "frames_of"]


def frames_of(waveforms: Tensor, size: int, hop: int) -> Tensor:
    """(B, T) samples to (B, 1 + (T - size) // hop, size) overlapping frames; T may be symbolic."""
    starts = torch.arange((waveforms.shape[1] - size) // hop + 1, device=waveforms.device) * hop
    return waveforms[:, starts[:, None] + torch.arange(size, device=waveforms.device)[None, :]]


class Turns(nn.Module):
    """Cosines and sines of multiples of the N-th part of a turn.

    Attributes:
        used: the arguments of every matrix that was made.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        angles = 2.0 * math.pi * torch.arange(n, dtype=torch.float64) / n
        self.register_buffer("cosine", angles.cos().float(), persistent=False)
        self.register_buffer("sine", angles.sin().float(), persistent=False)
        self.used: set[tuple[int, int, int, int]] = set()

    def forward(self, rows: int, first: int, behind: int, step: int = 1) -> tuple[Tensor, Tensor]:
        """(rows, columns) cosines and sines of ``row * column / N`` turns, columns from ``first`` to ``behind``."""
        self.used.add((rows, first, behind, step))
        columns = torch.arange(first, behind, step, device=self.cosine.device)
        # Modulo a whole turn: the products stay exact.
        places = torch.arange(rows, device=self.cosine.device)[:, None] * columns[None, :] % self.n
        return self.cosine[places], self.sine[places]


class PowerSpectrum(nn.Module):
    """The squared size of ``torch.stft(..., center=True)``, by four products with a sixteenth of its matrix each.

    A frame is folded twice before: around its middle, since cosines are even and sines odd, and again around a quarter,
    since the bins of even and of odd number are even or odd there. Around which sample phases are counted does not
    matter to the power. Frames of a size that is no multiple of 4 are not folded.
    """

    window: Tensor
    weights: Tensor
    places: Tensor
    order: Tensor

    def __init__(self, n_fft: int, hop: int, window: Tensor, pad_mode: str) -> None:
        """Make tables.

        Args:
            n_fft: samples in a frame.
            hop: samples between frames.
            window: (W,) with W at most ``n_fft``; it stands in the middle of the frame.
            pad_mode: ``reflect`` or ``constant``: what lies before and behind the signal.
        """
        super().__init__()
        self.n_fft, self.hop, self.pad_mode = n_fft, hop, pad_mode
        self.turns = Turns(n_fft)
        before = (n_fft - len(window)) // 2
        whole = F.pad(window.detach().float().cpu(), (before, n_fft - len(window) - before))
        self.folds = n_fft % 4 == 0
        if not self.folds:
            self.register_buffer("window", whole, persistent=False)
            return
        quarter, middle = n_fft // 4, n_fft // 2
        place = torch.arange(quarter + 1)
        # Samples at m and -m of the middle, and at a half less m on either side; what stands twice counts once.
        places = [middle + place, middle - place, (n_fft - place).clamp(max=n_fft - 1), place]
        weights = [whole[each] for each in places]
        weights[1] = weights[1] * (place > 0)
        weights[2] = weights[2] * (place > 0) * (place < quarter)
        weights[3] = weights[3] * (place < quarter)
        self.register_buffer("weights", torch.stack(weights), persistent=False)
        self.register_buffer("places", torch.stack(places), persistent=False)
        # Bins come as all even ones, then all odd ones.
        order = torch.cat([torch.arange(0, middle + 1, 2), torch.arange(1, middle + 1, 2)]).argsort()
        self.register_buffer("order", order, persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """(B, T) float32 to (B, n_fft // 2 + 1, T // hop + 1) float32 power."""
        half = self.n_fft // 2
        padded = F.pad(waveforms[:, None], (half, half), mode=self.pad_mode)[:, 0]
        if not self.folds:
            frames = frames_of(padded, self.n_fft, self.hop) * self.window
            cosines, sines = self.turns(self.n_fft, 0, half + 1)
            return ((frames @ cosines) ** 2 + (frames @ sines) ** 2).transpose(1, 2)
        starts = torch.arange((padded.shape[1] - self.n_fft) // self.hop + 1, device=padded.device) * self.hop
        after, before, far_after, far_before = (
            padded[:, starts[:, None] + self.places[k][None, :]] * self.weights[k] for k in range(4)
        )
        near, far = after + before, far_after + far_before
        apart, far_apart = after - before, far_after - far_before
        rows = self.n_fft // 4 + 1
        cosines, sines = self.turns(rows, 0, half + 1, 2)
        even = ((near + far) @ cosines) ** 2 + ((apart - far_apart) @ sines) ** 2
        cosines, sines = self.turns(rows, 1, half + 1, 2)
        odd = ((near - far) @ cosines) ** 2 + ((apart + far_apart) @ sines) ** 2
        return torch.cat([even, odd], dim=2)[:, :, self.order].transpose(1, 2)


class Autocorrelation(nn.Module):
    """The products of a frame with itself some samples later: power spectrum, and back, as by an FFT of frames with
    zeros behind them."""

    def __init__(self, size: int, longest: int) -> None:
        """``size`` samples in a frame, lags from 0 to ``longest``."""
        super().__init__()
        self.size, self.longest = size, longest
        # So many that what is turned round does not reach these lags.
        self.turns = Turns(2 * -(-(size + longest + 1) // 2))

    def forward(self, frames: Tensor) -> Tensor:
        """(..., size) to (..., longest + 1)."""
        half, n = self.size // 2, self.turns.n
        rows, bins = max(half + 1, self.size - half), n // 2 + 1
        # Around the middle: what lies behind it, and what lies before it turned round.
        behind = F.pad(frames[..., half:], (0, rows - (self.size - half)))
        before = F.pad(frames[..., :half].flip(-1), (1, rows - half - 1))
        cosines, sines = self.turns(rows, 0, bins)
        power = ((behind + before) @ cosines) ** 2 + ((behind - before) @ sines) ** 2
        back, _ = self.turns(bins, 0, self.longest + 1)
        # Every bin but the first and the last stands for two.
        inner = torch.arange(bins, device=frames.device)
        twice = 1.0 + ((inner > 0) & (inner < bins - 1)).to(frames.dtype)
        return (power * twice) @ back / n
