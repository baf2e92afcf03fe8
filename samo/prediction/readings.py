"""How an exported file reads clips or texts, and what its network is given of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from samo.prediction.onnx_file import FLOAT, INT64
from samo.stored import Number, Stored, Text, validated

__all__ = [
    "FORMAT",
    "INPUTS",
    "SEVERAL_FORMAT",
    "SHARES",
    "AudioReading",
    "AudioReadings",
    "Feeds",
    "Input",
    "Reading",
    "TextReading",
    "TextReadings",
    "named",
    "plain_feeds",
    "read_reading",
]

FORMAT: Literal["samo-onnx-1"] = "samo-onnx-1"
SEVERAL_FORMAT: Literal["samo-onnx-2"] = "samo-onnx-2"
"""Of a file that reads its inputs in one way, and of an ensemble's whose members read them in several."""
INPUTS = {"audio": ("waveform", "lengths"), "text": ("ids", "lengths")}
"""The inputs of an exported network by modality: (B, T) and (B,); of several readings by :func:`named`."""
SHARES = "shares"
"""Of a reading through windows: (B, N), what each of N windows counts in each of B clips."""

# One window of each is computed at once.
_MOST_READINGS = 16
# Of one reading, all of which are computed at once; clips up to so many seconds are one piece.
_MOST_WINDOWS = 4096
_WHOLE_S = 10.0

Feeds: TypeAlias = Callable[[np.ndarray, np.ndarray], Iterator[Mapping[str, np.ndarray]]]
"""From (B, T) rows and their (B,) lengths to what the network is given of them by the names of its inputs, as many rows
at once as fit, in their order."""


class Input(NamedTuple):
    """What a network takes under a name.

    Attributes:
        kind: ``TensorProto.DataType``.
        dims: number of its dimensions, the first of which is the batch.
        usual: length of the others for which tensors are measured.
    """

    kind: int
    dims: int
    usual: int


class AudioReading(Stored):
    """How clips are read.

    Attributes:
        sr: sampling rate in Hz they are resampled to.
        window: samples the model sees at once.
        trim_db: dB below the loudest 40 ms under which both ends are cut off; 0 = keep all.
        tta_speed: logarithm of the speeds at which every window is heard twice more; 0 = off.
        tta_shift: seconds by which every window is moved to be heard twice more; 0 = off.
    """

    sr: Annotated[int, Field(strict=True, ge=4000, le=192_000)]
    window: Annotated[int, Field(strict=True, ge=1, le=60 * 192_000)]
    trim_db: Annotated[float, Field(strict=True, ge=0.0, le=120.0)]
    tta_speed: Annotated[float, Field(strict=True, ge=0.0, le=0.5)] = 0.0
    tta_shift: Annotated[float, Field(strict=True, ge=0.0, le=10.0)] = 0.0

    @model_validator(mode="after")
    def _a_minute_at_most(self) -> AudioReading:
        if self.window > 60 * self.sr:
            raise ValueError("a window lasts over a minute")
        return self

    @property
    def inputs(self) -> dict[str, Input]:
        """Those of its network, by name; usual are ten seconds, or all that it reads."""
        usual = min(self.window, 10 * self.sr)
        return dict(zip(INPUTS["audio"], (Input(FLOAT, 2, usual), Input(INT64, 1, usual)), strict=True))


class TextReading(Stored):
    """How texts are read.

    Attributes:
        max_tokens: longest text in tokens.
        pad_id: what short rows of a batch are filled with.
        tokens: what a modality's tokens make of ``Tokens.to_json``.
        text_column: of the table it was trained on; empty where there was none, or unknown.
    """

    max_tokens: Annotated[int, Field(strict=True, ge=1, le=8192)]
    pad_id: Annotated[int, Field(strict=True, ge=0, le=2**31)]
    tokens: dict[Text, Any]
    text_column: Text = ""

    @property
    def inputs(self) -> dict[str, Input]:
        """Those of its network, by name; usual are 512 tokens, or all that it reads."""
        usual = min(self.max_tokens, 512)
        return dict(zip(INPUTS["text"], (Input(INT64, 2, usual), Input(INT64, 1, usual)), strict=True))


class AudioReadings(Stored):
    """How the members of an ensemble read clips, where that is not one way.

    Attributes:
        parts: each way; windows of a clip are averaged over before members are.
        window_s: seconds of a piece of a long clip.
    """

    parts: Annotated[tuple[AudioReading, ...], Field(min_length=2, max_length=_MOST_READINGS)]
    window_s: Annotated[Number, Field(gt=0.0, le=60.0)]

    @model_validator(mode="after")
    def _few_windows(self) -> AudioReadings:
        for part in self.parts:
            # A window is a whole number of samples, near the seconds it was set to.
            if part.window > self.window_s * part.sr + 1:
                raise ValueError("a piece of a long clip is shorter than a window")
            views = 1 + 2 * (part.tta_speed > 0) + 2 * (part.tta_shift > 0)
            windows = math.ceil(max(_WHOLE_S, self.window_s) * part.sr / part.window)
            if windows * views > _MOST_WINDOWS:
                raise ValueError(f"a clip has more than {_MOST_WINDOWS:,} windows")
        return self

    @property
    def inputs(self) -> dict[str, Input]:
        """Those of each reading, and whose windows they are; usual is one window of one clip."""
        shares = {named(SHARES, k): Input(FLOAT, 2, 1) for k in range(len(self.parts))}
        return _of_all(self.parts) | shares


class TextReadings(Stored):
    """How the members of an ensemble read texts, where that is not one way.

    Attributes:
        parts: each way.
        text_column: see :class:`TextReading`.
    """

    parts: Annotated[tuple[TextReading, ...], Field(min_length=2, max_length=_MOST_READINGS)]
    text_column: Text = ""

    @property
    def inputs(self) -> dict[str, Input]:
        """Those of each reading."""
        return _of_all(self.parts)


Reading: TypeAlias = AudioReading | TextReading | AudioReadings | TextReadings

_KINDS: dict[tuple[str, str], type[Reading]] = {
    ("audio", FORMAT): AudioReading,
    ("text", FORMAT): TextReading,
    ("audio", SEVERAL_FORMAT): AudioReadings,
    ("text", SEVERAL_FORMAT): TextReadings,
}


def read_reading(modality: str, format: str, stored: Mapping[str, Any]) -> Reading:
    """What the metadata of a file say of its reading.

    Raises:
        ValueError: it is none of this modality and format.
    """
    return validated(_KINDS[modality, format], dict(stored))


def _of_all(parts: Sequence[AudioReading | TextReading]) -> dict[str, Input]:
    return {named(name, k): given for k, part in enumerate(parts) for name, given in part.inputs.items()}


def named(name: str, part: int) -> str:
    """The input of one of several readings."""
    return f"{name}.{part}"


def plain_feeds(modality: str) -> Feeds:
    """All rows at once, as they are: of a network of one reading."""

    def feeds(inputs: np.ndarray, lengths: np.ndarray) -> Iterator[Mapping[str, np.ndarray]]:
        yield dict(zip(INPUTS[modality], (inputs, lengths), strict=True))

    return feeds
