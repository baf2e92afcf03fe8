"""Train a run, from settings to weights that ship; or go on with one that was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samo.data.corpora import require_places
from samo.data.splits import Split
from samo.errors import (
    Interrupted,
    RunError,
    SamoError,
    SettingsError,
    nearest,
)
from samo.modalities import frontend_type
from samo.plugins import names_of, trust
from samo.runs.artifacts import artifacts_root, create_run, find_run
from samo.runs.code import require_code
from samo.runs.load import MOVABLE
from samo.runs.reporter import PlainReporter, Reporter
from samo.runs.run import (
    ASSETS,
    Run,
    refuse_with_resume,
    require_place,
)
from samo.runs.training import resume_training, train_run
from samo.runs.training_notes import first_lines
from samo.runs.training_plan import checked_split, teachers_of
from samo.settings import Config, read_call, resolve, stored_config
from samo.training.checkpoint import (
    read_facts,
)
from samo.training.ranks import Ranks, process_group
from samo.training.runtime import make_runtime
from samo.training.setup import Setup
from samo.training.tracking import Observers, Watched, require_trackers, tracked

__all__ = ["train", "training_summary"]


def train(
    *,
    modality: str = "",
    preset: str = "",
    config: str | Path | None = None,
    name: str = "",
    overwrite: bool = False,
    resume: str | Path | Run = "",
    tracker: str = "",
    artifacts: str | Path = "",
    device: str = "",
    precision: str = "",
    threads: int | None = None,
    trust_code: str | Sequence[str] = (),
    reporter: Reporter | None = None,
    command: Callable[[Run], str] | None = None,
    **settings: Any,
) -> Run:
    """Train a model and keep the epoch with the best validation macro-F1; the test part is never looked at.

    Args:
        modality: ``audio`` or ``text``; empty: the file's, else ``audio``.
        preset: a recipe to start from.
        config: a TOML file of settings; it wins over the preset. What of these arguments it names holds where they are
            empty.
        name: of the run; made up when empty.
        overwrite: replace the run of this name.
        resume: the run to go on with, instead of a new one; of the settings only the place of the data may be given.
        tracker: ``tensorboard``, ``mlflow``, or both joined by a comma; empty: ``$SAMO_TRACKER`` or none.
        artifacts: folder of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts`` below the working directory.
        device: ``auto``, ``cpu``, ``cuda``; empty: the file's, else ``auto``.
        precision: ``auto``, ``float32``, ``bf16`` or ``fp16``; empty: the file's, else ``auto``.
        threads: CPU threads; 0 = as torch chooses; None: the file's, else 0.
        trust_code: names of code outside SAMO that the run to resume may import, such as ``my_net:tiny``.
        reporter: is told what happens; None prints plain lines on stderr.
        command: gives what was typed, kept in the run for whoever wants to repeat it; None: this call.
        **settings: by their names; they win over preset and file.

    Returns:
        The run: ``samo.evaluate(run)``, ``samo.load(run)``.

    Raises:
        SettingsError: an unknown setting, or a value out of range.
        DataError: the corpus is missing or damaged.
        LeakError: the split shares speakers or recordings.
        RunError: the name is taken, or the run to resume is finished or busy.
        Interrupted: stopped by a signal; the best model so far is kept, and ``resume`` goes on.
        TrainingDiverged, DiskFull: stopped; the best model so far is kept.
    """
    if resume:
        refuse_with_resume(name=name, preset=preset, config=str(config or ""), overwrite=overwrite)
    trust(*names_of(trust_code))
    given = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in settings.items()}
    resumed = str(resume.folder) if isinstance(resume, Run) else os.fspath(resume)
    filed = read_call(Path(config)) if config else {}
    modality, device = modality or filed.get("modality", "audio"), device or filed.get("device", "auto")
    name, tracker = name or filed.get("name", ""), tracker or filed.get("tracker", "")
    precision, artifacts = precision or filed.get("precision", "auto"), artifacts or filed.get("artifacts", "")
    threads = filed.get("threads", 0) if threads is None else threads
    chosen = None if resumed else resolve(modality, preset, Path(config) if config else None, given)
    if chosen:
        require_places(chosen.flat())
    trackers = require_trackers(tracker)
    root, reporter = artifacts_root(str(artifacts)), reporter or PlainReporter()
    with _stopped_early(), process_group() as ranks:
        if not ranks.is_first:
            reporter.silence()
        runtime = make_runtime(device, precision, threads, ranks)
        if chosen is None:
            run = find_run(root, resumed)
            chosen = _settings_to_resume(run, given)
        elif name and not overwrite:
            create_run(root, name, "")  # a name that is taken costs no decoding
        kind = frontend_type(chosen.modality)
        with ranks.local_rank_first(), reporter.counting(kind.preparing) as progress:
            assets = run.path(ASSETS) if resume else None
            setup = Setup(kind.open(chosen, reporter.note, progress, assets), runtime)
        split = None
        if not resume:
            run, split = _new_run(setup, root, name, overwrite=overwrite)
        with _left_in_order(run, ranks, resumed=bool(resume), named=bool(name), artifacts=str(artifacts)):
            for line in first_lines(run, setup, split):
                reporter.note(line)
            typed = command(run) if command else _call(run, setup, given, device, precision, threads, str(artifacts))
            _watched_training(run, setup, trackers, reporter, typed, resume=bool(resume))
    return run


@contextmanager
def _stopped_early() -> Iterator[None]:
    """Ctrl-C while data, network or trackers are made ready; from the first step on the training says how far it is."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("training stopped before its first step") from None


