"""Paired differences of two grids on the same clips, seed by seed, over speakers drawn together.

    python artifacts/reports/ravdess/pairs.py ARTIFACTS

Reads the cells of ``samo crossval`` under ``ARTIFACTS/grids`` and writes ``pairs.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from samo.evaluation.comparison import build_comparison
from samo.evaluation.predictions import Predictions
from samo.runs.run import Run

HERE = Path(__file__).parent
PAIRS = (
    ("whisper-frozen-views", "whisper-kernel", (0, 1, 2)),
    ("whisper-frozen", "whisper-kernel", (0,)),
    ("mn04-distilled", "mn04-distilled-long", (0,)),
)


def main() -> None:
    """One difference a pair and seed."""
    found = []
    for before, after, seeds in PAIRS:
        for seed in seeds:
            cells = {name: cells_of(Path(sys.argv[1]) / "grids" / name, seed) for name in (before, after)}
            space = cells[before][0].manifest.label_space
            answers = {name: joined(runs) for name, runs in cells.items()}
            facts: dict[str, Any] = {"dataset": "ravdess", "split": "test", "split_rule": "folds", "unit": "speaker"}
            comparison = build_comparison(answers, task=space.primary, label_space=space, **facts)
            (row,) = comparison["comparisons"]
            found.append({"before": before, "after": after, "seed": seed, "macro_f1": row["scores"]["macro_f1"]})
    (HERE / "pairs.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def cells_of(grid: Path, seed: int) -> list[Run]:
    """The five folds of a seed."""
    return [Run(grid / "runs" / f"seed{seed}.fold{fold}") for fold in range(5)]


def joined(runs: list[Run]) -> Predictions:
    """The test parts of all folds."""
    parts = [Predictions.load(run.path("predictions.test.npz")) for run in runs]
    return Predictions(
        ids=tuple(name for part in parts for name in part.ids),
        logits=np.concatenate([part.logits for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        groups=tuple(group for part in parts for group in part.groups),
    )


if __name__ == "__main__":
    main()
