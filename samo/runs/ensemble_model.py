"""The model of an ensemble: a weighted mixture of what its members say, window by window.

Every member's logits are divided by that member's own temperature first (:mod:`samo.runs.calibrate`), so
that a member that is too sure of itself is not heard more than the others. With weights w that sum to 1 and members'
probabilities p_k the mixture says

    mean:  p(label) = sum_k w_k p_k(label)
    vote:  p(label) = sum_k w_k ((1 - e) [member k names the label] + e p_k(label)),  e = 0.01

(linear opinion pool, Stone 1961; weighted majority vote, smoothed). A member names a label of a multi-label task at or
above its own threshold: at 0.5 nobody would name a rare one. The e keeps logits finite and decides ties: where
two labels have as many votes, the members' mean probability decides, and after that the order of the labels. The
mixture is handed on as logits (log p; log p / (1 - p) for tasks with several labels), so that averaging over windows,
softmax, temperature and decisions are those of any other model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from samo.errors import RunError
from samo.files import parse_json
from samo.runs.run import ENSEMBLE_FILE, Run
from samo.stored import Number, Positive, Share, Stored, Text, validated
from samo.tasks import LabelSpace, Task

__all__ = [
    "COMBINE",
    "Ensemble",
    "Reader",
    "ensemble_facts",
    "log_outcomes",
    "merged_settings",
    "mixed",
    "threshold_logits",
    "unpacked",
]

COMBINE = ("mean", "vote")
# Below 1 / (number of members + 1), so that it never outweighs a vote of equal members.
VOTE_SMOOTHING = 0.01


class Ensemble(nn.Module):
    """Several models of one label space that answer as one; to judge and predict with, not to train."""

    temperatures: Tensor
    thresholds: Tensor
    log_weights: Tensor

    def __init__(
        self,
        members: Iterable[nn.Module],
        weights: Sequence[float],
        temperatures: Iterable[Mapping[str, float]],
        space: LabelSpace,
        combine: str,
        thresholds: Iterable[Mapping[str, Sequence[float]]] = (),
        reads: Sequence[int] = (),
        parts: int = 1,
        readers: Sequence[nn.Module] = (),
    ) -> None:
        """Join K members.

        Args:
            members: models called as ``model(inputs, lengths)``, (B, C) logits each.
            weights: (K,) above 0, sum 1.
            temperatures: of each member by task; 1 where none is given.
            space: the tasks and their columns.
            combine: one of :data:`COMBINE`.
            thresholds: of each member by multi-label task, (L,) in (0, 1) on its probabilities under its temperature;
                0.5 where none are given. They matter to votes.
            reads: (K,) which part of :func:`~samo.data.padding.packed` inputs each member reads, from 0.
            parts: how many parts the inputs have; 1 = they are not packed, and every member reads all.
            readers: (K,) of packed inputs, each member as what reads its part of whole items, see
                :meth:`samo.frontend.Frontend.reader`; the members themselves where none are given.
        """
        super().__init__()
        self.members = nn.ModuleList(members)
        # In a tuple: their tensors are the members', and are kept under the members' names.
        self.readers = tuple(readers) or tuple(self.members)
        self.space = space
        self.combine = combine
        self.reads = tuple(reads) or (0,) * len(self.members)
        self.parts = parts
        rows = [_by_column(given, space) for given in temperatures]
        thresholds = threshold_logits(list(thresholds) or [{}] * len(rows), space)
        # They are facts of the ensemble and stand in its file's header, not among the tensors.
        self.register_buffer("temperatures", torch.tensor(rows), persistent=False)
        self.register_buffer("thresholds", thresholds, persistent=False)
        self.register_buffer("log_weights", torch.tensor(weights).log(), persistent=False)

    def member(self, place: int) -> nn.Module:
        """One of the members as what takes the ensemble's inputs."""
        reader = self.readers[place]
        return reader if self.parts == 1 else Reader(reader, self.reads[place], self.parts)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(B, C) float32 logits of the mixture."""
        parts = range(self.parts)
        given = [(inputs, lengths)] if self.parts == 1 else [unpacked(inputs, part, self.parts) for part in parts]
        readers = zip(self.readers, self.reads, strict=True)
        return self.mixture(torch.stack([reader(*given[part]).float() for reader, part in readers]))

    def mixture(self, logits: Tensor) -> Tensor:
        """(B, C) logits of the mixture of the members' own (K, B, C)."""
        return mixed(logits / self.temperatures[:, None], self.log_weights, self.space, self.combine, self.thresholds)


