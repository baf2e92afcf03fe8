"""What ``samo data inspect`` found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from samo.errors import counted, plural
from samo_cli.render.console import out, worded
from samo_cli.render.tables import counts_table, fitting_heads, show_table

__all__ = ["show_inspection", "show_text_inspection"]

# More rows tell a reader less than their sum.
MOST_ROWS = 50


def show_inspection(found: Mapping[str, Any], folder: Path) -> None:
    """What ``samo data inspect`` found, as tables."""
    mark = "  [bold yellow]synthetic demo data[/bold yellow]" if found["synthetic"] else ""
    title = f"[bold]{escape(found['dataset'])}[/bold] in {escape(found['root'])}: {counted(found['n'], 'clip')}{mark}"
    out.print(title, soft_wrap=True)
    classes = list(found["by_class"])
    rows = [
        (speaker, *(str(row.get(name, 0)) for name in classes), str(found["by_speaker"][speaker]))
        for speaker, row in list(found["class_by_speaker"].items())[:MOST_ROWS]
    ]
    left = len(found["by_speaker"]) - len(rows)
    total = ("all", *(str(found["by_class"][name]) for name in classes), str(found["n"]))
    heads = fitting_heads(("speaker", *classes, "all"), [*rows, total], out.width)
    if heads:
        out.print(counts_table("clips by speaker and class", heads, rows, total))
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
    _close(found, folder)


def show_text_inspection(found: Mapping[str, Any], folder: Path) -> None:
    """What ``samo data inspect --modality text`` found, as tables."""
    mark = "  [bold yellow]synthetic demo data[/bold yellow]" if found["synthetic"] else ""
    place = f" in {escape(found['root'])}" if found["root"] else ""
    out.print(
        f"[bold]{escape(found['dataset'])}[/bold]{place}: {found['n']:,} {plural('text', found['n'])}{mark}",
        soft_wrap=True,
    )
    parts = list(found["parts"])
    for name, task in found["tasks"].items():
        rows = [
            (label, *(f"{task['by_part'][part][label]:,}" for part in parts), f"{n:,}", f"{n / task['labelled']:.1%}")
            for label, n in task["by_label"].items()
        ]
        total = ("rows", *(f"{found['parts'][part]:,}" for part in parts), f"{found['n']:,}", "")
        heads = (name, *(part for part in parts if len(parts) > 1), "all", "share")
        cells = [row if len(parts) > 1 else (row[0], *row[2:]) for row in (*rows, total)]
        kind = "several may hold" if task["multi_label"] else "one holds"
        out.print(counts_table(f"{name}: {counted(len(rows), 'label')}, {kind}", heads, cells[:-1], cells[-1]))
        out.print(
            f"{task['cardinality']:.3f} labels a row; "
            f"{task['none']:,} {plural('row', task['none'])} with none of them, "
            f"{task['unlabelled']:,} not labelled"
        )
    words = found["words"]
    out.print(
        f"words {words['min']} / {words['median']:g} / {words['mean']:.1f} / {words['p95']:g} / {words['max']:,} "
        "(min / median / mean / 95 % / max)"
    )
    held = ", ".join(f"{name} {n:,}" for name, n in found["placeholders"].items())
    out.print(
        f"placeholders in {found['placeholder_share']:.1%} of texts" + (f": {held}" if held else ""), markup=False
    )
    _close(found, folder)


def _close(found: Mapping[str, Any], folder: Path) -> None:
    for warning in found["warnings"]:
        out.print(f"[yellow]![/yellow] {worded(warning)}", soft_wrap=True)
    out.print(f"[dim]pictures: {escape(str(folder))}[/dim]", soft_wrap=True)
