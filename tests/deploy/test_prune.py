"""Channels taken out of networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from samo.deploy.exporter import ChannelGroup
from samo.deploy.prune import remove_channels
from samo.tasks import LabelSpace, Task
from samo_audio.config import AudioConfig
from samo_audio.exporting import AudioExporter
from samo_audio.frontend import AudioFrontend

SPACE = LabelSpace((Task("emotion", ("a", "b", "c")),))
SMALL = {"sr": 8000, "duration": 0.5, "n_mels": 32, "n_fft": 256, "hop_length": 64}
MODELS: dict[str, dict[str, Any]] = {
    "small-cnn": {"width": 8, **SMALL},
    "small-cnn-pooled": {"model": "small-cnn", "width": 8, "pooling": "mean-sd", **SMALL},
    "resnet18": SMALL,
    "mn04": {"duration": 0.4},
    "cnn6": {"duration": 0.4},
}


def silence(group: ChannelGroup) -> None:
    """Let every second channel of a group say nothing."""
    with torch.no_grad():
        for layer in (group.maker, *group.norms):
            for tensor in (layer.weight, layer.bias):
                if tensor is not None:
                    tensor[1::2] = 0.0


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "cnn6")) for name in MODELS])
def test_channels_that_say_nothing_go_without_a_trace(name: str) -> None:
    torch.manual_seed(0)
    config = AudioConfig.build({"model": name, **MODELS[name]})
    model = AudioFrontend.build_model(config, SPACE).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    groups = AudioExporter.channel_groups(model)
    for group in groups:
        silence(group)
    window = config.features.window
    inputs, lengths = 0.1 * torch.randn(2, window), torch.tensor([window, window // 2])
    sizes = [len(group.maker.weight) for group in groups]
    n_before = sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        expected = model(inputs, lengths)
        remove_channels(groups, 0.5)
        torch.testing.assert_close(model(inputs, lengths), expected, atol=1e-5, rtol=1e-4)
    assert [len(group.maker.weight) for group in groups] == [(size + 1) // 2 for size in sizes]
    assert sum(parameter.numel() for parameter in model.parameters()) < 0.7 * n_before
    assert expected.std() > 1e-4


def test_the_channels_that_say_most_stay_in_their_order() -> None:
    first, second = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 1, bias=False)
    norm = nn.BatchNorm2d(4).eval()
    with torch.no_grad():
        first.weight[:, 0, 0, 0] = torch.tensor([1.0, 2.0, -3.0, 4.0])
        # What batch norm makes of them turns the order round: 1, 8, 3, 0.4.
        norm.weight.copy_(torch.tensor([1.0, 4.0, -1.0, 0.1]))
        second.weight[0, :, 0, 0] = torch.tensor([10.0, 20.0, 30.0, 40.0])
    remove_channels([ChannelGroup(first, [norm], takers=[second])], 0.5)
    assert first.weight.flatten().tolist() == [2.0, -3.0]
    assert norm.weight.tolist() == [4.0, -1.0]
    assert second.weight.flatten().tolist() == [20.0, 30.0]
    assert (first.out_channels, norm.num_features, second.in_channels) == (2, 2, 2)


def test_the_running_spread_counts_and_one_channel_stays() -> None:
    first, second, norm = nn.Conv2d(1, 2, 1), nn.Linear(2, 1), nn.BatchNorm2d(2)
    with torch.no_grad():
        first.weight[:, 0, 0, 0] = torch.tensor([1.0, 2.0])
        norm.running_var.copy_(torch.tensor([0.01, 100.0]))
    remove_channels([ChannelGroup(first, [norm], takers=[second])], 0.89)
    assert first.weight.flatten().tolist() == [1.0]
    assert second.in_features == 1
