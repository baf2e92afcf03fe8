"""What a model says of one clip or text: the one form that command line, notebook, checks and servers share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from samo.errors import EnvironmentProblem, counted
from samo.tasks import LabelSpace

if TYPE_CHECKING:
    import pandas

__all__ = ["NOT_SURE", "Answer", "Prediction", "PredictionList", "Window", "answers_of"]

# What people read in place of an answer that is withheld.
NOT_SURE = "not sure"


@dataclass(frozen=True)
class Answer:
    """What a model answers to one task.

    Attributes:
        labels: those that hold, the most probable first: one, or of a multi-label task all that reach their thresholds.
        likeliest: the most probable label, whether it reaches its threshold or not.
        probabilities: by label in [0, 1], under the model's temperature; sum 1 unless the task is multi-label.
        abstained: whether the model is not sure enough to answer, or there is nothing to tell an answer by; the labels
            are those it would have answered.
    """

    labels: tuple[str, ...]
    likeliest: str
    probabilities: dict[str, float]
    abstained: bool = False

    @property
    def label(self) -> str:
        """The most probable label that holds; empty where none does."""
        return self.labels[0] if self.labels else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "labels": list(self.labels),
            "abstained": self.abstained,
            "likeliest": self.likeliest,
            "probabilities": self.probabilities,
        }


class _Answered:
    """The primary task's answer, by short names."""

    answers: Mapping[str, Answer]

    @property
    def _primary(self) -> Answer:
        return next(iter(self.answers.values()), Answer((), "", {}))

    @property
    def label(self) -> str:
        """The first task's most probable label; empty where no label holds, or nothing could be read."""
        return self._primary.label

    @property
    def labels(self) -> tuple[str, ...]:
        """The first task's labels that hold, the most probable first."""
        return self._primary.labels

    @property
    def abstained(self) -> bool:
        """Whether the first task's answer is "not sure"; its label is the one that would have been answered."""
        return self._primary.abstained

    @property
    def probabilities(self) -> dict[str, float]:
        """The first task's probabilities by label, in [0, 1]."""
        return self._primary.probabilities


@dataclass(frozen=True)
class Window(_Answered):
    """One window of a recording, from ``start_s`` to ``end_s`` seconds, with answers of its own by task."""

    start_s: float
    end_s: float
    answers: Mapping[str, Answer]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the first task's."""
        return {
            "start_s": self.start_s,
            "end_s": self.end_s,
            "label": self.label,
            "abstained": self.abstained,
            "probabilities": self.probabilities,
        }


@dataclass(frozen=True, repr=False)
class Prediction(_Answered):
    """What a model says of one clip or text.

    Attributes:
        answers: by task, in the order of the label space; empty where nothing could be read.
        path: the file, as given; None for an array or a text.
        text: the text, as given; None for sound.
        warnings: what whoever reads the answer should know, for example ``silent``.
        timeline: the windows of a long recording, in order.
        error: why the file could not be read, or empty.
    """

    answers: Mapping[str, Answer] = field(default_factory=dict)
    path: Path | None = None
    text: str | None = None
    warnings: tuple[str, ...] = ()
    timeline: tuple[Window, ...] = ()
    error: str = ""

    @property
    def source(self) -> str:
        """The file or the text as given; ``waveform`` for an array."""
        if self.text is not None:
            return self.text
        return "waveform" if self.path is None else str(self.path)

    def to_json(self) -> dict[str, Any]:
        """Plain values, the form of JSON everywhere: ``path`` or ``text`` first, every task by name."""
        plain: dict[str, Any] = {} if self.text is None else {"text": self.text}
        plain |= {} if self.path is None else {"path": str(self.path)}
        if self.error:
            return {**plain, "message": self.error}
        plain |= {
            "label": self.label,
            "abstained": self.abstained,
            "probabilities": self.probabilities,
            "tasks": {name: answer.to_json() for name, answer in self.answers.items()},
            "warnings": list(self.warnings),
        }
        if self.timeline:
            plain["timeline"] = [window.to_json() for window in self.timeline]
        return plain

    def __str__(self) -> str:
        """The answer in one line."""
        if self.error:
            return self.error
        parts = []
        for name, answer in self.answers.items():
            named = answer.labels or (f"none (likeliest: {answer.likeliest})",)
            shares = [f"{label} {answer.probabilities[label]:.0%}" for label in answer.labels] or list(named)
            given = f"{NOT_SURE} ({', '.join(shares)})" if answer.abstained else ", ".join(shares)
            parts.append((f"{name}: " if len(self.answers) > 1 else "") + given)
        doubts = f" [{'; '.join(self.warnings)}]" if self.warnings else ""
        windows = f", {counted(len(self.timeline), 'window')}" if self.timeline else ""
        return "; ".join(parts) + windows + doubts

    def __repr__(self) -> str:
        """What was read and what was answered, in one line; a time line of hours is not spelled out."""
        return f"<{_short(self.source, 60)}: {self}>"

    def _repr_html_(self) -> str:
        """A table of labels and probabilities for notebooks, the first task's, the most probable first."""
        ranked = sorted(self.probabilities.items(), key=lambda pair: -pair[1])
        rows = "".join(f"<tr><td>{escape(label)}</td><td>{share:.1%}</td></tr>" for label, share in ranked[:10])
        return f"<p>{escape(_short(self.source, 80))}: <b>{escape(str(self))}</b></p><table>{rows}</table>"


