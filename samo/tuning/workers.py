"""One study, several processes on this machine: each takes trials until the goal is reached."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from samo.errors import Interrupted, RunError
from samo.launch.local import Job, LocalLauncher, Outcome
from samo.tuning.trials import Goal, TrialWatcher, counted, end_stale_trials

__all__ = ["run_workers"]

# How often the storage is asked what ended, in seconds.
_LOOK_S = 1.0


class _Quiet:
    """Workers are no cells: what is told are the trials."""

    def on_start(self, name: str) -> None:
        """Nothing."""

    def on_end(self, outcome: Outcome) -> None:
        """Nothing."""


def run_workers(
    study: optuna.Study,
    launcher: LocalLauncher,
    spec: Mapping[str, Any],
    folder: Path,
    goal: Goal,
    watcher: TrialWatcher,
    *,
    shared: bool,
) -> None:
    """Run workers until the goal is reached; one that dies takes only its trial with it, which is begun again.

    Args:
        launcher: its work function receives ``spec`` and runs :func:`samo.tuning.trials.run_trials`.
        shared: whether other machines may be working on the study.

    Raises:
        Interrupted: stopped by Ctrl-C.
        RunError: no worker gets to train anything; says where the logs are.
    """
    jobs = [Job(f"worker {k}", spec, folder / "logs" / f"worker-{k}.log") for k in range(launcher.workers)]
    with _telling(study, watcher):
        rounds_without_trial = 0
        while not goal.over() and (left := goal.trials - len(counted(study))) > 0:
            before = _trained(study)
            try:
                outcomes = launcher.run(jobs[:left], _Quiet())
            except Interrupted as stop:
                raise Interrupted("the search was stopped; trials that were running are begun again") from stop
            end_stale_trials(study, folder, shared=shared)
            failed = [outcome.message for outcome in outcomes if outcome.status != "done"]
            if not failed:
                return
            # A worker that was killed gets a second one; what fails again is no accident.
            rounds_without_trial = 0 if _trained(study) > before else rounds_without_trial + 1
            if rounds_without_trial > 1:
                raise RunError(f"no worker could train: {failed[0]}", hint=f"their logs are in {folder / 'logs'}")


def _trained(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED]))


@contextmanager
def _telling(study: optuna.Study, watcher: TrialWatcher) -> Iterator[None]:
    """Tell the watcher of trials that end in other processes."""
    ended = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    told = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state in ended}
    over = threading.Event()

    def look() -> None:
        for trial in study.get_trials(deepcopy=False):
            if trial.state in ended and trial.number not in told:
                told.add(trial.number)
                watcher.on_trial_end(trial)

    def keep_looking() -> None:
        while not over.wait(_LOOK_S):
            look()

    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
