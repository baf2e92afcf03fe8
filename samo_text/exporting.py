"""What exporting knows of networks over token ids; see :class:`samo.deploy.exporter.Exporter`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from samo.deploy.exporter import ChannelGroup, CosineMatrix, ExportableEnsemble, reads_differently
from samo.errors import SettingsError
from samo.frontend import Frontend
from samo.prediction.readings import INPUTS, named
from samo.runs.run import ASSETS, Run
from samo.settings import Config
from samo_text.config import TextConfig
from samo_text.tokens import SeveralTokens, Tokens, open_tokens

__all__ = ["TextExporter"]


class TextExporter:
    """Networks over token ids."""

    inputs: ClassVar[tuple[str, str]] = ("ids", "lengths")
    kept_float: ClassVar[str] = r"^$"
    program_axes: ClassVar[tuple[bool, bool]] = (True, True)

    @staticmethod
    def exportable(model: nn.Module) -> nn.Module:
        """A copy that takes ids and lengths, of each reading."""
        made = copy.deepcopy(model)
        exportable = ExportableEnsemble(made, 2) if reads_differently(made) else _Exportable(made)
        return exportable.eval().requires_grad_(False)

    @staticmethod
    def axes(model: nn.Module) -> Mapping[str, tuple[str, ...]]:
        """Of a batch of texts, read in one way or in several."""
        if not reads_differently(model):
            return {"ids": ("batch", "tokens"), "lengths": ("batch",)}
        ids, lengths = INPUTS["text"]
        given = [
            {named(ids, k): ("batch", named("tokens", k)), named(lengths, k): ("batch",)} for k in range(model.parts)
        ]
        return {name: axes for each in given for name, axes in each.items()}

    @staticmethod
    def example(config: Config, model: nn.Module) -> tuple[Tensor, ...]:
        """Ids that every vocabulary has, the second text half as long."""
        length = min(cast(TextConfig, config).tokens.max_tokens, 12)
        lengths = torch.tensor([length, max(1, length // 2)])
        n_readings = model.parts if reads_differently(model) else 1
        return (torch.ones(2, length, dtype=torch.int64), lengths) * n_readings

    @staticmethod
    def reading(run: Run, config: Config) -> Mapping[str, Any]:
        """The longest text, all that makes ids of one, and where a table has it; of an ensemble that of each part.

        Raises:
            SettingsError: only its own library can make them.
        """
        settings = cast(TextConfig, config)
        tokens = open_tokens(settings, run.path(ASSETS))
        column = {"text_column": settings.data.text_column}
        if isinstance(tokens, SeveralTokens):
            return {"parts": [_reading(part, part.max_tokens) for part in tokens.parts], **column}
        return {**_reading(tokens, settings.tokens.max_tokens), **column}

    @staticmethod
    def inputs_of(frontend: Frontend, ids: Sequence[str]) -> list[Any]:
        """The texts."""
        return [frontend.manifest.items[row].source for row in frontend.manifest.rows(ids)]

    @staticmethod
    def quantisation(model: nn.Module) -> Literal["static", "dynamic"]:
        """Texts vary too much in length for ranges found beforehand."""
        return "dynamic"

    @staticmethod
    def cosines(module: nn.Module) -> Sequence[CosineMatrix]:
        """There are none."""
        return ()

    @staticmethod
    def channel_groups(model: nn.Module) -> Sequence[ChannelGroup]:
        """None.

        Raises:
            SettingsError: always.
        """
        raise SettingsError("`prune` takes channels out of convolutions over a spectrogram; a text model has none")


def _reading(tokens: Tokens, max_tokens: int) -> dict[str, Any]:
    return {"max_tokens": max_tokens, "pad_id": tokens.pad_id, "tokens": tokens.to_json()}


class _Exportable(nn.Module):
    """A model that takes two inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, C) logits of (B, T) ids."""
        logits: Tensor = self.model(ids, lengths)
        return logits
