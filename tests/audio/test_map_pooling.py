"""``pooling`` and ``frequency_bins`` of networks over a spectrogram: what the last layer sees of their maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_audio as tiny
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from samo.data.batch import Draws, Mix
from samo.errors import SettingsError
from samo.tasks import LabelSpace, Task
from samo_audio.audio_model import AudioModel
from samo_audio.config import AudioConfig, ModelSettings
from samo_audio.models import build_network
from samo_audio.models.maps import MapPooling
from samo_audio.models.start_weights import load_network

SPACE = LabelSpace((Task("emotion", tiny.LABELS),))
SMALL = {"sr": 8000, "duration": 0.5, "n_mels": 64, "n_fft": 256, "hop_length": 64, "dropout": 0.0}


def built(**values: Any) -> AudioModel:
    torch.manual_seed(0)
    width = {"width": 4} if values.get("model", "small-cnn") == "small-cnn" else {}
    return AudioModel(AudioConfig.build({"model": "small-cnn", **width, **SMALL, **values}), SPACE).eval()


def pooled(maps: Tensor, frames: list[int] | None = None, **values: Any) -> Tensor:
    settings = ModelSettings(model="small-cnn", **values)
    pooling = MapPooling(maps.shape[1], settings, 16, lambda bins: bins.amax(dim=2))
    found: Tensor = pooling(maps, None if frames is None else torch.tensor(frames))
    assert found.shape == (len(maps), pooling.width)
    return found


def test_frames_of_the_clip_alone() -> None:
    """Of 32 frames two maps are valid, of 33 a third; what lies behind them says nothing."""
    maps = torch.tensor([[[[1.0, 3.0, 8.0, 99.0]]], [[[1.0, 3.0, 8.0, 99.0]]]])
    assert pooled(maps, [32, 33], pooling="mean").tolist() == [[2.0], [4.0]]
    assert pooled(maps, [32, 33], pooling="max").tolist() == [[3.0], [8.0]]
    assert pooled(maps, [32, 16], pooling="max+mean-sd").tolist() == [[3.0, 2.0, 1.0], [1.0, 1.0, 0.0]]
    assert pooled(maps, pooling="max").tolist() == [[99.0], [99.0]]
    # The network's own rule looks at the whole window, as it always did.
    assert pooled(maps, [16, 16]).tolist() == [[99.0], [99.0]]


@pytest.mark.parametrize("n_bins", [1, 2, 3, 5])
def test_neighbouring_bands_stand_side_by_side(n_bins: int) -> None:
    maps = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.adaptive_avg_pool2d(maps, (n_bins, 4))  # (B, C, bins, T)
    found = pooled(maps, frequency_bins=n_bins)
    torch.testing.assert_close(found, expected.transpose(1, 2).flatten(1, 2).amax(dim=2))
    by_mean = pooled(maps, [64, 64], frequency_bins=n_bins, pooling="mean")
    torch.testing.assert_close(by_mean, expected.transpose(1, 2).flatten(1, 2).mean(dim=2))


@pytest.mark.parametrize(("model", "channels"), [("small-cnn", 32), ("resnet18", 512)])
def test_the_last_layer_sees_so_many_numbers(model: str, channels: int) -> None:
    for values, n_seen in (
        ({}, channels),
        ({"frequency_bins": 2}, 2 * channels),
        ({"pooling": "mean-sd"}, 2 * channels),
        ({"pooling": "mean-sd+attention", "frequency_bins": 2}, 6 * channels),
    ):
        network = built(model=model, **values).network
        head = network.head if model == "small-cnn" else network.fc[1]
        assert head.in_features == n_seen
        assert (network.pooling is None) == (not values)


@pytest.mark.parametrize("model", ["small-cnn", "resnet18"])
def test_a_network_is_told_the_lengths_of_clips(model: str) -> None:
    """The same spectrogram, which by its length ends after a quarter of the frames or is whole."""
    picture = torch.randn(1, 1, 64, 63, generator=torch.Generator().manual_seed(1))
    short, whole = torch.tensor([1000]), torch.tensor([4000])
    with torch.no_grad():
        with_lengths, usual = built(model=model, pooling="mean"), built(model=model)
        assert not torch.allclose(with_lengths.logits_of(picture, short), with_lengths.logits_of(picture, whole))
        assert torch.equal(usual.logits_of(picture, short), usual.logits_of(picture, whole))
        # 1000 // 64 + 1 frames are one map of the network's first 16 or 32 frames.
        step = 16 if model == "small-cnn" else 32
        with_lengths.network.pooling.usual = None
        maps: list[Tensor] = []
        with_lengths.network.pooling.register_forward_hook(lambda module, given, found: maps.extend((given[0], found)))
        with_lengths.logits_of(picture, short)
        torch.testing.assert_close(maps[1], maps[0][:, :, :, : 16 // min(16, step)].mean(dim=(2, 3)))


def test_a_mixed_clip_is_as_long_as_the_longer() -> None:
    model = built(pooling="mean").train()
    seen: list[list[int]] = []
    model.network.register_forward_pre_hook(lambda module, given: seen.append(given[1].tolist()))
    mix = Mix(torch.tensor([1, 2]), torch.tensor([0.7, 0.7]))
    draws = Draws(0, 0, torch.arange(3).numpy())
    model(0.1 * torch.randn(3, 4000), torch.tensor([640, 3200, 1280]), draws, mix)
    assert seen == [[51, 51]]
    model.eval()(0.1 * torch.randn(2, 4000), torch.tensor([640, 3200]))
    assert seen[1] == [11, 51]


def test_what_pools_learns_as_the_last_layer_does() -> None:
    model = built(pooling="attention", trunk_lr_scale=0.25)
    scales = {name: model.lr_scale(name) for name, _ in model.named_parameters()}
    attention = {name for name in scales if "attention" in name}
    assert len(attention) == 3
    assert {scales[name] for name in attention} == {1.0}
    assert {scale for name, scale in scales.items() if "blocks" in name} == {0.25}
    model.train()(0.1 * torch.randn(2, 4000), torch.tensor([4000, 900])).square().sum().backward()
    assert all((dict(model.named_parameters())[name].grad != 0).any() for name in attention)


def test_another_pooling_starts_from_the_same_weights(tmp_path: Path) -> None:
    plain = built().network
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    other = build_network(ModelSettings(model="small-cnn", width=4, pooling="attention", frequency_bins=2), 3)
    load_network(tmp_path / "plain.safetensors", other)
    assert torch.equal(other.blocks[3][0].weight, plain.blocks[3][0].weight)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pooling": "cls"}, "`pooling=cls` acts only together with `model=encoder`, whose first state"),
        ({"pooling": "last4-mean", "layers": "all"}, "`pooling=last4-mean`"),
        ({"pooling": "maen"}, "unknown pooling 'maen'"),
        ({"pooling": "mean+mean-sd"}, "`pooling=mean+mean-sd` names mean twice"),
        ({"frequency_bins": 5}, "`frequency_bins=5`: of 64 mel bands `model=small-cnn` leaves 4 to keep apart"),
        (
            {"frequency_bins": 3, "model": "resnet18"},
            "`frequency_bins=3`: of 64 mel bands `model=resnet18` leaves 2 to keep apart",
        ),
    ],
)
def test_what_cannot_be_pooled_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        built(**values)
    assert message in caught.value.message


def test_networks_that_pool_by_themselves_refuse_both() -> None:
    for name, value in (("pooling", "max"), ("frequency_bins", 2)):
        with pytest.raises(SettingsError, match=rf"`{name}` acts only together with `model="):
            AudioConfig.build({"model": "mn04", name: value})
