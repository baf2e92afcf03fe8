"""Typed settings: frozen, unknown keys refused, every field a command-line flag of the same name."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from samo.errors import SettingsError, nearest
from samo.lazy import load_object
from samo.modalities import (
    MODALITIES,
    config_type,
    config_types,
    ensemble_files,
    measured_file,
    preset_files,
    unknown_name,
)
from samo.plugins import trust_settings

__all__ = [
    "CALL_KEYS",
    "FORMER_PATIENCE",
    "GRID_SETTINGS",
    "REPORT_SETTINGS",
    "SPLIT_SETTINGS",
    "AbstentionSettings",
    "Config",
    "CorpusSettings",
    "LossSettings",
    "OptimSettings",
    "Section",
    "SettingField",
    "ThresholdSettings",
    "TrainSettings",
    "based_on",
    "collect_settings",
    "measured_presets",
    "meets",
    "named_setting",
    "partner",
    "read_call",
    "read_ensemble",
    "read_preset",
    "read_toml",
    "resolve",
    "setting",
    "stored_config",
    "toml_tables",
    "with_defaults",
]


# What decides how a corpus is split, and nothing of what is read from it; the same names in every modality.
SPLIT_SETTINGS = frozenset({"split", "split_seed", "fold", "num_folds", "train_ratio", "val_ratio", "limit_fraction"})
# What changes reports and nothing of a training: the same grid goes on whatever they say.
REPORT_SETTINGS = frozenset({"baseline"})

# A grid sets these cell by cell.
GRID_SETTINGS = frozenset({"seed", "split", "fold"})

# What a configuration file may also hold: arguments of a training, which are no settings of a run. By their kind.
CALL_KEYS: Mapping[str, type] = {
    "modality": str,
    "preset": str,
    "name": str,
    "tracker": str,
    "artifacts": str,
    "device": str,
    "precision": str,
    "threads": int,
}
# What is only given where it is typed.
_TYPED_ONLY = ("overwrite", "resume", "config", "encoders", "json", "trust_code", "dry_run")

PositiveByName = dict[str, Annotated[float, Field(gt=0.0)]]


def setting(
    default: Any,
    help_text: str,
    *,
    needs: str = "",
    choices: str = "",
    is_path: bool = False,
    came_later: bool = False,
    stored_default: Any = None,
    **limits: Any,
) -> Any:
    """Declare one setting.

    Args:
        default: used when neither flag nor file gives it.
        help_text: one line with the unit.
        needs: the setting without which this one does nothing (``"focal_loss"``), or with its value
            (``"split=folds"``) or values (``"model=a|b"``); changing this setting alone is then refused instead of
            silently ignored.
        choices: the registry whose names are valid, as ``"module:name"``, so that naming it imports nothing.
        is_path: a file or folder; relative ones in a configuration file count from that file.
        came_later: added after grids were named by their settings; at the value of those grids it is no part of a
            made-up name, nor where it acts on nothing, so that the same settings find the same grid.
        stored_default: the value of runs that were stored without the setting, where ``default`` is not how they were
            trained; None = ``default``.
        **limits: ``ge``, ``le``, ``gt``, ``lt``.
    """
    facts: dict[str, Any] = {"needs": needs, "choices": choices, "is_path": is_path, "came_later": came_later}
    extra = {name: value for name, value in facts.items() if value}
    if stored_default is not None:
        extra["stored_default"] = stored_default
    return Field(default, description=help_text, json_schema_extra=extra, **limits)


class Section(BaseModel):
    """A named group of settings; one panel in ``--help``."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
    panel: ClassVar[str] = ""
    # Settings that this section took over from another modality after grids were named by their settings.
    later: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes ``true`` for 1; whoever writes ``epochs = true`` meant something else."""
        inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
        truths = [each for each in inside if isinstance(each, bool)]
        if truths and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(f"a number is needed, not {str(truths[0]).lower()}")
        return value


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
            raise ValueError(f"`patience` does nothing with `keep={self.keep}`, which trains all `epochs`")
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


@cache
def _fields_of(config: type[Config]) -> tuple[SettingField, ...]:
    """See :meth:`Config.fields`; a class's settings are those it was declared with."""
    found = []
    for section, outer in config.model_fields.items():
        model = outer.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        found += [
            SettingField(name, section, model.panel, info, name in model.later)
            for name, info in model.model_fields.items()
        ]
    return tuple(found)


