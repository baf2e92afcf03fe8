"""An exported model: one ONNX file with the features inside and, in its metadata, all that turns logits into answers.

Reading one imports neither torch nor onnx. What such a file says is checked before anything computes it, so that a
hostile, damaged or foreign one ends in one line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from samo.errors import DataError, ModelFileError, SettingsError, nearest
from samo.evaluation.decision import Decision
from samo.files import parse_json
from samo.modalities import predictor_type, released_files
from samo.prediction.onnx_file import FLOAT, LARGEST, OnnxFile, Port, check_network, look_through
from samo.prediction.predictor import ModelFacts, ModelPredictor, TrainedModel
from samo.prediction.readings import (
    FORMAT,
    INPUTS,
    SEVERAL_FORMAT,
    AudioReading,
    AudioReadings,
    Feeds,
    Input,
    Reading,
    TextReading,
    plain_feeds,
    read_reading,
)
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


class Metadata(Stored):
    """What an exported file says of its model, as JSON; an exporter writes ``model_dump`` of nothing else.

    Attributes:
        format: :data:`~samo.prediction.readings.FORMAT`, or of several readings ``SEVERAL_FORMAT``.
        samo: the version that exported it.
        opset: of the standard's operators.
        modality: ``audio`` or ``text``.
        label_space: from ``LabelSpace.to_json``.
        decision: from ``Decision.to_json``.
        facts: from ``ModelFacts.to_json``.
        reading: how inputs are read, see :mod:`samo.prediction.readings`.
        card: the text of the run's model card, or empty.
        reference: what a drift is measured from; empty where unknown.
        quantised: ``int8``, or empty.
        pruned: the ratio of channels taken out, in [0, 1).
    """

    format: Literal["samo-onnx-1", "samo-onnx-2"]
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
    reading: Reading
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
            reading = _part("reading", lambda: read_reading(metadata.modality, metadata.format, metadata.reading))
            has_features = _check_ports(file, reading.inputs, space.n_columns)
            check_network(file, {name: given.usual for name, given in reading.inputs.items()})
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

    @property
    def text_column(self) -> str:
        """Of the table that a model of text was trained on; empty where unknown."""
        return "" if isinstance(self.reading, AudioReading | AudioReadings) else self.reading.text_column

    def trained(self, threads: int = 0, feeds: Feeds | None = None) -> TrainedModel:
        """What a predictor is made of.

        Args:
            threads: CPU threads; 0 = all cores.
            feeds: of several readings, what its network is given of rows that hold them all; None: all as it is.

        Raises:
            ModelFileError: it cannot be computed.
        """
        threads = threads or cores()
        network, card = OnnxNetwork(self, threads, feeds or plain_feeds(self.modality)), self.metadata.card
        return TrainedModel(network, self.space, self.decision, self.facts, threads, card)


class OnnxNetwork:
    """An exported file computed by onnxruntime on the CPU; see :class:`samo.prediction.network.Network`."""

    def __init__(self, model: ExportedModel, threads: int, feeds: Feeds) -> None:
        """Load the network, which is given what ``feeds`` makes of rows.

        Raises:
            ModelFileError: onnxruntime refuses it.
        """
        self.feeds = feeds
        self._path, self._n_columns = model.path, model.space.n_columns
        self._has_features = model.has_features
        self._session = _session(model, threads)

    def logits(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """(B, C) float32 logits of (B, T) padded inputs and their (B,) lengths.

        Raises:
            ModelFileError: the file cannot be computed on them, or gives something else than finite numbers.
        """
        found = [self._run("logits", given) for given in self.feeds(inputs, lengths)]
        logits = found[0] if len(found) == 1 else np.concatenate(found)
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
        if not self._has_features:
            return None
        (given,) = self.feeds(inputs, lengths)
        return self._run("features", given)

    def _run(self, output: str, given: Mapping[str, np.ndarray]) -> np.ndarray:
        try:
            computed: np.ndarray = self._session.run([output], dict(given))[0]
        # onnxruntime has no common class for what it raises.
        except Exception as error:
            raise _unusable(self._path, error) from error
        return computed


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
    known = (FORMAT, SEVERAL_FORMAT)
    if isinstance(version, str) and version.startswith("samo-onnx-") and version not in known:
        raise ValueError(f"it has the format {version[:40]}, this version reads {' and '.join(known)}")
    return _part("", lambda: validated(Metadata, value))


def _part(name: str, read: Callable[[], T]) -> T:
    """What ``read`` gives of a part of the metadata, which its error names."""
    try:
        return read()
    except (ValueError, DataError) as error:
        raise ValueError(f"its metadata are wrong: {name}{': ' if name else ''}{error}") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"a number is {name}")


def _check_ports(file: OnnxFile, inputs: Mapping[str, Input], n_columns: int) -> bool:
    """Whether the file also gives features.

    Raises:
        ValueError: inputs or outputs of other names, types or shapes.
    """
    known = {"logits", "features"} if len(inputs) == 2 else {"logits"}
    _check_names("inputs", file.inputs, set(inputs), set(inputs))
    _check_names("outputs", file.outputs, {"logits"}, known)
    ports = {port.name: port for port in (*file.inputs, *file.outputs)}
    wanted = {
        **{name: (given.kind, (None,) * given.dims) for name, given in inputs.items()},
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
