"""Further texts to train on, from a table of their own: pseudo-labelled ones, or any kept out of evaluation."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np

from samo.data import tables
from samo.data.keys import shown
from samo.data.manifest import Item, Manifest
from samo.data.near_duplicates import find_copies, folded
from samo.data.tables import Row
from samo.errors import DataError, LeakError, first_few, nearest
from samo.frontend import Notify
from samo.runs.provenance import known_items
from samo.tasks import Task
from samo_text.datasets.table import binary_labels
from samo_text.teacher import SEPARATOR, read_teacher, refuse_orphans
from samo_text.texts import clean, content_of

__all__ = ["METHOD", "extra_items"]

METHOD = "extra-table"
"""What ``meta`` of these items names as their method."""


def extra_items(
    path: Path,
    manifest: Manifest,
    train_rows: np.ndarray,
    *,
    text_column: str = "text",
    separator: str = "",
    notify: Notify | None = None,
) -> tuple[Item, ...]:
    """The rows of a table as items to train on.

    A text that stands in the corpus outside the training rows, word for word or nearly so, is left out: the model would
    be evaluated on what it has seen. So are texts of the training rows, repetitions, and rows without text or label.

    Args:
        path: CSV, TSV, JSON or JSON Lines, with a column for each task of ``manifest``; a missing one is unlabelled.
        manifest: the corpus.
        train_rows: (N,) rows of it that are trained on.
        text_column: column of the text.
        separator: what joins several labels in a cell; empty is ``|``.
        notify: is told how many rows were taken and why others were not.

    Raises:
        DataError: the table cannot be read, has no column of texts or of any task, holds a label the corpus does not
            know, or has no row that can be used.
        LeakError: its labels come from a run that learned from texts outside the training rows, or that nobody knows.
    """
    rows, columns = _read(path, text_column, manifest, notify)
    refuse_orphans(path, rows)
    tasks = [task for task in manifest.label_space.tasks if task.name in columns or _in_columns(task, columns)]
    trained = {int(row) for row in train_rows}
    _refuse_knowing_teacher(path, [item for row, item in enumerate(manifest.items) if row not in trained])
    learned = {folded(manifest.items[row].source) for row in trained}
    fresh, lost = _new_items(path, rows, tasks, learned, text_column, separator or SEPARATOR)
    others = tuple(item.source for row, item in enumerate(manifest.items) if row not in trained)
    leaked = find_copies(tuple(item.source for item in fresh), others).all
    lost["in validation or test"] = len(leaked)
    found = tuple(item for row, item in enumerate(fresh) if row not in leaked)
    reasons = ", ".join(f"{why} {n}" for why, n in lost.items() if n)
    if not found:
        raise DataError(f"`extra_table` {path} has no row that can be trained on ({reasons})")
    if notify:
        notify(
            f"{len(found)} of {len(rows)} rows of {path} join the training part"
            + (f"; left out: {reasons}" if reasons else "")
        )
    return found


def _new_items(
    path: Path, rows: Sequence[Row], tasks: Sequence[Task], learned: Set[str], text_column: str, separator: str
) -> tuple[list[Item], dict[str, int]]:
    """An item for each row with a text and a label whose text neither stands in ``learned``, folded, nor in a row
    before it; and of how many rows none was made, by the reason.
    """
    lost = {"empty": 0, "repeated": 0, "in training": 0}
    known: set[str] = set()
    fresh: list[Item] = []
    for number, row in enumerate(rows, start=1):
        text = clean(_text(row, text_column, path))
        given = {task.name: _labels(row, task, separator, path) for task in tasks}
        labels = {name: own for name, own in given.items() if own is not None}
        why = "empty" if not text or not labels else "repeated" if folded(text) in known else ""
        why = why or ("in training" if folded(text) in learned else "")
        if why:
            lost[why] += 1
            continue
        known.add(folded(text))
        meta = {"parent": "", "method": METHOD}
        fresh.append(Item(f"extra-{number:05d}", text, labels, meta=meta, content=content_of(text)))
    return fresh, lost


def _refuse_knowing_teacher(path: Path, evaluated: Sequence[Item]) -> None:
    """A teacher that learned from texts the pupil is evaluated on hands their labels on."""
    teacher = read_teacher(path)
    before = {item.id for item in known_items(teacher.before, evaluated)} if teacher else set()
    known = [item.id for item in evaluated if teacher and (item.content in teacher.learned or item.id in before)]
    if teacher and known:
        raise LeakError(
            f"`extra_table` {path}: run '{teacher.run}', whose labels these are, learned from {len(known)} of the"
            f" {len(evaluated)} validation and test texts of this run: {first_few(known, 3)}",
            hint="train both on one split: the same `split_seed`, or the corpus' own",
        )


def _read(
    path: Path, text_column: str, manifest: Manifest, notify: Notify | None
) -> tuple[Sequence[Row], Sequence[str]]:
    names = [task.name for task in manifest.label_space.tasks]
    if not path.is_file():
        raise DataError(f"`extra_table={path}`: there is no such table")
    table = tables.read_table(path, {text_column, *names})
    columns, rows = table.columns, table.rows
    for note in table.notes:
        if notify:
            notify(note)
    tasks = manifest.label_space.tasks
    if text_column not in columns or not any(task.name in columns or _in_columns(task, columns) for task in tasks):
        missing = text_column if text_column not in columns else names[0]
        raise DataError(
            f"`extra_table={path}` has no column '{missing}'; it has: {', '.join(filter(None, columns))}",
            hint=f"{nearest(missing, columns)}it needs '{text_column}' and {' or '.join(map(repr, names))}",
        )
    return rows, columns


def _in_columns(task: Task, columns: Sequence[str]) -> bool:
    """Whether a table has a column of 0 and 1 for each label of a task."""
    return task.multi_label and set(task.labels) <= set(columns)


def _text(row: Row, column: str, path: Path) -> str:
    cell = row.cells[column]
    if not isinstance(cell, str | None):
        raise DataError(f"column '{column}' of {path} holds no text in row {row.line}")
    return cell or ""


def _labels(row: Row, task: Task, separator: str, path: Path) -> tuple[str, ...] | None:
    """The labels of a cell, or of the columns of 0 and 1; None where they are empty."""
    if task.name not in row.cells and _in_columns(task, list(row.cells)):
        try:
            return binary_labels(row, task.labels)
        except ValueError as error:
            raise DataError(f"row {row.line} of {path}: {error}", hint="columns of labels hold 0 and 1") from error
    (cell,) = tables.lists_saved_as_text([row.cells[task.name]])
    if isinstance(cell, list):
        given = [str(part) for part in cell if part is not None]
    else:
        word = tables.as_word(cell)
        given = word.split(separator) if task.multi_label else [word]
    found = tuple(dict.fromkeys(filter(None, (clean(label) for label in given))))
    for label in found:
        if label not in task.labels:
            raise DataError(
                f"row {row.line} of {path}: task '{task.name}' has no label '{shown(label)}'",
                hint=nearest(label, task.labels) + f"valid: {', '.join(task.labels)}",
            )
    if len(found) > 1 and not task.multi_label:
        raise DataError(f"row {row.line} of {path}: task '{task.name}' takes one label")
    return found or None
