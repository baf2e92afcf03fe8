"""Training into a run's folder: what is written, what is kept when it stops, that it goes on bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from samo_core.data.batch import Batch, Draws
from samo_core.errors import DiskFull, Interrupted, LeakError, ModelFileError, RunError, TrainingDiverged
from samo_core.experiments import experiment
from samo_core.experiments.experiment import load_run_model, resume_training, train_run
from samo_core.experiments.run import Run, create_run, find_run
from samo_core.training.checkpoint import load_checkpoint, load_tensors, read_about, save_checkpoint
from samo_core.training.trainer import TrainState, predict_logits

SETTINGS: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 8,
    "lr": 0.05,
    "patience": 0,
    "hidden": 8,
    "dropout": 0.3,
    "mixup_alpha": 0.3,
    "ema_decay": 0.8,
    "grad_accum": 2,
    "balanced_sampler": True,
}


class Stopping(tiny.Silent):
    """Does something at one step of one epoch."""

    def __init__(self, action: Any, epoch: int = 2, step: int = 1) -> None:
        self.action, self.at = action, (epoch, step)

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        if (epoch, step) == self.at:
            self.action()


def interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def train(artifacts: Path, name: str = "mine", observer: Any = None, front: Any = None, **settings: Any) -> Run:
    run = create_run(artifacts, name, "tiny")
    train_run(run, front or tiny.frontend(**{**SETTINGS, **settings}), tiny.RUNTIME, observer or tiny.Silent())
    return run


def resume(run: Run, observer: Any = None, **settings: Any) -> TrainState:
    front = tiny.frontend(**{**SETTINGS, **settings})
    return resume_training(Run(run.folder), front, tiny.RUNTIME, observer or tiny.Silent())


def stopped(artifacts: Path, **settings: Any) -> Run:
    with pytest.raises(Interrupted):
        train(artifacts, observer=Stopping(interrupt), **settings)
    return find_run(artifacts, "mine")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run."""
    return train(tmp_path_factory.mktemp("whole"))


def weights(run: Run) -> dict[str, torch.Tensor]:
    state = load_checkpoint(run.path("last.ckpt"))
    averages = {f"ema.{name}": tensor for name, tensor in state["ema"]["average"].items()}
    return {**state["model"], **averages}


def about_epoch(run: Run) -> int:
    return int(read_about(run.model_file)["epoch"])


def assert_same_run(one: Run, other: Run) -> None:
    assert one.path("best_model.safetensors").read_bytes() == other.path("best_model.safetensors").read_bytes()
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.history] for run in (one, other)]
    assert strip[0] == strip[1]
    for name in ("calibration.json", "trained.json"):
        assert one.path(name).read_text() == other.path(name).read_text()


def test_what_a_run_holds(whole: Run) -> None:
    assert sorted(entry.name for entry in whole.folder.iterdir()) == [
        ".lock",
        "best_model.safetensors",
        "calibration.json",
        "config.json",
        "environment.json",
        "fitted.safetensors",
        "history.jsonl",
        "last.ckpt",
        "manifest.jsonl",
        "split.json",
        "trained.json",
    ]
    front = tiny.frontend(**SETTINGS)
    assert whole.settings == {"modality": "tiny", **front.config.flat()}
    assert whole.manifest.digest == front.manifest.digest
    assert whole.status == "trained"
    assert whole.environment["runtime"]["precision"] == "float32"
    assert len(whole.history) == 5
    best = max(whole.history, key=lambda row: (row["val_macro_f1"], -row["val_loss"]))
    facts = json.loads(whole.path("trained.json").read_text())
    assert facts == {
        "epochs": 5,
        "best_epoch": best["epoch"],
        "val_macro_f1": best["val_macro_f1"],
        "val_loss": best["val_loss"],
    }
    about = read_about(whole.model_file)
    assert about["epoch"] == best["epoch"]
    assert about["digest"] == front.manifest.digest
    assert find_run(whole.folder.parent.parent) == whole
    fitted = load_tensors(whole.path("fitted.safetensors"))
    train_rows = front.manifest.rows(whole.split.train)
    np.testing.assert_array_equal(fitted["mean"], front.features[train_rows].mean(axis=0))


