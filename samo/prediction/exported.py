"""An exported model: one ONNX file with the features inside and, in its metadata, all that turns logits into answers.

Reading one imports neither torch nor onnx. What such a file says is checked before anything computes it, so that a
hostile, damaged or foreign one ends in one line.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field, model_validator

from samo.errors import DataError, ModelFileError, SettingsError, nearest
from samo.evaluation.decision import Decision
from samo.files import parse_json
from samo.modalities import predictor_type, released_files
from samo.prediction.onnx_file import FLOAT, INT64, LARGEST, OnnxFile, Port, check_network, look_through
from samo.prediction.predictor import ModelFacts, ModelPredictor, TrainedModel
from samo.stored import Flag, Number, Stored, Text, validated
from samo.tasks import LabelSpace

__all__ = [
    "FORMAT",
    "INPUTS",
    "KEY",
    "AudioReading",
    "ExportedModel",
    "Metadata",
    "OnnxNetwork",
    "TextReading",
    "cores",
    "is_exported",
    "load_exported",
]

T = TypeVar("T")

FORMAT = "samo-onnx-1"
KEY = "samo"
"""The key of the file's ``metadata_props`` with the JSON text of :class:`Metadata`."""
SUFFIX = ".onnx"

_HINT = "`samo export` makes such a file of a run"


class _StoredFacts(Stored):
    name: Text
    dataset: Text = ""
    synthetic: Flag = False
    leaky: Flag = False
    network: Text = ""
    trained: Text = ""
    scores: tuple[Text, ...] = ()
    code: tuple[Text, ...] = ()
    licence: Text = ""


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


class Metadata(Stored):
    """What an exported file says of its model, as JSON; an exporter writes ``model_dump`` of nothing else.

    Attributes:
        format: :data:`FORMAT`.
        samo: the version that exported it.
        opset: of the standard's operators.
        modality: ``audio`` or ``text``.
        label_space: from ``LabelSpace.to_json``.
        decision: from ``Decision.to_json``.
        facts: from ``ModelFacts.to_json``.
        reading: how inputs are read, :class:`AudioReading` or :class:`TextReading`.
        card: the text of the run's model card, or empty.
        reference: what a drift is measured from; empty where unknown.
        quantised: ``int8``, or empty.
        pruned: the ratio of channels taken out, in [0, 1).
    """

    format: Literal["samo-onnx-1"]
    samo: Text
    opset: Annotated[int, Field(strict=True, ge=1, le=1000)]
    modality: Literal["audio", "text"]
    label_space: list[dict[Text, Any]]
    decision: dict[Text, Any]
    facts: _StoredFacts
    reading: dict[Text, Any]
    card: Text = ""
    reference: dict[Text, Any] = Field(default_factory=dict)
    quantised: Literal["", "int8"] = ""
    pruned: Annotated[Number, Field(ge=0.0, lt=1.0)] = 0.0


@dataclass(frozen=True)
class ExportedModel:
    """An exported file that was looked through and whose metadata are sound.

    Attributes:
        path: of the file, as given.
        metadata: what it says of itself.
        space: what the C columns of its logits mean.
        decision: temperatures and thresholds.
        reading: how inputs are read.
        has_features: whether it also gives the spectrograms it sees.
    """

    path: Path
    metadata: Metadata
    space: LabelSpace
    decision: Decision
    reading: AudioReading | TextReading
    has_features: bool
    content: bytes

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ExportedModel:
        """Read and check a file; nothing of it is computed yet.

        Raises:
            ModelFileError: missing, damaged, foreign, too large, or with something in it that is never computed.
        """
        place = Path(path)
        content = _read(place)
        try:
            file = look_through(content)
            metadata = _metadata(file)
            space = _part("label_space", lambda: LabelSpace.from_json(metadata.label_space))
            decision = _part("decision", lambda: Decision.from_json(metadata.decision, space))
            reading = _part("reading", lambda: _reading(metadata))
            has_features = _check_ports(file, metadata.modality, space.n_columns)
            check_network(file, _usual_length(reading))
        except (ValueError, DataError) as error:
            raise ModelFileError(f"cannot use {place}: {error}", hint=_HINT) from error
        return cls(place, metadata, space, decision, reading, has_features, content)

    @property
    def modality(self) -> str:
        """``audio`` or ``text``."""
        return self.metadata.modality

    @property
    def facts(self) -> ModelFacts:
        """Where it comes from and how good it is."""
        return ModelFacts(modality=self.modality, **self.metadata.facts.model_dump())

    @property
    def audio_reading(self) -> AudioReading:
        """How a model of speech reads clips."""
        assert isinstance(self.reading, AudioReading)
        return self.reading

    @property
    def text_reading(self) -> TextReading:
        """How a model of text reads texts."""
        assert isinstance(self.reading, TextReading)
        return self.reading

    def trained(self, threads: int = 0) -> TrainedModel:
        """What a predictor is made of.

        Args:
            threads: CPU threads; 0 = all cores.

        Raises:
            ModelFileError: it cannot be computed.
        """
        threads = threads or cores()
        network, card = OnnxNetwork(self, threads), self.metadata.card
        return TrainedModel(network, self.space, self.decision, self.facts, threads, card)