class Reader(nn.Module):
    """A model that takes its part of packed inputs."""

    def __init__(self, model: nn.Module, part: int, parts: int) -> None:
        """``part`` of ``parts`` of :func:`~samo.data.padding.packed` inputs, from 0."""
        super().__init__()
        self.model, self.part, self.parts = model, part, parts

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(B, C) logits."""
        logits: Tensor = self.model(*unpacked(inputs, self.part, self.parts))
        return logits


def unpacked(inputs: Tensor, part: int, parts: int) -> tuple[Tensor, Tensor]:
    """(B, T') what one part of :func:`~samo.data.padding.packed` inputs holds, 0 behind each, and its (B,) lengths.

    Args:
        inputs: (B, T) rows, padded behind.
        part: which one, from 0.
        parts: how many there are.
    """
    sizes = inputs[:, :parts].long()
    lengths = sizes[:, part]
    # As narrow as can be: an encoder has positions for no more.
    steps = torch.arange(int(lengths.max()), device=inputs.device)
    first = parts + sizes[:, :part].sum(dim=1)
    places = (first[:, None] + steps).clamp(max=inputs.shape[1] - 1)
    return inputs.gather(1, places).masked_fill(steps >= lengths[:, None], 0), lengths


def mixed(
    logits: Tensor, log_weights: Tensor, space: LabelSpace, combine: str, thresholds: Tensor | None = None
) -> Tensor:
    """(N, C) logits of the mixture of K members.

    Args:
        logits: (K, N, C), each member's under its own temperature.
        log_weights: (K,) natural logarithms of weights that sum to 1.
        space: the tasks and their columns.
        combine: one of :data:`COMBINE`.
        thresholds: (K, C) from :func:`threshold_logits`; None is 0.
    """
    parts = []
    for task in space.tasks:
        columns = space.slices[task.name]
        outcomes = log_outcomes(
            logits[..., columns], task, combine, None if thresholds is None else thresholds[:, None, columns]
        )
        mixture = torch.logsumexp(log_weights[:, None, None] + outcomes, dim=0)
        if task.multi_label:
            positive, negative = mixture.chunk(2, dim=-1)
            mixture = positive - negative
        parts.append(mixture)
    return torch.cat(parts, dim=-1)


def threshold_logits(thresholds: Sequence[Mapping[str, Sequence[float]]], space: LabelSpace) -> Tensor:
    """(K, C) float32: the logit from which on each of K members names a label; 0 where it has no threshold."""
    rows = [
        [cut for task in space.tasks for cut in given.get(task.name, [0.5] * len(task.labels))] for given in thresholds
    ]
    return torch.tensor(rows, dtype=torch.float64).logit().float()


def log_outcomes(logits: Tensor, task: Task, combine: str, thresholds: Tensor | None = None) -> Tensor:
    """Log-probabilities a member gives to each outcome, its vote already in them.

    Args:
        logits: (..., L) of one task, under the member's temperature.
        task: whose L labels they are.
        combine: one of :data:`COMBINE`.
        thresholds: logits from which on a label of a multi-label task is named, (..., L) or what broadcasts to it.

    Returns:
        (..., L), summing to 1 in probability; of a multi-label task (..., 2L), the labels holding, then not holding.
    """
    if task.multi_label:
        outcomes = torch.cat([functional.logsigmoid(logits), functional.logsigmoid(-logits)], dim=-1)
        named = logits >= (0.0 if thresholds is None else thresholds.to(logits))
        chosen = torch.cat([named, ~named], dim=-1)
    else:
        outcomes = functional.log_softmax(logits, dim=-1)
        chosen = functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).bool()
    if combine == "mean":
        return outcomes
    smoothed = outcomes + math.log(VOTE_SMOOTHING)
    return torch.where(chosen, (smoothed.exp() + (1.0 - VOTE_SMOOTHING)).log(), smoothed)


def ensemble_facts(run: Run) -> dict[str, Any] | None:
    """What an ensemble says of its members and its gain; None for any other run.

    Raises:
        RunError: the file is damaged.
    """
    path = run.path(ENSEMBLE_FILE)
    if not path.is_file():
        return None
    try:
        facts: dict[str, Any] = parse_json(path.read_bytes())
        validated(_StoredEnsemble, facts)
        return facts
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}", hint="build the ensemble again") from error


class _StoredScores(Stored):
    val_macro_f1: Number
    macro_f1: Number | None
    interval: tuple[Number, Number] | None


class _StoredMember(_StoredScores):
    name: Text
    weight: Number
    temperature: dict[Text, Positive]
    # Relative to the folder of all outputs; ensembles made before have none.
    folder: Text = ""


class _StoredLeftOut(Stored):
    name: Text
    reason: Text


class _StoredGain(Stored):
    difference: Number
    low: Number | None
    high: Number | None
    verdict: Text


class _StoredEnsemble(Stored):
    combine: Literal["mean", "vote"]
    weights: Text
    fitted_on: Text | None
    members: Annotated[tuple[_StoredMember, ...], Field(min_length=1)]
    left_out: tuple[_StoredLeftOut, ...]
    best_member: Text
    mean_of_members: Number | None
    level: Share
    ensemble: _StoredScores
    gain: _StoredGain | None


def merged_settings(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The members' settings as one table: one value where they agree, else theirs in order."""
    merged = {}
    for name in members[0] if members else ():
        values = [settings.get(name) for settings in members]
        merged[name] = values[0] if all(value == values[0] for value in values) else values
    return merged


def _by_column(temperature: Mapping[str, float], space: LabelSpace) -> list[float]:
    return [temperature.get(task.name, 1.0) for task in space.tasks for _ in task.labels]
