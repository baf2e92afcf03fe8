"""Train a run, from settings to weights that ship; or go on with one that was stopped."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from samo.data.augmented import augmentation_facts, load_augmented, save_augmented
from samo.data.batch import Draws
from samo.data.conflicts import about_conflicts
from samo.data.corpora import require_places
from samo.data.manifest import Item, Manifest
from samo.data.sampling import balance_notes, transductive_notes
from samo.data.splits import PARTS, Split, audit, find_near_leaks, make_split, split_notes
from samo.data.stratify import label_keys
from samo.errors import (
    DataError,
    Interrupted,
    ModelFileError,
    RunError,
    SamoError,
    SettingsError,
    TrainingDiverged,
    counted,
    nearest,
    plural,
)
from samo.files import write_json
from samo.frontend import Frontend
from samo.modalities import frontend_type
from samo.plugins import code_used, names_of, trust
from samo.runs.artifacts import artifacts_root, create_run, find_run, point_latest
from samo.runs.calibrate import abstention_settings, calibrate, threshold_settings
from samo.runs.code import require_code
from samo.runs.load import MOVABLE, load_run_model, refuse_edited
from samo.runs.provenance import (
    Learned,
    about_names,
    about_start_weights,
    learned_by_start,
    refuse_known_start,
    start_digests,
)
from samo.runs.reporter import PlainReporter, Reporter
from samo.runs.run import (
    ASSETS,
    FINGERPRINTS,
    STARTED_FROM,
    TAUGHT,
    Run,
    mark_trained,
    refuse_with_resume,
    remember_place,
    require_place,
    write_history,
)
from samo.runs.signals import Terminated, signals_wait, sigterm_raises
from samo.runs.teachers import checked_teachers, known_to, taught_probabilities
from samo.settings import Config, read_call, resolve, stored_config
from samo.training.checkpoint import (
    load_checkpoint,
    load_fitted,
    load_tensors,
    read_facts,
    save_checkpoint,
    save_model,
    save_tensors,
)
from samo.training.losses import EmotionLoss
from samo.training.ranks import process_group
from samo.training.runtime import environment, make_runtime, step_seed
from samo.training.setup import Setup
from samo.training.tracking import Observers, Watched, require_trackers, tracked
from samo.training.trainer import Observer, TrainPlan, TrainState, fit, keeps_last, new_state, predict_logits

__all__ = ["resume_training", "train", "train_run", "training_summary"]

# Clips in the picture of what training sees.
SAMPLES_SHOWN = 4
# With fewer groups, chance decides what is called better on validation and how wide an interval is on test.
FEWEST_GROUPS = {"val": 3, "test": 5}


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
            require_code(run, "model", "dataset")
            chosen = _unchanged(run, given)
            require_place(run, chosen.flat(), moved="data_root" in given)
        elif name and not overwrite:
            create_run(root, name, "")  # a name that is taken costs no decoding
        kind = frontend_type(chosen.modality)
        with ranks.local_rank_first(), reporter.counting(kind.preparing) as progress:
            assets = run.path(ASSETS) if resume else None
            setup = Setup(kind.open(chosen, reporter.note, progress, assets), runtime)
        values = setup.frontend.config.flat()
        if not resume:
            # Meet what is wrong with the split before a name is taken, or the run that is to be replaced is gone.
            split = checked_split(setup.frontend, root)
            if name and overwrite:
                _refuse_replacing(Run(root / "runs" / name), values, _teachers(setup.frontend, split, root))
            stem = f"{values['dataset']}-{values['mode']}-{values['model']}"
            run = Run(ranks.broadcast(lambda: create_run(root, name, stem, overwrite=overwrite, hold=True).folder))
        try:
            for line in _first_lines(run, setup, None if resume else split):
                reporter.note(line)
            typed = command(run) if command else _call(run, setup, given, device, precision, threads, str(artifacts))
            _watched_training(run, setup, trackers, reporter, typed, resume=bool(resume))
        except SamoError as error:
            if ranks.is_first and not resume and run.settle():
                error.message += f"; the run '{run.name}' that was to be replaced is kept"
                error.hint = "" if isinstance(error, Interrupted) else error.hint
            elif ranks.is_first and not resume and not name and run.drop_without_epoch():
                # Under a made-up name nobody goes on with it, and such runs would pile up.
                error.hint = "" if isinstance(error, Interrupted) else error.hint
            elif isinstance(error, Interrupted):
                error.hint += f" `artifacts={artifacts}`" if artifacts else ""
            raise
        finally:
            if ranks.is_first:
                run.forget() if resume else run.settle()
    return run


@contextmanager
def _stopped_early() -> Iterator[None]:
    """Ctrl-C while data, network or trackers are made ready; from the first step on the training says how far it is."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("training stopped before its first step") from None


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


