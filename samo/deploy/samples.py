"""Answers and their inputs as samples that can be compared: of a validation part, or of lines that a server wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from samo.deploy.prediction_lines import NUMBERS, Line
from samo.errors import ModelFileError
from samo.stored import Count, Flag, Number, Stored, Text, validated

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
    """

    counts: Mapping[str, int]
    n: int
    abstained: int
    confidences: FloatArray
    multi_label: bool = False


@dataclass(frozen=True)
class Sample:
    """Answers and their inputs: of a validation part, or lines of a server.

    Attributes:
        n: answers.
        tasks: by task.
        numbers: (M,) of those of :data:`samo.deploy.prediction_lines.NUMBERS` that are known.
    """

    n: int
    tasks: Mapping[str, TaskSample]
    numbers: Mapping[str, FloatArray] = field(default_factory=dict)


class _StoredTask(Stored):
    counts: dict[Text, Count]
    n: Count
    abstained: Count
    confidences: Annotated[list[Annotated[float, Field(ge=0.0, le=1.0)]], Field(max_length=MOST_KEPT)]
    multi_label: Flag


_Kept = Annotated[list[Number], Field(max_length=MOST_KEPT)]


class _StoredReference(Stored):
    n: Count
    tasks: dict[Text, _StoredTask]
    level_dbfs: _Kept = Field(default_factory=list)
    duration_s: _Kept = Field(default_factory=list)
    n_chars: _Kept = Field(default_factory=list)
    n_tokens: _Kept = Field(default_factory=list)


def sample_of_reference(stored: Mapping[str, Any], name: str) -> Sample:
    """What :func:`reference_of` gave, read back.

    Args:
        stored: plain values, as they stand in a file.
        name: of the model, for errors.

    Raises:
        ModelFileError: it is empty, or something else.
    """
    if not stored:
        raise ModelFileError(
            f"nothing is known of what '{name}' answered on its validation part", hint="its data are no longer there: "
            "evaluate the run with `on=val` where they are, then export it again",
        )  # fmt: skip
    try:
        found = validated(_StoredReference, stored)
    except ValueError as error:
        raise ModelFileError(f"the reference of '{name}' is damaged: {error}") from error
    tasks = {
        task: TaskSample(
            each.counts, each.n, each.abstained, np.array(each.confidences, dtype=np.float64), each.multi_label
        )
        for task, each in found.tasks.items()
    }
    numbers = {each: np.array(getattr(found, each), dtype=np.float64) for each in NUMBERS if getattr(found, each)}
    return Sample(found.n, tasks, numbers)


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
    return Sample(len(lines), tasks, numbers)
