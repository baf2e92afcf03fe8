"""Architectures with features, rates and defaults of their own, and those that are a whole model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from samo.errors import SettingsError
from samo.settings import resolve, stored_config
from samo.tasks import LabelSpace, Task
from samo.training.model import EmotionModel
from samo_audio import models
from samo_audio.config import AudioConfig, FeatureSettings, ModelSettings
from samo_audio.frontend import AudioFrontend
from samo_audio.models import MODELS, Architecture

SPACE = LabelSpace((Task("emotion", ("angry", "happy", "sad")),))
HERE = __name__


class Blocks(nn.Module):
    """The mean absolute sample of every 1,000, as one band."""

    def __init__(self, settings: FeatureSettings) -> None:
        super().__init__()
        self.sr = settings.sr

    def forward(self, waveforms: Tensor, lengths: Tensor, freq_scale: Tensor | None = None) -> Tensor:
        return nn.functional.avg_pool1d(waveforms.abs()[:, None], 1000)


class Mean(nn.Module):
    def __init__(self, n_columns: int) -> None:
        super().__init__()
        self.head = nn.Linear(1, n_columns)

    def forward(self, spectrogram: Tensor) -> Tensor:
        return self.head(spectrogram.mean(dim=(2, 3)))


def mean(settings: ModelSettings, n_columns: int) -> nn.Module:
    return Mean(n_columns)


class Whole(EmotionModel):
    def __init__(self, config: AudioConfig, space: LabelSpace, assets: Path | None) -> None:
        super().__init__()
        self.config, self.space, self.assets = config, space, assets
        self.head = nn.Linear(1, space.n_columns)

    def forward(self, inputs: Tensor, lengths: Tensor, draws: Any = None, mix: Any = None) -> Tensor:
        return self.head(inputs.mean(dim=1, keepdim=True))


@contextmanager
def registered(patch: pytest.MonkeyPatch, **facts: Any) -> Iterator[None]:
    """An architecture called ``tiny`` among SAMO's own."""
    with patch.context() as place:
        place.setitem(models._OWN, "tiny", Architecture(**facts))
        place.setattr(MODELS, "own", (*MODELS.own, "tiny"))
        yield


OWN = {"make": f"{HERE}:mean", "features": f"{HERE}:Blocks"}
DEFAULTS = {"sr": 16000, "duration": 1.0, "use_specaug": True, "specaug_freq": 3, "lr": 0.5, "epochs": 7}


def test_what_nobody_gave_takes_the_default_of_the_architecture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own.toml").write_text("epochs = 4")
    with registered(monkeypatch, **OWN, defaults=DEFAULTS):
        config = resolve("audio", "", tmp_path / "own.toml", {"model": "tiny", "lr": 0.25})
        flat = config.flat()
        assert {name: flat[name] for name in DEFAULTS} == {**DEFAULTS, "lr": 0.25, "epochs": 4}
        assert AudioConfig.build({"epochs": 30, "model": "tiny"}).train.epochs == 30
        # Others, and what an architecture says nothing of, keep theirs.
        assert AudioConfig.build({}).features.sr == 22050
        assert flat["batch_size"] == 32
        # A section that was made before counts like settings by name.
        made = AudioConfig(model=ModelSettings(model="tiny"), features=FeatureSettings(sr=8000))
        assert (made.features.sr, made.features.duration, made.train.epochs) == (8000, 1.0, 7)


def test_a_network_of_ones_own_has_the_defaults_it_always_had() -> None:
    """Those of SmallCNN were chosen for SmallCNN."""
    flat = AudioConfig.build({"model": "my_net:Net"}).flat()
    assert (flat["n_mels"], flat["epochs"], flat["patience"]) == (128, 30, 10)
    assert AudioConfig.build({"model": "my_net:Net", "epochs": 3}).train.epochs == 3


def test_stored_settings_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    with registered(monkeypatch, **OWN):
        stored = AudioConfig.build({"model": "tiny"}).stored()
    with registered(monkeypatch, **OWN, defaults=DEFAULTS):
        assert stored_config(stored).stored() == stored


def test_a_default_is_no_setting_that_somebody_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    with registered(monkeypatch, **OWN, defaults=DEFAULTS):
        assert not AudioConfig.build({"model": "tiny", "use_specaug": False}).augment.use_specaug
        with pytest.raises(SettingsError, match="`specaug_freq` acts only together with `use_specaug`"):
            AudioConfig.build({"model": "tiny", "use_specaug": False, "specaug_freq": 5})


def test_another_rate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with registered(monkeypatch, **OWN, rates=(16000, 32000)):
        assert AudioConfig.build({"model": "tiny", "sr": 32000}).features.sr == 32000
        with pytest.raises(SettingsError, match=r"^`sr` must be 16000 or 32000 with `model=tiny`, it is 22050$"):
            AudioConfig.build({"model": "tiny"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_mels", 96),
        ("n_fft", 512),
        ("win_length", 512),
        ("hop_length", 256),
        ("fmin", 20.0),
        ("fmax", 8000.0),
        ("mel_scale", "htk"),
        ("compression", "pcen"),
        ("normalisation", "train"),
    ],
)
def test_settings_of_the_log_mel_are_refused_where_they_do_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    message = f"^`{name}` does nothing for `model=tiny`, which makes its own features$"
    for facts in (OWN, {"make": f"{HERE}:Whole", "whole": True}):
        with registered(monkeypatch, **facts), pytest.raises(SettingsError, match=message):
            AudioConfig.build({"model": "tiny", name: value})
    AudioConfig.build({"model": "small-cnn", name: value})


def test_the_network_looks_at_its_own_features(monkeypatch: pytest.MonkeyPatch) -> None:
    with registered(monkeypatch, **OWN, defaults={"sr": 16000}):
        model = AudioFrontend.build_model(AudioConfig.build({"model": "tiny"}), SPACE)
        assert isinstance(model.features, Blocks)
        assert model.features.sr == 16000
        head = model.network.head
        nn.init.constant_(head.weight, 2.0)
        nn.init.constant_(head.bias, 1.0)
        waveforms = torch.tensor([[0.25, -0.75] * 2000, [0.5] * 4000])
        assert torch.allclose(model(waveforms, torch.tensor([4000, 4000])), torch.full((2, 3), 2.0))


def test_a_whole_model_gets_settings_space_and_assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with registered(monkeypatch, make=f"{HERE}:Whole", whole=True):
        config = AudioConfig.build({"model": "tiny", "dropout": 0.125, "weights": "w.pt", "noise": True})
        model = AudioFrontend.build_model(config, SPACE, tmp_path)
        assert isinstance(model, Whole)
        assert (model.space, model.assets, model.config.model.dropout) == (SPACE, tmp_path, 0.125)
        # A trained run's weights come from the run: what training starts from is not looked for.
        assert (model.config.model.weights, model.config.augment.noise) == ("", False)
        assert model(torch.ones(2, 100), torch.tensor([100, 100])).shape == (2, 3)
        # A model to train reads them itself.
        manifest: Any = SimpleNamespace(label_space=SPACE, group_noun="speaker")
        waveforms: Any = None
        new = AudioFrontend(config, manifest, waveforms).new_model()
        assert isinstance(new, Whole)
        assert (new.space, new.assets, new.config.model.weights) == (SPACE, None, "w.pt")
