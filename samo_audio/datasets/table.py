"""Any corpus that a CSV lists: path, label, and optionally speaker and split, one clip a row.

The delimiter (comma, semicolon or tab) is found from the header; text is UTF-8 with or without a byte-order mark.
Paths are relative to the table's folder, or absolute. Further columns with up to 50 distinct values are kept as
attributes to report by.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from samo_audio.datasets.emotions import label_task
from samo_audio.datasets.listing import ids_without_suffix
from samo_core.data.download import RemoteFile
from samo_core.errors import DataError, first_ten, nearest

if TYPE_CHECKING:
    from samo_audio.config import DataSettings
    from samo_core.data.manifest import Manifest

__all__ = ["index"]

NAME = "table"
TITLE = "your own table: a CSV or TSV with the columns path, label, speaker and split"
LICENSE = "that of your clips"
CITATION = ""
HOMEPAGE = ""
SYNTHETIC = False
DOWNLOADS: tuple[RemoteFile, ...] = ()
FOLDS: tuple[frozenset[str], ...] = ()
GROUP_HINT = "fill the column of the speaker, or name it, for example --speaker-column actor"

_DELIMITERS = (",", ";", "\t")
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_MOST_META_VALUES = 50


@dataclass(frozen=True)
class _Row:
    """One line of the table, by column name; ``line`` counts from 1 at the header."""

    line: int
    cells: dict[str, str]


def index(root: Path, settings: DataSettings) -> Manifest:
    """List the clips of the table ``root``.

    Raises:
        DataError: no table, a missing column, an empty cell where none may be, a missing file, a file listed twice,
            an unknown split word, or labels that pose no question.
    """
    from samo_core.data.manifest import Item, Manifest
    from samo_core.tasks import LabelSpace

    columns, rows = _read(root, settings)
    _require_columns(root, columns, settings)
    labels = _filled(root, rows, settings.label_column)
    paths = _paths(root, rows, settings.path_column)
    groups = _optional(rows, columns, settings.speaker_column)
    splits = _splits(root, rows, columns, settings.split_column)
    meta = _meta(rows, columns, settings)
    task, class_of = label_task(labels, settings.mode, root)
    items = [
        Item(id=id_, source=path, labels={task.name: (class_of[label],)}, group=group, meta=more, split=part)
        for id_, path, label, group, more, part in zip(
            ids_without_suffix(paths), paths, labels, groups, meta, splits, strict=True
        )
    ]
    return Manifest(
        dataset=NAME,
        label_space=LabelSpace((task,)),
        items=tuple(sorted(items, key=lambda item: item.id)),
        root=root.absolute().parent,
        group_hint=GROUP_HINT,
    )


def _read(path: Path, settings: DataSettings) -> tuple[list[str], list[_Row]]:
    """Column names and rows; blank lines are left out."""
    text = _text(path)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, settings), strict=True)
        columns = [name.strip() for name in next(lines)]
        rows = list(_rows(path, columns, lines))
    except csv.Error as error:
        raise DataError(f"{path} is not a readable table: {error}") from error
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise DataError(f"{path} has two columns named {first_ten(map(repr, twice))}")
    if not rows:
        raise DataError(f"{path} has a header but no rows")
    return columns, rows


def _text(path: Path) -> str:
    if not path.exists():
        raise DataError(f"there is no table {path}", hint="check --data-root")
    if path.is_dir():
        tables = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in (".csv", ".tsv"))
        raise DataError(
            f"--dataset table needs a CSV file, but {path} is a folder",
            hint=f"give one of: {first_ten(tables)}" if tables else "with one folder per class use --dataset folder",
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", hint="save the table as 'CSV UTF-8'") from error
    if not text.strip():
        raise DataError(f"the table {path} is empty")
    return text


def _delimiter(text: str, settings: DataSettings) -> str:
    """The delimiter that yields most of the columns asked for, then most columns at all."""
    wanted = {settings.path_column, settings.label_column, settings.speaker_column, settings.split_column}

    def worth(delimiter: str) -> tuple[int, int]:
        header = [name.strip() for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))]
        return len(wanted.intersection(header)), len(header)

    return max(_DELIMITERS, key=worth)


def _rows(path: Path, columns: list[str], lines: Iterator[list[str]]) -> Iterator[_Row]:
    for line, cells in enumerate(lines, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(columns):
            raise DataError(
                f"row {line} of {path} has {len(cells)} cells, the header {len(columns)}",
                hint="put cells that hold the delimiter in double quotes",
            )
        padded = cells + [""] * (len(columns) - len(cells))
        yield _Row(line, {name: cell.strip() for name, cell in zip(columns, padded, strict=True)})


def _require_columns(path: Path, columns: list[str], settings: DataSettings) -> None:
    """Refuse a missing column that is needed, or that was named on purpose.

    A table may do without speakers (a corpus to judge on needs none, and a split by speaker says so itself), but
    a split by speaker that overlooks a column like ``speaker_id`` deserves the better message.
    """
    by_speaker = settings.split in ("speaker", "folds") and bool(settings.speaker_column)
    needed = {
        "path_column": True,
        "label_column": True,
        "speaker_column": by_speaker and bool(nearest(settings.speaker_column, columns)),
        "split_column": settings.split == "table",
    }
    for setting, always in needed.items():
        name = getattr(settings, setting)
        by_default = name == type(settings).model_fields[setting].default
        if name in columns or (not always and (by_default or not name)):
            continue
        flag = "--" + setting.replace("_", "-")
        also = f"; {flag} '' if the speakers are unknown"
        raise DataError(
            f"{path} has no column '{name}'; it has: {first_ten(filter(None, columns))}",
            hint=f"{nearest(name, columns)}name it with {flag}" + (also if setting == "speaker_column" else ""),
        )


def _filled(path: Path, rows: list[_Row], column: str) -> list[str]:
    """A column in which no cell may be empty."""
    empty = [row.line for row in rows if not row.cells[column]]
    if empty:
        raise DataError(f"column '{column}' of {path} is empty in row {first_ten(empty)}")
    return [row.cells[column] for row in rows]


def _optional(rows: list[_Row], columns: list[str], column: str) -> list[str]:
    return [row.cells[column] if column in columns else "" for row in rows]


def _paths(table: Path, rows: list[_Row], column: str) -> list[str]:
    """Normalised posix paths, relative to the table's folder where they were given so."""
    folder = table.absolute().parent
    paths = [_normalised(folder, given) for given in _filled(table, rows, column)]
    missing = [path for path in paths if not os.path.isfile(folder / path)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} files that {table} lists are missing: {first_ten(missing)}",
            hint=f"paths are absolute or relative to {folder}",
        )
    first: dict[str, int] = {}
    twice = []
    for row, path in zip(rows, paths, strict=True):
        if path in first:
            twice.append(f"{path} (rows {first[path]} and {row.line})")
        first.setdefault(path, row.line)
    if twice:
        raise DataError(f"{table} lists files twice: {first_ten(twice)}")
    return paths


