"""The five cells of each seed that are best on the validation part, as one; cells of a seed share their split.

    python ensembles.py ARTIFACTS DATA_ROOT GRID [GRID ...]

Prints a Markdown table, and writes it to ``ensembles.md`` beside this file: what the ensemble gains on test over its
best member by validation, with the 95 % interval over the seed's five test speakers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BEST = 5


def main(artifacts: Path, data: str, grids: list[str]) -> None:
    """Make what is missing and write the table."""
    lines = []
    heads = ("question", "seed", "five best cells on validation", "mean of members", "best by validation", "ensemble")
    lines += ["| " + " | ".join((*heads, "gain [95 %]", "")) + " |", "|---|--:|---|--:|--:|--:|--:|---|"]
    for grid in grids:
        runs = artifacts / "grids" / grid / "runs"
        for seed in sorted({path.name.rpartition(".seed")[2] for path in runs.iterdir()}):
            cells = [path for path in runs.glob(f"*.seed{seed}") if (path / "report.json").is_file()]
            score = {path.name: read(path / "trained.json")["val_macro_f1"] for path in cells}
            chosen = sorted(score, key=lambda name: -score[name])[:BEST]
            name = f"best-{grid}-seed{seed}"
            made = artifacts / "runs" / name / "ensemble.json"
            if not made.is_file():
                members = [f"{grid}/{cell}" for cell in chosen]
                command = [sys.executable, "-m", "samo_cli", "ensemble", *members, "--name", name, "--data-root", data]
                subprocess.run(
                    [*command, "--artifacts", str(artifacts), "--threads", "1", "--json"], check=True, stdout=-3
                )
            account = read(made)
            gain = account["gain"]
            best = next(member for member in account["members"] if member["name"] == account["best_member"])
            kinds = ", ".join(cell.rpartition(".seed")[0] for cell in chosen)
            lines.append(
                f"| {grid} | {seed} | {kinds} | {account['mean_of_members']:.3f} | {best['macro_f1']:.3f} "
                f"| {account['ensemble']['macro_f1']:.3f} "
                f"| {gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] | {gain['verdict']} |"
            )
    print("\n".join(lines))
    Path(__file__).with_name("ensembles.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