def _first_lines(run: Run, setup: Setup, split: Split | None) -> list[str]:
    """What a training begins with; of a new run also the size of its parts, and what will make its scores doubtful."""
    frontend = setup.frontend
    values, manifest = frontend.config.flat(), frontend.manifest
    lines = []
    if values["split"] == "random":
        lines.append(
            "LEAKY SPLIT: with `split=random` the same speaker stands in train and test; every output is stamped"
        )
    count = f"{counted(len(manifest.items), frontend.item)} of {values['dataset']}"
    lines.append(f"run {run.name}: {count}; {setup.runtime.describe()}")
    lines += [*balance_notes(values), *transductive_notes(values)]
    if split is None:
        return lines
    config: Any = frontend.config
    started = learned_by_start(values, run.root)
    taught = known_to(_teachers(frontend, split, run.root), config.loss)
    lines += [*_about_split(frontend, split), *about_start_weights(values, run.root)]
    return [
        *lines,
        *about_names(started, manifest, split, "the start weights"),
        *about_names(taught, manifest, split, "the teachers"),
    ]


def _about_split(frontend: Frontend, split: Split) -> list[str]:
    manifest, sizes, few, absent = frontend.manifest, [], [], []
    for part in PARTS:
        ids = split.part(part)
        if not ids:
            continue
        groups = {manifest.items[row].group for row in manifest.rows(ids)} - {""}
        words = (frontend.unit, len(groups)), (frontend.item, len(ids))
        unit, item = (f" {plural(*each)}" if part == "train" else "" for each in words)
        sizes.append(f"{part} {len(groups)}{unit} / {len(ids)}{item}" if groups else f"{part} {len(ids)}{item}")
        if 0 < len(groups) < FEWEST_GROUPS.get(part, 0):
            few.append(f"{part} has {counted(len(groups), frontend.unit)}")
        seen = {(task, label) for row in manifest.rows(ids) for task, label in label_keys(manifest.items[row])}
        lacking = [
            label for task in manifest.label_space.tasks for label in task.labels if (task.name, label) not in seen
        ]
        if lacking:
            absent.append(f"{part} has no example of {', '.join(lacking)}: left out of macro-F1 there")
    few = (
        [f"{' and '.join(few)} only: scores will rest on little; `samo crossval` evaluates on every {frontend.unit}"]
        if few
        else []
    )
    values = frontend.config.flat()
    drawn_too = values["seed"] and values["split_seed"] < 0 and split.rule != "table"
    line = f"`seed={values['seed']}` also draws the split; `split_seed=0` keeps that of `seed=0`, as an ensemble needs"
    also = [line] if drawn_too else []
    conflicts = about_conflicts(manifest, split.train + split.val + split.test)
    copies = audit(manifest, split) if manifest.copies == "reported" else find_near_leaks(manifest, split)[:10]
    return [", ".join(sizes), *few, *absent, *conflicts, *copies, *split_notes(manifest, split), *also]


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


