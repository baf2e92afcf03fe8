"""Training on everything: nothing to choose an epoch by, nothing to judge on, and nothing made up in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_frontend as tiny
from tiny_trainings import Stopping, about_epoch, interrupt, resume, train

from samo.data.splits import SplitRequest, make_split
from samo.errors import Interrupted, RunError, SettingsError
from samo.experiments.grid_plan import GridPlan, make_cell, open_plan
from samo.runs.artifacts import find_run
from samo.runs.evaluate import evaluate_run
from samo.runs.load import facts_of
from samo.training.checkpoint import load_checkpoint, read_facts
from samo.training.setup import Setup


def test_everything_is_trained_on() -> None:
    manifest = tiny.frontend().manifest
    split = make_split(manifest, SplitRequest("whole"))
    assert (len(split.train), split.val, split.test) == (len(manifest.items), (), ())
    assert not split.leaky


def test_all_epochs_are_trained_and_the_last_is_kept(tmp_path: Path) -> None:
    run = train(tmp_path, split="whole", patience=1, epochs=4)
    assert [row["val_macro_f1"] for row in run.history] == [None] * 4
    assert [row["val_loss"] for row in run.history] == [None] * 4
    assert about_epoch(run) == 4
    assert read_facts(run.model_file).val_macro_f1 is None
    assert (run.val_macro_f1, run.trained["best_epoch"], run.trained["keep"]) == (None, 4, "last")
    assert not run.path("calibration.json").exists()
    assert facts_of(run).scores == ("learned from everything: nothing is left to evaluate it on",)


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole = train(tmp_path, "whole", split="whole")
    with pytest.raises(Interrupted, match=r"the last model \(epoch 2\) is kept"):
        train(tmp_path, observer=Stopping(interrupt), split="whole")
    run = find_run(tmp_path, "mine")
    resume(run, split="whole")
    assert run.model_file.read_bytes() == whole.model_file.read_bytes()
    states = [load_checkpoint(each.path("last.ckpt"))["model"] for each in (run, whole)]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


@pytest.mark.parametrize("part", ["val", "test"])
def test_there_is_nothing_to_evaluate_it_on(tmp_path: Path, part: str) -> None:
    run = train(tmp_path, split="whole", epochs=1)
    with pytest.raises(RunError, match=f"has no {part} part: it learned from everything"):
        evaluate_run(run, Setup(tiny.frontend(split="whole"), tiny.RUNTIME), part)


def test_what_compares_models_refuses_it(tmp_path: Path) -> None:
    config = tiny.frontend(split="whole").config
    plan = GridPlan("grid", tmp_path / "grids" / "g", (make_cell(config, "a", "a", seed=0),))
    with pytest.raises(SettingsError, match="leaves nothing to compare models on"):
        open_plan(plan, frontend=tiny.frontend(split="whole"))
