"""Everything that is drawn on a terminal. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from samo_audio.predictor import Prediction

__all__ = [
    "TrainingView",
    "counting",
    "downloading",
    "err",
    "note",
    "out",
    "print_json",
    "show_inspection",
    "show_predictions",
    "show_report",
    "show_table",
    "training_panel",
]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

# More rows tell a reader less than their sum.
MOST_ROWS = 50


def print_json(data: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def note(line: str) -> None:
    """One line for people, on stderr."""
    err.print(f"[cyan]·[/cyan] {escape(line)}", soft_wrap=True)


def show_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[str] = (), whole: Collection[str] = ()
) -> None:
    """A plain table; the columns in ``numbers`` are set to the right, those in ``whole`` are never folded."""
    table = _table()
    for head in heads:
        justify: Literal["left", "right"] = "right" if head in numbers else "left"
        table.add_column(head, overflow="fold", justify=justify, no_wrap=head in whole)
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    out.print(table)


@contextmanager
def counting(title: str) -> Iterator[Any]:
    """A progress bar for a callback ``(done, total)``; it stays away while there is nothing to count."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with _progress(*columns, TimeRemainingColumn(), transient=True) as progress:
        task = progress.add_task(title, total=None, visible=False)

        def count(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield count


@contextmanager
def downloading() -> Iterator[Any]:
    """A progress bar for a callback ``(stage, bytes done, bytes in total)``; total 0 while unknown."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with _progress(*columns, TimeRemainingColumn()) as progress:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=None)
                if not err.is_terminal:
                    note(stage)
            progress.update(tasks[stage], completed=done, total=total or None)

        yield report


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
        self.best = max((row["val_macro_f1"] for row in history), default=None)
        self._progress = _progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[scores]}"),
            _TimeLeft(table_column=Column(no_wrap=True)),
            transient=True,
        )
        self._loss = ""
        self._f1 = self._judged(history[-1]) if history else ""
        self._task = self._progress.add_task("", total=None, epoch=len(history) + 1, scores=self._f1 or "starting")

    def __enter__(self) -> TrainingView:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Move the bar."""
        self._loss = f"loss {loss:.3f}"
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
        self._f1 = self._judged(row)
        self._progress.update(self._task, scores=f"{self._loss}  {self._f1}")
        width = len(str(self.epochs))
        self._progress.console.print(
            f"epoch {row['epoch']:>{width}}/{self.epochs}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}"
            f"  val macro-F1 {row['val_macro_f1']:.4f}  {row['seconds']:.1f} s" + (" [green]* best[/green]" * improved),
            soft_wrap=True,
        )

    def _judged(self, row: Mapping[str, Any]) -> str:
        return f"val F1 {row['val_macro_f1']:.3f} (best {self.best:.3f})"


def training_panel(facts: Mapping[str, Any], epochs: int, then: str) -> Panel:
    """What came of a training, and the command to type next."""
    marks = [word for key, word in (("synthetic", "synthetic demo data"), ("leaky", "LEAKY SPLIT")) if facts[key]]
    early = f" (stopped early, {epochs} were allowed)" if facts["epochs"] < epochs else ""
    lines = [
        f"best epoch {facts['best_epoch']} of {facts['epochs']}{early}: "
        f"validation macro-F1 [bold]{facts['val_macro_f1']:.3f}[/bold]",
        *(f"[bold yellow]{mark}[/bold yellow]" for mark in marks),
        f"kept in {escape(facts['folder'])}",
        f"next:   [bold]{escape(then)}[/bold]",
    ]
    return Panel("\n".join(lines), title=escape(facts["run"]), title_align="left", expand=False, border_style="green")


def show_report(report: Mapping[str, Any], page: Path, pictures: Path) -> None:
    """The report as tables."""
    from samo_core.evaluation.report import stamps

    judged = "whole corpus" if report["split"] == "all" else f"{report['split']} part"
    title = f"{report['run']} on {report['dataset']}, {judged}: {report['n']} items"
    out.print(f"\n[bold]{escape(title)}[/bold] [dim](split: {escape(report['split_rule'])})[/dim]", soft_wrap=True)
    for mark in stamps(report):
        out.print(f"[bold yellow]{mark}[/bold yellow]")
    for part in (_metrics(report), _per_class(report), _confusion(report)):
        out.print(part)
        out.print()
    for group, rows in report["by_group"].items():
        values = ", ".join(f"{name} {_number(row['macro_f1'], 2)}" for name, row in rows.items())
        out.print(f"macro-F1 by {group}: {values}", markup=False)
    for warning in report["warnings"]:
        out.print(f"[yellow]![/yellow] {escape(warning)}", soft_wrap=True)
    out.print(f"[dim]report: {escape(str(page))}; pictures: {escape(str(pictures))}[/dim]", soft_wrap=True)


def show_predictions(predictions: Sequence[Prediction]) -> None:
    """A row for each file, then the time lines of long recordings."""
    warned = any(said.warnings for said in predictions)
    rows = []
    for said in predictions:
        ranked = sorted(said.probabilities.items(), key=lambda pair: -pair[1])
        others = ", ".join(f"{label} {share:.0%}" for label, share in ranked[1:3])
        row = (str(said.path), said.label, f"{ranked[0][1]:.0%}", others)
        rows.append((*row, "; ".join(said.warnings)) if warned else row)
    show_table(("file", "label", "sure", "next", "warnings")[: 5 if warned else 4], rows, numbers=("sure",))
    for said in predictions:
        if not said.timeline:
            continue
        out.print(f"\ntime line of {escape(str(said.path))}", soft_wrap=True)
        longest = max(len(stretch.label) for stretch in said.timeline)
        for stretch in said.timeline:
            share = stretch.probabilities[stretch.label]
            line = f"  {_clock(stretch.start_s)} - {_clock(stretch.end_s)}  {stretch.label:{longest}} {share:4.0%} "
            out.print(line + "█" * round(20 * share), markup=False, soft_wrap=True)


def show_inspection(found: Mapping[str, Any], folder: Path) -> None:
    """What ``samo data inspect`` found, as tables."""
    mark = "  [bold yellow]synthetic demo data[/bold yellow]" if found["synthetic"] else ""
    title = f"[bold]{escape(found['dataset'])}[/bold] in {escape(found['root'])}: {found['n']} clips{mark}"
    out.print(title, soft_wrap=True)
    classes = list(found["by_class"])
    rows = [
        (speaker, *(str(row.get(name, 0)) for name in classes), str(found["by_speaker"][speaker]))
        for speaker, row in list(found["class_by_speaker"].items())[:MOST_ROWS]
    ]
    left = len(found["by_speaker"]) - len(rows)
    total = ("all", *(str(found["by_class"][name]) for name in classes), str(found["n"]))
    heads = _fitting(("speaker", *classes, "all"), [*rows, total], out.width)
    if heads:
        out.print(_counts("clips by speaker and class", heads, rows, total))
        if left > 0:
            out.print(f"... and {left} more speakers")
    else:
        show_table(("class", "clips"), found["by_class"].items(), numbers=("clips",))
    duration, level, native = found["duration_s"], found["level"], found["native"]
    out.print(
        f"duration {duration['min']:.2f} / {duration['median']:.2f} / {duration['max']:.2f} s (min / median / max), "
        f"{duration['total'] / 60:.1f} minutes in all"
    )
    rms, peak = level["rms_db"], level["peak"]
    out.print(
        f"level {rms['min']:.1f} / {rms['median']:.1f} / {rms['max']:.1f} dB, "
        f"peak {peak['min']:.3f} / {peak['median']:.3f} / {peak['max']:.3f} of full scale"
    )
    rates = ", ".join(f"{rate} Hz: {n}" for rate, n in native["sample_rates"].items())
    channels = ", ".join(f"{count}: {n}" for count, n in native["channels"].items())
    out.print(f"native sampling rates {rates}; channels {channels}")
    for warning in found["warnings"]:
        out.print(f"[yellow]![/yellow] {escape(warning)}", soft_wrap=True)
    out.print(f"[dim]pictures: {escape(str(folder))}[/dim]", soft_wrap=True)


def _progress(*columns: Any, transient: bool = False) -> Progress:
    return Progress(*columns, console=err, transient=transient, disable=not err.is_terminal)


def _table() -> Table:
    """Few lines, so that eight classes fit on 80 columns."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _titled(title: str, table: Table) -> Group:
    """A title that may be wider than its table."""
    return Group(Text(title, style="bold"), table)


def _metrics(report: Mapping[str, Any]) -> Table:
    table = _table()
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
        table.add_row(name, _number(report["metrics"][key]), bounds, style="bold" if key == "macro_f1" else "")
    for key, name in (("train_macro_f1", "macro-F1 on train"), ("val_macro_f1", "macro-F1 on validation")):
        if report[key] is not None:
            table.add_row(name, _number(report[key]), "", style="dim")
    return table


def _per_class(report: Mapping[str, Any]) -> Group:
    table = _table()
    table.add_column("class")
    for head in ("precision", "recall", "F1", "ROC-AUC", "AP", "support"):
        table.add_column(head, justify="right")
    for label, row in report["per_class"].items():
        cells = [row[key] for key in ("precision", "recall", "f1", "roc_auc", "average_precision")]
        table.add_row(escape(label), *map(_number, cells), str(row["support"]))
    return _titled("per class", table)


def _confusion(report: Mapping[str, Any]) -> Group:
    """The matrix where it fits, else the pairs that are most often confused."""
    rows = [
        (label, *(str(count or ("0" if place == row else "·")) for place, count in enumerate(counts)))
        for row, (label, counts) in enumerate(zip(report["labels"], report["confusion"], strict=True))
    ]
    heads = _fitting(("", *report["labels"]), rows, out.width)
    if heads:
        return _counts("confusion (rows: truth, columns: said)", heads, rows, diagonal=True)
    table = _table()
    for head in ("truth", "said", "times", "of that class"):
        table.add_column(head)
    for pair in report["most_confused"][:10]:
        table.add_row(escape(pair["true"]), escape(pair["predicted"]), str(pair["count"]), f"{pair['share']:.0%}")
    return _titled("most often confused (the whole matrix is among the pictures)", table)


def _counts(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    total: Sequence[str] = (),
    *,
    diagonal: bool = False,
) -> Group:
    table = _table()
    for place, head in enumerate(heads):
        table.add_column(escape(head), justify="right" if place else "left", no_wrap=True)
    for number, row in enumerate(rows, start=1):
        bold = number if diagonal else 0
        table.add_row(*(f"[bold]{escape(c)}[/bold]" if bold and k == bold else escape(c) for k, c in enumerate(row)))
    if total:
        table.add_section()
        table.add_row(*map(escape, total), style="bold")
    return _titled(title, table)


def _fitting(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str] | None:
    """Heads cut alike, as little as needed and never to the same word, so that the table fits; None if none do."""
    first, *others = heads
    longest = max(map(len, others), default=0)
    names = max(len(first), *(len(row[0]) for row in rows))
    cells = [max(len(row[place]) for row in rows) for place in range(1, len(heads))]
    for size in range(longest, 2, -1):
        cut = [head[:size] for head in others]
        needed = names + sum(max(len(head), cell) + 2 for head, cell in zip(cut, cells, strict=True))
        if len(set(cut)) == len(cut) and needed <= width:
            return [first, *cut]
    return None


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _clock(seconds: float) -> str:
    return f"{int(seconds // 3600):d}:{int(seconds // 60 % 60):02d}:{seconds % 60:04.1f}"
