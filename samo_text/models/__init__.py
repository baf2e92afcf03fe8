"""Text networks. A line in ``_OWN`` adds one; networks of one's own need none, see :mod:`samo.plugins`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from samo.lazy import load_object
from samo.plugins import Plugin, Registry

if TYPE_CHECKING:
    from samo.tasks import LabelSpace
    from samo.training.model import EmotionModel
    from samo_text.config import ModelSettings, TextConfig

__all__ = ["MODELS", "Architecture", "build_model", "require_usable"]


@dataclass(frozen=True)
class Architecture:
    """Where a network is made, and which ids it takes.

    Attributes:
        make: ``"module:function"``, so that listing the models imports none of them.
        pooling: what ``pooling=auto`` stands for; empty for a model that pools nothing.
        has_layers: whether it is a stack of layers, the last four of which can be averaged.
        plugin: the code it is, where it does not come with SAMO.
    """

    make: str
    pooling: str = "mean"
    has_layers: bool = False
    plugin: Plugin | None = None


_OWN = {
    # A filter answers to a phrase wherever it stands: its largest answer is what counts (Kim 2014).
    "textcnn": Architecture("samo_text.models.textcnn:textcnn", pooling="max"),
    "bigru": Architecture("samo_text.models.bigru:bigru", pooling="max"),
    "encoder": Architecture("samo_text.models.encoder:encoder", has_layers=True),
    "tfidf": Architecture("samo_text.models.tfidf:tfidf", pooling=""),
}
MODELS = Registry(
    "model", "text", _OWN, _OWN.__getitem__, lambda plugin: Architecture(plugin.target, has_layers=True, plugin=plugin)
)


def require_usable(settings: ModelSettings) -> None:
    """Refuse a model or a pooling that does not exist or cannot be imported, before anything is read or downloaded.

    Raises:
        SettingsError: with the valid choices.
    """
    from samo.encoders.pooling import pooling_parts

    architecture = _architecture(settings.model)
    if architecture.plugin:
        architecture.plugin.load()
    pooling_parts(settings.pooling, architecture)


def build_model(
    config: TextConfig, space: LabelSpace, assets: Path | None = None, n_tokens: int | None = None
) -> EmotionModel:
    """Build a model that maps (B, T) ids and (B,) lengths to (B, C) logits.

    Args:
        config: a text run's settings.
        space: which columns of the logits mean what.
        assets: a run's folder with the encoder's ``config.json``: the architecture is built from it, its weights are
            left for the run's own file to fill. None: start weights are read from ``encoder``.
        n_tokens: size of the vocabulary with the tokens added to it; None = the encoder's own.

    Raises:
        SettingsError: an unknown model or pooling, texts longer than the encoder can take, or a plug-in that makes no
            model.
        ModelFileError, EnvironmentProblem: see :func:`samo_text.models.pretrained.load_pretrained`.
    """
    require_usable(config.model)
    architecture = _architecture(config.model.model)
    make: Callable[[TextConfig, LabelSpace, Path | None, int | None], EmotionModel]
    if architecture.plugin is None:
        make = load_object(architecture.make)
        return make(config, space, assets, n_tokens)
    from samo.training.model import EmotionModel

    return architecture.plugin.made(EmotionModel, config, space, assets, n_tokens)


def _architecture(name: str) -> Architecture:
    if name not in MODELS:
        raise MODELS.unknown(name)
    return MODELS[name]
