"""What exporting knows of networks over token ids; see :class:`samo.deploy.exporter.Exporter`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from samo.deploy.exporter import ChannelGroup, CosineMatrix, refuse_several_parts
from samo.errors import SettingsError
from samo.frontend import Frontend
from samo.runs.run import ASSETS, Run
from samo.settings import Config
from samo_text.config import TextConfig
from samo_text.tokens import open_tokens

__all__ = ["TextExporter"]


class TextExporter:
    """Networks over token ids."""

    inputs: ClassVar[tuple[str, str]] = ("ids", "lengths")
    axes: ClassVar[tuple[str, str]] = ("batch", "tokens")
    kept_float: ClassVar[str] = r"^$"
    program_axes: ClassVar[tuple[bool, bool]] = (True, True)

    @staticmethod
    def exportable(model: nn.Module) -> nn.Module:
        """A copy that takes two inputs.

        Raises:
            SettingsError: an ensemble whose members read unlike tokens.
        """
        refuse_several_parts(model, "read unlike tokens", "one tokenizer")
        return _Exportable(copy.deepcopy(model)).eval().requires_grad_(False)

    @staticmethod
    def example(config: Config) -> tuple[Tensor, Tensor]:
        """Ids that every vocabulary has, the second text half as long."""
        length = min(cast(TextConfig, config).tokens.max_tokens, 12)
        lengths = torch.tensor([length, max(1, length // 2)])
        return torch.ones(2, length, dtype=torch.int64), lengths

    @staticmethod
    def reading(run: Run, config: Config) -> Mapping[str, Any]:
        """The longest text, all that makes ids of one, and where a table has it.

        Raises:
            SettingsError: only its own library can make them.
        """
        settings = cast(TextConfig, config)
        tokens = open_tokens(settings, run.path(ASSETS))
        return {
            "max_tokens": settings.tokens.max_tokens,
            "pad_id": tokens.pad_id,
            "tokens": tokens.to_json(),
            "text_column": settings.data.text_column,
        }

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


class _Exportable(nn.Module):
    """A model that takes two inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, C) logits of (B, T) ids."""
        logits: Tensor = self.model(ids, lengths)
        return logits