def train_run(run: Run, setup: Setup, observer: Observer, command: str = "") -> TrainState:
    """Train a new run into its folder; ``command`` is what was typed, kept for whoever wants to repeat it.

    Raises:
        LeakError: the split shares speakers or recordings.
        Interrupted: stopped by a signal; the best model so far is kept.
        TrainingDiverged, DiskFull: stopped; the best model so far is kept.
    """
    first, ranks = setup.runtime.ranks.is_first, setup.runtime.ranks
    with run.locked() if first else nullcontext():
        if first and run.path("config.json").exists():
            raise RunError(f"run '{run.name}' was begun by another process", hint="choose another `name`")
        manifest = setup.frontend.manifest
        split = checked_split(setup.frontend, run.root)
        plan = make_plan(setup.frontend, split)
        # Refuses a loss that does not fit the question, before anything is written.
        EmotionLoss(manifest.label_space, plan.loss, manifest.targets[plan.train_rows])
        _same_everywhere(setup)
        made = ranks.broadcast(lambda: setup.frontend.augment(plan.train_rows, setup.runtime.device))
        learner, extended = _extended(setup.frontend, plan, made)
        teachers = _teachers(setup.frontend, split, run.root)
        extended = replace(extended, taught=ranks.broadcast(lambda: _taught(teachers, learner, extended, setup)))
        torch.manual_seed(step_seed(plan.train.seed, -1))
        with ranks.local_rank_first():
            model = setup.runtime.place(learner.new_model())
        fitted = ranks.broadcast(lambda: learner.fit(extended.train_rows))
        model.load_state_dict(fitted, strict=False)
        if first:
            facts = augmentation_facts(manifest.label_space, manifest.targets[plan.train_rows], made)
            save_augmented(run.folder, facts, made)
            started = learned_by_start(setup.frontend.config.flat(), run.root) + known_to(teachers, plan.loss)
            if started:
                write_json(run.path(STARTED_FROM), [each.to_json() for each in started])
            _draw_samples(run, learner, model, plan)
            if extended.taught is not None:
                save_tensors(run.path(TAUGHT), {"probabilities": torch.from_numpy(extended.taught)})
            write_beginning(run, setup, split, fitted, command)
            point_latest(run.root, run)
        state = new_state(model, extended, setup.runtime)
        return _train(run, Setup(learner, setup.runtime), manifest, observer, extended, state)


def resume_training(run: Run, setup: Setup, observer: Observer) -> TrainState:
    """Go on with a run that was stopped, from the end of its last whole epoch.

    Raises:
        RunError: the run is finished, or its data changed.
        ModelFileError: its checkpoint is damaged or of another model.
    """
    first = setup.runtime.ranks.is_first
    with run.locked() if first else nullcontext():
        if run.path("trained.json").exists():
            raise RunError(f"run '{run.name}' is finished", hint="train a new one for more epochs")
        manifest = setup.frontend.manifest
        if manifest.digest != run.manifest.digest:
            raise RunError(f"the data of run '{run.name}' changed since it was begun", hint="train a new run")
        refuse_edited(run)
        split = run.split
        run.audit(manifest)
        if first:
            remember_place(run, str(setup.frontend.config.flat().get("data_root", "")))
            # A report of the unfinished model would speak of another model once training goes on.
            run.path("report.json").unlink(missing_ok=True)
        _same_everywhere(setup)
        learner, plan = _extended(setup.frontend, make_plan(setup.frontend, split), load_augmented(run.folder))
        if run.path(TAUGHT).is_file():
            # As it was when the run began, whatever became of its teachers.
            plan = replace(plan, taught=load_tensors(run.path(TAUGHT))["probabilities"].numpy())
        torch.manual_seed(step_seed(plan.train.seed, -1))
        model = learner.new_model()
        load_fitted(run.path("fitted.safetensors"), model)
        state = new_state(model, plan, setup.runtime)
        if run.path("last.ckpt").exists():
            _load_state(state, run.path("last.ckpt"))
            if first:
                write_history(run, state.history)  # a kill right after a checkpoint leaves it an epoch behind
        return _train(run, Setup(learner, setup.runtime), manifest, observer, plan, state)


def _draw_samples(run: Run, frontend: Frontend, model: nn.Module, plan: TrainPlan) -> None:
    """Draw some of the training rows as the first epoch sees them; a picture that fails stops no training."""
    rows, n = plan.train_rows, min(SAMPLES_SHOWN, len(plan.train_rows))
    shown = rows[np.linspace(0, len(rows) - 1, n).round().astype(np.int64)]
    try:
        figures = frontend.sample_figures(model, Draws(plan.train.seed, 0, shown))
        if figures:
            from samo.reporting.drawing import save_named

            save_named(figures, run.folder)
    except Exception as error:
        logging.getLogger(__name__).warning("no picture of what training sees: %s", error)


