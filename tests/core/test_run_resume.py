"""A training that stops, by whatever: what is kept, and that it goes on bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
import torch
from tiny_trainings import (
    SETTINGS,
    Stopping,
    assert_same_run,
    interrupt,
    resume,
    stopped,
    terminate,
    train,
)

from samo.errors import DiskFull, Interrupted, ModelFileError, RunError, TrainingDiverged
from samo.runs import training
from samo.runs.artifacts import find_run
from samo.runs.load import load_run_model
from samo.runs.run import Run
from samo.runs.training import resume_training
from samo.training.checkpoint import load_checkpoint, load_tensors, save_checkpoint
from samo.training.setup import Setup


@pytest.mark.parametrize(("action", "status"), [(interrupt, 130), (terminate, 143)], ids=["ctrl-c", "sigterm"])
def test_stopped_and_resumed(tmp_path: Path, whole: Run, action: Any, status: int) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        train(tmp_path, observer=Stopping(action))
    assert signal.getsignal(signal.SIGTERM) is before
    run = find_run(tmp_path)
    best = max(run.history, key=lambda row: (row["val_macro_f1"], -row["val_loss"]))
    assert caught.value.message == (
        f"training stopped after 2 of 5 epochs; the best model (epoch {best['epoch']}, validation macro-F1 "
        f"{best['val_macro_f1']:.3f}) is kept"
    )
    assert caught.value.hint == "go on with: `resume=mine`"
    assert caught.value.exit_status == status
    assert run.status == "stopped"
    assert len(run.history) == 2
    load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)
    run.path("report.json").write_text("{}")
    torch.manual_seed(5)
    resume(run)
    assert run.status == "trained"  # and the report of the unfinished model is gone
    assert_same_run(run, whole)


def test_stopped_in_the_first_epoch(tmp_path: Path, whole: Run) -> None:
    with pytest.raises(Interrupted, match="no epoch was finished, so there is no model yet"):
        train(tmp_path, observer=Stopping(interrupt, epoch=0))
    run = find_run(tmp_path)
    with pytest.raises(ModelFileError, match="there is no model at") as caught:
        load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)
    assert caught.value.hint == "was training stopped in its first epoch?"
    resume(run)
    assert_same_run(run, whole)


def test_stopped_twice(tmp_path: Path, whole: Run) -> None:
    run = stopped(tmp_path)
    run.path("report.json").write_text("{}")
    with pytest.raises(Interrupted, match="training stopped after 4 of 5 epochs"):
        resume(run, Stopping(interrupt, epoch=4))
    assert run.status == "stopped"  # the report was of a model that is no longer the best one
    resume(run)
    assert_same_run(run, whole)


KILLED = """
import os, signal, sys
import tiny_trainings as trainings
trainings.train(
    trainings.Path(sys.argv[1]),
    observer=trainings.Stopping(lambda: os.kill(os.getpid(), signal.SIGKILL), epoch=3),
)
"""


@pytest.mark.slow
def test_killed_and_resumed(tmp_path: Path, whole: Run) -> None:
    """The kind of end no program hears of, in a process of its own."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent.parent)])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = find_run(tmp_path, "mine")
    assert run.status == "stopped"
    assert len(run.history) == 3
    resume(run)
    assert_same_run(run, whole)


def test_a_report_written_meanwhile_does_not_stay(tmp_path: Path) -> None:
    report = tmp_path / "runs" / "mine" / "report.json"
    run = train(tmp_path, observer=Stopping(lambda: report.write_text("{}")))
    assert run.status == "trained"


def test_killed_before_the_end_was_marked(tmp_path: Path, whole: Run) -> None:
    run = train(tmp_path)
    run.path("trained.json").unlink()
    resume(run, Stopping(interrupt, epoch=4))
    assert_same_run(run, whole)


