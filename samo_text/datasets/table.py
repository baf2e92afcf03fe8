"""Any corpus of texts in a CSV, TSV, JSON or JSON Lines file, one text a row.

Several label columns are several tasks; where all of them hold 0 and 1 they are the labels of one multi-label task,
unless ``binary_columns=tasks``. A list of labels, in JSON or as Python prints it, or a cell cut at ``label_separator``,
makes a task multi-label. An empty cell, or NaN, is unlabelled, and masked; for a multi-label task ``empty_labels=none``
reads it as "none of the labels". Rows without a label in any column are left out, and rows without text refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samo.data import tables
from samo.data.download import RemoteFile
from samo.data.keys import refuse_twin_labels
from samo.data.tables import Row, Table
from samo.errors import DataError, SettingsError, first_few, first_ten, nearest, plural
from samo_text.texts import clean, content_of, length_of

if TYPE_CHECKING:
    from samo.data.manifest import Item, Manifest
    from samo.tasks import Task
    from samo_text.config import DataSettings

__all__ = ["BINARY_TASK", "PartlyEmptyError", "binary_labels", "binary_value", "index"]

NAME = "table"
TITLE = "your own table: a CSV, TSV, JSON or JSONL file with the columns text, label and split"
LICENSE = "that of your texts"
CITATION = ""
HOMEPAGE = ""
SYNTHETIC = False
DOWNLOADS: tuple[RemoteFile, ...] = ()
FOLDS: tuple[frozenset[str], ...] = ()
GROUP_HINT = "name the column of the author, for example `group_column=author`"

BINARY_TASK = "label"
"""Name of the task whose labels are columns of 0 and 1."""
_BINARY = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def index(root: Path, settings: DataSettings) -> Manifest:
    """List the texts of the table ``root``.

    Raises:
        SettingsError: a ``mode``, which tables do not know, or no label column.
        DataError: no table, a missing column, a row without text, mixed kinds of labels, an unknown split word, or
            labels that pose no question.
    """
    from samo.data.manifest import Manifest
    from samo.tasks import LabelSpace

    names = _label_columns(settings)
    table = _read(root, {settings.text_column, *names, settings.split_column, settings.group_column})
    columns = table.columns
    _require_columns(root, table, names, settings)
    texts, notes = _texts(root, table.rows, settings.text_column)
    rows, read_notes = _with_labels_read(table.rows, names)
    notes = [*table.notes, *notes, *read_notes]
    if settings.binary_columns == "labels" and len(names) > 1 and all(_is_binary(rows, name) for name in names):
        cells: dict[str, list[tuple[str, ...] | str]] = {}
        tasks, answers = _one_task(root, rows, names)
        notes.append(f"columns {_listed(names)} hold 0 and 1: labels of one task, several of which may hold")
    else:
        cells = {name: _cells(root, rows, name, settings.label_separator) for name in names}
        tasks = {name: _task(root, name, rows, own) for name, own in cells.items()}
        answers = {name: _answers(tasks[name], own, settings) for name, own in cells.items()}
    items = _items(rows, columns, names, texts, answers, root, settings)
    kept = [item for item in items if item.labels]
    if not kept:
        raise DataError(f"no row of {root} has a label in {_listed(names)}", hint="name the column: `label_columns`")
    notes += tables.about_splits([item.split for item in kept], settings.split, settings.split_column)
    notes += [*_about_empty(tasks, cells, items, settings), *_about_pseudo(rows)]
    return Manifest(
        dataset=NAME,
        label_space=LabelSpace(tuple(tasks.values())),
        items=tuple(kept),
        root=root.absolute().parent,
        origin=root.name,
        group_hint=GROUP_HINT,
        group_noun="group",
        copies="reported",
        notes=tuple(notes),
    )


def _label_columns(settings: DataSettings) -> list[str]:
    if settings.mode != "emotion":
        raise SettingsError(
            f"`mode={settings.mode}` groups the labels of GoEmotions; a table is taken as it stands",
            hint="leave `mode` out",
        )
    names = [name.strip() for name in settings.label_columns.split(",") if name.strip()]
    if not names:
        raise SettingsError("`label_columns` names no column", hint="for example `label_columns=emotion,sentiment`")
    if len(set(names)) < len(names):
        raise SettingsError(f"`label_columns` names a column twice: {_listed(names)}")
    return names


def _read(path: Path, wanted: set[str]) -> Table:
    if path.is_dir():
        found = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in tables.TABLE_SUFFIXES)
        raise DataError(
            f"`dataset=table` needs a file, but {path} is a folder",
            hint=f"give one of: {first_ten(found)}" if found else "the three files of GoEmotions need no `dataset`",
        )
    return tables.read_table(path, wanted - {""})


def _require_columns(path: Path, table: Table, names: Sequence[str], settings: DataSettings) -> None:
    """Refuse a missing column that is needed, or that was named on purpose."""
    columns = table.columns
    by_default = type(settings).model_fields["split_column"].default
    needs_split = settings.split == "table" or settings.split_column != by_default
    requested = {settings.text_column: "`text_column`", **dict.fromkeys(names, "`label_columns`")}
    if settings.split_column and needs_split:
        requested[settings.split_column] = "`split_column`"
    if settings.group_column:
        requested[settings.group_column] = "`group_column`"
    for name, setting in requested.items():
        if name not in columns:
            how = "cells are separated by commas, semicolons, tabs or bars; " if len(columns) == 1 else ""
            binary = [other for other in columns[:100] if name in names and _is_binary(table.rows, other)]
            also = f"; columns of 0 and 1 are named together: `label_columns={','.join(binary)}`"
            raise DataError(
                f"{path} has no column '{name}'; it has: {first_ten(filter(None, columns))}",
                hint=f"{nearest(name, columns)}{how}name it with {setting}" + (also if len(binary) > 1 else ""),
            )
    twice = [name for name in (settings.text_column, settings.split_column, settings.group_column) if name in names]
    if twice:
        raise SettingsError(f"column '{twice[0]}' cannot hold labels and something else")


def _texts(path: Path, rows: Sequence[Row], column: str) -> tuple[list[str], list[str]]:
    """Cleaned texts, and lines on what was changed in them."""
    odd = [row.line for row in rows if not isinstance(row.cells[column], str)]
    if odd:
        raise DataError(f"column '{column}' of {path} holds no text in row {first_ten(odd)}", hint="see `text_column`")
    given = [str(row.cells[column]) for row in rows]
    texts = [clean(text) for text in given]
    empty = [row.line for row, text in zip(rows, texts, strict=True) if not text]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(rows)} rows of {path} have no text in column '{column}': row {first_ten(empty)}",
            hint="take these rows out; an empty text says nothing a model could learn",
        )
    broken = [
        row.line
        for row, before, after in zip(rows, given, texts, strict=True)
        if after.count("\ufffd") > before.count("\ufffd")
    ]
    note = (
        f"{len(broken):,} {plural('text holds', len(broken), 'texts hold')} "
        f"lone surrogates or control characters, which became U+FFFD: row "
        f"{first_few(broken, 5)}"
    )
    return texts, [note] if broken else []


def _with_labels_read(rows: Sequence[Row], names: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Rows whose labels are lists where lists were printed into the table, and None for NaN; lines on the former."""
    notes, read = [], list(rows)
    for name in names:
        given = [None if row.cells[name] in ("nan", "NaN") else row.cells[name] for row in rows]
        cells = tables.lists_saved_as_text(given)
        changed = [(before, after) for before, after in zip(given, cells, strict=True) if before is not after]
        if changed:
            notes.append(f"column '{name}' holds lists as text, {changed[0][0]}: read as the labels in them")
        read = [
            replace(row, cells={**row.cells, name: cell}) if row.cells[name] is not cell else row
            for row, cell in zip(read, cells, strict=True)
        ]
    return read, notes


