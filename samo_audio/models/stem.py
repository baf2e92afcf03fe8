"""The first convolution of a network over pictures of more than one channel."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["widened"]


def widened(network: nn.Module, channels: int) -> nn.Module:
    """A network over one channel as one over ``channels``, changed in place.

    The filters of the first channel stay and those of the others start at 0: the network begins as it does without
    them, whether at random or from pretrained weights.
    """
    stem = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert stem.in_channels == 1
    weight = stem.weight.detach()
    others = weight.new_zeros(weight.shape[0], channels - 1, *weight.shape[2:])
    stem.weight = nn.Parameter(torch.cat([weight, others], dim=1))
    stem.in_channels = channels
    return network
