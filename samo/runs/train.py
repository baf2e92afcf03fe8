"""Train a run, judge a run: what every command and grid is made of."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from samo.data.augmented import augmentation_facts, load_augmented, save_augmented
from samo.data.manifest import Item, Manifest
from samo.data.splits import Split, audit, make_split
from samo.errors import DataError, Interrupted, ModelFileError, RunError, SettingsError
from samo.files import write_json
from samo.frontend import Frontend
from samo.plugins import code_used
from samo.runs.calibrate import calibrate, threshold_settings
from samo.runs.code import require_code
from samo.runs.ensemble_model import Ensemble
from samo.runs.run import ASSETS, Run, mark_trained, point_latest, write_history
from samo.tasks import LabelSpace
from samo.training.checkpoint import (
    load_checkpoint,
    load_model,
    load_tensors,
    read_about,
    save_checkpoint,
    save_model,
    save_tensors,
)
from samo.training.losses import EmotionLoss
from samo.training.runtime import Runtime, environment, step_seed
from samo.training.setup import Setup
from samo.training.trainer import Observer, TrainPlan, TrainState, fit, new_state, predict_logits

__all__ = ["load_run_model", "resume_training", "train_run"]


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
            raise RunError(f"run '{run.name}' was begun by another process", hint="choose another --name")
        manifest = setup.frontend.manifest
        split = make_split(manifest, setup.frontend.split_request())
        audit(manifest, split)
        plan = make_plan(setup.frontend, split)
        # Refuses a loss that does not fit the question, before anything is written.
        EmotionLoss(manifest.label_space, plan.loss, manifest.targets[plan.train_rows])
        _same_everywhere(setup)
        made = ranks.broadcast(lambda: setup.frontend.augment(plan.train_rows, setup.runtime.device))
        learner, extended = _extended(setup.frontend, plan, made)
        torch.manual_seed(step_seed(plan.train.seed, -1))
        with ranks.local_rank_first():
            model = learner.new_model()
        fitted = ranks.broadcast(lambda: learner.fit(extended.train_rows))
        model.load_state_dict(fitted, strict=False)
        if first:
            facts = augmentation_facts(manifest.label_space, manifest.targets[plan.train_rows], made)
            save_augmented(run.folder, facts, made)
            write_beginning(run, setup, split, fitted, command)
            point_latest(run.folder.parent.parent, run)
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
        split = run.split
        audit(manifest, split)
        if first:
            # A report of the unfinished model would speak of another model once training goes on.
            run.path("report.json").unlink(missing_ok=True)
        _same_everywhere(setup)
        learner, plan = _extended(setup.frontend, make_plan(setup.frontend, split), load_augmented(run.folder))
        torch.manual_seed(step_seed(plan.train.seed, -1))
        model = learner.new_model()
        model.load_state_dict(load_tensors(run.path("fitted.safetensors")), strict=False)
        state = new_state(model, plan, setup.runtime)
        if run.path("last.ckpt").exists():
            _load_state(state, run.path("last.ckpt"))
            if first:
                write_history(run, state.history)  # a kill right after a checkpoint leaves it an epoch behind
        return _train(run, Setup(learner, setup.runtime), manifest, observer, plan, state)


def make_plan(frontend: Frontend, split: Split) -> TrainPlan:
    """Rows and settings the trainer needs."""
    config: Any = frontend.config
    rows = frontend.manifest.rows
    return TrainPlan(rows(split.train), rows(split.val), config.loss, config.optim, config.train, frontend.mixup_alpha)


def _extended(frontend: Frontend, plan: TrainPlan, made: tuple[Item, ...]) -> tuple[Frontend, TrainPlan]:
    """What is learned from: the training rows, and behind all of the manifest's what was made of them."""
    if not made:
        return frontend, plan
    n = len(frontend.manifest.items)
    rows = np.concatenate([plan.train_rows, np.arange(n, n + len(made), dtype=np.int64)])
    return frontend.with_extra(made), replace(plan, train_rows=rows)


def write_beginning(run: Run, setup: Setup, split: Split, fitted: dict[str, Any], command: str = "") -> None:
    """Everything that is known before step 1; ``config.json`` comes last, its presence makes the folder a run."""
    setup.frontend.manifest.save(run.path("manifest.jsonl"))
    split.save(run.path("split.json"))
    save_tensors(run.path("fitted.safetensors"), fitted)
    setup.frontend.save_assets(run.path(ASSETS))
    typed = {"command": command} if command else {}
    code = code_used(setup.frontend.config)
    facts = {**environment(setup.runtime), **({"code": code} if code else {}), **typed}
    write_json(run.path("environment.json"), facts)
    write_json(run.path("config.json"), {"modality": setup.frontend.modality, **setup.frontend.config.flat()})


