"""A run answers with the temperature it was judged with, and every window of a long recording too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_audio as tiny

from samo.evaluation.calibration import Calibration
from samo.evaluation.decision import Decision
from samo.prediction import Prediction, TrainedModel
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.tasks import LabelSpace, Task
from samo.training.setup import Setup
from samo.training.torch_network import TorchNetwork
from samo_audio.audio_model import AudioModel
from samo_audio.predictor import AudioPredictor

SPACE = LabelSpace((Task("mood", tiny.LABELS),))


def shares(prediction: Prediction) -> list[np.ndarray]:
    """Log probabilities of the clip and of each of its windows."""
    rows = [prediction.probabilities, *(stretch.probabilities for stretch in prediction.timeline)]
    return [np.log([row[label] for label in tiny.LABELS]) for row in rows]


def test_a_temperature_changes_shares_and_no_label(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "long.wav", np.concatenate([tiny.sound(2.0, label) for label in tiny.LABELS * 2]))
    model, features = AudioModel(tiny.config(), SPACE), tiny.config().features
    plain = AudioPredictor(TrainedModel(TorchNetwork(model, tiny.CPU), SPACE, Decision()), features)
    warm = AudioPredictor(
        TrainedModel(TorchNetwork(model, tiny.CPU), SPACE, Decision(Calibration({"mood": 4.0, "other": 9.0}))), features
    )
    (first,), (second,) = plain.stream([path]), warm.stream([path])
    assert len(first.timeline) > 10
    assert [answer.label for answer in (first, *first.timeline)] == [
        answer.label for answer in (second, *second.timeline)
    ]
    for before, after in zip(shares(first), shares(second), strict=True):
        assert np.diff(before) == pytest.approx(4 * np.diff(after), abs=1e-9)
        assert np.abs(np.diff(before)).max() > 1e-4


def test_a_run_without_a_temperature_answers_as_its_model_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Quiet:
        def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
            """Ignored."""

        def on_epoch(self, row: dict[str, object], improved: bool) -> None:
            """Ignored."""

    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    run = Run(tmp_path / "runs" / "tiny")
    train_run(run, Setup(tiny.frontend(tiny.corpus(tmp_path / "corpus")), tiny.CPU), Quiet())
    kept = json.loads(run.path("calibration.json").read_text())
    assert AudioPredictor.from_run(run, tiny.CPU).decision.calibration.temperature == kept["temperature"]
    run.path("calibration.json").write_text(json.dumps({**kept, "epoch": kept["epoch"] + 1}))
    assert AudioPredictor.from_run(run, tiny.CPU).decision.calibration.temperature == {}
    run.path("calibration.json").unlink()
    assert AudioPredictor.from_run(run, tiny.CPU).decision.calibration.temperature == {}
