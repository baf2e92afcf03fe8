"""Answers and their inputs as samples that can be compared: of a validation part, or of lines that a server wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from samo.deploy.prediction_lines import NUMBERS, Line
from samo.errors import ModelFileError
from samo.stored import Flag, Level, Seconds, Stored, Text, validated
from samo.tasks import LabelSpace

__all__ = ["MOST_KEPT", "Sample", "TaskSample", "sample_of_lines", "sample_of_reference"]

# Numbers kept of each kind: those of more items are thinned to so many evenly spaced ones of their order.
MOST_KEPT = 1000

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TaskSample:
    """Answers to one task.

    Attributes:
        counts: how many answers have each label.
        n: answers.
        abstained: how many of them were withheld.
        confidences: (M,) of the answers, in [0, 1].
        multi_label: whether an answer may have several labels, or none.
        complete: whether ``counts`` names every label that can be answered, as a reference does.
    """

    counts: Mapping[str, int]
    n: int
    abstained: int
    confidences: FloatArray
    multi_label: bool = False
    complete: bool = False


@dataclass(frozen=True)
class Sample:
    """Answers and their inputs: of a validation part, or lines of a server.

    Attributes:
        n: answers.
        tasks: by task.
        numbers: (M,) of those of :data:`samo.deploy.prediction_lines.NUMBERS` that are known.
        modality: ``audio`` or ``text``; of lines of both ``audio and text``; empty where unknown.
    """

    n: int
    tasks: Mapping[str, TaskSample]
    numbers: Mapping[str, FloatArray] = field(default_factory=dict)
    modality: str = ""


# Beyond a billion items nothing was validated.
_Length = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.0, le=2.0**53)]
_Items = Annotated[int, Field(strict=True, ge=0, lt=10**9)]


class _StoredTask(Stored):
    counts: dict[Text, _Items]
    n: _Items
    abstained: _Items
    confidences: Annotated[list[Annotated[float, Field(ge=0.0, le=1.0)]], Field(max_length=MOST_KEPT)]
    multi_label: Flag

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.abstained > self.n:
            raise ValueError(f"{self.abstained} of {self.n} answers are withheld")
        answered = max(self.counts.values(), default=0) if self.multi_label else sum(self.counts.values())
        if answered > self.n:
            raise ValueError(f"{answered} of {self.n} answers have labels")
        return self


class _StoredReference(Stored):
    n: _Items
    tasks: dict[Text, _StoredTask]
    level_dbfs: Annotated[list[Level], Field(max_length=MOST_KEPT)] = Field(default_factory=list)
    duration_s: Annotated[list[Seconds], Field(max_length=MOST_KEPT)] = Field(default_factory=list)
    n_chars: Annotated[list[_Length], Field(max_length=MOST_KEPT)] = Field(default_factory=list)
    n_tokens: Annotated[list[_Length], Field(max_length=MOST_KEPT)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        for name, task in self.tasks.items():
            if task.n != self.n:
                raise ValueError(f"{task.n} of {self.n} answers are to {name[:80]}")
        return self


def sample_of_reference(
    stored: Mapping[str, Any], name: str, modality: str = "", space: LabelSpace | None = None
) -> Sample:
    """What :func:`reference_of` gave, read back.

    Args:
        stored: plain values, as they stand in a file.
        name: of the model, for errors.
        modality: of the model.
        space: of the model; None: the tasks and labels are taken as they stand there.

    Raises:
        ModelFileError: it is empty, or something else, or of other tasks or labels than ``space``.
    """
    if not stored:
        raise ModelFileError(
            f"nothing is known of what '{name}' answered on its validation part", hint="it has none, or its data "
            "are no longer there: then evaluate the run with `on=val` where they are, and export it again",
        )  # fmt: skip
    try:
        found = validated(_StoredReference, stored)
        _require_space(found, space)
    except ValueError as error:
        raise ModelFileError(f"the reference of '{name}' is damaged: {error}") from error
    tasks = {
        task: TaskSample(
            each.counts,
            each.n,
            each.abstained,
            np.array(each.confidences, dtype=np.float64),
            each.multi_label,
            complete=True,
        )
        for task, each in found.tasks.items()
    }
    numbers = {each: np.array(getattr(found, each), dtype=np.float64) for each in NUMBERS if getattr(found, each)}
    return Sample(found.n, tasks, numbers, modality)


def _require_space(found: _StoredReference, space: LabelSpace | None) -> None:
    """Refuse tasks and labels that are not the model's.

    Raises:
        ValueError: names the task.
    """
    if space is None:
        return
    own = {task.name: (set(task.labels), task.multi_label) for task in space.tasks}
    for name, task in found.tasks.items():
        if own.get(name) != (set(task.counts), task.multi_label):
            raise ValueError(f"tasks.{name[:80]}: its labels are not the model's")


def sample_of_lines(lines: Sequence[Line]) -> Sample:
    """Lines as a sample; an answer to a task counts where its line has one."""
    tasks = {}
    for name in dict.fromkeys(name for line in lines for name in line.tasks):
        own = [line.tasks[name] for line in lines if name in line.tasks]
        tasks[name] = TaskSample(
            Counter(label for each in own for label in each.labels),
            len(own),
            sum(each.abstained for each in own),
            np.array([each.confidence for each in own]),
            any(len(each.labels) != 1 for each in own),
        )
    numbers = {
        name: np.array([line.numbers[name] for line in lines if name in line.numbers])
        for name in NUMBERS
        if any(name in line.numbers for line in lines)
    }
    modality = " and ".join(sorted({line.modality for line in lines}))
    return Sample(len(lines), tasks, numbers, modality)
