"""The training of a run in its folder: begun, gone on with, ended with weights that ship."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from samo.data.augmented import augmentation_facts, load_augmented, save_augmented
from samo.data.batch import Draws
from samo.data.manifest import Manifest
from samo.data.splits import Split
from samo.errors import (
    DataError,
    Interrupted,
    ModelFileError,
    RunError,
    SettingsError,
    TrainingDiverged,
    counted,
)
from samo.files import write_json
from samo.frontend import Frontend
from samo.plugins import code_used
from samo.runs.artifacts import point_latest
from samo.runs.calibrate import abstention_settings, calibrate, threshold_settings
from samo.runs.load import load_run_model, refuse_edited
from samo.runs.origin import start_digests
from samo.runs.provenance import Learned, learned_by_start
from samo.runs.run import (
    ASSETS,
    FINGERPRINTS,
    STARTED_FROM,
    TAUGHT,
    Run,
    mark_trained,
    remember_place,
    write_history,
)
from samo.runs.signals import Terminated, signals_wait, sigterm_raises
from samo.runs.teachers import known_to
from samo.runs.training_plan import answers_of_teachers, checked_split, make_plan, teachers_of, with_augmented
from samo.settings import Config
from samo.training.checkpoint import (
    load_checkpoint,
    load_fitted,
    load_tensors,
    save_checkpoint,
    save_model,
    save_tensors,
)
from samo.training.losses import EmotionLoss
from samo.training.runtime import environment, step_seed
from samo.training.setup import Setup
from samo.training.trainer import Observer, TrainPlan, TrainState, fit, keeps_last, new_state, predict_logits

__all__ = ["resume_training", "train_run", "write_beginning"]

# Clips in the picture of what training sees.
SAMPLES_SHOWN = 4


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
        learner, extended = with_augmented(setup.frontend, plan, made)
        teachers = teachers_of(setup.frontend, split, run.root)
        extended = replace(
            extended, taught=ranks.broadcast(lambda: answers_of_teachers(teachers, learner, extended, setup))
        )
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
        learner, plan = with_augmented(setup.frontend, make_plan(setup.frontend, split), load_augmented(run.folder))
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
