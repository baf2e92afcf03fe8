"""Answers to any number of inputs as a folder of files: resumable, on one machine, on several, on a Ray cluster.

from samo.deploy.bulk import bulk_predict

print(bulk_predict("my-run", sorted(folder.glob("*.wav")), "answers"))
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from samo.deploy.parts import FORMATS, PART_ITEMS, BulkPlan, listing_digest, open_folder, shard_of
from samo.errors import DataError, EnvironmentProblem, Interrupted, RunError, SettingsError, counted, nearest
from samo.files import parse_json, replacing
from samo.plugins import trust, trusted
from samo.prediction import ModelPredictor, Prediction, PredictionList, answers_of
from samo.prediction.exported import ExportedModel, is_exported
from samo.runs.run import Run
from samo.tasks import LabelSpace

__all__ = ["BulkModel", "BulkSummary", "bulk_predict", "write_part"]

# What of a run decides its answers, besides settings that are refused where they were edited.
_DECIDING = ("best_model.safetensors", "calibration.json", "thresholds.json", "abstention.json")
_ROWS_AT_ONCE = 1000

OnPart = Callable[[int, int], None]
"""Called with (parts done, parts to do) after each part."""


@dataclass(frozen=True)
class BulkSummary:
    """What a call of :func:`bulk_predict` did, and what its folder holds now.

    Attributes:
        folder: of the parts.
        plan: what they are made of.
        shard: number and count of shards.
        written: parts that this call wrote.
        skipped: parts of this shard that were there before.
        rows: in the parts that this call wrote.
        errors: how many of them say why an input could not be read.
        present: parts in the folder, of all shards.
        all_rows: rows of the folder once every part is there, else None.
        all_errors: how many of them are errors.
    """

    folder: Path
    plan: BulkPlan
    shard: tuple[int, int]
    written: int
    skipped: int
    rows: int
    errors: int
    present: int
    all_rows: int | None = None
    all_errors: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the parts of all shards are there."""
        return self.present == self.plan.n_parts

    @property
    def how_to_join(self) -> str:
        """The command or the Python that reads all parts as one."""
        if self.plan.format == "parquet":
            return f'pandas.read_parquet("{self.folder}")'
        return f"cat {self.folder}/part-*.jsonl > answers.jsonl"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": 1,
            "folder": str(self.folder),
            "format": self.plan.format,
            "model": self.plan.name,
            "shard": f"{self.shard[0]}/{self.shard[1]}",
            "written": self.written,
            "skipped": self.skipped,
            "rows": self.rows,
            "errors": self.errors,
            "parts": self.plan.n_parts,
            "present": self.present,
            "complete": self.is_complete,
            "all_rows": self.all_rows,
            "all_errors": self.all_errors,
        }

    def __str__(self) -> str:
        """How much was done, how much there is, and how to read it, in one line."""
        done = f"wrote {counted(self.written, 'part')} ({_with_errors(self.rows, self.errors)})"
        before = f", {self.skipped} were there before" if self.skipped else ""
        if self.all_rows is None or self.all_errors is None:
            there = f"{self.present} of {self.plan.n_parts} parts are in {self.folder}"
            return f"{done}{before}; {there}, the other shards are not done"
        whole = _with_errors(self.all_rows, self.all_errors)
        return f"{done}{before}; {self.folder} is complete: {whole}; read them with {self.how_to_join}"


