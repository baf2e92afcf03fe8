"""The best of several runs of one split by validation macro-F1, kept as a run of its own; test stays closed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samo.errors import RunError
from samo.evaluation.baseline import compare_to_baseline
from samo.evaluation.predictions import Predictions
from samo.files import write_json
from samo.runs.run import Run, point_latest

__all__ = ["CHOICE", "choose", "gain_line", "keep"]

CHOICE = "choice.json"
"""What a kept run was chosen from."""
# What speaks of the run it was copied from by name, and what only serves to go on with an unfinished training.
_LEFT_BEHIND = (".*", "report*", "figures*", "MODEL_CARD.md", "last.ckpt", "config.json")


def choose(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Order runs by validation macro-F1 and compare the best with the second.

    Args:
        runs: by name, of one split, each judged on ``val``. Several tasks count by the mean of their macro-F1.

    Returns:
        ``candidates``, the best first (name, val_macro_f1, ci, minutes, epochs); ``best``; ``gain`` of the best on the
        ``second`` as :func:`~samo.evaluation.baseline.compare_to_baseline` gives it (of the first task; None
        with one run); ``dataset``, ``synthetic``, ``leaky``, ``task``, ``n`` and ``warnings``.

    Raises:
        RunError: a run was not judged on its validation part, or its report is damaged.
    """
    reports = {name: _report(run) for name, run in runs.items()}
    rows = [
        {
            "name": name,
            "val_macro_f1": _score(report),
            "ci": None if report["tasks"] else report["ci"]["macro_f1"],
            "minutes": sum(row["seconds"] for row in runs[name].history) / 60.0,
            "epochs": len(runs[name].history),
        }
        for name, report in reports.items()
    ]
    rows.sort(key=lambda row: -row["val_macro_f1"])
    best, first = rows[0]["name"], reports[rows[0]["name"]]
    space, gain = runs[best].manifest.label_space, None
    if len(rows) > 1:
        second = rows[1]["name"]
        said = {name: Predictions.load(runs[name].path("predictions.val.npz")) for name in (best, second)}
        unit = first["ci"]["unit"]
        found = compare_to_baseline(second, said[second], said[best], task=space.primary, label_space=space, unit=unit)
        gain = {"second": second, "level": found["level"], "unit": found["unit"], **found["difference"]}
    return {
        "dataset": first["dataset"],
        "synthetic": first["synthetic"],
        "leaky": first["leaky"],
        "task": space.primary.name,
        "n": first["n"],
        "level": first["ci"]["level"],
        "candidates": rows,
        "best": best,
        "gain": gain,
        "warnings": _warnings(len(rows), bool(first["tasks"]), space.primary.name),
    }


def gain_line(account: Mapping[str, Any]) -> str:
    """Whether the best gains more than chance on the second."""
    gain, interval = account["gain"], ""
    if gain["low"] is not None:
        interval = f" ({100 * gain['level']:g} % interval {gain['low']:+.3f} to {gain['high']:+.3f})"
    against = f"of '{account['best']}' against '{gain['second']}' on validation"
    return f"{gain['value']:+.3f} macro-F1{interval} {against}: {gain['verdict']}"


def keep(chosen: Run, run: Run, account: Mapping[str, Any]) -> None:
    """Copy a finished run under another name, with the account of what it was chosen from, and make it the newest.

    What its judging wrote stays behind, so that it stands there as trained and not yet evaluated.
    """
    left_behind = shutil.ignore_patterns(*_LEFT_BEHIND)

    def ignored(folder: str, names: list[str]) -> set[str]:
        return left_behind(folder, names) if Path(folder) == chosen.folder else set()

    with run.locked():
        shutil.copytree(chosen.folder, run.folder, ignore=ignored, dirs_exist_ok=True)
        write_json(run.path(CHOICE), account)
        write_json(run.path("config.json"), chosen.settings)
        point_latest(run.folder.parent.parent, run)


def _report(run: Run) -> dict[str, Any]:
    path: Path = run.path("report.val.json")
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return report
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}", hint="remove the cell and run the command again") from error


def _score(report: Mapping[str, Any]) -> float:
    return float(report["overall_macro_f1"] if report["tasks"] else report["metrics"]["macro_f1"])


def _warnings(n: int, several_tasks: bool, task: str) -> list[str]:
    found = [
        "epochs, thresholds and the best of these were chosen on the validation part, so that its scores are too good; "
        "the test part was not opened"
    ]
    if n > 2:
        found.append(f"the best of {n} is compared with the second as if these two had been named beforehand")
    if n > 1:
        found.append("one training each: another seed may turn the order round, and no number here knows of it")
    if several_tasks:
        found.append(f"ordered by the mean over tasks, compared on the task '{task}'")
    return found
