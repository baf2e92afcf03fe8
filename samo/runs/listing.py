"""What lies in the artifacts: a row for each run, what is known of one, and how one is removed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samo.data.splits import PARTS
from samo.errors import RunError, SettingsError, nearest
from samo.reporting.report import headlines, metrics_of, read_report
from samo.runs.artifacts import list_runs
from samo.runs.code import code_of
from samo.runs.load import facts_of
from samo.runs.run import ENSEMBLE_FILE, Run

__all__ = ["SORTS", "delete_run", "describe_run", "list_rows"]

# By what rows are put in order, and whether the largest comes first.
SORTS: Mapping[str, tuple[str, bool]] = {
    "date": ("", False),
    "name": ("run", False),
    "dataset": ("dataset", False),
    "epochs": ("epochs", True),
    "val": ("val_macro_f1", True),
    "test": ("test_macro_f1", True),
}
_FACTS = ("dataset", "status", "epochs", "val_macro_f1", "test_macro_f1", "test_openings")


def list_rows(artifacts: Path, *, sort: str = "date", cells: bool = False) -> list[dict[str, Any]]:
    """A row for each run, with a row for a damaged one: it must not hide the others.

    Args:
        artifacts: folder of all outputs.
        sort: one of :data:`SORTS`; what has no value comes last.
        cells: the cells of grids too, as ``GRID/CELL``.

    Returns:
        ``run``, ``dataset``, ``status``, ``epochs``, ``val_macro_f1``, ``test_macro_f1``, ``test_openings``,
        ``code`` and ``corpora`` (macro-F1 on other corpora, by name).

    Raises:
        SettingsError: an unknown order.
    """
    if sort not in SORTS:
        raise SettingsError(f"`sort={sort}`: unknown", hint=nearest(sort, SORTS) + f"valid: {', '.join(SORTS)}")
    rows = [_row(run, run.name) for run in list_runs(artifacts)]
    grids = sorted(path for path in (artifacts / "grids").glob("*") if path.is_dir()) if cells else []
    rows += [_row(run, f"{grid.name}/{run.name}") for grid in grids for run in list_runs(grid)]
    key, falling = SORTS[sort]
    if key:
        known = [row for row in rows if row[key] is not None]
        known.sort(key=lambda row: row[key], reverse=falling)
        rows = [*known, *(row for row in rows if row[key] is None)]
    return rows


def describe_run(run: Run) -> dict[str, Any]:
    """What is known of one run.

    Returns:
        What :func:`list_rows` has of it, ``folder``, ``bytes`` (of all its files), ``began`` and ``command`` (None
        where unknown), ``reports`` (by the name of their part or corpus: ``n``, ``macro_f1``, ``interval`` and
        ``page``), ``settings``, and of a model that learned from everything ``scores``: lines on what is known of its
        worth.

    Raises:
        RunError: it is damaged.
    """
    environment = run.environment
    return {
        **_facts(run),
        "folder": str(run.folder),
        "bytes": sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file()),
        "began": environment.get("began"),
        "command": environment.get("command"),
        "reports": {name: _summary(path) for name, path in _reports(run).items()},
        "settings": run.settings,
        **({"scores": list(facts_of(run).scores)} if run.settings.get("split") == "whole" and run.has_model else {}),
    }


def delete_run(run: Run) -> bool:
    """Remove a run with all that was trained, evaluated and drawn of it.

    Returns:
        Whether the run that it was to replace (``overwrite``) is back in its place: this one was killed before it had a
        model.

    Raises:
        RunError: a process is writing it.
    """
    if run.is_busy():
        raise RunError(f"run '{run.name}' is being written", hint="stop that training first")
    if run.is_usable:
        run.drop_replaced()
    shutil.rmtree(run.folder)
    return run.restore_replaced()


def _row(run: Run, name: str) -> dict[str, Any]:
    try:
        return {**_facts(run), "run": name}
    except (RunError, OSError, ValueError, KeyError, TypeError):
        return {"run": name, **dict.fromkeys(_FACTS), "status": "damaged", "code": [], "corpora": {}}


def _facts(run: Run) -> dict[str, Any]:
    scores = [row["val_macro_f1"] for row in run.history]
    reports = _reports(run)
    report = read_report(reports["test"]) if "test" in reports else None
    return {
        "run": run.name,
        "dataset": run.settings["dataset"],
        "status": run.status,
        # An ensemble was not trained itself, so its score is its report's.
        "epochs": None if run.path(ENSEMBLE_FILE).is_file() else len(scores),
        "val_macro_f1": run.val_macro_f1 if scores else report["val_macro_f1"] if report else None,
        "test_macro_f1": report["metrics"]["macro_f1"] if report else None,
        "test_openings": run.test_openings,
        "code": [fact["name"] for fact in code_of(run).values()],
        "corpora": {
            name: metrics_of(read_report(path))["macro_f1"] for name, path in reports.items() if name not in PARTS
        },
    }


def _reports(run: Run) -> dict[str, Path]:
    """The reports of a run by part or corpus, the test part's first."""
    found = {path.name.removeprefix("report.").removesuffix(".json"): path for path in run.folder.glob("report.*.json")}
    first = {"test": run.path("report.json")} if run.path("report.json").is_file() else {}
    return {**first, **dict(sorted(found.items(), key=lambda item: (item[0] not in PARTS, item[0])))}


def _summary(path: Path) -> dict[str, Any]:
    report = read_report(path)
    _, value, ends = headlines(report)[0]
    interval = list(ends) if ends else None
    return {"n": report["n"], "macro_f1": value, "interval": interval, "page": str(path.with_suffix(".html"))}
