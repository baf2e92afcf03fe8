"""Reading tables: delimited text (the delimiter found from its header) and JSON; split words, further columns."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from samo.data.keys import key
from samo.errors import DataError, first_few, first_ten, plural
from samo.files import parse_json

__all__ = [
    "JSON_SUFFIXES",
    "TABLE_SUFFIXES",
    "Row",
    "Table",
    "about_splits",
    "as_text",
    "as_word",
    "attributes",
    "filled",
    "lists_saved_as_text",
    "optional",
    "read_delimited",
    "read_json",
    "read_stream",
    "read_table",
    "read_text",
    "splits",
]

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
TABLE_SUFFIXES = (".csv", ".tsv", *JSON_SUFFIXES)

_DELIMITERS = (",", ";", "\t", "|")
# Excel's first line that names the delimiter.
_SEPARATOR_LINE = re.compile(r'"?sep=([^\r\n"])"?[ ,;\t]*(\r\n|\r|\n|$)', re.IGNORECASE)
_BLANK_LINES = re.compile(r"(?:[^\S\r\n]*(?:\r\n|\r|\n))+")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_AT_ONCE, _MOST_BYTES = 1 << 20, 1 << 30
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
_MOST_META_VALUES, _MOST_META_COLUMNS = 50, 100
_QUOTES_HINT = "a cell that holds quotes is quoted whole, with each quote in it doubled"


# The default of 131,072 characters would refuse long cells, which are no mistake.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Row:
    """One line of the table, by column name; ``line`` counts from 1 at the header, in JSON from 1 at the first row.

    Cells of delimited text are strings; JSON holds what JSON knows, None where a row lacks the column.
    """

    line: int
    cells: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Column names and rows of a table, and lines for people on what was not read as it stands."""

    columns: list[str]
    rows: list[Row]
    notes: tuple[str, ...] = ()


class _Cells(dict[str, Any]):
    """What a JSON object holds; None for the columns of other rows."""

    def __missing__(self, name: str) -> None:
        return None


