"""``samo train --tracker``: curves beside the history, goes on where it stopped, refused before anything is decoded."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tone_corpora import TINY, done, refused, samo

STEPS = 3


@pytest.fixture(autouse=True)
def no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAMO_TRACKER", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def assert_drawn(folder: Path) -> None:
    """The curves are the history, no more and no less."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    for name in ("train_loss", "val_loss", "val_macro_f1", "lr"):
        drawn = [(event.step, event.value) for event in events.Scalars(name)]
        assert drawn == [(row["epoch"] * STEPS, float(np.float32(row[name]))) for row in rows(folder)]


def test_tensorboard(clips: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = done("train", "--data-root", clips, *TINY, "--name", "plain", "--json")
    assert not (artifacts / "runs" / "plain" / "tensorboard").exists()
    tracked = done("train", "--data-root", clips, *TINY, "--name", "a", "--tracker", "tensorboard", "--json")
    assert tracked.json["val_macro_f1"] == plain.json["val_macro_f1"]
    folder = artifacts / "runs" / "a"
    assert_drawn(folder)
    assert len(rows(folder)) == 2
    weights = [(artifacts / "runs" / name / "best_model.safetensors").read_bytes() for name in ("plain", "a")]
    assert weights[0] == weights[1]
    assert "tracker" not in json.loads((folder / "config.json").read_text()), "it is no part of what the run is"

    monkeypatch.setenv("SAMO_TRACKER", "tensorboard")
    # Going on after a kill that left one epoch; the tracker comes from the environment.
    done("train", "--data-root", clips, *TINY, "--name", "b")
    folder = artifacts / "runs" / "b"
    (folder / "trained.json").unlink()
    (folder / "last.ckpt").unlink()
    done("train", "--resume", "b", "--threads", "1", "--precision", "float32")
    assert len(list((folder / "tensorboard").iterdir())) == 2
    assert_drawn(folder)


def test_refused_before_anything_is_decoded(clips: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = refused(2, "train", "--data-root", clips, *TINY, "--tracker", "tensorbored")
    assert line == (
        "error: --tracker 'tensorbored': unknown (hint: did you mean 'tensorboard'? valid: tensorboard, mlflow)"
    )
    monkeypatch.setitem(sys.modules, "mlflow", None)
    result = samo("train", "--data-root", clips, *TINY, "--tracker", "tensorboard,mlflow")
    assert result.status == 9
    assert result.err.startswith("error: --tracker mlflow needs the package mlflow: ")
    assert result.err.endswith('(hint: pip install "samo-emotion[track]")\n')
    assert len(result.err.splitlines()) == 1
    assert not artifacts.exists()


def test_a_tracker_that_fails_is_one_note(clips: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", lambda *_, **__: 1 / 0)
    result = done("train", "--data-root", clips, *TINY, "--name", "a", "--tracker", "tensorboard")
    notes = [line for line in result.err.splitlines() if "tracker" in line]
    assert notes == ["· the training goes on without --tracker tensorboard, which failed: division by zero"]
    assert len(rows(artifacts / "runs" / "a")) == 2


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason='needs "samo-emotion[track]"')
def test_mlflow(clips: Path, artifacts: Path) -> None:
    from mlflow import MlflowClient

    result = done("train", "--data-root", clips, *TINY, "--name", "a", "--tracker", "mlflow,tensorboard", "--json")
    folder = artifacts / "runs" / "a"
    assert result.json["run"] == "a"
    assert_drawn(folder)
    client = MlflowClient(tracking_uri=f"sqlite:///{artifacts / 'mlflow' / 'mlflow.db'}")
    run = client.get_run(json.loads((folder / "mlflow.json").read_text())["run_id"])
    assert (run.info.run_name, run.info.status) == ("a", "FINISHED")
    settings = json.loads((folder / "config.json").read_text())
    assert run.data.params == {name: str(value) for name, value in settings.items()}
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert [(metric.step, metric.value) for metric in history] == [
        (row["epoch"], row["val_loss"]) for row in rows(folder)
    ]
    assert sorted(path.name for path in artifacts.parent.iterdir()) == ["artifacts"]
