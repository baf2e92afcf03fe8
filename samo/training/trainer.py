"""The one trainer: fit -> epoch -> step, over one typed state."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from textwrap import shorten
from typing import Annotated, Any, NoReturn, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from samo.data.batch import Batch, Draws, Mix, draw_mix, part_of
from samo.data.sampling import batches_of, epoch_order, occurrences, sampling_weights, sorted_batches
from samo.errors import TrainingDiverged, first_ten
from samo.evaluation.metrics import selection_score
from samo.evaluation.thresholds import threshold_grid
from samo.frontend import Frontend
from samo.settings import LossSettings, OptimSettings, ThresholdSettings, TrainSettings
from samo.stored import Count, Flag, Number, Share, Stored, Text, validated
from samo.training.averaging import EpochAverage, averaged_epochs, refresh_batchnorm
from samo.training.checkpoint import misfit
from samo.training.losses import EmotionLoss, loss_of, rdrop_weight
from samo.training.model import EmotionModel
from samo.training.optim import Ema, centralise_gradients, learning_rate, load_optimizer, make_optimizer, set_rate
from samo.training.ranks import Ranks
from samo.training.runtime import Runtime, step_seed
from samo.training.setup import Setup
from samo.training.training_log import EpochRow

__all__ = ["Observer", "TrainPlan", "TrainState", "fit", "keeps_last", "new_state", "predict_logits"]


class Observer(Protocol):
    """Watches a training; the command line draws it, tests and grids ignore it."""

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """After each optimiser step of an epoch; ``step`` counts from 1."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """After each validated epoch, with the row written to the history."""


@dataclass(frozen=True)
class TrainPlan:
    """What is trained and how, apart from where.

    Attributes:
        train_rows: (N,) manifest rows to learn from.
        val_rows: (M,) manifest rows that choose the best epoch.
        mixup_alpha: Beta parameter of mixup, 0 = off. A mixed row is labelled for a task only where both its rows are.
        thresholds: those that multi-label tasks may ship with, and epochs are selected by.
        taught: (rows of the manifest, C) float32 probabilities of a teacher at the temperature of the loss, NaN where
            it has none; None without a teacher.
    """

    train_rows: np.ndarray
    val_rows: np.ndarray
    loss: LossSettings
    optim: OptimSettings
    train: TrainSettings
    mixup_alpha: float = 0.0
    thresholds: ThresholdSettings = field(default_factory=ThresholdSettings)
    taught: np.ndarray | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch."""
        n_batches = max(1, len(self.train_rows) // self.train.batch_size)
        return math.ceil(n_batches / self.optim.grad_accum)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training, early stopping aside."""
        return self.steps_per_epoch * self.train.epochs


class _StoredScaler(Stored):
    scale: Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
    growth_factor: Annotated[float, Field(strict=True, gt=1.0, allow_inf_nan=False)]
    backoff_factor: Share
    growth_interval: Annotated[int, Field(strict=True, ge=1, le=2**31)]
    growth_tracker: Annotated[int, Field(strict=True, ge=0, le=2**31, alias="_growth_tracker")]


class _StoredState(Stored):
    model: dict[Text, Any]
    optimizer: dict[Text, Any]
    scaler: _StoredScaler | Annotated[dict[Text, Any], Field(max_length=0)]
    ema: dict[Text, Any] | None
    epoch: Count
    step: Count
    # Before the first epoch the lowest loss is infinite.
    best: tuple[
        Number | None,
        Annotated[float, Field(strict=True, gt=-math.inf)] | None,
        Annotated[int, Field(strict=True, ge=-1, le=2**53)],
    ]
    history: list[dict[Text, Any]]
    # Runs trained before classes were left out do not say.
    absent_as_zero: Flag = True
    average: dict[Text, Any] | None = None


@dataclass
class TrainState:
    """Everything that changes while training, and therefore everything a checkpoint holds.

    Attributes:
        epoch: the next epoch to train, from 0.
        step: optimiser steps done.
        best_score: highest validation macro-F1 so far; ties go to the lower loss. With ``keep=last`` or ``average``
            that of the last epoch, as ``best_loss`` and ``best_epoch`` are then the last one's: they belong to the
            weights that count. None, as ``best_loss``, where nothing is validated on.
        best_epoch: the epoch it was reached in, -1 before the first.
        absent_as_zero: macro-F1 counts classes that validation lacks as 0. A training begun before they were left out
            goes on so, that its scores stay of one kind and a resumed training ends as an unbroken one.
        average: with ``keep=average`` the mean of the weights over the last epochs (of their moving average, where
            there is one), which takes their place when the last epoch is done.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    epoch: int = 0
    step: int = 0
    best_score: float | None = -1.0
    best_loss: float | None = math.inf
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)
    absent_as_zero: bool = False
    average: EpochAverage | None = None

    def epoch_weights(self) -> dict[str, Tensor]:
        """The weights of the last epoch: their moving average where there is one."""
        return self.ema.average if self.ema else self.model.state_dict()

    def eval_weights(self) -> dict[str, Tensor]:
        """The weights that are validated and published: of the last epoch, or the whole mean over the last ones."""
        return self.average.weights if self.average and self.average.complete else self.epoch_weights()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "epoch": self.epoch,
            "step": self.step,
            "best": [self.best_score, self.best_loss, self.best_epoch],
            "history": self.history,
            "absent_as_zero": self.absent_as_zero,
            "average": self.average.state_dict() if self.average else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            ValueError: it is of another model, or damaged.
        """
        stored = validated(_StoredState, state)
        if problem := misfit(self.model.state_dict(), stored.model):
            raise ValueError(f"the model: {problem}")
        for number, row in enumerate(stored.history, start=1):
            if validated(EpochRow, row).epoch != number:
                raise ValueError(f"row {number} of its history is of another epoch")
        if not stored.best[2] < stored.epoch == len(stored.history):
            raise ValueError("its history does not end at its epoch")
        load_optimizer(self.optimizer, stored.optimizer)
        if self.ema:
            self.ema.load_state_dict(stored.ema or {})
        if self.average:
            self.average.load_state_dict(stored.average or {})
        self.model.load_state_dict(stored.model)
        if isinstance(stored.scaler, _StoredScaler):  # empty where no loss was scaled, and then a scaler begins anew
            self.scaler.load_state_dict(stored.scaler.model_dump(by_alias=True))
        self.epoch, self.step = stored.epoch, stored.step
        self.best_score, self.best_loss, self.best_epoch = stored.best
        self.history = stored.history
        self.absent_as_zero = stored.absent_as_zero

    @property
    def learns(self) -> bool:
        """Whether there is anything to train; a model whose weights are all fitted beforehand is judged once."""
        return any(group["params"] for group in self.optimizer.param_groups)

    def finished(self, settings: TrainSettings) -> bool:
        """Whether all epochs are done or patience ran out."""
        waited = self.epoch - 1 - self.best_epoch
        out_of_patience = settings.patience > 0 and self.best_epoch >= 0 and waited >= settings.patience
        return self.epoch >= (settings.epochs if self.learns else 1) or out_of_patience


def keeps_last(plan: TrainPlan) -> bool:
    """Whether no epoch is chosen: by the settings, or for want of rows to choose one by."""
    return plan.train.keep != "best" or not len(plan.val_rows)


def new_state(model: nn.Module, plan: TrainPlan, runtime: Runtime) -> TrainState:
    """A state before step 1."""
    model = runtime.shared(runtime.place(model))
    ema = Ema(model, plan.optim.ema_decay) if plan.optim.ema_decay > 0.0 else None
    average = EpochAverage(model, averaged_epochs(plan.train.epochs)) if plan.train.keep == "average" else None
    return TrainState(model, make_optimizer(model, plan.optim), runtime.scaler(), ema, average=average)


def fit(
    state: TrainState,
    setup: Setup,
    plan: TrainPlan,
    observer: Observer,
    keep: Callable[[TrainState, bool], None],
) -> None:
    """Train until the epochs are over or patience runs out.

    Args:
        state: where to begin; changed in place.
        setup: what gives the batches; device and precision.
        plan: what to train on and how.
        observer: told after every step and epoch.
        keep: called after each epoch with the state and whether its weights are those that count so far: the best,
            or with ``keep=last`` and ``average`` always; writes the files.

    Raises:
        TrainingDiverged: the loss became NaN or infinite; names the files of the batch (or of the validation split).
    """
    space, targets = setup.frontend.manifest.label_space, setup.frontend.manifest.targets
    criterion = EmotionLoss(space, plan.loss, targets[plan.train_rows]).to(setup.runtime.device)
    weights = sampling_weights(targets[plan.train_rows], space, plan.loss)
    # The averaged weights are evaluated in a model of their own, so that the trained one is never disturbed.
    evaluated = copy.deepcopy(state.model) if state.ema or state.average else state.model
    while not state.finished(plan.train):
        started = time.perf_counter()
        if state.learns:
            _begin_epoch(state)
            train_loss, rate = train_epoch(state, setup, plan, criterion, weights, observer)
        else:
            rate = 0.0
            _, train_loss = evaluate_rows(state.model, setup, plan.train_rows, criterion, "training", 0)
        if state.average and state.epoch >= plan.train.epochs - state.average.n_epochs:
            state.average.add(state.epoch_weights())
        if evaluated is not state.model:
            evaluated.load_state_dict(state.eval_weights())
        if state.average and state.average.complete:
            refresh_batchnorm(evaluated, setup, plan.train_rows, plan.train.batch_size, plan.train.seed)
            state.average.take_statistics(evaluated)
        score, val_loss = validate(evaluated, setup, plan, criterion, state.epoch, absent_as_zero=state.absent_as_zero)
        improved = _improved(score, val_loss, state.history)
        counts = improved or keeps_last(plan)
        if counts:
            state.best_score, state.best_loss, state.best_epoch = score, val_loss, state.epoch
        row = {
            "epoch": state.epoch + 1,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_macro_f1": score,
            "lr": rate,
            "seconds": round(time.perf_counter() - started, 3),
        }
        state.history.append(row)
        state.epoch += 1
        keep(state, counts)
        observer.on_epoch(row, improved)


def _improved(score: float | None, val_loss: float | None, history: list[dict[str, Any]]) -> bool:
    """Whether an epoch is better than all before; ties go to the lower loss."""
    if score is None or val_loss is None:
        return False
    return all((score, -val_loss) > (row["val_macro_f1"], -row["val_loss"]) for row in history)


def validate(
    model: nn.Module, setup: Setup, plan: TrainPlan, criterion: EmotionLoss, epoch: int, *, absent_as_zero: bool = False
) -> tuple[float, float] | tuple[None, None]:
    """Macro-F1 and mean loss per row on the validation split; ``absent_as_zero`` as in :class:`TrainState`.

    None and None where there is no such row.
    """
    if not len(plan.val_rows):
        return None, None
    logits, loss = evaluate_rows(model, setup, plan.val_rows, criterion, "validation", epoch)
    space, targets = setup.frontend.manifest.label_space, setup.frontend.manifest.targets[plan.val_rows]
    grid = threshold_grid(plan.thresholds)
    return selection_score(space, logits, targets, grid, absent_as_zero=absent_as_zero), loss


def evaluate_rows(
    model: nn.Module,
    setup: Setup,
    rows: np.ndarray,
    criterion: EmotionLoss,
    part: str,
    epoch: int,
) -> tuple[np.ndarray, float]:
    """(N, C) logits of the rows of a part, without learning from them, and their mean loss."""
    truth = setup.frontend.manifest.targets[rows]
    logits = predict_logits(model, setup, rows)
    with torch.no_grad():
        there = setup.runtime.device
        losses = criterion.per_row(torch.from_numpy(logits).to(there), torch.from_numpy(truth).to(there))
    loss = losses.sum().item() / len(rows)
    if not math.isfinite(loss):
        bad = rows[~losses.isfinite().cpu().numpy()]
        _diverged(setup.frontend, bad, f"the {part} loss became {loss} after epoch {epoch + 1}")
    return logits, loss


def _begin_epoch(state: TrainState) -> None:
    """Let the model freeze and unfreeze; nothing may wake that the optimiser does not know and would never move."""
    if isinstance(state.model, EmotionModel):
        state.model.begin_epoch(state.epoch)
        known = {id(parameter) for group in state.optimizer.param_groups for parameter in group["params"]}
        strange = [name for name, p in state.model.named_parameters() if p.requires_grad and id(p) not in known]
        if strange:
            raise RuntimeError(f"frozen when the model was made, so never trained: {first_ten(strange)}")


def train_epoch(
    state: TrainState,
    setup: Setup,
    plan: TrainPlan,
    criterion: EmotionLoss,
    weights: np.ndarray | None,
    observer: Observer,
) -> tuple[float, float]:
    """One pass; returns the mean loss per row and the last learning rate."""
    seed, epoch = plan.train.seed, state.epoch
    # Dropout draws from torch's global generator: set by epoch, so that an epoch can be repeated on its own.
    torch.manual_seed(step_seed(seed, epoch, setup.runtime.ranks.rank))
    state.model.train()
    batches = _batches(setup.frontend, epoch_order(plan.train_rows, seed, epoch, weights), plan.train, epoch)
    groups = [batches[k : k + plan.optim.grad_accum] for k in range(0, len(batches), plan.optim.grad_accum)]
    total, rate = 0.0, 0.0
    for number, group in enumerate(groups, start=1):
        rate = learning_rate(state.step, plan.total_steps, plan.optim)
        loss = train_step(state, setup, plan, criterion, group, rate)
        total += loss
        observer.on_step(epoch, number, len(groups), loss)
    return total / len(groups), rate


def train_step(
    state: TrainState,
    setup: Setup,
    plan: TrainPlan,
    criterion: EmotionLoss,
    group: list[Draws],
    rate: float,
) -> float:
    """One optimiser step over one or more batches of rows and their draws; returns the mean loss per row."""
    set_rate(state.optimizer, rate)
    state.optimizer.zero_grad(set_to_none=True)
    n_rows = sum(len(whole.rows) for whole in group)
    total = 0.0
    for whole in group:
        mix = draw_mix(whole, plan.mixup_alpha)
        draws, mix = part_of(whole, mix, setup.runtime.ranks.part(len(whole.rows)))
        batch = setup.frontend.train_batch(draws.rows, draws).to(setup.runtime.device)
        mix = mix.to(setup.runtime.device) if mix else None
        forward = partial(_forward, state.model, setup.runtime, batch, draws, mix)
        targets = mix.apply(batch.targets) if mix else batch.targets
        taught = None
        if plan.taught is not None:
            taught = torch.from_numpy(plan.taught[draws.rows]).to(setup.runtime.device)
            taught = mix.apply(taught) if mix else taught
        loss = loss_of(forward, criterion, targets, rdrop_weight(plan.loss, state.epoch), taught) / n_rows
        value = loss.item()
        if not math.isfinite(value):
            _diverged(
                setup.frontend, draws.rows, f"the loss became {value} in epoch {state.epoch + 1}, step {state.step + 1}"
            )
        state.scaler.scale(loss).backward()
        total += value
    total = _add_up(state.model, setup.runtime.ranks, total)
    _update(state, plan.optim)
    state.step += 1
    return total


def _batches(frontend: Frontend, order: np.ndarray, settings: TrainSettings, epoch: int) -> list[Draws]:
    """The batches of an epoch; a row that a sampler draws again has draws of its own each time."""
    sizes = frontend.sizes(order)
    if sizes is None:
        batches = batches_of(order, settings.batch_size)
    else:
        batches = sorted_batches(order, sizes, settings.batch_size, settings.seed, epoch)
    ends = np.cumsum([len(rows) for rows in batches])[:-1]
    again = np.split(occurrences(np.concatenate(batches)), ends)
    return [Draws(settings.seed, epoch, rows, own) for rows, own in zip(batches, again, strict=True)]


def _forward(model: nn.Module, runtime: Runtime, batch: Batch, draws: Draws, mix: Mix | None) -> Tensor:
    with runtime.autocast():
        logits: Tensor = model(batch.inputs, batch.lengths, draws, mix)
    return logits.float()


def _diverged(frontend: Frontend, rows: np.ndarray, what: str) -> NoReturn:
    names = [shorten(frontend.manifest.items[row].source, 60) for row in rows]
    raise TrainingDiverged(
        f"{what}; {frontend.item}s: {first_ten(names)}",
        hint="a lower `lr`, a `max_grad_norm` above 0 or `precision=float32` may help",
    )


def _add_up(model: nn.Module, ranks: Ranks, loss: float) -> float:
    """Sum gradients and loss over the processes; returns the loss of the global batch.

    Each share's loss is a sum over rows divided by all rows, so gradients are added, once for all accumulated batches.
    torch's DistributedDataParallel averages instead (wrong for uneven shares), and wraps the model and its state.
    """
    if ranks.world_size == 1:
        return loss
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    used = [float(parameter.grad is not None) for parameter in parameters]
    facts = torch.tensor([*used, loss], device=parameters[0].device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    ranks.all_reduce([*gradients, facts])
    *used, loss = facts.tolist()
    for parameter, gradient, count in zip(parameters, gradients, used, strict=True):
        # What no process used gets no gradient, as in one process: a zero would let weight decay at it.
        parameter.grad = gradient if count else None
    return loss


def _update(state: TrainState, settings: OptimSettings) -> None:
    state.scaler.unscale_(state.optimizer)
    if settings.grad_centralisation:
        centralise_gradients(state.model)
    if settings.max_grad_norm > 0.0:
        nn.utils.clip_grad_norm_(state.model.parameters(), settings.max_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.ema:
        state.ema.update(state.model)


@torch.inference_mode()
def predict_logits(model: nn.Module, setup: Setup, rows: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """(N, C) float32 logits of manifest rows, averaged over the windows of each row.

    Rows of similar size are judged together. Several processes share the rows; each ends with the logits of all.
    """
    model.eval()
    averaged = np.zeros((len(rows), setup.frontend.manifest.label_space.n_columns), dtype=np.float32)
    part = setup.runtime.ranks.part(len(rows))
    own = rows[part]
    position = {int(row): k for k, row in enumerate(own)}
    total = np.zeros((len(own), averaged.shape[1]), dtype=np.float64)
    count = np.zeros(len(own), dtype=np.int64)
    sizes = setup.frontend.sizes(own)
    by_size = own if sizes is None else own[np.argsort(sizes, kind="stable")]
    for batch in setup.frontend.eval_batches(by_size, batch_size):
        moved = batch.to(setup.runtime.device)
        with setup.runtime.autocast():
            logits = model(moved.inputs, moved.lengths).float().cpu().numpy()
        places = np.array([position[int(row)] for row in batch.rows])
        np.add.at(total, places, logits)
        np.add.at(count, places, 1)
    averaged[part] = total / count[:, None]
    setup.runtime.ranks.gather_rows(averaged)
    return averaged