def test_the_best_model_can_be_judged_with(whole: Run) -> None:
    model, space = load_run_model(whole, tiny.TinyFrontend, tiny.RUNTIME)
    assert space == tiny.frontend().manifest.label_space
    assert not model.training
    stored = load_tensors(whole.model_file)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())
    assert (stored["mean"] != 0.0).all()
    # It is the moving average that was validated.
    front = tiny.frontend(**SETTINGS)
    rows = front.manifest.rows(whole.split.val)
    logits = torch.from_numpy(predict_logits(model, front, rows, tiny.RUNTIME))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(front.manifest.targets[rows])).item()
    best = whole.history[about_epoch(whole) - 1]
    assert loss == pytest.approx(best["val_loss"], rel=1e-5)


def test_a_model_of_other_settings_is_refused(whole: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    other.folder.mkdir()
    other.model_file.write_bytes(whole.model_file.read_bytes())
    other.path("config.json").write_text(json.dumps({**whole.settings, "hidden": 9}))
    with pytest.raises(ModelFileError, match=r"does not fit the run's settings at: head\.weight, hidden\.0\.bias"):
        load_run_model(other, tiny.TinyFrontend, tiny.RUNTIME)


def test_the_test_part_is_never_looked_at(tmp_path: Path) -> None:
    class Watched(tiny.TinyFrontend):
        seen: set[int] = set()  # noqa: RUF012

        def train_batch(self, rows: np.ndarray, draws: Draws) -> Batch:
            self.seen.update(rows.tolist())
            return super().train_batch(rows, draws)

        def eval_batches(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
            self.seen.update(rows.tolist())
            return super().eval_batches(rows, batch_size)

    base = tiny.frontend(**SETTINGS)
    front = Watched(base.config, base.manifest, base.features)
    run = train(tmp_path, front=front)
    assert front.seen <= set(front.manifest.rows(run.split.train + run.split.val).tolist())
    assert not front.seen & set(front.manifest.rows(run.split.test).tolist())


def test_the_split_is_that_of_the_settings(tmp_path: Path) -> None:
    splits = [train(tmp_path, f"s{seed}", epochs=1, seed=seed).split for seed in (0, 1)]
    assert splits[0].test != splits[1].test
    run = train(tmp_path, "random", epochs=1, split="random")
    assert run.split.leaky


def test_a_leaking_split_writes_nothing(tmp_path: Path) -> None:
    front = tiny.frontend(**SETTINGS)
    copies = tuple(replace(item, content="same") for item in front.manifest.items)
    front.manifest = replace(front.manifest, items=copies)
    with pytest.raises(LeakError, match="identical content: clip"):
        train(tmp_path, front=front)
    assert Run(tmp_path / "runs" / "mine").status == "empty"
    assert not (tmp_path / "latest").is_symlink()
    # The name is free again.
    train(tmp_path, epochs=1)


def test_stopped_before_the_temperature_is_fitted(tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "calibrate", lambda *_: interrupt())
        with pytest.raises(Interrupted, match="training stopped after 5 of 5 epochs"):
            train(tmp_path)
    run = find_run(tmp_path)
    assert not run.path("calibration.json").exists()
    assert not run.path("trained.json").exists()
    resume_training(run, tiny.frontend(**SETTINGS), tiny.RUNTIME, tiny.Silent())
    assert_same_run(run, whole)


def test_two_trainings_into_one_folder(tmp_path: Path) -> None:
    run = train(tmp_path, epochs=1)
    with pytest.raises(RunError, match="run 'mine' was begun by another process"):
        train_run(run, tiny.frontend(**SETTINGS), tiny.RUNTIME, tiny.Silent())
    with run.locked(), pytest.raises(RunError, match="run 'mine' is being written by process"):
        train_run(run, tiny.frontend(**SETTINGS), tiny.RUNTIME, tiny.Silent())


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
    assert caught.value.hint == "go on with: samo train --resume mine"
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
import test_experiment
test_experiment.train(
    test_experiment.Path(sys.argv[1]),
    observer=test_experiment.Stopping(lambda: os.kill(os.getpid(), signal.SIGKILL), epoch=3),
)
"""


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

    monkeypatch.setattr(experiment, "save_checkpoint", interrupted)
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

    monkeypatch.setattr(experiment, "save_checkpoint", until_full)
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
        resume_training(run, front, tiny.RUNTIME, tiny.Silent())
    with run.locked(), pytest.raises(RunError, match="is being written by process"):
        resume(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("last.ckpt", b"PK\x03\x04", r"last\.ckpt is damaged"),
        ("last.ckpt", {"w": torch.ones(2)}, r"last\.ckpt is not a checkpoint of this run: 'model'"),
        ("last.ckpt", [1, 2], r"last\.ckpt is not a checkpoint of this run"),
        ("last.ckpt", {"model": {"w": torch.ones(2)}}, r"is not a checkpoint of this run: Error\(s\) in loading"),
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
