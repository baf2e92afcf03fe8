"""What shows a grid as it runs: the command line draws a bar, a notebook gets plain lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from samo.launch.local import Outcome, Watcher
from samo.runs.reporter import PlainReporter, Reporter

__all__ = ["GridReporter", "PlainGridReporter", "Score"]

Score = Callable[[str], float | None]
"""From a cell's name to its metric; None while it is not evaluated."""


class GridReporter(Reporter, Protocol):
    """A reporter that also watches the cells of a grid."""

    def cells(self, n_cells: int, metric: str, score: Score, part: str, logs: Path) -> AbstractContextManager[Watcher]:
        """Cells are trained inside the block, and evaluated by ``metric`` on ``part``; ``logs`` has a file of each."""


class PlainGridReporter(PlainReporter):
    """Plain lines on stderr, one a cell."""

    @contextmanager
    def cells(self, n_cells: int, metric: str, score: Score, part: str, logs: Path) -> Iterator[Watcher]:
        """A line after each cell."""
        yield _CellLines(n_cells, f"{part} {metric}", score, self)


class _CellLines:
    def __init__(self, n_cells: int, metric: str, score: Score, reporter: PlainReporter) -> None:
        self._n_cells, self._metric, self._score, self._reporter = n_cells, metric, score, reporter
        self._n_ended = 0

    def on_start(self, name: str) -> None:
        """Nothing."""

    def on_end(self, outcome: Outcome) -> None:
        """One line."""
        self._n_ended += 1
        score = self._score(outcome.name) if outcome.status == "done" else None
        what = outcome.message if score is None else f"{self._metric} {score:.3f}"
        self._reporter.note(
            f"[{self._n_ended}/{self._n_cells}] {outcome.name}  {outcome.status}  {what}  {outcome.seconds:.0f} s"
        )
