"""The table of all ``*.export.json`` below a folder of runs: what exporting kept, cost and gained.

    python artifacts/reports/export/table.py FOLDER

Each file was written by ``samo export RUN [--quantize int8] [--prune 0.3 --prune-epochs 1] --force --threads 1``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEADS = (
    "file", "checked on", "largest difference in float32", "labels equal in float32",
    "macro-F1 of the run", "of the file", "interval of the difference", "labels equal",
    "run, float32, file MB", "batch 1: torch, float32, file ms", "batch 32: torch, float32, file ms",
    "would be refused for",
)  # fmt: skip

ABOUT = """
cnn: small-cnn on a fold of RAVDESS. mn04: preset mn04 on a fold of RAVDESS. whisper: preset whisper-frozen on a fold of
RAVDESS, its dynamic weights signed with 7 bits (before they became unsigned with 8). tfidf: on GoEmotions. minilm:
all-MiniLM-L6-v2 frozen under a logistic regression, on a twentieth of GoEmotions' training texts. textcnn: one epoch on
a tenth of them: its scores say nothing, its parity does. Files without a row of their own in float32 were written in
float32 first: the columns about float32 are of that file. Times are medians of answers in turn, on a machine of two
cores that did other work too: compare them within a row.

functionals on a fold of RAVDESS is not there: `samo export` refused it, a logit lay 0.11 away. Which number of
the clip differed was not looked up; it counts peaks of the level and picks periods, where rounding can decide.
"""


def cells(facts: dict[str, Any]) -> list[str]:
    """One row."""
    exact, parity, sizes = facts["exact"], facts["parity"], facts["size_mb"]
    f1 = parity["macro_f1"]
    ends = "-" if f1["low"] is None else f"{f1['low']:+.3f} to {f1['high']:+.3f}"
    last = "int8" if facts["quantised"] else facts["format"]
    times = [
        ", ".join(f"{spent[name]:.1f}" for name in dict.fromkeys(("torch", facts["format"], last)))
        for spent in facts["latency_ms"].values()
    ]
    return [
        facts["file"], f"{parity['n']} of {parity['part']}", f"{exact['largest_difference']:.1e}",
        f"{exact['equal_labels']:.1%}", f"{f1['before']:.3f}", f"{f1['after']:.3f}", ends,
        f"{parity['equal_labels']:.1%}", f"{sizes['run']:.2f}, {sizes['float32']:.2f}, {sizes['file']:.2f}", *times,
        "; ".join(facts["forced"]) or "-",
    ]  # fmt: skip


def main(folder: Path) -> None:
    """Print the table."""
    print(f"\n| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    for path in sorted(folder.rglob("*.export.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        print(f"| {' | '.join(cells(facts))} |")
    print(ABOUT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