def binary_value(cell: Any) -> bool | None:
    """True of 1, False of 0 however they are written; None of an empty cell.

    Raises:
        ValueError: anything else.
    """
    word = tables.as_text(cell).lower()
    if word and word not in _BINARY:
        raise ValueError(f"{cell!r} is neither 0 nor 1")
    return _BINARY.get(word)


class PartlyEmptyError(ValueError):
    """A row is empty in some of its columns of 0 and 1."""


def binary_labels(row: Row, names: Sequence[str]) -> tuple[str, ...] | None:
    """The columns of 0 and 1 that hold 1; None where all are empty, so that the row is unlabelled.

    Raises:
        PartlyEmptyError: some of them are empty.
        ValueError: a cell is neither 0 nor 1.
    """
    values = {name: binary_value(row.cells[name]) for name in names}
    empty = [name for name, value in values.items() if value is None]
    if len(empty) == len(values):
        return None
    if empty:
        raise PartlyEmptyError(f"column '{empty[0]}' is empty, others of {_listed(names)} are not")
    return tuple(name for name, value in values.items() if value)


def _is_binary(rows: Sequence[Row], column: str) -> bool:
    """Whether a column holds 0 and 1 alone, and 1 somewhere or 0 somewhere."""
    try:
        return {binary_value(row.cells[column]) for row in rows} != {None}
    except ValueError:
        return False