def read_table(path: Path, wanted: Collection[str]) -> Table:
    """A table, by its name's ending JSON, JSON Lines, or else delimited.

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


def read_delimited(path: Path, text: str, wanted: Collection[str]) -> Table:
    """Blank lines are left out, cells are stripped of outer white space. A ``.tsv`` whose header holds a tab is cut at
    tabs, whatever else stands in it.

    A quotation mark that nothing closes would make one row of many. Separated by tabs, where quoting is not the rule,
    it is taken as it stands; elsewhere it is refused.

    Args:
        path: where the text was read, for messages.
        text: the table, header first.
        wanted: column names asked for, by which the delimiter is told.

    Raises:
        DataError: broken quoting, a column named twice, a row longer than the header, the header repeated, or no rows.
    """
    text = _begun(text)
    named = _SEPARATOR_LINE.match(text)
    text = _begun(text[named.end() :]) if named else text
    lines = list(io.StringIO(text, newline=""))
    if not lines:
        raise DataError(f"the table {path} is empty")
    by_name = "\t" if path.suffix.lower() == ".tsv" and len(_header(text, "\t")) > 1 else ""
    delimiter = named[1] if named else by_name or _delimiter(text, wanted)
    notes: tuple[str, ...] = ()
    try:
        columns, rows, several = _parsed(path, lines, delimiter)
        swallowed = _swallowed(columns, rows, several, lines, delimiter)
        if swallowed:
            raise DataError(
                f"row {swallowed[0]} of {path}: a quotation mark opens a cell of {len(several[swallowed[0]])} lines, "
                "each of which looks like a row of its own",
                hint=_QUOTES_HINT,
            )
        if several:
            what = plural("row", len(several)), plural("holds", len(several), "hold")
            notes = (f"{len(several):,} {what[0]} of {path.name} {what[1]} several lines: row {first_few(several, 5)}",)
    except DataError as refusal:
        recovered = _line_by_line(lines, delimiter) if delimiter == "\t" else None
        if recovered is None:
            raise refusal
        columns, rows, stray = recovered
        notes = (f"quotation marks of {path.name} that nothing closes stand in the texts: row {first_few(stray, 5)}",)
    twice = sorted(name for name, count in Counter(columns).items() if name and count > 1)
    if twice:
        raise DataError(f"{path} has two columns named {first_ten(map(repr, twice))}")
    if not rows:
        raise DataError(f"{path} has a header but no rows")
    again = [row.line for row in rows if _is_header(row, columns)] if len(columns) > 1 else []
    if again:
        raise DataError(
            f"{path} repeats its header in row {first_ten(again)}", hint="tables were joined; take these rows out"
        )
    return Table(columns, rows, notes)


def read_json(path: Path, text: str, *, lines: bool) -> Table:
    """Columns in the order they turn up, and rows of a JSON list of objects, of one object a line, or of one object.

    Which of the two it is shows in the text where the name says otherwise. NaN, which Python writes, is no value.

    Args:
        path: where the text was read, for messages.
        text: the table.
        lines: whether the name says one object a line.

    Raises:
        DataError: not JSON, something other than objects, or no rows.
    """
    shape = "one JSON object a line" if lines else "a JSON list of objects"
    try:
        given = _json_rows(text, lines=text.lstrip()[:1] != "[" if lines else False)
    except ValueError as error:
        other = _lines_or_none(text) if not lines and "Extra data" in str(error) else None
        if other is None:
            raise DataError(f"{path} is not JSON: {error}", hint=f"expected: {shape}") from error
        given = other
    odd = [line for line, row in given if not isinstance(row, dict)]
    if odd or not given:
        where = f": row {first_ten(odd)} is none" if odd else ""
        raise DataError(f"{path} is not {shape}{where}", hint='for example {"text": "how kind", "label": "joy"}')
    columns = list(dict.fromkeys(name for _, row in given for name in row))
    return Table(columns, [Row(line, _Cells(row)) for line, row in given])


def _json_rows(text: str, *, lines: bool) -> list[tuple[int, Any]]:
    if lines:
        # str.splitlines would also cut at U+2028 and its like, which JSON strings may hold.
        return [(n, _json(line)) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    found = _json(text)
    if found and isinstance(found, dict):
        return [(1, found)]
    return list(enumerate(found, start=1)) if isinstance(found, list) else []


def _lines_or_none(text: str) -> list[tuple[int, Any]] | None:
    try:
        return _json_rows(text, lines=True)
    except ValueError:
        return None


def _json(text: str) -> Any:
    return parse_json(text, parse_constant=lambda name: None if name == "NaN" else float(name))


def read_text(path: Path) -> str:
    """A file's text: UTF-8 with or without a byte-order mark, UTF-16 or UTF-32 (as Excel writes them) with one.

    Raises:
        DataError: it is missing, cannot be read, is of another encoding, endless, or holds nothing.
    """
    if not path.exists():
        raise DataError(f"there is no table {path}", hint="check `data_root`")
    if path.is_fifo():
        raise DataError(f"{path} is a pipe, no file", hint="save what comes out of it as a file")
    try:
        with path.open("rb") as file:
            text = read_stream(file, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not text.strip():
        raise DataError(f"the table {path} is empty")
    return text


def read_stream(file: BinaryIO, path: Path, hint: str = "save the table as 'CSV UTF-8'") -> str:
    """The text of a stream, in the encodings of :func:`read_text`; what is no text is met at its first megabyte.

    Args:
        file: to read to its end.
        path: what it is called in messages.
        hint: what to do about another encoding.

    Raises:
        DataError: of another encoding, or longer than 1 GiB.
    """
    parts: list[str] = []
    n_bytes, decoder = 0, None
    while chunk := file.read(_AT_ONCE):
        if decoder is None:
            encoding = next((name for mark, name in _MARKS if chunk.startswith(mark)), "utf-8")
            decoder = codecs.getincrementaldecoder(encoding)()
            if encoding.startswith("utf-8") and chunk.count(0) > len(chunk) // 10:
                raise DataError(f"{path} is not UTF-8 text: it is full of NUL bytes", hint=hint)
        n_bytes += len(chunk)
        if n_bytes > _MOST_BYTES:
            raise DataError(f"{path} is longer than 1 GiB", hint="cut it into several files")
        try:
            parts.append(decoder.decode(chunk))
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text", hint=hint) from error
    try:
        parts.append(decoder.decode(b"", final=True) if decoder else "")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", hint=hint) from error
    return "".join(parts)


def as_text(cell: object) -> str:
    """A cell as text; empty where it is missing, NaN included."""
    text = "" if cell is None else str(cell).strip()
    return "" if text in ("nan", "NaN") else text


def as_word(cell: object) -> str:
    """A cell as text, as label or name: true and false in lower case, 1.0 as 1."""
    if isinstance(cell, bool):
        return str(cell).lower()
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else as_text(cell)


def filled(path: Path, rows: Sequence[Row], column: str) -> list[str]:
    """A column in which no cell may be empty; numbers of JSON, true and false as words.

    Raises:
        DataError: names the rows where it is, or where it is a list or an object.
    """
    empty = [row.line for row in rows if not key(as_text(row.cells[column]))]
    if empty:
        raise DataError(f"column '{column}' of {path} is empty in row {first_ten(empty)}")
    nested = [row.line for row in rows if isinstance(row.cells[column], list | dict)]
    if nested:
        raise DataError(f"column '{column}' of {path} holds lists or objects in row {first_ten(nested)}")
    return [as_word(row.cells[column]) for row in rows]


def optional(rows: Sequence[Row], columns: Collection[str], column: str) -> list[str]:
    """A column's cells, all empty where the table has no such column."""
    return [as_text(row.cells[column]) if column in columns else "" for row in rows]


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


