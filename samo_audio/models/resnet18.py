"""ResNet-18 (He et al. 2016) on one-channel spectrograms."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samo.errors import EnvironmentProblem, ModelFileError
from samo_audio.config import ModelSettings
from samo_audio.models.maps import MapNetwork, MapPooling, map_pooling

__all__ = ["ResNet18", "one_channel", "resnet18"]

# Channels of the stem and of the last layer.
_WIDTHS = (64, 512)
# Five times every second frame.
_FRAMES_PER_MAP = 32
# torchvision waits for a silent server for ever.
SILENT_SERVER_S = 20.0


def resnet18(settings: ModelSettings, n_columns: int) -> nn.Module:
    """ResNet-18 with a one-channel stem and a new head of ``n_columns`` logits.

    With ``pretrained`` the trunk starts from ImageNet weights, which torchvision downloads and keeps.

    Raises:
        EnvironmentProblem: the weights cannot be downloaded.
        ModelFileError: the copy torchvision keeps is damaged.
    """
    network = ResNet18()
    if settings.pretrained:
        from torchvision.models import ResNet18_Weights

        _load_imagenet(network, ResNet18_Weights.IMAGENET1K_V1)
    network.conv1 = one_channel(network.conv1)
    network.pooling = map_pooling(_WIDTHS[-1], settings, _FRAMES_PER_MAP, _mean)
    width = network.pooling.width if network.pooling else _WIDTHS[-1]
    network.fc = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(width, n_columns))
    return network


class ResNet18(MapNetwork):
    """The network of He et al. 2016 for pictures of three channels and the 1,000 classes of ImageNet.

    Layers, names of tensors and random start are torchvision's (BSD-3-Clause), so that its weights and runs trained
    with it load, and a seed gives the same network. To import torchvision takes 1.5 s and 150 MB.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_Block(64, 64), _Block(64, 64))
        self.layer2 = nn.Sequential(_Block(64, 128, stride=2), _Block(128, 128))
        self.layer3 = nn.Sequential(_Block(128, 256, stride=2), _Block(256, 256))
        self.layer4 = nn.Sequential(_Block(256, 512, stride=2), _Block(512, 512))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.pooling: MapPooling | None = None
        self.fc: nn.Module = nn.Linear(_WIDTHS[-1], 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pictures: Tensor, frames: Tensor | None = None) -> Tensor:
        """(B, channels, height, width) to (B, n) logits; (B,) columns of a picture are valid."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(pictures))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        pooled = self.avgpool(x).flatten(1) if self.pooling is None else self.pooling(x, frames)
        logits: Tensor = self.fc(pooled)
        return logits


def _mean(maps: Tensor) -> Tensor:
    """(B, W, T) to (B, W)."""
    return maps.mean(dim=2)


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        # The shortcut draws its random start first, as in torchvision.
        shortcut = None
        if stride != 1 or n_in != n_out:
            shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out))
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, height, width) to (B, n_out, height / stride, width / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += shortcut
        summed: Tensor = self.relu(y)
        return summed


def _load_imagenet(network: nn.Module, weights: Any) -> None:
    """Fill a network with torchvision ``weights``, downloaded when torchvision keeps no copy of them yet."""
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        # torchvision announces the download on stdout, which belongs to results.
        with redirect_stdout(sys.stderr), _timeout(SILENT_SERVER_S):
            tensors: dict[str, Tensor] = weights.get_state_dict(
                progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
        network.load_state_dict(tensors)
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        reason = str(error).partition("\n")[0]
        if kept.is_file():
            raise ModelFileError(f"{kept} is damaged: {reason}", hint="delete it to download it again") from error
        raise EnvironmentProblem(
            f"cannot download the ImageNet weights of resnet18: {reason}",
            hint=f"fetch {weights.url} on another machine and give it with `weights=FILE`",
        ) from error


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Give up on connections that stay silent for so long."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def one_channel(stem: nn.Conv2d) -> nn.Conv2d:
    """A stem for one channel whose filters are the sum of the three colour filters.

    On a grey picture (three equal channels) it answers exactly like the original stem.
    """
    single = nn.Conv2d(1, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False)  # type: ignore[arg-type]
    with torch.no_grad():
        single.weight.copy_(stem.weight.sum(dim=1, keepdim=True))
    return single
