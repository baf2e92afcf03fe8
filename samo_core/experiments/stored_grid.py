"""A grid whose cells are trained at a store, seen from the process that keeps account of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from samo_core.errors import DiskFull, EnvironmentProblem, RunError, first_ten
from samo_core.experiments.cells import Cell, refuse_other_settings, state_of
from samo_core.experiments.launch import Outcome, Watcher
from samo_core.experiments.store import RunCopy, Store, bring_home

__all__ = ["StoredGrid"]


@dataclass
class StoredGrid:
    """Brings cells home as they end, so that here too they are ordinary runs.

    Attributes:
        url: the grid's folder at the store.
        cells: all of them.
        folder: the grid's folder here.
        watcher: is told of cells once they are here.
        lost: what went wrong with cells that ended and could not be brought home, by name.
    """

    url: str
    cells: Sequence[Cell]
    folder: Path
    watcher: Watcher | None = None
    lost: dict[str, str] = field(default_factory=dict)

    def run_url(self, name: str) -> str:
        """Where a cell's run lies."""
        return f"{self.url}/runs/{name}"

    def prepare(self) -> None:
        """Bring home what was finished there, and send what was begun here and not there.

        Raises:
            EnvironmentProblem: the store does not answer.
            RunError: cells there have other settings, or were begun both here and there.
        """
        names = set(Store(self.url).below("runs").names())
        begun = [cell for cell in self.cells if f"{cell.name}/config.json" in names]
        refuse_other_settings(((cell, self._settings(cell)) for cell in begun), self.url)
        waiting = [cell for cell in self.cells if state_of(cell, self.folder) != "done"]
        here = [cell for cell in waiting if cell.run(self.folder).path("config.json").is_file()]
        finished = [
            cell for cell in waiting if {f"{cell.name}/{end}" for end in ("trained.json", cell.report)} <= names
        ]
        twice = [cell.name for cell in here if cell in begun and cell not in finished]
        if twice:
            raise RunError(
                f"begun both in {self.folder / 'runs'} and at {self.url}: {first_ten(twice)}",
                hint="remove the copies you do not want to go on with",
            )
        for cell in finished:
            bring_home(Store(self.run_url(cell.name)), cell.run(self.folder))
        for cell in here:
            if cell not in finished:
                RunCopy(Store(self.run_url(cell.name)), cell.run(self.folder)).send()

    def on_start(self, name: str) -> None:
        """A worker took the cell."""
        if self.watcher:
            self.watcher.on_start(name)

    def on_end(self, outcome: Outcome) -> None:
        """The cell ended; a finished one is brought home first."""
        if outcome.status == "done":
            cell = next(cell for cell in self.cells if cell.name == outcome.name)
            try:
                bring_home(Store(self.run_url(cell.name)), cell.run(self.folder))
            except (EnvironmentProblem, DiskFull, OSError) as error:
                self.lost[cell.name] = f"done, but not brought home: {error}"
                outcome = replace(outcome, status="failed", message=self.lost[cell.name])
        if self.watcher:
            self.watcher.on_end(outcome)

    def _settings(self, cell: Cell) -> dict[str, object]:
        content = Store(self.run_url(cell.name)).read("config.json")
        try:
            settings: dict[str, object] = json.loads(content or b"")
            return settings
        except ValueError as error:
            raise RunError(f"cannot read config.json of {self.run_url(cell.name)}: {error}") from error
