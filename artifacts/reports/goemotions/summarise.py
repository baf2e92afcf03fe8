"""Join the runs of ``reproduce.sh`` into one table: macro-F1 on test by question and model, over seeds.

    python artifacts/reports/goemotions/summarise.py ARTIFACTS

Reads every ``ARTIFACTS/runs/goemotions-MODEL-MODE[-seedN]`` judged by ``samo evaluate``; writes ``results.md`` and
``results.json`` beside this file. A model of 28 emotions is also read as one of 7 and 4 classes: a class holds with
probability 1 - prod(1 - p) over its emotions, and gets temperature and thresholds of its own on the validation part.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from samo.evaluation.decision import fit_decision
from samo.evaluation.predictions import Predictions
from samo.reporting.report import Subject, build_report
from samo.runs.calibrate import decision_of
from samo.runs.run import Run
from samo.settings import ThresholdSettings
from samo.tasks import LabelSpace
from samo_text.datasets.emotions import GROUPINGS, label_space

HERE = Path(__file__).parent
CLASSES = {"emotion": 28, "ekman": 7, "sentiment": 4}
COLUMNS = (
    "model", "classes", "seeds", "test macro-F1", "95 % over rows", "one threshold", "at 0.5", "validation",
    "classes with 50+ rows", "micro-F1", "minutes",
)  # fmt: skip


def main() -> None:
    """Write the table, and the figures behind it."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for folder in sorted((Path(sys.argv[1]) / "runs").glob("goemotions-*")):
        name = re.fullmatch(r"goemotions-(\w+)-(emotion|ekman|sentiment)(-seed\d+)?", folder.name)
        if not name or not (folder / "report.json").is_file():
            continue
        run, model, mode = Run(folder), name[1], name[2]
        found[model, mode].append(facts(run, json.loads(run.path("report.json").read_text())))
        if mode == "emotion":
            for coarse in ("ekman", "sentiment"):
                found[f"{model}, 28 emotions joined", coarse].append(facts(run, joined(run, coarse)))
    order = sorted(found, key=lambda key: (list(CLASSES).index(key[1]), key[0]))
    lines = ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS))]
    lines += [row(model, mode, found[model, mode]) for model, mode in order]
    (HERE / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept = [{"model": model, "mode": mode, "runs": found[model, mode]} for model, mode in order]
    (HERE / "results.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))


def facts(run: Run, report: dict[str, Any]) -> dict[str, Any]:
    """What the table needs of one run."""
    rules = report["thresholds"]["rules"]
    settings = {key: value for key, value in run.settings.items() if key not in ("data_root", "encoder")}
    environment = {key: value for key, value in run.environment.items() if key != "command"}
    return {
        "run": run.name,
        "macro_f1": report["metrics"]["macro_f1"],
        "interval": report["ci"]["macro_f1"],
        "metrics": report["metrics"],
        "rules": rules,
        "frequent": report["macro_f1_frequent"],
        "per_class": report["per_class"],
        "minutes": round(sum(epoch["seconds"] for epoch in run.history) / 60, 1),
        "settings": settings,
        "environment": environment,
    }


def joined(run: Run, mode: str) -> dict[str, Any]:
    """The report of a 28-label run read as one of the coarser question."""
    fine, coarse = run.manifest.label_space, label_space(mode)
    home = home_of(fine, coarse, mode)
    parts = {}
    for part in ("val", "test"):
        said = Predictions.load(run.path(f"predictions.{part}.npz"))
        absent = np.log1p(-np.clip(decision_of(run, fine).probabilities(said.logits, fine), 0.0, 1.0 - 1e-12)) @ home
        logits = (np.log(np.maximum(-np.expm1(absent), 1e-12)) - absent).astype(np.float32)
        targets = (said.targets @ home > 0.5).astype(np.float32)
        parts[part] = Predictions(said.ids, logits, targets, said.groups, said.meta)
    # As those of the runs: neither shrunk nor smoothed.
    settings = ThresholdSettings(threshold_shrinkage=0.0, threshold_smoothing=0.0)
    decision = fit_decision(parts["val"].logits, parts["val"].targets, coarse, settings)
    return build_report(Subject(run.name, "goemotions", "test", run.split.rule, "row"), parts["test"], coarse, decision)


def home_of(fine: LabelSpace, coarse: LabelSpace, mode: str) -> np.ndarray:
    """(28, L) 1 where an emotion belongs to a coarser class."""
    home = np.zeros((fine.n_columns, coarse.n_columns))
    for group, emotions in GROUPINGS[mode].items():
        for emotion in emotions:
            home[fine.primary.labels.index(emotion), coarse.primary.labels.index(group)] = 1.0
    return home


def row(model: str, mode: str, runs: list[dict[str, Any]]) -> str:
    """One line of the table: mean over seeds, and the spread where there are several."""

    def spread(values: list[float], digits: int = 3) -> str:
        several = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.{digits}f}{several}"

    low, high = (statistics.mean(one["interval"][k] for one in runs) for k in (0, 1))
    cells = [
        model,
        str(CLASSES[mode]),
        str(len(runs)),
        f"**{spread([one['macro_f1'] for one in runs])}**",
        f"{low:.3f} to {high:.3f}",
        spread([one["rules"]["global"]["macro_f1"] for one in runs]),
        spread([one["rules"]["half"]["macro_f1"] for one in runs]),
        spread([one["rules"]["per-class"]["val_macro_f1"] for one in runs]),
        spread([one["frequent"]["value"] if one["frequent"] else one["macro_f1"] for one in runs]),
        spread([one["metrics"]["micro_f1"] for one in runs]),
        spread([one["minutes"] for one in runs], digits=0),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
