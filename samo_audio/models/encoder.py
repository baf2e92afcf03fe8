"""A pretrained encoder of speech under its pooling and head: from waveforms to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samo.data.batch import Draws, Mix
from samo.encoders.body import PretrainedBody
from samo.encoders.model import StatesModel, sequences_looked_at
from samo.encoders.pooling import LAST, pooling_parts, valid_positions
from samo.encoders.settings import EncoderSettings
from samo.errors import ModelFileError, SettingsError
from samo.tasks import LabelSpace
from samo.training.checkpoint import load_tensors
from samo.training.model import EmotionModel
from samo_audio.augment import SpecAugment, WaveAugment, read_noise
from samo_audio.config import AudioConfig
from samo_audio.extractors import StandardWaveform, WhisperMel, padded_to
from samo_audio.features import at_level
from samo_audio.models import MODELS
from samo_audio.models.pretrained import from_assets, is_whisper, load_pretrained
from samo_audio.speakers import ONE_BY_ONE, ONE_BY_ONE_HINT

__all__ = ["SpeechEncoder", "SpeechModel", "WaveformEncoder", "WhisperEncoder", "encoder"]

# Whisper's convolutions make one state of so many frames.
_FRAMES_PER_STATE = 2


class SpeechEncoder(PretrainedBody, ABC):
    """Frame states of a ``transformers`` encoder of speech, its feature extractor included.

    Attributes:
        facts: what decides the features, see :data:`samo_audio.extractors.FACTS`.
    """

    facts: dict[str, Any]

    @abstractmethod
    def features(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """What the network looks at, float32, of (B, T) float32 waveforms and (B,) valid samples."""

    @abstractmethod
    def encoded(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, T', H * k) states of :meth:`features`."""

    @abstractmethod
    def n_frames(self, lengths: Tensor) -> Tensor:
        """(B,) valid states of so many valid samples, 1 at least."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) waveforms and (B,) valid samples to (B, T', H * k) states."""
        return self.encoded(self.features(waveforms, lengths), lengths)


