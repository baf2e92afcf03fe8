"""``samo runs``."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer

__all__ = ["runs"]


def runs(
    artifacts: Annotated[str, typer.Option(help="Folder of all outputs; default $SAMO_ARTIFACTS or artifacts.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """List the runs trained so far, oldest first."""
    from rich.table import Table

    from samo_cli.render import out, print_json
    from samo_core.experiments.run import artifacts_root, list_runs

    rows: list[dict[str, Any]] = []
    for run in list_runs(artifacts_root(artifacts)):
        scores = [row["val_macro_f1"] for row in run.history]
        report = jsonlib.loads(run.path("report.json").read_text()) if run.path("report.json").is_file() else None
        rows.append(
            {
                "run": run.name,
                "dataset": run.settings["dataset"],
                "status": run.status,
                "epochs": len(scores),
                "val_macro_f1": max(scores, default=None),
                "test_macro_f1": report["metrics"]["macro_f1"] if report else None,
            }
        )
    if json:
        print_json({"schema": 1, "runs": rows})
        return
    table = Table()
    for head in ("run", "dataset", "status", "epochs", "val macro-F1", "test macro-F1"):
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*("-" if v is None else f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    out.print(table if rows else "no run yet; train one: samo train --modality audio")
