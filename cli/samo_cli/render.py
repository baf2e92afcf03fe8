"""Everything that is drawn on a terminal. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

__all__ = ["TrainingView", "counting", "downloading", "err", "note", "out", "panel", "print_json", "show_inspection", "show_report", "stamp"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(data: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def note(line: str) -> None:
    """One line for people, on stderr."""
    err.print(f"[cyan]·[/cyan] {escape(line)}", soft_wrap=True)


@contextmanager
def counting(title: str) -> Iterator[Any]:
    """A progress bar for a callback ``(done, total)``; it stays away while there is nothing to count."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        task = progress.add_task(title, total=None, visible=False)

        def count(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield count


class TrainingView:
    """Draws a training: a bar with the loss, then one line an epoch."""

    def __init__(self, epochs: int, done: int = 0) -> None:
        self.epochs = epochs
        self.started = time.perf_counter()
        self.best = ""
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[best]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, epoch=done + 1, loss=0.0, best="")

    def __enter__(self) -> TrainingView:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Move the bar."""
        total = n_steps * self.epochs
        self._progress.update(
            self._task, total=total, completed=epoch * n_steps + step, epoch=epoch + 1, loss=loss, best=self.best
        )

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Print the epoch."""
        if improved:
            self.best = f"best F1 {row['val_macro_f1']:.3f}"
        mark = "[green]*[/green]" if improved else " "
        self._progress.console.print(
            f"epoch {row['epoch']:>3}/{self.epochs}  train loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}"
            f"  val macro-F1 {row['val_macro_f1']:.4f} {mark}  {row['seconds']:.1f} s"
        )


def stamp(report: Mapping[str, Any]) -> str:
    """``synthetic demo data`` and ``LEAKY SPLIT``, or nothing."""
    marks = [text for key, text in (("synthetic", "synthetic demo data"), ("leaky", "LEAKY SPLIT")) if report[key]]
    return ", ".join(marks)


def show_report(report: Mapping[str, Any], folder: Any, console: Console = out) -> None:
    """The report as tables."""
    mark = stamp(report)
    title = f"{report['run']} on {report['dataset']} / {report['split']} ({report['n']} items, split: {report['split_rule']})"
    console.print(f"\n[bold]{escape(title)}[/bold]" + (f"  [bold yellow]{mark}[/bold yellow]" if mark else ""))
    console.print(_metrics(report))
    console.print(_per_class(report))
    console.print(_confusion(report))
    for group, rows in report["by_group"].items():
        values = ", ".join(f"{escape(name)} {row['macro_f1']:.2f}" for name, row in rows.items())
        console.print(f"macro-F1 by {group}: {values}")
    for warning in report.get("warnings", []):
        console.print(f"[yellow]![/yellow] {escape(warning)}")
    console.print(f"[dim]pictures and report.html in {folder}[/dim]", soft_wrap=True)


def panel(lines: Sequence[str], title: str) -> Panel:
    """The closing panel with the next command to type."""
    return Panel("\n".join(lines), title=title, expand=False, border_style="green")


def _metrics(report: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column(f"{report['ci']['level']:.0%} interval over {report['ci']['unit']}s")
    names = {
        "macro_f1": "macro-F1",
        "uar": "UAR",
        "accuracy": "accuracy",
        "micro_f1": "micro-F1",
        "weighted_f1": "weighted F1",
    }
    for key, name in names.items():
        interval = report["ci"].get(key)
        bounds = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        value = f"{report['metrics'][key]:.3f}"
        style = "bold" if key == "macro_f1" else ""
        table.add_row(name, value, bounds, style=style)
    for key, name in (("train_macro_f1", "macro-F1 on train"), ("val_macro_f1", "macro-F1 on validation")):
        if report[key] is not None:
            table.add_row(name, f"{report[key]:.3f}", "", style="dim")
    return table


def _per_class(report: Mapping[str, Any]) -> Table:
    table = Table(title="per class", title_justify="left", header_style="bold")
    table.add_column("class")
    for head in ("precision", "recall", "F1", "ROC-AUC", "AP", "support"):
        table.add_column(head, justify="right")
    for label, row in report["per_class"].items():
        cells = [row[key] for key in ("precision", "recall", "f1", "roc_auc", "average_precision")]
        table.add_row(escape(label), *("-" if c is None else f"{c:.3f}" for c in cells), str(row["support"]))
    return table


def _confusion(report: Mapping[str, Any]) -> Table:
    table = Table(title="confusion (rows: truth, columns: said)", title_justify="left", header_style="bold")
    table.add_column("")
    for label in report["labels"]:
        table.add_column(escape(label[:9]), justify="right")
    for label, row in zip(report["labels"], report["confusion"], strict=True):
        cells = [f"[bold]{n}[/bold]" if report["labels"][k] == label else str(n or "·") for k, n in enumerate(row)]
        table.add_row(escape(label), *cells)
    return table


@contextmanager
def downloading() -> Iterator[Any]:
    """A progress bar for a callback ``(stage, bytes done, bytes in total)``; total 0 while unknown."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=err, disable=not err.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=None)
                if not err.is_terminal:
                    note(stage)
            progress.update(tasks[stage], completed=done, total=total or None)

        yield report


def show_inspection(found: Mapping[str, Any], folder: Any, console: Console = out) -> None:
    """What ``samo data inspect`` found, as tables."""
    mark = "  [bold yellow]synthetic demo data[/bold yellow]" if found["synthetic"] else ""
    console.print(f"[bold]{escape(found['dataset'])}[/bold] in {escape(found['root'])}: {found['n']} clips{mark}")
    classes = list(found["by_class"])
    table = Table(title="clips by speaker and class", title_justify="left")
    table.add_column("speaker")
    for name in (*classes, "all"):
        table.add_column(escape(name[:9]), justify="right")
    for speaker, row in found["class_by_speaker"].items():
        table.add_row(escape(speaker), *(str(row.get(name, 0)) for name in classes), str(found["by_speaker"][speaker]))
    table.add_section()
    table.add_row("all", *(str(found["by_class"][name]) for name in classes), str(found["n"]), style="bold")
    console.print(table)
    duration, level = found["duration_s"], found["level"]
    console.print(
        f"duration {duration['min']:.2f} / {duration['median']:.2f} / {duration['max']:.2f} s (min / median / max), "
        f"{duration['total'] / 60:.1f} minutes in all"
    )
    rms, peak = level["rms_db"], level["peak"]
    console.print(
        f"level {rms['min']:.1f} / {rms['median']:.1f} / {rms['max']:.1f} dB, "
        f"peak {peak['min']:.3f} / {peak['median']:.3f} / {peak['max']:.3f} of full scale"
    )
    native = found["native"]
    rates = ", ".join(f"{rate} Hz: {n}" for rate, n in native["sample_rates"].items())
    channels = ", ".join(f"{count}: {n}" for count, n in native["channels"].items())
    console.print(f"native sampling rates {rates}; channels {channels}")
    for warning in found["warnings"]:
        console.print(f"[yellow]![/yellow] {escape(warning)}", soft_wrap=True)
    console.print(f"[dim]pictures in {folder}[/dim]", soft_wrap=True)
