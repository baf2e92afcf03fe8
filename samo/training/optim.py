"""AdamW groups, learning-rate schedules as pure functions of the step, EMA, gradient centralisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from samo.settings import OptimSettings
from samo.training.model import EmotionModel

__all__ = ["SCHEDULES", "Ema", "centralise_gradients", "learning_rate", "make_optimizer", "set_rate"]


def make_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on matrices and filters only; biases and norms are left out.

    Parameters are grouped by the factor on their learning rate, the group's ``lr_scale``, which a
    :class:`samo.training.model.EmotionModel` gives. What needs no gradient now never trains and is left out. A
    parameter that has none in a later step (frozen for some epochs) rests: AdamW skips it, its weight decay included.
    """
    scale = model.lr_scale if isinstance(model, EmotionModel) else lambda name: 1.0
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((scale(name), parameter.ndim > 1), []).append(parameter)
    # The highest rates first, within a rate what is decayed.
    made: list[dict[str, Any]] = [
        {"params": groups[key], "weight_decay": settings.weight_decay if key[1] else 0.0, "lr_scale": key[0]}
        for key in sorted(groups, reverse=True)
    ]
    # torch takes an empty group but not none at all. fused updates all tensors in one pass over memory, on CPU and GPU.
    return torch.optim.AdamW(made or [{"params": []}], lr=settings.lr, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let every group learn at its share of ``rate``."""
    for group in optimizer.param_groups:
        # Checkpoints of models that learn at one rate may not name it.
        group["lr"] = rate * group.get("lr_scale", 1.0)


def _constant(share: float, settings: OptimSettings) -> float:
    return settings.lr


def _cosine(share: float, settings: OptimSettings) -> float:
    return settings.lr_min + (settings.lr - settings.lr_min) * 0.5 * (1.0 + math.cos(math.pi * share))


def _cosine_restarts(share: float, settings: OptimSettings) -> float:
    # A restart falls on a whole number; the last bit of a quotient must not put it one step before.
    return _cosine(round(share * settings.num_cycles, 9) % 1.0, settings)


SCHEDULES: dict[str, Callable[[float, OptimSettings], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "cosine-restarts": _cosine_restarts,
}


def learning_rate(step: int, total_steps: int, settings: OptimSettings) -> float:
    """Learning rate of an optimiser step.

    A linear rise from ``lr_min`` over ``warmup_ratio`` of the steps, then the schedule over the rest: constant; half a
    cosine down to ``lr_min`` (Loshchilov & Hutter 2017); the same ``num_cycles`` times.

    Args:
        step: 0 .. total_steps - 1.
        total_steps: optimiser steps of the whole training.
        settings: peak, floor, warm-up share and schedule.
    """
    n_warm = round(settings.warmup_ratio * total_steps)
    if step < n_warm:
        return settings.lr_min + (settings.lr - settings.lr_min) * (step + 1) / n_warm
    share = (step - n_warm) / max(1, total_steps - n_warm)
    return SCHEDULES[settings.schedule](min(share, 1.0), settings)


def centralise_gradients(model: nn.Module) -> None:
    """Subtract from each weight gradient its mean over all but the output dimension (Yong et al. 2020, eq. 1).

    This is meant for the weights of linear layers and convolutions, where that mean is over an output unit's inputs.
    A row of an embedding table is no such unit but a word's own vector: embeddings are left alone.
    """
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.grad.ndim > 1 and id(parameter) not in tables:
            parameter.grad.sub_(parameter.grad.mean(dim=tuple(range(1, parameter.grad.ndim)), keepdim=True))


class Ema:
    """Exponential moving average of every floating tensor of a model, batch-norm statistics included.

    What needs no gradient when training begins never changes, and costs nothing here. The decay rises as
    min(decay, (1 + n) / (10 + n)) so that the first steps do not drag the random start along.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        self._moving = [name for name in self.average if name not in fixed]

    def update(self, model: nn.Module) -> None:
        """Move the average one step towards the model."""
        self.n_updates += 1
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        current = model.state_dict()
        floating = [name for name in self._moving if self.average[name].is_floating_point()]
        with torch.no_grad():
            torch._foreach_lerp_([self.average[n] for n in floating], [current[n] for n in floating], 1.0 - decay)
        for name in self._moving:
            if not self.average[name].is_floating_point():
                self.average[name].copy_(current[name])

    def state_dict(self) -> dict[str, Tensor | int | dict[str, Tensor]]:
        """What a checkpoint needs."""
        return {"n_updates": self.n_updates, "average": self.average}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint."""
        self.n_updates = int(state["n_updates"])
        for name, tensor in state["average"].items():
            self.average[name].copy_(tensor)
