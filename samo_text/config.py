"""Every setting of a text run."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from samo.encoders.settings import EncoderSettings
from samo.settings import (
    AbstentionSettings,
    Config,
    CorpusSettings,
    LossSettings,
    OptimSettings,
    Section,
    ThresholdSettings,
    setting,
)
from samo.settings import TrainSettings as CommonTrainSettings

__all__ = ["AugmentSettings", "DataSettings", "ModelSettings", "TextConfig", "TokenSettings", "TrainSettings"]


class DataSettings(CorpusSettings):
    """Which texts, which question, which split."""

    dataset: str = setting(
        "goemotions",
        "corpus, as listed by `samo data list`, or one of yours as package.module:name",
        choices="samo_text.datasets:DATASETS",
    )
    data_root: str = setting(
        "", "folder (or table) the corpus lies in; empty: $SAMO_TEXT_DATA_ROOT, download, demo", is_path=True
    )
    mode: Literal["emotion", "ekman", "sentiment"] = setting(
        "emotion", "goemotions: 28 emotions, 7 Ekman groups or 4 sentiments, neutral a class of its own"
    )
    split: Literal["auto", "table", "stratified", "folds", "group", "whole"] = setting(
        "auto",
        "the corpus' own split where it has one, else stratified by label set; five stratified folds; by group; "
        "whole: train on all of it, for all epochs, and judge on nothing",
    )
    drop_leaked: bool = setting(
        False, "leave out training texts that stand, word for word or nearly so, in validation or test"
    )
    text_column: str = setting("text", "table: column of the text", needs="dataset=table")
    label_columns: str = setting(
        "label", "table: column of the label; several joined by commas are several tasks", needs="dataset=table"
    )
    label_separator: str = setting(
        "",
        "table: what separates several labels in a cell, for example ','; makes the task multi-label",
        needs="dataset=table",
    )
    empty_labels: Literal["unlabelled", "none"] = setting(
        "unlabelled",
        "table: what an empty cell of a multi-label column means: not labelled, or none of the labels",
        needs="dataset=table",
    )
    binary_columns: Literal["labels", "tasks"] = setting(
        "labels",
        "table: what several label columns of 0 and 1 are: the labels of one multi-label task, or a task each",
        needs="dataset=table",
        came_later=True,
        stored_default="tasks",
    )
    split_column: str = setting("split", "table: optional column with train, val or test", needs="dataset=table")
    group_column: str = setting("", "table: column of the author, for `split=group`", needs="dataset=table")


class TokenSettings(Section):
    """From text to tokens."""

    panel: ClassVar[str] = "Tokens"

    max_tokens: int = setting(128, "longest text in tokens; the rest is cut off", ge=4, le=8192)
    length_sorted: bool = setting(
        True, "make batches of texts of similar length and pad each only to its longest (off: to `max_tokens`)"
    )


AUGMENTATIONS = ("synonyms", "word-order", "punctuation", "back-translation", "masked-lm")


class AugmentSettings(Section):
    """Augmentation of the training split; everything is off unless asked for."""

    panel: ClassVar[str] = "Augmentation (training only)"

    mixup_alpha: float = setting(
        0.0, "mix pairs of pooled text embeddings, weight from Beta(alpha, alpha); 0 = off", ge=0.0, le=100.0
    )
    augment: str = setting(
        "", f"make further training texts; several joined by commas: {', '.join(AUGMENTATIONS)}; empty = off"
    )
    augment_target: int = setting(
        0,
        "only for classes with fewer training rows than this, rarest first, until they have so many; 0 = for all texts",
        ge=0,
        needs="augment",
    )
    augment_max_per_text: int = setting(
        4, "most texts made of one (EDA, Wei & Zou 2019)", ge=1, le=100, needs="augment"
    )
    augment_strength: float = setting(
        0.1, "share of a text's words that is changed (back-translation aside)", gt=0.0, le=1.0, needs="augment"
    )
    back_translation_models: str = setting(
        "",
        "THERE,BACK: two translation models, each a folder or a name on the Hugging Face hub",
        needs="augment",
    )
    masked_lm: str = setting(
        "", "model of `augment=masked-lm`: a folder, or a name on the Hugging Face hub", needs="augment"
    )
    extra_table: str = setting(
        "", "table of further texts that are only ever trained on, for example from `samo pseudo-label`", is_path=True
    )

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods asked for, in the order given."""
        return tuple(filter(None, (name.strip() for name in self.augment.split(","))))

    @property
    def translation_models(self) -> tuple[str, ...]:
        """The two models of back-translation, or none."""
        return tuple(filter(None, (name.strip() for name in self.back_translation_models.split(","))))

    @model_validator(mode="after")
    def _known_and_complete(self) -> AugmentSettings:
        for name in self.methods:
            if name not in AUGMENTATIONS:
                raise ValueError(f"`augment` '{name}': unknown; valid: {', '.join(AUGMENTATIONS)}")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"`augment={self.augment}` names a method twice")
        if ("back-translation" in self.methods) != (len(self.translation_models) == 2):
            raise ValueError("`augment=back-translation` and `back_translation_models=THERE,BACK` need each other")
        if ("masked-lm" in self.methods) != bool(self.masked_lm):
            raise ValueError("`augment=masked-lm` and `masked_lm=FOLDER_OR_NAME` need each other")
        return self


