"""Any corpus that a CSV lists: path, label, and optionally speaker and split, one clip a row.

The delimiter (comma, semicolon, tab or bar) is found from the header; text is UTF-8, or what Excel writes; JSON and
JSON Lines are read too.
Paths are relative to the table's folder, or absolute. Further columns with up to 50 distinct values are kept as
attributes to report by.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from samo.data import tables
from samo.data.download import RemoteFile
from samo.data.keys import shown, visible
from samo.data.tables import Row, Table
from samo.errors import DataError, first_ten, nearest
from samo_audio.datasets.emotions import label_task
from samo_audio.datasets.listing import ids_without_suffix

if TYPE_CHECKING:
    from samo.data.manifest import Manifest
    from samo_audio.config import DataSettings

__all__ = ["index"]

NAME = "table"
TITLE = "your own table: a CSV or TSV with the columns path, label, speaker and split"
LICENSE = "that of your clips"
CITATION = ""
HOMEPAGE = ""
SYNTHETIC = False
DOWNLOADS: tuple[RemoteFile, ...] = ()
FOLDS: tuple[frozenset[str], ...] = ()
GROUP_HINT = "fill the column of the speaker, or name it, for example `speaker_column=actor`"


def index(root: Path, settings: DataSettings) -> Manifest:
    """List the clips of the table ``root``.

    Raises:
        DataError: no table, a missing column, an empty cell where none may be, a missing file, a file listed twice,
            an unknown split word, or labels that pose no question.
    """
    from samo.data.manifest import Item, Manifest
    from samo.tasks import LabelSpace

    used = {settings.path_column, settings.label_column, settings.speaker_column, settings.split_column}
    table = _read(root, used)
    columns, rows = table.columns, table.rows
    _require_columns(root, columns, settings)
    labels = tables.filled(root, rows, settings.label_column)
    paths = _paths(root, rows, settings.path_column)
    groups = tables.optional(rows, columns, settings.speaker_column)
    splits = tables.splits(root, rows, columns, settings.split_column)
    meta = tables.attributes(rows, columns, used)
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
        notes=table.notes,
    )


def _read(path: Path, used: Collection[str]) -> Table:
    if path.is_dir():
        found = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in tables.TABLE_SUFFIXES)
        raise DataError(
            f"`dataset=table` needs a CSV file, but {path} is a folder",
            hint=f"give one of: {first_ten(found)}" if found else "with one folder per class use `dataset=folder`",
        )
    return tables.read_table(path, used)


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
        also = f"; `{setting}=` if the speakers are unknown"
        raise DataError(
            f"{path} has no column '{name}'; it has: {first_ten(filter(None, columns))}",
            hint=f"{nearest(name, columns)}name it with `{setting}`" + (also if setting == "speaker_column" else ""),
        )


def _paths(table: Path, rows: list[Row], column: str) -> list[str]:
    """Normalised posix paths, relative to the table's folder where they were given so."""
    folder = table.absolute().parent
    paths = [_normalised(folder, given) for given in tables.filled(table, rows, column)]
    missing = [path for path in paths if not os.path.isfile(folder / path)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} files that {table} lists are missing: {first_ten(map(shown, missing))}",
            hint=f"paths are absolute or relative to {folder}",
        )
    first: dict[str, int] = {}
    twice = []
    for row, path in zip(rows, paths, strict=True):
        # A relative and an absolute path, or one through a link, name one file too.
        file = os.path.realpath(folder / path)
        if file in first:
            twice.append(f"{path} (rows {first[file]} and {row.line})")
        first.setdefault(file, row.line)
    if twice:
        raise DataError(f"{table} lists files twice: {first_ten(twice)}")
    return paths


def _normalised(folder: Path, given: str) -> str:
    """The spelling of a path under which the file exists, the one given if there is none."""
    # Windows separates folders by backslashes; macOS writes accents in two signs; joined tables hold byte-order marks.
    seen = visible(given)
    spellings = (given, given.replace("\\", "/"), seen, *(normalize(form, seen) for form in ("NFC", "NFD")))
    found = next((path for path in spellings if os.path.exists(folder / path)), spellings[1])
    return Path(os.path.normpath(found)).as_posix()
