"""Who is told what a long piece of work does: the command line draws it, a notebook gets plain lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from samo.frontend import Progress
from samo.training.trainer import Observer
from samo.training.training_log import epoch_line

__all__ = ["PlainReporter", "Reporter"]


class Reporter(Protocol):
    """Receives notes and watches what takes time; nothing it does changes a result."""

    def note(self, line: str) -> None:
        """One line for people."""

    def counting(self, title: str) -> AbstractContextManager[Progress]:
        """Something of ``title`` is counted inside the block: ``decoding``, ``predicting``."""

    def training(self, epochs: int, history: Sequence[Mapping[str, Any]]) -> AbstractContextManager[Observer]:
        """A training of ``epochs`` epochs runs inside the block; ``history`` holds those done before."""

    def silence(self) -> None:
        """Say nothing from now on: of several processes one speaks."""


class PlainReporter:
    """Plain lines on stderr, one an epoch."""

    def __init__(self, *, quiet: bool = False) -> None:
        """``quiet``: say nothing at all."""
        self.quiet = quiet

    def note(self, line: str) -> None:
        """Print the line."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def counting(self, title: str) -> Iterator[Progress]:
        """Count in silence."""
        yield lambda done, total: None

    @contextmanager
    def training(self, epochs: int, history: Sequence[Mapping[str, Any]]) -> Iterator[Observer]:
        """A line after each epoch."""
        yield _EpochLines(epochs, self)

    def silence(self) -> None:
        """Say nothing from now on."""
        self.quiet = True


class _EpochLines:
    def __init__(self, epochs: int, reporter: PlainReporter) -> None:
        self._epochs, self._reporter = epochs, reporter

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Nothing."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """One line."""
        self._reporter.note(epoch_line(row, self._epochs) + " * best" * improved)
