"""Join the out-of-fold predictions of five runs into one table: mean and spread over folds, interval over speakers.

    python artifacts/reports/ravdess/summarise.py ARTIFACTS STEM [STEM...]

Reads ``ARTIFACTS/runs/STEM-fold0`` to ``fold4``, each evaluated by ``samo evaluate``, or the runs of ``samo crossval
--name STEM``, all its seeds, and writes ``STEM.json`` and ``results.md`` beside this file. Of several seeds mean and
deviation are over all trainings, a fold's score is the mean of its seeds, and the interval over speakers is of all
their predictions. A recipe of eight emotions is also read as a model of three sentiments, by adding the probabilities
of the emotions of each. A stem without runs keeps its row, made of the ``STEM.json`` of before.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from samo.evaluation.predictions import Predictions
from samo.reporting.report import Subject, build_report
from samo.runs.run import Run
from samo.tasks import LabelSpace, Task
from samo_audio.datasets.emotions import EMOTION_TO_SENTIMENT, SENTIMENTS

HERE = Path(__file__).parent
FOLDS = range(5)
PLACES = ("data_root", "fold", "encoder", "weights")
COLUMNS = (
    "recipe",
    "level",
    "classes",
    "seeds",
    "macro-F1, mean ± sd over 5 folds (and seeds)",
    "fold 0, 1, 2, 3, 4",
    "joined: macro-F1 [95 % over 24 speakers]",
    "joined: UAR",
    "joined: accuracy",
    "validation macro-F1, mean",
)


def main() -> None:
    """Write one JSON a recipe and the table over all recipes."""
    artifacts, *stems = sys.argv[1:]
    summaries: list[dict[str, Any]] = []
    kept: list[str] = []
    for stem in stems:
        runs = runs_of(Path(artifacts), stem)
        if not runs:
            kept.append(stem)
            summaries += [json.loads(file.read_text(encoding="utf-8")) for file in stored(stem)]
            continue
        answers = [Predictions.load(run.path("predictions.test.npz")) for run in runs]
        space = runs[0].manifest.label_space
        summaries.append(summarise(stem, runs, answers, space))
        if space.primary.name == "emotion":
            three = [as_sentiment(part, space) for part in answers]
            summaries.append(summarise(f"{stem}, added up", runs, three, SENTIMENT_SPACE))
    for summary in summaries:
        summary["level"] = summary["settings"].get("level", "as-is")
    lines = ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *map(row, summaries))]
    if kept:
        lines += [
            "",
            f"Kept from earlier: {', '.join(kept)}. The commit that wrote the row's JSON file has the code of it.",
        ]
    (HERE / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def runs_of(artifacts: Path, stem: str) -> list[Run]:
    """The evaluated runs of the five folds, seed by seed; none where they were not trained here."""
    grid = artifacts / "grids" / stem / "runs"
    seeds = sorted({int(path.name[4:].split(".")[0]) for path in grid.glob("seed*.fold*")})
    for folders in (
        [artifacts / "runs" / f"{stem}-fold{k}" for k in FOLDS],
        [grid / f"seed{seed}.fold{k}" for seed in seeds for k in FOLDS],
    ):
        if folders and all((folder / "report.json").is_file() for folder in folders):
            return [Run(folder) for folder in folders]
    return []


def stored(stem: str) -> list[Path]:
    """The summaries that an earlier run of this script wrote for a recipe."""
    return [file for file in (HERE / f"{stem}.json", HERE / f"{stem}-added-up.json") if file.is_file()]


SENTIMENT_SPACE = LabelSpace((Task("sentiment", tuple(SENTIMENTS)),))


def as_sentiment(answers: Predictions, space: LabelSpace) -> Predictions:
    """Predictions of eight emotions as predictions of three sentiments; logits are log-probabilities."""
    home = np.zeros((len(space.primary.labels), len(SENTIMENTS)))
    for k, label in enumerate(space.primary.labels):
        home[k, SENTIMENTS.index(EMOTION_TO_SENTIMENT[label])] = 1.0
    logits = np.log(np.maximum(answers.probabilities(space) @ home, 1e-12)).astype(np.float32)
    return Predictions(answers.ids, logits, (answers.targets @ home).astype(np.float32), answers.groups, answers.meta)


def summarise(name: str, runs: list[Run], answers: list[Predictions], space: LabelSpace) -> dict[str, Any]:
    """Scores of the five folds and the report over all out-of-fold predictions of one recipe."""
    ids = tuple(one for part in answers for one in part.ids)
    n_seeds = len(runs) // len(FOLDS)
    assert len(set(ids)) * n_seeds == len(ids), "the folds of a seed must cover every clip once"
    assert len(set(ids)) == len(runs[0].manifest.items), "the folds must cover every clip"
    joined = Predictions(
        ids=ids,
        logits=np.concatenate([part.logits for part in answers]),
        targets=np.concatenate([part.targets for part in answers]),
        groups=tuple(group for part in answers for group in part.groups),
        meta={key: tuple(value for part in answers for value in part.meta[key]) for key in answers[0].meta},
    )
    scores = [report(name, part, space)["metrics"]["macro_f1"] for part in answers]
    of_run = [json.loads(run.path("report.json").read_text()) for run in runs]
    own = space.primary.name == runs[0].manifest.label_space.primary.name
    settings = {
        key: value for key, value in runs[0].settings.items() if key not in ("data_root", "fold", "encoder", "weights")
    }
    environment = {key: value for key, value in runs[0].environment.items() if key != "command"}
    by_seed = [scores[start : start + len(FOLDS)] for start in range(0, len(scores), len(FOLDS))]
    summary = {
        "recipe": name,
        "folds": [statistics.mean(fold) for fold in zip(*by_seed, strict=True)],
        **({"seeds": [statistics.mean(own) for own in by_seed]} if n_seeds > 1 else {}),
        "mean": statistics.mean(scores),
        "sd": statistics.stdev(scores),
        "val_mean": statistics.mean(one["val_macro_f1"] for one in of_run) if own else None,
        "minutes_per_fold": [round(sum(epoch["seconds"] for epoch in run.history) / 60, 1) for run in runs],
        "environment": environment,
        "settings": settings,
        "joined": report(name, joined, space),
    }
    if (combined := _combined(runs[0])) and own:
        summary["combined"] = combined
    file = name.replace(", ", "-").replace(" ", "-")
    (HERE / f"{file}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _combined(run: Run) -> dict[str, Any] | None:
    """Of a fold of an ensemble of grids: what the grids have alone, the gain, and of which seeds the members are."""
    grid = run.folder.parent.parent / "report.json"
    if not run.path("ensemble.json").is_file() or not grid.is_file():
        return None
    names = [str(member["name"]) for member in json.loads(run.path("ensemble.json").read_text())["members"]]
    seeds = sorted({int(name.split("/seed")[1].split(".")[0]) for name in names})
    found = json.loads(grid.read_text())["combined"]
    return {"grids": found["grids"], "best_grid": found["best_grid"], "gain": found["gain"], "seeds": seeds}


def report(name: str, answers: Predictions, space: LabelSpace) -> dict[str, Any]:
    """The report over some predictions."""
    return build_report(Subject(name, "ravdess", "test", "folds", "speaker"), answers, space)


def _seeds_as_one(summary: dict[str, Any]) -> str:
    """Of an ensemble of several seeds how many answer as one."""
    n_seeds = len(summary.get("combined", {}).get("seeds", [0]))
    return "one" if n_seeds == 1 else f"{n_seeds}, as one"


def row(summary: dict[str, Any]) -> list[str]:
    """One line of the table."""
    joined = summary["joined"]

    def with_interval(key: str) -> str:
        low, high = joined["ci"][key]
        return f"{joined['metrics'][key]:.3f} [{low:.3f}, {high:.3f}]"

    return [
        summary["recipe"],
        summary["level"],
        str(len(joined["labels"])),
        ", ".join(f"{score:.3f}" for score in summary.get("seeds", [])) or _seeds_as_one(summary),
        f"**{summary['mean']:.3f}** ± {summary['sd']:.3f}",
        ", ".join(f"{score:.3f}" for score in summary["folds"]),
        with_interval("macro_f1"),
        with_interval("uar"),
        with_interval("accuracy"),
        "-" if summary["val_mean"] is None else f"{summary['val_mean']:.3f}",
    ]


if __name__ == "__main__":
    main()