def checked_split(frontend: Frontend, root: Path | None = None) -> Split:
    """The split to train on.

    Args:
        frontend: corpus and settings.
        root: folder of the outputs, in which teachers are looked for, and runs that start weights may come from.

    Raises:
        LeakError: it leaks, or start weights or teachers know its validation or test part.
        RunError, ModelFileError: there is no such teacher, or it has no model.
    """
    split = make_split(frontend.manifest, frontend.split_request())
    audit(frontend.manifest, split)
    refuse_known_start(frontend.config.flat(), frontend.manifest, split, root)
    _teachers(frontend, split, root or artifacts_root(""))
    return split


def _teachers(frontend: Frontend, split: Split, root: Path) -> list[Run]:
    config: Any = frontend.config
    return checked_teachers(config.loss, root, frontend.modality, frontend.manifest, split)


def _taught(teachers: Sequence[Run], learner: Frontend, plan: TrainPlan, setup: Setup) -> np.ndarray | None:
    """What the teachers answer to the rows that are learned from, in float32 on one process."""
    if not teachers:
        return None
    runtime = replace(setup.runtime.alone(), precision="float32")
    return taught_probabilities(teachers, learner, plan.train_rows, runtime)


def make_plan(frontend: Frontend, split: Split) -> TrainPlan:
    """Rows and settings the trainer needs."""
    config: Any = frontend.config
    rows = frontend.manifest.rows
    return TrainPlan(
        rows(split.train), rows(split.val), config.loss, config.optim, config.train, frontend.mixup_alpha,
        threshold_settings(config),
    )  # fmt: skip


def _extended(frontend: Frontend, plan: TrainPlan, made: tuple[Item, ...]) -> tuple[Frontend, TrainPlan]:
    """What is learned from: the training rows, and behind all of the manifest's what was made of them."""
    if not made:
        return frontend, plan
    n = len(frontend.manifest.items)
    rows = np.concatenate([plan.train_rows, np.arange(n, n + len(made), dtype=np.int64)])
    return frontend.with_extra(made), replace(plan, train_rows=rows)


def write_beginning(
    run: Run,
    setup: Setup,
    split: Split,
    fitted: dict[str, Any],
    command: str = "",
    members: Sequence[Config] = (),
) -> None:
    """Everything that is known before step 1; ``config.json`` comes last, its presence makes the folder a run.

    ``members`` are the settings of an ensemble's, which may need code that its own do not name.
    """
    setup.frontend.manifest.save(run.path("manifest.jsonl"))
    split.save(run.path("split.json"))
    if prints := setup.frontend.manifest.fingerprints:
        prints.only(split.train + split.val).save(run.path(FINGERPRINTS))
    # Beside what cannot be edited by hand, so that an edited config.json is noticed.
    config = setup.frontend.config
    begun_with = {"settings": json.dumps(config.stored()), "starts": json.dumps(start_digests(config.flat()))}
    save_tensors(run.path("fitted.safetensors"), fitted, begun_with)
    setup.frontend.save_assets(run.path(ASSETS))
    typed = {"command": command} if command else {}
    began = {"began": datetime.now(UTC).isoformat(timespec="seconds")}
    code = code_used(setup.frontend.config, *members)
    facts = {**environment(setup.runtime), **began, **({"code": code} if code else {}), **typed}
    write_json(run.path("environment.json"), facts)
    write_json(run.path("config.json"), setup.frontend.config.stored())


