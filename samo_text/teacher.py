"""Whose labels a table of pseudo-labels carries, and what that run learned from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from samo.errors import DataError
from samo.files import write_json
from samo.runs.run import Run

__all__ = ["SEPARATOR", "Teacher", "read_teacher", "teacher_of", "write_teacher"]

SEPARATOR = "|"
"""Joins several labels of a cell where the run's own table has no separator of its own."""


@dataclass(frozen=True)
class Teacher:
    """The run that labelled a table.

    Attributes:
        run: its name.
        learned: content hashes of the texts it was trained on and was not evaluated on.
    """

    run: str
    learned: frozenset[str]


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
    write_json(teacher_of(table), {"schema": 1, "run": run.name, "learned": sorted(learned - held_out)})


def read_teacher(table: Path) -> Teacher | None:
    """The run that labelled a table; None for a table whose labels are nobody's.

    Raises:
        DataError: the file beside the table is damaged.
    """
    facts = teacher_of(table)
    if not facts.is_file():
        return None
    try:
        found = json.loads(facts.read_text(encoding="utf-8"))
        return Teacher(found["run"], frozenset(found["learned"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{facts} cannot be read: {error}", hint="make the table again with `samo pseudo-label`"
        ) from error
