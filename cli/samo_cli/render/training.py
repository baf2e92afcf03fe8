"""A training as it goes, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from samo.training.training_log import EVERY_S, epoch_line, step_line
from samo_cli.render.console import progress_bar

__all__ = ["TrainingView", "ensemble_panel", "training_panel"]


class _TimeLeft(TimeRemainingColumn):
    """The time that remains, named, once it is known."""

    def render(self, task: Task) -> Text:
        """``0:12:34 left``, or nothing."""
        remaining = super().render(task)
        return Text("") if task.time_remaining is None else Text.assemble(remaining, " left")


class TrainingView:
    """Draws a training: a bar with loss, validation macro-F1 and time left, and one line an epoch."""

    def __init__(self, epochs: int, history: Sequence[Mapping[str, Any]] = ()) -> None:
        """Begin after the epochs of ``history``, of ``epochs`` in all."""
        self.epochs = epochs
        scores = [row["val_macro_f1"] for row in history if row["val_macro_f1"] is not None]
        self.best = max(scores, default=None)
        self._progress = progress_bar(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[scores]}"),
            _TimeLeft(table_column=Column(no_wrap=True)),
            transient=True,
        )
        self._loss = ""
        self._printed_s = float("-inf")
        self._f1 = self._scores(history[-1]) if history else ""
        self._task = self._progress.add_task("", total=None, epoch=len(history) + 1, scores=self._f1 or "starting")

    def __enter__(self) -> TrainingView:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Move the bar; without one, print a line at the first step and then twice a minute."""
        self._loss = f"loss {loss:.3f}"
        console, now_s = self._progress.console, time.monotonic()
        if not console.is_terminal and now_s - self._printed_s >= EVERY_S:
            self._printed_s = now_s
            console.print(step_line(epoch, step, n_steps, loss), soft_wrap=True)
        self._progress.update(
            self._task,
            total=n_steps * self.epochs,
            completed=epoch * n_steps + step,
            epoch=epoch + 1,
            scores=f"{self._loss}  {self._f1}".rstrip(),
        )

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Print the epoch."""
        if improved:
            self.best = row["val_macro_f1"]
        self._f1 = self._scores(row)
        self._progress.update(self._task, scores=f"{self._loss}  {self._f1}")
        best = " [green]* best[/green]" * improved
        self._progress.console.print(epoch_line(row, self.epochs) + best, soft_wrap=True)

    def _scores(self, row: Mapping[str, Any]) -> str:
        return "" if self.best is None else f"val F1 {row['val_macro_f1']:.3f} (best {self.best:.3f})"


def ensemble_panel(facts: Mapping[str, Any], summary: Mapping[str, Any], then: str) -> Panel:
    """The members of a trained ensemble and what they and it do on validation, and the command to type next."""
    from samo.reporting.wording import members_line

    members = [f"{each['name']} {each['val_macro_f1']:.3f}, weight {each['weight']:.2f}" for each in facts["members"]]
    left_out = [f"left out: {each['name']} ({each['reason']})" for each in summary["left_out"]]
    lines = [
        f"{members_line(summary)}: validation macro-F1 [bold]{facts['val_macro_f1']:.3f}[/bold]",
        *(f"        {escape(member)}" for member in members),
        *(f"[yellow]![/yellow] {escape(line)}" for line in left_out),
        *_marks(facts),
        *_kept(facts, then),
    ]
    return _panel(facts, lines)


def training_panel(facts: Mapping[str, Any], epochs: int, then: str) -> Panel:
    """What came of a training, and the command to type next."""
    early = f" (stopped early, {epochs} were allowed)" if facts["epochs"] < epochs else ""
    score = facts["val_macro_f1"]
    validated = "validated on nothing" if score is None else f"validation macro-F1 [bold]{score:.3f}[/bold]"
    kept = f"{facts.get('keep', 'best')} epoch {facts['best_epoch']} of {facts['epochs']}"
    if facts.get("keep") == "average":
        kept = f"average over the last quarter of {facts['epochs']} epochs"
    lines = [
        f"{kept}{early}: {validated}",
        *_marks(facts),
        *_kept(facts, then),
    ]
    return _panel(facts, lines)


def _marks(facts: Mapping[str, Any]) -> list[str]:
    words = [word for key, word in (("synthetic", "synthetic demo data"), ("leaky", "LEAKY SPLIT")) if facts[key]]
    return [f"[bold yellow]{word}[/bold yellow]" for word in words]


def _kept(facts: Mapping[str, Any], then: str) -> list[str]:
    return [f"kept in {escape(facts['folder'])}", f"next:   [bold]{escape(then)}[/bold]"]


def _panel(facts: Mapping[str, Any], lines: list[str]) -> Panel:
    return Panel("\n".join(lines), title=escape(facts["run"]), title_align="left", expand=False, border_style="green")
