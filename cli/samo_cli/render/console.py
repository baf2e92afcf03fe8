"""The two consoles, notes, JSON and progress bars. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.segment import Segment

from samo.printable import json_escaped, printable
from samo_cli.flags import as_flags

__all__ = ["counting", "downloading", "err", "note", "out", "print_json", "progress_bar", "silence", "worded"]

# What reads a pipe wants names in one piece, however wide.
PIPED_WIDTH = 10_000


class _PlainConsole(Console):
    """A console on which other people's texts are shown and never obeyed, whatever they are drawn by."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Rich's own control codes and colours are no text, and stay."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style, segment.control)


out = _PlainConsole(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = _PlainConsole(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPED_WIDTH)


def print_json(data: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json_escaped(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)) + "\n")


def worded(line: str) -> str:
    """A line of the core's for a console: its settings as flags, its brackets no markup."""
    return escape(as_flags(line))


def note(line: str) -> None:
    """One line for people, on stderr."""
    err.print(f"[cyan]·[/cyan] {worded(line)}", soft_wrap=True)


@contextmanager
def counting(title: str) -> Iterator[Any]:
    """A progress bar for a callback ``(done, total)``; it stays away while there is nothing to count."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with progress_bar(*columns, TimeRemainingColumn(), transient=True) as progress:
        task = progress.add_task(title, total=None, visible=False)

        def count(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield count


@contextmanager
def downloading() -> Iterator[Any]:
    """A progress bar for a callback ``(stage, bytes done, bytes in total)``; total 0 while unknown."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with progress_bar(*columns, TimeRemainingColumn()) as progress:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=None)
                if not err.is_terminal:
                    note(stage)
            progress.update(tasks[stage], completed=done, total=total or None)

        yield report


def progress_bar(*columns: Any, transient: bool = False) -> Progress:
    """A bar on stderr; nothing where stderr is no terminal."""
    return Progress(*columns, console=err, transient=transient, disable=not err.is_terminal)


def silence() -> None:
    """Draw nothing and note nothing from now on: of several processes one speaks. Errors are still printed."""
    out.quiet = err.quiet = True
    logging.disable(logging.WARNING)
