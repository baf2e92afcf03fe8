"""Trainings of the tiny frontend, and what makes two runs the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_frontend as tiny
import torch

from samo.errors import Interrupted
from samo.runs.artifacts import create_run, find_run
from samo.runs.run import Run
from samo.runs.training import resume_training, train_run
from samo.training.checkpoint import load_checkpoint, read_about
from samo.training.setup import Setup
from samo.training.trainer import TrainState

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
    train_run(run, Setup(front or tiny.frontend(**{**SETTINGS, **settings}), tiny.RUNTIME), observer or tiny.Silent())
    return run


def resume(run: Run, observer: Any = None, **settings: Any) -> TrainState:
    front = tiny.frontend(**{**SETTINGS, **settings})
    return resume_training(Run(run.folder), Setup(front, tiny.RUNTIME), observer or tiny.Silent())


def stopped(artifacts: Path, **settings: Any) -> Run:
    with pytest.raises(Interrupted):
        train(artifacts, observer=Stopping(interrupt), **settings)
    return find_run(artifacts, "mine")


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
