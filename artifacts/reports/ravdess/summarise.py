"""Join the out-of-fold predictions of five runs into one table: mean and spread over folds, interval over speakers.

    python artifacts/reports/ravdess/summarise.py ARTIFACTS STEM [STEM...]

Reads ``ARTIFACTS/runs/STEM-fold0`` to ``fold4``, each judged by ``samo evaluate``, and writes ``STEM.json`` and
``results.md`` beside this file.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from samo_core.evaluation.predictions import Predictions
from samo_core.evaluation.report import build_report
from samo_core.experiments.run import Run

HERE = Path(__file__).parent
FOLDS = range(5)


def main() -> None:
    """Write one JSON a recipe and the table over all recipes."""
    artifacts, *stems = sys.argv[1:]
    rows = [summarise(Path(artifacts), stem) for stem in stems]
    head = "| recipe | classes | macro-F1, mean ± sd over 5 folds | macro-F1, joined [95 % over 24 speakers] | UAR, joined | accuracy, joined | val macro-F1, mean |"
    lines = [head, "|---|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        ci, uar_ci, acc_ci = (row["joined"]["ci"][key] for key in ("macro_f1", "uar", "accuracy"))
        metrics = row["joined"]["metrics"]
        lines.append(
            f"| {row['recipe']} | {row['classes']} | **{row['mean']:.3f}** ± {row['sd']:.3f} ({', '.join(f'{s:.3f}' for s in row['folds'])}) "
            f"| {metrics['macro_f1']:.3f} [{ci[0]:.3f}, {ci[1]:.3f}] | {metrics['uar']:.3f} [{uar_ci[0]:.3f}, {uar_ci[1]:.3f}] "
            f"| {metrics['accuracy']:.3f} [{acc_ci[0]:.3f}, {acc_ci[1]:.3f}] | {row['val_mean']:.3f} |"
        )
    (HERE / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def summarise(artifacts: Path, stem: str) -> dict[str, Any]:
    """Scores of the five folds and the report over all out-of-fold predictions of one recipe."""
    runs = [Run(artifacts / "runs" / f"{stem}-fold{k}") for k in FOLDS]
    reports = [json.loads(run.path("report.json").read_text()) for run in runs]
    said = [Predictions.load(run.path("predictions.test.npz")) for run in runs]
    space = runs[0].manifest.label_space
    ids = [name for part in said for name in part.ids]
    assert len(set(ids)) == len(ids) == len(runs[0].manifest.items), "the folds must cover every clip once"
    joined = Predictions(
        ids=tuple(ids),
        logits=np.concatenate([part.logits for part in said]),
        targets=np.concatenate([part.targets for part in said]),
        groups=tuple(name for part in said for name in part.groups),
        meta={key: tuple(v for part in said for v in part.meta[key]) for key in said[0].meta},
    )
    report = build_report(
        run=stem,
        dataset="ravdess",
        synthetic=False,
        split="test",
        split_rule="folds",
        leaky=False,
        task=space.primary,
        predictions=joined,
        label_space=space,
        unit="speaker",
        train_macro_f1=None,
        val_macro_f1=None,
    )
    scores = [r["metrics"]["macro_f1"] for r in reports]
    summary = {
        "recipe": stem,
        "classes": len(space.primary.labels),
        "folds": scores,
        "mean": statistics.mean(scores),
        "sd": statistics.stdev(scores),
        "val_mean": statistics.mean(r["val_macro_f1"] for r in reports),
        "minutes_per_fold": [round(sum(row["seconds"] for row in run.history) / 60, 1) for run in runs],
        "environment": runs[0].environment,
        "settings": runs[0].settings,
        "joined": report,
    }
    summary["settings"].pop("data_root")
    summary["environment"].pop("command", None)
    (HERE / f"{stem}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


if __name__ == "__main__":
    main()