def about_splits(given: Sequence[str], rule: str, column: str) -> list[str]:
    """A line where a column assigns a split to some rows only, which ``split=auto`` then leaves alone."""
    filled_in = sum(map(bool, given))
    if rule != "auto" or filled_in in (0, len(given)):
        return []
    return [f"column '{column}' is filled in {filled_in:,} of {len(given):,} rows only, and not used as the split"]


def attributes(rows: Sequence[Row], columns: Collection[str], used: Collection[str]) -> list[dict[str, str]]:
    """Cells of the columns beyond those used that have few enough values to report by; of the first 100 of them."""
    kept: dict[str, list[str]] = {}
    for name in columns:
        if name and name not in used and len(kept) < _MOST_META_COLUMNS:
            cells = [as_text(row.cells[name]) for row in rows]
            if len(set(cells)) <= _MOST_META_VALUES:
                kept[name] = cells
    return [{name: cells[place] for name, cells in kept.items()} for place in range(len(rows))]


_IN_LIST = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([+-]?\d+(?:\.0*)?))\s*(,|(?=[\s'"]|$))""")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


def lists_saved_as_text(cells: Sequence[Any]) -> list[Any]:
    """Cells in which lists stand as Python, pandas or numpy print them (``[17, 25]``, ``['joy' 'love']``), as lists.

    Others stay as they are; all of them, where none is such a list.
    """
    found = [_printed_list(cell) if isinstance(cell, str) else None for cell in cells]
    return [cell if own is None else own for cell, own in zip(cells, found, strict=True)]


def _printed_list(cell: str) -> list[str | int] | None:
    text = cell.strip()
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1]:
        return None
    inner, place, found = text[1:-1].strip(), 0, []
    while place < len(inner):
        match = _IN_LIST.match(inner, place)
        if match is None or match.end() == place:
            return None
        single, double, number = match[1], match[2], match[3]
        quoted = single if single is not None else double
        found.append(int(float(number)) if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        place = match.end()
    return found if found or text == "[]" else None


def _begun(text: str) -> str:
    """A text from its first line that is not blank."""
    blank = _BLANK_LINES.match(text)
    return text[blank.end() :] if blank else text


def _header(text: str, delimiter: str) -> list[str]:
    first = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    return [name.strip() for name in first]


def _delimiter(text: str, wanted: Collection[str]) -> str:
    """The delimiter that yields most of the columns asked for, then most columns at all."""

    def worth(delimiter: str) -> tuple[int, int]:
        header = _header(text, delimiter)
        return len(set(wanted).intersection(header)), len(header)

    return max(_DELIMITERS, key=worth)


def _parsed(path: Path, lines: list[str], delimiter: str) -> tuple[list[str], list[Row], dict[int, range]]:
    """Columns, rows, and the lines of text (from 0) that a row takes where it takes several, by the row's number."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        columns = [name.strip() for name in next(reader)]
        rows, several = [], {}
        begin = reader.line_num
        for number, cells in enumerate(reader, start=2):
            if reader.line_num > begin + 1:
                several[number] = range(begin, reader.line_num)
            begin = reader.line_num
            if any(cell.strip() for cell in cells):
                rows.append(_row(path, number, columns, cells))
    except csv.Error as error:
        raise DataError(
            f"{path} is not a readable table: {error} (line {reader.line_num})", hint=_QUOTES_HINT
        ) from error
    return columns, rows, several


def _row(path: Path, number: int, columns: list[str], cells: list[str]) -> Row:
    if len(cells) > len(columns):
        raise DataError(
            f"row {number} of {path} has {len(cells)} cells, the header {len(columns)}",
            hint="put cells that hold the delimiter in double quotes",
        )
    return Row(number, {name: cell.strip() for name, cell in zip(columns, _padded(cells, columns), strict=True)})


def _padded(cells: list[str], columns: list[str]) -> list[str]:
    return cells + [""] * (len(columns) - len(cells))


def _could_be_rows(columns: list[str], lines: list[str], own: Iterable[int], delimiter: str) -> bool:
    """Whether each of these lines that is not blank, cut at the delimiter, has several cells and no more than the
    header; a row may be shorter.
    """
    return all(1 <= lines[place].count(delimiter) < len(columns) for place in own if lines[place].strip())


def _swallowed(
    columns: list[str], rows: list[Row], several: dict[int, range], lines: list[str], delimiter: str
) -> list[int]:
    """Rows of several lines of which each looks like a row: several cells, no more than the header, and in one of the
    columns a value that stands there elsewhere too, or one that is numbered as all others of that column are.
    """
    doubtful = {line: own for line, own in several.items() if _could_be_rows(columns, lines, own, delimiter)}
    if not doubtful:
        return []
    given = {
        line: [_padded(lines[place].rstrip("\r\n").split(delimiter), columns) for place in own if lines[place].strip()]
        for line, own in doubtful.items()
    }
    swallowed = set()
    for column, name in enumerate(columns):
        plain = [row.cells[name] for row in rows if row.line not in several]
        words = {line: [cells[column].strip() for cells in own] for line, own in given.items()}
        known = Counter(plain)
        known.update(word for own in words.values() for word in own)
        numbered = {_numbered(word) for word in plain if word}
        for line, own in words.items():
            forms = numbered.union(map(_numbered, own))
            if all(own) and (all(known[word] > 1 for word in own) or (len(forms) == 1 and "" not in forms)):
                swallowed.add(line)
    return sorted(swallowed)


def _numbered(word: str) -> str:
    """How a word counts on: ``clip_12.wav`` and ``clip_7.wav`` are alike; empty where it holds no number."""
    form = re.sub(r"\d+", "0", word.strip('" '))
    return form if "0" in form else ""


def _line_by_line(lines: list[str], delimiter: str) -> tuple[list[str], list[Row], list[int]] | None:
    """Columns, rows, and the numbers of rows with stray quotation marks, where each line is a row of the header's
    width; else None.
    """
    columns = [name.strip() for name in lines[0].rstrip("\r\n").split(delimiter)]
    rows, stray = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        plain = line.rstrip("\r\n")
        try:
            cells = next(csv.reader([plain], delimiter=delimiter, strict=True))
        except csv.Error:
            cells = plain.split(delimiter)
            stray.append(number)
        if len(cells) != len(columns):
            return None
        rows.append(Row(number, {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}))
    return columns, rows, stray


def _is_header(row: Row, columns: list[str]) -> bool:
    return all(key(name) == key(cell) for name, cell in row.cells.items())