@dataclass(frozen=True)
class SettingField:
    """One setting seen from outside: where it lives and how it was declared."""

    name: str
    section: str
    panel: str
    info: FieldInfo
    later: bool = False

    @property
    def needs(self) -> str:
        """The setting without which this one does nothing, or with its value; may be empty."""
        return str(self._fact("needs"))

    @property
    def choices(self) -> str:
        """The registry whose names are valid, as ``"module:name"``; may be empty."""
        return str(self._fact("choices"))

    @property
    def is_path(self) -> bool:
        """Whether it names a file or folder."""
        return bool(self._fact("is_path"))

    @property
    def came_later(self) -> bool:
        """Whether names made up from settings leave it out at :attr:`stored_default`."""
        return self.later or bool(self._fact("came_later"))

    @property
    def stored_default(self) -> Any:
        """The value in runs that were stored without it; the default unless declared otherwise."""
        extra = self.info.json_schema_extra
        return extra.get("stored_default", self.info.default) if isinstance(extra, dict) else self.info.default

    def _fact(self, name: str) -> Any:
        extra = self.info.json_schema_extra
        return extra.get(name, "") if isinstance(extra, dict) else ""


class Config(BaseModel):
    """All settings of one modality, in sections; field names are unique across sections."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    modality: ClassVar[str] = ""

    @classmethod
    def fields(cls) -> Iterator[SettingField]:
        """Every setting, section by section."""
        return iter(_fields_of(cls))

    @classmethod
    def anchored(cls, values: Mapping[str, Any], file: Path) -> dict[str, Any]:
        """Flat values that were read from ``file``, relative paths among them counted from its folder."""
        paths = {field.name for field in cls.fields() if field.is_path}
        return {
            name: str(file.absolute().parent / Path(value).expanduser())
            if name in paths and value and isinstance(value, str)
            else value
            for name, value in values.items()
        }

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Make a configuration from flat values by setting name.

        Raises:
            SettingsError: an unknown name (the nearest is suggested) or a value out of range.
        """
        home = {field.name: field.section for field in cls.fields()}
        nested: dict[str, dict[str, Any]] = {section: {} for section in cls.model_fields}
        for name, value in values.items():
            if name not in home:
                raise SettingsError(
                    f"unknown setting '{name}' for modality {cls.modality}",
                    hint=nearest(name, home) + "`samo train --help` lists all settings",
                )
            nested[home[name]][name] = value
        try:
            config = cls.model_validate(nested)
        except ValidationError as error:
            raise SettingsError(_first_problem(error)) from error
        config._refuse_idle_settings()
        return config

    def _refuse_idle_settings(self) -> None:
        """A flag that would change nothing is a mistake of the user's, not a no-op."""
        flat, own = self.flat(), self.own_defaults()
        for field in self.fields():
            if flat[field.name] in (field.info.default, own.get(field.name, field.info.default)):
                continue
            if self.is_idle(field, flat):
                raise SettingsError(f"`{field.name}` acts only together with {partner(field.needs)}")

    def own_defaults(self) -> Mapping[str, Any]:
        """Settings, by name, whose default is another one because of what the others say."""
        return {}

    @staticmethod
    def refuse_steps(
        sections: Iterable[Section], model: str, taken: Set[str], defaults: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Refuse settings of a training by gradient for a model that is found in closed form.

        Args:
            sections: whose settings do nothing.
            model: what asks for it, as ``NAME=VALUE``.
            taken: settings that do something all the same.
            defaults: those of the model, by name, where they are others.

        Raises:
            ValueError: one is not at its default.
        """
        for section in sections:
            for name, field in type(section).model_fields.items():
                if name not in taken and getattr(section, name) not in (
                    field.default,
                    defaults.get(name, field.default),
                ):
                    raise ValueError(f"`{name}` does nothing for `{model}`, which takes no steps")

    @classmethod
    def is_idle(cls, field: SettingField, flat: Mapping[str, Any]) -> bool:
        """Whether a setting acts on nothing, as the one it needs has another value in ``flat``."""
        if not field.needs:
            return False
        needed, _, value = field.needs.partition("=")
        return not meets(field.needs, flat) and not (value and cls._is_own_code(needed, flat[needed]))

    @classmethod
    def _is_own_code(cls, name: str, value: Any) -> bool:
        """Whether a user's own network or corpus is named, which takes whatever settings it likes."""
        choices = next(field.choices for field in cls.fields() if field.name == name)
        return bool(choices) and load_object(choices).plugin(str(value)) is not None

    def flat(self) -> dict[str, Any]:
        """Every setting by its flag's name with underscores, ready for JSON."""
        dumped = self.model_dump(mode="json")
        return {name: value for section in dumped.values() for name, value in section.items()}

    def stored(self) -> dict[str, Any]:
        """:meth:`flat` with ``modality``, as ``config.json`` holds it; :func:`stored_config` reads it."""
        return {"modality": self.modality, **self.flat()}

    def lasting(self, without: Set[str] = frozenset()) -> dict[str, Any]:
        """:meth:`flat` without settings that came later and are as they were before, or act on nothing.

        What is named by these keeps its name when SAMO gets further settings.
        """
        flat = self.flat()
        idle = {
            field.name
            for field in self.fields()
            if field.came_later and (flat[field.name] == field.stored_default or self.is_idle(field, flat))
        }
        return {name: value for name, value in flat.items() if name not in without | idle}

    def differences(self, other: Self) -> dict[str, tuple[Any, Any]]:
        """Settings whose values differ, by name: (mine, theirs)."""
        mine, theirs = self.flat(), other.flat()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


def meets(needs: str, values: Mapping[str, Any]) -> bool:
    """Whether settings are such that one that ``needs`` them does something; see :func:`setting`."""
    name, _, value = needs.partition("=")
    return str(values[name]) in value.split("|") if value else bool(values[name])


def partner(needs: str) -> str:
    """What a setting needs, in words: ``"model=a|b|c"`` is "`model=a`, b or c"."""
    first, *others = needs.split("|")
    listed = [f"`{first}`", *others]
    return " or ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))


def toml_tables(path: Path, what: str) -> dict[str, Any]:
    """Tables of a TOML file.

    Args:
        path: of the file.
        what: it is, as an error names it.

    Raises:
        SettingsError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {what} {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def read_toml(path: Path, sections: set[str]) -> dict[str, Any]:
    """Read a configuration file: flat keys, or tables named like the sections.

    Raises:
        SettingsError: the file is missing, not TOML, or names a setting twice.
    """
    data = toml_tables(path, "configuration")
    flat: dict[str, Any] = {}
    for key, value in data.items():
        inner = value if key in sections and isinstance(value, dict) else {key: value}
        for spelled, given in inner.items():
            name = spelled.replace("-", "_")
            if name in flat:
                raise SettingsError(f"{path} sets '{name}' twice")
            flat[name] = given
    return flat


def resolve(modality: str, preset: str, file: Path | None, flags: dict[str, Any]) -> Config:
    """Settings from preset, then file, then flags; each wins over the one before.

    A preset that the file names holds where ``preset`` is empty; what else of :data:`CALL_KEYS` stands in the file is
    left to whoever trains.

    Raises:
        SettingsError: an unknown setting, one of another modality, or a value out of range.
    """
    kind = config_type(modality)
    values, read = collect_settings(modality, preset, file, flags)
    try:
        return kind.build(values)
    except SettingsError as error:
        name = named_setting(error)
        if not file or name in flags or name not in read:
            raise
        raise error_in(file, error) from error


def error_in(file: Path, error: SettingsError) -> SettingsError:
    """An error about a setting of a file: there it stands under its name, whatever it is called elsewhere."""
    message = re.sub("^`([^`]*)`", r"\1", error.message)
    return SettingsError(f"{file}: {message}", hint=error.hint)


def collect_settings(
    modality: str, preset: str, file: Path | None, flags: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What preset, file and flags set together, and what the file alone does; values are not looked at.

    Networks and corpora of the user's own that they name are trusted from here on; see :mod:`samo.plugins`.

    Raises:
        SettingsError: an unknown setting, or one of another modality.
    """
    known = {field.name for field in config_type(modality).fields()}
    for name in flags:
        if name not in known:
            owners = [other for other, config in config_types().items() if name in {f.name for f in config.fields()}]
            if not owners:
                raise SettingsError(
                    f"unknown setting '{name}' for modality {modality}",
                    hint=nearest(name, known) + "`samo train --help` lists all settings",
                )
            raise SettingsError(
                f"`{name}` is no setting of `modality={modality}`",
                hint=f"it belongs to {' and '.join(f'`modality={owner}`' for owner in owners)}",
            )
    preset = preset or (read_call(file).get("preset", "") if file else "")
    values = read_preset(modality, preset)[1] if preset else {}
    read = _read_config(file, modality, known) if file else {}
    trust_settings({**read, **flags})
    return {**values, **read, **flags}, read


def read_call(file: Path) -> dict[str, Any]:
    """The arguments of a training that a configuration file holds beside the settings, see :data:`CALL_KEYS`.

    Raises:
        SettingsError: one is of another kind, or the file is missing or not TOML.
    """
    found: dict[str, Any] = {}
    for spelled, value in toml_tables(file, "configuration").items():
        name = spelled.replace("-", "_")
        if kind := CALL_KEYS.get(name):
            if not isinstance(value, kind) or isinstance(value, bool):
                wanted = "a text" if kind is str else "a whole number"
                raise SettingsError(f"{file}: {name} {value!r}: {wanted} is needed")
            found[name] = value
    if found.get("artifacts"):
        found["artifacts"] = str(file.absolute().parent / Path(found["artifacts"]).expanduser())
    return found


def _read_config(file: Path, modality: str, known: set[str]) -> dict[str, Any]:
    """The settings of a file, its paths counted from its folder; a ``description`` as in the presets is allowed."""
    values = read_toml(file, set(config_type(modality).model_fields))
    values = {name: value for name, value in values.items() if name != "description" and name not in CALL_KEYS}
    for name in values:
        if name in _TYPED_ONLY:
            raise SettingsError(f"{file}: `{name}` does not belong into a file", hint="give it beside the file")
        if name not in known:
            raise SettingsError(
                f"{file}: unknown setting '{name}' for modality {modality}",
                hint=nearest(name, known) + "`samo train --help` lists all settings",
            )
    return config_type(modality).anchored(values, file)


def read_preset(modality: str, name: str) -> tuple[str, dict[str, object]]:
    """A preset's one-line description and its settings; those of the preset it is ``based_on``, where it names one.

    Raises:
        SettingsError: unknown preset, an ensemble of several, or one based on what is no preset of its own.
    """
    files = preset_files(modality)
    if name in ensemble_files(modality):
        members = ", ".join(read_ensemble(modality, name)[1])
        raise SettingsError(
            f"`preset={name}` is an ensemble of {members}, which are trained one by one and combined",
            hint=f"`samo train` and `samo crossval` take `preset={name}`, in Python "
            "`samo.ensembles.preset_ensemble.train_preset_ensemble` does; others take its members",
        )
    if name not in files:
        raise unknown_name(
            "preset", name, modality, {each: (*preset_files(each), *ensemble_files(each)) for each in MODALITIES}
        )
    sections = set(config_type(modality).model_fields)
    settings = read_toml(files[name], sections)
    description, base = str(settings.pop("description", "")), str(settings.pop("based_on", ""))
    if base:
        based = read_toml(files[base], sections) if base in files else {"based_on": ""}
        if "based_on" in based:
            raise SettingsError(f"{files[name]}: based_on '{base}': not a preset with settings of its own")
        settings = {**{key: value for key, value in based.items() if key != "description"}, **settings}
    return description, settings


def read_ensemble(modality: str, name: str) -> tuple[str, tuple[str, ...]]:
    """The one-line description of an ensemble that ships with SAMO, and the presets that are its members.

    Raises:
        SettingsError: unknown, or its file names fewer than two members.
    """
    files = ensemble_files(modality)
    if name not in files:
        raise unknown_name("ensemble", name, modality, {each: ensemble_files(each) for each in MODALITIES})
    data = toml_tables(files[name], "ensemble")
    members = tuple(str(member) for member in data.get("members", ()))
    if len(members) < 2 or set(data) != {"description", "members"}:
        raise SettingsError(f"{files[name]}: write a description and two or more members")
    return str(data["description"]), members


def based_on(modality: str, name: str) -> str:
    """The preset whose settings another has, all of them; itself where it has some of its own."""
    files = preset_files(modality)
    read = toml_tables(files[name], "preset") if name in files else {}
    return str(read["based_on"]) if set(read) == {"description", "based_on"} else name


def measured_presets(modality: str) -> dict[str, dict[str, Any]]:
    """What was measured of presets and ensembles, by name, those that are ``based_on`` a measured one among them.

    One whose :func:`recipe_digest` is another than when it was measured is left out. Each has ``dataset``, ``mode``,
    ``on`` (in words), ``macro_f1`` in [0, 1], ``settings``, the digest, and ``minutes`` in the epochs of one training,
    where there were any.
    """
    file = measured_file(modality)
    found: dict[str, dict[str, Any]] = toml_tables(file, "figures") if file else {}
    names = (*preset_files(modality), *ensemble_files(modality))
    own = {name: based_on(modality, name) for name in names}
    known = set(own.values()) & set(found)
    same = {name for name in known if found[name]["settings"] == recipe_digest(modality, name)}
    return {name: found[base] for name, base in own.items() if base in same}


def recipe_digest(modality: str, name: str) -> str:
    """12 hexadecimal digits of how a preset trains, or all members of an ensemble, with today's defaults.

    Raises:
        SettingsError: there is no such preset, or one of its settings is wrong.
    """
    members = read_ensemble(modality, name)[1] if name in ensemble_files(modality) else (name,)
    configs = [resolve(modality, member, None, {}).lasting(REPORT_SETTINGS) for member in members]
    each = sorted(json.dumps(config, sort_keys=True) for config in configs)
    return sha256("\n".join(each).encode()).hexdigest()[:12]


def stored_config(stored: Mapping[str, Any]) -> Config:
    """The settings that :meth:`Config.stored` gave, ``modality`` among them.

    Raises:
        SettingsError: an unknown modality, an unknown name, or a value out of range.
    """
    values = dict(stored)
    return config_type(str(values.pop("modality"))).build(values)


def with_defaults(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, ``modality`` among them, with those that a later version added.

    Each stands at its ``stored_default``, under which everything stays as it was; one that acts on nothing at its
    default.
    """
    if stored.get("modality") not in MODALITIES:
        return dict(stored)
    kind = config_type(str(stored["modality"]))
    known = {**kind().stored(), **stored}
    later = {
        field.name: field.stored_default
        for field in kind.fields()
        if field.stored_default != field.info.default and field.name not in stored and not kind.is_idle(field, known)
    }
    return {**known, **later}


def named_setting(error: SettingsError) -> str:
    """The setting an error begins with, or an empty string."""
    found = re.match(r"`([a-z_0-9]+)", error.message)
    return found[1] if found else ""


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    if len(problem["loc"]) < 2:  # a rule over a whole section names its settings itself
        return message
    return f"`{problem['loc'][1]}` {problem['input']!r}: {message[0].lower()}{message[1:]}"
