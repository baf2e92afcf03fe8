"""Going on with a file of comma-separated values that a stopped command left."""

from __future__ import annotations

import csv
import fcntl
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from samo.errors import DataError, RunError
from samo.printable import plain_cell

__all__ = ["goes_on", "left_to_do", "written"]

T = TypeVar("T")


@contextmanager
def goes_on(path: Path, head: Sequence[str]) -> Iterator[tuple[TextIO, list[str]]]:
    """A file to append rows to, and the first cell of every row it has; half a row at its end is removed.

    Args:
        path: what an earlier command wrote, or an empty file, which gets the head.
        head: the first row that such a file has.

    Raises:
        DataError: there is no such file, or it has another head or a row of another length.
        RunError: another command writes into it.
    """
    try:
        file = path.open("r+", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        hint = f"begin it with --csv > {path}" if isinstance(error, FileNotFoundError) else ""
        raise DataError(f"{path} cannot be gone on with: {error.strerror}", hint=hint) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another command writes into {path}", hint="wait for it") from error
        except OSError:
            pass  # a disk without locks
        text = file.read()
        rows, end = _whole_rows(text)
        if rows and rows[0] != list(head):
            raise DataError(
                f"{path} has other columns than `samo predict --csv` writes with this run: {', '.join(rows[0])}",
                hint="name the run that wrote it with --run",
            )
        odd = [number for number, row in enumerate(rows, start=1) if len(row) != len(head)]
        if odd:
            raise DataError(f"{path} is damaged: row {odd[0]} has {len(rows[odd[0] - 1])} columns, not {len(head)}")
        file.seek(len(text[:end].encode("utf-8", "surrogateescape")))
        file.truncate()
        file.reconfigure(errors="backslashreplace")
        if not rows:
            csv.writer(file, lineterminator="\n").writerow(map(plain_cell, head))
        yield file, [row[0] for row in rows[1:]]


def _whole_rows(text: str) -> tuple[list[list[str]], int]:
    """The rows of comma-separated values that end with a line end, and the place behind the last of them."""
    csv.field_size_limit(sys.maxsize)
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for line in io.StringIO(text, newline=""):
            read += len(line)
            yield line

    rows: list[list[str]] = []
    end = 0
    for row in csv.reader(lines()):
        # Quotes that are still open take everything to the end, which then is half a row.
        if read == len(text) and (not text.endswith("\n") or (rows and len(row) < len(rows[0]))):
            break
        rows.append(row)
        end = read
    return rows, end


def written(text: str) -> str:
    """A text as it stands in a file of comma-separated values: no formula, and no bytes that are not UTF-8."""
    return plain_cell(text).encode("utf-8", "backslashreplace").decode("utf-8")


def left_to_do(items: Sequence[T], done: Sequence[str], key: Callable[[str], str]) -> list[T]:
    """The items that have no row yet; of those that stand twice as many as are missing.

    Args:
        items: all, in their order.
        done: the first cell of each row.
        key: what two spellings of one item have in common.
    """
    known, left = Counter(map(key, done)), []
    for item in items:
        name = key(written(str(item)))
        if known[name]:
            known[name] -= 1
        else:
            left.append(item)
    return left