def _new_run(setup: Setup, root: Path, name: str, *, overwrite: bool) -> tuple[Run, Split]:
    """The folder of a new run, which this process holds, and the split to train on.

    Raises:
        LeakError: the split leaks.
        SettingsError: the run to replace is one that the new one needs.
        RunError: the name is taken, or in use.
    """
    # Meet what is wrong with the split before a name is taken, or the run that is to be replaced is gone.
    split, values = checked_split(setup.frontend, root), setup.frontend.config.flat()
    if name and overwrite:
        _refuse_replacing(Run(root / "runs" / name), values, teachers_of(setup.frontend, split, root))
    stem = f"{values['dataset']}-{values['mode']}-{values['model']}"
    ranks = setup.runtime.ranks
    return Run(ranks.broadcast(lambda: create_run(root, name, stem, overwrite=overwrite, hold=True).folder)), split


@contextmanager
def _left_in_order(run: Run, ranks: Ranks, *, resumed: bool, named: bool, artifacts: str) -> Iterator[None]:
    """However a training ends: no folder without a model, the run it was to replace back, an error that says so."""
    try:
        yield
    except SamoError as error:
        if ranks.is_first and not resumed and run.settle():
            error.message += f"; the run '{run.name}' that was to be replaced is kept"
            error.hint = "" if isinstance(error, Interrupted) else error.hint
        elif ranks.is_first and not resumed and not named and run.drop_without_epoch():
            # Under a made-up name nobody goes on with it, and such runs would pile up.
            error.hint = "" if isinstance(error, Interrupted) else error.hint
        elif isinstance(error, Interrupted):
            error.hint += f" `artifacts={artifacts}`" if artifacts else ""
        raise
    finally:
        if ranks.is_first:
            run.forget() if resumed else run.settle()


def _refuse_replacing(run: Run, values: Mapping[str, Any], teachers: Sequence[Run]) -> None:
    """Refuse to replace a run that the new one needs: its folder is moved before anything is read from it.

    Raises:
        SettingsError: names the setting.
    """
    folder, hint = run.folder.resolve(), "choose another `name`"
    for setting, value in values.items():
        path = Path(value).expanduser() if isinstance(value, str) and value else None
        if path is not None and path.exists() and path.resolve().is_relative_to(folder):
            raise SettingsError(f"`{setting}` {value} lies in run '{run.name}', which `overwrite` replaces", hint=hint)
    if any(teacher.folder.resolve() == folder for teacher in teachers):
        raise SettingsError(f"`teacher` '{run.name}' is the run that `overwrite` replaces", hint=hint)


def _call(
    run: Run, setup: Setup, given: Mapping[str, Any], device: str, precision: str, threads: int, artifacts: str
) -> str:
    """The call that trains this run again, as Python: every setting that is not at its default."""
    config = setup.frontend.config
    defaults = {field.name: field.info.default for field in config.fields()}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    changed = {name: value for name, value in config.flat().items() if value != plain[name] or name in given}
    machine = {"device": device, "precision": precision, "threads": threads, "artifacts": artifacts}
    where = {name: value for name, value in machine.items() if value not in ("auto", 0, "")}
    words = {"modality": config.modality, "name": run.name, **changed, **where}
    return f"samo.train({', '.join(f'{name}={value!r}' for name, value in words.items())})"


def training_summary(run: Run) -> dict[str, Any]:
    """What came of a training, ready for JSON.

    Raises:
        RunError: the training has not come to its end.
    """
    about, trained = read_facts(run.model_file), run.trained
    return {
        "schema": 1,
        "run": run.name,
        "folder": str(run.folder),
        "dataset": about.dataset,
        "synthetic": about.synthetic,
        "leaky": run.split.leaky,
        **{name: trained[name] for name in ("epochs", "best_epoch", "keep", "val_macro_f1") if name in trained},
    }


def _settings_to_resume(run: Run, given: Mapping[str, Any]) -> Config:
    """The settings of a run that goes on, once its code and its data are found.

    Raises:
        SettingsError: an unknown setting, or code outside SAMO that is not trusted.
        RunError: others are given than it was begun with.
        DataError: its data are no longer where they were.
    """
    require_code(run, "model", "dataset")
    config = _unchanged(run, given)
    require_place(run, config.flat(), moved="data_root" in given)
    return config


def _unchanged(run: Run, given: Mapping[str, Any]) -> Config:
    """The settings of a run that goes on; others than it was begun with are refused."""
    stored = run.settings
    for name in given:
        if name not in stored:
            raise SettingsError(f"unknown setting '{name}' for modality {run.modality}", hint=nearest(name, stored))
    changed = [
        f"`{name}` {stored.get(name)} is now {value}"
        for name, value in given.items()
        if name not in MOVABLE and stored.get(name) != value
    ]
    if changed:
        raise RunError(
            f"`resume` goes on with the settings the run was begun with; changed: {', '.join(changed)}",
            hint="leave these settings away, or train a new run",
        )
    return stored_config({**stored, **{name: value for name, value in given.items() if name in MOVABLE}})


def _watched_training(
    run: Run, setup: Setup, trackers: Sequence[str], reporter: Reporter, command: str, *, resume: bool
) -> None:
    """Train or go on, drawn by the reporter and the trackers."""
    values = setup.frontend.config.stored()
    watched = Watched(run.folder, run.root, values, lambda: run.history)
    wanted = trackers if setup.runtime.ranks.is_first else ()
    with reporter.training(values["epochs"], run.history) as view, tracked(wanted, watched, reporter.note) as drawn:
        observer = Observers(view, *drawn)
        if resume:
            resume_training(run, setup, observer)
        else:
            train_run(run, setup, observer, command)