def test_training_outside_the_main_thread(tmp_path: Path, whole: Run) -> None:
    """Signals belong to the main thread; a training in another one goes without."""
    runs: list[Run] = []
    worker = threading.Thread(target=lambda: runs.append(train(tmp_path)))
    worker.start()
    worker.join()
    assert_same_run(runs[0], whole)


def test_a_signal_while_files_are_written_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, state: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT)
        save_checkpoint(path, state)

    monkeypatch.setattr(training, "save_checkpoint", interrupted)
    # A job in the background of a shell is started with SIGINT ignored, and this test may be one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted, match="stopped after 1 of"):
            train(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert load_checkpoint(find_run(tmp_path).path("last.ckpt"))["epoch"] == 1


def test_a_full_disk_keeps_the_best_model(tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    def until_full(path: Path, state: dict[str, Any]) -> None:
        if len(kept) == 2:
            raise DiskFull(f"no space left while writing {path}")
        kept.append(state["epoch"])
        save_checkpoint(path, state)

    monkeypatch.setattr(training, "save_checkpoint", until_full)
    with pytest.raises(DiskFull):
        train(tmp_path)
    monkeypatch.undo()
    run = find_run(tmp_path)
    assert run.status == "stopped"
    load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)
    resume(run)
    assert_same_run(run, whole)


def test_divergence_keeps_the_best_model(tmp_path: Path) -> None:
    front = tiny.frontend(**SETTINGS)

    def poison() -> None:
        front.features[:] = np.nan

    with pytest.raises(TrainingDiverged, match=r"the loss became nan in epoch 3, step [0-9]+; clips: clip"):
        train(tmp_path, observer=Stopping(poison), front=front)
    run = find_run(tmp_path)
    assert (run.status, len(run.history)) == ("stopped", 2)
    stored = load_tensors(run.model_file)
    assert all(torch.isfinite(tensor).all() for tensor in stored.values())


def test_what_cannot_be_resumed(whole: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run 'mine' is finished"):
        resume(whole)
    run = stopped(tmp_path)
    front = tiny.frontend(**SETTINGS)
    items = (replace(front.manifest.items[0], content="other"), *front.manifest.items[1:])
    front.manifest = replace(front.manifest, items=items)
    with pytest.raises(RunError, match="the data of run 'mine' changed since it was begun"):
        resume_training(run, Setup(front, tiny.RUNTIME), tiny.Silent())
    with run.locked(), pytest.raises(RunError, match="is being written by process"):
        resume(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("last.ckpt", b"PK\x03\x04", r"last\.ckpt is damaged"),
        ("last.ckpt", {"w": torch.ones(2)}, r"last\.ckpt is not a checkpoint of this run: model: field"),
        ("last.ckpt", [1, 2], r"last\.ckpt is not a checkpoint of this run"),
        ("last.ckpt", {"model": {"w": torch.ones(2)}}, r"is not a checkpoint of this run: optimizer: field"),
        ("fitted.safetensors", b"no tensors", r"fitted\.safetensors is damaged"),
    ],
)
def test_files_a_run_cannot_go_on_from(tmp_path: Path, name: str, content: Any, message: str) -> None:
    run = stopped(tmp_path, epochs=3)
    if isinstance(content, bytes):
        run.path(name).write_bytes(content)
    else:
        torch.save(content, run.path(name))
    with pytest.raises(ModelFileError, match=message):
        resume(run, epochs=3)
    run.path("fitted.safetensors").unlink()
    with pytest.raises(ModelFileError, match="there is no weights file"):
        resume(run, epochs=3)


def test_stopped_before_the_temperature_is_fitted(tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(training, "calibrate", lambda *_, **__: interrupt())
        with pytest.raises(Interrupted, match="training stopped after 5 of 5 epochs"):
            train(tmp_path)
    run = find_run(tmp_path)
    assert not run.path("calibration.json").exists()
    assert not run.path("trained.json").exists()
    resume_training(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), tiny.Silent())
    assert_same_run(run, whole)
