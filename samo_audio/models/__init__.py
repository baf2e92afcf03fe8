"""Spectrogram networks. A line in ``_OWN`` adds one; networks of one's own need none, see :mod:`samo.plugins`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samo.errors import SettingsError
from samo.lazy import load_object
from samo.plugins import Plugin, Registry

if TYPE_CHECKING:
    from torch import nn

    from samo.tasks import LabelSpace
    from samo.training.model import EmotionModel
    from samo_audio.config import AudioConfig, FeatureSettings, ModelSettings

__all__ = [
    "MODELS", "Architecture", "build_features", "build_network", "build_whole", "map_pooling_parts", "require_usable",
]  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """Where a network is made, what it looks at, and the least it can look at.

    Attributes:
        make: ``"module:function"``, so that listing the models imports none of them. The function maps
            (:class:`ModelSettings`, number of columns) to a network over (B, 1, bands, frames).
        smallest: fewest mel bands, and fewest frames, of which its pooling leaves something.
        plugin: the code it is, where it does not come with SAMO.
        features: ``"module:function"`` that maps :class:`FeatureSettings` to a module with the ``forward`` of
            :class:`samo_audio.features.LogMel`; empty = that one.
        whole: ``make`` maps (:class:`AudioConfig`, label space, a run's assets or None) to an
            :class:`samo.training.model.EmotionModel` over waveforms and lengths. Without assets it reads start weights
            itself, ``weights`` among them.
        defaults: settings, by name, whose default is another one for this architecture.
        rates: the only sampling rates in Hz it takes; empty = any.
        pooling: what ``pooling=auto`` stands for; empty for a model that pools nothing by that setting.
        has_layers: whether it is a stack of layers, the last four of which can be averaged.
        map_bands: of so many mel bands, those that its maps have before they are pooled, where ``pooling`` and
            ``frequency_bins`` say how; None: they say nothing to it.
        fitted: it is found in closed form and takes no steps, so that settings of training do nothing.
    """

    make: str
    smallest: int = 1
    plugin: Plugin | None = None
    features: str = ""
    whole: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    rates: tuple[int, ...] = ()
    fitted: bool = False
    pooling: str = ""
    has_layers: bool = False
    map_bands: Callable[[int], int] | None = None

    @property
    def has_log_mel(self) -> bool:
        """Whether it looks at the spectrogram that the settings describe."""
        return not (self.features or self.whole)


# The defaults of speech are those of SmallCNN; the others are trained for as long as they were measured.
_SHORTER = {"epochs": 30, "patience": 10}
# What does nothing to a whole model stays at the value that stands with its runs.
_IDLE = {"n_mels": 128} | _SHORTER
# Of EfficientAT and of PANNs: the log-mel spectrogram that their features are, by the settings that describe one.
_KALDI_MEL = {
    "sr": 32_000, "n_mels": 128, "n_fft": 1024, "win_length": 800, "hop_length": 320, "fmax": 15_000.0,
    "mel_scale": "htk", "normalisation": "fixed",
}  # fmt: skip
_PANNS_MEL = {
    "sr": 32_000, "n_mels": 64, "n_fft": 1024, "hop_length": 320, "fmin": 50.0, "fmax": 14_000.0,
    "normalisation": "fixed",
}  # fmt: skip


def _mobilenet(name: str) -> Architecture:
    module = "samo_audio.models.mobilenet"
    return Architecture(
        f"{module}:{name}", features=f"{module}:KaldiMel", defaults=_KALDI_MEL | _SHORTER, rates=(32_000,)
    )


def _panns(name: str, smallest: int) -> Architecture:
    module = "samo_audio.models.panns"
    return Architecture(
        f"{module}:{name}", smallest, features=f"{module}:PannsMel", defaults=_PANNS_MEL | _SHORTER, rates=(32_000,)
    )


_OWN = {
    "small-cnn": Architecture(
        "samo_audio.models.small_cnn:small_cnn", smallest=16, map_bands=lambda n_mels: n_mels // 16
    ),
    "resnet18": Architecture(
        "samo_audio.models.resnet18:resnet18",
        defaults={"n_mels": 128} | _SHORTER,
        map_bands=lambda n_mels: -(-n_mels // 32),
    ),
    # Six seconds hold every clip of the usual corpora whole; longer recordings are seen through several windows.
    "encoder": Architecture(
        "samo_audio.models.encoder:encoder",
        whole=True,
        defaults={"sr": 16_000, "duration": 6.0, "level": "peak"} | _IDLE,
        rates=(16_000,),
        pooling="mean-sd",
        has_layers=True,
    ),
    **{name: _mobilenet(name) for name in ("mn04", "mn05", "mn10", "mn20", "mn30", "mn40")},
    "cnn6": _panns("cnn6", 16),
    "cnn14": _panns("cnn14", 32),
    "functionals": Architecture(
        "samo_audio.models.functionals:functionals", whole=True, fitted=True, defaults={"duration": 10.0} | _IDLE
    ),
}
MODELS = Registry(
    "model",
    "audio",
    _OWN,
    _OWN.__getitem__,
    lambda plugin: Architecture(plugin.target, plugin=plugin, defaults={"n_mels": 128} | _SHORTER),
)


def require_usable(settings: ModelSettings, features: FeatureSettings) -> None:
    """Refuse a model that does not exist or cannot be imported, or features too small for it.

    Raises:
        SettingsError: with the valid choices, or the settings to change.
    """
    architecture = _architecture(settings.model)
    if architecture.plugin:
        architecture.plugin.load()
    if architecture.pooling:
        from samo.encoders.pooling import pooling_parts

        pooling_parts(settings.pooling, architecture)
    if architecture.map_bands is not None:
        map_pooling_parts(settings.pooling)
        n_bands = architecture.map_bands(features.n_mels)
        if settings.frequency_bins > max(1, n_bands):
            raise SettingsError(
                f"`frequency_bins={settings.frequency_bins}`: of {features.n_mels} mel bands `model={settings.model}`"
                f" leaves {n_bands} to keep apart"
            )
    smallest = architecture.smallest
    if features.n_mels < smallest:
        raise SettingsError(
            f"`model={settings.model}` needs at least {smallest} mel bands, `n_mels` is {features.n_mels}"
        )
    if features.frames < smallest:
        raise SettingsError(
            f"`model={settings.model}` needs at least {smallest} frames, `duration` and `hop_length` give"
            f" {features.frames}",
            hint="a longer `duration` or a shorter `hop_length` gives more",
        )


def map_pooling_parts(pooling: str) -> tuple[str, ...]:
    """The parts that ``pooling`` names of a network over a spectrogram; ``()`` for ``auto``, its own rule.

    Raises:
        SettingsError: an unknown name, a part named twice, or one that only an encoder has.
    """
    from samo.encoders.pooling import pooling_parts

    if pooling == "auto":
        return ()
    parts = pooling_parts(pooling, replace(MODELS["small-cnn"], pooling="mean"))
    if "cls" in parts:
        raise SettingsError(
            "`pooling=cls` acts only together with `model=encoder`, whose first state tells of the rest"
        )
    return parts


def build_network(settings: ModelSettings, n_columns: int, channels: int = 1) -> nn.Module:
    """Build a network that maps (B, channels, bands, frames) to (B, n_columns) logits.

    Raises:
        SettingsError: the model is not in :data:`MODELS`, a plug-in that makes no network, or one for several channels.
    """
    architecture = _architecture(settings.model)
    make: Callable[[ModelSettings, int], nn.Module]
    if architecture.plugin is None:
        make = load_object(architecture.make)
        network = make(settings, n_columns)
        return network if channels == 1 else load_object("samo_audio.models.stem:widened")(network, channels)
    if channels > 1:
        raise SettingsError("`deltas` gives further channels, which a network of one's own does not know of")
    from torch import nn

    return architecture.plugin.made(nn.Module, settings, n_columns)


def build_features(settings: ModelSettings, features: FeatureSettings) -> nn.Module:
    """Build what the network looks at: (B, T) waveforms and (B,) lengths to (B, bands, frames).

    Raises:
        SettingsError: the model is not in :data:`MODELS`, or no mel filter reaches a bin of the FFT.
    """
    make = load_object(_architecture(settings.model).features or "samo_audio.features:LogMel")
    module: nn.Module = make(features)
    return module


def build_whole(config: AudioConfig, space: LabelSpace, assets: Path | None = None) -> EmotionModel | None:
    """Build a model that goes from waveforms to logits by itself; None where the architecture is a network.

    Raises:
        SettingsError: the model is not in :data:`MODELS`.
    """
    architecture = _architecture(config.model.model)
    if not architecture.whole:
        return None
    make: Callable[[AudioConfig, LabelSpace, Path | None], EmotionModel] = load_object(architecture.make)
    return make(config, space, assets)


def _architecture(name: str) -> Architecture:
    if name not in MODELS:
        raise MODELS.unknown(name)
    return MODELS[name]
