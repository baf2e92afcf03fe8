"""Reading tables: delimited text (the delimiter found from its header) and JSON; split words, further columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samo.data.keys import key
from samo.errors import DataError, first_ten
from samo.files import parse_json

__all__ = [
    "JSON_SUFFIXES",
    "Row",
    "attributes",
    "filled",
    "optional",
    "read_delimited",
    "read_json",
    "read_rows",
    "read_text",
    "splits",
]

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")

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


# The default of 131,072 characters would refuse long cells, which are no mistake.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Row:
    """One line of the table, by column name; ``line`` counts from 1 at the header, in JSON from 1 at the first row.

    Cells of delimited text are strings; JSON holds what JSON knows, None where a row lacks the column.
    """

    line: int
    cells: dict[str, Any]


def read_rows(path: Path, wanted: Collection[str]) -> tuple[list[str], list[Row]]:
    """Column names and rows of a table, by its name's ending JSON, JSON Lines, or else delimited.

    Args:
        path: of the table.
        wanted: column names asked for, by which a delimiter is told.

    Raises:
        DataError: it is missing, not UTF-8, empty, or not what its ending says.
    """
    text, kind = read_text(path), path.suffix.lower()
    if kind in JSON_SUFFIXES:
        return read_json(path, text, lines=kind != ".json")
    return read_delimited(path, text, wanted)


def read_delimited(path: Path, text: str, wanted: Collection[str]) -> tuple[list[str], list[Row]]:
    """Column names and rows; blank lines are left out, cells are stripped of outer white space.

    Args:
        path: where the text was read, for messages.
        text: the table, header first.
        wanted: column names asked for, by which the delimiter is told.

    Raises:
        DataError: broken quoting, a column named twice, a row longer than the header, the header repeated, or no rows.
    """
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, wanted), strict=True)
    try:
        columns = [name.strip() for name in next(lines)]
        rows = list(_rows(path, columns, lines))
    except csv.Error as error:
        raise DataError(
            f"{path} is not a readable table: {error} (line {lines.line_num})",
            hint="a cell that holds quotes is quoted whole, with each quote in it doubled",
        ) from error
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise DataError(f"{path} has two columns named {first_ten(map(repr, twice))}")
    if not rows:
        raise DataError(f"{path} has a header but no rows")
    heads = [key(name) for name in columns]
    again = [row.line for row in rows if [key(cell) for cell in row.cells.values()] == heads] if len(heads) > 1 else []
    if again:
        raise DataError(
            f"{path} repeats its header in row {first_ten(again)}", hint="tables were joined; take these rows out"
        )
    return columns, rows


def read_json(path: Path, text: str, *, lines: bool) -> tuple[list[str], list[Row]]:
    """Column names, in the order they turn up, and rows of a JSON list of objects, or of one object a line.

    Raises:
        DataError: not JSON, something other than objects, or no rows.
    """
    shape = "one JSON object a line" if lines else "a JSON list of objects"
    try:
        if lines:
            # str.splitlines would also cut at U+2028 and its like, which JSON strings may hold.
            given = [(n, parse_json(line)) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
        else:
            found = parse_json(text)
            given = list(enumerate(found, start=1)) if isinstance(found, list) else []
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", hint=f"expected: {shape}") from error
    odd = [line for line, row in given if not isinstance(row, dict)]
    if odd or not given:
        where = f": row {first_ten(odd)} is none" if odd else ""
        raise DataError(f"{path} is not {shape}{where}", hint='for example {"text": "how kind", "label": "joy"}')
    columns = list(dict.fromkeys(name for _, row in given for name in row))
    return columns, [Row(line, {name: row.get(name) for name in columns}) for line, row in given]


def read_text(path: Path) -> str:
    """A file's text, UTF-8 with or without a byte-order mark.

    Raises:
        DataError: it is missing, not UTF-8, or holds nothing.
    """
    if not path.exists():
        raise DataError(f"there is no table {path}", hint="check `data_root`")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", hint="save the table as 'CSV UTF-8'") from error
    if not text.strip():
        raise DataError(f"the table {path} is empty")
    return text


def filled(path: Path, rows: Sequence[Row], column: str) -> list[str]:
    """A column in which no cell may be empty.

    Raises:
        DataError: names the rows where it is.
    """
    empty = [row.line for row in rows if not key(_as_text(row.cells[column]))]
    if empty:
        raise DataError(f"column '{column}' of {path} is empty in row {first_ten(empty)}")
    return [row.cells[column] for row in rows]


def optional(rows: Sequence[Row], columns: Collection[str], column: str) -> list[str]:
    """A column's cells, all empty where the table has no such column."""
    return [_as_text(row.cells[column]) if column in columns else "" for row in rows]


def splits(path: Path, rows: Sequence[Row], columns: Collection[str], column: str) -> list[str]:
    """train, val, test, or empty where the table assigns none.

    Raises:
        DataError: a cell names no split.
    """
    given = optional(rows, columns, column)
    unknown = sorted({word for word in given if key(word) and key(word) not in _SPLIT_WORDS})
    if unknown:
        raise DataError(
            f"column '{column}' of {path} holds words that name no split: {first_ten(map(repr, unknown))}",
            hint=f"valid: {', '.join(_SPLIT_WORDS)}; `split_column=` leaves the column alone",
        )
    return [_SPLIT_WORDS[key(word)] if key(word) else "" for word in given]


def attributes(rows: Sequence[Row], columns: Collection[str], used: Collection[str]) -> list[dict[str, str]]:
    """Cells of the columns beyond those used that have few enough values to report by."""
    further = {name: optional(rows, columns, name) for name in columns if name and name not in used}
    kept = {name: cells for name, cells in further.items() if len(set(cells)) <= _MOST_META_VALUES}
    return [{name: cells[place] for name, cells in kept.items()} for place in range(len(rows))]


def _as_text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _delimiter(text: str, wanted: Collection[str]) -> str:
    """The delimiter that yields most of the columns asked for, then most columns at all."""

    def worth(delimiter: str) -> tuple[int, int]:
        header = [name.strip() for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))]
        return len(set(wanted).intersection(header)), len(header)

    return max(_DELIMITERS, key=worth)


def _rows(path: Path, columns: list[str], lines: Iterator[list[str]]) -> Iterator[Row]:
    for line, cells in enumerate(lines, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(columns):
            raise DataError(
                f"row {line} of {path} has {len(cells)} cells, the header {len(columns)}",
                hint="put cells that hold the delimiter in double quotes",
            )
        padded = cells + [""] * (len(columns) - len(cells))
        yield Row(line, {name: cell.strip() for name, cell in zip(columns, padded, strict=True)})
