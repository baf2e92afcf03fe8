"""AdamW groups, learning-rate schedules as pure functions of the step, EMA, gradient centralisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from samo.settings import OptimSettings
from samo.stored import Count, Stored, Text, validated
from samo.training.checkpoint import misfit
from samo.training.model import EmotionModel

__all__ = ["SCHEDULES", "Ema", "centralise_gradients", "learning_rate", "load_optimizer", "make_optimizer", "set_rate"]


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


def load_optimizer(optimizer: torch.optim.Optimizer, stored: object) -> None:
    """Give an optimiser of :func:`make_optimizer` the moments that a checkpoint holds.

    Everything is checked against the parameters first: the fused kernel writes as far as a parameter reaches, whatever
    the moments beside it hold. Rates and decays are those of the settings.

    Raises:
        ValueError: the state is of another optimiser, or damaged.
    """
    own = optimizer.state_dict()
    groups, moments = (stored.get(name) for name in ("param_groups", "state")) if isinstance(stored, dict) else (0, 0)
    if not isinstance(groups, list) or not isinstance(moments, dict) or len(groups) != len(own["param_groups"]):
        raise ValueError("the optimiser's state has other groups than the settings give")
    for mine, theirs in zip(own["param_groups"], groups, strict=True):
        if not isinstance(theirs, dict) or not _same_numbers(theirs.get("params"), mine["params"]):
            raise ValueError("a group of the optimiser's state has other parameters than the settings give")
        odd = [
            name for name in theirs if name in mine and name not in _OWN_VALUES and not _equal(theirs[name], mine[name])
        ]
        if odd:
            raise ValueError(f"the optimiser was made with other {', '.join(odd)}")
        how = {name: theirs[name] for name in ("fused", "foreach") if name in theirs}
        mine.update({name: value for name, value in how.items() if value is None or isinstance(value, bool)})
        if mine.get("fused") and mine.get("foreach"):
            raise ValueError("an optimiser is either fused or foreach")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in own["param_groups"] for number in group["params"]]
    by_number = dict(zip(numbers, parameters, strict=True))
    own["state"] = {number: _moments(number, by_number, found) for number, found in moments.items()}
    optimizer.load_state_dict(own)


# They say how a step is computed or change with every step, and are set anew.
_OWN_VALUES = frozenset({"params", "lr", "fused", "foreach"})


def _same_numbers(found: object, wanted: list[int]) -> bool:
    return isinstance(found, list) and all(type(number) is int for number in found) and found == wanted


def _equal(found: object, wanted: object) -> bool:
    if isinstance(wanted, tuple):
        return isinstance(found, tuple | list) and len(found) == len(wanted) and all(map(_equal, found, wanted))
    if isinstance(wanted, float):
        return type(found) in (int, float) and found == wanted
    return type(found) is type(wanted) and found == wanted


def _moments(number: object, parameters: dict[int, nn.Parameter], found: object) -> dict[str, Tensor]:
    """A parameter's step count and moments, in the memory layout of the parameter."""
    if type(number) is not int or number not in parameters:
        raise ValueError(f"the optimiser's state names a parameter {number}, which the model has not")
    parameter, names = parameters[number], ("step", "exp_avg", "exp_avg_sq")
    if not isinstance(found, dict) or set(found) != set(names):
        raise ValueError(f"the optimiser's state of parameter {number} is not AdamW's")
    made = {}
    for name in names:
        tensor, shape = found[name], torch.Size() if name == "step" else parameter.shape
        if (
            not isinstance(tensor, Tensor)
            or tensor.layout != torch.strided
            or not tensor.is_floating_point()
            or tensor.shape != shape
            or not bool(tensor.isfinite().all())
            or (name != "exp_avg" and bool((tensor < 0).any()))
        ):
            raise ValueError(f"{name} of parameter {number} does not fit the parameter")
        made[name] = tensor.float() if name == "step" else torch.empty_like(parameter).copy_(tensor)
    return {name: tensor.detach() for name, tensor in made.items()}


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


class _StoredEma(Stored):
    n_updates: Count
    average: dict[Text, Any]


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
        """Go on from a checkpoint.

        Raises:
            ValueError: it holds other tensors than the model.
        """
        stored = validated(_StoredEma, state)
        if problem := misfit(self.average, stored.average):
            raise ValueError(f"the moving average: {problem}")
        self.n_updates = stored.n_updates
        for name, tensor in stored.average.items():
            self.average[name].copy_(tensor)