def bulk_predict(
    model: str | Path | Run | ModelPredictor,
    inputs: Iterable[str | Path],
    folder: str | Path,
    *,
    format: str = "jsonl",
    shard: str = "",
    part_items: int = PART_ITEMS,
    ray: str = "",
    artifacts: str | Path = "",
    device: str = "auto",
    precision: str = "float32",
    threads: int = 0,
    on_part: OnPart | None = None,
) -> BulkSummary:
    """Answer every input once, in parts that are files of a folder; what is there already is not done again.

    Inputs that cannot be read are rows that say why. The memory used grows with the listing of the inputs alone.

    Args:
        model: as :func:`samo.load` takes it, or what it returns.
        inputs: paths of recordings, or texts.
        folder: where the parts go; a new one, or one of an earlier call with the same model and inputs.
        format: ``jsonl``: the form of JSON everywhere, with the place in the listing as ``item``. ``parquet``: one flat
            column a label, as :meth:`samo.prediction.PredictionList.rows`, without time lines.
        shard: ``I/N`` takes every N-th part, beginning with the I-th; shards may run at once on several machines.
        part_items: inputs in a part.
        ray: address of a Ray cluster, ``auto`` or ``HOST:PORT``; empty for this process. Its machines see the
            working directory, the model, the inputs and the folder under the same paths.
        artifacts: folder of all outputs, for a run given by name.
        device: as in :func:`samo.load`.
        precision: as in :func:`samo.load`.
        threads: CPU threads; 0 chooses.
        on_part: hears of every part that was written.

    Raises:
        SettingsError: an unknown format, a wrong shard, no input.
        RunError: the folder holds answers of another model or to other inputs; or the model changed on the way.
        EnvironmentProblem: Parquet without pyarrow; no such cluster.
        Interrupted: by Ctrl-C; finished parts stay, and the same call goes on.
    """
    _require_format(format)
    number, shards = shard_of(shard)
    if ray and shards > 1:
        raise SettingsError("`ray` and `shard` exclude each other", hint="Ray divides the parts by itself")
    if part_items < 1:
        raise SettingsError(f"`part_items={part_items}`: at least 1")
    items = [os.fspath(item) for item in inputs]
    if not items:
        raise SettingsError("nothing to predict")
    answering = BulkModel.of(model, artifacts, device=device, precision=precision, threads=threads)
    listing = listing_digest(items, are_paths=answering.modality == "audio")
    plan = BulkPlan(answering.name, answering.digest, listing, len(items), part_items, format)
    target = Path(folder)
    open_folder(target, plan)
    own = plan.shard(number, shards)
    todo = [part for part in own if not (target / plan.file_of(part)).exists()]
    written: dict[int, tuple[int, int]] = {}
    try:
        for part, counts in _answered(answering, plan, items, target, todo, ray):
            written[part] = counts
            if on_part:
                on_part(len(written), len(todo))
    except KeyboardInterrupt:
        raise Interrupted(
            f"after {len(own) - len(todo) + len(written)} of {len(own)} parts", hint="the same command again goes on"
        ) from None
    return _summary(plan, target, (number, shards), len(own), written)


def _answered(
    model: BulkModel, plan: BulkPlan, items: Sequence[str], folder: Path, todo: Sequence[int], ray: str
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Write the parts that are not there; yields each with its rows and errors."""
    if ray and todo:
        from samo.deploy.bulk_ray import answered_on_ray

        yield from answered_on_ray(model, plan, items, folder, todo, ray)
        return
    for part in todo:
        rows = plan.rows_of(part)
        yield part, write_part(model, plan, part, items[rows.start : rows.stop], folder)


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
            how: ``device``, ``precision`` and ``threads`` of :func:`samo.load`.
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
            return cls(str(path.absolute()), path.name, file.modality, _digest(path), **how)
        if isinstance(model, ModelPredictor) and not model.facts.folder:
            raise SettingsError("an exported model is given by its file", hint='bulk_predict("FILE.onnx", ...)')
        run = open_run(model, artifacts)
        found = cls(str(run.folder.absolute()), run.name, run.modality, _digest(run.folder), **how)
        if isinstance(model, ModelPredictor):
            found.__dict__["predictor"] = model
        return found

    def with_threads(self, threads: int) -> BulkModel:
        """The same, not loaded, for a process with so many threads."""
        return BulkModel(self.source, self.name, self.modality, self.digest, **{**self.how, "threads": threads})

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
    files = [source] if source.is_file() else [source / name for name in _DECIDING]
    whole = hashlib.sha256()
    for path in files:
        # A file that is not there and an empty one are two things.
        with suppress(FileNotFoundError), path.open("rb") as file:
            whole.update(f"{path.suffix}:{path.stem}:".encode() if len(files) > 1 else b"")
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


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


def _summary(
    plan: BulkPlan, folder: Path, shard: tuple[int, int], n_own: int, written: Mapping[int, tuple[int, int]]
) -> BulkSummary:
    there = [part for part in range(plan.n_parts) if (folder / plan.file_of(part)).exists()]
    rows, errors = (sum(counts[k] for counts in written.values()) for k in range(2))
    done = (folder, plan, shard, len(written), n_own - len(written), rows, errors, len(there))
    if len(there) < plan.n_parts:
        return BulkSummary(*done)
    counts = [written.get(part) or _counts(plan, folder, part) for part in there]
    return BulkSummary(*done, sum(rows for rows, _ in counts), sum(errors for _, errors in counts))


def _counts(plan: BulkPlan, folder: Path, part: int) -> tuple[int, int]:
    """Rows and errors of a part that an earlier call wrote.

    Raises:
        DataError: it is not whole, or does not hold the rows of this part.
    """
    path = folder / plan.file_of(part)
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


def _require_format(name: str) -> None:
    if name not in FORMATS:
        raise SettingsError(f"unknown format '{name}'", hint=f"{nearest(name, FORMATS)}valid: {', '.join(FORMATS)}")
    if name == "parquet" and find_spec("pyarrow") is None:
        raise EnvironmentProblem(
            "`format=parquet` needs pyarrow, which is not installed", hint='pip install "samo-emotion[bulk]"'
        )


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Lock a temporary file, which tells others that its process lives."""
    with path.open("r+b") as file:
        with suppress(OSError):  # a disk without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _with_errors(rows: int, errors: int) -> str:
    return f"{counted(rows, 'row')}, {counted(errors, 'error')}"