def _one_task(
    path: Path, rows: Sequence[Row], names: Sequence[str]
) -> tuple[dict[str, Task], dict[str, list[tuple[str, ...] | None]]]:
    """One multi-label task whose labels are columns of 0 and 1; a row that is empty in all of them is unlabelled.

    Raises:
        DataError: a row is empty in some of them.
    """
    from samo.tasks import Task

    refuse_twin_labels(names, f"label columns of {path}")
    answers: list[tuple[str, ...] | None] = []
    partly = []
    for row in rows:
        try:
            answers.append(binary_labels(row, names))
        except PartlyEmptyError:
            partly.append(row.line)
    if partly:
        raise DataError(
            f"columns {_listed(names)} of {path} are empty in part in row {first_ten(partly)}",
            hint="fill in 0 or 1; or take each column as a task of its own with `binary_columns=tasks`",
        )
    return {BINARY_TASK: Task(BINARY_TASK, tuple(names), multi_label=True)}, {BINARY_TASK: answers}


def _cells(path: Path, rows: Sequence[Row], column: str, separator: str) -> list[tuple[str, ...] | str]:
    """The labels of every row: a tuple for a multi-label task, else a word, empty for an empty cell.

    Raises:
        DataError: a column that mixes kinds of values, or a number that is no whole one.
    """
    kinds: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        for kind in dict.fromkeys(_kind(value) for value in _values(row.cells[column])):
            kinds[kind].append(row.line)
        if isinstance(row.cells[column], list):
            kinds["list"].append(row.line)
    words = [kind for kind in kinds if kind != "list"]
    if len(words) > 1 or (kinds["list"] and any(_is_word(row.cells[column]) for row in rows)):
        single = {"no list": [row.line for row in rows if _is_word(row.cells[column])]} if kinds["list"] else {}
        mixed = {**({kind: kinds[kind] for kind in words} if len(words) > 1 else {"list": kinds["list"]}), **single}
        found = "; ".join(f"{kind} in row {first_few(lines, 3)}" for kind, lines in mixed.items() if lines)
        raise DataError(f"column '{column}' of {path} mixes kinds of labels: {found}", hint="write all of them alike")
    if words and words[0] not in ("text", "whole number", "true or false"):
        raise DataError(
            f"column '{column}' of {path} holds {words[0]} in row {first_few(kinds[words[0]], 3)}",
            hint="labels are words, whole numbers, or lists of them",
        )
    if not kinds["list"] and not separator:
        return [_word(row.cells[column]) for row in rows]
    return [
        tuple(
            dict.fromkeys(
                word
                for value in _values(row.cells[column])
                for word in ([part.strip() for part in _word(value).split(separator)] if separator else [_word(value)])
                if word
            )
        )
        for row in rows
    ]