def _train(
    run: Run,
    setup: Setup,
    manifest: Manifest,
    observer: Observer,
    plan: TrainPlan,
    state: TrainState,
) -> TrainState:
    """Train on the rows of ``setup``; ``manifest`` holds what the run is judged on, without what was added."""
    first, ranks = setup.runtime.ranks.is_first, setup.runtime.ranks
    if first:
        run.sweep()
    learned = [Learned.of(manifest, run.split).to_json(), *run.started_from] if first else []

    def keep(state: TrainState, improved: bool) -> None:
        if improved:
            save_model(
                run.model_file,
                state.eval_weights(),
                label_space=manifest.label_space.to_json(),
                synthetic=manifest.synthetic,
                dataset=manifest.dataset,
                epoch=state.best_epoch + 1,
                val_macro_f1=state.best_score,
                digest=manifest.digest,
                intervals="wilson",
                learned=learned,
            )
            run.drop_replaced()
        save_checkpoint(run.path("last.ckpt"), state.state_dict())
        write_history(run, state.history)

    def keep_once(state: TrainState, improved: bool) -> None:
        if first:
            # Ctrl-C inside torch's writer comes out as a fault of the file.
            with signals_wait():
                keep(state, improved)
        # A slow disk must not look like a lost process.
        ranks.wait()

    try:
        with sigterm_raises():
            fit(state, setup, plan, observer, keep_once)
            if first:
                # In the precision that judges and predicts, whatever the training took.
                _calibrate(run, Setup(setup.frontend, replace(setup.runtime.alone(), precision="float32")), plan)
    except TrainingDiverged as error:
        error.hint += f"; {_what_is_kept(state, plan)}"
        raise
    except (KeyboardInterrupt, Terminated) as stop:
        raise Interrupted(
            f"training stopped after {state.epoch} of {counted(plan.train.epochs, 'epoch')}; "
            + _what_is_kept(state, plan),
            hint=f"go on with: `resume={run.name}`",
            exit_status=143 if isinstance(stop, Terminated) else 130,
        ) from None
    if first:
        _finish(run, state, plan)
    return state


def _finish(run: Run, state: TrainState, plan: TrainPlan) -> None:
    # Decided while it was still training: such a report may speak of an earlier best epoch.
    run.path("report.json").unlink(missing_ok=True)
    mark_trained(
        run,
        {
            "epochs": state.epoch,
            "best_epoch": state.best_epoch + 1,
            **({"keep": "average" if state.average and state.average.complete else "last"} if keeps_last(plan) else {}),
            "val_macro_f1": state.best_score,
            "val_loss": state.best_loss,
            "allowed_epochs": plan.train.epochs if state.learns else state.epoch,
            "selected_over": [*plan.thresholds.threshold_range, plan.thresholds.num_thresholds],
        },
    )


def _calibrate(run: Run, setup: Setup, plan: TrainPlan) -> None:
    """Fit temperature and thresholds on the validation rows, with the weights that ship."""
    if not len(plan.val_rows):
        return
    model, space = load_run_model(run, type(setup.frontend), setup.runtime)
    logits = predict_logits(model, setup, plan.val_rows)
    targets = setup.frontend.manifest.targets[plan.val_rows]
    config = setup.frontend.config
    calibrate(run, space, logits, targets, threshold_settings(config), abstention=abstention_settings(config))


def _same_everywhere(setup: Setup) -> None:
    """Refuse to train in several processes that were started with other settings, or see other data."""
    settings = {name: value for name, value in setup.frontend.config.flat().items() if name != "data_root"}
    setup.runtime.ranks.require_equal("the settings", settings, SettingsError)
    setup.runtime.ranks.require_equal("the data", setup.frontend.manifest.digest, DataError)


def _load_state(state: TrainState, path: Path) -> None:
    stored = load_checkpoint(path)
    try:
        state.load_state_dict(stored)
    except (ValueError, RuntimeError) as error:
        raise ModelFileError(f"{path} is not a checkpoint of this run: {str(error).partition(chr(10))[0]}") from error


def _what_is_kept(state: TrainState, plan: TrainPlan) -> str:
    if state.best_epoch < 0:
        return "no epoch was finished, so there is no model yet"
    which = "last" if keeps_last(plan) else "best"
    score = "" if state.best_score is None else f", validation macro-F1 {state.best_score:.3f}"
    return f"the {which} model (epoch {state.best_epoch + 1}{score}) is kept"
