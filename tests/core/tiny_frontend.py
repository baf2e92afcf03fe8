"""A modality of a few dozen rows: what trainer, experiment and judge are tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from samo.data.batch import Batch, Draws, Mix
from samo.data.manifest import Item, Manifest
from samo.data.splits import SplitRequest
from samo.encoders.logreg import out_of_fold_logits
from samo.frontend import Notify, Progress
from samo.settings import (
    AbstentionSettings,
    Config,
    LossSettings,
    OptimSettings,
    Section,
    ThresholdSettings,
    TrainSettings,
    setting,
)
from samo.tasks import LabelSpace, Task
from samo.training.model import EmotionModel
from samo.training.runtime import Runtime
from samo.training.setup import Setup
from samo.training.trainer import TrainPlan, TrainState, fit, new_state

EMOTION = Task("emotion", ("angry", "happy", "sad"))
TAGS = Task("tags", ("loud", "fast", "high"), multi_label=True)
RUNTIME = Runtime(torch.device("cpu"), "float32", channels_last=False, threads=1)
N_FEATURES = 4
BOTH = LabelSpace((EMOTION, TAGS))
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 8, "lr": 0.05, "patience": 0}
# Everything at once that carries something from step to step or draws at random.
RICH: dict[str, Any] = {
    **QUICK,
    "epochs": 4,
    "hidden": 8,
    "dropout": 0.5,
    "mixup_alpha": 0.4,
    "ema_decay": 0.9,
    "grad_accum": 2,
    "balanced_sampler": True,
    "focal_loss": True,
}


class TinyData(Section):
    """Which rows, which split."""

    panel: ClassVar[str] = "Data"
    dataset: str = setting("tiny", "corpus")
    split: str = setting("speaker", "split rule")
    train_ratio: float = setting(0.6, "share of the speakers to train on")
    val_ratio: float = setting(0.2, "share of the speakers to validate on")
    fold: int = setting(0, "test fold", needs="split=folds")
    extra: int = setting(0, "items made of the first training rows")
    by_size: bool = setting(False, "batches of rows of similar size: a row's number modulo 5")


class TinyNet(Section):
    """The network."""

    panel: ClassVar[str] = "Model"
    hidden: int = setting(0, "units of a hidden layer, 0 = none", ge=0, le=4096)
    dropout: float = setting(0.0, "dropout before the last layer", ge=0.0, lt=1.0)
    mixup_alpha: float = setting(0.0, "mixup")
    hidden_from: int = setting(0, "epoch from which on the hidden layer learns")
    hidden_lr: float = setting(1.0, "factor on its learning rate")


class TinyConfig(Config):
    """All settings of the tiny modality."""

    modality: ClassVar[str] = "tiny"
    data: TinyData = TinyData()
    model: TinyNet = TinyNet()
    loss: LossSettings = LossSettings()
    optim: OptimSettings = OptimSettings()
    abstention: AbstentionSettings = AbstentionSettings()
    train: TrainSettings = TrainSettings()
    thresholds: ThresholdSettings = ThresholdSettings()


class TinyModel(EmotionModel):
    """A linear layer, or two with dropout between them, behind a fitted mean."""

    mean: Tensor

    def __init__(self, settings: TinyNet, space: LabelSpace) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("mean", torch.zeros(N_FEATURES))
        width = settings.hidden or N_FEATURES
        self.hidden = nn.Sequential(nn.Linear(N_FEATURES, width), nn.ReLU()) if settings.hidden else nn.Identity()
        self.drop = nn.Dropout(settings.dropout)
        self.head = nn.Linear(width, space.n_columns)

    def forward(self, inputs: Tensor, lengths: Tensor, draws: Draws | None = None, mix: Mix | None = None) -> Tensor:
        """(B, C) logits of (B, F) inputs."""
        inputs = inputs - self.mean
        logits: Tensor = self.head(self.drop(self.hidden(mix.apply(inputs) if mix else inputs)))
        return logits

    def lr_scale(self, name: str) -> float:
        return self.settings.hidden_lr if name.startswith("hidden.") else 1.0

    def begin_epoch(self, epoch: int) -> None:
        self.hidden.requires_grad_(epoch >= self.settings.hidden_from)


class TinyFrontend:
    """Rows of numbers as a modality; ``features`` is (N, F)."""

    modality: ClassVar[str] = "tiny"
    unit: str = "speaker"
    item: ClassVar[str] = "clip"
    preparing: ClassVar[str] = "decoding"
    config_type: ClassVar[type[Config]] = TinyConfig

    def __init__(self, config: TinyConfig, manifest: Manifest, features: np.ndarray, windows: int = 1) -> None:
        self._config, self.manifest, self.features, self.windows = config, manifest, features, windows

    @property
    def config(self) -> TinyConfig:
        return self._config

    @classmethod
    def located(cls, config: Config) -> Config:
        return config

    @classmethod
    def open(cls, config: Config, notify: Notify, progress: Progress | None = None, assets: Path | None = None) -> Self:
        manifest, features = corpus()
        return cls(cast(TinyConfig, config), manifest, features)

    def with_config(self, config: Config) -> Self:
        return type(self)(cast(TinyConfig, config), self.manifest, self.features, self.windows)

    def with_manifest(self, manifest: Manifest) -> Self:
        """The same items under other labels."""
        return type(self)(self._config, manifest, self.features, self.windows)

    @staticmethod
    def build_model(config: Config, space: LabelSpace, assets: Path | None = None) -> nn.Module:
        return TinyModel(cast(TinyConfig, config).model, space)

    @staticmethod
    def batch_settings(config: Config, assets: Path | None = None) -> dict[str, Any]:
        return {"dataset": cast(TinyConfig, config).data.dataset}

    @staticmethod
    def packs(config: Config) -> bool:
        return False

    @staticmethod
    def reader(model: nn.Module, config: Config) -> nn.Module:
        return model

    def shared_by(self, members: Sequence[tuple[Config, Path]]) -> tuple[Self, tuple[int, ...]]:
        return self, (0,) * len(members)

    def new_model(self) -> nn.Module:
        return self.build_model(self._config, self.manifest.label_space)

    def sample_figures(self, model: nn.Module, draws: Draws) -> dict[str, Any]:
        return {}

    @property
    def mixup_alpha(self) -> float:
        return self._config.model.mixup_alpha

    def split_request(self) -> SplitRequest:
        data = self._config.data
        return SplitRequest(data.split, data.train_ratio, data.val_ratio, data.fold, self._config.train.seed)

    def augment(self, train_rows: np.ndarray, device: torch.device) -> tuple[Item, ...]:
        """A row each of the first ``extra`` training rows, its features moved by what its source says."""
        parents = [self.manifest.items[row] for row in train_rows[: self._config.data.extra]]
        return tuple(
            Item(
                id=f"{parent.id}~shift1",
                source=str(0.01 * (number + 1)),
                labels=parent.labels,
                group=parent.group,
                meta={"parent": parent.id, "method": "shift"},
            )
            for number, parent in enumerate(parents)
        )

    def with_extra(self, items: Sequence[Item]) -> Self:
        parents = self.manifest.rows(item.meta["parent"] for item in items)
        moved = self.features[parents] + np.array([[float(item.source)] for item in items], dtype=np.float32)
        manifest = replace(self.manifest, items=(*self.manifest.items, *items))
        return type(self)(self._config, manifest, np.concatenate([self.features, moved]), self.windows)

    def fit(self, train_rows: np.ndarray) -> dict[str, Tensor]:
        return {"mean": torch.from_numpy(self.features[train_rows].mean(axis=0))}

    def save_assets(self, folder: Path) -> None:
        """Nothing."""

    def sizes(self, rows: np.ndarray) -> np.ndarray | None:
        return rows % 5 if self._config.data.by_size else None

    def train_batch(self, rows: np.ndarray, draws: Draws) -> Batch:
        return self._batch(rows, self.features[rows], draws)

    def eval_batches(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Each row ``windows`` times: shifted up and down so that the logits' mean is that of the row itself."""
        shifts = np.linspace(-1.0, 1.0, self.windows) if self.windows > 1 else np.zeros(1)
        owners, shift = np.repeat(rows, self.windows), np.tile(shifts, len(rows)).astype(np.float32)
        for k in range(0, len(owners), batch_size):
            part = owners[k : k + batch_size]
            yield self._batch(part, self.features[part] + shift[k : k + batch_size, None])

    def use_kept_states(self, model: nn.Module) -> None:
        """Nothing is kept."""

    def baseline(self, train_rows: np.ndarray, rows: np.ndarray) -> tuple[str, np.ndarray] | None:
        return None

    def shortcut(self, train_rows: np.ndarray, rows: np.ndarray) -> tuple[str, np.ndarray] | None:
        return None

    def out_of_fold(self, train_rows: np.ndarray) -> np.ndarray | None:
        """Of a model with a hidden layer none."""
        if self._config.model.hidden:
            return None
        groups = np.array([self.manifest.items[row].group for row in train_rows])
        targets = self.manifest.targets[train_rows]
        return out_of_fold_logits(self.features[train_rows], targets, self.manifest.label_space, groups=groups)

    def data_card(self) -> dict[str, Any]:
        return {"title": "tiny rows", "licence": "none", "citation": "nobody (2026)"}

    def _batch(self, rows: np.ndarray, features: np.ndarray, draws: Draws | None = None) -> Batch:
        lengths = torch.full((len(rows),), N_FEATURES)
        return Batch(torch.from_numpy(features), lengths, torch.from_numpy(self.manifest.targets[rows]), rows, draws)


