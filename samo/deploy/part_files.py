"""What writes a part of a bulk of answers and reads it back: the model, wherever it is opened, and the two formats."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from samo.deploy.parts import BulkPlan
from samo.errors import DataError, RunError, SettingsError, counted
from samo.files import parse_json, replacing
from samo.plugins import trust, trusted
from samo.prediction import ModelPredictor, Prediction, PredictionList, answers_of
from samo.prediction.exported import ExportedModel, is_exported
from samo.runs.load import MOVABLE
from samo.runs.run import ASSETS, Run
from samo.tasks import LabelSpace

__all__ = ["BulkModel", "counts_of", "write_part"]

# What of a run decides its answers, besides its settings and its assets.
_DECIDING = ("best_model.safetensors", "calibration.json", "thresholds.json", "abstention.json")
_ROWS_AT_ONCE = 1000


def write_part(model: BulkModel, plan: BulkPlan, part: int, items: Sequence[str], folder: Path) -> tuple[int, int]:
    """Answer a part's items and give the file its name once it is whole; returns its rows and the errors among them.

    Raises:
        RunError: the model is another than the plan's.
        DiskFull: no space is left.
    """
    rows = plan.rows_of(part)
    errors = 0
    # The half of a file comes first: it is the sign of a process that dies of the model.
    with replacing(folder / plan.file_of(part)) as temporary, _held(temporary):
        predictor = model.predictor
        with _WRITERS[plan.format](temporary, predictor) as writer:
            # Part by part, so that what is beside an item in a batch is the same however the parts are shared.
            for place, prediction in zip(rows, predictor.stream(items), strict=True):
                errors += bool(prediction.error)
                writer.write(place, prediction)
    return len(rows), errors


class BulkModel:
    """What answers, by where it lies: opened when the first part needs it, in whatever process that is."""

    def __init__(self, source: str, name: str, modality: str, digest: str, **how: Any) -> None:
        """Name it.

        Args:
            source: absolute path of a run's folder or of an exported file.
            name: for people.
            modality: ``audio`` or ``text``.
            digest: of all that decides its answers.
            how: ``device``, ``precision`` and ``threads`` of :func:`samo.load`; no ``auto`` but of threads.
        """
        self.source, self.name, self.modality, self.digest, self.how = source, name, modality, digest, how
        self.trusted = trusted()

    @classmethod
    def of(cls, model: str | Path | Run | ModelPredictor, artifacts: str | Path = "", **how: Any) -> BulkModel:
        """What :func:`bulk_predict` was given.

        Raises:
            RunError, ModelFileError: there is no such model.
            SettingsError: an exported model without its file.
        """
        from samo.runs.load import open_run

        if is_exported(model):
            path = Path(os.fspath(model))  # type: ignore[arg-type]
            file = ExportedModel.open(path)
            found = cls(str(path.absolute()), path.name, file.modality, _digest(path), **how)
            own = {"device": "cpu", "precision": "float32"}
            found.how |= {name: value for name, value in own.items() if found.how[name] == "auto"}
            return found
        if isinstance(model, ModelPredictor) and not model.facts.folder:
            raise SettingsError("an exported model is given by its file", hint='bulk_predict("FILE.onnx", ...)')
        run = open_run(model, artifacts)
        if isinstance(model, ModelPredictor):
            how |= _computed_with(model)
        elif "auto" in (how["device"], how["precision"]):
            from samo.training.runtime import make_runtime

            runtime = make_runtime(**how)
            how |= {"device": str(runtime.device), "precision": runtime.precision}
        found = cls(str(run.folder.absolute()), run.name, run.modality, _digest(run.folder), **how)
        if isinstance(model, ModelPredictor):
            found.__dict__["predictor"] = model
        return found

    def with_threads(self, threads: int) -> BulkModel:
        """The same, not loaded, for a process with so many threads."""
        return BulkModel(self.source, self.name, self.modality, self.digest, **{**self.how, "threads": threads})

    @property
    def computed(self) -> str:
        """Device and precision, ``cpu, float32``: which of several GPUs does not count."""
        return f"{self.how['device'].partition(':')[0]}, {self.how['precision']}"

    @cached_property
    def predictor(self) -> ModelPredictor:
        """The model, loaded.

        Raises:
            RunError: it is no longer the one that was named.
        """
        from samo.runs.load import load

        trust(*self.trusted)
        opened = load(self.source, **self.how)
        if _digest(Path(self.source)) != self.digest:
            raise RunError(
                f"model '{self.name}' at {self.source} is not the one that this began with",
                hint="give a new folder for the answers of another model",
            )
        return opened


def _digest(source: Path) -> str:
    """SHA-256 of an exported file, or of all in a run's folder that decides its answers."""
    whole = hashlib.sha256()
    if source.is_file():
        files = [source]
    else:
        assets = sorted(path for path in (source / ASSETS).rglob("*") if path.is_file())
        files = [*(source / name for name in _DECIDING), *assets]
        settings = {name: value for name, value in Run(source).settings.items() if name not in MOVABLE}
        names = [str(path.relative_to(source)) for path in assets]
        whole.update(json.dumps([settings, names], sort_keys=True).encode())
    for path in files:
        # A file that is not there and an empty one are two things.
        with suppress(FileNotFoundError), path.open("rb") as file:
            whole.update(f"{path.suffix}:{path.stem}:".encode() if len(files) > 1 else b"")
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _computed_with(model: ModelPredictor) -> dict[str, str]:
    """Device and precision of a model that is loaded."""
    runtime = getattr(model.network, "runtime", None)
    return {"device": str(runtime.device), "precision": runtime.precision} if runtime else {}


