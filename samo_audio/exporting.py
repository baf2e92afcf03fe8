"""What exporting knows of networks over waveforms; see :class:`samo.deploy.exporter.Exporter`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from samo.deploy.exporter import ChannelGroup, CosineMatrix, ExportableEnsemble, reads_differently
from samo.encoders.pooling import valid_positions
from samo.errors import SettingsError
from samo.frontend import Frontend
from samo.prediction import Decoded
from samo.prediction.readings import SHARES, named
from samo.runs.ensemble_model import Ensemble
from samo.runs.run import ASSETS, Run
from samo.settings import Config
from samo.training.checkpoint import read_facts
from samo_audio.audio_io import read_segments
from samo_audio.audio_model import AudioModel
from samo_audio.config import AudioConfig, FeatureSettings
from samo_audio.dft import Turns
from samo_audio.frontend import AudioFrontend
from samo_audio.functionals import EgemapsFunctionals
from samo_audio.models.encoder import SpeechModel
from samo_audio.models.mobilenet import InvertedResidual, MobileNet, SqueezeExcitation
from samo_audio.models.panns import Panns
from samo_audio.models.resnet18 import ResNet18
from samo_audio.models.small_cnn import SmallCnn
from samo_audio.models.whole_clips import WholeClips
from samo_audio.several_readings import SeveralReadings
from samo_audio.speakers import ONE_BY_ONE, ONE_BY_ONE_HINT

__all__ = ["AudioExporter"]

# Inputs of each of several readings.
_OF_EACH = {"waveform": ("windows", "samples"), "lengths": ("windows",), SHARES: ("batch", "windows")}


class AudioExporter:
    """Networks over waveforms."""

    inputs: ClassVar[tuple[str, str]] = ("waveform", "lengths")
    kept_float: ClassVar[str] = r"^/(?:model/)?(?:members\.\d+/)?(?:features|channels|functionals|(?:body/)?extractor)/"

    program_axes: ClassVar[tuple[bool, bool]] = (True, False)

    @staticmethod
    def exportable(model: nn.Module) -> nn.Module:
        """A copy that makes its features by matrices.

        Raises:
            SettingsError: a program computes them, or they need to know the speakers of several clips.
        """
        made = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for module in made.modules():
            speakers = isinstance(module, SpeechModel) and module.settings.normalisation == "speaker"
            if speakers or (isinstance(module, AudioModel) and module.n_behind):
                raise SettingsError(ONE_BY_ONE, hint=ONE_BY_ONE_HINT)
            if isinstance(module, EgemapsFunctionals):
                raise SettingsError(
                    "`functional_set=egemaps` is computed by openSMILE, which no exported file can hold"
                )
            use_matrices = getattr(module, "use_matrices", None)
            if callable(use_matrices):
                use_matrices()
        exportable = _ExportableEnsemble(made) if reads_differently(made) else _Exportable(made)
        return exportable.eval().requires_grad_(False)

    @staticmethod
    def axes(model: nn.Module) -> Mapping[str, tuple[str, ...]]:
        """Of a batch of windows; of several readings of the windows of each, and of what they count in each clip."""
        if not reads_differently(model):
            return {"waveform": ("batch", "samples"), "lengths": ("batch",)}
        return {
            named(name, k): tuple(axis if axis == "batch" else named(axis, k) for axis in axes)
            for k in range(model.parts)
            for name, axes in _OF_EACH.items()
        }

    @staticmethod
    def example(config: Config, model: nn.Module) -> tuple[Tensor, ...]:
        """Noise, the second window half as long; of several readings a third window, of the first clip."""
        if not reads_differently(model):
            return _noise(cast(AudioConfig, config).features.window, (1.0, 0.5))
        shares = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
        windows = [_reader_of(model, k).window for k in range(model.parts)]
        return tuple(each for window in windows for each in (*_noise(window, (1.0, 0.5, 1.0)), shares))

    @staticmethod
    def reading(run: Run, config: Config) -> Mapping[str, Any]:
        """Sampling rate, window and trimming, and in which views windows are heard; of an ensemble that of each part.

        Raises:
            ModelFileError: what the run keeps of them is damaged.
        """
        several = SeveralReadings.load(run.path(ASSETS))
        if several is None:
            return _reading(cast(AudioConfig, config).features)
        about = read_facts(run.model_file).ensemble
        by_part = {member.reads: AudioConfig.build(member.settings) for member in about.members} if about else {}
        parts = [_reading(by_part[k].features) for k in range(len(several.parts))]
        return {"parts": parts, "window_s": several.window_s}

    @staticmethod
    def inputs_of(frontend: Frontend, ids: Sequence[str]) -> list[Any]:
        """Paths; of an item that is a part of its file that part, decoded and not trimmed."""
        manifest, sr = frontend.manifest, cast(AudioFrontend, frontend).sr
        items = [manifest.items[row] for row in manifest.rows(ids)]
        parts: dict[Path, list[int]] = {}
        for k, item in enumerate(items):
            if item.segment:
                parts.setdefault(manifest.path(item), []).append(k)
        given: list[Any] = [manifest.path(item) for item in items]
        for path, places in parts.items():
            segments = [segment for k in places if (segment := items[k].segment)]
            for k, clip in zip(places, read_segments(path, sr, segments), strict=True):
                given[k] = Decoded(clip.waveform, sr, clip.peak, clip.rms_db, clip.warnings)
        return given

    @staticmethod
    def quantisation(model: nn.Module) -> Literal["static", "dynamic"]:
        """Static for convolutions over a spectrogram, dynamic for encoders and the rest."""
        kinds = [type(module) for module in model.modules()]
        return "static" if AudioModel in kinds and SpeechModel not in kinds else "dynamic"

    @staticmethod
    def cosines(module: nn.Module) -> Sequence[CosineMatrix]:
        """Those of all Fourier transforms."""
        return [
            CosineMatrix(table, *used)
            for turns in module.modules()
            if isinstance(turns, Turns)
            for used in sorted(turns.used)
            for table in (turns.cosine, turns.sine)
        ]

    @staticmethod
    def channel_groups(model: nn.Module) -> Sequence[ChannelGroup]:
        """Channels between two layers of a network over a spectrogram; what a shortcut adds to stays whole.

        Raises:
            SettingsError: another model.
        """
        network = model.network if isinstance(model, AudioModel) else None
        if isinstance(network, SmallCnn):
            return _of_small_cnn(network)
        if isinstance(network, ResNet18):
            return _of_resnet(network)
        if isinstance(network, MobileNet):
            return _of_mobilenet(network)
        if isinstance(network, Panns):
            return _of_panns(network)
        raise SettingsError(
            "`prune` takes channels out of convolutions over a spectrogram, which this model is not made of",
            hint="models it works for: small-cnn, resnet18, mn04 to mn40, cnn6, cnn14",
        )


class _Exportable(nn.Module):
    """A model that takes two inputs and also gives what its network looks at."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, C) logits; of a network over a spectrogram also that, (B, bands, frames)."""
        # Behind the end lies silence anyway; some features do not look at lengths, and a file must take them.
        waveform = waveform * valid_positions(waveform.shape[1], lengths)
        if isinstance(self.model, AudioModel):
            pictures = self.model.pictures(waveform, lengths)
            return self.model.logits_of(pictures, lengths), pictures[:, 0]
        logits: Tensor = self.model(waveform, lengths)
        return logits


