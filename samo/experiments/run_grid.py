"""What `ablate`, `crossval` and `learning-curve` share: running the cells of a grid and keeping account of them."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import RunError, SettingsError, first_ten
from samo.modalities import config_type, frontend_type
from samo.settings import SPLIT_SETTINGS
from samo_cli.options import MACHINE
from samo.experiments.train_cell import spec_of

if TYPE_CHECKING:
    from samo.experiments.cells import Cell
    from samo.experiments.stored_grid import StoredGrid
    from samo.frontend import Frontend
    from samo.launch.local import Job, Launcher

__all__ = [
    "GRID_SETTINGS",
    "DryRun",
    "GridName",
    "Plan",
    "Ray",
    "Seeds",
    "StoreUrl",
    "Where",
    "Workers",
    "account",
    "list_cells",
    "make_launcher",
    "numbers",
    "open_frontend",
    "open_plan",
    "run_cells",
]

# These a grid sets cell by cell.
GRID_SETTINGS = frozenset({"seed", "split", "fold"})

Workers = Annotated[
    int,
    typer.Option(
        min=0, metavar="INTEGER", rich_help_panel=MACHINE,
        help="Cells trained at once; 0 = one for each GPU, else for each core, at most 8.",
    ),
]  # fmt: skip
Ray = Annotated[
    str,
    typer.Option(
        metavar="auto|HOST:PORT", rich_help_panel=MACHINE,
        help="Run the cells on a Ray cluster, the one this machine belongs to or that with this head. All its machines "
        "must share the working folder and --artifacts, or have a --store. --workers limits the cells at once; 0 = as "
        "many as fit.",
    ),
]  # fmt: skip
StoreUrl = Annotated[
    str,
    typer.Option(
        "--store", metavar="URL", rich_help_panel=MACHINE,
        help="With --ray, where machines share no folder: cells are kept at this fsspec URL, such as s3://bucket/samo, "
        "go on from there when their machine dies, and are copied to --artifacts when they are done.",
    ),
]  # fmt: skip
Seeds = Annotated[str, typer.Option(metavar="N,N,...", help="Repeat with each of these seeds.")]
GridName = Annotated[str, typer.Option("--name", help="Name of the folder in artifacts/grids; made up when left out.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the cells and the time they will take; train nothing.")]


@dataclass(frozen=True)
class Where:
    """On what the cells run."""

    workers: int
    threads: int
    device: str
    precision: str
    ray: str = ""
    store: str = ""

    def __post_init__(self) -> None:
        """Refuse what would do nothing."""
        if self.store and not self.ray:
            raise SettingsError("--store acts only together with --ray", hint="add --ray auto, or leave it out")


@dataclass(frozen=True)
class Plan:
    """A grid ready to run.

    Attributes:
        kind: the verb it came from.
        folder: ``artifacts/grids/NAME``; its runs lie in ``runs`` below.
        cells: all of them, the place of the data filled in.
        command: what was typed.
        data: digest of the items and their contents.
        unit: what a group is called.
    """

    kind: str
    folder: Path
    cells: tuple[Cell, ...]
    metric: str
    command: str
    data: str = ""
    unit: str = "row"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def data_of(self, cell: Cell) -> str:
        """The digest a cell's data must have; empty for one that reads other data than the first."""
        fields = config_type(str(cell.settings["modality"])).fields()
        read = {"modality", "sr", *(field.name for field in fields if field.section == "data")} - set(SPLIT_SETTINGS)
        first = self.cells[0].settings
        return self.data if all(cell.settings.get(name) == first.get(name) for name in read) else ""


