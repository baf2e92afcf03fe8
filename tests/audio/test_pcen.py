"""Per-channel energy normalisation against librosa, and what it is for."""

from __future__ import annotations

from typing import Any

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from samo_audio.config import FeatureSettings
from samo_audio.features import LogMel
from samo_audio.pcen import pcen, smoothed, smoothing

pytestmark = pytest.mark.usefixtures("compiled_librosa")


def settings(**values: object) -> FeatureSettings:
    small = {"sr": 8000, "duration": 0.5, "n_mels": 32, "n_fft": 256, "hop_length": 64, "compression": "pcen"}
    return FeatureSettings(**{**small, **values})  # type: ignore[arg-type]


def noise(*shape: int, level: float = 0.1, seed: int = 0) -> Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_mean_by_hand() -> None:
    """m[0] = x[0], then 3/4 of the last mean and 1/4 of the newest frame."""
    found = smoothed(torch.tensor([[[4.0, 0.0, 8.0, 8.0]]]), 0.25)
    assert torch.allclose(found, torch.tensor([[[4.0, 3.0, 4.25, 5.1875]]]))


def test_the_share_of_the_newest_frame() -> None:
    """(sqrt(1 + 4 T^2) - 1) / (2 T^2) with T = 0.4 s in frames: 50 here."""
    assert smoothing(8000, 64) == pytest.approx((np.sqrt(10_001.0) - 1.0) / 5000.0)


class LargestTensor(TorchDispatchMode):
    """How many numbers the largest result of an operation has."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.size = max(self.size, found.numel())
        return found


def test_the_work_grows_with_the_frames_not_with_their_square() -> None:
    """60 s of audio in hops of 10 ms, whose (6000, 6000) matrix took seconds."""
    with LargestTensor() as largest:
        smoothed(torch.ones(1, 8, 6000), smoothing(16_000, 160))
    assert largest.size <= 8 * 6100


FRAMES = [(8000, 64, 1), (8000, 64, 63), (8000, 64, 64), (22_050, 512, 130), (16_000, 160, 1500), (16_000, 160, 6001)]


@pytest.mark.parametrize(("sr", "hop", "frames"), FRAMES)
def test_librosa_gives_the_same(sr: int, hop: int, frames: int) -> None:
    magnitude = noise(2, 8, frames).abs() * torch.tensor([1.0, 1e-4])[:, None, None]
    found = pcen(magnitude, sr, hop).numpy()
    for row, given in zip(found, magnitude.double().numpy() * 2.0**31, strict=True):
        share = smoothing(sr, hop)
        start = scipy.signal.lfilter_zi([share], [1.0, share - 1.0]) * given[:, :1]
        assert np.abs(row - librosa.pcen(given, sr=sr, hop_length=hop, zi=start)).max() < 1e-5


def test_it_is_made_of_the_absolute_spectrum() -> None:
    model, waveforms = LogMel(settings(level="as-is")), noise(1, 4000)
    magnitude = librosa.feature.melspectrogram(
        y=waveforms[0].numpy(), sr=8000, n_fft=256, hop_length=64, n_mels=32, power=1.0, pad_mode="reflect"
    )
    expected = pcen(torch.from_numpy(magnitude)[None], 8000, 64)
    assert torch.allclose(model.compressed(waveforms), expected, atol=1e-4)


def test_noise_that_stays_and_the_level_vanish_and_an_onset_stays() -> None:
    model = LogMel(settings(level="as-is"))
    waveforms = noise(1, 8000)
    loud, soft = model.compressed(waveforms), model.compressed(0.01 * waveforms)
    # 40 dB: 0.01 ** 0.02 is 0.912 of what stands under the root.
    assert float((loud - soft).abs().mean()) < 0.05
    waveforms[:, 6000:] *= 10.0
    rise = model.compressed(waveforms)[0].mean(dim=0)
    assert float(rise[95:100].mean()) > 2.5 * float(rise[60:90].mean())


@pytest.mark.parametrize("normalisation", ["train", "clip", "fixed"])
def test_padding_says_nothing_and_silence_is_finite(normalisation: str) -> None:
    model = LogMel(settings(normalisation=normalisation))
    waveforms = torch.zeros(2, 4000)
    waveforms[0, :2500] = noise(2500)
    found = model(waveforms, torch.tensor([2500, 4000]))
    alone = model(torch.nn.functional.pad(waveforms[:1], (0, 500)), torch.tensor([2500]))
    assert torch.isfinite(found).all()
    assert (found[0, :, 2500 // 64 + 1 :] == 0.0).all()
    assert torch.allclose(found[0, :, :40], alone[0, :, :40], atol=1e-5)


def test_fixed_normalisation_centres_and_scales_pcen() -> None:
    model, waveforms = LogMel(settings(normalisation="fixed")), noise(2, 4000)
    expected = (model.compressed(model.levelled(waveforms)) - 0.5) / 0.6
    assert torch.allclose(model(waveforms, torch.tensor([4000, 4000])), expected, atol=1e-6)


def test_clip_normalisation_removes_one_mean() -> None:
    model, waveforms = LogMel(settings(normalisation="clip")), noise(1, 4000)
    level = model.compressed(model.levelled(waveforms))
    found = model(waveforms, torch.tensor([4000]))
    assert torch.allclose(found, (level - level.mean()) / 0.6, atol=1e-5)
