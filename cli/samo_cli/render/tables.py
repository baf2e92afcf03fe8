"""Tables that fit narrow terminals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from samo_cli.render.console import out

__all__ = ["counts_table", "fitting_heads", "number", "plain_table", "show_table", "titled"]


def show_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    whole: Collection[str] = (),
    piped_width: int | None = None,
) -> None:
    """A plain table; the columns in ``numbers`` are set to the right, those in ``whole`` are never folded.

    A pipe gets each row on one line, or one folded to ``piped_width``, which is for people.
    """
    table = plain_table()
    for head in heads:
        justify: Literal["left", "right"] = "right" if head in numbers else "left"
        table.add_column(head, overflow="fold", justify=justify, no_wrap=head in whole)
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    out.print(table, width=None if out.is_terminal else piped_width)


def plain_table() -> Table:
    """Few lines, so that eight classes fit on 80 columns."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def titled(title: str, table: Table) -> Group:
    """A title that may be wider than its table."""
    return Group(Text(title, style="bold"), table)


def counts_table(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    total: Sequence[str] = (),
    *,
    diagonal: bool = False,
) -> Group:
    """Counts in cells as given; ``diagonal`` prints the n-th count of row n in bold, ``total`` closes the table."""
    table = plain_table()
    for place, head in enumerate(heads):
        table.add_column(escape(head), justify="right" if place else "left", no_wrap=True)
    for number, row in enumerate(rows, start=1):
        bold = number if diagonal else 0
        table.add_row(*(f"[bold]{escape(c)}[/bold]" if bold and k == bold else escape(c) for k, c in enumerate(row)))
    if total:
        table.add_section()
        table.add_row(*map(escape, total), style="bold")
    return titled(title, table)


def fitting_heads(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str] | None:
    """Heads cut alike, as little as needed and never to the same word, so that the table fits; None if none do."""
    first, *others = heads
    longest = max(map(len, others), default=0)
    names = max(len(first), *(len(row[0]) for row in rows))
    cells = [max(len(row[place]) for row in rows) for place in range(1, len(heads))]
    for size in range(longest, 2, -1):
        cut = [head[:size] for head in others]
        needed = names + sum(max(len(head), cell) + 2 for head, cell in zip(cut, cells, strict=True))
        if len(set(cut)) == len(cut) and needed <= width:
            return [first, *cut]
    return None


def number(value: float | None, digits: int = 3) -> str:
    """A figure for a cell, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