def numbers(given: str, flag: str) -> tuple[int, ...]:
    """Take ``0,1,2`` apart.

    Raises:
        SettingsError: not a list of different whole numbers.
    """
    try:
        found = tuple(int(part) for part in given.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise SettingsError(f"{flag} '{given}': write different whole numbers joined by commas, for example 0,1,2")
    return found


def open_frontend(cells: Sequence[Cell]) -> Frontend:
    """The data of the first cell, decoded or tokenised once before the workers need them."""
    from samo_cli.render import counting, note

    settings = dict(cells[0].settings)
    modality = settings.pop("modality")
    kind = frontend_type(modality)
    with counting(kind.preparing) as progress:
        return kind.open(config_type(modality).build(settings), note, progress)


def open_plan(plan: Plan, frontend: Frontend) -> Plan:
    """The plan with the place of its data filled in, checked against what its folder holds already.

    Raises:
        RunError: cells on disk have other settings, or the data changed.
    """
    from samo.experiments.cells import refuse_changed

    asked, found = plan.cells[0].settings, frontend.config.flat()
    filled = {name: value for name, value in found.items() if value != asked[name]}
    cells = tuple(
        replace(cell, settings={**cell.settings, **{n: v for n, v in filled.items() if cell.settings[n] == asked[n]}})
        for cell in plan.cells
    )
    refuse_changed(cells, plan.folder)
    data = frontend.manifest.digest
    before = account(plan.folder).get("data", data) if (plan.folder / "grid.json").exists() else data
    if before != data:
        raise RunError(
            f"the data of grid '{plan.name}' changed since it was begun", hint="give the grid another --name"
        )
    return replace(plan, cells=cells, data=data, unit=frontend.unit)


def run_cells(plan: Plan, where: Where, *, tolerant: bool = False) -> dict[str, str]:
    """Run every cell that is not done yet and keep ``grid.json``.

    Args:
        plan: the cells.
        where: on what.
        tolerant: go on when cells fail, as long as another is done.

    Returns:
        What went wrong with the cells that failed, by name.

    Raises:
        RunError: cells failed; names them and where their logs are.
        EnvironmentProblem, SettingsError: there is no such Ray cluster, or it cannot take a cell.
        Interrupted: stopped by Ctrl-C.
    """
    from samo.experiments.cells import result_of, state_of
    from samo.files import write_json
    from samo.runs.run import Run
    from samo_cli.render import GridView, note

    with Run(plan.folder).locked():
        stored = _stored(plan, where)
        if stored:
            stored.prepare()
        write_json(plan.folder / "grid.json", _facts(plan))
        todo = [cell for cell in plan.cells if state_of(cell, plan.folder) != "done"]
        said = f"{plan.name}: {len(plan.cells)} cells, {len(plan.cells) - len(todo)} done before"
        if not todo:
            note(said)
            return {}
        by_name = {cell.name: cell for cell in todo}

        def score(name: str) -> float | None:
            result = result_of(by_name[name], plan.folder)
            return result.metrics[plan.metric] if result else None

        with make_launcher(where, len(todo)) as launcher:
            note(f"{said}; {launcher.workers} at once{', on Ray' if where.ray else ''}")
            jobs = [_job(cell, plan, where, launcher.threads, stored) for cell in todo]
            with GridView(len(jobs), plan.metric, score, todo[0].part) as view:
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


@contextmanager
def make_launcher(where: Where, n_cells: int) -> Iterator[Launcher]:
    """Worker processes on this machine, or tasks on a Ray cluster for as long as the block lasts.

    Raises:
        EnvironmentProblem, SettingsError: there is no such Ray cluster, or it cannot take a cell.
    """
    work = "samo.experiments.train_cell:work"
    if where.ray:
        from samo.launch.ray import ray_launcher

        share = (n_cells, where.workers, where.threads, where.device)
        with ray_launcher(work, where.ray, *share, shared=not where.store) as launcher:
            yield launcher
        return
    from samo.launch.local import LocalLauncher, share_of_cores

    gpus = _gpus(where.device)
    yield LocalLauncher(work, *share_of_cores(n_cells, where.workers, where.threads, gpus), gpus)


def list_cells(plan: Plan, where: Where, *, json: bool) -> None:
    """Print the state of every cell and the estimated time that is left on the machines given."""
    from samo.experiments.cells import seconds_left, state_of
    from samo_cli.render import print_json, show_cells

    stored = _stored(plan, where)
    states = stored.states() if stored else {cell.name: state_of(cell, plan.folder) for cell in plan.cells}
    rows = [
        {"cell": cell.name, "row": cell.row, "seed": cell.seed, "fold": cell.fold, "state": states[cell.name]}
        for cell in plan.cells
    ]
    n_left = sum(state != "done" for state in states.values())
    # What is done elsewhere is neither left nor timed here.
    known = [c for c in plan.cells if states[c.name] != "done" or state_of(c, plan.folder) == "done"]
    left = seconds_left(known, plan.folder) if n_left else 0.0
    if n_left and (left or where.ray):
        with make_launcher(where, n_left) as launcher:
            left = left / launcher.workers if left else None
    if json:
        print_json({"schema": 1, "grid": plan.name, "cells": rows, "seconds_left": left})
    else:
        show_cells(rows, left)


def account(folder: Path) -> dict[str, Any]:
    """The ``grid.json`` of a grid that was begun.

    Raises:
        RunError: there is none, or it is damaged.
    """
    try:
        facts: dict[str, Any] = jsonlib.loads((folder / "grid.json").read_text(encoding="utf-8"))
        return facts
    except FileNotFoundError as error:
        known = [path.parent.name for path in sorted(folder.parent.glob("*/grid.json"))]
        raise RunError(
            f"there is no grid '{folder.name}' in {folder.parent}",
            hint=f"grids: {first_ten(known)}" if known else "none was run yet",
        ) from error
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {folder / 'grid.json'}: {error}") from error


def _facts(plan: Plan) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": plan.kind,
        "name": plan.name,
        "metric": plan.metric,
        "unit": plan.unit,
        "data": plan.data,
        "command": plan.command,
        "cells": [
            {"name": c.name, "row": c.row, "seed": c.seed, "fold": c.fold, "settings": dict(c.settings)}
            for c in plan.cells
        ],
    }


def _stored(plan: Plan, where: Where) -> StoredGrid | None:
    """The grid at its store, if it has one."""
    if not where.store:
        return None
    from samo.experiments.stored_grid import StoredGrid

    return StoredGrid(f"{where.store.rstrip('/')}/{plan.name}", plan.cells, plan.folder, plan.data_of)


def _job(cell: Cell, plan: Plan, where: Where, threads: int, stored: StoredGrid | None) -> Job:
    from samo.launch.local import Job

    folder = cell.run(plan.folder).folder
    url = stored.run_url(cell.name) if stored else ""
    machine = (where.device, where.precision, threads)
    spec = spec_of(folder, cell.settings, *machine, plan.command, cell.part, plan.data_of(cell), url)
    return Job(cell.name, spec, plan.folder / "logs" / f"{cell.name}.log")


def _gpus(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()
