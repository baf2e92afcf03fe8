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
from samo.launch.resources import Resources
from samo.modalities import frontend_type
from samo.plugins import trust, trusted
from samo.settings import stored_config
from samo.training.runtime import make_runtime
from samo.training.setup import Setup
from samo.tuning.reporter import PlainTuneReporter
from samo.tuning.results import study_facts
from samo.tuning.space import parse_space
from samo.tuning.study import StudySpec, connect, join_study, open_study
from samo.tuning.trials import Goal, TrialWatcher, counted, end_stale_trials, run_trials

__all__ = ["WORK", "run_workers", "take_trials", "worker_spec"]

# The work of a worker, by name: its process imports it.
WORK = "samo.tuning.workers:take_trials"
# How often the storage is looked at for trials that ended, in seconds.
_LOOK_S = 1.0


def worker_spec(
    spec: StudySpec, folder: Path, url: str, goal: Goal, resources: Resources, threads: int
) -> dict[str, Any]:
    """What :func:`take_trials` needs, as plain JSON; ``url`` is that of the storage, empty for a file of the study."""
    return {
        "name": spec.name,
        "folder": str(folder.resolve()),
        "storage": url,
        "place": {"data_root": spec.settings["data_root"]},
        "trials": goal.trials,
        "until": goal.until,
        "device": resources.device,
        "precision": resources.precision,
        "threads": threads,
        "trusted": trusted(),
    }


def take_trials(spec: Mapping[str, Any]) -> None:
    """One worker of a study: take trials until there are enough.

    Raises:
        SamoError: what stops every trial.
    """
    trust(*spec.get("trusted", ()))
    folder = Path(spec["folder"])
    storage = connect(folder, spec["storage"])
    found = open_study(storage, spec["name"])
    if found is None:
        raise RunError(f"the study '{spec['name']}' is gone from its storage")
    stored = found[1]
    base = stored_config({"modality": stored.modality, **stored.settings, **spec["place"]})
    frontend = frontend_type(stored.modality).open(base, print)
    space = parse_space(stored.space, frontend.config)
    study = join_study(storage, stored, space)
    runtime = make_runtime(spec["device"], spec["precision"], spec["threads"])
    goal = Goal(spec["trials"], spec["until"])
    with PlainTuneReporter().trials(goal.trials, study_facts(study, stored, folder)) as log:
        run_trials(study, space, Setup(frontend, runtime), folder, goal, log)


class _Quiet:
    """Workers are no cells: what is shown are the trials."""

    def on_start(self, name: str) -> None:
        """Nothing."""

    def on_end(self, outcome: Outcome) -> None:
        """Nothing."""


def run_workers(
    study: optuna.Study,
    storage: optuna.storages.BaseStorage,
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
        study: seen from this process.
        storage: where it is kept.
        launcher: of :data:`WORK`.
        spec: from :func:`worker_spec`.
        folder: of the study.
        goal: when to stop.
        watcher: receives trials that end, wherever they do.
        shared: whether other machines may be working on the study.

    Raises:
        Interrupted: stopped by Ctrl-C.
        RunError: no worker gets to train anything; says where the logs are.
    """
    jobs = [Job(f"worker {k}", spec, folder / "logs" / f"worker-{k}.log") for k in range(launcher.workers)]
    with _following(study, watcher):
        rounds_without_trial = 0
        while not goal.over() and (left := goal.trials - len(counted(study))) > 0:
            before = _trained(study)
            try:
                outcomes = launcher.run(jobs[:left], _Quiet())
            except Interrupted as stop:
                raise Interrupted("the search was stopped; trials that were running are begun again") from stop
            end_stale_trials(study, storage, folder, shared=shared)
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
def _following(study: optuna.Study, watcher: TrialWatcher) -> Iterator[None]:
    """Hand trials that end in other processes on to the watcher."""
    ended = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    known = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state in ended}
    over = threading.Event()

    def look() -> None:
        for trial in study.get_trials(deepcopy=False):
            if trial.state in ended and trial.number not in known:
                known.add(trial.number)
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