class _ExportableEnsemble(ExportableEnsemble):
    """Members' logits to windows are averaged over each clip, and then mixed."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__(ensemble, len(_OF_EACH))

    def reading(self, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """(N, T) windows, silent behind their ends, their (N,) lengths, and (B, N) what each counts in each clip."""
        waveform, lengths, shares = given
        return waveform * valid_positions(waveform.shape[1], lengths), lengths, shares

    def answered(self, member: nn.Module, given: Sequence[Tensor]) -> Tensor:
        """(B, C) logits of a member to clips."""
        waveform, lengths, shares = given
        return shares @ member(waveform, lengths).float()


def _reader_of(ensemble: Ensemble, part: int) -> WholeClips:
    """A member that reads a part."""
    return cast(WholeClips, ensemble.readers[ensemble.reads.index(part)])


def _noise(window: int, shares: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Windows of noise that fill these shares of their length, and their lengths."""
    lengths = torch.tensor([min(window, int(share * window) + 1) for share in shares])
    noise = 0.1 * torch.randn(len(shares), window, generator=torch.Generator().manual_seed(0))
    return noise * valid_positions(window, lengths), lengths


def _reading(features: FeatureSettings) -> dict[str, Any]:
    again = {name: value for name in ("tta_speed", "tta_shift") if (value := getattr(features, name))}
    return {"sr": features.sr, "window": features.window, "trim_db": features.trim_db, **again}


def _of_small_cnn(network: SmallCnn) -> list[ChannelGroup]:
    blocks: list[Any] = list(network.blocks)
    takers = [block[0] for block in blocks[1:]] + [network.head]
    if network.pooling is not None:  # the last layer reads several numbers of each of the last block's channels
        blocks, takers = blocks[:-1], takers[:-1]
    return [
        ChannelGroup(block[0], [layer for layer in block if isinstance(layer, nn.BatchNorm2d)], takers=[taker])
        for block, taker in zip(blocks, takers, strict=True)
    ]


def _of_resnet(network: ResNet18) -> list[ChannelGroup]:
    blocks: list[Any] = [
        block for layer in (network.layer1, network.layer2, network.layer3, network.layer4) for block in layer
    ]
    return [ChannelGroup(block.conv1, [block.bn1], takers=[block.conv2]) for block in blocks]


def _of_mobilenet(network: MobileNet) -> list[ChannelGroup]:
    groups = []
    for block in network.features:
        if not isinstance(block, InvertedResidual):
            continue
        layers: list[Any] = list(block.block)
        convolutions: list[Any] = [layer for layer in layers if isinstance(layer, nn.Sequential)]
        if len(convolutions) < 3:  # nothing is expanded: the block's own input is what is convolved
            continue
        expand, depthwise, project = convolutions
        gate = next((layer for layer in layers if isinstance(layer, SqueezeExcitation)), None)
        groups.append(
            ChannelGroup(
                expand[0],
                [expand[1], depthwise[1]],
                through=[depthwise[0]],
                takers=[project[0], *([gate.fc1] if gate else [])],
                gates=[gate.fc2] if gate else [],
            )
        )
    last: Any = network.features[-1]
    embedding: Any = network.embedding[0]
    groups.append(ChannelGroup(last[0], [last[1]], takers=[embedding]))
    groups.append(ChannelGroup(embedding, takers=[network.head]))
    return groups


def _of_panns(network: Panns) -> list[ChannelGroup]:
    pairs = []
    for number in range(1, network.n_blocks + 1):
        block: Any = network.get_submodule(f"conv_block{number}")
        pairs += [(block.conv1, block.bn1), *([(block.conv2, block.bn2)] if block.has_two else [])]
    takers = [convolution for convolution, _ in pairs[1:]] + [network.fc1]
    groups = [
        ChannelGroup(convolution, [norm], takers=[taker])
        for (convolution, norm), taker in zip(pairs, takers, strict=True)
    ]
    return [*groups, ChannelGroup(network.fc1, takers=[network.head])]
