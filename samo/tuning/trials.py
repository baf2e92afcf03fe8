"""A search for settings: trials drawn by Optuna, each trained as a run, evaluated on the validation part only.

TPE (Bergstra et al. 2011; Watanabe 2023) draws the settings, a pruner ends trials that fall behind. A study is a folder
(``study.json``, a run for each trial in ``runs``) and a storage, one file in it or a database. The storage is the
truth: several processes, and with a database several machines, work on one study.
"""

from __future__ import annotations

import fcntl
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from samo.errors import Interrupted, SamoError, SettingsError, TrainingDiverged
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.settings import Config
from samo.training.setup import Setup
from samo.training.trainer import Observer
from samo.tuning.space import SearchSpace

__all__ = ["Goal", "TrialWatcher", "counted", "end_stale_trials", "run_trials"]

# A trial whose process was killed this often is not begun again: it may be what killed it.
_ATTEMPTS = 2


@dataclass(frozen=True)
class Goal:
    """When to stop.

    Attributes:
        trials: trials of the study in all, earlier ones included.
        until: no trial begins after this time (seconds since 1970); None = no limit.
    """

    trials: int
    until: float | None = None

    def over(self) -> bool:
        """Whether the time is up."""
        return self.until is not None and time.time() >= self.until


class TrialWatcher(Observer, Protocol):
    """Watches trials, and each training as an :class:`samo.training.trainer.Observer`."""

    def on_trial(self, number: int, drawn: Mapping[str, Any]) -> None:
        """A trial begins with these settings."""

    def on_trial_end(self, trial: FrozenTrial) -> None:
        """A trial ended."""


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: finished, pruned, failed and running ones; not those that were stopped and begun again."""
    trials = study.get_trials(deepcopy=False, states=[s for s in TrialState if s != TrialState.WAITING])
    return [trial for trial in trials if not trial.user_attrs.get("again")]


def end_stale_trials(
    study: optuna.Study, storage: optuna.storages.BaseStorage, folder: Path, *, shared: bool
) -> list[int]:
    """Fail the trials whose process is gone and put their settings in line again; returns their numbers.

    Call it only while no process works in ``folder``.

    Args:
        study: whose trials.
        storage: where it is kept: only a storage can write to a trial that another process began.
        folder: of the study.
        shared: whether other machines may be working on the study; trials that began elsewhere are left alone then.
    """
    stale, study_id = [], storage.get_study_id_from_name(study.study_name)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if shared and trial.user_attrs.get("place") != _place(folder):
            continue
        trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        _put_back(study, trial, partial(storage.set_trial_user_attr, trial_id), "its process was killed")
        _tidy(_run_of(folder, trial.number), keep_model=False)
        stale.append(trial.number)
    return stale


def run_trials(
    study: optuna.Study,
    space: SearchSpace,
    setup: Setup,
    folder: Path,
    goal: Goal,
    watcher: TrialWatcher,
) -> None:
    """Train trials one after another until the goal is reached; several processes may do this at once.

    A trial that diverges, runs out of memory or draws settings that do not go together is recorded as failed, and the
    study goes on.

    Raises:
        Interrupted: stopped by a signal; the trial's settings stand in line again.
        SamoError: what stops every trial: data, a full disk.
    """
    while (trial := _next(study, folder, goal)) is not None:
        run = _run_of(folder, trial.number)
        try:
            score = _train(trial, space, setup, run, watcher)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except (TrainingDiverged, SettingsError, MemoryError, torch.OutOfMemoryError) as error:
            reason = error.message if isinstance(error, SamoError) else "out of memory"
            trial.set_user_attr("reason", reason)
            study.tell(trial, state=TrialState.FAIL)
        except BaseException as error:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            reason = "stopped" if stopped else " ".join(f"{type(error).__name__}: {error}".split())
            _put_back(study, trial, trial.set_user_attr, reason, attempts=0 if stopped else 1)
            _tidy(run, keep_model=False)
            raise
        else:
            study.tell(trial, score)
        ended = _frozen(study, trial.number)
        _tidy(run, keep_model=ended.state == TrialState.COMPLETE)
        watcher.on_trial_end(ended)


def _next(study: optuna.Study, folder: Path, goal: Goal) -> optuna.Trial | None:
    with _one_at_a_time(folder / ".ask"):
        if goal.over() or len(counted(study)) >= goal.trials:
            return None
        trial = study.ask()
        trial.set_user_attr("place", _place(folder))
        trial.set_user_attr("run", _run_of(folder, trial.number).name)
        return trial


def _train(
    trial: optuna.Trial,
    space: SearchSpace,
    setup: Setup,
    run: Run,
    watcher: TrialWatcher,
) -> float:
    """Train one trial; returns the best validation macro-F1."""
    values = space.draw(trial)
    watcher.on_trial(trial.number, trial.params)
    config: Config = space.kind.build(values)
    state = train_run(
        run,
        Setup(setup.frontend.with_config(config), setup.runtime),
        _Reporting(trial, watcher, values["epochs"], values["keep"]),
    )
    assert state.best_score is not None  # plan_study refuses what validates nothing
    return state.best_score


class _Reporting:
    """Hands each epoch on to the watcher and to the pruner."""

    def __init__(self, trial: optuna.Trial, watcher: TrialWatcher, epochs: int, keep: str) -> None:
        self.trial, self.watcher, self.epochs, self.keep = trial, watcher, epochs, keep
        self.best = 0.0

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Nothing but hand it on."""
        self.watcher.on_step(epoch, step, n_steps, loss)

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Report the score of the weights that count so far, and stop where it falls behind."""
        self.watcher.on_epoch(row, improved)
        score = row["val_macro_f1"]
        self.best = score if self.keep != "best" else max(self.best, score)
        self.trial.report(self.best, row["epoch"])
        if row["epoch"] < self.epochs and self.trial.should_prune():
            raise optuna.TrialPruned


def _put_back(
    study: optuna.Study,
    trial: optuna.Trial | FrozenTrial,
    mark: Callable[[str, Any], None],
    reason: str,
    *,
    attempts: int = 1,
) -> None:
    """Fail a trial that was cut short and put its settings in line, unless its process was killed too often."""
    made = trial.user_attrs.get("attempts", 0) + attempts
    again = made < _ATTEMPTS
    mark("reason", reason)
    mark("again", again)
    study.tell(trial.number, state=TrialState.FAIL)
    if again:
        kept = {"base": True} if trial.user_attrs.get("base") else {}
        study.enqueue_trial(trial.params, user_attrs={**kept, "attempts": made})


def _tidy(run: Run, *, keep_model: bool) -> None:
    """A trial is not resumed, so its checkpoint goes; its weights stay only where it came to its end."""
    run.path("last.ckpt").unlink(missing_ok=True)
    if not keep_model:
        run.model_file.unlink(missing_ok=True)


def _run_of(folder: Path, number: int) -> Run:
    return Run(folder / "runs" / f"trial-{number:04d}")


def _frozen(study: optuna.Study, number: int) -> FrozenTrial:
    return study.get_trials(deepcopy=False)[number]


def _place(folder: Path) -> str:
    return f"{socket.gethostname()}:{folder.resolve()}"


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Workers take trials in turn, so that together they begin no more than the goal says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
