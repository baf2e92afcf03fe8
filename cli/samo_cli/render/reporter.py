"""What takes time, drawn on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from samo_cli.render import console
from samo_cli.render.grid import GridView
from samo_cli.render.training import TrainingView
from samo_cli.render.tuning import TuningView

__all__ = ["TerminalReporter"]


class TerminalReporter:
    """Notes and progress bars on stderr; see :class:`samo.runs.reporter.Reporter`, for grids and searches too."""

    silent = False

    def note(self, line: str) -> None:
        """One line for people."""
        console.note(line)

    def counting(self, title: str) -> AbstractContextManager[Any]:
        """A bar while something is counted."""
        return console.counting(title)

    def training(self, epochs: int, history: Sequence[Mapping[str, Any]]) -> AbstractContextManager[TrainingView]:
        """A bar and a line an epoch."""
        return TrainingView(epochs, history)

    def cells(self, n_cells: int, metric: str, score: Callable[[str], float | None], part: str, logs: Path) -> GridView:
        """A bar over the cells of a grid, one for each that runs, and a line a cell."""
        return GridView(n_cells, metric, score, part, logs)

    def trials(self, n_trials: int, facts: Mapping[str, Any]) -> TuningView:
        """A bar over the trials of a search and a line a trial."""
        return TuningView(n_trials, facts)

    def silence(self) -> None:
        """Draw and print nothing from now on; errors are still printed."""
        self.silent = True
        console.silence()
