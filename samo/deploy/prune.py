"""Whole channels out of a network, and a short training after."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from samo.deploy.exporter import ChannelGroup
from samo.evaluation.decision import Decision, fit_decision
from samo.frontend import Frontend
from samo.runs.calibrate import abstention_settings, threshold_settings
from samo.runs.run import Run
from samo.runs.training_plan import make_plan
from samo.training.setup import Setup
from samo.training.trainer import Observer, TrainState, fit, new_state, predict_logits

__all__ = ["Pruned", "fine_tune", "remove_channels"]

# A network that has lost channels is mended, not trained anew: a tenth of the peak rate it was trained with.
_RATE = 0.1


@dataclass(frozen=True)
class Pruned:
    """A network with fewer channels.

    Attributes:
        model: with the weights of its best epoch by validation macro-F1.
        decision: temperatures and thresholds of its own, fitted on the validation part.
        parameters: before and after.
    """

    model: nn.Module
    decision: Decision
    parameters: tuple[int, int]


def remove_channels(groups: Sequence[ChannelGroup], ratio: float) -> None:
    """Take ``ratio`` of the channels of every group away, those that say least; at least one stays.

    What a channel says is the L1 norm of its filter (Li et al. 2017, "Pruning filters for efficient ConvNets"), times
    the size of the factor that batch norm gives it.
    """
    for group in groups:
        weights = group.maker.weight.detach()
        score = weights.abs().flatten(1).sum(dim=1)
        if group.norms:
            norm = group.norms[0]
            spread = (_tensor(norm.running_var) + norm.eps).sqrt()
            score = score * norm.weight.detach().abs() / spread
        n_kept = max(1, round(len(score) * (1.0 - ratio)))
        kept = score.topk(n_kept).indices.sort().values
        _keep(group, kept)


def fine_tune(
    run: Run, setup: Setup, model: nn.Module, groups: Sequence[ChannelGroup], ratio: float, epochs: int,
    observer: Observer,
) -> Pruned:  # fmt: skip
    """Remove channels of a run's model and train it for some epochs as the run was, at a tenth of its learning rate.

    Args:
        run: whose split and settings hold.
        setup: of its data.
        model: its network, changed in place; ``groups`` are of it.
        groups: channels that may go.
        ratio: share of them that goes.
        epochs: of training after.
        observer: watches it.
    """
    n_before = _n_parameters(model)
    remove_channels(groups, ratio)
    frontend = setup.frontend
    plan = make_plan(frontend, run.split)
    plan = replace(
        plan,
        optim=plan.optim.model_copy(update={"lr": plan.optim.lr * _RATE, "lr_min": 0.0, "ema_decay": 0.0}),
        train=plan.train.model_copy(update={"epochs": epochs, "patience": 0, "keep": "best"}),
        loss=plan.loss.model_copy(update={"teacher": ""}),
    )
    best: dict[str, Tensor] = {}

    def keep(state: TrainState, improved: bool) -> None:
        if improved:
            best.update(copy.deepcopy(dict(state.eval_weights())))

    model.requires_grad_(True)
    fit(new_state(model, plan, setup.runtime), setup, plan, observer, keep)
    model.load_state_dict(best)
    model.eval().requires_grad_(False)
    return Pruned(model, _decision(frontend, setup, model, plan.val_rows), (n_before, _n_parameters(model)))


def _decision(frontend: Frontend, setup: Setup, model: nn.Module, rows: np.ndarray) -> Decision:
    config = frontend.config
    return fit_decision(
        predict_logits(model, setup, rows), frontend.manifest.targets[rows], frontend.manifest.label_space,
        threshold_settings(config), abstention=abstention_settings(config),
    )  # fmt: skip


def _keep(group: ChannelGroup, kept: Tensor) -> None:
    """Leave the channels ``kept`` alone."""
    for maker in (group.maker, *group.gates):
        _cut(maker, "weight", kept, 0)
        _cut(maker, "bias", kept, 0)
        if isinstance(maker, nn.Linear):
            maker.out_features = len(kept)
        else:
            maker.out_channels = len(kept)
    for norm in group.norms:
        for name in ("weight", "bias", "running_mean", "running_var"):
            _cut(norm, name, kept, 0)
        norm.num_features = len(kept)
    for layer in group.through:
        _cut(layer, "weight", kept, 0)
        _cut(layer, "bias", kept, 0)
        layer.in_channels = layer.out_channels = layer.groups = len(kept)
    for taker in group.takers:
        _cut(taker, "weight", kept, 1)
        if isinstance(taker, nn.Linear):
            taker.in_features = len(kept)
        else:
            taker.in_channels = len(kept)


def _cut(module: nn.Module, name: str, kept: Tensor, dim: int) -> None:
    found: Any = getattr(module, name)
    if found is None:
        return
    left = found.detach().index_select(dim, kept).clone()
    setattr(module, name, nn.Parameter(left) if isinstance(found, nn.Parameter) else left)


def _tensor(given: Tensor | None) -> Tensor:
    assert given is not None
    return given


def _n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
