"""Batch norm over the rows of all processes, so that several processes train as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["SyncBatchNorm", "convert_sync_batchnorm"]

AllReduce = Callable[[Sequence[Tensor]], None]


class SyncBatchNorm(_BatchNorm):
    """Batch norm (Ioffe & Szegedy 2015, algorithm 1) whose mean and variance are those of the global batch.

    Its state is that of the torch module it replaces. torch's own SyncBatchNorm runs on GPUs only, and holds a
    process group, with which a model can no longer be copied.
    """

    all_reduce: AllReduce

    @classmethod
    def of(cls, norm: _BatchNorm, all_reduce: AllReduce) -> SyncBatchNorm:
        """The same layer, sharing its parameters and buffers; ``all_reduce`` sums tensors over the processes."""
        shared = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        shared._parameters.update(norm._parameters)
        shared._buffers.update(norm._buffers)
        shared.all_reduce = all_reduce
        return shared.train(norm.training)

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, ...) to the same shape; B is this process's share and may be 0.

        Raises:
            ValueError: one value per channel in all processes together, which has no variance.
        """
        if not self.training:
            return super().forward(values)
        weight = self.weight if self.affine else values.new_ones(self.num_features, dtype=torch.float32)
        bias = self.bias if self.affine else torch.zeros_like(weight)
        answer, mean, variance, count = _BatchNormed.apply(values, weight, bias, self.eps, self.all_reduce)
        if self.track_running_stats:
            self._remember(mean, variance * (count / (count - 1)))
        return answer

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_(variance.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions after the channels."""


class _BatchNormed(torch.autograd.Function):
    """``weight * (x - mean) / sqrt(variance + eps) + bias`` over the global batch.

    The answer comes from torch's own kernel: it rounds as in one process, and a training keeps close to that longer.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, eps: float, all_reduce: AllReduce
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        dims, shape = _around(values)
        # As torch's own kernels do: sums in double precision on a CPU, in single on a GPU.
        exact = torch.float64 if values.device.type == "cpu" else torch.float32
        total = values.sum(dims, dtype=exact)
        rows = total.new_tensor(values.numel() / values.shape[1])
        all_reduce([total, rows])
        count = float(rows)
        if count <= 1:
            raise ValueError("batch norm needs more than 1 value per channel in training")
        mean = total / count
        # Two passes: the mean square less the squared mean loses the digits of a small spread.
        squares = (values.float() - mean.float().view(shape)).square().sum(dims, dtype=exact)
        all_reduce([squares])
        variance = squares / count
        mean32, scale = mean.float(), (variance + eps).rsqrt().float()
        answer = F.batch_norm(values, mean32, variance.float(), weight, bias, eps=eps)
        ctx.save_for_backward(values, weight, mean32, scale)
        ctx.all_reduce, ctx.count, ctx.exact = all_reduce, count, exact
        ctx.mark_non_differentiable(mean, variance)
        return answer, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, None, None]:
        values, weight, mean, scale = ctx.saved_tensors
        dims, shape = _around(values)
        gradient, centred = gradient.float(), values.float() - mean.view(shape)
        level = gradient.sum(dims, dtype=ctx.exact)
        along = (gradient * centred).sum(dims, dtype=ctx.exact)
        # Those of the weights are this process's own: they are added up with all other gradients.
        of_weight, of_bias = (along * scale).float(), level.float()
        ctx.all_reduce([level, along])
        level = (level / ctx.count).float()
        along = (along * scale * scale / ctx.count).float()
        of_values = (gradient - level.view(shape) - centred * along.view(shape)) * (scale * weight).view(shape)
        return of_values.to(values.dtype), of_weight, of_bias, None, None


def convert_sync_batchnorm(model: nn.Module, all_reduce: AllReduce) -> nn.Module:
    """Replace every batch norm of a model by one over all processes; parameters stay the same objects."""
    if isinstance(model, _BatchNorm):
        return SyncBatchNorm.of(model, all_reduce)
    for name, child in model.named_children():
        setattr(model, name, convert_sync_batchnorm(child, all_reduce))
    return model


def _around(values: Tensor) -> tuple[list[int], tuple[int, ...]]:
    """All dimensions but the channels', and the shape of one value a channel."""
    return [0, *range(2, values.ndim)], (1, -1, *([1] * (values.ndim - 2)))
