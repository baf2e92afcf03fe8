"""The sections of settings that every modality has: corpus, split, loss, optimisation, training, decisions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from samo.settings.config import Section, setting

# What decides how a corpus is split, and nothing of what is read from it; the same names in every modality.
SPLIT_SETTINGS = frozenset({"split", "split_seed", "fold", "num_folds", "train_ratio", "val_ratio", "limit_fraction"})
# What changes reports and nothing of a training: the same grid goes on whatever they say.
REPORT_SETTINGS = frozenset({"baseline"})
# A grid sets these cell by cell.
GRID_SETTINGS = frozenset({"seed", "split", "fold"})
PositiveByName = dict[str, Annotated[float, Field(gt=0.0)]]


class CorpusSettings(Section):
    """Which corpus, which question, which split: what every modality sets; each declares its own choices."""

    panel: ClassVar[str] = "Data and split"

    dataset: str = ""
    data_root: str = ""
    mode: str = ""
    split: str = ""
    fold: int = setting(0, "test fold with `split=folds`", ge=0, le=99, needs="split=folds")
    num_folds: int = setting(
        0,
        "how many folds are drawn with `split=folds`; 0 = those the corpus publishes, else five; "
        "-1 = one for each speaker or other group (leave one out)",
        ge=-1,
        le=100,
        needs="split=folds",
        came_later=True,
    )
    train_ratio: float = setting(
        0.8,
        "share of the speakers or other groups (of the rows, where the split knows none) to train on",
        gt=0.0,
        lt=1.0,
    )
    val_ratio: float = setting(
        0.1, "share of the speakers or other groups (of the rows, where the split knows none) to validate on",
        gt=0.0, lt=1.0,
    )  # fmt: skip
    split_seed: int = setting(
        -1, "seed of the split alone, so that several seeds share one split; -1 = `seed`", ge=-1, lt=2**32
    )
    limit_fraction: float = setting(
        1.0, "share of the training speakers (or rows) to learn from, 0.05 for a quick look; the other parts stay",
        gt=0, le=1,
    )  # fmt: skip

    @model_validator(mode="after")
    def _room_for_test(self) -> Self:
        if self.num_folds == 1:
            raise ValueError("`num_folds=1` tests on everything; two or more, 0 or -1")
        if self.train_ratio + self.val_ratio >= 1.0:
            raise ValueError("`train_ratio` and `val_ratio` leave nothing to test on; their sum must be below 1")
        return self

    def split_seed_or(self, seed: int) -> int:
        """The seed of the split: its own where one is given, else ``seed``."""
        return self.split_seed if self.split_seed >= 0 else seed


class LossSettings(Section):
    """Losses and class balance; formulas and sources in :mod:`samo.training.losses`."""

    panel: ClassVar[str] = "Loss and balance"

    class_weight_loss: bool = setting(
        False,
        "weight the loss by inverse class frequency of the training split, mean 1; with several labels an item "
        "the most frequent one weighs 1, so that no label that holds is weighed down",
    )
    max_class_weight: float = setting(
        5.0,
        "largest class weight after normalisation",
        ge=1.0,
        needs="class_weight_loss",
    )
    class_weight_mult: PositiveByName = setting(
        {}, "multiply the weight of single classes, for example neutral=1.8,calm=0.9", needs="class_weight_loss"
    )
    focal_loss: bool = setting(False, "focal loss instead of cross-entropy")
    focal_gamma: float = setting(2.0, "focusing exponent of the focal loss", ge=0.0, le=10.0, needs="focal_loss")
    focal_alpha: float = setting(
        1.0,
        "weight of labels that hold, against 1 - it of those that do not (Lin et al. 2017); below 1, 1 = off; "
        "for tasks with several labels",
        gt=0.0,
        needs="focal_loss",
    )
    adaptive_gamma: bool = setting(
        False, "larger focal gamma for rarer classes: gamma * (2 - n_class / n_largest)", needs="focal_loss"
    )
    task_gamma: PositiveByName = setting({}, "focal gamma of single tasks, for example emotion=1.5", needs="focal_loss")
    asymmetric_loss: bool = setting(
        False, "asymmetric loss (Ridnik et al. 2021) instead of binary cross-entropy; for tasks with several labels"
    )
    asl_gamma_pos: float = setting(
        0.0, "focusing exponent for labels that hold", ge=0.0, le=10.0, needs="asymmetric_loss"
    )
    asl_gamma_neg: float = setting(
        4.0, "focusing exponent for labels that do not hold", ge=0.0, le=10.0, needs="asymmetric_loss"
    )
    asl_clip: float = setting(
        0.05,
        "probability below which a label that does not hold costs nothing; 0 = off",
        ge=0.0,
        lt=1.0,
        needs="asymmetric_loss",
    )
    label_smoothing: float = setting(0.0, "share of the target spread evenly over all classes", ge=0.0, lt=1.0)
    adaptive_smoothing: bool = setting(
        False, "less smoothing for rarer classes: label_smoothing * n_class / n_largest", needs="label_smoothing"
    )
    task_weights: PositiveByName = setting({}, "weight of single tasks in the loss, for example emotion=0.7")
    rdrop_alpha: float = setting(
        0.0,
        "weight of the divergence between two passes of unlike dropout (R-Drop, Liang et al. 2021); 0 = off",
        ge=0.0,
    )
    rdrop_warmup_epochs: int = setting(
        0, "epochs over which `rdrop_alpha` rises from 0, linearly", ge=0, needs="rdrop_alpha"
    )
    balanced_sampler: bool = setting(False, "draw training rows so that every class is equally likely")
    joint_alpha: float = setting(
        0.0,
        "draw rows by the mean over their tasks of (n_largest / n_class) ** joint_alpha; 0 = off, 1 = balanced",
        ge=0.0,
        le=4.0,
    )
    joint_max_mult: float = setting(
        5.0, "most often a rare class is drawn, as a multiple of the most frequent one", ge=1.0, needs="joint_alpha"
    )
    joint_boost: PositiveByName = setting(
        {}, "draw the rows of single classes so many times as often, for example remorse=2", needs="joint_alpha"
    )

    teacher: str = setting(
        "",
        "learn from the answers of these runs too (names or folders, joined by commas), or from the folds of a "
        "cross-validation, each by the one that learned from the same items",
        came_later=True,
    )
    distil_temperature: float = setting(
        2.0,
        "temperature of the teacher's probabilities and of those compared with them (Hinton et al. 2015)",
        came_later=True,
        gt=0.0,
        le=100.0,
        needs="teacher",
    )
    distil_alpha: float = setting(
        0.5,
        "share of the loss that is the divergence from the teacher; the labels have the rest",
        came_later=True,
        gt=0.0,
        le=1.0,
        needs="teacher",
    )
    distil_out_of_fold: bool = setting(
        False,
        "an item's answer comes from a teacher fitted anew on the training items without its speaker; for teachers "
        "found in closed form, such as `model=functionals`",
        came_later=True,
        needs="teacher",
    )

    @model_validator(mode="after")
    def _one_of_a_kind(self) -> LossSettings:
        if self.asymmetric_loss and self.focal_loss:
            raise ValueError("`asymmetric_loss` and `focal_loss` exclude each other")
        if self.joint_alpha > 0.0 and self.balanced_sampler:
            raise ValueError("`joint_alpha` and `balanced_sampler` exclude each other")
        return self


class OptimSettings(Section):
    """AdamW (Loshchilov & Hutter 2019) and its learning-rate schedule."""

    panel: ClassVar[str] = "Optimisation"

    lr: float = setting(1e-3, "peak learning rate", gt=0.0, le=10.0)
    weight_decay: float = setting(0.01, "decoupled weight decay of AdamW, not applied to biases and norms", ge=0.0)
    schedule: Literal["constant", "cosine", "cosine-restarts"] = setting("cosine", "learning rate over the training")
    warmup_ratio: float = setting(0.1, "share of the steps in which the learning rate rises", ge=0.0, lt=1.0)
    num_cycles: int = setting(
        3, "number of cosine cycles with `schedule=cosine-restarts`", ge=1, le=100, needs="schedule=cosine-restarts"
    )
    lr_min: float = setting(0.0, "learning rate the warm-up begins at and the schedule ends at", ge=0.0)
    grad_accum: int = setting(1, "batches whose gradients are added before a step", ge=1, le=1024)
    max_grad_norm: float = setting(5.0, "clip the gradient to this L2 norm; 0 = off", ge=0.0)
    grad_centralisation: bool = setting(False, "subtract the mean of each gradient per output unit (Yong et al. 2020)")
    ema_decay: float = setting(
        0.0, "decay per step of the exponential moving average of weights; 0 = off", ge=0.0, lt=1
    )

    @model_validator(mode="after")
    def _floor_below_peak(self) -> OptimSettings:
        if self.lr_min > self.lr:
            raise ValueError("`lr_min` must not exceed `lr`")
        if self.lr_min > 0.0 and self.schedule == "constant":
            raise ValueError("`lr_min` acts only together with a `schedule` that falls: cosine or cosine-restarts")
        return self


# The default of all modalities once: it stands with runs that kept the last weights, and with recipes of then.
FORMER_PATIENCE = 10


def idle_patience(keep: str) -> str:
    """What is wrong with a patience beside a ``keep`` other than best."""
    return f"`patience` does nothing with `keep={keep}`, which trains all `epochs`"


class TrainSettings(Section):
    """How long, how much at a time, from which seed."""

    panel: ClassVar[str] = "Training"

    epochs: int = setting(30, "passes over the training split", ge=1, le=100_000)
    batch_size: int = setting(32, "rows in a batch", ge=1, le=65_536)
    patience: int = setting(10, "stop after this many epochs without a better validation macro-F1; 0 = never", ge=0)
    keep: Literal["best", "last", "average"] = setting(
        "best",
        "the weights that count: of the epoch with the best validation macro-F1; or, since few validation speakers "
        "choose at random, of the last epoch, or their mean over the last quarter of the epochs (with `ema_decay` the "
        "mean of the moving averages), both of a fixed number, without `patience`",
        came_later=True,
    )
    seed: int = setting(0, "seed of weights, order of rows, augmentation and split", ge=0, lt=2**32)

    @model_validator(mode="after")
    def _all_epochs_where_the_last_counts(self) -> Self:
        own_default = type(self).model_fields["patience"].default
        if self.keep != "best" and self.patience not in (0, FORMER_PATIENCE, own_default):
            raise ValueError(idle_patience(self.keep))
        if self.keep == "average" and self.epochs < 8:
            raise ValueError("`keep=average` needs `epochs` of 8 or more: of fewer take `keep=last`")
        return self


class ThresholdSettings(Section):
    """From which probability on a label of a multi-label task holds; chosen on the validation split."""

    panel: ClassVar[str] = "Thresholds (multi-label)"

    threshold: Literal["per-class", "global", "half"] = setting(
        "per-class", "one threshold a class, one for all classes, or 0.5; the report shows all three"
    )
    threshold_range: tuple[float, float] = setting(
        (0.01, 0.95), "lowest and highest threshold tried, in (0, 1); epochs are selected by the same ones"
    )
    num_thresholds: int = setting(95, "thresholds tried, evenly spaced", ge=2, le=1000)
    threshold_shrinkage: float = setting(
        8.0,
        "pull each class's threshold toward the one of all classes as so many validation rows with its label would, "
        "so that rare classes follow their few rows less; 0 = off",
        ge=0.0,
        le=1e6,
        came_later=True,
        stored_default=0.0,
    )
    threshold_smoothing: float = setting(
        0.5,
        "smooth each class's F1 over the thresholds before its best is taken, standard deviation in logits; 0 = off",
        ge=0.0,
        le=10.0,
        came_later=True,
        stored_default=0.0,
    )

    @model_validator(mode="after")
    def _ordered(self) -> ThresholdSettings:
        low, high = self.threshold_range
        if not 0.0 < low < high < 1.0:
            raise ValueError("`threshold_range` needs 0 < lowest < highest < 1")
        return self


class AbstentionSettings(Section):
    """When a model answers "not sure"; the threshold of confidence is chosen on the validation split."""

    panel: ClassVar[str] = "Abstention"

    abstain_risk: float = setting(
        0.0,
        "withhold the least confident answers, so that of the others at most this share is wrong on validation; "
        "0 = off",
        ge=0.0,
        lt=1.0,
        came_later=True,
    )
    abstain_coverage: float = setting(
        1.0,
        "withhold the least confident answers, so that at least this share is left on validation; 1 = off",
        gt=0.0,
        le=1.0,
        came_later=True,
    )

    @model_validator(mode="after")
    def _one_wish(self) -> AbstentionSettings:
        if self.abstain_risk > 0.0 and self.abstain_coverage < 1.0:
            raise ValueError("`abstain_risk` and `abstain_coverage` exclude each other")
        return self

    @property
    def rule(self) -> str:
        """``risk`` or ``coverage``; empty where all is answered."""
        return "risk" if self.abstain_risk > 0.0 else "coverage" if self.abstain_coverage < 1.0 else ""

    @property
    def wanted(self) -> float:
        """The risk or coverage that is wanted; 0 where all is answered."""
        return {"risk": self.abstain_risk, "coverage": self.abstain_coverage}.get(self.rule, 0.0)
