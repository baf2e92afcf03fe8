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

__all__ = ["one_channel", "resnet18"]

# torchvision waits for a silent server for ever.
SILENT_SERVER_S = 20.0


def resnet18(settings: ModelSettings, n_columns: int) -> nn.Module:
    """torchvision's ResNet-18 with a one-channel stem and a new head of ``n_columns`` logits.

    With ``pretrained`` the trunk starts from ImageNet weights, which torchvision downloads and keeps.

    Raises:
        EnvironmentProblem: the weights cannot be downloaded.
        ModelFileError: the copy torchvision keeps is damaged.
    """
    import torchvision

    network = torchvision.models.resnet18(weights=None)
    if settings.pretrained:
        _load_imagenet(network, torchvision.models.ResNet18_Weights.IMAGENET1K_V1)
    network.conv1 = one_channel(network.conv1)
    network.fc = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(network.fc.in_features, n_columns))
    return network


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
