"""Train and evaluate every cell of a grid that is not done yet, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from samo.errors import RunError, counted, first_ten
from samo.experiments.cells import Cell, result_of, seconds_left, status_of
from samo.experiments.grid_plan import GRID_FILE, GridPlan, open_plan
from samo.experiments.reporter import GridReporter, PlainGridReporter
from samo.experiments.stored_grid import StoredGrid
from samo.experiments.train_cell import cell_spec
from samo.files import write_json
from samo.launch.local import Job
from samo.launch.resources import Resources, make_launcher
from samo.runs.run import Run

__all__ = ["grid_status", "run_grid"]

# The work of a cell, by name: a worker imports it.
WORK = "samo.experiments.train_cell:train_cell"


def run_grid(
    plan: GridPlan, resources: Resources | None = None, reporter: GridReporter | None = None, *, tolerant: bool = False
) -> dict[str, str]:
    """Run every cell that is not done yet and keep ``grid.json``; running it again goes on where it stopped.

    Args:
        plan: the cells; their data are opened here unless :func:`~samo.experiments.grid_plan.open_plan` did it.
        resources: on what; left out: this machine.
        reporter: shows the progress; left out: plain lines on stderr.
        tolerant: go on when cells fail, as long as another is done.

    Returns:
        What went wrong with the cells that failed, by name.

    Raises:
        RunError: cells failed; names them and where their logs are. Or cells on disk have other settings or data.
        EnvironmentProblem, SettingsError: there is no such Ray cluster, or it cannot take a cell.
        Interrupted: stopped by Ctrl-C.
    """
    resources, reporter = resources or Resources(), reporter or PlainGridReporter()
    plan = plan if plan.data else open_plan(plan, reporter)
    with Run(plan.folder).locked():
        stored = _stored(plan, resources)
        if stored:
            stored.prepare()
        write_json(plan.folder / GRID_FILE, plan.facts())
        todo = [cell for cell in plan.cells if status_of(cell, plan.folder) != "done"]
        line = f"{plan.name}: {counted(len(plan.cells), 'cell')}, {len(plan.cells) - len(todo)} done before"
        if not todo:
            reporter.note(line)
            return {}
        with make_launcher(WORK, resources, len(todo)) as launcher:
            reporter.note(f"{line}; {launcher.workers} at once{', on Ray' if resources.ray else ''}")
            jobs = [_job(cell, plan, resources, launcher.threads, stored) for cell in todo]
            with reporter.cells(len(jobs), plan.metric, _score_of(plan), todo[0].part, plan.folder / "logs") as view:
                if stored:
                    stored.watcher = view
                outcomes = launcher.run(jobs, stored or view)
    failed = {outcome.name: outcome.message for outcome in outcomes if outcome.status != "done"}
    failed |= stored.lost if stored else {}
    if failed and not (tolerant and len(failed) < len(plan.cells)):
        raise RunError(
            f"{len(failed)} of {len(jobs)} cells did not end: {first_ten(failed)}",
            hint=f"their logs are in {plan.folder / 'logs'}; the same command tries them again",
        )
    return failed


def grid_status(plan: GridPlan, resources: Resources | None = None) -> dict[str, Any]:
    """How far a grid is; nothing is trained.

    Returns:
        ``cells``, with ``cell``, ``row``, ``seed``, ``fold`` and ``state`` (``done``, ``running``, ``stopped`` or
        ``missing``) of each, and ``seconds_left``, estimated on these resources; None without a finished cell.
    """
    resources = resources or Resources()
    stored = _stored(plan, resources)
    status = stored.status() if stored else {cell.name: status_of(cell, plan.folder) for cell in plan.cells}
    rows = [
        {"cell": cell.name, "row": cell.row, "seed": cell.seed, "fold": cell.fold, "state": status[cell.name]}
        for cell in plan.cells
    ]
    n_left = sum(word != "done" for word in status.values())
    # What is done elsewhere is neither left nor timed here.
    known = [c for c in plan.cells if status[c.name] != "done" or status_of(c, plan.folder) == "done"]
    left = seconds_left(known, plan.folder) if n_left else 0.0
    if n_left and (left or resources.ray):
        with make_launcher(WORK, resources, n_left) as launcher:
            left = left / launcher.workers if left else None
    return {"schema": 1, "grid": plan.name, "cells": rows, "seconds_left": left}


def _stored(plan: GridPlan, resources: Resources) -> StoredGrid | None:
    """The grid at its store, if it has one."""
    if not resources.store:
        return None
    return StoredGrid(f"{resources.store.rstrip('/')}/{plan.name}", plan.cells, plan.folder, plan.data_of)


def _job(cell: Cell, plan: GridPlan, resources: Resources, threads: int, stored: StoredGrid | None) -> Job:
    folder = cell.run(plan.folder).folder
    url = stored.run_url(cell.name) if stored else ""
    machine = (resources.device, resources.precision, threads)
    spec = cell_spec(folder, cell.settings, *machine, plan.command, cell.part, plan.data_of(cell), url)
    return Job(cell.name, spec, plan.folder / "logs" / f"{cell.name}.log")


def _score_of(plan: GridPlan) -> Callable[[str], float | None]:
    """A cell's metric by name, None while it is not evaluated."""
    by_name = {cell.name: cell for cell in plan.cells}

    def score(name: str) -> float | None:
        result = result_of(by_name[name], plan.folder)
        return result.metrics[plan.metric] if result else None

    return score