def load_run_model(run: Run, frontend_type: type[Frontend], runtime: Runtime) -> tuple[nn.Module, LabelSpace]:
    """The model of a run's best epoch, or of an ensemble, ready to judge with, and what its columns mean.

    Raises:
        ModelFileError: missing, damaged, foreign, or not of these settings.
        RunError: it needs code that nobody named; see :func:`samo.runs.code.require_code`.
    """
    settings = {name: value for name, value in run.settings.items() if name != "modality"}
    about = read_about(run.model_file)
    space = LabelSpace.from_json(about["label_space"])

    def built(settings: dict[str, Any], assets: Path) -> nn.Module:
        require_code(run, "model", settings=settings, kind=frontend_type.config_type)
        return frontend_type.build_model(frontend_type.config_type.build(settings), space, assets)

    model: nn.Module
    if joined := about.get("ensemble"):
        members = joined["members"]
        weights, temperatures = ([member[name] for member in members] for name in ("weight", "temperature"))
        parts = [built(member["settings"], run.path(ASSETS) / str(k)) for k, member in enumerate(members)]
        thresholds = [member.get("thresholds", {}) for member in members]
        model = Ensemble(parts, weights, temperatures, space, joined["combine"], thresholds)
    else:
        model = built(settings, run.path(ASSETS))
    load_model(run.model_file, model)
    # Without gradients channels-last is faster in every precision; in float32 training it is not always.
    return runtime.place(model).to(memory_format=torch.channels_last).eval(), space  # type: ignore[call-overload]


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
            )
        save_checkpoint(run.path("last.ckpt"), state.state_dict())
        write_history(run, state.history)

    def keep_once(state: TrainState, improved: bool) -> None:
        if first:
            # Ctrl-C inside torch's writer comes out as a fault of the file.
            with _signals_wait():
                keep(state, improved)
        # A slow disk must not look like a lost process.
        ranks.wait()

    try:
        with _sigterm_raises():
            fit(state, setup, plan, observer, keep_once)
            if first:
                # In the precision that judges and predicts, whatever the training took.
                _calibrate(run, Setup(setup.frontend, replace(setup.runtime.alone(), precision="float32")), plan)
    except (KeyboardInterrupt, _Terminated) as stop:
        raise Interrupted(
            f"training stopped after {state.epoch} of {plan.train.epochs} epochs; " + _what_is_kept(state),
            hint=f"go on with: samo train --resume {run.name}",
            exit_status=143 if isinstance(stop, _Terminated) else 130,
        ) from None
    if first:
        _finish(run, state)
    return state


def _finish(run: Run, state: TrainState) -> None:
    # Decided while it was still training: such a report may speak of an earlier best epoch.
    run.path("report.json").unlink(missing_ok=True)
    mark_trained(
        run,
        {
            "epochs": state.epoch,
            "best_epoch": state.best_epoch + 1,
            "val_macro_f1": state.best_score,
            "val_loss": state.best_loss,
        },
    )


def _calibrate(run: Run, setup: Setup, plan: TrainPlan) -> None:
    """Fit temperature and thresholds on the validation rows, with the weights that ship."""
    model, space = load_run_model(run, type(setup.frontend), setup.runtime)
    logits = predict_logits(model, setup, plan.val_rows)
    targets = setup.frontend.manifest.targets[plan.val_rows]
    calibrate(run, space, logits, targets, threshold_settings(setup.frontend.config))


def _same_everywhere(setup: Setup) -> None:
    """Refuse to train in several processes that were started with other settings, or see other data."""
    settings = {name: value for name, value in setup.frontend.config.flat().items() if name != "data_root"}
    setup.runtime.ranks.require_equal("the settings", settings, SettingsError)
    setup.runtime.ranks.require_equal("the data", setup.frontend.manifest.digest, DataError)


def _load_state(state: TrainState, path: Path) -> None:
    stored = load_checkpoint(path)
    try:
        state.load_state_dict(stored)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelFileError(f"{path} is not a checkpoint of this run: {str(error).partition(':')[0]}") from error


class _Terminated(BaseException):
    """SIGTERM as an exception, so that files are closed and the message is printed."""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """SIGINT and SIGTERM act when the block is done: half a second at most, for files that are written whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: came.append(got)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _what_is_kept(state: TrainState) -> str:
    if state.best_epoch < 0:
        return "no epoch was finished, so there is no model yet"
    return f"the best model (epoch {state.best_epoch + 1}, validation macro-F1 {state.best_score:.3f}) is kept"