def _values(cell: object) -> list[object]:
    """What a cell holds, less what is empty."""
    return [value for value in (cell if isinstance(cell, list) else [cell]) if value is not None and value != ""]


def _is_word(cell: object) -> bool:
    return not isinstance(cell, list) and cell is not None and cell != ""


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "text", int: "whole number", float: "fraction", list: "list within a list", dict: "object"}
    return kinds.get(type(value), type(value).__name__)


def _word(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else clean(str(value))


def _task(path: Path, name: str, rows: Sequence[Row], cells: Sequence[tuple[str, ...] | str]) -> Task:
    """The question a column poses: its distinct labels, sorted, numbers by value.

    Raises:
        DataError: two labels differ only in spelling, or there are fewer than two.
    """
    from samo.tasks import Task

    used = {label for cell in cells for label in _as_labels(cell)}
    refuse_twin_labels(used, f"labels of column '{name}' of {path}")
    if len(used) < 2:
        found = f"only the label {min(used)!r}" if used else "no label"
        raise DataError(f"column '{name}' of {path} has {found} in {len(rows)} rows; two are needed")
    numbers = all(label.removeprefix("-").isdecimal() for label in used)
    return Task(name, tuple(sorted(used, key=int if numbers else str)), multi_label=isinstance(cells[0], tuple))


def _as_labels(cell: tuple[str, ...] | str) -> tuple[str, ...]:
    return cell if isinstance(cell, tuple) else (cell,) if cell else ()


def _answers(
    task: Task, cells: Iterable[tuple[str, ...] | str], settings: DataSettings
) -> list[tuple[str, ...] | None]:
    """Labels of every row; None where it is unlabelled."""
    none = () if task.multi_label and settings.empty_labels == "none" else None
    return [_as_labels(cell) or none for cell in cells]


def _items(
    rows: Sequence[Row],
    columns: Sequence[str],
    names: Sequence[str],
    texts: Sequence[str],
    answers: dict[str, list[tuple[str, ...] | None]],
    path: Path,
    settings: DataSettings,
) -> list[Item]:
    from samo.data.manifest import Item

    splits = tables.splits(path, rows, columns, settings.split_column)
    groups = tables.optional(rows, columns, settings.group_column)
    used = {settings.text_column, *names, settings.split_column, settings.group_column}
    meta = tables.attributes(rows, columns, used)
    return [
        Item(
            id=f"row-{row.line:07d}",
            source=text,
            labels={task: own for task, given in answers.items() if (own := given[place]) is not None},
            group=groups[place],
            meta={"length": length_of(text), **meta[place]},
            content=content_of(text),
            split=splits[place],
        )
        for place, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]


def _about_empty(
    tasks: dict[str, Task],
    cells: dict[str, list[tuple[str, ...] | str]],
    items: Sequence[Item],
    settings: DataSettings,
) -> list[str]:
    """Lines on how empty cells were read."""
    notes = []
    for name, given in cells.items():
        empty = sum(not cell for cell in given)
        if empty and tasks[name].multi_label:
            meaning = "none of the labels" if settings.empty_labels == "none" else "not labelled"
            notes.append(
                f"{empty:,} {plural('row is', empty, 'rows are')} empty in column '{name}', "
                f"taken as {meaning} (`empty_labels`)"
            )
    left = sum(not item.labels for item in items)
    rows = f"{left:,} {plural('row', left)} without any label {plural('was', left, 'were')} left out"
    return [*notes, rows] if left else notes


def _about_pseudo(rows: Sequence[Row]) -> list[str]:
    """A line where a run gave the labels: scores on them say how alike two models are."""
    from samo_text.teacher import labelled_by_a_run

    n = labelled_by_a_run(rows)
    what = "the labels of a run (column source): a score on them tells how alike two models are, not how good one is"
    return [f"{n:,} of {len(rows):,} rows have {what}"] if n else []


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
