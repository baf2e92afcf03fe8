"""Any corpus that a CSV lists: path, label, and optionally speaker, split, start and end, one clip a row.

The delimiter (comma, semicolon, tab or bar) is found from the header; text is UTF-8, or what Excel writes; JSON and
JSON Lines are read too. Paths are relative to the table's folder, or absolute. With the columns start and end, in
seconds, a row is a part of its file; parts of one recording stay together where no speaker is known. Further columns
with up to 50 distinct values are kept as attributes to report by.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from samo.data import tables
from samo.data.download import RemoteFile
from samo.data.keys import key, shown, visible
from samo.data.tables import Row, Table
from samo.errors import DataError, first_few, first_ten, nearest, plural
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
Segment = tuple[float, float | None]
# Over a hundred days.
_MOST_SECONDS = 1e7

GROUP_HINT = "fill the column of the speaker, or name it, for example `speaker_column=actor`"


def index(root: Path, settings: DataSettings) -> Manifest:
    """List the clips of the table ``root``.

    Raises:
        DataError: no table, a missing column, an empty cell where none may be, a missing file, a clip listed twice,
            a segment that is none, an unknown split word, or labels that pose no question.
    """
    from samo.data.manifest import Item, Manifest
    from samo.tasks import LabelSpace

    segment_columns = (settings.start_column, settings.end_column)
    used = {settings.path_column, settings.label_column, settings.speaker_column, settings.split_column}
    table = _read(root, used.union(segment_columns))
    columns, rows = table.columns, table.rows
    _require_columns(root, columns, settings)
    labels = _labels(root, rows, settings.label_column)
    segments, notes = _segments(root, columns, rows, settings)
    paths, respelled = _paths(root, rows, segments, settings.path_column)
    groups, noun, about_groups = _groups(tables.optional(rows, columns, settings.speaker_column), paths, segments)
    splits = tables.splits(root, rows, columns, settings.split_column)
    meta = tables.attributes(rows, columns, used.union(segment_columns if any(segments) else ()))
    task, class_of = label_task(labels, settings.mode, root)
    items = [
        Item(id_, path, {task.name: (class_of[label],)}, group, more, split=part, segment=segment)
        for id_, path, label, group, more, part, segment in zip(
            _ids(paths, segments), paths, labels, groups, meta, splits, segments, strict=True
        )
    ]
    return Manifest(
        dataset=NAME,
        label_space=LabelSpace((task,)),
        items=tuple(sorted(items, key=lambda item: item.id)),
        root=root.absolute().parent,
        origin=root.name,
        group_hint=GROUP_HINT,
        group_noun=noun,
        notes=(
            *table.notes,
            *notes,
            *respelled,
            *about_groups,
            *tables.about_splits(splits, settings.split, settings.split_column),
        ),
    )


def _read(path: Path, used: Collection[str]) -> Table:
    if path.is_dir():
        found = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in tables.TABLE_SUFFIXES)
        raise DataError(
            f"`dataset=table` needs a CSV file, but {path} is a folder",
            hint=f"give one of: {first_ten(found)}" if found else "with one folder per class use `dataset=folder`",
        )
    return tables.read_table(path, used)


def _require_columns(path: Path, columns: Sequence[str], settings: DataSettings) -> None:
    """Refuse a missing column that is needed, or that was named on purpose.

    A table may do without speakers (a corpus to judge on needs none, and a split by speaker says so itself), but
    a split by speaker that overlooks a column like ``speaker_id`` deserves the better message.
    """
    own = settings.split == "auto" and settings.split_column in columns
    by_speaker = settings.split in ("auto", "speaker", "folds") and not own and bool(settings.speaker_column)
    needed = {
        "path_column": True,
        "label_column": True,
        "speaker_column": by_speaker and bool(nearest(settings.speaker_column, columns)),
        "split_column": settings.split == "table",
        "start_column": False,
        "end_column": False,
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


def _labels(path: Path, rows: Sequence[Row], column: str) -> list[str]:
    """The label of every row; a list of one label, as pandas saves it, is that label."""
    read = tables.lists_saved_as_text([row.cells[column] for row in rows])
    several = [row.line for row, cell in zip(rows, read, strict=True) if isinstance(cell, list) and len(cell) != 1]
    if several:
        raise DataError(
            f"column '{column}' of {path} holds lists of labels in row {first_ten(several)}",
            hint="a clip has one label; list it once with the one it shall have",
        )
    alone = [cell[0] if isinstance(cell, list) else cell for cell in read]
    return tables.filled(path, [Row(row.line, {column: cell}) for row, cell in zip(rows, alone, strict=True)], column)


def _segments(
    path: Path, columns: Sequence[str], rows: Sequence[Row], settings: DataSettings
) -> tuple[list[Segment | None], list[str]]:
    """Begin and end of every clip in its file, None where it is all of the file; lines on a column left alone.

    Raises:
        DataError: a cell is no number of seconds, or an end is not after its beginning.
    """
    fields = type(settings).model_fields
    named = {name: getattr(settings, name) for name in ("start_column", "end_column")}
    there = [column for column in named.values() if column in columns]
    by_default = all(value == fields[name].default for name, value in named.items() if value)
    if not there or (len(there) == 1 and by_default and all(named.values())):
        alone = f"column '{there[0]}' stands alone and cuts no clip" if there else ""
        return [None] * len(rows), [f"{alone}; name it with `{_setting_of(named, there[0])}`"] if there else []
    begins = [_seconds(path, row, named["start_column"], columns) for row in rows]
    ends = [_seconds(path, row, named["end_column"], columns) for row in rows]
    turned = [
        row.line
        for row, begin, end in zip(rows, begins, ends, strict=True)
        if end is not None and end <= (begin or 0.0)
    ]
    if turned:
        raise DataError(f"{path}: segments end before they begin in row {first_ten(turned)}")
    return [
        None if begin is None and end is None else (begin or 0.0, end) for begin, end in zip(begins, ends, strict=True)
    ], []


def _setting_of(named: Mapping[str, str], column: str) -> str:
    return next(setting for setting, name in named.items() if name == column)


def _seconds(path: Path, row: Row, column: str, columns: Sequence[str]) -> float | None:
    """A cell's seconds; None where it is empty, or there is no such column."""
    word = tables.as_text(row.cells[column]) if column in columns else ""
    try:
        seconds = float(word.replace(",", ".")) if word else None
        if seconds is not None and not 0.0 <= seconds <= _MOST_SECONDS:
            raise ValueError
    except ValueError:
        raise DataError(
            f"column '{column}' of {path} holds {word!r} in row {row.line}",
            hint="segments are in seconds, 0 to 10,000,000; `start_column=` and `end_column=` leave the columns alone",
        ) from None
    return seconds