def _normalised(folder: Path, given: str) -> str:
    # A table written on Windows may separate folders by backslashes.
    if "\\" in given and not os.path.exists(folder / given):
        given = given.replace("\\", "/")
    return Path(os.path.normpath(given)).as_posix()


def _splits(path: Path, rows: list[_Row], columns: list[str], column: str) -> list[str]:
    """train, val, test, or empty where the table assigns none."""
    given = _optional(rows, columns, column)
    unknown = sorted({word for word in given if word and word.lower() not in _SPLIT_WORDS})
    if unknown:
        raise DataError(
            f"column '{column}' of {path} holds words that name no split: {first_ten(map(repr, unknown))}",
            hint=f"valid: {', '.join(_SPLIT_WORDS)}; --split-column '' leaves the column alone",
        )
    return [_SPLIT_WORDS[word.lower()] if word else "" for word in given]


def _meta(rows: list[_Row], columns: list[str], settings: DataSettings) -> list[dict[str, str]]:
    """Further columns with few enough values to report by."""
    used = {settings.path_column, settings.label_column, settings.speaker_column, settings.split_column}
    kept = [
        name
        for name in columns
        if name and name not in used and len({row.cells[name] for row in rows}) <= _MOST_META_VALUES
    ]
    return [{name: row.cells[name] for name in kept} for row in rows]
