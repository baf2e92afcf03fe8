"""A grid as it runs, and its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn

from samo_cli.render.console import err, out, progress_bar, worded
from samo_cli.render.report import show_report
from samo_cli.render.tables import number, show_table

if TYPE_CHECKING:
    from samo.experiments.learning_curve import LearningCurve
    from samo.experiments.results_table import ResultsTable
    from samo.launch.local import Outcome

__all__ = ["GridView", "show_cells", "show_crossval", "show_curve", "show_grid", "time_of"]

FOLD_COLUMNS = ("macro_f1", "uar", "accuracy", "val_macro_f1")


class GridView:
    """Draws running cells: a bar, and a line for each cell that ended."""

    def __init__(self, n_cells: int, metric: str, score: Callable[[str], float | None], part: str = "test") -> None:
        """Begin; ``score`` gives the metric of a finished cell on ``part`` by name."""
        from samo.reporting.html import METRIC_NAMES

        self._metric, self._score, self._n = f"{part} {METRIC_NAMES[metric]}", score, n_cells
        self._seconds: list[float] = []
        self._running: dict[str, None] = {}
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = progress_bar(*columns, TextColumn("{task.fields[left]}"), transient=True)
        self._task = self._progress.add_task("cells", total=n_cells, left="")

    def __enter__(self) -> GridView:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_start(self, name: str) -> None:
        """A worker took the cell."""
        self._running[name] = None
        self._progress.update(self._task, description=f"{len(self._running)} running")

    def on_end(self, outcome: Outcome) -> None:
        """Print what came of the cell."""
        at_once = max(1, len(self._running))
        self._running.pop(outcome.name, None)
        self._seconds.append(outcome.seconds)
        done = len(self._seconds)
        if outcome.status == "done":
            score = self._score(outcome.name)
            text = f"{self._metric} {score:.3f}  " if score is not None else ""
            mark, colour = "done", "green"
        else:
            text, mark, colour = worded(outcome.message) + "  ", outcome.status, "red"
        left = sum(self._seconds) / done * (self._n - done) / at_once
        self._progress.update(self._task, completed=done, left=f"{time_of(left)} left")
        err.print(
            f"[{done}/{self._n}] {escape(outcome.name)}  [{colour}]{mark}[/{colour}]  {text}{time_of(outcome.seconds)}",
            soft_wrap=True,
        )


def time_of(seconds: float) -> str:
    """``45 s``, ``6 min`` or ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def show_cells(rows: Sequence[Mapping[str, Any]], left: float | None) -> None:
    """The cells of a grid, how far each is, and the time they will take."""
    show_table(("cell", "state"), [(row["cell"], row["state"]) for row in rows], whole=("cell",))
    n_open = sum(row["state"] != "done" for row in rows)
    known = f"about {time_of(left)}" if left is not None else "unknown time, as no cell is finished yet"
    out.print(f"{len(rows)} cells, {n_open} to do: {known}")


def show_crossval(report: Mapping[str, Any], folder: Path) -> None:
    """The joined report of a cross-validation, then its folds and their spread."""
    show_report(report, folder / "report.html", folder / "figures")
    rows = [
        (str(row["seed"]), str(row["fold"]), str(row["n"]), *(number(row[key]) for key in FOLD_COLUMNS))
        for row in report["folds"]
    ]
    heads = ("seed", "fold", "n", "macro-F1", "UAR", "accuracy", "validation macro-F1")
    show_table(heads, rows, numbers=heads)
    for what, spread in (("folds", report["spread"]["cells"]), ("joined seeds", report["spread"]["seeds"])):
        if spread["n"] > 1:
            out.print(f"macro-F1 over {spread['n']} {what}: {spread['mean']:.3f} ± {spread['sd']:.3f}")


def show_curve(curve: LearningCurve, files: Sequence[Path]) -> None:
    """The points of a learning curve and what its last step says."""
    out.print(f"\n[bold]{escape(curve.name)}[/bold]", soft_wrap=True)
    heads = ("share", f"training {curve.unit}s", "items", "test macro-F1", "validation macro-F1", "gain")
    rows = [
        (
            f"{point.share:g}", f"{point.n_units:.0f}", f"{point.n_items:.0f}", _mean_sd(point.test),
            _mean_sd(point.val), f"{point.gain.mean:+.3f}" if point.gain else "",
        )
        for point in curve.points
    ]  # fmt: skip
    show_table(heads, rows, numbers=heads)
    out.print(curve.finding, soft_wrap=True)
    out.print(f"[dim]files: {escape(', '.join(map(str, files)))}[/dim]", soft_wrap=True)


def _mean_sd(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


def show_grid(table: ResultsTable, files: Sequence[Path]) -> None:
    """The table of a grid; the same columns as in its files."""
    from samo.experiments.results_table import heads_of, marks, text_rows

    out.print(f"\n[bold]{escape(table.name)}[/bold]: {table.n_done} of {table.n_cells} cells", soft_wrap=True)
    for mark in marks(table):
        out.print(f"[bold yellow]{mark}[/bold yellow]")
    heads = heads_of(table)
    show_table(heads, text_rows(table), numbers=heads[1:4], whole=heads[:1])
    for line in table.notes:
        out.print(f"[yellow]![/yellow] {worded(line)}", soft_wrap=True)
    out.print(f"[dim]files: {escape(', '.join(map(str, files)))}[/dim]", soft_wrap=True)
