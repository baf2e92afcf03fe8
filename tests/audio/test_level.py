"""How loud a recording is says nothing: in training, in evaluation, and in every way of predicting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_audio as tiny
import torch

from samo.evaluation.decision import Decision
from samo.prediction import Prediction, TrainedModel
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.tasks import LabelSpace, Task
from samo.training.setup import Setup
from samo.training.torch_network import TorchNetwork
from samo_audio import predictor
from samo_audio.audio_model import AudioModel
from samo_audio.config import AudioConfig
from samo_audio.frontend import AudioFrontend
from samo_audio.predictor import AudioPredictor

SR = tiny.SR
SPACE = LabelSpace((Task("emotion", tiny.LABELS),))
GAINS_DB = (-20.0, -10.0, 10.0, 20.0)


class Quiet:
    """Watches a training and says nothing."""

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Ignored."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Ignored."""


def sensitive(**values: Any) -> AudioPredictor:
    """An untrained model whose answers hang on little."""
    torch.manual_seed(1)
    config = tiny.config(**values)
    model = AudioModel(config, SPACE)
    with torch.no_grad():
        model.network.head.weight *= 50.0
    return AudioPredictor(TrainedModel(TorchNetwork(model, tiny.CPU), SPACE, Decision()), config.features)


def probabilities(found: list[Prediction]) -> np.ndarray:
    assert not any(prediction.error for prediction in found)
    return np.array([[prediction.probabilities[label] for label in tiny.LABELS] for prediction in found])


def amplified(clip: np.ndarray, db: float) -> np.ndarray:
    return clip * 10.0 ** (db / 20.0)


def quiet(seconds: float, label: str, seed: int) -> np.ndarray:
    """A sound at -34 dB that fades to -54 dB, so that its end meets the floor of the features."""
    clip = 0.2 * tiny.sound(seconds, label, seed)
    return clip * np.geomspace(1.0, 0.1, len(clip))


CLIPS = [quiet(0.3, "angry", 0), quiet(0.5, "happy", 1), quiet(1.3, "sad", 2)]


