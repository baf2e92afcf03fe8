"""What takes time, drawn on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from samo_cli.render import console
from samo_cli.render.training import TrainingView

__all__ = ["TerminalReporter"]


class TerminalReporter:
    """Notes and progress bars on stderr; see :class:`samo.runs.reporter.Reporter`."""

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

    def silence(self) -> None:
        """Draw and print nothing from now on; errors are still printed."""
        self.silent = True
        console.silence()
