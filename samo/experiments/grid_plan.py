"""A grid ready to run: its cells, the folder they lie in, and the data they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from samo.data.corpora import require_places
from samo.data.splits import require_held_out
from samo.errors import RunError, SettingsError, first_ten
from samo.experiments.cells import Cell, refuse_changed, status_of
from samo.experiments.reporter import GridReporter, PlainGridReporter
from samo.files import parse_json
from samo.frontend import Frontend
from samo.modalities import config_type, frontend_type
from samo.runs.run import Run
from samo.settings import GRID_SETTINGS, REPORT_SETTINGS, SPLIT_SETTINGS, Config, stored_config

__all__ = [
    "GRID_FILE",
    "GridPlan",
    "default_name",
    "make_cell",
    "naming_settings",
    "open_data",
    "open_plan",
    "read_grid_facts",
    "require_cell_places",
]

# What a grid was begun with, in its folder.
GRID_FILE = "grid.json"


@dataclass(frozen=True)
class GridPlan:
    """A grid ready to run.

    Attributes:
        kind: the experiment it belongs to, for example ``crossval``.
        folder: ``artifacts/grids/NAME``; its runs lie in ``runs`` below.
        cells: all of them, the place of the data filled in.
        metric: what cells are compared by, a key of the report's ``metrics``.
        command: what was typed, kept with the results.
        data: digest of the items and their contents; empty until :func:`open_plan` read them.
        unit: what a group is called.

    Raises:
        SettingsError: no cell, or two of one name.
    """

    kind: str
    folder: Path
    cells: tuple[Cell, ...]
    metric: str = "macro_f1"
    command: str = ""
    data: str = ""
    unit: str = "row"

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cells]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            wrong = f"names cells twice: {first_ten(twice)}" if twice else "has no cells"
            raise SettingsError(f"grid '{self.name}' {wrong}", hint="give different seeds, folds and values")

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def runs(self) -> list[Run]:
        """The runs of the cells, trained or not."""
        return [cell.run(self.folder) for cell in self.cells]

    @property
    def has_results(self) -> bool:
        """Whether any cell was evaluated."""
        return any(cell.run(self.folder).path(cell.report).is_file() for cell in self.cells)

    def data_of(self, cell: Cell) -> str:
        """The digest a cell's data must have; empty for one that reads other data than the first."""
        fields = config_type(str(cell.settings["modality"])).fields()
        read = {"modality", "sr", *(field.name for field in fields if field.section == "data")} - set(SPLIT_SETTINGS)
        first = self.cells[0].settings
        return self.data if all(cell.settings.get(name) == first.get(name) for name in read) else ""

    def facts(self) -> dict[str, Any]:
        """What is written to ``grid.json``."""
        return {
            "schema": 1,
            "kind": self.kind,
            "name": self.name,
            "metric": self.metric,
            "unit": self.unit,
            "data": self.data,
            "command": self.command,
            "cells": [
                {"name": c.name, "row": c.row, "seed": c.seed, "fold": c.fold, "settings": dict(c.settings)}
                for c in self.cells
            ],
        }


def open_data(config: Config, reporter: GridReporter | None = None, assets: Path | None = None) -> Frontend:
    """The data the settings name, decoded or tokenised once before the workers need them."""
    reporter, kind = reporter or PlainGridReporter(), frontend_type(config.modality)
    with reporter.counting(kind.preparing) as progress:
        return kind.open(config, reporter.note, progress, assets)


def open_plan(plan: GridPlan, reporter: GridReporter | None = None, frontend: Frontend | None = None) -> GridPlan:
    """The plan with the place of its data filled in, checked against what lies in its folder already.

    Args:
        plan: as it was made.
        reporter: shows the progress.
        frontend: the data of the first cell, where they are open already.

    Raises:
        DataError, ModelFileError: see :func:`require_cell_places`.
        RunError: cells on disk have other settings, or the data changed.
    """
    for cell in plan.cells:
        require_held_out(str(cell.settings.get("split")), "compare models on")
    require_cell_places(plan.cells, plan.folder)
    frontend = frontend or open_data(stored_config(plan.cells[0].settings), reporter)
    requested, found = plan.cells[0].settings, frontend.config.flat()
    # Only what reading the data found out: they may have been opened under another seed or fold than the first cell's.
    own = GRID_SETTINGS | SPLIT_SETTINGS
    filled = {name: value for name, value in found.items() if value != requested[name] and name not in own}
    cells = tuple(_filled(cell, filled, requested) for cell in plan.cells)
    refuse_changed(cells, plan.folder)
    data = frontend.manifest.digest
    before = read_grid_facts(plan.folder).get("data", data) if (plan.folder / GRID_FILE).exists() else data
    if before != data:
        raise RunError(
            f"the data of grid '{plan.name}' changed since it was begun", hint="give the grid another `name`"
        )
    return replace(plan, cells=cells, data=data, unit=frontend.unit)


def require_cell_places(cells: Iterable[Cell], folder: Path) -> None:
    """Refuse places that do not exist, as one training does; a cell that is done in the grid's folder needs none.

    Raises:
        DataError, ModelFileError: see :func:`~samo.data.corpora.require_places`.
    """
    for cell in cells:
        if status_of(cell, folder) != "done":
            require_places(cell.settings)


def default_name(kind: str, config: Config, *requested: object) -> str:
    """The same for the same settings, so that the same request goes on where it stopped."""
    values = config.flat()
    digest = sha256(f"{naming_settings(config, GRID_SETTINGS)}{requested}".encode()).hexdigest()[:4]
    return f"{kind}-{values['dataset']}-{values['mode']}-{values['model']}-{digest}"


def naming_settings(config: Config, without: Set[str] = frozenset()) -> list[tuple[str, Any]]:
    """What a made-up name is a digest of: the same wherever the data lie and whatever settings come later.

    Args:
        config: the settings.
        without: further ones that are no part of the name.
    """
    return sorted(config.lasting({"data_root", *REPORT_SETTINGS, *without}).items())


def read_grid_facts(folder: Path) -> dict[str, Any]:
    """The ``grid.json`` of a grid that was begun.

    Raises:
        RunError: there is none, or it is damaged.
    """
    try:
        facts: dict[str, Any] = parse_json((folder / GRID_FILE).read_bytes())
        return facts
    except FileNotFoundError as error:
        known = [path.parent.name for path in sorted(folder.parent.glob(f"*/{GRID_FILE}"))]
        raise RunError(
            f"there is no grid '{folder.name}' in {folder.parent}",
            hint=f"grids: {first_ten(known)}" if known else "none was run yet",
        ) from error
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {folder / GRID_FILE}: {error}") from error


def make_cell(
    config: Config, name: str, row: str, *, seed: int, fold: int | None = None, part: str = "test", **changed: Any
) -> Cell:
    """A cell with the settings given but for what it changes; with a fold its split is that of the folds.

    Raises:
        SettingsError: a value out of range, or settings that do not go together.
    """
    split = {} if fold is None else {"split": "folds", "fold": fold}
    settings = type(config).build({**config.flat(), **changed, **split, "seed": seed}).stored()
    return Cell(name, row, seed, fold, settings, part)


def _filled(cell: Cell, filled: Mapping[str, Any], requested: Mapping[str, Any]) -> Cell:
    """A cell with what opening the data found out, where it was requested as in the first cell."""
    mine = {name: value for name, value in filled.items() if cell.settings[name] == requested[name]}
    return replace(cell, settings={**cell.settings, **mine})