@pytest.mark.parametrize("db", GAINS_DB)
def test_arrays_files_and_streams(db: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, before = sensitive(), sensitive(level="as-is")
    plain = probabilities(list(ready.stream(CLIPS, sr=SR)))
    assert np.ptp(plain, axis=0).max() > 0.05
    louder = [amplified(clip, db) for clip in CLIPS]
    assert probabilities(list(ready.stream(louder, sr=SR))) == pytest.approx(plain, abs=1e-3)
    left = probabilities(list(before.stream(louder, sr=SR))) - probabilities(list(before.stream(CLIPS, sr=SR)))
    assert np.abs(left).max() > 0.01
    paths = [tiny.write(tmp_path / f"{k}.wav", clip, subtype="FLOAT") for k, clip in enumerate(louder)]
    assert probabilities(list(ready.stream(paths))) == pytest.approx(plain, abs=1e-3)
    monkeypatch.setattr(predictor, "STREAMED_S", 0.1)
    monkeypatch.setattr(predictor, "read", None)
    assert probabilities(list(ready.stream(paths))) == pytest.approx(plain, abs=2e-3)


def test_every_window_of_a_recording_has_a_level_of_its_own(tmp_path: Path) -> None:
    """A speaker who walks away from the microphone is answered alike."""
    clip = tiny.sound(0.5, "happy", 1)
    ready = sensitive()
    ready.timeline_s = 0.0
    (found,) = ready.stream([np.concatenate([clip, amplified(clip, -20.0)])], sr=SR)
    near, far = (np.array([window.probabilities[label] for label in tiny.LABELS]) for window in found.timeline)
    assert far == pytest.approx(near, abs=1e-3)


def test_silence_is_answered_with_numbers() -> None:
    for clip in (np.zeros(4000), np.zeros(900), np.full(4000, 1e-7)):
        (found,) = sensitive().stream([clip], sr=SR)
        assert np.isfinite(probabilities([found])).all()
        assert found.warnings == ("silent",)


def test_training_sees_one_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus recorded 20 dB lower trains the same network."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    states = []
    for name, db in (("plain", 0.0), ("low", -20.0)):
        monkeypatch.setattr(tiny, "sound", _recorded(tiny.sound, db) if db else tiny.sound)
        monkeypatch.setattr(tiny, "write", _as_float(tiny.write) if not states else tiny.write)
        table = tiny.corpus(tmp_path / name)
        run = Run(tmp_path / "runs" / name)
        train_run(run, Setup(tiny.frontend(table, epochs=2, normalisation="train"), tiny.CPU), Quiet())
        states.append(run.history)
    assert [row["train_loss"] for row in states[1]] == pytest.approx([row["train_loss"] for row in states[0]], rel=1e-3)


def _recorded(sound: Any, db: float) -> Any:
    return lambda *args, **kwargs: amplified(sound(*args, **kwargs), db)


def _as_float(write: Any) -> Any:
    return lambda path, samples, rate=SR: write(path, samples, rate, subtype="FLOAT")


@pytest.fixture(scope="module")
def trained(ravdess_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[AudioPredictor, list[np.ndarray]]:
    """A small network that learned three emotions from four real actors, and what two others say."""
    root = tmp_path_factory.mktemp("real")
    codes = {"angry": "05", "happy": "03", "sad": "04"}
    lines = ["path,label,speaker,split"]
    for actor in range(1, 7):
        part = "train" if actor < 5 else "val" if actor == 5 else "test"
        for label, code in codes.items():
            clips = sorted((ravdess_root / f"Actor_{actor:02d}").glob(f"03-01-{code}-02-*"))
            assert len(clips) == 4
            lines += [f"{clip},{label},a{actor},{part}" for clip in clips]
    (root / "table.csv").write_text("\n".join(lines))
    config = AudioConfig.build({
        "dataset": "table", "data_root": str(root / "table.csv"), "split": "table", "sr": 16_000, "n_mels": 32,
        "width": 8, "epochs": 12, "patience": 0, "batch_size": 4, "lr": 0.003,
    })  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(root / "cache"))
        frontend = AudioFrontend.open(config, lambda line: None)
        run = Run(root / "runs" / "real")
        train_run(run, Setup(frontend, tiny.CPU), Quiet())
    rows = np.concatenate([frontend.manifest.rows(run.split.part(part)) for part in ("val", "test")])
    return AudioPredictor.from_run(run, tiny.CPU), [frontend.waveforms.waveform(row).copy() for row in rows]


@pytest.mark.real
@pytest.mark.slow
def test_real_clips_keep_their_label_at_any_level(trained: tuple[AudioPredictor, list[np.ndarray]]) -> None:
    ready, clips = trained
    plain = list(ready.stream(clips, sr=16_000))
    shares = probabilities(plain)
    assert len(plain) == 24
    assert len({prediction.label for prediction in plain}) > 1
    for db in (-20.0, -6.0, 6.0, 20.0):
        found = list(ready.stream([amplified(clip, db) for clip in clips], sr=16_000))
        assert [prediction.label for prediction in found] == [prediction.label for prediction in plain]
        assert probabilities(found) == pytest.approx(shares, abs=2e-3)


@pytest.mark.real
@pytest.mark.slow
def test_real_clips_keep_their_label_with_silence_behind(trained: tuple[AudioPredictor, list[np.ndarray]]) -> None:
    ready, clips = trained
    plain = [prediction.label for prediction in ready.stream(clips, sr=16_000)]
    longer = [np.concatenate([clip, np.zeros(8_000, np.float32)]) for clip in clips]
    found = [prediction.label for prediction in ready.stream(longer, sr=16_000)]
    # Windows move, and the mean that is removed is that of more silence.
    assert sum(one != other for one, other in zip(found, plain, strict=True)) <= len(clips) // 5
