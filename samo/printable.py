"""What of other people's names, labels and texts may reach a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import TextIO

__all__ = ["PlainWriter", "csv_text", "json_escaped", "plain_cell", "printable"]

# Control characters but for line end and tab (a terminal obeys ESC and its like), and those that turn the direction.
_TURNING = "\u200e\u200f\u202a-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_TURNING}]")
_BEYOND_JSON = re.compile(f"[\x7f-\x9f{_TURNING}]")
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """The text with U+FFFD for every character that would steer the terminal instead of being shown."""
    return _CONTROL.sub("\ufffd", text)


def json_escaped(text: str) -> str:
    """JSON text with escapes for such characters, where ``json`` writes them as they are; it means the same."""
    return _BEYOND_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def plain_cell(text: str) -> str:
    """A cell of delimited text that no spreadsheet runs: an apostrophe stands before what begins like a formula
    (OWASP, "CSV Injection").
    """
    return "'" + text if text.startswith(_FORMULA) else text


class PlainWriter:
    """Comma-separated values whose texts no spreadsheet runs and no terminal obeys; numbers stay as they are."""

    def __init__(self, file: TextIO, *, shown: bool | None = None) -> None:
        """Write to ``file``; ``shown``: whether it will be read on a terminal, None: where it is one."""
        self._file, self._rows = file, csv.writer(file, lineterminator="\n")
        self._on_terminal = file.isatty() if shown is None else shown

    def writerow(self, cells: Sequence[object]) -> None:
        """Write one row."""
        self._rows.writerow([self._plain(cell) if isinstance(cell, str) else cell for cell in cells])

    def flush(self) -> None:
        """Let whoever reads the file see all rows."""
        self._file.flush()

    def _plain(self, cell: str) -> str:
        return plain_cell(printable(cell) if self._on_terminal else cell)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as the text of a CSV file that people open in a spreadsheet or print on a terminal."""
    sheet = io.StringIO()
    writer = PlainWriter(sheet, shown=True)
    for row in rows:
        writer.writerow(row)
    return sheet.getvalue()
