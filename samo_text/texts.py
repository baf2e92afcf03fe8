"""Texts as they come in: what is repaired, how they are told apart, how long they are."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from samo.data import tables
from samo.errors import DataError, first_ten, nearest

__all__ = ["LENGTHS", "clean", "content_of", "length_of", "read_texts"]

LENGTHS = {"short": 8, "medium": 16}
"""Most words of a short and of a medium text; about a third of GoEmotions each, the rest is long."""
_LONG = "long"
# Where a process finds the files it was given open.
_OPEN_FILES = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))
# Lone surrogates (half an emoji, as broken JSON holds them) and control characters other than white space.
_UNREADABLE = re.compile("[\ud800-\udfff\x00-\x08\x0e-\x1f\x7f]")


def clean(text: str) -> str:
    """A text that every tokenizer takes: one kind of line end, no outer white space, and U+FFFD (the replacement
    character) for lone surrogates, NUL and other control characters. Emoji and placeholders stay.
    """
    return _UNREADABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def content_of(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def length_of(text: str) -> str:
    """``short``, ``medium`` or ``long`` by :data:`LENGTHS`, to report by."""
    words = len(text.split())
    return next((name for name, most in LENGTHS.items() if words <= most), _LONG)


def read_texts(path: Path, column: str = "text", notify: Callable[[str], None] | None = None) -> list[str]:
    """The texts of a table (``.csv``, ``.tsv``, ``.json``, ``.jsonl``), or of a file with one text a line; ``-`` is
    standard input.

    Blank lines at the end of a file of lines are left out; others stay, so that answers keep their places.

    Args:
        path: where they are.
        column: of a table: the column of the text.
        notify: is told what of a table was not read as it stands, and which rows hold several lines.

    Raises:
        DataError: no such file, not UTF-8, or no text in it; a table without the column, with a cell of no text, or
            with a cell whose lines look like rows.
    """
    if path.suffix.lower() in tables.TABLE_SUFFIXES:
        return _texts_of_table(path, column, notify)
    # One that nobody writes into would be waited for without end; those the shell opens, as <(command), have a writer.
    if path.is_fifo() and path.parent not in _OPEN_FILES:
        raise DataError(f"{path} is a pipe, no file", hint="give - and pipe it in")
    hint = "a run on text takes files of one text a line; recordings need a run on speech"
    try:
        if str(path) == "-":
            text = tables.read_stream(sys.stdin.buffer, path, hint)
        else:
            with path.open("rb") as file:
                text = tables.read_stream(file, path, hint)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} holds no text")
    return lines


def _texts_of_table(path: Path, column: str, notify: Callable[[str], None] | None) -> list[str]:
    if not path.is_file():
        raise DataError(f"there is no table {path}")
    table = tables.read_table(path, {column})
    if column not in table.columns:
        lines = "; a file of one text a line is called .txt" if path.suffix.lower() in (".csv", ".tsv") else ""
        raise DataError(
            f"{path} has no column '{column}'; it has: {first_ten(filter(None, table.columns))}",
            hint=f"{nearest(column, table.columns)}name it with `text_column`{lines}",
        )
    odd = [row.line for row in table.rows if not isinstance(row.cells[column], str | None)]
    if odd:
        raise DataError(f"column '{column}' of {path} holds no text in row {first_ten(odd)}")
    if notify:
        for note in table.notes:
            notify(note)
    texts = [row.cells[column] or "" for row in table.rows]
    if not any(text.strip() for text in texts):
        raise DataError(f"{path} holds no text")
    return texts
