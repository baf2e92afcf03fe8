"""What shows a search as it goes: the command line draws a bar, a notebook or a log gets plain lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from optuna.trial import FrozenTrial

from samo.runs.reporter import PlainReporter, Reporter
from samo.tuning.results import trial_row, trial_text
from samo.tuning.trials import TrialWatcher

__all__ = ["PlainTuneReporter", "TuneReporter"]


class TuneReporter(Reporter, Protocol):
    """A reporter that also watches the trials of a study."""

    def trials(self, n_trials: int, facts: Mapping[str, Any]) -> AbstractContextManager[TrialWatcher]:
        """Trials are trained inside the block, ``n_trials`` in all; ``facts`` are of those before."""


class PlainTuneReporter(PlainReporter):
    """Plain lines on stderr, one a trial."""

    @contextmanager
    def trials(self, n_trials: int, facts: Mapping[str, Any]) -> Iterator[TrialWatcher]:
        """A line after each trial."""
        yield _TrialLines(n_trials, facts, self)


class _TrialLines:
    def __init__(self, n_trials: int, facts: Mapping[str, Any], reporter: PlainReporter) -> None:
        self._n_trials, self._reporter = n_trials, reporter
        self._best = facts["best"]["value"] if facts["best"] else None

    def on_trial(self, number: int, drawn: Mapping[str, Any]) -> None:
        """Nothing."""

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Nothing."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Nothing."""

    def on_trial_end(self, trial: FrozenTrial) -> None:
        """One line."""
        row = trial_row(trial)
        better = row["state"] == "finished" and (self._best is None or row["value"] > self._best)
        if better:
            self._best = row["value"]
        head, what = trial_text(row, self._n_trials)
        self._reporter.note(f"{head}{' * best' * better}  {what}")
