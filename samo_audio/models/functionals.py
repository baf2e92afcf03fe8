"""The floor: statistics over time into a logistic regression."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samo.data.batch import Batch, Draws, Mix
from samo.data.manifest import Manifest
from samo.encoders.logreg import fit_logistic, inner_groups, out_of_fold_logits
from samo.tasks import LabelSpace
from samo.training.model import EmotionModel
from samo_audio.config import AudioConfig
from samo_audio.functionals import build_functionals

__all__ = ["FunctionalsModel", "features_of", "fit_functionals", "functionals", "held_out_logits"]


class FunctionalsModel(EmotionModel):
    """Linear in numbers that describe a clip: nothing in it learns by gradient, :func:`fit_functionals` finds it."""

    weight: Tensor
    bias: Tensor

    def __init__(self, config: AudioConfig, space: LabelSpace) -> None:
        """Make the features that ``functional_set`` names.

        Raises:
            EnvironmentProblem: it needs a package that is not there.
        """
        super().__init__()
        self.functionals = build_functionals(config.model.functional_set, config.features)
        self.register_buffer("weight", torch.zeros(space.n_columns, self.functionals.width))
        self.register_buffer("bias", torch.zeros(space.n_columns))

    def forward(self, waveforms: Tensor, lengths: Tensor, draws: Draws | None = None, mix: Mix | None = None) -> Tensor:
        """Logits of a batch; it is the same in training.

        Args:
            waveforms: (B, T) float32 in about [-1, 1], zero-padded.
            lengths: (B,) int64 valid samples.
            draws, mix: not used: there is nothing to augment for.

        Returns:
            (B, C) float32 logits.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            logits: Tensor = self.functionals(waveforms.float(), lengths) @ self.weight.T + self.bias
            return logits


@torch.inference_mode()
def features_of(model: FunctionalsModel, batches: Iterable[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """(W, D) numbers of W windows, and the (W,) row that each is a window of."""
    found = [(model.functionals(batch.inputs, batch.lengths).numpy(), np.asarray(batch.rows)) for batch in batches]
    return np.concatenate([each for each, _ in found]), np.concatenate([rows for _, rows in found])


def fit_functionals(
    features: np.ndarray, rows: np.ndarray, manifest: Manifest, train_rows: np.ndarray
) -> dict[str, Tensor]:
    """``weight`` and ``bias`` by name in :class:`FunctionalsModel`'s state.

    Every window counts as a row with the labels of its clip. The strength is chosen on speakers inside the training
    rows; where a speaker is not known the clip stands for it, with all its windows.

    Args:
        features: (W, D), of these rows and perhaps others.
        rows: (W,) row of the manifest that each is a window of.
        manifest: labels and speakers.
        train_rows: what may be learned from.
    """
    learn = np.isin(rows, train_rows)
    groups = inner_groups(manifest, rows[learn])
    return fit_logistic(features[learn], manifest.targets[rows[learn]], manifest.label_space, groups=groups)


def held_out_logits(features: np.ndarray, rows: np.ndarray, manifest: Manifest, train_rows: np.ndarray) -> np.ndarray:
    """(N, C) logits of ``train_rows``, each by a model fitted without its speaker; arguments as above."""
    groups = inner_groups(manifest, rows)
    each = out_of_fold_logits(features, manifest.targets[rows], manifest.label_space, groups=groups)
    return np.stack([each[rows == row].mean(axis=0) for row in train_rows])


def functionals(config: AudioConfig, space: LabelSpace, assets: Path | None) -> FunctionalsModel:
    """The floor without its weights, which come from :func:`fit_functionals`; it needs no assets."""
    return FunctionalsModel(config, space)