def _groups(
    speakers: list[str], paths: Sequence[str], segments: Sequence[Segment | None]
) -> tuple[list[str], str, list[str]]:
    """Group of every clip, and what a group is: the speaker, or where none is known the recording that clips are cut
    from.
    """
    if any(map(key, speakers)) or not any(segments):
        return speakers, "speaker", []
    note = "no speaker is known: the cuts of one recording stay together, a speaker's recordings may be in two parts"
    return list(paths), "recording", [note]


def _ids(paths: Sequence[str], segments: Sequence[Segment | None]) -> list[str]:
    """A path without its suffix where that is enough, and the seconds it is cut at."""
    distinct = list(dict.fromkeys(paths))
    stems = dict(zip(distinct, ids_without_suffix(distinct), strict=True))
    return [stems[path] + _cut(segment) for path, segment in zip(paths, segments, strict=True)]


def _cut(segment: Segment | None) -> str:
    if segment is None:
        return ""
    begin, end = (format(round(edge, 6), ".6f").rstrip("0").rstrip(".") if edge is not None else "" for edge in segment)
    return f"#{begin}-{end}"


def _paths(
    table: Path, rows: Sequence[Row], segments: Sequence[Segment | None], column: str
) -> tuple[list[str], list[str]]:
    """Normalised posix paths, relative to the table's folder where they were given so; lines on those that were found
    under another spelling.
    """
    folder = table.absolute().parent
    names = _Names()
    given = tables.filled(table, rows, column)
    found = [_normalised(folder, path, names) for path in given]
    paths = [path for path, _ in found]
    missing = [path for path in paths if not os.path.isfile(folder / path)]
    if missing:
        several = "; of several names that differ in case alone none is taken" if names.several else ""
        raise DataError(
            f"{len(missing)} of {len(paths)} files that {table} lists are missing: {first_ten(map(shown, missing))}",
            hint=f"paths are absolute or relative to {folder}{several}",
        )
    first: dict[object, int] = {}
    twice = []
    for row, path, segment in zip(rows, paths, segments, strict=True):
        # A relative and an absolute path, or one through a link, name one file too.
        clip = (os.path.realpath(folder / path), segment)
        if clip in first:
            twice.append(f"{path}{_cut(segment)} (rows {first[clip]} and {row.line})")
        first.setdefault(clip, row.line)
    if twice:
        raise DataError(f"{table} lists files twice: {first_ten(twice)}")
    respelled = [f"{shown(mine)} is {shown(path)}" for mine, (path, other) in zip(given, found, strict=True) if other]
    files = plural("file was", len(respelled), "files were")
    note = f"{len(respelled):,} {files} found under another spelling: {first_few(respelled, 3)}"
    return paths, [note] if respelled else []


class _Names:
    """Names in folders, found however their case and accents are written."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, list[str]]] = {}
        self.several = False

    def find(self, folder: Path, name: str) -> str | None:
        """The one name in a folder that is ``name`` in another spelling."""
        place = str(folder)
        if place not in self._known:
            self._known[place] = defaultdict(list)
            with suppress(OSError, ValueError):
                for entry in os.listdir(place):
                    self._known[place][_folded(entry)].append(entry)
        found = self._known[place].get(_folded(name), [])
        self.several |= len(found) > 1
        return found[0] if len(found) == 1 else None


def _folded(name: str) -> str:
    return normalize("NFC", normalize("NFC", visible(name)).casefold())


def _normalised(folder: Path, given: str, names: _Names) -> tuple[str, bool]:
    """The spelling of a path under which the file exists, the one given if there is none; and whether it had to be
    looked for among the names of its folder.
    """
    # Windows separates folders by backslashes; macOS writes accents in two signs; joined tables hold byte-order marks.
    seen = visible(given)
    spellings = (given, given.replace("\\", "/"), seen, *(normalize(form, seen) for form in ("NFC", "NFD")))
    found = next((path for path in spellings if os.path.exists(folder / path)), "")
    other = "" if found else _spelled(folder, spellings[1], names)
    return Path(os.path.normpath(found or other or spellings[1])).as_posix(), bool(other)


def _spelled(folder: Path, given: str, names: _Names) -> str:
    """A path part by part in the spelling of the disk; empty where a part is not there."""
    place = Path()
    for part in Path(given).parts:
        name = part if part in ("..", "/") or os.path.exists(folder / place / part) else None
        name = name or names.find(folder / place, part)
        if name is None:
            return ""
        place /= name
    return str(place)
