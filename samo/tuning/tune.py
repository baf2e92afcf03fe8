"""Search for good settings: one study from its data to what it leaves behind."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from samo.data.corpora import require_places
from samo.data.splits import make_split, require_held_out
from samo.errors import Interrupted, RunError, SettingsError, plural
from samo.frontend import Frontend
from samo.launch.local import LocalLauncher, share_of_cores
from samo.launch.resources import Resources, count_gpus
from samo.modalities import frontend_type
from samo.runs.artifacts import NAME_PATTERN, artifacts_root
from samo.runs.run import Run
from samo.settings import Config, stored_config
from samo.training.runtime import make_runtime
from samo.training.setup import Setup
from samo.tuning.reporter import PlainTuneReporter, TuneReporter
from samo.tuning.results import study_facts, write_results
from samo.tuning.space import SearchSpace, parse_space
from samo.tuning.study import StudySpec, connect, join_study, make_pruner, open_study, require_same_data
from samo.tuning.trials import Goal, counted, end_stale_trials, run_trials
from samo.tuning.workers import WORK, run_workers, worker_spec

__all__ = ["TuneResult", "tune"]


@dataclass(frozen=True)
class TuneResult:
    """What came of a search.

    Attributes:
        modality: of the study.
        facts: :func:`~samo.tuning.results.write_results`, with ``synthetic`` and ``leaky``.
    """

    modality: str
    facts: dict[str, Any]


def tune(
    config: Config,
    space: Mapping[str, Any],
    *,
    trials: int = 20,
    timeout_s: float = 0.0,
    pruner: str = "",
    name: str = "",
    storage: str = "",
    keep_settings: bool = False,
    artifacts: Path | str = "",
    resources: Resources | None = None,
    reporter: TuneReporter | None = None,
    command: str = "",
) -> TuneResult:
    """Search for good settings by validation macro-F1 (Optuna: TPE and pruning); the test part is never opened.

    Args:
        config: the base settings, from :func:`samo.settings.resolve`.
        space: what is varied, from :func:`samo.tuning.space.find_space`.
        trials: of the study in all, earlier ones included.
        timeout_s: no trial begins after this time, in seconds; 0 = no limit.
        pruner: one of :data:`~samo.tuning.study.PRUNERS`; empty: that of the study, else ``median``.
        name: of the study; the same name goes on with it; empty makes one.
        storage: a file or URL where trials are kept; empty: a file of the study.
        keep_settings: a study that was begun goes on with its own settings and space, whatever is given here.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        resources: on what; ``workers`` is the number of trials trained at once, 0 = one.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the results.

    Raises:
        SettingsError: an unknown pruner, a name that is no file name, or no such storage.
        DataError, ModelFileError: a place that a new study's settings name, or its trials may draw, does not exist: of
            data, noise, a table, start weights or a pretrained model.
        RunError: the study was begun otherwise, or no trial was finished.
        Interrupted: stopped by a signal; what ended is kept.
    """
    if pruner:
        make_pruner(pruner, 1)
    if name and not NAME_PATTERN.fullmatch(name):
        raise SettingsError(f"`name` '{name}': use letters, digits and . _ + = - only")
    values, root = config.flat(), artifacts_root(str(artifacts)) / "tuning"
    require_held_out(values["split"], "choose settings by")
    folder = root / (name or _new_name(root, f"{values['dataset']}-{values['mode']}-{values['model']}"))
    if not folder.exists():
        for tried in _placed(values, space):
            require_places(tried)
    connected = connect(folder, storage)
    stored = _begun_with(connected, folder)
    if stored:
        pruner = pruner or stored.pruner
        if keep_settings:
            config, space = stored_config({"modality": stored.modality, **stored.settings}), dict(stored.space)
    search = _Search(
        folder, storage, connected, trials, timeout_s, resources or Resources(), reporter or PlainTuneReporter()
    )
    facts = _run_study(search, config, space, pruner or "median", command)
    _require_finished(facts)
    return TuneResult(config.modality, facts)


def _placed(values: Mapping[str, Any], space: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The settings, and once more with each text that a trial may draw: an encoder may be searched too."""
    yield values
    entries = {name: entry.get("choices") for name, entry in space.items() if isinstance(entry, Mapping)}
    choices = {name: drawn for name, drawn in entries.items() if isinstance(drawn, list | tuple)}
    # Without noise its folder is not looked at.
    drawn_with = {**values, "noise": True} if True in choices.get("noise", ()) else values
    for name, drawn in choices.items():
        for value in drawn:
            if isinstance(value, str):
                yield {**drawn_with, name: value}


