"""Items made of training rows: they train, they are kept with the run, and they judge nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
import torch

from samo.data.augmented import (
    AUGMENTATION,
    AUGMENTED,
    augmentation_facts,
    class_counts,
    load_augmented,
    save_augmented,
)
from samo.data.manifest import Item
from samo.errors import Interrupted, RunError
from samo.runs.artifacts import create_run, find_run
from samo.runs.run import Run
from samo.runs.training import resume_training, train_run
from samo.tasks import LabelSpace
from samo.training.checkpoint import load_checkpoint
from samo.training.setup import Setup

ITEMS = (
    Item(
        "a~m1",
        "half \ud83d and \u2028",
        {"emotion": ("sad",), "tags": ("loud", "high")},
        "s1",
        {"parent": "a", "method": "m"},
        "c",
    ),
    Item("a~n2", "two", {"emotion": ("sad",), "tags": ()}, "", {"parent": "a", "method": "n"}),
)


def train(artifacts: Path, name: str = "mine", observer: Any = None, **settings: Any) -> Run:
    run = create_run(artifacts, name, "tiny")
    front = tiny.frontend(**{**tiny.RICH, **settings})
    train_run(run, Setup(front, tiny.RUNTIME), observer or tiny.Silent())
    return run


def test_items_come_back_as_they_were(tmp_path: Path) -> None:
    facts = augmentation_facts(tiny.BOTH, np.zeros((0, 6), np.float32), ITEMS)
    save_augmented(tmp_path, facts, ITEMS)
    assert load_augmented(tmp_path) == ITEMS
    first = json.loads((tmp_path / AUGMENTED).read_text().splitlines()[0])
    assert (first["text"], first["parent"], first["method"]) == ("half \ud83d and \u2028", "a", "m")
    assert first["labels"] == {"emotion": ["sad"], "tags": ["loud", "high"]}
    save_augmented(tmp_path, facts, ())
    assert not list(tmp_path.iterdir())
    assert load_augmented(tmp_path) == ()


def test_counts_before_and_after() -> None:
    space = LabelSpace((tiny.EMOTION, tiny.TAGS))
    nan = np.nan
    targets = np.array([[1, 0, 0, 1, 1, 0], [0, 0, 1, nan, nan, nan]], dtype=np.float32)
    assert class_counts(space, targets)["emotion"] == {"angry": 1, "happy": 0, "sad": 1}
    facts = augmentation_facts(space, targets, ITEMS)
    assert facts["made"] == 2
    assert facts["methods"] == {"m": 1, "n": 1}
    assert facts["counts"]["emotion"]["sad"] == {"before": 1, "after": 3}
    assert facts["counts"]["tags"] == {
        "loud": {"before": 1, "after": 2},
        "fast": {"before": 1, "after": 1},
        "high": {"before": 0, "after": 1},
    }


@pytest.mark.parametrize("damage", ["lines", "json", "missing"])
def test_damage_is_one_line(tmp_path: Path, damage: str) -> None:
    save_augmented(tmp_path, augmentation_facts(tiny.BOTH, np.zeros((0, 6)), ITEMS), ITEMS)
    path = tmp_path / AUGMENTED
    if damage == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text().splitlines(keepends=True)[0] if damage == "lines" else "{}\n{}\n")
    with pytest.raises(RunError, match="cannot read what was augmented"):
        load_augmented(tmp_path)


def test_what_is_made_trains_and_judges_nothing(tmp_path: Path) -> None:
    plain, more = train(tmp_path, "plain"), train(tmp_path, "more", extra=9)
    assert more.manifest.digest == plain.manifest.digest == tiny.frontend().manifest.digest
    assert more.split == plain.split
    assert [path.is_file() for path in (plain.path(AUGMENTED), more.path(AUGMENTED))] == [False, True]
    facts = json.loads(more.path(AUGMENTATION).read_text())
    before = sum(row["before"] for row in facts["counts"]["emotion"].values())
    assert (facts["made"], before) == (9, len(more.split.train))
    assert [item.meta["parent"] for item in load_augmented(more.folder)] == list(more.split.train[:9])
    # 32 rows in batches of 8 with 2 accumulated are 2 steps an epoch; 41 rows are 3.
    steps = [load_checkpoint(run.path("last.ckpt"))["step"] for run in (plain, more)]
    assert steps == [2 * 4, 3 * 4]
    assert plain.model_file.read_bytes() != more.model_file.read_bytes()


class Stops(tiny.Silent):
    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        if (epoch, step) == (2, 1):
            raise KeyboardInterrupt


def test_resuming_reads_what_was_made_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", extra=9)
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", observer=Stops(), extra=9)
    cut = find_run(tmp_path / "cut", "mine")

    def never(*given: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(tiny.TinyFrontend, "augment", never)
    resume_training(Run(cut.folder), Setup(tiny.frontend(**tiny.RICH, extra=9), tiny.RUNTIME), tiny.Silent())
    assert whole.model_file.read_bytes() == cut.model_file.read_bytes()
    ends = [load_checkpoint(run.path("last.ckpt"))["model"] for run in (whole, cut)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_a_training_killed_before_it_was_a_run_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    save_augmented(folder, augmentation_facts(tiny.BOTH, np.zeros((0, 6)), ITEMS), ITEMS)
    run = train(tmp_path)
    assert load_augmented(run.folder) == ()
