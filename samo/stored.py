"""Files of a run as they are read back: each goes through a pydantic model before anything is done with it.

A hand, a disk or another program may have changed them. What is not of the model's types and ranges is refused in one
line that names the place in the file. Keys that a model does not know are left alone: a later version may have written
them.
"""

from __future__ import annotations

from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from samo.files import parse_json

__all__ = [
    "Count",
    "Flag",
    "Level",
    "Number",
    "Positive",
    "Seconds",
    "Share",
    "Stored",
    "Text",
    "parse_lines",
    "read_lines",
    "read_stored",
    "validated",
    "validated_by",
]

M = TypeVar("M", bound=BaseModel)


def _text(value: object) -> str:
    # pydantic's own text refuses lone surrogates, which stand for bytes of file names that are not UTF-8.
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


Text = Annotated[str, PlainValidator(_text)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=1e-3, le=1e3)]
"""What logits may be divided by."""
Share = Annotated[float, Field(strict=True, gt=0.0, lt=1.0)]
Level = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-300.0, le=300.0)]
"""In dB below full scale; digital silence has -200."""
Seconds = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.0, le=1e9)]


class Stored(BaseModel):
    """What a file holds; a subclass names its keys."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def validated(kind: type[M], value: object) -> M:
    """A value as its model.

    Raises:
        ValueError: it is no such thing; one line that names the place.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from error


def validated_by(adapter: TypeAdapter[Any], value: object) -> Any:
    """As :func:`validated`, for what is no single model."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from error


def read_stored(path: Path, kind: type[M]) -> M:
    """A JSON file as its model.

    Raises:
        OSError: it cannot be read.
        ValueError: it does not hold what it should.
    """
    return validated(kind, parse_json(path.read_bytes()))


def read_lines(path: Path) -> list[Any]:
    """The values of a file with one JSON value a line.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is no JSON.
    """
    return parse_lines(path.read_bytes())


def parse_lines(raw: bytes) -> list[Any]:
    """The values of one JSON value a line.

    Raises:
        ValueError: a line is no JSON.
    """
    # str.splitlines would also cut at U+2028 and its like, which JSON strings may hold.
    return [parse_json(line) for line in TextIOWrapper(BytesIO(raw), encoding="utf-8")]


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    place = ".".join(map(str, problem["loc"]))
    return f"{place[:200]}: {message[:1].lower()}{message[1:]}" if place else message
