"""Whose labels a table of pseudo-labels carries, and what that run learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samo.data.keys import key
from samo.data.tables import Row
from samo.errors import DataError, LeakError
from samo.files import write_json
from samo.runs.provenance import Learned, learned_by
from samo.runs.run import Run
from samo.stored import Stored, Text, read_stored

__all__ = [
    "PSEUDO",
    "SEPARATOR",
    "SOURCE",
    "Teacher",
    "labelled_by_a_run",
    "read_teacher",
    "refuse_orphans",
    "teacher_of",
    "write_teacher",
]

SEPARATOR = "|"
"""Joins several labels of a cell where the run's own table has no separator of its own."""

SOURCE, PSEUDO = "source", "pseudo"
"""Column, and what it says in every row that a run labelled: it stays with the rows wherever they are copied."""


@dataclass(frozen=True)
class Teacher:
    """The run that labelled a table.

    Attributes:
        run: its name.
        learned: content hashes of the texts it was trained on and was not evaluated on, and those its own
            pseudo-labels' teacher learned from.
        before: what the weights learned from that it started from.
    """

    run: str
    learned: frozenset[str]
    before: tuple[Learned, ...] = ()


def teacher_of(table: Path) -> Path:
    """Where a table of pseudo-labels says whose they are."""
    return table.with_name(f"{table.name}.teacher.json")


def write_teacher(run: Run, table: Path) -> None:
    """Write beside a table which run labelled it and what that run learned from."""
    manifest = run.manifest
    learned, held_out = (
        {manifest.items[row].content for row in manifest.rows(ids)}
        for ids in (run.split.train, run.split.val + run.split.test)
    )
    # Short texts stand on both sides of a corpus' own split; they say nothing about whose split it is.
    learned -= held_out
    before = [each.to_json() for each in learned_by(run)[1:]]
    if run.settings.get("extra_table") and (own := read_teacher(Path(run.settings["extra_table"]).expanduser())):
        learned |= own.learned
        before += [each.to_json() for each in own.before]
    facts = {"schema": 1, "run": run.name, "learned": sorted(learned)}
    write_json(teacher_of(table), {**facts, "before": before} if before else facts)


def labelled_by_a_run(rows: Sequence[Row]) -> int:
    """How many rows of a table say that a run labelled them."""
    return sum(key(str(row.cells.get(SOURCE) or "")) == PSEUDO for row in rows)


def refuse_orphans(table: Path, rows: Sequence[Row]) -> None:
    """Refuse rows that a run labelled where nothing beside the table says what that run learned from.

    Raises:
        LeakError: the table was copied without its file.
    """
    orphans = labelled_by_a_run(rows)
    if orphans and not teacher_of(table).is_file():
        raise LeakError(
            f"{table}: the labels of {orphans} of {len(rows)} rows are a run's (column {SOURCE}: {PSEUDO}), and no"
            f" {teacher_of(table).name} beside it tells what that run learned from",
            hint="copy that file too, under the table's name; or make the table again with `samo pseudo-label`",
        )


class _StoredTeacher(Stored):
    run: Text
    learned: frozenset[Text]
    before: tuple[dict[Text, Any], ...] = ()


def read_teacher(table: Path) -> Teacher | None:
    """The run that labelled a table; None for a table whose labels are nobody's.

    Raises:
        DataError: the file beside the table is damaged.
    """
    facts = teacher_of(table)
    if not facts.is_file():
        return None
    try:
        found = read_stored(facts, _StoredTeacher)
        return Teacher(found.run, found.learned, tuple(Learned.from_json(each) for each in found.before))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{facts} cannot be read: {error}", hint="make the table again with `samo pseudo-label`"
        ) from error