def corpus(
    space: LabelSpace | None = None, n_speakers: int = 6, per_speaker: int = 8, root: Path | None = None
) -> tuple[Manifest, np.ndarray]:
    """Items and (N, F) float32 features: classes lie one unit apart on axes of their own, with noise of sd 0.4.

    Classes come in shares of 4 : 2 : 2. A second task leaves every fourth row without a label.
    """
    space = space or LabelSpace((EMOTION,))
    rng = np.random.default_rng(7)
    classes = np.tile([0, 0, 0, 0, 1, 1, 2, 2], n_speakers * per_speaker // 8 + 1)[: n_speakers * per_speaker]
    features = rng.normal(0.0, 0.4, (len(classes), N_FEATURES)).astype(np.float32)
    features[np.arange(len(classes)), classes] += 1.0
    items = tuple(
        Item(
            id=f"clip{row:03d}",
            source=f"clip{row:03d}.wav",
            labels=_labels(space, row, int(label)),
            group=f"s{row // per_speaker}",
            meta={"gender": "fm"[row // per_speaker % 2]},
            content=f"content{row}",
        )
        for row, label in enumerate(classes)
    )
    return Manifest("tiny", space, items, root or Path("/nowhere")), features


def _labels(space: LabelSpace, row: int, label: int) -> dict[str, tuple[str, ...]]:
    labels: dict[str, tuple[str, ...]] = {}
    for position, task in enumerate(space.tasks):
        if position > 0 and row % 4 == 3:
            continue
        own = {label, (label + 1) % 3} if task.multi_label and row % 2 else {label}
        labels[task.name] = tuple(task.labels[k] for k in sorted(own))
    return labels


def frontend(space: LabelSpace | None = None, windows: int = 1, **settings: Any) -> TinyFrontend:
    """A tiny frontend under flat settings."""
    return TinyFrontend(TinyConfig.build(settings), *corpus(space), windows=windows)


def plan_of(front: TinyFrontend) -> TrainPlan:
    """Train on the first four speakers, validate on the last two."""
    config, rows = front.config, np.arange(len(front.manifest.items))
    return TrainPlan(rows[:32], rows[32:], config.loss, config.optim, config.train, front.mixup_alpha)


class Silent:
    """An observer that looks away."""

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Nothing."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Nothing."""


class Recorder(Silent):
    """Writes down what it is told, and may stop the training."""

    def __init__(self, stop: Callable[[int, int], bool] = lambda epoch, step: False) -> None:
        self.steps: list[tuple[int, int, int]] = []
        self.rows: list[tuple[dict[str, Any], bool]] = []
        self.stop = stop

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        self.steps.append((epoch, step, n_steps))
        if self.stop(epoch, step):
            raise KeyboardInterrupt

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        self.rows.append((row, improved))


def begin(front: TinyFrontend, runtime: Runtime = RUNTIME) -> tuple[TrainState, TrainPlan]:
    """A state before step 1, and the plan it is for."""
    torch.manual_seed(0)
    given = plan_of(front)
    return new_state(front.new_model(), given, runtime), given


def train(space: LabelSpace | None = None, windows: int = 1, **settings: Any) -> TrainState:
    """Train under flat settings, without files."""
    front = frontend(space, windows, **settings)
    state, plan = begin(front)
    fit(state, Setup(front, RUNTIME), plan, Silent(), lambda state, improved: None)
    return state


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two models are equal bit for bit."""
    assert one.keys() == other.keys()
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())
