"""A grid whose cells are trained at a store, seen from the process that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from samo.errors import RunError, SamoError, first_ten
from samo.experiments.cells import Cell, refuse_other_settings, status_of
from samo.launch.local import Outcome, Watcher
from samo.launch.store import RunCopy, Snapshot, Store, fetch_run, progress_of, snapshots

__all__ = ["StoredGrid"]


@dataclass
class StoredGrid:
    """Brings cells home as they are done, so that here too they are ordinary runs.

    A cell is a function of its settings and its data: of two copies, the one that is further is gone on with.

    Attributes:
        url: the grid's folder at the store.
        cells: all of them.
        folder: the grid's folder here.
        data_of: the digest a cell's data must have; empty: any.
        watcher: follows cells once they are here.
        lost: what went wrong with cells that were done and could not be brought home, by name.
    """

    url: str
    cells: Sequence[Cell]
    folder: Path
    data_of: Callable[[Cell], str]
    watcher: Watcher | None = None
    lost: dict[str, str] = field(default_factory=dict)

    def run_url(self, name: str) -> str:
        """Where a cell's run lies."""
        return f"{self.url}/runs/{name}"

    def look(self) -> dict[str, Snapshot]:
        """The furthest copy at the store of each cell that was begun there, by name; changes nothing.

        Raises:
            EnvironmentProblem: the store does not answer.
        """
        runs = Store(f"{self.url}/runs")
        found = {cell.name: snapshots(runs.below(cell.name)) for cell in self.cells}
        return {name: known[0] for name, known in found.items() if known}

    def status(self) -> dict[str, str]:
        """How far every cell is, here or at the store, whichever is further; changes nothing."""
        there = self.look()
        status = {cell.name: status_of(cell, self.folder) for cell in self.cells}
        for name, snapshot in there.items():
            if status[name] != "done":
                status[name] = "done" if snapshot.is_finished else "stopped"
        return status

    def prepare(self) -> None:
        """Bring home what was finished there, and send what is further here.

        Raises:
            EnvironmentProblem: the store does not answer.
            RunError: cells there have other settings or data, or a process works on one here.
        """
        there = self.look()
        begun = [cell for cell in self.cells if cell.name in there]
        refuse_other_settings(((cell, dict(there[cell.name].facts.get("settings", {}))) for cell in begun), self.url)
        other = [cell.name for cell in begun if there[cell.name].facts.get("data") != self.data_of(cell)]
        if other:
            raise RunError(
                f"cells at {self.url} have other data: {first_ten(other)}", hint="give the grid another `name`"
            )
        for cell in self.cells:
            if status_of(cell, self.folder) == "done":
                continue
            run, copy = cell.run(self.folder), there.get(cell.name)
            if copy and copy.is_finished:
                fetch_run(Store(self.run_url(cell.name)), run)
            elif run.path("config.json").is_file() and (copy is None or progress_of(run, cell.report) > copy.progress):
                with run.locked():
                    RunCopy(Store(self.run_url(cell.name)), run, cell.report, self.facts(cell)).send()

    def facts(self, cell: Cell) -> dict[str, Any]:
        """What goes with every copy of a cell."""
        return {"settings": dict(cell.settings), "data": self.data_of(cell)}

    def on_start(self, name: str) -> None:
        """A worker took the cell."""
        if self.watcher:
            self.watcher.on_start(name)

    def on_end(self, outcome: Outcome) -> None:
        """The cell ended; one that is done is brought home first."""
        if outcome.status == "done":
            cell = next(cell for cell in self.cells if cell.name == outcome.name)
            try:
                fetch_run(Store(self.run_url(cell.name), patient=True), cell.run(self.folder))
            except (SamoError, OSError) as error:
                hint = getattr(error, "hint", "")
                self.lost[cell.name] = f"done, but not brought home: {error}" + (f" (hint: {hint})" if hint else "")
                outcome = replace(outcome, status="failed", message=self.lost[cell.name])
        if self.watcher:
            self.watcher.on_end(outcome)
