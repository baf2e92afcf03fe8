"""What an exported file is, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samo_cli.render.console import err, out
from samo_cli.render.tables import show_table

__all__ = ["show_export"]


def show_export(path: Path, facts: Mapping[str, Any]) -> None:
    """The checks a file passed, its size and its speed."""
    exact, parity, sizes = facts["exact"], facts["parity"], facts["size_mb"]
    f1 = parity["macro_f1"]
    ends = "" if f1["low"] is None else f" [{f1['low']:+.3f} to {f1['high']:+.3f}]"
    rows = [
        ("checked on", f"{parity['n']} items of the {parity['part']} part"),
        ("largest difference of logits", f"{exact['largest_difference']:.1e} in float32"),
        ("equal labels", f"{parity['equal_labels']:.1%}"),
        ("macro-F1 of the run, of the file", f"{f1['before']:.3f}, {f1['after']:.3f}{ends}"),
        ("size of the run's weights, of the file", f"{sizes['run']:.2f} MB, {sizes['file']:.2f} MB"),
    ]
    for batch, spent in facts["latency_ms"].items():
        rows.append((f"a batch of {batch}", ", ".join(f"{name} {ms:.1f} ms" for name, ms in spent.items())))
    show_table(("file", str(path)), rows, whole=("file",))
    for problem in facts["forced"]:
        err.print(f"[yellow]![/yellow] kept by force: {problem}", soft_wrap=True)
    out.file.flush()
