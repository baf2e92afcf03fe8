"""The mean of the weights over the last epochs, and batch norm's statistics under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from samo.data.sampling import epoch_order
from samo.stored import Count, Stored, Text, validated
from samo.training.checkpoint import misfit
from samo.training.setup import Setup
from samo.training.sync_batchnorm import SyncBatchNorm

__all__ = ["EpochAverage", "averaged_epochs", "refresh_batchnorm"]


def averaged_epochs(epochs: int) -> int:
    """How many epochs, the last ones, are averaged: a quarter, 1 at least (Izmailov et al. 2018, section 3.2)."""
    return max(1, epochs // 4)


class _StoredAverage(Stored):
    n_added: Count
    weights: dict[Text, Any]


class EpochAverage:
    """Running mean of every floating tensor of a model over epochs' ends (SWA, Izmailov et al. 2018, algorithm 1).

    Of other tensors, as counters are, the last one is kept.

    Attributes:
        n_epochs: over so many epochs.
        n_added: so many are in it.
        weights: the mean of those, by name.
    """

    def __init__(self, model: nn.Module, n_epochs: int) -> None:
        self.n_epochs, self.n_added = n_epochs, 0
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @property
    def complete(self) -> bool:
        """Whether all epochs are in it."""
        return self.n_added == self.n_epochs

    def add(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of one more epoch into the mean."""
        self.n_added += 1
        # A frozen encoder keeps every bit, as its kept states are known by them: arithmetic would turn -0.0 into 0.0.
        means = {name: tensor for name, tensor in self.weights.items() if tensor.is_floating_point()}
        floating = [name for name, tensor in means.items() if not torch.equal(tensor, weights[name])]
        if floating:
            with torch.no_grad():
                torch._foreach_lerp_(
                    [self.weights[n] for n in floating], [weights[n] for n in floating], 1.0 / self.n_added
                )
        self._copy({name: tensor for name, tensor in weights.items() if not tensor.is_floating_point()})

    def take_statistics(self, model: nn.Module) -> None:
        """Take the statistics of batch norm from a model with these weights."""
        self._copy(model.state_dict())

    def _copy(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            self.weights[name].copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {"n_added": self.n_added, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it holds other tensors than the model, or more epochs than are averaged.
        """
        stored = validated(_StoredAverage, state)
        if problem := misfit(self.weights, stored.weights):
            raise ValueError(f"the mean of the weights: {problem}")
        if stored.n_added > self.n_epochs:
            raise ValueError(f"the mean of the weights is over {stored.n_added} epochs, not {self.n_epochs}")
        self.n_added = stored.n_added
        self._copy(stored.weights)


@torch.no_grad()
def refresh_batchnorm(model: nn.Module, setup: Setup, rows: np.ndarray, batch_size: int, seed: int) -> None:
    """Estimate the statistics of batch norm anew: no training has seen those of averaged weights.

    They become the mean over batches of these rows, each as it is evaluated (without augmentation, mixup or dropout),
    in an order that depends on the seed alone. Layers that are frozen, and so ran on fixed statistics, keep theirs.
    Every process looks at all rows.

    Args:
        model: changed in place; evaluated from here on.
        setup: what gives the batches; device and precision.
        rows: (N,) manifest rows, those that were learned from.
        batch_size: rows in a batch. A last batch that is not full counts only where it is the only one.
        seed: of the order.
    """
    model.train()
    learning = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    model.eval()
    norms = [norm for norm in learning if norm.track_running_stats]
    if not norms:
        return
    kept: list[tuple[float | None, Any]] = [(norm.momentum, norm.__dict__.get("all_reduce")) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # of all batches so far the plain mean
        if isinstance(norm, SyncBatchNorm):
            norm.all_reduce = _alone
        norm.train()
    for number, batch in enumerate(setup.frontend.eval_batches(epoch_order(rows, seed, 0), batch_size)):
        if number and len(batch) < batch_size:
            break
        moved = batch.to(setup.runtime.device)
        with setup.runtime.autocast():
            model(moved.inputs, moved.lengths)
    for norm, (momentum, all_reduce) in zip(norms, kept, strict=True):
        norm.momentum = momentum
        if isinstance(norm, SyncBatchNorm):
            norm.all_reduce = cast(Callable[[Sequence[Tensor]], None], all_reduce)
    model.eval()


def _alone(tensors: Sequence[Tensor]) -> None:
    """The sum over one process."""
