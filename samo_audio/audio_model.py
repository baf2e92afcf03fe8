"""From waveform to logits: augmentation, log-mel features and a network as one module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samo.data.batch import Draws, Mix
from samo.errors import SettingsError
from samo.tasks import LabelSpace
from samo.training.model import EmotionModel
from samo_audio.augment import SpecAugment, WaveAugment, freq_scale
from samo_audio.config import AudioConfig
from samo_audio.deltas import Channels
from samo_audio.features import n_frames
from samo_audio.models import build_features, build_network, require_usable
from samo_audio.models.maps import MapNetwork
from samo_audio.models.start_weights import HEADS, load_network
from samo_audio.speakers import ONE_BY_ONE, ONE_BY_ONE_HINT, by_speaker

__all__ = ["AudioModel", "load_weights"]


class AudioModel(EmotionModel):
    """From waveform to logits: augmentation, log-mel features and network in one module."""

    def __init__(self, config: AudioConfig, space: LabelSpace, noise: np.ndarray | None = None) -> None:
        """Join the parts.

        Raises:
            SettingsError: an unknown model, or features too small for it.
        """
        super().__init__()
        require_usable(config.model, config.features)
        self.settings = config.augment
        # Behind each waveform, where a speaker's statistics come with it.
        self.n_behind = 2 * config.features.n_mels if by_speaker(config) else 0
        self.n_samples = config.features.window
        self.trunk_lr_scale = config.model.trunk_lr_scale
        self.wave_augment = WaveAugment(config.augment, config.features.sr, noise)
        self.features = build_features(config.model, config.features)
        self.spec_augment = SpecAugment(config.augment)
        self.channels = Channels(config.features)
        self.network = build_network(config.model, space.n_columns, 1 + config.features.deltas)
        self.hop_length = config.features.hop_length

    def lr_scale(self, name: str) -> float:
        """``trunk_lr_scale`` below the last layer, 1 in it."""
        return 1.0 if name.removeprefix("network.").startswith(HEADS) else self.trunk_lr_scale

    def forward(self, waveforms: Tensor, lengths: Tensor, draws: Draws | None = None, mix: Mix | None = None) -> Tensor:
        """Logits of a batch of waveforms.

        Args:
            waveforms: (B, T) float32 in about [-1, 1], zero-padded; with ``normalisation=speaker`` the mean and sd per
                band of each row's speaker lie behind its window.
            lengths: (B,) int64 valid samples.
            draws: random numbers for augmentation, used in training mode only.
            mix: how to mix the rows' spectrograms, used in training mode only.

        Returns:
            (B, C) logits.

        Raises:
            SettingsError: no statistics of the speaker come with a waveform that needs them.
        """
        pictures = self.pictures(waveforms, lengths, draws, mix)
        if self.training and mix is not None:  # as long as the longer of both
            lengths = torch.maximum(lengths[: len(mix.partner)], lengths[mix.partner])
        return self.logits_of(pictures, lengths)

    def logits_of(self, pictures: Tensor, lengths: Tensor) -> Tensor:
        """(B, C) logits of :meth:`pictures` and (B,) valid samples of the waveforms they were made of."""
        logits: Tensor
        if isinstance(self.network, MapNetwork) and self.network.pooling is not None:
            logits = self.network(pictures, n_frames(lengths, self.hop_length))
        else:
            logits = self.network(pictures)
        return logits

    def spectrograms(
        self, waveforms: Tensor, lengths: Tensor, draws: Draws | None = None, mix: Mix | None = None
    ) -> Tensor:
        """(B, n_mels, frames) what the network gets of waveforms, differences left out; see :meth:`forward`."""
        return self.pictures(waveforms, lengths, draws, mix)[:, 0]

    def pictures(
        self, waveforms: Tensor, lengths: Tensor, draws: Draws | None = None, mix: Mix | None = None
    ) -> Tensor:
        """(B, 1 + deltas, n_mels, frames) what the network gets of a batch of waveforms, see :meth:`forward`."""
        augmenting = self.training and draws is not None
        speaker = {}
        if self.n_behind:
            if waveforms.shape[1] != self.n_samples + self.n_behind:
                raise SettingsError(ONE_BY_ONE, hint=ONE_BY_ONE_HINT)
            speaker = {"speaker": waveforms[:, self.n_samples :].float()}
            waveforms = waveforms[:, : self.n_samples]
        # Powers span ten decades, more than reduced precision resolves: features stay in float32.
        with torch.autocast(waveforms.device.type, enabled=False):
            scale = None
            if augmenting:
                assert draws is not None
                waveforms = self.wave_augment(waveforms, lengths, draws)
                scale = freq_scale(self.settings, draws)
                scale = scale.to(waveforms.device) if scale is not None else None
            # Differences are those of the clip: a mask is no change of its sound.
            pictures: Tensor = self.channels(self.features(waveforms, lengths, scale, **speaker), lengths)
            if augmenting and self.settings.use_specaug:
                pictures = self.spec_augment(pictures, draws)
            if self.training and mix is not None:
                pictures = mix.apply(pictures)
        return pictures


def load_weights(path: Path, model: AudioModel) -> None:
    """Start a model's network from a file; see :func:`samo_audio.models.start_weights.load_network`.

    Raises:
        ModelFileError: nothing in the file fits.
    """
    load_network(path, model.network)
