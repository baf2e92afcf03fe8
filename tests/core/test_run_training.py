"""Training into a run's folder: what is written, what is refused, that the test part stays closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_frontend as tiny
import torch
from tiny_trainings import (
    SETTINGS,
    about_epoch,
    train,
)

from samo.data.batch import Batch, Draws
from samo.errors import LeakError, ModelFileError, RunError
from samo.runs.artifacts import find_run
from samo.runs.load import load_run_model
from samo.runs.run import Run
from samo.runs.train import training_summary
from samo.runs.training import train_run
from samo.runs.training_notes import first_lines
from samo.training import trainer
from samo.training.checkpoint import load_checkpoint, load_tensors, read_about
from samo.training.setup import Setup
from samo.training.trainer import predict_logits


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
        "results.csv",
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
        "allowed_epochs": 5,
        "selected_over": [0.01, 0.95, 95],
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
    logits = torch.from_numpy(predict_logits(model, Setup(front, tiny.RUNTIME), rows))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(front.manifest.targets[rows])).item()
    best = whole.history[about_epoch(whole) - 1]
    assert loss == pytest.approx(best["val_loss"], rel=1e-5)


def test_the_last_epoch_is_what_ships_where_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation likes the first epoch best: with keep=last nobody listens, and the summary names the last one."""
    found = iter([(0.9, 1.0), *[(0.2, 2.0)] * 4])
    monkeypatch.setattr(trainer, "validate", lambda *_, **__: next(found))
    run = train(tmp_path, keep="last")
    checkpoint = load_checkpoint(run.path("last.ckpt"))
    last = checkpoint["ema"]["average"] if checkpoint["ema"] else checkpoint["model"]
    shipped = load_tensors(run.model_file)
    assert shipped.keys() == last.keys()
    assert all(torch.equal(tensor, last[name]) for name, tensor in shipped.items())
    summary = training_summary(run)
    assert (summary["epochs"], summary["best_epoch"], summary["keep"], summary["val_macro_f1"]) == (5, 5, "last", 0.2)


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


def test_two_trainings_into_one_folder(tmp_path: Path) -> None:
    run = train(tmp_path, epochs=1)
    with pytest.raises(RunError, match="run 'mine' was begun by another process"):
        train_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), tiny.Silent())
    with run.locked(), pytest.raises(RunError, match="run 'mine' is being written by process"):
        train_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), tiny.Silent())


def test_classes_balanced_twice_are_told_at_the_start(tmp_path: Path) -> None:
    twice = {"balanced_sampler": True, "class_weight_loss": True}
    for settings, warned in ((twice, True), ({"balanced_sampler": True}, False)):
        front = tiny.frontend(**{**SETTINGS, **settings})
        lines = first_lines(Run(tmp_path / "runs" / "r"), Setup(front, tiny.RUNTIME), None)
        assert [line.startswith("classes are balanced twice: `balanced_sampler`") for line in lines].count(
            True
        ) == warned