class _Writer(Protocol):
    def write(self, place: int, prediction: Prediction) -> None: ...


@contextmanager
def _json_lines(path: Path, predictor: ModelPredictor) -> Iterator[_Writer]:
    # Bytes of a file name that are not UTF-8 are escapes that JSON reads back as they were.
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield _JsonLines(file)


class _JsonLines:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, place: int, prediction: Prediction) -> None:
        row = {"item": place, **prediction.to_json()}
        self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def _parquet(path: Path, predictor: ModelPredictor) -> Iterator[_Writer]:
    from pyarrow.parquet import ParquetWriter

    schema = _columns(predictor.space, predictor.facts.modality)
    with path.open("wb") as file, ParquetWriter(file, schema) as writer:
        rows = _ParquetRows(writer, schema)
        yield rows
        rows.flush()


class _ParquetRows:
    def __init__(self, writer: Any, schema: Any) -> None:
        self._writer, self._schema = writer, schema
        self._rows: list[dict[str, Any]] = []

    def write(self, place: int, prediction: Prediction) -> None:
        self._rows.append({"item": place} | {name: _encodable(value) for name, value in _flat(prediction).items()})
        if len(self._rows) == _ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        import pyarrow

        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


_WRITERS: Mapping[str, Callable[[Path, ModelPredictor], Any]] = {"jsonl": _json_lines, "parquet": _parquet}


def _columns(space: LabelSpace, modality: str) -> Any:
    """The columns of :meth:`samo.prediction.PredictionList.rows`, the same for every part, also one of errors alone."""
    import pyarrow

    nothing = answers_of(np.zeros(space.n_columns), np.zeros(space.n_columns, dtype=bool), space)
    source = {"path": Path("x")} if modality == "audio" else {"text": "x"}
    row = _flat(Prediction(nothing, **source))
    kinds = {bool: pyarrow.bool_(), float: pyarrow.float64(), str: pyarrow.string()}
    return pyarrow.schema([("item", pyarrow.int64()), *((name, kinds[type(value)]) for name, value in row.items())])


def _flat(prediction: Prediction) -> dict[str, Any]:
    (row,) = PredictionList([prediction]).rows()
    return {"p.item" if name == "item" else name: value for name, value in row.items()}


def _encodable(value: Any) -> Any:
    """A text that UTF-8 can hold: bytes of a file name that are none are written as ``\\udcXX``."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def counts_of(plan: BulkPlan, folder: Path, part: int) -> tuple[int, int]:
    """Rows and errors of a part that an earlier call wrote.

    Raises:
        DataError: it is no file, is not whole, or does not hold the rows of this part.
    """
    path = folder / plan.file_of(part)
    plan.is_there(folder, part)
    try:
        found = list(_READERS[plan.format](path))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(path, " ".join(str(error).split())[:200]) from error
    if [place for place, _ in found] != list(plan.rows_of(part)):
        raise _damaged(path, f"it has {counted(len(found), 'row')}, not those of {len(plan.rows_of(part))} inputs")
    return len(found), sum(is_error for _, is_error in found)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} is damaged: {why}", hint="remove it, the same command again writes it anew")


def _jsonl_rows(path: Path) -> Iterator[tuple[int, bool]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = parse_json(line)
            yield row["item"], "message" in row


def _parquet_rows(path: Path) -> Iterator[tuple[int, bool]]:
    from pyarrow.parquet import read_table

    columns = read_table(path, columns=["item", "error"]).to_pydict()
    return zip(columns["item"], map(bool, columns["error"]), strict=True)


_READERS: Mapping[str, Callable[[Path], Iterator[tuple[int, bool]]]] = {
    "jsonl": _jsonl_rows,
    "parquet": _parquet_rows,
}


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Lock a temporary file, which tells others that its process lives."""
    with path.open("r+b") as file:
        with suppress(OSError):  # a disk without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
