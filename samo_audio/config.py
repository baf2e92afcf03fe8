"""Every setting of an audio run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from samo.encoders.settings import EncoderSettings
from samo.settings import (
    AbstentionSettings,
    Config,
    CorpusSettings,
    LossSettings,
    OptimSettings,
    Section,
    setting,
)
from samo.settings import TrainSettings as CommonTrainSettings
from samo_audio.models import MODELS, Architecture

__all__ = ["AudioConfig", "AugmentSettings", "DataSettings", "FeatureSettings", "ModelSettings", "TrainSettings"]


# What describes the log-mel spectrogram, and nothing to a model that makes features of its own.
_OF_LOG_MEL = (
    "n_mels",
    "n_fft",
    "win_length",
    "hop_length",
    "fmin",
    "fmax",
    "mel_scale",
    "compression",
    "normalisation",
)

# What `pooling` may be made of where states are centred by speaker: what is kept of all layers, see
# :attr:`samo.encoders.pooling.Pooling.takes_statistics`.
_OF_STATISTICS = frozenset({"auto", "mean", "sd", "max", "mean-sd", "mean-max"})

# What changes the clips of a training, and so the states of an encoder.
_OF_WAVEFORMS = ("use_specaug", "time_shift", "gain", "freq_warp", "speed", "noise")
# Of the sections about learning, what also a model without steps takes: the seed decides its split.
_FOR_EVERY_MODEL = frozenset({"seed", "model", "functional_set"})
# What such a model on a frozen encoder can learn from besides the clips as they are.
_COPIES = frozenset({"speed", "speed_steps"})


class DataSettings(CorpusSettings):
    """Which clips, which question, which split."""

    dataset: str = setting(
        "ravdess",
        "corpus, as listed by `samo data list`, or one of yours as package.module:name",
        choices="samo_audio.datasets:DATASETS",
    )
    data_root: str = setting(
        "", "folder (or CSV file) the corpus lies in; empty: $SAMO_DATA_ROOT, download, demo", is_path=True
    )
    mode: Literal["emotion", "sentiment"] = setting("emotion", "emotion classes, or negative / neutral / positive")
    split: Literal["auto", "speaker", "folds", "random", "table", "whole"] = setting(
        "auto",
        "the table's own split column where it fills one, else by speaker; folds of speakers; random (leaky!); "
        "whole: train on all of it, for all epochs, and judge on nothing",
    )
    # Of 24 speakers 15, 4 and 5: at 0.8 and 0.1 two select and two decide, too few for either.
    train_ratio: float = setting(
        0.65, "share of the speakers (of the clips with `split=random`) to train on", gt=0.0, lt=1.0
    )
    val_ratio: float = setting(
        0.15, "share of the speakers (of the clips with `split=random`) to validate on", gt=0.0, lt=1.0
    )
    near_copies: Literal["refuse", "report"] = setting(
        "refuse",
        "what to do about recordings in two parts, or in another corpus, that are one at another level, rate, codec or "
        "cut: stop, or list them and go on",
        came_later=True,
    )
    baseline: Literal["functionals", "none"] = setting(
        "functionals",
        "simple models that reports show beside the run: statistics of the clip into a logistic regression, and level "
        "and duration alone; or none",
        came_later=True,
        stored_default="none",
    )
    path_column: str = setting("path", "table: column of the clip's path, relative to the table", needs="dataset=table")
    label_column: str = setting("label", "table: column of the label", needs="dataset=table")
    speaker_column: str = setting("speaker", "table: column of the speaker", needs="dataset=table")
    split_column: str = setting("split", "table: optional column with train, val or test", needs="dataset=table")
    start_column: str = setting(
        "start",
        "table: optional column of the second a clip begins at in its file",
        needs="dataset=table",
        came_later=True,
        stored_default="",
    )
    end_column: str = setting(
        "end",
        "table: optional column of the second a clip ends at in its file; empty cells are the file's end",
        needs="dataset=table",
        came_later=True,
        stored_default="",
    )
    speaker_pattern: str = setting(
        "", "folder: regular expression on the relative path whose first group is the speaker", needs="dataset=folder"
    )


class FeatureSettings(Section):
    """Log-mel spectrogram."""

    panel: ClassVar[str] = "Features"

    sr: int = setting(22050, "sampling rate in Hz that clips are resampled to", ge=4000, le=192_000)
    trim_db: float = setting(
        0.0,
        "cut silence off both ends of a clip: what lies more than so many dB below its loudest 40 ms; 0 = off; "
        "recordings over a minute stay whole",
        came_later=True,
        ge=0.0,
        le=120.0,
    )
    duration: float = setting(
        3.0,
        "seconds the model sees at once; longer clips are cropped at random in training and judged by the mean of "
        "their windows",
        gt=0.05,
        le=60.0,
    )
    tta_speed: float = setting(
        0.0,
        "in evaluation and prediction hear every window at two more speeds, exp(-tta_speed) and exp(tta_speed), and "
        "average the logits; 0 = off",
        came_later=True,
        ge=0.0,
        le=0.5,
    )
    tta_shift: float = setting(
        0.0,
        "in evaluation and prediction hear every window twice more, moved by so many seconds either way, and average "
        "the logits; 0 = off",
        came_later=True,
        ge=0.0,
        le=10.0,
    )
    n_mels: int = setting(64, "mel bands", ge=8, le=512)
    n_fft: int = setting(1024, "samples in an FFT", ge=64, le=16_384)
    win_length: int = setting(0, "samples in an analysis window; 0 = n_fft", ge=0, le=16_384)
    hop_length: int = setting(512, "samples between frames", ge=16, le=16_384)
    fmin: float = setting(0.0, "lowest mel frequency in Hz", ge=0.0)
    fmax: float = setting(0.0, "highest mel frequency in Hz; 0 = half the sampling rate", ge=0.0)
    mel_scale: Literal["htk", "slaney"] = setting("slaney", "mel formula; slaney also normalises filters by area")
    compression: Literal["log", "pcen"] = setting(
        "log",
        "log: decibels; pcen: every band divided by its own level of the last 0.4 s (per-channel energy "
        "normalisation, Wang et al. 2017), which leaves onsets and takes noise that stays",
        came_later=True,
    )
    deltas: int = setting(
        0,
        "further channels beside the spectrogram: 1 = its first differences over time, 2 = also the second",
        came_later=True,
        ge=0,
        le=2,
        needs="model=small-cnn|resnet18",
    )
    normalisation: Literal["train", "clip", "fixed", "speaker"] = setting(
        "clip",
        "train: mean and sd per band of the training split; clip: remove the clip's mean; fixed: constants; speaker: "
        "mean and sd per band of all clips of the speaker (of a frozen encoder the mean of its statistics), who needs "
        "several, in test as well, so that such a run answers no single clip",
    )

    level: Literal["active", "peak", "as-is"] = setting(
        "active",
        "active: bring the sounding parts of every window to one level, so that loudness says nothing; peak: its "
        "largest sample (for an encoder the default); as-is: leave it",
        came_later=True,
        stored_default="as-is",
    )

    @model_validator(mode="after")
    def _consistent(self) -> FeatureSettings:
        if self.win_length > self.n_fft:
            raise ValueError("`win_length` must not exceed `n_fft`")
        top = self.fmax or self.sr / 2
        if not self.fmin < top <= self.sr / 2:
            raise ValueError("`fmin` and `fmax` need 0 <= fmin < fmax <= sr / 2")
        if self.tta_shift >= self.duration / 2:
            raise ValueError("`tta_shift` must be below half of `duration`")
        if self.duration * self.sr < self.n_fft:
            raise ValueError("`duration` is shorter than one FFT window of `n_fft` samples")
        return self

    @property
    def window(self) -> int:
        """Samples the model sees at once."""
        return round(self.duration * self.sr)

    @property
    def frames(self) -> int:
        """Frames of the spectrogram of one window."""
        return self.window // self.hop_length + 1


class AugmentSettings(Section):
    """Augmentation of the training split; everything is off unless asked for."""

    panel: ClassVar[str] = "Augmentation (training only)"

    use_specaug: bool = setting(False, "mask bands and frames of the spectrogram (SpecAugment, Park et al. 2019)")
    specaug_freq: int = setting(8, "largest frequency mask in mel bands", ge=0, needs="use_specaug")
    specaug_time: int = setting(20, "largest time mask in frames", ge=0, needs="use_specaug")
    specaug_masks: int = setting(2, "masks of each kind", ge=1, le=20, needs="use_specaug")
    mixup_alpha: float = setting(
        0.0, "mix pairs of spectrograms, weight from Beta(alpha, alpha); 0 = off", ge=0.0, le=100.0
    )
    time_shift: float = setting(0.0, "largest shift of the clip in time, in seconds; 0 = off", ge=0.0, le=10.0)
    gain: float = setting(
        0.0, "largest change of level up or down, in dB; 0 = off", ge=0.0, le=40.0, needs="level=as-is"
    )
    freq_warp: float = setting(
        0.0,
        "largest stretch of the frequency axis as a share (vocal tract length, Jaitly & Hinton 2013): pitch and "
        "formants move, the tempo stays",
        ge=0,
        le=0.5,
    )
    speed: float = setting(
        0.0,
        "largest change of speed, and of pitch with it, up or down: a factor of exp(U(-speed, speed)); 0 = off",
        came_later=True,
        ge=0.0,
        le=0.5,
    )
    speed_steps: int = setting(
        0,
        "for a frozen encoder, which hears clips once: so many speeds up and as many down, evenly to `speed`, at which "
        "it hears them once more to learn from; 0 = off",
        came_later=True,
        ge=0,
        le=8,
        needs="speed",
    )
    noise: bool = setting(False, "add background noise at a signal-to-noise ratio drawn per clip")
    noise_root: str = setting(
        "", "folder of noise recordings; empty = synthesised pink noise", needs="noise", is_path=True
    )
    noise_snr_min: float = setting(10.0, "lowest signal-to-noise ratio in dB", ge=-20.0, le=80.0, needs="noise")
    noise_snr_max: float = setting(30.0, "highest signal-to-noise ratio in dB", ge=-20.0, le=80.0, needs="noise")

    @model_validator(mode="after")
    def _ordered(self) -> AugmentSettings:
        if self.noise_snr_min > self.noise_snr_max:
            raise ValueError("`noise_snr_min` must not exceed `noise_snr_max`")
        return self


# What lies on an encoder's states; text has it for networks of its own too.
_OF_HEADS = (
    *("head_layers", "head_hidden", "head_intermediate", "head_residual", "head_norm"),
    *("dropout_samples", "dropout_inference"),
)


class ModelSettings(EncoderSettings):
    """The network behind the features, or an encoder of speech."""

    panel: ClassVar[str] = "Model"
    later: ClassVar[frozenset[str]] = frozenset(EncoderSettings.model_fields) - {"model", "dropout"}

    model: str = setting(
        "small-cnn",
        "architecture, or one of yours as package.module:function; with `encoder` the default is encoder",
        choices="samo_audio.models:MODELS",
    )
    pooling: str = setting(
        "auto",
        "from an encoder's states, or what small-cnn and resnet18 make of a clip's own frames, to one vector: mean, "
        "sd, max, mean-sd, mean-max, attention, of an encoder also cls and last4-mean; several joined with +; auto is "
        "mean-sd for an encoder, else the network's own rule over the whole window",
        needs="model=encoder|small-cnn|resnet18",
    )
    layers: Literal["last", "all"] = setting(
        "all",
        "states of an encoder's last layer, or of all: a mean with learned weights (side by side with"
        " `head=logreg` or kernel)",
        needs="model=encoder",
    )
    freeze_encoder: bool = setting(
        True, "leave the encoder as it is, keep its states, and train the head alone", needs="model=encoder"
    )
    use_bn: bool = setting(True, "batch normalisation in small-cnn", needs="model=small-cnn")
    frequency_bins: int = setting(
        0,
        "groups of neighbouring bands that the last layer sees apart; 0 = their mean alone",
        came_later=True,
        ge=0,
        le=64,
        needs="model=small-cnn|resnet18",
    )
    dropout: float = setting(0.3, "dropout before the last layer", ge=0.0, lt=1.0)
    width: int = setting(32, "channels of the first block of small-cnn", ge=4, le=512, needs="model=small-cnn")
    pretrained: bool = setting(
        False,
        "start from published weights, downloaded once: of ImageNet for resnet18, of AudioSet for the others",
        needs="model=resnet18|mn04|mn10|cnn6|cnn14",
    )
    trunk_lr_scale: float = setting(
        1.0,
        "learning rate of all but the last layer as a share of `lr`, for a network that starts from given weights",
        came_later=True,
        gt=0.0,
        le=1.0,
    )
    functional_set: Literal["spectrum", "level", "egemaps"] = setting(
        "spectrum",
        "functionals: statistics of spectrum, pitch and rhythm; level and duration alone; or eGeMAPS by the package "
        "opensmile, whose licence forbids products",
        came_later=True,
        needs="model=functionals",
    )
    weights: str = setting("", "start from the tensors of this safetensors or .pt file", is_path=True)

    @model_validator(mode="after")
    def _on_an_encoder(self) -> ModelSettings:
        # A network of one's own takes whatever settings it likes.
        self.refuse_idle(_OF_HEADS, self.model == "encoder" or ":" in self.model, "`model=encoder`")
        return self


class TrainSettings(CommonTrainSettings):
    """How long, how much at a time: SmallCNN goes on learning from the thousand clips of a usual corpus for long."""

    epochs: int = setting(45, "passes over the training split", ge=1, le=100_000)
    patience: int = setting(0, "stop after this many epochs without a better validation macro-F1; 0 = never", ge=0)


class AudioConfig(Config):
    """All settings of an audio run."""

    modality: ClassVar[str] = "audio"

    data: DataSettings = DataSettings()
    features: FeatureSettings = FeatureSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    optim: OptimSettings = OptimSettings()
    abstention: AbstentionSettings = AbstentionSettings()
    train: TrainSettings = TrainSettings()

    @model_validator(mode="before")
    @classmethod
    def _own_defaults_filled(cls, values: Any) -> Any:
        """What is not given takes the default of the architecture; a run's stored settings give everything.

        Another rate than its own is refused here, before other settings are found not to fit that rate.
        """
        if not isinstance(values, Mapping):
            return values
        given = {name: _given(section) for name, section in values.items()}
        named = given.get("model", {})
        usual = "encoder" if named.get("encoder") else ModelSettings.model_fields["model"].default
        model = named.get("model", usual)
        home = {field.name: field.section for field in cls.fields()}
        architecture = _known(model)
        for name, value in architecture.defaults.items():
            given.setdefault(home[name], {}).setdefault(name, value)
        sr = given.get("features", {}).get("sr", FeatureSettings.model_fields["sr"].default)
        if architecture.rates and sr not in architecture.rates:
            rates = " or ".join(str(rate) for rate in architecture.rates)
            raise ValueError(f"`sr` must be {rates} with `model={model}`, it is {sr}")
        return given

    @model_validator(mode="after")
    def _as_the_architecture_takes_it(self) -> AudioConfig:
        name, features = self.model.model, self.features
        architecture = _known(name)
        if not architecture.has_log_mel:
            by_speaker = features.normalisation == "speaker" and name == "encoder"
            if by_speaker and not self.model.freeze_encoder:
                raise ValueError("`normalisation=speaker` of an encoder acts only together with `freeze_encoder`")
            all_layers = self.model.layers == "all" or self.model.takes_no_steps
            of_statistics = all_layers and set(self.model.pooling.split("+")) <= _OF_STATISTICS
            if by_speaker and (self.model.state_mask or not of_statistics):
                raise ValueError(
                    "`normalisation=speaker` of an encoder is of means, sds and maxima: "
                    "`pooling=mean-sd` with `layers=all`, without `state_mask`"
                )
            for setting_name in _OF_LOG_MEL:
                if setting_name == "normalisation" and by_speaker:
                    continue
                default = type(features).model_fields[setting_name].default
                if getattr(features, setting_name) != architecture.defaults.get(setting_name, default):
                    raise ValueError(f"`{setting_name}` does nothing for `model={name}`, which makes its own features")
        if architecture.whole and self.model.trunk_lr_scale != 1.0:
            raise ValueError(f"`trunk_lr_scale` does nothing for `model={name}`, which has rates of its own")
        heard_once = f"`model={name}`" if architecture.fitted else ""
        for setting_name in ("tta_speed", "tta_shift"):
            if heard_once and getattr(features, setting_name):
                raise ValueError(f"`{setting_name}` does nothing for {heard_once}")
        if name == "encoder" and features.normalisation == "speaker" and (features.tta_speed or features.tta_shift):
            raise ValueError("`tta_speed` and `tta_shift` of an encoder exclude `normalisation=speaker`")
        if architecture.fitted:
            idle = (self.loss, self.optim, self.train, self.augment, self.model)
            self.refuse_steps(idle, f"model={name}", _FOR_EVERY_MODEL, architecture.defaults)
        return self

    @model_validator(mode="after")
    def _augmented_where_it_acts(self) -> AudioConfig:
        """What changes clips does nothing where their states are kept, and not all of it is an encoder's."""
        frozen = self.model.model == "encoder" and self.model.freeze_encoder
        if self.augment.speed_steps and self.augment.speed and not frozen:
            raise ValueError("`speed_steps` acts only together with `freeze_encoder`; elsewhere `speed` is drawn anew")
        if self.model.model != "encoder":
            return self
        changed = {name: getattr(self.augment, name) for name in _OF_WAVEFORMS}
        for name, value in changed.items():
            heard_once = name == "speed" and self.augment.speed_steps
            if value and self.model.freeze_encoder and not heard_once:
                raise ValueError(f"`{name}` acts only together with an encoder that learns, not `freeze_encoder`")
        if changed["freq_warp"]:
            raise ValueError("`freq_warp` does nothing for `model=encoder`, which makes its own features")
        if self.model.takes_no_steps:
            idle = (self.loss, self.optim, self.train, self.augment)
            self.refuse_steps(idle, f"head={self.model.head}", _FOR_EVERY_MODEL | _COPIES, self.own_defaults())
        return self

    def own_defaults(self) -> Mapping[str, Any]:
        """Settings, by name, whose default is another one for the architecture."""
        return _known(self.model.model).defaults


def _given(section: Any) -> Any:
    """The settings of a section that were given."""
    if isinstance(section, Section):
        return {name: getattr(section, name) for name in section.model_fields_set}
    return dict(section) if isinstance(section, Mapping) else section


def _known(model: Any) -> Architecture:
    """The architecture of that name; one that asks for nothing where there is none, which is found out elsewhere."""
    return MODELS[model] if isinstance(model, str) and model in MODELS else Architecture("")
