"""mn04 to mn40 and PANNs: their features against a reference, their published weights, their indifference to level."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import librosa
import numpy as np
import pytest
import tiny_audio as tiny
import torch
from file_server import Server
from torch import Tensor, nn

from samo.data.download import RemoteFile
from samo.errors import DataError, EnvironmentProblem, ModelFileError, SettingsError
from samo.tasks import LabelSpace, Task
from samo_audio.audio_io import read
from samo_audio.audio_model import AudioModel
from samo_audio.config import AudioConfig, FeatureSettings, ModelSettings
from samo_audio.frontend import AudioFrontend
from samo_audio.models import build_features, build_network, mobilenet, panns
from samo_audio.models.mobilenet import MobileNet
from samo_audio.models.panns import Panns
from samo_audio.models.start_weights import load_network

SR = 32_000
SPACE = LabelSpace((Task("emotion", tiny.LABELS),))
MADE = {"mn04": mobilenet, "cnn6": panns}


def features(name: str, **values: Any) -> tuple[nn.Module, FeatureSettings]:
    config = AudioConfig.build({"model": name, **values})
    return build_features(config.model, config.features), config.features


def noise(n: int = 16_000, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def seen(module: nn.Module, samples: np.ndarray, **more: Any) -> np.ndarray:
    found: Tensor = module(torch.from_numpy(samples)[None], torch.tensor([len(samples)]), **more)
    return found[0].numpy()


# Features


def kaldi_mel(samples: np.ndarray) -> np.ndarray:
    """EfficientAT's features in float64, frame by frame, from the formulas."""
    x = samples.astype(np.float64)
    x = x[1:] - 0.97 * x[:-1]
    x = np.pad(x, 512, mode="reflect")
    window = np.zeros(1024)
    window[112:912] = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(800) / 799.0)
    frames = [x[start : start + 1024] * window for start in range(0, len(x) - 1023, 320)]
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    mel = 1127.0 * np.log(1.0 + np.arange(513) * 31.25 / 700.0)
    edges = np.linspace(0.0, 1127.0 * np.log(1.0 + 15_000.0 / 700.0), 130)
    rise = (mel[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - mel[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rise, fall))
    filters[:, 512] = 0.0
    return (np.log(filters @ power.T + 1e-5) + 4.5) / 5.0


def test_the_features_of_mn04_are_efficientats() -> None:
    module, _ = features("mn04", level="as-is")
    samples = noise()
    found, wanted = seen(module, samples), kaldi_mel(samples)
    assert found.shape == wanted.shape == (128, 50)
    assert np.abs(found - wanted).max() < 2e-4


def test_the_features_of_cnn6_are_those_of_panns() -> None:
    """A mel spectrogram by librosa in dB, as PANNs' authors made it, centred to (dB + 30) / 20."""
    module, _ = features("cnn6", level="as-is")
    samples = noise()
    mel = librosa.feature.melspectrogram(
        y=samples.astype(np.float64), sr=SR, n_fft=1024, hop_length=320, window="hann", center=True,
        pad_mode="reflect", power=2.0, n_mels=64, fmin=50.0, fmax=14_000.0,
    )  # fmt: skip
    found, wanted = seen(module, samples), (10.0 * np.log10(np.maximum(mel, 1e-10)) + 30.0) / 20.0
    assert found.shape == wanted.shape == (64, 51)
    assert np.abs(found - wanted).max() < 2e-4


def test_panns_normalise_decibels_by_band() -> None:
    """The first batch norm is learned on decibels: with the statistics of the data its output has mean 0 and sd 1."""
    torch.manual_seed(0)
    network = Panns(3, (4, 4), 5, 2, 0.0)
    decibels = -50.0 + 10.0 * torch.randn(4, 64, 200) + torch.arange(64.0)[None, :, None]
    network.bn0.running_mean.copy_(decibels.mean(dim=(0, 2)))
    network.bn0.running_var.copy_(decibels.var(dim=(0, 2)))
    caught: list[Tensor] = []
    network.conv_block1.register_forward_pre_hook(lambda module, given: caught.append(given[0]))
    network.eval()(((decibels + 30.0) / 20.0)[:, None])
    # Frames come before bands in PANNs.
    assert caught[0].shape == (4, 1, 200, 64)
    assert caught[0].mean(dim=(0, 1, 2)).abs().max() < 1e-3
    assert (caught[0].std(dim=(0, 1, 2)) - 1.0).abs().max() < 1e-2


def test_panns_by_hand() -> None:
    """As their paper has them: blocks halved but for Cnn14's last, bands averaged, maximum and mean of the frames."""
    for kernel, halved, channels in ((3, 2, (4, 6, 8)), (5, 2, (4, 6))):
        torch.manual_seed(0)
        network = Panns(3, channels, kernel, halved, 0.5, n_bands=16).eval()
        state = {name: tensor.uniform_(0.2, 1.0) for name, tensor in network.state_dict().items() if tensor.ndim}
        x = torch.randn(2, 1, 16, 20)

        def norm(maps: Tensor, name: str, state: dict[str, Tensor] = state) -> Tensor:
            mean, var, weight, bias = (
                state[f"{name}.{part}"][None, :, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            return (maps - mean) / (var + 1e-5).sqrt() * weight + bias

        maps = norm((x * 20.0 - 30.0).permute(0, 2, 3, 1), "bn0").permute(0, 3, 2, 1)
        for number in range(1, len(channels) + 1):
            for layer in (1, 2) if kernel == 3 else (1,):
                name = f"conv_block{number}"
                maps = nn.functional.conv2d(maps, state[f"{name}.conv{layer}.weight"], padding=kernel // 2)
                maps = norm(maps, f"{name}.bn{layer}").clamp(min=0.0)
            if number <= halved:
                n, c, h, w = maps.shape
                maps = maps[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).mean(dim=(3, 5))
        frames = maps.mean(dim=3)
        hidden = (frames.max(dim=2).values + frames.mean(dim=2)) @ state["fc1.weight"].T + state["fc1.bias"]
        wanted = hidden.clamp(min=0.0) @ state["head.weight"].T + state["head.bias"]
        with torch.no_grad():
            torch.testing.assert_close(network(x), wanted, rtol=1e-4, atol=1e-3)


def test_the_blocks_of_mn04_are_efficientats() -> None:
    """What torchvision's MobileNetV3 has otherwise: one channel, sigmoid gates, a slow batch norm of its own eps."""
    network = build_network(ModelSettings(model="mn04", dropout=0.25), 3)
    assert isinstance(network, MobileNet)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    gates = [module for module in network.modules() if type(module).__name__ == "SqueezeExcitation"]
    assert len(gates) == 8
    assert {type(gate.scale_activation) for gate in gates} == {nn.Sigmoid}
    first, *_ = network.features[0]
    assert (first.in_channels, first.stride, first.padding) == (1, (2, 2), (1, 1))
    embedding, act = network.embedding
    assert (embedding.in_features, embedding.out_features, type(act)) == (384, 512, nn.Hardswish)
    # Bands and frames are averaged, and nothing else.
    maps, caught = torch.randn(2, 384, 4, 3), []
    network.features.register_forward_hook(lambda module, given, found: maps)
    network.embedding.register_forward_pre_hook(lambda module, given: caught.append(given[0]))
    network.eval()(torch.randn(2, 1, 128, 90))
    torch.testing.assert_close(caught[0], maps.flatten(2).mean(dim=2))


@pytest.mark.parametrize("name", MADE)
def test_silence_behind_a_clip_is_silence(name: str) -> None:
    module, _ = features(name)
    samples = np.concatenate([noise(8000), np.zeros(8000, np.float32)])
    found = seen(module, samples)
    silent = {"mn04": (np.log(1e-5) + 4.5) / 5.0, "cnn6": (-100.0 + 30.0) / 20.0}[name]
    assert np.allclose(found[:, 30:], silent, atol=1e-4)
    assert (found[:, :20] > silent + 0.5).mean() > 0.95


@pytest.mark.parametrize("name", MADE)
def test_a_frequency_factor_moves_a_tone(name: str) -> None:
    module, _ = features(name)
    tone = (0.1 * np.sin(2 * np.pi * 2000.0 * np.arange(16_000) / SR)).astype(np.float32)
    lower = (0.1 * np.sin(2 * np.pi * 1600.0 * np.arange(16_000) / SR)).astype(np.float32)
    peak = seen(module, tone)[:, 25].argmax()
    moved = seen(module, tone, freq_scale=torch.tensor([1.25]))[:, 25].argmax()
    assert moved == seen(module, lower)[:, 25].argmax() < peak


# Level


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("gain_db", [-20.0, 20.0])
def test_the_level_of_a_recording_says_nothing(name: str, gain_db: float) -> None:
    torch.manual_seed(0)
    clips = np.stack([tiny.sound(0.5, label, 1, SR) for label in tiny.LABELS]).astype(np.float32)
    clips[1] *= 0.05
    lengths = torch.full((3,), clips.shape[1])
    changed = torch.from_numpy(clips * np.float32(10.0 ** (gain_db / 20.0)))
    for level, alike in (("active", True), ("as-is", False)):
        config = AudioConfig.build({"model": name, "level": level, "duration": 0.5})
        model = AudioModel(config, SPACE).eval()
        one, other = model.features(torch.from_numpy(clips), lengths), model.features(changed, lengths)
        assert torch.allclose(one, other, atol=1e-3) == alike
        if alike:
            with torch.no_grad():
                assert torch.equal(model(torch.from_numpy(clips), lengths).argmax(1), model(changed, lengths).argmax(1))


def test_sounding_parts_are_brought_to_minus_23_db() -> None:
    """White noise of one level all along: its active level is its level, so that -23 dB in gives the same as as-is."""
    samples = noise(32_000)
    samples *= 10.0 ** (-23.0 / 20.0) / np.sqrt((samples.astype(np.float64) ** 2).mean())
    levelled, plain = seen(features("mn04")[0], samples), seen(features("mn04", level="as-is")[0], samples)
    # The power of frames of 40 ms varies by chance, and the loud ones count more: 0.05 dB.
    assert np.abs(levelled - plain).mean() < 0.01


# Settings that fit, and those that do not


def test_the_settings_describe_the_features() -> None:
    for name, wanted in {
        "mn04": {"sr": 32_000, "n_mels": 128, "n_fft": 1024, "win_length": 800, "hop_length": 320, "fmax": 15_000.0},
        "cnn14": {"sr": 32_000, "n_mels": 64, "n_fft": 1024, "win_length": 0, "hop_length": 320, "fmin": 50.0},
    }.items():
        flat = AudioConfig.build({"model": name}).flat()
        assert {key: flat[key] for key in wanted} == wanted
    with pytest.raises(SettingsError, match="`hop_length` does nothing for `model=mn04`, which makes its own features"):
        AudioConfig.build({"model": "mn04", "hop_length": 512})
    with pytest.raises(SettingsError, match="`sr` must be 32000 with `model=cnn6`, it is 16000"):
        AudioConfig.build({"model": "cnn6", "sr": 16_000})


# Published weights


def efficientat(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network as EfficientAT's files name and shape them, with 527 labels."""
    found = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if parts[-2] in ("fc1", "fc2"):
            parts[-2:-2] = ["conc_se_layers", "0"]
            tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor
        name = ".".join(parts).replace("embedding.0", "classifier.2").replace("head", "classifier.5")
        found[name] = tensor
    return found


def panns_file(network: nn.Module) -> dict[str, Any]:
    """The same as PANNs' files: filters among the tensors, and all of them under ``model``."""
    named = {name.replace("head.", "fc_audioset."): tensor for name, tensor in network.state_dict().items()}
    return {"iteration": 7, "model": {"spectrogram_extractor.stft.conv_real.weight": torch.ones(3, 1, 2), **named}}


def random_network(name: str, n_columns: int = 527) -> nn.Module:
    torch.manual_seed(9)
    network = build_network(ModelSettings(model=name), n_columns)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return network


PUBLISHED: dict[str, Callable[[nn.Module], dict[str, Any]]] = {"mn04": efficientat, "cnn6": panns_file}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "www").mkdir()
    found = Server(tmp_path / "www")
    yield found
    found.stop()


def publish(name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **facts: Any) -> nn.Module:
    """Put random weights where the published ones would be downloaded from, and give the network that has them."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    network = random_network(name)
    torch.save(PUBLISHED[name](network), path := tmp_path / "www" / "weights.pt")
    file = RemoteFile(
        "weights.pt",
        (f"{server.root}/weights.pt",),
        path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    monkeypatch.setitem(MADE[name].PUBLISHED, name, replace(file, **facts))
    return network


@pytest.mark.parametrize("name", MADE)
def test_pretrained_weights_are_downloaded_once(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = publish(name, server, tmp_path, monkeypatch).state_dict()
    for _ in range(2):
        torch.manual_seed(1)
        found = build_network(ModelSettings(model=name, pretrained=True), 3).state_dict()
        for label, tensor in given.items():
            if not label.startswith("head."):
                assert torch.equal(found[label], tensor), label
        assert found["head.weight"].shape[0] == 3
    assert server.asked == ["/weights.pt"]
    AudioFrontend.build_model(AudioConfig.build({"model": name, "pretrained": True}), SPACE)
    assert server.asked == ["/weights.pt"]


def test_given_weights_make_a_download_needless(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = publish("mn04", server, tmp_path, monkeypatch)
    config = AudioConfig.build({"model": "mn04", "pretrained": True, "weights": str(tmp_path / "www" / "weights.pt")})
    manifest: Any = SimpleNamespace(label_space=SPACE, group_noun="speaker")
    waveforms: Any = None
    model = AudioFrontend(config, manifest, waveforms).new_model()
    assert isinstance(model, AudioModel)
    found = model.network.state_dict()
    assert all(torch.equal(found[k], tensor) for k, tensor in given.state_dict().items() if not k.startswith("head."))
    assert server.asked == []


def test_another_file_than_the_published_one_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("mn04", server, tmp_path, monkeypatch, sha256="0" * 64)
    with pytest.raises(DataError, match="has sha256"):
        build_network(ModelSettings(model="mn04", pretrained=True), 3)
    assert list((tmp_path / "cache" / "weights").iterdir()) == []


def test_offline_says_what_else_can_be_done(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("mn04", server, tmp_path, monkeypatch, urls=("http://127.0.0.1:1/weights.pt",))
    with pytest.raises(EnvironmentProblem, match=r"cannot reach 127\.0\.0\.1") as caught:
        build_network(ModelSettings(model="mn04", pretrained=True), 3)
    assert caught.value.hint.endswith("or give it with `weights=FILE`")


def test_weights_without_a_known_checksum_are_not_downloaded() -> None:
    with pytest.raises(SettingsError, match="`pretrained` acts only together with `model="):
        AudioConfig.build({"model": "mn40", "pretrained": True})


def test_a_file_of_another_width_is_refused(tmp_path: Path) -> None:
    torch.save(efficientat(MobileNet(527, 0.1)), tmp_path / "mn01.pt")
    with pytest.raises(ModelFileError, match="tensors of the network are missing or of another shape"):
        load_network(tmp_path / "mn01.pt", MobileNet(3, 0.4))


def test_weights_that_were_trained_here_keep_their_names(tmp_path: Path) -> None:
    for name in MADE:
        network = random_network(name, 3)
        torch.save(network.state_dict(), tmp_path / "own.pt")
        load_network(tmp_path / "own.pt", other := build_network(ModelSettings(model=name), 3))
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


@pytest.mark.real
def test_a_ravdess_clip_is_speech_to_audioset(ravdess_root: Path) -> None:
    """AudioSet's first class is Speech: features and weights fit each other."""
    weights = ravdess_root.parents[1] / "models" / "mn04_as_mAP_432.pt"
    if not weights.is_file():
        pytest.skip(f"no {weights}")
    network = build_network(ModelSettings(model="mn04"), 527).eval()
    load_network(weights, network)
    module, _ = features("mn04")
    clip = next(ravdess_root.rglob("03-01-05-01-01-01-08.*"))
    samples = read(clip, SR).waveform
    with torch.no_grad():
        for gain_db in (-20.0, 0.0, 20.0):
            spectrogram = seen(module, samples * np.float32(10.0 ** (gain_db / 20.0)))
            scores = network(torch.from_numpy(spectrogram)[None, None]).sigmoid()[0]
            assert scores.argmax() == 0
            assert scores[0] > 0.8
