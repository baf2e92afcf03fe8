"""How a spectrogram changes over time, as further channels beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samo_audio.config import FeatureSettings
from samo_audio.features import n_frames

__all__ = ["Channels", "regression_deltas"]

# Over clips of RAVDESS first differences of the normalised log-mel spread a quarter as wide as itself, second ones a
# tenth: times these, all channels weigh alike at the start.
SCALES = (4.0, 10.0)


def regression_deltas(values: Tensor, frames: Tensor) -> Tensor:
    """Slope of the line through five frames, two on either side of each.

    ``d[t] = sum(n * (x[t + n] - x[t - n]) for n in (1, 2)) / (2 * (1 + 4))``, where the first and the last valid frame
    stand for those before and behind (Young et al., The HTK Book, equation 5.16 with DELTAWINDOW = 2).

    Args:
        values: (B, bands, T).
        frames: (B,) valid frames, at least 1.

    Returns:
        (B, bands, T) change per frame, 0 beyond the valid ones.
    """
    place = torch.arange(values.shape[-1], device=values.device)[None, :]
    index = torch.minimum(place, frames[:, None] - 1)[:, None, :].expand(-1, values.shape[1], -1)
    held = values.gather(2, index)
    first, last = held[..., :1], held[..., -1:]
    padded = torch.cat([first, first, held, last, last], dim=-1)
    near = padded[..., 3:-1] - padded[..., 1:-3]
    far = padded[..., 4:] - padded[..., :-4]
    return (near + 2.0 * far) / 10.0 * (place < frames[:, None])[:, None, :].to(values.dtype)


class Channels(nn.Module):
    """A spectrogram as a picture: itself, and with ``deltas`` its first and second differences over valid frames."""

    def __init__(self, settings: FeatureSettings) -> None:
        super().__init__()
        self.deltas, self.hop_length = settings.deltas, settings.hop_length

    def forward(self, spectrogram: Tensor, lengths: Tensor) -> Tensor:
        """(B, bands, frames) of waveforms of (B,) valid samples to (B, 1 + deltas, bands, frames)."""
        if not self.deltas:
            return spectrogram[:, None]
        frames, change, found = n_frames(lengths, self.hop_length), spectrogram, [spectrogram]
        for scale in SCALES[: self.deltas]:
            change = regression_deltas(change, frames)
            found.append(change * scale)
        return torch.stack(found, dim=1)