class PredictionList(Sequence[Prediction]):
    """Predictions in the order asked for; a list that can become a table."""

    def __init__(self, predictions: Iterable[Prediction]) -> None:
        self._predictions = tuple(predictions)

    @overload
    def __getitem__(self, place: int) -> Prediction: ...
    @overload
    def __getitem__(self, place: slice) -> PredictionList: ...
    def __getitem__(self, place: int | slice) -> Prediction | PredictionList:
        """One prediction, or a list of several."""
        if isinstance(place, slice):
            return PredictionList(self._predictions[place])
        return self._predictions[place]

    def __len__(self) -> int:
        return len(self._predictions)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self._predictions)

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of equal predictions."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        lines = [f"  {_short(prediction.source, 60)}: {prediction}" for prediction in self[:10]]
        more = [f"  and {len(self) - 10} more"] if len(self) > 10 else []
        return "\n".join([f"{len(self)} predictions", *lines, *more])

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a prediction: source, label, labels joined by ``|``, probabilities by label,
        whether the model abstained, warnings, error.

        With several tasks the columns of each begin with its name and a full stop. A class that is called like one of
        these columns has ``p.`` before its name.
        """
        rows = [_row(prediction) for prediction in self]
        # What could not be read has no probabilities, and may come first.
        columns = dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row)
        return [{name: row.get(name) for name in columns} for row in rows]

    def to_frame(self) -> pandas.DataFrame:
        """:meth:`rows` as a ``pandas.DataFrame``.

        Raises:
            EnvironmentProblem: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise EnvironmentProblem(
                f"a table of predictions needs {error.name}, which is not installed",
                hint="pip install pandas; or take the same as plain dicts from PredictionList.rows",
            ) from error
        return pandas.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = "".join(
            f"<tr><td>{escape(_short(prediction.source, 80))}</td><td>{escape(str(prediction))}</td></tr>"
            for prediction in self[:100]
        )
        more = f"<p>and {len(self) - 100} more</p>" if len(self) > 100 else ""
        return f"<table><thead><tr><th>source</th><th>answer</th></tr></thead><tbody>{rows}</tbody></table>{more}"


def answers_of(
    probabilities: np.ndarray, present: np.ndarray, space: LabelSpace, abstained: Mapping[str, bool] | None = None
) -> dict[str, Answer]:
    """Name one row's decision.

    Args:
        probabilities: (C,) in [0, 1], from :meth:`samo.evaluation.decision.Decision.answers`.
        present: (C,) bool, from there too.
        space: the tasks and their columns.
        abstained: by task whether the answer is withheld, from :meth:`samo.evaluation.decision.Decision.abstained`.
    """
    answers = {}
    for task in space.tasks:
        columns = space.slices[task.name]
        shares, decided = probabilities[columns], present[columns]
        # Stable: of labels that are equally probable the first one wins, as in argmax.
        ranked = np.argsort(-shares, kind="stable")
        answers[task.name] = Answer(
            tuple(task.labels[k] for k in ranked if decided[k]),
            task.labels[ranked[0]],
            dict(zip(task.labels, map(float, shares), strict=True)),
            (abstained or {}).get(task.name, False),
        )
    return answers


def _short(text: str, width: int) -> str:
    """A text on one line of at most ``width`` characters."""
    line = " ".join(text[: 10 * width].split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _column(label: str) -> str:
    return f"p.{label}" if label in ("path", "text", "label", "labels", "abstained", "warnings", "error") else label


def _row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {"text" if prediction.text is not None else "path": prediction.source}
    for name, answer in prediction.answers.items():
        front = f"{name}." if len(prediction.answers) > 1 else ""
        row |= {f"{front}label": answer.label, f"{front}labels": "|".join(answer.labels)}
        row |= {f"{front}{_column(label)}": share for label, share in answer.probabilities.items()}
        row |= {f"{front}abstained": answer.abstained}
    return row | {"warnings": "; ".join(prediction.warnings), "error": prediction.error}
