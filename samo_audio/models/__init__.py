"""Spectrogram networks. A line in MODELS adds one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from samo_core.errors import SettingsError, nearest

if TYPE_CHECKING:
    from torch import nn

    from samo_audio.config import ModelSettings

__all__ = ["MODELS", "build_network"]

# Names map to "module:function" so that listing the models imports none of them.
MODELS = {
    "small-cnn": "samo_audio.models.small_cnn:small_cnn",
    "resnet18": "samo_audio.models.resnet18:resnet18",
}


def build_network(settings: ModelSettings, n_columns: int) -> nn.Module:
    """Build a network that maps (B, 1, bands, frames) to (B, n_columns) logits.

    Raises:
        SettingsError: the model is not in :data:`MODELS`.
    """
    if settings.model not in MODELS:
        raise SettingsError(
            f"unknown model '{settings.model}'", hint=nearest(settings.model, MODELS) + f"valid: {', '.join(MODELS)}"
        )
    module, _, name = MODELS[settings.model].partition(":")
    make: Callable[[ModelSettings, int], nn.Module] = getattr(import_module(module), name)
    return make(settings, n_columns)
