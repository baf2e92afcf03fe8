"""Exports of the runs that ship with the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samo.deploy.export import Exported, export
from samo.deploy.parity import Parity
from samo.runs.reporter import PlainReporter
from samo.runs.run import Run

QUIET = PlainReporter(quiet=True)


def parity(**values: Any) -> Parity:
    given = {"largest_difference": 1e-6, "equal_labels": 1.0, "before": 0.5, "after": 0.5, "low": -0.01, "high": 0.01}
    return Parity(**{"part": "val", "n": 200, "unit": "speaker", "n_units": 4, **given, **values})


def exported(before: Path, run: str = "speech", **values: Any) -> Exported:
    data = before / ("clips" if run == "speech" else "texts.csv")
    return export(run, data_root=data, threads=1, reporter=QUIET, **values)


def left_in(artifacts: Path) -> list[str]:
    """What an export left in the folder of exports of the run ``speech``."""
    folder = artifacts / "runs" / "speech" / "exports"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def with_kept_answers(artifacts: Path) -> Run:
    """The run ``speech`` as one that was evaluated: its kept test predictions count."""
    run = Run(artifacts / "runs" / "speech")
    run.path("report.json").write_text("{}")
    run.path("MODEL_CARD.md").write_text("# Model card: speech\n\nFirst lines.\n")
    return run
