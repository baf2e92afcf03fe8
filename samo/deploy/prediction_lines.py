"""The lines that ``samo serve`` logs of its answers, read back: one JSON object an answer."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from pydantic import AfterValidator, Field

from samo.errors import DataError, SettingsError
from samo.files import parse_json
from samo.stored import Count, Flag, Level, Seconds, Stored, Text, validated

__all__ = ["BrokenLine", "Line", "PredictionLines", "TaskLine", "read_prediction_lines", "since"]

# Names are kept of so many broken lines; all are counted.
N_NAMED = 10
# Bytes of a line; a longer one is no answer, and what follows it nothing that was logged.
LONGEST_LINE = 10_000_000
_BEFORE_LAST = re.compile(r"(\d+)([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def _once(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) != len(labels):
        raise ValueError("names a label twice")
    return labels


class _StoredAnswer(Stored):
    label: Text
    labels: Annotated[tuple[Text, ...], AfterValidator(_once)]
    confidence: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
    abstained: Flag


class _StoredLine(Stored):
    schema_: Literal[1] = Field(alias="schema")
    time: Text
    model: Text
    modality: Literal["audio", "text"]
    tasks: Annotated[dict[Text, _StoredAnswer], Field(min_length=1)]
    duration_s: Seconds | None = None
    level_dbfs: Level | None = None
    n_chars: Count | None = None
    n_tokens: Count | None = None


NUMBERS = ("level_dbfs", "duration_s", "n_chars", "n_tokens")
"""What is known of an input; of sound the first two, of text the others."""


@dataclass(frozen=True, slots=True)
class TaskLine:
    """What was answered to one task: its labels, the confidence in [0, 1], and whether the answer was withheld."""

    labels: tuple[str, ...]
    confidence: float
    abstained: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One answer.

    Attributes:
        time: when, in UTC.
        modality: ``audio`` or ``text``.
        tasks: by task.
        numbers: those of :data:`NUMBERS` that are known.
    """

    time: datetime
    modality: str
    tasks: dict[str, TaskLine]
    numbers: dict[str, float]


@dataclass(frozen=True)
class BrokenLine:
    """A line that is no answer: its number from 1, and why."""

    number: int
    why: str


@dataclass
class PredictionLines:
    """A file of answers.

    Attributes:
        models: lines by the name of the model that answered, in the order of the file.
        broken: the first ten lines that are none.
        n_broken: how many are none.
    """

    models: dict[str, list[Line]] = field(default_factory=dict)
    broken: list[BrokenLine] = field(default_factory=list)
    n_broken: int = 0


def read_prediction_lines(path: Path) -> PredictionLines:
    """Read a file; empty lines are passed over, broken ones counted.

    Raises:
        DataError: it cannot be read, a line is longer than 10 MB, or no line is an answer.
    """
    found = PredictionLines()
    # Labels and names repeat: each is kept once.
    seen: dict[tuple[str, ...], tuple[str, ...]] = {}
    try:
        with path.open("rb") as file:
            for number, text in enumerate(_texts(file, path), start=1):
                if not text.strip():
                    continue
                try:
                    model, line = _line(text, seen)
                except ValueError as error:
                    found.n_broken += 1
                    if len(found.broken) < N_NAMED:
                        found.broken.append(BrokenLine(number, " ".join(str(error).split())[:200]))
                else:
                    found.models.setdefault(model, []).append(line)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if not found.models:
        why = f"line {found.broken[0].number}: {found.broken[0].why}" if found.broken else "it is empty"
        raise DataError(
            f"{path} holds no answers ({why})",
            hint="`samo serve` writes such a file with `log_predictions=FILE`; the files of `samo predict` are none",
        )
    return found


def _texts(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of a file, which need not end.

    Raises:
        DataError: one is longer than 10 MB.
    """
    number = 0
    while text := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(text) > LONGEST_LINE:
            raise DataError(f"{path}, line {number}: longer than {LONGEST_LINE // 1_000_000} MB, no line of answers")
        yield text


def _line(text: bytes, seen: dict[tuple[str, ...], tuple[str, ...]]) -> tuple[str, Line]:
    """The model's name and the line.

    Raises:
        ValueError: it is none.
    """
    stored = validated(_StoredLine, parse_json(text))
    tasks = {
        sys.intern(name): TaskLine(seen.setdefault(each.labels, each.labels), each.confidence, each.abstained)
        for name, each in stored.tasks.items()
    }
    given = {name: getattr(stored, name) for name in NUMBERS}
    numbers = {name: float(value) for name, value in given.items() if value is not None}
    return stored.model, Line(_utc(stored.time), stored.modality, tasks, numbers)


def _utc(text: str) -> datetime:
    """A time of ISO 8601; without a zone it is UTC.

    Raises:
        ValueError: it is none.
    """
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"time: {text[:40]!r} is no time of ISO 8601") from error


def since(lines: Sequence[Line], when: str) -> list[Line]:
    """The lines from a time on.

    Args:
        lines: of a file.
        when: a date or time of ISO 8601 (UTC without a zone); or days, hours or minutes before the newest line, as
            ``7d``, ``24h``, ``30m``.

    Raises:
        SettingsError: ``when`` is neither.
    """
    if match := _BEFORE_LAST.fullmatch(when):
        newest = max((line.time for line in lines), default=datetime.now(UTC))
        try:
            begin = newest - timedelta(**{_UNITS[match[2]]: int(match[1])})
        except OverflowError:
            return list(lines)
    else:
        try:
            begin = _utc(when)
        except ValueError as error:
            raise SettingsError(
                f"`since={when}`: no time", hint="2026-11-26, 2026-11-26T10:00, or 7d, 24h, 30m before the newest line"
            ) from error
    return [line for line in lines if line.time >= begin]
