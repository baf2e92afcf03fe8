"""AdamW groups, learning-rate schedules as pure functions of the step, EMA, gradient centralisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from samo_core.config import OptimSettings

__all__ = ["SCHEDULES", "Ema", "centralise_gradients", "learning_rate", "make_optimizer"]


def make_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on matrices and filters only; biases and norms are left out."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    free = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": free, "weight_decay": 0.0}]
    # fused updates all tensors in one pass over memory, on CPU and GPU alike.
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.lr, fused=True)


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

    A linear rise over ``warmup_ratio`` of the steps, then the schedule over the rest: constant; half a cosine down to
    ``lr_min`` (Loshchilov & Hutter 2017); the same ``num_cycles`` times.

    Args:
        step: 0 .. total_steps - 1.
        total_steps: optimiser steps of the whole training.
        settings: peak, floor, warm-up share and schedule.
    """
    n_warm = round(settings.warmup_ratio * total_steps)
    if step < n_warm:
        return settings.lr * (step + 1) / n_warm
    share = (step - n_warm) / max(1, total_steps - n_warm)
    return SCHEDULES[settings.schedule](min(share, 1.0), settings)


def centralise_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Subtract from each weight gradient its mean over all but the output dimension (Yong et al. 2020, eq. 1)."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.ndim > 1:
            parameter.grad.sub_(parameter.grad.mean(dim=tuple(range(1, parameter.grad.ndim)), keepdim=True))


class Ema:
    """Exponential moving average of every floating tensor of a model, batch-norm statistics included.

    The decay rises as min(decay, (1 + n) / (10 + n)) so that the first steps do not drag the random start along.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Move the average one step towards the model."""
        self.n_updates += 1
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        current = model.state_dict()
        floating = [name for name, tensor in self.average.items() if tensor.is_floating_point()]
        with torch.no_grad():
            torch._foreach_lerp_([self.average[n] for n in floating], [current[n] for n in floating], 1.0 - decay)
        for name, tensor in self.average.items():
            if not tensor.is_floating_point():
                tensor.copy_(current[name])

    def state_dict(self) -> dict[str, Tensor | int | dict[str, Tensor]]:
        """What a checkpoint needs."""
        return {"n_updates": self.n_updates, "average": self.average}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint."""
        self.n_updates = int(state["n_updates"])
        for name, tensor in state["average"].items():
            self.average[name].copy_(tensor)