@dataclass(frozen=True)
class _Search:
    """Where a study lies, when it ends and on what it runs."""

    folder: Path
    url: str
    storage: optuna.storages.BaseStorage
    trials: int
    timeout_s: float
    resources: Resources
    reporter: TuneReporter


def _begun_with(storage: optuna.storages.BaseStorage, folder: Path) -> StudySpec | None:
    """What the study of a folder was begun with; None for a new one.

    Raises:
        RunError: there are trials in the folder, of a study that the storage does not know.
    """
    found = open_study(storage, folder.name)
    if found is None and (folder / "runs").exists():
        raise RunError(
            f"{folder} holds trials of a study that the storage does not know",
            hint="give the `storage` it was begun with, or choose another `name`",
        )
    return found and found[1]


def _require_finished(facts: Mapping[str, Any]) -> None:
    """Refuse a search of which no trial was finished, with why the last one was not."""
    if facts["best"] is None:
        reasons = [row["reason"] for row in facts["trials"] if row["reason"]]
        raise RunError(
            f"no trial of study '{facts['study']}' was finished" + (f"; the last: {reasons[-1]}" if reasons else ""),
            hint=f"{facts['folder']}/trials.csv says more",
        )


def _new_name(root: Path, stem: str) -> str:
    number = 1
    while (root / f"{stem}-{number:03d}").exists():
        number += 1
    return f"{stem}-{number:03d}"


def _run_study(search: _Search, config: Config, space: Mapping[str, Any], pruner: str, command: str) -> dict[str, Any]:
    """Open the data, run the trials, write what came of them."""
    kind, reporter, folder = frontend_type(config.modality), search.reporter, search.folder
    with reporter.counting(kind.preparing) as progress:
        frontend = kind.open(config, reporter.note, progress)
    spec = StudySpec(folder.name, config.modality, frontend.config.flat(), dict(space), pruner)
    marks = {
        "synthetic": frontend.manifest.synthetic,
        "leaky": make_split(frontend.manifest, frontend.split_request()).leaky,
    }
    if marks["leaky"]:
        reporter.note(
            "LEAKY SPLIT: with `split=random` the same speaker stands in train and validation; every output is stamped"
        )
    with Run(folder).locked():
        searched = parse_space(space, frontend.config)
        study = join_study(search.storage, spec, searched)
        require_same_data(study, frontend.manifest.digest)
        stale = end_stale_trials(study, search.storage, folder, shared=bool(search.url))
        if stale:
            reporter.note(f"trials {', '.join(map(str, stale))} were cut short; their settings are trained again")
        try:
            _run_trials(search, study, spec, searched, frontend)
        except (Interrupted, KeyboardInterrupt) as stop:
            write_results(study, spec, type(config), folder, marks, command)
            raise Interrupted(
                f"the search was stopped; trials that ended are kept in {folder}",
                hint=f"go on with the same command and `name={spec.name}`",
                exit_status=getattr(stop, "exit_status", 130),
            ) from None
        return {**write_results(study, spec, type(config), folder, marks, command), **marks}


def _run_trials(
    search: _Search, study: optuna.Study, spec: StudySpec, searched: SearchSpace, frontend: Frontend
) -> None:
    """In this process, or in several."""
    reporter, folder, resources = search.reporter, search.folder, search.resources
    goal = Goal(search.trials, time.time() + search.timeout_s if search.timeout_s else None)
    done = len(counted(study))
    varied = f"{len(spec.space)} settings are varied: {', '.join(spec.space)}"
    reporter.note(f"study {spec.name}: {goal.trials} {plural('trial', goal.trials)}, {done} done before; {varied}")
    if searched.base_params() is None:
        reporter.note("the base settings lie outside the search space, so they are no trial")
    if done >= goal.trials:
        return
    with reporter.trials(goal.trials, study_facts(study, spec, folder)) as view:
        if resources.workers <= 1:
            runtime = make_runtime(resources.device, resources.precision, resources.threads)
            run_trials(study, searched, Setup(frontend, runtime), folder, goal, view)
            return
        gpus = count_gpus(resources.device)
        workers, threads = share_of_cores(goal.trials - done, resources.workers, resources.threads, gpus)
        reporter.note(f"{workers} workers, {threads} threads each; their logs are in {folder / 'logs'}")
        job = worker_spec(spec, folder, search.url, goal, resources, threads)
        launcher = LocalLauncher(WORK, workers, threads, gpus)
        run_workers(study, search.storage, launcher, job, folder, goal, view, shared=bool(search.url))
