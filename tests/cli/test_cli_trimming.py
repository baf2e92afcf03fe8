"""``--trim-db``: silence is cut alike in training, evaluation and prediction."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tone_corpora import SR, TINY, done, read_json

from samo.evaluation.predictions import Predictions


def padded(path: Path, folder: Path) -> Path:
    """The clip between a quarter and half a second of silence, under its own name."""
    samples, _ = soundfile.read(path)
    target = folder / path.parent.name / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(target, np.concatenate([np.zeros(SR // 4), samples, np.zeros(SR // 2)]), SR)
    return target


@pytest.mark.slow
def test_predict_trims_as_training_and_evaluation_do(clips: Path, artifacts: Path, tmp_path: Path) -> None:
    files = {path.stem: padded(path, tmp_path / "padded") for path in sorted(clips.rglob("*.wav"))}
    done("train", "--data-root", tmp_path / "padded", *TINY, "--trim-db", "30", "--name", "short")
    done("evaluate", "--threads", "1")
    run = artifacts / "runs" / "short"
    assert read_json(run / "config.json")["trim_db"] == 30.0

    stored = Predictions.load(run / "predictions.test.npz")
    temperature = read_json(run / "calibration.json")["temperature"]["emotion"]
    odds = np.exp((stored.logits - stored.logits.max(axis=1, keepdims=True)) / temperature)
    rows = done("predict", *(files[name] for name in stored.ids), "--threads", "1", "--json").json["predictions"]
    found = np.array([list(row["probabilities"].values()) for row in rows])
    np.testing.assert_allclose(found, odds / odds.sum(axis=1, keepdims=True), atol=1e-5)

    # The sound begins at sample 2000 and ends at 6000; frames that reach it by 80 samples are kept with it.
    one = files[stored.ids[0]]
    samples, _ = soundfile.read(one, dtype="int16")
    soundfile.write(tmp_path / "by_hand.wav", samples[1920:6160], SR)
    same = done("predict", tmp_path / "by_hand.wav", "--threads", "1", "--json").json["predictions"][0]
    assert list(same["probabilities"].values()) == pytest.approx(found[0], abs=1e-6)
    windows = list(csv.reader(io.StringIO(done("predict", one, "--threads", "1", "--windows").out)))
    assert [tuple(map(float, row[1:3])) for row in windows[1:]] == [(0.24, 0.74), (0.27, 0.77)]