class OnnxNetwork:
    """An exported file computed by onnxruntime on the CPU; see :class:`samo.prediction.network.Network`."""

    def __init__(self, model: ExportedModel, threads: int) -> None:
        """Load the network.

        Raises:
            ModelFileError: onnxruntime refuses it.
        """
        self._path, self._n_columns = model.path, model.space.n_columns
        self._inputs = INPUTS[model.modality]
        self._has_features = model.has_features
        self._session = _session(model, threads)

    def logits(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """(B, C) float32 logits of (B, T) padded inputs and their (B,) lengths.

        Raises:
            ModelFileError: the file cannot be computed on them, or gives something else than finite numbers.
        """
        logits = self._run("logits", inputs, lengths)
        if logits.shape != (len(inputs), self._n_columns):
            raise ModelFileError(f"cannot use {self._path}: its logits have the shape {logits.shape}", hint=_HINT)
        if not np.isfinite(logits).all():
            raise ModelFileError(f"cannot use {self._path}: its logits are not finite", hint=_HINT)
        return logits

    def features(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray | None:
        """(B, bands, frames) float32 spectrograms the network sees; None of a file that gives none.

        Raises:
            ModelFileError: the file cannot be computed on them.
        """
        return self._run("features", inputs, lengths) if self._has_features else None

    def _run(self, output: str, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        given = dict(zip(self._inputs, (inputs, lengths), strict=True))
        try:
            computed: np.ndarray = self._session.run([output], given)[0]
        # onnxruntime has no common class for what it raises.
        except Exception as error:
            raise _unusable(self._path, error) from error
        return computed


INPUTS = {"audio": ("waveform", "lengths"), "text": ("ids", "lengths")}
"""The inputs of an exported network by modality: (B, T) and (B,)."""


def load_exported(
    model: str | os.PathLike[str] | ExportedModel,
    *,
    device: str = "auto",
    precision: str = "float32",
    threads: int = 0,
) -> ModelPredictor:
    """The predictor of an exported file; imports no torch.

    Args:
        model: the file, opened or not.
        device: ``auto`` or ``cpu``.
        precision: ``auto`` or ``float32``: the file has its own.
        threads: CPU threads; 0 = all cores.

    Raises:
        ModelFileError: it is missing, damaged, foreign, or cannot be computed.
        SettingsError: another device or precision.
    """
    _check_runtime(device, precision, threads)
    opened = model if isinstance(model, ExportedModel) else ExportedModel.open(model)
    predictor: ModelPredictor = predictor_type(opened.modality).from_exported(opened, threads)
    return predictor


def is_exported(given: object) -> bool:
    """Whether a model is given as the path of an exported file rather than as a run."""
    return isinstance(given, str | os.PathLike) and Path(given).suffix.lower() == SUFFIX and not Path(given).is_dir()


def _check_runtime(device: str, precision: str, threads: int) -> None:
    """Refuse what an exported file cannot be computed with.

    Raises:
        SettingsError: another device than the CPU, another precision than float32, or no number of threads.
    """
    if device not in ("auto", "cpu"):
        raise SettingsError(f"`device={device}`: an exported file is computed on the CPU", hint="leave `device` away")
    if precision not in ("auto", "float32"):
        raise SettingsError(
            f"`precision={precision}`: an exported file has a precision of its own", hint="leave `precision` away"
        )
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise SettingsError(f"`threads` {threads!r}: a number of CPU threads, 0 = all cores")


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            released = released_files()
            known = f"models that come with SAMO: {', '.join(released)}; " if released else ""
            raise ModelFileError(f"there is no model file {path}", hint=nearest(str(path), released) + known + _HINT)
        size = path.stat().st_size
        if size > LARGEST:
            raise ModelFileError(f"cannot use {path}: it is larger than {LARGEST >> 20} MiB")
        with path.open("rb") as file:
            # As much as was measured: Python sets aside what it is told to read.
            return file.read(size)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error


def _metadata(file: OnnxFile) -> Metadata:
    text = file.metadata.get(KEY)
    if text is None:
        raise ValueError("it was not exported by SAMO: it does not say what its outputs mean")
    try:
        value = parse_json(text, _no_constant)
    except ValueError as error:
        raise ValueError(f"its metadata cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("its metadata are no JSON object")
    version = value.get("format")
    if isinstance(version, str) and version.startswith("samo-onnx-") and version != FORMAT:
        raise ValueError(f"it has the format {version[:40]}, this version reads {FORMAT}")
    return _part("", lambda: validated(Metadata, value))


def _part(name: str, read: Callable[[], T]) -> T:
    """What ``read`` gives of a part of the metadata, which its error names."""
    try:
        return read()
    except (ValueError, DataError) as error:
        raise ValueError(f"its metadata are wrong: {name}{': ' if name else ''}{error}") from error


def _reading(metadata: Metadata) -> AudioReading | TextReading:
    if metadata.modality == "audio":
        return validated(AudioReading, metadata.reading)
    return validated(TextReading, metadata.reading)


def _usual_length(reading: AudioReading | TextReading) -> int:
    """Samples or tokens of an item for which tensors are measured: ten seconds, 512 tokens, or all that it reads."""
    if isinstance(reading, AudioReading):
        return min(reading.window, 10 * reading.sr)
    return min(reading.max_tokens, 512)


def _no_constant(name: str) -> float:
    raise ValueError(f"a number is {name}")


def _check_ports(file: OnnxFile, modality: str, n_columns: int) -> bool:
    """Whether the file also gives features.

    Raises:
        ValueError: inputs or outputs of other names, types or shapes.
    """
    first, second = INPUTS[modality]
    _check_names("inputs", file.inputs, {first, second}, {first, second})
    _check_names("outputs", file.outputs, {"logits"}, {"logits", "features"})
    ports = {port.name: port for port in (*file.inputs, *file.outputs)}
    wanted = {
        first: (FLOAT if modality == "audio" else INT64, (None, None)),
        second: (INT64, (None,)),
        "logits": (FLOAT, (None, n_columns)),
        "features": (FLOAT, (None, None, None)),
    }
    for name, port in ports.items():
        kind, shape = wanted[name]
        _check_port(port, kind, shape)
    return "features" in ports


def _check_names(what: str, ports: list[Port], needed: set[str], known: set[str]) -> None:
    names = [port.name for port in ports]
    if not needed <= set(names) <= known or len(set(names)) != len(names):
        given = ", ".join(names)[:80] or "none"
        raise ValueError(f"its {what} are {given}; a model has {', '.join(sorted(needed))}")


def _check_port(port: Port, kind: int, shape: tuple[int | None, ...]) -> None:
    if port.kind != kind:
        raise ValueError(f"'{port.name}' is not of {'float32' if kind == FLOAT else 'int64'} numbers")
    # Outputs need not say their shape; what is computed is checked again.
    if port.shape is None:
        if port.name in ("logits", "features"):
            return
        raise ValueError(f"'{port.name}' does not say its shape")
    if len(port.shape) != len(shape):
        raise ValueError(f"'{port.name}' has {len(port.shape)} dimensions instead of {len(shape)}")
    if port.name == "features":
        return
    for found, expected in zip(port.shape, shape, strict=True):
        if found is not None and found != expected:
            raise ValueError(
                f"'{port.name}' has a dimension of {found} where "
                + ("any number must do" if expected is None else f"there are {expected} labels")
            )


def _session(model: ExportedModel, threads: int) -> Any:
    import onnxruntime

    # What it would print comes as an exception, or matters to nobody.
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that wait in a loop take the cores of whoever decodes the next clip.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # A second try would print that there is one.
        return onnxruntime.InferenceSession(
            model.content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:
        raise _unusable(model.path, error) from error


def _unusable(path: Path, error: Exception) -> ModelFileError:
    return ModelFileError(f"cannot use {path}: onnxruntime says {' '.join(str(error).split())[:300]}", hint=_HINT)
