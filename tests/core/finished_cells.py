"""Cells that look as if they had been trained and judged, with scores chosen by the test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from samo.data.manifest import Item, Manifest
from samo.data.splits import Split
from samo.evaluation.metrics import decide, scores, tally
from samo.evaluation.predictions import Predictions
from samo.experiments.cells import Cell
from samo.files import write_json
from samo.tasks import LabelSpace, Task

SPACE = LabelSpace((Task("emotion", ("no", "yes")),))
SPEAKERS = tuple(f"s{k}" for k in range(10))
CLIPS = 4


def manifest() -> Manifest:
    """Ten speakers say no and yes, twice each."""
    items = tuple(
        Item(f"{s}-{k}", f"{s}-{k}.wav", {"emotion": (SPACE.primary.labels[k % 2],)}, s, content=f"{s}-{k}")
        for s in SPEAKERS
        for k in range(CLIPS)
    )
    return Manifest("pretend", SPACE, items, Path("/nowhere"))


def finished(
    grid: Path,
    row: str,
    seed: int,
    fold: int,
    wrong: Sequence[int],
    seconds: float = 10.0,
    groups: bool = True,
    leaky: bool = False,
    **settings: object,
) -> Cell:
    """Write a judged cell: fold k tests speakers 2k and 2k + 1, of whose eight clips those in ``wrong`` are missed."""
    cell = Cell(f"{row}.seed{seed}.fold{fold}", row, seed, fold, {"modality": "pretend", "lr": 0.1, **settings})
    run, whole = cell.run(grid), manifest()
    tested = [item for item in whole.items if item.group in SPEAKERS[2 * fold : 2 * fold + 2]]
    rest = [item.id for item in whole.items if item not in tested]
    truth = np.array([SPACE.encode(item.labels) for item in tested])
    predicted = truth.copy()
    predicted[list(wrong)] = 1.0 - predicted[list(wrong)]
    predictions = Predictions(
        tuple(item.id for item in tested),
        np.log(np.where(predicted > 0.5, 0.8, 0.2)).astype(np.float32),
        truth,
        tuple(item.group if groups else "" for item in tested),
    )
    decided = decide(SPACE.primary, predictions.probabilities(SPACE), truth)
    whole.save(run.path("manifest.jsonl"))
    split = Split("random" if leaky else "folds", seed, tuple(rest[8:]), tuple(rest[:8]), predictions.ids)
    split.save(run.path("split.json"))
    predictions.save(run.path("predictions.test.npz"))
    row_of = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_macro_f1": 0.5, "seconds": seconds / 2}
    run.path("history.jsonl").write_text("".join(json.dumps(row_of) + "\n" for _ in range(2)))
    write_json(run.path("config.json"), dict(cell.settings))
    write_json(run.path("trained.json"), {})
    metrics = scores(tally(decided.truth, decided.predicted))
    facts = {"synthetic": False, "leaky": leaky, "n": len(tested), "train_macro_f1": 0.9, "val_macro_f1": 0.5}
    interval = {"macro_f1": None, "unit": "speaker", "n_units": 2, "level": 0.95}
    write_json(run.path("report.json"), {"dataset": "pretend", "metrics": metrics, "ci": interval, **facts})
    return cell
