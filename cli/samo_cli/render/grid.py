"""A grid as it runs, and its table."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn

from samo.errors import counted
from samo.training.training_log import EVERY_S
from samo_cli.render.console import err, out, progress_bar, worded
from samo_cli.render.report import show_report
from samo_cli.render.tables import number, show_table

if TYPE_CHECKING:
    from samo.experiments.learning_curve import LearningCurve
    from samo.experiments.results_table import ResultsTable
    from samo.launch.local import Outcome

__all__ = ["GridView", "last_line", "progress_of", "show_cells", "show_crossval", "show_curve", "show_grid", "time_of"]

FOLD_COLUMNS = ("macro_f1", "uar", "accuracy", "val_macro_f1")


class GridView:
    """Draws a grid as it runs: a bar over its cells, one for each cell that runs, and a line for each that ended.

    What a running cell does stands in its log. Without a terminal its last line is repeated now and then.
    """

    def __init__(
        self,
        n_cells: int,
        metric: str,
        score: Callable[[str], float | None],
        part: str = "test",
        logs: Path | None = None,
    ) -> None:
        """Begin; ``score`` gives a finished cell's metric on ``part`` by name, ``logs`` has a file of each cell."""
        from samo.reporting.html import METRIC_NAMES

        self._metric, self._score, self._n, self._logs = f"{part} {METRIC_NAMES[metric]}", score, n_cells, logs
        self._seconds: list[float] = []
        self._running: dict[str, TaskID] = {}
        self._written: dict[str, str] = {}
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=24))
        self._progress = progress_bar(
            *columns, MofNCompleteColumn(), TextColumn("{task.fields[left]}", markup=False), transient=True
        )
        self._task = self._progress.add_task("cells", total=n_cells, left="")
        self._ended = threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> GridView:
        self._progress.start()
        if self._logs is not None:
            self._follower.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._follower.is_alive():
            self._follower.join()
        self._progress.stop()

    def on_start(self, name: str) -> None:
        """A worker took the cell."""
        self._running[name] = self._progress.add_task(name, total=None, left="starting")
        self._progress.update(self._task, description=f"{len(self._running)} running")
        if self._logs is not None and not self._seconds and len(self._running) == 1:
            err.print(f"[cyan]·[/cyan] logs: {escape(str(self._logs))}", soft_wrap=True)

    def on_end(self, outcome: Outcome) -> None:
        """Print what came of the cell."""
        at_once = max(1, len(self._running))
        if (task := self._running.pop(outcome.name, None)) is not None:
            self._progress.remove_task(task)
        self._seconds.append(outcome.seconds)
        done = len(self._seconds)
        if outcome.status == "done":
            score = self._score(outcome.name)
            text = f"{self._metric} {score:.3f}  " if score is not None else ""
            mark, colour = "done", "green"
        else:
            text, mark, colour = worded(outcome.message) + "  ", outcome.status, "red"
        # What follows the last cell, its report, is no cell and takes a time of its own.
        left = sum(self._seconds) / done * (self._n - done) / at_once
        words = f"{time_of(left)} left" if done < self._n else ""
        self._progress.update(self._task, completed=done, left=words, description=f"{len(self._running)} running")
        err.print(
            f"[{done}/{self._n}] {escape(outcome.name)}  [{colour}]{mark}[/{colour}]  {text}{time_of(outcome.seconds)}",
            soft_wrap=True,
        )

    def _follow(self) -> None:
        """Show each second what running cells write, in a thread of its own."""
        repeated_s = time.monotonic()
        while not self._ended.wait(1.0):
            repeat = not err.is_terminal and time.monotonic() - repeated_s >= EVERY_S
            repeated_s = time.monotonic() if repeat else repeated_s
            for name, task in list(self._running.items()):
                self._look_at(name, task, repeat=repeat)

    def _look_at(self, name: str, task: TaskID, *, repeat: bool) -> None:
        assert self._logs is not None
        line = last_line(self._logs / f"{name}.log")
        done, total, left = progress_of(line)
        with suppress(KeyError):  # it ended meanwhile
            self._progress.update(task, total=total, completed=done, left=f"{left}{line}" if line else "starting")
        if repeat and line and self._written.get(name) != line:
            self._written[name] = line
            err.print(escape(f"{name}: {line}"), soft_wrap=True)


def last_line(log: Path) -> str:
    """The last whole line of a log; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def progress_of(line: str) -> tuple[int, int | None, str]:
    """Epochs done, of how many, and the time left in words, by :func:`~samo.training.training_log.epoch_line`.

    ``(0, None, "")`` for any other line.
    """
    found = re.match(r"epoch +(\d+)/(\d+) .* ([\d.]+) s\b", line)
    if not found:
        return 0, None, ""
    done, total = int(found[1]), int(found[2])
    left = f"{time_of(float(found[3]) * (total - done))} left  " if done < total else "evaluating  "
    return done, total, left


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
    out.print(f"{counted(len(rows), 'cell')}, {n_open} to do: {known}")


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

    out.print(
        f"\n[bold]{escape(table.name)}[/bold]: {table.n_done} of {counted(table.n_cells, 'cell')}",
        soft_wrap=True,
    )
    for mark in marks(table):
        out.print(f"[bold yellow]{mark}[/bold yellow]")
    heads = heads_of(table)
    show_table(heads, text_rows(table), numbers=heads[1:4], whole=heads[:1])
    for line in table.notes:
        out.print(f"[yellow]![/yellow] {worded(line)}", soft_wrap=True)
    out.print(f"[dim]files: {escape(', '.join(map(str, files)))}[/dim]", soft_wrap=True)
