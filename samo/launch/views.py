"""What shows an experiment as it goes: the command line draws bars, a notebook that names nothing sees nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samo.frontend import Notify, Progress
    from samo.launch.local import Outcome

__all__ = ["Silent", "Views"]


class Silent:
    """Watches cells, trials and trainings, and shows nothing."""

    def on_start(self, name: str) -> None:
        """A worker took a cell."""

    def on_end(self, outcome: Outcome) -> None:
        """A cell ended."""

    def on_trial(self, number: int, drawn: Mapping[str, Any]) -> None:
        """A trial begins."""

    def on_trial_end(self, trial: Any) -> None:
        """A trial ended."""

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """A step was taken."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """An epoch ended."""


@contextmanager
def _silent(*_: object) -> Iterator[Silent]:
    yield Silent()


@contextmanager
def _uncounted(title: str) -> Iterator[Progress]:
    yield lambda done, total: None


@dataclass(frozen=True)
class Views:
    """How progress is shown; each part by default not at all.

    Attributes:
        notify: receives one line for people.
        preparing: called with what is done to the data, ``decoding`` for example; a block that yields a
            :data:`~samo.frontend.Progress`.
        cells: called with the number of cells, the metric, a function from a cell's name to its score (or None) and
            the part evaluated; a block that yields a :class:`~samo.launch.local.Watcher`.
        trials: called with the number of trials and :func:`~samo.tuning.results.study_facts`; a block that yields a
            :class:`~samo.tuning.trials.TrialWatcher`.
    """

    notify: Notify = lambda line: None
    preparing: Callable[[str], AbstractContextManager[Progress]] = _uncounted
    cells: Callable[[int, str, Callable[[str], float | None], str], AbstractContextManager[Any]] = _silent
    trials: Callable[[int, Mapping[str, Any]], AbstractContextManager[Any]] = _silent
