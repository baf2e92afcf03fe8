"""What a modality knows of its networks, so that a file made of one can stand alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from samo.errors import SettingsError
from samo.frontend import Frontend
from samo.runs.ensemble_model import Ensemble
from samo.runs.run import Run
from samo.settings import Config

__all__ = ["ChannelGroup", "CosineMatrix", "ExportableEnsemble", "Exporter", "reads_differently"]


@dataclass(frozen=True)
class CosineMatrix:
    """A matrix of cosines (or sines) that a file can carry as its table.

    Attributes:
        table: (N,) float32, one turn.
        rows: of the matrix; entry (r, k) is ``table[r * (first + k * step) % N]``.
        first, behind, step: its columns, as of ``range``.
    """

    table: Tensor
    rows: int
    first: int
    behind: int
    step: int


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can be taken out of a network together.

    Attributes:
        maker: the convolution or linear layer whose outputs they are.
        norms: batch norms over them.
        through: convolutions of one filter a channel, each with its own batch norm among ``norms``.
        takers: the layers that read them.
        gates: layers that make a number for each of them.
    """

    maker: nn.Conv2d | nn.Linear
    norms: Sequence[nn.BatchNorm2d] = ()
    through: Sequence[nn.Conv2d] = ()
    takers: Sequence[nn.Conv2d | nn.Linear] = ()
    gates: Sequence[nn.Conv2d] = field(default_factory=tuple)


class Exporter(Protocol):
    """See :data:`samo.modalities.MODALITIES`.

    Attributes:
        inputs: names of what a file of one reading takes, ``("waveform", "lengths")``.
        kept_float: pattern of the names of nodes that make features, which are never quantised.
        program_axes: which of the axes of a ``torch.export`` program are dynamic.
    """

    inputs: ClassVar[tuple[str, str]]
    kept_float: ClassVar[str]
    program_axes: ClassVar[tuple[bool, bool]]

    @staticmethod
    def exportable(model: nn.Module) -> nn.Module:
        """A copy of a run's model whose ``forward`` of :meth:`axes` exports: logits, or logits and features.

        Raises:
            SettingsError: it cannot be exported; says why.
        """

    @staticmethod
    def axes(model: nn.Module) -> Mapping[str, tuple[str, ...]]:
        """Names of the axes of each input of a run's exportable model, by the input's name and in their order."""

    @staticmethod
    def example(config: Config, model: nn.Module) -> tuple[Tensor, ...]:
        """Those inputs, of two items."""

    @staticmethod
    def reading(run: Run, config: Config) -> Mapping[str, Any]:
        """All that turns a clip or a text into inputs, as plain values."""

    @staticmethod
    def inputs_of(frontend: Frontend, ids: Sequence[str]) -> list[Any]:
        """What a person would give a predictor in place of these items: files, pieces of files, or texts."""

    @staticmethod
    def quantisation(model: nn.Module) -> Literal["static", "dynamic"]:
        """Whether ranges of activations are found on training items beforehand, or each time anew."""

    @staticmethod
    def cosines(module: nn.Module) -> Sequence[CosineMatrix]:
        """The matrices of an exportable module that ran once."""

    @staticmethod
    def channel_groups(model: nn.Module) -> Sequence[ChannelGroup]:
        """The channels of a run's model that pruning may take away, from the first layer to the last.

        Raises:
            SettingsError: none can be.
        """


def reads_differently(model: nn.Module) -> TypeGuard[Ensemble]:
    """Whether it is an ensemble whose members read items differently: its file takes each reading by itself."""
    return isinstance(model, Ensemble) and model.parts > 1


class ExportableEnsemble(nn.Module):
    """An ensemble whose members read items differently: each reading is an input of its own."""

    def __init__(self, ensemble: Ensemble, n_inputs: int) -> None:
        """``n_inputs`` of each reading.

        Raises:
            SettingsError: no member reads items in one of the ways.
        """
        super().__init__()
        if len(set(ensemble.reads)) < ensemble.parts:
            raise SettingsError(
                "the only member that reads items its own way had weight 0 and is not in the ensemble: a file would "
                "take inputs that nothing reads",
                hint="build the ensemble again of its other members",
            )
        self.members = ensemble.members
        self.ensemble, self.n_inputs = (ensemble,), n_inputs

    def reading(self, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the members of one reading are given of its inputs."""
        return given

    def answered(self, member: nn.Module, given: Sequence[Tensor]) -> Tensor:
        """(B, C) logits of a member to :meth:`reading`."""
        logits: Tensor = member(*given)
        return logits

    def forward(self, *given: Tensor) -> Tensor:
        """(B, C) logits of the mixture."""
        (ensemble,), n = self.ensemble, self.n_inputs
        parts = [self.reading(given[k * n : (k + 1) * n]) for k in range(ensemble.parts)]
        members = zip(self.members, ensemble.reads, strict=True)
        # A tracer takes what a member casts to its own type for the member's: each gets tensors of its own.
        logits = [self.answered(member, [each.clone() for each in parts[part]]) for member, part in members]
        return ensemble.mixture(torch.stack(logits))
