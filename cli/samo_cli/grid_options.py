"""What ``ablate``, ``crossval``, ``learning-curve`` and ``ensemble`` share: their flags, and how a grid is shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from samo.errors import SettingsError
from samo.launch.resources import Resources
from samo.modalities import MODALITIES
from samo_cli.options import MACHINE, Artifacts, Device, Flag, Json, Precision, Threads, with_settings

if TYPE_CHECKING:
    from samo.experiments.grid_plan import GridPlan

__all__ = [
    "DryRun",
    "GridName",
    "Modality",
    "Place",
    "Preset",
    "Seeds",
    "numbers",
    "run_and_show",
    "show_status",
    "show_status_together",
    "with_place",
]

T = TypeVar("T")
Verb = Callable[..., None]

Modality = Annotated[str, typer.Option(metavar="|".join(MODALITIES), help="What is learned from.")]
Preset = Annotated[str, typer.Option(metavar="NAME", help="Start from a recipe of `samo presets`.")]
Seeds = Annotated[str, typer.Option(metavar="N,N,...", help="Repeat with each of these seeds.")]
GridName = Annotated[str, typer.Option("--name", help="Name of the folder in artifacts/grids; made up when left out.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the cells and the time they will take; train nothing.")]
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

# The flags behind `Place`, in the order of --help.
_PLACE = {
    "workers": (Workers, 0),
    "ray": (Ray, ""),
    "store": (StoreUrl, ""),
    "artifacts": (Artifacts, ""),
    "device": (Device, "auto"),
    "precision": (Precision, "auto"),
    "threads": (Threads, 0),
    "json": (Json, False),
}


@dataclass(frozen=True)
class Place:
    """Where a grid runs and where its results go, as typed."""

    workers: int
    ray: str
    store: str
    artifacts: str
    device: str
    precision: str
    threads: int
    json: bool

    def resources(self) -> Resources:
        """On what cells run.

        Raises:
            SettingsError: ``--store`` without ``--ray``.
        """
        return Resources(self.workers, self.threads, self.device, self.precision, self.ray, self.store)


def with_place(flags: Iterable[Flag]) -> Callable[[Verb], Verb]:
    """Give a verb one flag for each setting, see :func:`with_settings`, and those of its argument ``place``."""

    def decorate(verb: Verb) -> Verb:
        own = inspect.signature(verb, eval_str=True).parameters
        place = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
            for name, (annotation, default) in _PLACE.items()
        ]
        others = [parameter for name, parameter in own.items() if name not in ("place", "settings")]

        def command(*, settings: dict[str, Any], **values: Any) -> None:
            typed = {name: values.pop(name) for name in _PLACE}
            verb(**values, place=Place(**typed), settings=settings)

        command.__name__ = verb.__name__
        command.__doc__ = verb.__doc__
        command.__signature__ = inspect.Signature([*others, *place, own["settings"]])  # type: ignore[attr-defined]
        return with_settings(flags)(command)

    return decorate


def show_status(plan: GridPlan, place: Place) -> None:
    """List the cells of a grid and the time that is left."""
    from samo.experiments.run_grid import grid_status

    _show_status(grid_status(plan, place.resources()), place)


def show_status_together(name: str, plans: Sequence[GridPlan], place: Place) -> None:
    """List the cells of several grids that make one, each with its ``grid``, and the time that is left of them all."""
    from samo.experiments.run_grid import grid_status

    found = [grid_status(plan, place.resources()) for plan in plans]
    cells = [{"grid": status["grid"], **row} for status in found for row in status["cells"]]
    left = [status["seconds_left"] for status in found]
    total = None if None in left else sum(left)
    _show_status({"schema": 1, "grid": name, "cells": cells, "seconds_left": total}, place)


def _show_status(status: dict[str, Any], place: Place) -> None:
    from samo_cli.render import print_json, show_cells

    if place.json:
        print_json(status)
    else:
        named = [
            {**row, "cell": f"{row['grid']}/{row['cell']}" if "grid" in row else row["cell"]} for row in status["cells"]
        ]
        show_cells(named, status["seconds_left"])


def run_and_show(
    plan: GridPlan, place: Place, report: Callable[[GridPlan], T | None], show: Callable[[T], None]
) -> None:
    """Run a grid, and show what is finished however that ends.

    Args:
        plan: the grid.
        place: where it runs.
        report: what the finished cells say; None while that is nothing.
        show: prints it.
    """
    from samo.experiments.run_grid import run_grid
    from samo_cli.render import TerminalReporter, note

    try:
        run_grid(plan, place.resources(), TerminalReporter())
    finally:
        if plan.has_results:
            note("evaluating what is finished")
        found = report(plan)
        if found is not None:
            show(found)


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
