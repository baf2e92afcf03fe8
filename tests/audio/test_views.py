"""Windows heard several times: `tta_speed` and `tta_shift`."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from pathlib import Path

import numpy as np
import pytest
import tiny_audio as tiny
import torch

from samo.errors import SettingsError
from samo.evaluation.decision import Decision
from samo.prediction import ModelFacts, TrainedModel
from samo.tasks import LabelSpace, Task
from samo.training.setup import Setup
from samo.training.trainer import predict_logits
from samo_audio.config import AudioConfig
from samo_audio.predictor import AudioPredictor
from samo_audio.views import change_speed, viewed, views_of
from samo_audio.windows import Windows

SPACE = LabelSpace((Task("emotion", tiny.LABELS),))


@dataclass(frozen=True)
class Reading:
    sr: int = tiny.SR
    trim_db: float = 0.0
    window: int = 8
    tta_speed: float = 0.0
    tta_shift: float = 0.0


class Mean:
    """Logits that tell the mean and the number of samples of a window."""

    def logits(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return np.stack([inputs.sum(axis=1) / lengths, lengths / tiny.SR, 0.0 * lengths], axis=1).astype(np.float32)

    def features(self, inputs: np.ndarray, lengths: np.ndarray) -> None:
        return None


def test_a_window_is_moved_and_played_faster() -> None:
    ramp = np.arange(1.0, 5.0, dtype=np.float32)
    assert viewed(ramp, (1.0, 0), 4).tolist() == [1, 2, 3, 4]
    assert viewed(ramp, (1.0, 2), 5).tolist() == [0, 0, 1, 2, 3]
    assert viewed(ramp, (1.0, -1), 5).tolist() == [2, 3, 4]
    assert viewed(ramp, (1.0, -9), 5).tolist() == [3, 4]
    assert viewed(ramp, (2.0, 0), 5).tolist() == [1, 3]
    assert viewed(ramp, (0.5, 0), 5).tolist()[::2] == [1, 2, 3]
    assert views_of(Reading()) == ((1.0, 0),)
    both = Reading(tta_speed=0.1, tta_shift=0.001)
    assert views_of(both) == ((1.0, 0), (exp(-0.1), 0), (exp(0.1), 0), (1.0, -8), (1.0, 8))


def test_evaluation_averages_the_logits_of_all_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    front = tiny.frontend(tiny.corpus(tmp_path), tta_speed=0.1, tta_shift=0.05)
    torch.manual_seed(0)
    model = front.new_model().eval()
    # A clip of one window, and one that needs several.
    rows, window = np.array([0, 3]), front.window
    found = predict_logits(model, Setup(front, tiny.CPU), rows, batch_size=4)
    expected = []
    for row in rows:
        clip = front.waveforms.waveform(row)
        starts = [0] if len(clip) <= window else np.linspace(0, len(clip) - window, -(-len(clip) // window)).astype(int)
        logits = []
        for start in starts:
            chunk = clip[start : start + window]
            late = np.r_[np.zeros(400, np.float32), chunk][:window]
            heard = [chunk, change_speed(chunk, exp(-0.1))[:window], change_speed(chunk, exp(0.1)), chunk[400:], late]
            for each in heard:
                padded = torch.zeros(1, window)
                padded[0, : len(each)] = torch.from_numpy(each.copy())
                with torch.no_grad():
                    logits.append(model(padded, torch.tensor([len(each)]))[0])
        expected.append(torch.stack(logits).mean(dim=0))
    torch.testing.assert_close(torch.from_numpy(found), torch.stack(expected), atol=1e-5, rtol=1e-5)
    plain = front.with_config(AudioConfig.build({**front.config.flat(), "tta_speed": 0.0, "tta_shift": 0.0}))
    assert not np.allclose(found, predict_logits(model, Setup(plain, tiny.CPU), rows))
    # What is fitted on the training clips, and a training's own batches, know nothing of it.
    assert front.batch_settings(front.config) == {
        **plain.batch_settings(plain.config),
        "tta_speed": 0.1,
        "tta_shift": 0.05,
    }


def test_statistics_of_bands_are_those_of_the_clips_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    plain = tiny.frontend(tiny.corpus(tmp_path), normalisation="train")
    again = plain.with_config(AudioConfig.build({**plain.config.flat(), "tta_speed": 0.1, "tta_shift": 0.05}))
    rows = np.arange(4)
    assert torch.equal(plain.fit(rows)["features.mean"], again.fit(rows)["features.mean"])


def test_prediction_averages_them_too() -> None:
    """A clip of 1.5 windows, seen through two: each as it is, and half a second earlier and later."""
    reading = Reading(window=8000, tta_shift=0.5)
    predictor = AudioPredictor(TrainedModel(Mean(), SPACE, Decision(), ModelFacts("mean", "audio"), 1), reading)
    clip = np.linspace(0.1, 0.9, 12_000, dtype=np.float32)
    logits = []
    for chunk in (clip[:8000], clip[4000:]):
        for view in (chunk, chunk[4000:], np.r_[np.zeros(4000), chunk[:4000]]):
            logits.append([view.mean(), len(view) / tiny.SR, 0.0])
    shares = np.exp(np.mean(logits, axis=0))
    found = predictor.predict(clip, sr=tiny.SR)
    expected = (shares / shares.sum()).tolist()
    assert list(found.probabilities.values()) == pytest.approx(expected, abs=1e-5)


def test_how_long_a_window_is_in_a_view(tmp_path: Path) -> None:
    front = tiny.frontend(tiny.corpus(tmp_path), tta_speed=0.2, tta_shift=0.1)
    windows = Windows(front.waveforms, front.window)
    places = np.arange(len(windows.rows))
    for view in (*views_of(front.config.features), (1.0, -10 * front.window), (exp(-0.2), 10 * front.window)):
        heard = [len(chunk) for chunk in windows.views(places, [view] * len(places))]
        assert windows.view_lengths(view).tolist() == heard
    assert not windows.end_within
    assert Windows(front.waveforms, int(front.waveforms.lengths.max())).end_within


def test_what_hears_a_window_once_refuses_it() -> None:
    with pytest.raises(SettingsError, match="`tta_speed` does nothing for `model=functionals`"):
        AudioConfig.build({"model": "functionals", "tta_speed": 0.1})
