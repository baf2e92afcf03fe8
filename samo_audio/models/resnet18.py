"""ResNet-18 (He et al. 2016) on one-channel spectrograms."""

from __future__ import annotations

from urllib.error import URLError

import torch
from torch import nn

from samo_audio.config import ModelSettings
from samo_core.errors import EnvironmentProblem

__all__ = ["one_channel", "resnet18"]


def resnet18(settings: ModelSettings, n_columns: int) -> nn.Module:
    """torchvision's ResNet-18 with a one-channel stem and a new head of ``n_columns`` logits.

    With ``pretrained`` the trunk starts from ImageNet weights, which torchvision downloads and keeps.

    Raises:
        EnvironmentProblem: the weights cannot be downloaded.
    """
    import torchvision

    network = torchvision.models.resnet18(weights=None)
    if settings.pretrained:
        weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
        try:
            network.load_state_dict(weights.get_state_dict(progress=False, check_hash=True))
        except (URLError, OSError, RuntimeError) as error:
            raise EnvironmentProblem(
                f"cannot download the ImageNet weights of resnet18: {error}",
                hint=f"fetch {weights.url} on another machine and give it with --weights FILE",
            ) from error
    network.conv1 = one_channel(network.conv1)
    network.fc = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(network.fc.in_features, n_columns))
    return network


def one_channel(stem: nn.Conv2d) -> nn.Conv2d:
    """A stem for one channel whose filters are the sum of the three colour filters.

    On a grey picture (three equal channels) it answers exactly like the original stem.
    """
    single = nn.Conv2d(1, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False)  # type: ignore[arg-type]
    with torch.no_grad():
        single.weight.copy_(stem.weight.sum(dim=1, keepdim=True))
    return single
