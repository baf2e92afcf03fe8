"""Differences over time as further channels: values by hand, valid frames only, and who learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_audio as tiny
import torch
import torchaudio
from torch import Tensor, nn

from samo.data.batch import Draws, Mix
from samo.errors import ModelFileError, SettingsError
from samo.tasks import LabelSpace, Task
from samo.training.checkpoint import save_model
from samo_audio.audio_model import AudioModel, load_weights
from samo_audio.config import AudioConfig, FeatureSettings, ModelSettings
from samo_audio.deltas import Channels, regression_deltas
from samo_audio.models import build_network

SPACE = LabelSpace((Task("emotion", tiny.LABELS),))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def model_of(**values: Any) -> AudioModel:
    torch.manual_seed(0)
    return AudioModel(tiny.config(**values), SPACE)


def test_slopes_by_hand() -> None:
    """(1 * (x[t+1] - x[t-1]) + 2 * (x[t+2] - x[t-2])) / 10, the ends held."""
    row = torch.tensor([[[0.0, 1.0, 4.0, 9.0, 16.0, 25.0]]])
    found = regression_deltas(row, torch.tensor([6]))
    assert torch.allclose(found, torch.tensor([[[0.9, 2.2, 4.0, 6.0, 5.8, 4.1]]]))
    # A straight line has its slope wherever five frames lie on it.
    line = 3.0 * torch.arange(8.0)[None, None, :]
    assert torch.allclose(regression_deltas(line, torch.tensor([8]))[..., 2:-2], torch.full((1, 1, 4), 3.0))


def test_only_valid_frames_count() -> None:
    row = torch.tensor([[[0.0, 1.0, 4.0, 9.0, 16.0, 25.0]]])
    behind = torch.cat([row, torch.full((1, 1, 3), 1e6)], dim=2)
    found = regression_deltas(behind, torch.tensor([6]))
    assert torch.allclose(found[..., :6], torch.tensor([[[0.9, 2.2, 4.0, 6.0, 5.8, 4.1]]]))
    assert (found[..., 6:] == 0.0).all()
    assert regression_deltas(behind, torch.tensor([1])).abs().max() == 0.0


def test_they_are_those_of_torchaudio() -> None:
    values = noise(2, 16, 40)
    first = regression_deltas(values, torch.tensor([40, 25]))
    second = regression_deltas(first, torch.tensor([40, 25]))
    for row, frames in enumerate((40, 25)):
        theirs = torchaudio.functional.compute_deltas(values[row, :, :frames])
        assert torch.allclose(first[row, :, :frames], theirs, atol=1e-6)
        assert torch.allclose(second[row, :, :frames], torchaudio.functional.compute_deltas(theirs), atol=1e-6)


def test_channels_are_the_spectrogram_and_scaled_differences() -> None:
    settings = FeatureSettings(sr=8000, duration=0.5, n_mels=16, n_fft=256, hop_length=64, deltas=2)
    values, lengths = noise(2, 16, 63), torch.tensor([4000, 1000])
    found = Channels(settings)(values, lengths)
    first = regression_deltas(values, torch.tensor([63, 16]))
    assert torch.equal(found[:, 0], values)
    assert torch.allclose(found[:, 1], 4.0 * first)
    assert torch.allclose(found[:, 2], 10.0 * regression_deltas(first, torch.tensor([63, 16])))
    one = Channels(settings.model_copy(update={"deltas": 1}))(values, lengths)
    assert torch.equal(one, found[:, :2])


def test_a_mask_covers_all_channels_and_is_no_change_of_the_sound() -> None:
    model = model_of(deltas=1, use_specaug=True, specaug_masks=1, specaug_freq=0, specaug_time=20).train()
    waveforms, lengths, draws = 0.1 * noise(4, 4000), torch.full((4,), 4000), Draws(0, 0, np.arange(4))
    masked = model.pictures(waveforms, lengths, draws)
    plain = model.eval().pictures(waveforms, lengths)
    kept = masked[:, 0].abs().sum(dim=1) > 0
    assert 0 < int((~kept).sum()) < kept.numel()
    assert torch.equal(masked, plain * kept[:, None, None, :])


def test_differences_are_mixed_like_the_spectrogram() -> None:
    model = model_of(deltas=1).train()
    waveforms, lengths = 0.1 * noise(2, 4000), torch.tensor([4000, 2000])
    waveforms[1, 2000:] = 0.0
    mix = Mix(torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    mixed, plain = model.pictures(waveforms, lengths, None, mix), model.eval().pictures(waveforms, lengths)
    assert torch.allclose(mixed[0], 0.75 * plain[0] + 0.25 * plain[1], atol=1e-6)


@pytest.mark.parametrize("name", ["small-cnn", "resnet18"])
def test_a_network_begins_as_without_them_and_learns_them(name: str) -> None:
    settings = ModelSettings(model=name, width=4)
    torch.manual_seed(0)
    plain = build_network(settings, 3).eval()
    torch.manual_seed(0)
    network = build_network(settings, 3, 3).eval()
    pictures = noise(2, 3, 32, 32)
    assert torch.equal(network(pictures), plain(pictures[:, :1]))
    network(pictures)[:, 0].sum().backward()
    stem = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert stem.weight.shape[1] == stem.in_channels == 3
    assert stem.weight.grad is not None
    assert (stem.weight.grad.abs().amax(dim=(0, 2, 3)) > 0.0).all()


def test_a_file_of_one_channel_is_refused_for_more(tmp_path: Path) -> None:
    torch.save(model_of(width=4).network.state_dict(), tmp_path / "one.pt")
    with pytest.raises(ModelFileError, match=r"1 of \d+ tensors .* blocks.0.0.weight") as caught:
        load_weights(tmp_path / "one.pt", model_of(width=4, deltas=1))
    assert caught.value.hint == "it is of a network with `deltas=0`, and this one has `deltas=1`"


def test_a_run_with_deltas_does_not_start_one_without(tmp_path: Path) -> None:
    """Its three channels are no colours, which are summed."""
    save_model(tmp_path / "deltas.safetensors", model_of(width=4, deltas=2).state_dict())
    with pytest.raises(ModelFileError, match=r"1 of \d+ tensors") as caught:
        load_weights(tmp_path / "deltas.safetensors", model_of(width=4))
    assert caught.value.hint == "it is of a network with `deltas=2`, and this one has `deltas=0`"
    load_weights(tmp_path / "deltas.safetensors", model_of(width=4, deltas=2))
    # Another width is more than channels.
    with pytest.raises(ModelFileError) as caught:
        load_weights(tmp_path / "deltas.safetensors", model_of(width=8))
    assert caught.value.hint == "the file must come from the same `model` and `width`"


@pytest.mark.parametrize("model", ["mn04", "cnn6", "encoder", "functionals"])
def test_models_with_features_of_their_own_refuse_them(model: str) -> None:
    with pytest.raises(SettingsError, match="`deltas` acts only together with `model=small-cnn` or resnet18"):
        AudioConfig.build({"model": model, "deltas": 1} | ({"encoder": "/x"} if model == "encoder" else {}))


def test_a_network_of_ones_own_refuses_them() -> None:
    with pytest.raises(SettingsError, match="a network of one's own does not know of"):
        build_network(ModelSettings(model="elsewhere:network"), 3, 2)
