"""Which columns of the logits mean what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from samo.errors import DataError, first_ten, nearest
from samo.stored import Flag, Stored, Text, validated_by

__all__ = ["LabelSpace", "Task"]


@dataclass(frozen=True)
class Task:
    """One question asked of every item.

    Attributes:
        name: for example ``"emotion"``.
        labels: class names, in column order.
        multi_label: whether several labels may hold at once (sigmoid) or exactly one (softmax).
    """

    name: str
    labels: tuple[str, ...]
    multi_label: bool = False

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise DataError(f"task '{self.name}' needs at least two labels, found: {first_ten(self.labels) or 'none'}")
        if len(set(self.labels)) != len(self.labels):
            raise DataError(f"task '{self.name}' names a label twice: {first_ten(self.labels)}")


@dataclass(frozen=True)
class LabelSpace:
    """The tasks of a model, each owning a slice of the C logit columns."""

    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) != len(names):
            raise DataError(f"tasks need names of their own, found: {first_ten(names) or 'none'}")

    @cached_property
    def n_columns(self) -> int:
        """C, the number of logit columns over all tasks."""
        return sum(len(task.labels) for task in self.tasks)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """The columns each task owns, by task name."""
        slices, start = {}, 0
        for task in self.tasks:
            slices[task.name] = slice(start, start + len(task.labels))
            start += len(task.labels)
        return slices

    @property
    def primary(self) -> Task:
        """The first task: the one a single-task report speaks of."""
        return self.tasks[0]

    def encode(self, labels: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Turn labels by task into one float32 target row of shape (C,).

        A task without a label keeps NaN in its columns, which masks it out of loss and metrics. A multi-label task
        that is named with no label is answered: none of them holds.

        Raises:
            DataError: a label is not in its task, or a single-label task has several.
        """
        row = np.full(self.n_columns, np.nan, dtype=np.float32)
        for task in self.tasks:
            given = labels.get(task.name)
            if given is None or (not given and not task.multi_label):
                continue
            if len(given) > 1 and not task.multi_label:
                raise DataError(f"task '{task.name}' takes one label, got: {first_ten(given)}")
            columns = row[self.slices[task.name]]
            columns[:] = 0.0
            for label in given:
                if label not in task.labels:
                    raise DataError(
                        f"unknown label '{label}' for task '{task.name}'",
                        hint=nearest(label, task.labels) + f"valid: {', '.join(task.labels)}",
                    )
                columns[task.labels.index(label)] = 1.0
        return row

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Softmax within each single-label task, sigmoid within each multi-label one.

        Args:
            logits: (N, C).

        Returns:
            (N, C) float64 in [0, 1].
        """
        out = np.empty(logits.shape, dtype=np.float64)
        for task in self.tasks:
            columns = self.slices[task.name]
            part = logits[:, columns].astype(np.float64)
            if task.multi_label:
                out[:, columns] = 0.5 * (1.0 + np.tanh(0.5 * part))
            else:
                part = np.exp(part - part.max(axis=1, keepdims=True))
                out[:, columns] = part / part.sum(axis=1, keepdims=True)
        return out

    def to_json(self) -> list[dict[str, Any]]:
        """A plain structure that :meth:`from_json` reads back."""
        return [
            {"name": task.name, "labels": list(task.labels), "multi_label": task.multi_label} for task in self.tasks
        ]

    @classmethod
    def from_json(cls, data: object) -> LabelSpace:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: it is something else.
            DataError: tasks or labels without names of their own.
        """
        stored = validated_by(_TASKS, data)
        return cls(tuple(Task(task.name, task.labels, task.multi_label) for task in stored))


class _StoredTask(Stored):
    name: Text
    labels: tuple[Text, ...]
    multi_label: Flag


_TASKS = TypeAdapter(tuple[_StoredTask, ...])
