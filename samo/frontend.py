"""The seam between the shared trainer and a modality."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from samo.data.batch import Batch, Draws
from samo.data.manifest import Item, Manifest
from samo.data.splits import SplitRequest
from samo.settings import Config
from samo.tasks import LabelSpace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Frontend", "Notify", "Progress"]

Notify = Callable[[str], None]
"""Receives one line for people."""
Progress = Callable[[int, int], None]
"""Receives how many of how many are done."""


class Frontend(Protocol):
    """What a modality gives the trainer: items, what is fitted on them, batches, a model.

    Attributes:
        modality: ``audio`` or ``text``.
        unit: what a confidence interval is resampled over, ``speaker`` or ``row``.
        item: what one item is called, ``clip`` or ``text``.
        preparing: what takes time when data are opened, ``decoding`` or ``tokenising``.
        config: the settings with the data's place filled in.
        manifest: the indexed items, content hashes included.
    """

    modality: ClassVar[str]
    unit: str
    item: ClassVar[str]
    preparing: ClassVar[str]
    config_type: ClassVar[type[Config]]
    manifest: Manifest

    @property
    def config(self) -> Config:
        """The settings with the data's place filled in."""

    @classmethod
    def located(cls, config: Config) -> Config:
        """The settings as :meth:`open` has them, but for the place of a corpus it would make; nothing is opened."""

    @classmethod
    def open(cls, config: Config, notify: Notify, progress: Progress | None = None, assets: Path | None = None) -> Self:
        """Find and index the data the settings name; ``assets`` are those of the run they are opened for again."""

    def with_config(self, config: Config) -> Self:
        """The same data under other settings, opened again only where these change what is read."""

    def with_manifest(self, manifest: Manifest) -> Self:
        """The same items under other labels."""

    @staticmethod
    def build_model(config: Config, space: LabelSpace, assets: Path | None = None) -> nn.Module:
        """A model for a run's weights: ``model(inputs, lengths, draws=None, mix=None)`` gives (B, C) logits.

        ``assets`` is where :meth:`save_assets` wrote when the run began.
        """

    @staticmethod
    def batch_settings(config: Config, assets: Path | None = None) -> dict[str, Any]:
        """What :meth:`eval_batches` depends on, by setting: models that agree in it can be given the same batches."""

    @staticmethod
    def packs(config: Config) -> bool:
        """Whether :meth:`shared_by` takes a model of these settings beside models that read otherwise."""

    @staticmethod
    def reader(model: nn.Module, config: Config) -> nn.Module:
        """A trained model as what reads its part of the batches of :meth:`shared_by`: all of an item at once."""

    def shared_by(self, members: Sequence[tuple[Config, Path]]) -> tuple[Self, tuple[int, ...]]:
        """The same data in batches that hold what each of several models reads, and which part of them each reads.

        Args:
            members: settings and assets of each model. Where they read alike, batches are as they were. Else each row
                is a whole item, or a piece of a long one.
        """

    def new_model(self) -> nn.Module:
        """A model to train, with whatever start weights the settings name."""

    def save_assets(self, folder: Path) -> None:
        """Write what a trained model needs besides its weights and settings; the folder is made only if it is."""

    @property
    def mixup_alpha(self) -> float:
        """Beta parameter of mixup, 0 = off."""

    def split_request(self) -> SplitRequest:
        """The split the settings ask for."""

    def augment(self, train_rows: np.ndarray, device: torch.device) -> tuple[Item, ...]:
        """New items to learn from, made of the training rows or read from elsewhere, none an item of the manifest.

        ``meta`` names the ``parent`` and the ``method`` of each; it has its parent's labels and group.
        """

    def with_extra(self, items: Sequence[Item]) -> Self:
        """The same data with items of :meth:`augment` behind the manifest's own, whose row numbers stay."""

    def fit(self, train_rows: np.ndarray) -> dict[str, Tensor]:
        """Learn from the training rows what must be known before step 1, by name in the model's state."""

    def input_facts(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """(N,) numbers by name of what comes in, by which a drift of the inputs is seen; see
        :mod:`samo.deploy.prediction_lines`."""

    def sizes(self, rows: np.ndarray) -> np.ndarray | None:
        """(N,) how long each row is, so that batches are made of rows alike; None where all cost the same."""

    def train_batch(self, rows: np.ndarray, draws: Draws) -> Batch:
        """Rows as the model sees them in training."""

    def eval_batches(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Rows as they are judged; a row that needs several windows stands in the batches several times."""

    def sample_figures(self, model: nn.Module, draws: Draws) -> dict[str, Figure]:
        """Pictures, by name, of rows as the model gets them in training, to check by looking; none where there is
        nothing to see.

        Args:
            model: before its first step, on the CPU; it stays as it is.
            draws: the rows, and their random numbers in the first epoch.
        """

    def use_kept_states(self, model: nn.Module) -> None:
        """Give batches of a trained model's states where an earlier run kept those of all items; else as before."""

    def out_of_fold(self, train_rows: np.ndarray) -> np.ndarray | None:
        """(N, C) logits of every row by a model of these settings that learned from neither the row nor its group.

        Rows are answered as in evaluation: a clip by the mean over its windows in all views. Folds are made inside
        ``train_rows``. None for models that take steps: fitting them anew costs a training each.
        """

    def baseline(self, train_rows: np.ndarray, rows: np.ndarray) -> tuple[str, np.ndarray] | None:
        """Name and (N, C) logits on ``rows`` of a simple model that learned from ``train_rows``; None without one.

        What a trained model must beat to be worth its cost; reports show it beside the run.
        """

    def shortcut(self, train_rows: np.ndarray, rows: np.ndarray) -> tuple[str, np.ndarray] | None:
        """The same of a model that is shown nothing but what should not give the answer away; None without one.

        Where it finds the answer all the same, a trained model may have found it there too; reports warn of it.
        """

    def data_card(self) -> dict[str, Any]:
        """Licence, citation and home of the data, for the model card."""
