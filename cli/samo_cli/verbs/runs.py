"""``samo runs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from samo.errors import RunError
from samo_cli.options import Artifacts, Json

if TYPE_CHECKING:
    from samo.runs.run import Run

__all__ = ["runs"]


def runs(artifacts: Artifacts = "", json: Json = False) -> None:
    """List the runs trained so far, oldest first."""
    from samo.runs.run import artifacts_root, list_runs
    from samo_cli.render import note, print_json, show_table

    root = artifacts_root(artifacts)
    rows = [_row(run) for run in list_runs(root)]
    if json:
        print_json({"schema": 1, "runs": rows})
        return
    if not rows:
        note(f"no run in {root} yet; train one: samo train")
        return
    heads = ["run", "dataset", "status", "epochs", "val macro-F1", "test macro-F1", "test opened"]
    names = ["run", "dataset", "status", "epochs", "val_macro_f1", "test_macro_f1", "test_openings"]
    numbers = heads[3:]
    if any(row["code"] for row in rows):
        heads, names = [*heads, "code"], [*names, "code"]
    show_table(heads, [[_cell(row[name]) for name in names] for row in rows], numbers=numbers, whole=heads[:1])
    if sum(row["test_macro_f1"] is not None for row in rows) > 1:
        note("choose by val macro-F1: a run chosen by its test macro-F1 owes a part of it to chance")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _row(run: Run) -> dict[str, Any]:
    """A damaged run is listed as such: it must not hide the others."""
    from samo.reporting.report import read_report
    from samo.runs.code import code_of
    from samo.runs.run import ENSEMBLE_FILE

    try:
        scores = [row["val_macro_f1"] for row in run.history]
        stored = run.path("report.json")
        report = read_report(stored) if stored.is_file() else None
        return {
            "run": run.name,
            "dataset": run.settings["dataset"],
            "status": run.status,
            # An ensemble was not trained itself, so its score is its report's.
            "epochs": None if run.path(ENSEMBLE_FILE).is_file() else len(scores),
            "val_macro_f1": max(scores, default=report["val_macro_f1"] if report else None),
            "test_macro_f1": report["metrics"]["macro_f1"] if report else None,
            "test_openings": run.test_openings,
            "code": [fact["name"] for fact in code_of(run).values()],
        }
    except (RunError, OSError, ValueError, KeyError, TypeError):
        unknown = dict.fromkeys(("dataset", "status", "epochs", "val_macro_f1", "test_macro_f1", "test_openings"))
        return {"run": run.name, **unknown, "status": "damaged", "code": []}
