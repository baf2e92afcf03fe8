"""The bodies of requests and responses, for checking and for the description of the interface."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

__all__ = ["AudioAnswer", "BatchAnswer", "Clip", "ClipBatch", "Models", "ProblemBody", "State", "TextAnswers", "Texts"]


def _encodable(text: str) -> str:
    """JSON can write half of a character, which no answer could repeat."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half of a character (a lone surrogate)") from error
    return text


_Text = Annotated[str, AfterValidator(_encodable)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _one_unknown(cls, given: Any) -> Any:
        """Of the keys that there are not the first only: each gets an error of its own, and there may be a million."""
        if not isinstance(given, dict):
            return given
        known = {name: given[name] for name in cls.model_fields if name in given}
        if len(known) == len(given):
            return given
        unknown = next(name for name in given if name not in known)
        return {**known, unknown: None}


ModelName = Annotated[_Text | None, Field(description="Name of a model; left out: the first of its kind.")]


class Texts(_Request):
    """One text or several."""

    text: Annotated[
        _Text | Annotated[list[_Text], Field(fail_fast=True)],
        Field(description="A text, which gets one answer, or a list, which gets a list of answers."),
    ]
    model: ModelName = None


class Clip(_Request):
    """One clip of several."""

    name: Annotated[_Text, Field(description="Any name; it comes back with the answer.")] = ""
    audio: Annotated[_Text, Field(description="The bytes of the file in base64.")]


class ClipBatch(_Request):
    """Several clips."""

    clips: Annotated[list[Clip], Field(fail_fast=True)]
    model: ModelName = None


class Task(BaseModel):
    """The answer to one task: the labels that hold, the most probable first, and all probabilities."""

    labels: list[str]
    abstained: bool
    likeliest: str
    probabilities: dict[str, float]


class Window(BaseModel):
    """The answer to one window of a recording."""

    start_s: float
    end_s: float
    label: str
    abstained: bool
    probabilities: dict[str, float]


class _Answer(BaseModel):
    label: Annotated[str, Field(description="The first task's label; empty where none holds.")]
    abstained: Annotated[bool, Field(description="Whether the model is not sure enough to answer.")]
    probabilities: dict[str, float]
    tasks: dict[str, Task]
    warnings: list[str]


class Spectrogram(BaseModel):
    """What the network sees of the first window, in 8 bits."""

    bands: int
    frames: int
    window_s: float
    values: Annotated[str, Field(description="Base64 of bands * frames bytes, row by row, the lowest band first.")]
    min: Annotated[float, Field(description="What 0 stands for.")]
    max: Annotated[float, Field(description="What 255 stands for.")]


class AudioAnswer(_Answer):
    """The answer to a clip."""

    model: str
    duration_s: float
    timeline: list[Window] | None = None
    spectrogram: Spectrogram | None = None


class TextAnswer(_Answer):
    """The answer to a text."""

    model: str
    text: str


class _OneOfTexts(_Answer):
    text: str


class ManyTextAnswers(BaseModel):
    """The answers to several texts."""

    model: str
    predictions: list[_OneOfTexts]


TextAnswers = TextAnswer | ManyTextAnswers


class _OneOfClips(BaseModel):
    name: str
    message: Annotated[str | None, Field(description="Why there is no answer.")] = None
    duration_s: float | None = None
    label: str | None = None
    abstained: bool | None = None
    probabilities: dict[str, float] | None = None
    tasks: dict[str, Task] | None = None
    warnings: list[str] | None = None
    timeline: list[Window] | None = None


class BatchAnswer(BaseModel):
    """The answers to several clips."""

    model: str
    predictions: list[_OneOfClips]


class _Model(BaseModel):
    name: str
    modality: str
    network: str
    dataset: str
    synthetic: bool
    leaky: bool
    trained: str
    scores: list[str]
    tasks: list[dict[str, Any]]
    temperature: dict[str, float]
    thresholds: dict[str, dict[str, float]]
    abstention: dict[str, float]
    reading: dict[str, float]
    card: Annotated[str, Field(description="The model card in Markdown.")]


class Models(BaseModel):
    """What is served."""

    models: list[_Model]
    default: dict[str, str | None]


class State(BaseModel):
    """How the server is."""

    status: str


class ProblemBody(BaseModel):
    """Why there is no answer (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="Kind of error, as on the command line.")]
    hint: str