class WhisperEncoder(SpeechEncoder):
    """The encoder half of Whisper (Radford et al. 2023), its table of positions cut to the window.

    It has no mask: it hears the silence behind a short clip, so every window is padded to one length, and an item is
    answered alike whatever it shares a batch with.
    """

    def __init__(
        self, network: Any, facts: Mapping[str, Any], sequences: tuple[str, ...], settings: EncoderSettings, window: int
    ) -> None:
        """``window`` is the number of samples it sees at once.

        Raises:
            SettingsError: it has no positions for so many.
        """
        self._cut(network, window, int(facts["hop_length"]), int(facts["sampling_rate"]))
        super().__init__(network, sequences, settings)
        self.extractor, self.facts = WhisperMel(facts), dict(facts)

    @staticmethod
    def _cut(network: Any, window: int, hop_length: int, sr: int) -> None:
        step = hop_length * _FRAMES_PER_STATE
        n_positions, known = -(-window // step), network.embed_positions.num_embeddings
        if n_positions > known:
            raise SettingsError(
                f"`duration={window / sr:g}` is more than the {known * step / sr:g} s the encoder has positions for"
            )
        table = network.embed_positions.weight.detach()[:n_positions].clone()
        network.embed_positions = torch.nn.Embedding.from_pretrained(table, freeze=True)
        network.config.max_source_positions = network.max_source_positions = n_positions

    @property
    def _step(self) -> int:
        return self.extractor.hop_length * _FRAMES_PER_STATE

    def features(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) waveforms to (B, bands, frames) log-mel of the whole window."""
        whole = padded_to(waveforms, self.network.config.max_source_positions * self._step)
        found: Tensor = self.extractor(whole, lengths)
        return found

    def encoded(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, bands, frames) to (B, frames / 2, H * k)."""
        found = self.network(features, output_hidden_states=self.sequences != (LAST,))
        return self.looked_at(found.last_hidden_state, found.hidden_states)

    def n_frames(self, lengths: Tensor) -> Tensor:
        """One state for every 20 ms that begins within the clip."""
        return torch.div(lengths + self._step - 1, self._step, rounding_mode="floor").clamp(min=1)


class WaveformEncoder(SpeechEncoder):
    """wav2vec 2.0 (Baevski et al. 2020) and its kin: HuBERT, WavLM, data2vec-audio, UniSpeech.

    Those whose extractor gives a mask attend to the clip alone. The others were trained on zeros behind short clips and
    get them: every window is padded to one length.
    """

    def __init__(
        self, network: Any, facts: Mapping[str, Any], sequences: tuple[str, ...], settings: EncoderSettings, window: int
    ) -> None:
        """``window`` is the number of samples it sees at once.

        Raises:
            SettingsError: they do not make one state.
        """
        super().__init__(network, sequences, settings)
        self.extractor, self.facts = StandardWaveform(facts), dict(facts)
        self.masked = bool(facts.get("return_attention_mask", False))
        if int(network._get_feat_extract_output_lengths(torch.tensor(window))) < 1:
            raise SettingsError(f"`duration` of {window} samples is too short for the encoder's convolutions")

    def features(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) waveforms, at the level the encoder was trained with."""
        found: Tensor = self.extractor(waveforms, lengths)
        return found

    def encoded(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) to (B, T', H * k)."""
        # A mask without a position would leave nothing to attend to.
        heard = lengths.clamp(min=self._receptive_samples())
        mask = valid_positions(features.shape[1], heard).long() if self.masked else None
        found = self.network(features, attention_mask=mask, output_hidden_states=self.sequences != (LAST,))
        return self.looked_at(found.last_hidden_state, found.hidden_states)

    def n_frames(self, lengths: Tensor) -> Tensor:
        """As many as the convolutions make of the valid samples."""
        found: Tensor = self.network._get_feat_extract_output_lengths(lengths)
        return found.clamp(min=1)

    def _receptive_samples(self) -> int:
        """Samples of which the convolutions make one state."""
        samples = 1
        pairs = zip(self.network.config.conv_kernel, self.network.config.conv_stride, strict=True)
        for kernel, stride in reversed(list(pairs)):
            samples = (samples - 1) * stride + kernel
        return samples


class SpeechModel(StatesModel, EmotionModel):
    """From waveforms to logits: augmentation, level, feature extractor, encoder, pooling and head in one module."""

    body: SpeechEncoder

    def __init__(self, body: SpeechEncoder, parts: tuple[str, ...], space: LabelSpace, config: AudioConfig) -> None:
        """``parts`` are those of :func:`samo.encoders.pooling.pooling_parts`."""
        super().__init__(body, parts, space, config.model)
        noise, root = None, config.augment.noise_root
        if config.augment.noise and root:
            noise = read_noise(Path(root), config.features.sr)
        self.settings = config.features
        self.use_specaug = config.augment.use_specaug
        self.wave_augment = WaveAugment(config.augment, config.features.sr, noise)
        self.spec_augment = SpecAugment(config.augment)

    def states(self, inputs: Tensor, lengths: Tensor, draws: Draws | None = None) -> Tensor:
        """States of (B, T) float32 waveforms and (B,) valid samples; ``draws`` augment in training.

        Returns:
            (B, T', W).
        """
        augmenting = self.training and draws is not None
        # As in AudioModel: features stay in float32.
        with torch.autocast(inputs.device.type, enabled=False):
            if augmenting:
                assert draws is not None
                inputs = self.wave_augment(inputs, lengths, draws)
            features = self.body.features(at_level(inputs, self.settings), lengths)
            if augmenting and self.use_specaug:
                assert draws is not None
                middle = features.mean(dim=(1, 2), keepdim=True)
                features = self.spec_augment(features - middle, draws) + middle
        return self.body.encoded(features, lengths)

    def state_lengths(self, lengths: Tensor) -> Tensor:
        """(B,) valid states of (B,) valid samples."""
        return self.body.n_frames(lengths)

    def forward(self, inputs: Tensor, lengths: Tensor, draws: Draws | None = None, mix: Mix | None = None) -> Tensor:
        """Logits of a batch.

        Args:
            inputs: (B, T) float32 waveforms, zero-padded; or what was kept of a frozen encoder.
            lengths: (B,) int64 valid samples, or valid states.
            draws: random numbers for augmentation, used in training mode only.
            mix: how to mix the rows' pooled embeddings, used in training mode only.

        Returns:
            (B, C) logits; in training with several dropout samples (S, B, C).

        Raises:
            SettingsError: waveforms, where what is kept of them is to be centred by speaker.
        """
        if self.settings.normalisation == "speaker" and not self.is_kept(inputs):
            raise SettingsError(ONE_BY_ONE, hint=ONE_BY_ONE_HINT)
        if draws is None or self.is_kept(inputs):
            return super().forward(inputs, lengths, None, mix)
        pooled = self.pooling(self.states(inputs, lengths, draws), self.state_lengths(lengths))
        return self.answered(pooled, mix)

    def start_from(self, path: Path) -> None:
        """Take the encoder and the pooling from the weights of another run; the head may differ.

        Raises:
            ModelFileError: they are not of this encoder and window.
        """
        own, given = self.state_dict(), load_tensors(path)
        wanted = [name for name in own if name.startswith("body.")]
        fitting = {name: t for name, t in given.items() if name in own and own[name].shape == t.shape}
        missing = [name for name in wanted if name not in fitting]
        if missing:
            raise ModelFileError(
                f"{path}: {len(missing)} of {len(wanted)} tensors of the encoder are missing or of another shape,"
                f" for example {missing[0]}",
                hint="the file must come from a run with the same `encoder` and `duration`",
            )
        self.load_state_dict(fitting, strict=False)


def encoder(config: AudioConfig, space: LabelSpace, assets: Path | None) -> SpeechModel:
    """A pretrained encoder under its pooling and head.

    Args:
        config: an audio run's settings.
        space: which columns of the logits mean what.
        assets: a run's folder with the encoder's sizes and its extractor's: built from them, its weights are left for
            the run's own file to fill. None: start weights are read from ``encoder``.

    Raises:
        SettingsError: a rate the encoder does not take, a window longer than it has positions for, or augmentation of
            a spectrogram it does not look at.
        ModelFileError, EnvironmentProblem: see :func:`samo_audio.models.pretrained.load_pretrained`.
    """
    settings, features = config.model, config.features
    parts = pooling_parts(settings.pooling, MODELS["encoder"])
    network, facts = load_pretrained(settings.encoder) if assets is None else from_assets(assets)
    rate = int(facts["sampling_rate"])
    if features.sr != rate:
        raise SettingsError(f"`encoder={settings.encoder}` takes `sr={rate}`, not {features.sr}")
    whisper = is_whisper(network.config)
    if config.augment.use_specaug and not whisper:
        raise SettingsError(f"`use_specaug`: `encoder={settings.encoder}` looks at no spectrogram; `state_mask` masks")
    made = WhisperEncoder if whisper else WaveformEncoder
    body = made(network, facts, sequences_looked_at(parts, settings), settings, features.window)
    model = SpeechModel(body, parts, space, config)
    if assets is None and settings.weights:
        model.start_from(Path(settings.weights))
    return model