_OF_NETWORKS = (
    "pooling",
    "head_layers",
    "head_norm",
    "dropout",
    "dropout_samples",
    "dropout_inference",
)
_OF_WORD_VECTORS = ("embedding_width", "hash_buckets")


class ModelSettings(EncoderSettings):
    """Encoder, pooling and head."""

    panel: ClassVar[str] = "Model"

    model: str = setting(
        "textcnn",
        "architecture, or one of yours as package.module:function; with `encoder` the default is encoder",
        choices="samo_text.models:MODELS",
    )
    pooling: str = setting(
        "auto",
        "from token states to one vector: cls, mean, max, mean-max, attention, last4-mean; several joined with +;"
        " auto is mean for an encoder, else max",
    )
    embedding_width: int = setting(128, "textcnn, bigru: width of a word's vector", ge=8, le=2048)
    hash_buckets: int = setting(
        32_768, "textcnn, bigru: rows of the table words are hashed into twice (Svenstrup et al. 2017)", ge=256
    )
    filters: int = setting(128, "textcnn: filters of each kernel width 1 to 5", ge=4, le=4096, needs="model=textcnn")
    gru_units: int = setting(128, "bigru: units of each direction", ge=4, le=4096, needs="model=bigru")
    ngrams: int = setting(2, "tfidf: longest n-gram of words", ge=1, le=4, needs="model=tfidf")
    min_count: int = setting(2, "tfidf: fewest training texts an n-gram stands in", ge=1, needs="model=tfidf")
    inverse_l2: float = setting(2.0, "tfidf: C of the logistic regression", gt=0.0, needs="model=tfidf")

    @model_validator(mode="after")
    def _whole(self) -> ModelSettings:
        self.refuse_idle(_OF_NETWORKS, self.model != "tfidf", "a network, not `model=tfidf`")
        self.refuse_idle(_OF_WORD_VECTORS, self.model not in ("encoder", "tfidf"), "`model` textcnn or bigru")
        return self


class TrainSettings(CommonTrainSettings):
    """How long, how much at a time: corpora of text are larger than those of speech, and learned in fewer passes."""

    epochs: int = setting(6, "passes over the training split", ge=1, le=100_000)
    batch_size: int = setting(64, "rows in a batch", ge=1, le=65_536)
    patience: int = setting(3, "stop after this many epochs without a better validation macro-F1; 0 = never", ge=0)


# Of the sections about learning, what also a model without steps takes: the seed decides its split,
# and it learns from further texts.
_FOR_EVERY_MODEL = frozenset({"seed", "extra_table"})


class TextConfig(Config):
    """All settings of a text run."""

    modality: ClassVar[str] = "text"

    data: DataSettings = DataSettings()
    tokens: TokenSettings = TokenSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    optim: OptimSettings = OptimSettings()
    thresholds: ThresholdSettings = ThresholdSettings()
    abstention: AbstentionSettings = AbstentionSettings()
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _fitted_whole(self) -> TextConfig:
        """Flags of a training by gradient would do nothing for a model that is found in closed form."""
        fitted = f"head={self.model.head}" if self.model.takes_no_steps else ""
        fitted = "model=tfidf" if self.model.model == "tfidf" else fitted
        if fitted:
            own = {name for name in AugmentSettings.model_fields if name.startswith("augment")}
            self.refuse_steps((self.loss, self.optim, self.train, self.augment), fitted, _FOR_EVERY_MODEL | own)
        return self
