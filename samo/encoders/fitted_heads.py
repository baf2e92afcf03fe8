"""Heads on a frozen encoder that take no steps: what they hold is found in closed form of what they learn from."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samo.encoders.kernel import fit_kernel, nearness
from samo.encoders.logreg import fit_logistic, out_of_fold_logits
from samo.encoders.settings import EncoderSettings
from samo.tasks import LabelSpace

__all__ = ["FittedHead", "KernelHead", "LogisticHead", "fitted_head"]


class LogisticHead(nn.Module):
    """Linear in the pooled vector: under one label a row a multinomial logistic regression, under several one each."""

    def __init__(self, width: int, space: LabelSpace, settings: EncoderSettings) -> None:
        """``width`` is P, that of the pooled vector."""
        super().__init__()
        self.output = nn.Linear(width, space.n_columns).requires_grad_(False)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, P) pooled vectors to (B, C) float32 logits."""
        with torch.autocast(pooled.device.type, enabled=False):
            logits: Tensor = self.output(pooled.float())
        return logits

    def fitted(self, pooled: np.ndarray, targets: np.ndarray, space: LabelSpace, **given: Any) -> dict[str, Tensor]:
        """What it holds, by name, of (N, P) vectors; see :func:`samo.encoders.logreg.fit_logistic`.

        Its strength is chosen on single rows, whatever ``items`` they are of.
        """
        given.pop("items", None)
        return {f"output.{name}": tensor for name, tensor in fit_logistic(pooled, targets, space, **given).items()}

    def held_out(self, pooled: np.ndarray, targets: np.ndarray, space: LabelSpace, **given: Any) -> np.ndarray:
        """(N, C) logits of rows not learned from; see :func:`samo.encoders.logreg.out_of_fold_logits`."""
        given.pop("items", None)
        return out_of_fold_logits(pooled, targets, space, **given)


class KernelHead(nn.Module):
    """Regularised least-squares classification (Rifkin et al. 2003) by how near a vector is to each of M learned from.

    ``sum_m a_m exp(-0.3 |z - z_m|^2 / P) + b`` of the standardised vector z, the radial kernel of a support vector
    machine. The centres z_m are the vectors of all items learned from, or ``head_centres`` of them drawn at random
    (Nystrom approximation, Williams & Seeger 2001). See :func:`samo.encoders.kernel.fit_kernel`.
    """

    centre: Tensor
    scale: Tensor
    centres: Tensor

    def __init__(self, width: int, space: LabelSpace, settings: EncoderSettings) -> None:
        """``width`` is P, that of the pooled vector. Fewer items than ``head_centres`` leave weights of zero."""
        super().__init__()
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("centres", torch.zeros(settings.head_centres, width))
        self.output = nn.Linear(settings.head_centres, space.n_columns).requires_grad_(False)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, P) pooled vectors to (B, C) float32 logits."""
        with torch.autocast(pooled.device.type, enabled=False):
            near = nearness((pooled.float() - self.centre) / self.scale, self.centres)
            # Terms of both signs that are hundreds of times their sum: in float32 four of its digits would be left.
            logits = F.linear(near.double(), self.output.weight.double(), self.output.bias.double())
        return logits.float()

    def fitted(self, pooled: np.ndarray, targets: np.ndarray, space: LabelSpace, **given: Any) -> dict[str, Tensor]:
        """What it holds, by name, of (N, P) vectors; see :func:`samo.encoders.kernel.fit_kernel`."""
        n_centres, width = self.centres.shape
        found = fit_kernel(pooled, targets, space, n_centres=n_centres, **given)
        centres, weight = torch.zeros(n_centres, width), torch.zeros(space.n_columns, n_centres)
        used = len(found.basis.centres)
        centres[:used] = torch.from_numpy(found.basis.centres)
        weight[:, :used] = torch.from_numpy(found.weight @ found.basis.root)
        vectors = {"centre": found.basis.centre, "scale": found.basis.scale, "output.bias": found.bias}
        return {
            **{name: torch.from_numpy(vector).float() for name, vector in vectors.items()},
            "centres": centres,
            "output.weight": weight,
        }

    def held_out(self, pooled: np.ndarray, targets: np.ndarray, space: LabelSpace, **given: Any) -> np.ndarray:
        """(N, C) logits of rows not learned from; see :func:`samo.encoders.logreg.out_of_fold_logits`."""
        fit = partial(fit_kernel, n_centres=len(self.centres))
        return out_of_fold_logits(pooled, targets, space, fit=fit, **given)


FittedHead = LogisticHead | KernelHead

_HEADS: dict[str, type[FittedHead]] = {"logreg": LogisticHead, "kernel": KernelHead}


def fitted_head(width: int, space: LabelSpace, settings: EncoderSettings) -> FittedHead:
    """The one that ``head`` names, on vectors of ``width``."""
    return _HEADS[settings.head](width, space, settings)
